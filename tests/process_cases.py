"""Processes that tests start, wait for and kill; and a folder for the processes of the tests themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest


def until(condition: Callable[[], Any], process: subprocess.Popen | None = None, seconds: float = 180) -> Any:
    """What the condition gives as soon as it holds; a failure if the process ends before, or time runs out."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := condition():
            return found
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail(f"it did not happen within {seconds:.0f} seconds")


def processes(*words: str) -> list[int]:
    """Processes whose command line has all these words; a NUL stands between its arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = path.read_bytes().decode(errors="replace")
            if all(word in line for word in words) and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def kill(pids: Iterable[int]) -> None:
    """As by ``kill -9``."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """One for the temporary files of all workers."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
