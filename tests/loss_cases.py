"""The losses under test: with which options, over which distances, on which batches; and how results are compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from oracles import F64, FAMILY, NAIVE, L, Loops, M, member, naive_inner_product, naive_pairs, normal
from torch import Tensor

from snrlib.distances import DISTANCES, RELATIVE
from snrlib.losses import LOSSES, Loss, get_loss

# --- options ----------------------------------------------------------------------------------------------------------

# id: the loss and its options, all margins in units of a typical distance between normal embeddings.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "contrastive": ("contrastive", {"margin": 1.0}),
    "contrastive squared": ("contrastive", {"margin": 1.0, "hinge": "squared"}),
    "contrastive positive_margin": ("contrastive", {"margin": 1.1, "positive_margin": 0.9}),
    "contrastive balanced": ("contrastive", {"margin": 1.1, "hinge": "linear", "balanced": True}),
    "contrastive balanced active": (
        "contrastive",
        {"margin": 1.1, "positive_margin": 0.9, "power": 1, "balanced": True, "average": "active"},
    ),
    "contrastive power 2": ("contrastive", {"margin": 1.1, "positive_margin": 0.9, "power": 2, "average": "active"}),
    "triplet": ("triplet", {"margin": 0.3}),
    "triplet, negative margin": ("triplet", {"margin": -0.2, "average": "active"}),
    "triplet semi-hard": ("triplet", {"margin": 0.5, "mining": "semi_hard"}),
    "triplet batch-hard": ("triplet", {"margin": 0.3, "mining": "batch_hard"}),
    "triplet batch-hard active": ("triplet", {"margin": -0.3, "mining": "batch_hard", "average": "active"}),
    "triplet power 1": ("triplet", {"margin": 0.3, "power": 1}),
    "triplet power 2 semi-hard": ("triplet", {"margin": 0.9, "power": 2, "mining": "semi_hard"}),
    "triplet soft": ("triplet", {"margin": 0.3, "soft_margin": True}),
    "triplet swap": ("triplet", {"margin": -0.1, "swap": True, "average": "active"}),
    "triplet soft batch-hard swap": (
        "triplet",
        {"margin": 0.3, "mining": "batch_hard", "swap": True, "soft_margin": True},
    ),
    "triplet semi-hard swap": ("triplet", {"margin": 0.5, "mining": "semi_hard", "swap": True}),
    "n_pair": ("n_pair", {}),
    "n_pair scale": ("n_pair", {"similarity": "negative", "scale": 0.3, "power": 1}),
    "n_pair power 2": ("n_pair", {"similarity": "negative", "margin": 0.5, "power": 2, "scale": 0.2}),
    "n_pair negative margin": ("n_pair", {"similarity": "negative", "margin": 0.5}),
    "n_pair inverse": ("n_pair", {"similarity": "inverse", "margin": 0.5}),
    "lifted": ("lifted", {"margin": 1.0}),
    "lifted, negative margin": ("lifted", {"margin": -0.3}),
    "lifted scale": ("lifted", {"margin": -0.3, "scale": 0.4, "average": "active"}),
    "lifted power 2": ("lifted", {"margin": -0.3, "power": 2, "scale": 0.5, "average": "active"}),
    "angular": ("angular", {}),
    "ranked_list": ("ranked_list", {"margin": 0.4, "alpha": 1.2}),
    "ranked_list temperature 0": ("ranked_list", {"margin": 0.4, "alpha": 1.2, "temperature": 0.0}),
    "ranked_list active": ("ranked_list", {"margin": 0.4, "alpha": 0.7, "average": "active"}),
    "ranked_list positives": ("ranked_list", {"margin": 0.4, "alpha": 1.2, "balance": 0.0}),
    "ranked_list negatives": ("ranked_list", {"margin": 0.4, "alpha": 1.2, "balance": 1.0}),
    "ranked_list constant": (
        "ranked_list",
        {"margin": 0.4, "alpha": 1.2, "weights": "constant", "positive_temperature": 2.0},
    ),
    "ranked_list no margin": ("ranked_list", {"margin": 0.0, "alpha": 0.8, "positive_temperature": 2.0}),
    "multi_similarity": ("multi_similarity", {"margin": 0.5}),
    "multi_similarity options": ("multi_similarity", {"margin": 1.0, "alpha": 3.0, "beta": 9.0, "epsilon": 0.3}),
    "multi_similarity all": ("multi_similarity", {"margin": 1.0, "mining": "all"}),
    "nt_xent": ("nt_xent", {"scale": 3.0}),
    "supcon": ("supcon", {"scale": 3.0}),
    "proxy_nca": ("proxy_nca", {"scale": 3.0}),
    "proxy_anchor": ("proxy_anchor", {"margin": 0.7}),
    "proxy_anchor options": ("proxy_anchor", {"margin": 0.7, "delta": 0.3, "alpha": 4.0}),
    "normalised_softmax": ("normalised_softmax", {"scale": 5.0}),
    "arcface": ("arcface", {"margin": 0.5, "scale": 8.0}),
    "arcface wide": ("arcface", {"margin": 2.0, "scale": 8.0}),
}
TYPICAL = {"euclidean": 3.5, "centred_euclidean": 3.2, "mahalanobis": 7.0}  # absolute distances; a relative one is 2


def case_options(case: str, name: str) -> tuple[str, dict[str, Any]]:
    """The loss of a case, and its options in the units of one distance."""
    loss, options = CASES[case]
    kind = LOSSES[loss]
    softmax = kind.default_scale is not None and loss not in ("lifted", "n_pair")  # whose cases suit all distances
    unit = TYPICAL.get(name, 2.0) if kind.margin_unit or softmax else 1.0
    usual = 1 if name in RELATIVE or kind.margin_unit == "distance" else 2
    unit = unit ** (usual if loss == "contrastive" else options.get("power", usual))
    powers = dict.fromkeys(("margin", "positive_margin", "epsilon", "delta"), 1) | {"beta": -1}
    powers["scale"] = -1 if softmax else 0
    powers["alpha"] = -1 if loss in ("multi_similarity", "proxy_anchor") else 1
    if loss in OVER_COSINES:
        powers = {}
    return loss, {k: unit ** powers[k] * v if k in powers else v for k, v in options.items()}


OVER_COSINES = ("normalised_softmax", "arcface")


def defined(case: str, name: str) -> bool:
    """Angles and inner products go with absolute distances or cosines only, 1/d with relative ones."""
    loss, options = CASES[case]
    if loss in OVER_COSINES:
        return name in ("cosine", "correlation")
    if name in RELATIVE:
        return loss != "angular"
    return options.get("similarity") != "inverse"


def over(loss: str, name: str) -> str:
    """The name, or cosine where it must be."""
    return "cosine" if loss in OVER_COSINES else name


N_CLASSES = 5


def sized(loss: str, n_classes: int = N_CLASSES, components: int = M) -> dict[str, Any]:
    """What a loss with proxies is made for."""
    sizes = {"n_classes": n_classes, "embedding_size": components, "seed": 0}
    return sizes if LOSSES[loss].has_proxies else {}


def labels_of(loss: str, y: list[int]) -> Tensor:
    """As they are, or from 0 where every label has its proxy."""
    labels = torch.tensor(y)
    return labels.unique(return_inverse=True)[1] if LOSSES[loss].has_proxies else labels


def build(case: str, name: str, anchor: str = "query", components: Any = L, **options: Any) -> Loss:
    """The loss of a case, options changed."""
    loss, usual = case_options(case, name)
    return get_loss(loss, member(name, anchor, components), **{**usual, **sized(loss), **options})


def cases_of(loss: str, name: str) -> list[str]:
    return [case for case in CASES if CASES[case][0] == loss and defined(case, name)]


every_loss = pytest.mark.parametrize("loss", LOSSES)
every_loss_and_distance = pytest.mark.parametrize(
    ("loss", "name"), [(loss, name) for loss in LOSSES for name in DISTANCES if defined(loss, name)]
)
# One loss shows all members, the others those that differ in kind: absolute, relative to either side, behind a matrix,
# over cosines; options are shown over the first three.
KINDS = (("euclidean", "query"), ("snr", "query"), ("snr", "ref"), ("mahalanobis", "query"), ("correlation", "query"))
every_case = pytest.mark.parametrize(
    ("case", "name", "anchor"),
    [
        (case, *one)
        for case in CASES
        for one in FAMILY
        if defined(case, one[0]) and (case == "contrastive" or one in (KINDS if case in LOSSES else KINDS[:3]))
    ],
)

# --- batches ----------------------------------------------------------------------------------------------------------


def labelled(n: int, m: int, components: int = M, seed: int = 0, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    """n normal embeddings, m of a class."""
    return normal(n, components, seed=seed, dtype=dtype), torch.arange(n) // m


def with_twins(labels: list[int], *twins: tuple[int, int]) -> tuple[Tensor, list[int]]:
    """Normal embeddings, the second of each two a copy of the first."""
    x = normal(len(labels), M, seed=len(labels))
    for i, j in twins:
        x[j] = x[i]
    return x, labels


UNEVEN = [0, 1, 0, 2, 1, 0, 3]
BATCHES: dict[str, tuple[Tensor, list[int]]] = {
    "pairs": with_twins([0, 0, 1, 1, 2, 2]),
    "uneven": with_twins(UNEVEN),
    "two classes of three": with_twins([0, 1, 0, 1, 1, 0]),
    "odd labels": with_twins([70, -5, 70, 70, 0, -5, 0]),
    "one class of two samples": with_twins([1, 0, 1, 2]),
    "single class": with_twins([4, 4, 4, 4]),
    "all distinct": with_twins([4, 2, 0, 3]),
    "one sample": with_twins([7]),
    "twins in a class": with_twins(UNEVEN, (0, 2), (1, 4)),
    "twins in two classes": with_twins(UNEVEN, (0, 1), (2, 3)),
    "four of a kind": with_twins(UNEVEN, (0, 1), (0, 2), (0, 5)),
    "two sets": with_twins([0, 1, 0, 2, 3, 1, 0, 4, 1, 0, 4]),
}
FIRST = 5
"""Samples of "two sets" that stand in the first; both sets have a class that the other has not."""


class Table(NamedTuple):
    """A number for every (i, j) of a batch, (n, n), and its gradients for x_i and for x_j, (n, n, M) each."""

    value: Tensor
    at_row: Tensor
    at_column: Tensor

    def chain(self, loops: Callable[..., Loops], *args: Any, **options: Any) -> tuple[Loops, Tensor]:
        """What the loops find in the table, and the gradient of their value for the embeddings, (n, M)."""
        D = self.value.clone().requires_grad_()
        found = loops(D, *args, **options)
        g = torch.autograd.grad(found.value + 0 * D.sum(), D)[0][:, :, None]
        gradient = (g * self.at_row).sum(dim=1) + (g * self.at_column).sum(dim=0)
        return found._replace(value=found.value.detach()), gradient


@cache
def naive_table(kind: str, name: str, anchor: str, batch: str, proxies: bool = False) -> Table:
    """Distances, inner products or cosines; of the batch, or of the batch and the first proxies after it."""
    x = BATCHES[batch][0]
    if proxies:
        first: Any = get_loss("proxy_nca", member("euclidean"), **sized("proxy_nca"))
        x = torch.cat([x, first.proxies.detach().double()])
    n = len(x)
    q, r = (side.reshape(n * n, M).requires_grad_() for side in (x.repeat_interleave(n, dim=0), x.repeat(n, 1)))

    def inner(left: Tensor, right: Tensor) -> Tensor:
        return torch.stack([naive_inner_product(name, a, b) for a, b in zip(left, right, strict=True)])

    value = naive_pairs(name, anchor, q, r) if kind == "distance" else inner(q, r)
    if kind == "cosine":
        value = value / (inner(q, q) * inner(r, r)) ** 0.5
    gradients = torch.autograd.grad(value.sum() + 0 * (q.sum() + r.sum()), (q, r))  # each pair has its own rows
    return Table(value.detach().view(n, n), *(g.view(n, n, M) for g in gradients))


@cache
def naive_case(case: str, name: str, anchor: str, batch: str, first: int | None = None) -> tuple[Loops, Tensor]:
    """The loops of a case, and the gradient of their value for the embeddings, and for the proxies below them.

    With ``first`` so many samples are the anchors, and all others the second set.
    """
    loss, options = case_options(case, name)
    if first is not None:
        options = {**options, "first": first}
    inner = loss == "n_pair" and name not in RELATIVE and "similarity" not in options
    kind = "cosine" if loss in ("angular", *OVER_COSINES) else "inner product" if inner else "distance"
    table = naive_table(kind, name, anchor, batch, proxies=LOSSES[loss].has_proxies)
    return table.chain(NAIVE[loss], labels_of(loss, BATCHES[batch][1]).tolist(), name in RELATIVE, **options)


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
