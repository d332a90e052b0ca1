"""What a notebook calls while it runs: it records its results, and asks where its files and checkpoints go."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from snrlib.utils.files import data_folder

__all__ = ["RECORD", "Fingerprinted", "checkpoint_folder", "files_folder", "record"]

RECORD = "application/vnd.snrlib.record+json"
"""The kind of output under which a notebook holds what it has recorded."""
_SHOWN = 8  # metrics that a record prints; it keeps all


class Fingerprinted(Protocol):
    """A data set, as far as a record needs it."""

    @property
    def name(self) -> str:
        """Of the data set and its split."""

    @property
    def fingerprint(self) -> str:
        """A digest of all that it holds."""


def record(metrics: Mapping[str, Any], *data: Fingerprinted, experiment: Mapping[str, Any] | None = None) -> None:
    """Say in a notebook which numbers, and which data, belong in the run's result row.

    Args:
        metrics: names to numbers or strings; a later record of the same name replaces an earlier one.
        data: the data sets used; their fingerprints are kept.
        experiment: all of one training and its scores, nested, as `snrlib.experiment.Experiment.row` gives it.
    """
    from IPython.display import display

    plain = {key: value.item() if hasattr(value, "item") else value for key, value in metrics.items()}
    shown = [f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}" for key, value in plain.items()]
    text = ", ".join(shown[:_SHOWN])
    if len(shown) > _SHOWN:
        text += f" and {len(shown) - _SHOWN} more"
    content: dict[str, Any] = {"metrics": plain, "data": {images.name: images.fingerprint for images in data}}
    if experiment is not None:
        content["experiment"] = experiment
    display({RECORD: content, "text/plain": f"Recorded: {text}"}, raw=True)


def files_folder() -> Path:
    """Where a notebook writes files of its own: `run` puts them beside the output when it is whole.

    By hand, in JupyterLab, ``data/runs/by_hand``.
    """
    given = os.environ.get("SNR_RUN_FILES")
    return Path(given) if given else data_folder("runs") / "by_hand"


def checkpoint_folder() -> Path | None:
    """Where a notebook that `run` executes keeps checkpoints, so that a killed run goes on; None by hand.

    It is removed when the run is finished, or when notebook, parameters or library have changed.
    """
    given = os.environ.get("SNR_RUN_CHECKPOINTS")
    return Path(given) if given else None
