"""Splits by class: what is learned on some classes is judged on others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from snrlib.data.base import LabelledImages
from snrlib.data.image_files import ImageFiles
from snrlib.utils.checks import check_number

__all__ = ["other_classes", "shuffled_classes", "usual_validation_share", "validation_split"]

Data = TypeVar("Data", LabelledImages, ImageFiles)


def validation_split(data: Data, share: float = 0.25, seed: int = 0) -> tuple[Data, Data]:
    """Set some training classes aside, to choose margins and learning rates without a look at the test classes.

    Args:
        data: the training split.
        share: of the classes, that go to validation; rounded.
        seed: of the one shuffle that decides which.

    Returns:
        The rest of the training split, and the validation split; they share no class.

    Raises:
        ValueError: share not between 0 and 1, or fewer than two classes on a side.
    """
    check_number(share, "share", at_least=0, at_most=1)
    n = len(data.classes)
    held_out = round(share * n)
    if not 2 <= held_out <= n - 2:
        raise ValueError(
            f"a validation split needs two classes on each side, and a share of {share:g} of {n} classes is {held_out}"
        )
    order = shuffled_classes(n, seed)
    train, validation = data.of_classes(sorted(order[held_out:])), data.of_classes(sorted(order[:held_out]))
    return (
        replace(train, name=f"{data.name}, without validation classes"),
        replace(validation, name=f"{data.name}, validation classes"),
    )


def other_classes(train: Data, test: Data, seed: int) -> tuple[Data, Data]:
    """Another split by class: the classes of both halves are shuffled, and as many as before train.

    What is found with one choice of classes may not hold for another; several splits tell.

    Args:
        train: the training half.
        test: the other half, of other classes.
        seed: of the shuffle.

    Raises:
        ValueError: a class that stands in both halves.
    """
    if shared := set(train.classes) & set(test.classes):
        raise ValueError(f"the halves share {len(shared)} classes, as {min(shared)}: there is no other split by class")
    n = len(train.classes)
    if isinstance(train, ImageFiles):
        held: dict[str, Any] = {"files": train.files + test.files}
    else:
        held = {"images": torch.cat([train.images, test.images])}
    both = replace(
        train,
        **held,
        labels=torch.cat([train.labels, test.labels + n]),
        classes=(*train.classes, *test.classes),
        factors=pd.concat([train.factors, test.factors], ignore_index=True),
    )
    order = shuffled_classes(len(both.classes), seed)
    halves = both.of_classes(sorted(order[:n])), both.of_classes(sorted(order[n:]))
    return tuple(
        replace(half, name=f"{given.name}, split {seed}") for half, given in zip(halves, (train, test), strict=True)
    )  # type: ignore[return-value]


def usual_validation_share(n_classes: int) -> float:
    """A quarter of the training classes, but at least two; none of four classes or fewer, which are all needed.

    >>> [round(usual_validation_share(n), 2) for n in (4, 5, 7, 100)]
    [0.0, 0.4, 0.29, 0.25]
    """
    return 0.0 if n_classes < 5 else max(0.25, 2 / n_classes)


def shuffled_classes(n: int, seed: int) -> list[int]:
    """The numbers 0 to n - 1 in an order that the seed alone decides."""
    return np.random.default_rng(seed).permutation(n).tolist()
