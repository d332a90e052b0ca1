"""Which negatives the four ways of mining choose, against loops, a peer's weights and the loss's own choice."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from loss_cases import BATCHES, assert_equal, labelled
from oracles import M, bad_options, normal, ordered_pairs, refusals, triplets
from scipy.stats import chisquare
from torch.nn import functional as F

from snrlib.distances import get_distance
from snrlib.losses import TripletMarginLoss, mine
from snrlib.losses.mining import MINING, negative_weights

X, Y = BATCHES["uneven"]
LABELS = torch.tensor(Y)
UNIT = get_distance("euclidean", normalize_embeddings=True)
D = UNIT(X)
OPTIONS: dict[str, dict[str, Any]] = {
    "random": {},
    "semi_hard": {"margin": 0.3},
    "hard": {},
    "distance_weighted": {"n_components": M},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def allowed(how: str) -> set[tuple[int, int, int]]:
    """The triplets that a rule may choose, triplet by triplet."""
    every, margin = triplets(Y), OPTIONS["semi_hard"]["margin"]
    if how == "hard":
        nearest = {i: min(D[i, k].item() for a, _, k in every if a == i) for i, _, _ in every}
        return {(i, j, k) for i, j, k in every if D[i, k] == nearest[i]}
    if how == "semi_hard":
        return {(i, j, k) for i, j, k in every if D[i, j] < D[i, k] <= D[i, j] + margin}
    return set(every) if how == "random" else {(i, j, k) for i, j, k in every if D[i, k] < 1.4}


@pytest.mark.parametrize("how", MINING)
def test_every_pair_has_one_negative_of_its_rule(how: str) -> None:
    chosen, met = allowed(how), set()
    pairs = sorted({(i, j) for i, j, _ in chosen})
    assert 0 < len(pairs) <= len(ordered_pairs(Y)[0])
    for seed in range(60):
        found = [tuple(row) for row in mine(D, LABELS, how, generator=generator(seed), **OPTIONS[how]).tolist()]
        assert [(i, j) for i, j, _ in found] == pairs
        met |= set(found)
    assert met == chosen or (how == "distance_weighted" and met <= chosen)  # some weights are tiny


def test_semi_hard_is_the_choice_of_the_loss() -> None:
    for name in ("euclidean", "snr"):
        loss = TripletMarginLoss(get_distance(name), margin=2.0, mining="semi_hard", reduction="none")
        terms, e = loss(X, LABELS), loss.squared(loss.distance(X))
        met = set()
        for seed in range(60):
            met |= {tuple(row) for row in mine(e, LABELS, "semi_hard", 2.0, generator(seed)).tolist()}
        assert len(met) == len(terms) > 0
        rows = torch.tensor(sorted(met))
        assert_equal(TripletMarginLoss(loss.distance, margin=2.0, reduction="none")(X, triplets=rows), terms)


def test_mined_triplets_go_straight_into_the_loss() -> None:
    chosen = mine(D, LABELS, "hard")
    loss = TripletMarginLoss(UNIT, margin=0.3)
    expected = sum(max(D[i, j].item() ** 2 + 0.3 - D[i, k].item() ** 2, 0) for i, j, k in chosen.tolist()) / len(chosen)
    assert loss(X, triplets=chosen).item() == pytest.approx(expected)


def test_draws_repeat_with_their_seed() -> None:
    x, y = labelled(64, 4)
    for how in MINING:
        first, again, other = (mine(UNIT(x), y, how, generator=generator(seed), **OPTIONS[how]) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert torch.equal(first, other) == (how == "hard")


def test_weights_are_the_inverse_density_on_the_sphere() -> None:
    for n_components in (2, 3, 64, 1024):
        x = F.normalize(normal(12, 3))
        d, negative = UNIT(x), torch.arange(12)[:, None] // 2 != torch.arange(12) // 2
        weights = negative_weights(d, negative, n_components)
        for i in range(12):
            log_density = [
                (n_components - 2) * math.log(c) + (n_components - 3) / 2 * math.log(1 - c**2 / 4)
                for c in (max(v, 0.5) for v in d[i].tolist() if v < 1.4)
            ]
            inside = [k for k in range(12) if d[i, k] < 1.4]
            rows = [(k, -q) for k, q in zip(inside, log_density, strict=True) if negative[i, k]]
            top = max(q for _, q in rows)
            total = sum(math.exp(q - top) for _, q in rows)
            expected = torch.zeros(12, dtype=torch.float64)
            for k, q in rows:
                expected[k] = math.exp(q - top) / total
            assert_equal(weights[i], expected, tolerance=1e-9)


def test_the_density_is_that_of_random_points() -> None:
    for n_components in (3, 8):
        points = F.normalize(normal(2, 100_000, n_components).double(), dim=2)
        d = torch.linalg.vector_norm(points[0] - points[1], dim=1)
        d = d[(d > 0.5) & (d < 1.4)]
        row = torch.cat([torch.zeros(1, dtype=torch.float64), d])[None]
        weight = negative_weights(row, torch.arange(len(row[0]))[None] > 0, n_components)[0, 1:]
        # Weighted by 1/q, all distances are alike: the histogram is flat.
        shares = torch.histogram(d, bins=9, range=(0.5, 1.4), weight=weight).hist
        assert ((shares - 1 / 9).abs() < 0.06 / 9 * n_components).all()


def test_frequencies_are_the_weights() -> None:
    d = torch.tensor([[0.0, 0.6, 0.3, 0.8, 1.1, 1.3, 1.6]]).expand(7, 7)
    labels = torch.tensor([0, 0, 1, 2, 3, 4, 5])
    negative = labels[:, None] != labels
    draws = 4000
    for how, chance in (("random", negative.double() / 5), ("distance_weighted", negative_weights(d, negative, 5))):
        options, rng = OPTIONS[how] and {"n_components": 5}, generator()
        counts = torch.zeros(7)
        for _ in range(draws):
            counts[mine(d, labels, how, generator=rng, **options)[0, 2]] += 1
        possible = chance[0] > 0
        assert counts[~possible].sum() == 0
        assert chisquare(counts[possible], draws * chance[0, possible]).pvalue > 0.01
    assert chance[0, 6] == 0 < chance[0, 2] == chance[0].max()  # beyond 1.4; as near as the cutoff


def test_an_anchor_with_far_negatives_alone_takes_any() -> None:
    d = torch.tensor([[0.0, 0.1, 1.5, 1.9], [0.1, 0, 1.5, 1.9], [1.5, 1.5, 0, 0.1], [1.9, 1.9, 0.1, 0]])
    weights = negative_weights(d, torch.tensor([0, 0, 1, 1])[:, None] != torch.tensor([0, 0, 1, 1]), 512)
    assert_equal(weights[0], torch.tensor([0, 0, 0.5, 0.5]))


@pytest.mark.parametrize("how", MINING)
def test_without_a_triplet_the_table_is_empty(how: str) -> None:
    for labels in ([0, 0, 0], [0, 1, 2], [4]):
        d = UNIT(normal(len(labels), M))
        assert mine(d, torch.tensor(labels), how, **OPTIONS[how]).shape == (0, 3)


two = torch.tensor([0, 1])
test_bad_input_is_refused = refusals(
    *bad_options(partial(mine, D, LABELS), how=["easy", None]),
    *bad_options(partial(mine, D, LABELS, "semi_hard"), margin=[0.0, -1.0, "1"]),
    *bad_options(partial(mine, D, LABELS, "distance_weighted"), n_components=[1, 2.5, True]),
    (lambda: mine(D, LABELS, "semi_hard"), ValueError, "semi_hard mining needs margin"),
    (lambda: mine(D, LABELS, "hard", margin=1.0), ValueError, "no other takes it; got margin=1.0 for hard"),
    (lambda: mine(D, LABELS, "distance_weighted"), ValueError, "distance_weighted mining needs n_components"),
    (
        lambda: mine(3 * D, LABELS, "distance_weighted", n_components=6),
        ValueError,
        "of length 1.* at most 2",
    ),
    (lambda: mine(D[:2], two, "hard"), ValueError, r"distances must be of shape \(n, n\), got \(2, 7\)"),
    (lambda: mine(D, two, "hard"), ValueError, "labels must be 7 integers"),
    (lambda: mine(D.tolist(), LABELS, "hard"), TypeError, "distances must be a torch.Tensor"),
)
