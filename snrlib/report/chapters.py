"""What there is of each notebook to show: its last run, or the stored outputs and the reason."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from snrlib.notebooks.find import title
from snrlib.notebooks.run import default_output, is_current, result_path
from snrlib.utils.files import partial_prefix

__all__ = ["Chapter", "chapter", "is_row"]

_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, nbformat.ValidationError)
_ROW: dict[str, Any] = {
    **{"notebook": str, "source": str, "finished": str, "wall_time_s": int | float},
    **dict.fromkeys(("parameters", "metrics", "data", "versions"), dict),
}


@dataclass(frozen=True)
class Chapter:
    """One notebook as the report shows it.

    Attributes:
        source: the notebook of the study.
        question: its H1.
        notebook: with outputs: of its default run, or as stored with the study.
        row: of the run, from its result.json; None if the outputs are the stored ones.
        notes: what is wrong with its run.
    """

    source: Path
    question: str
    notebook: NotebookNode
    row: dict[str, Any] | None
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        """As in the notebooks' own navigation."""
        return self.source.stem.replace("_", " ")

    @property
    def origin(self) -> str:
        """Where its outputs come from, in a few words."""
        if self.row is None:
            return "outputs stored with the study"
        return f"run of {self.row['finished'][:10]}, {self.row['wall_time_s']:.0f}\N{NO-BREAK SPACE}s"


def chapter(source: Path) -> Chapter:
    """What there is of a notebook: its default run if that is whole, else the stored notebook and the reason.

    Raises:
        ValueError: the notebook itself is damaged.
    """
    try:
        stored = _read(source)
    except _DAMAGE as error:
        raise ValueError(f"{source} is damaged: {_first_line(error)}") from error
    output = default_output(source.stem)
    row, notebook, notes = None, stored, []
    if failed := _failure(output.with_name(f"{source.stem}.failed.ipynb")):
        notes.append(f"the last run failed, {failed}")
    elif list(output.parent.glob(f"{partial_prefix(output)}*.ipynb")):
        notes.append("a run was cut off, or is still going on.")
    if output.exists() or result_path(output).exists():
        try:
            row, notebook = _run(source, output)
        except (OSError, ValueError) as error:
            place = f"{source.stem}/{output.parent.name}"
            notes.append(f"the run in {place} cannot be used, {_first_line(error)}; `snr study` repeats it.")
        else:
            if not is_current(output):
                notes.append("run by an earlier version of the notebook or the library; `snr study` repeats it.")
    elif not notes:
        notes.append("not run here; `snr study` runs it.")
    return Chapter(source, title(source), notebook, row, tuple(notes))


def _read(path: Path) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def _run(source: Path, output: Path) -> tuple[dict[str, Any], NotebookNode]:
    """The result row and the executed notebook of a run."""
    for path in (output, result_path(output)):
        if not path.exists():
            raise ValueError(f"{path.name} is missing")
    try:
        row = json.loads(result_path(output).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"result.json is not JSON: {error}") from error
    if not is_row(row):
        raise ValueError("result.json is not the row of a run")
    if row["notebook"] != source.stem:
        raise ValueError(f"result.json is of {row['notebook']}")
    try:
        return row, _read(output)
    except _DAMAGE as error:
        raise ValueError(f"{output.name} is damaged: {_first_line(error)}") from error


def is_row(row: object) -> bool:
    """Whether this is what `snrlib.notebooks.run` writes into a result.json."""
    return isinstance(row, dict) and all(isinstance(row.get(key), kind) for key, kind in _ROW.items())


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _failure(partial: Path) -> str:
    """Why the run failed that left this copy, and where the copy is; nothing if there is none."""
    if not partial.exists():
        return ""
    cause = "the kernel ended before the last cell"
    try:
        for cell in _read(partial).cells:
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    cause = f"cell {cell.execution_count}, {output.ename}: {output.evalue}".partition("\n")[0]
    except _DAMAGE:
        cause = "and the copy that it left is damaged"
    return f"{cause} (partial copy: {'/'.join(partial.parts[-3:])})."
