"""Many processes, some at a time: each is tried twice, and none outlives the one that started them.

A command and all that it starts are ended together: as a group of processes, or, on Windows, which has no groups, one
by one, as long as their parent is there to tell whose they are.

``python -m snrlib.utils.processes COMMAND ...`` runs a command until it ends or its own standard input does, which
is when the process at its other end is gone, however that ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import psutil

__all__ = ["Job", "Progress", "run_jobs"]

_END_S = 30.0  # in which processes that are told to end clean up behind themselves
_PLAIN_S = 5.0  # at least, between two plain lines


@dataclass(frozen=True)
class Job:
    """A command and where its output goes.

    Attributes:
        name: for messages.
        command: its arguments, the program first.
        log: file for what it prints; begun anew at each try.
    """

    name: str
    command: tuple[str, ...]
    log: Path

    @property
    def error(self) -> str:
        """What its last try said last in a line that begins with "snr: "; nothing if it said none."""
        said = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return next((line.removeprefix("snr: ") for line in reversed(said) if line.startswith("snr: ")), "")


def run_jobs(jobs: Sequence[Job], at_once: int, environment: Mapping[str, str] | None = None) -> list[Job]:
    """Run them, in their order, and show how far they are; one that fails is tried once more.

    However this function or this process ends, the commands end before or soon after.

    Args:
        jobs: what to run.
        at_once: how many at a time.
        environment: variables for all of them, where they are not set.

    Returns:
        Those that failed.

    Raises:
        OSError: a log cannot be begun.
    """
    waiting: SimpleQueue[Job] = SimpleQueue()
    for job in jobs:
        waiting.put(job)
    pool = _Pool(waiting, {**(environment or {}), **os.environ, "PYTHONIOENCODING": "utf-8"}, Progress(len(jobs)))
    threads = [threading.Thread(target=pool.work, daemon=True) for _ in range(min(at_once, len(jobs)))]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            pool.progress.show()
            threads[0].join(0.2) if threads[0].is_alive() else time.sleep(0.2)
    finally:
        pool.end()
    pool.progress.show(last=True)
    if pool.errors:
        raise pool.errors[0]
    return [job for job in jobs if job in pool.failed]


class _Pool:
    """What the threads of `run_jobs` share; each has one command running."""

    def __init__(self, waiting: SimpleQueue[Job], environment: dict[str, str], progress: Progress):
        self.waiting, self.environment, self.progress = waiting, environment, progress
        self.failed: set[Job] = set()
        self.errors: list[OSError] = []
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._over = False

    def work(self) -> None:
        """Run one job after the other until there are no more."""
        while not self._over:
            try:
                job = self.waiting.get_nowait()
            except Empty:
                return
            self.progress.begin(job.name)
            try:
                done = self._try(job) or self._try(job)
            except OSError as error:
                self.errors.append(error)
                self._over = True
                return
            if not done:
                self.failed.add(job)
            self.progress.end(job.name, done)

    def _try(self, job: Job) -> bool:
        if self._over:
            return False
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "wb") as log:
            with self._lock:
                if self._over:
                    return False
                process = subprocess.Popen(
                    [sys.executable, "-m", "snrlib.utils.processes", *job.command],
                    stdin=subprocess.PIPE,  # which ends when this process does
                    stdout=log,
                    stderr=log,
                    env=self.environment,
                    start_new_session=True,
                )
                self._running.add(process)
            with process:  # its standard input is closed after it
                status = process.wait()
            with self._lock:
                self._running.discard(process)
            _end(process)  # what it has left of its own
        if status and not self._over and not job.error:  # if it was killed, it could not say why
            with (
                suppress(OSError),
                open(job.log, "a", encoding="utf-8") as said,
            ):  # on a full disk there is nothing to say it with
                said.write(f"\nsnr: it ended with status {status}; -9 or 137 is a kill, often for want of memory\n")
        return status == 0

    def end(self) -> None:
        """Let no command begin any more, and end those that run."""
        with self._lock:
            self._over = True
            running = list(self._running)
        for process in running:
            _tell(process)
        for process in running:
            _end(process)


if sys.platform == "win32":

    def _tell(process: subprocess.Popen) -> None:
        """There is no gentle way."""
        _end(process)

    def _end(process: subprocess.Popen) -> None:
        """End a process and its children."""
        if process.poll() is None:
            _kill_tree(process.pid)
            process.wait()

else:

    def _tell(process: subprocess.Popen) -> None:
        """A process and its children to end."""
        _signal(process, signal.SIGTERM)

    def _end(process: subprocess.Popen) -> None:
        """End a process and its children, gently first."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            limit = time.monotonic() + _END_S
            if not _signal(process, number):
                return
            while time.monotonic() < limit:
                process.poll()
                if not _signal(process, 0):
                    return
                time.sleep(0.05)

    def _signal(process: subprocess.Popen, number: int) -> bool:
        """Send a signal to a process and its children; whether any of them was there."""
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def _kill_tree(pid: int) -> None:
    """A process and its children, and theirs."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for one in [*parent.children(recursive=True), parent]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


class Progress:
    """One line: how many are done, have failed, run and are left, and how long it may take.

    On a terminal it is renewed, elsewhere printed when it has changed, not more than once in five seconds.

    Args:
        total: number of jobs.
    """

    def __init__(self, total: int):
        self.total, self.done, self.failed = total, 0, 0
        self.running: dict[str, float] = {}  # since when
        self._durations: list[float] = []
        self._printed, self._shown = 0.0, ""

    def begin(self, name: str) -> None:
        """A job begins."""
        self.running[name] = time.monotonic()

    def end(self, name: str, done: bool) -> None:
        """A job ends, well or not."""
        self._durations.append(time.monotonic() - self.running.pop(name))
        if done:
            self.done += 1
        else:
            self.failed += 1

    def line(self) -> str:
        """The line as of now."""
        left = self._left()
        return self._counts() + (f", about {left} left" if left else "")

    def _counts(self) -> str:
        running = len(self.running)
        to_go = self.total - self.done - self.failed - running
        failures = f"{self.failed} failed, " if self.failed else ""
        return f"{self.done} of {self.total} done, {failures}{running} running, {to_go} to go"

    def _left(self) -> str:
        """By the mean duration so far, as many at a time as now."""
        if not (self._durations and self.running):
            return ""
        now, mean = time.monotonic(), sum(self._durations) / len(self._durations)
        begun = [max(0.0, mean - (now - since)) for since in list(self.running.values())]
        to_go = self.total - self.done - self.failed - len(begun)
        seconds = (sum(begun) + mean * to_go) / len(begun)
        return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s" if seconds >= 1 else ""

    def show(self, last: bool = False) -> None:
        """Print the line if it is time to; the last one in any case."""
        counts, now = self._counts(), time.monotonic()
        if sys.stdout.isatty():
            print(f"\r{self.line()}\033[K", end="\n" if last else "", flush=True)
        elif counts != self._shown and (last or (self.running and now - self._printed > _PLAIN_S)):
            self._shown, self._printed = counts, now
            print(self.line(), flush=True)


def _end_with_input(child: subprocess.Popen) -> None:
    """When standard input ends, end the child, and with it this process; gently first where there is a gentle way."""
    while os.read(0, 1):
        pass
    if sys.platform == "win32":
        _kill_tree(child.pid)
    else:
        os.killpg(0, signal.SIGTERM)
        time.sleep(_END_S)
        os.killpg(0, signal.SIGKILL)


def _main() -> int:
    numbers = [signal.SIGTERM, signal.SIGINT]
    if sys.platform != "win32":
        numbers.append(signal.SIGHUP)
        if os.getpgrp() != os.getpid():  # called by hand: whoever called is not to be ended
            os.setpgrp()
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    for number in numbers:  # for the child, which is in this group, too
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_end_with_input, args=(child,), daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    status = _main()
    sys.exit(status if status >= 0 else 128 - status)
