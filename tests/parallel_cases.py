"""What each of several processes computes; apart from the tests, so that a process imports little."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from training_cases import M, images, losses, network

from snrlib.distances import get_distance
from snrlib.losses import LOSSES, NPairsLoss, RelationNetwork, SoftmaxClassifier, get_loss
from snrlib.train import processes, train


def every_loss() -> dict[str, nn.Module]:
    """Each loss of `get_loss` over an absolute and a relative distance, and those with parameters of their own."""
    found: dict[str, nn.Module] = {}
    for name in LOSSES:
        for distance in ("euclidean", "snr"):
            if (name, distance) == ("angular", "snr"):
                continue  # angles go with absolute distances only
            if name in ("normalised_softmax", "arcface"):
                distance = {"euclidean": "cosine", "snr": "correlation"}[distance]
            options: dict[str, Any] = {"margin": 0.5} if LOSSES[name].margin_unit else {}
            options |= {"alpha": 1.2} if name == "ranked_list" else {}
            options |= {"n_classes": 8, "embedding_size": M, "seed": 3} if LOSSES[name].has_proxies else {}
            found[f"{name}, {distance}"] = get_loss(name, get_distance(distance), **options)
    found["n_pair, inner product"] = NPairsLoss(get_distance("euclidean"), similarity="inner_product")
    torch.manual_seed(3)
    found["softmax"] = SoftmaxClassifier(8, M)
    found["relation"] = RelationNetwork(M)
    found["trainable map"] = losses("map")
    return {name: loss.double() for name, loss in found.items()}


def batch() -> tuple[Tensor, Tensor]:
    """Four images of each of four classes, and their labels."""
    data = images(4, 4)
    return data.images.double(), data.labels


def values_and_gradients() -> dict[str, list[Tensor]]:
    """Of every loss: its value, and its gradients for the network and its own parameters."""
    x, labels = batch()
    share = x.chunk(processes.world_size())[processes.rank()]
    found = {}
    for name, loss in every_loss().items():
        model = network().double()
        distributed = processes.distribute(model)  # it averages gradients as long as it is held
        value = loss(processes.gather(distributed(share)), labels)
        value.backward()
        gradients = [p.grad for p in [*model.parameters(), *loss.parameters()] if p.grad is not None]
        found[name] = [value.detach(), *gradients]
    return found


def what_one_sees() -> dict[str, Any]:
    """What the documentation says of one process among several, as it finds it."""
    rank = processes.rank()
    found: dict[str, Any] = {
        "size": processes.world_size(),
        "gathered": processes.gather(torch.arange(6.0).view(3, 2) + 100 * rank),
        "from the first": processes.from_first(processes.rank),
    }
    model = network(batch_norm=True).double()
    share = batch()[0].chunk(processes.world_size())[rank]
    found["batch norm"] = processes.gather(processes.distribute(model)(share)).detach()

    torch.manual_seed(rank)
    model, loss = network(seed=rank), SoftmaxClassifier(8, M)
    train(model, images(), loss, steps=2, batch_size=16)
    found["weights"] = [*model.state_dict().values(), *loss.state_dict().values()]

    drawn = []

    def watch(image: Tensor) -> Tensor:
        drawn.append(torch.rand(()).item())
        return image

    train(network(), images(), losses("snr"), steps=2, batch_size=16, augment=watch)
    found["drawn"] = drawn
    try:
        train(network(), images(), losses("snr"), steps=2, batch_size=9, m=3)
    except ValueError as error:
        found["refused"] = str(error)
    processes.barrier()
    return found
