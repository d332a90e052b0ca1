"""Nearest neighbours and scores against brute force on the full distance matrix."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracles import Largest, M, member, normal, over_family
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.cluster import KMeans
from torch import Tensor

import snrlib.evaluate.neighbours
from snrlib.distances import Distance, get_distance
from snrlib.evaluate import (
    classify,
    clustering,
    compare,
    confusion,
    evaluate,
    interval,
    knn,
    most_confused,
    ranking_blocks,
    retrieval,
    verification,
)


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


def small_blocks(monkeypatch: pytest.MonkeyPatch, block: int = 1000, group: int = 4) -> None:
    monkeypatch.setattr(snrlib.evaluate.neighbours, "_BLOCK", block)
    monkeypatch.setattr(snrlib.evaluate.neighbours, "_GROUP", group)


# --- knn --------------------------------------------------------------------------------------------------------------


@over_family
@pytest.mark.parametrize("n_reference", [None, 54, 7])
@pytest.mark.parametrize("k", [1, 3, 7, None])  # 54 references in groups of 4: 14 groups, 2 columns of padding, k <= 7
def test_knn_equals_brute_force_in_small_blocks_and_two_rounds(
    name: str, anchor: str, n_reference: int | None, k: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    query, d = normal(54, M), member(name, anchor)
    reference = None if n_reference is None else normal(n_reference, M, seed=1)
    k = k or (n_reference or 53)  # all there are
    assert_same(knn(query, k, reference, d), brute_force(d, k, query, reference))


@over_family
def test_knn_equals_brute_force_in_two_rounds_of_the_real_size(name: str, anchor: str) -> None:
    query, reference, d, k = normal(1500, M), normal(3000, M, seed=1), member(name, anchor), 10
    assert len(query) > 2 * k * snrlib.evaluate.neighbours._GROUP  # hence two rounds
    assert_same(knn(query, k, distance=d), brute_force(d, k, query))
    assert_same(knn(query[:300], k, reference, d), brute_force(d, k, query[:300], reference))


@over_family
def test_knn_makes_nothing_larger_than_a_block_or_a_copy_of_one_side(
    name: str, anchor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch, block=4000)
    with Largest() as largest:
        knn(normal(300, M), 5, distance=member(name, anchor))
    assert 300 * M < largest.numel <= 4000


@pytest.mark.parametrize("backend", ["torch", "faiss"])
@pytest.mark.parametrize("k", [4, 2])  # as many places as duplicates, and fewer
@over_family
def test_self_is_left_out_by_index_so_duplicates_are_found(name: str, anchor: str, k: int, backend: str) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    x = normal(40, M).float()
    x[20:24] = x[3]
    copies = {3, 20, 21, 22, 23}
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


x34 = normal(3, 4)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: knn(x34, 0), ValueError, "k must be an integer from 1 to 2, .* got 0"),
        (lambda: knn(x34, 3), ValueError, "k must be an integer from 1 to 2, .* got 3"),
        (lambda: knn(x34, 4, x34), ValueError, "k must be an integer from 1 to 3, .* got 4"),
        (lambda: knn(x34[:1], 1), ValueError, "k must be an integer from 1 to 0, .* got 1"),
        (lambda: knn(x34, 1, backend="annoy"), ValueError, "backend must be one of torch, faiss, got 'annoy'"),
        (lambda: knn(x34[0], 1), ValueError, r"query must be 2-D .* got shape \(4,\)"),
        (lambda: knn(x34.long(), 1), TypeError, "query must be floating point, got torch.int64"),
        (lambda: knn(x34, 1, x34 * math.nan), ValueError, "reference must be finite, got NaN .* 3 of 3 rows"),
        (lambda: knn(x34, 1, normal(3, 5)), ValueError, "same number of components M, got 4 and 5"),
        (lambda: knn(x34, 1, x34.float()), TypeError, "share dtype and device, got torch.float64 .* torch.float32"),
        (lambda: evaluate(x34[:0], torch.arange(0)), ValueError, r"must not be empty, got shape \(0, 4\)"),
        (lambda: classify(x34, None, torch.arange(3), 3), ValueError, "k must be an integer from 1 to 2, .* got 3"),
        (lambda: classify(x34, x34[:2], torch.arange(3)), ValueError, r"labels must be 2 integers.* of shape \(3,\)"),
        (lambda: evaluate(x34, torch.arange(2)), ValueError, r"labels must be 3 integers.* of shape \(2,\)"),
        (lambda: evaluate(x34, torch.zeros(3, 1).long()), ValueError, r"labels must be 3 integers.* of shape \(3, 1\)"),
        (lambda: evaluate(x34, torch.zeros(3)), ValueError, "labels must be 3 integers.* got torch.float32"),
        (lambda: evaluate(x34, [0, 0, 1]), (TypeError, ValueError), "labels must be .*got list"),  # type: ignore[arg-type]
        (lambda: evaluate(x34, torch.zeros(3).long(), ks=()), ValueError, r"ks must be .*positive integers, got \(\)"),
        (lambda: evaluate(x34, torch.zeros(3).long(), ks=(0, 1)), ValueError, r"positive integers, got \(0, 1\)"),
        (
            lambda: evaluate(x34, torch.zeros(3).long(), ks=(1, 3)),
            ValueError,
            "k must be an integer from 1 to 2, .* got 3",
        ),
        (
            lambda: evaluate(x34 * math.inf, torch.zeros(3).long(), ks=(1,)),
            ValueError,
            "must be finite, got NaN or inf",
        ),
    ],
)
def test_bad_arguments_are_refused_and_named(call: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_faiss_refuses_float64_rather_than_round_it() -> None:
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match=r"float32 on the CPU, got torch\.float64 on cpu"):
        knn(x34, 1, backend="faiss")


@over_family
@pytest.mark.parametrize("exact", [1, 3, 50])
def test_a_ranking_is_the_order_of_knn_however_few_places_are_measured(
    name: str, anchor: str, exact: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    monkeypatch.setattr(snrlib.evaluate.neighbours, "_EXACT", exact)
    query, reference, d = normal(30, M), normal(54, M, seed=1), member(name, anchor)
    for k, other in ((20, reference), (54, reference), (29, None)):
        assert torch.equal(torch.cat([*ranking_blocks(query, k, other, d)]), brute_force(d, k, query, other)[1])


def test_a_ranking_of_thousands_measures_no_more_than_its_first_places(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = 0
    pairwise = Distance.pairwise_distance

    def count(self: Distance, x: Tensor, y: Tensor) -> Tensor:
        nonlocal measured
        measured += len(x)
        return pairwise(self, x, y)

    monkeypatch.setattr(Distance, "pairwise_distance", count)
    assert torch.cat([*ranking_blocks(normal(300, 2), 299)]).shape == (300, 299)
    assert measured == 300 * 128


MEASURE = """
import sys
import torch
from snrlib.distances import get_distance
from snrlib.evaluate import classify, clustering, confusion, evaluate, knn, retrieval, verification

def peak():  # bytes; ru_maxrss counts the same, but starts from the peak of the process that started this one
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

classes = int(sys.argv[2])
generator = torch.Generator().manual_seed(0)
x = torch.randn(60_000, 512, generator=generator)
y = torch.arange(60_000) % classes
centres = torch.randn(classes, 512, generator=generator)
for block in torch.arange(60_000).split(1000):  # in place: a copy would raise the peak before the measurement
    x[block] += centres[y[block]]
d = get_distance("snr", anchor="ref")
call = {
    "knn": lambda x, y: knn(x, 10, distance=d),
    "retrieval": lambda x, y: retrieval(x, y, d),
    "evaluate": lambda x, y: evaluate(x, y, d, cluster=False),
    "classify": lambda x, y: classify(x[::2], x[1::2], y[1::2], 29, d),
    "confusion": lambda x, y: confusion(x, y, 29, d),
    "verification": lambda x, y: verification(x, y, d),
    "clustering": lambda x, y: clustering(x, y, d),
}[sys.argv[1]]
call(x[:60], torch.arange(60) % 3)
before = peak()
call(x, y)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
@pytest.mark.parametrize(
    ("function", "classes", "least"),  # MiB that it cannot do without; less would be a measuring error
    [
        ("knn", 600, 100),
        ("retrieval", 10, 100),  # as CIFAR10: MAP@R looks at 5,999 neighbours of each
        ("evaluate", 600, 100),
        ("classify", 600, 50),
        ("confusion", 600, 100),
        ("verification", 600, 10),
        ("clustering", 100, 100),
    ],  # `compare` is these in turn
)
def test_judging_60000_embeddings_takes_at_most_1_gib_beyond_the_data(function: str, classes: int, least: int) -> None:
    command = [sys.executable, "-c", MEASURE, function, str(classes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3600)
    assert least * 2**20 < int(done.stdout) <= 2**30


# --- evaluate ---------------------------------------------------------------------------------------------------------


def naive_scores(D: Tensor, labels: list[int], ks: tuple[int, ...]) -> list[list[float]]:
    """One row a query: a hit among the k nearest, for every k; R-precision; average precision at R. NaN without R."""
    n, rows = len(labels), []
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: D[i, j].item())
        hits = [labels[j] == labels[i] for j in others]
        R = sum(hits)
        if R == 0:
            rows.append([math.nan] * (len(ks) + 2))
            continue
        average = sum(sum(hits[: r + 1]) / (r + 1) for r in range(R) if hits[r]) / R
        rows.append([float(any(hits[:k])) for k in ks] + [sum(hits[:R]) / R, average])
    return rows


SCORES = ["precision_at_1", "recall_at_2", "recall_at_4", "recall_at_8", "r_precision", "mean_average_precision_at_r"]


@over_family
def test_scores_of_every_query_equal_the_naive_loop_in_small_blocks_too(
    name: str, anchor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, d = normal(30, M), member(name, anchor)
    labels = [i % 3 for i in range(26)] + [7, 7, 7] + [50]  # and a class of one
    expected = np.array(naive_scores(d(x), labels, (1, 2, 4, 8)))
    small_blocks(monkeypatch)
    monkeypatch.setattr(snrlib.evaluate.neighbours, "_EXACT", 2)
    scores = retrieval(x, torch.tensor(labels), d)
    assert list(scores) == SCORES
    np.testing.assert_allclose(scores.to_numpy(), expected, rtol=1e-12)
    means = evaluate(x, torch.tensor(labels), d, cluster=False)
    assert list(means.values()) == pytest.approx(np.nanmean(expected, axis=0), rel=1e-12)


def test_scores_equal_pytorch_metric_learning_where_it_defines_them() -> None:
    x, labels = normal(200, M), torch.arange(200) % 9
    x[:, 0] += labels / 2
    oracle = CustomKNN(LpDistance(normalize_embeddings=False))
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    expected = AccuracyCalculator(include=names, k="max_bin_count", knn_func=oracle).get_accuracy(x, labels)
    scores = evaluate(x, labels, cluster=False)
    assert {name: scores[name] for name in names} == pytest.approx(expected, rel=1e-12)
    predicted = torch.from_numpy(KMeans(9, n_init=3, random_state=0).fit_predict(x.numpy()))
    with_clusters = AccuracyCalculator(include=("NMI", "AMI"), kmeans_func=lambda *_: predicted, knn_func=oracle)
    expected = with_clusters.get_accuracy(x, labels)
    assert {name: clustering(x, labels)[name] for name in ("NMI", "AMI")} == pytest.approx(expected, rel=1e-12)


def test_a_class_of_one_has_no_score_and_the_mean_leaves_it_out() -> None:
    x = torch.tensor([[0.0], [1.0], [1.1], [2.0]])
    scores = evaluate(x, torch.tensor([0, 0, 5, 0]), ks=(1, 2), cluster=False)
    assert scores["precision_at_1"] == 1 / 3
    assert scores["recall_at_2"] == 1.0
    assert all(math.isnan(score) for score in evaluate(x, torch.arange(4), ks=(1, 2), cluster=False).values())


def test_a_query_anchor_scores_as_the_centred_euclidean_distance_and_a_ref_anchor_does_not() -> None:
    x = torch.tensor([1.0, 0.5, 3.0, 4.0])[:, None] * torch.tensor([1.0, -1.0])  # for a ref anchor 3 is nearest to 1
    scores = [
        evaluate(x, torch.tensor([0, 0, 1, 1]), d, ks=(1, 2), cluster=False)
        for d in (get_distance("snr"), get_distance("centred_euclidean"), get_distance("snr", anchor="ref"))
    ]
    assert [s["precision_at_1"] for s in scores] == [1.0, 1.0, 0.75]
    assert scores[0] == scores[1]


# --- clustering, classification, verification -------------------------------------------------------------------------


def test_f1_equals_a_count_over_all_pairs() -> None:
    x, labels = normal(40, M), torch.arange(40) % 4
    x[:, 0] += labels
    found = KMeans(4, n_init=3, random_state=0).fit_predict(x.numpy())
    pairs = [(labels[i] == labels[j], found[i] == found[j]) for i in range(40) for j in range(i)]
    both, same, together = (sum(map(bool, column)) for column in zip(*((a and b, a, b) for a, b in pairs), strict=True))
    assert clustering(x, labels)["F1"] == pytest.approx(2 * both / (same + together))


def test_clusters_of_separated_classes_are_perfect_and_do_not_see_the_anchor() -> None:
    labels = torch.arange(30) % 3
    x = 0.01 * normal(30, M) + 5 * torch.eye(M)[labels]
    for distance in (None, get_distance("snr"), get_distance("snr", anchor="ref")):
        assert clustering(x, labels, distance) == pytest.approx({"NMI": 1.0, "AMI": 1.0, "F1": 1.0})


def test_the_nearest_neighbours_vote_and_the_nearest_breaks_ties() -> None:
    reference, labels = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([7, 4, 4, 7])
    query = torch.tensor([[0.4], [1.6]])
    assert classify(query, reference, labels).tolist() == [7, 4]
    assert classify(query, reference, labels, k=3).tolist() == [4, 4]
    assert classify(query, reference, labels, k=2).tolist() == [7, 4]  # one vote each for the first query
    assert classify(query, reference, labels, k=4).tolist() == [7, 4]


def test_votes_equal_scikit_learn_for_one_neighbour_under_euclid() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    reference, query, labels = normal(60, M), normal(30, M, seed=1), torch.arange(60) % 5
    expected = KNeighborsClassifier(1).fit(reference.numpy(), labels.numpy()).predict(query.numpy())
    assert classify(query, reference, labels).tolist() == expected.tolist()


def naive_votes(D: Tensor, labels: list[int], k: int) -> list[int]:
    """The most frequent of the k nearest labels, the nearest of them in a tie; infinite distances do not vote."""
    found = []
    for row in D.tolist():
        nearest = [labels[j] for j in sorted(range(len(row)), key=lambda j: row[j])[:k]]
        found.append(max(nearest, key=lambda label: (nearest.count(label), -nearest.index(label))))
    return found


@over_family
@pytest.mark.parametrize("k", [1, 4, 25])
def test_votes_equal_the_naive_loop_with_references_and_leaving_one_out(
    name: str, anchor: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    query, reference, d = normal(30, M), normal(40, M, seed=1), member(name, anchor)
    labels = [7 * (i % 4) - 5 for i in range(40)]
    assert classify(query, reference, torch.tensor(labels), k, d).tolist() == naive_votes(
        d(query, reference), labels, k
    )
    left_out = d(query).fill_diagonal_(math.inf)
    assert classify(query, None, torch.tensor(labels[:30]), k, d).tolist() == naive_votes(left_out, labels[:30], k)


def test_many_votes_need_no_more_memory_than_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch, block=4000)
    with Largest() as largest:
        classify(normal(200, M), None, torch.arange(200) % 50, k=60)
    assert largest.numel <= 4000  # k x k votes of each query would be 3,600 times the 20 queries of a block


def test_a_confusion_matrix_counts_each_class_once_and_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import confusion_matrix

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
    with pytest.raises(ValueError, match="labels must index the 10 classes, got 1 to 10"):
        confusion(x, labels, classes=[""] * 10)


def test_the_most_confused_classes_are_named_with_their_share() -> None:
    names = ["cat", "dog", "ship"]
    matrix = pd.DataFrame([[5, 4, 1], [2, 8, 0], [0, 0, 20]], index=names, columns=names)
    table = most_confused(matrix)
    assert table.to_numpy().tolist() == [["cat", "dog", 4, 0.4], ["dog", "cat", 2, 0.2], ["cat", "ship", 1, 0.1]]
    assert list(table) == ["class", "taken for", "count", "share"]
    assert len(most_confused(matrix, n=2)) == 2
    assert most_confused(pd.DataFrame(np.diag([3, 4]))).empty
    with pytest.raises(ValueError, match="same classes in rows and columns"):
        most_confused(matrix[["dog", "cat", "ship"]])
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        most_confused(matrix, n=0)


@over_family
def test_verification_takes_every_ordered_pair_when_there_are_few(name: str, anchor: str) -> None:
    x, d, labels = normal(14, M), member(name, anchor), torch.tensor([0, 3, 0, 1, 1, 0, 3, 1, 0, 9, 1, 3, 3, 0])
    D = d(x)
    pairs = [(bool(labels[i] == labels[j]), D[i, j].item()) for i in range(14) for j in range(14) if i != j]
    positive, negative = ([value for same, value in pairs if same is kind] for kind in (True, False))
    found = verification(x, labels, d)
    np.testing.assert_allclose(np.sort(found.positive), np.sort(positive), rtol=1e-9)
    np.testing.assert_allclose(np.sort(found.negative), np.sort(negative), rtol=1e-9)
    wins = np.mean([(n > p) + 0.5 * (n == p) for p in positive for n in negative])
    assert abs(found.AUC - wins) < 1e-12


def test_at_the_equal_error_rate_both_errors_are_equal() -> None:
    x, labels = normal(300, M), torch.arange(300) % 3
    x[:, 0] += labels
    found = verification(x, labels)
    misses, false_alarms = (found.positive > found.threshold).mean(), (found.negative <= found.threshold).mean()
    assert abs(found.EER - misses) < 2e-3
    assert abs(found.EER - false_alarms) < 2e-3


@pytest.mark.parametrize(("spread", "expected"), [(0.0, (0.5, 0.5)), (0.1, (1, 0))])
def test_the_threshold_is_finite_when_no_error_is_left_or_nothing_is_told_apart(
    spread: float, expected: tuple[float, float]
) -> None:
    x = spread * torch.tensor([[1.0], [1.1], [7.0], [7.3]])
    found = verification(x, torch.tensor([0, 0, 1, 1]))
    scores = found.AUC, found.EER
    assert scores == expected
    assert found.threshold == found.positive.max()


def test_drawn_pairs_are_seeded_of_the_right_kind_and_close_to_all_pairs() -> None:
    x, labels = normal(400, M), torch.arange(400) % 7
    x[:, 0] += labels / 2
    everything = verification(x, labels, n_pairs=10**6)
    assert len(everything.positive) + len(everything.negative) == 400 * 399
    drawn = verification(x, labels, n_pairs=5000, seed=3)
    assert len(drawn.positive) == len(drawn.negative) == 5000
    assert np.array_equal(drawn.positive, verification(x, labels, n_pairs=5000, seed=3).positive)
    assert set(drawn.positive) <= set(everything.positive)
    assert set(drawn.negative) <= set(everything.negative)
    assert abs(drawn.AUC - everything.AUC) < 0.03  # four standard errors of 5,000 pairs, and more


@pytest.mark.parametrize(
    ("labels", "message"),
    [(torch.zeros(4).long(), "hold no negative pair"), (torch.arange(4), "hold no positive pair")],
)
def test_verification_without_pairs_of_both_kinds_is_refused(labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verification(normal(4, M), labels)


def test_a_comparison_names_the_distance_and_the_anchor_side_of_every_row() -> None:
    x, labels, d = normal(30, M), torch.arange(30) % 3, get_distance("snr")
    table = compare(x, labels, d)
    assert list(table.index) == ["training distance, anchor query", "training distance, anchor ref", "Euclid"]
    assert list(table.columns) == [*SCORES, "NMI", "AMI", "F1", "AUC", "EER"]
    assert (
        table.loc["training distance, anchor ref", "precision_at_1"]
        == (evaluate(x, labels, get_distance("snr", anchor="ref"), cluster=False)["precision_at_1"])
    )
    assert d.anchor == "query"
    assert list(compare(x, labels, get_distance("centred_euclidean")).index) == ["training distance", "Euclid"]


def test_the_interval_of_a_mean_is_that_of_the_normal_law_for_many_queries() -> None:
    scores = normal(4000).numpy()
    low, high = interval([*scores, math.nan])
    half = 1.96 * scores.std() / 4000**0.5
    assert low == pytest.approx(scores.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(scores.mean() + half, abs=0.1 * half)
    with pytest.raises(ValueError, match=r"two scores and a level in \(0, 1\), got 1 and 0.95"):
        interval([1.0, math.nan])
