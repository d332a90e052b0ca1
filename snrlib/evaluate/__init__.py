"""Judge an embedding, under any member of the family of distances, in blocks of bounded memory.

`neighbours` finds nearest neighbours, `retrieval` scores them, `clustering` compares k-means with the classes,
`classification` lets neighbours vote, `verification` puts a threshold on distances; `evaluate` gives the scores of one
distance, `compare` those of several, with what their differences are worth (`Comparison`); `geometry` looks at the
embeddings themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from snrlib.distances import Distance
from snrlib.evaluate.classification import classify, confusion, most_confused
from snrlib.evaluate.clustering import clustering
from snrlib.evaluate.compare import Judge, compare, judges
from snrlib.evaluate.comparison import Comparison
from snrlib.evaluate.geometry import Geometry, geometry
from snrlib.evaluate.neighbours import Index, knn, knn_blocks, ranking_blocks
from snrlib.evaluate.retrieval import Labels, class_means, retrieval
from snrlib.evaluate.verification import Verification, verification
from snrlib.stats import interval
from snrlib.utils.checks import check_choice

__all__ = [
    "Comparison",
    "Geometry",
    "Index",
    "Judge",
    "Verification",
    "class_means",
    "classify",
    "clustering",
    "compare",
    "confusion",
    "evaluate",
    "geometry",
    "interval",
    "judges",
    "knn",
    "knn_blocks",
    "most_confused",
    "ranking_blocks",
    "retrieval",
    "verification",
]


def evaluate(  # noqa: PLR0913 - what is judged, by what, against what
    embeddings: Tensor,
    labels: Labels,
    distance: Distance | None = None,
    ks: Sequence[int] | None = None,
    backend: str = "torch",
    cluster: bool = True,
    seed: int = 0,
    *,
    reference: Tensor | None = None,
    reference_labels: Labels | None = None,
    average: Literal["query", "class"] = "query",
    also: str | Sequence[str] = (),
) -> dict[str, float]:
    """The scores of an embedding: means of `retrieval` over the queries that have one, and `clustering`.

    Args:
        embeddings: (n, M), the queries.
        labels: (n,), integers or strings.
        distance: the distance that ranks, anchor side included; None is Euclidean.
        ks: values of k; the score for 1 is called ``precision_at_1``. None is as in `retrieval`.
        backend: see `knn`.
        cluster: run k-means on the queries as well, which takes longer than the rest.
        seed: of k-means.
        reference: (n_reference, M), a gallery that is searched instead of the queries.
        reference_labels: (n_reference,).
        average: over the queries, or of the means of their classes (`class_means`), so that small classes count as
            much as large ones.
        also: further scores of `retrieval`: ``precision_at_k``, ``mean_average_precision``, ``mean_reciprocal_rank``.

    Returns:
        ``precision_at_1``, ``recall_at_2`` ..., ``r_precision``, ``mean_average_precision_at_r`` and, with ``cluster``,
        ``NMI``, ``AMI``, ``F1``; NaN where no query has a score. What ``also`` names stands before ``NMI``.

    Raises:
        TypeError, ValueError: as `retrieval`.
    """
    check_choice(average, "average", ("query", "class"))
    queries = retrieval(embeddings, labels, distance, ks, backend, reference, reference_labels, also)
    if average == "class":
        queries = class_means(queries, labels)
    scores = {str(key): float(value) for key, value in queries.mean().items()}
    return scores | (clustering(embeddings, labels, distance, seed) if cluster else {})
