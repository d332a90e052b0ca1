"""All losses against loops over pairs and triplets and against a peer; no valid term; bad input."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from loss_cases import (
    BATCHES,
    CASES,
    OVER_COSINES,
    assert_equal,
    build,
    case_options,
    defined,
    every_case,
    labelled,
    labels_of,
    naive_case,
    naive_table,
    over,
    sized,
    value_and_gradient,
)
from oracles import (
    F32,
    F64,
    L,
    Loops,
    M,
    bad_options,
    member,
    naive_triplet,
    normal,
    over_family,
    refusals,
    triplets,
)
from pytorch_metric_learning import distances as peer_distances
from pytorch_metric_learning import losses as peer
from pytorch_metric_learning import miners
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor, nn
from torch.nn import functional as F

from snrlib.distances import DISTANCES, RELATIVE, get_distance
from snrlib.losses import LOSSES, Loss, get_loss
from snrlib.losses.proxies import ProxyLoss

NAN = math.nan
euclidean, snr, cosine = get_distance("euclidean"), get_distance("snr"), get_distance("cosine")


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else NAN


def assert_reports(loss: Loss, loops: Loops, D: Tensor, x: Tensor) -> None:
    """Every number of the report is that of the loops; D is the table of distances."""
    expected = {
        "loss": loops.value.item(),
        "terms": loops.terms,
        "active": loops.active / loops.terms if loops.terms else NAN,
        "positive_distance": mean([D[ij].item() for ij in loops.positive]),
        "negative_distance": mean([D[ij].item() for ij in loops.negative]),
        "norm": mean([math.hypot(*h) for h in x.tolist()]),
        "row_mean": mean([abs(sum(h)) / M for h in x.tolist()]),
    }
    report = loss.report()
    found = {key: getattr(report, key) for key in expected}
    assert found == pytest.approx(expected, rel=1e-10, nan_ok=True)


# --- values and gradients ---------------------------------------------------------------------------------------------


@every_case
def test_value_gradient_and_report_equal_the_loops(case: str, name: str, anchor: str) -> None:
    fast, loss = build(case, name, anchor).double(), CASES[case][0]
    for batch, (x, y) in BATCHES.items():
        if ("semi-hard" in case or "swap" in case) and batch in ("twins in two classes", "four of a kind"):
            continue  # whether a negative is farther than its own twin is a matter of rounding; exact ties stand below
        loops, gradient = naive_case(case, name, anchor, batch)
        fast.zero_grad()
        value, actual = value_and_gradient(fast, x, labels_of(loss, y))
        assert_equal(value, loops.value, f"value for {batch}")
        gradient, of_proxies = gradient[: len(x)], gradient[len(x) :]
        if isinstance(fast, ProxyLoss):
            assert fast.proxies.grad is not None
            assert_equal(fast.proxies.grad, of_proxies, f"gradient of the proxies for {batch}")
        # Of equal embeddings, rounding chooses which is the farthest or the nearest: their common gradient is compared.
        twins = (x[:, None] == x).all(dim=2).double()
        assert_equal(twins @ actual, twins @ gradient, f"gradient for {batch}")
        if twins.sum() == len(x):  # else, whether d = 1e-17 > 0 counts as active is a matter of rounding
            angular = "angular" in case
            D = naive_table("cosine" if angular else "distance", name, anchor, batch).value
            assert_reports(fast, loops, (2 - 2 * D).relu().sqrt() if angular else D, x)


ALL_ACTIVE = {"triplet batch-hard", "lifted", "angular", "multi_similarity all"}
ALL_ACTIVE |= {"proxy_anchor", "proxy_anchor options", "arcface wide"}


def test_tested_margins_leave_some_terms_inactive() -> None:
    for case in CASES:
        loops = [naive_case(case, name, "query", "uneven")[0] for name in DISTANCES if defined(case, name)]
        assert any(found.active > 0 for found in loops), case
        if not {"semi-hard", "soft"} & set(case.split()) and case not in ALL_ACTIVE:
            assert any(found.active < found.terms for found in loops), case


@over_family
def test_given_triplets_equal_the_loops(name: str, anchor: str) -> None:
    x, y = BATCHES["uneven"]
    table = naive_table("distance", name, anchor, "uneven")
    chosen = [(0, 2, 1), (2, 0, 1), (2, 0, 1), (4, 1, 6), (5, 3, 4), (6, 0, 2)]  # one twice; some against the labels
    for given, dtype, average in ((chosen, torch.int64, "all"), (triplets(y), torch.int32, "active")):
        loss = build("triplet", name, anchor, average=average)
        options = {**case_options("triplet", name)[1], "average": average}
        loops, expected = table.chain(naive_triplet, y, name in RELATIVE, **options, given=given)
        value, gradient = value_and_gradient(loss, x, triplets=torch.tensor(given, dtype=dtype))
        assert_equal(value, loops.value)
        assert_equal(gradient, expected)
        assert_reports(loss, loops, table.value, x)
        assert 0 < loops.active < loops.terms


# On a line, all numbers exact. From 0 the positive at 4 is as far as the negative at -4; those at 6 and -6 are farther
# by 20, squared. From 4, positive 0, negative -4 is farther by 48, and -6 by 84; 6 is nearer by 12.
LINE = torch.tensor([[0.0], [4.0], [-4.0], [6.0], [-6.0]], dtype=F64), torch.tensor([0, 0, 1, 2, 3])


@pytest.mark.parametrize("margin", [-1.0, 0.0, 19.5, 20.0, 20.5, 84.0, 84.5])
def test_triplets_at_their_margin_are_sorted_exactly(margin: float) -> None:
    loss, gaps = get_loss("triplet", euclidean, margin=margin), (0, 20, 20, 48, -12, 84)
    assert loss(*LINE).item() == sum(max(margin - gap, 0) for gap in gaps) / 6
    assert loss.report().active == sum(margin > gap for gap in gaps) / 6
    if margin > 0:  # a negative as far as the positive is hard, one farther by the margin not yet easy
        loss, semi_hard = get_loss("triplet", euclidean, margin=margin, mining="semi_hard"), (20, 20, 48, 84)
        expected = [margin - gap for gap in semi_hard if margin >= gap]
        assert loss(*LINE).item() == sum(expected) / max(len(expected), 1)
        assert loss.report().terms == len(expected)


def test_pairs_at_their_margin_are_not_active() -> None:
    # Positives at 4; 20 ordered pairs, of which 6 are negatives nearer than 6.
    contrastive = get_loss("contrastive", euclidean, margin=6.0, positive_margin=4.0)
    assert contrastive(*LINE).item() == (2 * (2**2 + 4**2 + 4**2) / 20) / 2
    ranked_list = get_loss("ranked_list", euclidean, margin=2.0, alpha=6.0, temperature=0.0)
    assert ranked_list(*LINE).item() == pytest.approx((2 + 4 + (2 + 4) / 2 + 4 + 4) / 5 / 2, rel=1e-15)
    for loss in (contrastive, ranked_list):
        assert (loss.report().terms, loss.report().active) == (20, 6 / 20)


def test_semi_hard_triplets_are_counted_exactly() -> None:
    loss = get_loss("triplet", euclidean, margin=1e-3, mining="semi_hard")
    x, y = LINE
    assert loss((2**16 * x).float(), y) >= 0  # 16 * 2^32 + 1e-3 is 16 * 2^32
    assert loss.report().terms >= 0
    x, y = labelled(640, 320, 8, dtype=F32)
    loss(x, y)
    e, terms = euclidean(x).square(), 0
    for i in range(len(x)):
        positive, negative = e[i, (y == y[i]) & (torch.arange(len(x)) != i)], e[i, y != y[i]]
        terms += int(((positive[:, None] < negative) & (negative <= positive[:, None] + 1e-3)).sum())
    assert loss.report().terms == terms  # the difference of two counts of 6e7, more than float32 can count


# --- the peer library -------------------------------------------------------------------------------------------------

SQUARED = peer_distances.LpDistance(power=2, normalize_embeddings=False)
PLAIN = peer_distances.LpDistance(normalize_embeddings=False)
SNR = peer_distances.SNRDistance(normalize_embeddings=False)  # its variances are over M - 1, which cancels
DOT = peer_distances.DotProductSimilarity(normalize_embeddings=False)
COSINE = peer_distances.CosineSimilarity()
MS = {"margin": 0.5, "alpha": 2.0, "beta": 50.0}


def eq_2(distance: Any, miner: Any = None) -> Any:
    loss = peer.TripletMarginLoss(0.7, distance=distance, reducer=MeanReducer())
    return loss if miner is None else lambda x, y: loss(x, y, miner(x, y))


def semi_hard(distance: Any) -> Any:
    return eq_2(distance, miners.TripletMarginMiner(0.7, type_of_triplets="semihard", distance=distance))


def angular(alpha: float) -> Any:
    loss = peer.AngularLoss(alpha)
    return lambda x, y: loss(F.normalize(x), y)  # it leaves negatives long


def mined_multi_similarity(distance: Any) -> Any:
    loss, miner = (
        peer.MultiSimilarityLoss(2, 50, 0.5, distance=distance),
        miners.MultiSimilarityMiner(0.1, distance=distance),
    )
    return lambda x, y: loss(x, y, miner(x, y))


def halved(loss: Any) -> Any:
    return lambda x, y: loss(x, y) / 2


contrastive = peer.ContrastiveLoss(pos_margin=0.5, neg_margin=2.0, distance=SNR, reducer=MeanReducer())
linear = {"margin": 2.0, "positive_margin": 0.5, "hinge": "linear", "balanced": True}
PEERS: list[tuple[str, str, dict[str, Any], Any]] = [
    *(
        ("triplet", name, {"margin": 0.7, **options}, theirs)
        for name, d in (("euclidean", SQUARED), ("snr", SNR))
        for options, theirs in (
            ({}, eq_2(d)),
            ({"average": "active"}, peer.TripletMarginLoss(0.7, distance=d)),
            ({"mining": "semi_hard"}, semi_hard(d)),
            ({"mining": "batch_hard"}, eq_2(d, miners.BatchHardMiner(distance=d))),
        )
    ),
    ("n_pair", "euclidean", {}, peer.NPairsLoss(distance=DOT)),
    ("n_pair", "snr", {}, peer.NPairsLoss(distance=SNR)),
    ("lifted", "euclidean", {"margin": 3.0}, peer.LiftedStructureLoss(neg_margin=3.0, distance=PLAIN)),
    ("lifted", "snr", {"margin": 0.5}, peer.LiftedStructureLoss(neg_margin=0.5, distance=SNR)),
    ("contrastive", "snr", linear, halved(contrastive)),
    ("angular", "euclidean", {"alpha": 20}, angular(20)),
    ("angular", "euclidean", {"alpha": 60.0}, angular(60)),
    *(
        (loss, name, options, theirs(distance=d))
        for loss, options, theirs in (
            ("multi_similarity", {**MS, "mining": "all"}, partial(peer.MultiSimilarityLoss, 2, 50, 0.5)),
            ("multi_similarity", {**MS, "epsilon": 0.1}, mined_multi_similarity),
            ("nt_xent", {"scale": 1 / 0.07}, partial(peer.NTXentLoss, 0.07)),
            ("supcon", {"scale": 10.0}, partial(peer.SupConLoss, 0.1)),
        )
        for name, d in (("euclidean", SQUARED), ("snr", SNR), ("cosine", COSINE))
    ),
]
WITH_PROXIES: list[tuple[str, str, dict[str, Any], Any]] = [
    ("proxy_nca", "euclidean", {"scale": 3.0}, partial(peer.ProxyNCALoss, distance=SQUARED, softmax_scale=3)),
    ("proxy_nca", "snr", {"scale": 3.0}, partial(peer.ProxyNCALoss, distance=SNR, softmax_scale=3)),
    ("proxy_nca", "cosine", {"scale": 18.0}, partial(peer.ProxyNCALoss, softmax_scale=9)),  # ||a - b||^2 = 2 (1 - cos)
    ("proxy_anchor", "cosine", {}, peer.ProxyAnchorLoss),
    ("proxy_anchor", "cosine", {"delta": 0.3, "alpha": 5.0}, partial(peer.ProxyAnchorLoss, margin=0.3, alpha=5)),
    ("normalised_softmax", "cosine", {}, peer.NormalizedSoftmaxLoss),
    ("arcface", "cosine", {"margin": math.radians(28.6)}, peer.ArcFaceLoss),
    ("arcface", "cosine", {"margin": math.radians(100), "scale": 8.0}, partial(peer.ArcFaceLoss, margin=100, scale=8)),
]


@pytest.mark.parametrize(("loss", "name", "options", "theirs"), PEERS)
def test_pytorch_metric_learning_agrees(loss: str, name: str, options: dict[str, Any], theirs: Any) -> None:
    ours = get_loss(loss, get_distance(name), **options)
    for seed, classes in enumerate((3, 5, 8)):
        x, y = normal(24, M, seed=seed), torch.randint(classes, (24,), generator=torch.Generator().manual_seed(seed))
        if loss == "n_pair":
            y = torch.arange(24) % 12  # two samples per class: eq. 3
        for a, b in zip(value_and_gradient(ours, x, y), value_and_gradient(theirs, x, y), strict=True):
            assert b.abs().max() > 0
            assert_equal(a, b)


@pytest.mark.parametrize(("loss", "name", "options", "theirs"), WITH_PROXIES)
def test_the_peer_agrees_on_proxies(loss: str, name: str, options: dict[str, Any], theirs: Any) -> None:
    ours: Any = get_loss(loss, get_distance(name), **options, n_classes=8, embedding_size=M, seed=1).double()
    reference = theirs(num_classes=8, embedding_size=M).double()
    across = hasattr(reference, "W")
    weights = reference.W if across else reference.proxies
    for seed, classes in enumerate((3, 5, 8)):
        x, y = normal(24, M, seed=seed), torch.randint(classes, (24,), generator=torch.Generator().manual_seed(seed))
        weights.data = ours.proxies.detach().T.clone() if across else ours.proxies.detach().clone()
        ours.zero_grad()
        reference.zero_grad()
        for a, b in zip(value_and_gradient(ours, x, y), value_and_gradient(reference, x, y), strict=True):
            assert_equal(a, b)
        assert_equal(ours.proxies.grad, weights.grad.T if across else weights.grad)


def test_without_margin_arcface_is_normalised_softmax() -> None:
    x, y = labelled(9, 3)
    sharp = build("arcface", "correlation", margin=0.0, scale=5.0)
    assert_equal(sharp(x, y), build("normalised_softmax", "correlation", scale=5.0)(x, y))
    assert_equal(sharp(x, y), build("proxy_nca", "correlation", scale=5.0)(x, y))


@pytest.mark.parametrize(
    ("case", "name"),
    [
        (case, name)
        for case, (_, options) in CASES.items()
        for name in ("euclidean", "snr", "cosine")
        if defined(case, name)
        and "constant" not in case  # whose gradient is no derivative, on purpose
        and (name, options.get("power")) != ("snr", 2)  # too steep for finite differences
    ],
)
def test_first_and_second_derivatives_pass_gradcheck(case: str, name: str) -> None:
    fast = build(case, name)
    x, y = normal(5, M, seed=1).requires_grad_(), torch.tensor([0, 0, 1, 1, 1])
    assert fast(x, y) > 0
    assert torch.autograd.gradcheck(lambda x: fast(x, y), (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: fast(x, y), (x,), fast_mode=True)


# --- no valid term ----------------------------------------------------------------------------------------------------

NO_PAIR, NO_NEGATIVE = "no class has two samples", "there is only one class"
OVER_PAIRS = ("contrastive", "ranked_list")
MINED = [case for case in CASES if "-hard" in case]
EMPTY: list[tuple[list[int], set[str]]] = [
    ([3], {NO_PAIR, NO_NEGATIVE}),
    ([3, 3, 3], {NO_NEGATIVE}),
    ([3, 0, 1], {NO_PAIR}),
    ([0, 0, 1, 2], set()),  # a pair, and other classes, but no second pair, as N-pair needs it
]


def assert_nothing_to_learn(loss: Loss, causes: set[str], *args: Any, **kwargs: Any) -> None:
    value, gradient = value_and_gradient(loss, *args, **kwargs)
    assert value == 0
    assert (gradient == 0).all()
    r = loss.report()
    assert (r.terms, math.isnan(r.active)) == (0, True)
    assert r.verdict.startswith(f"nothing to learn from: no valid {r.term} in this batch")
    assert {cause for cause in (NO_PAIR, NO_NEGATIVE) if cause in r.verdict} == causes


@pytest.mark.parametrize("case", [*(loss for loss in LOSSES if not LOSSES[loss].has_proxies), *MINED])
def test_without_a_valid_term_the_loss_is_0(case: str) -> None:
    for labels, causes in EMPTY[: 1 if case in OVER_PAIRS else 4 if case == "n_pair" else 3]:
        for name in DISTANCES:
            if defined(case, name):
                for x in (normal(len(labels), M), torch.ones(len(labels), M)):
                    assert_nothing_to_learn(build(case, name), causes, x, torch.tensor(labels))
        learned = nn.Parameter(L.clone())  # a map that trains, of frozen embeddings
        value = build(case, "mahalanobis", components=learned)(normal(len(labels), M), torch.tensor(labels))
        assert (torch.autograd.grad(value, learned)[0] == 0).all()
    none = torch.zeros(0, 3, dtype=torch.long)  # given, so that the labels are not to blame
    assert_nothing_to_learn(build("triplet", "snr"), set(), normal(3, M), triplets=none)


# --- options and bad input --------------------------------------------------------------------------------------------


def test_the_repr_tells_options_and_defaults() -> None:
    for case in CASES:
        name = next(name for name in ("euclidean", "snr", "cosine") if defined(case, name))
        told = repr(build(case, name))
        assert all(f"{key}={value}" in told for key, value in case_options(case, name)[1].items())
        assert repr(member(name)).splitlines()[0] in told
    for d, hinge, similarity in ((euclidean, "squared", "inner_product"), (snr, "linear", "negative")):
        contrastive, n_pair = (repr(get_loss(loss, d, margin=1.0)) for loss in ("contrastive", "n_pair"))
        assert f"positive_margin=0.0, power=None, hinge={hinge}, balanced=False" in contrastive
        assert f"similarity={similarity}" in n_pair
    for loss, kind in LOSSES.items():
        usual = {"margin": kind.default_margin, "scale": kind.default_scale}
        told = repr(get_loss(loss, member(over(loss, "euclidean")), **sized(loss)))
        assert all(f"{key}={value}" in told for key, value in usual.items() if value is not None)
    assert "alpha=40.0" in repr(get_loss("angular", euclidean))
    assert "alpha=2.0, beta=50.0, epsilon=0.1, mining=pairs" in repr(get_loss("multi_similarity", snr))
    assert "5 proxies of 6 components, rate=10.0, margin=2.0, delta=0.2, alpha=16.0" in repr(
        build("proxy_anchor", "snr", margin=2.0, delta=None, alpha=None)
    )
    assert get_loss("n_pair", snr).default_margin == 0
    assert "margin=0.25, alpha=0.75" in repr(get_loss("ranked_list", snr, margin=0.25))
    assert "mining=all" in repr(build("triplet", "snr"))


def make(loss: str, distance: Any = snr) -> Any:
    return partial(get_loss, loss, distance, **(sized(loss) if loss in LOSSES else {}))


def see(*args: Any, loss: str = "triplet", **named: Any) -> Any:
    return lambda: build(loss, over(loss, "euclidean"))(*args, **named)


x4, y4, one = normal(4, M), torch.tensor([0, 0, 1, 1]), torch.tensor([[0, 1, 2]])
no_number = [NAN, math.inf, "1", True]

test_bad_input_is_refused = refusals(
    *(
        row
        for loss in LOSSES
        for row in (
            (see(x4, y4[:3], loss=loss), ValueError, r"labels must be 4 integers, got torch.int64 of shape \(3,\)"),
            (see(x4 * NAN, y4, loss=loss), ValueError, "must be finite, got NaN or infinity in 4 of 4 rows"),
            (make(loss, "snr"), TypeError, "distance must be a Distance, .* got 'snr'"),
            (
                partial(make(loss, member(over(loss, "euclidean"))), regularizer=0.1),
                TypeError,
                "regularizer must be .*Module, got float",
            ),
        )
    ),
    (see(x4, y4.double()), ValueError, "labels must be 4 integers, got torch.float64"),
    (see(x4, y4.tolist()), TypeError, "labels must be a torch.Tensor of integers, got list"),
    (see(x4[0], y4), ValueError, r"must be 2-D of shape \(n, M\), got shape \(6,\)"),
    (see(x4.tolist(), y4), TypeError, "must be a torch.Tensor of shape .*, got list"),
    (make("hinge"), ValueError, f"unknown loss 'hinge'; choose from {', '.join(LOSSES)}"),
    (partial(make("triplet"), alpha=1.0), TypeError, "unexpected keyword argument 'alpha'"),
    *bad_options(make("contrastive"), margin=[0.0, -1.0, *no_number], positive_margin=[1.5, -0.5, NAN]),
    *bad_options(make("contrastive"), balanced=["no"], hinge=["cubic"]),
    *bad_options(make("triplet"), margin=no_number, mining=["hard"], average=["mean"]),
    *bad_options(partial(make("triplet"), mining="semi_hard"), margin=[0.0, -1.0]),
    *bad_options(make("n_pair"), margin=no_number, similarity=["inner_product"]),
    *bad_options(make("n_pair", euclidean), similarity=["cosine", "inverse"]),
    *bad_options(make("lifted"), margin=no_number),
    *bad_options(make("angular", euclidean), alpha=[0.0, -40.0, NAN, "40", 60.5]),
    *((make("angular", member(name)), ValueError, r"absolute distances only, got Distance\(") for name in RELATIVE),
    *bad_options(make("ranked_list"), margin=[-0.1, *no_number], alpha=[0.0], temperature=[-1.0, math.inf]),
    *bad_options(make("ranked_list"), positive_temperature=[-1.0, NAN], weights=["detached"]),
    (partial(make("ranked_list"), margin=0.0), ValueError, "a margin of 0 needs an alpha"),
    *bad_options(make("ranked_list"), balance=[-0.1, 1.1, None]),
    (partial(make("ranked_list"), margin=2.0, alpha=1.2), ValueError, "margin must be .*at most 1.2, got 2.0"),
    *bad_options(make("multi_similarity"), margin=[0.0, *no_number], alpha=[0.0], beta=[0.0], epsilon=[-0.1]),
    *bad_options(make("multi_similarity"), mining=["hard"]),
    *(row for loss in ("nt_xent", "supcon", "proxy_nca") for row in bad_options(make(loss), scale=[0.0, *no_number])),
    *bad_options(make("proxy_anchor"), margin=[0.0, *no_number], alpha=[0.0], delta=[-0.1]),
    *bad_options(make("normalised_softmax", cosine), scale=[0.0, *no_number]),
    *bad_options(make("arcface", cosine), scale=[0.0], margin=[-0.1, 3.2, *no_number]),
    *bad_options(make("proxy_nca"), rate=[0.0], n_classes=[1, 2.0, True], embedding_size=[0, "64"]),
    *(
        (make(loss, member(name)), ValueError, r"a softmax over cosines, defined over cosine, .* got Distance\(")
        for loss in OVER_COSINES
        for name in set(DISTANCES) - {"cosine", "correlation"}
    ),
    (partial(get_loss, "proxy_nca", snr), TypeError, "missing 2 required .*'n_classes' and 'embedding_size'"),
    (see(x4, y4 - 1, loss="proxy_nca"), ValueError, "labels must be from 0 to 4, one for each class, got -1 to 0"),
    (see(x4, y4 + 4, loss="arcface"), ValueError, "labels must be from 0 to 4, one for each class, got 4 to 5"),
    (see(x4[:, :3], y4, loss="proxy_anchor"), ValueError, "embeddings must have 6 components, as the proxies, got 3"),
    (see(x4), ValueError, "give either labels or triplets"),
    (see(x4, y4, triplets=one), ValueError, "give either labels or triplets"),
    (see(x4, triplets=one + 2), ValueError, "triplets must be indices of the 4 embeddings, got 2 to 4"),
    (see(x4, triplets=one - 1), ValueError, "triplets must be indices of the 4 embeddings, got -1 to 1"),
    *(
        (see(x4, triplets=bad), ValueError, r"triplets must be a tensor of integers of shape \(t, 3\), got")
        for bad in (one[0], one[:, :2], one.double(), [[0, 1, 2]])
    ),
)
