"""A whitening map that follows the embeddings of a network while it trains."""

from __future__ import annotations

import torch
from torch import Tensor

from snrlib.distances import LinearMap
from snrlib.utils.checks import check_embeddings, check_labels, check_number

__all__ = ["RunningWhitening"]


class RunningWhitening(LinearMap):
    """``L`` with ``L'L = S^-1``, S a running average of the covariance within classes, seen batch by batch.

    A loss over a distance with this map shows it every batch before it measures (`snrlib.losses.Loss`), so that the
    unit of the distance is always the present spread of a class. L is data, not a parameter: no gradient flows through
    it. Unlike a free L, a linear layer before it cannot absorb it.

    Args:
        n_components: M.
        momentum: share of a new batch in S, in (0, 1]; the average is corrected for its start at zero.
        shrinkage: share of ``tr(S)/M I`` in S, in (0, 1]: a batch has fewer samples than S has entries.

    Shape: (..., M) -> (..., M). The identity, until a batch has held two samples of one class that differ.

    Raises:
        ValueError: n_components below 1, momentum or shrinkage out of range.

    >>> L = RunningWhitening(2)
    >>> L.update(torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 0.0], [5.0, 4.0]]), torch.tensor([0, 0, 1, 1]))
    >>> L(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))  # the standard deviations within the classes are 1 and 2
    tensor([[0.9325, 0.0000],
            [0.0000, 1.0193]])
    """

    covariance: Tensor
    weight: Tensor

    def __init__(self, n_components: int, momentum: float = 0.1, shrinkage: float = 0.1):
        if n_components < 1:
            raise ValueError(f"n_components must be at least 1, got {n_components}")
        super().__init__(torch.eye(n_components))
        self.momentum = check_number(momentum, "momentum", above=0, at_most=1)
        self.shrinkage = check_number(shrinkage, "shrinkage", above=0, at_most=1)
        self.register_buffer("covariance", torch.zeros(n_components, n_components, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros((), dtype=torch.float64))  # of all batches together: 1 after many

    @torch.inference_mode(False)  # an L made in inference mode could not train afterwards
    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Take a batch into S. One without two different samples of a class says nothing and changes nothing.

        Args:
            embeddings: (n, M).
            labels: (n,), integers.

        Raises:
            TypeError, ValueError: embeddings or labels of a wrong type, shape or value.
        """
        x = check_embeddings(embeddings).to(self.covariance)
        if x.shape[1] != len(self.covariance):
            raise ValueError(f"the map is of {len(self.covariance)} components, got embeddings with {x.shape[1]}")
        classes, members = check_labels(labels, len(x)).to(x.device).unique(return_inverse=True)
        freedom = len(x) - len(classes)
        sizes = torch.bincount(members, minlength=len(classes))[:, None]
        # Counted from a member of the class, equal samples leave exactly 0; their mean may be off by rounding.
        one = members.new_zeros(len(classes)).scatter_reduce_(0, members, torch.arange(len(x), device=x.device), "amax")
        x = x - x[one][members]
        means = x.new_zeros(len(classes), x.shape[1]).index_add_(0, members, x) / sizes
        residuals = x - means[members]
        if freedom == 0 or not residuals.any():
            return
        self.covariance.lerp_(residuals.T @ residuals / freedom, self.momentum)
        self.weight.lerp_(torch.ones_like(self.weight), self.momentum)
        S = self.covariance / self.weight
        identity = torch.eye(len(S), dtype=S.dtype, device=S.device)
        S = torch.lerp(S, identity * (S.trace() / len(S)), self.shrinkage)
        # S = C C', so that L = C^-1 has L'L = S^-1.
        L = torch.linalg.solve_triangular(torch.linalg.cholesky(S), identity, upper=False)
        self.components = L.to(self.components)  # not in place: the graph of the last batch may still need the old L

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, momentum={self.momentum}, shrinkage={self.shrinkage}"
