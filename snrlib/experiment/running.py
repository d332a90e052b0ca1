"""One experiment: a network is trained with a loss over a distance on some classes, and judged on others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from snrlib.backbones import Embedder, cost, device_of, embed
from snrlib.data import ImageFiles, LabelledImages, validation_split
from snrlib.distances import MAPPED, Distance
from snrlib.evaluate import compare
from snrlib.experiment.parts import Device, build, first_embeddings, images_of, stack, unfitted
from snrlib.experiment.result import Experiment
from snrlib.experiment.settings import Settings
from snrlib.train import train
from snrlib.utils.provenance import cpu

__all__ = ["Fitted", "device_name", "experiment", "fit", "initial_scale", "untrained", "usual_device"]


@dataclass(eq=False)
class Fitted:
    """A trained network, not judged yet.

    Attributes:
        model: with its best weights if there were validation classes.
        distance: the training distance (of a softmax classifier: the one it is judged by).
        history: of `snrlib.train.train`; without a row if nothing was trained.
        train: the training images, without those of the validation classes.
        crop: what an image goes through before the network sees it, when embeddings are compared; None is nothing.
    """

    model: Embedder
    distance: Distance
    history: pd.DataFrame
    train: LabelledImages | ImageFiles
    crop: Callable[[Tensor], Tensor] | None

    @property
    def validation_score(self) -> float:
        """The best MAP@R on the validation classes; NaN without any."""
        return float(self.history.validation.max())

    @property
    def seconds_per_step(self) -> float:
        """The median over the steps; NaN without any."""
        seconds = self.history.seconds
        return float(seconds.diff().median() if len(seconds) > 1 else seconds.max())


def usual_device() -> str:
    """CUDA where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: Device = None) -> str:
    """The name of the processor or GPU that computes where `device` is asked for; None is the usual one."""
    chosen = torch.device(device or usual_device())
    return cpu() if chosen.type == "cpu" else torch.cuda.get_device_name(chosen)


def fit(
    settings: Settings,
    folder: str | Path | None = None,
    device: Device = None,
    *,
    images: LabelledImages | ImageFiles | None = None,
    workers: int = 0,
    progress: bool = False,
) -> Fitted:
    """Train without looking at the test classes; arguments and errors are those of `experiment`.

    Args:
        settings: every choice.
        folder: of the checkpoints.
        device: that trains.
        images: to train on instead of those that the settings name, for example spoiled ones.
        workers: processes that load images.
        progress: show a progress bar.
    """
    s = settings
    training, validation = images_of(s, "train") if images is None else images, None
    if s.validation_share:
        training, validation = validation_split(training, s.validation_share)  # type: ignore[type-var]
    device = device or usual_device()
    parts = build(s, training, device)
    loss = parts.loss(s, len(training.classes))
    history = train(
        parts.model,
        training,
        loss.to(device),
        steps=s.steps,
        batch_size=s.batch_size,
        m=s.m,
        optimizer=s.optimizer,
        precision=s.precision,
        learning_rate=s.learning_rate,
        trunk_learning_rate=s.trunk_learning_rate,
        clip=s.clip,
        every=s.every,
        patience=s.patience,
        seed=s.seed,
        augment=parts.augment,
        validation=validation,
        crop=parts.crop,
        folder=folder,
        workers=workers,
        progress=progress,
    )
    return Fitted(parts.model, parts.distance, history, training, parts.crop)


def experiment(
    settings: Settings,
    folder: str | Path | None = None,
    device: Device = None,
    *,
    workers: int = 0,
    progress: bool = False,
    cluster: bool = True,
) -> Experiment:
    """Train and judge.

    Within `snrlib.train.processes.process_group` all processes train together.

    Args:
        settings: every choice, see `default_settings`.
        folder: of the checkpoints, from which an interrupted training goes on; None keeps none.
        device: that trains, embeds and judges; None is CUDA where there is one, else the CPU.
        workers: processes that load images.
        progress: show a progress bar.
        cluster: judge clusters of k-means, too, which takes longer than the rest.

    Raises:
        FileNotFoundError: the data set is not there; the message says which file to put where.
        ValueError: settings that do not fit each other.
    """
    started = time.perf_counter()
    images_of(settings, "test")  # both must be there before anything is trained
    return _judged(settings, fit(settings, folder, device, workers=workers, progress=progress), started, cluster)


def untrained(settings: Settings, device: Device = None, *, cluster: bool = True) -> Experiment:
    """The same images and judgement without any training: the baseline that training must beat.

    Given weights and given features are judged by the features before a random head; random weights with their random
    head, and the weights of a whole embedder with its own. The map of a Mahalanobis distance is that of the training
    images' embeddings.
    """
    started = time.perf_counter()
    s, training = settings, images_of(settings, "train")
    parts = unfitted(s, training[0][0].shape[0], device or usual_device())
    if s.features_given and not parts.model.given_head:
        parts.model.head, parts.model.softplus = torch.nn.Identity(), False
    if s.distance in MAPPED:
        parts.fit_map(s, embed(parts.model, training, transform=parts.crop), training.labels)
    nothing = pd.DataFrame({"validation": [], "seconds": []}, dtype=float)
    return _judged(s, Fitted(parts.model, parts.distance, nothing, training, parts.crop), started, cluster)


def _judged(settings: Settings, done: Fitted, started: float, cluster: bool) -> Experiment:
    test = images_of(settings, "test")
    embeddings = embed(done.model, test, transform=done.crop)
    device = device_of(done.model)
    scores = compare(embeddings.to(device), test.labels, done.distance.to(device), cluster=cluster)
    done.distance.cpu()  # where the embeddings are
    shape = (done.model.channels, settings.image_size, settings.image_size)
    return Experiment(
        settings=settings,
        model=done.model,
        distance=done.distance,
        history=done.history,
        train=done.train,
        test=test,
        crop=done.crop,
        embeddings=embeddings,
        scores=scores,
        cost={**cost(done.model, shape), "seconds_per_step": done.seconds_per_step},
        wall_time_s=time.perf_counter() - started,
    )


def initial_scale(settings: Settings, device: Device = None) -> float:
    """Mean squared distance between 64 training images before training: the natural unit of an absolute margin.

    Absolute distances have the scale of the network's first weights, which differs a million fold between networks.
    """
    training = images_of(settings, "train")
    parts = unfitted(settings, training[0][0].shape[0], device or usual_device())
    parts.model.train()
    rows = torch.randperm(len(training), generator=torch.Generator().manual_seed(settings.seed))[:64].tolist()
    if settings.distance in MAPPED:
        parts.fit_map(settings, first_embeddings(parts, training), training.labels)
    with torch.no_grad():
        batch = stack(training, rows, parts.crop).to(device_of(parts.model))
        d = parts.distance(parts.model(batch).cpu())
    return float(d.square().sum() / (len(d) * (len(d) - 1)))
