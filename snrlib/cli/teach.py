"""``snr teach | grade``: copies and slides for a course, and marks for what comes back."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from snrlib.utils.files import data_folder

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the group's subcommands to those of ``argparse``."""
    one = commands.add_parser("teach", help="make copies for students and instructors, and slides")
    one.set_defaults(do=_teach)
    one.add_argument("-o", dest="folder", metavar="FOLDER", type=Path, help="where they go (default: data/runs/teach)")
    one = commands.add_parser("grade", help="marks for submissions, run behind walls")
    one.set_defaults(do=_grade)
    one.add_argument("folder", type=Path, help="with STUDENT/NN_name.ipynb, filled student copies")
    one.add_argument("-o", dest="marks", metavar="MARKS.csv", type=Path, required=True, help="the marks, a line each")
    one.add_argument("--seconds", type=float, default=20, help="time of one exercise (default: 20)")
    one.add_argument("--memory", type=float, default=4, help="GiB of address space of a submission (default: 4)")
    one.add_argument(
        "--without-walls",
        action="store_true",
        help="run submissions with your own rights: only in a container or machine of no worth",
    )


def _teach(options: argparse.Namespace) -> int:
    from snrlib.teach.build import build

    for path in build(options.folder or data_folder("runs") / "teach"):
        print(f"  {path}")
    return 0


def _grade(options: argparse.Namespace) -> int:
    from snrlib.teach.grading import grade, write_marks
    from snrlib.teach.walls import Limits

    if not 0 < options.seconds <= 3600 or not 0.5 <= options.memory <= 1024:
        raise ValueError("--seconds must be above 0 and at most 3600, --memory from 0.5 to 1024 GiB")
    limits = Limits(seconds=options.seconds, memory=int(options.memory * 2**30))
    marks = []
    for mark in grade(options.folder, limits=limits, walls=not options.without_walls):
        marks.append(mark)
        print(f"  {mark.student:20.20} {mark.exercise:24.24} {mark.outcome}", file=sys.stderr)
    write_marks(options.marks, marks)
    print(f"  {len({mark.student for mark in marks})} students, {len(marks)} marks in {options.marks}")
    return 0
