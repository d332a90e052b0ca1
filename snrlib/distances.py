"""The family of distances: a linear map and the unit of a distance.

With a linear map ``A``, an anchor ``a`` ("signal") and a compared feature ``b`` ("noisy signal"):

    no unit (absolute)    d(a, b) = ||A(b - a)||
    the anchor (relative) d(a, b) = ||A(b - a)||^2 / ||A a||^2
    both sides            d(a, b) = ||A(b - a)||^2 / (||A a|| ||A b||)
    the batch             d(a, b) = ||A(b - a)||^2 / mean ||A x||^2
    a number c            d(a, b) = ||A(b - a)||^2 / c
    length 1              d(a, b) = ||A b / ||A b|| - A a / ||A a||||^2 / 2 = 1 - cos(A a, A b)

=============  =================  ===========================  =============  ===========
A              absolute           the anchor's power           both sides'    length 1
=============  =================  ===========================  =============  ===========
identity       euclidean (eq. 9)  relative_euclidean (eq. 10)                 cosine
P = I - 11'/M  centred_euclidean  **snr** (eq. 8)              symmetric_snr  correlation
components L   mahalanobis        relative_mahalanobis
=============  =================  ===========================  =============  ===========

``P`` subtracts from a vector the mean of its own M components, so ``||P x||^2 = M Var(x)`` (eq. 7) and the relative
distance under ``P`` is the reciprocal signal-to-noise ratio ``Var(b - a) / Var(a)``. The cosine of two centred vectors
is their correlation. The places without a name are options: ``get_distance("mahalanobis", unit="both")``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snrlib.utils.checks import check_choice, check_embeddings, check_number, is_traced

__all__ = ["DISTANCES", "MAPPED", "RELATIVE", "Centre", "Distance", "LinearMap", "Unit", "get_distance"]

AnchorSide = Literal["query", "ref"]
Unit = Literal["anchor", "both", "batch"] | float | None
"""What a squared distance is divided by; None is nothing, and the distance its root."""


class Centre(nn.Module):
    """Subtract from every row the mean of its own components: ``P x`` with ``P = I - 11'/M``.

    The axis matters: eqs. 6-8 take the variance over the M components of ONE vector, never over the batch.

    Shape: (..., M) -> (..., M).

    >>> Centre()(torch.tensor([[1.0, 2.0, 6.0]]))
    tensor([[-2., -1.,  3.]])
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] < 2:
            raise ValueError(f"a centred map needs at least 2 components, got shape {tuple(x.shape)}")
        # Twice: the mean of a row far from zero carries a rounding error, which the second pass removes.
        x = x - x.mean(dim=-1, keepdim=True)
        return x.sub_(x.mean(dim=-1, keepdim=True))


class LinearMap(nn.Module):
    """``x -> L x`` for a matrix ``components`` L of shape (r, M), as scikit-learn's ``components_``.

    A ``torch.nn.Parameter`` stays trainable; a tensor or an array is kept as a constant.

    Shape: (..., M) -> (..., r).

    Raises:
        ValueError: ``components`` is not a finite (r, M) matrix, or ``x`` has not M columns.
    """

    components: Tensor

    def __init__(self, components: Any):
        super().__init__()
        if not isinstance(components, Tensor):
            components = torch.as_tensor(components)
        check_embeddings(components, "components")
        if isinstance(components, nn.Parameter):
            self.components = components
        else:
            self.register_buffer("components", components.detach().clone())  # a copy: its source may change

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.components.shape[1]:
            raise ValueError(
                f"components of shape {tuple(self.components.shape)} map embeddings with "
                f"{self.components.shape[1]} components, got {x.shape[-1]}"
            )
        return x @ self.components.to(x).T

    def extra_repr(self) -> str:
        return f"components={tuple(self.components.shape)}"


class Distance(nn.Module):
    """One member of the family: ``||A(b - a)||`` or, in a unit, ``||A(b - a)||^2 / unit``, with ``a`` the anchor.

    Args:
        map: the linear map ``A``, a module (n, M) -> (n, r) without bias; None is the identity.
        relative: the short way to say ``unit="anchor"``.
        anchor: which side is the anchor ``a`` ("signal") of a relative distance: "query" (rows) or "ref" (columns).
        eps: floor of ``||A x||^2`` in a unit. The relative distance of a constant anchor is undefined; under the floor
            it is divided by eps instead: finite, too small by the factor ``||A a||^2 / eps``, and without a gradient.
            There a common scale is no longer divided out.
        normalize_embeddings: scale every embedding to length 1 first (a zero row stays zero). Off by default, because
            on centred and normalised vectors the Euclidean and the SNR distances all rank alike (notebook 02).
        unit: what ``||A(b - a)||^2`` is divided by: the power of the "anchor", ``||A a||^2``; of "both" sides,
            ``||A a|| ||A b||``, which makes it symmetric; of the "batch", the mean ``||A x||^2`` over the rows of both
            sets of the call; or a number. None divides by nothing and takes the root.
        detach_unit: no gradient goes through the unit.
        scale: s > 0, a factor of the value: an inverse temperature where it enters an exponential.
        normalize_mapped: scale every ``A x`` to length 1 (under eps it is undefined: shorter, and without a gradient).

    Attributes:
        relative: the distance is a ratio of squares, whatever its unit.

    Raises:
        ValueError: unknown anchor side or unit, or eps, scale or a number as unit not positive; in a call, embeddings
            of a wrong shape or value.
        TypeError: map not a module; in a call, embeddings that are not floating-point tensors of one dtype and device.

    >>> d = Distance(Centre(), relative=True)
    >>> a = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    >>> d(a, torch.cat([2 * a, 3 * a]))
    tensor([[1., 4.]])
    """

    def __init__(  # noqa: PLR0913 - a member is its options
        self,
        map: nn.Module | None = None,
        relative: bool = False,
        anchor: AnchorSide = "query",
        eps: float = 1e-12,
        normalize_embeddings: bool = False,
        *,
        unit: Unit = None,
        detach_unit: bool = False,
        scale: float = 1.0,
        normalize_mapped: bool = False,
    ):
        super().__init__()
        if not isinstance(map, nn.Module | None):
            raise TypeError(f"map must be a torch.nn.Module, got {type(map).__name__}; names are for get_distance")
        if unit is None:
            unit = "anchor" if relative else None
        elif isinstance(unit, Real):
            unit = check_number(unit, "unit", above=0)
        elif unit not in ("anchor", "both", "batch"):
            raise ValueError(f"unit must be 'anchor', 'both', 'batch', a positive number or None, got {unit!r}")
        self.map = nn.Identity() if map is None else map
        self.anchor = check_choice(anchor, "anchor", ("query", "ref"))
        self.eps = check_number(eps, "eps", above=0)
        self.normalize_embeddings = normalize_embeddings
        self.unit: Unit = unit
        self.detach_unit = detach_unit
        self.scale = check_number(scale, "scale", above=0)
        self.normalize_mapped = normalize_mapped

    @property
    def relative(self) -> bool:
        """Whether the distance is a ratio of squares."""
        return self.unit is not None

    def forward(self, query: Tensor, ref: Tensor | None = None) -> Tensor:
        """All distances between the rows of two sets.

        Args:
            query: (n_query, M).
            ref: (n_ref, M); None compares ``query`` with itself, and the diagonal is then exactly zero.

        Returns:
            (n_query, n_ref), never negative; float32 for half-precision inputs. Time is one matrix product, memory
            O(n_query n_ref): no temporary has a third axis. A distance much smaller than the lengths of its two
            vectors carries the rounding error of their squares, and an absolute one within it is 0;
            `pairwise_distance` is exact there.
        """
        query, ref = self._prepare(query, query if ref is None else ref)
        with torch.autocast(query.device.type, enabled=False):
            z_query, z_ref, powers = self._project(query, ref)
            # ||z_q - z_r||^2 = ||z_r||^2 - 2 z_q.z_r + ||z_q||^2
            power_query = _power(z_query)
            power_ref = power_query if ref is query else _power(z_ref)
            d = torch.addmm(power_ref.T, z_query, z_ref.T, alpha=-2).add_(power_query)
            if self.relative:
                d = self._in_unit(d, powers.query, powers.ref.T)
        if ref is query and is_traced(d):  # vmap fills no diagonal at speed
            d = d.masked_fill(torch.eye(len(d), dtype=torch.bool, device=d.device), 0)
        elif ref is query:
            d.detach().fill_diagonal_(0)  # unseen by autograd, which is slow at it: the relu has no gradient at 0
        d = d.relu_()  # rounding can leave a distance near zero slightly negative
        if not self.relative:
            # A root would blow up the rounding error of equal vectors, up to 10 eps of their square (measured, M = 16
            # to 8192), to 1e-3 of their length in float32.
            d = _sqrt(d, 16 * torch.finfo(d.dtype).eps * power_query.detach())
        return d if self.scale == 1 else d * self.scale

    def pairwise_distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Row by row: ``d(x_i, y_i)``, with ``x`` as query and ``y`` as ref.

        Args:
            x: (n, M).
            y: (n, M).

        Returns:
            (n,).
        """
        x, y = self._prepare(x, y)
        if len(x) != len(y):
            raise ValueError(f"pairwise distances need as many rows on both sides, got {len(x)} and {len(y)}")
        with torch.autocast(x.device.type, enabled=False):
            # Centre first: the difference of two large and different means would take the small digits with it.
            noise = self._mapped(y) - self._mapped(x) if self._map_first else self._mapped(y - x)
            d = _power(noise)
            d = self._in_unit(d, *self._powers(x, y)) if self.relative else _sqrt(d, 0)
        d = d.squeeze(1)
        return d if self.scale == 1 else d * self.scale

    def embed(self, x: Tensor) -> Tensor:
        """The mapped space ``A x``, in which the distance is Euclidean, absolute or in units of the anchor.

        Args:
            x: (n, M).

        Returns:
            (n, r).
        """
        x, _ = self._prepare(x, x)
        with torch.autocast(x.device.type, enabled=False):
            return self._mapped(x)

    def inner_product(self, query: Tensor, ref: Tensor) -> Tensor:
        """``(A q)'(A r)``, the similarity that goes with an absolute distance (eq. 3); no anchor side.

        Args:
            query: (n_query, M).
            ref: (n_ref, M).

        Returns:
            (n_query, n_ref).
        """
        query, ref = self._prepare(query, ref)
        with torch.autocast(query.device.type, enabled=False):
            z_query = self._mapped(query)
            return z_query @ (z_query if ref is query else self._mapped(ref)).T

    def inner_product_form(self, query: Tensor, ref: Tensor) -> tuple[Tensor, Tensor]:
        """Two matrices whose product ranks the refs of every query exactly as the distance does, smallest first.

        ``[z_q, ||z_q||^2, 1] . [-2 z_r, 1, ||z_r||^2]`` is the numerator ``||z_q - z_r||^2``; the unit of a
        reference divides the right side (a ref anchor by ``||A a_r||^2``, both sides by ``||A r||``), that of a query
        a whole row, which no ranking sees. So nearest neighbours under every member are an inner-product search
        (`snrlib.evaluate.knn`). Gradients hold for the product alone: those of the two matrices each are not the
        distance's.

        Args:
            query: (n_query, M).
            ref: (n_ref, M).

        Returns:
            left (n_query, r + 2) and right (n_ref, r + 2).
        """
        right, left_of = self.search_form(ref)
        return left_of(query), right

    def search_form(self, ref: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The right matrix of `inner_product_form`, and the function that makes the left one of any queries.

        Args:
            ref: (n_ref, M).
        """
        given, ref = ref, self._checked(ref, "ref")
        first = self._map_first  # as in `_project`
        with torch.autocast(ref.device.type, enabled=False):
            mapped = self._mapped(ref) if first else ref
            divided = self.unit == "both" or (self.unit == "anchor" and self.anchor == "ref")
            unit = _power(mapped if first else self._mapped(ref)).clamp_min(self.eps) if divided else None
            origin = mapped.detach().mean(dim=0)
            z = _minus(mapped, origin) if first else self._mapped(ref - origin)
            power_z = _power(z)
            right = torch.cat([-2 * z, torch.ones_like(power_z), power_z], dim=1)
            if unit is not None:
                right = right / (unit.sqrt() if self.unit == "both" else unit)
        found = given.dtype, given.device  # the gallery as it was given is not held

        def left_of(query: Tensor) -> Tensor:
            asked, query = query, self._checked(query, "query")
            _check_alike(query, ref, (asked.dtype, asked.device), found)
            with torch.autocast(query.device.type, enabled=False):
                z = _minus(self._mapped(query), origin) if first else self._mapped(query - origin)
                power_z = _power(z)
                return torch.cat([z, power_z, torch.ones_like(power_z)], dim=1)

        return right, left_of

    @torch.no_grad()
    def between(self, query: Tensor, ref: Tensor) -> Distance:
        """The same distance, with a mean power of the batch held at that of these two sets.

        A search goes through them in blocks, and its distances shall be in one unit.

        Args:
            query: (n_query, M).
            ref: (n_ref, M).
        """
        if self.unit != "batch":
            return self
        query, ref = self._prepare(query, ref)
        fixed = copy.copy(self)
        fixed.unit = float(self._mean_power(*self._powers(query, ref)))
        return fixed

    def _project(self, query: Tensor, ref: Tensor) -> tuple[Tensor, Tensor, _Powers]:
        """``z = A x`` of both sides, counted from the mean ref, and the powers ``||A x||^2`` that make the unit.

        ``b - a`` does not change when both move, and far from the origin the product of the two loses digits. Centred
        rows move after the map, since their own means may lie far apart; for all others the map itself loses digits.
        """
        if self._map_first:
            mapped_query = self._mapped(query)
            mapped_ref = mapped_query if ref is query else self._mapped(ref)
            powers = self._powers(mapped_query, mapped_ref, mapped=True)
            origin = mapped_ref.detach().mean(dim=0)
            z_query = _minus(mapped_query, origin)
            return z_query, z_query if ref is query else _minus(mapped_ref, origin), powers
        origin = ref.detach().mean(dim=0)
        z_query = self._mapped(query - origin)
        z_ref = z_query if ref is query else self._mapped(ref - origin)
        return z_query, z_ref, self._powers(query, ref)

    @property
    def _map_first(self) -> bool:
        """Whether differences are taken of mapped rows: see `_project`; and a length of 1 is of rows, not of noise."""
        return isinstance(self.map, Centre) or self.normalize_mapped

    def _powers(self, query: Tensor, ref: Tensor, mapped: bool = False) -> _Powers:
        """``||A x||^2``, (n, 1), of the sides that make the unit; of a side that does not, ones to broadcast."""
        one = query.new_ones(1, 1)
        sides = {"anchor": (self.anchor,), "both": ("query", "ref"), "batch": ("query", "ref")}.get(str(self.unit), ())
        of_query = _power(query if mapped else self._mapped(query)) if "query" in sides else one
        if ref is query and "query" in sides:
            return _Powers(of_query, of_query)
        return _Powers(of_query, _power(ref if mapped else self._mapped(ref)) if "ref" in sides else one)

    def _mean_power(self, query: Tensor, ref: Tensor) -> Tensor:
        """Over the rows of both sets."""
        return ((query.sum() + ref.sum()) / (query.numel() + ref.numel())).clamp_min(self.eps)

    def _in_unit(self, d: Tensor, query: Tensor, ref: Tensor) -> Tensor:
        """``d`` over the unit, in place. Under the floor it is undefined: a finite value, and no gradient.

        Args:
            d: squared distances.
            query: powers of the queries, which broadcast with d.
            ref: the same of the references.
        """
        if isinstance(self.unit, float):
            return d.div_(self.unit)
        if self.detach_unit:
            query, ref = query.detach(), ref.detach()
        if self.unit == "batch":
            return d.div_(self._mean_power(query, ref))
        if self.unit == "both":
            d.div_(query.clamp_min(self.eps).sqrt()).div_(ref.clamp_min(self.eps).sqrt())
            floored = torch.minimum(query, ref) <= self.eps
        else:
            anchor = query if self.anchor == "query" else ref
            d.div_(anchor.clamp_min(self.eps))
            floored = anchor <= self.eps
        if is_traced(d) or floored.any():
            d = torch.where(floored, d.detach().clamp_max(torch.finfo(d.dtype).max), d)
        return d

    def _mapped(self, x: Tensor) -> Tensor:
        """``A x``, at length 1 if asked; refused where it is too large to be squared, as embeddings are."""
        z = self.map(x)
        if not isinstance(self.map, nn.Identity | Centre):
            z = check_embeddings(z, "embeddings under the map")
        return _at_length_one(z, self.eps) if self.normalize_mapped else z

    def _prepare(self, query: Tensor, ref: Tensor) -> tuple[Tensor, Tensor]:
        """Check both sides once, at the public edge, and bring them to compute precision (and length 1 if asked)."""
        checked = self._checked(query, "query")
        if ref is query:
            return checked, checked
        checked_ref = self._checked(ref, "ref")
        _check_alike(checked, checked_ref, (query.dtype, query.device), (ref.dtype, ref.device))
        return checked, checked_ref

    def _checked(self, x: Tensor, name: str) -> Tensor:
        x = check_embeddings(x, name)
        return F.normalize(x) if self.normalize_embeddings else x

    @property
    def name(self) -> str:
        """Which of `DISTANCES` it is, "custom" if it is none of them."""
        for name, (kind, unit, normalize_mapped) in _FAMILY.items():
            if isinstance(self.map, kind) and (self.unit, self.normalize_mapped) == (unit, normalize_mapped):
                return name
        return "custom"

    @property
    def anchored(self) -> bool:
        """Whether it makes a difference which side is the anchor."""
        return self.unit == "anchor"

    def extra_repr(self) -> str:
        a, b = ("A a/||A a||", "A b/||A b||") if self.normalize_mapped else ("A a", "A b")
        noise = f"||{b} - {a}||" if self.normalize_mapped else "||A(b - a)||"
        unit = {
            "anchor": f" / ||{a}||^2, anchor a = {self.anchor}",
            "both": f" / (||{a}|| ||{b}||)",
            "batch": " / mean ||A x||^2",
        }.get(str(self.unit), f" / {self.unit:g}" if isinstance(self.unit, float) else "")
        return (
            f"d(a, b) = {'' if self.scale == 1 else f'{self.scale:g} '}{noise}{'^2' if self.relative else ''}{unit}"
            f"{', unit without gradient' if self.detach_unit else ''}"
            f", normalize_embeddings={self.normalize_embeddings}"
        )


class _Powers(NamedTuple):
    """Squared lengths of mapped rows, (n, 1)."""

    query: Tensor
    ref: Tensor


def _power(z: Tensor) -> Tensor:
    """(n, r) -> (n, 1), squared lengths."""
    return torch.linalg.vector_norm(z, dim=1, keepdim=True).square()  # z.square() would be a copy of z


def _at_length_one(z: Tensor, eps: float) -> Tensor:
    """``z / ||z||``; under eps a row has no direction: it stays shorter than 1, and without a gradient."""
    power = _power(z)
    unit = z / power.clamp_min(eps).sqrt()
    return torch.where(power <= eps, unit.detach(), unit)


def _check_alike(query: Tensor, ref: Tensor, *given: tuple[torch.dtype, torch.device]) -> None:
    """Of two sides that are checked; a refusal names how they were given."""
    if query.shape[1] != ref.shape[1]:
        raise ValueError(
            f"query and ref must have the same number of components M, got {query.shape[1]} and {ref.shape[1]}"
        )
    if query.dtype != ref.dtype or query.device != ref.device:
        got = " and ".join(f"{dtype} on {device}" for dtype, device in given)
        raise TypeError(f"query and ref must share dtype and device, got {got}")


def _minus(fresh: Tensor, origin: Tensor) -> Tensor:
    """``fresh - origin``, in place unless a gradient needs the old values: new memory costs more than the sum."""
    return fresh - origin if fresh.requires_grad or is_traced(origin) else fresh.sub_(origin)


def _sqrt(squared: Tensor, noise: Tensor | float) -> Tensor:
    """Square root of a fresh tensor; up to the noise, a number or one a row, it is 0 with gradient 0, not infinity."""
    zero = squared <= noise
    if not squared.requires_grad:
        return squared.masked_fill_(zero, 0).sqrt_()
    return squared.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


# name: (map, unit, whether mapped rows are brought to length 1); a LinearMap is built from ``components=``.
_FAMILY: dict[str, tuple[type[nn.Module], Unit, bool]] = {
    "euclidean": (nn.Identity, None, False),
    "centred_euclidean": (Centre, None, False),
    "relative_euclidean": (nn.Identity, "anchor", False),
    "snr": (Centre, "anchor", False),
    "mahalanobis": (LinearMap, None, False),
    "relative_mahalanobis": (LinearMap, "anchor", False),
    "cosine": (nn.Identity, 2.0, True),
    "correlation": (Centre, 2.0, True),
    "symmetric_snr": (Centre, "both", False),
}
DISTANCES: tuple[str, ...] = tuple(_FAMILY)
RELATIVE: tuple[str, ...] = tuple(name for name, (_, unit, _) in _FAMILY.items() if unit is not None)
"""Those in a unit: plain numbers, whatever the scale of the embeddings."""
MAPPED: tuple[str, ...] = tuple(name for name, (map, *_) in _FAMILY.items() if map is LinearMap)
"""Those whose map is a matrix of the caller's, ``components=``."""
_OPTIONS = ("anchor", "eps", "normalize_embeddings", "unit", "detach_unit", "scale")


def get_distance(name: str, *, components: Any = None, **options: Any) -> Distance:
    """A member of the family by name.

    Args:
        name: one of `DISTANCES`.
        components: the matrix L of shape (r, M) of the two Mahalanobis members (``L'L`` is their M); refused elsewhere.
        **options: ``anchor``, ``eps``, ``normalize_embeddings``, ``unit``, ``detach_unit``, ``scale`` of `Distance`. A
            unit takes the place of the member's own: ``get_distance("euclidean", unit=1.0)`` is the squared Euclidean
            distance, and ``get_distance("snr", detach_unit=True)`` has no gradient through the anchor's power.

    Raises:
        ValueError: unknown name, or ``components`` missing or not expected.
        TypeError: unknown option.

    >>> a = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    >>> get_distance("snr").pairwise_distance(a, 2 * a)
    tensor([1.])
    """
    if not isinstance(name, str) or name not in _FAMILY:
        raise ValueError(f"unknown distance {name!r}; choose from {', '.join(DISTANCES)}")
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise TypeError(f"unknown option {', '.join(unknown)} for {name}; choose from {', '.join(sorted(_OPTIONS))}")
    kind, unit, normalize_mapped = _FAMILY[name]
    if kind is LinearMap and components is None:
        raise ValueError(f"{name} needs components=, the matrix L of shape (r, M)")
    if kind is not LinearMap and components is not None:
        raise ValueError(f"{name} takes no components=; only mahalanobis and relative_mahalanobis do")
    map = LinearMap(components) if kind is LinearMap else kind()
    return Distance(map, **{"unit": unit, **options}, normalize_mapped=normalize_mapped)
