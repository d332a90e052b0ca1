"""Where a result comes from: the commit, the versions, the processor, and how its processes use memory."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from snrlib.utils.files import study_root

__all__ = ["MEMORY", "cpu", "provenance", "versions"]

_PACKAGES = ("snrlib", "torch", "numpy", "scipy", "scikit-learn", "matplotlib", "pandas", "papermill")

MEMORY: dict[str, str] = {"MALLOC_MMAP_THRESHOLD_": str(2**31), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
"""Environment of processes that train: glibc keeps the memory of one step for the next, which can save a third of it.

By default it gives large arrays back to the system, which fills each with zeros anew.
"""


def versions() -> dict[str, str]:
    """Of the library, and of the packages beneath it that decide what a run gives."""
    return {name: version(name) for name in _PACKAGES}


def provenance() -> dict[str, Any]:
    """What a result row says of where it comes from: commit, versions, and when."""
    return {
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version()} | versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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
