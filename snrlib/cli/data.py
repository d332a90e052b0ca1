"""``snr data list | fetch NAME | check NAME``: data sets."""

from __future__ import annotations

import argparse
import sys
from typing import Any

__all__ = ["add_commands"]

_OWN = {
    "glyphs": "drawn from matplotlib's typefaces, nothing to fetch",
    "digits": "comes with scikit-learn, nothing to fetch",
    "cub_features": "SqueezeNet's features of photographs of birds, in data/reference, nothing to fetch",
    "cub_features_40": "the same, 40 of its 50 classes to train and ten to judge",
    "cars_features": "EfficientNet-lite0's features of cars196, which `snr measure cars_features` makes of it",
    "folder": "your own images, one sub-folder per class or a table: root=PATH",
}


def add_commands(commands: Any) -> None:
    """Add the group's subcommand to those of ``argparse``."""
    one = commands.add_parser("data", help="data sets: list them, fetch one, check one")
    actions = one.add_subparsers(dest="action", required=True, metavar="ACTION")
    one = actions.add_parser("list", help="all data sets, their sizes, and which are there")
    one.set_defaults(do=_list)
    for action, do, text in (
        ("fetch", _fetch, "download and unpack one"),
        ("check", _check, "open every image of one, compare the numbers"),
    ):
        one = actions.add_parser(action, help=text)
        one.set_defaults(do=do)
        one.add_argument("name", metavar="NAME")
    for one in actions.choices.values():
        one.add_argument("--root", metavar="FOLDER", help="of the data (default: SNR_DATA, else data/raw)")


def _list(options: argparse.Namespace) -> int:
    from snrlib.data import DATASETS, SOURCES
    from snrlib.data.fetch.source import data_root, find

    print(f"in {data_root(options.root)}, images / classes:")
    for name in DATASETS:
        if name in _OWN:
            print(f"{name:17} {_OWN[name]}")
            continue
        source = SOURCES[name]
        (train, train_classes), (test, test_classes) = source.train, source.test
        there = find(options.root, *source.places)
        print(
            f"{name:17} train {train:6,} / {train_classes:6,}, test {test:6,} / {test_classes:6,}; "
            f"about {source.gigabytes:g} GB; {f'found: {there}' if there else 'not there'}\n"
            f"{'':17} {source.split}; {source.page}"
        )
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from snrlib.data import SOURCES
    from snrlib.data.fetch.download import fetch

    name = _known(options.name)
    if name not in SOURCES:
        raise ValueError(f"{name}: {_OWN[name]}")
    print(f"{name} is in {fetch(SOURCES[name], options.root, sys.stderr.isatty())}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from snrlib.data.fetch.verify import check

    name = _known(options.name)
    lines, whole = check(name, options.root, sys.stderr.isatty())
    print("\n".join(lines))
    print(f"{name}: {'nothing is damaged' if whole else 'damaged'}")
    return 0 if whole else 1


def _known(name: str) -> str:
    from snrlib.data import DATASETS

    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(DATASETS)}")
    return name
