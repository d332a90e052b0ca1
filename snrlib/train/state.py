"""A training after some of its steps: how the next one is taken, and all that a checkpoint must hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from snrlib.backbones import Embedder
from snrlib.train import processes
from snrlib.train.checkpoints import Checkpoints
from snrlib.train.recipe import Recipe, fastest_precision
from snrlib.utils.checks import largest_embedding

__all__ = ["Training"]


class Training:
    """Model, loss, optimizer, learning rate and history, all of which change with every step.

    Args:
        model: images (n, C, H, W) -> embeddings (n, M).
        loss: ``loss(embeddings, labels) -> scalar``; its parameters are trained, too.
        recipe: the numbers.
    """

    parts = ("model", "loss", "optimizer", "schedule", "scaler")
    columns = ("loss", "learning_rate", "gradient_norm", "seconds", "validation")

    def __init__(self, model: nn.Module, loss: nn.Module, recipe: Recipe):
        self.model, self.loss, self.recipe = model, loss, recipe
        self.device = next(model.parameters()).device
        self.precision = fastest_precision(self.device) if recipe.precision == "auto" else recipe.precision
        if self.precision == "float16" and self.device.type != "cuda":
            raise ValueError("precision float16 is for CUDA; on a processor bfloat16 or float32 are")
        groups = _parameter_groups(model, recipe)
        self.head = len(groups) - 1  # whose learning rate is told
        groups += _loss_groups(loss, recipe)
        self.parameters = [p for group in groups for p in group["params"]]
        self.optimizer: torch.optim.Optimizer
        if recipe.optimizer == "adamw":
            fused = self.precision != "float32"
            self.optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=fused)
        else:
            self.optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=recipe.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, [group["lr"] for group in groups], total_steps=recipe.steps + 1, pct_start=recipe.warm_up
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")
        self.history: list[list[float]] = []  # a row per step
        self.best_score, self.best_step = float("-inf"), 0

    def take_step(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float, float]:
        """Embed, compare, differentiate, clip, update; returns loss, learning rate and length of the gradient.

        Args:
            network: the model, or what distributes it over processes.
            images: (n, C, H, W), the share of this process.
            labels: (world_size n,), of the whole batch.

        Raises:
            FloatingPointError: the embeddings or the loss are not finite any more; the message names the step.
        """
        value = self._compare(network, images, labels)
        rate = float(self.schedule.get_last_lr()[self.head])
        self.optimizer.zero_grad()
        self.scaler.scale(value).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.recipe.clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.recipe.clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        return value.item(), rate, norm.item()

    def _compare(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, with gradients."""
        now = f"at step {self.step + 1} of {self.recipe.steps}"
        dtype = getattr(torch, self.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            embeddings = network(images)
        embeddings = processes.gather(embeddings.float())
        if not embeddings.detach().abs().max() <= largest_embedding(embeddings):  # NaN is not, either
            raise FloatingPointError(f"the embeddings are not finite any more, or too large for a distance, {now}")
        value = self.loss(embeddings, labels)
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss became {value.item()} {now}")
        return value

    def judged(self, score: float) -> None:
        """Take note of a judgement after the last step."""
        self.history[-1][-1] = score
        if score > self.best_score:
            self.best_score, self.best_step = score, self.step

    def stopped(self) -> bool:
        """Whether the last ``patience`` judgements brought nothing better."""
        judgements = [step for step, row in enumerate(self.history, start=1) if not np.isnan(row[-1])]
        in_vain = sum(step > self.best_step for step in judgements)
        return self.recipe.patience is not None and in_vain >= self.recipe.patience

    @property
    def step(self) -> int:
        """How many steps have been taken."""
        return len(self.history)

    @property
    def seconds(self) -> float:
        """How long they took."""
        return self.history[-1][self.columns.index("seconds")] if self.history else 0.0

    def keep(self, checkpoints: Checkpoints) -> None:
        """Everything, and the weights once more if they are the best so far."""
        state = {part: getattr(self, part).state_dict() for part in self.parts}
        state |= {"history": self.history, "best_score": self.best_score, "best_step": self.best_step}
        checkpoints.keep_last(state | {"step": self.step})
        self._keep_best(checkpoints)

    def _keep_best(self, checkpoints: Checkpoints) -> None:
        if self.best_step == self.step:
            weights = {"model": self.model.state_dict(), "loss": self.loss.state_dict()}
            checkpoints.keep_best(weights | {"step": self.best_step, "validation": self.best_score})

    def go_on(self, checkpoints: Checkpoints) -> None:
        """Become what the last checkpoint holds, if there is one."""
        state = checkpoints.last()
        if state is None:
            return
        for part in self.parts:
            getattr(self, part).load_state_dict(state[part])
        self.history, self.best_score, self.best_step = state["history"], state["best_score"], state["best_step"]
        self._keep_best(checkpoints)  # it may have been killed before it could write them

    def take_best(self, checkpoints: Checkpoints) -> None:
        """Give model and loss their best weights."""
        state = checkpoints.best()
        self.model.load_state_dict(state["model"])
        self.loss.load_state_dict(state["loss"])

    def table(self) -> pd.DataFrame:
        """What `train` returns."""
        steps = pd.RangeIndex(1, self.step + 1, name="step")
        table = pd.DataFrame(self.history, columns=list(self.columns), index=steps)
        table.attrs |= {"best": self.best_step or self.step, "precision": self.precision}
        return table


def _parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """What the optimizer changes in the network, each group with its learning rate; the head is the last."""
    if isinstance(model, Embedder):
        return model.parameter_groups(recipe.learning_rate, recipe.trunk_learning_rate)
    return [{"params": list(model.parameters()), "lr": recipe.learning_rate}]


def _loss_groups(loss: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """What is trainable in the loss; one with proxies says at which rates."""
    if callable(groups := getattr(loss, "parameter_groups", None)):
        return groups(recipe.learning_rate)
    trained = [p for p in loss.parameters() if p.requires_grad]
    return [{"params": trained, "lr": recipe.learning_rate}] if trained else []
