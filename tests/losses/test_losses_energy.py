"""The energy confusion against a loop over pairs: what it is worth, and how far its gradient reaches."""

import copy
from typing import Any, cast

import pytest
import torch
from loss_cases import assert_equal
from oracles import F64, bad_options, normal, refusals, total
from torch import Tensor, nn

from snrlib.distances import get_distance
from snrlib.losses import EnergyConfusion, Together, ZeroMeanRegularizer, get_loss

BATCHES = {"uneven": [0, 1, 0, 2, 1, 0, 3], "one class": [4, 4, 4], "all distinct": [4, 2, 0, 3], "two": [0, 1]}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def last(net: nn.Sequential) -> nn.Linear:
    assert isinstance(net[2], nn.Linear)
    return net[2]


def gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad


def drawn(n: int, partners: int, seed: int) -> list[tuple[int, int]]:
    """Every sample's partners, by their distance behind it in the batch."""
    steps = torch.randint(1, n, (n * partners,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [(k // partners, (k // partners + step) % n) for k, step in enumerate(steps)]


def naive(x: list[Tensor], y: list[int], pairs: list[tuple[int, int]]) -> Tensor:
    """E, pair by pair."""
    alike = sum(y[i] == y[j] for i in range(len(y)) for j in range(len(y)) if i != j)
    others = len(y) * (len(y) - 1) - alike
    return total([((x[i] - x[j]) ** 2).sum() / 2 / (alike if y[i] == y[j] else others) for i, j in pairs])


@pytest.mark.parametrize("batch", BATCHES)
def test_value_and_layer_gradient_equal_the_loop(batch: str) -> None:
    net, y, images = network(), BATCHES[batch], normal(len(BATCHES[batch]), 5)
    confusion = EnergyConfusion(0.13, last(net), generator=torch.Generator().manual_seed(7))
    value = confusion(net(images), torch.tensor(y))
    value.backward()
    W = last(net).weight.detach().clone().requires_grad_()
    features = net[:2](images).detach()
    energy = naive([W @ f + last(net).bias.detach() for f in features], y, drawn(len(y), 10, seed=7))
    assert_equal(value, 0.13 * energy.log())
    # The gradient of log E: that of E over E.
    assert_equal(gradient(last(net).weight), 0.13 * torch.autograd.grad(energy, W)[0] / energy.detach())
    assert all(p.grad is None for p in (last(net).bias, *net[0].parameters()))


def test_with_a_loss_the_trunk_learns_of_the_loss_alone() -> None:
    y, images, loss = torch.tensor(BATCHES["uneven"]), normal(7, 5), get_loss("triplet", get_distance("snr"))
    plain, pressed = network(), network()
    loss(plain(images), y).backward()
    added = [ZeroMeanRegularizer(0.0), EnergyConfusion(0.13, last(pressed))]
    loss = get_loss("triplet", get_distance("snr"), regularizer=Together(added))
    assert not list(loss.parameters()), "the weights are the network's"
    loss(pressed(images), y).backward()
    for a, b in zip(plain[0].parameters(), pressed[0].parameters(), strict=True):
        assert torch.equal(gradient(a), gradient(b))
    assert (gradient(last(plain).weight) - gradient(last(pressed).weight)).abs().max() > 1e-3


def test_it_draws_samples_of_all_classes_together() -> None:
    net, y, images = network(), torch.arange(12) // 3, normal(12, 5)
    confusion, optimizer = EnergyConfusion(1.0, last(net)), torch.optim.SGD(net.parameters(), 0.005)
    spread = net(images).detach().var(dim=0).sum()
    for _ in range(50):
        optimizer.zero_grad()
        confusion(net(images), y).backward()
        optimizer.step()
    assert net(images).var(dim=0).sum() < 0.7 * spread


def test_partners_come_from_the_seed() -> None:
    net, y, images = network(), torch.arange(12) // 3, normal(12, 5)
    values = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        values.append(EnergyConfusion(1.0, last(net))(net(images), y).item())
    assert values[0] == values[1] != values[2]


def test_nothing_to_confuse_is_worth_nothing() -> None:
    for features, y in ((normal(1, 4), [3]), (normal(1, 4).expand(4, 4), [0, 0, 1, 1])):
        layer = last(network())
        value = EnergyConfusion(0.13, layer)(layer(features), torch.tensor(y))
        value.backward()
        assert value == 0
        assert_equal(gradient(layer.weight), torch.zeros(3, 4, dtype=F64))


def test_only_training_leaves_features_and_copies_take_none() -> None:
    net, y = network(), torch.tensor([0, 1])
    confusion = EnergyConfusion(0.13, last(net))
    x = net(normal(2, 5))
    net.eval()(normal(9, 5))  # as a validation in between
    assert confusion(x, y).isfinite()
    for twin in (copy.deepcopy(confusion), copy.deepcopy(net)):
        assert getattr(twin, "features", None) is None
    del confusion
    net.train()(normal(3, 5))  # without a regularizer, the hook does nothing


def confuse(rows: int = 4, components: int = 3, called: bool = True) -> Any:
    net = network()
    confusion = EnergyConfusion(0.13, last(net))
    if called:
        net(normal(4, 5))
    return lambda: confusion(torch.zeros(rows, components, dtype=F64), torch.zeros(rows, dtype=torch.int64))


test_bad_input_is_refused = refusals(
    *bad_options(lambda **given: EnergyConfusion(**{"weight": 1.0, "layer": last(network()), **given}), weight=[-1.0]),
    *bad_options(
        lambda **given: EnergyConfusion(**{"weight": 1.0, "layer": last(network()), **given}), partners=[0, 2.0, True]
    ),
    (
        lambda: EnergyConfusion(1.0, cast(Any, network())),
        TypeError,
        "layer must be .*Linear, got Sequential",
    ),
    (confuse(called=False), ValueError, "got 4 with 3 components, and it made none"),
    (confuse(rows=8), ValueError, "got 8 with 3 components, and it made 4 with 3 components"),
    (confuse(components=2), ValueError, "got 4 with 2 components, and it made 4 with 3 components"),
    (lambda: EnergyConfusion(1.0, last(network()))(normal(2, 3), None), TypeError, "labels must be a torch.Tensor"),
)
