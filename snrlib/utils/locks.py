"""One process at a time writes into a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["one_at_a_time"]


@contextmanager
def one_at_a_time(folder: Path, wait: bool, beside: bool = False) -> Iterator[None]:
    """Keep other processes out of a folder; the lock ends with its process, however that ends.

    It is a hidden file, which goes with the lock; that of a killed process is taken over and goes with the next.

    Args:
        folder: to write into; it is made if it is not there.
        wait: if another process writes there, wait for it instead of refusing.
        beside: put the file beside the folder, which is itself replaced and need not be there.

    Raises:
        FileExistsError: another process writes there, and ``wait`` is False.
        OSError: the folder cannot be made or written.
    """
    path = folder.with_name(f".{folder.name}.lock") if beside else folder / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise FileExistsError(f"another run is writing into {folder}; wait for it, or choose another folder") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # still held: a process that waits sees that the file is gone, and makes its own
        lock.release()
