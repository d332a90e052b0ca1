"""A relation network head (Sung, Yang, Zhang, Xiang, Torr, Hospedales, CVPR 2018), which the report names in 3.2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snrlib.losses.base import pair_masks
from snrlib.utils.checks import check_embeddings

__all__ = ["RelationNetwork"]


class RelationNetwork(nn.Module):
    """A learned comparison instead of a distance: ``r_ij = sigmoid(w'relu(W [x_i, x_j] + b) + c)`` in (0, 1).

    As a loss, ``network(embeddings, labels)`` is the paper's mean squared error of ``r_ij`` against 1 for one class and
    0 for two, over all ordered pairs i != j. The paper compares feature maps by a small convolutional network that ends
    in these two layers; here embeddings are compared. It is no `Loss`: there is no distance in it, no report, and
    `get_loss` does not know it. ``W [x_i, x_j]`` is the sum of two products, so that only
    (n, n, hidden) numbers are kept, and no pair of embeddings is.

    Args:
        embedding_size: M.
        hidden: width of the hidden layer, 8 in the paper.

    Shape: `score`: query (n_query, M), ref (n_ref, M) -> (n_query, n_ref); a call: embeddings (n, M) and labels (n,) ->
    scalar, 0 with a working backward for one sample.

    Raises:
        TypeError, ValueError: bad sizes, embeddings or labels, or another M.
    """

    def __init__(self, embedding_size: int, hidden: int = 8):
        super().__init__()
        if embedding_size < 1 or hidden < 1:
            raise ValueError(f"embedding_size and hidden must be positive, got {embedding_size} and {hidden}")
        self.query = nn.Linear(embedding_size, hidden)
        self.ref = nn.Linear(embedding_size, hidden, bias=False)  # the concatenation has one bias
        self.out = nn.Linear(hidden, 1)

    def score(self, query: Tensor, ref: Tensor) -> Tensor:
        """How alike every query and every ref are, in (0, 1); not symmetric."""
        query, ref = check_embeddings(query, "query"), check_embeddings(ref, "ref")
        for name, x in (("query", query), ("ref", ref)):
            if x.shape[1] != self.query.in_features:
                raise ValueError(f"{name} must have {self.query.in_features} components, got {x.shape[1]}")
        hidden = (self.query(query)[:, None] + self.ref(ref)).relu()
        return self.out(hidden).squeeze(2).to(query.dtype).sigmoid()

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        r = self.score(embeddings, embeddings)
        positive, negative = pair_masks(labels, len(embeddings), r.device)
        error = torch.where(positive | negative, (r - positive.to(r.dtype)).square(), 0)
        return error.sum() / max(len(r) * (len(r) - 1), 1)
