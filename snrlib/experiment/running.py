"""One experiment: a network is trained with a loss over a distance on some classes, and judged on others.

Notebook 05 runs one, notebook 06 compares several, ``snr train`` runs one without a notebook, ``snr reference`` many.
"""

from __future__ import annotations

import copy
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
from torch.nn import functional as F

from snrlib.backbones import BACKBONES, Embedder, cost, embed, embedder, transforms
from snrlib.data import DATASETS, ImageFiles, LabelledImages, load, validation_split
from snrlib.data.base import Split
from snrlib.data.fetch.source import data_root
from snrlib.distances import DISTANCES, Distance, LinearMap, get_distance
from snrlib.evaluate import compare
from snrlib.losses import LOSSES, LogDetRegularizer, SoftmaxClassifier, ZeroMeanRegularizer, get_loss
from snrlib.mahalanobis import LMNN, RunningWhitening, Whitening
from snrlib.train import train
from snrlib.utils.checks import check_choice
from snrlib.utils.files import data_folder, write_atomically

__all__ = [
    "BUDGETS",
    "MAPS",
    "Experiment",
    "Fitted",
    "default_settings",
    "distance_of",
    "experiment",
    "fit",
    "from_parameters",
    "images_of",
    "initial_scale",
    "tuned",
    "tuned_parameters",
    "untrained",
]

BUDGETS: dict[str, int] = {"quick": 100, "full": 400}
"""Steps of a training. Quick shows how an experiment goes; its scores say little."""
_FIVE_CLASSES = ("digits", "cifar10")  # to train on; two of them validate
_PHOTOGRAPHS = ("cub200", "cars196", "sop", "folder")  # files of any size, cropped to a square
_FEATURES = ("cub_features",)  # no images any more; for "linear", a last layer alone
_RATES = {"conv4": 4e-3, "alexnet": 1e-4, "resnet18": 3e-3, "resnet50": 3e-3, "squeezenet1_1": 1e-3, "linear": 1e-3}
_MARGINS = {"contrastive": 1.0, "triplet": 0.5, "n_pair": 0.0, "lifted": 1.0, "ranked_list": 0.5, "angular": 0.0}
MAPS: tuple[str, ...] = ("running", "whitening", "lmnn", "learned")
"""Where the map L of the two Mahalanobis distances comes from, see `default_settings`."""
_FROZEN = ("whitening", "lmnn")
_DISTANCES = (*DISTANCES, *(f"{name}/{map}" for name in DISTANCES if "mahalanobis" in name for map in MAPS[1:]))
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
        """Write ``history.csv``, ``scores.csv`` and ``embeddings.npz``, each atomically.

        The last with labels and classes and, of a Mahalanobis distance, its map as ``components``.
        With ``model`` the weights as well, to ``model.pt``, which `snrlib.backbones.embedder` takes as ``weights``.
        """
        folder = Path(folder)
        if model:
            write_atomically(folder / "model.pt", lambda path: torch.save(self.model.state_dict(), path))
        write_atomically(folder / "history.csv", self.history.to_csv)
        write_atomically(folder / "scores.csv", lambda path: self.scores.to_csv(path, index_label="distance"))
        arrays: dict[str, Any] = {"embeddings": self.embeddings.numpy(), "labels": self.test.labels.numpy()}
        arrays["classes"] = np.array(self.test.classes)
        if isinstance(self.distance.map, LinearMap):
            arrays["components"] = self.distance.map.components.detach().cpu().numpy()
        write_atomically(folder / "embeddings.npz", lambda path: np.savez_compressed(path, **arrays))

    def __repr__(self) -> str:
        best = self.scores.precision_at_1
        shown = ", ".join(f"{name}: {value:.3f}" for name, value in best.items())
        return f"Experiment({self.settings['backbone']} on {self.test.name}; R@1 by {shown})"


def default_settings(data: str = "glyphs", backbone: str = "resnet18", **changes: Any) -> dict[str, Any]:
    """Every setting of `experiment`, with the values that suit the data and the backbone, and the caller's changes.

    - ``data``, ``root``: see `snrlib.data.load`; ``image_size``: side in pixels (224 for photographs);
    - ``backbone``, ``weights``, ``embedding_size``, ``frozen_trunk``, ``frozen_batch_norm``: see `snrlib.backbones`;
    - ``distance``, ``anchor``, ``normalize_embeddings``: see `snrlib.distances`; ``loss``, ``margin``: see
      `snrlib.losses`, or "softmax", the classifier, which has no distance and is judged by the one named. The map of
      "mahalanobis" and "relative_mahalanobis" follows the batches (`snrlib.mahalanobis.RunningWhitening`); with
      "/whitening" or "/lmnn" behind the name it is fitted once to the first embeddings of the training images and
      frozen, with "/learned" it is trained, starting at the identity;
    - ``regularizer``: weight of the zero-mean penalty; with a learned map, of the log-det penalty on that, in units of
      the loss at its margin;
    - ``steps``, ``batch_size``, ``m``, ``optimizer``, ``learning_rate``, ``trunk_learning_rate`` (a tenth of the
      other for given weights), ``clip``, ``every``, ``patience``: see `snrlib.train.train`;
    - ``augment``: random crops and flips, for photographs;
    - ``validation_share``: share of the training classes that choose the best weights; 0 trains on all of them;
    - ``seed``: of the first weights, the batches and the rest of the training. Data and classes do not depend on it.

    Raises:
        ValueError: an unknown data set, backbone, distance or loss, or two that do not go together.
        TypeError: an unknown setting.
    """
    check_choice(data, "data", DATASETS)
    check_choice(backbone, "backbone", (*BACKBONES, "linear"))
    if (data in _FEATURES) != (backbone == "linear"):
        raise ValueError(f"features go with backbone linear and images with another one, got {data} and {backbone}")
    distance = check_choice(changes.get("distance", "snr"), "distance", _DISTANCES)
    photographs = data in _PHOTOGRAPHS
    weights = changes.get("weights")
    rate = changes.get("learning_rate", _RATES[backbone])
    loss = check_choice(changes.get("loss", "triplet"), "loss", (*LOSSES, "softmax"))
    if loss == "softmax" and "mahalanobis" in distance and distance.partition("/")[2] not in _FROZEN:
        fitted = f"{distance.partition('/')[0]}/whitening"
        raise ValueError(f"softmax trains no map; take {fitted} (in notebook 05 map=whitening), got {distance}")
    settings = {
        "data": data,
        "root": None,
        "image_size": 224 if photographs else 28 if data == "omniglot" else 1 if data in _FEATURES else 32,
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
        "regularizer": 0.1 if distance.endswith("/learned") else 0.0,
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

    Margin and learning rate are then the `tuned` ones, if there are any for this data set, backbone, loss and distance.
    """
    p = parameters | tuned_parameters(parameters)
    p["distance"] = _distance_name(p)
    same = ("data", "backbone", "distance", "anchor", "loss", "frozen_trunk", "normalize_embeddings")
    ours = ("root", "weights", "image_size", "batch_size", "m", "learning_rate", "regularizer")
    changes = {key: p[key] for key in (*same, "embedding_size", "seed")} | {key: p[key] for key in ours if p[key]}
    changes["steps"] = p["steps"] or BUDGETS[p["budget"]]
    if p["margin"] >= 0:
        changes["margin"] = p["margin"]
    return default_settings(**changes)


def tuned_parameters(parameters: dict[str, Any], profile: str | None = None) -> dict[str, float]:
    """What is tuned of the margin and the learning rate that the parameters of notebook 05 leave open.

    Nothing with embeddings of length 1, which have another unit than those that were tuned.

    Args:
        parameters: all of notebook 05.
        profile: of ``study.yaml``, whose own tuning comes first.
    """
    p = parameters
    if p["normalize_embeddings"]:
        return {}
    key = (p["data"], p["backbone"], p["loss"], _distance_name(p), p["embedding_size"])
    found = tuned(*key, pretrained=bool(p["weights"]), profile=profile)
    left = {"margin": p["margin"] < 0, "learning_rate": not p["learning_rate"]}
    return {name: value for name, value in found.items() if left[name]}


def _distance_name(parameters: dict[str, Any]) -> str:
    name = str(parameters["distance"])
    return f"{name}/{parameters['map']}" if "mahalanobis" in name and parameters["map"] != MAPS[0] else name


def tuned(
    data: str,
    backbone: str,
    loss: str,
    distance: str,
    embedding_size: int,
    pretrained: bool = False,
    profile: str | None = None,
) -> dict[str, float]:
    """What was found best on validation classes, from ``data/reference``: "margin", "learning_rate", or neither.

    The same embedding size comes before another, the profile's own tuning before others, and what `snrlib.study.tuning`
    found before the margins of the studies of `snrlib.study.reference`.

    Args:
        data: name of the data set.
        backbone: of the network.
        loss: its name.
        distance: its name, as in `default_settings`.
        embedding_size: that is wanted.
        pretrained: whether the network starts with given weights; what was found for the others does not count.
        profile: of ``study.yaml``, or None.
    """
    files = sorted(data_folder("reference").glob("*.json"))
    best: tuple[tuple[bool, bool, bool], dict[str, float]] = ((False, False, False), {})
    for row in _tuned_rows(tuple((path, path.stat().st_mtime_ns) for path in files)):
        same = (row["data"], row["backbone"], row["loss"], row["distance"], row["pretrained"])
        if same == (data, backbone, loss, distance, pretrained):
            own = row["profile"] is not None and row["profile"] == profile
            rank = (row["embedding_size"] == embedding_size, own, "learning_rate" in row)
            if not best[1] or rank > best[0]:
                best = rank, {key: float(row[key]) for key in ("margin", "learning_rate") if key in row}
    return best[1]


@lru_cache(maxsize=1)  # a grid asks for each of its cells
def _tuned_rows(files: tuple[tuple[Path, int], ...]) -> list[dict[str, Any]]:
    """What the files say was tuned; each with the time of its last change, so that a changed one is read again."""
    found = []
    for path, _ in files:
        about = json.loads(path.read_text())
        found += [{"profile": about.get("profile"), "pretrained": False} | row for row in about.get("tuned", [])]
        if study := about.get("study"):
            size = about.get("settings", {}).get("embedding_size")
            shared = {"data": study["data"], "embedding_size": size, "profile": None}
            given = study.get("backbones", {})
            found += [
                shared | {"pretrained": "weights" in given.get(row["backbone"], {})} | row
                for row in about["tuned_margins"]
            ]
    return found


@dataclass(eq=False)
class Fitted:
    """A trained network, not judged yet.

    Attributes:
        model: with its best weights if there were validation classes.
        distance: the training distance (of a softmax classifier: the one it is judged by).
        history: of `snrlib.train.train`.
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


def fit(
    settings: dict[str, Any],
    folder: str | Path | None = None,
    device: torch.device | str | None = None,
    *,
    images: LabelledImages | ImageFiles | None = None,
    workers: int = 0,
    progress: bool = False,
) -> Fitted:
    """Train without looking at the test classes; arguments and errors are those of `experiment`.

    Args:
        settings: of `default_settings`.
        folder: of the checkpoints.
        device: that trains.
        images: to train on instead of those that the settings name, for example spoiled ones.
        workers: processes that load images.
        progress: show a progress bar.
    """
    s = settings
    training, validation = images_of(s, "train") if images is None else images, None
    if s["validation_share"]:
        training, validation = validation_split(training, s["validation_share"])  # type: ignore[type-var]
    torch.manual_seed(s["seed"])
    model = _model(s, training)
    crop = _crop(s, train=False)
    frozen = s["distance"].endswith(_FROZEN)
    distance = _distance(s, training, _first_embeddings(model, training, crop) if frozen else None)
    loss = _loss(s, distance, len(training.classes))
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
    return Fitted(model, distance, history, training, crop)


def experiment(
    settings: dict[str, Any],
    folder: str | Path | None = None,
    device: torch.device | str | None = None,
    *,
    workers: int = 0,
    progress: bool = False,
) -> Experiment:
    """Train and judge.

    Within `snrlib.train.processes.process_group` all processes train together.

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
    test = images_of(settings, "test")  # both must be there before anything is trained
    done = fit(settings, folder, device, workers=workers, progress=progress)
    embeddings = embed(done.model, test, transform=done.crop)
    history = done.history
    spent = history.seconds.diff().median() if len(history) > 1 else history.seconds.iloc[0]
    return _judged(settings, done.model, done.distance, history, done.train, test, embeddings, float(spent), started)


def untrained(settings: dict[str, Any]) -> Experiment:
    """The same images and judgement without any training: the baseline that training must beat.

    Given weights and given features are judged by the features before a random head; random weights with their random
    head, and the weights of a whole embedder with its own. The map of a Mahalanobis distance is that of the training
    images' embeddings.
    """
    started = time.perf_counter()
    s = settings
    training, test = images_of(s, "train"), images_of(s, "test")
    torch.manual_seed(s["seed"])
    model = _model(s, training)
    if (s["weights"] is not None or s["data"] in _FEATURES) and not model.given_head:
        model.head = torch.nn.Identity()
    crop = _crop(s, train=False)
    embeddings = embed(model, test, transform=crop)
    fit_to = embed(model, training, transform=crop) if "mahalanobis" in s["distance"] else None
    distance = _distance(s, training, fit_to)
    history = pd.DataFrame({"validation": []}, dtype=float)
    return _judged(s, model, distance, history, training, test, embeddings, float("nan"), started)


def images_of(settings: dict[str, Any], split: Split) -> Any:
    """The training images of an experiment, validation classes included, or those it is judged on, in their order.

    Args:
        settings: of `experiment`.
        split: "train" or "test".
    """
    s, size = settings, settings["image_size"]
    if s["data"] in _PHOTOGRAPHS:
        # The usual geometry: 256 pixels for 224. Training crops at random, judging cuts the centre out.
        size = round(size * 256 / 224)
    root = s["root"] if s["data"] == "folder" else str(data_root(s["root"]))
    return _load(s["data"], split, root, size)


def initial_scale(settings: dict[str, Any]) -> float:
    """Mean squared distance between 64 training images before training: the natural unit of an absolute margin.

    Absolute distances have the scale of the network's first weights, which differs a million fold between networks.
    """
    training = images_of(settings, "train")
    torch.manual_seed(settings["seed"])
    model = _model(settings, training).train()
    chosen = torch.randperm(len(training), generator=torch.Generator().manual_seed(settings["seed"]))[:64].tolist()
    images = [training[index][0] for index in chosen]
    crop = _crop(settings, train=False)
    if crop is not None:
        images = [crop(image) for image in images]
    first = _first_embeddings(model, training, crop) if "mahalanobis" in settings["distance"] else None
    with torch.no_grad():
        d = _distance(settings, training, first)(model(torch.stack(images)))
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


def distance_of(s: dict[str, Any], components: Any = None) -> Distance:
    """The training distance that the settings name, anchor side included.

    Args:
        s: the settings.
        components: the matrix L of the two Mahalanobis distances, which the settings do not determine.
    """
    name = s["distance"].partition("/")[0]
    options = {"anchor": s["anchor"], "normalize_embeddings": s["normalize_embeddings"]}
    return get_distance(name, components=components, **options)


def _distance(s: dict[str, Any], training: LabelledImages | ImageFiles, embeddings: Tensor | None) -> Distance:
    """The distance before training; ``embeddings`` of the training images fit its map, if it has one."""
    name, _, kind = s["distance"].partition("/")
    if "mahalanobis" not in name:
        return distance_of(s)
    M = s["embedding_size"] if embeddings is None else embeddings.shape[1]
    if kind == "learned":
        return distance_of(s, nn.Parameter(torch.eye(M)))
    if embeddings is not None and s["normalize_embeddings"]:
        embeddings = F.normalize(embeddings)
    if kind in _FROZEN:
        assert embeddings is not None
        estimator = LMNN() if kind == "lmnn" else Whitening("ledoit_wolf", within_class=True)
        fitted = estimator.fit(embeddings.numpy(), training.labels.numpy())
        return distance_of(s, torch.from_numpy(fitted.components_).float())
    distance = distance_of(s, torch.eye(M))
    distance.map = RunningWhitening(M)
    if embeddings is not None:
        distance.map.update(embeddings, training.labels)
    return distance


@torch.no_grad()
def _first_embeddings(
    model: Embedder, training: LabelledImages | ImageFiles, crop: Callable[[Tensor], Tensor] | None
) -> Tensor:
    """Embeddings (n, M) of the training images as training begins, with the statistics of their own batches."""
    network = copy.deepcopy(model).train()  # batch norm would move the model's
    with torch.random.fork_rng([]):
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
        parts = []
        for rows in order.split(64):
            images = [training[index][0] for index in rows.tolist()]
            parts.append(network(torch.stack(images if crop is None else [crop(image) for image in images])).float())
    return torch.cat(parts)[order.argsort()]


def _loss(s: dict[str, Any], distance: Distance, n_classes: int) -> nn.Module:
    if s["loss"] == "softmax":
        return SoftmaxClassifier(n_classes, s["embedding_size"])
    options: dict[str, Any] = {} if s["loss"] == "angular" else {"margin": s["margin"]}
    if s["loss"] == "ranked_list":
        options["alpha"] = 3 * s["margin"]  # as the paper's 1.2 to 0.4
    learned = s["distance"].endswith("/learned")
    if s["regularizer"] and not learned:
        options["regularizer"] = ZeroMeanRegularizer(s["regularizer"])
    loss = get_loss(s["loss"], distance, **options)
    if s["regularizer"] and learned:
        unit = loss.unit if distance.relative else loss.unit**2
        loss.regularizer = LogDetRegularizer(s["regularizer"] * unit, distance.map)  # type: ignore[arg-type]
    return loss


def _crop(s: dict[str, Any], train: bool) -> Callable[[Tensor], Tensor] | None:
    return transforms(s["backbone"], s["image_size"], train=train) if s["data"] in _PHOTOGRAPHS else None


@lru_cache(maxsize=4)  # experiments that follow each other use the same images
def _load(name: str, split: Split, root: str | None, size: int) -> LabelledImages | ImageFiles:
    options: dict[str, Any] = {"classes": "disjoint"} if name.startswith("cifar") else {"size": size}
    images = load(name, split, root, **options)
    if isinstance(images, ImageFiles) and len(images) * 3 * size * size <= _IN_MEMORY:
        return images.in_memory()
    return images
