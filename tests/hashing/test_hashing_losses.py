"""DSH, DTSH and the regularizer of codes against loops; the methods that are compared, and networks with such heads."""

from collections.abc import Callable

import pytest
import torch
from loss_cases import BATCHES, assert_equal, value_and_gradient
from oracles import bad_options, log_one_plus_sum_exp, mean_of, normal, ordered_pairs, refusals, triplets
from torch import Tensor

from snrlib.backbones import embed
from snrlib.data import LabelledImages
from snrlib.distances import get_distance
from snrlib.hashing import METHODS, CodeRegularizer, DSHLoss, DTSHLoss, RelaxedHead, get_method, hamming, hasher, pack
from snrlib.losses import get_loss
from snrlib.train import train

BITS = 6


def naive_dsh(u: Tensor, y: list[int], m: float, alpha: float) -> Tensor:
    positive, negative = ordered_pairs(y)
    terms = [((u[i] - u[j]) ** 2).sum() / 2 for i, j in positive]
    terms += [(m - ((u[i] - u[j]) ** 2).sum()).relu() / 2 for i, j in negative]
    return mean_of(terms) + alpha * mean_of([sum((abs(x) - 1).abs() for x in row) for row in u])


def naive_dtsh(u: Tensor, y: list[int], alpha: float, weight: float) -> Tensor:
    anchors = []
    for anchor in range(len(y)):
        own = [(u[i] @ u[j] / 2, u[i] @ u[k] / 2) for i, j, k in triplets(y) if i == anchor]
        terms = [log_one_plus_sum_exp([-(near - far - alpha)]) for near, far in own]
        anchors += [mean_of(terms)] if terms else []
    likelihood = mean_of(anchors) if anchors else 0 * u.sum()
    return likelihood + weight * mean_of([((row - row.sign()) ** 2).sum() for row in u])


def naive_regularizer(u: Tensor, quantization: float, balance: float) -> Tensor:
    off = mean_of([(abs(x) - 1) ** 2 for row in u for x in row])
    return quantization * off + balance * mean_of([abs(sum(row) / len(row)) for row in u])


LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "dsh": (DSHLoss(BITS), lambda u, y: naive_dsh(u, y, 12, 0.01)),
    "dsh, other numbers": (DSHLoss(BITS, margin=9, alpha=0.5), lambda u, y: naive_dsh(u, y, 9, 0.5)),
    "dtsh": (DTSHLoss(BITS), lambda u, y: naive_dtsh(u, y, 3, 1 / 225)),
    "dtsh, other numbers": (DTSHLoss(BITS, alpha=0.5, weight=2.0), lambda u, y: naive_dtsh(u, y, 0.5, 2.0)),
    "regularizer": (CodeRegularizer(0.3, 0.7), lambda u, y: naive_regularizer(u, 0.3, 0.7)),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_values_and_gradients_equal_the_loops(loss: str) -> None:
    fast, naive = LOSSES[loss]
    for batch, (x, y) in BATCHES.items():
        value, gradient = value_and_gradient(fast, x, torch.tensor(y))
        expected, slow = value_and_gradient(naive, x, y)
        assert_equal(value, expected, batch)
        assert_equal(gradient, slow, batch)
    x, y = BATCHES["uneven"]
    assert torch.autograd.gradcheck(lambda u: fast(u, torch.tensor(y)), x.clone().requires_grad_())


def test_large_inner_products_do_not_overflow() -> None:
    x = (1e3 * normal(6, BITS)).requires_grad_()
    value = DTSHLoss(BITS)(x, torch.arange(6) // 2)
    assert torch.isfinite(value)
    assert torch.isfinite(torch.autograd.grad(value, x)[0]).all()


@pytest.mark.parametrize("share", [0.125, 0.5, 1.0])
def test_of_balanced_codes_the_snr_pair_loss_is_dsh(share: float) -> None:
    bits = 16
    half = torch.cat([torch.ones(bits // 2), -torch.ones(bits // 2)]).double()
    codes, y = half[normal(12, bits).argsort(dim=1)], torch.arange(12) // 3
    ours = get_loss("contrastive", get_distance("snr"), margin=4 * share)(codes, y)
    assert_equal(bits * ours, get_method("dsh", bits, share).loss(codes, y))


@pytest.mark.parametrize("name", METHODS)
def test_margins_of_all_methods_are_bits(name: str) -> None:
    """Of two codes at that share of the bits a pair loss pushes no further, and a closer pair it does."""
    bits, share = 16, 0.25
    method = get_method(name, bits, share, weight=0.0)
    a = torch.cat([torch.ones(8), -torch.ones(8)]).double()
    b, c = a.clone(), a.clone()
    b[[0, 1, 8, 9]] *= -1  # 4 of 16 bits, balanced
    c[[0, 8]] *= -1
    assert hamming(pack(a[None]), pack(torch.stack([b, c]))).tolist() == [[4, 2]]
    if name.endswith("pair") or name == "dsh":
        assert method.loss(torch.stack([a, b]), torch.tensor([0, 1])).item() == pytest.approx(0, abs=1e-9)
        assert method.loss(torch.stack([a, c]), torch.tensor([0, 1])) > 1e-3
    elif name.endswith("triplet"):
        at, inside = (method.loss(torch.stack([a, a, x]), torch.tensor([0, 0, 1])).item() for x in (b, c))
        assert at == pytest.approx(0, abs=1e-9)
        assert inside > 1e-3
    else:  # log(1 + exp(alpha - H)) at its middle
        at = method.loss(torch.stack([a, a, b]), torch.tensor([0, 0, 1])).item()
        assert at == pytest.approx(0.6931, abs=1e-4)
    assert method.relax == ("none" if name in ("dsh", "dtsh") else "tanh")


def test_a_weight_counts_in_units_of_the_margin() -> None:
    u = 0.5 * normal(6, 16)
    for name in METHODS[:-2]:
        method, without = (get_method(name, 16, 0.25, weight=w) for w in (0.1, 0.0))
        y, unit = torch.arange(6) // 2, {"snr": 1.0, "cosine": 0.5, "euclidean": 16.0}[name.split("_")[0]]
        expected = naive_regularizer(u, 0.1 * unit, 0.1 * unit)
        assert_equal(method.loss(u, y) - without.loss(u, y), expected)


def test_the_relaxed_head_is_a_linear_one_with_tanh() -> None:
    torch.manual_seed(0)
    relaxed = hasher("conv4", 12)
    torch.manual_seed(0)
    linear = hasher("conv4", 12, "none")
    images = normal(3, 1, 16, 16).float()
    torch.testing.assert_close(embed(relaxed, images), embed(linear, images).tanh())
    assert isinstance(relaxed.head, RelaxedHead)
    assert sum(len(group["params"]) for group in relaxed.parameter_groups(0.1, 0.01)) == len([*relaxed.parameters()])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(name: str) -> None:
    torch.manual_seed(0)
    labels = torch.arange(64) // 16
    images = (normal(4, 1, 16, 16)[labels] + 0.3 * normal(64, 1, 16, 16, seed=1)).float()
    data = LabelledImages("stripes", images, labels, tuple("abcd"))
    loss, relax, _ = get_method(name, 16, 0.25)
    history = train(hasher("conv4", 16, relax), data, loss, steps=8, batch_size=32, m=8)
    assert history.loss.iloc[-3:].mean() < 0.8 * history.loss.iloc[:2].mean()


test_bad_arguments_are_refused = refusals(
    *bad_options(lambda **o: CodeRegularizer(**o), quantization=[-1.0, "1"], balance=[-0.1, float("nan")]),
    *bad_options(lambda **o: DSHLoss(8, **o), margin=[0.0, -1.0], alpha=[-0.1]),
    *bad_options(lambda **o: DTSHLoss(8, **o), alpha=[-1.0], weight=[-0.1, float("inf")]),
    *bad_options(lambda **o: get_method("snr_pair", 16, **o), share=[0.0, 1.1], weight=[-1.0]),
    (lambda: get_method("greedyhash", 16), ValueError, "method must be one of snr_pair, .* got 'greedyhash'"),
    (lambda: hasher("conv4", 1), ValueError, "bits must be an integer of at least 2, got 1"),
    (lambda: hasher("conv4", 16, "sigmoid"), ValueError, "relax must be one of tanh, none, got 'sigmoid'"),
    (lambda: hasher("vgg", 16), ValueError, "unknown backbone 'vgg'"),
    (lambda: DTSHLoss(4)(normal(3, 4), torch.arange(2)), ValueError, "labels must be 3 integers"),
    (lambda: DSHLoss(4)(normal(3, 4).long(), torch.arange(3)), TypeError, "must be floating point"),
    (lambda: CodeRegularizer(1.0)(normal(3)), ValueError, "codes must be 2-D"),
)
