"""For the tests of experiments: small ones."""

from typing import Any

from snrlib.experiment import Settings, default_settings


def small(**changes: Any) -> Settings:
    """Digits: two of their five classes validate."""
    few = {"steps": 4, "every": 2, "image_size": 16, "embedding_size": 8, "batch_size": 24, "m": 8}
    return default_settings("digits", "conv4", **{**few, **changes})
