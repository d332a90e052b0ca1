"""Embeddings stored with the study, so that they can be looked at without any training.

``snr reference embeddings`` measures; ``data/reference/embeddings.npz`` and ``embeddings.json`` hold what came out: the
same images of characters, of classes that no training saw, in the space of a network before it was trained and after it
was trained under each of three distances.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snrlib.data import LabelledImages, load
from snrlib.distances import Distance, LinearMap
from snrlib.experiment import default_settings, distance_of, experiment, tuned, untrained
from snrlib.files import data_folder, write_atomically
from snrlib.runs import provenance

__all__ = ["SPACES", "Stored", "measure_embeddings", "stored_embeddings"]

SPACES: tuple[str, ...] = ("untrained", "euclidean", "snr", "relative_mahalanobis")
"""Before training, and after it under each of these distances."""
_SETTINGS: dict[str, Any] = {"data": "glyphs", "backbone": "conv4", "loss": "triplet", "steps": 150}
_EVERY = 8  # of the test classes that are kept, so that a map can be read


@dataclass(frozen=True, eq=False)
class Stored:
    """The same images in several spaces.

    Attributes:
        images: of the characters, with their labels and classes.
        embeddings: (n, 64) of each of `SPACES`.
        distances: the training distance of each; of the untrained network Euclid's.
        about: where they come from.
    """

    images: LabelledImages
    embeddings: dict[str, Tensor]
    distances: dict[str, Distance]
    about: dict[str, Any]

    def __repr__(self) -> str:
        return f"Stored({len(self.images)} images of {len(self.images.classes)} classes; {', '.join(self.embeddings)})"


def measure_embeddings() -> Path:
    """Train with the tuned margin and learning rate of each distance, and store the embeddings of every eighth class.

    Returns:
        The path of ``embeddings.npz``.
    """
    arrays, about = {}, {}
    for space in SPACES:
        name = "euclidean" if space == "untrained" else space
        found = tuned("glyphs", "conv4", "triplet", name, embedding_size=64)
        settings = default_settings(**_SETTINGS, distance=name, **found)
        done = untrained(settings) if space == "untrained" else experiment(settings)
        arrays[space] = done.embeddings[done.test.labels % _EVERY == 0].numpy()
        if isinstance(done.distance.map, LinearMap):
            arrays[f"{space}_components"] = done.distance.map.components.numpy()
        about[space] = settings
    path = data_folder("reference") / "embeddings.npz"
    kept = _kept(done.test)
    row = {"what": "embeddings of test images of every eighth class", "settings": about, "data": done.fingerprints}
    row |= {"classes": list(kept.classes), "images": len(kept)}
    row |= provenance()
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, **arrays))
    write_atomically(path.with_suffix(".json"), lambda temporary: temporary.write_text(json.dumps(row, indent=1) + "\n"))
    return path


def stored_embeddings() -> Stored:
    """Read them, and draw the images they belong to.

    Raises:
        FileNotFoundError: they are not there; the message says what makes them.
        ValueError: the characters are not those that were embedded: another matplotlib has others.
    """
    path = data_folder("reference") / "embeddings.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; `snr reference embeddings` measures it")
    about = json.loads(path.with_suffix(".json").read_text())
    images = _kept(load("glyphs", "test"))
    if (list(images.classes), len(images)) != (about["classes"], about["images"]):
        raise ValueError(
            "the stored embeddings are of other characters than matplotlib has here; "
            "`snr reference embeddings` measures them anew"
        )
    with np.load(path) as arrays:
        embeddings = {space: torch.from_numpy(arrays[space]) for space in SPACES}
        settings = {space: about["settings"][space] for space in SPACES}
        distances = {space: distance_of(settings[space], arrays.get(f"{space}_components")) for space in SPACES}
    return Stored(images, embeddings, distances, about)


def _kept(test: LabelledImages) -> LabelledImages:
    return test.of_classes(range(0, len(test.classes), _EVERY))
