"""The parameters of a notebook: read strictly, so that none is lost and none has a value that cannot be."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nbformat

from snrlib.notebooks.find import find_notebook

__all__ = ["Parameter", "check_values", "parameters"]

_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "list[str]": list}
_NONE = ("auto", "none")  # the words for None
_LINE = re.compile(r"(\w+): ([\w\[\]]+) = ([^=#]+?)  # ([^=]+)")


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: ``name: type = default  # help [choices]``.

    The help ends with ``[a | b | c]`` for choices or ``[low to high]`` for a range, both ends included. ``[auto]``
    or ``[none]``, alone or before choices or a range, ``[auto | low to high]``, is the word for None: the notebook
    chooses, or does without. ``[path]``, alone or after these, is a file or folder: a relative one counts from where
    the value was given, since a notebook runs in the folder of the notebooks.
    """

    name: str
    type: str
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    low: float = float("-inf")
    high: float = float("inf")
    none: str = ""
    is_path: bool = False

    @property
    def kind(self) -> str:
        """Its type in words, with the word for None."""
        return f"{self.type} or {self.none}" if self.none else self.type

    @property
    def allowed(self) -> str:
        """The values it takes, in words; nothing if its type says all."""
        words = [self.none, *map(str, self.choices)]
        if self.low > float("-inf"):
            words.append(f"{self.low:.12g} to {self.high:.12g}")
        if self.is_path:
            words.append("path")
        return " | ".join(word for word in words if word)

    def parse(self, text: str) -> Any:
        """The value of ``name=text`` on the command line, checked."""
        if self.none and text == self.none:
            return None
        try:
            if self.type == "bool":
                value: Any = {"true": True, "false": False}[text.lower()]
            elif self.type == "list[str]":
                value = [item.strip() for item in text.split(",") if item.strip()]
            else:
                value = _TYPES[self.type](text)
        except (KeyError, ValueError):
            expected = "true or false" if self.type == "bool" else self.kind
            raise ValueError(f"{self.name} must be {expected}, got {text!r}") from None
        return self.check(value)

    def check(self, value: Any) -> Any:
        """The value itself if its type and size fit; an int is welcome for a float, a numpy number for both."""
        if value is None and self.none:
            return None
        if hasattr(value, "item"):
            value = value.item()
        if self.type == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not _TYPES[self.type]:
            raise ValueError(f"{self.name} must be {self.kind}, got {value!r} ({type(value).__name__})")
        items = value if isinstance(value, list) else [value]
        if self.type == "list[str]" and not all(isinstance(item, str) for item in items):
            raise ValueError(f"{self.name} must be a list of strings, got {value!r}")
        if self.is_path and value not in self.choices:
            return str(Path(str(value)).expanduser().absolute())
        if self.choices and not (items and set(items) <= set(self.choices)):
            raise ValueError(f"{self.name} must be one of {', '.join(map(str, self.choices))}; got {value!r}")
        if isinstance(value, int | float) and not self.low <= value <= self.high:
            raise ValueError(f"{self.name} must be from {self.low:.12g} to {self.high:.12g}, got {value!r}")
        return value


def parameters(name: str) -> dict[str, Parameter]:
    """The parameters of a notebook, from its cell tagged ``parameters``.

    papermill reads that cell line by line and passes over what it does not understand. Here a line that is not
    ``name: type = literal  # help``, with no other ``=`` or ``#`` in it, is an error.

    Raises:
        ValueError: no such notebook, more than one such cell, or a line of another form; the message names the line.
    """
    path = find_notebook(name)
    return dict(_parameters(path, path.stat().st_mtime_ns))


@lru_cache(maxsize=64)  # a grid asks for each of its cells
def _parameters(path: Path, changed: int) -> dict[str, Parameter]:
    """``changed`` is when the notebook was, so that it is read again then."""
    cells = nbformat.read(path, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) > 1:
        raise ValueError(f"{path.stem} has {len(tagged)} cells tagged parameters; one is the most")
    lines = tagged[0].source.splitlines() if tagged else []
    found = [_parse(line, path.stem) for line in lines if line.strip() and not line.startswith("#")]
    return {parameter.name: parameter for parameter in found}


def _parse(line: str, notebook: str) -> Parameter:
    match = _LINE.fullmatch(line)
    if not match or match[2] not in _TYPES:
        raise ValueError(
            f"in the parameters of {notebook}: {line!r} is not 'name: type = literal  # help' with no other = or #, "
            f"and a type of {', '.join(_TYPES)}"
        )
    name, type_name, literal, text = match.groups()
    choices: tuple[Any, ...] = ()
    low, high, none, is_path = float("-inf"), float("inf"), "", False
    if allowed := re.search(r"\s*\[([^\]]*)\]$", text):
        text = text[: allowed.start()]
        words = [word.strip() for word in allowed[1].split("|")]
        if words[0] in _NONE:
            none = words.pop(0)
        if is_path := words[-1:] == ["path"]:
            words.pop()
        if len(words) == 1 and (bounds := re.fullmatch(r"(\S+) to (\S+)", words[0])):
            low, high = float(bounds[1]), float(bounds[2])
        else:
            convert = _TYPES[type_name] if type_name in ("int", "float") else str
            choices = tuple(convert(word) for word in words)
    try:
        default = ast.literal_eval(literal)
    except (ValueError, SyntaxError):
        raise ValueError(f"in the parameters of {notebook}: {literal!r} is not a literal") from None
    parameter = Parameter(name, type_name, default, text, choices, low, high, none, is_path)
    if type(default) is not type(parameter.check(default)):
        raise ValueError(f"in the parameters of {notebook}: the default of {name} must be written as {type_name}")
    return parameter


def check_values(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for some parameters of a notebook, checked; none is converted from text.

    Raises:
        ValueError: an unknown name, a wrong type, or a value outside its choices or range.
    """
    known = parameters(name)
    if unknown := sorted(given.keys() - known.keys()):
        valid = ", ".join(known) or "none"
        raise ValueError(f"{find_notebook(name).stem} has no parameter {', '.join(unknown)}; valid: {valid}")
    checked = {key: known[key].check(value) for key, value in given.items()}
    if checked.get("interactive"):
        raise ValueError("sliders need a live kernel: open the notebook (make lab) and set interactive = True there")
    return checked
