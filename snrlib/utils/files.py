"""Where the study's files live, and how one is written: whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from glob import escape
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    import pandas as pd  # slow to import, and `snr` starts with this module

__all__ = [
    "check_page",
    "data_folder",
    "digest",
    "identified",
    "json_text",
    "make_readable",
    "partial_prefix",
    "resolve_places",
    "study_root",
    "without_private",
    "write_atomically",
    "write_json",
    "write_table",
    "write_text",
]


_DEAD_S = 24 * 3600.0  # on Windows

GENERATOR = '<meta name="generator" content="snrlib">'
"""Stands at the top of every page that explores something: such a page is replaced by the next."""


def study_root() -> Path:
    """The folder that holds ``notebooks`` and ``data``: ``SNR_ROOT``, else the checkout of this package, else here."""
    if chosen := os.environ.get("SNR_ROOT"):
        return Path(chosen).expanduser().resolve()
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def data_folder(kind: str) -> Path:
    """``data/<kind>`` of the study; ``SNR_CACHE`` and ``SNR_RUNS`` move ``cache`` and ``runs`` elsewhere."""
    if kind in ("cache", "runs") and (chosen := os.environ.get(f"SNR_{kind.upper()}")):
        return Path(chosen).expanduser().resolve()
    return study_root() / "data" / kind


def resolve_places() -> None:
    """Make ``SNR_ROOT``, ``SNR_CACHE`` and ``SNR_RUNS`` mean what they mean here in processes that work elsewhere."""
    for name in ("SNR_ROOT", "SNR_CACHE", "SNR_RUNS"):
        if place := os.environ.get(name):
            os.environ[name] = str(Path(place).expanduser().resolve())


def without_private(text: str, paths: Iterable[str] = ()) -> str:
    """A text to share: it names no place of this machine, home folder or user.

    Of the given paths and of the folders that variables of the environment name the last part is left, of what is in
    the study's folder the path from there, of what is in the home folder the path from ``~``.

    >>> without_private("made of /srv/alice/photos/1.jpg", ["/srv/alice/photos"])
    'made of photos/1.jpg'
    """
    named = [Path(path).expanduser() for path in paths]
    for variable in ("SNR_ROOT", "SNR_DATA", "SNR_RUNS", "SNR_CACHE"):
        if place := os.environ.get(variable):
            named.append(Path(place).expanduser())
    names = {path: path.name for one in named if one.is_absolute() for path in (one, one.resolve())}
    names |= {study_root(): ".", Path.home(): "~"}
    known = {spelling: name for path, name in names.items() for spelling in _spellings(path)}
    places = "|".join(re.escape(place) for place in sorted(known.keys() - {"/", "."}, key=len, reverse=True))
    return re.sub(rf"(?<![\w/+])({places})(?![\w+=-])", lambda match: known[match[0]], text)  # not in a base64 picture


def _spellings(path: PurePath) -> set[str]:
    r"""How a path may stand in a text: as it is, in a string of JSON, and with slashes.

    >>> from pathlib import PureWindowsPath
    >>> sorted(_spellings(PureWindowsPath(r"C:\Users\alice")))
    ['C:/Users/alice', 'C:\\Users\\alice', 'C:\\\\Users\\\\alice']
    """
    return {str(path), str(path).replace("\\", "\\\\"), path.as_posix()}


def digest(content: Any) -> str:
    """The first 16 hex digits of the SHA-256 of what JSON can hold: a name for all that decides a result."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def identified(path: str | Path | None) -> tuple[Path | None, str | None]:
    """A file that somebody names, where it is, and its SHA-256; of None neither.

    Raises:
        FileNotFoundError: it is not there.
    """
    if path is None:
        return None, None
    path = Path(path).expanduser().resolve(strict=True)
    with path.open("rb") as file:
        return path, hashlib.file_digest(file, "sha256").hexdigest()


def partial_prefix(path: Path) -> str:
    """How the temporary names of a file begin, while it is being written."""
    return f".{path.stem}.partial-"


def make_readable(temporary: Path, mode: int) -> None:
    """Give what `tempfile` made, readable by its owner only, the permissions of any new file or folder.

    Args:
        temporary: the file or folder.
        mode: before the process's umask takes away from it: 0o666 of a file, 0o777 of a folder.
    """
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(mode & ~umask)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: a reader sees the old file or the new one.

    The temporary name keeps the ending of ``path``; it is removed if ``write`` fails or is interrupted, and by the next
    one if its process was killed.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full; ``path`` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_behind in path.parent.glob(f"{escape(partial_prefix(path))}*{escape(path.suffix)}"):
        _remove_dead(left_behind)
    handle, temporary = _begin(path)
    try:
        make_readable(temporary, 0o666)
        write(temporary)
        with open(temporary, "rb+") as written:  # Windows flushes only what it may write
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _new(path: Path) -> tuple[int, Path]:
    handle, name = tempfile.mkstemp(prefix=partial_prefix(path), suffix=path.suffix, dir=path.parent)
    return handle, Path(name)


if sys.platform == "win32":  # where a file that is open cannot be renamed, so that no handle can hold a lock meanwhile

    def _begin(path: Path) -> tuple[int | None, Path]:
        """A temporary file beside a path."""
        handle, temporary = _new(path)
        os.close(handle)
        return None, temporary

    def _remove_dead(temporary: Path) -> None:
        """Remove a temporary file in which nobody has written for a day."""
        with suppress(OSError):  # a folder, gone meanwhile, or open
            if time.time() - temporary.stat().st_mtime > _DEAD_S:
                temporary.unlink()

else:

    def _begin(path: Path) -> tuple[int | None, Path]:
        """A temporary file beside a path, locked as long as the handle is open: a sign that its process lives."""
        while True:
            handle, temporary = _new(path)
            with suppress(OSError):  # where there are no locks, nobody removes it
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:
                return handle, temporary
            os.close(handle)  # taken for a dead one before it was locked

    def _remove_dead(temporary: Path) -> None:
        """Remove a temporary file, unless a process that lives is writing it."""
        with suppress(OSError), temporary.open("rb") as file:  # a folder, gone meanwhile, or locked
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


def check_page(path: str | Path) -> None:
    """Refuse a place where a page cannot be put: of another ending, or taken by something that is no page of ours.

    Raises:
        ValueError: the path does not end in ``.html``.
        FileExistsError: something else stands there.
    """
    path = Path(path)
    if path.suffix != ".html":
        raise ValueError(f"a page is saved as .html, got {str(path)!r}")
    if path.is_dir() or (path.exists() and GENERATOR not in path.read_bytes()[:1000].decode(errors="replace")):
        raise FileExistsError(f"{path} exists and is no page of this study; move it away, or name another file")


def json_text(content: dict[str, Any]) -> str:
    """As `write_json` writes it."""
    return json.dumps(content, indent=1) + "\n"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """As JSON, indented, atomically. Raises what `write_atomically` raises; a TypeError for what JSON cannot hold."""
    write_text(path, json_text(content))


def write_text(path: Path, text: str) -> None:
    """In UTF-8, with the same ends of lines on every system, atomically. Raises what `write_atomically` raises."""
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode()))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """As CSV without the index, numbers with six digits, atomically."""
    write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
