"""The training loop: class-balanced batches, a learning rate that rises and falls, and checkpoints that survive a kill.

Every step draws its randomness (dropout, augmentation) from a seed of its own, and the batches are fixed in advance by
the seed, so that step t is the same whether the steps before it ran in this process or in one that was killed.
"""

from __future__ import annotations

import copy
import pickle
import re
import time
import zipfile
from collections.abc import Callable
from operator import index
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from snrlib.backbones import Embedder, embed
from snrlib.distances import Distance
from snrlib.evaluate import retrieval
from snrlib.sampling import MPerClassSampler
from snrlib.train import processes as parallel
from snrlib.utils.checks import check_choice
from snrlib.utils.files import partial_prefix, write_atomically

__all__ = ["train"]

_COLUMNS = ("loss", "learning_rate", "gradient_norm", "seconds", "validation")


def train(
    model: nn.Module,
    data: Dataset,
    loss: nn.Module,
    *,
    steps: int = 200,
    batch_size: int = 128,
    m: int = 4,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    learning_rate: float = 4e-3,
    trunk_learning_rate: float | None = None,
    weight_decay: float = 0.01,
    warm_up: float = 0.3,
    clip: float | None = None,
    mixed_precision: bool = True,
    augment: Callable[[Tensor], Tensor] | None = None,
    validation: Dataset | None = None,
    crop: Callable[[Tensor], Tensor] | None = None,
    every: int = 50,
    patience: int | None = None,
    folder: str | Path | None = None,
    workers: int = 0,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Train a network, and what is trainable in the loss, in place.

    The learning rate rises to its peak and falls (one-cycle, Smith 2018). With ``validation`` the model ends with the
    weights that scored best there, otherwise with the last ones. With ``folder`` it writes ``last.pt`` and ``best.pt``,
    each whole or not at all, and a call with the same arguments goes on from ``last.pt``, to the same bits as an
    uninterrupted training on the same machine with as many threads.

    Args:
        model: images (n, C, H, W) -> embeddings (n, M); the images go to the device of its parameters.
        data: a data set of `snrlib.data`: the training images; no class of theirs may be a test class.
        loss: ``loss(embeddings, labels) -> scalar``.
        steps: batches.
        batch_size: images a batch, a multiple of m; under ``torchrun``, of all processes together.
        m: images a class and batch.
        optimizer: AdamW, or SGD with momentum. One-cycle moves the momentum (AdamW's first beta) against the learning
            rate, from 0.95 to 0.85 and back.
        learning_rate: at the peak, of the head and of the loss.
        trunk_learning_rate: of the trunk of an `Embedder`; None is the same.
        weight_decay: of the optimizer.
        warm_up: the share of the steps in which the learning rate rises, in (0, 1).
        clip: the largest length of the gradient of all parameters, to which a longer one is scaled; None does not.
        mixed_precision: on CUDA the network computes in float16 where that is safe; losses always in float32.
        augment: changes each training image (C, H, W) at random, see `snrlib.backbones.transforms`.
        validation: images of other classes than ``data``, to choose the best weights by; never test images.
        crop: the fixed counterpart of ``augment`` for validation images.
        every: steps between two judgements of the validation images, and between two checkpoints.
        patience: judgements without a new best score after which training stops; None never stops early.
        folder: of the checkpoints.
        workers: processes that load images; 0 loads them in this one.
        seed: of the batches, of dropout and of augmentation.
        progress: show a progress bar.

    Returns:
        One row a step: ``loss``, ``learning_rate``, ``gradient_norm`` (before clipping), ``seconds`` since the start
        and ``validation``, MAP@R on the validation images under the loss's distance (Euclid if it has none), NaN
        between judgements. ``attrs["best"]`` is the step of the weights that the model ends with.

    Raises:
        ValueError: sizes that do not fit (see `MPerClassSampler`), values out of range, or a checkpoint in ``folder``
            of another training; the message names what differs.
        FloatingPointError: the embeddings or the loss are not finite any more; the message names the step.
        OSError: a checkpoint cannot be written; the one before it is still there.
    """
    # NumPy's numbers too; a checkpoint holds plain ones.
    steps, batch_size, m, every, seed = (index(number) for number in (steps, batch_size, m, every, seed))
    learning_rate, weight_decay, warm_up = float(learning_rate), float(weight_decay), float(warm_up)
    trunk_learning_rate = None if trunk_learning_rate is None else float(trunk_learning_rate)
    clip = None if clip is None else float(clip)
    patience = None if patience is None else index(patience)
    if steps < 1 or learning_rate <= 0:
        raise ValueError(f"steps and learning_rate must be positive, got {steps} and {learning_rate}")
    if not 0 < warm_up < 1 or every < 1:
        raise ValueError(f"warm_up must be in (0, 1) and every at least 1, got {warm_up} and {every}")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive, or None, got {clip}")
    if patience is not None and (validation is None or patience < 1):
        raise ValueError(f"patience needs validation images and must be at least 1, got {patience}")
    if batch_size % parallel.world_size():
        raise ValueError(f"batch_size must be a multiple of the {parallel.world_size()} processes, got {batch_size}")
    check_choice(optimizer, "optimizer", ("adamw", "sgd"))
    labels: Tensor = data.labels  # type: ignore[attr-defined]
    sampler = MPerClassSampler(labels, m, batch_size, length=steps * batch_size, seed=seed)
    batches = torch.tensor(list(sampler)).split(batch_size)
    device = next(model.parameters()).device
    run = _Run(model, loss, optimizer, learning_rate, trunk_learning_rate, weight_decay, warm_up, steps)
    half = mixed_precision and device.type == "cuda"
    run.scaler = torch.amp.GradScaler(device.type, enabled=half)
    # What a checkpoint must share with this training, to be gone on from.
    settings = {
        "data": data.fingerprint,  # type: ignore[attr-defined]
        "validation": None if validation is None else validation.fingerprint,  # type: ignore[attr-defined]
        "model": _description(model),
        "trainable parameters": sum(p.numel() for p in run.parameters),
        "loss": _description(loss),
        "augment": _description(augment),
        "crop": _description(crop),
        **{"steps": steps, "batch_size": batch_size, "m": m, "seed": seed, "every": every, "patience": patience},
        **{"optimizer": optimizer, "weight_decay": weight_decay, "warm_up": warm_up, "clip": clip},
        **{"learning_rate": learning_rate, "trunk_learning_rate": trunk_learning_rate, "mixed_precision": half},
    }
    checkpoints = _Checkpoints(folder, settings)
    checkpoints.resume(run)

    model.train()
    network = parallel.distribute(model)
    parallel.share_state(loss)
    mine = [batch.chunk(parallel.world_size())[parallel.rank()].tolist() for batch in batches[run.step :]]
    loader = DataLoader(
        data, batch_sampler=mine, num_workers=workers, pin_memory=device.type == "cuda", generator=torch.Generator()
    )
    bar = tqdm(initial=run.step, total=steps, disable=not progress or parallel.rank() > 0, desc="train", unit="step")
    started = time.perf_counter() - run.seconds
    with torch.random.fork_rng([device] if device.type == "cuda" else []), bar:
        for images, _ in [] if run.stopped(patience) else loader:
            step = run.step + 1
            torch.manual_seed(_step_seed(seed, step))
            images = images.to(device, non_blocking=True)
            if augment is not None:
                images = torch.stack([augment(image) for image in images])
            with torch.autocast(device.type, torch.float16, enabled=half):
                embeddings = network(images)
            embeddings = parallel.gather(embeddings.float())
            if not torch.isfinite(embeddings).all():
                raise FloatingPointError(f"the embeddings are not finite any more at step {step} of {steps}")
            value = loss(embeddings, labels[batches[run.step]].to(device))
            if not torch.isfinite(value):
                raise FloatingPointError(f"the loss became {value.item()} at step {step} of {steps}")

            rate = run.schedule.get_last_lr()[-1]
            run.optimizer.zero_grad()
            run.scaler.scale(value).backward()
            run.scaler.unscale_(run.optimizer)
            norm = nn.utils.get_total_norm([p.grad for p in run.parameters if p.grad is not None])
            if clip is not None:
                nn.utils.clip_grads_with_norm_(run.parameters, clip, norm)
            run.scaler.step(run.optimizer)
            run.scaler.update()
            run.schedule.step()

            run.step = step
            run.history.append([value.item(), float(rate), norm.item(), time.perf_counter() - started, float("nan")])
            bar.update()
            if step % every and step < steps:
                continue
            if validation is not None:
                score = parallel.from_first(lambda: _score(model, validation, loss, crop))
                run.history[-1][-1] = score
                bar.set_postfix(loss=f"{value.item():.3f}", validation=f"{score:.3f}")
                if score > run.best_score:
                    run.best_score, run.best_step = score, step
            checkpoints.keep_last(run)
            if run.best_step == step:
                checkpoints.keep_best(run)
            if run.stopped(patience):
                break
    if run.best_step:
        parallel.barrier()  # the first process has written
        checkpoints.restore_best(run)
    return run.table()


class _Run:
    """What a training is at a step: all that a checkpoint holds."""

    scaler: torch.amp.GradScaler

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        optimizer: str,
        learning_rate: float,
        trunk_learning_rate: float | None,
        weight_decay: float,
        warm_up: float,
        steps: int,
    ):
        self.model, self.loss = model, loss
        if isinstance(model, Embedder):
            groups = model.parameter_groups(learning_rate, trunk_learning_rate)
        else:
            groups = [{"params": list(model.parameters()), "lr": learning_rate}]
        of_loss = [p for p in loss.parameters() if p.requires_grad]
        groups += [{"params": of_loss, "lr": learning_rate}] * bool(of_loss)
        self.parameters = [p for group in groups for p in group["params"]]
        self.optimizer: torch.optim.Optimizer
        if optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
        else:
            self.optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, [group["lr"] for group in groups], total_steps=steps + 1, pct_start=warm_up
        )
        self.step = 0
        self.history: list[list[float]] = []
        self.best_score, self.best_step = float("-inf"), 0

    @property
    def seconds(self) -> float:
        return self.history[-1][_COLUMNS.index("seconds")] if self.history else 0.0

    def stopped(self, patience: int | None) -> bool:
        """Whether the last ``patience`` judgements brought nothing better."""
        judged = [step for step, row in enumerate(self.history, start=1) if not np.isnan(row[-1])]
        return patience is not None and sum(step > self.best_step for step in judged) >= patience

    def table(self) -> pd.DataFrame:
        table = pd.DataFrame(self.history, columns=list(_COLUMNS), index=pd.RangeIndex(1, self.step + 1, name="step"))
        table.attrs["best"] = self.best_step or self.step
        return table


class _Checkpoints:
    """``last.pt``, from which a training goes on, and ``best.pt``, its best weights; in memory without a folder."""

    def __init__(self, folder: str | Path | None, settings: dict[str, Any]):
        self.folder = None if folder is None else Path(folder)
        self.settings = settings
        self.best: dict[str, Any] | None = None
        if self.folder is not None and parallel.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)  # what cannot be written should fail now
            for name in ("last.pt", "best.pt"):
                for left_behind in self.folder.glob(f"{partial_prefix(Path(name))}*.pt"):  # by a killed training
                    left_behind.unlink()

    def keep_last(self, run: _Run) -> None:
        parts = ("model", "loss", "optimizer", "schedule", "scaler")
        state = {part: getattr(run, part).state_dict() for part in parts}
        state |= {"history": run.history, "best_score": run.best_score, "best_step": run.best_step}
        self._write("last.pt", {"settings": self.settings, "step": run.step, **state})

    def keep_best(self, run: _Run) -> None:
        state = {"model": run.model.state_dict(), "loss": run.loss.state_dict()}
        self.best = copy.deepcopy(state) if self.folder is None else None
        self._write("best.pt", {**state, "step": run.best_step, "validation": run.best_score})

    def _write(self, name: str, state: dict[str, Any]) -> None:
        if self.folder is not None and parallel.rank() == 0:
            try:
                write_atomically(self.folder / name, lambda path: torch.save(state, path))
            except RuntimeError as error:  # torch's, for example of a full disk
                raise OSError(f"{self.folder / name} could not be written: {error}") from error

    def resume(self, run: _Run) -> None:
        if self.folder is None or not (self.folder / "last.pt").exists():
            return
        state = _load(self.folder / "last.pt")
        stored = state["settings"]
        differing = sorted(key for key, value in self.settings.items() if stored.get(key) != value)
        if differing:
            raise ValueError(
                f"{self.folder / 'last.pt'} is of another training: "
                + ", ".join(f"{key} was {stored.get(key)!r}, is {self.settings[key]!r}" for key in differing)
                + ". Remove it, or choose another folder"
            )
        for part in ("model", "loss", "optimizer", "schedule", "scaler"):
            getattr(run, part).load_state_dict(state[part])
        run.step, run.history = state["step"], state["history"]
        run.best_score, run.best_step = state["best_score"], state["best_step"]
        if run.best_step == run.step:  # it may have been killed before it could write them
            self.keep_best(run)

    def restore_best(self, run: _Run) -> None:
        best = self.best
        if self.folder is not None:
            best = _load(self.folder / "best.pt")
        if best is not None:
            run.model.load_state_dict(best["model"])
            run.loss.load_state_dict(best["loss"])


def _load(path: Path) -> dict[str, Any]:
    """A checkpoint; every byte of it is checked, which torch does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None
        state = torch.load(path, map_location="cpu", weights_only=True) if whole else None
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, RuntimeError):
        state = None
    if not isinstance(state, dict) or not {"model", "loss", "step"} <= state.keys():
        raise ValueError(
            f"{path} is damaged, or no checkpoint of a training. Remove last.pt and best.pt to start from step 1"
        )
    return state


def _description(part: object) -> str:
    """Its repr, without the addresses that differ from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(part))


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step, parallel.rank()]).generate_state(1, np.uint64)[0] >> 1)


def _score(model: nn.Module, data: Dataset, loss: nn.Module, crop: Callable[[Tensor], Tensor] | None) -> float:
    """MAP@R under the distance of the loss, the query its anchor where it leaves the choice."""
    distance = getattr(loss, "distance", None)
    embeddings = embed(model, data, transform=crop)
    if not torch.isfinite(embeddings).all():
        raise FloatingPointError("the embeddings of the validation images are not finite any more")
    judge = distance if isinstance(distance, Distance) else None
    scores = retrieval(embeddings, data.labels, judge, ks=(1,))  # type: ignore[attr-defined]
    return float(scores["mean_average_precision_at_r"].mean())
