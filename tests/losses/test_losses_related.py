"""What the report names beside eqs. 1-5: angular and ranked list loss, relation network, zero-mean regularizer."""

import math
from typing import Any

import pytest
import torch
from loss_cases import F32, F64, assert_equal, build, labelled, value_and_gradient
from oracles import M, mean, member, naive_inner_product, normal, ordered_pairs
from pytorch_metric_learning import distances as peer_distances
from pytorch_metric_learning import losses as peer_losses
from torch import Tensor, nn
from torch.nn import functional as F

from snrlib.distances import DISTANCES, Centre, Distance, get_distance
from snrlib.losses import LOSSES, AngularLoss, RankedListLoss, RelationNetwork, ZeroMeanRegularizer, get_loss

ABSOLUTE = [name for name in DISTANCES if not member(name).relative]
RELATIVE = [name for name in DISTANCES if member(name).relative]

# --- angular ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [20, 40.0, 45.0, 60.0])
def test_the_angular_loss_of_pytorch_metric_learning_agrees(alpha: float) -> None:
    ours, peer = AngularLoss(get_distance("euclidean"), alpha), peer_losses.AngularLoss(alpha)
    for seed, classes in enumerate((3, 5, 8)):
        x, y = normal(24, M, seed=seed), torch.arange(24) % classes
        expected = value_and_gradient(lambda x, y: peer(F.normalize(x), y), x, y)  # it leaves negatives long
        for a, b in zip(value_and_gradient(ours, x, y), expected, strict=True):
            assert_equal(a, b)


@pytest.mark.parametrize("name", ABSOLUTE)
def test_the_exponent_is_the_squared_side_less_the_scaled_squared_distance_to_its_middle(name: str) -> None:
    """One anchor, one positive, one negative: with (a, p) and (p, a) alike, L = log(1 + exp(f))."""
    x = normal(3, M)
    t = math.tan(math.radians(40)) ** 2
    A = [x[i] / naive_inner_product(name, x[i], x[i]) ** 0.5 for i in range(3)]  # z = A x has length 1

    def squared(v: Tensor) -> Tensor:
        return naive_inner_product(name, v, v)

    f = squared(A[0] - A[1]) - 4 * t * squared(A[2] - (A[0] + A[1]) / 2)
    constant = -2 + 4 * t + 2 * t  # ||z||^2 = 1 put in
    expected = math.log1p(math.exp(f + constant))
    assert AngularLoss(member(name))(x, torch.tensor([0, 0, 1])).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ABSOLUTE)
def test_the_angular_loss_sees_the_direction_of_every_mapped_embedding_and_not_its_length(name: str) -> None:
    x, y = labelled(9, 3)
    loss = build("angular", name)
    value, gradient = value_and_gradient(loss, x, y)
    lengths = normal(9, 1, seed=4).exp()
    assert_equal(loss(lengths * x, y), value)
    assert ((x * gradient).sum(dim=1).abs() <= 1e-12 * (x * gradient).abs().sum(dim=1)).all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(
    ("alpha", "match"),
    [
        (0.0, r"alpha \(degrees\) must be a finite number above 0 and at most 60, got 0.0"),
        (-40.0, "above 0 and at most 60, got -40.0"),
        (math.nan, "above 0 and at most 60, got nan"),
        ("40", "above 0 and at most 60, got '40'"),
        (60.5, "above 0 and at most 60, got 60.5"),
    ],
)
def test_other_angles_are_refused(alpha: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AngularLoss(get_distance("euclidean"), alpha)


@pytest.mark.parametrize("name", RELATIVE)
def test_an_angle_has_no_relative_distance(name: str) -> None:
    with pytest.raises(ValueError, match=r"angular loss is defined over absolute distances only, got Distance\("):
        AngularLoss(member(name))


# --- ranked list ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_the_ranked_list_loss_of_pytorch_metric_learning_agrees_up_to_its_guard(
    normalize: bool, balance: float
) -> None:
    x, y = normal(24, M), torch.arange(24) % 5
    alpha, margin = (1.2, 0.4) if normalize else (4.0, 1.5)
    d = get_distance("euclidean", normalize_embeddings=normalize)
    ours = RankedListLoss(d, margin, alpha, temperature=4.0, balance=balance)(x, y)
    peer_distance = peer_distances.LpDistance(normalize_embeddings=normalize)
    peer = peer_losses.RankedListLoss(margin, Tn=4.0, imbalance=balance, alpha=alpha, distance=peer_distance)(x, y)
    # The peer adds 1e-5 to each of the n weights of a mean, whose sum is at least 1: it is smaller by n 1e-5 at most.
    assert peer <= ours <= peer * (1 + 24 * 1e-5)


def test_a_nearer_negative_weighs_more_the_higher_the_temperature() -> None:
    x, y = torch.tensor([[0.0], [1.0], [1.5]], dtype=F64), torch.tensor([0, 1, 2])
    hinges = []
    for temperature in (0.0, 1.0, 10.0, 1e4):
        loss = RankedListLoss(get_distance("euclidean"), 0.5, 2.0, temperature, balance=1.0)
        hinges.append(loss(x, y).item())
    assert hinges[0] == pytest.approx((0.75 + 1.25 + 1.0) / 3)  # of 0: 1, 0.5; of 1: 1, 1.5; of 1.5: 0.5, 1.5
    assert hinges == sorted(hinges)
    assert hinges[3] == pytest.approx((1 + 1.5 + 1.5) / 3)  # the nearest alone, and no overflow


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"margin": 0.0}, "margin must be a finite number above 0 and at most 1.2, got 0.0"),
        ({"alpha": 0.0}, "alpha must be a finite number above 0, got 0.0"),
        ({"margin": 2.0}, "margin must be a finite number above 0 and at most 1.2, got 2.0"),
        ({"temperature": -1.0}, "temperature must be a finite number at least 0, got -1.0"),
        ({"temperature": math.inf}, "temperature must be a finite number at least 0, got inf"),
        ({"balance": -0.1}, "balance must be a finite number at least 0 and at most 1, got -0.1"),
        ({"balance": 1.1}, "balance must be a finite number at least 0 and at most 1, got 1.1"),
        ({"balance": None}, "balance must be a finite number at least 0 and at most 1, got None"),
    ],
)
def test_other_shells_are_refused(options: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        RankedListLoss(get_distance("snr"), **{"margin": 0.4, "alpha": 1.2, **options})


class Given(Distance):
    """A distance whose values are given, whatever the embeddings."""

    table: Tensor

    def forward(self, query: Tensor, ref: Tensor | None = None) -> Tensor:
        return self.table


def test_a_negative_much_farther_than_the_weighted_mean_of_its_kind_is_pulled_nearer_not_pushed() -> None:
    distance = Given()
    distance.table = torch.tensor([[0.0, 0.1, 1.1], [0.1, 0, 2], [1.1, 2, 0]], dtype=torch.float64).requires_grad_()
    loss = RankedListLoss(distance, margin=0.4, alpha=1.2, temperature=10.0)
    loss(normal(3, M), torch.tensor([0, 1, 2])).backward()
    assert distance.table.grad is not None
    assert distance.table.grad[0, 1] < 0 < distance.table.grad[0, 2]  # as the docstring warns
    assert distance.table.grad[2, 0] < 0  # alone in its row, the same pair is pushed apart


# --- the zero-mean regularizer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0, 0.1, 3.0])
@pytest.mark.parametrize("n", [1, 7])
def test_the_regularizer_equals_the_loop(weight: float, n: int) -> None:
    ours = value_and_gradient(ZeroMeanRegularizer(weight), normal(n, M))
    x = normal(n, M).requires_grad_()
    expected = weight * torch.stack([sum(row, torch.zeros((), dtype=F64)).abs() for row in x]).sum() / n
    expected.backward()
    assert x.grad is not None
    assert_equal(ours[0], expected.detach())
    assert_equal(ours[1], x.grad)
    assert (weight == 0) == (ours[0] == 0)


def test_the_regularizer_ignores_labels_and_is_computed_in_float32_for_half_precision() -> None:
    x, y = labelled(6, 2)
    assert torch.equal(ZeroMeanRegularizer(0.1)(x, y), ZeroMeanRegularizer(0.1)(x))
    assert ZeroMeanRegularizer(0.1)(x.half()).dtype == F32
    assert "weight=0.1" in repr(ZeroMeanRegularizer(0.1))


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "1", None])
def test_other_weights_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=f"weight must be .*, got {bad!r}"):
        ZeroMeanRegularizer(bad)


def test_the_regularizer_checks_its_embeddings() -> None:
    with pytest.raises(ValueError, match=r"embeddings must be 2-D of shape \(n, M\), got shape \(3,\)"):
        ZeroMeanRegularizer(1.0)(torch.ones(3))


def test_it_pushes_every_row_along_the_ones_vector_alone() -> None:
    x = normal(5, M)
    _, gradient = value_and_gradient(ZeroMeanRegularizer(0.1), x)
    assert_equal(gradient, 0.1 / 5 * x.sum(dim=1, keepdim=True).sign() * torch.ones(M, dtype=F64))


@pytest.mark.parametrize("anchor", ["query", "ref"])
@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "angular"])
def test_for_the_snr_distance_a_last_centring_layer_replaces_it_exactly(loss: str, anchor: str) -> None:
    x, y = labelled(9, 3)
    x += 2  # means to be pressed out
    centre = Centre()
    penalty, push = value_and_gradient(lambda x: ZeroMeanRegularizer(1.0)(centre(x)), x)
    assert penalty < 1e-15 < 1 < ZeroMeanRegularizer(1.0)(x)  # L_r has nothing left to do
    assert push.abs().max() < 1e-15
    snr = build(loss, "snr", anchor)
    (plain, gradient), (centred, through) = (value_and_gradient(f, x, y) for f in (snr, lambda x, y: snr(centre(x), y)))
    assert gradient.abs().max() > 0
    assert_equal(centred, plain, tolerance=1e-12)  # and d_S does not notice
    assert_equal(through, gradient, tolerance=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_to_the_euclidean_distance_a_centring_layer_is_another_loss(loss: str) -> None:
    x, y = labelled(9, 3)
    euclidean = build(loss, "euclidean")
    plain, gradient = value_and_gradient(euclidean, x, y)
    centred, through = value_and_gradient(lambda x, y: euclidean(Centre()(x), y), x, y)
    assert centred != pytest.approx(plain.item(), rel=1e-3)
    assert (through - gradient).abs().max() > 1e-3 * gradient.abs().max()
    _, push = value_and_gradient(ZeroMeanRegularizer(1.0), x)
    assert abs((push * gradient).sum()) > 1e-6  # the two pull along a common direction, in which d_S never pulls
    _, snr_gradient = value_and_gradient(build("triplet", "snr"), x, y)
    assert abs((push * snr_gradient).sum()) < 1e-12


# --- the relation network ---------------------------------------------------------------------------------------------


def relation(hidden: int = 8) -> RelationNetwork:
    torch.manual_seed(0)
    return RelationNetwork(M, hidden).double()


def concatenated(network: RelationNetwork, q: Tensor, r: Tensor) -> Tensor:
    """The score of one pair by one layer over [x_i, x_j]."""
    first = nn.Linear(2 * M, network.query.out_features).double()
    first.weight.data = torch.cat([network.query.weight, network.ref.weight], dim=1).detach()
    first.bias.data = network.query.bias.detach()
    return torch.sigmoid(network.out(F.relu(first(torch.cat([q, r])))))[0]


@pytest.mark.parametrize("hidden", [1, 8])
def test_the_score_is_that_of_the_concatenated_pair(hidden: int) -> None:
    network, query, ref = relation(hidden), normal(5, M), normal(3, M, seed=1)
    expected = torch.stack([torch.stack([concatenated(network, q, r) for r in ref]) for q in query])
    score = network.score(query, ref)
    assert_equal(score, expected, tolerance=1e-12)
    assert ((score > 0) & (score < 1)).all()
    assert (network.score(query, query) - network.score(query, query).T).abs().max() > 1e-3  # not symmetric
    assert network.out.in_features == hidden


@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 0], [3, 3, 3], [3, 0, 1], [5]])
def test_the_relation_loss_equals_the_loop(labels: list[int]) -> None:
    network, x = relation(), normal(len(labels), M).requires_grad_()
    positive, negative = ordered_pairs(labels)
    terms = [(concatenated(network, x[i], x[j]) - 1) ** 2 for i, j in positive]
    terms += [concatenated(network, x[i], x[j]) ** 2 for i, j in negative]
    expected = mean(terms) if terms else 0 * x.sum()  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(expected, x)
    value, actual = value_and_gradient(network, x, torch.tensor(labels))
    assert_equal(value, expected.detach(), tolerance=1e-12)
    assert_equal(actual, gradient, tolerance=1e-12)
    assert (value == 0) == (len(labels) == 1)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_the_relation_network_passes_gradcheck() -> None:
    network, (x, y) = relation(), labelled(5, 2)
    assert torch.autograd.gradcheck(lambda x: network(x, y), (x.requires_grad_(),))


def test_the_relation_network_learns_to_tell_clusters_apart() -> None:
    y = torch.arange(40) % 4
    x = 2 * normal(4, M, seed=3)[y] + 0.3 * normal(40, M)
    network = relation(16)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = network(x, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    with torch.no_grad():
        score, same = network.score(x, x), y[:, None] == y
    assert score[same].mean() > score[~same].mean() + 0.3


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_relation_network_is_finite_in_every_precision(scale: float) -> None:
    x, y = labelled(12, 3, dtype=F32)
    network = relation().float()
    for dtype in (None, torch.bfloat16, torch.float16):
        x_ = (scale * x).requires_grad_()
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            value = network(x_, y)
        (gradient,) = torch.autograd.grad(value, x_)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
        assert_equal(value.float(), network(scale * x, y).detach(), tolerance=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_relation_loss_of_half_precision_and_of_autocast_is_finite_and_float32(dtype: torch.dtype) -> None:
    network = RelationNetwork(M)
    x, y = labelled(1024, 4, dtype=F32)
    with torch.no_grad():
        exact = network(x, y)
        with torch.autocast("cpu", dtype):
            cast = network(x, y)
        half = network(x.to(dtype), y)
    assert cast.dtype == half.dtype == F32
    assert cast.item() == pytest.approx(exact.item(), rel=1e-2)
    assert half.item() == pytest.approx(exact.item(), rel=1e-2)


@pytest.mark.parametrize("sizes", [(0, 8), (6, 0), (-1, 8)])
def test_a_relation_network_without_components_or_hidden_units_is_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"must be positive, got {sizes[0]} and {sizes[1]}"):
        RelationNetwork(*sizes)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: relation()(normal(3, M + 1), torch.arange(3)), "query must have 6 components, got 7"),
        (lambda: relation().score(normal(3, M), normal(3, M - 1)), "ref must have 6 components, got 5"),
        (lambda: relation().score(normal(3), normal(3, M)), r"query must be 2-D of shape \(n, M\), got shape \(3,\)"),
        (lambda: relation()(normal(3, M), torch.arange(4)), r"labels must be 3 integers, got torch.int64 of shape"),
    ],
)
def test_other_shapes_are_refused_by_the_relation_network(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_get_loss_knows_every_loss_by_name() -> None:
    for name in LOSSES:
        options = {"margin": 1.0} if name in ("contrastive", "triplet", "lifted", "ranked_list") else {}
        options |= {"alpha": 2.0} if name == "ranked_list" else {}
        loss = get_loss(name, get_distance("euclidean"), **options)
        assert type(loss).__name__.lower().startswith(name.replace("_", "")[:5])
