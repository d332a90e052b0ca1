"""What two processes compute, write and compare; apart from the tests, so that a process imports little."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from training_cases import KilledError, M, images, losses, network, stop_at, training

from snrlib.distances import get_distance
from snrlib.losses import LOSSES, NPairsLoss, RelationNetwork, SoftmaxClassifier, get_loss
from snrlib.train import processes as parallel
from snrlib.train import train


def every_loss() -> dict[str, nn.Module]:
    """Each loss of `get_loss` over an absolute and a relative distance, and those with parameters of their own."""
    found: dict[str, nn.Module] = {}
    for name in LOSSES:
        for distance in ("euclidean", "snr"):
            if (name, distance) == ("angular", "snr"):
                continue  # angles go with absolute distances only
            options = {} if name in ("angular", "n_pair") else {"margin": 0.5}
            options |= {"alpha": 1.2} if name == "ranked_list" else {}
            found[f"{name}, {distance}"] = get_loss(name, get_distance(distance), **options)
    found["n_pair, inner product"] = NPairsLoss(get_distance("euclidean"), similarity="inner_product")
    torch.manual_seed(3)
    found["softmax"] = SoftmaxClassifier(8, M)
    found["relation"] = RelationNetwork(M)
    found["trainable map"] = losses("map")
    return {name: loss.double() for name, loss in found.items()}


def batch() -> tuple[Tensor, Tensor]:
    data = images(4, 4)
    return data.images.double(), data.labels


def values_and_gradients() -> dict[str, list[Tensor]]:
    """Of every loss: its value, and its gradients for the network and its own parameters."""
    x, labels = batch()
    share = x.chunk(parallel.world_size())[parallel.rank()]
    found = {}
    for name, loss in every_loss().items():
        model = network().double()
        distributed = parallel.distribute(model)  # it averages gradients as long as it is held
        value = loss(parallel.gather(distributed(share)), labels)
        value.backward()
        gradients = [p.grad for p in [*model.parameters(), *loss.parameters()] if p.grad is not None]
        found[name] = [value.detach(), *gradients]
    return found


def write_values_and_gradients(folder: Path) -> None:
    torch.save(values_and_gradients(), folder / f"{parallel.rank()}.pt")


def write_embeddings(folder: Path) -> None:
    own = torch.arange(6.0).view(3, 2) + 100 * parallel.rank()
    torch.save(parallel.gather(own), folder / f"{parallel.rank()}.pt")
    assert parallel.from_first(parallel.rank) == 0
    assert parallel.world_size() == 2
    parallel.barrier()


def write_training(case: str, folder: Path, checkpoints: bool, more: dict[str, Any]) -> None:
    history, weights = training(case, folder / "checkpoints" if checkpoints else None, **more)
    history.to_pickle(folder / f"{parallel.rank()}.pickle")
    torch.save(weights, folder / f"{parallel.rank()}.pt")


def stop_in_step_8(case: str, folder: Path) -> None:
    """A training that ends in the step 8."""

    def stop() -> None:
        raise KilledError

    with suppress(KilledError):
        training(case, folder, stop_at(8, stop))


def train_loss_parameters_of_another_seed(folder: Path) -> None:
    torch.manual_seed(parallel.rank())
    model, loss = network(seed=parallel.rank()), SoftmaxClassifier(8, M)
    train(model, images(), loss, steps=2, batch_size=16)
    torch.save([*model.state_dict().values(), *loss.state_dict().values()], folder / f"{parallel.rank()}.pt")


def write_draws(folder: Path) -> None:
    drawn = []

    def watch(image: Tensor) -> Tensor:
        drawn.append(torch.rand(()).item())
        return image

    train(network(), images(), losses("snr"), steps=2, batch_size=16, augment=watch)
    (folder / f"{parallel.rank()}.json").write_text(json.dumps(drawn))
    try:
        train(network(), images(), losses("snr"), steps=2, batch_size=9, m=3)
    except ValueError as error:
        (folder / f"{parallel.rank()}.txt").write_text(str(error))


def write_batch_norm(folder: Path) -> None:
    x, _ = batch()
    model = network(batch_norm=True).double()
    gathered = parallel.gather(parallel.distribute(model)(x.chunk(2)[parallel.rank()]))
    torch.save(gathered.detach(), folder / f"{parallel.rank()}.pt")
