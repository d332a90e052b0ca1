"""Penalties that a loss may add: the zero-mean penalty of section 4.3, one for learned maps, the energy confusion.

A regularizer is a module ``(embeddings, labels) -> scalar``; a loss adds what it returns.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from snrlib.distances import LinearMap
from snrlib.utils.checks import check_embeddings, check_labels, check_number

__all__ = ["EnergyConfusion", "LogDetRegularizer", "Together", "ZeroMeanRegularizer"]


class ZeroMeanRegularizer(nn.Module):
    """``L_r = weight/n sum_i |sum_m h_im|``: an absolute ROW SUM, pressing every embedding's own mean to zero.

    It encourages a zero mean and guarantees none. Its gradient lies along the ones vector, where that of the SNR
    distance is zero: for that distance a last layer `snrlib.distances.Centre` does exactly what it is meant for.

    Args:
        weight: lambda, at least 0.

    Shape: embeddings (n, M) -> scalar; labels are accepted, as by every regularizer, and ignored.

    Raises:
        TypeError, ValueError: bad weight or embeddings.

    >>> ZeroMeanRegularizer(0.1)(torch.tensor([[1.0, 2.0], [-3.0, 2.0]]))  # 0.1 (3 + 1) / 2
    tensor(0.2000)
    """

    def __init__(self, weight: float):
        super().__init__()
        self.weight = check_number(weight, "weight", at_least=0)

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.weight * check_embeddings(embeddings).sum(dim=1).abs().mean()

    def extra_repr(self) -> str:
        return f"weight={self.weight}"


class LogDetRegularizer(nn.Module):
    """``weight/r (tr(LL') - log det(LL') - r)``: 0 for a rotation, infinite for an ``L`` that loses a direction.

    The log-det divergence of ``M = L'L`` from the identity (Davis et al. 2007, information-theoretic metric learning),
    for a map that is trained: it may stretch and turn, at a price, and not fold the space.

    Args:
        weight: at least 0.
        map: of the distance, with ``components`` L of shape (r, M), r at most M.

    Shape: embeddings and labels, as every regularizer takes them, are ignored; returns a scalar.

    Raises:
        TypeError, ValueError: a bad weight, a map that is none, or more rows than columns (LL' is then singular).

    >>> LogDetRegularizer(1.0, LinearMap(torch.tensor([[2.0, 0.0], [0.0, 1.0]])))(None)  # (4 + 1 - log 4 - 2) / 2
    tensor(0.8069)
    """

    def __init__(self, weight: float, map: LinearMap):
        super().__init__()
        self.weight = check_number(weight, "weight", at_least=0)
        if not isinstance(map, LinearMap):
            raise TypeError(f"map must be a LinearMap, got {type(map).__name__}")
        r, M = map.components.shape
        if r > M:
            raise ValueError(f"components must have at most as many rows as columns, got shape {(r, M)}")
        self.map = map

    def forward(self, embeddings: Tensor | None, labels: Tensor | None = None) -> Tensor:
        L = self.map.components
        r = len(L)
        # Rounding can turn the determinant of a nearly singular matrix negative: the logarithm of its size.
        return self.weight / r * (L.square().sum() - torch.linalg.slogdet(L @ L.T).logabsdet - r)

    def extra_repr(self) -> str:
        return f"weight={self.weight}"


class EnergyConfusion(nn.Module):
    """Confuse the last layer: draw random samples together, whatever their class, which the report names in 3.2.

        L = weight log E,    E = sum_((i,j) drawn)  ||x_i - x_j||^2 / (2 w_ij)

    It is minimised with the loss, and works against it: a layer that fits the training classes too closely is held
    back. Every sample draws ``partners`` others at random, from all classes; w_ij is the number of ordered pairs of one
    class in the batch if i and j are of one, else the number of the others, so that both kinds weigh alike. The
    definition is that of the authors' code, whose gradient is that of log E (Chen and Deng, Energy confused adversarial
    metric learning, AAAI 2019).

    **It reaches the weights of the last layer alone.** The layer is asked to keep the features f that it was last given
    in training, cut off from the trunk, and the differences of the embeddings are computed of them once more,
    ``x_i - x_j = W (f_i - f_j)``: the gradient ends at W. The bias of the layer cancels, and the embeddings themselves
    are only looked at to see that they are of the same batch. So the network must have been called on this batch, once
    and in this process; its share of a batch that several processes have embedded is refused.

    Args:
        weight: at least 0; 0.13 in the authors' code.
        layer: the last one, without anything but the loss behind it; as ``Embedder.head``.
        partners: of every sample, at least 1; about 10 in the authors' code.
        generator: draws the partners; None is torch's own, which `snrlib.train.train` seeds anew for every step, so
            that a training that goes on draws what it would have drawn.

    Shape: embeddings (n, M) and integer labels (n,) -> scalar; 0 with a working backward for one sample, and where all
    that were drawn together lie at one point.

    Raises:
        TypeError: a layer that is none, labels that are none.
        ValueError: a bad weight, number of partners, or embeddings that are not of the layer's last batch.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[2.0]])
    >>> confusion = EnergyConfusion(1.0, layer, partners=1)
    >>> x = layer(torch.tensor([[0.0], [1.0]]))  # both draw each other: (2^2 + 2^2) / (2 * 2)
    >>> confusion(x, torch.tensor([0, 1])).detach().exp()
    tensor(2.)
    """

    features: Tensor | None = None

    def __init__(self, weight: float, layer: nn.Linear, partners: int = 10, generator: torch.Generator | None = None):
        super().__init__()
        self.weight = check_number(weight, "weight", at_least=0)
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"layer must be a torch.nn.Linear, got {type(layer).__name__}")
        if not isinstance(partners, int) or isinstance(partners, bool) or partners < 1:
            raise ValueError(f"partners must be a whole number of at least 1, got {partners!r}")
        self.partners = partners
        self.generator = generator
        self._layer = (layer,)  # not a part of this module: its weights are the network's, and trained there
        layer.register_forward_pre_hook(_keep_features(weakref.ref(self)))

    def forward(self, embeddings: Tensor, labels: Tensor | None) -> Tensor:
        n = len(check_embeddings(embeddings))
        labels = check_labels(labels, n).to(embeddings.device)
        (layer,), f = self._layer, self.features
        if f is None or (len(f), layer.out_features) != embeddings.shape:
            seen = "none" if f is None else f"{len(f)} with {layer.out_features} components"
            raise ValueError(
                f"embeddings must be those that the layer made last, in training and in this process, "
                f"got {n} with {embeddings.shape[1]} components, and it made {seen}"
            )
        # i draws j != i, every other sample alike
        i = torch.arange(n, device=f.device).repeat_interleave(self.partners if n > 1 else 0)
        step = torch.randint(1, max(n, 2), (len(i),), generator=self.generator)
        j = (i + step.to(f.device)) % n
        # w: how many ordered pairs of the batch are of one class, and how many of two
        same = labels[i] == labels[j]
        alike = (labels[:, None] == labels).sum() - n
        w = torch.where(same, alike, n * (n - 1) - alike)
        # E = sum ||W (f_i - f_j)||^2 / (2 w)
        W = layer.weight
        with torch.autocast(f.device.type, enabled=False):
            difference = (f[i] - f[j]).to(W.dtype) @ W.T
        energy = (difference.square().sum(dim=1) / (2 * w)).sum()
        at_one_point = energy <= torch.finfo(energy.dtype).tiny
        return self.weight * energy.masked_fill(at_one_point, 1).log()

    def extra_repr(self) -> str:
        return f"weight={self.weight}, partners={self.partners}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "features": None}  # a copy needs no batch


def _keep_features(of: weakref.ref[EnergyConfusion]) -> Any:
    """A hook that leaves the layer's input with the regularizer, as long as there is one, detached."""

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        confusion = of()
        if confusion is not None and layer.training:
            confusion.features = inputs[0].detach()

    return keep


class Together(nn.ModuleList):
    """Several regularizers as one: their sum.

    >>> Together([ZeroMeanRegularizer(0.1), ZeroMeanRegularizer(0.3)])(torch.tensor([[1.0, 2.0], [-3.0, 2.0]]), None)
    tensor(0.8000)
    """

    def forward(self, embeddings: Tensor, labels: Tensor | None) -> Tensor:
        terms: list[Tensor] = [regularizer(embeddings, labels) for regularizer in self]
        return torch.stack(terms).sum()
