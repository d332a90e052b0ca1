"""Losses: eqs. 1-5 of the report, each over any member of the family of distances, and what the report names beside.

One file holds one loss beside its equation: `contrastive` (eq. 1), `triplet` (eq. 2), `n_pair` (eq. 3), `lifted`
(eqs. 4-5), `regularizers` (the zero-mean penalty, one for learned maps, the energy confusion), `angular`,
`ranked_list`; `relation` and `softmax` are the report's contrasts (a head that learns the distance, a neuron for each
class) and not among `LOSSES`; `memory` lets a loss compare with earlier batches, `mining` shows which negatives are
chosen; `base` is what they share.

Rivals from beside and after the paper: over pairs `multi_similarity`, `nt_xent` and `supcon`; with a trainable proxy
per class (what they share is `proxies`) `proxy_nca`, `proxy_anchor`, and over cosines `normalised_softmax`, `arcface`.
"""

from __future__ import annotations

from typing import Any

from snrlib.distances import Distance
from snrlib.losses.angular import AngularLoss
from snrlib.losses.arcface import ArcFaceLoss
from snrlib.losses.base import Loss, Report
from snrlib.losses.contrastive import ContrastiveLoss
from snrlib.losses.lifted import LiftedStructureLoss
from snrlib.losses.memory import CrossBatchMemory
from snrlib.losses.mining import mine
from snrlib.losses.multi_similarity import MultiSimilarityLoss
from snrlib.losses.n_pair import NPairsLoss
from snrlib.losses.normalised_softmax import NormalisedSoftmaxLoss
from snrlib.losses.nt_xent import NTXentLoss
from snrlib.losses.proxy_anchor import ProxyAnchorLoss
from snrlib.losses.proxy_nca import ProxyNCALoss
from snrlib.losses.ranked_list import RankedListLoss
from snrlib.losses.regularizers import EnergyConfusion, LogDetRegularizer, Together, ZeroMeanRegularizer
from snrlib.losses.relation import RelationNetwork
from snrlib.losses.softmax import SoftmaxClassifier
from snrlib.losses.supcon import SupConLoss
from snrlib.losses.triplet import TripletMarginLoss

__all__ = [
    "LOSSES",
    "AngularLoss",
    "ArcFaceLoss",
    "ContrastiveLoss",
    "CrossBatchMemory",
    "EnergyConfusion",
    "LiftedStructureLoss",
    "LogDetRegularizer",
    "Loss",
    "MultiSimilarityLoss",
    "NPairsLoss",
    "NTXentLoss",
    "NormalisedSoftmaxLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "RankedListLoss",
    "RelationNetwork",
    "Report",
    "SoftmaxClassifier",
    "SupConLoss",
    "Together",
    "TripletMarginLoss",
    "ZeroMeanRegularizer",
    "get_loss",
    "mine",
]

LOSSES: dict[str, type[Loss]] = {
    "contrastive": ContrastiveLoss,
    "triplet": TripletMarginLoss,
    "n_pair": NPairsLoss,
    "lifted": LiftedStructureLoss,
    "angular": AngularLoss,
    "ranked_list": RankedListLoss,
    "multi_similarity": MultiSimilarityLoss,
    "nt_xent": NTXentLoss,
    "supcon": SupConLoss,
    "proxy_nca": ProxyNCALoss,
    "proxy_anchor": ProxyAnchorLoss,
    "normalised_softmax": NormalisedSoftmaxLoss,
    "arcface": ArcFaceLoss,
}
"""The classes by name; each says what it takes: a ``default_margin`` in its ``margin_unit``, a ``default_scale``, and
whether it ``has_proxies``."""


def get_loss(name: str, distance: Distance, **options: Any) -> Loss:
    """A loss by name.

    Args:
        name: one of `LOSSES`; the first four are eqs. 1-5 of the report.
        distance: a member of the family.
        **options: ``margin`` or ``scale`` (the class has a default, which suits distances of about 1) and what else it
            takes; ``n_classes`` and ``embedding_size`` of a loss with proxies (``has_proxies``).

    Raises:
        ValueError: unknown name or value.
        TypeError: unknown option.

    >>> import torch
    >>> from snrlib.distances import get_distance
    >>> get_loss("triplet", get_distance("snr"))
    TripletMarginLoss(
      margin=0.5, mining=all, power=None, soft_margin=False, swap=False
      (distance): Distance(
        d(a, b) = ||A(b - a)||^2 / ||A a||^2, anchor a = query, normalize_embeddings=False
        (map): Centre()
      )
    )
    """
    if not isinstance(name, str) or name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; choose from {', '.join(LOSSES)}")
    return LOSSES[name](distance, **options)
