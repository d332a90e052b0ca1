"""The classifier that the report contrasts with metric learning: one output neuron for each class (section 2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from snrlib.utils.checks import check_class_labels, check_embeddings, check_number

__all__ = ["SoftmaxClassifier"]


class SoftmaxClassifier(nn.Module):
    """Cross-entropy of a linear layer with one output neuron for each training class.

    A baseline under the same loop: it needs no distance and no pairs. Its neurons know the training classes only, so
    unseen classes are judged as for the other losses, by distances between embeddings.

    Args:
        n_classes: number of training classes, at least 2.
        embedding_size: number of components M.
        label_smoothing: the share e of the target that all classes get alike, from 0 to 1: (1 - e) of it is
            the image's own class (Szegedy et al., Rethinking the Inception architecture, CVPR 2016, section 7).

    Raises:
        ValueError: fewer than 2 classes, or a label_smoothing out of its range; in a call, labels that are not
            0 ... n_classes - 1.

    >>> SoftmaxClassifier(10, 64)
    SoftmaxClassifier(
      (neurons): Linear(in_features=64, out_features=10, bias=True)
    )
    """

    def __init__(self, n_classes: int, embedding_size: int, label_smoothing: float = 0.0):
        super().__init__()
        if n_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, got {n_classes}")
        self.label_smoothing = check_number(label_smoothing, "label_smoothing", at_least=0, at_most=1)
        self.neurons = nn.Linear(embedding_size, n_classes)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Embeddings (n, M) and labels (n,) -> scalar."""
        x = check_embeddings(embeddings)
        labels = check_class_labels(labels, len(x), self.neurons.out_features).to(x.device)
        return F.cross_entropy(self.neurons(x), labels.long(), label_smoothing=self.label_smoothing)
