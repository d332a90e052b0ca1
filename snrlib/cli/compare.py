"""``snr compare``: from a file of embeddings to an answer and a page."""

from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snrlib.utils.files import check_page, write_json, write_table
from snrlib.utils.provenance import provenance

if TYPE_CHECKING:
    from snrlib.data.embedding_file import EmbeddingFile
    from snrlib.evaluate import Comparison

__all__ = ["add_columns", "add_commands", "count_or_all", "read_file"]

_MANY = 10_000  # queries, beyond which a sample is drawn unless told otherwise
_CLUSTERED = 5_000  # rows, up to which k-means is run
_GENERATOR = "snrlib compare"  # stands in the JSON file: such files are replaced by the next


def add_commands(commands: Any) -> None:
    """Add the command to those of ``argparse``."""
    one = commands.add_parser("compare", help="which distance for the embeddings of a file: an answer and a page")
    one.set_defaults(do=_compare)
    one.add_argument("file", metavar="FILE", help=".npz, .npy with a table, CSV, TSV, Parquet; or a run of notebook 07")
    one.add_argument("--train", metavar="FILE", help="fit maps to these, instead of half of the classes in turn")
    add_columns(one)
    one.add_argument("--baseline", default="Euclid", metavar="WAY", help="what all are compared with (default: Euclid)")
    one.add_argument(
        "--queries", type=count_or_all, metavar="N|all", help=f"how many (default: all, at most {_MANY:,})"
    )
    one.add_argument("--folds", type=int, default=2, metavar="N", help="parts of the classes (default: 2)")
    one.add_argument("--seed", type=int, default=0, help="of folds, pairs, samples and intervals (default: 0)")
    one.add_argument("-o", dest="output", default="comparison.html", metavar="FILE.html", help="with .csv and .json")


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what the columns of a file are."""
    parser.add_argument("--embeddings", metavar="NAME", help="column of embeddings, or the beginning of theirs")
    parser.add_argument("--labels", metavar="NAME", help="column of classes")
    parser.add_argument("--role", metavar="NAME", help="column that says query or gallery")
    parser.add_argument("--labels-from", metavar="FILE", help="a table with the labels, row for row")
    parser.add_argument("--drop-bad", action="store_true", help="leave out rows with NaN, infinities or no label")


def read_file(path: str, options: argparse.Namespace) -> EmbeddingFile:
    """A file of embeddings with its options, or the folder of a run of notebook 07.

    Raises:
        OSError, ValueError: as `snrlib.data.embedding_file.read_embeddings` and `snrlib.study.embeddings`.
    """
    from snrlib.data.embedding_file import read_embeddings

    if Path(path).is_dir():
        return _run(path)
    columns = {"embeddings": options.embeddings, "labels": options.labels, "role": options.role}
    return read_embeddings(path, **columns, labels_from=options.labels_from, drop_bad=options.drop_bad)


def _run(folder: str) -> EmbeddingFile:
    import pandas as pd

    from snrlib.data.embedding_file import EmbeddingFile
    from snrlib.study.embeddings import run_embeddings

    run = run_embeddings([folder])
    (name, x), (title,) = *run.embeddings.items(), run.titles.values()
    columns, notes = pd.DataFrame(index=range(len(x))), (f"A run of notebook 07: {title}.",)
    return EmbeddingFile(Path(name).name, x, run.images.labels, run.images.classes, columns, notes=notes)


def count_or_all(text: str) -> int:
    """The value of an option: a whole number from 1, or 0 for "all"."""
    if text == "all":
        return 0
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"a whole number from 1, or all, got {text!r}")


def _compare(options: argparse.Namespace) -> int:
    page = Path(options.output)
    check_page(page)  # before the search, which takes minutes
    _check_beside(page, Path(options.file))
    import torch

    from snrlib.evaluate import compare, geometry
    from snrlib.evaluate.comparison import SCORE_WORDS
    from snrlib.explore.comparison import comparison_page

    read = read_file(options.file, options)
    train = None if options.train is None else read_file(options.train, options)
    print(f"{read!r}\n{' '.join(read.notes)}", flush=True)
    search, notes = _ways(read, train, options)
    query: Any = slice(None)
    sets: dict[str, Any] = {}
    if read.is_query is not None:
        query = torch.from_numpy(read.is_query)
        sets = {"reference": read.embeddings[~query], "reference_labels": read.labels[~query]}
    if train is not None:
        sets |= {"train": train.embeddings, "train_labels": train.labels}
    # First, since a finished comparison keeps nothing.
    shape = geometry(read.embeddings, read.labels, seed=options.seed, progress=True)
    drawn = _MANY if options.queries is None else options.queries or None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is left out is said below
        table = compare(
            *(read.embeddings[query], read.labels[query]),
            search=search,
            seed=options.seed,
            cluster=len(read) <= _CLUSTERED,
            folds=options.folds,
            queries=drawn,
            progress=True,
            resume=True,
            **sets,
        )
    notes += [f"{name} is left out: {reason}." for name, reason in table.about["left_out"].items()]
    judged = _judged(table, read, train, options)
    made = comparison_page(
        table, shape, judged, options.baseline, title=f"Which distance for {read.name}?", notes=notes
    )
    said = {score: table.answer(options.baseline, score) for score in SCORE_WORDS}
    _print(table, shape, options.baseline, notes, said)
    made.save(page)
    facts = {"answers": said, "baseline": options.baseline, "file": read.name, "judged": judged}
    _write_beside(page, table, options.baseline, facts | {"geometry": asdict(shape)})
    for path in (page, page.with_suffix(".csv"), page.with_suffix(".json")):
        print(path.resolve())
    return 0


def _ways(
    read: EmbeddingFile, train: EmbeddingFile | None, options: argparse.Namespace
) -> tuple[dict[str, Any], list[str]]:
    """What is compared, and what is to be said of it."""
    from snrlib.mahalanobis import LMNN_BOUND, usual_ways
    from snrlib.utils.checks import check_spread

    n, M = read.embeddings.shape
    sizes = read.labels.bincount()
    if len(sizes) < 2:
        raise ValueError(f"{read.name} holds one class, {read.classes[0]!r}: nothing can be taken for another")
    if int(sizes.max()) < 2:
        raise ValueError(f"every class of {read.name} has one row: is it the right column that holds the classes?")
    check_spread(read.embeddings, f"embeddings of {read.name}")
    if read.is_query is not None:
        queries, gallery = (set(read.labels[rows].tolist()) for rows in (read.is_query, ~read.is_query))
        if not queries & gallery:
            raise ValueError(f"no class of the queries of {read.name} is in its gallery: nothing right can be found")
    if M < 2:
        raise ValueError(f"{read.name} has embeddings of one component: SNR and correlation need at least two")
    fit = n - n // options.folds if train is None and options.folds > 0 else len(train or read)
    search = usual_ways(fit, M)
    notes = []
    if train is None and len(read.classes) < 4:
        search = {name: way for name, way in search.items() if not hasattr(way, "transform")}
        notes.append("Maps are fitted to other classes than they are judged on: there are too few here, so none is.")
    elif "LMNN" not in search:
        rows, most = LMNN_BOUND
        notes.append(
            f"LMNN is left out: it takes at most {rows:,} embeddings of {most} components to fit to, here are {fit:,} "
            f"of {M}."
        )
    if train is not None:
        if train.embeddings.shape[1] != M:
            raise ValueError(
                f"{train.name} has embeddings of {train.embeddings.shape[1]} components, {read.name} of {M}"
            )
        train_classes = set(train.classes) & set(read.classes)
        if train_classes:
            notes.append(f"{len(train_classes):,} of the {len(read.classes):,} classes are in {train.name}, too.")
    if options.baseline not in search:
        raise ValueError(f"--baseline must be one of {'; '.join(search)}; got {options.baseline!r}")
    return search, notes


def _judged(
    table: Comparison, read: EmbeddingFile, train: EmbeddingFile | None, options: argparse.Namespace
) -> dict[str, str]:
    """How, fact by fact."""
    about = table.about
    low, high = about["candidates"]
    searched = f"{high:,}" if low == high else f"{low:,} to {high:,}"
    if about["folds"] > 1:
        maps = (
            f"{about['folds']} parts of the classes, drawn at random: each is searched by itself, maps are fitted to "
            "the classes of the others"
        )
    elif train is not None:
        maps = f"fitted to {len(train):,} embeddings of {len(train.classes):,} classes of {train.name}"
    else:
        maps = "none is fitted; all classes are searched together"
    versions = provenance()["versions"]
    return {
        "File": read.name,
        "Read": " ".join(read.notes),
        "Classes": f"{about['classes']:,}",
        "Embeddings": f"{len(read):,} of {about['components']:,} components",
        "Queries": f"{about['queries']:,}" + (", drawn at random; all are searched" if about["sampled"] else ", all"),
        "Searched for each": f"{searched} others" if read.is_query is None else f"{searched} of the gallery",
        "Maps": maps,
        "Distance that judges": "of a map: Euclid after it; of all others: the way itself",
        "Anchor": "the side that is named; a distance without one is symmetric",
        "AUC, EER": "pairs drawn at random, at most 100,000 of one class and as many of two"
        + ", mean over the parts" * (about["folds"] > 1),
        "Baseline": options.baseline,
        "Seed": str(options.seed),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _print(table: Comparison, shape: Any, baseline: str, notes: list[str], said: dict[str, str]) -> None:
    from snrlib.explore.comparison import score_name

    found = table.differences(baseline)
    shown = table.rename(columns=score_name).round(3)
    shown = shown[[name for name in shown if name not in ("R@2", "R@4")]]
    shown[f"R@1 - {baseline}"] = [
        f"{found['mean'][name]:+.3f} ({found.low[name]:+.3f} to {found.high[name]:+.3f})" if name in found.index else ""
        for name in table.index
    ]
    by_rank = f"By the whole ranking instead of the nearest: {said['mean_average_precision_at_r']}"
    print(shown.to_string(), *notes, "", said["precision_at_1"], by_rank, "", *shape.sentences(), "", sep="\n")


def _check_beside(page: Path, file: Path) -> None:
    """Refuse a place where another table or other JSON stands, or where the next reader looks for the file's labels.

    Raises:
        FileExistsError: it does.
        ValueError: the table would stand beside an ``.npy`` as if it were its labels.
    """
    table, facts = page.with_suffix(".csv"), page.with_suffix(".json")
    if file.suffix.lower() == ".npy" and table.resolve() == file.with_suffix(".csv").resolve():
        raise ValueError(f"{table.name} beside {file.name} would be taken for its labels: name the page otherwise (-o)")
    own = {table: b"way,", facts: f'{{\n "generator": "{_GENERATOR}"'.encode()}
    for path, start in own.items():
        if path.is_dir() or (path.exists() and not path.read_bytes().startswith(start)):
            raise FileExistsError(f"{path} exists and was not made by snr compare; move it away, or name another file")


def _write_beside(page: Path, table: Comparison, baseline: str, facts: dict[str, Any]) -> None:
    """The scores and differences as CSV, one row per way, and all that the page says as JSON."""
    from snrlib.evaluate.comparison import SCORE_WORDS

    rows = table.rename_axis(index="way").reset_index()
    differences = {}
    for score in SCORE_WORDS:
        found = table.differences(baseline, score)
        differences[score] = json.loads(found.to_json(orient="index", double_precision=15))
        for column in ("mean", "low", "high", "p", "p_holm", "verdict"):
            rows[f"{score} minus {baseline}: {column}"] = rows.way.map(found[column])
    write_table(page.with_suffix(".csv"), rows)
    scores = json.loads(table.to_json(orient="index", double_precision=15))
    about = {"generator": _GENERATOR, **facts, "about": dict(table.about)}
    write_json(page.with_suffix(".json"), about | {"scores": scores, "differences": differences} | provenance())
