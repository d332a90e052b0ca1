"""Embeddings stored with the study, so that they can be looked at without any training.

``snr measure embeddings`` measures; ``data/reference/embeddings.npz`` and ``embeddings.json`` hold what came out: the
same images of characters, of classes that no training saw, in the space of a network before it was trained and after it
was trained under each of three distances.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snrlib.data import ImageFiles, LabelledImages, load
from snrlib.data.embedding_file import EmbeddingFile, read_embeddings
from snrlib.distances import Distance, LinearMap, get_distance
from snrlib.experiment import default_settings, distance_of, experiment, images_of, read_run, untrained
from snrlib.explore.items import Items, items_of
from snrlib.explore.maps import Map, tsne
from snrlib.study import stored
from snrlib.study.tuned import tuned
from snrlib.utils.files import data_folder
from snrlib.utils.provenance import provenance

__all__ = [
    "FILE_DISTANCES",
    "SPACES",
    "Stored",
    "file_embeddings",
    "measure_embeddings",
    "run_embeddings",
    "stored_embeddings",
]

SPACES: tuple[str, ...] = ("untrained", "euclidean", "snr", "relative_mahalanobis")
"""Before training, and after it under each of these distances."""
FILE_DISTANCES: tuple[str, ...] = ("euclidean", "cosine", "snr")
"""Under which a file of embeddings is seen, where none are named."""
_SETTINGS: dict[str, Any] = {"data": "glyphs", "backbone": "conv4", "loss": "triplet", "steps": 150}
_SETTINGS |= {"precision": "float32"}
_WORDS = {"euclidean": "Euclid", "snr": "SNR", "relative_mahalanobis": "relative Mahalanobis"}
_TOLD = ("backbone", "loss", "distance", "seed", "root")
_MOST = 8  # maps of a page
_EVERY = 8  # of the test classes that are kept, so that a map can be read


@dataclass(frozen=True, eq=False)
class Stored:
    """The same images in several spaces.

    Attributes:
        images: of the characters, with their labels and classes.
        embeddings: (n, M) of each space.
        distances: the distance of each: that of its training, and Euclid's of an untrained network.
        titles: of each space, for its map.
        about: where they come from.
    """

    images: LabelledImages | ImageFiles | Items
    embeddings: dict[str, Tensor]
    distances: dict[str, Distance]
    titles: dict[str, str]
    about: dict[str, Any]

    def maps(self, **options: Any) -> list[Map]:
        """A map of each space under its training distance; ``options`` are those of `snrlib.explore.tsne`."""
        labels = self.images.labels
        return [
            tsne(x, labels, self.distances[name], title=self.titles[name], **options)
            for name, x in self.embeddings.items()
        ]

    def __repr__(self) -> str:
        return f"Stored({len(self.images)} images of {len(self.images.classes)} classes; {', '.join(self.embeddings)})"


def measure_embeddings() -> Path:
    """Train with the tuned margin and learning rate of each distance, and store the embeddings of every eighth class.

    Returns:
        The path of ``embeddings.npz``.
    """
    arrays: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for space in SPACES:
        name = "euclidean" if space == "untrained" else space
        usual = default_settings(**_SETTINGS, distance=name)
        found: dict[str, Any] = tuned("glyphs", "conv4", "triplet", name, usual.map, embedding_size=64)
        settings = default_settings(**_SETTINGS, distance=name, **found)
        done = untrained(settings) if space == "untrained" else experiment(settings)
        arrays[space] = done.embeddings[done.test.labels % _EVERY == 0].numpy()
        if isinstance(done.distance.map, LinearMap):
            arrays[f"{space}_components"] = done.distance.map.components.numpy()
        about[space] = asdict(settings)
    kept = _kept(load("glyphs", "test"))
    row: dict[str, Any] = {
        "what": "embeddings of test images of every eighth class",
        "settings": about,
        "data": done.fingerprints,
    }
    row |= {"images": len(kept), "characters": _digest(kept)}
    return stored.write_arrays("embeddings", arrays, row | provenance())


def stored_embeddings() -> Stored:
    """Read them, and draw the images they belong to.

    Raises:
        FileNotFoundError: they are not there; the message says what makes them.
        ValueError: the characters are not those that were embedded: another matplotlib has others.
    """
    arrays, about = stored.read_arrays("embeddings"), stored.read_about("embeddings")
    images = _kept(load("glyphs", "test"))
    embeddings, distances = {}, {}
    with stored.taken_apart(data_folder("reference") / "embeddings.json"):
        if (len(images), _digest(images)) != (about["images"], about["characters"]):
            raise ValueError(
                "the stored embeddings are of other characters than matplotlib has here; "
                "`snr measure embeddings` measures them anew"
            )
        for space in SPACES:
            made = about["settings"][space]
            chosen = {key: made[key] for key in ("distance", "map", "anchor", "normalize_embeddings")}
            chosen["map"] = chosen["map"] or None  # "" in files of earlier editions
            embeddings[space] = torch.from_numpy(arrays[space])
            distances[space] = distance_of(default_settings(**chosen), arrays.get(f"{space}_components"))
    titles = {space: f"trained under {_WORDS.get(space, space)}" for space in SPACES} | {"untrained": "before training"}
    return Stored(images, embeddings, distances, titles, about)


def run_embeddings(folders: Sequence[str | Path]) -> Stored:
    """Read the test embeddings of runs of notebook 07, and load the images they belong to.

    Args:
        folders: one or more, each with ``result.json`` and ``embeddings.npz``; all of one data set.

    Raises:
        FileNotFoundError: a folder holds no run.
        ValueError: no folder, runs of several data sets, or other images than are there now.
    """
    embeddings, distances, every, images = {}, {}, {}, None
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        name = str(folder)  # two folders may end alike
        result = folder / "result.json"
        if not result.exists():
            raise FileNotFoundError(f"{folder} holds no run of notebook 07: {result.name} is not there")
        done = read_run(result)
        if images is None:
            images = images_of(done.settings, "test")
        if not torch.equal(images.labels, done.labels):
            raise ValueError(f"{folder} is of other images than {images.name}; all runs must be of the same")
        embeddings[name], distances[name], every[name] = done.embeddings, done.distance, asdict(done.settings)
    if images is None:
        raise ValueError("at least one folder of a run must be named")
    return Stored(images, embeddings, distances, _titles(every), {"settings": every})


def file_embeddings(
    files: Sequence[str | Path],
    distances: Sequence[str] | None = None,
    images: str | Path | None = None,
    rows: int | None = None,
    **reading: Any,
) -> Stored:
    """Read files of embeddings, each of which is seen under every distance.

    Args:
        files: one or more, of the same things row for row.
        distances: names in `snrlib.distances.DISTANCES`; None is `FILE_DISTANCES`.
        images: the folder of their images, to which the paths in the first file are relative; None has those in the
            file, if there are any.
        rows: how many are drawn at random (seed 0), where there are more; None takes all.
        reading: options of `snrlib.data.embedding_file.read_embeddings`.

    Raises:
        OSError, ValueError: a file or folder that cannot be read; files of other rows; an unknown distance; more than
            eight maps.
    """
    names = list(dict.fromkeys(FILE_DISTANCES if distances is None else distances))
    chosen = {name: get_distance(name) for name in names}
    places = list(dict.fromkeys(Path(file).resolve() for file in files))
    if len(places) * len(names) > _MOST:
        raise ValueError(
            f"{len(places)} files under {len(names)} distances are {len(places) * len(names)} maps, and a page has at "
            f"most {_MOST}: name fewer, or fewer distances (--distance)"
        )
    first, embeddings, titles = None, {}, {}
    for place in places:
        read = _drawn(read_embeddings(place, **reading), rows)
        first = read if first is None else first
        if read.classes != first.classes or not torch.equal(read.labels, first.labels):
            raise ValueError(
                f"{read.name} has other rows than {first.name}; all files must be of the same, in one order"
            )
        for name in names:
            embeddings[f"{place}: {name}"] = read.embeddings
            words = _WORDS.get(name, name.replace("_", " "))
            titles[f"{place}: {name}"] = words if len(places) == 1 else f"{place.stem}: {words}"
    if first is None:
        raise ValueError("at least one file of embeddings must be named")
    under = {key: chosen[key.rpartition(": ")[2]] for key in embeddings}
    return Stored(items_of(first, images), embeddings, under, titles, {})


def _drawn(file: EmbeddingFile, rows: int | None) -> EmbeddingFile:
    """So many rows of a file, the same of every file as long, in their order and with their numbers."""
    n = len(file)
    if rows is None or n <= rows:
        return file
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:rows].sort().values.numpy()
    drawn = file.rows(chosen)
    free = "row" if "row" not in drawn.columns else "row of the file"
    note = f"Drawn at random: {rows:,} of {n:,} rows."
    return replace(drawn, columns=drawn.columns.assign(**{free: chosen}), notes=(*drawn.notes, note))


def _titles(every: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """A heading for each run, from its settings: the usual ones, and all that tell it from the others.

    Runs that no setting tells apart have the last parts of their folders.
    """
    runs = list(every.values())
    differing = [key for key in runs[0] if any(run[key] != runs[0][key] for run in runs) and key not in _TOLD]
    titles = {
        name: ", ".join(
            [
                "{backbone}, {loss}, {distance}, seed {seed}".format(**run),
                *(f"{key} {_shown(run[key])}" for key in differing),
            ]
        )
        for name, run in every.items()
    }
    count = Counter(titles.values())
    ends = {name: f", {'/'.join(Path(name).parts[-2:])}" for name in every}
    return {name: title + (ends[name] if count[title] > 1 else "") for name, title in titles.items()}


def _shown(value: Any) -> Any:
    """A setting; of a path its last part."""
    return Path(value).name if isinstance(value, str) else value


def _digest(images: LabelledImages) -> str:
    """Of the classes' names, in order."""
    return hashlib.sha256("\n".join(images.classes).encode()).hexdigest()[:16]


def _kept(test: LabelledImages) -> LabelledImages:
    return test.of_classes(range(0, len(test.classes), _EVERY))
