"""The library without what Windows lacks. There was no Windows to try it on: this shows what of Linux is not needed.

In every Python process of a test, modules of this library, and they alone, are told that they are on Windows: they
find no `fcntl`, `resource` and the like, and in `os` and `signal` nothing that Windows has not. What other packages do
there, they know themselves. ``mypy --platform win32`` (`make lint`) finds the rest of what could be missing.
"""

import os
import pkgutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process_cases import processes, until

import snrlib

ELSEWHERE = """
import builtins, importlib.machinery, os, signal, sys, types

ABSENT = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "tty"}
LACKS = {
    os: {"fork", "killpg", "getpgrp", "setpgrp", "getpgid", "setsid", "getuid", "geteuid", "getgid", "nice", "uname",
         "sched_getaffinity", "mkfifo", "fchmod", "chown", "statvfs", "sysconf", "getloadavg", "WNOHANG", "pread"},
    signal: {"SIGKILL", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGUSR1", "alarm", "pthread_sigmask", "pause"},
    sys: set(),
}


class Windows(types.ModuleType):
    def __init__(self, real):
        super().__init__(real.__name__)
        self.__dict__["_real"] = real

    def __getattr__(self, name):
        if name in LACKS[self._real]:
            raise AttributeError(f"on Windows {self.__name__} has no {name}")
        return "win32" if self._real is sys and name == "platform" else getattr(self._real, name)


seen = {module.__name__: Windows(module) for module in LACKS}
usual = builtins.__import__


def import_(name, globals=None, locals=None, fromlist=(), level=0):
    whose = (globals or {}).get("__name__", "")
    file = (globals or {}).get("__file__") or ""
    if whose.partition(".")[0] == "snrlib" or (whose == "__main__" and "snrlib" in file):
        if name in ABSENT:
            raise ModuleNotFoundError(f"Windows has no {name}", name=name)
        if name in seen:
            return seen[name]
    return usual(name, globals, locals, fromlist, level)


builtins.__import__ = import_
"""
JOBS = """
import sys
from pathlib import Path
from snrlib.utils import processes
processes.run_jobs([processes.Job("one", ("sh", "-c", sys.argv[2]), Path(sys.argv[1], "log"))], 1)
"""


@pytest.fixture
def windows(tmp_path: Path) -> dict[str, str]:
    """The environment of processes that take this for Windows, and end at a text without an encoding."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(ELSEWHERE, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(snrlib.__file__).parents[1])])
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "SNR_RUNS": str(tmp_path / "runs"), "PYTHONUTF8": "0"}
    return {**os.environ, **own}


def _run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, encoding="utf-8", timeout=300
    )


def test_every_module_is_imported_without_posix(windows: dict[str, str]) -> None:
    names = [one.name for one in pkgutil.walk_packages(snrlib.__path__, "snrlib.") if one.name != "snrlib.__main__"]
    assert len(names) > 150
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    check = "assert sys.modules['snrlib.utils.files'].sys.platform == 'win32'"
    done = _run(windows, "-c", code + check, *names)
    assert done.returncode == 0, done.stderr
    refused = _run(windows, "-c", "import snrlib.utils.files as f; exec('import fcntl', vars(f))")
    assert "Windows has no fcntl" in refused.stderr, "else nothing is shown here"


def test_commands_run_without_posix(windows: dict[str, str], tmp_path: Path) -> None:
    for arguments in (["list"], ["params", "01"], ["article", "-o", str(tmp_path / "article.html")]):
        done = _run({**windows, "PYTHONIOENCODING": "utf-8"}, "-m", "snrlib", *arguments)
        assert done.returncode == 0, done.stderr
    output = tmp_path / "out" / "03.ipynb"
    done = _run(windows, "-m", "snrlib", "run", "03", "-o", str(output))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in output.parent.iterdir()} >= {"03.ipynb", "result.json"}
    assert not [path for path in output.parent.iterdir() if path.name.startswith(".")], "no lock is left"


def test_texts_are_read_and_written_as_utf8(windows: dict[str, str], tmp_path: Path) -> None:
    strict = ["-X", "warn_default_encoding", "-W", "error::EncodingWarning:snrlib"]
    found = [_run(windows, *strict, "-m", "snrlib", *command) for command in (["list"], ["params", "07"])]
    assert [one.stderr for one in found] == ["", ""]


def test_what_a_pipe_cannot_take_is_replaced(windows: dict[str, str], tmp_path: Path) -> None:
    page = tmp_path / "\u2211.html"  # no character of the 256 that a pipe takes there
    done = _run({**windows, "PYTHONIOENCODING": "cp1252"}, "-m", "snrlib", "playground", "-o", str(page))
    assert done.returncode == 0, done.stderr
    assert "?.html" in done.stdout
    assert page.exists()


def test_grading_says_that_it_needs_more(windows: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "01_signal_and_noise.ipynb").write_text("{}", encoding="utf-8")
    for walls in ([], ["--without-walls"]):
        marks = str(tmp_path / "marks.csv")
        done = _run(windows, "-m", "snrlib", "grade", str(tmp_path), "-o", marks, *walls)
        assert (done.returncode, "cannot be held to limits on Windows" in done.stderr) == (2, True), done.stderr


def test_jobs_and_theirs_end_without_groups(windows: dict[str, str], tmp_path: Path) -> None:
    lasting = f"sleep 2000.{os.getpid()}"
    driver = subprocess.Popen([sys.executable, "-c", JOBS, str(tmp_path), f"{lasting} & {lasting}; true"], env=windows)
    until(lambda: len(processes(lasting.replace(" ", "\0"))) == 2, driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait(timeout=30)
    until(lambda: not processes(lasting.split()[1]), seconds=20)
