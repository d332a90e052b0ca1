"""What a submission may do while it is graded: a time, a memory, no network, and of the files only what Python needs.

On Linux the process gets namespaces of its own, by the programs `unshare`, `mount`, `chroot` and `setpriv` of every
distribution, without root: no network device, no other process, and a file system that holds, read-only, the system's
libraries, this Python and the package `snrlib`, and a working folder in memory that is its home, too. Neither the
notebooks with their hidden tests nor the other submissions nor anything in a home folder is in it. It is one kernel all
the same: whoever fears a hole in that runs `snr grade` in a virtual machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import snrlib

__all__ = ["EndedError", "Limits", "Process", "check_limits", "check_walls"]

# Process 1 of the new namespaces: it stays outside the new root, keeps its rights, and all others end with it.
_BUILD = r"""
set -eu
root=$1; size=$2; shift 2
mount -t tmpfs -o "size=$size,mode=755" tmpfs "$root"
while [ "$1" != -- ]; do
    mkdir -p "$root$(dirname "$1")"
    if [ -L "$1" ]; then ln -s "$(readlink "$1")" "$root$1"
    else
        mkdir -p "$root$1"
        mount --bind "$1" "$root$1"
        mount -o remount,bind,ro,nosuid,nodev "$root$1"
    fi
    shift
done
shift
mkdir -p "$root/proc" "$root/dev" "$root/tmp"
mount -t proc proc "$root/proc"
for device in null zero random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
chroot "$root" setpriv --no-new-privs --bounding-set=-all --inh-caps=-all sh -c 'cd /tmp; exec "$@"' pupil "$@"
exit $?
"""
_UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork")


class EndedError(BaseException):  # no check that catches an Exception may take it for a student's
    """The process is gone: its time was up, it was killed, or it ended itself."""


@dataclass(frozen=True)
class Limits:
    """Of one exercise.

    Attributes:
        seconds: of running its cell and its check.
        start_seconds: of the start, with the imports of the notebook's setup.
        memory: bytes of address space for each process.
        files: bytes of a file, and of all together.
        processes: at a time; root is not held to it.
        answer: bytes of one answer.
    """

    seconds: float = 20
    start_seconds: float = 120
    memory: int = 4 << 30
    files: int = 64 << 20
    processes: int = 64
    answer: int = 1 << 20


def _command(limits: Limits, walls: bool, root: str) -> list[str]:
    own = [str(number) for number in (limits.memory, limits.files, limits.processes)]
    python = [sys.executable, "-B", "-s", "-m", "snrlib.teach.pupil", *own]
    if not walls:
        return python
    package = str(Path(snrlib.__file__).parent)
    needed = ["/usr", "/bin", "/sbin", "/lib", "/lib64", sys.base_prefix, sys.prefix, package]
    places = [place for place in dict.fromkeys(needed) if os.path.exists(place) and not _inside(place, needed)]
    return [*_UNSHARE, "--", "sh", "-c", _BUILD, "walls", root, str(limits.files), *places, "--", *python]


def _inside(place: str, others: list[str]) -> bool:
    return any(other != place and Path(place).is_relative_to(other) for other in others)


class Process:
    """A `snrlib.teach.pupil` behind walls; `close` ends it and all that it started.

    Args:
        limits: of time, memory and files.
        walls: False leaves it every file and the network of whoever grades.
        folder: an empty one: where its files are mounted, or without walls the place it works in.
    """

    def __init__(self, limits: Limits, walls: bool, folder: Path) -> None:
        self._limits, self._timed_out = limits, False
        kept = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
        home = "/tmp" if walls else str(folder)
        kept |= {"HOME": home, "TMPDIR": home, "MPLCONFIGDIR": home, "MPLBACKEND": "agg", "PYTHONHASHSEED": "0"}
        kept["PYTHONPATH"] = str(Path(snrlib.__file__).parent.parent)
        self._process = subprocess.Popen(
            _command(limits, walls, str(folder)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=kept,
            cwd=folder,
            start_new_session=True,
        )

    def close(self) -> None:
        """End it and let go of its pipes."""
        self.kill()
        self._process.communicate()

    def kill(self) -> None:
        """End it, and all that it has started, at once."""
        if sys.platform != "win32":  # where `check_limits` lets nobody begin
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def ask(self, order: bytes, seconds: float) -> bytes:
        """One answer to one order, both a line.

        Raises:
            EndedError: there was none in time, or none of the size that is allowed; the process is gone.
        """
        timer = threading.Timer(max(seconds, 0), self._time_is_up)
        timer.start()
        answer = b""
        with suppress(OSError):  # it has gone, and with it the pipe
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.write(order + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline(self._limits.answer)
        timer.cancel()
        if answer.endswith(b"\n") and not self._timed_out:
            return answer
        self.kill()
        if self._timed_out:
            raise EndedError("it takes too long")
        raise EndedError("it gives too much" if answer else "it ended its process, or was ended for want of memory")

    def _time_is_up(self) -> None:
        self._timed_out = True
        self.kill()


def check_limits() -> None:
    """Raises an OSError that says so, where a process cannot be held to a memory and a size of files."""
    if sys.platform == "win32":
        raise OSError("a submission cannot be held to limits on Windows; grade in WSL, or in a container with Linux")


@cache
def check_walls() -> None:
    """Raises an OSError that says what is missing, where a submission could not be walled in."""
    check_limits()
    if sys.platform != "linux":
        raise OSError(f"a submission is walled in by namespaces of Linux, and this is {sys.platform}")
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        limits = Limits()
        command = _command(limits, True, folder)
        command = [*command[: command.index(sys.executable)], sys.executable, "-c", ""]
        try:
            tried = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, start_new_session=True)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OSError(f"a submission cannot be walled in here: {error}") from None
    if tried.returncode:
        raise OSError(
            f"a submission cannot be walled in here: {tried.stderr.strip()[-300:]}. Whether this system lets you have "
            "namespaces of your own, `unshare --user --map-root-user --mount mount -t tmpfs none /mnt` says; a "
            "container that is itself the wall needs --without-walls"
        )
