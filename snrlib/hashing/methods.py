"""The methods that are compared: what each minimises, and whether its last layer is relaxed.

All margins are stated in one unit, the *share of the bits* in which codes shall differ. For codes of -1 and +1, as many
of each, at a Hamming distance of ``share bits``:

===================  =======================  ============================================
distance             value                    enters
===================  =======================  ============================================
snr                  ``4 share``              pair and triplet loss as it is
cosine               ``2 share``              pair and triplet loss as it is
euclidean            ``2 sqrt(share bits)``   pair loss as it is, triplet loss squared
DSH                  ``4 share bits``         its own loss, squared Euclid; published: 1/2
DTSH                 ``share bits``           its own loss, inner products; published: 1/2
===================  =======================  ============================================
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from snrlib.distances import Distance, get_distance
from snrlib.hashing.dsh import DSHLoss
from snrlib.hashing.dtsh import DTSHLoss
from snrlib.hashing.regularizers import CodeRegularizer
from snrlib.losses import get_loss
from snrlib.utils.checks import check_choice, check_number

__all__ = ["METHODS", "Method", "code_distance", "get_method"]

_OURS = {
    f"{distance}_{name}": (distance, loss)
    for distance in ("snr", "euclidean", "cosine")
    for name, loss in (("pair", "contrastive"), ("triplet", "triplet"))
}
METHODS: tuple[str, ...] = (*_OURS, "dsh", "dtsh")
"""SNR, Euclid and cosine in a pair and a triplet loss over relaxed codes (our reading), and two published methods."""


class Method(NamedTuple):
    """What trains codes.

    Attributes:
        loss: ``loss(embeddings, labels) -> scalar``.
        relax: what `snrlib.hashing.hasher` makes of the last layer.
        distance: that the loss compares relaxed codes by; None is the inner product.
    """

    loss: nn.Module
    relax: str
    distance: Distance | None


def code_distance(distance: str, bits: int, share: float) -> float:
    """The distance of two balanced codes of -1 and +1 that differ in a share of their bits.

    Args:
        distance: "snr", "euclidean" or "cosine".
        bits: of a code.
        share: of the bits, from 0 to 1.

    Raises:
        ValueError: another distance, or a number out of its range.

    >>> code_distance("snr", 48, 0.5), code_distance("cosine", 48, 0.5), code_distance("euclidean", 36, 0.25)
    (2.0, 1.0, 6.0)
    """
    check_choice(distance, "distance", ("snr", "euclidean", "cosine"))
    share, bits = check_number(share, "share", at_least=0, at_most=1), int(check_number(bits, "bits", at_least=2))
    if distance == "euclidean":
        return 2 * (share * bits) ** 0.5  # ||a - b||^2 = 4 H
    return 4 * share if distance == "snr" else 2 * share  # 4 H / bits, 1 - (bits - 2 H) / bits


def get_method(name: str, bits: int, share: float = 0.5, weight: float | None = None) -> Method:
    """A method by name.

    Args:
        name: one of `METHODS`.
        bits: of a code.
        share: the margin, as a share of the bits, above 0 and at most 1.
        weight: of what presses codes to -1 and +1: of both terms of `CodeRegularizer`, in units of the loss's margin,
            or alpha of DSH, or the weight of DTSH. None is 0.01, or what was published.

    Raises:
        ValueError: an unknown name, or a number out of its range.

    >>> get_method("dsh", 48).loss.pairs.margin
    96.0
    """
    check_choice(name, "method", METHODS)
    share = check_number(share, "share", above=0, at_most=1)
    if name == "dsh":
        own = {} if weight is None else {"alpha": weight}
        return Method(DSHLoss(bits, margin=4 * share * bits, **own), "none", get_distance("euclidean"))
    if name == "dtsh":
        own = {} if weight is None else {"weight": weight}
        return Method(DTSHLoss(bits, alpha=share * bits, **own), "none", None)
    distance, loss = _OURS[name]
    margin = code_distance(distance, bits, share)
    squared = margin**2 if distance == "euclidean" else margin
    weight = squared * check_number(0.01 if weight is None else weight, "weight", at_least=0)
    margin, d = squared if loss == "triplet" else margin, get_distance(distance)
    regularizer = CodeRegularizer(quantization=weight, balance=weight)
    return Method(get_loss(loss, d, margin=margin, regularizer=regularizer), "tanh", d)
