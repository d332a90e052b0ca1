"""``data/reference/README.md``: what every file of stored numbers holds, and the numbers in tables, all of it generated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from snrlib.study.stored import read, read_about, studies
from snrlib.study.tables import differences, loss_table, summary, under_training_distance
from snrlib.study.untrained import untrained_scores
from snrlib.utils.files import data_folder, write_atomically

__all__ = ["contents", "loss_tables", "reference_table", "write_contents"]
