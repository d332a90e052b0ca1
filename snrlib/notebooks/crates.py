"""What a crate (`snrlib.utils.crate`) says of a notebook's parameters: their values, and the command of the run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from snrlib.notebooks.parameters import parameters
from snrlib.utils.crate import Value
from snrlib.utils.files import without_private

__all__ = ["command_of", "values_of_run"]


def values_of_run(notebook: str, chosen: Mapping[str, Any]) -> list[Value]:
    """Every parameter of a notebook, with the chosen value or its default."""
    known = parameters(notebook)
    return [Value(name, chosen.get(name, one.default), one.type, one.help) for name, one in known.items()]


def command_of(beginning: str, notebook: str, chosen: Mapping[str, Any]) -> str:
    """The command of a run, with the values that differ from the defaults; of a path the last part."""
    known = parameters(notebook)
    words = []
    for name, value in chosen.items():
        if value == known[name].default:
            continue
        text = known[name].none if value is None else ",".join(value) if isinstance(value, list) else str(value)
        words += ["-p", f"{name}={without_private(text, [text]) if known[name].is_path else text}"]
    return " ".join([beginning, shlex.join(words)]).strip()
