"""Arrays that are costly to make and kept in ``data/cache``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import DTypeLike, NDArray

from snrlib.utils.files import data_folder, write_atomically

__all__ = ["cached_array", "cached_arrays"]

Arrays = Mapping[str, NDArray]


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

    def damage(arrays: Arrays) -> str:
        array = arrays["array"]
        return "" if array.shape == shape and array.dtype == dtype else f"it holds {array.dtype} {array.shape}"

    return cached_arrays(name, lambda: {"array": compute()}, damage, what=what)["array"]


def cached_arrays(
    name: str, compute: Callable[[], Arrays], damage: Callable[[Arrays], str] = lambda _: "", *, what: str
) -> Arrays:
    """Several arrays by name, as `cached_array` keeps one.

    Args:
        name: as there.
        compute: makes the arrays.
        damage: what is wrong with arrays that were read, in words; "" if nothing is.
        what: as there.
    """
    path = data_folder("cache") / f"{name}.npz"
    try:
        with open(path, "rb") as file, np.load(file) as stored:  # a zip file checks its own bytes (CRC)
            arrays = dict(stored)
        wrong = damage(arrays)
        if not wrong:
            return arrays
    except (FileNotFoundError, NotADirectoryError):
        wrong = ""
    except Exception as error:  # whatever a damaged file makes the reader raise
        wrong = str(error)
    if wrong:
        warnings.warn(f"the cache file {path} is damaged ({wrong}); the {what} are made anew", stacklevel=3)
    made = dict(compute())
    try:
        write_atomically(path, lambda temporary: np.savez_compressed(temporary, allow_pickle=False, **made))
    except OSError as error:
        place = f"{path.parent} ({error.strerror})"
        warnings.warn(
            f"the {what} cannot be cached in {place} and are made anew each time; SNR_CACHE=FOLDER is another place",
            stacklevel=3,
        )
    return made
