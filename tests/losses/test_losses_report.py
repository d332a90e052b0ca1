"""What a loss reports of the batch that it saw, and the regularizer that it adds."""

import copy
import io
import itertools
import pickle
import weakref
from typing import Any

import pytest
import torch
from loss_cases import (
    CASES,
    assert_equal,
    build,
    defined,
    every_loss,
    every_loss_and_distance,
    labelled,
    over,
    sized,
    value_and_gradient,
)
from oracles import L, M, normal
from torch import Tensor, nn

from snrlib.distances import DISTANCES
from snrlib.losses import LOSSES, ZeroMeanRegularizer

TERMS = dict.fromkeys(("contrastive", "ranked_list", "multi_similarity"), "pair")
TERMS |= {"triplet": "triplet", "supcon": "anchor", "proxy_anchor": "proxy"}
TERMS |= dict.fromkeys(("proxy_nca", "normalised_softmax", "arcface"), "sample")


@every_loss
def test_the_report_speaks(loss: str) -> None:
    fast, term = build(loss, over(loss, "euclidean")), TERMS.get(loss, "positive pair")
    with pytest.raises(RuntimeError, match=f"{type(fast).__name__} has seen no batch yet"):
        fast.report()
    fast(*labelled(9, 3))
    r = fast.report()
    assert (r.term, r.verdict) == (term, f"learning: {r.active:.1%} of {r.terms} {term}s are active")
    for part in (r.verdict, f"loss {r.loss:.4g}", f"positive {r.positive_distance:.4g}", f"norm {r.norm:.4g}"):
        assert part in str(r)


class Kept:
    """What a graph keeps."""


@pytest.mark.parametrize("case", [*LOSSES, "triplet batch-hard", "n_pair negative margin"])
def test_the_report_keeps_no_graph(case: str) -> None:
    fast, (x, y) = build(case, over(case, "centred_euclidean")), labelled(9, 3)
    kept: list[weakref.ref[Kept]] = []

    def pack(tensor: Tensor) -> Kept:  # in place of the tensor that the graph keeps
        box = Kept()
        kept.append(weakref.ref(box))
        return box

    def unpack(box: Kept) -> Tensor:
        raise AssertionError("no backward pass here")

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        value = fast(x.requires_grad_(), y)
    first = fast.report()
    assert any(ref() is not None for ref in kept)
    del value
    assert all(ref() is None for ref in kept)
    with torch.no_grad():
        assert fast.report() == first


@every_loss
def test_copies_and_checkpoints_take_no_batch_along(loss: str) -> None:
    (x, y), options = labelled(99, 3), sized(loss, 33)
    fast = build(loss, over(loss, "centred_euclidean"), regularizer=ZeroMeanRegularizer(0.1), **options)
    empty = len(pickle.dumps(fast))
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
def test_the_report_is_of_the_batch_as_seen(loss: str) -> None:
    (x, y), learned = labelled(9, 3), nn.Parameter(L.clone())
    fast, twin = (build(loss, over(loss, "mahalanobis"), components=one) for one in (learned, L))
    fast(x.requires_grad_(), y)
    twin(x.detach().clone(), y)
    with torch.no_grad():  # as an optimiser of the map, or of the embeddings themselves, does
        learned.mul_(10)
        x.mul_(10)
    assert fast.report() == twin.report()


@every_loss_and_distance
def test_a_collapse_is_told_in_words(loss: str, name: str) -> None:
    (x, y), fast = labelled(12, 3), build(loss, name)
    for noise in (0.0, 1e-4):
        fast(normal(1, M, seed=8) + noise * x, y)
        assert fast.report().verdict.startswith("collapsed: all embeddings lie at one point (mean negative distance ")
    fast(x, y)
    assert fast.report().verdict.startswith("learning")
    small = 0.004 * torch.eye(4, M, dtype=torch.float64).repeat_interleave(3, dim=0) + 1e-5 * x
    fast(small, y)  # but separated
    assert not fast.report().collapsed


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("contrastive", {"positive_margin": 0.1}),
        ("triplet", {}),
        ("lifted", {"margin": 0.5}),
        ("ranked_list", {}),
        ("multi_similarity", {}),
    ],
)
def test_met_margins_leave_nothing_to_learn(loss: str, options: Any) -> None:
    x, y = labelled(6, 3)
    x = 1e-3 * x + 20 * normal(1, M, seed=8) * (1 - 2 * y[:, None])  # opposite centres: d_S is 4
    for name in set(DISTANCES) - {"cosine", "correlation"}:  # these are at most 2, less than the margins
        fast = build(loss, name, **options)
        value, gradient = value_and_gradient(fast, x, y)
        assert value == 0
        assert (gradient == 0).all()
        r = fast.report()
        assert r.active == 0
        assert r.verdict == f"nothing left to learn: every {r.term} meets its margin, the gradient is zero"


def test_semi_hard_mining_tells_harder_from_easier() -> None:
    loss, y = build("triplet", "euclidean", margin=0.5, mining="semi_hard"), torch.arange(8) // 2
    loss(10 * torch.eye(4).repeat_interleave(2, dim=0) + 0.01 * normal(8, 4).float(), y)
    assert loss.report().verdict.endswith("none of 48 is semi-hard, 0 are harder and the others easier")
    loss(torch.tensor([[0.0], [10.0], [1.0], [11.0]]), torch.tensor([0, 0, 1, 1]))
    assert loss.report().verdict.endswith("none of 8 is semi-hard, 6 are harder and the others easier")


@pytest.mark.parametrize(
    ("loss", "name", "options", "unit"),
    [
        ("contrastive", "euclidean", {"margin": 3.0}, 3.0),
        ("triplet", "euclidean", {"margin": 9.0}, 3.0),
        ("triplet", "snr", {"margin": 9.0}, 9.0),
        ("triplet", "snr", {"margin": -9.0}, 1.0),
        ("lifted", "snr", {"margin": 3.0}, 3.0),
        ("lifted", "snr", {"margin": -3.0}, 1.0),
        ("ranked_list", "snr", {"alpha": 3.0}, 3.0),
        ("n_pair", "snr", {}, 1.0),
    ],
)
def test_far_is_what_the_loss_takes_for_far(loss: str, name: str, options: Any, unit: float) -> None:
    fast, (x, y) = build(loss, name, **options), labelled(6, 2)
    fast(x, y)
    assert fast.report().unit == unit
    x = x / fast.report().negative_distance * unit
    for share, collapsed in ((0.008, True), (0.012, False)) if loss in ("contrastive", "triplet") else ():
        fast(share * x, y)
        assert fast.report().collapsed == (collapsed and name == "euclidean")  # a ratio does not shrink


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_losses_on_the_gpu_equal_the_cpu() -> None:
    x, y = labelled(12, 3)
    for case, name in itertools.product(CASES, DISTANCES):
        if defined(case, name):
            fast = build(case, name)
            expected = fast(x, y)
            assert fast.to("cuda")(x.cuda(), y).item() == pytest.approx(expected.item(), rel=1e-10)
            str(fast.report())


@every_loss
def test_a_regularizer_is_added_but_not_reported(loss: str) -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            seen.append(labels)
            return ZeroMeanRegularizer(0.3)(embeddings, labels)

    plain, pressed = (build(loss, over(loss, "euclidean"), regularizer=spy) for spy in (None, Spy()))
    for n in (9, 1):  # also where no term is valid
        x, y = (part[:n] for part in labelled(9, 3))
        value, gradient = value_and_gradient(plain, x, y)
        both, both_gradient = value_and_gradient(pressed, x, y)
        penalty, penalty_gradient = value_and_gradient(ZeroMeanRegularizer(0.3), x)
        assert penalty > 0
        assert_equal(both, value + penalty)
        assert_equal(both_gradient, gradient + penalty_gradient)
        assert pressed.report().loss == plain.report().loss == value.item()
        assert torch.equal(seen[-1], y)
