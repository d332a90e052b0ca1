"""Run a notebook with parameters: strict about names, types and values; the output appears whole or not at all."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import papermill
from filelock import FileLock, Timeout
from IPython.display import display
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from snrlib.data.base import LabelledImages
from snrlib.files import data_folder, partial_prefix, study_root, write_atomically

__all__ = [
    "KERNEL_CONFIG",
    "NotebookError",
    "Parameter",
    "default_output",
    "find_notebook",
    "is_current",
    "notebooks",
    "parameters",
    "record",
    "result_path",
    "run",
    "title",
]

_RECORD = "application/vnd.snrlib.record+json"
# Encrypt what passes between a run and its kernel; without it every kernel warns, and any local user can listen.
KERNEL_CONFIG = Config({"KernelManager": {"transport_encryption": "auto"}})
_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "list[str]": list}
_VERSIONS = ("snrlib", "torch", "numpy", "scipy", "scikit-learn", "matplotlib", "pandas", "papermill")


class NotebookError(RuntimeError):
    """A cell raised. ``partial`` is the copy that shows where, ``cause`` the error."""

    def __init__(self, notebook: str, partial: Path, cause: str):
        super().__init__(f"{notebook} failed: {cause}\nThe partial copy is {partial}")
        self.partial = partial


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: ``name: type = default  # help [choices]``.

    The help ends with ``[a | b | c]`` for choices or ``[low to high]`` for a range, both ends included.
    """

    name: str
    type: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float = float("-inf")
    high: float = float("inf")

    def parse(self, text: str) -> Any:
        """The value of ``name=text`` on the command line, checked."""
        try:
            if self.type == "bool":
                value: Any = {"true": True, "false": False}[text.lower()]
            elif self.type == "list[str]":
                value = [item.strip() for item in text.split(",") if item.strip()]
            else:
                value = _TYPES[self.type](text)
        except (KeyError, ValueError):
            expected = "true or false" if self.type == "bool" else self.type
            raise ValueError(f"{self.name} must be {expected}, got {text!r}") from None
        return self.check(value)

    def check(self, value: Any) -> Any:
        """The value itself if its type and size fit; an int is welcome where a float is expected."""
        if self.type == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not _TYPES[self.type]:
            raise ValueError(f"{self.name} must be {self.type}, got {value!r} ({type(value).__name__})")
        items = value if isinstance(value, list) else [value]
        if self.type == "list[str]" and not all(isinstance(item, str) for item in items):
            raise ValueError(f"{self.name} must be a list of strings, got {value!r}")
        if self.choices and not (items and set(items) <= set(self.choices)):
            raise ValueError(f"{self.name} must be one of {', '.join(self.choices)}; got {value!r}")
        if isinstance(value, int | float) and not self.low <= value <= self.high:
            raise ValueError(f"{self.name} must be from {self.low:.12g} to {self.high:.12g}, got {value!r}")
        return value


def notebooks() -> list[Path]:
    """The numbered notebooks, in order."""
    return sorted((study_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def find_notebook(name: str) -> Path:
    """The notebook called ``03``, ``03_correlation`` or ``03_correlation.ipynb``.

    Raises:
        ValueError: there is none of this name; the message lists those there are.
    """
    stem = Path(name).name.removesuffix(".ipynb")
    for path in notebooks():
        if stem in (path.stem, path.stem[:2]):
            return path
    known = ", ".join(path.stem for path in notebooks()) or f"none in {study_root() / 'notebooks'}"
    raise ValueError(f"no notebook {name!r}; there are: {known}")


def title(path: Path) -> str:
    """The question that is the notebook's H1."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and (match := re.search(r"^# (.+)$", cell.source, re.MULTILINE)):
            return match[1]
    raise ValueError(f"{path.name} has no H1")


def parameters(name: str) -> dict[str, Parameter]:
    """The parameters of a notebook, read from its cell tagged ``parameters`` as papermill reads them.

    Raises:
        ValueError: no such notebook, or a line that is not ``name: type = literal  # help``.
    """
    found = {}
    for key, raw in papermill.inspect_notebook(str(find_notebook(name))).items():
        type_name = raw["inferred_type_name"].replace(" ", "").replace("List", "list")
        if type_name not in _TYPES:
            raise ValueError(f"parameter {key} of {name} has type {type_name}; use one of {', '.join(_TYPES)}")
        text = raw["help"].strip()
        choices: tuple[str, ...] = ()
        low, high = float("-inf"), float("inf")
        if match := re.search(r"\s*\[([^\]]*)\]$", text):
            text = text[: match.start()]
            if bounds := re.fullmatch(r"(\S+) to (\S+)", match[1]):
                low, high = float(bounds[1]), float(bounds[2])
            else:
                choices = tuple(choice.strip() for choice in match[1].split("|"))
        found[key] = Parameter(key, type_name, ast.literal_eval(raw["default"]), text, choices, low, high)
    return found


def _checked(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Given values, typed and checked; strings are parsed only where the parameter is not a string itself."""
    known = parameters(name)
    if unknown := sorted(given.keys() - known.keys()):
        valid = ", ".join(known) or "none"
        raise ValueError(f"{find_notebook(name).stem} has no parameter {', '.join(unknown)}; valid: {valid}")
    checked = {key: known[key].check(value) for key, value in given.items()}
    if checked.get("interactive"):
        raise ValueError("sliders need a live kernel: open the notebook (make lab) and set interactive = True there")
    return checked


def default_output(name: str, given: Mapping[str, Any] | None = None) -> Path:
    """Where a run goes when nothing else is said: a folder in ``data/runs`` for each notebook and choice of values."""
    source = find_notebook(name)
    known = parameters(name)
    chosen = {key: value for key, value in (given or {}).items() if value != known[key].default}
    label = "default"
    if chosen:
        label = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]
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
    progress: bool = False,
) -> dict[str, Any]:
    """Execute a notebook with parameters.

    Everything is checked before anything runs. The notebook is executed under a temporary name and renamed when it is
    whole; then the result row (parameters, seed, versions, commit, data fingerprints, wall time, metrics) is written
    the same way.

    Args:
        name: of the notebook, as in `find_notebook`.
        values: parameter values of the declared types; the others keep their defaults.
        output: the executed notebook; None chooses `default_output`.
        force: replace a named output, or a result row beside it, that exists. `default_output` is always replaced.
        wait: if another run is writing this output, wait for it instead of refusing.
        progress: show a progress bar.

    Returns:
        The result row, as in result.json, with ``output``.

    Raises:
        ValueError: unknown notebook, parameter, type or value.
        FileExistsError: the output or a result row beside it exists, or another run is writing it.
        OSError: the output's folder cannot be written.
        NotebookError: a cell raised; a copy up to there is kept as ``NAME.failed.ipynb``.
    """
    source = find_notebook(name)
    checked = _checked(name, values or {})
    target = default_output(name, checked) if output is None else Path(output).expanduser().resolve()
    if target.suffix != ".ipynb":
        raise ValueError(f"the output must end in .ipynb, got {target.name!r}")
    if target.parent == source.parent:
        raise FileExistsError(f"{target.parent} holds the notebooks themselves; choose another folder for the output")
    if output is not None and not force:
        for taken in (target, result_path(target)):
            if taken.exists():
                raise FileExistsError(f"{taken} exists; choose another folder, or --force to replace it")
    with _lock(target, wait):
        return _execute(source, checked, target, progress)


@contextmanager
def _lock(target: Path, wait: bool) -> Iterator[None]:
    digest = hashlib.sha256(str(target).encode()).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir()) / f"snr-{digest}.lock")
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise FileExistsError(f"another run is writing {target}; wait for it, or choose another output") from None
    try:
        yield
    finally:
        lock.release()


def _execute(source: Path, values: dict[str, Any], target: Path, progress: bool) -> dict[str, Any]:
    started = time.monotonic()
    result = result_path(target)
    failed = target.with_name(f"{target.stem}.failed.ipynb")
    row: dict[str, Any] = {}
    for left_behind in target.parent.glob(f"{partial_prefix(target)}*"):  # by a killed run; this one holds the lock
        left_behind.unlink()

    def execute(temporary: Path) -> None:
        try:
            papermill.execute_notebook(
                str(source),
                str(temporary),
                parameters=values,
                kernel_name="python3",
                cwd=str(source.parent),
                progress_bar=progress,
                config=KERNEL_CONFIG,
                extra_arguments=["--log-level=CRITICAL"],  # what a cell raises comes through the notebook
            )
        except PapermillExecutionError as error:
            os.replace(temporary, failed)
            cause = f"cell {error.exec_count}: {error.ename}: {error.evalue}"
            raise NotebookError(source.stem, failed, cause) from error
        row.update(_result_row(source, values, temporary))
        result.unlink(missing_ok=True)  # from here until the new row is there, the run is not finished

    write_atomically(target, execute)
    row["wall_time_s"] = round(time.monotonic() - started, 2)
    write_atomically(result, lambda path: path.write_text(json.dumps(row, indent=2) + "\n"))
    failed.unlink(missing_ok=True)
    return {**row, "output": str(target)}


def _result_row(source: Path, values: dict[str, Any], executed: Path) -> dict[str, Any]:
    chosen = {key: parameter.default for key, parameter in parameters(source.stem).items()} | values
    metrics: dict[str, Any] = {}
    data: dict[str, str] = {}
    for cell in nbformat.read(executed, as_version=4).cells:
        for shown in cell.get("outputs", []):
            if recorded := shown.get("data", {}).get(_RECORD):
                metrics |= recorded["metrics"]
                data |= recorded["data"]
    return {
        "notebook": source.stem,
        "parameters": chosen,
        "seed": chosen.get("seed"),
        "metrics": metrics,
        "data": data,
        "source": _source_fingerprint(source),
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _VERSIONS},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def record(metrics: Mapping[str, Any], *data: LabelledImages) -> None:
    """Say in a notebook which numbers, and which data, belong in the run's result row.

    Args:
        metrics: names to numbers or strings; a later record of the same name replaces an earlier one.
        data: the data sets used; their fingerprints are kept.
    """
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in metrics.items()}
    text = ", ".join(
        f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}" for key, value in plain.items()
    )
    content = {"metrics": plain, "data": {images.name: images.fingerprint for images in data}}
    display({_RECORD: content, "text/plain": f"Recorded: {text}"}, raw=True)


def is_current(output: Path) -> bool:
    """Whether this output was finished by the notebook and library as they are now."""
    result = result_path(output)
    if not (output.exists() and result.exists()):
        return False
    try:
        row = json.loads(result.read_text())
        return row["source"] == _source_fingerprint(find_notebook(row["notebook"]))
    except (ValueError, KeyError):
        return False


def _source_fingerprint(notebook: Path) -> str:
    """Of all that decides a run's outcome here: the notebook's cells, the library, and the versions beneath it."""
    digest = hashlib.sha256()
    for cell in nbformat.read(notebook, as_version=4).cells:
        digest.update(cell.source.encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    digest.update(" ".join(version(name) for name in _VERSIONS).encode())
    return digest.hexdigest()[:16]


def _git_commit() -> str | None:
    """The commit of the study, with ``+changes`` if the tree differs from it; None outside a git checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(study_root()), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
