"""What holds for every loss: numbers of every size and precision, memory, and the changes that change nothing."""

import math

import pytest
import torch
from loss_cases import (
    ABSOLUTE,
    CASES,
    RELATIVE,
    assert_equal,
    build,
    cases_of,
    defined,
    every_case,
    every_loss,
    every_loss_and_distance,
    labelled,
    value_and_gradient,
)
from oracles import F32, F64, Largest, M, normal

from snrlib.distances import DISTANCES, get_distance
from snrlib.losses import LOSSES, ZeroMeanRegularizer

HALF = (torch.bfloat16, torch.float16)

# --- numbers of every size, precision and batch -----------------------------------------------------------------------


x6, row = normal(6, M), torch.arange(6)[:, None]
DEGENERATE = {
    "all zero": 0 * x6,
    "all constant": (row + 1.0).expand(6, M).double(),
    "all equal": x6[:1].expand(6, M),
    "one zero": x6.masked_fill(row == 3, 0),
    "two zero": x6.masked_fill((row == 2) | (row == 3), 0),
    "one constant": x6.masked_fill(row == 3, 2),
}
EXTREME = DEGENERATE | {f"{kind}, large": 1e4 * x for kind, x in DEGENERATE.items()}
EXTREME |= {"small": 1e-4 * x6, "large": 1e4 * x6}


@every_loss_and_distance
def test_extreme_embeddings_leave_everything_finite(loss: str, name: str) -> None:
    for anchor in ("query", "ref") if name in RELATIVE else ("query",):
        for case in cases_of(loss, name):
            fast = build(case, name, anchor)
            for kind, x in EXTREME.items():
                for dtype in (F32, F64, torch.bfloat16) if case == loss else (F32,):
                    value, gradient = value_and_gradient(fast, x.to(dtype), torch.arange(6) // 2)
                    assert torch.isfinite(value), (case, kind, dtype)
                    assert torch.isfinite(gradient).all(), (case, kind, dtype)
                    assert math.isfinite(fast.report().positive_distance)
                    assert gradient.abs().max() < 1e6 or kind not in DEGENERATE, f"{kind}: thrown out of range"


@every_loss
def test_large_float32_batches_are_finite(loss: str) -> None:
    name = "euclidean" if loss == "angular" else "snr"
    fast = build(loss, name)
    _, gradient = value_and_gradient(fast, *labelled(1024, 4, 32, dtype=F32))
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0
    if loss == "triplet":  # whose float32 sum is one of differences, here of 6e7 terms
        x, y = labelled(2048, 16, 32, dtype=F32)
        assert_equal(fast(x, y).double(), fast(x.double(), y), tolerance=1e-4)


@pytest.mark.parametrize("m", [4, 64])
@every_loss_and_distance
def test_no_operation_returns_a_third_axis(loss: str, name: str, m: int) -> None:
    x, y = labelled(128, m, 64)
    with Largest() as largest:
        _, gradient = value_and_gradient(build(loss, name, components=normal(16, 64, seed=1)), x, y)
    assert largest.numel <= 2 * 128**2  # two numbers per pair of samples
    assert torch.isfinite(gradient).all()


@every_loss
@pytest.mark.parametrize("dtype", HALF)
def test_autocast_changes_nothing_in_a_loss(loss: str, dtype: torch.dtype) -> None:
    plain_x, y = labelled(64, 4, dtype=F32)
    for x in (plain_x, plain_x[:1] + 1e-3 * plain_x, plain_x.to(dtype)):  # also nearly collapsed, and of such a network
        x.requires_grad_()
        for name in DISTANCES:
            for case in cases_of(loss, name):
                fast = build(case, name, regularizer=ZeroMeanRegularizer(0.1))
                plain = fast(x, y)
                with torch.autocast("cpu", dtype):
                    cast = fast(x, y)
                assert torch.equal(cast, plain), (case, name)
                assert torch.equal(*(torch.autograd.grad(value, x)[0] for value in (cast, plain))), (case, name)


@every_loss_and_distance
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_computed_in_float32(loss: str, name: str, dtype: torch.dtype) -> None:
    x, y = labelled(12, 3, dtype=dtype)
    value, gradient = value_and_gradient(build(loss, name), x, y)
    exact, exact_gradient = value_and_gradient(build(loss, name), x.double(), y)
    assert (value.dtype, gradient.dtype) == (F32, dtype)
    assert_equal(value.double(), exact, tolerance=1e-5)
    assert_equal(gradient.double(), exact_gradient, tolerance=1e-2)


@pytest.mark.parametrize("name", ["euclidean", "centred_euclidean", "snr"])
@pytest.mark.parametrize("mining", ["all", "semi_hard", "batch_hard"])
def test_float32_triplets_keep_four_digits_everywhere(name: str, mining: str) -> None:
    for offset, scale in ((0.0, 1.0), (1000.0, 1.0), (0.0, 1e4), (1e4, 100.0)):
        x, y = labelled(64, 8, 32)
        x = (scale * x + offset).float()
        margin = 0.3 * get_distance(name)(x.double()).median().item() ** (1 if name in RELATIVE else 2)
        loss = build("triplet", name, margin=margin, mining=mining)
        assert_equal(loss(x, y).double(), loss(x.double(), y), f"{offset}, {scale}", tolerance=1e-4)


# --- invariances ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchor", ["query", "ref"])
@pytest.mark.parametrize("name", RELATIVE)
def test_a_common_scale_changes_no_relative_loss(name: str, anchor: str) -> None:
    x, y = labelled(9, 3)
    for case in (case for case in CASES if defined(case, name)):
        fast = build(case, name, anchor)
        value, gradient = value_and_gradient(fast, x, y)
        for c in (0.01, 300.0, -2.0):
            assert_equal(fast(c * x, y), value, f"{case}, scale {c}")
        for c in (1e-4, 1e4):
            assert_equal(fast(c * x.float(), y).double(), value, f"{case}, scale {c}, float32", tolerance=1e-5)
        assert (x * gradient).sum().abs() <= 1e-12 * (x * gradient).abs().sum() > 0
        if name == "snr":
            assert (gradient.sum(dim=1).abs() <= 1e-12 * gradient.abs().sum(dim=1)).all()
            assert_equal(fast(x + normal(9, 1, seed=5), y), value, "a shift of every embedding along the ones vector")


@pytest.mark.parametrize("name", ABSOLUTE)
def test_a_common_shift_changes_no_absolute_loss(name: str) -> None:
    x, y = labelled(9, 3)
    for case in (case for case in CASES if defined(case, name) and "angular" not in case and case != "n_pair"):
        fast = build(case, name)  # an angle and an inner product have an origin
        value, gradient = value_and_gradient(fast, x, y)
        assert_equal(fast(x + normal(1, M, seed=5), y), value, case)
        assert (gradient.sum(dim=0).abs() <= 1e-12 * gradient.abs().sum(dim=0)).all(), case
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ABSOLUTE)
def test_no_length_changes_the_angular_loss(name: str) -> None:
    (x, y), loss = labelled(9, 3), build("angular", name)
    value, gradient = value_and_gradient(loss, x, y)
    assert_equal(loss(normal(9, 1, seed=4).exp() * x, y), value)
    assert ((x * gradient).sum(dim=1).abs() <= 1e-12 * (x * gradient).abs().sum(dim=1)).all()
    assert gradient.abs().max() > 0


@every_case
def test_order_and_names_of_classes_do_not_matter(case: str, name: str, anchor: str) -> None:
    fast, (x, y) = build(case, name, anchor), labelled(9, 3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    if CASES[case][0] == "n_pair":  # the order within a class is its own: only whole classes are moved
        order = torch.tensor([6, 0, 3, 4, 7, 1, 2, 5, 8])
    value, gradient = value_and_gradient(fast, x, y)
    moved, moved_gradient = value_and_gradient(fast, x[order], torch.tensor([50, -3, 20])[y][order])
    assert_equal(moved, value)
    assert_equal(moved_gradient, gradient[order])


def test_order_within_a_class_matters_to_n_pair() -> None:
    x, y = labelled(6, 2)
    loss = build("n_pair", "snr")
    assert loss(x[[1, 0, 2, 3, 4, 5]], y) != pytest.approx(loss(x, y).item(), rel=1e-3)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "angular"])
def test_the_anchor_side_matters_but_to_contrastive(loss: str) -> None:
    x, y = labelled(9, 3)
    x = x * torch.linspace(0.5, 2, 9)[:, None]
    same = build(loss, "snr", "ref")(x, y) == pytest.approx(build(loss, "snr")(x, y).item(), rel=1e-10)
    assert same == (loss == "contrastive")
