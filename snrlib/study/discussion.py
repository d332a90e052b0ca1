"""The discussion of the scoreboard's notebook, for those who do not open it: the README and the page quote it."""

from __future__ import annotations

import re

import nbformat

from snrlib.notebooks.find import find_notebook

__all__ = ["discussion"]

_NOTEBOOK, _HEADING = "12_scoreboard", "## The discussion that the report announces"


def discussion() -> str:
    """Questions and answers as Markdown, in plain sentences; cells of the notebook assert each from the stored tables.

    Raises:
        FileNotFoundError, ValueError: there is no such notebook, or no discussion in it.
    """
    path = find_notebook(_NOTEBOOK)
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and cell.source.startswith(_HEADING):
            told = re.findall(r"^\*\*.+?\?\*\* .+$", cell.source, re.MULTILINE)
            source = f"From the discussion in [{path.stem[:2]}]({path.name}), where every sentence is asserted."
            return "\n\n".join([*told, source])
    raise ValueError(f"{path.name} has no section {_HEADING.removeprefix('## ')!r}")
