"""One process at a time writes into a folder, and one study at a time works in it, on whichever machine."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from snrlib.utils.files import write_json

__all__ = ["one_at_a_time", "one_study_at_a_time"]

_BEAT_S = 5.0
_MISSED = 6  # beats, after which whoever should give them is gone
_WHO = {"process", "host", "since"}


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
        _remove(path)  # still held: a process that waits sees that the file is gone, and makes its own
        lock.release()


@contextmanager
def one_study_at_a_time(folder: Path) -> Iterator[None]:
    """Wait, in words, until no other study works in a folder, and keep others out; it ends with its process.

    On some network file systems a lock does not reach other machines. So whoever works there also leaves a note, which
    says who that is and since when, and renews it as long as it lives: a note of another machine counts while it goes
    on changing, whatever the clocks of the two say.

    Raises:
        OSError: the folder cannot be written.
    """
    lock, note = FileLock(folder / ".study.lock"), folder / ".study.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another study is at work in {folder}{_who(_read(note))}; this one waits for it to end.", flush=True)
        lock.acquire()
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(note, over), daemon=True)
    try:
        _wait_for_other_machines(folder, note)
        beating.start()
        yield
    finally:
        over.set()
        if beating.ident:
            beating.join()
            note.unlink(missing_ok=True)
        _remove(Path(lock.lock_file))  # still held, as above
        lock.release()


def _remove(path: Path) -> None:
    with suppress(PermissionError):  # Windows removes no file that is open; there the release does
        path.unlink(missing_ok=True)


def _wait_for_other_machines(folder: Path, note: Path) -> None:
    """Until the note of another machine, if there is one, is gone or does not change any more."""
    said = False
    while (first := _read(note)) and first.get("host") != socket.gethostname():
        if not said:
            print(
                f"A study of another machine may be at work in {folder}{_who(first)}; this one waits for it to end, "
                f"or for {_BEAT_S * _MISSED:.0f} s without a sign of it.",
                flush=True,
            )
        said = True
        limit = time.monotonic() + _BEAT_S * _MISSED
        while (now := _read(note)) == first:
            if time.monotonic() > limit:
                return
            time.sleep(_BEAT_S / 5)
        first = now


def _beat(note: Path, over: threading.Event) -> None:
    """Renew the note until then."""
    mine = {"host": socket.gethostname(), "process": os.getpid(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
    beats = 0
    while not over.is_set():
        with suppress(OSError):  # on a full disk; whoever holds the lock works on
            write_json(note, {**mine, "beat": beats})
        beats += 1
        over.wait(_BEAT_S)


def _read(note: Path) -> dict[str, Any]:
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _who(note: dict[str, Any]) -> str:
    return " (process {process} on {host}, since {since})".format(**note) if note.keys() >= _WHO else ""
