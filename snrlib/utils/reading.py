"""Files that somebody may have damaged: read whole, or refused by name with what to do."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_json", "read_npz"]


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        path: of the file.
        cure: what to do if it is damaged, the end of a sentence.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it cannot be read, is no JSON, or holds something else than an object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"{path} is damaged: {error}; {cure}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds a {type(found).__name__} instead of an object; {cure}")
    return found


def read_npz(path: Path, cure: str, *keys: str) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file; nothing in it is executed.

    Args:
        path: of the file.
        cure: what to do if it is damaged, the end of a sentence.
        *keys: names of arrays that it must hold.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it cannot be read, is no such file, holds pickled objects, or lacks an array.
    """
    try:
        with open(path, "rb") as file:  # an error of its own where it is not there
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise ValueError("it is no .npz")
            arrays = {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}; {cure}") from error
    if missing := [key for key in keys if key not in arrays]:
        raise ValueError(f"{path} is damaged: it holds no {' and no '.join(missing)}; {cure}")
    return arrays
