"""The triplet loss against its printed equation."""

import itertools

import pytest
import torch
from torch import Tensor

from snrlib.distances import DISTANCES, Distance, get_distance
from snrlib.losses import TripletMarginLoss

LABELS = {
    "mixed": torch.tensor([0, 1, 0, 2, 1, 0, 2, 3]),
    "single class": torch.zeros(8, dtype=torch.long),
    "all distinct": torch.arange(8),
    "one sample": torch.tensor([4]),
}


def _distance(name: str, anchor: str) -> Distance:
    if "mahalanobis" in name:
        generator = torch.Generator().manual_seed(5)
        return get_distance(name, anchor=anchor, components=torch.randn(4, 6, generator=generator, dtype=torch.float64))
    return get_distance(name, anchor=anchor)


def _loop(d: Distance, embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Eq. 2 as printed, with triplets as index set; a relative distance is a ratio of squares already."""
    terms = []
    for i, j, k in itertools.product(range(len(labels)), repeat=3):
        if i != j and labels[i] == labels[j] and labels[i] != labels[k]:
            d_ij = d.pairwise_distance(embeddings[i : i + 1], embeddings[j : j + 1])
            d_ik = d.pairwise_distance(embeddings[i : i + 1], embeddings[k : k + 1])
            if not d.relative:
                d_ij, d_ik = d_ij**2, d_ik**2
            terms.append((d_ij + margin - d_ik).relu())
    return torch.cat(terms).mean() if terms else embeddings.sum() * 0


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("anchor", ["query", "ref"])
@pytest.mark.parametrize("name", DISTANCES)
def test_value_and_gradient_equal_the_loop_over_all_triplets(name: str, anchor: str, labels: Tensor) -> None:
    embeddings = torch.randn(len(labels), 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if len(labels) > 5:
        embeddings[5] = embeddings[0]  # a duplicate
    ours, naive = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    value = TripletMarginLoss(_distance(name, anchor), margin=0.7)(ours, labels)
    expected = _loop(_distance(name, anchor), naive, labels, 0.7)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(ours.grad, naive.grad, atol=1e-10, rtol=0)


def test_it_equals_the_peer_library_for_the_euclidean_distance() -> None:
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss as Peer
    from pytorch_metric_learning.reducers import MeanReducer

    peer = Peer(0.7, distance=LpDistance(power=2, normalize_embeddings=False), reducer=MeanReducer())
    embeddings = torch.randn(32, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(32) % 5
    ours = TripletMarginLoss(get_distance("euclidean"), 0.7)(embeddings, labels)
    torch.testing.assert_close(ours, peer(embeddings, labels), atol=1e-10, rtol=0)


def test_gradcheck() -> None:
    embeddings = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss = TripletMarginLoss(get_distance("snr"), 0.7)
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS["mixed"]), (embeddings,))


def test_labels_of_another_length_or_type_are_refused() -> None:
    loss = TripletMarginLoss(get_distance("snr"), 0.7)
    for labels in (torch.zeros(3, dtype=torch.long), torch.zeros(4)):
        with pytest.raises(ValueError, match="labels must be 4 integers, got"):
            loss(torch.randn(4, 6), labels)
