"""The family of distances: values and gradients against naive loops, edge cases, and every claim made about d_S."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import L as LINEAR
from oracles import (
    Largest,
    M,
    member,
    naive_inner_product,
    naive_matrix,
    naive_pairs,
    normal,
    over_family,
    relative_error,
    variance,
)
from pytorch_metric_learning.distances import SNRDistance
from scipy import stats
from scipy.spatial.distance import cdist
from torch import Tensor, nn
from torch.nn import functional as F

from snrlib.distances import DISTANCES, Centre, Distance, get_distance
from snrlib.utils.checks import check_embeddings

few = settings(max_examples=40, deadline=None, derandomize=True)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
OPERATIONS = ("self", "square", "rectangular", "pairwise")
F32, F64 = torch.float32, torch.float64


def sides(operation: str, dtype: torch.dtype = F64, offset: float = 0.0) -> list[Tensor]:
    """The arguments of one way to call a distance: unit variance around the offset."""
    rows = {"self": [5], "square": [5, 5], "rectangular": [5, 3], "pairwise": [5, 5]}[operation]
    return [(normal(n, M, seed=seed) + offset).to(dtype) for seed, n in enumerate(rows)]


def fast(d: Distance, operation: str, *xs: Tensor) -> Tensor:
    return d.pairwise_distance(*xs) if operation == "pairwise" else d(*xs)


def value_and_gradients(compute: Any, xs: list[Tensor]) -> list[Tensor]:
    """Of a random weighted sum."""
    xs = [x.clone().requires_grad_() for x in xs]
    d = compute(*xs)
    gradients = torch.autograd.grad((d * normal(*d.shape, seed=7).to(d)).sum(), xs)
    return [d.detach(), *gradients]


def naive(name: str, anchor: str, operation: str) -> Any:
    loops = naive_pairs if operation == "pairwise" else naive_matrix
    return lambda *xs: loops(name, anchor, *xs)


def centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=-1, keepdim=True)


def d_s(a: Tensor, b: Tensor) -> float:
    return get_distance("snr").pairwise_distance(a[None], b[None]).item()


def r_and_rho(a: Tensor, b: Tensor) -> tuple[float, float]:
    return (variance(b) / variance(a)).sqrt().item(), float(np.corrcoef(a, b)[0, 1])


# --- values and gradients ---------------------------------------------------------------------------------------------


@over_family
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("dtype", "offset", "tolerance"), [(F64, 0.0, 1e-10), (F64, 1000.0, 1e-10), (F32, 0.0, 2e-6), (F32, 1000.0, 2e-6)]
)
def test_values_and_gradients_equal_the_naive_loops(
    name: str, anchor: str, operation: str, dtype: torch.dtype, offset: float, tolerance: float
) -> None:
    xs = sides(operation, dtype, offset)
    actual = value_and_gradients(lambda *xs: fast(member(name, anchor), operation, *xs), xs)
    expected = value_and_gradients(naive(name, anchor, operation), [x.double() for x in xs])
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == dtype
        assert relative_error(a, e) <= tolerance


@over_family
@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradcheck(name: str, anchor: str, operation: str) -> None:
    d = member(name, anchor)
    xs = [x.requires_grad_() for x in sides(operation)]
    assert torch.autograd.gradcheck(lambda *xs: fast(d, operation, *xs), xs)


@over_family
@pytest.mark.parametrize("rows", [(40,), (40, 30)])
def test_no_temporary_has_a_third_axis(name: str, anchor: str, rows: tuple[int, ...]) -> None:
    xs = [normal(n, M, seed=n).requires_grad_() for n in rows]
    most = max(rows[0] * rows[-1], rows[0] * (M + 2))
    saved = [0]

    def note(t: Tensor) -> Tensor:
        saved.append(t.numel())
        return t

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        d = member(name, anchor)(*xs)
        d.sum().backward()
    assert d.numel() <= largest.numel <= most
    assert 0 < max(saved) <= most


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@over_family
def test_float64_stays_and_lower_precisions_are_computed_in_float32(
    name: str, anchor: str, dtype: torch.dtype, device: str
) -> None:
    query, ref = sides("rectangular", dtype)
    d = member(name, anchor).to(device)(query.to(device), ref.to(device))
    assert d.device.type == device
    assert d.dtype == (F64 if dtype == F64 else F32)
    expected = naive_matrix(name, anchor, query.double(), ref.double())  # of the rounded inputs
    assert relative_error(d.cpu(), expected) <= (1e-10 if dtype == F64 else 2e-6)


@pytest.mark.parametrize("device", DEVICES)
@over_family
def test_autocast_changes_nothing(name: str, anchor: str, device: str) -> None:
    d = member(name, anchor).to(device)
    query, ref = (x.to(device) for x in sides("square", F32))
    for call in (d, d.pairwise_distance, d.inner_product, lambda q, r: torch.cat(d.inner_product_form(q, r))):
        with torch.autocast(device, torch.bfloat16):
            cast = call(query, ref)
        assert cast.dtype == F32
        assert torch.equal(cast, call(query, ref))


# --- edges: zero distances, constant anchors --------------------------------------------------------------------------


@over_family
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_distances_are_never_negative_and_zero_on_the_diagonal(
    name: str, anchor: str, dtype: torch.dtype, offset: float
) -> None:
    x = (normal(20, M) + offset).to(dtype)
    x = torch.cat([x, x, x * (1 + 4 * torch.finfo(dtype).eps)])  # duplicates and tiny differences
    d = member(name, anchor)
    assert (d(x) >= 0).all()
    assert (d(x, x.clone()) >= 0).all()
    assert (d(x).diagonal() == 0).all()
    assert (d.pairwise_distance(x, x.clone()) == 0).all()


@over_family
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("level", [None, 0.0, 3.0, 1000.1])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_duplicates_and_constant_rows_have_finite_values_and_gradients(
    name: str, anchor: str, dtype: torch.dtype, level: float | None, operation: str
) -> None:
    xs = sides(operation, dtype, level or 0.0)
    for x in xs:
        x[1:3] = x[0] if level is None else level  # on both sides: pairs of equal rows, and of constant anchors
    if len(xs) == 2 and level is None:
        xs[1][:3] = xs[0][0]
    for t in value_and_gradients(lambda *xs: fast(member(name, anchor), operation, *xs), xs):
        assert torch.isfinite(t).all()


@pytest.mark.parametrize("anchor", ["query", "ref"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (F32, 2e-6)])
@pytest.mark.parametrize("level", [0.0, 3.0, 1000.1, 1234.56])
def test_a_constant_anchor_is_undefined_and_eps_takes_the_place_of_its_power(
    anchor: str, dtype: torch.dtype, tolerance: float, level: float
) -> None:
    constant, other = torch.full((1, M), level, dtype=dtype), (normal(1, M) + level).to(dtype)
    query, ref = (constant, other) if anchor == "query" else (other, constant)
    expected = M * variance(other[0].double()).item() / 1e-12
    assert get_distance("snr", anchor=anchor)(query, ref).item() == pytest.approx(expected, rel=tolerance)
    assert get_distance("snr", anchor=anchor).pairwise_distance(query, ref).item() == pytest.approx(
        expected, rel=tolerance
    )


def test_eps_changes_nothing_where_the_anchor_has_more_power() -> None:
    x = normal(5, M)
    assert torch.equal(get_distance("snr", eps=0.9 * M * x.var(dim=1, correction=0).min().item())(x), member("snr")(x))


# --- bad input --------------------------------------------------------------------------------------------------------

x34 = normal(3, 4)
NAN, INF = (torch.where(torch.arange(3)[:, None] == 1, bad, x34) for bad in (math.nan, -math.inf))


@pytest.mark.parametrize("method", ["forward", "pairwise_distance", "inner_product", "inner_product_form"])
@pytest.mark.parametrize("side", ["query", "ref"])
@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (x34[0], ValueError, r"must be 2-D of shape \(n, M\), got shape \(4,\)"),
        (x34[None], ValueError, r"must be 2-D of shape \(n, M\), got shape \(1, 3, 4\)"),
        (x34.long(), TypeError, "must be floating point, got torch.int64"),
        (x34[:0], ValueError, r"must not be empty, got shape \(0, 4\)"),
        (x34[:, :0], ValueError, r"must not be empty, got shape \(3, 0\)"),
        (NAN, ValueError, "must be finite, got NaN or infinity in 1 of 3 rows"),
        (INF, ValueError, "must be finite, got NaN or infinity in 1 of 3 rows"),
        (x34 * 1e200, ValueError, "must be at most .* in size, or torch.float64 overflows; got .*e[+]200"),
        (x34.float() * 1e20, ValueError, "must be at most .* in size, or torch.float32 overflows; got .*e[+]20"),
        (x34.numpy(), TypeError, "must be a torch.Tensor of shape .*, got ndarray"),
    ],
)
def test_bad_embeddings_are_refused_by_name(method: str, side: str, bad: Any, error: Any, match: str) -> None:
    args = (bad, x34) if side == "query" else (x34, bad)
    with pytest.raises(error, match=f"{side} {match}"):
        getattr(get_distance("snr"), method)(*args)


nan_matrix = [[1.0, math.nan]]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: get_distance("snr")(x34, normal(3, 5)), ValueError, "same number of components M, got 4 and 5"),
        (lambda: get_distance("snr")(x34, x34.float()), TypeError, "share dtype.*got torch.float64.*torch.float32"),
        (lambda: get_distance("snr").pairwise_distance(x34, x34[:2]), ValueError, "as many rows.*got 3 and 2"),
        (lambda: get_distance("snr")(x34[:, :1]), ValueError, r"at least 2 components, got shape \(3, 1\)"),
        (lambda: get_distance("centred_euclidean")(x34[:, :1]), ValueError, r"at least 2 components.*\(3, 1\)"),
        (lambda: get_distance("cosine"), ValueError, f"unknown distance 'cosine'; choose from {', '.join(DISTANCES)}"),
        (lambda: get_distance("snr", margin=1), TypeError, "unknown option margin.*anchor, eps, normalize_embeddings"),
        (lambda: get_distance("snr", anchor="row"), ValueError, "anchor must be 'query' or 'ref', got 'row'"),
        (lambda: get_distance("snr", eps=0.0), ValueError, "eps must be positive and finite, got 0.0"),
        (lambda: get_distance("snr", eps=-1.0), ValueError, "eps must be positive and finite, got -1.0"),
        (lambda: get_distance("snr", eps=math.inf), ValueError, "eps must be positive and finite, got inf"),
        (lambda: get_distance("snr", eps=math.nan), ValueError, "eps must be positive and finite, got nan"),
        (lambda: get_distance("mahalanobis"), ValueError, r"mahalanobis needs components=.*\(r, M\)"),
        (lambda: get_distance("relative_mahalanobis"), ValueError, r"relative_mahalanobis needs components="),
        (lambda: get_distance("snr", components=LINEAR), ValueError, "snr takes no components=; only mahalanobis"),
        (lambda: member("mahalanobis")(x34), ValueError, r"components of shape \(4, 6\) map.* 6 components, got 4"),
        (
            lambda: get_distance("mahalanobis", components=[1.0]),
            ValueError,
            r"components must be 2-D.*got shape \(1,\)",
        ),
        (lambda: get_distance("mahalanobis", components=nan_matrix), ValueError, "components must be finite, got NaN"),
        (lambda: get_distance("mahalanobis", components=[[1]]), TypeError, "components must be floating.*torch.int64"),
        (lambda: check_embeddings(None, "labels"), TypeError, "labels must be a torch.Tensor.*got NoneType"),
    ],
)
def test_bad_arguments_are_refused_and_named(call: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        call()


# --- the module -------------------------------------------------------------------------------------------------------


@over_family
def test_repr_tells_the_formula_and_the_anchor(name: str, anchor: str) -> None:
    text = repr(member(name, anchor))
    formula = f"||A(b - a)||^2 / ||A a||^2, anchor a = {anchor}, norm" if name in FORMS else "||A(b - a)||, norm"
    assert f"d(a, b) = {formula}" in text


def test_the_query_is_the_anchor_and_nothing_is_normalised_by_default() -> None:
    assert (get_distance("snr").anchor, get_distance("snr").normalize_embeddings) == ("query", False)


@over_family
def test_normalize_embeddings_is_a_normalisation_beforehand(name: str, anchor: str) -> None:
    query, ref = sides("square")
    d, plain = member(name, anchor, normalize_embeddings=True), member(name, anchor)
    q, r = F.normalize(query), F.normalize(ref)
    torch.testing.assert_close(d(query, ref), plain(q, r), rtol=1e-10, atol=0)
    torch.testing.assert_close(d(query), plain(q), rtol=1e-10, atol=0)
    torch.testing.assert_close(d.pairwise_distance(query, ref), plain.pairwise_distance(q, r), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", ["mahalanobis", "relative_mahalanobis"])
def test_learnable_components_get_the_gradient_of_the_naive_loops(name: str) -> None:
    query, ref = sides("rectangular")
    parameter, copy = nn.Parameter(LINEAR.clone()), LINEAR.clone().requires_grad_()
    d = get_distance(name, components=parameter)
    assert list(d.parameters()) == [parameter]
    d(query, ref).sum().backward()
    naive_matrix(name, "query", query, ref, L=copy).sum().backward()
    assert parameter.grad is not None
    assert copy.grad is not None
    assert relative_error(parameter.grad, copy.grad) <= 1e-10
    assert not list(member(name).parameters())  # a plain tensor stays a constant


@pytest.mark.parametrize("source", [LINEAR.clone(), LINEAR.numpy().copy()], ids=["tensor", "array"])
def test_constant_components_do_not_follow_their_source(source: Any) -> None:
    d = get_distance("mahalanobis", components=source)
    before = d(normal(3, M))
    source *= 2
    assert torch.equal(d(normal(3, M)), before)


def test_state_dict_brings_the_components_back() -> None:
    d, blank = (
        member("relative_mahalanobis"),
        get_distance("relative_mahalanobis", components=torch.zeros(4, M).double()),
    )
    blank.load_state_dict(d.state_dict())
    assert torch.equal(blank(normal(3, M)), d(normal(3, M)))


# --- one family -------------------------------------------------------------------------------------------------------

FORMS = {"relative_euclidean": "euclidean", "snr": "centred_euclidean", "relative_mahalanobis": "mahalanobis"}


@pytest.mark.parametrize("anchor", ["query", "ref"])
@pytest.mark.parametrize("name", FORMS)
def test_relative_is_the_squared_absolute_over_the_squared_length_of_the_mapped_anchor(name: str, anchor: str) -> None:
    query, ref = sides("rectangular")
    length = member(FORMS[name])(query if anchor == "query" else ref, torch.zeros(1, M, dtype=F64))  # ||A a||
    expected = member(FORMS[name])(query, ref) ** 2 / (length if anchor == "query" else length.T) ** 2
    torch.testing.assert_close(member(name, anchor)(query, ref), expected, rtol=1e-10, atol=0)


@over_family
def test_the_inner_product_form_ranks_exactly_as_the_distance(name: str, anchor: str) -> None:
    query, ref = normal(6, M), normal(30, M, seed=1)
    left, right = member(name, anchor).inner_product_form(query, ref)
    assert left.shape[1] == right.shape[1] == (len(LINEAR) if "mahalanobis" in name else M) + 2
    assert torch.equal((left @ right.T).argsort(dim=1), naive_matrix(name, anchor, query, ref).argsort(dim=1))


@pytest.mark.parametrize("anchor", ["query", "ref"])
@pytest.mark.parametrize("name", FORMS)
def test_only_a_ref_anchor_changes_the_ranking_of_the_absolute_member(name: str, anchor: str) -> None:
    query, ref = normal(20, M), normal(30, M, seed=1)
    same = torch.equal(member(name, anchor)(query, ref).argsort(dim=1), member(FORMS[name])(query, ref).argsort(dim=1))
    assert same == (anchor == "query")


@pytest.mark.parametrize("anchor", ["query", "ref"])
def test_snr_is_relative_mahalanobis_under_the_centring_matrix(anchor: str) -> None:
    query, ref = sides("rectangular")
    P = torch.eye(M, dtype=F64) - 1 / M
    for snr, general in (("snr", "relative_mahalanobis"), ("centred_euclidean", "mahalanobis")):
        expected = get_distance(general, components=P, anchor=anchor)(query, ref)
        torch.testing.assert_close(member(snr, anchor)(query, ref), expected, rtol=1e-10, atol=0)


def test_whitening_gives_the_mahalanobis_distance_of_the_inverse_covariance() -> None:
    x = (normal(50, M) @ normal(M, M, seed=1)).numpy()
    inverse = np.linalg.inv(np.cov(x.T))
    d = get_distance("mahalanobis", components=np.linalg.cholesky(inverse).T)(torch.from_numpy(x)).numpy()
    by_hand = [[math.sqrt((p - q) @ inverse @ (p - q)) for q in x[:9]] for p in x[:9]]
    np.testing.assert_allclose(d[:9, :9], by_hand, rtol=1e-10, atol=0)
    np.testing.assert_allclose(d, cdist(x, x, "mahalanobis", VI=inverse), rtol=1e-10, atol=0)


@pytest.mark.parametrize("anchor", ["query", "ref"])
@pytest.mark.parametrize("name", ["mahalanobis", "relative_mahalanobis"])
def test_a_linear_map_is_absorbed_by_the_linear_layer_before_it(name: str, anchor: str) -> None:
    x, W = normal(7, 9), normal(M, 9, seed=1)
    plain = member(name.replace("mahalanobis", "euclidean"), anchor)
    torch.testing.assert_close(member(name, anchor)(x @ W.T), plain(x @ (LINEAR @ W).T), rtol=1e-10, atol=0)


def test_pytorch_metric_learning_agrees_on_snr_and_torch_cdist_on_the_euclidean_members() -> None:
    query, ref = sides("square")
    oracle = SNRDistance(normalize_embeddings=False)  # its variances are over M - 1, which cancels
    for actual, expected in (
        (member("snr")(query, ref), oracle(query, ref)),
        (member("snr", "ref")(query, ref), oracle(ref, query).T),
        (member("snr").pairwise_distance(query, ref), oracle.pairwise_distance(query, ref)),
        (member("euclidean")(query, ref), torch.cdist(query, ref)),
        (member("centred_euclidean")(query, ref), torch.cdist(centred(query), centred(ref))),
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=0)


def test_the_symmetric_repair_violates_no_triangle_in_many() -> None:
    a, b, c = (normal(100_000, 3, seed=seed) * normal(100_000, 1, seed=seed + 9).exp() for seed in range(3))
    b[::2] = (
        a[::2] + (c - a)[::2] * torch.rand(50_000, 1, generator=torch.Generator().manual_seed(0)).double()
    )  # between

    def repaired(x: Tensor, y: Tensor) -> Tensor:
        return (x - y).norm(dim=1) / torch.hypot(x.norm(dim=1), y.norm(dim=1))

    assert (repaired(a, b) + repaired(b, c) >= repaired(a, c) - 1e-12).all()  # rounding of numbers near 1


# --- properties of d_S: hypothesis draws h_i and h_j, neither of them constant ----------------------------------------

numbers = st.floats(-10, 10)
pairs = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=12).map(lambda rows: torch.tensor(rows, dtype=F64).T)
pairs = pairs.filter(lambda ab: bool((ab.var(dim=1) > 0.01).all()))
factors = st.floats(0.01, 100) | st.floats(-100, -0.01)


def near(expected: float) -> Any:
    return pytest.approx(expected, rel=1e-9, abs=1e-9)  # sums of squares up to 1e4 times the variance


@few
@given(pairs)
def test_the_two_directions_differ_by_the_ratio_of_the_variances(ab: Tensor) -> None:
    a, b = ab
    assert d_s(a, b) * variance(a).item() == near(d_s(b, a) * variance(b).item())


def test_neither_d_s_nor_its_root_satisfies_the_triangle_inequality() -> None:
    a = torch.tensor([1.0, -1.0])
    ab, bc, ac = d_s(a, 2 * a), d_s(2 * a, 3 * a), d_s(a, 3 * a)
    assert (ab, bc, ac) == (1.0, 0.25, 4.0)
    assert ab + bc < ac
    assert math.sqrt(ab) + math.sqrt(bc) < math.sqrt(ac)


@few
@given(pairs, factors, numbers, numbers)
def test_a_common_scale_and_separate_shifts_change_nothing(ab: Tensor, scale: float, c: float, e: float) -> None:
    a, b = ab
    assert d_s(scale * a + c, scale * b + e) == near(d_s(a, b))


@few
@given(pairs, st.floats(-5, 5), numbers)
def test_one_sided_scale_k_costs_1_minus_k_squared_and_a_shift_nothing(ab: Tensor, k: float, c: float) -> None:
    assert d_s(ab[0], k * ab[0] + c) == near((1 - k) ** 2)
    assert d_s(ab[0], ab[0] + c) == near(0)


@few
@given(pairs)
def test_d_s_is_1_plus_r_squared_minus_2_r_rho(ab: Tensor) -> None:
    r, rho = r_and_rho(*ab)
    assert d_s(*ab) == near(1 + r * r - 2 * r * rho)


@few
@given(pairs, st.floats(0, 1))
def test_below_1_rho_is_at_least_the_root_of_1_minus_d_s(ab: Tensor, mix: float) -> None:
    a, b = ab[0], ab[0] + mix * (ab[1] - ab[0])
    assume(variance(b) > 1e-4)
    d = d_s(a, b)
    assume(d < 1)
    assert r_and_rho(a, b)[1] >= math.sqrt(1 - d) - 1e-6  # the root of a rounding error of 1e-12


@few
@given(st.floats(0.05, 0.99), st.floats(0.1, 3))
def test_the_formula_gives_rho_if_r_rho_is_1_or_2_rho_squared_minus_1_and_not_otherwise(rho: float, r: float) -> None:
    signal, noise = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]], dtype=F64)

    def formula(r: float) -> float:
        return 1 / math.sqrt(1 + d_s(signal, r * (rho * signal + math.sqrt(1 - rho**2) * noise)))

    assert formula(1 / rho) == pytest.approx(rho, rel=1e-9)  # cov(h_i, n) = 0
    if 2 * rho**2 > 1:
        assert formula(2 * rho - 1 / rho) == pytest.approx(rho, rel=1e-9)
    assume(abs(r - 1 / rho) > 0.01 and abs(r - (2 * rho - 1 / rho)) > 0.01)
    assert formula(r) != pytest.approx(rho, rel=1e-9)


def test_independent_pairs_have_d_s_about_2_where_the_formula_says_0_577() -> None:
    a, b = normal(400, 2048), normal(400, 2048, seed=1)
    d = get_distance("snr").pairwise_distance(a, b)
    assert d.mean().item() == pytest.approx(2, abs=5 * math.sqrt(8 / 2048 / 400))  # sd of one d_S: sqrt(8/M)
    assert (1 / (1 + d).sqrt()).mean().item() == pytest.approx(0.577, abs=0.002)
    rho = (centred(a) * centred(b)).mean(dim=1) / (centred(a).norm(dim=1) * centred(b).norm(dim=1) / 2048)
    assert rho.mean().item() == pytest.approx(0, abs=5 / math.sqrt(2048 * 400))


def test_the_opposite_has_d_s_4_where_the_formula_says_0_447() -> None:
    h = normal(M)
    assert d_s(h, -h) == near(4)
    assert round(1 / math.sqrt(1 + d_s(h, -h)), 3) == 0.447
    assert r_and_rho(h, -h)[1] == near(-1)


def test_on_unit_zero_mean_rows_d_s_is_2_minus_2_cos_and_the_squared_euclidean_distance() -> None:
    query, ref = (F.normalize(centred(x)) for x in sides("rectangular"))
    d = get_distance("snr")(query, ref)
    torch.testing.assert_close(d, 2 - 2 * query @ ref.T, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(d, get_distance("euclidean")(query, ref) ** 2, rtol=1e-10, atol=1e-10)


def test_e_d_s_is_sigma_squared_times_31_over_29_and_its_spread_that_of_f_31_31() -> None:
    n, law = 40_000, stats.f(31, 31)
    mean, sd = (float(m) ** 0.5**i for i, m in enumerate(law.stats("mv")))
    assert mean == pytest.approx(31 / 29)
    sd_error = sd * math.sqrt((float(law.stats("k")) + 2) / (4 * n))
    for seed, (power, table) in enumerate([(0.2, (0.214, 0.081)), (0.5, (0.534, 0.203)), (1.0, (1.07, 0.406))]):
        signal, noise = normal(n, 32, seed=seed), math.sqrt(power) * normal(n, 32, seed=seed + 9)
        d = (get_distance("snr").pairwise_distance(signal, signal + noise) / power).numpy()
        # five standard errors of each estimate
        assert d.mean() == pytest.approx(mean, abs=5 * sd / math.sqrt(n))
        assert d.std() == pytest.approx(sd, abs=5 * sd_error)
        for p in (0.05, 0.95):
            x = law.ppf(p)
            assert np.quantile(d, p) == pytest.approx(x, abs=5 * math.sqrt(p * (1 - p) / n) / law.pdf(x))
        assert (power * mean, power * sd) == pytest.approx(table, abs=0.003)  # the study's rounded numbers


# --- gradients of d_S -------------------------------------------------------------------------------------------------


def gradients(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    ga, gb = torch.autograd.grad(get_distance("snr").pairwise_distance(a[None], b[None]).sum(), (a, b))
    return ga, gb


@few
@given(pairs)
def test_the_gradients_have_their_closed_forms_sum_to_0_and_balance(ab: Tensor) -> None:
    a, b = centred(ab)
    ga, gb = gradients(*ab)
    power, n, d = a @ a, b - a, d_s(a, b)
    scale = 1e-9 * (1 + d) ** 2 / power.sqrt().item()
    torch.testing.assert_close(ga, -2 / power * (n + d * a), rtol=1e-9, atol=scale)
    torch.testing.assert_close(gb, 2 / power * n, rtol=1e-9, atol=scale)
    assert ga.sum().item() == pytest.approx(0, abs=10 * scale)
    assert gb.sum().item() == pytest.approx(0, abs=10 * scale)
    assert (a @ ga + b @ gb).item() == near(0)


def test_pulling_a_noisy_copy_grows_the_anchor_and_shrinks_the_other() -> None:
    a, n = centred(normal(2, 64))
    for b, grows in ((a + 0.5 * (n - (n @ a) / (a @ a) * a), True), (a / 2, False)):  # the sign is that of b.(b - a)
        ga, gb = gradients(a, b)
        step = 1e-3
        assert ((a - step * ga).norm() > a.norm()) == grows
        assert ((b - step * gb).norm() < b.norm()) == grows


def test_the_zero_mean_penalty_pulls_where_d_s_has_no_gradient() -> None:
    a, b = normal(2, M).requires_grad_()
    (penalty,) = torch.autograd.grad(a.sum().abs(), a)
    assert torch.equal(penalty / penalty[0], torch.ones(M, dtype=F64))
    assert (penalty @ gradients(a.detach(), b.detach())[0]).item() == near(0)
    assert Centre()(a - 0.3 * penalty).sub(Centre()(a)).abs().max().item() == near(0)  # so centring replaces it


@pytest.mark.parametrize("anchor", ["query", "ref"])
@pytest.mark.parametrize("name", DISTANCES[:4])
def test_a_vector_shared_by_all_embeddings_costs_no_digits(name: str, anchor: str) -> None:
    shared, noise = 100 * normal(1, 64), normal(40, 64)
    d = get_distance(name, anchor=anchor)
    x = (shared + noise).float()
    torch.testing.assert_close(d(x).double(), d(x.double()), rtol=5e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@over_family
def test_a_constant_anchor_has_a_finite_value_and_a_finite_gradient_in_every_dtype(
    name: str, anchor: str, dtype: torch.dtype
) -> None:
    x = normal(4, 6).to(dtype)
    x[1] = 0 if "euclidean" in name or "mahalanobis" in name else 3
    x = x.requires_grad_()
    value = member(name, anchor)(x)
    value.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(value).all()
    assert torch.isfinite(x.grad).all()


def test_a_tensor_compared_with_itself_has_a_zero_diagonal_however_it_is_passed() -> None:
    x = normal(20, 8).float()
    for name in DISTANCES[:4]:
        assert (get_distance(name)(x, x).diagonal() == 0).all()


# --- the inner product that goes with an absolute distance ------------------------------------------------------------


@over_family
@pytest.mark.parametrize("operation", ["self", "square", "rectangular"])
def test_the_inner_product_is_that_of_the_mapped_vectors(name: str, anchor: str, operation: str) -> None:
    def naive(query: Tensor, *ref: Tensor) -> Tensor:
        rows = [[naive_inner_product(name, q, r) for r in (*ref, query)[0]] for q in query]
        return torch.stack([torch.stack(row) for row in rows])

    xs = sides(operation)
    d = member(name, anchor)
    actual = value_and_gradients(lambda *xs: d.inner_product(xs[0], xs[-1]), xs)
    for a, e in zip(actual, value_and_gradients(naive, xs), strict=True):
        assert relative_error(a, e) <= 1e-10


@pytest.mark.parametrize("name", [name for name in DISTANCES if name not in FORMS])
def test_the_inner_product_gives_the_absolute_distance(name: str) -> None:
    x = normal(7, M)
    s = member(name).inner_product(x, x)
    power = s.diagonal()
    torch.testing.assert_close(member(name)(x) ** 2, power + power[:, None] - 2 * s, rtol=1e-10, atol=1e-10)
    normalized = member(name, normalize_embeddings=True).inner_product(x, x)
    torch.testing.assert_close(
        normalized, member(name).inner_product(F.normalize(x), F.normalize(x)), rtol=1e-10, atol=0
    )


def test_the_inner_product_needs_as_many_components_on_both_sides() -> None:
    with pytest.raises(ValueError, match="same number of components M, got 4 and 5"):
        get_distance("euclidean").inner_product(x34, normal(3, 5))


# --- duplicates under an absolute distance ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in DISTANCES if name not in FORMS])
@pytest.mark.parametrize("offset", [0.0, 10.0])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_duplicates_are_at_distance_exactly_0_and_close_neighbours_are_not(
    name: str, offset: float, dtype: torch.dtype
) -> None:
    x = (normal(20, M) + offset).to(dtype)
    d = member(name)
    twice = d(torch.cat([x, x]))
    duplicates = torch.eye(20).tile(2, 2).bool()
    assert (twice[duplicates] == 0).all()
    assert (twice[~duplicates] > 0).all()
    assert (d(x, x.clone()).diagonal() == 0).all()
    step = 1e-2 * (x - x.mean(dim=0)).norm(dim=1, keepdim=True) * F.normalize(normal(20, M, seed=1)).to(dtype)
    near = torch.cat([x, x + step])
    close = d(near)[:20, 20:].diagonal()
    assert (close > 0).all()
    torch.testing.assert_close(close, d.pairwise_distance(x, x + step), rtol=2e-2, atol=0)
