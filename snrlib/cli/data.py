"""``snr data list | fetch NAME | check NAME``."""

from __future__ import annotations

import sys
from pathlib import Path

from snrlib.data import DATASETS, SOURCES
from snrlib.data.fetch.download import fetch
from snrlib.data.fetch.source import data_root, find
from snrlib.data.fetch.verify import check

__all__ = ["run"]

_OWN = {
    "glyphs": "drawn from matplotlib's typefaces, nothing to fetch",
    "digits": "comes with scikit-learn, nothing to fetch",
    "cub_features": "SqueezeNet's features of photographs of birds, in data/reference, nothing to fetch",
    "folder": "your own images, one sub-folder a class: root=PATH",
}


def run(action: str, name: str = "", root: str | Path | None = None) -> int:
    """List, fetch or check data sets.

    Args:
        action: "list", "fetch" or "check".
        name: of the data set, for the last two.
        root: the folder of downloaded data.

    Returns:
        The exit status: 0, or 1 for a damaged data set (a partial one is not).

    Raises:
        ValueError: unknown name, nothing to fetch, or a damaged archive.
        OSError: not there, or not to be had.
    """
    if action == "list":
        _list(root)
        return 0
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(DATASETS)}")
    progress = sys.stderr.isatty()
    if action == "fetch":
        if name not in SOURCES:
            raise ValueError(f"{name}: {_OWN[name]}")
        print(f"{name} is in {fetch(SOURCES[name], root, progress)}")
        return 0
    lines, whole = check(name, root, progress)
    print("\n".join(lines))
    print(f"{name}: {'nothing is damaged' if whole else 'damaged'}")
    return 0 if whole else 1


def _list(root: str | Path | None) -> None:
    print(f"in {data_root(root)}, images / classes:")
    for name in DATASETS:
        if name in _OWN:
            print(f"{name:12} {_OWN[name]}")
            continue
        source = SOURCES[name]
        (train, train_classes), (test, test_classes) = source.train, source.test
        there = find(root, *source.places)
        print(
            f"{name:12} train {train:6,} / {train_classes:6,}, test {test:6,} / {test_classes:6,}; "
            f"about {source.gigabytes:g} GB; {f'found: {there}' if there else 'not there'}\n"
            f"             {source.split}; {source.page}"
        )
