"""What all losses share: a distance, a regularizer, and a report on the batch they saw last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypedDict, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snrlib.distances import Distance
from snrlib.utils.checks import check_choice, check_embeddings, check_labels, check_number

__all__ = [
    "Loss",
    "PairSoftmaxLoss",
    "Report",
    "Seen",
    "Several",
    "SharedOptions",
    "check_indices",
    "check_power",
    "held",
    "joined",
    "log_one_plus_sum_exp",
    "pair_masks",
]

Several = Tensor | Sequence[Tensor]
"""One set, or the parts of one, which are joined."""


@dataclass(frozen=True)
class Report:
    """What a loss saw in one batch; ``print`` it, or read ``verdict``.

    Attributes:
        loss: the value, without the regularizer.
        term: what the loss sums over: pair, triplet, positive pair.
        terms: how many of them are valid; with 0 the loss is 0 and teaches nothing.
        causes: why there are none, as far as the labels tell.
        active: the share of the terms that has a gradient (NaN without terms); N-pair and angular loss, whose terms all
            have one, count those above ``log 2``.
        positive_distance: mean over the pairs of one class that the loss compared (NaN if there are none).
        negative_distance: mean over the pairs of two classes that the loss compared (NaN if there are none).
        unit: the distance that this loss takes for large; far below it, it sees all embeddings at one point.
        norm: mean length of the embeddings.
        row_mean: mean over the embeddings of ``|mean of the M components|``, what `ZeroMeanRegularizer` presses on.
    """

    loss: float
    term: str
    terms: int
    causes: tuple[str, ...]
    active: float
    positive_distance: float
    negative_distance: float
    unit: float
    norm: float
    row_mean: float

    @property
    def collapsed(self) -> bool:
        """All embeddings at one point: negative distances below 1 % of the unit, and positive ones about as large."""
        at_one_point = self.negative_distance < 0.01 * self.unit  # False for NaN
        return at_one_point and not self.positive_distance < 0.1 * self.negative_distance

    @property
    def verdict(self) -> str:
        """The state of the training in a sentence."""
        if self.terms == 0:
            because = f": {' and '.join(self.causes)}" if self.causes else ""
            return f"nothing to learn from: no valid {self.term} in this batch{because}"
        if self.collapsed:
            return (
                f"collapsed: all embeddings lie at one point (mean negative distance {self.negative_distance:.2g}, "
                f"where {self.unit:.2g} counts as far) and the loss stands still at {self.loss:.3g}"
            )
        if self.active == 0:
            return f"nothing left to learn: every {self.term} meets its margin, the gradient is zero"
        return f"learning: {self.active:.1%} of {self.terms} {self.term}s are active"

    def __str__(self) -> str:
        return (
            f"{self.verdict}\n"
            f"loss {self.loss:.4g}, mean distance: positive {self.positive_distance:.4g}, "
            f"negative {self.negative_distance:.4g}; embeddings: mean norm {self.norm:.4g}, "
            f"mean |row mean| {self.row_mean:.4g}"
        )


class Seen(NamedTuple):
    """What a loss hands to its report."""

    terms: Tensor | int
    active: Tensor | int
    positive: Tensor  # distances
    negative: Tensor
    cause: str = ""  # of no terms, where the labels alone do not tell


class SharedOptions(TypedDict, total=False):
    """The keywords that every loss takes beside its own; `Loss` says what they are."""

    regularizer: nn.Module | None
    average: Literal["all", "active"]
    reduction: Literal["mean", "none"]


class Loss(nn.Module):
    """A loss over a distance: ``loss(embeddings, labels) -> scalar``.

    With a second set, ``loss(embeddings, labels, reference, reference_labels)``, the embeddings are the anchors alone,
    and positives and negatives stand in the reference: one row per anchor, one column per reference, no pair left out.
    The reference may come in parts, a list of tensors and one of their labels. A part that is the tensor of embeddings
    itself, ``loss(x, y, [x, memory], [y, memory_labels])``, is known as that: no sample is then compared with itself.

    Where the equations print a squared distance, an absolute distance is squared and a relative one, a ratio of squares
    already, enters as it is (our reading of section 4.5): `squared` is that switch. Beside it only two defaults depend
    on the kind of distance, the ``hinge`` of contrastive and the ``similarity`` of N-pair loss. A map of the distance
    with a method ``update(embeddings, labels)`` is shown every batch in training mode, before the distances.

    Args:
        distance: a member of the family; the loss's anchor i is its query, whichever side is in its denominator.
        regularizer: a module ``(embeddings, labels) -> scalar`` whose value is added, as `ZeroMeanRegularizer`; labels
            are None for given triplets and pairs.
        average: over "all" valid terms, as in the equations, or over the "active" ones alone, which are not 0.
        reduction: "mean", or "none" for the row of all valid terms, empty without any; a regularizer, a number for the
            whole batch, is refused with it.

    Raises:
        TypeError, ValueError: a distance that is none, another option; in a call, embeddings or labels of a wrong type,
            shape or value.
    """

    term = "pair"
    power: Literal[1, 2] | None = None
    told: ClassVar[tuple[str, ...]] = ()
    """Attributes that the ``repr`` names; what all losses share is named where it is not the default."""
    default_margin: ClassVar[float | None] = None
    """Taken where none is given: what is usual for distances of about 1. None of a loss without a margin."""
    margin_unit: ClassVar[Literal["distance", "squared distance"] | None] = None
    """What the margin is compared with under an absolute distance; under a relative one, a ratio of squares, it is a
    plain number. None where it is not compared with a distance, and need not be tuned for each."""
    default_scale: ClassVar[float | None] = None
    """Of a softmax over distances, taken where none is given. None of a loss without one."""
    has_proxies: ClassVar[bool] = False
    """Whether it is made for a number of classes and of components, ``n_classes=`` and ``embedding_size=``."""

    def __init__(
        self,
        distance: Distance,
        regularizer: nn.Module | None = None,
        average: Literal["all", "active"] = "all",
        reduction: Literal["mean", "none"] = "mean",
    ):
        super().__init__()
        if not isinstance(distance, Distance):
            raise TypeError(f"distance must be a Distance, as get_distance returns, got {distance!r}")
        if not isinstance(regularizer, nn.Module | None):
            raise TypeError(f"regularizer must be a torch.nn.Module, got {type(regularizer).__name__}")
        self.average = check_choice(average, "average", ("all", "active"))
        self.reduction = check_choice(reduction, "reduction", ("mean", "none"))
        if reduction == "none" and regularizer is not None:
            raise ValueError(f"reduction 'none' leaves no sum that a regularizer could be added to, got {regularizer}")
        self.distance = distance
        self.regularizer = regularizer
        if hasattr(distance.map, "update"):  # as snrlib.mahalanobis.RunningWhitening
            self.register_forward_pre_hook(_show_batch, with_kwargs=True)
        self._report: Callable[[], Report] | None = None

    def squared(self, d: Tensor) -> Tensor:
        """What stands for the equations' squared distance: ``d^exponent``."""
        if self.exponent == 1:
            return d
        # The relative distance of a constant anchor is undefined and may be huge: held, its square is a float32.
        return (d.clamp_max(1e9) if self.distance.relative else d).square()

    @property
    def exponent(self) -> int:
        """``power`` where the loss takes one and one is given; else 2 if the distance is absolute, 1 if relative."""
        return self.power or (1 if self.distance.relative else 2)

    @property
    def unit(self) -> float:
        """The distance that this loss takes for large."""
        return 1.0

    def report(self) -> Report:
        """What the last batch was like, from what the forward pass left.

        Next to no time is spent before you ask; the distances and the embeddings of the last batch are kept, detached.

        Raises:
            RuntimeError: no batch was seen yet.
        """
        if self._report is None:
            raise RuntimeError(f"{type(self).__name__} has seen no batch yet")
        return self._report()

    def _pairs(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Several | None = None,
        reference_labels: Several | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All distances, and which of the pairs are positive and which negative.

        (n, n) each, ordered pairs i != j; with a second set (n, n_reference), rows are the embeddings.
        """
        self._report = None  # what it keeps of the last batch makes room
        if (reference is None) != (reference_labels is None):
            raise ValueError("give reference and reference_labels together, or neither")
        if reference is None or reference_labels is None:
            d = self.distance(embeddings)  # checks the embeddings
            return d, *pair_masks(labels, len(embeddings), d.device)
        parts = [reference] if isinstance(reference, Tensor) else list(reference)
        others = joined(parts)
        d = self.distance(embeddings, others)
        positive, negative = pair_masks(labels, len(embeddings), d.device, joined(reference_labels), len(others))
        rows = torch.arange(len(embeddings), device=d.device)
        places = [rows if part is embeddings else torch.full_like(part[:, 0], -1, dtype=rows.dtype) for part in parts]
        return d, positive & (rows[:, None] != torch.cat(places)), negative  # no sample with itself

    def _reduce(self, terms: Tensor, valid: Tensor | None = None) -> Tensor:
        """The mean of the valid terms, all or the active of them, or with reduction "none" the terms themselves.

        ``valid`` is a mask of the terms' shape; None takes all. The mean of no term is 0, with a working backward.
        """
        if self.reduction == "none":
            return terms if valid is None else terms[valid]
        if valid is not None:
            terms = torch.where(valid, terms, 0)
        if self.average == "active":
            valid = terms != 0
        return terms.sum() / (max(len(terms), 1) if valid is None else valid.sum().clamp_min(1))

    def _finish(
        self,
        loss: Tensor,
        embeddings: Tensor,
        labels: Tensor | None,
        observe: Callable[[], Seen],
        reference_labels: Several | None = None,
    ) -> Tensor:
        """Keep what the report needs, and add the regularizer; ``loss`` is what `_reduce` returns.

        ``observe`` is called when somebody asks; what it refers to must be detached and not change meanwhile.
        """
        value, unit = loss.detach(), self.unit
        h = embeddings.detach().clone()  # an optimizer may change free embeddings in place

        def report() -> Report:
            terms, active, positive, negative, cause = observe()
            causes = []
            if labels is not None:
                if reference_labels is not None:
                    others = joined(reference_labels).to(labels.device)
                    sizes = torch.cat([labels, others]).unique(return_counts=True)[1]
                    if not torch.isin(labels, others).any():
                        causes.append("no class stands in both sets")
                else:
                    sizes = labels.unique(return_counts=True)[1]
                    if sizes.max() == 1:
                        causes.append("no class has two samples")
                if len(sizes) == 1:
                    causes.append("there is only one class")
            if cause and not causes:
                causes.append(cause)
            return Report(
                loss=value.sum().item() / max(value.numel(), 1),  # of reduction "none", too
                term=self.term,
                terms=int(terms),
                causes=tuple(causes) if terms == 0 else (),
                active=int(active) / int(terms) if terms else float("nan"),
                positive_distance=positive.mean().item(),
                negative_distance=negative.mean().item(),
                unit=unit,
                norm=torch.linalg.vector_norm(h, dim=1, dtype=value.dtype).mean().item(),
                row_mean=h.mean(dim=1, dtype=value.dtype).abs().mean().item(),
            )

        self._report = report
        return loss if self.regularizer is None else loss + self.regularizer(embeddings, labels)

    def extra_repr(self) -> str:
        usual = {"average": "all", "reduction": "mean"}
        names = [*self.told, *(name for name in usual if getattr(self, name) != usual[name])]
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_report": None}  # a copy or a checkpoint needs no batch


class PairSoftmaxLoss(Loss):
    """A softmax over an anchor's pairs, of the similarities ``-s e`` with ``e = d^power``.

    Args:
        distance: any member of the family.
        scale: s, above 0.
        power: of d in e; None is 1 for a relative distance and 2 for an absolute one.
        **shared: as in `Loss`.
    """

    told = ("scale", "power")
    default_scale = 10.0

    def __init__(
        self,
        distance: Distance,
        scale: float = default_scale,
        power: Literal[1, 2] | None = None,
        **shared: Unpack[SharedOptions],
    ):
        super().__init__(distance, **shared)
        self.power = check_power(power)
        self.scale = check_number(scale, "scale", above=0)

    def _similarity(self, d: Tensor) -> Tensor:
        return held(-self.scale * self.squared(d))


def _show_batch(loss: Loss, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    """In training, let a map that follows the batches see this one, as the distance will."""
    given = dict(zip(("embeddings", "labels"), positional, strict=False)) | named
    if loss.training and given.get("labels") is not None and "embeddings" in given:
        embeddings, distance = check_embeddings(given["embeddings"]), cast(Any, loss.distance)
        distance.map.update(F.normalize(embeddings) if distance.normalize_embeddings else embeddings, given["labels"])


def check_power(power: Any) -> Literal[1, 2] | None:
    """The exponent with which a distance enters a loss.

    Raises:
        ValueError: not 1, 2 or None.
    """
    if power is not None and (isinstance(power, bool) or power not in (1, 2)):
        raise ValueError(f"power must be 1, 2 or None, got {power!r}")
    return power


def check_indices(given: Any, name: str, n: int, n_reference: int) -> Tensor:
    """A table of indices: of n embeddings in its first column, of n_reference in the others.

    Returns:
        The columns, two for pairs and three for triplets.

    Raises:
        ValueError: another type, shape or value.
    """
    letter, width = ("t", 3) if name == "triplets" else ("p", 2)
    whole = isinstance(given, Tensor) and given.dtype in (torch.int64, torch.int32)
    if not whole or given.ndim != 2 or given.shape[1] != width:
        raise ValueError(f"{name} must be a tensor of integers of shape ({letter}, {width}), got {given!r}")
    if ((given < 0) | (given >= torch.tensor([n] + [n_reference] * (width - 1), device=given.device))).any():
        behind = "" if n_reference == n else f" and, from the second column on, of {n_reference}"
        raise ValueError(
            f"{name} must be indices of the {n} embeddings{behind}, got {given.min().item()} to {given.max().item()}"
        )
    return given.T


def pair_masks(
    labels: Tensor, n: int, device: torch.device, reference_labels: Tensor | None = None, n_reference: int = 0
) -> tuple[Tensor, Tensor]:
    """Which pairs of n samples, or of n samples and a second set, are of one class, and which of two.

    Returns:
        Two masks (n, n) of the ordered pairs i != j; with a second set (n, n_reference), of all pairs.

    Raises:
        TypeError, ValueError: labels that are not n integers, reference_labels that are not n_reference ones.
    """
    labels = check_labels(labels, n).to(device)
    if reference_labels is not None:
        same = labels[:, None] == check_labels(reference_labels, n_reference, "reference_labels").to(device)
        return same, ~same
    same = labels[:, None] == labels
    # Not fill_diagonal_ on a copy: torch.compile (2.13, inductor) can lose the change.
    return same & ~torch.eye(n, dtype=torch.bool, device=device), ~same


def joined(parts: Several) -> Tensor:
    """One tensor of one or several."""
    return parts if isinstance(parts, Tensor) else torch.cat(tuple(parts))


def held(x: Tensor) -> Tensor:
    """``x`` within the root of the largest number, and without a gradient beyond: a sum of such numbers is finite.

    Only the undefined relative distance of a constant anchor reaches it.
    """
    limit = torch.finfo(x.dtype).max ** 0.5
    return x.clamp(-limit, limit)


def log_one_plus_sum_exp(x: Tensor, mask: Tensor, dim: int = 1) -> Tensor:
    """``log(1 + sum exp(x))`` over what the mask leaves of a matrix along a dimension; 0 where that is nothing."""
    one = torch.zeros_like(x.narrow(dim, 0, 1))
    return torch.cat([one, torch.where(mask, x, -torch.inf)], dim=dim).logsumexp(dim=dim)
