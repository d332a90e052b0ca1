"""``snr inspect | playground | report | article``: pages to look at."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from snrlib.cli.compare import add_columns, count_or_all
from snrlib.utils.files import check_page

__all__ = ["add_commands"]

_ROWS = 100_000  # of a file, beyond which some are drawn unless told otherwise
_READING = ("embeddings", "labels", "paths", "role", "labels_from", "drop_bad")  # options of how a file is read


def add_commands(commands: Any) -> None:
    """Add the group's subcommands to those of ``argparse``."""
    one = commands.add_parser("inspect", help="make the page of linked t-SNE maps out of embeddings")
    one.set_defaults(do=_inspect)
    what = (
        "of embeddings (.npz, .npy, .csv, .tsv, .parquet), or folders of runs of notebook 07 (default: the stored ones)"
    )
    one.add_argument("files", nargs="*", metavar="FILE", help=what)
    one.add_argument("-o", dest="output", default="tsne.html", metavar="FILE.html", help="default: tsne.html")
    one.add_argument("--distance", nargs="+", metavar="NAME", help="of a file (default: euclidean cosine snr)")
    one.add_argument("--images", metavar="FOLDER", help="where the images are, to which a file's paths are relative")
    one.add_argument("--export", metavar="FILE.parquet", help="also write the maps as a table for other viewers")
    add_columns(one)
    one.add_argument("--rows", type=count_or_all, metavar="N|all", help=f"how many (default: all, at most {_ROWS:,})")
    one.add_argument("--paths", metavar="NAME", help="column of paths of images")
    one.add_argument("--perplexity", type=float, help="of the maps (default: 30, or what so few images allow)")
    one.add_argument("--symmetrised", action="store_true", help="show the mean of both anchor sides")
    one = commands.add_parser("playground", help="write the page to drag points and draw signals on")
    one.set_defaults(do=_playground)
    one.add_argument(
        "-o", dest="output", default="playground.html", metavar="FILE.html", help="default: playground.html"
    )
    one = commands.add_parser("report", help="make the page to read and share out of the runs that are there")
    one.set_defaults(do=_report)
    one = commands.add_parser(
        "article", help="write the replication article: claims, what came out, and why it differs"
    )
    one.set_defaults(do=_article)
    one.add_argument(
        "-o", dest="output", default="article.html", metavar="FILE.html", help="default: article.html; prints to PDF"
    )
    one.add_argument("--markdown", metavar="FILE.md", help="also write its text in Markdown")


def _inspect(options: argparse.Namespace) -> int:
    check_page(options.output)  # before the maps, which take minutes
    from snrlib.explore import export_atlas, inspect
    from snrlib.explore.atlas import check_atlas
    from snrlib.study.embeddings import file_embeddings, run_embeddings, stored_embeddings

    if options.export:
        check_atlas(options.export)
    if missing := [one for one in options.files if not Path(one).exists()]:
        raise FileNotFoundError(f"{missing[0]} is not there")
    if any(Path(one).is_file() for one in options.files):
        reading = {name: getattr(options, name) for name in _READING}
        rows = _ROWS if options.rows is None else options.rows or None
        spaces = file_embeddings(options.files, options.distance, options.images, rows, **reading)
    elif options.distance or options.images or options.rows is not None:
        raise ValueError("--distance, --images and --rows belong to files of embeddings; runs have their own")
    else:
        spaces = run_embeddings(options.files) if options.files else stored_embeddings()
    space = "symmetrised" if options.symmetrised else "mapped"
    many = len(spaces.images) > 5000
    maps = spaces.maps(perplexity=options.perplexity, space=space, progress=many)
    page = inspect(maps, spaces.images, save=options.output)
    print(*page.notes, sep="\n", file=sys.stderr)
    print(Path(options.output).resolve())
    if options.export:
        print(export_atlas(maps, spaces.images, options.export).resolve())
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


def _article(options: argparse.Namespace) -> int:
    from snrlib.report.article import write_article

    for path in write_article(options.output, options.markdown):
        print(path.resolve())
    return 0
