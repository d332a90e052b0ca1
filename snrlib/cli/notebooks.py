"""``snr list | params | run | refresh``: notebooks as programs."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from snrlib.notebooks.find import find_notebook, notebooks, title
from snrlib.notebooks.parameters import check_values, parameters
from snrlib.notebooks.run import run

__all__ = ["add_commands", "values_of"]


def add_commands(commands: Any) -> None:
    """Add the group's subcommands to those of ``argparse``."""
    one = commands.add_parser("list", help="the notebooks and their questions")
    one.set_defaults(do=_list)
    one = commands.add_parser("params", help="the parameters of a notebook")
    one.set_defaults(do=_params)
    one.add_argument("notebook")
    one = commands.add_parser("run", help="execute a notebook; writes a copy and its result row")
    one.set_defaults(do=_run)
    one.add_argument("notebook", help="03, 03_correlation or its file name")
    one.add_argument("-p", dest="values", action="append", default=[], metavar="NAME=VALUE", help="set a parameter")
    one.add_argument(
        "-o",
        dest="output",
        metavar="OUT.ipynb",
        help="where the executed copy goes; result.json is put beside it (default: a folder in data/runs)",
    )
    existing = one.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="replace the output if it exists")
    existing.add_argument("--renew", action="store_true", help="replace it only if it is not up to date")
    one = commands.add_parser("refresh", help="for authors: execute notebooks in place and store their outputs")
    one.set_defaults(do=_refresh)
    one.add_argument("notebooks", nargs="*", help="all if none is named")


def values_of(notebook: str, given: list[str]) -> dict[str, Any]:
    """The values of ``-p NAME=VALUE``, checked against the notebook's parameters.

    Raises:
        ValueError: no such notebook or parameter, a text of another form, or a value that cannot be.
    """
    known = parameters(notebook)
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"-p takes NAME=VALUE, got {text!r}")
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = known[name].parse(value) if name in known else value  # refused with the known names
    return check_values(notebook, values)


def _list(options: argparse.Namespace) -> int:
    for path in notebooks():
        print(f"{path.stem:24} {title(path)}")
    return 0


def _params(options: argparse.Namespace) -> int:
    found = parameters(options.notebook)
    if not found:
        print(f"{find_notebook(options.notebook).stem} has no parameters")
    for parameter in found.values():
        extra = f"  [{parameter.allowed}]" if parameter.allowed else ""
        default = parameter.none if parameter.default is None else repr(parameter.default)
        print(f"{parameter.name}: {parameter.type} = {default}  {parameter.help}{extra}")
    return 0


def _run(options: argparse.Namespace) -> int:
    values = values_of(options.notebook, options.values)
    known = parameters(options.notebook)
    if {"data", "root", "weights", "budget"} <= known.keys():
        _check({key: parameter.default for key, parameter in known.items()} | values)
    row = run(
        options.notebook,
        values,
        options.output,
        force=options.force or options.renew,
        wait=options.renew,
        skip_current=options.renew,
        progress=sys.stderr.isatty(),
    )
    first = sorted(row["metrics"].items(), key=lambda item: not item[0].startswith("precision"))[:4]  # of all
    metrics = ", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in first)
    print(f"  {row['notebook']}: {row['wall_time_s']:.0f} s. {metrics}")
    print(f"  {row['output']}")
    return 0


def _check(values: dict[str, Any]) -> None:
    """Refuse an experiment that cannot be, before a kernel starts: settings that conflict, files that are not there."""
    from snrlib.backbones import read_weights  # with torch: slow to import
    from snrlib.data import files_state
    from snrlib.study.tuned import from_parameters

    settings = from_parameters(values)
    files_state(settings.data, settings.root, settings.weights_path)
    if settings.weights_path is not None:
        read_weights(settings.weights_path)


def _refresh(options: argparse.Namespace) -> int:
    from snrlib.notebooks.refresh import refresh, refresh_pictures
    from snrlib.study.contents import write_contents  # with torch: slow to import

    names = options.notebooks or [path.stem for path in notebooks()]
    for path in [find_notebook(name) for name in names]:
        started = time.monotonic()
        refresh(path)
        print(f"{path.name}: {time.monotonic() - started:.0f} s, {path.stat().st_size / 1024:.0f} KiB")
    refresh_pictures()
    write_contents()
    return 0
