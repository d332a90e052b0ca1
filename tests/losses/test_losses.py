"""All losses against loops over pairs and triplets and against a peer; no valid term; bad input."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from loss_cases import (
    BATCHES,
    CASES,
    F32,
    F64,
    assert_equal,
    build,
    case_options,
    chain,
    defined,
    every_case,
    every_loss,
    every_loss_and_distance,
    labelled,
    naive_case,
    naive_table,
    value_and_gradient,
)
from oracles import FAMILY, M, member, naive_triplet, normal, over_family, triplets
from pytorch_metric_learning import distances as peer_distances
from pytorch_metric_learning import losses as peer_losses
from pytorch_metric_learning import miners as peer_miners
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor, nn

from snrlib.distances import DISTANCES, get_distance
from snrlib.losses import LOSSES, ContrastiveLoss, Loss, NPairsLoss, RankedListLoss, TripletMarginLoss, get_loss

NAN = math.nan

# --- values and gradients ---------------------------------------------------------------------------------------------


@every_case
def test_value_and_gradient_equal_the_loops(case: str, name: str, anchor: str) -> None:
    fast = build(case, name, anchor)
    for batch, (x, y) in BATCHES.items():
        if "semi-hard" in case and batch in ("twins in two classes", "four of a kind"):
            continue  # whether a negative is farther than its own twin is a matter of rounding; see the exact tie below
        loops, gradient = naive_case(case, name, anchor, batch)
        value, actual = value_and_gradient(fast, x, torch.tensor(y))
        assert_equal(value, loops.value, f"value for {batch}")
        # Of equal embeddings, rounding chooses which is the farthest or the nearest: their common gradient is compared.
        twins = (x[:, None] == x).all(dim=2).double()
        assert_equal(twins @ actual, twins @ gradient, f"gradient for {batch}")


def test_the_margins_of_these_tests_leave_some_terms_active_and_some_not() -> None:
    for case in CASES:
        loops = [naive_case(case, name, "query", "uneven")[0] for name in DISTANCES if defined(case, name)]
        assert any(found.active > 0 for found in loops), case
        if "semi-hard" not in case and case not in ("triplet batch-hard", "lifted", "angular", "angular 60"):
            assert any(found.active < found.terms for found in loops), case


@over_family
@pytest.mark.parametrize("average", ["all", "active"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_given_triplets_equal_the_loops_over_them(name: str, anchor: str, average: str, dtype: torch.dtype) -> None:
    x, _ = BATCHES["uneven"]
    given = [(0, 2, 1), (2, 0, 1), (2, 0, 1), (4, 1, 6), (5, 3, 4), (6, 0, 2)]  # one twice; some against the labels
    loss = build("triplet", name, anchor, average=average)
    value, gradient = value_and_gradient(loss, x, triplets=torch.tensor(given, dtype=dtype))

    table = naive_table("distance", name, anchor, "uneven")
    D = {ij: d.clone().requires_grad_() for ij, (d, _) in table.items()}
    options = {**case_options("triplet", name)[1], "average": average}
    loops = naive_triplet(D, [0] * len(x), member(name).relative, **options, given=given)
    assert_equal(value, loops.value.detach())
    assert_equal(gradient, chain(loops.value, D, table, x))
    r = loss.report()
    assert (r.terms, r.active) == (6, loops.active / 6)
    assert 0 < r.active < 1
    assert r.positive_distance == pytest.approx(sum(D[i, j].item() for i, j, _ in given) / 6)
    assert r.negative_distance == pytest.approx(sum(D[i, k].item() for i, _, k in given) / 6)


@over_family
def test_all_triplets_given_or_not_is_the_same(name: str, anchor: str) -> None:
    x, y = BATCHES["uneven"]
    loss = build("triplet", name, anchor)
    by_labels = value_and_gradient(loss, x, torch.tensor(y))
    by_triplets = value_and_gradient(loss, x, triplets=torch.tensor(triplets(y)))
    for a, b in zip(by_labels, by_triplets, strict=True):
        assert_equal(a, b)


# On a line, all numbers exact. From 0 the positive at 4 is as far as the negative at -4; those at 6 and -6 are farther
# by 20, squared. From 4, positive 0, negative -4 is farther by 48, and -6 by 84; 6 is nearer.
LINE = torch.tensor([[0.0], [4.0], [-4.0], [6.0], [-6.0]], dtype=F64), torch.tensor([0, 0, 1, 2, 3])


@pytest.mark.parametrize("margin", [19.5, 20.0, 20.5, 48.0, 48.5, 84.0, 84.5])
def test_a_negative_as_far_as_the_positive_is_hard_and_one_farther_by_more_than_the_margin_easy(margin: float) -> None:
    loss = TripletMarginLoss(get_distance("euclidean"), margin, mining="semi_hard")
    expected = [margin - gap for gap in (20, 20, 48, 84) if margin >= gap]
    assert loss(*LINE).item() == sum(expected) / max(len(expected), 1)
    assert loss.report().terms == len(expected)


@pytest.mark.parametrize("margin", [20.0, 48.0, 84.0, -1.0])
def test_a_triplet_that_just_meets_its_margin_is_not_active(margin: float) -> None:
    loss = TripletMarginLoss(get_distance("euclidean"), margin)
    gaps = (0, 20, 20, 48, -12, 84)
    assert loss(*LINE).item() == sum(max(margin - gap, 0) for gap in gaps) / 6
    assert loss.report().active == sum(margin > gap for gap in gaps) / 6


def test_a_pair_that_just_meets_its_margin_is_not_active() -> None:
    d = get_distance("euclidean")  # positives at 4; 20 ordered pairs, of which 6 are negatives nearer than 6
    contrastive = ContrastiveLoss(d, margin=6.0, positive_margin=4.0)
    assert contrastive(*LINE).item() == (2 * (2**2 + 4**2 + 4**2) / 20) / 2
    ranked_list = RankedListLoss(d, margin=2.0, alpha=6.0, temperature=0.0)
    assert ranked_list(*LINE).item() == pytest.approx((2 + 4 + (2 + 4) / 2 + 4 + 4) / 5 / 2, rel=1e-15)
    for loss in (contrastive, ranked_list):
        assert (loss.report().terms, loss.report().active) == (20, 6 / 20)


def test_a_margin_that_rounding_swallows_gives_no_negative_loss_and_no_negative_count() -> None:
    loss = TripletMarginLoss(get_distance("euclidean"), 1e-3, mining="semi_hard")
    x, y = LINE
    assert loss((2**16 * x).float(), y) >= 0  # 16 * 2^32 + 1e-3 is 16 * 2^32
    assert loss.report().terms >= 0


def test_many_triplets_are_counted_to_the_last() -> None:
    x, y = labelled(1024, 512, 8, dtype=F32)
    loss = TripletMarginLoss(get_distance("euclidean"), 1e-3, mining="semi_hard")
    loss(x, y)
    e = get_distance("euclidean")(x).square()
    terms = 0
    for i in range(len(x)):
        positive, negative = e[i, (y == y[i]) & (torch.arange(len(x)) != i)], e[i, y != y[i]]
        terms += int(((positive[:, None] < negative) & (negative <= positive[:, None] + 1e-3)).sum())
    assert loss.report().terms == terms  # of 2.7e8, more than float32 can count


# --- the peer library -------------------------------------------------------------------------------------------------

SQUARED = peer_distances.LpDistance(power=2, normalize_embeddings=False)
PLAIN = peer_distances.LpDistance(normalize_embeddings=False)
SNR = peer_distances.SNRDistance(normalize_embeddings=False)  # its variances are over M - 1, which cancels
DOT = peer_distances.DotProductSimilarity(normalize_embeddings=False)
MEAN = MeanReducer()


def mined(miner: Any, loss: Any) -> Any:
    return lambda x, y: loss(x, y, miner(x, y))


def balanced_contrastive(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    loss = ContrastiveLoss(get_distance(name), 2.0, positive_margin=0.5, hinge="linear", balanced=True)
    return lambda x, y: 2 * loss(x, y)


def triplet(name: str, **options: Any) -> Loss:
    return TripletMarginLoss(get_distance(name), 0.7, **options)


PEERS: dict[str, tuple[Any, Any]] = {
    "eq 2, euclidean": (triplet("euclidean"), peer_losses.TripletMarginLoss(0.7, distance=SQUARED, reducer=MEAN)),
    "eq 2 active": (triplet("euclidean", average="active"), peer_losses.TripletMarginLoss(0.7, distance=SQUARED)),
    "eq 2, snr": (triplet("snr"), peer_losses.TripletMarginLoss(0.7, distance=SNR, reducer=MEAN)),
    "eq 3": (NPairsLoss(get_distance("euclidean")), peer_losses.NPairsLoss(distance=DOT)),
    "eq 3, snr": (NPairsLoss(get_distance("snr")), peer_losses.NPairsLoss(distance=SNR)),
    "eqs 4-5, euclidean": (
        get_loss("lifted", get_distance("euclidean"), margin=3.0),
        peer_losses.LiftedStructureLoss(neg_margin=3.0, distance=PLAIN),
    ),
    "eqs 4-5, snr": (
        get_loss("lifted", get_distance("snr"), margin=0.5),
        peer_losses.LiftedStructureLoss(neg_margin=0.5, distance=SNR),
    ),
    "snr contrastive": (
        balanced_contrastive("snr"),
        peer_losses.ContrastiveLoss(pos_margin=0.5, neg_margin=2.0, distance=SNR, reducer=MEAN),
    ),
    "semi-hard, euclidean": (
        triplet("euclidean", mining="semi_hard"),
        mined(
            peer_miners.TripletMarginMiner(0.7, type_of_triplets="semihard", distance=SQUARED),
            peer_losses.TripletMarginLoss(0.7, distance=SQUARED, reducer=MEAN),
        ),
    ),
    "semi-hard, snr": (
        triplet("snr", mining="semi_hard"),
        mined(
            peer_miners.TripletMarginMiner(0.7, type_of_triplets="semihard", distance=SNR),
            peer_losses.TripletMarginLoss(0.7, distance=SNR, reducer=MEAN),
        ),
    ),
    "batch-hard, euclidean": (
        triplet("euclidean", mining="batch_hard"),
        mined(
            peer_miners.BatchHardMiner(distance=SQUARED),
            peer_losses.TripletMarginLoss(0.7, distance=SQUARED, reducer=MEAN),
        ),
    ),
    "batch-hard, snr": (
        triplet("snr", mining="batch_hard"),
        mined(peer_miners.BatchHardMiner(distance=SNR), peer_losses.TripletMarginLoss(0.7, distance=SNR, reducer=MEAN)),
    ),
}


@pytest.mark.parametrize("pair", PEERS.values(), ids=PEERS.keys())
def test_pytorch_metric_learning_agrees(pair: tuple[Any, Any]) -> None:
    ours, peer = pair
    for seed, classes in enumerate((3, 5, 8)):
        x = normal(24, M, seed=seed)
        y = torch.randint(classes, (24,), generator=torch.Generator().manual_seed(seed))
        if "NPairs" in type(peer).__name__:
            y = torch.arange(24) % 12  # two samples a class: eq. 3
        for a, b in zip(value_and_gradient(ours, x, y), value_and_gradient(peer, x, y), strict=True):
            assert b.abs().max() > 0
            assert_equal(a, b)


# --- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["euclidean", "snr"])
def test_gradcheck_and_gradgradcheck(case: str, name: str) -> None:
    if not defined(case, name):
        name = "centred_euclidean" if name == "snr" else "relative_euclidean"
    fast = build(case, name)
    x, y = normal(5, M, seed=1).requires_grad_(), torch.tensor([0, 0, 1, 1, 1])
    assert fast(x, y) > 0
    assert torch.autograd.gradcheck(lambda x: fast(x, y), (x,))
    assert torch.autograd.gradgradcheck(lambda x: fast(x, y), (x,))


# --- no valid term ----------------------------------------------------------------------------------------------------

NO_PAIR, NO_NEGATIVE = "no class has two samples", "there is only one class"
EMPTY = [
    *((loss, [3], {NO_PAIR, NO_NEGATIVE}) for loss in LOSSES),
    *((loss, [3, 3, 3], {NO_NEGATIVE}) for loss in ("triplet", "n_pair", "lifted", "angular")),
    *((loss, [3, 0, 1], {NO_PAIR}) for loss in ("triplet", "n_pair", "lifted", "angular")),
    ("n_pair", [0, 0, 1, 2], set()),  # a pair, and other classes, but no second pair
]


@pytest.mark.parametrize(("loss", "labels", "causes"), EMPTY, ids=[f"{loss} {labels}" for loss, labels, _ in EMPTY])
def test_without_a_valid_term_the_loss_is_0_works_backward_and_says_why(
    loss: str, labels: list[int], causes: set[str]
) -> None:
    for name, anchor in FAMILY:
        if not defined(loss, name):
            continue
        fast = build(loss, name, anchor)
        for x in (normal(len(labels), M), torch.ones(len(labels), M)):
            value, gradient = value_and_gradient(fast, x, torch.tensor(labels))
            assert value == 0
            assert (gradient == 0).all()
            r = fast.report()
            assert r.terms == 0
            assert math.isnan(r.active)
            assert r.verdict.startswith(f"nothing to learn from: no valid {r.term} in this batch")
            assert {cause for cause in (NO_PAIR, NO_NEGATIVE) if cause in r.verdict} == causes
            str(r)


@pytest.mark.parametrize("mining", ["semi_hard", "batch_hard"])
@pytest.mark.parametrize("labels", [[3], [3, 3, 3], [3, 0, 1]])
@pytest.mark.parametrize("average", ["all", "active"])
def test_mining_finds_nothing_where_nothing_is_valid(mining: str, labels: list[int], average: str) -> None:
    loss = build("triplet", "snr", mining=mining, average=average)
    value, gradient = value_and_gradient(loss, normal(len(labels), M), torch.tensor(labels))
    assert value == 0
    assert (gradient == 0).all()
    assert loss.report().terms == 0


def test_no_given_triplet_is_no_term_and_blames_no_labels() -> None:
    loss = build("triplet", "snr")
    value, gradient = value_and_gradient(loss, normal(3, M), triplets=torch.zeros(0, 3, dtype=torch.long))
    assert value == 0
    assert (gradient == 0).all()
    assert loss.report().terms == 0
    assert "class" not in loss.report().verdict


@pytest.mark.parametrize("labels", [[3, 3, 3], [3, 0, 1]])
@pytest.mark.parametrize("loss", ["contrastive", "ranked_list"])
def test_pairs_of_one_kind_are_enough_for_losses_over_pairs(loss: str, labels: list[int]) -> None:
    fast = build(loss, "euclidean")
    value, gradient = value_and_gradient(fast, 0.8 * normal(3, M), torch.tensor(labels))
    assert value > 0
    assert gradient.abs().max() > 0
    assert fast.report().terms == 6
    assert fast.report().verdict.startswith("learning")


# --- bad input --------------------------------------------------------------------------------------------------------

snr, euclidean = get_distance("snr"), get_distance("euclidean")
bad_distance: Any = "snr"
x4, y4 = normal(4, M), torch.tensor([0, 0, 1, 1])


@every_loss
@pytest.mark.parametrize(
    ("args", "error", "match"),
    [
        ((x4, y4[:3]), ValueError, r"labels must be 4 integers, got torch.int64 of shape \(3,\)"),
        ((x4, y4.double()), ValueError, r"labels must be 4 integers, got torch.float64 of shape \(4,\)"),
        ((x4, y4.bool()), ValueError, r"labels must be 4 integers, got torch.bool"),
        ((x4, y4[:, None]), ValueError, r"labels must be 4 integers, got torch.int64 of shape \(4, 1\)"),
        ((x4, y4.tolist()), TypeError, "labels must be a torch.Tensor of integers, got list"),
        ((x4[0], y4), ValueError, r"must be 2-D of shape \(n, M\), got shape \(6,\)"),
        ((x4[:0], y4[:0]), ValueError, r"must not be empty, got shape \(0, 6\)"),
        ((x4.long(), y4), TypeError, "must be floating point, got torch.int64"),
        ((x4 * NAN, y4), ValueError, "must be finite, got NaN or infinity in 4 of 4 rows"),
        ((x4 * 1e200, y4), ValueError, "must be at most .* in size, or torch.float64 overflows"),
        ((x4.tolist(), y4), TypeError, "must be a torch.Tensor of shape .*, got list"),
    ],
)
def test_bad_batches_are_refused_and_named(loss: str, args: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        build(loss, "euclidean")(*args)


def given(triplets: Any) -> Any:
    return TripletMarginLoss(snr, 1.0)(x4, triplets=triplets)


one = torch.tensor([[0, 1, 2]])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: get_loss("hinge", snr), ValueError, f"unknown loss 'hinge'; choose from {', '.join(LOSSES)}"),
        (lambda: get_loss("triplet", snr, margin=1.0, alpha=1.0), TypeError, "unexpected keyword argument 'alpha'"),
        *(
            (lambda loss=loss: get_loss(loss, snr), TypeError, "missing 1 required positional argument: 'margin'")
            for loss in ("contrastive", "triplet", "lifted")
        ),
        *(
            (lambda loss=loss: get_loss(loss, bad_distance), TypeError, "distance must be a Distance, .* got 'snr'")
            for loss in ("n_pair", "angular")
        ),
        (lambda: ContrastiveLoss(nn.PairwiseDistance(), 1.0), TypeError, "distance must be a Distance.*PairwiseDist"),  # type: ignore[arg-type]
        *(
            (
                lambda loss=loss: get_loss(loss, euclidean, regularizer=0.1, **case_options(loss, "euclidean")[1]),
                TypeError,
                "regularizer must be a torch.nn.Module, got float",
            )
            for loss in LOSSES
        ),
        *(
            (
                lambda loss=loss, bad=bad: get_loss(
                    loss, snr, margin=bad, **({"alpha": 2.0} if loss == "ranked_list" else {})
                ),
                ValueError,
                f"margin must be a finite number.*, got {bad!r}",
            )
            for loss in ("contrastive", "triplet", "n_pair", "lifted", "ranked_list")
            for bad in (NAN, math.inf, "1", None, True)
        ),
        (lambda: ContrastiveLoss(snr, 0.0), ValueError, "margin must be a finite number above 0, got 0.0"),
        (lambda: ContrastiveLoss(snr, -1.0), ValueError, "margin must be a finite number above 0, got -1.0"),
        (
            lambda: ContrastiveLoss(snr, 1.0, positive_margin=1.5),
            ValueError,
            "positive_margin must be a finite number at least 0 and at most 1, got 1.5",
        ),
        (
            lambda: ContrastiveLoss(snr, 1.0, positive_margin=-0.5),
            ValueError,
            "positive_margin must be a finite number at least 0 and at most 1, got -0.5",
        ),
        (
            lambda: ContrastiveLoss(snr, 1.0, positive_margin=NAN),
            ValueError,
            "positive_margin must be a finite number at least 0 and at most 1, got nan",
        ),
        (lambda: ContrastiveLoss(snr, 1.0, balanced="no"), ValueError, "balanced must be True or False, got 'no'"),  # type: ignore[arg-type]
        (lambda: ContrastiveLoss(snr, 1.0, hinge="cubic"), ValueError, "hinge must be one of squared, linear, got 'cu"),  # type: ignore[arg-type]
        (
            lambda: TripletMarginLoss(snr, 1.0, mining="hard"),  # type: ignore[arg-type]
            ValueError,
            "mining must be one of all, semi_hard, batch_hard, got 'hard'",
        ),
        (
            lambda: TripletMarginLoss(snr, 1.0, average="mean"),  # type: ignore[arg-type]
            ValueError,
            "average must be one of all, active, got 'mean'",
        ),
        (
            lambda: NPairsLoss(snr, similarity="inner_product"),
            ValueError,
            "similarity must be one of negative, inverse, got 'inner_product'",
        ),
        (
            lambda: NPairsLoss(euclidean, similarity="cosine"),  # type: ignore[arg-type]
            ValueError,
            "similarity must be one of negative, inner_product, got 'cosine'",
        ),
        *(
            (
                lambda bad=bad: TripletMarginLoss(snr, bad, mining="semi_hard"),
                ValueError,
                f"the margin of semi-hard triplets must be a finite number above 0, got {bad}",
            )
            for bad in (0.0, -1.0)
        ),
        (lambda: TripletMarginLoss(snr, 1.0)(x4), ValueError, "give either labels or triplets"),
        (lambda: TripletMarginLoss(snr, 1.0)(x4, y4, triplets=one), ValueError, "give either labels or triplets"),
        (lambda: given(one + 2), ValueError, "triplets must be indices of the 4 embeddings, got 2 to 4"),
        (lambda: given(one - 1), ValueError, "triplets must be indices of the 4 embeddings, got -1 to 1"),
        (lambda: given(one[0]), ValueError, r"triplets must be a tensor of integers of shape \(t, 3\), got tensor"),
        (lambda: given(one[:, :2]), ValueError, r"triplets must be a tensor of integers of shape \(t, 3\), got"),
        (lambda: given(one.double()), ValueError, r"triplets must be a tensor of integers of shape \(t, 3\), got"),
        (lambda: given([[0, 1, 2]]), ValueError, r"triplets must be .* of shape \(t, 3\), got \[\[0, 1, 2\]\]"),
    ],
)
def test_bad_arguments_are_refused_and_named(call: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        call()


@every_loss_and_distance
def test_repr_tells_the_options_and_the_distance(loss: str, name: str) -> None:
    fast = build(loss, name)
    for key, value in case_options(loss, name)[1].items():
        assert f"{key}={value}" in repr(fast)
    assert repr(fast.distance).splitlines()[0] in repr(fast)


def test_the_defaults_are_eq_1_and_eq_3_for_absolute_and_the_dsml_form_for_relative_distances() -> None:
    assert [ContrastiveLoss(d, 1.0).hinge for d in (euclidean, snr)] == ["squared", "linear"]
    assert [NPairsLoss(d).similarity for d in (euclidean, snr)] == ["inner_product", "negative"]
    assert (ContrastiveLoss(snr, 1.0).positive_margin, ContrastiveLoss(snr, 1.0).balanced) == (0, False)
    assert (TripletMarginLoss(snr, 1.0).mining, TripletMarginLoss(snr, 1.0).average) == ("all", "all")
    assert NPairsLoss(snr).margin == 0
