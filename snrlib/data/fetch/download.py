"""Downloads: checked by their published MD5, resumed where they were cut, tried from every known address."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from tqdm import tqdm

from snrlib.data.fetch.source import Archive, Source, data_root
from snrlib.data.fetch.unpack import unpack

__all__ = ["download", "fetch"]

_ATTEMPTS = 10  # at one address, as long as each brings something
_TIMEOUT = (10, 30)  # seconds: to connect, and between two packets
_CHUNK = 1 << 16


def fetch(source: Source, root: str | Path | None = None, progress: bool = False) -> Path:
    """Download and unpack what is not there yet, into ``<root>/<name>``; two that run at once wait for each other.

    Args:
        source: the data set.
        root: the folder of downloaded data.
        progress: show a bar for each file.

    Returns:
        The folder of the data set.

    Raises:
        OSError: no address gave the published file, or the disk is full or cannot be written.
        ValueError: an archive that is damaged or would write outside its folder.
    """
    folder = data_root(root) / source.name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".fetch.lock"):
        for archive in source.archives():
            if archive.unpacks and all((folder / name).exists() for name in archive.unpacks):
                continue
            try:
                path = download(archive, folder, progress)
            except ConnectionError as error:
                raise ConnectionError(
                    f"{error}\nBy hand: put {archive.file} (MD5 {archive.md5}) from {source.page} into {folder}, "
                    f"then run `snr data fetch {source.name}` again, which checks and unpacks it."
                ) from error
            if archive.unpacks:
                unpack(path, folder, archive.unpacks)
    return folder


def download(archive: Archive, folder: Path, progress: bool = False) -> Path:
    """One file into a folder, unless it is there with its published MD5.

    What a cut connection has brought stays in ``.<file>.part``; the next attempt, at any address, goes on there.

    Args:
        archive: the file.
        folder: where it goes.
        progress: show a bar.

    Raises:
        ConnectionError: no address gave the published file; each is named with the reason.
        OSError: the disk is full or cannot be written.
    """
    path, part = folder / archive.file, folder / f".{archive.file}.part"
    failures = []
    if path.exists():
        if pooch.file_hash(str(path), "md5") == archive.md5:
            return path
        failures.append(f"{path} is there, but its MD5 is not the published one")
    pooch.get_logger().setLevel("ERROR")
    for url in archive.urls:
        for _ in range(_ATTEMPTS):
            had = part.stat().st_size if part.exists() else 0
            try:
                pooch.retrieve(
                    url,
                    f"md5:{archive.md5}",
                    fname=archive.file,
                    path=folder,
                    downloader=partial(_resume, part=part, progress=progress),
                )
                return path
            except requests.HTTPError as error:
                failures.append(str(error))  # status and address
                break
            except requests.RequestException as error:
                if not part.exists() or part.stat().st_size <= had:
                    failures.append(f"{url} cannot be reached or breaks off ({type(error).__name__})")
                    break
            except ValueError:  # pooch's, on a wrong checksum
                if not had:
                    failures.append(f"{url} gives a file whose MD5 is not the published one")
                    break  # else the part may have been another file's: once more, from the start
        else:
            failures.append(f"{url} was cut off {_ATTEMPTS} times")
    if part.exists():
        failures.append(f"the next run goes on from the {part.stat().st_size:,} bytes that have come")
    raise ConnectionError(f"{archive.file} could not be downloaded:\n" + "\n".join(f"  {line}" for line in failures))


def _resume(url: str, output_file: str, _: object, part: Path, progress: bool) -> None:
    """Fill ``part`` to the end, from where it ends, and move it to ``output_file``; pooch compares the checksum."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # the bytes as published
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code != requests.codes.requested_range_not_satisfiable:  # that says: the part is whole
            response.raise_for_status()
            if response.status_code != requests.codes.partial_content:
                have = 0  # this server sends all of it, whatever is asked
            total = have + int(response.headers.get("Content-Length", 0))
            bar = tqdm(
                desc=part.name[1:-5],
                initial=have,
                total=total or None,
                unit="B",
                unit_scale=True,
                disable=not progress,
            )
            with bar, open(part, "ab" if have else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    bar.update(file.write(chunk))
    os.replace(part, output_file)
