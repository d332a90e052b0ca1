"""Naive float64 loops written from the report's equations, and small helpers, that the fast code is tested with."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from snrlib.distances import DISTANCES, Distance, get_distance

F32, F64 = torch.float32, torch.float64
M = 6  # components of an embedding
FAMILY = [(name, anchor) for name in DISTANCES for anchor in ("query", "ref")]
over_family = pytest.mark.parametrize(("name", "anchor"), FAMILY)
Row = tuple[Callable[[], Any], type[Exception], str]


def refusals(*rows: Row) -> Callable[..., None]:
    """A test of a table: calls, the errors that they raise, and words of the message."""

    @pytest.mark.parametrize(("call", "error", "words"), rows)
    def test(call: Callable[[], Any], error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=words):
            call()

    return test


def bad_options(make: Callable[..., Any], **options: list[Any]) -> list[Row]:
    """Values that are refused one by one, with a message that names the option and the value."""
    return [
        (partial(make, **{name: bad}), ValueError, rf"{name}\b.* must .*got {re.escape(repr(bad))}")
        for name, values in options.items()
        for bad in values
    ]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    """Independent standard normal numbers, the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


L = normal(4, M, seed=99).float().double()  # float32 holds these numbers exactly


def member(name: str, anchor: str = "query", components: Any = L, **options: Any) -> Distance:
    """A member of the family; the components go to those that need a matrix."""
    if "mahalanobis" in name:
        options["components"] = components
    return get_distance(name, anchor=anchor, **options)


def variance(h: Tensor) -> Tensor:
    """Eq. 7: over the components of one vector."""
    return ((h - h.sum() / len(h)) ** 2).sum() / len(h)


def euclid(a: Tensor, b: Tensor) -> Tensor:
    """Eq. 9."""
    return ((a - b) ** 2).sum() ** 0.5


def naive_distance(name: str, a: Tensor, b: Tensor, L: Tensor = L) -> Tensor:
    """d(a, b) of two vectors with a the anchor; equal ones are at distance 0, without a gradient."""
    if torch.equal(a, b):
        return a.new_zeros(())
    match name:
        case "euclidean":  # eq. 9
            return euclid(a, b)
        case "centred_euclidean":
            return euclid(a - a.mean(), b - b.mean())
        case "relative_euclidean":  # eq. 10
            return euclid(a, b) ** 2 / euclid(a, torch.zeros_like(a)) ** 2
        case "snr":  # eq. 8
            return variance(b - a) / variance(a)
        case "mahalanobis":
            return ((b - a) @ L.T @ L @ (b - a)) ** 0.5
        case "relative_mahalanobis":
            return ((b - a) @ L.T @ L @ (b - a)) / (a @ L.T @ L @ a)
        case "cosine":
            return euclid(a / euclid(a, 0 * a), b / euclid(b, 0 * b)) ** 2 / 2
        case "correlation":
            return naive_distance("cosine", a - a.mean(), b - b.mean())
        case "symmetric_snr":
            return variance(b - a) / (variance(a) * variance(b)) ** 0.5
    raise AssertionError(name)


def naive_pairs(name: str, anchor: str, x: Iterable[Tensor], y: Iterable[Tensor], L: Tensor = L) -> Tensor:
    """d(x_i, y_i) for every i."""
    pairs = [(p, q) if anchor == "query" else (q, p) for p, q in zip(x, y, strict=True)]
    return torch.stack([naive_distance(name, a, b, L) for a, b in pairs])


def naive_matrix(name: str, anchor: str, query: Tensor, ref: Tensor | None = None, L: Tensor = L) -> Tensor:
    """(n_query, n_ref)."""
    columns = list(query if ref is None else ref)
    return torch.stack([naive_pairs(name, anchor, [row] * len(columns), columns, L) for row in query])


def naive_inner_product(name: str, a: Tensor, b: Tensor, L: Tensor = L) -> Tensor:
    """(A a)'(A b), of a member's own map A."""
    if "mahalanobis" in name:
        return a @ L.T @ L @ b
    if name in ("centred_euclidean", "snr", "correlation", "symmetric_snr"):
        a, b = a - a.mean(), b - b.mean()
    if name in ("cosine", "correlation"):
        a, b = a / euclid(a, 0 * a), b / euclid(b, 0 * b)
    return (a * b).sum()


def naive_inner_products(name: str, anchor: str, query: Tensor, ref: Tensor) -> Tensor:
    """(n_query, n_ref); there is no anchor side."""
    return torch.stack([torch.stack([naive_inner_product(name, q, r) for r in ref]) for q in query])


def naive_within(X: Any, y: Any) -> Any:
    """Covariance within classes of an array or tensor, sample by sample."""
    S, kinds = 0, set(y.tolist())
    for cls in kinds:
        members = [x for x, c in zip(X, y, strict=True) if c == cls]
        noise = [x - sum(members) / len(members) for x in members]
        S = S + sum(n[:, None] * n for n in noise)
    return S / (len(X) - len(kinds))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected size."""
    assert actual.shape == expected.shape
    return ((actual.double() - expected).abs().max() / expected.abs().max()).item()


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor))])
        return out


PEAK = """
import sys
def peak():  # bytes; ru_maxrss counts the same, but starts from the peak of the process that started this one
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
"""
measures_memory = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")


def measured(program: str, *arguments: str) -> int:
    """What a program prints that may call ``peak()``."""
    command = [sys.executable, "-c", PEAK + program, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=3600).stdout)


# --- losses: loops over the table of all pairs ------------------------------------------------------------------------


Pair = tuple[int, int]


class Loops(NamedTuple):
    """What a loop over the terms of a loss finds."""

    value: Tensor
    terms: int
    active: int
    positive: list[Pair]  # the pairs whose distances the report averages
    negative: list[Pair]


def total(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum() if terms else torch.zeros((), dtype=F64)


def mean_of(terms: list[Tensor], average: str = "all") -> Tensor:
    """Of all, or of those that are not 0; 0 if there are none."""
    counted = [t for t in terms if average == "all" or t != 0]
    return total(terms) / max(len(counted), 1)


def ordered_pairs(y: list[int], first: int | None = None) -> tuple[list[Pair], list[Pair]]:
    """All i != j: of one class, of two classes. The anchors are the first of two sets, the others in the second."""
    pairs = list(itertools.permutations(range(len(y)), 2))
    if first is not None:
        pairs = [(i, j) for i, j in pairs if i < first <= j]
    return [(i, j) for i, j in pairs if y[i] == y[j]], [(i, j) for i, j in pairs if y[i] != y[j]]


def triplets(y: list[int], first: int | None = None) -> list[tuple[int, int, int]]:
    """All (anchor, positive, negative)."""
    positive, negative = ordered_pairs(y, first)
    return [(i, j, k) for i, j in positive for anchor, k in negative if anchor == i]


def log_one_plus_sum_exp(exponents: list[Tensor]) -> Tensor:
    """log(1 + exp(e_1) + exp(e_2) + ...), which a large exponent does not overflow."""
    return torch.stack([torch.zeros((), dtype=F64), *exponents]).logsumexp(dim=0)


def naive_contrastive(D: Tensor, y: list[int], relative: bool, margin: float, **options: Any) -> Loops:
    """Eq. 1 over ordered pairs; of a relative distance the DSML form. D is the table of distances (n, n)."""
    positive, negative = ordered_pairs(y, options.get("first"))
    positive_margin, hinge, average = options.get("positive_margin", 0.0), options.get("hinge"), options.get("average")
    power = options.get("power") or (1 if relative else 2)
    pull = [(D[ij] - positive_margin).relu() ** power for ij in positive]
    push = [(margin - D[ij]).relu() ** {None: power, "squared": 2, "linear": 1}[hinge] for ij in negative]
    apart = (pull, push) if options.get("balanced") else (pull + push,)
    value = sum((mean_of(terms, average or "all") for terms in apart), torch.zeros((), dtype=F64)) / 2
    active = [ij for ij in positive if D[ij] > positive_margin] + [ij for ij in negative if D[ij] < margin]
    return Loops(value, len(pull + push), len(active), positive, negative)


def naive_triplet(
    D: Tensor, y: list[int], relative: bool, margin: float, mining: str = "", given: Any = None, **options: Any
) -> Loops:
    """Eq. 2 over triplets; of a relative distance the DSML form."""
    first, soft_margin, swap = (options.get(name) for name in ("first", "soft_margin", "swap"))
    positive, negative = ordered_pairs(y, first)
    E = D ** (options.get("power") or (1 if relative else 2))
    chosen = triplets(y, first) if given is None else given
    if given is not None:
        positive, negative = [(i, j) for i, j, _ in given], [(i, k) for i, _, k in given]
    if mining == "semi_hard":
        chosen = [(i, j, k) for i, j, k in chosen if E[i, j] < E[i, k] <= E[i, j] + margin]
    if mining == "batch_hard" and not swap:  # equally far positives share the gradient, equally near negatives, too
        anchors = sorted({i for i, _, _ in chosen})
        far = [torch.stack([E[i, j] for a, j in positive if a == i]).amax() for i in anchors]
        near = [torch.stack([E[i, k] for a, k in negative if a == i]).amin() for i in anchors]
        gaps = [p - n for p, n in zip(far, near, strict=True)]
    else:
        if mining == "batch_hard":
            pairs = {i: [(j, k) for a, j, k in chosen if a == i] for i, _, _ in chosen}
            chosen = [(i, *max((E[i, j], -E[i, k], j, k) for j, k in pairs[i])[2:]) for i in sorted(pairs)]
        gaps = [E[i, j] - (torch.minimum(E[i, k], E[j, k]) if swap else E[i, k]) for i, j, k in chosen]
    terms = [gap.exp().log1p() if soft_margin else (gap + margin).relu() for gap in gaps]
    value = mean_of(terms, options.get("average", "all"))
    return Loops(value, len(terms), sum(bool(t > 0) for t in terms), positive, negative)


def naive_n_pair(
    D: Tensor, y: list[int], relative: bool, margin: float = 0.0, similarity: str | None = None, **options: Any
) -> Loops:
    """Eq. 3 for every two slots s < t; D holds inner products for that similarity."""
    if similarity is None:
        similarity = "negative" if relative else "inner_product"
    S = D
    if similarity == "negative":
        S = -(D ** (options.get("power") or (1 if relative else 2)))
    elif similarity == "inverse":
        S = torch.where(D > 1e-4, 1 / D.clamp_min(1e-4), 1e4)
    S = options.get("scale", 1) * S
    terms, positive, negative = [], [], []
    members = [[i for i in range(len(y)) if y[i] == c] for c in sorted(set(y))]
    for s, t in itertools.combinations(range(len(y)), 2):
        pairs = [(m[s], m[t]) for m in members if len(m) > t]  # an anchor and a positive of each class
        if len(pairs) < 2:
            continue
        for i, own in pairs:
            others = [(i, j) for _, j in pairs if j != own]
            terms.append(log_one_plus_sum_exp([margin + S[ij] - S[i, own] for ij in others]))
            positive.append((i, own))
            negative += others
    return Loops(mean_of(terms), len(terms), sum(bool(t > math.log(2)) for t in terms), positive, negative)


def naive_lifted(D: Tensor, y: list[int], relative: bool, margin: float, **options: Any) -> Loops:
    """Eqs. 4-5 over ordered positive pairs, the second sum anchored at j."""
    first = options.get("first")
    positive, negative = ordered_pairs(y, first)
    E = options.get("scale", 1) * D ** (options.get("power") or 1)
    terms = []
    for i, j in positive if negative else []:
        others = [k for k in range(first or 0, len(y)) if y[k] != y[i]]
        at_both = [(margin - E[end, k]).exp() for end in (i, j) for k in others]
        terms.append((total(at_both).log() + E[i, j]).relu())
    value = mean_of([t**2 for t in terms], options.get("average", "all")) / 2
    return Loops(value, len(terms), sum(bool(t > 0) for t in terms), positive, negative)


def naive_angular(D: Tensor, y: list[int], relative: bool, alpha: float = 40.0) -> Loops:
    """The N-pair form over positive pairs and the anchor's negatives; D holds cosines of z = A x / ||A x||."""
    positive, negative = ordered_pairs(y)
    tan2 = math.tan(math.radians(alpha)) ** 2
    terms = []
    for a, p in positive if negative else []:
        side = 2 - 2 * D[a, p]  # ||z_a - z_p||^2, and the medians ||z_n - (z_a + z_p)/2||^2
        medians = [1 - D[a, n] - D[p, n] + (1 + D[a, p]) / 2 for i, n in negative if i == a]
        terms.append(log_one_plus_sum_exp([side - 4 * tan2 * median - 2 + 6 * tan2 for median in medians]))
    return Loops(mean_of(terms), len(terms), sum(bool(t > math.log(2)) for t in terms), positive, negative)


def naive_ranked_list(
    D: Tensor, y: list[int], relative: bool, margin: float, alpha: float, balance: float = 0.5, **options: Any
) -> Loops:
    """Hinges outside and inside of a shell, the mean over queries."""
    first = options.get("first")
    positive, negative = ordered_pairs(y, first)
    queries, active = [], 0
    for i in range(first or len(y)):
        outside = [D[ij] for ij in positive if ij[0] == i and D[ij] > alpha - margin]
        inside = [D[ij] for ij in negative if ij[0] == i and D[ij] < alpha]
        sides = []
        for excess, temperature in (
            ([d - (alpha - margin) for d in outside], options.get("positive_temperature", 0)),
            ([alpha - d for d in inside], options.get("temperature", 10)),
        ):
            w = [(temperature * x).exp() for x in excess]
            if options.get("weights") == "constant":
                w = [v.detach() for v in w]
            sides.append(total([v * x for v, x in zip(w, excess, strict=True)]) / (total(w) if w else 1))
        pull, push = sides
        queries.append((1 - balance) * pull + balance * push)
        active += (len(outside) if balance < 1 else 0) + (len(inside) if balance > 0 else 0)
    value = mean_of(queries, options.get("average", "all"))
    return Loops(value, len(positive) + len(negative), active, positive, negative)


def naive_multi_similarity(
    D: Tensor, y: list[int], relative: bool, margin: float, mining: str = "pairs", **options: Any
) -> Loops:
    """Weighted pairs of every anchor, the mean over all anchors; without mining, pairs stand alone."""
    alpha, beta = options.get("alpha", 1 / margin), options.get("beta", 25 / margin)
    epsilon, first = options.get("epsilon", margin / 5), options.get("first")
    positive, negative = ordered_pairs(y, first)
    E = D if relative else D**2
    anchors, terms, active = [], 0, 0
    for i in range(first or len(y)):
        P, N = [E[ij] for ij in positive if ij[0] == i], [E[ij] for ij in negative if ij[0] == i]
        if mining == "pairs":
            nearest, farthest = min(N, default=torch.inf), max(P, default=-torch.inf)
            terms += len(P) + len(N) if P and N else 0
            P, N = [e for e in P if e > nearest - epsilon], [e for e in N if e < farthest + epsilon]
        else:
            terms += len(P) + len(N)
        active += len(P) + len(N)
        pull = log_one_plus_sum_exp([alpha * (e - margin) for e in P]) / alpha
        push = log_one_plus_sum_exp([beta * (margin - e) for e in N]) / beta
        anchors.append(pull + push)
    return Loops(mean_of(anchors), terms, active, positive, negative)


def naive_nt_xent(D: Tensor, y: list[int], relative: bool, scale: float, first: int | None = None) -> Loops:
    """Every positive pair alone against the anchor's negatives."""
    positive, negative = ordered_pairs(y, first)
    S = -scale * (D if relative else D**2)
    terms = [
        log_one_plus_sum_exp([S[a, n] - S[a, p] for i, n in negative if i == a])
        for a, p in (positive if negative else [])
    ]
    return Loops(mean_of(terms), len(terms), sum(bool(t > math.log(2)) for t in terms), positive, negative)


def naive_supcon(D: Tensor, y: list[int], relative: bool, scale: float, first: int | None = None) -> Loops:
    """L_out: the logarithm of each positive's share of all others, averaged over an anchor's positives."""
    positive, negative = ordered_pairs(y, first)
    S = -scale * (D if relative else D**2)
    terms, active = [], 0
    for i in range(first or len(y)):
        P = [S[i, p] for a, p in positive if a == i]
        if not P or not negative:
            continue
        others = torch.stack([S[i, k] for k in range(first or 0, len(y)) if k != i])
        terms.append(-mean_of([s - others.logsumexp(dim=0) for s in P]))
        active += bool(terms[-1] > math.log(2 * len(P)))
    return Loops(mean_of(terms), len(terms), active, positive, negative)


# Of losses with proxies the table has more columns than labels: those of the proxies, one for each class.


def cross_entropies(S: Tensor, y: list[int]) -> Loops:
    """Of every sample, S (n, C); the report compares the samples."""
    terms = [log_one_plus_sum_exp([s - S[i, c] for k, s in enumerate(S[i]) if k != c]) for i, c in enumerate(y)]
    return Loops(mean_of(terms), len(terms), sum(bool(t > math.log(2)) for t in terms), *ordered_pairs(y))


def naive_proxy_nca(D: Tensor, y: list[int], relative: bool, scale: float) -> Loops:
    """A softmax over distances to proxies."""
    D = D[: len(y), len(y) :]
    return cross_entropies(-scale * (D if relative else D**2), y)


def naive_proxy_anchor(D: Tensor, y: list[int], relative: bool, margin: float, **options: float) -> Loops:
    """Every proxy against all samples: a mean over the proxies with samples, and one over all."""
    delta, alpha = options.get("delta", margin / 10), options.get("alpha", 32 / margin)
    E = (D if relative else D**2)[: len(y), len(y) :]
    pulls, pushes, present = [], [], sorted(set(y))
    for c in range(E.shape[1]):
        own = [alpha * (e - margin + delta) for e, label in zip(E[:, c], y, strict=True) if label == c]
        others = [alpha * (margin + delta - e) for e, label in zip(E[:, c], y, strict=True) if label != c]
        pulls.append(log_one_plus_sum_exp(own))
        pushes.append(log_one_plus_sum_exp(others))
    value = total(pulls) / len(present) + total(pushes) / len(pushes)
    C, share = len(pushes), len(pushes) / len(present)
    active = sum(bool(share * pull + push > math.log(2)) for pull, push in zip(pulls, pushes, strict=True))
    return Loops(value, C, active, *ordered_pairs(y))


def naive_normalised_softmax(D: Tensor, y: list[int], relative: bool, scale: float) -> Loops:
    """A softmax over cosines, which D holds."""
    return cross_entropies(scale * D[: len(y), len(y) :], y)


def naive_arcface(D: Tensor, y: list[int], relative: bool, scale: float, margin: float) -> Loops:
    """The same, the own angle turned by the margin."""
    rows = []
    for row, c in zip(D[: len(y), len(y) :], y, strict=True):
        theta = row[c].acos()
        turned = (theta + margin).cos() if theta <= math.pi - margin else row[c] - margin * math.sin(margin)
        rows.append(torch.stack([turned if k == c else cosine for k, cosine in enumerate(row)]))
    return cross_entropies(scale * torch.stack(rows), y)


NAIVE: dict[str, Callable[..., Loops]] = {
    "contrastive": naive_contrastive,
    "triplet": naive_triplet,
    "n_pair": naive_n_pair,
    "lifted": naive_lifted,
    "angular": naive_angular,
    "ranked_list": naive_ranked_list,
    "multi_similarity": naive_multi_similarity,
    "nt_xent": naive_nt_xent,
    "supcon": naive_supcon,
    "proxy_nca": naive_proxy_nca,
    "proxy_anchor": naive_proxy_anchor,
    "normalised_softmax": naive_normalised_softmax,
    "arcface": naive_arcface,
}
