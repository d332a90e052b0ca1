"""Arrays that are costly to make and kept in ``data/cache``."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from snrlib.utils.files import data_folder, write_atomically

__all__ = ["cached_array"]


def cached_array(
    name: str, shape: tuple[int, ...], dtype: DTypeLike, compute: Callable[[], NDArray], *, what: str
) -> NDArray:
    """The array of ``data/cache/NAME.npz``, or computed and put there.

    A cache costs time when it fails, never the work: a damaged file and a folder that cannot be written are warnings.

    Args:
        name: of the file, with a digest of all that decides the array.
        shape: of the array; a file that holds another is damaged.
        dtype: likewise.
        compute: makes the array.
        what: it is, in the plural, for the warnings.
    """
    path = data_folder("cache") / f"{name}.npz"
    try:
        with open(path, "rb") as file, np.load(file) as stored:  # a zip file checks its own bytes (CRC)
            array = stored["array"]
        if array.shape == shape and array.dtype == dtype:
            return array
        damage = f"it holds {array.dtype} {array.shape}"
    except (FileNotFoundError, NotADirectoryError):
        damage = ""
    except Exception as error:  # whatever a damaged file makes the reader raise
        damage = str(error)
    if damage:
        warnings.warn(f"the cache file {path} is damaged ({damage}); the {what} are made anew", stacklevel=3)
    array = compute()
    try:
        write_atomically(path, lambda temporary: np.savez_compressed(temporary, array=array))
    except OSError as error:
        place = f"{path.parent} ({error.strerror})"
        warnings.warn(
            f"the {what} cannot be cached in {place} and are made anew each time; SNR_CACHE=FOLDER is another place",
            stacklevel=3,
        )
    return array
