"""Nearest neighbours and scores against brute force on the full distance matrix."""

import math
from functools import partial
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch
from oracles import Largest, M, bad_options, measured, measures_memory, member, normal, over_family, refusals
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
    products,
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
    monkeypatch.setattr(products, "_GROUP", 4)


# --- knn --------------------------------------------------------------------------------------------------------------


@over_family
def test_knn_and_rankings_equal_brute_force(
    name: str, anchor: str, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, d = normal(54, M), member(name, anchor)
    for reference, most in ((None, 53), (normal(54, M, seed=1), 54), (normal(7, M, seed=1), 7)):
        for k in (1, 7, most):  # 54 in groups of 4: 14 groups, 2 columns of padding, two rounds for k <= 7
            expected = brute_force(d, k, query, reference)
            assert_same(knn(query, k, reference, d), expected)
            for exact in (1, 50):  # however few places are measured
                monkeypatch.setattr(neighbours, "_EXACT", exact)
                assert torch.equal(torch.cat([*ranking_blocks(query, k, reference, d)]), expected[1])


@over_family
def test_no_result_is_larger_than_a_block(name: str, anchor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 2000)
    x = normal(100, M)
    with Largest() as largest:
        knn(x, 5, distance=member(name, anchor))
    assert 100 * M < largest.numel <= 2000  # or than a copy of one side
    with Largest() as largest:
        classify(x, None, torch.arange(100) % 25, 30, member(name, anchor))
    assert largest.numel <= 2000  # k x k votes of each query would be 900 times the 20 queries of a block


@pytest.mark.parametrize("backend", BACKENDS)
@over_family
def test_self_is_left_out_by_index(name: str, anchor: str, backend: str) -> None:
    x, copies = normal(40, M).float(), {3, 20, 21, 22, 23}
    x[20:24] = x[3]
    for k in (4, 2):  # as many places as duplicates, and fewer
        distances, indices = knn(x, k, distance=member(name, anchor), backend=backend)
        assert not (indices == torch.arange(40)[:, None]).any()
        for i in copies:
            assert len({*indices[i].tolist()} & copies) == k
            assert (distances[i] == 0).all()


@over_family
def test_faiss_finds_the_same_neighbours(name: str, anchor: str) -> None:
    pytest.importorskip("faiss")
    query, d = normal(60, M).float(), member(name, anchor)
    for reference in (None, normal(60, M, seed=1).float()):
        distances, indices = brute_force(d, 6, query.double(), None if reference is None else reference.double())
        assert (distances.diff(dim=1) > 1e-6 * distances[:, 1:]).all()  # separated: float32 can tell them apart
        found = knn(query, 5, reference, d, backend="faiss")
        assert_same(found, (distances[:, :5], indices[:, :5]), tolerance=2e-6)
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
    ("call", "shrink", "components", "classes", "least"),  # MiB that it cannot do without, else it is not measured
    [
        ("knn(x[:1500], 10, x, d)", 1, 512, 600, 100),
        # A model: what grows with the square of n, and the blocks, shrink as much as the limit.
        ("retrieval(x, y, d)", 8, 16, 10, 5),  # as CIFAR10: MAP@R looks at a tenth of all neighbours of each
        ("retrieval(x, y, d, also='mean_average_precision')", 8, 16, 10, 5),  # at all of them
        ("confusion(x, y, 29, d)", 4, 16, 600, 5),
        ("verification(x, y, d)", 1, 512, 600, 10),
        ("clustering(x, y, d)", 1, 64, 100, 10),
    ],  # `evaluate` and `compare` are these in turn
)
def test_judging_60000_embeddings_takes_at_most_1_gib(
    call: str, shrink: int, components: int, classes: int, least: int
) -> None:
    n = 60_000 // shrink
    beyond_the_data = measured(f"""
import torch
from snrlib.distances import get_distance
from snrlib.evaluate import clustering, confusion, knn, neighbours, retrieval, verification

neighbours._BLOCK //= {shrink**2}
generator = torch.Generator().manual_seed(0)
embeddings, labels = torch.empty({n}, {components}), torch.arange({n}) % {classes}
centres = torch.randn({classes}, {components}, generator=generator)
for block in torch.arange({n}).split(1000):  # in place: a copy would raise the peak before the measurement
    embeddings[block] = centres[labels[block]] + torch.randn(len(block), {components}, generator=generator)
d = get_distance("snr", anchor="ref")
call = lambda x, y: {call}
call(embeddings[:60], torch.arange(60) % 3)
before = peak()
call(embeddings, labels)
print(peak() - before)
""")
    copies, own = 2 * 4 * 60_000 * 512, 2 * 4 * n * components  # bytes of both sides: of all, and here
    assert least * 2**20 < beyond_the_data <= (2**30 - copies) / shrink**2 + own


# --- retrieval --------------------------------------------------------------------------------------------------------


def naive_scores(D: Tensor, labels: list[int], ks: tuple[int, ...]) -> list[list[float]]:
    """One row per query: a hit among the k nearest, for every k; R-precision; average precision at R. NaN without R."""
    n, rows = len(labels), []
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: D[i, j].item())
        hits = [labels[j] == labels[i] for j in others]
        R = sum(hits)
        precisions = [sum(hits[: r + 1]) / (r + 1) for r in range(R) if hits[r]]
        row = [float(any(hits[:k])) for k in ks] + [value / max(R, 1) for value in (sum(hits[:R]), sum(precisions))]
        rows.append(row if R else [math.nan] * len(row))
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
def test_votes_equal_the_naive_loop(name: str, anchor: str, small_blocks: None) -> None:
    query, reference, d = normal(30, M), normal(40, M, seed=1), member(name, anchor)
    labels = [7 * (i % 4) - 5 for i in range(40)]
    D, left_out = d(query, reference), d(query).fill_diagonal_(math.inf)
    for k in (1, 2, 4, 25):
        assert classify(query, reference, torch.tensor(labels), k, d).tolist() == naive_votes(D, labels, k)
        alone = classify(query, None, torch.tensor(labels[:30]), k, d).tolist()
        assert alone == naive_votes(left_out, labels[:30], k)


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
    assert len(most_confused(matrix)) == 10 < len(most_confused(matrix, n=12))  # of 12 kinds; the doctest shows them


MATRIX = pd.DataFrame([[5, 4], [2, 8]], index=["cat", "dog"], columns=["cat", "dog"])


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
    (lambda: most_confused(MATRIX[["dog", "cat"]]), ValueError, "same classes in rows and columns"),
    (lambda: verification(x34, y3), ValueError, "hold no negative pair"),
    (lambda: verification(x34, torch.arange(3)), ValueError, "hold no positive pair"),
    (lambda: interval([1.0, math.nan]), ValueError, r"two scores and a level in \(0, 1\), got 1 and 0.95"),
)
