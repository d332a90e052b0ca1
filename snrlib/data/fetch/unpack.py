"""Archives, unpacked so that nothing leaves the folder and nothing half-done stays."""

from __future__ import annotations

import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from snrlib.utils.files import partial_prefix

__all__ = ["unpack"]


def unpack(archive: Path, folder: Path, wanted: Sequence[str]) -> None:
    """Unpack a zip or tar file and put the wanted ones of its uppermost files and folders into ``folder``.

    It is unpacked into a temporary folder beside and renamed, each of ``wanted`` at once. What a killed run left is
    removed by the next; the caller keeps two from running at the same time.

    Args:
        archive: the file.
        folder: where the wanted go.
        wanted: names of files or folders at the top of the archive.

    Raises:
        ValueError: no archive, a damaged one, one without the wanted; or a member that is a link, a device, or whose
            path leaves the folder, by its name.
        FileExistsError: one of the wanted is there already.
        OSError: the disk is full or cannot be written.
    """
    for name in wanted:
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} is there already; remove it to unpack {archive.name} again")
    for leftover in folder.glob(f"{partial_prefix(archive)}*"):
        shutil.rmtree(leftover)
    temporary = Path(tempfile.mkdtemp(prefix=partial_prefix(archive), dir=folder))
    try:
        _extract(archive, temporary)
        if lacking := [name for name in wanted if not (temporary / name).exists()]:
            raise ValueError(f"the archive {archive} does not hold {', '.join(lacking)}")
        for name in wanted:
            (temporary / name).rename(folder / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                for member in zipped.infolist():
                    kind = stat.S_IFMT(member.external_attr >> 16)
                    _check(archive, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
                    zipped.extract(member, folder)
        else:
            with tarfile.open(archive) as tar:
                tar.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on, a second check
                for entry in tar:
                    _check(archive, entry.name, entry.isfile() or entry.isdir())
                    entry.mode = 0o755 if entry.isdir() else 0o644
                    tar.extract(entry, folder)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"the archive {archive} is damaged: {error}") from error


def _check(archive: Path, name: str, plain: bool) -> None:
    """Refuse links and devices, and a path that is absolute or climbs, on this system or another."""
    windows = PureWindowsPath(name)
    inside = not (PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts)
    if not inside:
        raise ValueError(f"the archive {archive} is refused: its member {name!r} leaves the folder")
    if not plain:
        raise ValueError(f"the archive {archive} is refused: its member {name!r} is a link or a device")
