"""How the numbers of the article were made: data, networks, tuning, seeds, machines and cost, out of what is stored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import nbformat
import pandas as pd

from snrlib.notebooks.find import find_notebook
from snrlib.study.contents import markdown_table
from snrlib.study.scoreboard import BOARD
from snrlib.study.stored import read, read_about, studies
from snrlib.study.tables import under_training_distance
from snrlib.utils.files import data_folder

__all__ = [
    "Cost",
    "Errata",
    "at_bound",
    "commands_table",
    "cost",
    "errata",
    "span",
    "studies_table",
    "trainings",
    "versions",
]

_TUNED = ("margin", "scale", "learning_rate")
_MINUTES = ("core_minutes", "core_minutes_of_networks", "core_minutes_of_tuning", "minutes")
_BESIDE = ("robustness", "which", "hashing", "maps", "untrained")  # measured, and no studies
_ARM = ["backbone", "loss", "distance", "map", "variant"]


@dataclass(frozen=True)
class Cost:
    """Of all stored numbers.

    Attributes:
        hours: of cores, trainings and tuning together; on a GPU, those of the process that drove it.
        tuning: of these, of what tuned.
        trials: of tuning.
        machines: names.
    """

    hours: float
    tuning: float
    trials: int
    machines: tuple[str, ...]


@dataclass(frozen=True)
class Errata:
    """Of the report, as notebook 13 lists them.

    Attributes:
        titles: number to title, of those that have a heading of their own.
        kinds: section of notebook 13 to how many stand in it.
    """

    titles: dict[str, str]
    kinds: dict[str, int]


def span(values: Sequence[object]) -> str:
    """The first and the last of values in order; one of them if they are the same."""
    return " to ".join(dict.fromkeys(str(one) for one in (values[0], values[-1])))


def studies_table(board: pd.DataFrame) -> str:
    """The studies of a scoreboard in Markdown: data, network, gallery, what was compared, seeds, tuning.

    Args:
        board: of `snrlib.study.scoreboard.scoreboard`.
    """
    rows = []
    for name, part in board.groupby("study", sort=False):
        settings = read_about(str(name))["settings"]
        tuned = _tuning(str(name))
        first = part.dropna(subset=["classes"]).head(1)
        gallery = [[f"{row.classes:,.0f}", f"{row.images:,.0f}"] for row in first.itertuples()]
        seeds = sorted(part.seeds.unique())
        rows.append(
            [
                str(name),
                f"{', '.join(part.data.unique())}, {', '.join(part.backbone.unique())}",
                *(gallery or [["", ""]])[0],
                ", ".join(part.loss.unique()),
                str(part.distance.nunique()),
                span(seeds),
                str(settings["steps"]),
                ", ".join(one.replace("_", " ") for one in _TUNED if one in tuned),
                str(_trials(tuned)),
            ]
        )
    titles = [
        "study",
        "data, network",
        "test classes",
        "images",
        "losses",
        "distances",
        "seeds",
        "steps",
        "tuned",
        "trials each",
    ]
    return markdown_table(titles, rows)


def _tuning(name: str) -> pd.DataFrame:
    """The trials of a study: its own, or those of its profile on its data."""
    about = read_about(name)
    if "tuning" in about:
        return pd.DataFrame(about["tuning"])
    words = about["command"].split()
    tried = pd.DataFrame(read_about(f"tuned_{words[-2 if words[-1] == '--store' else -1]}")["tuning"])
    data = set(read(name).runs.data)
    return tried[tried.data.isin(data)] if "data" in tried and tried.data.isin(data).any() else tried


def _trials(tuned: pd.DataFrame) -> int:
    """Of each network, loss and distance: the most."""
    return int(tuned.groupby([one for one in _ARM if one in tuned], dropna=False).size().max())


def trainings(names: Sequence[str] = BOARD) -> int:
    """How many networks stored studies trained and judged."""
    runs = pd.concat([under_training_distance(read(name).runs).assign(study=name) for name in names])
    trained = runs[runs.loss != "untrained"]
    return len(trained.drop_duplicates(["study", "data", *_ARM, "seed"]))


def cost() -> Cost:
    """Of all stored studies, of what tuned them, and of what was measured beside them."""
    abouts = [read_about(name) for name in (*studies(), *_BESIDE)]
    tuned = [read_about(name) for name in _tuned_names()]
    minutes = [sum(float(about.get(key, 0)) for key in _MINUTES) for about in abouts]
    tuning = [sum(float(about.get("core_minutes_of_tuning", 0)) for about in abouts)]
    tuning += [float(about.get("core_minutes", 0)) for about in tuned]
    machines = [name for about in (*abouts, *tuned) for name in about.get("devices", [about.get("cpu", "")])]
    trials = sum(len(about.get("tuning", [])) for about in (*abouts, *tuned))
    hours = (sum(minutes) + sum(float(about.get("core_minutes", 0)) for about in tuned)) / 60
    return Cost(hours, sum(tuning) / 60, trials, tuple(dict.fromkeys(name for name in machines if name)))


def at_bound() -> tuple[int, int]:
    """How many tuned settings hold a value at the end of its range, and of how many that is known."""
    chosen = [one["at_bound"] for name in _tuned_names() for one in read_about(name)["tuned"] if "at_bound" in one]
    return sum(bool(one) for one in chosen), len(chosen)


def _tuned_names() -> list[str]:
    return sorted(path.stem for path in data_folder("reference").glob("tuned_*.json"))


def versions() -> dict[str, list[str]]:
    """The versions of Python and of packages with which stored studies were measured."""
    found: dict[str, list[str]] = {}
    for name in (*studies(), *_BESIDE):
        for package, number in read_about(name).get("versions", {}).items():
            if number not in found.setdefault(package, []):
                found[package].append(number)
    return {package: sorted(numbers) for package, numbers in found.items()}


def commands_table() -> str:
    """What is stored, in Markdown: the command that makes it, and when, from which commit, where and in what time."""
    rows = []
    for name in (*studies(), *_BESIDE, *_tuned_names()):
        about = read_about(name)
        commits = about.get("git_commit") or []
        commits = [commits] if isinstance(commits, str) else commits
        minutes = sum(float(about.get(key, 0)) for key in _MINUTES)
        told = [f"{one[:7]}{' and changes' if '+' in one else ''}" for one in commits]
        command = str(about["command"]).replace("snr reference", "snr measure")  # the word of earlier editions
        command = command.replace(", then ", "`, then `")
        machine = ", ".join(about.get("devices", [about.get("cpu", "a CPU, not named")]))
        day = str(about["finished"])[:10]
        rows.append([name, f"`{command}`", day, ", ".join(told), machine, f"{minutes:.0f}"])
    return markdown_table(["stored in", "made by", "on", "commit", "computed by", "core minutes"], rows)


def errata() -> Errata:
    """Those of notebook 13.

    Raises:
        ValueError: they are not numbered from 1 without a gap.
    """
    titles, kinds, section = {}, dict[str, int](), ""
    numbers: list[int] = []
    for cell in nbformat.read(find_notebook("13"), as_version=4).cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else []:
            if line.startswith("## "):
                section = line[3:]
            elif number := re.match(r"(?:### |\| )(E(\d+))(?: (.+)| )", line):
                numbers.append(int(number[2]))
                kinds[section] = kinds.get(section, 0) + 1
                if line.startswith("###"):
                    titles[number[1]] = number[3]
    if sorted(numbers) != list(range(1, len(numbers) + 1)):
        raise ValueError(f"the errata of notebook 13 are not numbered from 1 without a gap: {numbers}")
    return Errata(titles, kinds)
