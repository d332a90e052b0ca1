"""Which column of a file is what: embeddings, labels, roles, paths, by usual names or by the caller's.

Each of these takes its column out of those that are left, so that the rest is what nothing else wanted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from snrlib.data.embedding_columns import Columns

__all__ = [
    "IMAGES",
    "PATHS",
    "as_classes",
    "as_word",
    "finite_rows",
    "first_rows",
    "is_list_of_names",
    "missing_values",
    "take_column",
    "take_embeddings",
    "take_labels",
    "take_roles",
]

_EMBEDDINGS = (
    "embeddings",
    "embedding",
    "emb",
    "embs",
    "features",
    "feature",
    "feats",
    "feat",
    "vectors",
    "vector",
    "x",
)
_LABELS = ("labels", "label", "target", "targets", "class", "class_name", "category", "species", "identity")
_LABELS_ELSE = ("y", "classes", "class_id", "class_idx", "label_id", "label_name")
PATHS = ("paths", "path", "image_paths", "image_path", "files", "file", "filenames", "filename", "file_name")
IMAGES = ("images", "image", "imgs", "thumbnails")
_ROLES = ("role", "is_query", "query", "split", "subset")
_NO_CLASSES = {*PATHS, *IMAGES, *_ROLES, "", "id", "index", "unnamed: 0", "__index_level_0__"}  # the last by pandas
_CLASS_NAMES = ("classes", "class_names", "names", "label_names", "target_names")
_QUERY = {"query", "queries", "probe", "true", "1"}
_GALLERY = {"gallery", "reference", "database", "index", "false", "0"}
_SHOWN = 5  # row numbers in a message


def _listed(columns: Columns) -> str:
    shown = [f"{name!r} {column.shape[1:] or ''}".rstrip() for name, column in columns.items()]
    return (
        f"the columns are {', '.join(shown[:20])}{', ...' if len(shown) > 20 else ''}" if shown else "no other column"
    )


def first_rows(wrong: NDArray[np.bool_]) -> str:
    """The numbers of the first rows that are wrong."""
    rows = np.flatnonzero(wrong)
    return ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")


def as_word(value: Any) -> str:
    """A value as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def missing_values(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows say nothing: NaN, None, or an empty word."""
    missing = np.asarray(pd.isna(column))
    return missing | (column == "") if column.dtype.kind in "OU" else missing


def finite_rows(matrix: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows hold neither NaN nor an infinity; in blocks, without a second matrix."""
    blocks = range(0, len(matrix), 2**16)
    return np.concatenate([np.isfinite(matrix[start : start + 2**16]).all(axis=1) for start in blocks])


def take_column(
    rest: Columns, named: str | None, usual: Sequence[str], n: int, option: str, fits: Callable[[NDArray[Any]], bool]
) -> NDArray[Any] | None:
    """Take out the column that is named, or the first of the usual ones that fits; None if there is none."""
    if named is None:
        lower = {key.lower(): key for key in rest}
        keys = [lower[name] for name in usual if name in lower]
        key = next((key for key in keys if len(rest[key].shape) and len(rest[key]) == n and fits(rest[key])), None)
        return None if key is None else rest.pop(key)
    _check_named(rest, named, n, option)
    if not fits(rest[named]):
        raise ValueError(f"{option} cannot be {named!r}, which holds {rest[named].dtype} of shape {rest[named].shape}")
    return rest.pop(named)


def _check_named(rest: Columns, named: str, n: int, option: str) -> None:
    if named not in rest:
        raise ValueError(f"there is no column {named!r} for {option}; {_listed(rest)}")
    if rest[named].shape[:1] != (n,):
        raise ValueError(f"{option} must have a value for each of the {n} embeddings; {named!r} is {rest[named].shape}")


def take_embeddings(rest: Columns, named: str | None, path: Path) -> tuple[NDArray[Any], str]:
    """Take them out of the columns: (n, M), and where they stood."""
    families = _families(rest)
    lists = [key for key, column in rest.items() if column.ndim == 2 or _holds_lists(column)]
    usual = [key for key in lists if key.lower() in _EMBEDDINGS or not key]
    if named is not None:
        chosen = [named] if named in rest else []
        family = next((one for one in families if one in (named, f"{named}_")), None) if not chosen else None
        if not chosen and family is None:
            raise ValueError(f"{path.name} has no column {named!r} for embeddings; {_listed(rest)}")
    else:
        floats = [key for key in lists if rest[key].dtype.kind in "fV" or rest[key].ndim == 1]
        chosen = usual or floats
        known = [one for one in families if one.rstrip("_-. ").lower() in (*_EMBEDDINGS, "e", "f", "dim", "")]
        prefixes = [] if chosen else known if len(known) == 1 else [*families]
        if len(chosen) + len(prefixes) != 1:
            said = "more than one column could hold" if chosen or prefixes else "no column holds"
            raise ValueError(
                f"{path.name}: {said} the embeddings, one array or column of lists, or numbered columns; "
                f"{_listed(rest)}; name it with embeddings=NAME (--embeddings NAME)"
            )
        family = prefixes[0] if prefixes else None
    text = path.suffix.lower() in (".csv", ".tsv")
    if family is None:
        matrix = _matrix(rest.pop(chosen[0]), chosen[0] or path.name)
        return (matrix.astype(np.float32) if text else matrix), f"{chosen[0] or path.name!r}, M = {matrix.shape[1]}"
    keys = families[family]
    kinds = [_numbers(rest[key][:1], key).dtype for key in keys]
    matrix = np.empty((len(rest[keys[0]]), len(keys)), dtype=np.float32 if text else np.result_type(*kinds))
    for m, key in enumerate(keys):
        matrix[:, m] = _numbers(rest.pop(key), key)
    return matrix, f"{keys[0]!r} to {keys[-1]!r}, M = {len(keys)}"


def _families(rest: Columns) -> dict[str, list[str]]:
    """Columns with the same beginning and numbers without a gap, in the order of the numbers: at least two."""
    found: dict[str, dict[int, str]] = {}
    for key, column in rest.items():
        if column.ndim == 1 and (match := re.fullmatch(r"(.*?)(\d+)", key)):
            found.setdefault(match[1], {})[int(match[2])] = key
    whole = {one: numbers for one, numbers in found.items() if len(numbers) > 1}
    return {
        one: [numbers[m] for m in sorted(numbers)]
        for one, numbers in whole.items()
        if max(numbers) - min(numbers) == len(numbers) - 1 and min(numbers) in (0, 1)
    }


def _holds_lists(column: NDArray[Any]) -> bool:
    """Lists of unequal lengths, or lists written as text."""
    if column.ndim != 1 or column.dtype != object:
        return False
    first = next((value for value in column if isinstance(value, str | list | np.ndarray)), None)
    return isinstance(first, list | np.ndarray) or (isinstance(first, str) and first.lstrip().startswith("["))


def _matrix(column: NDArray[Any], name: str) -> NDArray[Any]:
    """One array or column of lists as (n, M)."""
    if _holds_lists(column):
        rows = [_row(value, name, number) for number, value in enumerate(column)]
        lengths = Counter(len(row) for row in rows if row is not None)
        (usual, _), *others = lengths.most_common()
        if others:
            wrong = np.array([row is not None and len(row) != usual for row in rows])
            raise ValueError(
                f"{name} holds lists of unequal lengths: {usual} in most rows, another in {wrong.sum():,} of "
                f"{len(rows):,} (counted from 0: {first_rows(wrong)})"
            )
        nothing = np.full(usual, np.nan, dtype=np.float32)
        column = np.stack([nothing if row is None else row for row in rows])
    if column.ndim != 2 or column.shape[1] == 0:
        raise ValueError(f"embeddings must have the shape (n, M), a row for each; {name!r} has {column.shape}")
    return _numbers(column, name)


def _row(value: Any, name: str, number: int) -> NDArray[Any] | None:
    """A list, or one written as text: "[0.5, 1]", "[0.5 1]"; None where there is none."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    try:
        numbers = value.strip().strip("[]").replace(",", " ").split() if isinstance(value, str) else value
        return np.asarray(numbers, dtype=np.float32 if isinstance(value, str) else None)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{name} holds no list of numbers in row {number} (counted from 0): {str(value)[:60]!r}"
        ) from error


def _numbers(column: NDArray[Any], name: str) -> NDArray[Any]:
    """As float32, or float64 if it is that."""
    kind = column.dtype.kind
    if (
        kind == "V" and column.dtype.itemsize == 2 and column.dtype.names is None
    ):  # bfloat16, which numpy has no name for
        return (column.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if kind in "biu" or (kind == "f" and column.dtype.itemsize < 8):
        return column.astype(np.float32, copy=False)
    if kind == "f":
        return column.astype(np.float64, copy=False)
    if kind == "O" and column.ndim == 1:
        numbers = pd.to_numeric(pd.Series(column), errors="coerce")
        wrong = numbers.isna().to_numpy() & ~np.asarray(pd.isna(column))
        if not wrong.any():
            return numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{name!r} should hold numbers, but {wrong.sum():,} of {len(column):,} rows hold something else "
            f"(row {row}, counted from 0: {str(column[row])[:40]!r})"
        )
    raise ValueError(f"{name!r} should hold real numbers, got {column.dtype}")


def is_list_of_names(key: str, column: NDArray[Any], n: int) -> bool:
    """Whether labels are numbers into it: names of classes, not one per row."""
    return key.lower() in _CLASS_NAMES and column.ndim == 1 and len(column) != n and column.dtype.kind in "OUS"


def take_labels(rest: Columns, named: str | None, n: int, path: Path) -> tuple[str, NDArray[Any]]:
    """Take out the column of classes, under its name."""
    if named is None:
        lower = {key.lower(): key for key in rest}
        keys = [lower[name] for name in _LABELS if name in lower] or [
            lower[name] for name in _LABELS_ELSE if name in lower
        ]
        if not keys:  # the only column that can be nothing else
            left = [key for key in rest if key.lower() not in _NO_CLASSES]
            keys = left if len(left) == 1 else []
        said = "more than one column could hold" if keys else "no column has a usual name of"
        if not keys or not _say_the_same([rest[key] for key in keys]):
            raise ValueError(
                f"{path.name}: {said} the labels ({', '.join(keys or _LABELS[:3])}); {_listed(rest)}; name it with "
                "labels=NAME (--labels NAME)"
            )
        named = next((key for key in keys if rest[key].dtype.kind in "OUS"), keys[0])  # words tell more than numbers
    _check_named(rest, named, n, "labels")
    if rest[named].ndim != 1:
        raise ValueError(f"labels must be one number or word per row; {named!r} has the shape {rest[named].shape}")
    return named, rest.pop(named)


def _say_the_same(columns: list[NDArray[Any]]) -> bool:
    """Whether they part the rows alike, as numbers and names of the same classes do."""
    if len(columns) == 1:
        return True
    if len({column.shape for column in columns}) > 1 or columns[0].ndim != 1:
        return False
    codes = np.stack([pd.factorize(pd.Series(column))[0] for column in columns])  # in the order in which they appear
    return bool((codes == codes[0]).all())


def as_classes(given: NDArray[Any], by: str, listed: NDArray[Any] | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The number of each row's class, and the classes' names in order."""
    if given.dtype == object and all(isinstance(value, Integral) for value in given):
        given = given.astype(np.int64)
    if given.dtype.kind == "f":
        wrong = given != np.round(given)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"labels must be whole numbers or words; {by!r} holds {wrong.sum():,} numbers that are not whole "
                f"({given[row]:g})"
            )
        given = given.astype(np.int64)
    if given.dtype.kind in "iu":
        present, numbers = np.unique(given, return_inverse=True)
        if listed is not None and present[0] >= 0 and present[-1] < len(listed):
            return numbers, tuple(as_word(listed[c]) for c in present)
    else:
        words = np.array([as_word(value) for value in given], dtype=str)
        present, numbers = np.unique(words, return_inverse=True)
    return numbers.astype(np.int64), tuple(map(str, present))


def take_roles(rest: Columns, named: str | None, n: int) -> NDArray[np.bool_] | None:
    """Take out the column that tells queries from the gallery; of one that is not named, only if it says no other."""
    keys = [key for key in rest if key.lower() in _ROLES and rest[key].shape == (n,)] if named is None else [named]
    for key in keys:
        if named is not None:
            _check_named(rest, named, n, "role")
        words = np.array([as_word(value).lower().removesuffix(".0") for value in rest[key].ravel()])
        known = np.isin(words, [*_QUERY, *_GALLERY])
        is_query = np.isin(words, [*_QUERY])
        if known.all() and 0 < is_query.sum() < n:
            rest.pop(key)
            return is_query
        if named is not None:
            others = sorted({*words[~known]})[:_SHOWN]
            found = f"also {', '.join(others)}" if others else "the same in every row"
            raise ValueError(f"role must say query or gallery (or True and False) in each row; {named!r} says {found}")
    return None
