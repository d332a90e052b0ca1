"""The one engine of all that is measured: steps in processes of their own, each kept when it is finished.

A step is a function of this study, called with arguments that JSON can hold and the path of its result, which it writes
whole or not at all. What has a result is not done again; so any measurement goes on after it was interrupted. The cells
of the grid are steps of another form, runs of notebook 07 (`snrlib.study.profiles.Task`), in the same pool.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snrlib.utils.processes import Job, run_jobs
from snrlib.utils.provenance import ONE_THREAD

__all__ = ["Step", "finish"]


@dataclass(frozen=True)
class Step:
    """A call of a function, whose result is a JSON file or another one.

    Attributes:
        function: as "module:name"; it takes the arguments by name, and ``path``, and returns a line that says how it
            went.
        arguments: what JSON can hold.
        path: of its result, named after all that decides it.
    """

    function: str
    arguments: dict[str, Any]
    path: Path

    def job(self) -> Job:
        """The command that calls it."""
        arguments = json.dumps(self.arguments, sort_keys=True)
        command = (sys.executable, "-m", "snrlib.study.steps", self.function, arguments, str(self.path))
        return Job(self.path.stem, command, self.path.with_suffix(".log"))


def finish(title: str, steps: Sequence[Step], at_once: int) -> list[Any]:
    """Do the steps that have no result, and read all results.

    Args:
        title: of them all, for messages.
        steps: what to do.
        at_once: processes, one thread each.

    Returns:
        What the JSON files hold, in order; of a step with another file, None.

    Raises:
        ChildProcessError: some failed, the message says which and why; the others are kept.
    """
    missing = [step for step in steps if not step.path.exists()]
    print(f"{title}: {len(steps)} steps, {len(steps) - len(missing)} finished before", flush=True)
    failed = run_jobs([step.job() for step in missing], at_once, ONE_THREAD)
    if failed:
        why = "; ".join(f"{job.name}: {job.error}" for job in failed)
        raise ChildProcessError(f"{len(failed)} of {len(steps)} steps failed, the others are kept: {why}")
    return [
        json.loads(step.path.read_text(encoding="utf-8")) if step.path.suffix == ".json" else None for step in steps
    ]


def _main(function: str, arguments: str, path: str) -> int:
    import torch  # slow to import

    torch.set_num_threads(1)
    module, _, name = function.partition(":")
    try:
        print(getattr(importlib.import_module(module), name)(**json.loads(arguments), path=Path(path)))
    except Exception as error:
        traceback.print_exc()  # to the log, whose last line is for the message
        print(f"snr: {type(error).__name__}: {error}".partition("\n")[0], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
