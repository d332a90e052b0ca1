"""Checkpoints that survive a kill: each is written whole or not at all, and every byte is checked when it is read."""

from __future__ import annotations

import copy
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from snrlib.train import processes
from snrlib.utils.files import partial_prefix, write_atomically

__all__ = ["Checkpoints", "described"]

State = dict[str, Any]


class Checkpoints:
    """``last.pt``, from which a training goes on, and ``best.pt``, its best weights; in memory without a folder.

    Args:
        folder: is made if it does not exist; None keeps the best weights in memory, and nothing to go on from.
        settings: what another training must share to go on from ``last.pt``: values that compare with ``==``.

    Raises:
        OSError: the folder cannot be made, or a checkpoint not be written; the one before it is still there.
        ValueError: a checkpoint is missing, damaged, or of another training; the message names what differs.
    """

    def __init__(self, folder: str | Path | None, settings: State):
        self.folder = None if folder is None else Path(folder)
        self.settings = settings
        self._in_memory: State | None = None
        if self.folder is not None and processes.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)  # what cannot be written should fail now
            for name in ("last.pt", "best.pt"):
                for left_behind in self.folder.glob(f"{partial_prefix(Path(name))}*.pt"):  # by a killed training
                    left_behind.unlink()

    def keep_last(self, state: State) -> None:
        """Write all of a training, with its settings."""
        self._write("last.pt", {"settings": self.settings, **state})

    def keep_best(self, state: State) -> None:
        """Write the weights that are the best so far, in place of those before."""
        if self.folder is None:
            self._in_memory = copy.deepcopy(state)  # the next step changes the weights in place
        self._write("best.pt", state)

    def last(self) -> State | None:
        """What `keep_last` was given; None if there is nothing to go on from."""
        if self.folder is None or not (self.folder / "last.pt").exists():
            return None
        state = _read(self.folder / "last.pt", {"settings", "step", "model", "loss", "history"})
        stored = state["settings"]
        differing = sorted(key for key, value in self.settings.items() if stored.get(key) != value)
        if differing:
            raise ValueError(
                f"{self.folder / 'last.pt'} is of another training: "
                + ", ".join(f"{key} was {stored.get(key)!r}, is {self.settings[key]!r}" for key in differing)
                + ". Remove it, or choose another folder"
            )
        return state

    def best(self) -> State:
        """What `keep_best` was given last."""
        if self.folder is not None:
            return _read(self.folder / "best.pt", {"step", "model", "loss"})
        assert self._in_memory is not None, "no best weights were kept"
        return self._in_memory

    def _write(self, name: str, state: State) -> None:
        if self.folder is None or processes.rank() > 0:
            return
        try:
            write_atomically(self.folder / name, lambda path: torch.save(state, path))
        except RuntimeError as error:  # torch's, for example of a full disk
            raise OSError(f"{self.folder / name} could not be written: {error}") from error


def _read(path: Path, keys: set[str]) -> State:
    """A checkpoint with these keys; every byte of it is checked, which torch does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None
        state = torch.load(path, map_location="cpu", weights_only=True) if whole else None
    except (FileNotFoundError, zipfile.BadZipFile, pickle.UnpicklingError, EOFError, RuntimeError):
        state = None
    if not isinstance(state, dict) or not keys <= state.keys():
        raise ValueError(
            f"{path} is missing or damaged, or no checkpoint of a training. "
            "Remove last.pt and best.pt to start from step 1"
        )
    return state


def described(part: object) -> str:
    """The repr of a model, a loss or a transform, without the addresses that differ from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(part))
