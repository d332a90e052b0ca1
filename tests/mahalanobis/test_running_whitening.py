"""Maps that change in training: a whitening that follows the batches, a free L, and the penalty for a singular one."""

import copy
import io
import math
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from loss_cases import assert_equal, case_options, defined, labelled, sized, value_and_gradient
from oracles import F32, F64, M, bad_options, naive_within, normal, refusals, relative_error
from torch import Tensor, nn
from torch.nn import functional as F

from snrlib.distances import Distance, LinearMap, get_distance
from snrlib.losses import LOSSES, LogDetRegularizer, Loss, get_loss
from snrlib.mahalanobis import RunningWhitening

OVER_MAPS = [loss for loss in LOSSES if defined(loss, "mahalanobis")]
FORMS = [*((loss, False) for loss in OVER_MAPS), *((loss, True) for loss in OVER_MAPS if loss != "angular")]
# A layer before a map moves the samples, and not the proxies.
FORMS = [(loss, relative) for loss, relative in FORMS if not LOSSES[loss].has_proxies]
every_loss_and_form = pytest.mark.parametrize(("loss", "relative"), FORMS)


def batch(n: int = 12, seed: int = 0, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    """Three samples per class, of correlated components; the classes lie apart."""
    x, y = labelled(n, 3, seed=seed)
    return ((x + 2 * normal(n // 3, M, seed=seed + 50)[y]) @ normal(M, M, seed=77)).to(dtype), y


def matrix(L: LinearMap) -> Tensor:
    return L.components.T @ L.components


def running(*batches: tuple[Tensor, Tensor], **options: Any) -> RunningWhitening:
    """One that has seen batches."""
    L = RunningWhitening(M, **options).double()
    for x, y in batches:
        L.update(x, y)
    return L


def loss_over(loss: str, map: nn.Module, relative: bool = False, **options: Any) -> Loss:
    case = "multi_similarity all" if loss == "multi_similarity" else loss  # of classes that lie apart nothing is mined
    usual = case_options(case, "relative_euclidean" if relative else "euclidean")[1]
    return get_loss(loss, Distance(map, relative, **options), **usual, **sized(loss))


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two maps have seen the same batches."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- the running whitening --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("momentum", "scale", "shrinkage"), [(0.01, 1e4, 1e-6), (0.5, 1.0, 0.1), (1.0, 1e-4, 1.0)])
def test_the_matrix_inverts_the_shrunk_running_average(momentum: float, scale: float, shrinkage: float) -> None:
    batches = [(scale * x, y) for x, y in (batch(seed=seed) for seed in range(4))]
    batches[2] = batches[2][0], torch.tensor([70, -5, 70, 70, 0, -5, 0, 9, 70, 0, 70, 1])
    L = running(momentum=momentum, shrinkage=shrinkage)
    for seen, (x, y) in enumerate(batches, start=1):
        L.update(x, y)
        weights = [momentum * (1 - momentum) ** (seen - 1 - t) for t in range(seen)]  # they fade
        S = sum(weight * naive_within(*one) for weight, one in zip(weights, batches, strict=False)) / sum(weights)
        S = (1 - shrinkage) * S + shrinkage * S.diagonal().mean() * torch.eye(M, dtype=F64)
        assert L.weight.item() == pytest.approx(sum(weights))
        assert relative_error(matrix(L), torch.linalg.inv(S)) <= 1e-9
        assert torch.equal(L.components, L.components.tril())


ALIKE = torch.full((3, M), 0.1, dtype=F64)  # their computed mean is not 0.1
SILENT = {
    "one of each class": (batch()[0], torch.arange(12)),
    "one sample": (batch()[0][:1], torch.tensor([3])),
    "twins": (batch()[0][[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])),
    "equal samples of classes": (torch.cat([ALIKE, 7 * ALIKE, ALIKE[:2] / 3]), torch.tensor([0, 0, 0, 4, 4, 4, 5, 6])),
    "zeros": (torch.zeros(4, M), torch.zeros(4, dtype=torch.int64)),
}


@pytest.mark.parametrize("silent", SILENT)
def test_batches_without_different_classmates_change_nothing(silent: str) -> None:
    x = batch()[0]
    fresh, followed = running(SILENT[silent]), running(batch(), SILENT[silent])
    assert same(fresh, running())
    assert same(followed, running(batch()))
    assert torch.equal(fresh(x), x)  # the identity before the first batch
    assert torch.equal(Distance(fresh)(x), get_distance("euclidean")(x))
    assert not [*fresh.parameters()]


def test_lower_precisions_give_the_float64_map() -> None:
    x, y = batch(dtype=F32)
    for given, labels in ((x, y), (x.bfloat16(), y.int())):
        single, double = RunningWhitening(M), running((given.double(), y))
        single.update(given, labels)
        assert single.components.dtype == single(x).dtype == F32
        assert relative_error(single.components, double.components) <= 1e-6


# --- under a loss -----------------------------------------------------------------------------------------------------


@every_loss_and_form
def test_losses_show_batches_before_measuring_in_training(loss: str, relative: bool) -> None:
    f, one, other = loss_over(loss, running(), relative), batch(), batch(seed=1)
    for training, (x, y), seen in ((True, one, [one]), (False, other, [one]), (True, other, [one, other])):
        value, gradient = value_and_gradient(f.train(training), x, y)
        assert same(f.distance.map, running(*seen))
        fixed = loss_over(loss, LinearMap(running(*seen).components), relative)
        expected, expected_gradient = value_and_gradient(fixed, x, y)  # none flows through the map
        assert_equal(value, expected)
        assert_equal(gradient, expected_gradient)
        assert gradient.any()


def test_only_labelled_batches_of_a_loss_are_shown() -> None:
    (x, y), triplets = batch(), torch.tensor([[0, 1, 5], [3, 4, 8]])
    f = loss_over("triplet", running())
    for measure in (
        lambda: f.distance(x),
        lambda: f.distance.pairwise_distance(x, x),
        lambda: f.distance.map(x),
        lambda: f(x, triplets=triplets),
        lambda: f(x, None, triplets=triplets),
    ):
        measure()
        assert same(f.distance.map, running())
    for show in (lambda f: f(x, y), lambda f: f(x, labels=y), lambda f: f(embeddings=x, labels=y)):
        f = loss_over("triplet", running())
        show(f)
        assert same(f.distance.map, running((x, y)))
    normalised = running()
    loss_over("triplet", normalised, normalize_embeddings=True)(x, y)
    assert relative_error(matrix(normalised), matrix(running((F.normalize(x), y)))) <= 1e-12


@pytest.mark.parametrize("loss", OVER_MAPS)
def test_copies_and_stored_states_follow_their_own_batches(loss: str) -> None:
    one, other = batch(), batch(seed=1)
    f = loss_over(loss, running())
    value = f(*one)
    file, restored = io.BytesIO(), loss_over(loss, running())
    torch.save(f.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file))
    for twin in (copy.deepcopy(f), pickle.loads(pickle.dumps(f)), restored):
        assert_equal(twin.eval()(*one), value)
        twin.train()(*other)
        assert same(f.distance.map, running(one))
        assert same(twin.distance.map, running(one, other))


@pytest.mark.parametrize("loss", OVER_MAPS)
def test_two_batches_may_share_a_backward_pass(loss: str) -> None:
    f, again = loss_over(loss, running()), loss_over(loss, running())
    one, other, y = batch()[0].requires_grad_(), batch(seed=1)[0].requires_grad_(), batch()[1]
    (f(one, y) + f(other, y)).backward()
    for x in (one, other):
        assert x.grad is not None
        assert_equal(x.grad, value_and_gradient(again, x, y)[1])


def test_inference_mode_does_not_end_the_training() -> None:
    x, y = batch()
    f = loss_over("contrastive", running())
    with torch.inference_mode():
        f(x, y)
    assert same(f.distance.map, running((x, y)))
    assert value_and_gradient(f.eval(), x, y)[1].any()
    assert value_and_gradient(f.train(), x, y)[1].any()


@every_loss_and_form
def test_a_layer_before_running_whitening_changes_nothing(loss: str, relative: bool) -> None:
    B = normal(M, M, seed=3)
    plain, behind = (loss_over(loss, running(shrinkage=1e-9), relative) for _ in range(2))
    for seed in range(3):
        x, y = batch(24, seed)
        value, expected = behind(x @ B.T, y), plain(x, y)
        assert_equal(value, expected, tolerance=1e-5)
        assert_equal(behind.distance(x @ B.T), plain.distance(x), tolerance=1e-5)
    assert relative_error(Distance(None, relative)(x @ B.T), Distance(None, relative)(x)) > 0.1


@every_loss_and_form
def test_a_free_map_is_another_linear_layer(loss: str, relative: bool) -> None:
    """``F(V)`` of the one layer ``V = L W``; ``dF/dL = dF/dV W'`` and ``dF/dW = L' dF/dV``."""
    x, y = batch()
    for L in (torch.eye(M, dtype=F64), normal(M, M, seed=5)):
        free, W = nn.Parameter(L.clone()), normal(M, M, seed=4).requires_grad_()
        over, euclid = loss_over(loss, LinearMap(free), relative), loss_over(loss, nn.Identity(), relative)
        V = (L @ W).detach().requires_grad_()
        assert [parameter is free for parameter in over.parameters()] == [True]
        assert_equal(over.distance(x @ W.T), euclid.distance(x @ V.T))
        assert_equal(over(x @ W.T, y), euclid(x @ V.T, y))
        of_free, of_W = torch.autograd.grad(over(x @ W.T, y), (free, W))
        (of_V,) = torch.autograd.grad(euclid(x @ V.T, y), V)
        assert of_V.any()
        assert_equal(of_free, of_V @ W.T, tolerance=1e-9)
        assert_equal(of_W, L.T @ of_V, tolerance=1e-9)


# --- the penalty of a learned map -------------------------------------------------------------------------------------


def penalty(L: Tensor, weight: float = 1.0) -> Tensor:
    return LogDetRegularizer(weight, LinearMap(L))(None)


@pytest.mark.parametrize("rows", [1, 3, M])
def test_penalty_and_gradient_equal_their_formulas(rows: int) -> None:
    L = nn.Parameter(normal(rows, M, seed=rows))
    gram = L.detach() @ L.detach().T
    expected = 0.3 / rows * (gram.trace() - np.linalg.slogdet(gram)[1] - rows)
    value = penalty(L, 0.3)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    assert value > 0
    (gradient,) = torch.autograd.grad(value, L)
    assert_equal(gradient, 0.3 / rows * 2 * (L - torch.linalg.inv(gram) @ L).detach())
    left, right = torch.linalg.qr(normal(rows, rows))[0], torch.linalg.qr(normal(M, M))[0]
    assert penalty(left @ L @ right, 0.3).item() == pytest.approx(value.item())  # a rotation changes nothing
    assert penalty(right[:rows]).item() == pytest.approx(0, abs=1e-12)  # and costs nothing


def test_losing_a_direction_costs_without_end() -> None:
    for scale in (1e-3, 1e-30):
        L = torch.diag(torch.tensor([1.0, scale, 2.0], dtype=F64))
        assert penalty(L).item() == pytest.approx((5 - 2 * np.log(2 * scale) - 3) / 3)
    L[1, 1] = 0
    assert penalty(L) == torch.inf
    for dtype in (F32, F64):  # nearly singular: large and not undefined
        for seed in range(20):
            assert penalty(normal(3, 1, seed=seed, dtype=dtype) @ normal(1, 3, seed=seed + 50, dtype=dtype)) > 5


# --- bad input --------------------------------------------------------------------------------------------------------


x12, y12 = batch()


test_bad_options_are_refused = refusals(
    *bad_options(RunningWhitening, n_components=[0]),
    *bad_options(partial(RunningWhitening, M), momentum=[0.0, 1.5, math.nan], shrinkage=[0.0, 2, math.nan]),
    (lambda: LogDetRegularizer(-1, LinearMap(torch.eye(3))), ValueError, "weight must be .* at least 0, got -1"),
    (lambda: LogDetRegularizer(1.0, nn.Identity()), TypeError, "map must be a LinearMap, got Identity"),  # type: ignore[arg-type]
    (lambda: penalty(torch.zeros(4, 3)), ValueError, r"at most as many rows as columns, got shape \(4, 3\)"),
)


@pytest.mark.parametrize(
    ("x", "y", "error", "words"),
    [
        (normal(12, 4), y12, ValueError, "the map is of 6 components, got embeddings with 4"),
        (x12 / 0, y12, ValueError, "embeddings must be finite, got NaN or infinity in 12 of 12 rows"),
        (x12.tolist(), y12, TypeError, "embeddings must be a torch.Tensor .* got list"),
        (x12, y12[1:], ValueError, r"labels must be 12 integers, got torch.int64 of shape \(11,\)"),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(x: Any, y: Any, error: type[Exception], words: str) -> None:
    L = running()
    normalised = loss_over("contrastive", L, normalize_embeddings=True)
    for show in (L.update, loss_over("contrastive", L), normalised):
        with pytest.raises(error, match=words):
            show(x, y)
    assert same(L, running())


def test_maps_and_penalties_say_what_they_are() -> None:
    assert repr(RunningWhitening(3)) == "RunningWhitening(components=(3, 3), momentum=0.1, shrinkage=0.1)"
    assert repr(LogDetRegularizer(0.5, LinearMap(torch.eye(3)))).startswith("LogDetRegularizer(\n  weight=0.5")
    assert penalty(2 * torch.eye(3), weight=0) == 0
