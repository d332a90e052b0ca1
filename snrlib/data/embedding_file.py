"""Embeddings that somebody has in a file, with labels and whatever else stands beside them.

Columns are found by the names that people usually give them, or named by the caller; where it cannot be told, the error
lists what there is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from snrlib.data.embedding_columns import read_columns
from snrlib.data.embedding_roles import (
    IMAGES,
    PATHS,
    as_classes,
    as_word,
    finite_rows,
    first_rows,
    is_list_of_names,
    missing_values,
    take_column,
    take_embeddings,
    take_labels,
    take_roles,
)
from snrlib.utils.checks import check_embeddings

__all__ = ["EmbeddingFile", "read_embeddings"]


@dataclass(frozen=True, eq=False)
class EmbeddingFile:
    """What `read_embeddings` found: n embeddings, and what is known of each.

    Attributes:
        name: of the file.
        embeddings: (n, M), float32, or float64 if the file has that.
        labels: (n,), int64, the number of each one's class.
        classes: the classes' names, in order; every class has a row.
        columns: n rows of all other columns, numbers and words.
        paths: of images.
        images: (n, height, width) or (n, height, width, channels), where the file holds them.
        is_query: which rows are queries against the others, the gallery; None: every row is searched among all others.
        notes: what a reader must know of how it was read, a sentence each.
    """

    name: str
    embeddings: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    columns: pd.DataFrame
    paths: tuple[str, ...] | None = None
    images: NDArray[Any] | None = None
    is_query: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.embeddings)

    def __repr__(self) -> str:
        roles = "" if self.is_query is None else f", {int(self.is_query.sum())} of them queries"
        M = self.embeddings.shape[1]
        return f"EmbeddingFile({self.name}: {len(self)} embeddings of {len(self.classes)} classes, M = {M}{roles})"

    def rows(self, kept: NDArray[Any]) -> EmbeddingFile:
        """These rows alone, with the classes that are left numbered anew.

        Args:
            kept: row numbers, or (n,) of True and False.
        """
        rows = torch.from_numpy(np.arange(len(self))[kept])
        present, labels = self.labels[rows].unique(return_inverse=True)
        return replace(
            self,
            embeddings=self.embeddings[rows],
            labels=labels,
            classes=tuple(self.classes[c] for c in present.tolist()),
            columns=self.columns.iloc[rows.numpy()].reset_index(drop=True),
            paths=None if self.paths is None else tuple(self.paths[row] for row in rows.tolist()),
            images=None if self.images is None else self.images[rows.numpy()],
            is_query=None if self.is_query is None else self.is_query[rows.numpy()],
        )


def read_embeddings(
    path: str | Path,
    *,
    embeddings: str | None = None,
    labels: str | None = None,
    paths: str | None = None,
    role: str | None = None,
    labels_from: str | Path | None = None,
    drop_bad: bool = False,
) -> EmbeddingFile:
    """Read ``.npz``, ``.npy`` with a table beside it, CSV, TSV or Parquet.

    Embeddings are one array, one column of lists, or numbered columns (e0, e1, ...; emb_0, ...; 0, 1, ...). Half
    precision and whole numbers become float32, as do the numbers of a text; float64 stays.

    Args:
        path: of the file.
        embeddings: name of their column, or what stands before the numbers of their columns; None finds it.
        labels: name of the column of classes, whole numbers or words; None finds it.
        paths: name of the column with paths of images; None finds it, if there is one.
        role: name of the column that says "query" or "gallery", or True and False; None finds it, if there is one.
        labels_from: a file with the labels and other columns, row for row; None takes, for an ``.npy``, the CSV, TSV or
            Parquet of the same name beside it.
        drop_bad: leave out rows without a label, or with a NaN or an infinity, instead of refusing them.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: damaged, empty or too large; no embeddings or labels, or more than one column that could hold them;
            columns of unequal lengths; rows that are not finite or have no label.

    Example: ``read_embeddings("birds.parquet").embeddings``
    """
    path = Path(path)
    rest = read_columns(path)
    matrix, used = take_embeddings(rest, embeddings, path)
    n = len(matrix)
    if n == 0:
        raise ValueError(f"{path.name} has columns and no rows")
    beside = _beside(path) if labels_from is None else Path(labels_from)
    if beside is not None:
        rest |= {name: column for name, column in read_columns(beside).items() if name not in rest}
    listed = next((rest.pop(key) for key in [*rest] if is_list_of_names(key, rest[key], n)), None)
    by, given = take_labels(rest, labels, n, beside or path)
    is_query = take_roles(rest, role, n)
    where = take_column(rest, paths, PATHS, n, "paths", lambda column: column.dtype.kind in "OUS")
    images = take_column(rest, None, IMAGES, n, "images", lambda column: column.ndim in (3, 4))
    columns = {key: rest.pop(key) for key in [*rest] if rest[key].shape == (n,)}
    missing = missing_values(given)
    bad = ~finite_rows(matrix) | missing
    what = "NaN, an infinity or no label" if missing.any() else "NaN or an infinity"
    if bad.any() and not drop_bad:
        raise ValueError(
            f"{path.name} has {what} in {bad.sum():,} of {n:,} rows (counted from 0: {first_rows(bad)}); "
            "leave them out with drop_bad=True (--drop-bad)"
        )
    if bad.all():
        raise ValueError(f"{path.name} has {what} in every one of its {n:,} rows: nothing is left")
    numbers, classes = as_classes(given[~missing], by, listed)
    codes = np.zeros(n, dtype=np.int64)
    codes[~missing] = numbers
    notes = [f"Embeddings are {used}, classes {by!r}."]
    notes += [f"Not used: {', '.join(map(repr, rest))}, which hold no value for each row."] if rest else []
    notes += [f"Left out: {bad.sum():,} of {n:,} rows with {what}."] if bad.any() else []
    read = EmbeddingFile(
        path.name,
        torch.from_numpy(matrix if matrix.flags.writeable else matrix.copy()),
        torch.from_numpy(codes),
        classes,
        pd.DataFrame(columns, index=range(n)),
        None if where is None else tuple(map(as_word, where)),
        images,
        is_query,
        tuple(notes),
    )
    read = read.rows(~bad) if bad.any() else read
    check_embeddings(read.embeddings, f"the embeddings of {path.name}")
    return read


def _beside(path: Path) -> Path | None:
    """The table of the same name beside an ``.npy``."""
    if path.suffix.lower() != ".npy":
        return None
    found = next((one for end in (".csv", ".tsv", ".parquet") if (one := path.with_suffix(end)).exists()), None)
    if found is None:
        raise ValueError(
            f"{path.name} holds no labels, and no {path.stem}.csv, .tsv or .parquet stands beside it: name a file with "
            "labels_from (--labels-from)"
        )
    return found
