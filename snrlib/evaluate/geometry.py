"""What embeddings look like, before any distance is chosen: where a unit or a centring can matter, hubs, duplicates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from snrlib.evaluate.neighbours import knn
from snrlib.evaluate.retrieval import Labels, checked_sets
from snrlib.utils.checks import check_number

__all__ = ["NEAR", "Geometry", "geometry"]

NEAR = 0.05
"""Of the median distance to the nearest other row: two rows closer than this are near-duplicates."""
_K = 10  # neighbours, whose lists hubs stand in
_LITTLE = 0.02  # of the power, or of the mean length: below it a choice changes next to nothing
_BLOCK = 2**24  # numbers that are turned to float64 at a time


@dataclass(frozen=True)
class Geometry:
    """Numbers that tell what a choice of distance can change; `sentences` says them in words.

    Attributes:
        rows: how many embeddings.
        components: M.
        classes: how many.
        share_in_mean: ``sum_i M m_i^2 / sum_i ||x_i||^2`` with m_i the mean of row i: the share of their power that
            subtracting the row mean takes away, in [0, 1].
        spread_of_lengths: standard deviation of ||x_i|| over its mean.
        constant_rows: rows whose components are all equal, for which the SNR distance is undefined.
        hubness: skewness of N_10, in how many lists of the ten nearest a row stands (Radovanović et al. 2010); about 0
            without hubs.
        busiest: the largest N_10.
        duplicates: rows that are equal to another, bit by bit.
        duplicates_across: those of them that are equal to a row of another class.
        near_duplicates: rows that are not equal to another, but closer to it than `NEAR` of the median.
        near_across: those of them whose near-duplicate is of another class.
        searched: rows whose neighbours were looked for, as many as there are or a sample.
        singletons: classes of one row, which no search can find.
    """

    rows: int
    components: int
    classes: int
    share_in_mean: float
    spread_of_lengths: float
    constant_rows: int
    hubness: float
    busiest: int
    duplicates: int
    duplicates_across: int
    near_duplicates: int
    near_across: int
    searched: int
    singletons: int

    def sentences(self) -> list[str]:
        """A plain sentence for each number."""
        flat, even = self.share_in_mean < _LITTLE, self.spread_of_lengths < _LITTLE
        sample = "" if self.searched == self.rows else f" among {self.searched:,} rows drawn at random"
        k = min(_K, self.searched - 1)
        found = [
            f"{self.share_in_mean:.1%} of the power lies in the row means: centring (SNR, correlation) "
            + ("changes next to nothing." if flat else "can matter."),
            f"Lengths vary by {self.spread_of_lengths:.1%} of their mean: a unit (cosine, relative, SNR) "
            + ("changes next to nothing." if even else "can matter."),
        ]
        if self.constant_rows:
            found.append(f"{_rows(self.constant_rows)} the same number in every component: SNR is undefined there.")
        found.append(
            f"The busiest row stands in {self.busiest:,} lists of the {k} nearest{sample}, {k} on average (skewness "
            f"{self.hubness:.1f}): " + ("there are hubs." if self.hubness > 1 else "there are hardly any hubs.")
        )
        found.append(_rows(self.duplicates) + " an exact copy" + _across(self.duplicates, self.duplicates_across))
        rule = f", closer than {NEAR:.0%} of the usual distance to the nearest{sample}"
        found.append(
            _rows(self.near_duplicates) + f" a near-duplicate{rule}" + _across(self.near_duplicates, self.near_across)
        )
        if self.duplicates_across + self.near_across:
            found.append("Look at those that cross classes: a label may be wrong, or an image in both.")
        if self.singletons:
            found.append(
                f"{self.singletons:,} of {self.classes:,} classes {'has' if self.singletons == 1 else 'have'} one row: "
                "nothing can be found for such a query, and no score counts it."
            )
        return found

    def __repr__(self) -> str:
        return "Geometry(" + "\n         ".join(self.sentences()) + ")"


def _rows(count: int) -> str:
    return "No row has" if count == 0 else "1 row has" if count == 1 else f"{count:,} rows have"


def _across(count: int, across: int) -> str:
    return f"; {across:,} of them in another class." if count else "."


@torch.no_grad()
def geometry(embeddings: Tensor, labels: Labels, most: int = 10_000, seed: int = 0, progress: bool = False) -> Geometry:
    """The shape of a set of embeddings, without judging any distance.

    Hubs are looked for among ``most`` rows drawn at random, near-duplicates of these among all rows. Both by Euclid.

    Args:
        embeddings: (n, M).
        labels: (n,), integers or strings.
        most: how many rows are searched for.
        seed: of the draw.
        progress: show bars of the two searches.

    Raises:
        TypeError, ValueError: bad embeddings or labels, fewer than two rows.

    >>> x = torch.tensor([[1.0, 3.0], [1.0, 3.0], [4.0, 0.0]])
    >>> geometry(x, ["a", "b", "b"]).sentences()[3]
    '2 rows have an exact copy; 2 of them in another class.'
    """
    x, _, given, _ = checked_sets(embeddings, labels, None, None)
    check_number(most, "most", at_least=2)
    if len(x) < 2:
        raise ValueError("one embedding alone has no neighbours; at least two are needed")
    y = given.to(x.device)
    power_of_mean, power, lengths, constant = 0.0, 0.0, [], 0
    for block in x.split(max(1, _BLOCK // x.shape[1])):
        wide = block.double()
        power_of_mean += float(x.shape[1] * wide.mean(dim=1).square().sum())
        squares = wide.square().sum(dim=1)
        power += float(squares.sum())
        lengths.append(squares.sqrt())
        constant += int((block == block[:, :1]).all(dim=1).sum())
    norms = torch.cat(lengths)
    copies, first = _copies(x)
    of_other = _other_class(first, y)
    if len(x) > most:
        sample = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[: int(most)].sort().values
        sample = sample.to(x.device)
    else:
        sample = torch.arange(len(x), device=x.device)
    k = min(_K, len(sample) - 1)
    some = x[sample]
    N = knn(some, k, progress=progress)[1].flatten().bincount(minlength=len(sample)).double()
    near, crossing = _near(x, y, sample, copies, progress)
    return Geometry(
        rows=len(x),
        components=x.shape[1],
        classes=len(y.unique()),
        share_in_mean=power_of_mean / power if power else 0.0,
        spread_of_lengths=float(norms.std(correction=0) / norms.mean()) if power else 0.0,
        constant_rows=constant,
        hubness=_skewness(N),
        busiest=int(N.max()),
        duplicates=int(copies.sum()),
        duplicates_across=int((copies & of_other).sum()),
        near_duplicates=near,
        near_across=crossing,
        searched=len(sample),
        singletons=int((y.unique(return_counts=True)[1] == 1).sum()),
    )


def _skewness(N: Tensor) -> float:
    """``E (N - E N)^3 / sd(N)^3``, 0 without spread."""
    deviation = N - N.mean()
    sd = float(deviation.square().mean().sqrt())
    return float(deviation.pow(3).mean()) / sd**3 if sd else 0.0


def _copies(x: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows equal another, and the number of the group of equal rows of each."""
    rows = np.ascontiguousarray((x + 0.0).cpu().numpy())  # -0 becomes 0, which it equals
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b(row, digest_size=16).digest() for row in rows)
    group = torch.tensor([seen.setdefault(digest, len(seen)) for digest in digests], device=x.device)
    return group.bincount()[group] > 1, group


def _other_class(group: Tensor, y: Tensor) -> Tensor:
    """Whether a row's group holds a row of another class."""
    low = y.new_zeros(len(y)).scatter_reduce_(0, group, y, "amin", include_self=False)
    high = y.new_zeros(len(y)).scatter_reduce_(0, group, y, "amax", include_self=False)
    return (low != high)[group]


def _near(x: Tensor, y: Tensor, sample: Tensor, copies: Tensor, progress: bool) -> tuple[int, int]:
    """Of the sampled rows that equal no other: how many are near-duplicates of a row, and of one of another class."""
    alone = sample[~copies[sample]]
    if len(alone) == 0:
        return 0, 0
    whole = len(alone) == len(x)
    d, i = knn(x, 1, progress=progress) if whole else knn(x[alone], 2, x, progress=progress)
    if not whole:  # a row of the sample is among all rows: the other one of its two nearest counts
        d, place = d.masked_fill(i == alone[:, None], torch.inf).min(dim=1, keepdim=True)
        i = i.gather(1, place)
    near = d[:, 0] <= NEAR * d.median()
    return int(near.sum()), int((near & (y[i[:, 0]] != y[alone])).sum())
