"""From settings to what they name: images, network, distance, loss, and what an image goes through."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snrlib.backbones import Embedder, device_of, embedder, transforms
from snrlib.data import DATASETS, ImageFiles, LabelledImages, load
from snrlib.data.base import Split
from snrlib.data.fetch.source import data_root
from snrlib.data.splits import other_classes
from snrlib.distances import MAPPED, Distance, get_distance
from snrlib.experiment.settings import FROZEN, SOFTMAX, Settings
from snrlib.losses import EnergyConfusion, LogDetRegularizer, SoftmaxClassifier, Together, ZeroMeanRegularizer, get_loss
from snrlib.mahalanobis import LMNN, RunningWhitening, Whitening

__all__ = ["Parts", "build", "distance_of", "first_embeddings", "images_of", "stack", "unfitted"]

_IN_MEMORY = 2**32  # bytes of pixels up to which photographs are read once and kept

Images = LabelledImages | ImageFiles
Crop = Callable[[Tensor], Tensor] | None
Device = torch.device | str | None


@dataclass(eq=False)
class Parts:
    """What an experiment consists of before its first step.

    Attributes:
        model: the network.
        distance: its map is not fitted yet if `unfitted` made it.
        crop: what a photograph goes through before it is judged; None is nothing.
        augment: the same before the network learns from it.
    """

    model: Embedder
    distance: Distance
    crop: Crop
    augment: Crop

    def loss(self, settings: Settings, n_classes: int) -> nn.Module:
        """The loss over the distance.

        Args:
            settings: that name it.
            n_classes: of the training images, which a classifier has a neuron for, and other losses a proxy.
        """
        s, distance = settings, self.distance
        if s.loss == SOFTMAX:
            return SoftmaxClassifier(n_classes, s.embedding_size)
        loss = get_loss(s.loss, distance, **s.loss_options(n_classes, s.embedding_size))
        added: list[nn.Module] = []
        if s.regularizer and s.map == "learned":
            unit = loss.unit if distance.relative else loss.unit**2
            added.append(LogDetRegularizer(s.regularizer * unit, distance.map))  # type: ignore[arg-type]
        elif s.regularizer:
            added.append(ZeroMeanRegularizer(s.regularizer))
        if s.energy_confusion:
            added.append(EnergyConfusion(s.energy_confusion, self.model.head))  # type: ignore[arg-type]
        if added:
            loss.regularizer = added[0] if len(added) == 1 else Together(added)
        return loss

    def fit_map(self, settings: Settings, embeddings: Tensor, labels: Tensor) -> None:
        """Fit the map of a Mahalanobis distance to embeddings (n, M) of training images; a learned one is the identity.

        M need not be that of the settings: without its head, a network has another.
        """
        s = settings
        if s.normalize_embeddings:
            embeddings = F.normalize(embeddings)
        if s.map in FROZEN:
            estimator = LMNN() if s.map == "lmnn" else Whitening("ledoit_wolf", within_class=True)
            components = estimator.fit(embeddings.numpy(), labels.numpy()).components_
            self.distance = distance_of(s, torch.from_numpy(components).float())
        elif s.map == "running":
            self.distance.map = RunningWhitening(embeddings.shape[1])
            self.distance.map.update(embeddings, labels)
        elif s.map == "learned":
            self.distance = distance_of(s, torch.eye(embeddings.shape[1]))


def unfitted(settings: Settings, channels: int, device: Device = None) -> Parts:
    """Everything but a map that is fitted to embeddings: it stands at the identity.

    Args:
        settings: that name the parts; their seed draws the first weights.
        channels: of the images.
        device: of the network; None is the CPU. The distance stays on the CPU, until a loss takes it along.
    """
    s = settings
    torch.manual_seed(s.seed)
    small = DATASETS[s.data].kind == "images"
    model = embedder(
        s.backbone,
        s.embedding_size,
        s.weights,
        channels=channels,
        softplus=s.softplus,
        smallest_side=s.image_size if small else None,
    )
    model.freeze(s.frozen_trunk, s.frozen_batch_norm)
    identity = torch.eye(s.embedding_size) if s.distance in MAPPED else None
    distance = distance_of(s, nn.Parameter(identity) if s.map == "learned" and identity is not None else identity)
    if s.map == "running":
        distance.map = RunningWhitening(s.embedding_size)
    photographs = DATASETS[s.data].kind == "photographs"
    crop = transforms(s.backbone, s.image_size) if photographs else None
    augment = transforms(s.backbone, s.image_size, train=True) if photographs and s.augment else crop
    return Parts(model.to(device), distance, crop, augment)


def build(settings: Settings, training: Images, device: Device = None) -> Parts:
    """All of it, a frozen map fitted to the first embeddings of the training images."""
    parts = unfitted(settings, training[0][0].shape[0], device)
    if settings.map in FROZEN:
        parts.fit_map(settings, first_embeddings(parts, training), training.labels)
    return parts


def distance_of(settings: Settings, components: Any = None) -> Distance:
    """The training distance, anchor side included.

    Args:
        settings: that name it.
        components: the matrix L of the two Mahalanobis distances, which the settings do not determine.
    """
    return get_distance(settings.distance, components=components, **settings.distance_options())


@torch.no_grad()
def first_embeddings(parts: Parts, training: Images) -> Tensor:
    """Embeddings (n, M), on the CPU, of the training images as training begins, by the statistics of their batches."""
    network = copy.deepcopy(parts.model).train()  # batch norm would move the model's
    device = device_of(network)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
        batches = [
            network(stack(training, rows.tolist(), parts.crop).to(device)).float().cpu() for rows in order.split(64)
        ]
    return torch.cat(batches)[order.argsort()]


def stack(images: Images, rows: list[int], crop: Crop) -> Tensor:
    """Some images as a batch (n, C, H, W), each cropped."""
    chosen = [images[row][0] for row in rows]
    return torch.stack(chosen if crop is None else [crop(image) for image in chosen])


def images_of(settings: Settings, split: Split) -> Any:
    """The training images of an experiment, validation classes included, or those it is judged on, in their order.

    Args:
        settings: that name them.
        split: "train" or "test".
    """
    s = settings
    # The usual geometry of photographs: 256 pixels for 224. Training crops at random, judging cuts the centre out.
    # Small ones are loaded at most as large as they were published; the network enlarges them, batch by batch.
    data = DATASETS[s.data]
    size = min(s.image_size, data.largest or s.image_size)
    if data.kind == "photographs":
        size = round(s.image_size * 256 / 224)
    place = s.root, size, str(data_root())
    if not s.split:
        return _load(s.data, split, *place)
    return _other_classes(s.data, s.split, *place)[("train", "test").index(split)]


@lru_cache(maxsize=1)
def _other_classes(name: str, seed: int, root: str | None, size: int, usual_root: str) -> tuple[Images, Images]:
    train, test = (_load(name, half, root, size, usual_root) for half in ("train", "test"))
    return other_classes(train, test, seed)  # type: ignore[type-var]


@lru_cache(maxsize=4)  # experiments that follow each other use the same images
def _load(name: str, split: Split, root: str | None, size: int, usual_root: str) -> Images:
    """``usual_root`` is part of the key: where the images are looked for if ``root`` is None."""
    data = DATASETS[name]
    options = {**data.options, "size": size} if data.sized else data.options
    images = load(name, split, root, **options)
    if isinstance(images, ImageFiles) and len(images) * 3 * size * size <= _IN_MEMORY:
        return images.in_memory()
    return images
