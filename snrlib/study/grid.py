"""The grid of the study: the cells of a profile and all notebooks, and what has come of them."""

from __future__ import annotations

from functools import cache
from typing import Any

from snrlib.notebooks.find import find_notebook, notebooks
from snrlib.notebooks.parameters import parameters
from snrlib.notebooks.run import (
    default_output,
    experiment_fingerprint,
    result_path,
    result_row,
    source_fingerprint,
)
from snrlib.study.profiles import Task, cells

__all__ = ["NOT_RUN", "STALE", "Grid", "scores"]

NOT_RUN = "it did not run to its end"
STALE = "its result is of other values, or of an earlier notebook or library, or of other files"


class Grid:
    """A profile's cells and all notebooks, and their state.

    A notebook is out of date when its cells, or code that they import, have changed. Of a cell the numbers count, not
    the figures: it is out of date when the cells of notebook 07, code that an experiment imports, or the files of its
    data set have changed; files that are not there have not.

    Args:
        profile: of ``study.yaml``.
        force: whether what is finished runs again, too.
    """

    def __init__(self, profile: str, force: bool = False):
        self.profile, self.force = profile, force
        self.notebooks = [Task(path.stem, {}, default_output(path.stem)) for path in notebooks()]
        self.cells = cells(profile)
        self.tasks = {task.name: task for task in (*self.cells, *self.notebooks)}
        self._source = cache(lambda notebook: source_fingerprint(find_notebook(notebook)))
        self._experiment = cache(lambda: experiment_fingerprint(find_notebook("07")))
        self._absent = cache(_absent)
        self._files = cache(_files)
        self._declared = cache(parameters)

    def row(self, task: Task) -> dict[str, Any] | None:
        """The result row of a task that is finished and up to date; else None."""
        row = result_row(task.output)
        if row is None:
            return None
        asked = {key: known.default for key, known in self._declared(task.notebook).items()} | task.values
        if row.get("parameters") != asked:
            return None
        if not task.is_cell:
            return row if row.get("source") == self._source(task.notebook) else None
        if row.get("experiment_source") != self._experiment():
            return None
        files = self._files(asked["data"], asked["root"], asked["backbone"], asked["weights"])
        return row if files in (None, row["experiment"]["files"]) else None

    def absent(self, task: Task) -> str:
        """Why a cell is not tried: its images are not there. Nothing if they are."""
        return self._absent(task.values["data"], task.values.get("root")) if task.is_cell else ""

    def to_do(self) -> list[Task]:
        """The tasks that must run, and can."""
        tasks = self.tasks.values()
        return [task for task in tasks if (self.force or self.row(task) is None) and not self.absent(task)]

    def missing(self) -> dict[str, str]:
        """The tasks that are not finished, or failed in a forced run, and why: the error of their last run."""
        found = {}
        for name, task in self.tasks.items():
            error = task.job().error
            if self.row(task) is None:
                stale = STALE if result_path(task.output).exists() else ""
                found[name] = self.absent(task) or error or stale or NOT_RUN
            elif self.force and error:
                found[name] = error
        return found


def scores(row: dict[str, Any]) -> dict[str, Any]:
    """What a cell's result row says, in one level: the scores under the training distance, its query the anchor."""
    found = row["experiment"]
    own = next(one for one in found["scores"] if one["judge"] == "training" and one["anchor"] in (None, "query"))
    named = {key: value for key, value in own.items() if key not in ("judge", "anchor")}
    settings = {key: found["settings"][key] for key in ("margin", "scale", "learning_rate")}
    about = {key: row[key] for key in ("wall_time_s", "git_commit", "finished")}
    return {**named, **found["cost"], **settings, "best_step": found["best_step"], **about}


def _absent(data: str, root: str | None) -> str:
    from snrlib.data import SOURCES  # with torch: slow to import
    from snrlib.data.fetch.source import data_root, find

    if data not in SOURCES or find(root, *SOURCES[data].places):
        return ""
    return f"{data} is not in {data_root(root)}; `snr data fetch {data}`, or SNR_DATA=FOLDER"


def _files(data: str, root: str | None, backbone: str, weights: str | None) -> str | None:
    """The state of the files that a training reads; None if they are not there."""
    from snrlib.backbones import weights_path
    from snrlib.data import files_state  # with torch: slow to import

    try:
        return files_state(data, root, weights_path(backbone, weights))
    except FileNotFoundError:
        return None
