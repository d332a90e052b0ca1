"""Small trainings, and processes in which one can be killed or shared by two; importable by those processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
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
        if batch_norm:
            layers.append(nn.BatchNorm2d(4))
        layers += [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(dropout)]
        return nn.Sequential(*layers, nn.Linear(4 * (SIDE // 2) ** 2, M))


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


OTHERS = images(4, seed=1, name="others")
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
Wrap = Callable[[nn.Module], nn.Module]


def training(case: str, folder: Path | None = None, wrap: Wrap = lambda loss: loss, **more: Any) -> Result:
    """Run a case on one thread, since bits depend on how many share a sum.

    Returns:
        The history, and the weights of model and loss.
    """
    chosen: dict[str, Any] = {"steps": 10, "every": 3, "batch_size": 16, "m": 4, "learning_rate": 0.01}
    chosen |= {"data": images(), "validation": OTHERS, "network": {}, "loss": "snr"} | CASES[case] | more
    model, data, loss = network(**chosen.pop("network")), chosen.pop("data"), chosen.pop("loss")
    loss = wrap(losses(loss) if isinstance(loss, str) else loss)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        history = train(model, data, loss, folder=folder, **chosen)
    finally:
        torch.set_num_threads(threads)
    parts = {"model": model, "loss": loss}
    return history, {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def assert_same_bits(result: Result, expected: Result) -> None:
    """Weights and history, but for the seconds."""
    (history, weights), (other_history, other_weights) = result, expected
    columns = other_history.columns.drop("seconds")
    pd.testing.assert_frame_equal(history[columns], other_history[columns], check_exact=True)
    assert history.attrs["best"] == other_history.attrs["best"]
    assert weights.keys() == other_weights.keys()
    for name, value in weights.items():
        assert torch.equal(value, other_weights[name]), name


def interrupted(case: str, folder: Path, step: int, **more: Any) -> None:
    """Begin or go on, and stop in this step of those that the call takes."""

    def stop() -> None:
        raise KilledError

    with suppress(KilledError):
        training(case, folder, stop_at(step, stop), **more)
        raise AssertionError(f"there were fewer than {step} steps")


class KilledError(Exception):
    """In place of a kill, where a process of its own is not needed."""


def before_every_step(call: Callable[[nn.Module], Any]) -> Wrap:
    """A wrapper that shows ``call`` the loss before each of its forward passes."""

    def wrap(loss: nn.Module) -> nn.Module:
        def hook(module: nn.Module, _: Any) -> None:
            call(module)

        loss.register_forward_pre_hook(hook)
        return loss

    return wrap


def stop_at(step: int, wanted: Callable[[], Any]) -> Wrap:
    """A wrapper that calls ``wanted`` in the forward pass of the loss at this step."""
    steps = count(1)
    return before_every_step(lambda _: wanted() if next(steps) == step else None)


def counting(seen: list[Any]) -> Wrap:
    """A wrapper that notes the parameters of the loss before every step."""
    return before_every_step(lambda loss: seen.append([p.clone() for p in loss.parameters()]))


# --- processes --------------------------------------------------------------------------------------------------------


def processes() -> Any:
    """Processes from a server that has imported torch and trained nothing: they start fast, and share no thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["snrlib.train", "snrlib.data", "snrlib.losses", "torch._dynamo"])
    return context


def _begin() -> None:
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its usual one is shared by processes and outlives a kill


def training_that_dies(case: str, folder: Path, moment: str, number: int) -> None:
    """A training killed as by ``kill -9``, the so-many-th time that the moment comes.

    Args:
        case: of `CASES`.
        folder: of its checkpoints.
        moment: "step", in the forward pass of the loss; "saving", when half of a checkpoint is written; "replaced",
            when a checkpoint has come to its place.
        number: from 1.
    """
    _begin()
    left, save, replace = [number], torch.save, os.replace

    def come(now: str) -> None:
        left[0] -= now == moment
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def halves(state: Any, path: Path) -> None:
        save(state, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        come("saving")
        path.write_bytes(whole)

    def replaced(source: Any, target: Any) -> None:
        replace(source, target)
        come("replaced")

    torch.save, os.replace = halves, replaced  # type: ignore[assignment]
    training(case, folder, before_every_step(lambda _: come("step")))


def exit_code(target: Callable[..., object], *arguments: Any) -> int:
    """Of a process of its own that calls this."""
    process = processes().Process(target=target, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


def together(n: int, target: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
    """What ``target(*arguments, **options)`` returns in each of n processes that join as under ``torchrun``.

    One that fails ends the others, and its error is raised here.
    """
    processes()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with TemporaryDirectory() as folder:
        shared = (n, port, Path(folder), target, arguments, options)
        torch.multiprocessing.start_processes(_member, shared, nprocs=n, start_method="forkserver")
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(n)]


def _member(
    rank: int, n: int, port: int, folder: Path, target: Callable[..., Any], arguments: Any, options: dict[str, Any]
) -> None:
    from snrlib.train import processes as parallel

    _begin()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    with parallel.process_group():
        torch.save(target(*arguments, **options), folder / f"{rank}.pt")
