"""The family of distances: a linear map, absolute or relative, and an anchor side.

With a linear map ``A``, an anchor ``a`` ("signal") and a compared feature ``b`` ("noisy signal"):

    absolute   d(a, b) = ||A(b - a)||
    relative   d(a, b) = ||A(b - a)||^2 / ||A a||^2

=================  ===================  =====================
A                  absolute             relative
=================  ===================  =====================
identity           euclidean (eq. 9)    relative_euclidean (eq. 10)
P = I - 11'/M      centred_euclidean    **snr** (eq. 8)
components L       mahalanobis          relative_mahalanobis
=================  ===================  =====================

``P`` subtracts from a vector the mean of its own M components, so ``||P x||^2 = M Var(x)`` (eq. 7) and the relative
distance under ``P`` is the reciprocal signal-to-noise ratio ``Var(b - a) / Var(a)``.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snrlib.utils.checks import check_embeddings, is_traced

__all__ = ["DISTANCES", "MAPPED", "RELATIVE", "Centre", "Distance", "LinearMap", "get_distance"]

AnchorSide = Literal["query", "ref"]


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
    """One member of the family: ``||A(b - a)||`` or, relative, ``||A(b - a)||^2 / ||A a||^2`` with ``a`` the anchor.

    Args:
        map: the linear map ``A``, a module (n, M) -> (n, r) without bias; None is the identity.
        relative: divide the squared distance by the squared length of the mapped anchor.
        anchor: which side is the anchor ``a`` ("signal") of a relative distance: "query" (rows) or "ref" (columns).
        eps: floor of ``||A a||^2``. The relative distance of a constant anchor is undefined; under the floor it is
            divided by eps instead: finite, too small by the factor ``||A a||^2 / eps``, and without a gradient. There a
            common scale is no longer divided out.
        normalize_embeddings: scale every embedding to length 1 first (a zero row stays zero). Off by default, because
            on centred and normalised vectors the Euclidean and the SNR distances all rank alike (notebook 02).

    Raises:
        ValueError: unknown anchor side, or eps not positive; in a call, embeddings of a wrong shape or value.
        TypeError: map not a module; in a call, embeddings that are not floating-point tensors of one dtype and device.

    >>> d = Distance(Centre(), relative=True)
    >>> a = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    >>> d(a, torch.cat([2 * a, 3 * a]))
    tensor([[1., 4.]])
    """

    def __init__(
        self,
        map: nn.Module | None = None,
        relative: bool = False,
        anchor: AnchorSide = "query",
        eps: float = 1e-12,
        normalize_embeddings: bool = False,
    ):
        super().__init__()
        if anchor not in ("query", "ref"):
            raise ValueError(f"anchor must be 'query' or 'ref', got {anchor!r}")
        if not 0 < eps < float("inf"):
            raise ValueError(f"eps must be positive and finite, got {eps!r}")
        if not isinstance(map, nn.Module | None):
            raise TypeError(f"map must be a torch.nn.Module, got {type(map).__name__}; names are for get_distance")
        self.map = nn.Identity() if map is None else map
        self.relative = relative
        self.anchor = anchor
        self.eps = eps
        self.normalize_embeddings = normalize_embeddings

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
            z_query, z_ref, anchor = self._project(query, ref)
            # ||z_q - z_r||^2 = ||z_r||^2 - 2 z_q.z_r + ||z_q||^2
            power_query = _power(z_query)
            power_ref = power_query if ref is query else _power(z_ref)
            d = torch.addmm(power_ref.T, z_query, z_ref.T, alpha=-2).add_(power_query)
            if self.relative:
                d = self._in_units_of(anchor if self.anchor == "query" else anchor.T, d)
        if ref is query and is_traced(d):  # vmap fills no diagonal at speed
            d = d.masked_fill(torch.eye(len(d), dtype=torch.bool, device=d.device), 0)
        elif ref is query:
            d.fill_diagonal_(0)
        d = d.relu_()  # rounding can leave a distance near zero slightly negative
        # A root would blow up the rounding error of equal vectors, up to 10 eps of their square (measured, M = 16 to
        # 8192), to 1e-3 of their length in float32.
        return d if self.relative else _sqrt(d, 16 * torch.finfo(d.dtype).eps * power_query.detach())

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
            noise = self._mapped(y) - self._mapped(x) if isinstance(self.map, Centre) else self._mapped(y - x)
            d = _power(noise)
            if self.relative:
                d = self._in_units_of(_power(self._mapped(x if self.anchor == "query" else y)), d)
            else:
                d = _sqrt(d, 0)
        return d.squeeze(1)

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

        ``[z_q, ||z_q||^2, 1] . [-2 z_r, 1, ||z_r||^2]`` is the numerator ``||z_q - z_r||^2``; a ref anchor divides
        the right side by ``||A a_r||^2``, a query anchor divides a whole row, which no ranking sees. So nearest
        neighbours under every member are an inner-product search (`snrlib.evaluate.knn`). Gradients hold for the
        product alone: those of the two matrices each are not the distance's.

        Args:
            query: (n_query, M).
            ref: (n_ref, M).

        Returns:
            left (n_query, r + 2) and right (n_ref, r + 2).
        """
        query, ref = self._prepare(query, ref)
        with torch.autocast(query.device.type, enabled=False):
            z_query, z_ref, anchor = self._project(query, ref)
            power_query, power_ref = _power(z_query), _power(z_ref)
            left = torch.cat([z_query, power_query, torch.ones_like(power_query)], dim=1)
            right = torch.cat([-2 * z_ref, torch.ones_like(power_ref), power_ref], dim=1)
            if self.relative and self.anchor == "ref":
                right = right / anchor.clamp_min(self.eps)
        return left, right

    def _project(self, query: Tensor, ref: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``z = A x`` of both sides, counted from the mean ref, and ``||A a||^2`` of the anchors, (n, 1).

        ``b - a`` does not change when both move, and far from the origin the product of the two loses digits. Centred
        rows move after the map, since their own means may lie far apart; for all others the map itself loses digits.
        """
        if isinstance(self.map, Centre):
            mapped_query = self._mapped(query)
            mapped_ref = mapped_query if ref is query else self._mapped(ref)
            anchor = _power(mapped_query if self.anchor == "query" else mapped_ref)
            origin = mapped_ref.detach().mean(dim=0)
            z_query = _minus(mapped_query, origin)
            return z_query, z_query if ref is query else _minus(mapped_ref, origin), anchor
        origin = ref.detach().mean(dim=0)
        z_query = self._mapped(query - origin)
        z_ref = z_query if ref is query else self._mapped(ref - origin)
        anchor = _power(self._mapped(query if self.anchor == "query" else ref)) if self.relative else _power(z_query)
        return z_query, z_ref, anchor

    def _in_units_of(self, anchor: Tensor, d: Tensor) -> Tensor:
        """``d / ||A a||^2``, in place. Under the floor it is undefined: a finite value, and no gradient."""
        d.div_(anchor.clamp_min(self.eps))
        floored = anchor <= self.eps
        if is_traced(d) or floored.any():
            d = torch.where(floored, d.detach().clamp_max(torch.finfo(d.dtype).max), d)
        return d

    def _mapped(self, x: Tensor) -> Tensor:
        """``A x``; refused where it is too large to be squared, as embeddings are."""
        z = self.map(x)
        return z if isinstance(self.map, nn.Identity | Centre) else check_embeddings(z, "embeddings under the map")

    def _prepare(self, query: Tensor, ref: Tensor) -> tuple[Tensor, Tensor]:
        """Check both sides once, at the public edge, and bring them to compute precision (and length 1 if asked)."""
        checked = check_embeddings(query, "query")
        if self.normalize_embeddings:
            checked = F.normalize(checked)
        if ref is query:
            return checked, checked
        checked_ref = check_embeddings(ref, "ref")
        if query.shape[1] != ref.shape[1]:
            raise ValueError(
                f"query and ref must have the same number of components M, got {query.shape[1]} and {ref.shape[1]}"
            )
        if checked.dtype != checked_ref.dtype or query.device != ref.device:
            raise TypeError(
                "query and ref must share dtype and device, "
                f"got {query.dtype} on {query.device} and {ref.dtype} on {ref.device}"
            )
        return checked, F.normalize(checked_ref) if self.normalize_embeddings else checked_ref

    @property
    def name(self) -> str:
        """Which of `DISTANCES` it is, "custom" if its map is of another kind."""
        kinds = {nn.Identity: "euclidean", Centre: "centred_euclidean", LinearMap: "mahalanobis"}
        absolute = next((name for kind, name in kinds.items() if isinstance(self.map, kind)), None)
        if absolute is None:
            return "custom"
        if not self.relative:
            return absolute
        return "snr" if absolute == "centred_euclidean" else f"relative_{absolute}"

    def extra_repr(self) -> str:
        if not self.relative:
            return f"d(a, b) = ||A(b - a)||, normalize_embeddings={self.normalize_embeddings}"
        return (
            f"d(a, b) = ||A(b - a)||^2 / ||A a||^2, anchor a = {self.anchor}, "
            f"normalize_embeddings={self.normalize_embeddings}"
        )


def _power(z: Tensor) -> Tensor:
    """(n, r) -> (n, 1), squared lengths."""
    return torch.linalg.vector_norm(z, dim=1, keepdim=True).square()  # z.square() would be a copy of z


def _minus(fresh: Tensor, origin: Tensor) -> Tensor:
    """``fresh - origin``, in place unless a gradient needs the old values: new memory costs more than the sum."""
    return fresh - origin if fresh.requires_grad or is_traced(origin) else fresh.sub_(origin)


def _sqrt(squared: Tensor, noise: Tensor | float) -> Tensor:
    """Square root of a fresh tensor; up to the noise, a number or one a row, it is 0 with gradient 0, not infinity."""
    zero = squared <= noise
    if not squared.requires_grad:
        return squared.masked_fill_(zero, 0).sqrt_()
    return squared.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


# name: (map, relative); a map of None is built from ``components=``.
_FAMILY: dict[str, tuple[type[nn.Module] | None, bool]] = {
    "euclidean": (nn.Identity, False),
    "centred_euclidean": (Centre, False),
    "relative_euclidean": (nn.Identity, True),
    "snr": (Centre, True),
    "mahalanobis": (None, False),
    "relative_mahalanobis": (None, True),
}
DISTANCES: tuple[str, ...] = tuple(_FAMILY)
RELATIVE: tuple[str, ...] = tuple(name for name, (_, relative) in _FAMILY.items() if relative)
"""Those in units of the anchor: plain numbers, whatever the scale of the embeddings."""
MAPPED: tuple[str, ...] = tuple(name for name, (map, _) in _FAMILY.items() if map is None)
"""Those whose map is a matrix of the caller's, ``components=``."""


def get_distance(name: str, *, components: Any = None, **options: Any) -> Distance:
    """A member of the family by name.

    Args:
        name: one of `DISTANCES`.
        components: the matrix L of shape (r, M) of the two Mahalanobis members (``L'L`` is their M); refused elsewhere.
        **options: ``anchor``, ``eps``, ``normalize_embeddings`` of `Distance`.

    Raises:
        ValueError: unknown name, or ``components`` missing or not expected.
        TypeError: unknown option.

    >>> a = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    >>> get_distance("snr").pairwise_distance(a, 2 * a)
    tensor([1.])
    """
    if not isinstance(name, str) or name not in _FAMILY:
        raise ValueError(f"unknown distance {name!r}; choose from {', '.join(DISTANCES)}")
    known = {"anchor", "eps", "normalize_embeddings"}
    if unknown := sorted(options.keys() - known):
        raise TypeError(f"unknown option {', '.join(unknown)} for {name}; choose from {', '.join(sorted(known))}")
    make_map, relative = _FAMILY[name]
    if make_map is None and components is None:
        raise ValueError(f"{name} needs components=, the matrix L of shape (r, M)")
    if make_map is not None and components is not None:
        raise ValueError(f"{name} takes no components=; only mahalanobis and relative_mahalanobis do")
    map = make_map() if make_map is not None else LinearMap(components)
    return Distance(map, relative=relative, **options)
