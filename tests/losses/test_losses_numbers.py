"""What holds for every loss: numbers of every size and precision, memory, and the changes that change nothing."""

import itertools
import math

import pytest
import torch
from loss_cases import (
    CASES,
    F32,
    F64,
    assert_equal,
    build,
    case_options,
    defined,
    every_case,
    every_loss,
    every_loss_and_distance,
    labelled,
    value_and_gradient,
)
from oracles import Largest, M, member, normal
from torch import Tensor, nn

from snrlib.distances import DISTANCES, get_distance
from snrlib.losses import LOSSES, NPairsLoss, ZeroMeanRegularizer, get_loss

# --- numbers of every size, precision and batch -----------------------------------------------------------------------


@every_loss_and_distance
def test_small_and_large_float32_embeddings_give_finite_losses_and_gradients(loss: str, name: str) -> None:
    x, y = labelled(12, 3, dtype=F32)
    for case in (case for case in CASES if CASES[case][0] == loss and defined(case, name)):
        for anchor in ("query", "ref"):
            fast = build(case, name, anchor)
            plain = fast(x, y)
            for scale in (1e-4, 1e4):
                value, gradient = value_and_gradient(fast, scale * x, y)
                assert torch.isfinite(value)
                assert torch.isfinite(gradient).all()
                if member(name).relative or loss == "angular":  # no unit: the size does not matter
                    assert_equal(value, plain.detach(), f"{case}, {scale}", tolerance=1e-5)


def degenerate() -> dict[str, Tensor]:
    x = normal(6, M)
    at_3, at_2_and_3 = ((torch.arange(6) >= first) & (torch.arange(6) <= 3) for first in (3, 2))
    return {
        "all zero": 0 * x,
        "all constant": torch.arange(1.0, 7)[:, None].expand(6, M).double(),
        "all equal": x[:1].expand(6, M),
        "one zero": x.masked_fill(at_3[:, None], 0),
        "two zero": x.masked_fill(at_2_and_3[:, None], 0),
        "one constant": x.masked_fill(at_3[:, None], 2),
    }


@every_loss_and_distance
def test_degenerate_embeddings_give_finite_losses_and_gradients(loss: str, name: str) -> None:
    for (kind, x), scale in itertools.product(degenerate().items(), (1.0, 1e4)):
        for dtype in (F32, F64, torch.bfloat16):
            for anchor in ("query", "ref"):
                fast = build(loss, name, anchor)
                value, gradient = value_and_gradient(fast, (scale * x).to(dtype), torch.arange(6) // 2)
                assert torch.isfinite(value), (kind, dtype)
                assert torch.isfinite(gradient).all(), (kind, dtype)
                assert math.isfinite(fast.report().positive_distance)


@every_loss_and_distance
def test_a_degenerate_embedding_has_no_gradient_that_throws_it_out_of_range(loss: str, name: str) -> None:
    for kind, x in degenerate().items():
        _, gradient = value_and_gradient(build(loss, name), x.float(), torch.arange(6) // 2)
        assert gradient.abs().max() < 1e6, kind


@pytest.mark.parametrize(("loss", "name"), [(loss, "euclidean" if loss == "angular" else "snr") for loss in LOSSES])
def test_a_float32_batch_of_4096_is_finite_and_the_sum_over_its_triplets_right(loss: str, name: str) -> None:
    x, y = labelled(4096, 4, 32, dtype=F32)
    fast = build(loss, name)
    value, gradient = value_and_gradient(fast, x, y)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0
    if loss == "triplet":  # whose float32 sum is one of differences
        with torch.no_grad():
            assert_equal(value.double(), fast(x.double(), y), tolerance=1e-4)


@pytest.mark.parametrize("m", [4, 128])
@every_loss_and_distance
def test_no_operation_returns_more_than_two_numbers_a_pair_of_samples(loss: str, name: str, m: int) -> None:
    x, y = labelled(256, m, 64)
    components = {"components": normal(16, 64, seed=1)} if "mahalanobis" in name else {}
    fast = get_loss(loss, get_distance(name, **components), **case_options(loss, name)[1])
    with Largest() as largest:
        _, gradient = value_and_gradient(fast, x, y)
    assert largest.numel <= 2 * 256**2
    assert torch.isfinite(gradient).all()


@every_loss
def test_autocast_of_a_network_stays_close_to_float32(loss: str) -> None:
    torch.manual_seed(0)
    net = nn.Linear(16, M)
    x, y = labelled(64, 4, 16, dtype=F32)
    for name in (name for name in DISTANCES if defined(loss, name)):
        fast = build(loss, name, regularizer=ZeroMeanRegularizer(0.1))
        results = []
        for dtype in (None, torch.bfloat16, torch.float16):
            net.zero_grad()
            with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
                value = fast(3 * net(x), y)
            value.backward()
            assert value.dtype == F32
            assert net.weight.grad is not None
            results.append((value.detach(), net.weight.grad.clone()))
        for value, gradient in results[1:]:
            assert_equal(value, results[0][0], name, tolerance=0.02)
            assert_equal(gradient, results[0][1], name, tolerance=0.1)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing_in_a_loss_itself(loss: str, dtype: torch.dtype) -> None:
    normal_, y = labelled(256, 4, dtype=F32)
    for x in (normal_, normal_[:1] + 1e-3 * normal_):  # also nearly collapsed
        x.requires_grad_()
        for case in (case for case in CASES if CASES[case][0] == loss):
            for name in (name for name in DISTANCES if defined(case, name)):
                fast = build(case, name)
                plain = fast(x, y)
                with torch.autocast("cpu", dtype):
                    cast = fast(x, y)
                assert torch.equal(cast, plain), (case, name)
                assert torch.equal(*(torch.autograd.grad(value, x)[0] for value in (cast, plain))), (case, name)


@every_loss_and_distance
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_are_computed_in_float32(loss: str, name: str, dtype: torch.dtype) -> None:
    x, y = labelled(12, 3, dtype=dtype)
    value, gradient = value_and_gradient(build(loss, name), x, y)
    exact, exact_gradient = value_and_gradient(build(loss, name), x.double(), y)
    assert (value.dtype, gradient.dtype) == (F32, dtype)
    assert_equal(value.double(), exact, tolerance=1e-5)
    assert_equal(gradient.double(), exact_gradient, tolerance=1e-2)


@pytest.mark.parametrize("name", ["euclidean", "centred_euclidean", "snr"])
@pytest.mark.parametrize("mining", ["all", "semi_hard", "batch_hard"])
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1000.0, 1.0), (0.0, 1e4), (1e4, 100.0)])
def test_a_float32_triplet_loss_keeps_four_digits_far_from_the_origin(
    name: str, mining: str, offset: float, scale: float
) -> None:
    x, y = labelled(64, 8, 32)
    x = (scale * x + offset).float()
    margin = 0.3 * get_distance(name)(x.double()).median().item() ** (1 if member(name).relative else 2)
    loss = build("triplet", name, margin=margin, mining=mining)
    assert_equal(loss(x, y).double(), loss(x.double(), y), tolerance=1e-4)


# --- invariances ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchor", ["query", "ref"])
@pytest.mark.parametrize(
    ("case", "name"),
    [(case, name) for case in CASES for name in DISTANCES if member(name).relative and defined(case, name)],
)
def test_under_a_relative_distance_a_common_scale_changes_nothing(case: str, name: str, anchor: str) -> None:
    fast = build(case, name, anchor)
    x, y = labelled(9, 3)
    value, gradient = value_and_gradient(fast, x, y)
    for c in (0.01, 300.0, -2.0):
        assert_equal(fast(c * x, y), value, f"scale {c}")
    size = (x * gradient).abs().sum()
    assert size > 0
    assert (x * gradient).sum().abs() <= 1e-12 * size
    if name == "snr":
        assert (gradient.sum(dim=1).abs() <= 1e-12 * gradient.abs().sum(dim=1)).all()
        assert_equal(fast(x + normal(9, 1, seed=5), y), value, "a shift of every embedding along the ones vector")


@pytest.mark.parametrize("name", [name for name in DISTANCES if not member(name).relative])
@pytest.mark.parametrize("case", [case for case in CASES if "angular" not in case and "inverse" not in case])
def test_under_an_absolute_distance_a_common_shift_changes_nothing(case: str, name: str) -> None:
    fast = build(case, name)
    if isinstance(fast, NPairsLoss) and fast.similarity == "inner_product":
        fast.similarity = "negative"  # an inner product has an origin
    x, y = labelled(9, 3)
    value, gradient = value_and_gradient(fast, x, y)
    assert_equal(fast(x + normal(1, M, seed=5), y), value)
    assert (gradient.sum(dim=0).abs() <= 1e-12 * gradient.abs().sum(dim=0)).all()
    assert gradient.abs().sum() > 0


@every_case
def test_the_order_of_the_batch_and_the_names_of_the_classes_do_not_matter(case: str, name: str, anchor: str) -> None:
    fast = build(case, name, anchor)
    x, y = labelled(9, 3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    if CASES[case][0] == "n_pair":  # the order within a class is its own: only whole classes are moved
        order = torch.tensor([6, 0, 3, 4, 7, 1, 2, 5, 8])
    value, gradient = value_and_gradient(fast, x, y)
    moved, moved_gradient = value_and_gradient(fast, x[order], torch.tensor([50, -3, 20])[y][order])
    assert_equal(moved, value)
    assert_equal(moved_gradient, gradient[order])


def test_in_the_n_pair_loss_the_order_within_a_class_matters() -> None:
    x, y = labelled(6, 2)
    loss = build("n_pair", "snr")
    assert loss(x[[1, 0, 2, 3, 4, 5]], y) != pytest.approx(loss(x, y).item(), rel=1e-3)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "angular"])
def test_the_anchor_side_matters_but_to_the_contrastive_loss_whose_pairs_go_both_ways(loss: str) -> None:
    x, y = labelled(9, 3)
    x = x * torch.linspace(0.5, 2, 9)[:, None]
    same = build(loss, "snr", "ref")(x, y) == pytest.approx(build(loss, "snr")(x, y).item(), rel=1e-10)
    assert same == (loss == "contrastive")
