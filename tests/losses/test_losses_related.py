"""What the report names beside eqs. 1-5: angular and ranked list loss, zero-mean regularizer, the two contrasts."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from loss_cases import assert_equal, build, defined, labelled, value_and_gradient
from oracles import F32, F64, M, bad_options, mean_of, normal, ordered_pairs, refusals
from pytorch_metric_learning import distances as peer_distances
from pytorch_metric_learning import losses as peer_losses
from torch import Tensor
from torch.nn import functional as F

from snrlib.distances import Centre, Distance, get_distance
from snrlib.losses import LOSSES, RankedListLoss, RelationNetwork, SoftmaxClassifier, ZeroMeanRegularizer


@pytest.mark.parametrize(
    ("normalize", "alpha", "margin", "balance", "of_positives"),
    [(True, 1.2, 0.4, 0.5, 0), (False, 4.0, 1.5, 0.0, 0), (False, 4.0, 1.5, 1.0, 0), (False, 4.0, 0.0, 0.5, 2.0)],
)
def test_ranked_list_nearly_equals_its_peer(
    normalize: bool, alpha: float, margin: float, balance: float, of_positives: float
) -> None:
    x, y = normal(24, M), torch.arange(24) % 5
    d = get_distance("euclidean", normalize_embeddings=normalize)
    ours = RankedListLoss(d, margin, alpha, temperature=4.0, balance=balance, positive_temperature=of_positives)(x, y)
    distance = peer_distances.LpDistance(normalize_embeddings=normalize)
    theirs = peer_losses.RankedListLoss(margin, 4.0, imbalance=balance, alpha=alpha, Tp=of_positives, distance=distance)
    # The peer adds 1e-5 to each of the n weights of a mean, whose sum is at least 1: it is smaller by n 1e-5 at most.
    assert theirs(x, y) <= ours <= theirs(x, y) * (1 + 24 * 1e-5)


def test_a_high_temperature_leaves_the_nearest_negative_alone() -> None:
    x, y = torch.tensor([[0.0], [1.0], [1.5]], dtype=F64), torch.tensor([0, 1, 2])
    loss = RankedListLoss(get_distance("euclidean"), margin=0.5, alpha=2.0, temperature=1e4, balance=1.0)
    assert loss(x, y).item() == pytest.approx((1 + 1.5 + 1.5) / 3)  # its exponentials would overflow


class Given(Distance):
    """A distance whose values are given, whatever the embeddings."""

    table: Tensor

    def forward(self, query: Tensor, ref: Tensor | None = None) -> Tensor:
        return self.table


def test_a_much_farther_negative_is_pulled_nearer() -> None:
    distance = Given()
    distance.table = torch.tensor([[0.0, 0.1, 1.1], [0.1, 0, 2], [1.1, 2, 0]], dtype=F64).requires_grad_()
    loss = RankedListLoss(distance, margin=0.4, alpha=1.2, temperature=10.0)
    loss(normal(3, M), torch.tensor([0, 1, 2])).backward()
    assert distance.table.grad is not None
    assert distance.table.grad[0, 1] < 0 < distance.table.grad[0, 2]  # as the docstring warns
    assert distance.table.grad[2, 0] < 0  # alone in its row, the same pair is pushed apart
    distance.table = distance.table.detach().clone().requires_grad_()
    RankedListLoss(distance, margin=0.4, alpha=1.2, weights="constant")(normal(3, M), torch.arange(3)).backward()
    constant = distance.table.grad
    assert constant is not None
    assert constant[0, 1] < constant[0, 2] < 0  # both are pushed, the nearer harder


@pytest.mark.parametrize(("weight", "n"), [(0, 7), (0.1, 1), (3.0, 7)])
def test_the_penalty_pushes_rows_along_ones_alone(weight: float, n: int) -> None:
    x, y = labelled(n, 2)
    value, gradient = value_and_gradient(ZeroMeanRegularizer(weight), x)
    assert value.item() == pytest.approx(weight * sum(abs(sum(row)) for row in x.tolist()) / n, rel=1e-12)
    assert_equal(gradient, weight / n * x.sum(dim=1, keepdim=True).sign() * torch.ones(M, dtype=F64))
    assert torch.equal(ZeroMeanRegularizer(weight)(x, y), value)  # labels are ignored
    assert ZeroMeanRegularizer(weight)(x.half()).dtype == F32
    assert f"weight={float(weight)}" in repr(ZeroMeanRegularizer(weight))


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if defined(loss, "snr")])
def test_centring_replaces_the_penalty_for_snr_alone(loss: str) -> None:
    (x, y), centre = labelled(9, 3), Centre()
    _, push = value_and_gradient(ZeroMeanRegularizer(1.0), x)
    penalty, left = value_and_gradient(lambda x: ZeroMeanRegularizer(1.0)(centre(x)), x)
    assert max(penalty, left.abs().max()) < 1e-15 < 1 < ZeroMeanRegularizer(1.0)(x)  # L_r has nothing left to do
    for name, anchor in (("snr", "query"), ("snr", "ref"), ("euclidean", "query")):
        f = build(loss, name, anchor)
        plain, gradient = value_and_gradient(f, x, y)
        centred, through = value_and_gradient(lambda x, y, f=f: f(centre(x), y), x, y)
        along = abs((push * gradient).sum()) / (push * gradient).abs().sum()
        if name == "snr":  # d_S does not notice, and never pulls along it
            assert gradient.abs().max() > 0
            assert_equal(centred, plain, tolerance=1e-12)
            assert_equal(through, gradient, tolerance=1e-12)
            assert along < 1e-12
        else:
            assert centred != pytest.approx(plain.item(), rel=1e-3)
            assert (through - gradient).abs().max() > 1e-3 * gradient.abs().max()
            assert along > 1e-6


def relation() -> RelationNetwork:
    torch.manual_seed(0)
    return RelationNetwork(M, 8).double()


def concatenated(network: RelationNetwork, q: Tensor, r: Tensor) -> Tensor:
    """The score of one pair by one layer over [x_i, x_j]."""
    weight = torch.cat([network.query.weight, network.ref.weight], dim=1)
    hidden = F.relu(weight @ torch.cat([q, r]) + network.query.bias)
    return torch.sigmoid(network.out(hidden))[0]


def test_the_relation_score_is_of_the_concatenated_pair() -> None:
    network, query, ref = relation(), normal(5, M), normal(3, M, seed=1)
    expected = torch.stack([torch.stack([concatenated(network, q, r) for r in ref]) for q in query])
    score = network.score(query, ref)
    assert_equal(score, expected, tolerance=1e-12)
    assert ((score > 0) & (score < 1)).all()
    assert (network.score(query, query) - network.score(query, query).T).abs().max() > 1e-3  # not symmetric
    assert network.out.in_features == 8


@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 0], [3, 3, 3], [3, 0, 1], [5]])
def test_relation_loss_and_gradients_equal_the_loop(labels: list[int]) -> None:
    network, x = relation(), normal(len(labels), M).requires_grad_()
    positive, negative = ordered_pairs(labels)
    terms = [(concatenated(network, x[i], x[j]) - 1) ** 2 for i, j in positive]
    terms += [concatenated(network, x[i], x[j]) ** 2 for i, j in negative]
    of, none = [x, *network.parameters()], 0 * sum(p.sum() for p in network.parameters())  # the last keeps a graph
    expected, value = mean_of(terms) + none + 0 * x.sum(), network(x, torch.tensor(labels))
    assert_equal(value, expected, tolerance=1e-12)
    for a, b in zip(torch.autograd.grad(value, of), torch.autograd.grad(expected, of), strict=True):
        assert_equal(a, b, tolerance=1e-12)
    assert (value == 0) == (len(labels) == 1)


@pytest.mark.parametrize(("scale", "dtype"), [(1e-4, torch.bfloat16), (1.0, torch.float16), (1e4, torch.float16)])
def test_relation_loss_is_finite_in_every_precision(scale: float, dtype: torch.dtype) -> None:
    (x, y), network = labelled(256, 4, dtype=F32), relation().float()
    x = (scale * x).requires_grad_()
    exact = network(x, y)
    half = network(x.to(dtype), y)
    with torch.autocast("cpu", dtype):
        cast = network(x, y)
    for value in (exact, half, cast):
        assert value.dtype == F32
        assert_equal(value, exact, tolerance=0.05)
        assert torch.isfinite(torch.autograd.grad(value, x)[0]).all()


def classifier() -> SoftmaxClassifier:
    torch.manual_seed(0)
    return SoftmaxClassifier(5, 3).double()


def test_the_classifier_equals_softmax_neuron_by_neuron() -> None:
    loss, x, labels = classifier(), normal(7, 3).requires_grad_(), torch.tensor([0, 1, 2, 3, 4, 4, 0])
    neurons = list(zip(loss.neurons.weight, loss.neurons.bias, strict=True))
    terms = []
    for row, label in zip(x, labels.tolist(), strict=True):
        exponentials = torch.stack([w @ row + b for w, b in neurons]).exp()
        terms.append(-(exponentials[label] / exponentials.sum()).log())
    of = [x, *loss.parameters()]
    gradients = (torch.autograd.grad(value, of, retain_graph=True) for value in (loss(x, labels), mean_of(terms)))
    assert_equal(loss(x, labels), mean_of(terms), tolerance=1e-12)
    for a, b in zip(*gradients, strict=True):
        assert_equal(a, b, tolerance=1e-12)
    smooth = SoftmaxClassifier(5, 3, label_smoothing=0.3).double()
    smooth.load_state_dict(loss.state_dict())
    uniform = [mean_of([loss(row[None], torch.tensor([k])) for k in range(5)]) for row in x]
    assert_equal(smooth(x, labels), 0.7 * mean_of(terms) + 0.3 * mean_of(uniform), tolerance=1e-12)
    for dtype in (torch.int32, torch.uint8):  # labels of any integer type
        assert torch.equal(loss(x, labels.to(dtype)), loss(x, labels))
    assert loss.float()(x.half(), labels).dtype == F32


def relate(*args: Any) -> Any:
    return lambda: relation()(*args)


def classify(x: Any, *labels: int) -> Any:
    return lambda: classifier()(x, torch.tensor(labels))


test_bad_input_is_refused = refusals(
    *bad_options(ZeroMeanRegularizer, weight=[-0.1, math.inf, "1", None]),
    (lambda: ZeroMeanRegularizer(1.0)(torch.ones(3)), ValueError, r"embeddings must be 2-D .* got shape \(3,\)"),
    (lambda: RelationNetwork(0, 8), ValueError, "must be positive, got 0 and 8"),
    (lambda: RelationNetwork(6, -1), ValueError, "must be positive, got 6 and -1"),
    (relate(normal(3, M + 1), torch.arange(3)), ValueError, "query must have 6 components, got 7"),
    (lambda: relation().score(normal(3, M), normal(3, M - 1)), ValueError, "ref must have 6 components, got 5"),
    (relate(normal(3), torch.arange(3)), ValueError, r"query must be 2-D of shape \(n, M\), got shape \(3,\)"),
    (relate(normal(3, M), torch.arange(4)), ValueError, "labels must be 3 integers, got torch.int64 of shape"),
    (lambda: SoftmaxClassifier(1, 3), ValueError, "at least 2 classes, got 1"),
    *bad_options(partial(SoftmaxClassifier, 5, 3), label_smoothing=[-0.1, 1.1, "0.1", math.nan]),
    (classify(normal(2, 3), -1, 0), ValueError, "labels must be from 0 to 4, .* got -1 to 0"),
    (classify(normal(2, 3), 0, 5), ValueError, "labels must be from 0 to 4, .* got 0 to 5"),
    (classify(normal(2, 3), 0, 1, 2), ValueError, "labels must be 2 integers"),
    (classify(normal(2, 3) / 0, 0, 1), ValueError, "embeddings must be finite"),
    (classify([[0.0, 1.0, 2.0]], 0), TypeError, r"embeddings must be a torch\.Tensor"),
)
