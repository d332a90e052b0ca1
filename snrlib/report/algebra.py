"""Claims of the report that need no training: what their algebra gives in numbers, computed in double precision."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from snrlib.distances import get_distance

__all__ = [
    "COMPONENTS",
    "PAIRS",
    "VARIANCES",
    "correlations",
    "figure_3",
    "moved_length",
    "order",
    "relative_to_euclid",
]

COMPONENTS = 32
"""Of a feature, in figure 3."""
VARIANCES: tuple[float, ...] = (0.2, 0.5, 1.0)
"""Of the noise, in figure 3."""
PAIRS = 200
"""Random pairs on which an identity is tried."""


def figure_3(level: float = 0.9) -> pd.DataFrame:
    """Mean and range of the SNR distance where the noise has a given variance and all components are Gaussian.

    Args:
        level: share of the draws that is between ``low`` and ``high``.

    >>> figure_3().round(2).loc[0.5].to_dict()
    {'mean': 0.53, 'low': 0.27, 'high': 0.91}
    """
    # d_S / sigma^2 = (Var(n) / sigma^2) / Var(h_i) follows F(M - 1, M - 1), of mean (M - 1) / (M - 3)
    law = stats.f(COMPONENTS - 1, COMPONENTS - 1)
    ends = np.array([law.mean(), *law.interval(level)])
    table = pd.DataFrame([variance * ends for variance in VARIANCES], VARIANCES, ["mean", "low", "high"])
    return table.rename_axis("variance")


def _pairs(centred: bool) -> tuple[Tensor, Tensor]:
    x = 1 + torch.randn(2, PAIRS, COMPONENTS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a, b = x - x.mean(dim=-1, keepdim=True) if centred else x
    return a, b


def relative_to_euclid() -> float:
    """By how much of its value the SNR distance differs from equation 10, squared, on vectors of mean zero: at most.

    >>> relative_to_euclid() < 1e-12
    True
    """
    a, b = _pairs(centred=True)
    # d_S = d_E(a, b)^2 / d_E(a, 0)^2
    euclid = get_distance("euclidean").pairwise_distance
    read = (euclid(a, b) / euclid(a, torch.zeros_like(a))) ** 2
    return float((get_distance("snr").pairwise_distance(a, b) / read - 1).abs().max())


def order() -> int:
    """Of how many of `PAIRS` anchors the SNR distance puts all others in the order of centred Euclid.

    >>> order() == PAIRS
    True
    """
    a, b = _pairs(centred=False)
    ranks = [get_distance(name)(a, b).argsort(dim=1) for name in ("snr", "centred_euclidean")]
    return int((ranks[0] == ranks[1]).all(dim=1).sum())


def moved_length() -> float:
    """What a small step along the gradient adds to the squared length of both vectors, as a share of what it moves.

    >>> moved_length() < 1e-12
    True
    """
    a, b = (x.requires_grad_() for x in _pairs(centred=True))
    grad_a, grad_b = torch.autograd.grad(get_distance("snr").pairwise_distance(a, b).sum(), (a, b))
    # d/dt (|a - t g_a|^2 + |b - t g_b|^2) = -2 (a . g_a + b . g_b)
    lost, gained = (a * grad_a).sum(dim=1), (b * grad_b).sum(dim=1)
    return float(((lost + gained).abs() / lost.abs()).max().detach())


def correlations() -> pd.DataFrame:
    """Pairs of features with their SNR distance, their correlation, and what equation 14 says of it.

    >>> correlations().round(3).loc["reversed"].to_dict()
    {'snr': 4.0, 'correlation': -1.0, 'equation_14': 0.447}
    """
    u, v, w = torch.linalg.qr(_pairs(centred=True)[0][:3].T)[0].T  # of mean zero, length 1, at right angles
    pairs = {
        "noise that does not correlate with the anchor": (u, u + v),
        "two noisy views of one thing": (u + 0.5 * v, u + 0.5 * w),
        "unrelated, of equal variance": (u, v),
        "enlarged three times": (u, 3 * u),
        "reversed": (u, -u),
    }
    rows = {}
    for name, (a, b) in pairs.items():
        d = float(get_distance("snr").pairwise_distance(a[None], b[None]))
        # corr = 1 / sqrt(1 + d_S), equation 14
        rows[name] = {"snr": d, "correlation": float(np.corrcoef(a, b)[0, 1]), "equation_14": 1 / np.sqrt(1 + d)}
    return pd.DataFrame.from_dict(rows, orient="index")
