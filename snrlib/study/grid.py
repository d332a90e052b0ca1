"""The grid of the study: which runs of notebook 05 a profile of ``study.yaml`` asks for, and what has come of them.

`snrlib.study.workflow` and the ``Snakefile`` run what is missing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from snrlib.notebooks.find import find_notebook, notebooks
from snrlib.notebooks.parameters import Parameter, check_values, parameters
from snrlib.notebooks.run import default_output, is_current, result_path, source_fingerprint
from snrlib.utils.files import data_folder, study_root

__all__ = ["AXES", "NOT_RUN", "SCHEMA", "STALE", "Grid", "Task", "cells", "check", "profiles", "scores"]

AXES: tuple[str, ...] = ("data", "backbone", "distance", "loss", "seed")
"""What a block lists; its cells are all combinations."""
_NAMES = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
_BLOCK = {
    "type": "object",
    "properties": {
        **dict.fromkeys(AXES, _NAMES),
        "seed": {**_NAMES, "items": {"type": "integer"}},
        "settings": {
            "type": "object",
            "propertyNames": {"not": {"enum": list(AXES)}},
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        },
    },
    "required": list(AXES),
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "profiles": {"type": "object", "additionalProperties": {"type": "array", "items": _BLOCK}, "minProperties": 1}
    },
    "required": ["profiles"],
    "additionalProperties": False,
}
"""Of ``study.yaml``: profiles, each a list of blocks; a block has `AXES` and ``settings``, other parameters of 05."""


NOT_RUN = "it did not run to its end"
STALE = "its result is of other values, or of an earlier notebook or library"


@dataclass(frozen=True, eq=False)
class Task:
    """One run of a notebook: a cell of the grid, or a notebook as it stands.

    Attributes:
        notebook: its name.
        values: parameters that are not the defaults; of a cell, all its axes.
        output: where the executed copy goes, in a folder of its own.
    """

    notebook: str
    values: dict[str, Any]
    output: Path

    @property
    def name(self) -> str:
        """Its folder, counted from that of all runs."""
        return self.output.parent.relative_to(data_folder("runs")).as_posix()

    @property
    def log(self) -> Path:
        """What its last run printed."""
        return self.output.with_name("run.log")

    def command(self, force: bool = False) -> list[str]:
        """The command that runs it; without ``force`` it does nothing if another process has done it meanwhile."""
        given = [
            f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in self.values.items()
        ]
        options = [part for text in given for part in ("-p", text)]
        last = "--force" if force else "--renew"
        return [sys.executable, "-m", "snrlib", "run", self.notebook, *options, "-o", str(self.output), last]


def profiles() -> dict[str, list[dict[str, Any]]]:
    """The profiles of ``study.yaml``, checked against `SCHEMA`.

    Raises:
        FileNotFoundError: there is no ``study.yaml`` in the study's folder.
        ValueError: it is no YAML, or does not fit; the message says where.
    """
    path = study_root() / "study.yaml"
    if not path.exists():
        raise FileNotFoundError(f"no study.yaml in {path.parent}; run this in a checkout of the study")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"study.yaml: {error}") from None
    if wrong := jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(SCHEMA).iter_errors(content)):
        place = ".".join(map(str, wrong.absolute_path)) or "at its top"
        valid = f"; a block has {', '.join(AXES)} and settings" if wrong.validator == "additionalProperties" else ""
        raise ValueError(f"study.yaml, {place}: {wrong.message}{valid}")
    return content["profiles"]


def cells(profile: str, tuned_values: bool = True) -> list[Task]:
    """The cells of a profile, names, types and choices checked against the parameters of notebook 05.

    Args:
        profile: its name.
        tuned_values: whether what a block leaves open is what `snrlib.study.tuning` found;
            a cell that has none takes what suits the network.

    Raises:
        ValueError: an unknown profile, parameter or value; the message has the valid ones.
    """
    known = profiles()
    if profile not in known:
        raise ValueError(f"unknown profile {profile!r}; study.yaml has {', '.join(known)}")
    if not known[profile]:
        return []
    declared = parameters("05")
    checked = cache(lambda key, value: check_values("05", {key: value})[key])
    found: dict[str, Task] = {}
    for number, block in enumerate(known[profile]):
        try:
            fixed = {key: checked(key, value) for key, value in block.get("settings", {}).items()}
            if fixed.get("weights", "") not in ("", "imagenet"):
                fixed["weights"] = str((study_root() / Path(fixed["weights"]).expanduser()).resolve())
            axes = [[checked(axis, value) for value in block[axis]] for axis in AXES]
        except ValueError as error:
            raise ValueError(f"study.yaml, profiles.{profile}.{number}: {error}") from None
        for combination in itertools.product(*axes):
            cell = _cell(dict(zip(AXES, combination, strict=True)), fixed, declared, profile if tuned_values else None)
            if found.setdefault(cell.name, cell).values != cell.values:
                raise ValueError(f"study.yaml, profile {profile}: two different cells are called {cell.name}")
    return list(found.values())


def _cell(axes: dict[str, Any], fixed: dict[str, Any], declared: dict[str, Parameter], tuned_for: str | None) -> Task:
    """Named by its values, the tuned ones aside: other ones make its result out of date.

    A setting that says the default is left out, so that the same run has one name.
    """
    others = {key: value for key, value in sorted(fixed.items()) if value != declared[key].default}
    named = [*(str(axes[axis]) for axis in AXES[:-1]), *(f"{key}={_label(value)}" for key, value in others.items())]
    folder = data_folder("runs") / "grid" / "-".join([*named, f"seed={axes['seed']}"])
    stem = find_notebook("05").stem
    found: dict[str, float] = {}
    if tuned_for is not None:
        from snrlib.experiment import tuned_parameters  # with torch: slow to import

        defaults = {key: parameter.default for key, parameter in declared.items()}
        found = tuned_parameters(defaults | axes | others, tuned_for)
        found = check_values("05", found)
    return Task(stem, axes | others | found, folder / f"{stem}.ipynb")


def _label(value: Any) -> str:
    """A value as part of a file name; a path by its last part and a few digits of its own."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if re.fullmatch(r"[\w.+-]+", text):
        return text
    return re.sub(r"[^\w.+-]+", "_", Path(text).name) + "." + hashlib.sha256(text.encode()).hexdigest()[:6]


def check(tasks: list[Task]) -> None:
    """Whether every cell can exist: what does not go together is refused before anything runs.

    Raises:
        ValueError: with the name of the cell and the reason.
    """
    from snrlib.experiment import from_parameters  # with torch: slow to import

    declared = parameters("05") if tasks else {}
    alike = {tuple((key, value) for key, value in task.values.items() if key != "seed"): task for task in tasks}
    for task in alike.values():
        p = {key: parameter.default for key, parameter in declared.items()} | task.values
        own = [name for name in ("conv4", "linear") if name == p["backbone"]]  # not torchvision's
        try:
            from_parameters(p)
            if own and p["weights"] == "imagenet":
                others = [name for name in declared["backbone"].choices if name not in ("conv4", "linear")]
                raise ValueError(f"{p['backbone']} has no ImageNet weights; {', '.join(others)} have")
            if p["weights"] not in ("", "imagenet") and not Path(p["weights"]).is_file():
                raise ValueError(f"its weights, {p['weights']}, are not there")
        except ValueError as error:
            raise ValueError(f"{task.name} cannot be: {error}") from None


def scores(row: dict[str, Any]) -> dict[str, Any]:
    """What a cell's result row says, short: scores without a prefix are under the training distance, query anchor."""
    found: dict[str, Any] = {}
    for name, value in row["metrics"].items():
        judge, _, score = name.rpartition(": ")
        if judge in ("training distance", "training distance, anchor query"):
            found[score] = value
        elif not name.startswith("setting ") or name == "setting margin":  # the tuned one, or as given
            found[name.removeprefix("setting ")] = value
    return found | {key: row[key] for key in ("wall_time_s", "git_commit", "finished")}


class Grid:
    """A profile's cells and all notebooks, and their state.

    Args:
        profile: one of `profiles`.
        force: whether what is finished runs again, too.
    """

    def __init__(self, profile: str, force: bool = False):
        self.profile, self.force = profile, force
        self.notebooks = [Task(path.stem, {}, default_output(path.stem)) for path in notebooks()]
        self.cells = cells(profile)
        self.tasks = {task.name: task for task in (*self.cells, *self.notebooks)}
        self._source = cache(lambda notebook: source_fingerprint(find_notebook(notebook)))
        self._absent = cache(_absent)
        self._declared = cache(parameters)

    def row(self, task: Task) -> dict[str, Any] | None:
        """The result row of a task that was finished by the notebook and library as they are now; else None."""
        if not is_current(task.output, self._source(task.notebook)):
            return None
        row = json.loads(result_path(task.output).read_text())
        asked = {key: known.default for key, known in self._declared(task.notebook).items()} | task.values
        return row if row["parameters"] == asked else None

    def absent(self, task: Task) -> str:
        """Why a cell is not tried: its images are not there. Nothing if they are."""
        return self._absent(task.values["data"], task.values.get("root", "")) if "data" in task.values else ""

    def to_do(self) -> list[Task]:
        """The tasks that must run, and can."""
        tasks = self.tasks.values()
        return [task for task in tasks if (self.force or self.row(task) is None) and not self.absent(task)]

    def missing(self) -> dict[str, str]:
        """The tasks that are not finished, or failed in a forced run, and why: the error of their last run."""
        found = {}
        for name, task in self.tasks.items():
            said = task.log.read_text(errors="replace").splitlines() if task.log.exists() else []
            errors = [line.removeprefix("snr: ") for line in said if line.startswith("snr: ")]
            if self.row(task) is None:
                stale = STALE if result_path(task.output).exists() else ""
                found[name] = self.absent(task) or "".join(errors[-1:]) or stale or NOT_RUN
            elif self.force and errors:
                found[name] = errors[-1]
        return found


def _absent(data: str, root: str) -> str:
    from snrlib.data import SOURCES  # with torch: slow to import
    from snrlib.data.fetch.source import data_root, find

    if data not in SOURCES or find(root or None, *SOURCES[data].places):
        return ""
    return f"{data} is not in {data_root(root or None)}; `snr data fetch {data}`, or SNR_DATA=FOLDER"
