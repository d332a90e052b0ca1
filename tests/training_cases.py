"""Small trainings, and processes in which one can be killed or shared by two; importable by those processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from snrlib.data import LabelledImages
from snrlib.distances import get_distance
from snrlib.losses import RelationNetwork, SoftmaxClassifier, TripletMarginLoss
from snrlib.train import train

M, SIDE = 6, 8


def images(n_classes: int = 8, per_class: int = 6, seed: int = 0, name: str = "noisy") -> LabelledImages:
    """Each class a pattern of its own, each image with noise on it."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(n_classes, 1, SIDE, SIDE, generator=generator)
    labels = torch.arange(n_classes).repeat_interleave(per_class)
    noise = torch.rand(len(labels), 1, SIDE, SIDE, generator=generator)
    return LabelledImages(name, (patterns[labels] + noise) / 2, labels, tuple(str(i) for i in range(n_classes)))


def network(dropout: float = 0.0, batch_norm: bool = False, seed: int = 0) -> nn.Module:
    """A tiny network, its first weights decided by the seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Conv2d(1, 4, 3, padding=1)]
        layers += [nn.BatchNorm2d(4)] * batch_norm + [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(4 * (SIDE // 2) ** 2, M))


def flip(image: Tensor) -> Tensor:
    """A random augmentation: mirrored half of the time, always brightened by some amount."""
    mirrored = image.flip(2) if torch.rand(()) < 0.5 else image
    return mirrored + 0.1 * torch.rand(())


def losses(name: str) -> nn.Module:
    """Losses with and without parameters of their own."""
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        if name == "softmax":
            return SoftmaxClassifier(8, M)
        if name == "relation":
            return RelationNetwork(M)
        if name == "map":
            components = nn.Parameter(torch.eye(M) + 0.1 * torch.randn(M, M))
            return TripletMarginLoss(get_distance("relative_mahalanobis", components=components), 0.5)
        return TripletMarginLoss(get_distance(name), 0.5)


# What a training can hold that a resume could forget.
CASES: dict[str, dict[str, Any]] = {
    "AdamW": {},
    "SGD": {"optimizer": "sgd", "learning_rate": 0.05},
    "dropout": {"network": {"dropout": 0.5}},
    "augmentation": {"augment": flip},
    "batch norm": {"network": {"batch_norm": True}},
    "clipping": {"clip": 0.1, "optimizer": "sgd", "learning_rate": 0.05},
    "softmax classifier": {"loss": "softmax"},
    "relation network": {"loss": "relation"},
    "trainable map": {"loss": "map"},
    "all at once": {"network": {"dropout": 0.3, "batch_norm": True}, "augment": flip, "clip": 1.0, "loss": "map"},
}
Result = tuple[pd.DataFrame, dict[str, Tensor]]


def training(case: str, folder: Path | None, wrap: Callable[[nn.Module], nn.Module] | None = None, **more: Any) -> Any:
    """Run a case; returns its history and the weights of model and loss."""
    chosen: dict[str, Any] = {"steps": 10, "every": 3, "batch_size": 16, "m": 4, "learning_rate": 0.01}
    chosen |= CASES[case] | more
    model, loss = network(**chosen.pop("network", {})), losses(chosen.pop("loss", "snr"))
    data, validation = images(), chosen.pop("validation", images(4, seed=1, name="others"))
    history = train(model, data, wrap(loss) if wrap else loss, folder=folder, validation=validation, **chosen)
    weights = {f"model.{key}": value for key, value in model.state_dict().items()}
    return history, weights | {f"loss.{key}": value for key, value in loss.state_dict().items()}


class KilledError(Exception):
    """In place of a kill, where a process of its own is not needed."""


def stop_at(step: int, wanted: Callable[[], Any]) -> Callable[[nn.Module], nn.Module]:
    """A wrapper that calls ``wanted`` in the forward pass of the loss at this step."""

    def wrap(loss: nn.Module) -> nn.Module:
        seen = [0]

        def count(*_: Any) -> None:
            seen[0] += 1
            if seen[0] == step:
                wanted()

        loss.register_forward_pre_hook(count)
        return loss

    return wrap


# --- processes --------------------------------------------------------------------------------------------------------


def processes() -> Any:
    """Processes from a server that has imported torch and trained nothing: they start fast, and share no thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["snrlib.train", "snrlib.data", "snrlib.losses", "torch._dynamo"])
    return context


def training_in_slow_motion(case: str, folder: Path, seed: int, log: Path) -> None:
    """A training whose steps and checkpoints take a while, so that a kill can meet each part of them."""
    import time

    _begin()
    save = torch.save

    def slow_save(state: Any, path: Path) -> None:
        save(state, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with open(log, "a") as file:
            file.write("saving\n")
        time.sleep(0.1)
        path.write_bytes(whole)

    torch.save = slow_save  # type: ignore[assignment]

    def pause(*_: Any) -> None:
        with open(log, "a") as file:
            file.write("step\n")
        time.sleep(0.03)

    def wrap(loss: nn.Module) -> nn.Module:
        loss.register_forward_pre_hook(pause)
        return loss

    training(case, folder, wrap)


def _begin() -> None:
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its usual one is shared by processes and outlives a kill


def suicide() -> None:
    """Die as by ``kill -9``."""
    os.kill(os.getpid(), signal.SIGKILL)


def training_that_dies(case: str, folder: Path, step: int) -> None:
    """A training that is killed in this step."""
    _begin()
    training(case, folder, stop_at(step, suicide))


def training_that_dies_between_its_checkpoints(case: str, folder: Path, number: int) -> None:
    """A training that is killed after it has written this many files."""
    _begin()
    replace, written = os.replace, [0]

    def counted(source: Any, target: Any) -> None:
        replace(source, target)
        written[0] += 1
        if written[0] == number:
            suicide()

    os.replace = counted  # type: ignore[assignment]
    training(case, folder)


def together(n: int, target: Callable[..., object], *arguments: Any, timeout: float = 120) -> None:
    """Run ``target(*arguments)`` in n processes that join as under ``torchrun``, over loopback.

    Raises:
        AssertionError: one failed, or they took too long.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers: Sequence[BaseProcess] = [
        processes().Process(target=_member, args=(rank, n, port, target, *arguments)) for rank in range(n)
    ]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join(timeout)
        assert [worker.exitcode for worker in workers] == [0] * n
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _member(rank: int, n: int, port: int, target: Callable[..., object], *arguments: Any) -> None:
    from snrlib.train import processes as parallel

    _begin()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    with parallel.process_group():
        target(*arguments)
