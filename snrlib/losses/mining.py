"""Which negative stands with which positive pair: mining as something one can look at."""

from __future__ import annotations

import torch
from torch import Tensor

from snrlib.losses.base import pair_masks
from snrlib.utils.checks import check_choice, check_embeddings, check_number

__all__ = ["MINING", "mine", "negative_weights"]

MINING = ("random", "semi_hard", "hard", "distance_weighted")


def mine(
    distances: Tensor,
    labels: Tensor,
    how: str,
    margin: float | None = None,
    generator: torch.Generator | None = None,
    n_components: int | None = None,
) -> Tensor:
    """For every positive pair one negative of its anchor, by one of four rules.

    - "random": any, all alike;
    - "semi_hard": any of those farther than the positive, by the margin at most, ``d_ij < d_ik <= d_ij + margin``
      (Schroff et al., CVPR 2015); a pair without one has no triplet;
    - "hard": the nearest, the first of equally near ones;
    - "distance_weighted": with the chances of `negative_weights` (Wu et al., ICCV 2017).

    Args:
        distances: (n, n), row i those of anchor i. "semi_hard" compares them as they are: for the triplets of a
            `snrlib.losses.TripletMarginLoss` give what that compares, squares under an absolute distance.
            "distance_weighted" is defined for lengths of differences between embeddings of length 1 alone, Euclid with
            ``normalize_embeddings=True`` or ``sqrt(2 d)`` of the cosine distance.
        labels: (n,), integers.
        how: one of `MINING`.
        margin: above 0, of "semi_hard" alone.
        generator: of the draws; None is torch's own.
        n_components: M of the embeddings, of "distance_weighted" alone.

    Returns:
        (t, 3), rows of anchor, positive and negative, in order of the pairs: what a triplet loss takes as
        ``triplets=``.

    Raises:
        TypeError, ValueError: bad distances, labels or options, or for "distance_weighted" distances above 2, which
            embeddings of length 1 cannot have.

    >>> d = torch.tensor([[0.0, 1.0, 0.5, 1.2], [1.0, 0.0, 2.0, 1.5], [0.5, 2.0, 0.0, 1.0], [1.2, 1.5, 1.0, 0.0]])
    >>> mine(d, torch.tensor([0, 0, 1, 2]), "hard")
    tensor([[0, 1, 2],
            [1, 0, 3]])
    >>> mine(d, torch.tensor([0, 0, 1, 2]), "semi_hard", margin=0.3)
    tensor([[0, 1, 3]])
    """
    d = check_embeddings(distances, "distances").detach()
    check_choice(how, "how", MINING)
    if d.shape[0] != d.shape[1]:
        raise ValueError(f"distances must be of shape (n, n), got {tuple(d.shape)}")
    for option, name, needed_by in ((margin, "margin", "semi_hard"), (n_components, "n_components", MINING[-1])):
        if (option is None) == (how == needed_by):
            raise ValueError(f"{needed_by} mining needs {name}, and no other takes it; got {name}={option} for {how}")
    positive, negative = pair_masks(labels, len(d), d.device)
    i, j = torch.nonzero(positive & negative.any(dim=1, keepdim=True)).T
    if how == "hard":
        k = d.masked_fill(~negative, torch.inf).argmin(dim=1)[i]
        return torch.stack([i, j, k], dim=1)
    # The chance of every negative of a pair, (pairs, n), up to a factor.
    if how == "semi_hard":
        near, far = d[i, j][:, None], d[i]
        chance = negative[i] & (far > near) & (far <= near + check_number(margin, "margin", above=0))
    elif how == "distance_weighted":
        assert n_components is not None
        chance = negative_weights(d, negative, n_components)[i]
    else:
        chance = negative[i]
    found = chance.any(dim=1)
    i, j, chance = i[found], j[found], chance[found].to(d.dtype)
    # multinomial refuses an empty table
    k = torch.multinomial(chance, 1, generator=generator)[:, 0] if len(i) else i
    return torch.stack([i, j, k], dim=1)


def negative_weights(d: Tensor, negative: Tensor, n_components: int, cutoff: float = 0.5) -> Tensor:
    """The chance of every negative under distance-weighted sampling (Wu et al., ICCV 2017, section 4).

    The distance of two random points on the unit sphere in M dimensions has the density

        q(d)  ~  d^(M-2) (1 - d^2 / 4)^((M-3)/2)

    for large M a narrow peak at sqrt 2: random negatives are nearly all of one distance. Drawn with the weight
    ``1 / q(d)`` they are of all distances alike. Below the cutoff the weight is that of the cutoff, for the gradient
    between nearly equal embeddings is noise. From 1.4 on, where the weights rise again towards 2, the chance is 0, as
    in the authors' code; an anchor without a nearer negative takes any, all alike.

    Args:
        d: (n, n), lengths of differences between embeddings of length 1: from 0 to 2.
        negative: (n, n), which are negatives.
        n_components: M, at least 2.
        cutoff: above 0, below 1.4.

    Returns:
        (n, n); a row sums to 1, that of an anchor without any negative to 0.

    Raises:
        ValueError: distances above 2, or another option.

    >>> d = torch.tensor([[0.0, 0.5, 1.0, 1.5]]).expand(4, 4)
    >>> negative_weights(d, torch.tensor([[False, True, True, True]]).expand(4, 4), 3)[0]  # 1/q(d) ~ 1/d
    tensor([0.0000, 0.6667, 0.3333, 0.0000])
    """
    if not isinstance(n_components, int) or isinstance(n_components, bool) or n_components < 2:
        raise ValueError(f"n_components must be a whole number of at least 2, got {n_components!r}")
    check_number(cutoff, "cutoff", above=0, at_most=1.39)
    if d.max() > 2.001:
        raise ValueError(
            "distance-weighted mining is defined for embeddings of length 1, whose distances are at most 2, "
            f"got {d.max().item():.3g}; give get_distance('euclidean', normalize_embeddings=True)"
        )
    near = d.clamp(cutoff, 1.4)
    # log 1/q(d)
    weight = -(n_components - 2) * near.log() - (n_components - 3) / 2 * (1 - near.square() / 4).log()
    inside = negative & (d < 1.4)
    chance = torch.where(inside, weight, -torch.inf).softmax(dim=1)
    # A softmax of nothing is NaN.
    alike = negative / negative.sum(dim=1, keepdim=True).clamp_min(1)
    return torch.where(inside.any(dim=1, keepdim=True), chance, alike)
