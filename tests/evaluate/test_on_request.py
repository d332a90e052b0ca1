"""What is given where it is asked for: scores of whole rankings, means of classes, FNMR, other ways to search."""

import math
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracles import M, bad_options, member, naive_within, normal, over_family, refusals
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import Normalizer
from torch import Tensor

from snrlib.distances import get_distance
from snrlib.evaluate import Verification, class_means, compare, evaluate, neighbours, products, retrieval, verification
from snrlib.mahalanobis import whitened_search

ALSO = ("mean_reciprocal_rank", "precision_at_k", "mean_average_precision")
GALLERY = [False, True]


def sets(n: int = 30, m: int = 40) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries of classes 0 to 4, references of 1 to 5: class 0 has no reference."""
    given, gallery = torch.arange(n) % 5, torch.arange(m) % 5 + 1
    return normal(n, M) + given[:, None] / 2, given, normal(m, M, seed=1) + gallery[:, None] / 2, gallery


def hits(row: list[float], relevant: list[bool], ties: int = 0) -> list[bool]:
    """The ranking of one query by distance; equal ones with hits first (1) or last (-1)."""
    order = sorted(range(len(row)), key=lambda j: (row[j], -ties * relevant[j]))
    return [relevant[j] for j in order]


def naive(ranking: list[bool], ks: tuple[int, ...]) -> list[float]:
    """Precision at each k, average precision, reciprocal rank."""
    places = [place for place, hit in enumerate(ranking, start=1) if hit]
    if not places:
        return [math.nan] * (len(ks) + 2)
    average = sum(sum(ranking[:place]) / place for place in places) / len(places)
    return [*(sum(ranking[:k]) / k for k in ks), average, 1 / places[0]]


def rankings(D: Tensor, given: Tensor, gallery: Tensor | None, ties: int = 0) -> list[list[bool]]:
    """Of every query; without a gallery among the others."""
    found = []
    for i, row in enumerate(D.tolist()):
        labels = given if gallery is None else gallery
        others = [j for j in range(len(row)) if gallery is not None or j != i]
        found.append(hits([row[j] for j in others], [bool(labels[j] == given[i]) for j in others], ties))
    return found


@over_family
@pytest.mark.parametrize("gallery", GALLERY)
def test_whole_rankings_are_scored_as_loops_do(
    name: str, anchor: str, gallery: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, option, value in ((neighbours, "_BLOCK", 1000), (products, "_GROUP", 4), (neighbours, "_EXACT", 2)):
        monkeypatch.setattr(module, option, value)
    x, given, y, others = sets()
    if not gallery:
        given[3] = 9  # alone in its class
    d, ks = member(name, anchor), (1, 2, 7)
    both: dict[str, Any] = {"reference": y, "reference_labels": others} if gallery else {}
    usual, found = retrieval(x, given, d, ks, **both), retrieval(x, given, d, ks, **both, also=ALSO)
    pd.testing.assert_frame_equal(found[list(usual)], usual, check_exact=True)
    asked = found.drop(columns=list(usual))
    assert list(asked) == ["precision_at_2", "precision_at_7", "mean_average_precision", "mean_reciprocal_rank"]
    ranked = rankings(d(x, y) if gallery else d(x), given, others if gallery else None)
    expected = [naive(one, ks[1:]) for one in ranked]
    np.testing.assert_allclose(asked, expected, rtol=1e-12)
    assert asked.isna().all(axis=1).sum() == (6 if gallery else 1)
    for column in map(str, asked):
        alone = evaluate(x, given, d, ks, cluster=False, **both, also=_asked(column))
        assert alone[column] == found[column].mean()


def _asked(column: str) -> str:
    return "precision_at_k" if column.startswith("precision") else column


@pytest.mark.parametrize("gallery", GALLERY)
def test_peers_score_whole_rankings_alike(gallery: bool) -> None:
    x, given, y, others = sets()
    x, y = x[given > 0], y[others < 5]
    given, others = given[given > 0], others[others < 5]
    both: dict[str, Any] = {"reference": y, "reference_labels": others} if gallery else {}
    own = retrieval(x, given, **both, also=ALSO)
    peer = AccuracyCalculator(
        include=("mean_average_precision", "mean_reciprocal_rank"),
        k=None,
        device=torch.device("cpu"),
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),
    )
    theirs = peer.get_accuracy(x, given, y, others) if gallery else peer.get_accuracy(x, given)
    assert {name: own[name].mean() for name in theirs} == pytest.approx(theirs, rel=1e-6)
    D = torch.cdist(x, y if gallery else x)
    for i, row in enumerate(D):
        asked = torch.ones(len(row), dtype=torch.bool)
        asked[i] = gallery
        relevant = (others if gallery else given) == given[i]
        theirs = average_precision_score(relevant[asked], -row[asked])
        assert own.mean_average_precision[i] == pytest.approx(theirs, rel=1e-12)


def test_ties_score_between_best_and_worst_order() -> None:
    codes = torch.sign(normal(40, 3))  # eight different ones
    labels = torch.arange(40) % 4
    found = retrieval(codes, labels, ks=(5,), also=ALSO)[["precision_at_5", *sorted(ALSO)[:2]]].to_numpy()
    D = torch.cdist(codes, codes, compute_mode="donot_use_mm_for_euclid_dist")
    worst, best = (np.array([naive(one, (5,)) for one in rankings(D, labels, None, ties)]) for ties in (-1, 1))
    assert ((worst - 1e-12 <= found) & (found <= best + 1e-12)).all()
    assert (worst < best).any(axis=0).all()


@pytest.mark.parametrize("names", [torch.as_tensor, np.array, lambda y: [f"class {i}" for i in y]])
def test_class_means_are_those_of_each_class(names: Any) -> None:
    x, given, y, others = sets(32)
    labels, gallery = names(given.tolist()), names(others.tolist())
    queries = retrieval(x, labels, reference=y, reference_labels=gallery, also=ALSO)
    table = class_means(queries, labels)
    assert list(table.index) == sorted(set(labels.tolist() if isinstance(labels, Tensor) else labels))
    for c in range(5):
        rows = [i for i in range(32) if given[i] == c]
        np.testing.assert_allclose(table.iloc[c], queries.iloc[rows].mean())
    both: dict[str, Any] = {"reference": y, "reference_labels": gallery}
    means = evaluate(x, labels, cluster=False, average="class", also=ALSO, **both)
    assert means == pytest.approx(table.mean().to_dict())
    assert means["mean_average_precision"] != pytest.approx(queries.mean_average_precision.mean(), abs=1e-4)


# --- verification -----------------------------------------------------------------------------------------------------


def of(positive: Any, negative: Any) -> Verification:
    """Only the distances count for FNMR."""
    none = np.empty(0)
    return Verification(np.asarray(positive), np.asarray(negative), none, none, none, 0.0, 0.0)


@over_family
def test_fnmr_is_that_of_the_loosest_threshold(name: str, anchor: str) -> None:
    x, given, y, others = sets()
    found = verification(x, given, member(name, anchor), reference=y, reference_labels=others)
    thresholds = [-math.inf, *found.positive, *found.negative]
    rates = [((found.negative <= t).mean(), (found.positive > t).mean()) for t in thresholds]
    for at in (0.0, 1e-9, 0.001, 0.01, 0.1, 0.5, 1.0):
        expected = min(misses for false_matches, misses in rates if false_matches <= at)
        assert found.false_non_match_rate(at) == pytest.approx(expected, abs=1e-12)
    assert found.false_non_match_rate(1) == 0


def test_fnmr_counts_ties_and_decimals_exactly() -> None:
    negative = np.arange(100)
    assert of([27.5, 28.5, 29.0, 29.5], negative).false_non_match_rate(0.29) == 0.5  # 0.29 * 100 is below 29 in floats
    tied = of([0.5, 1.0, 1.5], [1.0, 1.0, 2.0, 3.0])
    assert [tied.false_non_match_rate(at) for at in (0, 0.25, 0.5, 0.75)] == pytest.approx([2 / 3, 2 / 3, 0, 0])


# --- other ways to search ---------------------------------------------------------------------------------------------


def naive_whitened(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """By a Cholesky root of the shrunk covariance within classes, vector by vector."""
    residuals = x - np.stack([x[y == c].mean(axis=0) for c in y])
    n, classes = len(x), len(set(y.tolist()))
    shrinkage = ledoit_wolf(residuals, assume_centered=True)[1]
    S = naive_within(x, y)
    S = (1 - shrinkage) * S + shrinkage * np.trace(S) / len(S) * np.eye(len(S))
    assert n > classes
    L = np.linalg.inv(np.linalg.cholesky(S))
    mapped = [L @ (one - x.mean(axis=0)) for one in z]
    return np.stack([one / np.sqrt(one @ one) for one in mapped])


def test_whitened_search_ranks_as_the_formula() -> None:
    x, y, z, _ = (one.numpy() for one in sets(60))
    dead = np.column_stack([x, np.full(60, 3.0)]), np.column_stack([z, np.arange(40.0)])
    expected = naive_whitened(x, y, z)
    for train, test in ((x, z), dead):  # what did not vary in training does not count
        found = whitened_search().fit(train, y).transform(test)
        np.testing.assert_allclose(cdist(found, found), cdist(expected, expected), atol=1e-10)
    cosine = cdist(expected, expected, "cosine")
    np.testing.assert_allclose(cdist(found, found) ** 2 / 2, cosine, atol=1e-12)


@pytest.mark.parametrize("gallery", GALLERY)
def test_a_search_adds_rows_and_changes_none(gallery: bool) -> None:
    x, given, y, others = (one.float() if one.is_floating_point() else one for one in sets())
    both: dict[str, Any] = {"reference": y, "reference_labels": others} if gallery else {}
    d, whitened = get_distance("snr"), whitened_search().fit(normal(60, M).numpy(), np.arange(60) % 6)
    cosine = get_distance("cosine")
    search = {"cosine": cosine, "lengths": Normalizer(), "whitened": whitened}
    usual, table = compare(x, given, d, **both), compare(x, given, d, **both, search=search, also=ALSO)
    assert list(table.index) == [*usual.index, *search]
    pd.testing.assert_frame_equal(table.loc[usual.index, usual.columns], usual, check_exact=True)
    assert table.loc["lengths"].to_dict() == pytest.approx(table.loc["cosine"].to_dict(), abs=1e-6)
    similarity = torch.nn.functional.cosine_similarity(x[:, None], (y if gallery else x)[None], dim=2)
    expected = [naive(one, ()) for one in rankings(1 - similarity, given, others if gallery else None)]
    assert table.mean_average_precision["cosine"] == pytest.approx(np.nanmean(expected, axis=0)[0])
    z, w = (torch.from_numpy(whitened.transform(side.numpy())) for side in (x, y))
    both = {"reference": w, "reference_labels": others} if gallery else {}
    own = evaluate(z, given, also=ALSO, **both) | {"EER": verification(z, given, **both).EER}
    assert table.loc["whitened", list(own)].to_dict() == own


x34, y3, snr = normal(3, 4), torch.tensor([0, 0, 1]), get_distance("snr")
judged = partial(compare, x34, y3, snr, ks=(1,))


test_what_cannot_be_asked_for_is_refused = refusals(
    *bad_options(partial(retrieval, x34, y3, ks=(1,)), also=["mAP"]),
    (lambda: retrieval(x34, y3, ks=(1,), also=["mean_reciprocal_rank", 3]), ValueError, "also must be one of .* got 3"),  # type: ignore[list-item]
    (lambda: retrieval(x34, y3, ks=(1, 3), also=ALSO), ValueError, "k must be an integer from 1 to 2, .* got 3"),
    (lambda: class_means(pd.DataFrame({"a": [1.0]}), [0, 1]), ValueError, "labels must be 1 integers or strings"),
    *bad_options(of([1.0], [2.0]).false_non_match_rate, at=[-0.1, 1.1, math.nan, None]),
    (lambda: judged(search={"Euclid": Normalizer()}), ValueError, "search has a row 'Euclid', which there is already"),
    (lambda: judged(search={"cosine": "cosine"}), TypeError, "distances or fitted transformers, got 'cosine'"),
    (lambda: whitened_search("oas").fit(x34.numpy(), y3.numpy()), ValueError, "covariance must be one of empirical"),  # type: ignore[arg-type]
)
