"""Run a notebook with parameters: strict about names, types and values; the output appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from traitlets.config import Config

from snrlib.notebooks.crates import command_of, values_of_run
from snrlib.notebooks.find import find_notebook
from snrlib.notebooks.inside import RECORD
from snrlib.notebooks.parameters import check_values, parameters
from snrlib.utils.crate import CRATE, check_no_other_crate, write_crate
from snrlib.utils.files import (
    data_folder,
    digest,
    json_text,
    partial_prefix,
    resolve_places,
    without_private,
    write_atomically,
    write_json,
)
from snrlib.utils.locks import one_at_a_time
from snrlib.utils.provenance import imported_files, provenance, versions

__all__ = [
    "KERNEL_CONFIG",
    "NotebookError",
    "default_output",
    "experiment_fingerprint",
    "is_current",
    "result_path",
    "result_row",
    "run",
    "source_fingerprint",
]

# Encrypt what passes between a run and its kernel; without it every kernel warns, and any local user can listen.
KERNEL_CONFIG = Config({"KernelManager": {"transport_encryption": "auto"}})

# What notebook 07 made when its result row did not list it yet.
_EARLIER_MADE = ("embeddings.npz", "history.csv", "model.pt", "scores.csv")


class NotebookError(RuntimeError):
    """A cell raised. ``partial`` is the copy that shows where, ``cause`` the error."""

    def __init__(self, notebook: str, partial: Path, cause: str):
        super().__init__(f"{notebook} failed: {cause}\nThe partial copy is {partial}")
        self.partial = partial


def default_output(name: str, given: Mapping[str, Any] | None = None) -> Path:
    """Where a run goes when nothing else is said: a folder in ``data/runs`` for each notebook and choice of values."""
    source = find_notebook(name)
    known = parameters(name)
    chosen = {key: value for key, value in check_values(name, given or {}).items() if value != known[key].default}
    label = "default"
    if chosen:
        label = digest(chosen)[:12]
    return data_folder("runs") / source.stem / label / source.name


def result_path(output: Path) -> Path:
    """Where the result row of a run stands: ``result.json`` beside its output. A folder holds one run."""
    return output.with_name("result.json")


def run(
    name: str,
    values: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    *,
    force: bool = False,
    wait: bool = False,
    skip_current: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Execute a notebook with parameters.

    Everything is checked before anything runs. The notebook is executed under a temporary name and renamed when it is
    whole; then the crate that describes the folder (`snrlib.utils.crate`) and the result row (parameters, seed,
    versions, commit, data fingerprints, wall time, metrics) are written the same way.

    Args:
        name: of the notebook, as in `find_notebook`.
        values: parameter values of the declared types; the others keep their defaults.
        output: the executed notebook; None chooses `default_output`.
        force: replace a named output, or a result row beside it, that exists. `default_output` is always replaced.
        wait: if another run is writing into this folder, wait for it instead of refusing.
        skip_current: if the output is there, up to date (`is_current`) and of the same values, return its row and run
            nothing.
        progress: show a progress bar.

    Returns:
        The result row, as in result.json, with ``output``.

    Raises:
        ValueError: unknown notebook, parameter, type or value.
        FileExistsError: the output or a result row beside it exists, or another run is writing there.
        OSError: the output's folder cannot be written.
        NotebookError: a cell raised or the kernel died; a copy up to there is kept as ``NAME.failed.ipynb``.
    """
    source = find_notebook(name)
    checked = check_values(name, values or {})
    target = default_output(name, checked) if output is None else Path(output).expanduser().resolve()
    if target.suffix != ".ipynb":
        raise ValueError(f"the output must end in .ipynb, got {target.name!r}")
    if target.parent == source.parent:
        raise FileExistsError(f"{target.parent} holds the notebooks themselves; choose another folder for the output")
    try:
        with one_at_a_time(target.parent, wait):
            if skip_current and is_current(target):
                row = json.loads(result_path(target).read_text(encoding="utf-8"))
                defaults = {key: known.default for key, known in parameters(source.stem).items()}
                if row["parameters"] == defaults | checked:
                    return {**row, "output": str(target)}
            if output is not None and not force:
                for taken in (target, result_path(target)):
                    if taken.exists():
                        raise FileExistsError(f"{taken} exists; choose another folder, or --force to replace it")
            replace = force and not skip_current
            if not replace:
                check_no_other_crate(target.parent)
            return _execute(source, checked, target, progress, replace)
    except OSError as error:
        if error.errno is None or not _concerns(error, target.parent):
            raise  # said in words already, or of a file elsewhere
        raise OSError(
            f"cannot write into {target.parent}: {error.strerror}. -o chooses another place for one run, "
            "SNR_RUNS=FOLDER for all"
        ) from error


def _concerns(error: OSError, folder: Path) -> bool:
    """Whether it is of a folder, of something in it, or of one that it is in."""
    place = Path(os.fsdecode(error.filename)) if error.filename else folder
    return folder.is_relative_to(place) or place.is_relative_to(folder)


def _execute(source: Path, values: dict[str, Any], target: Path, progress: bool, replace: bool) -> dict[str, Any]:
    """``replace`` files in the way that no run has made, too."""
    started = time.monotonic()
    result = result_path(target)
    failed = target.with_name(f"{target.stem}.failed.ipynb")
    row: dict[str, Any] = {}
    ours = _made_before(target)
    for left_behind in target.parent.glob(f"{escape(partial_prefix(target))}*"):  # by a killed run
        shutil.rmtree(left_behind) if left_behind.is_dir() else left_behind.unlink()
    decides = f"{source_fingerprint(source)}-{digest(values)[:8]}"
    checkpoints = target.with_name(f".{target.stem}.checkpoints-{decides}")
    for outdated in target.parent.glob(f"{escape(f'.{target.stem}.checkpoints-')}*"):
        if outdated != checkpoints:
            shutil.rmtree(outdated)

    def execute(temporary: Path) -> None:
        files = temporary.with_suffix("")  # what the notebook writes appears with the output, not before
        files.mkdir()
        places = {"SNR_RUN_FILES": str(files), "SNR_RUN_CHECKPOINTS": str(checkpoints)}
        try:
            if cause := _papermill(source, values, temporary, progress, places):
                publish(nbformat.read(temporary, as_version=4), temporary, files)
                os.replace(temporary, failed)
                raise NotebookError(source.stem, failed, cause)
            finish(temporary, files)
        finally:
            shutil.rmtree(files)

    def publish(executed: NotebookNode, temporary: Path, files: Path) -> None:
        executed.metadata.papermill |= {"input_path": source.name, "output_path": target.name}
        private = map(str, [*_paths(source, values), files, checkpoints])
        temporary.write_text(without_private(nbformat.writes(executed), private), encoding="utf-8")

    def finish(temporary: Path, files: Path) -> None:
        executed = nbformat.read(temporary, as_version=4)
        row.update(_result_row(source, values, executed))
        publish(executed, temporary, files)
        made = {file.relative_to(files).as_posix(): file for file in sorted(files.rglob("*")) if file.is_file()}
        if not replace and (taken := [name for name in made if (target.parent / name).exists() and name not in ours]):
            raise FileExistsError(
                f"{', '.join(taken)} in {target.parent} is of no run and would be replaced; move it away and run this "
                "again, which goes on from its checkpoints, or --force"
            )
        row["made"] = [*made]
        if made:
            write_json(_moving(target), {"made": row["made"]})
        for outdated in (result, target.with_name(CRATE)):
            outdated.unlink(missing_ok=True)  # from here until the new row is there, the run is not finished
        for name, file in made.items():
            place = target.parent / name
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)

    write_atomically(target, execute)
    row["wall_time_s"] = round(time.monotonic() - started, 2)
    _write_crate(source, values, target, row)
    write_json(result, row)
    _moving(target).unlink(missing_ok=True)
    failed.unlink(missing_ok=True)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return {**row, "output": str(target)}


def _write_crate(source: Path, values: dict[str, Any], target: Path, row: dict[str, Any]) -> None:
    """Before the result row, which says that all is there."""
    result = result_path(target).name
    files = {target.name: "the notebook, executed", result: "parameters, versions and numbers of the run"}
    write_crate(
        target.parent,
        f"Run of {source.stem}",
        files | dict.fromkeys(row["made"], "a file that the notebook wrote"),
        row,
        command=command_of(f"snr run {source.stem}", source.stem, values),
        values=values_of_run(source.stem, values),
        coming={result: json_text(row)},
    )


def _paths(source: Path, values: Mapping[str, Any]) -> list[Path]:
    """Those among the values of parameters."""
    known = parameters(source.stem)
    return [Path(value) for name, value in values.items() if known[name].is_path and value is not None]


def _made_before(target: Path) -> set[str]:
    """Names of the files beside an output that an earlier run has made, finished or not."""
    found: set[str] = set()
    for path, earlier in ((result_path(target), _EARLIER_MADE), (_moving(target), ())):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            found |= set(row.get("made", earlier))
        except (OSError, ValueError, TypeError, AttributeError):  # not there, or not ours
            continue
    return found


def _moving(target: Path) -> Path:
    """What says, while files are put beside an output, which they are."""
    return target.with_name(f".{target.stem}.made.json")


def _papermill(source: Path, values: dict[str, Any], output: Path, progress: bool, places: dict[str, str]) -> str:
    """Execute a notebook into ``output``; returns why it failed, or nothing. ``places`` are variables of its kernel."""
    import papermill  # here, since listing notebooks should not wait for it

    resolve_places()  # a kernel works in the folder of the notebooks
    # How to reach the kernel, a secret key included. In a folder for temporary files, which may be full, a killed run
    # would leave it.
    connection = output.with_suffix(".kernel") / "connection.json"
    connection.parent.mkdir(mode=0o700)
    before = {name: os.environ.get(name) for name in places}  # of a run that this one is part of
    os.environ.update(places)
    try:
        papermill.execute_notebook(
            *(str(path).replace("{", "{{").replace("}", "}}") for path in (source, output)),  # it formats them
            parameters=values,
            kernel_name="python3",
            cwd=str(source.parent),
            progress_bar=progress,
            config=Config({"KernelManager": {**KERNEL_CONFIG.KernelManager, "connection_file": str(connection)}}),
            extra_arguments=["--log-level=CRITICAL"],  # what a cell raises comes through the notebook
        )
    except papermill.exceptions.PapermillExecutionError as error:
        return f"cell {error.exec_count}: {error.ename}: {error.evalue}"
    except RuntimeError as error:  # nbclient's: the kernel died
        return f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(connection.parent, ignore_errors=True)  # the kernel may remove it itself
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    cells = nbformat.read(output, as_version=4).cells
    if any(cell.cell_type == "code" and cell.source and cell.execution_count is None for cell in cells):
        return "a cell ended the kernel before the last one"
    return ""


def _result_row(source: Path, values: dict[str, Any], executed: NotebookNode) -> dict[str, Any]:
    chosen = {key: parameter.default for key, parameter in parameters(source.stem).items()} | values
    row: dict[str, Any] = {"notebook": source.stem, "parameters": chosen, "seed": chosen.get("seed")}
    row |= {"metrics": {}, "data": {}}
    for cell in executed.cells:
        for shown in cell.get("outputs", []):
            if recorded := shown.get("data", {}).get(RECORD):
                row["metrics"] |= recorded["metrics"]
                row["data"] |= recorded["data"]
                if "experiment" in recorded:
                    row |= {"experiment": recorded["experiment"], "experiment_source": experiment_fingerprint(source)}
    return row | {"source": source_fingerprint(source), **provenance()}


def result_row(output: Path) -> dict[str, Any] | None:
    """The result row beside an output, whatever made it; None if either is not there or it is no row."""
    try:
        row = json.loads(result_path(output).read_text(encoding="utf-8")) if output.exists() else None
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) else None


def is_current(output: Path) -> bool:
    """Whether this output was finished by the present notebook and library."""
    row = result_row(output)
    try:
        return row is not None and row["source"] == source_fingerprint(find_notebook(row["notebook"]))
    except (ValueError, KeyError, TypeError, AttributeError):  # not a row of ours
        return False


def source_fingerprint(notebook: Path) -> str:
    """Of all that decides what a run shows: a notebook's cells, the code that they import, the versions beneath it."""
    cells = nbformat.read(notebook, as_version=4).cells
    return _fingerprint(cells, "\n".join(cell.source for cell in cells if cell.cell_type == "code"))


def experiment_fingerprint(notebook: Path) -> str:
    """Of all that decides the numbers of an experiment: as `source_fingerprint`, without the code that draws them."""
    return _fingerprint(nbformat.read(notebook, as_version=4).cells, "import snrlib.experiment")


def _fingerprint(cells: list[NotebookNode], code: str) -> str:
    found = hashlib.sha256()
    for cell in cells:
        found.update(cell.source.encode())
    for path in imported_files(code):
        found.update(path.read_bytes())
    found.update(" ".join(versions().values()).encode())
    return found.hexdigest()[:16]
