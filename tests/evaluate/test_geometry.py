"""What embeddings look like, against loops and planted copies."""

import numpy as np
import pytest
import torch
from oracles import normal, refusals
from scipy.spatial.distance import cdist
from scipy.stats import skew

from snrlib.evaluate import geometry


def test_the_numbers_are_those_of_loops() -> None:
    x = normal(150, 6) + 2
    found, rows = geometry(x, torch.arange(150) % 9), x.numpy()
    assert found.share_in_mean == pytest.approx(sum(6 * row.mean() ** 2 for row in rows) / (rows**2).sum())
    lengths = np.linalg.norm(rows, axis=1)
    assert found.spread_of_lengths == pytest.approx(lengths.std() / lengths.mean())
    d = cdist(rows, rows)
    np.fill_diagonal(d, np.inf)
    N = np.bincount(d.argsort(axis=1)[:, :10].ravel(), minlength=150)
    assert (found.hubness, found.busiest) == (pytest.approx(skew(N)), N.max())
    assert (found.rows, found.components, found.classes, found.searched, found.singletons) == (150, 6, 9, 150, 0)


@pytest.mark.parametrize("most", [10_000, 299])
def test_planted_copies_are_counted(most: int) -> None:
    x, y = normal(300, 8), torch.arange(300) % 10
    x[10], x[21], x[5] = x[20], x[20], 1.5  # classes 0, 0 and 1
    x[1] = x[2] + 1e-4
    y[7] = 99
    found = geometry(x, y, most=most)
    assert (found.duplicates, found.duplicates_across, found.constant_rows, found.singletons) == (3, 3, 1, 1)
    assert 2 - (most < 300) <= found.near_duplicates == found.near_across <= 2
    assert found.searched == min(300, most)
    assert "3 rows have an exact copy; 3 of them in another class." in found.sentences()
    assert ("among 299 rows drawn at random" in repr(found)) == (most == 299)


def test_hubs_are_told_from_none() -> None:
    flat, high = (geometry(normal(1000, M), [0] * 500 + [1] * 500) for M in (3, 200))
    assert flat.hubness < 1 < high.hubness, "distances concentrate in many dimensions"
    assert "there are hubs" in repr(high)
    assert "hardly any hubs" in repr(flat)


test_what_has_no_shape_is_refused = refusals(
    (lambda: geometry(np.ones((3, 2)), [0, 0, 1]), TypeError, "embeddings must be a torch.Tensor"),  # type: ignore[arg-type]
    (lambda: geometry(torch.ones(1, 2), [0]), ValueError, "at least two are needed"),
    (lambda: geometry(normal(3, 2), [0, 0, 1], most=1), ValueError, "most must be a finite number at least 2"),
)
