"""Judge an embedding, under any member of the family of distances, in blocks of bounded memory.

`neighbours` finds nearest neighbours, `retrieval` scores them, `clustering` compares k-means with the classes,
`classification` lets neighbours vote, `verification` puts a threshold on distances; `evaluate` gives the scores of one
distance, `compare` those of several.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from snrlib.distances import Distance, get_distance
from snrlib.evaluate.classification import classify, confusion, most_confused
from snrlib.evaluate.clustering import clustering
from snrlib.evaluate.geometry import Geometry, geometry
from snrlib.evaluate.neighbours import knn, knn_blocks, ranking_blocks
from snrlib.evaluate.retrieval import Labels, class_means, retrieval
from snrlib.evaluate.verification import Verification, verification
from snrlib.stats import interval
from snrlib.utils.checks import check_choice, check_embeddings

__all__ = [
    "Geometry",
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


def compare(  # noqa: PLR0913 - what is judged, by what, against what
    embeddings: Tensor,
    labels: Labels,
    distance: Distance,
    ks: Sequence[int] | None = None,
    seed: int = 0,
    *,
    reference: Tensor | None = None,
    reference_labels: Labels | None = None,
    search: Mapping[str, Any] | None = None,
    also: str | Sequence[str] = (),
    cluster: bool = True,
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
        search: other ways to search the same embeddings, by the names of their rows: a distance, or a fitted
            transformer, after which Euclid judges; such as ``get_distance("cosine")`` and
            `snrlib.mahalanobis.whitened_search`.
        also: further scores, as in `evaluate`.
        cluster: run k-means, which takes longer than the rest.

    Returns:
        One row per distance, named after it and its anchor side (`judges`), and those of ``search``; one column per
        score, ``AUC`` and ``EER`` included.

    Raises:
        TypeError, ValueError: as `evaluate` and `verification`; a ``search`` that is neither a distance nor a
            transformer, or has the name of another row.
    """
    if not isinstance(distance, Distance):
        raise TypeError(f"distance must be a Distance, as get_distance returns, got {distance!r}")

    def scores(judge: Distance, clusters: dict[str, float], x: Tensor, y: Tensor | None) -> dict[str, float]:
        gallery: dict[str, Any] = {"reference": y, "reference_labels": reference_labels}
        pairs = verification(x, labels, judge, seed=seed, **gallery)
        own = evaluate(x, labels, judge, ks, cluster=False, also=also, **gallery)
        return own | clusters | {"AUC": pairs.AUC, "EER": pairs.EER}

    def clusters_of(x: Tensor, judge: Distance) -> dict[str, float]:
        return clustering(x, labels, judge, seed) if cluster else {}

    rows, clusters = {}, clusters_of(embeddings, distance)  # the anchor side has no part in it
    for name, kind, _, judge in judges(distance):
        if kind != "training":
            clusters = clusters_of(embeddings, judge)
        rows[name] = scores(judge, clusters, embeddings, reference)
    for name, way in (search or {}).items():
        if name in rows:
            raise ValueError(f"search has a row {name!r}, which there is already: give it another name")
        judge, x, y = _way(way, name, embeddings, reference)
        rows[name] = scores(judge, clusters_of(x, judge), x, y)
    return pd.DataFrame(rows).T


def _way(way: Any, name: str, x: Tensor, y: Tensor | None) -> tuple[Distance, Tensor, Tensor | None]:
    """The distance that judges, and the two sets in its space."""
    if isinstance(way, Distance):
        return way, x, y
    if not hasattr(way, "transform"):
        raise TypeError(f"search must hold distances or fitted transformers, got {way!r} as {name!r}")

    def mapped(x: Tensor) -> Tensor:
        return torch.as_tensor(way.transform(check_embeddings(x).detach().cpu().numpy()), device=x.device)

    return get_distance("euclidean"), mapped(x), None if y is None else mapped(y)
