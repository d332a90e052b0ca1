"""The classifier: cross-entropy of a linear layer, against its formula, and its refusals."""

import pytest
import torch
from torch import Tensor

from snrlib.losses import SoftmaxClassifier


def _loss(n_classes: int = 5, components: int = 3) -> SoftmaxClassifier:
    torch.manual_seed(0)
    return SoftmaxClassifier(n_classes, components).double()


def test_it_is_minus_the_logarithm_of_the_softmax_of_the_right_neuron() -> None:
    loss, x, labels = _loss(), torch.randn(7, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 4, 0])
    weights, biases, expected = loss.neurons.weight.detach(), loss.neurons.bias.detach(), 0.0
    for row, label in zip(x, labels.tolist(), strict=True):
        activations = [float(w @ row + b) for w, b in zip(weights, biases, strict=True)]
        exponentials = torch.tensor(activations, dtype=torch.float64).exp()
        expected -= (exponentials[label] / exponentials.sum()).log().item() / len(x)
    assert loss(x, labels).item() == pytest.approx(expected, rel=1e-12)


def test_gradients_reach_embeddings_weights_and_biases() -> None:
    loss, labels = _loss(), torch.tensor([0, 1, 4])
    x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    loss(x, labels).backward()
    assert x.grad is not None
    assert x.grad.abs().min() > 0
    for parameter in loss.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0

    def of_embeddings(embeddings: Tensor) -> Tensor:
        return loss(embeddings, labels)

    assert torch.autograd.gradcheck(of_embeddings, x)


def test_labels_of_any_integer_type_are_taken_and_half_precision_is_computed_in_float32() -> None:
    loss, x = SoftmaxClassifier(4, 3), torch.randn(4, 3)
    values = {loss(x, torch.arange(4, dtype=dtype)).item() for dtype in (torch.int64, torch.int32, torch.uint8)}
    assert len(values) == 1
    assert loss(x.half(), torch.arange(4)).dtype == torch.float32


@pytest.mark.parametrize("labels", [[-1, 0], [0, 5]])
def test_labels_without_a_neuron_are_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"labels must be from 0 to 4, one a neuron, got {labels[0]} to {labels[1]}"):
        _loss()(torch.randn(2, 3, dtype=torch.float64), torch.tensor(labels))


def test_wrong_shapes_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        SoftmaxClassifier(1, 3)
    with pytest.raises(ValueError, match="labels must be 2 integers"):
        _loss()(torch.randn(2, 3, dtype=torch.float64), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="embeddings must be finite"):
        _loss()(torch.full((2, 3), torch.nan, dtype=torch.float64), torch.tensor([0, 1]))
    with pytest.raises(TypeError, match=r"embeddings must be a torch\.Tensor"):
        _loss()([[0.0, 1.0, 2.0]], torch.tensor([0]))


def test_it_says_how_many_neurons_it_has() -> None:
    assert "in_features=3, out_features=5" in repr(_loss())
