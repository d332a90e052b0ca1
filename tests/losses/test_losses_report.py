"""What a loss reports of the batch that it saw, and the regularizer that it adds."""

import copy
import gc
import io
import itertools
import math
import pickle
import weakref
from typing import Any

import pytest
import torch
from loss_cases import (
    BATCHES,
    CASES,
    assert_equal,
    build,
    case_options,
    defined,
    every_case,
    every_loss,
    every_loss_and_distance,
    labelled,
    naive_case,
    naive_table,
    value_and_gradient,
)
from oracles import L, M, normal
from torch import Tensor, nn

from snrlib.distances import DISTANCES, get_distance
from snrlib.losses import LOSSES, ZeroMeanRegularizer, get_loss


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan


@every_case
def test_every_number_of_the_report_is_that_of_the_loops(case: str, name: str, anchor: str) -> None:
    fast = build(case, name, anchor, regularizer=ZeroMeanRegularizer(10.0))
    for batch, (x, y) in BATCHES.items():
        if "twins" in batch or "kind" in batch:
            continue  # whether d = 1e-17 > 0 counts as active is a matter of rounding
        loops, _ = naive_case(case, name, anchor, batch)
        angular = CASES[case][0] == "angular"
        table = naive_table("cosine" if angular else "distance", name, anchor, batch)
        D = {ij: math.sqrt(2 - 2 * v) if angular else v.item() for ij, (v, _) in table.items()}
        expected = {
            "loss": loops.value.item(),
            "terms": loops.terms,
            "active": loops.active / loops.terms if loops.terms else math.nan,
            "positive_distance": mean([D[ij] for ij in loops.positive]),
            "negative_distance": mean([D[ij] for ij in loops.negative]),
            "norm": mean([math.hypot(*h) for h in x.tolist()]),
            "row_mean": mean([abs(sum(h)) / M for h in x.tolist()]),
        }
        fast(x, torch.tensor(y))
        for key, number in expected.items():
            actual = getattr(fast.report(), key)
            assert actual == pytest.approx(number, rel=1e-10, nan_ok=True), f"{key} for {batch}"


@pytest.mark.parametrize(
    ("loss", "term"),
    [
        ("contrastive", "pair"),
        ("triplet", "triplet"),
        ("n_pair", "positive pair"),
        ("lifted", "positive pair"),
        ("angular", "positive pair"),
        ("ranked_list", "pair"),
    ],
)
def test_the_report_speaks(loss: str, term: str) -> None:
    fast = build(loss, "euclidean")
    with pytest.raises(RuntimeError, match=f"{type(fast).__name__} has seen no batch yet"):
        fast.report()
    fast(*labelled(9, 3))
    r = fast.report()
    assert r.term == term
    assert r.verdict == f"learning: {r.active:.1%} of {r.terms} {term}s are active"
    for part in (r.verdict, f"loss {r.loss:.4g}", f"positive {r.positive_distance:.4g}", f"norm {r.norm:.4g}"):
        assert part in str(r)


class Kept:
    """What a graph keeps."""


@pytest.mark.parametrize("case", [*LOSSES, "triplet batch-hard", "n_pair negative"])
def test_the_report_keeps_no_graph_and_needs_none(case: str) -> None:
    fast = build(case, "centred_euclidean")
    kept: list[weakref.ref[Kept]] = []

    def pack(tensor: Tensor) -> Kept:  # in place of the tensor that the graph keeps
        box = Kept()
        kept.append(weakref.ref(box))
        return box

    def unpack(box: Kept) -> Tensor:
        raise AssertionError("no backward pass here")

    x, y = labelled(9, 3)
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        value = fast(x.requires_grad_(), y)
    first = fast.report()
    assert any(ref() is not None for ref in kept)
    del value
    gc.collect()
    assert all(ref() is None for ref in kept)
    with torch.no_grad():
        assert fast.report() == first


@every_loss
def test_a_copy_or_a_checkpoint_takes_no_batch_along(loss: str) -> None:
    fast = build(loss, "centred_euclidean", regularizer=ZeroMeanRegularizer(0.1))
    empty = len(pickle.dumps(fast))
    x, y = labelled(99, 3)
    value = fast(x.requires_grad_(), y)
    assert len(pickle.dumps(fast)) == empty
    buffer = io.BytesIO()
    torch.save(fast, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), torch.load(buffer, weights_only=False)):
        with pytest.raises(RuntimeError, match="has seen no batch yet"):
            twin.report()
        assert repr(twin) == repr(fast)
        assert torch.equal(twin(x, y), value)
    assert fast.report().terms > 0  # still there


@every_loss
def test_the_report_is_of_the_batch_as_it_was_seen(loss: str) -> None:
    x, y = labelled(9, 3)
    x.requires_grad_()
    fast, twin = build(loss, "euclidean"), build(loss, "euclidean")
    fast(x, y)
    twin(x.detach().clone(), y)
    with torch.no_grad():
        x *= 10  # as an optimiser of the embeddings themselves does
    assert fast.report() == twin.report()


@every_loss
def test_the_report_does_not_follow_a_map_that_trains(loss: str) -> None:
    x, y = labelled(9, 3)
    learned = torch.nn.Parameter(L.clone())
    fast = get_loss(loss, get_distance("mahalanobis", components=learned), **case_options(loss, "mahalanobis")[1])
    fast(x, y)
    before = fast.report()
    with torch.no_grad():
        learned.mul_(10)
    assert fast.report() == before


@every_loss
def test_without_a_valid_term_a_map_that_trains_gets_a_zero_gradient_from_frozen_embeddings(loss: str) -> None:
    learned = torch.nn.Parameter(L.clone())
    fast = get_loss(loss, get_distance("mahalanobis", components=learned), **case_options(loss, "mahalanobis")[1])
    fast(normal(1, M), torch.tensor([0])).backward()
    assert learned.grad is not None
    assert (learned.grad == 0).all()


def test_small_but_separated_embeddings_are_not_called_collapsed() -> None:
    x = 0.004 * torch.eye(4, dtype=torch.float64).repeat_interleave(2, dim=0) + 1e-5 * normal(8, 4)
    loss = get_loss("n_pair", get_distance("euclidean"))
    loss(x, torch.arange(8) // 2)
    assert not loss.report().collapsed


def test_semi_hard_mining_says_how_many_triplets_are_too_hard_and_how_many_too_easy() -> None:
    x, y = 10 * torch.eye(4).repeat_interleave(2, dim=0) + 0.01 * normal(8, 4).float(), torch.arange(8) // 2
    loss = get_loss("triplet", get_distance("euclidean"), margin=0.5, mining="semi_hard")
    loss(x, y)
    assert loss.report().verdict.endswith("none of 48 is semi-hard, 0 are harder and the others easier")
    loss(torch.tensor([[0.0], [10.0], [1.0], [11.0]]), torch.tensor([0, 0, 1, 1]))
    assert loss.report().verdict.endswith("none of 8 is semi-hard, 6 are harder and the others easier")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_losses_on_the_gpu_equal_those_on_the_cpu() -> None:
    x, y = labelled(12, 3)
    for case, name in itertools.product(CASES, DISTANCES):
        if defined(case, name):
            fast = build(case, name)
            expected = fast(x, y)
            assert fast.to("cuda")(x.cuda(), y).item() == pytest.approx(expected.item(), rel=1e-10)
            str(fast.report())


@every_loss_and_distance
@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_a_collapse_is_told_in_words(loss: str, name: str, noise: float) -> None:
    x, y = labelled(12, 3)
    fast = build(loss, name)
    fast(normal(1, M, seed=8) + noise * x, y)
    assert fast.report().collapsed
    assert fast.report().verdict.startswith("collapsed: all embeddings lie at one point (mean negative distance ")
    fast(x, y)
    assert not fast.report().collapsed
    assert fast.report().verdict.startswith("learning")


@pytest.mark.parametrize("loss", ["contrastive", "triplet", "lifted", "ranked_list"])
@pytest.mark.parametrize("name", DISTANCES)
def test_with_all_margins_met_nothing_is_left_to_learn(loss: str, name: str) -> None:
    x, y = labelled(6, 3)
    centre = normal(1, M, seed=8)
    x = 1e-3 * x + 20 * centre * (1 - 2 * y[:, None])  # opposite centres: d_S is 4
    options: dict[str, dict[str, Any]] = {"contrastive": {"positive_margin": 0.1}, "lifted": {"margin": 0.5}}
    fast = build(loss, name, **options.get(loss, {}))
    value, gradient = value_and_gradient(fast, x, y)
    assert value == 0
    assert (gradient == 0).all()
    r = fast.report()
    assert (r.active, r.verdict) == (0, f"nothing left to learn: every {r.term} meets its margin, the gradient is zero")


@pytest.mark.parametrize(
    ("loss", "options", "unit"),
    [
        (("contrastive", "euclidean"), {"margin": 3.0}, 3.0),
        (("triplet", "euclidean"), {"margin": 9.0}, 3.0),
        (("triplet", "snr"), {"margin": 9.0}, 9.0),
        (("triplet", "snr"), {"margin": -9.0}, 1.0),
        (("lifted", "snr"), {"margin": 3.0}, 3.0),
        (("lifted", "snr"), {"margin": -3.0}, 1.0),
        (("ranked_list", "snr"), {"alpha": 3.0}, 3.0),
        (("n_pair", "snr"), {}, 1.0),
        (("angular", "euclidean"), {}, 1.0),
    ],
)
def test_far_is_what_the_loss_takes_for_far(loss: tuple[str, str], options: Any, unit: float) -> None:
    fast = build(*loss, **options)
    fast(*labelled(6, 2))
    assert fast.report().unit == unit


# --- the regularizer, added ------------------------------------------------------------------------------------------


@every_loss
def test_a_regularizer_is_added_to_the_loss_and_not_to_the_report(loss: str) -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            seen.append(labels)
            return ZeroMeanRegularizer(0.3)(embeddings, labels)

    x, y = labelled(9, 3)
    plain, pressed = build(loss, "euclidean"), build(loss, "euclidean", regularizer=Spy())
    for n in (9, 1):  # also where no term is valid
        x, y = x[:n], y[:n]
        value, gradient = value_and_gradient(plain, x, y)
        both, both_gradient = value_and_gradient(pressed, x, y)
        penalty, penalty_gradient = value_and_gradient(ZeroMeanRegularizer(0.3), x)
        assert penalty > 0
        assert_equal(both, value + penalty)
        assert_equal(both_gradient, gradient + penalty_gradient)
        assert pressed.report().loss == plain.report().loss == value.item()
        assert torch.equal(seen[-1], y)
