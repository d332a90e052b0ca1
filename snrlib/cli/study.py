"""``snr study | tune | measure``: many runs, and the results that the study stores."""

from __future__ import annotations

import argparse
from typing import Any

from snrlib.utils.files import data_folder

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the group's subcommands to those of ``argparse``."""
    one = commands.add_parser("study", help="run the cells of a profile and every notebook that are not up to date")
    one.set_defaults(do=_study)
    one.add_argument("--profile", default="quick", help="of study.yaml (default: quick)")
    one.add_argument("--cores", type=int, metavar="N", help="runs at a time, one thread each (default: all cores)")
    one.add_argument("--dry-run", action="store_true", help="say what would run")
    one.add_argument("--force", action="store_true", help="run those that are up to date, too")
    one.add_argument(
        "--store", action="store_true", help="for authors: finished cells become studies in data/reference"
    )
    one = commands.add_parser(
        "tune", help="tune margins, temperatures and learning rates on validation classes, for a profile's cells"
    )
    one.set_defaults(do=_tune)
    one.add_argument("--profile", default="full", help="of study.yaml (default: full)")
    one.add_argument("--trials", type=int, default=8, help="of each data set, network, loss and distance (default: 8)")
    one.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each (default: 2)")
    one.add_argument("--device", choices=["cpu", "cuda"], help="that trains (default: cuda where there is one)")
    one = commands.add_parser("measure", aliases=["reference"], help="measure what stands in data/reference")
    one.set_defaults(do=_measure)
    one.add_argument(
        "name",
        help="a profile of study.yaml; or maps, cub_features, cars_features, robustness, embeddings, untrained, "
        "hashing, which, weights",
    )
    one.add_argument("--jobs", type=int, default=2, help="processes at a time, one thread each (default: 2)")
    one.add_argument(
        "--device", choices=["cpu", "cuda"], help="of a profile's cells (default: cuda where there is one)"
    )
    one.add_argument(
        "--weights",
        metavar="FILE",
        help="SqueezeNet's ImageNet weights (cub_features, untrained, which, robustness; the last does without, too)",
    )


def _study(options: argparse.Namespace) -> int:
    from snrlib.report import index
    from snrlib.study import storing, workflow

    if options.cores is not None and options.cores < 1:
        raise ValueError(f"--cores must be positive, got {options.cores}")
    if options.dry_run:
        workflow.plan(options.profile, options.force)
        return 0
    if options.store:
        print("\n".join(map(str, storing.store(options.profile))))
        return 0
    status = workflow.run_study(options.profile, options.cores, options.force)
    print(f"The page to read and share: {index.build()}")
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


def _tune(options: argparse.Namespace) -> int:
    from snrlib.study.tuning import tune

    print(tune(options.profile, options.trials, options.jobs, options.device))
    return 0


def _measure(options: argparse.Namespace) -> int:
    from snrlib.study.contents import write_contents
    from snrlib.study.measure import measure

    print("\n".join(map(str, measure(options.name, options.jobs, options.weights, options.device))))
    write_contents()
    return 0
