"""Every choice of an experiment in one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from snrlib.backbones import NETWORKS, OWN_WEIGHTS, STORED_WEIGHTS, weights_path
from snrlib.data import DATASETS, training_classes
from snrlib.data.splits import usual_validation_share
from snrlib.distances import DISTANCES, MAPPED, RELATIVE, get_distance
from snrlib.losses import LOSSES, get_loss
from snrlib.sampling import usual_batch
from snrlib.train.recipe import PRECISIONS
from snrlib.utils.checks import check_choice, check_number

__all__ = ["BUDGETS", "FROZEN", "MAPS", "SOFTMAX", "Settings", "default_settings", "variant_of"]

BUDGETS: dict[str, int] = {"quick": 100, "full": 400}
"""Steps of a training. Quick shows how an experiment goes; its scores say little."""
MAPS: tuple[str, ...] = ("running", "whitening", "lmnn", "learned")
"""Where the map L of the two Mahalanobis distances comes from, see `Settings`."""
FROZEN: tuple[str, ...] = ("whitening", "lmnn")
"""Those of `MAPS` that are fitted before the training and stay as they are."""
SOFTMAX = "softmax"
"""The classifier beside `snrlib.losses.LOSSES`: it has neither a distance nor a margin."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides an experiment. `default_settings` fills in what suits the data, the network and the loss.

    Attributes:
        data: name of the data set, see `snrlib.data.load`.
        root: its folder; None takes ``SNR_DATA``, else ``data/raw``.
        image_size: side in pixels, of what the network sees.
        backbone: name of the network, see `snrlib.backbones.embedder`.
        weights: that its trunk starts from: "imagenet", one of `snrlib.backbones.OWN_WEIGHTS` or
            `snrlib.backbones.STORED_WEIGHTS`, or the path of a file; None starts at random.
        embedding_size: components M of an embedding.
        softplus: of the head's outputs, ``log(1 + exp h)`` are the embeddings: positive, so that they have a mean.
        frozen_trunk: train the head alone.
        frozen_batch_norm: keep the batch norms of the trunk as they are.
        distance: trains and judges, see `snrlib.distances`.
        map: of the two Mahalanobis distances, None of the others. "running" follows the batches
            (`snrlib.mahalanobis.RunningWhitening`); "whitening" and "lmnn" are fitted once to the first embeddings of
            the training images and frozen; "learned" is trained, starting at the identity.
        unit: what the squared distance is divided by, "anchor", "both" or "batch" (`snrlib.distances.Distance`); None
            is the distance's own.
        detach_unit: no gradient goes through the unit.
        anchor: the side whose length is the unit of a relative distance, "query" or "ref".
        normalize_embeddings: scale embeddings to length 1.
        loss: see `snrlib.losses`; or "softmax", a classifier, which is judged by the distance named.
        margin: of the loss, in the unit that it states; None of a loss without one.
        scale: of a loss with a softmax or a log-sum-exp, its reciprocal temperature; None of the others.
        power: 1 or 2, of the distance in the loss; None is the loss's own.
        regularizer: weight of the zero-mean penalty; with a learned map, of the log-det penalty on that, in units of
            the loss at its margin.
        energy_confusion: weight of the energy confusion of the last layer (`snrlib.losses.EnergyConfusion`).
        steps: batches of the training.
        batch_size: images per step, m of each class.
        m: images per class and step.
        optimizer: "adamw" or "sgd".
        precision: in which the trunk computes in training: "float32", "bfloat16", "float16" (CUDA), or "auto", the
            fastest that the device has (`snrlib.train.recipe.fastest_precision`).
        learning_rate: at its peak, of the head and of the loss.
        trunk_learning_rate: of the trunk.
        clip: the largest length of the gradient; None does not clip.
        augment: random crops and flips.
        validation_share: share of the training classes that choose the best weights; 0 trains on all of them.
        every: steps between two judgements of the validation classes, and between two checkpoints.
        patience: judgements without a better score after which training stops; None never stops early.
        split: 0 is the data set's own division of the classes; any other number is the seed of another one.
        seed: of the first weights, the batches and the rest of the training. Data and classes do not depend on it.
    """

    data: str
    root: str | None
    image_size: int
    backbone: str
    weights: str | None
    embedding_size: int
    softplus: bool
    frozen_trunk: bool
    frozen_batch_norm: bool
    distance: str
    map: str | None
    unit: Literal["anchor", "both", "batch"] | None
    detach_unit: bool
    anchor: Literal["query", "ref"]
    normalize_embeddings: bool
    loss: str
    margin: float | None
    scale: float | None
    power: Literal[1, 2] | None
    regularizer: float
    energy_confusion: float
    steps: int
    batch_size: int
    m: int
    optimizer: Literal["adamw", "sgd"]
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    learning_rate: float
    trunk_learning_rate: float
    clip: float | None
    augment: bool
    validation_share: float
    every: int
    patience: int | None
    split: int
    seed: int

    def __post_init__(self) -> None:
        data = DATASETS[check_choice(self.data, "data", DATASETS)]
        network = NETWORKS[check_choice(self.backbone, "backbone", NETWORKS)]
        if (data.kind == "features") != (network.takes == "features"):
            raise ValueError(
                f"features go with backbone linear and images with another one, got {self.data} and {self.backbone}"
            )
        if not data.sized and data.largest is not None and self.image_size < data.largest:
            raise ValueError(f"{self.data} has images of {data.largest} pixels, got image_size={self.image_size}")
        if self.weights == "imagenet" and network.library is None:
            others = ", ".join(name for name, one in NETWORKS.items() if one.library is not None)
            raise ValueError(f"{self.backbone} has no ImageNet weights; {others} have")
        weights_path(self.backbone, self.weights)
        check_choice(self.precision, "precision", PRECISIONS)
        check_choice(self.distance, "distance", DISTANCES)
        if self.distance in MAPPED:
            check_choice(self.map, "map", MAPS)
        elif self.map is not None:
            raise ValueError(f"only {' and '.join(MAPPED)} have a map, got map={self.map!r} and {self.distance}")
        check_choice(self.loss, "loss", (*LOSSES, SOFTMAX))
        if self.loss == SOFTMAX and self.distance in MAPPED and self.map not in FROZEN:
            raise ValueError(f"softmax trains no map; take map={FROZEN[0]}, got {self.map}")
        if self.loss == SOFTMAX and self.energy_confusion:
            raise ValueError(f"softmax takes no energy confusion, got {self.energy_confusion}")
        for name in ("margin", "scale"):
            value, taken = getattr(self, name), _usual_of(self.loss, name) is not None
            if taken != (value is not None):
                raise ValueError(f"{self.loss} {'needs a' if taken else 'has no'} {name}, got {value}")
        components = torch.eye(2) if self.distance in MAPPED else None
        distance = get_distance(self.distance, components=components, **self.distance_options())
        if self.detach_unit and not isinstance(distance.unit, str):
            raise ValueError(f"detach_unit needs a unit that has a gradient, got {self.distance} in {distance.unit}")
        if self.power is not None and "power" not in getattr(LOSSES.get(self.loss), "told", ()):
            raise ValueError(f"{self.loss} has no power, got {self.power}")
        if self.loss in LOSSES:  # it refuses itself what it cannot take
            get_loss(self.loss, distance, **self.loss_options(n_classes=2, embedding_size=2))
        check_number(self.energy_confusion, "energy_confusion", at_least=0)

    @property
    def features_given(self) -> bool:
        """Whether the network begins with features that mean something: given ones, or those of given weights."""
        return self.weights is not None or DATASETS[self.data].kind == "features"

    @property
    def weights_path(self) -> Path | None:
        """The file of the weights, if there is one."""
        return weights_path(self.backbone, self.weights)

    @property
    def relative(self) -> bool:
        """Whether the distance is a ratio of squares."""
        return self.unit is not None or self.distance in RELATIVE

    @property
    def variant(self) -> str:
        """What decides the training beside the names of data, network, loss, distance and map; "" is nothing.

        >>> default_settings("digits", "conv4", distance="snr", detach_unit=True, optimizer="sgd").variant
        'unit detached, sgd'
        """
        return variant_of(vars(self))

    def distance_options(self) -> dict[str, Any]:
        """What `snrlib.distances.get_distance` takes beside name and components."""
        options = {name: getattr(self, name) for name in ("anchor", "normalize_embeddings", "detach_unit")}
        return options if self.unit is None else options | {"unit": self.unit}

    def loss_options(self, n_classes: int, embedding_size: int) -> dict[str, Any]:
        """What `snrlib.losses.get_loss` takes beside name and distance.

        Args:
            n_classes: of the training images.
            embedding_size: M.
        """
        found: dict[str, Any] = {"margin": self.margin, "scale": self.scale, "power": self.power}
        found = {name: value for name, value in found.items() if value is not None}
        if LOSSES[self.loss].has_proxies:
            found |= {"n_classes": n_classes, "embedding_size": embedding_size, "seed": self.seed}
        return found


def variant_of(settings: Mapping[str, Any]) -> str:
    """`Settings.variant` of settings that may lack the rest.

    Args:
        settings: at least those that a variant can differ by; None is the usual.
    """
    s = settings
    said = {
        f"unit {s['unit']}": s["unit"] is not None,
        "unit detached": s["detach_unit"],
        "anchor ref": s["anchor"] == "ref",
        "length 1": s["normalize_embeddings"],
        f"power {s['power']}": s["power"] is not None,
        "energy confusion": s["energy_confusion"] > 0,
        "softplus": s["softplus"],
        "sgd": s["optimizer"] == "sgd",
    }
    return ", ".join(words for words, true in said.items() if true)


def _usual_of(loss: str, name: str) -> float | None:
    """The usual margin or scale of a loss, None if it takes none."""
    return getattr(LOSSES[loss], f"default_{name}") if loss in LOSSES else None


def default_settings(data: str = "glyphs", backbone: str = "resnet18", **changes: Any) -> Settings:
    """The settings that suit the data, the network and the loss, and the caller's changes.

    Of an optional choice (``root``, ``weights``, ``map``, ``margin``, ``scale``, ``clip``, ``patience``) None is a
    value of its own or what suits; of any other, None is what suits.

    Args:
        data: name of the data set.
        backbone: name of the network.
        **changes: other `Settings` by name.

    Raises:
        ValueError: an unknown data set, backbone, distance, map or loss, or two that do not go together.
        TypeError: an unknown setting.

    >>> default_settings("digits", "conv4", distance="mahalanobis").map
    'running'
    """
    names = [field.name for field in fields(Settings)]
    if unknown := changes.keys() - set(names):
        raise TypeError(f"unknown setting {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    traits = DATASETS[check_choice(data, "data", DATASETS)]
    network = NETWORKS[check_choice(backbone, "backbone", NETWORKS)]
    given = {name: value for name, value in changes.items() if value is not None}
    distance, loss = given.get("distance", "snr"), given.get("loss", "triplet")
    mapping = given.get("map", "running") if distance in MAPPED else given.get("map")
    pretrained = "weights" in given
    rate = given.get("learning_rate", network.learning_rate)
    for place in ("root", "weights"):
        if given.get(place) not in (None, "imagenet", *OWN_WEIGHTS, *STORED_WEIGHTS):
            given[place] = str(Path(given[place]).expanduser().absolute())  # what it means here, wherever it is read
    given |= _batches(data, given)
    usual: dict[str, Any] = {
        "data": data,
        "root": None,
        "image_size": traits.image_size,
        "backbone": backbone,
        "weights": None,
        "embedding_size": 64,
        "softplus": False,
        "frozen_trunk": False,
        "frozen_batch_norm": pretrained,
        "distance": distance,
        "map": mapping,
        "unit": None,
        "detach_unit": False,
        "anchor": "query",
        "normalize_embeddings": False,
        "loss": loss,
        "margin": _usual_of(loss, "margin"),
        "scale": _usual_of(loss, "scale"),
        "power": None,
        "regularizer": 0.1 if mapping == "learned" else 0.0,
        "energy_confusion": 0.0,
        "steps": BUDGETS["quick"],
        "optimizer": "adamw",
        "precision": "auto",
        "learning_rate": rate,
        "trunk_learning_rate": rate / 10 if pretrained else rate,
        "clip": None,
        "augment": traits.kind == "photographs",
        "every": 20,
        "patience": None,
        "split": 0,
        "seed": 0,
    }
    return Settings(**(usual | given))


def _batches(data: str, given: dict[str, Any]) -> dict[str, Any]:
    """Batch size, m and validation share that suit the number of classes and of their images, where they are open."""
    chosen = {name: given.get(name) for name in ("validation_share", "batch_size", "m")}
    if None not in chosen.values():
        return chosen
    n_classes, per_class = training_classes(data, given.get("root"))
    if n_classes < 2 or per_class < 2:
        raise ValueError(
            f"training needs two classes, and two images in most of them: {data} has {n_classes} classes to train, and "
            f"the middle one holds {per_class}"
        )
    share = chosen["validation_share"]
    share = usual_validation_share(n_classes) if share is None else share
    size, m = usual_batch(n_classes - round(share * n_classes), per_class, chosen["batch_size"], chosen["m"])
    return {"validation_share": share, "batch_size": size, "m": m}
