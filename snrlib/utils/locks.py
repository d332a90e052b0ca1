"""One process at a time writes into a folder."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["one_at_a_time"]


@contextmanager
def one_at_a_time(folder: Path, wait: bool) -> Iterator[None]:
    """One process at a time writes into a folder; the lock ends with its process, however that ends.

    Raises:
        FileExistsError: another one does, and ``wait`` is False.
    """
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir()) / f"snr-{digest}.lock")
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise FileExistsError(f"another run is writing into {folder}; wait for it, or choose another folder") from None
    try:
        yield
    finally:
        lock.release()
