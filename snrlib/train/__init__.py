"""Training: the loop, the recipe of its numbers, its checkpoints, and several processes at once."""

from snrlib.train.loop import train
from snrlib.train.recipe import Recipe

__all__ = ["Recipe", "train"]
