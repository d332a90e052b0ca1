"""What comes out of an experiment: kept, written beside a run, and read again."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from snrlib.backbones import Embedder
from snrlib.data import ImageFiles, LabelledImages, files_state
from snrlib.distances import Distance, LinearMap
from snrlib.evaluate import judges
from snrlib.experiment.parts import distance_of
from snrlib.experiment.settings import Settings
from snrlib.utils.checks import check_embeddings, check_labels
from snrlib.utils.files import write_atomically, write_text
from snrlib.utils.reading import read_json, read_npz

__all__ = ["FILES", "Experiment", "Run", "read_run"]

FILES: dict[str, str] = {
    "embeddings.npz": "embeddings of the test images, their labels and classes",
    "history.csv": "the training, step by step",
    "model.pt": "weights of the trained network",
    "scores.csv": "scores by each distance and anchor side",
}
"""What `Experiment.save` writes, and what it is."""


@dataclass(eq=False)
class Experiment:
    """What came out.

    Attributes:
        settings: every choice.
        model: the trained network, with its best weights if there were validation classes.
        distance: the training distance (of a softmax classifier: the one it is judged by).
        history: of `snrlib.train.train`; without a row if nothing was trained.
        train: the training images.
        test: the test images, of other classes.
        crop: what an image goes through before the network sees it, when embeddings are compared; None is nothing.
        embeddings: (n, M), of the test images.
        scores: of `snrlib.evaluate.compare`: one row per distance and anchor side.
        cost: parameters and operations, of `snrlib.backbones.cost`; ``seconds_per_step``, the median over the steps.
        wall_time_s: training and judging, in seconds.
    """

    settings: Settings
    model: Embedder
    distance: Distance
    history: pd.DataFrame
    train: LabelledImages | ImageFiles
    test: LabelledImages | ImageFiles
    crop: Callable[[Tensor], Tensor] | None
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

    def row(self) -> dict[str, Any]:
        """Its numbers, nested, for a result row.

        Returns:
            ``trained``, whether it was; ``settings``, and their ``variant``; ``scores``, one row per judge: ``judge``
            ("training", the training distance, or the name of another one), ``anchor`` ("query", "ref" or None), the
            scores; ``cost``; ``classes`` and ``images``, how many were searched; ``files``, the state of the files of
            the data set; ``best_step``; ``precision``, in which the trunk computed in training, "auto" resolved;
            ``seconds``.
        """
        rows = zip(judges(self.distance), self.scores.to_dict("records"), strict=True)
        return {
            "trained": len(self.history) > 0,
            "settings": asdict(self.settings),
            "variant": self.settings.variant,
            "scores": [{"judge": judge.judge, "anchor": judge.anchor, **scores} for judge, scores in rows],
            "cost": dict(self.cost),
            "classes": len(self.test.classes),
            "images": len(self.test),
            "files": files_state(self.settings.data, self.settings.root, self.settings.weights_path),
            "best_step": self.history.attrs.get("best", 0),
            "precision": self.history.attrs.get("precision", "float32"),  # untrained: as all embeddings are computed
            "seconds": self.wall_time_s,
        }

    def save(self, folder: str | Path, model: bool = False) -> None:
        """Write ``history.csv``, ``scores.csv`` and ``embeddings.npz``, each atomically.

        The last with labels and classes and, of a Mahalanobis distance, its map as ``components``.
        With ``model`` the weights as well, to ``model.pt``, which `snrlib.backbones.embedder` takes as ``weights``.
        """
        folder = Path(folder)
        if model:
            file = io.BytesIO()  # in a file, torch would write its name into it: same weights, other bytes
            torch.save(self.model.state_dict(), file)
            write_atomically(folder / "model.pt", lambda path: path.write_bytes(file.getvalue()))
        write_text(folder / "history.csv", self.history.to_csv(lineterminator="\n"))
        write_text(folder / "scores.csv", self.scores.to_csv(index_label="distance", lineterminator="\n"))
        arrays: dict[str, Any] = {"embeddings": self.embeddings.numpy(), "labels": self.test.labels.numpy()}
        arrays["classes"] = np.array(self.test.classes)
        if isinstance(self.distance.map, LinearMap):
            arrays["components"] = self.distance.map.components.detach().cpu().numpy()
        write_atomically(folder / "embeddings.npz", lambda path: np.savez_compressed(path, **arrays))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}: {value:.3f}" for name, value in self.scores.precision_at_1.items())
        return f"Experiment({self.settings.backbone} on {self.test.name}; R@1 by {shown})"


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run of notebook 07.

    Attributes:
        row: as `Experiment.row` gave it.
        settings: every choice.
        embeddings: (n, M), of the test images.
        labels: (n,), integers.
        classes: their names, by label.
        distance: the training distance with its map, anchor side included.
    """

    row: dict[str, Any]
    settings: Settings
    embeddings: Tensor
    labels: Tensor
    classes: list[str]
    distance: Distance


def read_run(result: Path) -> Run:
    """A run of notebook 07, from its result.json and the embeddings.npz that `Experiment.save` put beside it.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: it is no run of this notebook, or one of an earlier version, or damaged.
    """
    cure = "run notebook 07 again"
    row = read_json(result, cure).get("experiment")
    names = {field.name for field in fields(Settings)}
    if not isinstance(row, dict) or not isinstance(row.get("settings"), dict) or row["settings"].keys() != names:
        raise ValueError(f"{result} is not of notebook 07, or of an earlier version of it; {cure}")
    settings = Settings(**row["settings"])
    path = result.with_name("embeddings.npz")
    arrays = read_npz(path, cure, "embeddings", "labels", "classes")
    try:
        x, labels = check_embeddings(torch.from_numpy(arrays["embeddings"])), torch.from_numpy(arrays["labels"])
        check_labels(labels, len(x))
        classes = [str(name) for name in arrays["classes"]]
        distance = distance_of(settings, arrays.get("components"))
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            raise ValueError(f"labels must be from 0 to {len(classes) - 1}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}; {cure}") from error
    return Run(row, settings, x, labels, classes, distance)
