"""Training: the loop, its checkpoints, and several processes at once."""

from snrlib.train.loop import train

__all__ = ["train"]
