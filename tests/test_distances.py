"""The family of distances: values and gradients against naive loops, edge cases, identities of d_S.

What else the study says of d_S (its law under noise, the triangle inequality, what eq. 14 makes of a correlation, where
it pushes the anchor) the notebooks 01 to 05 and 09 compute and assert.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import (
    F32,
    F64,
    Largest,
    M,
    bad_options,
    member,
    naive_inner_product,
    naive_inner_products,
    naive_matrix,
    naive_pairs,
    normal,
    over_family,
    refusals,
    relative_error,
    variance,
)
from oracles import L as LINEAR
from pytorch_metric_learning.distances import SNRDistance
from scipy.spatial.distance import cdist
from torch import Tensor, nn
from torch.nn import functional as F

from snrlib.distances import DISTANCES, MAPPED, RELATIVE, Distance, get_distance
from snrlib.evaluate import knn, verification
from snrlib.utils.checks import check_embeddings

few = settings(max_examples=40, deadline=None, derandomize=True)
FORMS = {"relative_euclidean": "euclidean", "snr": "centred_euclidean", "relative_mahalanobis": "mahalanobis"}
# How a distance is called: the rows of its arguments, the call, and the loops.
OPERATIONS: dict[str, tuple[list[int], str, Callable[..., Tensor]]] = {
    "self": ([5], "forward", naive_matrix),
    "square": ([5, 5], "forward", naive_matrix),
    "rectangular": ([5, 3], "forward", naive_matrix),
    "pairwise": ([5, 5], "pairwise_distance", naive_pairs),
    "inner product": ([5, 3], "inner_product", naive_inner_products),
}
both_anchors = pytest.mark.parametrize("anchor", ["query", "ref"])


def sides(operation: str, dtype: torch.dtype = F64, offset: float = 0.0) -> list[Tensor]:
    """The arguments of an operation: unit variance around the offset."""
    return [(normal(n, M, seed=seed) + offset).to(dtype) for seed, n in enumerate(OPERATIONS[operation][0])]


def fast(d: Distance, operation: str) -> Callable[..., Tensor]:
    return getattr(d, OPERATIONS[operation][1])


def value_and_gradients(compute: Callable[..., Tensor], xs: list[Tensor]) -> list[Tensor]:
    """Of a random weighted sum."""
    xs = [x.clone().requires_grad_() for x in xs]
    d = compute(*xs)
    return [d.detach(), *torch.autograd.grad((d * normal(*d.shape, seed=7).to(d)).sum(), xs)]


def centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=-1, keepdim=True)


def assert_close(actual: Tensor, expected: Tensor, rtol: float = 1e-10, atol: float = 0.0) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


# --- values and gradients ---------------------------------------------------------------------------------------------


@over_family
@pytest.mark.parametrize("operation", OPERATIONS)
def test_values_and_gradients_equal_the_naive_loops(name: str, anchor: str, operation: str) -> None:
    d = fast(member(name, anchor), operation)
    for dtype, tolerance in ((F64, 1e-10), (F32, 2e-6)):
        for offset in (0.0, 1000.0):
            xs = sides(operation, dtype, offset)
            actual = value_and_gradients(d, xs)
            loops = partial(OPERATIONS[operation][2], name, anchor)
            # A length of 1 divides by what all vectors share, too, and leaves 1e-3 of them to differ.
            lost = 1e3 if name == "cosine" and offset and dtype == F32 else 1
            for a, e in zip(actual, value_and_gradients(loops, [x.double() for x in xs]), strict=True):
                assert a.dtype == dtype
                assert relative_error(a, e) <= tolerance * lost, (dtype, offset)
    assert torch.autograd.gradcheck(d, [x.requires_grad_() for x in sides(operation)])


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
@over_family
def test_lower_precisions_and_autocast_mean_float32(name: str, anchor: str, device: str) -> None:
    d = member(name, anchor).to(device)
    for dtype in (F64, F32, torch.bfloat16, torch.float16):
        query, ref = (x.to(device) for x in sides("square", dtype))
        found = d(query, ref)
        assert (found.device.type, found.dtype) == (device, F64 if dtype == F64 else F32)
        expected = naive_matrix(name, anchor, query.double().cpu(), ref.double().cpu())  # of the rounded inputs
        assert relative_error(found.cpu(), expected) <= (1e-10 if dtype == F64 else 2e-6)
        for call in (d, d.pairwise_distance, d.inner_product, lambda q, r: torch.cat(d.inner_product_form(q, r))):
            with torch.autocast(device, torch.bfloat16):
                cast = call(query, ref)
            assert cast.dtype == found.dtype
            assert torch.equal(cast, call(query, ref))
    x = (100 * normal(1, 64) + normal(40, 64)).float()  # a vector shared by all costs no digits
    if name not in MAPPED:
        torch.testing.assert_close(d(x.to(device)).double(), d(x.double().to(device)), rtol=5e-5, atol=0)


@over_family
@pytest.mark.parametrize("rows", [(40,), (40, 30)])
def test_no_temporary_has_a_third_axis(name: str, anchor: str, rows: tuple[int, ...]) -> None:
    xs = [normal(n, M, seed=n).requires_grad_() for n in rows]
    with Largest() as largest:
        d = member(name, anchor)(*xs)
        d.sum().backward()
    assert d.numel() <= largest.numel <= max(rows[0] * rows[-1], rows[0] * (M + 2))


# --- edges: zero distances, constant anchors --------------------------------------------------------------------------


@over_family
@pytest.mark.parametrize(("dtype", "offset"), [(F32, 0.0), (F32, 1000.0), (F64, 10.0)])
def test_equal_rows_are_at_zero_and_none_below(name: str, anchor: str, dtype: torch.dtype, offset: float) -> None:
    x = (normal(20, M) + offset).to(dtype)
    nearly = torch.cat([x, x, x * (1 + 4 * torch.finfo(dtype).eps)])  # duplicates and tiny differences
    d = member(name, anchor)
    for each in (d(nearly), d(nearly, nearly.clone()), d(nearly, nearly)):
        assert (each >= 0).all()
    assert (d(nearly).diagonal() == 0).all()
    assert (d(nearly, nearly).diagonal() == 0).all()
    assert (d.pairwise_distance(nearly, nearly.clone()) == 0).all()
    if name in RELATIVE or offset == 1000:
        return
    # Of an absolute distance, whose root would blow up rounding, duplicates are found and close neighbours told apart.
    twice, duplicates = d(torch.cat([x, x])), torch.eye(20).tile(2, 2).bool()
    assert (twice[duplicates] == 0).all()
    assert (twice[~duplicates] > 0).all()
    assert (d(x, x.clone()).diagonal() == 0).all()
    step = 1e-2 * (x - x.mean(dim=0)).norm(dim=1, keepdim=True) * F.normalize(normal(20, M, seed=1)).to(dtype)
    close = d(torch.cat([x, x + step]))[:20, 20:].diagonal()
    assert (close > 0).all()
    assert_close(close, d.pairwise_distance(x, x + step), rtol=2e-2)


@over_family
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "inner product"])
def test_duplicates_and_constant_rows_keep_gradients_finite(name: str, anchor: str, operation: str) -> None:
    for dtype in (torch.float16, torch.bfloat16, F32, F64):
        for level in (None, 0.0, 3.0, 1000.1):
            xs = sides(operation, dtype, level or 0.0)
            for x in xs:  # on both sides: pairs of equal rows, and of constant anchors
                x[1:3] = xs[0][0].clone() if level is None else level
            if level is None:
                xs[-1][0] = xs[0][0]
            for t in value_and_gradients(fast(member(name, anchor), operation), xs):
                assert torch.isfinite(t).all(), (dtype, level)


@both_anchors
def test_eps_replaces_the_power_of_constant_anchors(anchor: str) -> None:
    for level, dtype, tolerance in ((0.0, F64, 1e-10), (1234.56, F64, 1e-10), (3.0, F32, 2e-6), (1000.1, F32, 2e-6)):
        constant, other = torch.full((1, M), level, dtype=dtype), (normal(1, M) + level).to(dtype)
        query, ref = (constant, other) if anchor == "query" else (other, constant)
        expected = pytest.approx(M * variance(other[0].double()).item() / 1e-12, rel=tolerance)
        assert member("snr", anchor)(query, ref).item() == expected
        assert member("snr", anchor).pairwise_distance(query, ref).item() == expected
    x = normal(5, M)
    eps = 0.9 * M * x.var(dim=1, correction=0).min().item()  # of anchors with more power it changes nothing
    assert torch.equal(member("snr", anchor, eps=eps)(x), member("snr", anchor)(x))


# --- bad input --------------------------------------------------------------------------------------------------------

snr, make = get_distance("snr"), partial(partial, get_distance)
x34 = normal(3, 4)
bad_row = torch.arange(3)[:, None] == 1
EMBEDDINGS: list[tuple[Any, type[Exception], str]] = [
    (x34[0], ValueError, r"must be 2-D of shape \(n, M\), got shape \(4,\)"),
    (x34[None], ValueError, r"must be 2-D of shape \(n, M\), got shape \(1, 3, 4\)"),
    (x34.long(), TypeError, "must be floating point, got torch.int64"),
    (x34[:0], ValueError, r"must not be empty, got shape \(0, 4\)"),
    (x34[:, :0], ValueError, r"must not be empty, got shape \(3, 0\)"),
    (torch.where(bad_row, math.nan, x34), ValueError, "must be finite, got NaN or infinity in 1 of 3 rows"),
    (torch.where(bad_row, -math.inf, x34), ValueError, "must be finite, got NaN or infinity in 1 of 3 rows"),
    (x34 * 1e200, ValueError, "must be at most .* in size, or torch.float64 overflows; got .*e[+]200"),
    (x34.float() * 1e20, ValueError, "must be at most .* in size, or torch.float32 overflows; got .*e[+]20"),
    (x34.numpy(), TypeError, "must be a torch.Tensor of shape .*, got ndarray"),
]


@pytest.mark.parametrize(("bad", "error", "words"), EMBEDDINGS)
def test_bad_embeddings_are_refused_by_name(bad: Any, error: type[Exception], words: str) -> None:
    for method in (snr, snr.pairwise_distance, snr.inner_product, snr.inner_product_form):
        for side, args in (("query", (bad, x34)), ("ref", (x34, bad))):
            with pytest.raises(error, match=f"{side} {words}"):
                method(*args)


test_bad_arguments_are_refused_and_named = refusals(
    (lambda: snr(x34, normal(3, 5)), ValueError, "same number of components M, got 4 and 5"),
    (lambda: snr(x34, x34.float()), TypeError, "share dtype.*got torch.float64.*torch.float32"),
    (lambda: snr(x34, x34.half()), TypeError, "share dtype.*got torch.float64.*torch.float16"),
    (lambda: snr.inner_product_form(x34.half(), x34), TypeError, "share dtype.*got torch.float16.*torch.float64"),
    (lambda: snr.pairwise_distance(x34, x34[:2]), ValueError, "as many rows.*got 3 and 2"),
    (lambda: snr(x34[:, :1]), ValueError, r"at least 2 components, got shape \(3, 1\)"),
    (make("cosines"), ValueError, f"unknown distance 'cosines'; choose from {', '.join(DISTANCES)}"),
    (make("snr", margin=1), TypeError, "unknown option margin.*anchor, detach_unit, eps, normalize_emb.*scale, unit"),
    *bad_options(partial(get_distance, "snr"), anchor=["row"], eps=[0.0, -1.0, math.inf, math.nan]),
    *bad_options(partial(get_distance, "snr"), unit=["length", "", 0, -1.0, math.inf], scale=[0, -1, math.nan, "2"]),
    *((make(name), ValueError, rf"{name} needs components=.*\(r, M\)") for name in MAPPED),
    (make("snr", components=LINEAR), ValueError, "snr takes no components=; only mahalanobis"),
    (lambda: member("mahalanobis")(x34), ValueError, r"components of shape \(4, 6\) map.* 6 components, got 4"),
    (make("mahalanobis", components=[1.0]), ValueError, r"components must be 2-D.*got shape \(1,\)"),
    (make("mahalanobis", components=[[1.0, math.nan]]), ValueError, "components must be finite, got NaN"),
    (make("mahalanobis", components=[[1]]), TypeError, "components must be floating.*torch.int64"),
    (lambda: Distance("snr"), TypeError, "map must be a torch.nn.Module, got str"),  # type: ignore[arg-type]
    (lambda: check_embeddings(None, "labels"), TypeError, "labels must be a torch.Tensor.*got NoneType"),
)


# --- the module -------------------------------------------------------------------------------------------------------


@over_family
def test_repr_tells_the_formula_and_the_anchor(name: str, anchor: str) -> None:
    formula = f"||A(b - a)||^2 / ||A a||^2, anchor a = {anchor}" if name in FORMS else "||A(b - a)||"
    formula = {
        "cosine": "||A b/||A b|| - A a/||A a||||^2 / 2",
        "correlation": "||A b/||A b|| - A a/||A a||||^2 / 2",
        "symmetric_snr": "||A(b - a)||^2 / (||A a|| ||A b||)",
    }.get(name, formula)
    assert f"d(a, b) = {formula}, norm" in repr(member(name, anchor))
    assert member(name, anchor).name == name


@over_family
def test_embeddings_are_normalised_only_when_asked(name: str, anchor: str) -> None:
    query, ref = sides("square")
    d, plain = member(name, anchor, normalize_embeddings=True), member(name, anchor)
    q, r = F.normalize(query), F.normalize(ref)
    assert_close(d(query, ref), plain(q, r))
    assert_close(d(query), plain(q))
    assert_close(d.pairwise_distance(query, ref), plain.pairwise_distance(q, r))
    assert_close(d.inner_product(query, query), plain.inner_product(q, q))
    assert not plain.normalize_embeddings
    assert get_distance("snr").anchor == "query"


@pytest.mark.parametrize("name", MAPPED)
def test_learnable_components_get_the_naive_gradient(name: str) -> None:
    parameter, copy = nn.Parameter(LINEAR.clone()), LINEAR.clone().requires_grad_()
    d = get_distance(name, components=parameter)
    query, ref = sides("rectangular")
    (actual,) = torch.autograd.grad(d(query, ref).sum(), [*d.parameters()])
    (expected,) = torch.autograd.grad(naive_matrix(name, "query", query, ref, L=copy).sum(), copy)
    assert relative_error(actual, expected) <= 1e-10
    assert not list(member(name).parameters())  # a plain tensor stays a constant


@pytest.mark.parametrize("source", [LINEAR.clone(), LINEAR.numpy().copy()], ids=["tensor", "array"])
def test_constant_components_are_a_copy_and_saved(source: Any) -> None:
    d = get_distance("mahalanobis", components=source)
    before = d(normal(3, M))
    source *= 2
    blank = get_distance("mahalanobis", components=torch.zeros(4, M, dtype=F64))
    blank.load_state_dict(d.state_dict())
    for each in (d, blank):
        assert torch.equal(each(normal(3, M)), before)


# --- one family -------------------------------------------------------------------------------------------------------


@both_anchors
@pytest.mark.parametrize("name", FORMS)
def test_only_ref_anchors_change_the_absolute_ranking(name: str, anchor: str) -> None:
    query, ref = normal(20, M), normal(30, M, seed=1)
    ranking, absolute = (d(query, ref).argsort(dim=1) for d in (member(name, anchor), member(FORMS[name])))
    assert torch.equal(ranking, absolute) == (anchor == "query")


@over_family
def test_the_inner_product_form_ranks_like_the_distance(name: str, anchor: str) -> None:
    query, ref = normal(6, M), normal(30, M, seed=1)
    left, right = member(name, anchor).inner_product_form(query, ref)
    assert left.shape[1] == right.shape[1] == (len(LINEAR) if "mahalanobis" in name else M) + 2
    assert torch.equal((left @ right.T).argsort(dim=1), naive_matrix(name, anchor, query, ref).argsort(dim=1))


def test_other_libraries_and_the_centring_matrix_agree() -> None:
    query, ref = sides("square")
    P = torch.eye(M, dtype=F64) - 1 / M  # so the SNR distance is a relative Mahalanobis distance
    inverse = torch.linalg.inv(torch.from_numpy(np.cov((normal(50, M) @ normal(M, M, seed=1)).T)))
    whitening = member("mahalanobis", components=torch.linalg.cholesky(inverse).T)
    oracle = SNRDistance(normalize_embeddings=False)  # its variances are over M - 1, which cancels
    for actual, expected in (
        (member("snr")(query, ref), oracle(query, ref)),
        (member("snr", "ref")(query, ref), oracle(ref, query).T),
        (member("snr").pairwise_distance(query, ref), oracle.pairwise_distance(query, ref)),
        (member("euclidean")(query, ref), torch.cdist(query, ref)),
        (member("centred_euclidean")(query, ref), torch.cdist(centred(query), centred(ref))),
        (member("centred_euclidean")(query, ref), member("mahalanobis", components=P)(query, ref)),
        (member("snr")(query, ref), member("relative_mahalanobis", components=P)(query, ref)),
        (member("snr", "ref")(query, ref), member("relative_mahalanobis", "ref", P)(query, ref)),
        (whitening(query, ref), torch.from_numpy(cdist(query, ref, "mahalanobis", VI=inverse.numpy()))),
    ):
        assert_close(actual, expected)


# --- units ------------------------------------------------------------------------------------------------------------

UNITS: dict[str, dict[str, Any]] = {
    "a number": {"unit": 2.5},
    "both": {"unit": "both"},
    "batch": {"unit": "batch"},
    "anchor, scaled": {"unit": "anchor", "scale": 3.0},
    "anchor, detached": {"unit": "anchor", "detach_unit": True},
    "both, detached": {"unit": "both", "detach_unit": True},
    "batch, detached": {"unit": "batch", "detach_unit": True},
    "none, scaled": {"unit": None, "scale": 0.5},
}
ABSOLUTE = ["euclidean", "centred_euclidean", "mahalanobis"]


def naive_unit(name: str, anchor: str, options: dict[str, Any], query: Tensor, ref: Tensor) -> Tensor:
    """(n_query, n_ref), pair by pair."""
    unit, scale = options["unit"], options.get("scale", 1.0)
    powers = [[naive_inner_product(name, x, x) for x in rows] for rows in (query, ref)]
    if options.get("detach_unit"):
        powers = [[power.detach() for power in side] for side in powers]
    mean = sum(powers[0] + powers[1]) / len(powers[0] + powers[1])
    table = naive_matrix(name, anchor, query, ref)
    rows = []
    for i, p in enumerate(powers[0]):
        for j, q in enumerate(powers[1]):
            by = {"both": (p * q) ** 0.5, "batch": mean, "anchor": p if anchor == "query" else q}.get(unit, unit)
            rows.append(scale * (table[i, j] if unit is None else table[i, j] ** 2 / by))
    return torch.stack(rows).view(table.shape)


@both_anchors
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", ABSOLUTE)
def test_every_unit_equals_its_naive_loops(name: str, unit: str, anchor: str) -> None:
    d, options = member(name, anchor, **UNITS[unit]), UNITS[unit]
    xs = sides("rectangular")
    loops = partial(naive_unit, name, anchor, options)
    for a, e in zip(value_and_gradients(d, xs), value_and_gradients(loops, xs), strict=True):
        assert relative_error(a, e) <= 1e-10
    x, y = sides("pairwise")
    diagonal = value_and_gradients(lambda x, y: loops(x, y).diagonal(), [x, y])
    for a, e in zip(value_and_gradients(d.pairwise_distance, [x, y]), diagonal, strict=True):
        assert relative_error(a, e) <= 1e-10
    if not options.get("detach_unit"):  # its gradient is not the slope, on purpose
        assert torch.autograd.gradcheck(d, [x.requires_grad_() for x in xs])
    left, right = d.inner_product_form(*sides("rectangular"))
    assert torch.equal((left @ right.T).argsort(dim=1), loops(*sides("rectangular")).argsort(dim=1))


@pytest.mark.parametrize("unit", ["both", "batch"])
def test_symmetric_units_give_symmetric_distances(unit: Any) -> None:
    x = normal(8, M)
    d = member("snr", unit=unit)(x)
    assert_close(d, d.T)
    assert not torch.allclose(member("snr")(x), member("snr")(x).T)
    assert_close(member("symmetric_snr")(x) ** 2, member("snr")(x) * member("snr")(x).T)  # the geometric mean


def test_cosine_and_correlation_equal_scipy_and_sklearn() -> None:
    query, ref = sides("rectangular")
    for name in ("cosine", "correlation"):
        assert_close(member(name)(query, ref), torch.from_numpy(cdist(query, ref, name)))
        assert_close(member(name)(3 * query, ref / 7), member(name)(query, ref))
        assert_close(member(name).inner_product(query, ref), 1 - member(name)(query, ref))
    assert_close(member("correlation")(query + 5, ref - 2), member("correlation")(query, ref))


def test_search_and_pairs_share_the_batch_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, d = normal(40, M), normal(50, M, seed=1), get_distance("snr", unit="batch")
    monkeypatch.setattr("snrlib.evaluate.neighbours._BLOCK", 70)  # one query a block
    found, indices = knn(x, 3, y, d)
    assert_close(found, d(x, y).gather(1, indices))
    assert_close(found, d(x, y).sort(dim=1).values[:, :3])
    labels = torch.arange(40) % 4
    positive = d(x)[(labels[:, None] == labels) & ~torch.eye(40).bool()].numpy()
    assert np.sort(verification(x, labels, d).positive) == pytest.approx(np.sort(positive))


# --- properties of d_S: hypothesis draws h_i and h_j, neither of them constant ----------------------------------------

numbers = st.floats(-10, 10)
pairs = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=12).map(lambda rows: torch.tensor(rows, dtype=F64).T)
pairs = pairs.filter(lambda ab: bool((ab.var(dim=1) > 0.01).all()))
factors = st.floats(0.01, 100) | st.floats(-100, -0.01)


def d_s(a: Tensor, b: Tensor) -> float:
    return get_distance("snr").pairwise_distance(a[None], b[None]).item()


def r_and_rho(a: Tensor, b: Tensor) -> tuple[float, float]:
    return (variance(b) / variance(a)).sqrt().item(), float(np.corrcoef(a, b)[0, 1])


def near(expected: float) -> Any:
    return pytest.approx(expected, rel=1e-9, abs=1e-9)  # sums of squares up to 1e4 times the variance


@few
@given(pairs, factors, numbers, numbers, st.floats(-5, 5), st.floats(0, 1))
def test_d_s_keeps_its_identities(ab: Tensor, scale: float, c: float, e: float, k: float, mix: float) -> None:
    (a, b), d, (r, rho) = ab, d_s(*ab), r_and_rho(*ab)
    assert d == near(1 + r * r - 2 * r * rho)
    assert d * variance(a).item() == near(d_s(b, a) * variance(b).item())  # not symmetric, by the ratio of variances
    assert d_s(scale * a + c, scale * b + e) == near(d)  # a common scale and separate shifts change nothing
    assert d_s(a, k * a + c) == near((1 - k) ** 2)  # a scale of one side does
    assert d_s(a, a + c) == near(0)
    p, q = F.normalize(centred(ab))
    assert d_s(p, q) == near(2 - 2 * (p @ q).item())  # the squared Euclidean distance of such rows
    assert d_s(p, q) == near(((p - q) @ (p - q)).item())
    close = a + mix * (b - a)
    assume(variance(close) > 1e-4 and d_s(a, close) < 1)
    bound = math.sqrt(1 - d_s(a, close))
    assert r_and_rho(a, close)[1] >= bound - 1e-6  # the root of a rounding error of 1e-12


@few
@given(pairs)
def test_the_gradients_of_d_s_have_closed_forms(ab: Tensor) -> None:
    xs = [x[None].clone().requires_grad_() for x in ab]
    ga, gb = (g[0] for g in torch.autograd.grad(get_distance("snr").pairwise_distance(*xs).sum(), xs))
    a, b = centred(ab)
    power, n, d = a @ a, b - a, d_s(a, b)
    scale = 1e-9 * (1 + d) ** 2 / power.sqrt().item()
    assert_close(ga, -2 / power * (n + d * a), rtol=1e-9, atol=scale)
    assert_close(gb, 2 / power * n, rtol=1e-9, atol=scale)
    assert (ga.sum().item(), gb.sum().item()) == pytest.approx((0, 0), abs=10 * scale)
    assert (a @ ga + b @ gb).item() == near(0)
