"""Where a data set comes from, what its authors published, and where its files are looked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from snrlib.data.image_files import is_left_behind
from snrlib.utils.files import data_folder, study_root

__all__ = ["Archive", "Source", "data_root", "find", "missing"]


@dataclass(frozen=True)
class Archive:
    """One published file.

    Args:
        file: its name, as published.
        urls: where it is, the first that answers is used.
        md5: its published checksum.
        unpacks: what is taken out of it and put beside it; none if it is read as it is.
    """

    file: str
    urls: tuple[str, ...]
    md5: str
    unpacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A data set as published.

    Args:
        name: as in `snrlib.data.DATASETS`.
        page: its home, where it is fetched by hand.
        places: what its loader looks for, in the root or in one of its folders; the first there is used.
        archives: gives its files; a function, since torchvision knows some and is slow to import.
        train: published numbers of images and classes in the default training split.
        test: the same of the default test split.
        split: how its classes are shared out.
        gigabytes: to download, about.
    """

    name: str
    page: str
    places: tuple[str, ...]
    archives: Callable[[], tuple[Archive, ...]]
    train: tuple[int, int]
    test: tuple[int, int]
    split: str
    gigabytes: float


def data_root(root: str | Path | None = None) -> Path:
    """The folder of downloaded data: ``root``, else ``SNR_DATA``, else ``data/raw`` of the study.

    A relative ``SNR_DATA`` counts from the folder of the study, so that a notebook and the command line agree.
    """
    if root is not None:
        return Path(root).expanduser().absolute()
    if chosen := os.environ.get("SNR_DATA"):
        return (study_root() / Path(chosen).expanduser()).resolve()
    return data_folder("raw")


def find(root: str | Path | None, *places: str) -> Path | None:
    """The first of ``places`` that is in the root itself or in one of its folders, in alphabetical order.

    A root that is given may also be the first folder of a place itself, whatever its name.
    """
    base = data_root(root)
    folders = [base, *sorted(path for path in base.glob("*") if path.is_dir() and not is_left_behind(path.name))]
    for place in places:
        inner = Path(*Path(place).parts[1:])
        itself = [base / inner] if root is not None and inner.parts else []
        if found := next((path for path in [*(folder / place for folder in folders), *itself] if path.exists()), None):
            return found
    return None


def missing(source: Source, root: str | Path | None) -> FileNotFoundError:
    """The error that says where was looked, which file to put where, and the command that fetches it."""
    base = data_root(root)
    files = " and ".join(archive.file for archive in source.archives())
    return FileNotFoundError(
        f"{source.name} is not there: neither {base} nor a folder in it holds {' or '.join(source.places)}. "
        f"`snr data fetch {source.name}` downloads it; by hand, put {files} from {source.page} into "
        f"{base / source.name} and run the same command, which checks and unpacks. SNR_DATA=FOLDER names another place."
    )
