"""What holds for every loss: numbers of every size and precision, memory, and the changes that change nothing."""

import math

import pytest
import torch
from loss_cases import (
    CASES,
    assert_equal,
    build,
    cases_of,
    defined,
    every_case,
    every_loss,
    every_loss_and_distance,
    labelled,
    over,
    sized,
    value_and_gradient,
)
from oracles import F32, F64, Largest, M, normal

from snrlib.distances import DISTANCES, RELATIVE, get_distance
from snrlib.losses import LOSSES, ZeroMeanRegularizer

HALF = (torch.bfloat16, torch.float16)

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
    options = cases_of(loss, name) if name in ("euclidean", "snr", "cosine") else [loss]
    for case, anchor in [(loss, "ref"), *((case, "query") for case in options)]:
        fast = build(case, name, anchor)
        for kind, x in EXTREME.items():
            for dtype in (F32, F64, torch.bfloat16) if (case, anchor) == (loss, "query") else (F32,):
                value, gradient = value_and_gradient(fast, x.to(dtype), torch.arange(6) // 2)
                assert torch.isfinite(value), (case, kind, dtype)
                assert torch.isfinite(gradient).all(), (case, kind, dtype)
                assert math.isfinite(fast.report().positive_distance)
                assert gradient.abs().max() < 1e6 or kind not in DEGENERATE, f"{kind}: thrown out of range"


@every_loss
def test_large_float32_batches_are_finite(loss: str) -> None:
    fast = build(loss, over(loss, "euclidean"), **sized(loss, 256, 32))
    _, gradient = value_and_gradient(fast, *labelled(1024, 4, 32, dtype=F32))
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["euclidean", "snr"])
@pytest.mark.parametrize("mining", ["all", "semi_hard", "batch_hard"])
def test_float32_triplets_keep_four_digits_everywhere(name: str, mining: str) -> None:
    for n, offset, scale in ((64, 0, 1), (64, 1000, 1), (64, 0, 1e4), (64, 1e4, 100), (640, 0, 1)):
        x, y = labelled(n, n // 8, 32)  # the last of 2^24 triplets and more: a sum of differences
        x = (scale * x + offset).float()
        margin = 0.3 * get_distance(name)(x.double()).median().item() ** (1 if name in RELATIVE else 2)
        loss = build("triplet", name, margin=margin, mining=mining)
        assert_equal(loss(x, y).double(), loss(x.double(), y), f"{offset}, {scale}", tolerance=1e-4)


@every_loss_and_distance
def test_no_operation_returns_a_third_axis(loss: str, name: str) -> None:
    for m in (4, 32):
        x, y = labelled(64, m, 32)
        with Largest() as largest:
            fast = build(loss, name, components=normal(8, 32, seed=1), **sized(loss, 16, 32))
            value_and_gradient(fast, x, y)
        assert largest.numel <= 2 * 64**2  # two numbers per pair of samples


@every_loss
@pytest.mark.parametrize("dtype", HALF)
def test_autocast_changes_nothing_in_a_loss(loss: str, dtype: torch.dtype) -> None:
    plain_x, y = labelled(32, 4, dtype=F32)
    for x in (plain_x[:1] + 1e-3 * plain_x, plain_x.to(dtype)):  # nearly collapsed, and of such a network
        x.requires_grad_()
        for name in DISTANCES:
            for case in cases_of(loss, name) if name == "snr" else [loss] if defined(loss, name) else []:
                fast = build(case, name, regularizer=ZeroMeanRegularizer(0.1), **sized(loss, 8))
                plain = fast(x, y)
                with torch.autocast("cpu", dtype):
                    cast = fast(x, y)
                assert torch.equal(cast, plain), (case, name)
                assert torch.equal(*(torch.autograd.grad(value, x)[0] for value in (cast, plain))), (case, name)


@every_loss_and_distance
def test_half_precision_is_computed_in_float32(loss: str, name: str) -> None:
    for dtype in HALF:
        x, y = labelled(12, 3, dtype=dtype)
        value, gradient = value_and_gradient(build(loss, name), x, y)
        exact, exact_gradient = value_and_gradient(build(loss, name), x.double(), y)
        assert (value.dtype, gradient.dtype) == (F32, dtype)
        assert_equal(value.double(), exact, tolerance=1e-5)
        assert_equal(gradient.double(), exact_gradient, tolerance=1e-2)


@every_case
def test_scale_shift_order_and_names_change_nothing(case: str, name: str, anchor: str) -> None:
    fast, (x, y), loss = build(case, name, anchor), labelled(9, 3), CASES[case][0]
    proxies = LOSSES[loss].has_proxies
    value, gradient = value_and_gradient(fast, x, y)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    if loss == "n_pair":  # the order within a class is its own: only whole classes are moved
        order = torch.tensor([6, 0, 3, 4, 7, 1, 2, 5, 8])
    names = torch.tensor([0, 1, 2] if proxies else [50, -3, 20])  # the name of a class is that of its proxy
    moved, moved_gradient = value_and_gradient(fast, x[order], names[y][order])
    assert_equal(moved, value)
    assert_equal(moved_gradient, gradient[order])
    if proxies and name not in ("cosine", "correlation"):  # they stay where they are
        return
    if name in RELATIVE:
        for c in (0.01, 300.0, 2.0 if proxies else -2.0):
            assert_equal(fast(c * x, y), value, f"a common scale {c}")
        for c in (1e-4, 1e4):
            assert_equal(fast(c * x.float(), y).double(), value, f"scale {c}, float32", tolerance=1e-5)
        assert (x * gradient).sum().abs() <= 1e-12 * (x * gradient).abs().sum() > 0
    elif loss != "angular" and case != "n_pair":  # an angle and an inner product have an origin
        assert_equal(fast(x + normal(1, M, seed=5), y), value, "a common shift")
        assert (gradient.sum(dim=0).abs() <= 1e-12 * gradient.abs().sum(dim=0)).all()
        assert gradient.abs().sum() > 0
    if name in ("snr", "symmetric_snr", "correlation"):
        assert_equal(fast(x + normal(9, 1, seed=5), y), value, "a shift of every embedding along the ones vector")
        assert (gradient.sum(dim=1).abs() <= 1e-12 * gradient.abs().sum(dim=1)).all()
    if loss == "angular":
        assert_equal(fast(normal(9, 1, seed=4).exp() * x, y), value, "every length")
        assert ((x * gradient).sum(dim=1).abs() <= 1e-12 * (x * gradient).abs().sum(dim=1)).all()


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if defined(loss, "snr")])
def test_the_anchor_side_matters_but_to_contrastive(loss: str) -> None:
    x, y = labelled(9, 3)
    x = x * torch.linspace(0.5, 2, 9)[:, None]
    query, ref = (build(loss, "snr", anchor)(x, y).item() for anchor in ("query", "ref"))
    same = ref == pytest.approx(query, rel=1e-10)
    assert same == (loss == "contrastive")
