"""Nearest neighbours and scores against brute force on the full distance matrix."""

import math
from functools import partial
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch
from oracles import Largest, M, bad_options, measured, measures_memory, member, normal, over_family, refusals
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, confusion_matrix, normalized_mutual_info_score
from torch import Tensor

from snrlib.distances import Distance, get_distance
from snrlib.evaluate import (
    classify,
    clustering,
    compare,
    confusion,
    evaluate,
    interval,
    judges,
    knn,
    most_confused,
    neighbours,
    ranking_blocks,
    retrieval,
    verification,
)

BACKENDS = ["torch", pytest.param("faiss", marks=pytest.mark.skipif(not find_spec("faiss"), reason="needs faiss"))]


def brute_force(d: Distance, k: int, query: Tensor, reference: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Select from the full matrix; it is tested against naive loops in test_distances."""
    D = d(query, reference)
    if reference is None:
        D.fill_diagonal_(math.inf)
    distances, indices = D.topk(k, largest=False)
    return distances, indices


def assert_same(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tolerance: float = 1e-10) -> None:
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=0, check_dtype=False)
    assert (found[0].diff(dim=1) >= 0).all()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 1000)
    monkeypatch.setattr(neighbours, "_GROUP", 4)


# --- knn --------------------------------------------------------------------------------------------------------------


@over_family
@pytest.mark.parametrize("n_reference", [None, 54, 7])
def test_knn_and_rankings_equal_brute_force(
    name: str, anchor: str, n_reference: int | None, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, d = normal(54, M), member(name, anchor)
    reference = None if n_reference is None else normal(n_reference, M, seed=1)
    for k in (1, 3, 7, n_reference or 53):  # 54 in groups of 4: 14 groups, 2 columns of padding, two rounds for k <= 7
        expected = brute_force(d, k, query, reference)
        assert_same(knn(query, k, reference, d), expected)
        for exact in (1, 3, 50):  # however few places are measured
            monkeypatch.setattr(neighbours, "_EXACT", exact)
            assert torch.equal(torch.cat([*ranking_blocks(query, k, reference, d)]), expected[1])


@over_family
def test_knn_equals_brute_force_in_two_rounds(name: str, anchor: str) -> None:
    query, reference, d, k = normal(700, M), normal(800, M, seed=1), member(name, anchor), 10
    assert len(query) > 2 * k * neighbours._GROUP  # hence two rounds
    assert_same(knn(query, k, distance=d), brute_force(d, k, query))
    assert_same(knn(query[:300], k, reference, d), brute_force(d, k, query[:300], reference))


@over_family
def test_no_result_is_larger_than_a_block(name: str, anchor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 4000)
    with Largest() as largest:
        knn(normal(300, M), 5, distance=member(name, anchor))
    assert 300 * M < largest.numel <= 4000  # or than a copy of one side
    with Largest() as largest:
        classify(normal(200, M), None, torch.arange(200) % 50, 60, member(name, anchor))
    assert largest.numel <= 4000  # k x k votes of each query would be 3,600 times the 20 queries of a block


@over_family
@pytest.mark.parametrize("backend", BACKENDS)
def test_self_is_left_out_by_index(name: str, anchor: str, backend: str) -> None:
    x, copies = normal(40, M).float(), {3, 20, 21, 22, 23}
    x[20:24] = x[3]
    for k in (4, 2):  # as many places as duplicates, and fewer
        distances, indices = knn(x, k, distance=member(name, anchor), backend=backend)
        for i, found in enumerate(indices.tolist()):
            assert i not in found
            if i in copies:
                assert len({*found}) == k
                assert copies.issuperset(found)
                assert (distances[i] == 0).all()


@over_family
@pytest.mark.parametrize("n_reference", [None, 60])
def test_faiss_finds_the_same_neighbours(name: str, anchor: str, n_reference: int | None) -> None:
    pytest.importorskip("faiss")
    query, d = normal(60, M).float(), member(name, anchor)
    reference = None if n_reference is None else normal(n_reference, M, seed=1).float()
    exact = brute_force(d, 6, query.double(), None if reference is None else reference.double())
    assert (exact[0].diff(dim=1) > 1e-6 * exact[0][:, 1:]).all()  # separated: float32 can tell them apart
    exact = exact[0][:, :5], exact[1][:, :5]
    assert_same(knn(query, 5, reference, d, backend="faiss"), exact, tolerance=2e-6)
    with pytest.raises(ValueError, match=r"float32 on the CPU, got torch\.float64 on cpu"):  # rather than round it
        knn(query.double(), 5, backend="faiss")


def test_long_rankings_measure_their_first_places_only(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, pairwise = [], Distance.pairwise_distance

    def count(self: Distance, x: Tensor, y: Tensor) -> Tensor:
        measured.append(len(x))
        return pairwise(self, x, y)

    monkeypatch.setattr(Distance, "pairwise_distance", count)
    assert torch.cat([*ranking_blocks(normal(300, 2), 299)]).shape == (300, 299)
    assert sum(measured) == 300 * 128


@pytest.mark.slow
@measures_memory
@pytest.mark.parametrize(
    ("call", "classes", "least"),  # MiB that it cannot do without; less would be a measuring error
    [
        ("knn(x, 10, distance=d)", 600, 100),
        ("retrieval(x, y, d)", 10, 100),  # as CIFAR10: MAP@R looks at 5,999 neighbours of each
        ("evaluate(x, y, d, cluster=False)", 600, 100),
        ("classify(x[::2], x[1::2], y[1::2], 29, d)", 600, 50),
        ("confusion(x, y, 29, d)", 600, 100),
        ("verification(x, y, d)", 600, 10),
        ("clustering(x, y, d)", 100, 100),
    ],  # `compare` is these in turn
)
def test_judging_60000_embeddings_takes_at_most_1_gib(call: str, classes: int, least: int) -> None:
    beyond_the_data = measured(f"""
import torch
from snrlib.distances import get_distance
from snrlib.evaluate import classify, clustering, confusion, evaluate, knn, retrieval, verification

generator = torch.Generator().manual_seed(0)
embeddings = torch.randn(60_000, 512, generator=generator)
labels = torch.arange(60_000) % {classes}
centres = torch.randn({classes}, 512, generator=generator)
for block in torch.arange(60_000).split(1000):  # in place: a copy would raise the peak before the measurement
    embeddings[block] += centres[labels[block]]
d = get_distance("snr", anchor="ref")
call = lambda x, y: {call}
call(embeddings[:60], torch.arange(60) % 3)
before = peak()
call(embeddings, labels)
print(peak() - before)
""")
    assert least * 2**20 < beyond_the_data <= 2**30


# --- retrieval --------------------------------------------------------------------------------------------------------


def naive_scores(D: Tensor, labels: list[int], ks: tuple[int, ...]) -> list[list[float]]:
    """One row per query: a hit among the k nearest, for every k; R-precision; average precision at R. NaN without R."""
    n, rows = len(labels), []
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: D[i, j].item())
        hits = [labels[j] == labels[i] for j in others]
        R = sum(hits)
        average = sum(sum(hits[: r + 1]) / (r + 1) for r in range(R) if hits[r]) / R if R else math.nan
        rows.append(
            [float(any(hits[:k])) if R else math.nan for k in ks] + [sum(hits[:R]) / R if R else math.nan, average]
        )
    return rows


SCORES = ["precision_at_1", "recall_at_2", "recall_at_4", "recall_at_8", "r_precision", "mean_average_precision_at_r"]


@over_family
def test_scores_of_every_query_equal_the_loop(
    name: str, anchor: str, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_EXACT", 2)
    x, d = normal(30, M), member(name, anchor)
    labels = [i % 3 for i in range(26)] + [7, 7, 7] + [50]  # and a class of one, which the means leave out
    expected = np.array(naive_scores(d(x), labels, (1, 2, 4, 8)))
    scores = retrieval(x, torch.tensor(labels), d)
    assert list(scores) == SCORES
    np.testing.assert_allclose(scores.to_numpy(), expected, rtol=1e-12)
    means = evaluate(x, torch.tensor(labels), d, cluster=False)
    assert list(means.values()) == pytest.approx(np.nanmean(expected, axis=0), rel=1e-12)
    assert all(math.isnan(score) for score in evaluate(x, torch.arange(30), d, cluster=False).values())


def test_scores_equal_pytorch_metric_learning() -> None:
    x, labels = normal(200, M), torch.arange(200) % 9
    x[:, 0] += labels / 2
    oracle = CustomKNN(LpDistance(normalize_embeddings=False))
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    peer = AccuracyCalculator(names, k="max_bin_count", knn_func=oracle)
    scores = evaluate(x, labels, cluster=False)
    assert {name: scores[name] for name in names} == pytest.approx(peer.get_accuracy(x, labels), rel=1e-12)


# --- clustering, classification ---------------------------------------------------------------------------------------


@over_family
def test_clusters_are_those_of_the_mapped_space(name: str, anchor: str) -> None:
    x, labels, d = normal(40, M), torch.arange(40) % 4, member(name, anchor)
    x[:, 0] += labels
    found = KMeans(4, n_init=3, random_state=0).fit_predict(d.embed(x).numpy())
    pairs = [(labels[i] == labels[j], found[i] == found[j]) for i in range(40) for j in range(i)]
    both, same, together = (sum(map(bool, column)) for column in zip(*((a and b, a, b) for a, b in pairs), strict=True))
    scores = clustering(x, labels, d)
    assert scores["F1"] == pytest.approx(2 * both / (same + together))
    assert scores["NMI"] == pytest.approx(normalized_mutual_info_score(labels, found))
    assert scores["AMI"] == pytest.approx(adjusted_mutual_info_score(labels, found))


def naive_votes(D: Tensor, labels: list[int], k: int) -> list[int]:
    """The most frequent of the k nearest labels, the nearest of them in a tie; infinite distances do not vote."""
    found = []
    for row in D.tolist():
        nearest = [labels[j] for j in sorted(range(len(row)), key=lambda j: row[j])[:k]]
        found.append(max(nearest, key=lambda label: (nearest.count(label), -nearest.index(label))))
    return found


@over_family
@pytest.mark.parametrize("k", [1, 2, 4, 25])
def test_votes_equal_the_naive_loop(name: str, anchor: str, k: int, small_blocks: None) -> None:
    query, reference, d = normal(30, M), normal(40, M, seed=1), member(name, anchor)
    labels = [7 * (i % 4) - 5 for i in range(40)]
    found = classify(query, reference, torch.tensor(labels), k, d).tolist()
    assert found == naive_votes(d(query, reference), labels, k)
    left_out = d(query).fill_diagonal_(math.inf)
    assert classify(query, None, torch.tensor(labels[:30]), k, d).tolist() == naive_votes(left_out, labels[:30], k)


def test_a_confusion_matrix_counts_each_class_once() -> None:
    x, labels = normal(60, M), 3 * (torch.arange(60) % 4) + 1  # 1, 4, 7, 10
    matrix = confusion(x, labels, 5, get_distance("snr"))
    predicted = classify(x, None, labels, 5, get_distance("snr"))
    assert (matrix.to_numpy() == confusion_matrix(labels, predicted)).all()
    assert list(matrix.index) == list(matrix.columns) == [1, 4, 7, 10]
    assert (matrix.sum(axis=1) == 15).all()
    named = confusion(x, labels, 5, get_distance("snr"), classes=[f"class {i}" for i in range(11)])
    assert list(named.columns) == ["class 1", "class 4", "class 7", "class 10"]
    accuracy = np.trace(confusion(x, labels).to_numpy()) / 60
    assert accuracy == pytest.approx(evaluate(x, labels, cluster=False)["precision_at_1"], rel=1e-12)


NAMES = ["cat", "dog", "ship"]
MATRIX = pd.DataFrame([[5, 4, 1], [2, 8, 0], [0, 0, 20]], index=NAMES, columns=NAMES)


def test_the_most_confused_classes_are_named() -> None:
    table = most_confused(MATRIX)
    assert table.to_numpy().tolist() == [["cat", "dog", 4, 0.4], ["dog", "cat", 2, 0.2], ["cat", "ship", 1, 0.1]]
    assert list(table) == ["class", "taken for", "count", "share"]
    assert len(most_confused(MATRIX, n=2)) == 2
    assert most_confused(pd.DataFrame(np.diag([3, 4]))).empty


# --- verification -----------------------------------------------------------------------------------------------------


@over_family
def test_verification_takes_every_ordered_pair(name: str, anchor: str) -> None:
    x, d, labels = normal(14, M), member(name, anchor), torch.tensor([0, 3, 0, 1, 1, 0, 3, 1, 0, 9, 1, 3, 3, 0])
    D = d(x)
    pairs = [(bool(labels[i] == labels[j]), D[i, j].item()) for i in range(14) for j in range(14) if i != j]
    positive, negative = ([value for same, value in pairs if same is kind] for kind in (True, False))
    found = verification(x, labels, d)
    np.testing.assert_allclose(np.sort(found.positive), np.sort(positive), rtol=1e-9)
    np.testing.assert_allclose(np.sort(found.negative), np.sort(negative), rtol=1e-9)
    wins = np.mean([(n > p) + 0.5 * (n == p) for p in positive for n in negative])
    assert abs(found.AUC - wins) < 1e-12


def test_both_errors_are_equal_at_the_threshold() -> None:
    x, labels = normal(300, M), torch.arange(300) % 3
    x[:, 0] += labels
    found = verification(x, labels)
    misses, false_alarms = (found.positive > found.threshold).mean(), (found.negative <= found.threshold).mean()
    assert (misses, false_alarms) == pytest.approx((found.EER, found.EER), abs=2e-3)
    for spread, expected in ((0.0, (0.5, 0.5)), (0.1, (1, 0))):  # nothing told apart, and no error left
        found = verification(spread * torch.tensor([[1.0], [1.1], [7.0], [7.3]]), torch.tensor([0, 0, 1, 1]))
        scores = found.AUC, found.EER
        assert scores == expected
        assert found.threshold == found.positive.max()


def test_drawn_pairs_are_seeded_and_close_to_all() -> None:
    x, labels = normal(400, M), torch.arange(400) % 7
    x[:, 0] += labels / 2
    everything = verification(x, labels, n_pairs=10**6)
    assert len(everything.positive) + len(everything.negative) == 400 * 399
    drawn, again = (verification(x, labels, n_pairs=5000, seed=3) for _ in range(2))
    assert len(drawn.positive) == len(drawn.negative) == 5000
    assert np.array_equal(drawn.positive, again.positive)
    assert set(drawn.positive) <= set(everything.positive)
    assert set(drawn.negative) <= set(everything.negative)
    assert abs(drawn.AUC - everything.AUC) < 0.03  # four standard errors of 5,000 pairs, and more


# --- together ---------------------------------------------------------------------------------------------------------


def test_a_comparison_names_distance_and_anchor_side() -> None:
    x, labels, d = normal(30, M), torch.arange(30) % 3, get_distance("snr")
    table = compare(x, labels, d)
    assert list(table.index) == ["training distance, anchor query", "training distance, anchor ref", "Euclid"]
    assert list(table.columns) == [*SCORES, "NMI", "AMI", "F1", "AUC", "EER"]
    by_ref = evaluate(x, labels, get_distance("snr", anchor="ref"), cluster=False)
    assert table.loc["training distance, anchor ref", SCORES].to_dict() == by_ref
    assert [one[1:3] for one in judges(d)] == [("training", "query"), ("training", "ref"), ("euclidean", None)]
    assert d.anchor == "query"
    assert list(compare(x, labels, get_distance("centred_euclidean")).index) == ["training distance", "Euclid"]


def test_the_interval_of_many_is_normal() -> None:
    scores = normal(4000).numpy()
    half = 1.96 * scores.std() / 4000**0.5
    ends = scores.mean() - half, scores.mean() + half
    assert interval([*scores, math.nan]) == pytest.approx(ends, abs=0.1 * half)


x34, y3 = normal(3, 4), torch.zeros(3).long()


test_bad_arguments_are_refused_and_named = refusals(
    *bad_options(partial(knn, x34), k=[0, 3, 1.0, True]),
    *bad_options(partial(knn, x34, reference=x34), k=[4]),
    *bad_options(partial(knn, x34[:1]), k=[1]),
    *bad_options(partial(knn, x34, 1), backend=["annoy"]),
    *bad_options(partial(evaluate, x34, y3), ks=[(), (0, 1)]),
    *bad_options(partial(most_confused, MATRIX), n=[0]),
    *bad_options(partial(verification, x34, y3), n_pairs=[0]),
    (lambda: knn(x34[0], 1), ValueError, r"query must be 2-D .* got shape \(4,\)"),
    (lambda: knn(x34, 1, x34 * math.nan), ValueError, "reference must be finite, got NaN .* 3 of 3 rows"),
    (lambda: knn(x34, 1, normal(3, 5)), ValueError, "same number of components M, got 4 and 5"),
    (lambda: knn(x34, 1, x34.float()), TypeError, "share dtype and device, got torch.float64 .* torch.float32"),
    (lambda: classify(x34, None, torch.arange(3), 3), ValueError, "k must be an integer from 1 to 2, .* got 3"),
    (lambda: classify(x34, x34[:2], torch.arange(3)), ValueError, r"labels must be 2 integers.* of shape \(3,\)"),
    *(
        (lambda y=y: evaluate(x34, y), ValueError, f"labels must be 3 integers, got {y.dtype} of shape")
        for y in (torch.arange(2), y3[:, None], y3.float())
    ),
    (lambda: evaluate(x34, y3, ks=(1, 3)), ValueError, "k must be an integer from 1 to 2, .* got 3"),
    (lambda: evaluate(x34[:0], y3[:0]), ValueError, r"must not be empty, got shape \(0, 4\)"),
    (lambda: confusion(x34, y3 + 10, classes=[""] * 10), ValueError, "labels must index the 10 classes, got 10 to 10"),
    (lambda: most_confused(MATRIX[["dog", "cat", "ship"]]), ValueError, "same classes in rows and columns"),
    (lambda: verification(x34, y3), ValueError, "hold no negative pair"),
    (lambda: verification(x34, torch.arange(3)), ValueError, "hold no positive pair"),
    (lambda: interval([1.0, math.nan]), ValueError, r"two scores and a level in \(0, 1\), got 1 and 0.95"),
)
