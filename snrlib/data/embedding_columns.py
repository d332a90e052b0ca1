"""What stands in a file of embeddings, as named columns: ``.npz``, ``.npy``, CSV, TSV and Parquet, read with care.

Nothing in a file is executed: pickled objects are refused. `snrlib.data.embedding_file` tells what each column is.
"""

from __future__ import annotations

import csv
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from snrlib.utils.memory import check_room

__all__ = ["ENDINGS", "Columns", "read_columns"]

Columns = dict[str, NDArray[Any]]
"""By name: (n,) of numbers, words or lists of unequal lengths, or (n, ...) of numbers."""

ENDINGS: tuple[str, ...] = (".npz", ".npy", ".csv", ".tsv", ".parquet")
"""Of the files that are read."""

_FEWER = "take a part of the rows, or store float16 or float32"
_DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}


def read_columns(path: Path) -> Columns:
    """All columns of a file; the only array of an ``.npy`` is called "".

    Args:
        path: of the file, which ends in one of `ENDINGS`.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged, empty or too large for the memory, holds pickled objects, names a column twice, or
            is of another kind.
    """
    kind = path.suffix.lower()
    if kind not in ENDINGS:
        raise ValueError(f"{path.name} ends in {path.suffix!r}; embeddings are read from {', '.join(ENDINGS)}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; embeddings are read from a file ({', '.join(ENDINGS)})")
    if path.stat().st_size == 0:  # an error of its own where it is not there
        raise ValueError(f"{path.name} is empty: it has no bytes")
    try:
        if kind in (".npz", ".npy"):
            return _arrays(path)
        return _parquet(path) if kind == ".parquet" else _text(path, _DELIMITERS[kind])
    except _RefusedError:
        raise
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name} is not written in UTF-8 (byte {error.object[error.start]:#04x}): save it anew as UTF-8, "
            'which spreadsheets call "CSV UTF-8"'
        ) from error
    except (
        *(ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error, csv.Error),
        *(pa.ArrowException, pd.errors.ParserError, OverflowError, SyntaxError, OSError, MemoryError),
    ) as error:  # whatever a damaged file makes its reader raise
        reason = " ".join(str(error).split())
        raise ValueError(f"{path.name} cannot be read as {kind}: {reason[:300] or type(error).__name__}") from error


class _RefusedError(ValueError):
    """What is wrong is known, and said."""


def _arrays(path: Path) -> Columns:
    """Of ``.npz`` and ``.npy``, each array after its header has told how large it is."""
    found: Columns = {}
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            _check_header(file, path.name, "")
            file.seek(0)
            return {"": np.lib.format.read_array(file, allow_pickle=False)}
        with zipfile.ZipFile(file) as archive:
            needed = sum(member.file_size for member in archive.infolist())
            _check_room(needed, path.name)
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in found:
                    raise _RefusedError(f"{path.name} holds two arrays with the name {name!r}; each needs its own")
                with archive.open(member) as part:
                    _check_header(part, path.name, name)
                with archive.open(member) as part:
                    found[name] = np.lib.format.read_array(part, allow_pickle=False)
    return found


def _check_header(file: Any, name: str, array: str) -> None:
    """Refuse an array of objects, which would have to be unpickled, and one that is too large."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        called = f"the array {array!r} of {name}" if array else name
        raise _RefusedError(
            f"{called} holds pickled Python objects, which are not read, since they could run any program: store "
            "numbers as numbers and words with dtype=str"
        )
    _check_room(float(np.prod(shape, dtype=float)) * dtype.itemsize, name)


def _check_room(needed: float, name: str) -> None:
    try:
        check_room(needed, f"reading {name}", _FEWER)
    except ValueError as error:
        raise _RefusedError(str(error)) from None


def _parquet(path: Path) -> Columns:
    file = pq.ParquetFile(path, memory_map=True)
    groups = range(file.metadata.num_row_groups)
    _check_room(2.0 * sum(file.metadata.row_group(group).total_byte_size for group in groups), path.name)
    _check_names(file.schema_arrow.names, path.name)
    table = file.read()
    return {name: _arrow_column(table.column(name).combine_chunks()) for name in table.column_names}


def _arrow_column(column: Any) -> NDArray[Any]:
    """A list column of equal lengths as one matrix; any other as pandas has it."""
    if isinstance(column, pa.ChunkedArray):  # of no chunk, or of more than one array can hold
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if lists and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        lengths = np.unique(np.asarray(column.value_lengths().fill_null(-1)))
        if len(lengths) == 1 and lengths[0] > 0:
            return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), lengths[0])
    return np.asarray(column.to_pandas().to_numpy())


def _text(path: Path, delimiters: str) -> Columns:
    # pandas holds numbers in eight bytes, twice while it reads; a number takes some ten characters.
    _check_room(1.6 * path.stat().st_size, path.name)
    with open(path, encoding="utf-8-sig", newline="") as file:
        first = file.readline()
    delimiter = max(delimiters, key=first.count)
    names = next(csv.reader([first], delimiter=delimiter), [])
    if not "".join(names).strip():
        raise _RefusedError(f"{path.name} begins with an empty line, where the names of its columns should stand")
    _check_names(names, path.name)
    numbers = [
        name for name in names if re.fullmatch(r"[-+]?\d*\.\d+(e[-+]?\d+)?|[-+]?\d+e[-+]?\d+", name.strip(), re.I)
    ]
    if numbers:
        raise _RefusedError(
            f"{path.name} has numbers in its first row ({numbers[0]}, ...), where the names of its columns should stand"
        )
    table = pd.read_csv(path, sep=delimiter, encoding="utf-8-sig", low_memory=False, index_col=False)
    return {str(name): np.asarray(table[name].to_numpy()) for name in table.columns}


def _check_names(names: list[str], file: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise _RefusedError(f"{file} gives the same name to more than one column ({', '.join(twice[:5])}): rename them")
