"""How far a study is, in one line, from the events of snakemake."""

from __future__ import annotations

import logging
import sys
import threading
import time

from snakemake.logging import LogEvent

__all__ = ["Progress"]

_PLAIN_S = 5.0  # at least, between two plain lines


class Progress(logging.Handler):
    """One line from snakemake's events: runs done, failed, running and left, and how long it may take.

    On a terminal it is renewed every second, elsewhere printed when it has changed, not more than once in five seconds.

    Args:
        total: number of runs.
    """

    def __init__(self, total: int):
        super().__init__()
        self.total = total
        self.running: dict[int, float] = {}  # since when
        self.failed: set[int] = set()
        self.done: set[int] = set()
        self._durations: list[float] = []
        self._printed, self._shown, self._over = 0.0, "", False
        self._showing = threading.Lock()
        threading.Thread(target=self._renew, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take notice of an event: a run begins, is done, or has failed and perhaps begins again."""
        event, now = getattr(record, "event", None), time.monotonic()
        job = getattr(record, "job_id" if event == LogEvent.JOB_FINISHED else "jobid", -1)
        if event == LogEvent.JOB_INFO and getattr(record, "rule_name", "") in ("cell", "notebook"):
            self.running[job] = now
            self.failed.discard(job)
        elif event in (LogEvent.JOB_ERROR, LogEvent.JOB_FINISHED) and job in self.running:
            self._durations.append(now - self.running.pop(job))
            (self.failed if event == LogEvent.JOB_ERROR else self.done).add(job)

    def line(self) -> str:
        """The line as it is now."""
        return self._counts() + (f", about {self._left()} left" if self._left() else "")

    def _counts(self) -> str:
        done, failed, running = len(self.done), len(self.failed), len(self.running)
        failures = f"{failed} failed, " * bool(failed)
        return f"{done} of {self.total} done, {failures}{running} running, {self.total - done - failed - running} to go"

    def _left(self) -> str:
        """By the mean duration so far, as many at a time as now."""
        if not (self._durations and self.running):
            return ""
        now, mean = time.monotonic(), sum(self._durations) / len(self._durations)
        to_go = self.total - len(self.done) - len(self.failed) - len(self.running)
        begun = [max(0.0, mean - (now - since)) for since in list(self.running.values())]
        seconds = (sum(begun) + mean * to_go) / len(begun)
        return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s" if seconds >= 1 else ""

    def _renew(self) -> None:
        while not self._over:
            self._show()
            time.sleep(1)

    def _show(self) -> None:
        with self._showing:
            counts = self._counts()
            if sys.stdout.isatty():
                print(f"\r{self.line()}\033[K", end="", flush=True)
            elif self.running and counts != self._shown and time.monotonic() - self._printed > _PLAIN_S:
                self._shown, self._printed = counts, time.monotonic()
                print(self.line(), flush=True)

    def close(self) -> None:
        """Leave the last state standing."""
        if not self._over:
            self._over = True
            self._show()
        super().close()
