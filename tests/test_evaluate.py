"""Nearest neighbours and scores against brute force on the full distance matrix."""

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from oracles import Largest, M, member, normal, over_family
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torch import Tensor

import snrlib.evaluate.neighbours
from snrlib.distances import Distance, get_distance
from snrlib.evaluate import evaluate, knn


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


SEARCH = """
import torch
from snrlib.distances import get_distance
from snrlib.evaluate import knn

def peak():  # bytes; ru_maxrss counts the same, but starts from the peak of the process that started this one
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

x = torch.randn(60_000, 512, generator=torch.Generator().manual_seed(0))
d = get_distance("snr", anchor="ref")
knn(x[:64], 10, distance=d)
before = peak()
distances, indices = knn(x, 10, distance=d)
assert indices.shape == (60_000, 10)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_a_search_among_60000_embeddings_takes_at_most_1_gib_beyond_the_data() -> None:
    done = subprocess.run([sys.executable, "-c", SEARCH], capture_output=True, text=True, check=True, timeout=1800)
    assert 100 * 2**20 < int(done.stdout) <= 2**30  # less than the copy of one side would be a measuring error


# --- evaluate ---------------------------------------------------------------------------------------------------------


def naive_scores(D: Tensor, labels: list[int], ks: tuple[int, ...]) -> list[float]:
    """The share of queries, among those whose class has another member, with one of it among the k nearest."""
    n = len(labels)
    hits: list[list[bool]] = []
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: D[i, j].item())
        if labels[i] in (labels[j] for j in others):
            hits.append([labels[i] in (labels[j] for j in others[:k]) for k in ks])
    return [sum(column) / len(hits) for column in zip(*hits, strict=True)]


@over_family
def test_scores_equal_the_naive_loop(name: str, anchor: str) -> None:
    x, d = normal(30, M), member(name, anchor)
    labels = [i % 3 for i in range(29)] + [50]  # and a class of one
    scores = evaluate(x, torch.tensor(labels), d, ks=(1, 2, 4, 8))
    expected = naive_scores(d(x), labels, (1, 2, 4, 8))
    assert list(scores) == ["precision_at_1", "recall_at_2", "recall_at_4", "recall_at_8"]
    assert list(scores.values()) == pytest.approx(expected, rel=1e-12)
    assert 0 < expected[0] < expected[-1] <= 1


def test_precision_at_1_equals_pytorch_metric_learning() -> None:
    x, labels = normal(200, M), torch.arange(200) % 9
    x[:, 0] += labels / 2
    oracle = CustomKNN(LpDistance(normalize_embeddings=False))
    expected = AccuracyCalculator(include=("precision_at_1",), k=1, knn_func=oracle).get_accuracy(x, labels)
    assert evaluate(x, labels, ks=(1,)) == pytest.approx(expected, rel=1e-12)


def test_a_class_of_one_has_no_score_and_the_mean_leaves_it_out() -> None:
    x = torch.tensor([[0.0], [1.0], [1.1], [2.0]])
    assert evaluate(x, torch.tensor([0, 0, 5, 0]), ks=(1, 2)) == {"precision_at_1": 1 / 3, "recall_at_2": 1.0}
    assert all(math.isnan(score) for score in evaluate(x, torch.arange(4), ks=(1, 2)).values())


def test_a_query_anchor_scores_as_the_centred_euclidean_distance_and_a_ref_anchor_does_not() -> None:
    x = torch.tensor([1.0, 0.5, 3.0, 4.0])[:, None] * torch.tensor([1.0, -1.0])  # for a ref anchor 3 is nearest to 1
    scores = [
        evaluate(x, torch.tensor([0, 0, 1, 1]), d, ks=(1, 2))
        for d in (get_distance("snr"), get_distance("centred_euclidean"), get_distance("snr", anchor="ref"))
    ]
    assert [s["precision_at_1"] for s in scores] == [1.0, 1.0, 0.75]
    assert scores[0] == scores[1]
