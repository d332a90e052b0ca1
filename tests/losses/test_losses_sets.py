"""Beside the pairs of one batch: a second set, the caller's pairs, a memory; and terms that nobody averages."""

import copy
import io
from functools import partial
from typing import Any

import pytest
import torch
from loss_cases import (
    BATCHES,
    CASES,
    FIRST,
    assert_equal,
    build,
    defined,
    every_case,
    labelled,
    labels_of,
    naive_case,
    value_and_gradient,
)
from oracles import M, bad_options, normal, ordered_pairs, refusals, triplets
from pytorch_metric_learning import distances as peer_distances
from pytorch_metric_learning import losses as peer
from pytorch_metric_learning.reducers import MeanReducer

from snrlib.distances import get_distance
from snrlib.losses import LOSSES, CrossBatchMemory, NPairsLoss, ZeroMeanRegularizer, get_loss

SECOND = ("contrastive", "triplet", "lifted", "ranked_list", "multi_similarity", "nt_xent", "supcon")
"""Losses that take a second set."""
ANCHORS = ("ranked_list", "multi_similarity")
"""Those with one term for every anchor."""
X, Y = BATCHES["two sets"]
FIRST_SET = X[:FIRST], torch.tensor(Y[:FIRST])
SECOND_SET = X[FIRST:], torch.tensor(Y[FIRST:])


# --- a second set -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "name", "anchor"), [row for row in every_case.args[1] if CASES[row[0]][0] in SECOND])
def test_a_second_set_equals_the_loops(case: str, name: str, anchor: str) -> None:
    fast = build(case, name, anchor)
    loops, expected = naive_case(case, name, anchor, "two sets", FIRST)
    y, y_ref = FIRST_SET[1], SECOND_SET[1]
    value, gradient = value_and_gradient(lambda x: fast(x[:FIRST], y, x[FIRST:], y_ref), X)
    assert_equal(value, loops.value)
    assert_equal(gradient, expected)
    assert fast.report().terms == loops.terms
    assert fast.report().active == pytest.approx(loops.active / loops.terms)
    assert loops.active > 0
    parts = [X[FIRST:8], X[8:]], [y_ref[:3], y_ref[3:]]
    assert_equal(fast(FIRST_SET[0], y, *parts), value)


@pytest.mark.parametrize("loss", SECOND)
@pytest.mark.parametrize("name", ["euclidean", "snr"])
def test_the_batch_as_its_own_reference_changes_nothing(loss: str, name: str) -> None:
    (x, y), (other, labels), fast = labelled(9, 3), SECOND_SET, build(loss, name)
    assert_equal(fast(x, y, x, y), fast(x, y))
    assert_equal(fast(x, y, [x, other], [y, labels]), fast(x, y, [other, x], [labels, y]))
    copied = fast(x, y, x.clone(), y)  # another sample, at distance 0, which those with a shell do not notice
    assert (copied == pytest.approx(fast(x, y).item(), rel=1e-10)) == (loss in ANCHORS)


PEERS: list[tuple[str, dict[str, Any], Any]] = [
    (
        "triplet",
        {"margin": 0.7, **options},
        peer.TripletMarginLoss(
            0.7,
            distance=peer_distances.LpDistance(power=power, normalize_embeddings=False),
            reducer=MeanReducer(),
            **theirs,
        ),
    )
    for power in (1, 2)
    for options, theirs in (
        ({"power": power}, {}),
        ({"power": power, "swap": True}, {"swap": True}),
    )
]


@pytest.mark.parametrize(("loss", "options", "theirs"), PEERS)
def test_pytorch_metric_learning_agrees_on_options(loss: str, options: dict[str, Any], theirs: Any) -> None:
    ours = get_loss(loss, get_distance("euclidean"), **options)
    x, y = normal(24, M), torch.arange(24) % 5
    for a, b in zip(value_and_gradient(ours, x, y), value_and_gradient(theirs, x, y), strict=True):
        assert_equal(a, b)
    if not options.get("swap"):  # the peer looks up the second side in the first set's columns
        ref, y_ref = normal(20, M, seed=1), torch.arange(20) % 5
        assert_equal(ours(x, y, ref, y_ref), theirs(x, y, ref_emb=ref, ref_labels=y_ref))


@pytest.mark.parametrize("loss", ["triplet", "lifted"])
def test_two_sets_without_a_term_say_why(loss: str) -> None:
    (x, y), (other, labels), fast = FIRST_SET, SECOND_SET, build(loss, "euclidean")
    for of_first, of_second, cause in (
        (y, labels + 10, "no class stands in both sets"),
        (0 * y, 0 * labels, "there is only one class"),
    ):
        value, gradient = value_and_gradient(fast, x, of_first, other, of_second)
        assert value == 0
        assert (gradient == 0).all()
        assert fast.report().verdict.endswith(f"in this batch: {cause}")


# --- terms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if "balanced" not in case])  # that is a mean of two means
def test_all_and_active_terms_have_the_loss_for_mean(case: str) -> None:
    x, y = BATCHES["uneven"]
    name = next(name for name in ("euclidean", "snr", "cosine") if defined(case, name))
    loss = CASES[case][0]
    labels, rows = labels_of(loss, y), build(case, name, average="all", reduction="none").double()
    terms = rows(x, labels)
    for average, counted in (("all", terms), ("active", terms[terms != 0])):
        plain = build(case, name, average=average).double()
        value, gradient = value_and_gradient(plain, x, labels)
        n = max(len(counted), 1)
        mean, through = value_and_gradient(lambda x, n=n: rows(x, labels).sum() / n, x)
        assert_equal(value, mean)
        assert_equal(gradient, through)
    assert len(terms) == (len(x) if loss in ANCHORS else plain.report().terms)
    assert rows.report().loss == pytest.approx(terms.mean().item())
    if loss not in ANCHORS and not LOSSES[loss].has_proxies:
        assert rows(x[:1], labels[:1]).shape == (0,)


# --- the caller's pairs -----------------------------------------------------------------------------------------------


def test_given_pairs_and_triplets_equal_those_of_labels() -> None:
    (x, y), ref = FIRST_SET, SECOND_SET
    positive, negative = ordered_pairs(Y, FIRST)
    shifted = [torch.tensor([(i, j - FIRST) for i, j in pairs]) for pairs in (positive, negative)]
    for case in (case for case in CASES if case.startswith("contrastive")):
        fast = build(case, "snr")
        by_labels = value_and_gradient(fast, x, y, *ref)
        given = value_and_gradient(fast, x, None, ref[0], positive_pairs=shifted[0], negative_pairs=shifted[1].int())
        for a, b in zip(given, by_labels, strict=True):
            assert_equal(a, b)
        assert fast.report().terms == len(positive) + len(negative)
        alone = fast(x, positive_pairs=shifted[0][:, [0, 0]])
        assert alone == (fast.report().active if fast.report().active else 0)  # no sample is far from itself
    chosen = torch.tensor([(i, j - FIRST, k - FIRST) for i, j, k in triplets(Y, FIRST)])
    for case in ("triplet", "triplet soft", "triplet swap", "triplet power 1"):
        fast = build(case, "snr")
        by_labels = value_and_gradient(fast, x, y, *ref)
        for a, b in zip(value_and_gradient(fast, x, reference=ref[0], triplets=chosen), by_labels, strict=True):
            assert_equal(a, b)


# --- a memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", SECOND)
@pytest.mark.parametrize("name", ["euclidean", "snr"])
def test_the_memory_holds_earlier_batches_alone(loss: str, name: str) -> None:
    fast = build(loss, name)
    memory = CrossBatchMemory(fast, size=7)
    batches = [(normal(4, M, seed=seed), torch.arange(4) // 2 + seed % 2) for seed in range(4)]
    known, known_labels = normal(0, M), torch.zeros(0, dtype=torch.long)
    for x, y in batches:
        value, gradient = value_and_gradient(memory, x, y)
        expected, through = value_and_gradient(lambda x, y=y, k=known, l=known_labels: fast(x, y, [x, k], [y, l]), x)
        assert_equal(value, expected)
        assert_equal(gradient, through)
        known, known_labels = torch.cat([known, x])[-7:], torch.cat([known_labels, y])[-7:]
        assert torch.equal(memory.embeddings, known)
        assert torch.equal(memory.labels, known_labels)
        assert not memory.embeddings.requires_grad
    assert memory.report() == fast.report()
    memory.eval()
    memory(*batches[0])
    assert torch.equal(memory.embeddings, known)  # judged, not remembered


def test_a_stored_memory_goes_on_with_the_same_bits() -> None:
    memory = CrossBatchMemory(build("contrastive", "snr"), size=9)
    for seed in range(3):
        memory(normal(4, M, seed=seed), torch.arange(4) // 2)
    buffer = io.BytesIO()
    torch.save(memory.state_dict(), buffer)
    buffer.seek(0)
    fresh = CrossBatchMemory(build("contrastive", "snr"), size=9)
    fresh.load_state_dict(torch.load(buffer))
    for twin in (fresh, copy.deepcopy(memory)):
        x, y = normal(4, M, seed=5), torch.arange(4) // 2
        assert torch.equal(twin(x, y), copy.deepcopy(memory)(x, y))
        assert len(twin.labels) == 9


# --- bad input --------------------------------------------------------------------------------------------------------

euclidean = get_distance("euclidean")
x4, y4, pair = normal(4, M), torch.tensor([0, 0, 1, 1]), torch.tensor([[0, 4]])


def see(*args: Any, loss: str = "contrastive", **named: Any) -> Any:
    return lambda: build(loss, "euclidean")(*args, **named)


def remember(*args: Any) -> Any:
    memory = CrossBatchMemory(build("contrastive", "euclidean"), 9)
    memory(x4, y4)
    return lambda: memory(*args)


def make(loss: str) -> Any:
    distance = get_distance("euclidean", normalize_embeddings=True)
    proxies = {"n_classes": 3, "embedding_size": M} if LOSSES[loss].has_proxies else {}
    return lambda **options: get_loss(loss, distance, **proxies, **options)


test_bad_input_is_refused = refusals(
    *(row for loss in LOSSES for row in bad_options(make(loss), average=["mean", None], reduction=["sum"])),
    *(
        (
            partial(make(loss), reduction="none", regularizer=ZeroMeanRegularizer(1)),
            ValueError,
            "reduction 'none'",
        )
        for loss in LOSSES
    ),
    *(row for loss in ("contrastive", "triplet", "lifted") for row in bad_options(make(loss), power=[0, 3, 1.5, True])),
    *bad_options(make("triplet"), soft_margin=[1], swap=["yes"]),
    *(row for loss in ("lifted", "n_pair") for row in bad_options(make(loss), scale=[0.0, -1.0, float("inf")])),
    (lambda: make("n_pair")(power=1), ValueError, "power is of the similarity 'negative'.* got 1 with 'inner_product'"),
    *((see(x4, y4, x4, loss=loss), ValueError, "give reference and reference_labels together") for loss in SECOND),
    *(
        (
            see(x4, y4, x4[:2], y4, loss=loss),
            ValueError,
            "reference_labels must be 2 integers, got torch.int64 of shape",
        )
        for loss in SECOND
    ),
    (see(x4, y4, x4[:, :3], y4), ValueError, "query and ref must have the same number of components M, got 6 and 3"),
    (see(x4, y4, loss="n_pair", reference=x4), TypeError, "unexpected keyword argument 'reference'"),
    (see(x4), ValueError, "give either labels or positive_pairs, negative_pairs or both"),
    (see(x4, y4, positive_pairs=pair), ValueError, "give either labels or positive_pairs"),
    (see(x4, positive_pairs=pair), ValueError, "positive_pairs must be indices of the 4 embeddings, got 0 to 4"),
    (
        see(x4, reference=x4[:3], negative_pairs=pair),
        ValueError,
        "negative_pairs must be indices of the 4 embeddings and, from the second column on, of 3, got 0 to 4",
    ),
    (see(x4, positive_pairs=pair[0]), ValueError, r"positive_pairs must be a tensor of integers of shape \(p, 2\)"),
    (lambda: CrossBatchMemory("contrastive", 9), TypeError, "loss must be a Loss, got str"),  # type: ignore[arg-type]
    (lambda: CrossBatchMemory(NPairsLoss(euclidean), 9), ValueError, "NPairsLoss takes no second set"),
    *bad_options(lambda size: CrossBatchMemory(make("contrastive")(), size), size=[0, 2.5, True, None]),
    (remember(x4[:, :3], y4), ValueError, "embeddings must have 6 components, as remembered, got 3"),
    (remember(x4, y4[:3]), ValueError, "labels must be 4 integers"),
    (remember(x4.tolist(), y4), TypeError, "embeddings must be a torch.Tensor"),
)
