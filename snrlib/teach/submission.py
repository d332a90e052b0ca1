"""A submission while it is graded: its variables as plain data, its functions as stand-ins that call them elsewhere."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from snrlib.notebooks.exercises import Failed
from snrlib.teach.pupil import from_plain, to_plain
from snrlib.teach.walls import EndedError, Limits, Process

__all__ = ["Submission"]


class Submission:
    """One process for the exercise cells of one student.

    Args:
        setup: code of the notebook itself, run first.
        limits: of each exercise.
        walls: whether the process is walled in.

    Raises:
        EndedError: the setup did not end in time.
    """

    def __init__(self, setup: list[str], limits: Limits, walls: bool) -> None:
        self._limits = limits
        self._folder = tempfile.TemporaryDirectory(prefix="snr-grade-", ignore_cleanup_errors=True)
        self._process = Process(limits, walls, Path(self._folder.name))
        self._until = time.monotonic() + limits.start_seconds
        for code in setup:
            if isinstance(trouble := self._ask({"run": code}), Failed):
                self.close()
                raise EndedError(f"the notebook's own setup fails there: {trouble.message}")

    def begin(self) -> None:
        """The time of an exercise begins."""
        self._until = time.monotonic() + self._limits.seconds

    def define(self, name: str, code: str) -> Any:
        """Run a cell and give what it defines: data, a function to call, or `Failed` if the cell raises.

        Raises:
            EndedError: the process is gone.
        """
        if isinstance(trouble := self._ask({"run": code}), Failed):
            return trouble
        value = self._ask({"get": name})
        if value != {"function": True}:
            return _value(value)

        def stand_in(*arguments: Any) -> Any:
            answer = self._ask({"call": name, "arguments": [to_plain(one) for one in arguments]})
            return answer if isinstance(answer, Failed) else _value(answer)

        return stand_in

    def close(self) -> None:
        """End its process and remove its files."""
        self._process.close()
        self._folder.cleanup()

    def _ask(self, order: dict[str, Any]) -> Any:
        line = json.dumps(order).encode()
        try:
            answer = self._process.ask(line, self._until - time.monotonic())
        except EndedError:
            self.close()
            raise
        try:
            said = json.loads(answer)
            if "value" in said:
                return said["value"]
            begun, text = "error" in said, str(said.get("error", "write your answer."))[:300]
        except (ValueError, TypeError, AttributeError, RecursionError):  # no answer of a pupil
            begun, text = True, "it writes where its answers go."
        return Failed(f"it raises {text}" if begun else text, begun)


def _value(plain: Any) -> Any:
    try:
        return from_plain(plain)
    except (ValueError, RecursionError, AttributeError) as error:
        return Failed(f"{error}"[:300])
