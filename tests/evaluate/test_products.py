"""The search by products: what bfloat16 may lose, and that nothing is lost by it."""

from typing import Any

import pytest
import torch
from oracles import M, member, normal, over_family
from torch import Tensor

from snrlib.distances import get_distance
from snrlib.evaluate import Index, knn, products
from snrlib.evaluate.products import Halves, HalvesFirst, Smallest, padded

N = 70


def rows(kind: str) -> Tensor:
    """Embeddings (N, M) for which half the digits are enough, and for which they are not."""
    x = normal(N, M).float()
    return {
        "spread": x,
        "far from the origin": x + 1000,
        "of very different lengths": x * torch.logspace(-3, 3, N)[:, None],
        "close together": 1 + 1e-3 * x,
        "copies": x[torch.arange(N) // 10],
    }[kind]


KINDS = ("spread", "far from the origin", "of very different lengths", "close together", "copies")


@over_family
@pytest.mark.parametrize("kind", KINDS)
def test_halves_err_within_their_bound(name: str, anchor: str, kind: str) -> None:
    left, right = member(name, anchor).float().inner_product_form(rows(kind), rows(kind).flip(0))
    halves = Halves(right)
    half, error = halves.left(left)
    found = half.double() @ halves.right[:N].double().T
    assert ((found - left.double() @ right.double().T).abs() <= error[:, None]).all()
    assert (error > 0).all()


@over_family
@pytest.mark.parametrize("kind", KINDS)
def test_a_first_pass_changes_nothing(name: str, anchor: str, kind: str) -> None:
    x, d = rows(kind), member(name, anchor).float()
    left, right = d.inner_product_form(x, x)
    own = torch.arange(N)
    for k in (1, 5, N - 1):
        expected = Smallest(padded(right), k)(left, own)[0]
        found, columns = HalvesFirst(padded(right), Halves(right), k)(left, own)
        # Candidates are measured one by one, all others in one product: sums in another order, other last digits.
        rounding = 2e-6 * (left.norm(dim=1, keepdim=True) * right.norm(dim=1).max())
        assert ((found - expected).abs() <= rounding).all()
        assert not (columns == own[:, None]).any()
        assert all(len({*row}) == k for row in columns.tolist())


@pytest.mark.parametrize(("spread", "exact"), [(1.0, []), (1e-5, [40])])
def test_where_halves_cannot_tell_they_are_left(
    spread: float, exact: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = spread * normal(40, M).float()
    x = torch.cat([x, x[:20] + 50, x[20:] - 50])  # as near to the mean of all, and to each other, as it is told
    left, right = get_distance("euclidean").inner_product_form(x[:40], x)
    search, searched = HalvesFirst(padded(right), Halves(right), 2), []

    def count(rows: Tensor, own: Any = None) -> tuple[Tensor, Tensor]:
        searched.append(len(rows))
        return Smallest(padded(right), 2)(rows, own)

    monkeypatch.setattr(search, "_exact", count)
    for _ in range(2):
        search(left, torch.arange(40))
    assert searched == 2 * exact


def test_an_index_maps_its_gallery_once() -> None:
    d, mapped = member("mahalanobis"), []
    d.map.register_forward_hook(lambda _, given, __: mapped.append(len(given[0])))
    index = Index(normal(N, M), d)
    assert N in mapped
    mapped.clear()
    for query in (normal(3, M, seed=1), normal(4, M, seed=2)):
        found = index.search(query, 2)
        assert N not in mapped
        for one, other in zip(found, knn(query, 2, normal(N, M), d), strict=True):
            assert torch.equal(one, other)
        mapped.clear()


def test_a_first_pass_is_taken_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    many = torch.ones(1, 1).expand(100_000, 130)
    for able in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx512_bf16": able})
        assert products.halves_pay(many, 10) is able
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert not any(products.halves_pay(*case) for case in ((many.double(), 10), (many[:1000], 10), (many, 65)))
