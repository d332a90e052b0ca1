"""Verification: is a pair of one class? Decided by a threshold on its distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import auc, roc_curve
from torch import Tensor

from snrlib.distances import Distance, get_distance
from snrlib.evaluate.retrieval import Labels, checked_sets
from snrlib.utils.checks import check_number

__all__ = ["Verification", "verification"]


@dataclass(frozen=True, eq=False)
class Verification:
    """Pairs and how a threshold on their distance sorts them.

    Attributes:
        positive: distances of pairs of one class.
        negative: distances of pairs of two classes.
        false_positive_rate: over the thresholds, ascending.
        true_positive_rate: over the thresholds.
        thresholds: a pair at most so far apart is taken for one class; the first, -inf, takes none.
        AUC: area under the curve: the chance that a negative pair is farther apart than a positive one.
        EER: equal error rate, where the curve meets the line ``false positives = false negatives``.
    """

    positive: np.ndarray
    negative: np.ndarray
    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    thresholds: np.ndarray
    AUC: float
    EER: float

    @property
    def threshold(self) -> float:
        """The threshold at which the two errors are most nearly equal."""
        balance = abs(self.false_positive_rate + self.true_positive_rate - 1)
        return float(self.thresholds[1:][np.argmin(balance[1:])])

    def false_non_match_rate(self, at: float) -> float:
        """FNMR at an FMR: the share of positive pairs refused where at most a share ``at`` of negative ones is taken.

        Of all thresholds that keep the false match rate (FMR) at or below ``at``, the loosest counts; nothing is
        interpolated, unlike in ``EER``, so that the rate is one that a threshold on these pairs has. The terms are
        those of ISO/IEC 19795-1.

        Args:
            at: the FMR, in [0, 1]. Below one over the number of negative pairs it means no false match at all: an FMR
                of 0.001 needs well over 1,000 of them.

        Returns:
            FNMR, in [0, 1].

        Raises:
            ValueError: ``at`` out of range.
        """
        check_number(at, "at", at_least=0, at_most=1)
        n = len(self.negative)
        allowed = int(
            np.searchsorted(np.arange(1, n + 1) / n, at, side="right")
        )  # m false matches of n while m/n <= at
        first_refused = np.append(np.sort(self.negative), np.inf)[allowed]  # and all as far apart as it
        return float((self.positive >= first_refused).mean())

    def __repr__(self) -> str:
        return (
            f"Verification(AUC {self.AUC:.4f}, EER {self.EER:.4f}; "
            f"{len(self.positive)} positive and {len(self.negative)} negative pairs)"
        )


@torch.no_grad()
def verification(
    embeddings: Tensor,
    labels: Labels,
    distance: Distance | None = None,
    n_pairs: int = 100_000,
    seed: int = 0,
    reference: Tensor | None = None,
    reference_labels: Labels | None = None,
) -> Verification:
    """ROC curve over ordered pairs, whose first is the query, and the second another embedding or a reference.

    One threshold serves all anchors, so that a relative distance and its absolute twin differ here for both anchor
    sides, unlike in the ranking of one query.

    Args:
        embeddings: (n, M).
        labels: (n,), integers or strings.
        distance: a member of the family, its anchor side included; None is Euclidean.
        n_pairs: how many positive and how many negative pairs are drawn, with replacement; all, if there are fewer.
        seed: of the draw.
        reference: (n_reference, M), as in `snrlib.evaluate.retrieval`.
        reference_labels: (n_reference,).

    Raises:
        TypeError, ValueError: bad embeddings or labels, or no positive or no negative pair.
    """
    distance = get_distance("euclidean") if distance is None else distance
    x, y, given, gallery = checked_sets(embeddings, labels, reference, reference_labels)
    distance = distance.between(x, y)
    itself = int(reference is None)  # is among the candidates, and no pair
    if n_pairs < 1:
        raise ValueError(f"n_pairs must be at least 1, got {n_pairs}")
    ordered, order = given.cpu().sort(stable=True)
    candidates, rank = gallery.cpu().sort(stable=True)
    start, stop = (torch.searchsorted(candidates, ordered, right=right) for right in (False, True))
    size = stop - start
    generator = torch.Generator().manual_seed(seed)
    found = []
    for kind, others in (("positive", size - itself), ("negative", len(y) - size)):
        # The pairs of sample i are numbered before[i] ... before[i] + others[i] - 1; a number gives back its pair.
        before = others.cumsum(0)
        total = int(before[-1])
        if total == 0:
            raise ValueError(f"the labels hold no {kind} pair")
        number = torch.arange(total) if total <= n_pairs else torch.randint(total, (n_pairs,), generator=generator)
        i = torch.searchsorted(before, number, right=True)
        j = number - (before[i] - others[i])
        skipped = j + size[i] * (j >= start[i])  # past the own class
        if kind == "positive":  # in the own class, past oneself
            skipped = start[i] + j + itself * (j >= i - start[i])
        i, j = order[i].to(x.device), rank[skipped].to(x.device)
        step = max(1, 2**20 // x.shape[1])  # pairs at a time, so many as caches hold
        blocks = zip(i.split(step), j.split(step), strict=True)
        found.append(torch.cat([distance.pairwise_distance(x[a], y[b]) for a, b in blocks]).double().cpu().numpy())
    positive, negative = found
    truth = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    false, true, thresholds = roc_curve(truth, -np.concatenate([positive, negative]))
    # The curve is piecewise linear: where false - (1 - true) changes its sign, in between.
    eer = float(np.interp(0.0, false + true - 1, false))
    return Verification(positive, negative, false, true, -thresholds, float(auc(false, true)), eer)
