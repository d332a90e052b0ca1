"""The losses under test: with which options, over which distances, on which batches; and how results are compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from oracles import FAMILY, NAIVE, Loops, M, Table, member, naive_inner_product, naive_pairs, normal
from torch import Tensor

from snrlib.distances import DISTANCES
from snrlib.losses import LOSSES, Loss, get_loss

F32, F64 = torch.float32, torch.float64

# --- options ----------------------------------------------------------------------------------------------------------

# id: the loss and its options, all margins in units of a typical distance between normal embeddings.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "contrastive": ("contrastive", {"margin": 1.0}),
    "contrastive linear": ("contrastive", {"margin": 1.0, "hinge": "linear"}),
    "contrastive squared": ("contrastive", {"margin": 1.0, "hinge": "squared"}),
    "contrastive positive_margin": ("contrastive", {"margin": 1.1, "positive_margin": 0.9}),
    "contrastive balanced": ("contrastive", {"margin": 1.0, "balanced": True}),
    "contrastive, all options": (
        "contrastive",
        {"margin": 1.1, "positive_margin": 0.7, "hinge": "linear", "balanced": True},
    ),
    "triplet": ("triplet", {"margin": 0.3}),
    "triplet, no margin": ("triplet", {"margin": 0.0}),
    "triplet, negative margin": ("triplet", {"margin": -0.2}),
    "triplet active": ("triplet", {"margin": 0.3, "average": "active"}),
    "triplet semi-hard": ("triplet", {"margin": 0.5, "mining": "semi_hard"}),
    "triplet semi-hard active": ("triplet", {"margin": 0.5, "mining": "semi_hard", "average": "active"}),
    "triplet batch-hard": ("triplet", {"margin": 0.3, "mining": "batch_hard"}),
    "triplet batch-hard active": ("triplet", {"margin": -0.3, "mining": "batch_hard", "average": "active"}),
    "n_pair": ("n_pair", {}),
    "n_pair margin": ("n_pair", {"margin": 0.5}),
    "n_pair negative": ("n_pair", {"similarity": "negative"}),
    "n_pair inverse": ("n_pair", {"similarity": "inverse", "margin": 0.5}),
    "lifted": ("lifted", {"margin": 1.0}),
    "lifted, negative margin": ("lifted", {"margin": -0.3}),
    "angular": ("angular", {}),
    "angular 60": ("angular", {"alpha": 60.0}),
    "ranked_list": ("ranked_list", {"margin": 0.4, "alpha": 1.2}),
    "ranked_list temperature 0": ("ranked_list", {"margin": 0.4, "alpha": 1.2, "temperature": 0.0}),
    "ranked_list positives": ("ranked_list", {"margin": 0.4, "alpha": 1.2, "balance": 0.0}),
    "ranked_list negatives": ("ranked_list", {"margin": 0.4, "alpha": 1.2, "balance": 1.0}),
}
ABSOLUTE = {"euclidean": 3.5, "centred_euclidean": 3.2, "mahalanobis": 7.0}  # typical distances; of a relative one 2


def case_options(case: str, name: str) -> tuple[str, dict[str, Any]]:
    """The loss of a case, and its options in the units of one distance."""
    loss, options = CASES[case]
    unit = ABSOLUTE.get(name, 2.0) ** (2 if loss == "triplet" and name in ABSOLUTE else 1)
    if loss in ("n_pair", "angular"):
        unit = 1.0
    return loss, {k: unit * v if k in ("margin", "positive_margin", "alpha") else v for k, v in options.items()}


def defined(case: str, name: str) -> bool:
    """Angles and inner products go with absolute distances only, 1/d with relative ones."""
    loss, options = CASES[case]
    similarity = options.get("similarity")
    if member(name).relative:
        return loss != "angular" and similarity != "inner_product"
    return similarity != "inverse"


def build(case: str, name: str, anchor: str = "query", **options: Any) -> Loss:
    """The loss of a case, options changed."""
    loss, usual = case_options(case, name)
    return get_loss(loss, member(name, anchor), **{**usual, **options})


every_loss = pytest.mark.parametrize("loss", LOSSES)
every_loss_and_distance = pytest.mark.parametrize(
    ("loss", "name"), [(loss, name) for loss in LOSSES for name in DISTANCES if defined(loss, name)]
)
# An absolute distance has no anchor side: there "ref" must change nothing, which one case of every loss shows.
every_case = pytest.mark.parametrize(
    ("case", "name", "anchor"),
    [
        (case, name, anchor)
        for case in CASES
        for name, anchor in FAMILY
        if defined(case, name) and (anchor == "query" or case in LOSSES or member(name).relative)
    ],
)

# --- batches ----------------------------------------------------------------------------------------------------------


def labelled(n: int, m: int, components: int = M, seed: int = 0, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    """n normal embeddings, m of a class."""
    return normal(n, components, seed=seed, dtype=dtype), torch.arange(n) // m


def with_twins(n: int, *twins: tuple[int, int]) -> Tensor:
    """Normal embeddings, the second of each two a copy of the first."""
    x = normal(n, M, seed=n)
    for i, j in twins:
        x[j] = x[i]
    return x


def random_labels(classes: int, n: int) -> list[int]:
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(classes)).tolist()


BATCHES: dict[str, tuple[Tensor, list[int]]] = {
    "pairs": (with_twins(6), [0, 0, 1, 1, 2, 2]),
    "uneven": (with_twins(7), [0, 1, 0, 2, 1, 0, 3]),
    "odd labels": (with_twins(7), [70, -5, 70, 70, 0, -5, 0]),
    "two classes at random": (with_twins(6), random_labels(2, 6)),
    "four classes at random": (with_twins(7), random_labels(4, 7)),
    "one class of two samples": (with_twins(4), [1, 0, 1, 2]),
    "single class": (with_twins(4), [4, 4, 4, 4]),
    "all distinct": (with_twins(4), [4, 2, 0, 3]),
    "one sample": (with_twins(1), [7]),
    "two samples of one class": (with_twins(2), [7, 7]),
    "two samples of two classes": (with_twins(2), [7, 3]),
    "twins in a class": (with_twins(7, (0, 2), (1, 4)), [0, 1, 0, 2, 1, 0, 3]),
    "twins in two classes": (with_twins(7, (0, 1), (2, 3)), [0, 1, 0, 2, 1, 0, 3]),
    "four of a kind": (with_twins(7, (0, 1), (0, 2), (0, 5)), [0, 1, 0, 2, 1, 0, 3]),
}


Pairs = dict[tuple[int, int], tuple[Tensor, Tensor]]


def naive_table(kind: str, name: str, anchor: str, batch: str) -> Pairs:
    """Distance, inner product or cosine of every i != j of a batch, and its gradient for x_i and x_j, (2, M)."""
    return _naive_table(kind, name, anchor, tuple(tuple(row) for row in BATCHES[batch][0].tolist()))


@cache
def _naive_table(kind: str, name: str, anchor: str, rows: tuple[tuple[float, ...], ...]) -> Pairs:
    x, table = torch.tensor(rows, dtype=F64), {}
    for i, j in itertools.permutations(range(len(x)), 2):
        pair = x[[i, j]].requires_grad_()
        q, r = pair
        value = naive_pairs(name, anchor, [q], [r])[0] if kind == "distance" else naive_inner_product(name, q, r)
        if kind == "cosine":
            value = value / (naive_inner_product(name, q, q) * naive_inner_product(name, r, r)) ** 0.5
        (gradient,) = torch.autograd.grad(value, pair) if value.requires_grad else (torch.zeros_like(pair),)
        table[i, j] = value.detach(), gradient
    return table


def table_kind(case: str, name: str) -> str:
    """What the loops of a case read: distance, inner product or cosine."""
    loss, options = CASES[case]
    if loss == "angular":
        return "cosine"
    inner = options.get("similarity", "negative" if member(name).relative else "inner_product") == "inner_product"
    return "inner product" if loss == "n_pair" and inner else "distance"


@cache
def naive_case(case: str, name: str, anchor: str, batch: str) -> tuple[Loops, Tensor]:
    """The loops of a case, and the gradient of their value for the embeddings."""
    loss, options = case_options(case, name)
    x, y = BATCHES[batch]
    table = naive_table(table_kind(case, name), name, anchor, batch)
    D = {ij: value.clone().requires_grad_() for ij, (value, _) in table.items()}
    loops = NAIVE[loss](D, y, member(name).relative, **options)
    return loops._replace(value=loops.value.detach()), chain(loops.value, D, table, x)


def chain(value: Tensor, D: Table, table: Pairs, x: Tensor) -> Tensor:
    """The gradient for x of a value computed from the table D of its pairs."""
    gradient = torch.zeros_like(x)
    if value.requires_grad:
        parts = torch.autograd.grad(value, list(D.values()), allow_unused=True)
        for (i, j), g in zip(D, parts, strict=True):
            if g is not None:
                gradient[[i, j]] += g * table[i, j][1]
    return gradient


# --- comparison -------------------------------------------------------------------------------------------------------


def value_and_gradient(loss: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    x = x.detach().clone().requires_grad_()
    value = loss(x, *args, **kwargs)
    assert value.shape == ()
    value.backward()
    assert x.grad is not None
    return value.detach(), x.grad


def assert_equal(actual: Tensor, expected: Tensor, what: str = "", tolerance: float = 1e-10) -> None:
    """Within the tolerance of the largest number, and 0 exactly where all are 0."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max().item()
    assert error <= tolerance * expected.abs().max().item(), f"{what}: {actual} is not {expected}"
