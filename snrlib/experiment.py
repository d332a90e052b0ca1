"""One experiment: a network is trained with a loss over a distance on some classes, and judged on others.

Notebook 05 runs one, notebook 06 compares several, ``snr train`` runs one without a notebook, ``snr reference`` many.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from snrlib.backbones import BACKBONES, Embedder, cost, embed, embedder, transforms
from snrlib.checks import check_choice
from snrlib.data import DATASETS, ImageFiles, LabelledImages, load, validation_split
from snrlib.data.source import data_root
from snrlib.distances import DISTANCES, Distance, get_distance
from snrlib.evaluate import compare
from snrlib.files import data_folder, write_atomically
from snrlib.losses import LOSSES, SoftmaxClassifier, ZeroMeanRegularizer, get_loss
from snrlib.train import train

__all__ = [
    "BUDGETS",
    "Experiment",
    "default_settings",
    "distance_of",
    "experiment",
    "from_parameters",
    "initial_scale",
    "tuned_margin",
    "untrained",
]

BUDGETS: dict[str, int] = {"quick": 100, "full": 400}
"""Steps of a training. Quick shows how an experiment goes; its scores say little."""
_FIVE_CLASSES = ("digits", "cifar10")  # to train on; two of them validate
_PHOTOGRAPHS = ("cub200", "cars196", "sop", "folder")  # files of any size, cropped to a square
_RATES = {"conv4": 4e-3, "alexnet": 1e-4, "resnet18": 3e-3, "resnet50": 3e-3, "squeezenet1_1": 1e-3}
_MARGINS = {"contrastive": 1.0, "triplet": 0.5, "n_pair": 0.0, "lifted": 1.0, "ranked_list": 0.5, "angular": 0.0}
_DISTANCES = tuple(name for name in DISTANCES if "mahalanobis" not in name)  # these need a matrix
_IN_MEMORY = 2**32  # bytes of pixels up to which photographs are read once and kept


@dataclass(eq=False)
class Experiment:
    """What came out.

    Attributes:
        settings: every choice, as `experiment` took it.
        model: the trained network, with its best weights if there were validation classes.
        distance: the training distance (of a softmax classifier: the one it is judged by).
        history: of `snrlib.train.train`.
        train: the training images.
        test: the test images, of other classes.
        embeddings: (n, M), of the test images.
        scores: of `snrlib.evaluate.compare`: one row a distance and anchor side.
        cost: parameters and operations, of `snrlib.backbones.cost`; ``seconds_per_step``, the median over the steps.
        wall_time_s: training and judging, in seconds.
    """

    settings: dict[str, Any]
    model: Embedder
    distance: Distance
    history: pd.DataFrame
    train: LabelledImages | ImageFiles
    test: LabelledImages | ImageFiles
    embeddings: Tensor
    scores: pd.DataFrame
    cost: dict[str, float]
    wall_time_s: float

    @property
    def validation_score(self) -> float:
        """The best MAP@R on the validation classes; NaN without any."""
        return float(self.history.validation.max())

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the training and the test images."""
        return {images.name: images.fingerprint for images in (self.train, self.test)}

    @property
    def metrics(self) -> dict[str, Any]:
        """Its numbers for a result row: all scores, named by the distance that judged; cost and time."""
        scores = {f"{judge}: {name}": value for judge, row in self.scores.iterrows() for name, value in row.items()}
        chosen = {f"setting {name}": value for name, value in self.settings.items() if value is not None}
        return {
            **scores,
            **self.cost,
            **chosen,
            "best_step": self.history.attrs.get("best", 0),
            "experiment_s": self.wall_time_s,
        }

    def save(self, folder: str | Path, model: bool = False) -> None:
        """Write ``history.csv``, ``scores.csv`` and ``embeddings.npz`` (with labels and classes), each atomically.

        With ``model`` the weights as well, to ``model.pt``, which `snrlib.backbones.embedder` takes as ``weights``.
        """
        folder = Path(folder)
        if model:
            write_atomically(folder / "model.pt", lambda path: torch.save(self.model.state_dict(), path))
        write_atomically(folder / "history.csv", self.history.to_csv)
        write_atomically(folder / "scores.csv", lambda path: self.scores.to_csv(path, index_label="distance"))
        embeddings, labels, classes = self.embeddings.numpy(), self.test.labels.numpy(), np.array(self.test.classes)
        write_atomically(
            folder / "embeddings.npz",
            lambda path: np.savez_compressed(path, embeddings=embeddings, labels=labels, classes=classes),
        )

    def __repr__(self) -> str:
        best = self.scores.precision_at_1
        shown = ", ".join(f"{name}: {value:.3f}" for name, value in best.items())
        return f"Experiment({self.settings['backbone']} on {self.test.name}; R@1 by {shown})"


def default_settings(data: str = "glyphs", backbone: str = "resnet18", **changes: Any) -> dict[str, Any]:
    """Every setting of `experiment`, with the values that suit the data and the backbone, and the caller's changes.

    - ``data``, ``root``: see `snrlib.data.load`; ``image_size``: side in pixels (224 for photographs);
    - ``backbone``, ``weights``, ``embedding_size``, ``frozen_trunk``, ``frozen_batch_norm``: see `snrlib.backbones`;
    - ``distance``, ``anchor``, ``normalize_embeddings``: see `snrlib.distances`; ``loss``, ``margin``: see
      `snrlib.losses`, or "softmax", the classifier, which has no distance and is judged by the one named;
    - ``regularizer``: weight of the zero-mean penalty;
    - ``steps``, ``batch_size``, ``m``, ``optimizer``, ``learning_rate``, ``trunk_learning_rate`` (a tenth of the
      other for given weights), ``clip``, ``every``, ``patience``: see `snrlib.train.train`;
    - ``augment``: random crops and flips, for photographs;
    - ``validation_share``: share of the training classes that choose the best weights; 0 trains on all of them;
    - ``seed``: of the first weights, the batches and the rest of the training. Data and classes do not depend on it.

    Raises:
        ValueError: an unknown data set, backbone, distance or loss.
        TypeError: an unknown setting.
    """
    check_choice(data, "data", DATASETS)
    check_choice(backbone, "backbone", BACKBONES)
    check_choice(changes.get("distance", "snr"), "distance", _DISTANCES)
    photographs = data in _PHOTOGRAPHS
    weights = changes.get("weights")
    rate = changes.get("learning_rate", _RATES[backbone])
    loss = check_choice(changes.get("loss", "triplet"), "loss", (*LOSSES, "softmax"))
    settings = {
        "data": data,
        "root": None,
        "image_size": 224 if photographs else 28 if data == "omniglot" else 32,
        "backbone": backbone,
        "weights": None,
        "embedding_size": 64,
        "frozen_trunk": False,
        "frozen_batch_norm": weights is not None,
        "distance": "snr",
        "anchor": "query",
        "normalize_embeddings": False,
        "loss": loss,
        "margin": _MARGINS.get(loss, 0.0),
        "regularizer": 0.0,
        "steps": BUDGETS["quick"],
        "batch_size": 48 if data in _FIVE_CLASSES else 64,
        "m": 16 if data in _FIVE_CLASSES else 4,
        "optimizer": "adamw",
        "learning_rate": rate,
        "trunk_learning_rate": rate if weights is None else rate / 10,
        "clip": None,
        "augment": photographs,
        "validation_share": 0.4 if data in _FIVE_CLASSES else 0.25,
        "every": 20,
        "patience": None,
        "seed": 0,
    }
    if unknown := changes.keys() - settings.keys():
        raise TypeError(f"unknown setting {', '.join(sorted(unknown))}; choose from {', '.join(settings)}")
    return settings | changes


def from_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """The settings that the parameters of notebook 05 name, where 0, "" and a negative margin leave the choice to us.

    The margin is then the tuned one in ``data/reference``, if there is one for this data set, backbone, loss and
    distance.
    """
    p = parameters
    same = ("data", "backbone", "distance", "anchor", "loss", "frozen_trunk", "normalize_embeddings", "regularizer")
    ours = ("root", "weights", "image_size", "batch_size", "m", "learning_rate")
    changes = {key: p[key] for key in (*same, "embedding_size", "seed")} | {key: p[key] for key in ours if p[key]}
    changes["steps"] = p["steps"] or BUDGETS[p["budget"]]
    tuned = tuned_margin(p["data"], p["backbone"], p["loss"], p["distance"])
    if p["margin"] >= 0:
        changes["margin"] = p["margin"]
    elif tuned is not None:
        changes["margin"] = tuned
    return default_settings(**changes)


def tuned_margin(data: str, backbone: str, loss: str, distance: str) -> float | None:
    """The margin that the study in ``data/reference`` found best on validation classes; None if it did not look."""
    path = data_folder("reference") / f"{data}.json"
    if not path.exists():
        return None
    for row in json.loads(path.read_text())["tuned_margins"]:
        if (row["backbone"], row["loss"], row["distance"]) == (backbone, loss, distance):
            return float(row["margin"])
    return None


def experiment(
    settings: dict[str, Any],
    folder: str | Path | None = None,
    device: torch.device | str | None = None,
    *,
    workers: int = 0,
    progress: bool = False,
) -> Experiment:
    """Train and judge.

    Within `snrlib.parallel.process_group` all processes train together.

    Args:
        settings: of `default_settings`.
        folder: of the checkpoints, from which an interrupted training goes on; None keeps none.
        device: that trains and embeds; None is CUDA where there is one, else the CPU. Judging is done on the CPU.
        workers: processes that load images.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: the data set is not there; the message says which file to put where.
        ValueError: settings that do not fit each other.
    """
    started = time.perf_counter()
    s = settings
    training, test = _images(s, "train"), _images(s, "test")
    validation = None
    if s["validation_share"]:
        training, validation = validation_split(training, s["validation_share"])
    torch.manual_seed(s["seed"])
    model = _model(s, training)
    distance = distance_of(s)
    loss = _loss(s, distance, len(training.classes))
    crop = _crop(s, train=False)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    history = train(
        model.to(device),
        training,
        loss.to(device),
        **{key: s[key] for key in ("steps", "batch_size", "m", "optimizer", "learning_rate", "seed")},
        **{key: s[key] for key in ("trunk_learning_rate", "clip", "every", "patience")},
        augment=_crop(s, train=True) if s["augment"] else crop,
        validation=validation,
        crop=crop,
        folder=folder,
        workers=workers,
        progress=progress,
    )
    embeddings = embed(model, test, transform=crop)
    spent = history.seconds.diff().median() if len(history) > 1 else history.seconds.iloc[0]
    return _judged(s, model, distance, history, training, test, embeddings, float(spent), started)


def untrained(settings: dict[str, Any]) -> Experiment:
    """The same images and judgement without any training: the baseline that training must beat.

    Random weights are judged with their random head, given weights by the pooled features before it.
    """
    started = time.perf_counter()
    s = settings
    training, test = _images(s, "train"), _images(s, "test")
    torch.manual_seed(s["seed"])
    model = _model(s, training) if s["weights"] is None else _model({**s, "embedding_size": None}, training)
    embeddings = embed(model, test, transform=_crop(s, train=False))
    history = pd.DataFrame({"validation": []}, dtype=float)
    return _judged(s, model, distance_of(s), history, training, test, embeddings, float("nan"), started)


def initial_scale(settings: dict[str, Any]) -> float:
    """Mean squared distance between 64 training images before training: the natural unit of an absolute margin.

    Absolute distances have the scale of the network's first weights, which differs a million fold between networks.
    """
    training = _images(settings, "train")
    torch.manual_seed(settings["seed"])
    model = _model(settings, training).train()
    chosen = torch.randperm(len(training), generator=torch.Generator().manual_seed(settings["seed"]))[:64].tolist()
    images = [training[index][0] for index in chosen]
    if crop := _crop(settings, train=False):
        images = [crop(image) for image in images]
    with torch.no_grad():
        d = distance_of(settings)(model(torch.stack(images)))
    return float(d.square().sum() / (len(d) * (len(d) - 1)))


def _judged(
    s: dict[str, Any],
    model: Embedder,
    distance: Distance,
    history: pd.DataFrame,
    training: LabelledImages | ImageFiles,
    test: LabelledImages | ImageFiles,
    embeddings: Tensor,
    seconds_per_step: float,
    started: float,
) -> Experiment:
    shape = (model.channels, s["image_size"], s["image_size"])
    return Experiment(
        settings=dict(s),
        model=model,
        distance=distance,
        history=history,
        train=training,
        test=test,
        embeddings=embeddings,
        scores=compare(embeddings, test.labels, distance),
        cost={**cost(model, shape), "seconds_per_step": seconds_per_step},
        wall_time_s=time.perf_counter() - started,
    )


def _model(s: dict[str, Any], training: LabelledImages | ImageFiles) -> Embedder:
    channels = training[0][0].shape[0]
    model = embedder(s["backbone"], s["embedding_size"], s["weights"], channels=channels)
    return model.freeze(s["frozen_trunk"], s["frozen_batch_norm"])


def distance_of(s: dict[str, Any]) -> Distance:
    """The training distance that the settings name, anchor side included."""
    return get_distance(s["distance"], anchor=s["anchor"], normalize_embeddings=s["normalize_embeddings"])


def _loss(s: dict[str, Any], distance: Distance, n_classes: int) -> nn.Module:
    if s["loss"] == "softmax":
        return SoftmaxClassifier(n_classes, s["embedding_size"])
    options: dict[str, Any] = {} if s["loss"] == "angular" else {"margin": s["margin"]}
    if s["loss"] == "ranked_list":
        options["alpha"] = 3 * s["margin"]  # as the paper's 1.2 to 0.4
    if s["regularizer"]:
        options["regularizer"] = ZeroMeanRegularizer(s["regularizer"])
    return get_loss(s["loss"], distance, **options)


def _crop(s: dict[str, Any], train: bool) -> Callable[[Tensor], Tensor] | None:
    return transforms(s["backbone"], s["image_size"], train=train) if s["data"] in _PHOTOGRAPHS else None


def _images(s: dict[str, Any], split: str) -> Any:
    size = s["image_size"]
    if s["data"] in _PHOTOGRAPHS:
        # The usual geometry: 256 pixels for 224. Training crops at random, judging cuts the centre out.
        size = round(size * 256 / 224)
    root = s["root"] if s["data"] == "folder" else str(data_root(s["root"]))
    return _load(s["data"], split, root, size)


@lru_cache(maxsize=4)  # experiments that follow each other use the same images
def _load(name: str, split: str, root: str | None, size: int) -> LabelledImages | ImageFiles:
    options: dict[str, Any] = {"classes": "disjoint"} if name.startswith("cifar") else {"size": size}
    images = load(name, split, root, **options)  # type: ignore[arg-type]
    if isinstance(images, ImageFiles) and len(images) * 3 * size * size <= _IN_MEMORY:
        return images.in_memory()
    return images
