"""The ``snr`` command."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from snrlib.notebooks import find as notebooks
from snrlib.notebooks import parameters
from snrlib.notebooks import run as runs
from snrlib.utils.files import data_folder, write_json


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0 done, 1 a notebook or a training failed or a data set is damaged, 2 refused or not writable,
        130 interrupted.
    """
    parser = argparse.ArgumentParser(prog="snr", description="Run the study's notebooks with parameters.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the notebooks and their questions")
    one = commands.add_parser("params", help="the parameters of a notebook")
    one.add_argument("notebook")
    one = commands.add_parser("run", help="execute a notebook; writes a copy and its result row")
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
    one = commands.add_parser("study", help="run the cells of a profile and every notebook that are not up to date")
    one.add_argument("--profile", default="quick", help="of study.yaml (default: quick)")
    one.add_argument("--cores", type=int, metavar="N", help="runs at a time, one thread each (default: all cores)")
    one.add_argument("--dry-run", action="store_true", help="say what would run")
    one.add_argument("--force", action="store_true", help="run those that are up to date, too")
    one.add_argument(
        "--store", action="store_true", help="for authors: finished cells become studies in data/reference"
    )
    one = commands.add_parser(
        "tune", help="tune margins and learning rates on validation classes, for a profile's cells"
    )
    one.add_argument("--profile", default="full", help="of study.yaml (default: full)")
    one.add_argument("--trials", type=int, default=8, help="of each data set, network, loss and distance (default: 8)")
    one.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each (default: 2)")
    one = commands.add_parser("train", help="train and judge without a notebook, also on several processes (torchrun)")
    one.add_argument("-p", dest="values", action="append", default=[], metavar="NAME=VALUE", help="as for notebook 05")
    one.add_argument(
        "-o", dest="folder", required=True, metavar="FOLDER", help="for result, scores, model, checkpoints"
    )
    one.add_argument("--workers", type=int, default=0, help="processes that load images (default: 0, none beside this)")
    one = commands.add_parser("reference", help="measure a study whose results stand in data/reference")
    one.add_argument("study", help="a grid of trainings, as glyphs; or maps, cub_features, robustness, embeddings")
    one.add_argument("--jobs", type=int, default=2, help="experiments at a time, one thread each (default: 2)")
    one.add_argument(
        "--weights",
        metavar="FILE",
        help="ImageNet weights of the backbone (default: download them; robustness: leave photographs out)",
    )
    one = commands.add_parser("inspect", help="make the page of linked t-SNE maps out of runs of notebook 05")
    one.add_argument("runs", nargs="*", metavar="RUN", help="their folders (default: the stored embeddings)")
    one.add_argument("-o", dest="output", default="tsne.html", metavar="FILE.html", help="default: tsne.html")
    one.add_argument("--perplexity", type=float, default=30.0, help="of the maps (default: 30)")
    one.add_argument("--symmetrised", action="store_true", help="show the mean of both anchor sides")
    one = commands.add_parser("playground", help="write the page to drag points and draw signals on")
    one.add_argument(
        "-o", dest="output", default="playground.html", metavar="FILE.html", help="default: playground.html"
    )
    commands.add_parser("report", help="make the page to read and share out of the runs that are there")
    one = commands.add_parser("refresh", help="for authors: execute notebooks in place and store their outputs")
    one.add_argument("notebooks", nargs="*", help="all if none is named")
    one = commands.add_parser("data", help="data sets: list them, fetch one, check one")
    actions = one.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="all data sets, their sizes, and which are there")
    for action, text in (
        ("fetch", "download and unpack one"),
        ("check", "open every image of one, compare the numbers"),
    ):
        one = actions.add_parser(action, help=text)
        one.add_argument("name", metavar="NAME")
    for one in actions.choices.values():
        one.add_argument("--root", metavar="FOLDER", help="of the data (default: SNR_DATA, else data/raw)")
    options = parser.parse_args(arguments)
    for chatty in ("asyncio", "papermill"):  # on a kernel that was stopped; errors arrive as exceptions
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that a terminated run cleans up behind itself
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        return _COMMANDS[options.command](options)
    except runs.NotebookError as error:
        print(f"snr: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `snr list | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (FloatingPointError, ChildProcessError) as error:  # a training that diverged, or some of many that failed
        print(f"snr: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"snr: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nsnr: interrupted; what was finished is kept, nothing half-written is left", file=sys.stderr)
        return 130


def _list(options: argparse.Namespace) -> int:
    for path in notebooks.notebooks():
        print(f"{path.stem:24} {notebooks.title(path)}")
    return 0


def _params(options: argparse.Namespace) -> int:
    found = parameters.parameters(options.notebook)
    if not found:
        print(f"{notebooks.find_notebook(options.notebook).stem} has no parameters")
    for parameter in found.values():
        allowed = " | ".join(map(str, parameter.choices))
        if parameter.low > float("-inf"):
            allowed = f"{parameter.low:.12g} to {parameter.high:.12g}"
        extra = f"  [{allowed}]" if allowed else ""
        print(f"{parameter.name}: {parameter.type} = {parameter.default!r}  {parameter.help}{extra}")
    return 0


def _values(notebook: str, given: list[str]) -> dict[str, Any]:
    """The values of ``-p NAME=VALUE``, checked against the notebook's parameters."""
    known = parameters.parameters(notebook)
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"-p takes NAME=VALUE, got {text!r}")
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = known[name].parse(value) if name in known else value  # refused with the known names
    return parameters.check_values(notebook, values)


def _run(options: argparse.Namespace) -> int:
    values = _values(options.notebook, options.values)
    row = runs.run(
        options.notebook,
        values,
        options.output,
        force=options.force or options.renew,
        wait=options.renew,
        skip_current=options.renew,
        progress=sys.stderr.isatty(),
    )
    _report(row)
    print(f"  {row['output']}")
    return 0


def _study(options: argparse.Namespace) -> int:
    from snrlib.report import index as report  # with torch: slow to import
    from snrlib.study import scoreboard  # with torch: slow to import
    from snrlib.study import workflow as study  # with torch: slow to import

    if options.cores is not None and options.cores < 1:
        raise ValueError(f"--cores must be positive, got {options.cores}")
    if options.dry_run:
        study.plan(options.profile, options.force)
        return 0
    if options.store:
        print("\n".join(map(str, scoreboard.store(options.profile))))
        return 0
    status = study.run_study(options.profile, options.cores, options.force)
    print(f"The page to read and share: {report.build()}")
    if status:
        return status
    print(
        f"Executed copies and results: {data_folder('runs')}\n"
        "Where to go next:\n"
        "  make lab                      read and change the notebooks, from 00_start_here on\n"
        "  .venv/bin/snr list            what each notebook asks\n"
        "  .venv/bin/snr params 01       what can be changed in one\n"
        "  .venv/bin/snr run 01 -p sigma2=2.0"
    )
    return 0


def _page(options: argparse.Namespace) -> int:
    from snrlib.report import index as report  # with torch: slow to import

    print(report.build())
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from snrlib.explore import inspect  # with torch and bokeh: slow to import
    from snrlib.study.embeddings import run_embeddings, stored_embeddings

    spaces = run_embeddings(options.runs) if options.runs else stored_embeddings()
    space = "symmetrised" if options.symmetrised else "mapped"
    inspect(spaces.maps(perplexity=options.perplexity, space=space), spaces.images, save=options.output)
    print(Path(options.output).resolve())
    return 0


def _playground(options: argparse.Namespace) -> int:
    from snrlib.explore import playground  # with torch: slow to import

    playground(save=options.output)
    print(Path(options.output).resolve())
    return 0


def _refresh(options: argparse.Namespace) -> int:
    names = options.notebooks or [path.stem for path in notebooks.notebooks()]
    for path in [notebooks.find_notebook(name) for name in names]:
        started = time.monotonic()
        notebooks.refresh(path)
        print(f"{path.name}: {time.monotonic() - started:.0f} s, {path.stat().st_size / 1024:.0f} KiB")
    notebooks.refresh_pictures()
    return 0


def _report(row: dict) -> None:
    first = sorted(row["metrics"].items(), key=lambda item: not item[0].startswith("precision"))[:4]  # of all
    metrics = ", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in first)
    print(f"  {row['notebook']}: {row['wall_time_s']:.0f} s. {metrics}")


def _train(options: argparse.Namespace) -> int:
    from snrlib.experiment import running as experiment  # with torch: slow to import
    from snrlib.train import processes as parallel  # with torch: slow to import

    chosen = {name: known.default for name, known in parameters.parameters("05").items()}
    chosen |= _values("05", options.values)
    folder = Path(options.folder)
    result = folder / "result.json"
    if result.exists():
        raise FileExistsError(f"{result} exists; choose another folder")
    with parallel.process_group() as device:
        first = parallel.rank() == 0
        done = experiment.experiment(
            experiment.from_parameters(chosen),
            folder / "checkpoints",
            device,
            workers=options.workers,
            progress=first and sys.stderr.isatty(),
        )
        if first:
            done.save(folder, model=True)
            row = {"parameters": chosen, "settings": done.settings, "processes": parallel.world_size()}
            row |= {"metrics": done.metrics, "data": done.fingerprints, **runs.provenance()}
            write_json(result, row)
            print(f"{done}\n  {folder}")
    return 0


def _reference(options: argparse.Namespace) -> int:
    from snrlib.study import fitted_maps as frozen
    from snrlib.study import reference, robustness

    if options.study == "maps":
        print(frozen.measure_maps())
    elif options.study == "cub_features":
        if options.weights is None:
            raise ValueError("cub_features needs --weights, the file of SqueezeNet's ImageNet weights")
        print(frozen.measure_features(options.weights))
    elif options.study == "embeddings":
        from snrlib.study import embeddings as stored  # with bokeh

        print(stored.measure_embeddings())
    elif options.study == "robustness":
        print(robustness.measure_robustness(options.jobs, options.weights))
    else:
        print(reference.measure(options.study, options.jobs, options.weights))
    return 0


def _tune(options: argparse.Namespace) -> int:
    from snrlib.study import tuning  # with torch: slow to import

    print(tuning.tune(options.profile, options.trials, options.jobs))
    return 0


def _data(options: argparse.Namespace) -> int:
    from snrlib.cli import data as command  # with torch: slow to import

    return command.run(options.action, getattr(options, "name", ""), options.root)


_COMMANDS = {
    "data": _data,
    "inspect": _inspect,
    "list": _list,
    "params": _params,
    "playground": _playground,
    "reference": _reference,
    "refresh": _refresh,
    "report": _page,
    "run": _run,
    "study": _study,
    "train": _train,
    "tune": _tune,
}
