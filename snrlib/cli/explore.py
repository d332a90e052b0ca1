"""``snr inspect | playground | report``: pages to look at."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from snrlib.utils.files import check_page

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the group's subcommands to those of ``argparse``."""
    one = commands.add_parser("inspect", help="make the page of linked t-SNE maps out of runs of notebook 05")
    one.set_defaults(do=_inspect)
    one.add_argument("runs", nargs="*", metavar="RUN", help="their folders (default: the stored embeddings)")
    one.add_argument("-o", dest="output", default="tsne.html", metavar="FILE.html", help="default: tsne.html")
    one.add_argument("--perplexity", type=float, help="of the maps (default: 30, or what so few images allow)")
    one.add_argument("--symmetrised", action="store_true", help="show the mean of both anchor sides")
    one = commands.add_parser("playground", help="write the page to drag points and draw signals on")
    one.set_defaults(do=_playground)
    one.add_argument(
        "-o", dest="output", default="playground.html", metavar="FILE.html", help="default: playground.html"
    )
    one = commands.add_parser("report", help="make the page to read and share out of the runs that are there")
    one.set_defaults(do=_report)


def _inspect(options: argparse.Namespace) -> int:
    check_page(options.output)  # before the maps, which take minutes
    from snrlib.explore import inspect
    from snrlib.study.embeddings import run_embeddings, stored_embeddings

    spaces = run_embeddings(options.runs) if options.runs else stored_embeddings()
    space = "symmetrised" if options.symmetrised else "mapped"
    inspect(spaces.maps(perplexity=options.perplexity, space=space), spaces.images, save=options.output)
    print(Path(options.output).resolve())
    return 0


def _playground(options: argparse.Namespace) -> int:
    from snrlib.explore import playground

    playground(save=options.output)
    print(Path(options.output).resolve())
    return 0


def _report(options: argparse.Namespace) -> int:
    from snrlib.report.index import build

    print(build())
    return 0
