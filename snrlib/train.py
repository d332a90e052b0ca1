"""A plain, seeded training loop over class-balanced batches."""

from __future__ import annotations

import time

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from snrlib.data import LabelledImages
from snrlib.sampling import MPerClassSampler

__all__ = ["train"]


def train(
    model: nn.Module,
    data: LabelledImages,
    loss: nn.Module,
    *,
    steps: int = 200,
    batch_size: int = 128,
    m: int = 4,
    learning_rate: float = 4e-3,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Train a network, and what is trainable in the loss, in place.

    AdamW; the learning rate rises and falls once (one-cycle, Smith 2018).

    Same seed, same machine, same initial weights: the same bits.

    Args:
        model: images (n, C, H, W) -> embeddings (n, M); the images go to the device of its parameters.
        data: the training images; no class of theirs may be a test class.
        loss: ``loss(embeddings, labels) -> scalar``.
        steps: batches.
        batch_size: images a batch, a multiple of m.
        m: images a class and batch.
        learning_rate: at the peak.
        seed: of the batches.
        progress: show a progress bar.

    Returns:
        One row a step: ``loss``, and ``seconds`` since the start.

    Raises:
        ValueError: sizes that do not fit (see `MPerClassSampler`).
        FloatingPointError: the embeddings or the loss are not finite any more; the message names the step.
    """
    if steps < 1 or learning_rate <= 0:
        raise ValueError(f"steps and learning_rate must be positive, got {steps} and {learning_rate}")
    sampler = MPerClassSampler(data.labels, m, batch_size, length=steps * batch_size, seed=seed)
    optimizer = torch.optim.AdamW([*model.parameters(), *loss.parameters()], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1)
    device = next(model.parameters()).device
    model.train()
    history: list[tuple[float, float]] = []
    started = time.perf_counter()
    batches = torch.tensor(list(sampler)).split(batch_size)
    for batch in tqdm(batches, disable=not progress, desc="train", unit="step"):
        embeddings = model(data.images[batch].to(device))
        if not torch.isfinite(embeddings).all():
            raise FloatingPointError(f"the embeddings are not finite any more at step {len(history) + 1} of {steps}")
        value = loss(embeddings, data.labels[batch].to(device))
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss became {value.item()} at step {len(history) + 1} of {steps}")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        history.append((value.item(), time.perf_counter() - started))
    return pd.DataFrame(history, columns=["loss", "seconds"], index=pd.RangeIndex(1, steps + 1, name="step"))
