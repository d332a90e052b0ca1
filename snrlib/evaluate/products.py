"""The smallest products of one row with many: the inner loop of every search.

``left @ right.T`` ranks as a distance does (`snrlib.distances.Distance.inner_product_form`); what is looked for in each
of its rows are the k smallest.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from snrlib.utils.checks import has_bfloat16

__all__ = ["Halves", "HalvesFirst", "Smallest", "halves_pay", "padded"]

_GROUP = 32  # scores that compete for one place in the first round of a selection, a power of two
_MOST = 64  # neighbours for which the first pass in bfloat16 looks; of more, too many would be measured twice
_HOPELESS = 0.3  # share of rows for which it was in vain: the first pass takes less than half of the second's time


def padded(right: Tensor) -> Tensor:
    """Rows (n, r) and, up to a multiple of a group, others that no search finds: their products are infinite.

    The last component of every left row must be positive.
    """
    n = len(right)
    if more := -n % _GROUP:
        right = F.pad(right, (0, 0, 0, more))
        right[n:, -1] = torch.inf
    return right


class Smallest:
    """The k smallest products of rows with all rows of ``right``.

    Two rounds: columns are dealt into groups; the k smallest products lie in the k groups with the smallest minima, so
    a selection among n / 32 minima and one among 32 k products replace one among n.

    Args:
        right: (n, r), `padded`.
        k: how many.
    """

    def __init__(self, right: Tensor, k: int) -> None:
        self._right, self._k = right, k
        self._groups = len(right) // _GROUP
        self._products = self._halves = right.new_empty(0)  # one for all blocks: fresh memory costs as much as products

    def __call__(self, left: Tensor, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Products (m, k) of rows (m, r) and their columns, smallest first; an ``own`` column of each is left out."""
        k, groups = self._k, self._groups
        if len(self._products) < len(left):
            self._products = left.new_empty(len(left), len(self._right))
            self._halves = left.new_empty(len(left), len(self._right) // 2)
        products = torch.mm(left, self._right.T, out=self._products[: len(left)])
        if own is not None:
            products[torch.arange(len(left), device=left.device), own] = torch.inf
        if k > groups // 2:  # too few groups for a first round
            return products.topk(k, largest=False)
        products = products.view(len(left), _GROUP, groups)  # group g holds the columns g, g + groups, ...
        best = self._minima(products).topk(k, largest=False, sorted=False).indices
        candidates = products.gather(2, best[:, None].expand(-1, _GROUP, -1)).flatten(1)
        found = candidates.topk(k, largest=False)
        return found.values, found.indices // k * groups + best.gather(1, found.indices % k)

    def _minima(self, products: Tensor) -> Tensor:
        """``products.amin(dim=1)`` in half of its time: one half of each group against the other, until one is left."""
        half = _GROUP // 2
        least = self._halves[: len(products)].view(len(products), half, self._groups)
        torch.minimum(products[:, :half], products[:, half:], out=least)
        while half > 1:
            half //= 2
            torch.minimum(least[:, :half], least[:, half : 2 * half], out=least[:, :half])
        return least[:, 0]


def halves_pay(right: Tensor, k: int) -> bool:
    """Whether a first pass in bfloat16 can pay: float32, a processor with instructions for it, few of many rows."""
    return (
        right.dtype == torch.float32
        and right.device.type == "cpu"
        and has_bfloat16()
        and k <= _MOST
        and len(right) >= 2 * _GROUP * _candidates(k)
    )


def _candidates(k: int) -> int:
    return k + 14


class Halves:
    """Rows (n, r) in bfloat16, and how far products with them can be from those in float32.

    The last two components, which hold squared lengths, are large: each is the sum of two numbers, which together keep
    16 of its 24 digits. So of ``l r`` are ``l_high r_low + l_low r_high + l_high r_high``.
    """

    def __init__(self, right: Tensor) -> None:
        z, ends = right[:, :-2], right[:, -2:]
        half, high, low, lost = _halves(z, ends)
        self.n = len(right)
        self.right = padded(torch.cat([half, low, high, high], dim=1))
        self._z, self._lost_z = z.norm(dim=1).max(), (z - half).norm(dim=1).max()
        self._ends, self._low, self._lost = (part.abs().amax(dim=0).float() for part in (ends, low, lost))

    def left(self, left: Tensor) -> tuple[Tensor, Tensor]:
        """The other side in bfloat16, and for each of its rows (m,) a bound of the error of all its products.

        By the triangle and the Cauchy-Schwarz inequality, plus what float32 can lose in a sum; what is lost where the
        sum itself becomes bfloat16 is not in it.
        """
        z, ends = left[:, :-2], left[:, -2:]
        half, high, low, lost = _halves(z, ends)
        lengths, sizes = z.norm(dim=1), ends.abs()
        error = (z - half).norm(dim=1) * self._z + half.float().norm(dim=1) * self._lost_z
        error += low.abs().float() @ self._low + lost @ self._ends + (sizes + lost) @ self._lost
        error += left.shape[1] * 2**-23 * (lengths * self._z + sizes @ self._ends)
        return torch.cat([half, high, low, high], dim=1), error


def _halves(z: Tensor, ends: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    high = ends.bfloat16()
    low = (ends - high).bfloat16()
    return z.bfloat16(), high, low, (ends - high - low).abs()


class HalvesFirst:
    """As `Smallest`, from candidates that products in bfloat16 find, in half of the time.

    The products of the candidates are computed anew. Whatever is no candidate is at least as large as the largest of
    them, less the error: a row whose k-th product is smaller than that is exact. The others, and all after a block
    in which there are many others, are searched without a first pass.

    Args:
        right: (n, r), `padded`.
        halves: of the same rows.
        k: how many.
    """

    def __init__(self, right: Tensor, halves: Halves, k: int) -> None:
        self._right, self._halves, self._k = right, halves, k
        self._exact = Smallest(right, k)
        self._first = Smallest(halves.right, min(_candidates(k), halves.n - 1))
        self._hopeless = False

    def __call__(self, left: Tensor, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self._hopeless:
            return self._exact(left, own)
        half, error = self._halves.left(left)
        rough, candidates = self._first(half, own)
        products = torch.cat(
            [torch.bmm(self._right[c], row[:, :, None])[:, :, 0] for c, row in self._parts(candidates, left)]
        )
        products, order = products.topk(self._k, largest=False)
        columns = candidates.gather(1, order)
        largest = rough[:, -1].float()
        unsure = products[:, -1] > largest - error - 1.01 * 2**-8 * largest.abs()
        if unsure.any():
            again = unsure.nonzero()[:, 0]
            products[again], columns[again] = self._exact(left[again], None if own is None else own[again])
            self._hopeless = len(again) > _HOPELESS * len(left)
        return products, columns

    def _parts(self, candidates: Tensor, left: Tensor) -> list[tuple[Tensor, Tensor]]:
        """So many rows at once as fit a cache."""
        rows = max(1, 2**20 // (candidates.shape[1] * left.shape[1]))
        return list(zip(candidates.split(rows), left.split(rows), strict=True))
