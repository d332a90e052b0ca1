"""Scores of a Hamming ranking, against loops over every order that the distances allow."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from oracles import normal, refusals
from torch import Tensor

from snrlib.distances import get_distance
from snrlib.hashing import TieGroups, average_precision, pack, relaxed_map, score_codes, tie_groups, unpack
from snrlib.hashing import scores as module


def naive_precision(relevant: list[bool]) -> float:
    """AP of one ranking; NaN if nothing is relevant."""
    right, total = 0, 0.0
    for place, hit in enumerate(relevant, start=1):
        right += hit
        total += right / place if hit else 0
    return total / right if right else float("nan")


def orders(distance: list[int], relevant: list[bool]) -> list[list[bool]]:
    """Every ranking that sorts the distances, as what is relevant at each place."""
    places = range(len(distance))
    sorted_orders = (o for o in itertools.permutations(places) if sorted(distance) == [distance[i] for i in o])
    return [[relevant[i] for i in order] for order in sorted_orders]


def drawn(n_query: int, n: int, bits: int, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(bits)
    y, z = (torch.randint(classes, (size,), generator=generator) for size in (n_query, n))
    return pack(normal(n_query, bits)), y, pack(normal(n, bits, seed=1)), z


@pytest.mark.parametrize(("bits", "classes"), [(1, 2), (2, 2), (3, 3), (7, 2), (16, 5)])
def test_scores_are_means_over_all_orders(bits: int, classes: int) -> None:
    query, y, database, z = drawn(6, 7, bits, classes)
    groups = tie_groups(query, y, database, z)
    at = {n: groups.precision_at(n) for n in range(1, 8)}
    for row, (a, label) in enumerate(zip(unpack(query, bits), y, strict=True)):
        distance = [int((a != b).sum()) for b in unpack(database, bits)]
        possible = orders(distance, (z == label).tolist())
        expected = np.mean([naive_precision(order) for order in possible])
        assert groups.average_precision()[row].item() == pytest.approx(expected, rel=1e-12, nan_ok=True)
        for n in at:
            assert at[n][row].item() == pytest.approx(np.mean([sum(order[:n]) / n for order in possible]), abs=1e-12)
        for radius in range(bits + 1):
            within = [bool(z[i] == label) for i, d in enumerate(distance) if d <= radius]
            precision = sum(within) / len(within) if within else 0.0
            assert groups.precision_within(radius)[row].item() == pytest.approx(precision)


def test_without_ties_the_mean_is_the_ranking() -> None:
    relevant = normal(5, 30) > 0.5
    groups = TieGroups(torch.ones(5, 30, dtype=torch.int64), relevant.long())
    torch.testing.assert_close(groups.average_precision(), average_precision(relevant), rtol=1e-12, atol=0)
    expected = [naive_precision(row) for row in relevant.tolist()]
    assert average_precision(relevant).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("block", [1, 2**22])
def test_all_scores_equal_the_loops(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    query, y, database, z = drawn(9, 200, 8, 4)
    scores = score_codes(query, y, database, z, at=(1, 50), by_index=True)
    codes = unpack(database)
    by_index, within, empty = [], [], []
    for a, label in zip(unpack(query), y, strict=True):
        distance = ((8 - codes @ a) / 2).long().tolist()
        order = sorted(range(200), key=distance.__getitem__)  # Python's sorting is stable
        by_index.append(naive_precision([bool(z[i] == label) for i in order]))
        near = [bool(z[i] == label) for i in range(200) if distance[i] <= 2]
        within.append(sum(near) / len(near) if near else 0)
        empty.append(not near)
    assert scores["mAP_by_index"] == pytest.approx(np.mean(by_index), rel=1e-12)
    assert scores["precision_within_2"] == pytest.approx(np.mean(within), rel=1e-12)
    assert scores["empty_within_2"] == pytest.approx(np.mean(empty))
    groups = tie_groups(query, y, database, z)
    assert scores["mAP"] == pytest.approx(groups.average_precision().mean().item())
    assert scores["precision_at_50"] == pytest.approx(groups.precision_at(50).mean().item())
    curve = groups.curve()
    assert curve.precision[2] == scores["precision_within_2"]
    assert curve["empty"][2] == scores["empty_within_2"]
    assert (curve.recall.iloc[-1], curve.retrieved.iloc[-1]) == (1, 200)


def test_a_database_sorted_by_class_flatters_mere_ties() -> None:
    labels = torch.arange(10).repeat_interleave(20)
    one_code = pack(torch.ones(200, 16))
    scores = score_codes(one_code[:10], torch.arange(10), one_code, labels, by_index=True)
    assert scores["mAP"] < 0.13
    assert scores["mAP_by_index"] > 0.2


def test_a_query_without_its_class_has_no_map() -> None:
    query, _, database, z = drawn(2, 20, 8, 2)
    whole = score_codes(query[:1], [0], database, z, at=())
    assert score_codes(query, [0, 7], database, z, at=())["mAP"] == whole["mAP"]


def test_relaxed_codes_are_ranked_by_their_distance() -> None:
    query, database = normal(4, 6), normal(30, 6, seed=1)
    y, z = torch.arange(4), torch.arange(30) % 4
    for name in ("snr", None):
        d = None if name is None else get_distance(name)
        expected = []
        for a, label in zip(query, y, strict=True):
            values = [-(a @ b) if d is None else d(a[None], b[None]) for b in database]
            order = sorted(range(30), key=[float(v) for v in values].__getitem__)
            expected.append(naive_precision([bool(z[i] == label) for i in order]))
        assert relaxed_map(query, y, database, z, d) == pytest.approx(np.mean(expected), rel=1e-12)


def groups_of(*args: Any) -> Any:
    return lambda: tie_groups(*args)


codes, labels = pack(normal(3, 16)), torch.arange(3)
small = tie_groups(codes, labels, codes, labels)

test_bad_rankings_are_refused = refusals(
    (groups_of(codes.float(), labels, codes, labels), TypeError, "query must be packed codes"),
    (groups_of(codes, labels[:2], codes, labels), ValueError, "labels must be 3 integers"),
    (groups_of(codes, labels, codes, labels.double()), ValueError, "labels must be 3 integers"),
    (groups_of(codes, labels, codes[:, :1], labels), ValueError, "codes of one length, got 2 and 1"),
    (lambda: small.precision_at(4), ValueError, "n must be an integer from 1 to 3, .* got 4"),
    (lambda: small.precision_within(-1), ValueError, "radius must be an integer of at least 0, got -1"),
    (lambda: average_precision(torch.ones(2, 3)), ValueError, "relevant must be a bool tensor"),
    (lambda: score_codes(codes, labels, codes, labels, at=(0,)), ValueError, "n must be an integer from 1 to 3"),
    (lambda: relaxed_map(codes, labels, codes, labels, None), TypeError, "query must be floating point"),
)
