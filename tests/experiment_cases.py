"""For the tests of experiments: small ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from snrlib.experiment import Settings, default_settings, parts


def small(**changes: Any) -> Settings:
    """Digits: two of their five classes validate."""
    few = {"steps": 4, "every": 2, "image_size": 16, "embedding_size": 8, "batch_size": 24, "m": 8}
    return default_settings("digits", "conv4", **{**few, **changes})


@contextmanager
def few_digits() -> Iterator[None]:
    """A sixth of them: what small experiments wait for is judging."""
    whole = load_digits()
    few = Bunch(images=whole.images[:300], target=whole.target[:300])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("snrlib.data.sets.digits.load_digits", lambda: few)
        parts._load.cache_clear()  # images that are kept in memory
        yield
    parts._load.cache_clear()
