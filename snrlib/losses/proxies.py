"""What the losses share that compare samples with one trainable proxy per class instead of with each other."""

from __future__ import annotations

import copy
from typing import Any, Required, Unpack

import torch
from torch import Tensor, nn

from snrlib.distances import Distance
from snrlib.losses.base import Loss, Seen, SharedOptions, pair_masks
from snrlib.utils.checks import check_class_labels, check_embeddings, check_number

__all__ = ["CosineProxyLoss", "ProxyLoss", "ProxyOptions"]


class ProxyOptions(SharedOptions, total=False):
    """The keywords that every loss with proxies takes beside its own; `ProxyLoss` says what they are."""

    n_classes: Required[int]
    embedding_size: Required[int]
    seed: int | None
    rate: float


class ProxyLoss(Loss):
    """A loss of distances d(x_i, p_c) between embeddings and a trainable proxy p_c per training class.

    The sample is the query, its proxy the ref. There are no pairs of samples, no second set and no mining: any batch
    will do, and each of its samples is a term. The report's distances are those between the samples, as of any loss,
    computed when it is asked.

    Args:
        distance: a member of the family.
        n_classes: C, how many training classes there are, at least 2; their labels are 0 to C - 1.
        embedding_size: M.
        seed: of the first proxies, which are random and of length about 1; None draws them from torch's own generator,
            as a layer draws its weights. `proxies` may be set to others before the training.
        rate: the proxies' learning rate over that of the network's head, which `snrlib.train.train` takes account of.
            The papers' is 100, beside rates of 1e-4 for pretrained networks; with those of this library 10 does better.
        **shared: ``regularizer``, ``average``, ``reduction``, as in `Loss`.

    Attributes:
        proxies: (C, M), trained with the network.

    Raises:
        TypeError, ValueError: bad arguments; in a call, embeddings of another M, or labels that are not 0 ... C - 1.
    """

    term = "sample"
    has_proxies = True

    def __init__(
        self,
        distance: Distance,
        n_classes: int,
        embedding_size: int,
        seed: int | None = None,
        rate: float = 10.0,
        **shared: Unpack[SharedOptions],
    ):
        super().__init__(distance, **shared)
        for name, value, least in (("n_classes", n_classes, 2), ("embedding_size", embedding_size, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        self.rate = check_number(rate, "rate", above=0)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.proxies = nn.Parameter(torch.randn(n_classes, embedding_size, generator=generator) / embedding_size**0.5)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """What an optimizer takes: the proxies at their own rate, and what else is trainable, as a learned map.

        Args:
            learning_rate: of the network's head.
        """
        others = [p for p in self.parameters() if p.requires_grad and p is not self.proxies]
        groups = [{"params": [self.proxies], "lr": self.rate * learning_rate}]
        return [*groups, {"params": others, "lr": learning_rate}] if others else groups

    def _checked(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings, labels and proxies, one dtype and device; labels as integers of torch's own size."""
        self._report = None
        x = check_embeddings(embeddings)
        C, M = self.proxies.shape
        if x.shape[1] != M:
            raise ValueError(f"embeddings must have {M} components, as the proxies, got {x.shape[1]}")
        return x, check_class_labels(labels, len(x), C).to(x.device).long(), self.proxies.to(x)

    def _finish_samples(self, terms: Tensor, active: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        """`_finish` with the mean of the terms; the report compares the samples with each other."""
        h, total = embeddings.detach().clone(), len(terms)
        trained = any(True for _ in self.distance.parameters())
        distance = copy.deepcopy(self.distance) if trained else self.distance

        @torch.no_grad()
        def observe() -> Seen:
            d = distance(h)
            positive, negative = pair_masks(labels, len(h), d.device)
            return Seen(total, active.sum(), d[positive], d[negative])

        return self._finish(self._reduce(terms), embeddings, labels, observe)

    def extra_repr(self) -> str:
        C, M = self.proxies.shape
        return f"{C} proxies of {M} components, rate={self.rate}, {super().extra_repr()}"


class CosineProxyLoss(ProxyLoss):
    """A softmax over cosines between embeddings and proxies.

    Defined where all vectors are brought to length 1: over the cosine and the correlation distance (1 - cos, in the
    mapped space), and over Euclid with ``normalize_embeddings=True``, which has the same cosines. Elsewhere there is
    no angle to speak of; `ProxyNCALoss` is the same softmax over any distance.

    Raises:
        ValueError: another distance.
    """

    def __init__(self, distance: Distance, **options: Unpack[ProxyOptions]):
        super().__init__(distance, **options)
        at_length_one = distance.normalize_embeddings and isinstance(distance.map, nn.Identity)
        if not (distance.normalize_mapped or at_length_one):
            raise ValueError(
                f"{type(self).__name__} is a softmax over cosines, defined over cosine, correlation, and euclidean "
                f"with normalize_embeddings=True; got {distance!r}"
            )

    def _cosines(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """cos(x_i, p_c), (n, C), and the labels."""
        x, labels, proxies = self._checked(embeddings, labels)
        return self.distance.inner_product(x, proxies), labels
