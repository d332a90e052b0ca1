"""The library inside other people's code: compiled, exported, under vmap and grad, values and gradients stay equal."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from snrlib.distances import DISTANCES, Distance, get_distance
from snrlib.losses import LOSSES, Loss, get_loss

GENERATOR = torch.Generator().manual_seed(0)
X, Y = (torch.randn(n, 6, dtype=torch.float64, generator=GENERATOR) for n in (12, 9))
LABELS = torch.arange(12) // 3
BREAKING = {"n_pair", "lifted", "nt_xent"}
"""Losses whose shapes depend on the labels, so that a graph breaks there; the others are one graph."""


def member(name: str, anchor: str = "query") -> Distance:
    components = torch.eye(6, dtype=torch.float64) + 0.1 if "mahalanobis" in name else None
    return get_distance(name, components=components, anchor=anchor)


def forms(d: Distance) -> dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]]:
    """Functions of tensors, and tensors to call them with."""
    return {
        "two sets": (lambda x, y: d(x, y), (X, Y)),
        "one set": (lambda x: d(x), (X,)),
        "pairs": (d.pairwise_distance, (X[:9], Y)),
    }


def make(name: str, distance: Distance) -> Loss:
    sizes = {"n_classes": 5, "embedding_size": 6, "seed": 0} if LOSSES[name].has_proxies else {}
    return get_loss(name, distance, **sizes)


# Each loss over one distance, and one over a distance of every kind: absolute, relative, behind a matrix.
OVER = {"angular": "euclidean", "normalised_softmax": "cosine", "arcface": "cosine"}
ONCE = [(name, OVER.get(name, "snr")) for name in LOSSES]
KINDS = [("contrastive", distance) for distance in ("euclidean", "relative_mahalanobis", "cosine")]


def outcome(f: Callable[..., Tensor], *given: Tensor) -> list[Tensor]:
    """The value, and the gradient of a weighted sum of it with respect to everything given."""
    leaves = [one.clone().requires_grad_() for one in given]
    value = f(*leaves)
    weights = torch.linspace(1, 2, value.numel(), dtype=value.dtype).view(value.shape)
    return [value.detach(), *torch.autograd.grad((value * weights).sum(), leaves)]


def assert_same(f: Callable[..., Tensor], compiled: Callable[..., Tensor], *given: Tensor) -> None:
    for found, expected in zip(outcome(compiled, *given), outcome(f, *given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize(("name", "anchor"), [*((name, "query") for name in DISTANCES), ("snr", "ref")])
def test_distances_are_one_graph_under_compile_and_export(name: str, anchor: str) -> None:
    d = member(name, anchor)
    for f, given in forms(d).values():
        assert_same(f, torch.compile(f, backend="eager", fullgraph=True), *given)
    exported = torch.export.export(d, (X, Y)).module()
    torch.testing.assert_close(exported(X, Y), d(X, Y))


@pytest.mark.parametrize("anchor", ["query", "ref"])
@pytest.mark.parametrize("name", DISTANCES)
def test_distances_hold_under_vmap_and_grad(name: str, anchor: str) -> None:
    for f, given in forms(member(name, anchor)).values():
        found = torch.func.vmap(f)(*(torch.stack([one, 2 * one]) for one in given))
        torch.testing.assert_close(found, torch.stack([f(*given), f(*(2 * one for one in given))]))
        if len(given) == 2:
            x, y = given
            one_side = torch.func.vmap(f, in_dims=(None, 0))(x, torch.stack([y, 2 * y]))
            torch.testing.assert_close(one_side, torch.stack([f(x, y), f(x, 2 * y)]))
        value, *expected = outcome(f, *given)
        weights = torch.linspace(1, 2, value.numel(), dtype=value.dtype).view(value.shape)
        sides = tuple(range(len(given)))
        gradients = torch.func.grad(lambda *x, f=f, w=weights: (f(*x) * w).sum(), argnums=sides)(*given)
        torch.testing.assert_close(gradients, tuple(expected))


@pytest.mark.parametrize(("name", "distance"), [*ONCE, *KINDS])
def test_losses_hold_under_vmap_and_grad(name: str, distance: str) -> None:
    loss = make(name, member(distance))

    def f(x: Tensor) -> Tensor:
        return loss(x, LABELS)

    torch.testing.assert_close(torch.func.vmap(f)(torch.stack([X, 2 * X])), torch.stack([f(X), f(2 * X)]))
    torch.testing.assert_close(torch.func.grad(f)(X), outcome(f, X)[1])


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("contrastive", {"power": 1, "average": "active"}),
    ("triplet", {"soft_margin": True, "swap": True}),
    ("triplet", {"mining": "batch_hard", "swap": True}),
    ("lifted", {"scale": 0.5, "power": 2}),
    ("n_pair", {"scale": 0.5, "similarity": "negative"}),
]


def with_second_set(name: str, options: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    loss, second = get_loss(name, member("snr"), **options), () if name == "n_pair" else (Y, LABELS[:9])
    return lambda x: loss(x, LABELS, *second)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_options_and_second_sets_hold_under_vmap(name: str, options: dict[str, Any]) -> None:
    f = with_second_set(name, options)
    torch.testing.assert_close(torch.func.vmap(f)(torch.stack([X, 2 * X])), torch.stack([f(X), f(2 * X)]))


# --- compiled code ----------------------------------------------------------------------------------------------------


def assert_compiled_same(f: Callable[..., Tensor], *given: Tensor, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        assert_same(f, torch.compile(f, **options), *given)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["euclidean", "snr", "relative_mahalanobis", "cosine"])
def test_compiled_distances_compute_the_same(name: str) -> None:
    for f, given in forms(member(name)).values():
        assert_compiled_same(f, *given)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "distance"), [*ONCE, *(pair for pair in KINDS if pair == ("triplet", "snr"))])
def test_compiled_losses_compute_the_same(name: str, distance: str) -> None:
    loss = make(name, member(distance))
    assert_compiled_same(lambda x: loss(x, LABELS), X, fullgraph=name not in BREAKING)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "distance"), [*ONCE, *KINDS])
def test_losses_are_one_graph_unless_shapes_break_it(name: str, distance: str) -> None:
    loss = make(name, member(distance))
    assert_compiled_same(lambda x: loss(x, LABELS), X, backend="eager", fullgraph=name not in BREAKING)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_options_and_second_sets_hold_under_compile(name: str, options: dict[str, Any]) -> None:
    assert_compiled_same(with_second_set(name, options), X, backend="eager", fullgraph=name == "contrastive")


@pytest.mark.parametrize("name", ["mahalanobis", "relative_mahalanobis"])
def test_a_map_that_overflows_is_refused(name: str) -> None:
    d = get_distance(name, components=1e15 * torch.eye(6))
    x = 1e10 * X.float()
    for call in (d, d.embed, lambda x: d(x, x + 1), lambda x: d.pairwise_distance(x, x[[1, *range(11)]])):
        with pytest.raises(ValueError, match="embeddings under the map must be at most"):
            call(x)
    assert d(1e-10 * X.float()).isfinite().all()
