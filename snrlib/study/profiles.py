"""The profiles of ``study.yaml``: which runs of notebook 07 each asks for."""

from __future__ import annotations

import hashlib
import itertools
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from snrlib.notebooks.find import find_notebook
from snrlib.notebooks.parameters import Parameter, check_values, parameters
from snrlib.notebooks.run import result_path
from snrlib.utils.files import data_folder, study_root
from snrlib.utils.processes import Job

__all__ = ["AXES", "PER_SEED", "SCHEMA", "Task", "cells", "check", "profiles"]

AXES: tuple[str, ...] = ("data", "backbone", "distance", "loss", "seed")
"""What a block lists; its cells are all combinations."""
PER_SEED = "seed"
"""As the value of ``split``: every seed trains on another division of the classes, so that both vary."""
_MOST = 100_000  # entries of study.yaml, every alias counted as what it stands for
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
        "tuned_on": {"type": "string"},
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
"""Of ``study.yaml``: profiles, each a list of blocks; a block has `AXES` and ``settings``, other parameters of 07."""


@dataclass(frozen=True, eq=False)
class Task:
    """One run of a notebook: a cell of the grid, or a notebook as it stands.

    Attributes:
        notebook: its name.
        values: parameters that are not the defaults; of a cell, all its axes.
        output: where the executed copy goes, in a folder of its own.
        fixed: of a cell, the names of its values that are neither an axis nor tuned: they are part of its name.
        tuned_on: of a cell, the data set whose tuned values it takes; None is its own.
    """

    notebook: str
    values: dict[str, Any]
    output: Path
    fixed: tuple[str, ...] = ()
    tuned_on: str | None = None

    @property
    def name(self) -> str:
        """Its folder, counted from that of all runs."""
        return self.output.parent.relative_to(data_folder("runs")).as_posix()

    @property
    def is_cell(self) -> bool:
        """Whether it is a cell of the grid."""
        return set(AXES) <= self.values.keys()

    def job(self, force: bool = False) -> Job:
        """The command that runs it, for a task that is to do: a result that is there now is out of date.

        Without one, and without ``force``, it does nothing if another process has done it meanwhile.
        """
        given = [f"{key}={_text(value)}" for key, value in self.values.items()]
        options = [part for text in given for part in ("-p", text)]
        last = "--force" if force or result_path(self.output).exists() else "--renew"
        command = (sys.executable, "-m", "snrlib", "run", self.notebook, *options, "-o", str(self.output), last)
        return Job(self.name, command, self.output.with_name("run.log"))


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
        content = _only_plain(yaml.load(path.read_text(encoding="utf-8-sig"), _Strict))
    except UnicodeDecodeError as error:
        raise ValueError(f"study.yaml is not UTF-8: {error}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"study.yaml: {error}") from None
    if wrong := jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(SCHEMA).iter_errors(content)):
        place = ".".join(map(str, wrong.absolute_path)) or "at its top"
        valid = (
            f"; a block has {', '.join(AXES)}, settings and tuned_on"
            if wrong.validator == "additionalProperties"
            else ""
        )
        raise ValueError(f"study.yaml, {place}: {wrong.message}{valid}")
    return content["profiles"]


class _Strict(yaml.SafeLoader):
    """Refuses what YAML passes over: a key that stands twice, of which the last would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [value for tag, value in keys if keys.count((tag, value)) > 1 and not tag.endswith(":merge")]:
            raise ValueError(f"the key {twice[0]!r} stands twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def _only_plain(content: Any) -> Any:
    """Refuse keys that are no text, and aliases that grow beyond measure or into themselves."""
    sizes: dict[int, int] = {}

    def size(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in sizes:
            sizes[id(value)] = _MOST  # while it is being counted: what holds itself has no end
            if isinstance(value, dict) and (wrong := [key for key in value if not isinstance(key, str)]):
                raise ValueError(f"a name must be a text, got {wrong[0]!r}; put it in quotes")
            sizes[id(value)] = 1 + sum(map(size, value.values() if isinstance(value, dict) else value))
        if sizes[id(value)] >= _MOST:
            raise ValueError(f"its aliases make it larger than {_MOST:,} entries")
        return sizes[id(value)]

    size(content)
    return content


def cells(profile: str, tuned_values: bool = True) -> list[Task]:
    """The cells of a profile, names, types and choices checked against the parameters of notebook 07.

    Args:
        profile: its name.
        tuned_values: whether what a block leaves open is what `snrlib.study.tuning` found; a cell that has none takes
            what suits the network.

    Raises:
        ValueError: an unknown profile, parameter or value; the message has the valid ones.
    """
    known = profiles()
    if profile not in known:
        raise ValueError(f"unknown profile {profile!r}; study.yaml has {', '.join(known)}")
    if not known[profile]:
        return []
    declared = parameters("07")
    checked = cache(lambda key, value: check_values("07", {key: value})[key])
    found: dict[str, Task] = {}
    for number, block in enumerate(known[profile]):
        try:
            settings = dict(block.get("settings", {}))
            by_seed = settings.get("split") == PER_SEED
            if by_seed:
                del settings["split"]
            fixed = {key: checked(key, _from_study(declared.get(key), value)) for key, value in settings.items()}
            axes = [[checked(axis, value) for value in block[axis]] for axis in AXES]
            tuned_on = block.get("tuned_on")
            if tuned_on not in (None, *block["data"]):
                raise ValueError(f"tuned_on must be one of its data, {', '.join(block['data'])}, got {tuned_on!r}")
        except ValueError as error:
            raise ValueError(f"study.yaml, profiles.{profile}.{number}: {error}") from None
        for combination in itertools.product(*axes):
            axes_of = dict(zip(AXES, combination, strict=True))
            cell = _cell(axes_of, fixed, declared, profile if tuned_values else None, by_seed, tuned_on)
            if found.setdefault(cell.name, cell).values != cell.values:
                raise ValueError(f"study.yaml, profile {profile}: two different cells are called {cell.name}")
    return list(found.values())


def _from_study(parameter: Parameter | None, value: Any) -> Any:
    """A path as it is meant in ``study.yaml``: from the folder of the study."""
    if parameter is None or not parameter.is_path or value in (None, *parameter.choices):
        return value
    return str((study_root() / Path(value).expanduser()).resolve())


def _cell(
    axes: dict[str, Any],
    fixed: dict[str, Any],
    declared: dict[str, Parameter],
    tuned_for: str | None,
    by_seed: bool,
    tuned_on: str | None,
) -> Task:
    """Named by its values, the tuned ones aside: other ones make its result out of date.

    A setting that says the default is left out, so that the same run has one name.
    """
    others = {key: value for key, value in sorted(fixed.items()) if value != declared[key].default}
    named = [*(str(axes[axis]) for axis in AXES[:-1]), *(f"{key}={_label(value)}" for key, value in others.items())]
    if by_seed:
        named.append(f"split={PER_SEED}")
    split = {"split": axes["seed"]} if by_seed and axes["seed"] else {}
    folder = data_folder("runs") / "grid" / "-".join([*named, f"seed={axes['seed']}"])
    stem = find_notebook("07").stem
    found: dict[str, float] = {}
    if tuned_for is not None:
        from snrlib.study.tuned import tuned_parameters  # with torch: slow to import

        defaults = {key: parameter.default for key, parameter in declared.items()}
        open_ = tuned_parameters(defaults | axes | others | ({"data": tuned_on} if tuned_on else {}), tuned_for)
        found = {key: declared[key].check(value) for key, value in open_.items()}
    return Task(stem, axes | others | split | found, folder / f"{stem}.ipynb", tuple(others), tuned_on)


def _text(value: Any) -> str:
    """A value as it is written on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _label(value: Any) -> str:
    """A value as part of a file name; a path by its last part and a few digits of its own."""
    text = _text(value)
    if re.fullmatch(r"[\w.+-]+", text):
        return text
    return re.sub(r"[^\w.+-]+", "_", Path(text).name) + "." + hashlib.sha256(text.encode()).hexdigest()[:6]


def check(tasks: list[Task]) -> None:
    """Whether every cell can exist: what does not go together is refused before anything runs.

    Raises:
        ValueError: with the name of the cell and the reason.
    """
    from snrlib.backbones import how_to_pretrain  # with torch: slow to import
    from snrlib.study.tuned import from_parameters

    declared = {key: known.default for key, known in parameters("07").items()} if tasks else {}
    alike = {tuple((key, value) for key, value in task.values.items() if key != "seed"): task for task in tasks}
    for task in alike.values():
        try:
            weights = from_parameters(declared | task.values).weights_path
            if weights is not None and not weights.is_file():
                raise ValueError(f"its weights, {weights}, are not there{how_to_pretrain(weights)}")
        except ValueError as error:
            raise ValueError(f"{task.name} cannot be: {error}") from None
