"""Judge an embedding, under any member of the family of distances, in blocks of bounded memory.

`neighbours` finds nearest neighbours, `retrieval` scores them, `clustering` compares k-means with the classes,
`classification` lets neighbours vote, `verification` puts a threshold on distances.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd
from torch import Tensor

from snrlib.distances import Distance, get_distance
from snrlib.evaluate.classification import classify, confusion, most_confused
from snrlib.evaluate.clustering import clustering
from snrlib.evaluate.neighbours import knn, knn_blocks, ranking_blocks
from snrlib.evaluate.retrieval import Labels, retrieval
from snrlib.evaluate.verification import Verification, verification
from snrlib.stats import interval
from snrlib.utils.checks import as_labels, check_choice

__all__ = [
    "Judge",
    "Verification",
    "classify",
    "clustering",
    "compare",
    "confusion",
    "evaluate",
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
        average: over the queries, or of the means of their classes, so that small classes count as much as large ones.

    Returns:
        ``precision_at_1``, ``recall_at_2`` ..., ``r_precision``, ``mean_average_precision_at_r`` and, with ``cluster``,
        ``NMI``, ``AMI``, ``F1``; NaN where no query has a score.

    Raises:
        TypeError, ValueError: labels that are not as many integers, an empty ``ks``, or a k out of range.
    """
    check_choice(average, "average", ("query", "class"))
    queries = retrieval(embeddings, labels, distance, ks, backend, reference, reference_labels)
    if average == "class":
        queries = queries.groupby(as_labels(labels, len(queries))[0].cpu().numpy()).mean()
    scores = {str(key): float(value) for key, value in queries.mean().items()}
    return scores | (clustering(embeddings, labels, distance, seed) if cluster else {})


class Judge(NamedTuple):
    """One of the distances that `compare` judges by.

    Attributes:
        name: as `compare` calls its row.
        judge: "training" for the training distance, else the name of the distance.
        anchor: "query" or "ref" where the side matters, else None.
        distance: the distance itself.
    """

    name: str
    judge: str
    anchor: Literal["query", "ref"] | None
    distance: Distance


def judges(distance: Distance) -> list[Judge]:
    """The training distance, with both anchor sides where they differ, and Euclid."""
    euclid = Judge("Euclid", "euclidean", None, get_distance("euclidean"))
    if not distance.anchored:
        return [Judge("training distance", "training", None, distance), euclid]
    sides = []
    for side in ("query", "ref"):
        judge = copy.copy(distance)
        judge.anchor = side
        sides.append(Judge(f"training distance, anchor {side}", "training", side, judge))
    return [*sides, euclid]


def compare(
    embeddings: Tensor,
    labels: Labels,
    distance: Distance,
    ks: Sequence[int] | None = None,
    seed: int = 0,
    *,
    reference: Tensor | None = None,
    reference_labels: Labels | None = None,
) -> pd.DataFrame:
    """`evaluate` and `verification` under the training distance, both anchor sides where they differ, and Euclid.

    Args:
        embeddings: (n, M), the queries.
        labels: (n,), integers or strings.
        distance: the one that the network was trained with.
        ks: values of k; None is as in `retrieval`.
        seed: of k-means and of the pairs.
        reference: (n_reference, M), a gallery that is searched instead of the queries.
        reference_labels: (n_reference,).

    Returns:
        One row per distance, named after it and its anchor side (`judges`); one column per score, ``AUC`` and ``EER``
        included.

    Raises:
        TypeError, ValueError: as `evaluate` and `verification`.
    """
    if not isinstance(distance, Distance):
        raise TypeError(f"distance must be a Distance, as get_distance returns, got {distance!r}")
    gallery: dict[str, Any] = {"reference": reference, "reference_labels": reference_labels}
    rows, clusters = {}, clustering(embeddings, labels, distance, seed)  # the anchor side has no part in it
    for name, kind, _, judge in judges(distance):
        if kind != "training":
            clusters = clustering(embeddings, labels, judge, seed)
        pairs = verification(embeddings, labels, judge, seed=seed, **gallery)
        scores = evaluate(embeddings, labels, judge, ks, cluster=False, **gallery)
        rows[name] = scores | clusters | {"AUC": pairs.AUC, "EER": pairs.EER}
    return pd.DataFrame(rows).T
