"""Maps as a Parquet table, for the viewers of embeddings that people have already.

Column names and forms are those that ``embedding-atlas`` reads: the places of a map are two columns, its neighbours one
of ``{ids, distances}`` with row numbers from 0, and images one of ``{bytes, path}`` as in data sets of Hugging Face.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from snrlib.data import ImageFiles, LabelledImages
from snrlib.explore.items import Items, thumbnails
from snrlib.explore.maps import Map
from snrlib.utils.files import write_atomically

__all__ = ["atlas_names", "check_atlas", "export_atlas"]

_OURS = {b"generator": b"snrlib"}
_ROWS = 5000  # written at a time, so that few pictures are in memory
_SIDE = 128  # of the pictures, in pixels


def export_atlas(maps: Sequence[Map], images: LabelledImages | ImageFiles | Items, path: str | Path) -> Path:
    """Write maps, neighbours, classes, other columns and small images as one Parquet table, whole or not at all.

    Of each map it has the columns ``x_NAME``, ``y_NAME``, ``neighbors_NAME`` and ``right_NAME`` (whether the nearest
    neighbour is of the same class), with the names of `atlas_names`; beside them ``class``, the columns of
    ``images.factors`` and, if there are images, ``image``, at most 128 pixels wide, as WebP.

    Args:
        maps: of the same n images in the same order.
        images: the n images, as `snrlib.explore.inspect` takes them.
        path: of the file, which ends in ``.parquet``.

    Raises:
        ValueError: another ending, or maps and images that do not have the same length.
        FileExistsError: something stands there that this function did not write.
        OSError: it cannot be written; what was there before is as it was.
    """
    path = Path(path)
    check_atlas(path)
    if wrong := sorted({len(one.points) for one in maps} - {len(images)}):
        raise ValueError(f"maps must be of the {len(images)} images given, got maps of {wrong[0]} points")
    columns: dict[str, Any] = {}
    for name, one in atlas_names(maps).items():
        near = pa.StructArray.from_arrays([_lists(one.neighbours), _lists(one.distances)], ["ids", "distances"])
        x, y = one.points.T
        columns |= {f"x_{name}": pa.array(x.copy()), f"y_{name}": pa.array(y.copy()), f"neighbors_{name}": near}
        columns[f"right_{name}"] = pa.array(one.hits[:, 0].copy())
    columns["class"] = pa.DictionaryArray.from_arrays(images.labels.numpy(), list(images.classes)).dictionary_decode()
    has_pictures = not isinstance(images, Items) or images.has_pictures
    for key, values in images.factors.items():
        free = str(key)
        while free in columns or free == "image":
            free += "_"
        columns[free] = _plain(values)
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([(name, column.type) for name, column in columns.items()])
    schema = (schema.append(pa.field("image", picture)) if has_pictures else schema).with_metadata(_OURS)

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for start in range(0, len(images), _ROWS):
                rows = range(start, min(start + _ROWS, len(images)))
                part = [column.slice(start, len(rows)) for column in columns.values()]
                if has_pictures:
                    part.append(pa.array(_pictures(images, rows), picture))
                writer.write_table(pa.Table.from_arrays(part, schema=schema))

    write_atomically(path, write)
    return path


def atlas_names(maps: Sequence[Map]) -> dict[str, Map]:
    """Each map by what stands behind ``x_``, ``y_`` and ``neighbors_`` in its columns: its title in plain letters."""
    names: dict[str, Map] = {}
    for number, one in enumerate(maps):
        plain = re.sub(r"[^a-z0-9]+", "_", one.title.lower()).strip("_") or "map"
        names[plain if plain not in names else f"{plain}_{number}"] = one
    return names


def check_atlas(path: str | Path) -> None:
    """Refuse a place where a table cannot be put: of another ending, or taken by a file that is not of this study.

    Raises:
        ValueError: the path does not end in ``.parquet``.
        FileExistsError: something else stands there.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise ValueError(f"maps are exported as .parquet, got {str(path)!r}")
    if not path.exists():
        return
    try:
        ours = (pq.read_schema(path).metadata or {}).items() >= _OURS.items()
    except (OSError, pa.ArrowException):
        ours = False
    if not ours:
        raise FileExistsError(f"{path} exists and is no export of this study; move it away, or name another file")


def _lists(rows: NDArray) -> pa.ListArray:
    n, k = rows.shape
    return pa.ListArray.from_arrays(np.arange(0, n * k + 1, k, dtype=np.int32), np.ascontiguousarray(rows).ravel())


def _plain(values: pd.Series) -> pa.Array:
    """As Arrow holds it; what it cannot hold, such as words and numbers mixed, as words."""
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError):
        return pa.array(values.astype("string"), from_pandas=True)


def _pictures(images: LabelledImages | ImageFiles | Items, rows: Sequence[int]) -> list[dict[str, Any] | None]:
    files = images.files if isinstance(images, Items) else ()
    return [
        {"bytes": base64.b64decode(text.partition(",")[2]), "path": _name(files[row]) if files else None}
        if text
        else None
        for row, text in zip(rows, thumbnails(images, _SIDE, rows), strict=True)
    ]


def _name(file: Path | None) -> str | None:
    return file.name if file else None
