"""Maps that change in training: a whitening that follows the batches, a free L, and the penalty for a singular one."""

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from loss_cases import F64, assert_equal, case_options, every_loss, labelled, value_and_gradient
from oracles import M, normal, relative_error
from torch import Tensor, nn
from torch.nn import functional as F

from snrlib.distances import Distance, LinearMap, get_distance
from snrlib.losses import LOSSES, LogDetRegularizer, Loss, TripletMarginLoss, get_loss
from snrlib.mahalanobis import RunningWhitening

RELATIVE = pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
LOSS_AND_FORM = pytest.mark.parametrize(
    ("loss", "relative"), [(loss, relative) for loss in LOSSES for relative in (False, True)[: 1 + (loss != "angular")]]
)


def batch(n: int = 12, seed: int = 0, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    """Three samples a class, of correlated components; the classes lie apart."""
    x, y = labelled(n, 3, seed=seed, dtype=F64)
    return ((x + 2 * normal(n // 3, M, seed=seed + 50)[y]) @ normal(M, M, seed=77)).to(dtype), y


def naive_within(x: Tensor, y: Tensor) -> Tensor:
    """Covariance within classes, sample by sample."""
    S = torch.zeros(x.shape[1], x.shape[1], dtype=F64)
    for row, cls in zip(x, y, strict=True):
        noise = row - torch.stack([other for other, c in zip(x, y, strict=True) if c == cls]).mean(dim=0)
        S += noise[:, None] * noise
    return S / (len(x) - len(set(y.tolist())))


def shrunk(S: Tensor, shrinkage: float) -> Tensor:
    return (1 - shrinkage) * S + shrinkage * S.diagonal().mean() * torch.eye(len(S), dtype=F64)


def matrix(L: LinearMap) -> Tensor:
    return L.components.T @ L.components


def running(**options: Any) -> RunningWhitening:
    return RunningWhitening(M, **options).double()


def loss_over(loss: str, map: nn.Module, relative: bool = False, **options: Any) -> Loss:
    usual = case_options(loss, "relative_euclidean" if relative else "euclidean")[1]
    return get_loss(loss, Distance(map, relative, **options), **usual)


def state(map: nn.Module) -> list[Tensor]:
    return [value.clone() for value in map.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- the running whitening --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shrinkage", [1e-6, 0.1, 1.0])
@pytest.mark.parametrize("momentum", [0.01, 1.0])
def test_after_the_first_batch_the_matrix_is_the_inverse_of_its_shrunk_covariance(
    momentum: float, shrinkage: float
) -> None:
    L, (x, y) = running(momentum=momentum, shrinkage=shrinkage), batch()
    L.update(x, y)
    expected = torch.linalg.inv(shrunk(naive_within(x, y), shrinkage))
    assert relative_error(matrix(L), expected) <= 1e-9
    assert torch.equal(L.components, L.components.tril())
    if shrinkage == 1:  # a scale is left
        assert relative_error(L.components, torch.eye(M, dtype=F64) * L.components[0, 0]) <= 1e-9


@pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0])
def test_several_batches_are_averaged_with_weights_that_fade_and_add_up_to_1(momentum: float) -> None:
    L, batches = running(momentum=momentum), [batch(seed=seed) for seed in range(5)]
    for x, y in batches:
        L.update(x, y)
    weights = [momentum * (1 - momentum) ** (4 - t) for t in range(5)]
    S = torch.zeros(M, M, dtype=F64)
    for weight, (x, y) in zip(weights, batches, strict=True):
        S += weight / sum(weights) * naive_within(x, y)
    assert L.weight.item() == pytest.approx(sum(weights))
    assert relative_error(matrix(L), torch.linalg.inv(shrunk(S, 0.1))) <= 1e-9


def test_classes_of_different_sizes_and_odd_labels_equal_the_loop() -> None:
    L, (x, _) = running(), batch()
    y = torch.tensor([70, -5, 70, 70, 0, -5, 0, 9, 70, 0, 70, 1])
    L.update(x, y)
    assert relative_error(matrix(L), torch.linalg.inv(shrunk(naive_within(x, y), 0.1))) <= 1e-9


def test_whitened_residuals_have_covariance_1() -> None:
    L, (x, y) = running(shrinkage=1e-12), batch(60)
    L.update(x, y)
    assert relative_error(naive_within(L(x), y), torch.eye(M, dtype=F64)) <= 1e-8


def test_before_the_first_batch_it_is_the_identity() -> None:
    x, _ = batch()
    L = RunningWhitening(M)
    assert torch.equal(L(x), x)
    assert torch.equal(Distance(L)(x), get_distance("euclidean")(x))
    assert [*L.parameters()] == []


ALIKE = torch.full((3, M), 0.1, dtype=F64)  # their computed mean is not 0.1


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (batch()[0], torch.arange(12)),
        (batch()[0][:1], torch.tensor([3])),
        (batch()[0][[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])),
        (ALIKE, torch.zeros(3, dtype=torch.int64)),
        (torch.cat([ALIKE, 7 * ALIKE, 1 / 3 * ALIKE[:2]]), torch.tensor([0, 0, 0, 4, 4, 4, 5, 6])),
        (torch.zeros(4, M), torch.zeros(4, dtype=torch.int64)),
    ],
    ids=["one of each class", "one sample", "twins", "equal samples", "equal samples of classes", "zeros"],
)
def test_a_batch_without_two_different_samples_of_a_class_changes_nothing(x: Tensor, y: Tensor) -> None:
    L = running()
    fresh = state(L)
    L.update(x, y)
    assert same(state(L), fresh)
    L.update(*batch())
    followed = state(L)
    L.update(x, y)
    assert same(state(L), followed)


@RELATIVE
@pytest.mark.parametrize("scale", [1e-4, 3.0, 1e4])
def test_a_scale_of_the_embeddings_changes_no_distance(scale: float, relative: bool) -> None:
    distances = []
    for factor in (1, scale):
        L = running()
        for seed in range(3):
            x, y = batch(seed=seed)
            L.update(factor * x, y)
        distances.append(Distance(L, relative)(factor * x))
    assert relative_error(distances[1], distances[0]) <= 1e-8


def test_embeddings_of_float32_give_the_map_of_float64() -> None:
    x, y = batch(dtype=torch.float32)
    single, double = RunningWhitening(M), running()
    single.update(x, y)
    double.update(x.double(), y)
    assert single.components.dtype == torch.float32
    assert single(x).dtype == torch.float32
    assert relative_error(single.components, double.components) <= 1e-6
    half = RunningWhitening(M)
    half.update(x.bfloat16(), y.int())
    double = running()
    double.update(x.bfloat16().double(), y)
    assert relative_error(half.components, double.components) <= 1e-6


@LOSS_AND_FORM
def test_no_gradient_flows_through_the_map(loss: str, relative: bool) -> None:
    x, y = batch()
    moving = loss_over(loss, running(), relative)
    value, gradient = value_and_gradient(moving, x, y)
    assert isinstance(moving.distance.map, RunningWhitening)
    assert not moving.distance.map.components.requires_grad
    fixed = loss_over(loss, LinearMap(moving.distance.map.components), relative)
    expected, expected_gradient = value_and_gradient(fixed, x, y)
    assert_equal(value, expected)
    assert_equal(gradient, expected_gradient)
    assert gradient.any()


def test_a_stored_state_goes_on_as_if_nothing_had_happened() -> None:
    L = running()
    L.update(*batch())
    file = io.BytesIO()
    torch.save(L.state_dict(), file)
    file.seek(0)
    restored = running()
    restored.load_state_dict(torch.load(file))
    assert same(state(restored), state(L))
    for map in (L, restored):
        map.update(*batch(seed=1))
    assert same(state(restored), state(L))


# --- under a loss -----------------------------------------------------------------------------------------------------


@LOSS_AND_FORM
def test_every_loss_shows_a_batch_in_training_before_it_measures_and_not_in_evaluation(
    loss: str, relative: bool
) -> None:
    x, y = batch()
    f, expected = loss_over(loss, running(), relative), running()
    expected.update(x, y)
    value = f(x, y)
    assert same(state(f.distance.map), state(expected))
    assert_equal(value, loss_over(loss, LinearMap(expected.components), relative)(x, y))
    f.eval()
    other, labels = batch(seed=1)
    value = f(other, labels)
    assert same(state(f.distance.map), state(expected))
    assert_equal(value, loss_over(loss, LinearMap(expected.components), relative)(other, labels))
    f.train()
    f(other, labels)
    expected.update(other, labels)
    assert same(state(f.distance.map), state(expected))


@every_loss
def test_normalised_distances_show_normalised_embeddings(loss: str) -> None:
    x, y = batch()
    f, expected = loss_over(loss, running(), normalize_embeddings=True), running()
    expected.update(F.normalize(x), y)
    f(x, y)
    assert relative_error(matrix(f.distance.map), matrix(expected)) <= 1e-12  # type: ignore[arg-type]


def test_measuring_alone_changes_nothing() -> None:
    x, _ = batch()
    L = running()
    before = state(L)
    Distance(L)(x)
    Distance(L).pairwise_distance(x, x)
    L(x)
    assert same(state(L), before)


@every_loss
def test_a_copy_of_a_loss_follows_its_own_batches(loss: str) -> None:
    x, y = batch()
    f = loss_over(loss, running())
    value = f(x, y)
    for other in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert_equal(other.eval()(x, y), value)
        followed = state(f.distance.map)
        other.train()(*batch(seed=1))
        assert same(state(f.distance.map), followed)
        assert not same(state(other.distance.map), followed)


@every_loss
def test_two_batches_may_share_a_backward_pass(loss: str) -> None:
    f = loss_over(loss, running())
    one, other = batch()[0].requires_grad_(), batch(seed=1)[0].requires_grad_()
    y = batch()[1]
    (f(one, y) + f(other, y)).backward()
    again = loss_over(loss, running())
    expected, _ = (value_and_gradient(again, x, y)[1] for x in (one, other))
    assert one.grad is not None
    assert_equal(one.grad, expected)


def test_a_batch_seen_in_inference_mode_does_not_end_the_training() -> None:
    x, y = batch()
    f, expected = loss_over("contrastive", running()), running()
    with torch.inference_mode():
        f(x, y)
    expected.update(x, y)
    assert same(state(f.distance.map), state(expected))
    assert value_and_gradient(f.eval(), x, y)[1].any()
    assert value_and_gradient(f.train(), x, y)[1].any()


@every_loss
def test_a_batch_given_by_keywords_is_shown_too(loss: str) -> None:
    x, y = batch()
    expected = running()
    expected.update(x, y)
    for call in (lambda f: f(x, labels=y), lambda f: f(embeddings=x, labels=y)):
        f = loss_over(loss, running())
        call(f)
        assert same(state(f.distance.map), state(expected))


def test_given_triplets_without_labels_show_no_batch() -> None:
    x, _ = batch()
    f = TripletMarginLoss(Distance(running()), margin=1.0)
    before = state(f.distance.map)
    f(x, triplets=torch.tensor([[0, 1, 5], [3, 4, 8]]))
    assert same(state(f.distance.map), before)


def test_labels_of_none_show_no_batch() -> None:
    x, _ = batch()
    triplets = torch.tensor([[0, 1, 5], [3, 4, 8]])
    f = TripletMarginLoss(Distance(running()), margin=1.0)
    assert torch.equal(f(x, None, triplets), f(x, triplets=triplets))


# --- invariance to the layer before -----------------------------------------------------------------------------------


@LOSS_AND_FORM
def test_a_linear_layer_before_a_running_whitening_changes_nothing(loss: str, relative: bool) -> None:
    B = normal(M, M, seed=3)
    plain, behind = (loss_over(loss, running(shrinkage=1e-9), relative) for _ in range(2))
    for seed in range(3):
        x, y = batch(24, seed)
        value, expected = behind(x @ B.T, y), plain(x, y)
        assert_equal(value, expected, tolerance=1e-5)
        assert_equal(behind.distance(x @ B.T), plain.distance(x), tolerance=1e-5)
    assert relative_error(Distance(None, relative)(x @ B.T), Distance(None, relative)(x)) > 0.1


@LOSS_AND_FORM
def test_a_free_map_behind_a_linear_layer_is_another_linear_layer(loss: str, relative: bool) -> None:
    x, y = batch()
    W, L = normal(M, M, seed=4), normal(M, M, seed=5)
    free, euclid = loss_over(loss, LinearMap(L), relative), loss_over(loss, nn.Identity(), relative)
    assert_equal(free.distance(x @ W.T), euclid.distance(x @ (L @ W).T))
    assert_equal(free(x @ W.T, y), euclid(x @ (L @ W).T, y))


@LOSS_AND_FORM
def test_the_gradient_of_a_free_map_is_that_of_the_layer_before_it_in_other_coordinates(
    loss: str, relative: bool
) -> None:
    """``dF/dL = dF/dV W'`` and ``dF/dW = L' dF/dV`` for ``F(V)`` of the one layer ``V = L W``."""
    x, y = batch()
    for L in (torch.eye(M, dtype=F64), normal(M, M, seed=5)):
        free, W = nn.Parameter(L.clone()), normal(M, M, seed=4).requires_grad_()
        loss_over(loss, LinearMap(free), relative)(x @ W.T, y).backward()
        V = (L @ W).detach().requires_grad_()
        loss_over(loss, nn.Identity(), relative)(x @ V.T, y).backward()
        assert free.grad is not None
        assert W.grad is not None
        assert V.grad is not None
        assert V.grad.any()
        assert_equal(free.grad, V.grad @ W.detach().T, tolerance=1e-9)
        assert_equal(W.grad, L.T @ V.grad, tolerance=1e-9)


def test_a_free_map_is_trained_with_the_loss() -> None:
    x, y = batch(dtype=torch.float32)
    L = nn.Parameter(torch.eye(M))
    f = get_loss("contrastive", get_distance("mahalanobis", components=L), margin=5.0)
    assert [parameter is L for parameter in f.parameters()] == [True]
    optimizer = torch.optim.SGD(f.parameters(), lr=0.01)
    values = []
    for _ in range(10):
        optimizer.zero_grad()
        values.append(f(x, y))
        values[-1].backward()
        optimizer.step()
    assert values[-1] < values[0]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 0}, "n_components must be at least 1, got 0"),
        ({"momentum": 0.0}, "momentum must be a finite number above 0 and at most 1, got 0.0"),
        ({"momentum": 1.5}, "momentum must be a finite number above 0 and at most 1, got 1.5"),
        ({"momentum": float("nan")}, "momentum must be a finite number above 0 and at most 1, got nan"),
        ({"shrinkage": 0.0}, "shrinkage must be a finite number above 0 and at most 1, got 0.0"),
        ({"shrinkage": 2}, "shrinkage must be a finite number above 0 and at most 1, got 2"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunningWhitening(**{"n_components": M, **options})


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (normal(12, 4), batch()[1], ValueError, "the map is of 6 components, got embeddings with 4"),
        (normal(12), batch()[1], ValueError, r"embeddings must be 2-D of shape \(n, M\), got shape \(12,\)"),
        (normal(12, M) / 0, batch()[1], ValueError, "embeddings must be finite, got NaN or infinity in 12 of 12 rows"),
        (batch()[0].long(), batch()[1], TypeError, "embeddings must be floating point, got torch.int64"),
        (batch()[0].tolist(), batch()[1], TypeError, "embeddings must be a torch.Tensor .* got list"),
        (batch()[0], batch()[1][1:], ValueError, r"labels must be 12 integers, got torch.int64 of shape \(11,\)"),
        (batch()[0], batch()[1].float(), ValueError, "labels must be 12 integers, got torch.float32"),
        (batch()[0], batch()[1].tolist(), TypeError, "labels must be a torch.Tensor of integers, got list"),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(x: Any, y: Any, error: type[Exception], message: str) -> None:
    L = running()
    before = state(L)
    with pytest.raises(error, match=message):
        L.update(x, y)
    with pytest.raises(error, match=message):
        loss_over("contrastive", L)(x, y)
    assert same(state(L), before)


@pytest.mark.parametrize("x", [batch()[0].long(), batch()[0].tolist()], ids=["integers", "list"])
def test_bad_batches_are_refused_by_normalised_distances(x: Any) -> None:
    with pytest.raises(TypeError, match=r"embeddings must be (floating point|a torch\.Tensor)"):
        loss_over("contrastive", running(), normalize_embeddings=True)(x, batch()[1])


def test_a_running_whitening_says_what_it_is() -> None:
    assert repr(RunningWhitening(3)) == "RunningWhitening(components=(3, 3), momentum=0.1, shrinkage=0.1)"


# --- the penalty of a learned map -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3, M])
def test_the_penalty_equals_its_formula(rows: int) -> None:
    L = normal(rows, M, seed=rows)
    gram = L.numpy() @ L.numpy().T
    expected = 0.3 / rows * (np.trace(gram) - np.linalg.slogdet(gram)[1] - rows)
    assert LogDetRegularizer(0.3, LinearMap(L))(None).item() == pytest.approx(expected, rel=1e-12)
    assert expected > 0


@pytest.mark.parametrize("rows", [2, M])
def test_the_penalty_of_a_rotation_is_0_and_its_least(rows: int) -> None:
    Q = nn.Parameter(torch.linalg.qr(normal(M, M))[0][:rows])
    penalty = LogDetRegularizer(1.0, LinearMap(Q))(None)
    assert penalty.item() == pytest.approx(0, abs=1e-12)
    penalty.backward()
    assert Q.grad is not None
    assert Q.grad.abs().max() <= 1e-12
    for seed in range(10):
        near = LinearMap(Q.detach() + 0.1 * normal(rows, M, seed=seed))
        assert LogDetRegularizer(1.0, near)(None) > 0


def test_a_rotation_on_either_side_changes_no_penalty() -> None:
    L, Q = normal(M, M), torch.linalg.qr(normal(M, M, seed=1))[0]
    values = [LogDetRegularizer(1.0, LinearMap(matrix))(None).item() for matrix in (L, Q @ L, L @ Q)]
    assert values == pytest.approx(3 * values[:1])


@pytest.mark.parametrize("rows", [2, M])
def test_the_gradient_of_the_penalty_equals_finite_differences(rows: int) -> None:
    def penalty(L: Tensor) -> Tensor:
        return LogDetRegularizer(0.7, LinearMap(nn.Parameter(L)))(None)

    L = nn.Parameter(normal(rows, M))
    f = LogDetRegularizer(0.7, LinearMap(L))
    (gradient,) = torch.autograd.grad(f(None), L)
    for i in range(rows):
        for j in range(M):
            step = torch.zeros(rows, M, dtype=F64)
            step[i, j] = 1e-5
            difference = (penalty(L.detach() + step) - penalty(L.detach() - step)).item() / 2e-5
            assert gradient[i, j].item() == pytest.approx(difference, rel=1e-6, abs=1e-8)


def test_descending_the_penalty_alone_ends_at_a_rotation() -> None:
    L = nn.Parameter(torch.eye(M, dtype=F64) + 0.3 * normal(M, M))
    f = LogDetRegularizer(1.0, LinearMap(L))
    optimizer = torch.optim.SGD([L], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        f(None).backward()
        optimizer.step()
    assert relative_error(L.detach() @ L.detach().T, torch.eye(M, dtype=F64)) <= 1e-4


def test_the_penalty_of_a_map_that_loses_a_direction_is_infinite() -> None:
    for scale in (1e-3, 1e-30):
        L = torch.diag(torch.tensor([1.0, scale, 2.0], dtype=F64))
        expected = (5 - 2 * np.log(2 * scale) - 3) / 3
        assert LogDetRegularizer(1.0, LinearMap(L))(None).item() == pytest.approx(expected)
    L[1, 1] = 0
    assert LogDetRegularizer(1.0, LinearMap(L))(None) == torch.inf


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_penalty_of_a_nearly_singular_map_is_large_and_not_undefined(dtype: torch.dtype) -> None:
    for seed in range(20):
        L = normal(3, 1, seed=seed, dtype=dtype) @ normal(1, 3, seed=seed + 50, dtype=dtype)
        assert LogDetRegularizer(1.0, LinearMap(L))(None) > 5


@every_loss
def test_a_loss_adds_the_penalty_and_its_gradient_reaches_the_map(loss: str) -> None:
    x, y = batch()
    L = nn.Parameter(torch.eye(M, dtype=F64) + 0.3 * normal(M, M, seed=8))
    f = loss_over(loss, LinearMap(L))
    (alone,) = torch.autograd.grad(f(x, y), L)
    value = f(x, y)
    f.regularizer = LogDetRegularizer(0.3, f.distance.map)  # type: ignore[arg-type]
    assert_equal(f(x, y), value + f.regularizer(x, y))
    (together,) = torch.autograd.grad(f(x, y), L)
    (penalty,) = torch.autograd.grad(f.regularizer(x, y), L)
    assert_equal(together, alone + penalty)
    assert penalty.any()
    assert len([*f.parameters()]) == 1


def test_bad_penalties_are_refused() -> None:
    L = LinearMap(torch.eye(3))
    with pytest.raises(ValueError, match="weight must be a finite number at least 0, got -1"):
        LogDetRegularizer(-1, L)
    with pytest.raises(TypeError, match="map must be a LinearMap, got Identity"):
        LogDetRegularizer(1.0, nn.Identity())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at most as many rows as columns, got shape \(4, 3\)"):
        LogDetRegularizer(1.0, LinearMap(torch.zeros(4, 3)))
    assert LogDetRegularizer(0, L)(None) == 0
    assert repr(LogDetRegularizer(0.5, L)).startswith("LogDetRegularizer(\n  weight=0.5")
