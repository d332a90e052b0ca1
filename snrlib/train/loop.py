"""The training loop: class-balanced batches, a learning rate that rises and falls, and checkpoints to go on from.

Every step draws its randomness (dropout, augmentation) from a seed of its own, and the batches are fixed in advance by
the seed, so that step t is the same whether the steps before it ran in this process or in one that was killed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from snrlib.backbones import device_of, embed
from snrlib.distances import Distance
from snrlib.evaluate import retrieval
from snrlib.sampling import MPerClassSampler
from snrlib.train import processes
from snrlib.train.checkpoints import Checkpoints, described
from snrlib.train.recipe import Recipe
from snrlib.train.state import Training
from snrlib.utils.checks import largest_embedding

__all__ = ["Images", "train"]

Transform = Callable[[Tensor], Tensor]


class Images(Protocol):
    """What training needs of a data set of `snrlib.data`."""

    labels: Tensor

    @property
    def fingerprint(self) -> str:
        """A digest of images and labels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]: ...


def train(  # noqa: PLR0913  each is a thing of its own that calls name by keyword
    model: nn.Module,
    data: Images,
    loss: nn.Module,
    recipe: Recipe | None = None,
    *,
    validation: Images | None = None,
    augment: Transform | None = None,
    crop: Transform | None = None,
    folder: str | Path | None = None,
    workers: int = 0,
    progress: bool = False,
    **changes: Any,
) -> pd.DataFrame:
    """Train a network, and what is trainable in the loss, in place.

    The learning rate rises to its peak and falls (one-cycle, Smith 2018). With ``validation`` the model ends with the
    weights that scored best there, otherwise with the last ones. With ``folder`` it writes ``last.pt`` and ``best.pt``,
    each whole or not at all, and a call with the same arguments goes on from ``last.pt``, to the same bits as an
    uninterrupted training on the same machine with as many threads.

    The numbers are those of a `Recipe`, and can be given as keywords: ``steps``, ``batch_size``, ``m``, ``optimizer``,
    ``learning_rate``, ``trunk_learning_rate``, ``weight_decay``, ``warm_up``, ``clip``, ``precision``, ``every``,
    ``patience`` and ``seed``.

    Args:
        model: images (n, C, H, W) -> embeddings (n, M); the images go to the device of its parameters.
        data: a data set of `snrlib.data`: the training images; no class of theirs may be a test class.
        loss: ``loss(embeddings, labels) -> scalar``. What is trainable in it has the learning rate of the head, unless
            it has a method ``parameter_groups(learning_rate)``, as losses with proxies.
        recipe: the numbers; None is ``Recipe()``.
        validation: images of other classes than ``data``, to choose the best weights by; never test images.
        augment: changes each training image (C, H, W) at random, see `snrlib.backbones.transforms`.
        crop: the fixed counterpart of ``augment`` for validation images.
        folder: of the checkpoints.
        workers: processes that load images; 0 loads them in this one.
        progress: show a progress bar.
        changes: numbers that replace those of ``recipe``.

    Returns:
        One row per step: ``loss``, ``learning_rate``, ``gradient_norm`` (before clipping), ``seconds`` since the start
        and ``validation``, MAP@R on the validation images under the loss's distance (Euclid if it has none), NaN
        between judgements. ``attrs["best"]`` is the step of the weights that the model ends with,
        ``attrs["precision"]`` in which the trunk computed, "auto" resolved.

    Raises:
        TypeError: an unknown keyword, or a value of another type than `Recipe` wants.
        ValueError: sizes that do not fit (see `MPerClassSampler`), values out of range, or a checkpoint in ``folder``
            of another training; the message names what differs.
        FloatingPointError: the embeddings or the loss are not finite any more; the message names the step.
        OSError: a checkpoint cannot be written; the one before it is still there.
    """
    recipe = _recipe(recipe, changes)
    if recipe.patience is not None and validation is None:
        raise ValueError(f"patience needs validation images, got patience={recipe.patience} without any")
    batches = _batches(data.labels, recipe)
    training = Training(model, loss, recipe)
    device = training.device
    # What a checkpoint must share with this training, to be gone on from.
    settings = dataclasses.asdict(recipe) | {
        "precision": training.precision,
        "data": data.fingerprint,
        "validation": None if validation is None else validation.fingerprint,
        "trainable parameters": sum(p.numel() for p in training.parameters),
        **{"model": described(model), "loss": described(loss), "augment": described(augment), "crop": described(crop)},
    }
    checkpoints = Checkpoints(folder, settings)
    training.go_on(checkpoints)

    model.train()
    network = processes.distribute(model)
    processes.share_state(loss)
    to_do = () if training.stopped() else batches[training.step :]
    loader = _loader(data, to_do, workers, device)
    quiet = not progress or processes.rank() > 0
    bar = tqdm(initial=training.step, total=recipe.steps, disable=quiet, desc="train", unit="step")
    started = time.perf_counter() - training.seconds
    same_bits = torch.backends.cudnn.flags(enabled=True, deterministic=True)  # of each GPU, as of each processor
    with torch.random.fork_rng([device] if device.type == "cuda" else []), same_bits, bar:
        for (images, _), batch in zip(loader, to_do, strict=True):
            torch.manual_seed(_step_seed(recipe.seed, training.step + 1))
            images = images.to(device, non_blocking=True)
            if augment is not None:
                images = torch.stack([augment(image) for image in images])
            value, rate, norm = training.take_step(network, images, data.labels[batch].to(device))
            training.history.append([value, rate, norm, time.perf_counter() - started, float("nan")])
            bar.update()
            if training.step % recipe.every and training.step < recipe.steps:
                continue
            if validation is not None:
                score = processes.from_first(lambda: _score(model, validation, loss, crop))
                training.judged(score)
                bar.set_postfix(loss=f"{value:.3f}", validation=f"{score:.3f}")
            training.keep(checkpoints)
            if training.stopped():
                break
    if training.best_step:
        processes.barrier()  # the first process has written
        training.take_best(checkpoints)
    return training.table()


def _recipe(recipe: Recipe | None, changes: dict[str, Any]) -> Recipe:
    """The recipe with its changes."""
    if not isinstance(recipe, Recipe | None):
        raise TypeError(f"recipe must be a Recipe, got {recipe!r}")
    fields = [field.name for field in dataclasses.fields(Recipe)]
    if unknown := [name for name in changes if name not in fields]:
        others = list(train.__kwdefaults__ or ())  # the keywords of train itself
        raise TypeError(f"train() knows no {', '.join(unknown)}; its keywords are {', '.join(fields + others)}")
    return dataclasses.replace(recipe or Recipe(), **changes)


def _batches(labels: Tensor, recipe: Recipe) -> Sequence[Tensor]:
    """The indices of each step's images, of all processes together."""
    if recipe.batch_size % processes.world_size():
        raise ValueError(
            f"batch_size must be a multiple of the {processes.world_size()} processes, got {recipe.batch_size}"
        )
    length = recipe.steps * recipe.batch_size
    sampler = MPerClassSampler(labels, recipe.m, recipe.batch_size, length, recipe.seed)
    return torch.tensor(list(sampler)).split(recipe.batch_size)


def _loader(data: Images, batches: Sequence[Tensor], workers: int, device: torch.device) -> DataLoader:
    """This process's share of each batch: images and their labels."""
    mine = [batch.chunk(processes.world_size())[processes.rank()].tolist() for batch in batches]
    return DataLoader(
        data,  # type: ignore[arg-type]
        batch_sampler=mine,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )


def _step_seed(seed: int, step: int) -> int:
    """Of what a process draws in a step."""
    return int(np.random.SeedSequence([seed, step, processes.rank()]).generate_state(1, np.uint64)[0] >> 1)


def _score(model: nn.Module, data: Images, loss: nn.Module, crop: Transform | None) -> float:
    """MAP@R under the distance of the loss, the query its anchor where it leaves the choice."""
    distance = getattr(loss, "distance", None)
    embeddings = embed(model, data, transform=crop).to(device_of(model))  # type: ignore[arg-type]
    if not embeddings.abs().max() <= largest_embedding(embeddings):  # NaN is not, either
        raise FloatingPointError("the embeddings of the validation images are not finite any more, or too large")
    judge = distance if isinstance(distance, Distance) else None
    scores = retrieval(embeddings, data.labels, judge, ks=(1,))
    return float(scores["mean_average_precision_at_r"].mean())
