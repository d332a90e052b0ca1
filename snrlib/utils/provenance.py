"""Where a result comes from: the commit, the versions, the processor, and how its processes use memory."""

from __future__ import annotations

import ast
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from snrlib.utils.files import study_root

__all__ = ["ONE_THREAD", "cpu", "imported_files", "provenance", "versions"]

_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "matplotlib", "pandas", "papermill")

_LIBRARY = Path(__file__).resolve().parents[1]

ONE_THREAD: dict[str, str] = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**31),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}
"""Environment of processes that train, a thread each; glibc keeps the memory of one step for the next, which can save a
third of it.

By default it gives large arrays back to the system, which fills each with zeros anew.
"""


@cache
def versions() -> dict[str, str]:
    """Of the packages beneath the library that decide what a run gives."""
    return {name: version(name) for name in _PACKAGES}


def imported_files(code: str) -> list[Path]:
    """The files of this library that Python code imports, at once or when it is called, directly or through others.

    Beside a module, what lies in the ``assets`` of its folder, which it reads. As text: nothing is imported.

    >>> [path.name for path in imported_files("from snrlib.utils.checks import check_choice")]
    ['__init__.py', '__init__.py', 'checks.py']
    """
    found: dict[str, Path] = {}
    to_read = _imports(code)
    while to_read:
        name = to_read.pop()
        path = _LIBRARY.joinpath(*name.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name not in found and path.is_file():
            found[name] = path
            to_read |= _imports_of(path, path.stat().st_mtime_ns)
    assets = {asset for path in found.values() for asset in path.parent.glob("assets/*")}
    return sorted({*found.values(), *assets})


@cache  # a grid asks for each of its notebooks
def _imports_of(path: Path, changed: int) -> set[str]:
    """Those of a file as it is since ``changed``."""
    return _imports(path.read_text(encoding="utf-8"))


def _imports(code: str) -> set[str]:
    """Modules of the library, their packages, and names that may be modules."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in named if name.partition(".")[0] == _LIBRARY.name]
    return {".".join(names[: n + 1]) for names in parts for n in range(len(names))}


def provenance() -> dict[str, Any]:
    """What a result row says of where it comes from: commit, versions, and when."""
    return {
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), "snrlib": version("snrlib")} | versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """The commit of the study, with ``+changes`` if the tree differs from it; None outside a git checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(study_root()), *arguments], capture_output=True, encoding="utf-8", check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
