"""Several ways to search the same embeddings, judged on the same queries; maps are fitted to other classes."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from tqdm import tqdm

from snrlib.distances import Centre, Distance, LinearMap, get_distance
from snrlib.evaluate.clustering import clustering
from snrlib.evaluate.comparison import Comparison
from snrlib.evaluate.retrieval import USUAL_KS, Labels, checked_sets, retrieval
from snrlib.evaluate.verification import verification
from snrlib.utils.cache import cached_arrays
from snrlib.utils.checks import as_labels, check_embeddings, check_rank
from snrlib.utils.files import digest
from snrlib.utils.provenance import imported_files

__all__ = ["Judge", "compare", "judges", "ranking_of"]


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
    distance: Distance | None = None,
    ks: Sequence[int] | None = None,
    seed: int = 0,
    *,
    reference: Tensor | None = None,
    reference_labels: Labels | None = None,
    search: Mapping[str, Any] | None = None,
    also: str | Sequence[str] = (),
    cluster: bool = True,
    train: Tensor | None = None,
    train_labels: Labels | None = None,
    folds: int = 2,
    queries: int | None = None,
    progress: bool = False,
    resume: bool = False,
) -> Comparison:
    """`evaluate` and `verification` under a training distance, both anchor sides, Euclid, and other ways to search.

    An estimator that is not fitted yet is fitted here, to other classes than it is judged on: to ``train``, or else the
    classes are dealt into ``folds`` parts, each part is searched by itself, and maps are fitted to all other parts.
    Two folds are the split of the field: half of the classes to fit, half to judge, and then the other way round. In
    folds all ways are judged within the same parts, Euclid too, so that all have the same queries and galleries; an
    easier search than one among all classes, so no score is comparable with one without folds.

    Args:
        embeddings: (n, M), the queries.
        labels: (n,), integers or strings.
        distance: the one that the network was trained with; None judges Euclid and ``search`` alone.
        ks: values of k; None is as in `retrieval`.
        seed: of k-means, of the pairs, of the folds and of the sample of queries.
        reference: (n_reference, M), a gallery that is searched instead of the queries.
        reference_labels: (n_reference,).
        search: other ways to search the same embeddings, by the names of their rows: a distance, or a transformer,
            fitted or not, after which Euclid judges; such as those of `snrlib.mahalanobis.usual_ways`.
        also: further scores, as in `evaluate`.
        cluster: run k-means, which takes longer than the rest.
        train: (n_train, M), what estimators are fitted to, of other classes than the embeddings.
        train_labels: (n_train,).
        folds: from 2 to half the number of classes; of no meaning where nothing is fitted, or to ``train``.
        queries: how many are drawn at random, in all folds together; None takes all. All rows are searched.
        progress: show a bar, with the time left.
        resume: keep what is finished of each way and fold in ``data/cache``, and go on from there.

    Returns:
        One row per distance, named after it and its anchor side (`judges`), and those of ``search``; one column per
        score, ``AUC`` and ``EER`` included. Retrieval scores are means over queries, the others over folds. Its
        `Comparison.answer` says in a sentence what to use, its `Comparison.differences` why.

    Raises:
        TypeError, ValueError: as `evaluate` and `verification`; a ``search`` that is neither a distance nor a
            transformer, has the name of another row or cannot be fitted; too few classes for the folds.
    """
    if not isinstance(distance, Distance | None):
        raise TypeError(f"distance must be a Distance, as get_distance returns, got {distance!r}")
    ways = _ways(distance, search or {})
    x, y, given, gallery = checked_sets(embeddings, labels, reference, reference_labels)
    both = None if reference is None else y
    if (train is None) != (train_labels is None):
        raise ValueError("train and train_labels go together: one of them is missing")
    fitted_here = [name for name, way in ways.items() if _wants_fit(way)]
    if train is not None:
        fit_x = check_embeddings(train, "train")
        whole = _Fold(x, both, given, gallery, None, fit_x, as_labels(train_labels, len(fit_x))[0])
        parts = [whole]
    elif fitted_here:
        parts = _folds(x, both, given, gallery, folds, seed)
    else:
        parts = [_Fold(x, both, given, gallery)]
    chosen = _sample(parts, queries, seed)
    if ks is None and len(parts) > 1:
        fewest = min(len(part.gallery) - (part.y is None) for part in parts)
        ks = [k for k in USUAL_KS if k <= fewest]
    kept = _identity(x, both, given, gallery, fit_x if train is not None else None) if resume else ""
    plan: dict[str, Any] = {"ks": ks, "also": also, "cluster": cluster, "seed": seed}
    rankings = {name: ranking_of(way) for name, way in ways.items()}
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in ways}
    total = len(ways) * sum(len(part.labels) if part.rows is None else len(part.rows) for part in parts)
    with tqdm(total=total, unit=" queries", disable=not progress, smoothing=0.05, mininterval=1) as bar:
        for number, part in enumerate(parts):
            ranked: dict[str, Mapping[str, Any]] = {}
            clusters: dict[Any, dict[str, float]] = {}
            for name, way in ways.items():
                bar.set_postfix_str(name)
                # A twin by algebra has the same neighbours; beside a training distance each is searched, as ever.
                twin = ranked.get(rankings[name]) if distance is None else None

                def judged(way: Any = way, twin: Any = twin, part: Any = part, clusters: Any = clusters) -> Any:
                    return part.judge(way, plan, twin, clusters, None if twin is not None else bar.update)

                key = [kept, plan, number, len(parts), queries, folds, _identity_of(way)]
                done_before = bar.n
                if resume and key[-1]:
                    scores = cached_arrays(f"compare-{digest(key)}", judged, what="scores")
                else:
                    scores = judged()
                bar.update(len(part.queries) - (bar.n - done_before))
                ranked.setdefault(rankings[name], scores)
                found[name].append(scores)
    return _gathered(found, parts, rankings, chosen, fitted_here, len(train) if train is not None else None)


def ranking_of(way: Any) -> str:
    """A name for the order in which it ranks: two ways with one name rank alike, by algebra.

    For a fixed query its own power is a constant: a distance in units of the query ranks as ``||A(b - a)||`` does.
    """
    if not isinstance(way, Distance):
        return f"fitted {id(way)}"
    kind = type(way.map)
    space = {nn.Identity: "x", Centre: "P x"}.get(kind)
    if space is None:
        L = way.map.components if isinstance(way.map, LinearMap) else None
        space = f"map {id(way.map)}" if L is None else f"L x {_bytes_digest(L)}"
    space += " of rows of length 1" * way.normalize_embeddings + " at length 1" * way.normalize_mapped
    by_ref = way.unit == "both" or (way.unit == "anchor" and way.anchor == "ref")
    return f"||A(b - a)||, A x = {space}" + (f", in units of {way.unit}" if by_ref and not way.normalize_mapped else "")


@dataclass
class _Fold:
    """One part of the classes, searched by itself, and what maps are fitted to."""

    x: Tensor
    y: Tensor | None
    labels: Tensor
    gallery: Tensor
    where: Tensor | None = None  # row numbers of x among all queries; None: all
    fit_x: Tensor | None = None
    fit_labels: Tensor | None = None
    rows: Tensor | None = None  # of x, which are queries; None: all

    @property
    def queries(self) -> Tensor:
        """Their row numbers in x."""
        return torch.arange(len(self.x)) if self.rows is None else self.rows

    def judge(
        self, way: Any, plan: Mapping[str, Any], twin: Mapping[str, Any] | None, clusters: dict[Any, Any], progress: Any
    ) -> Mapping[str, Any]:
        """By the name of each score, one of each query, or one for all (0-dimensional)."""
        judge, x, y = self._in_space(way)
        sets: dict[str, Any] = {"reference": y, "reference_labels": None if y is None else self.gallery}
        if twin is None:
            of_each = retrieval(
                *(x, self.labels, judge, plan["ks"]), also=plan["also"], rows=self.rows, progress=progress, **sets
            )
            found = {str(name): of_each[name].to_numpy() for name in of_each}
        else:
            found = {name: scores for name, scores in twin.items() if scores.ndim}
        if plan["cluster"]:
            key = (id(judge.map), judge.normalize_embeddings, judge.normalize_mapped) if judge is way else id(way)
            if key not in clusters:  # the anchor side has no part in it
                clusters[key] = clustering(x, self.labels, judge, plan["seed"])
            found |= {name: np.array(score) for name, score in clusters[key].items()}
        pairs = verification(x, self.labels, judge, seed=plan["seed"], **sets)
        return found | {"AUC": np.array(pairs.AUC), "EER": np.array(pairs.EER)}

    def _in_space(self, way: Any) -> tuple[Distance, Tensor, Tensor | None]:
        """The distance that judges, and the two sets in its space."""
        if isinstance(way, Distance):
            return way, self.x, self.y
        dtype = None
        if _wants_fit(way):
            if self.fit_x is None or self.fit_labels is None:
                raise AssertionError("there is nothing to fit to")
            way = clone(way)
            try:
                way.fit(self.fit_x.detach().cpu().numpy(), self.fit_labels.cpu().numpy())
            except ValueError as error:
                raise ValueError(f"{way!r:.60} cannot be fitted to {len(self.fit_x)} rows: {error}") from error
            dtype = self.x.dtype  # a map of float64 makes float64 of float32, at twice the cost of the search
        x, y = _mapped(way, self.x, dtype), None if self.y is None else _mapped(way, self.y, dtype)
        return get_distance("euclidean"), x, y


def _mapped(way: Any, x: Tensor, dtype: torch.dtype | None) -> Tensor:
    return torch.as_tensor(way.transform(x.detach().cpu().numpy()), device=x.device, dtype=dtype)


def _ways(distance: Distance | None, search: Mapping[str, Any]) -> dict[str, Any]:
    """What is judged, by name."""
    ways: dict[str, Any] = {}
    if distance is not None:
        ways = {one.name: one.distance for one in judges(distance)}
    elif "Euclid" not in search:
        ways = {"Euclid": get_distance("euclidean")}
    for name, way in search.items():
        if name in ways:
            raise ValueError(f"search has a row {name!r}, which there is already: give it another name")
        if not isinstance(way, Distance) and not hasattr(way, "transform"):
            raise TypeError(f"search must hold distances or fitted transformers, got {way!r} as {name!r}")
        ways[name] = way
    return ways


def _wants_fit(way: Any) -> bool:
    """Whether it is an estimator that was not fitted yet."""
    if isinstance(way, Distance) or not isinstance(way, BaseEstimator):
        return False
    if hasattr(way, "steps"):  # a pipeline takes itself for fitted if its last step needs no fit
        return any(_wants_fit(step) for _, step in way.steps)
    try:
        check_is_fitted(way)
    except NotFittedError:
        return True
    return False


def _folds(x: Tensor, y: Tensor | None, given: Tensor, gallery: Tensor, folds: int, seed: int) -> list[_Fold]:
    """The classes dealt at random into parts of as many classes, one more or less."""
    classes, members = torch.cat([given, gallery]).unique(return_inverse=True)
    if len(classes) < 4:
        raise ValueError(
            f"a map is fitted to other classes than it is judged on, which takes four classes; got {len(classes)}"
        )
    check_rank(folds, "folds", len(classes) // 2, "number of classes, halved")
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    part = torch.empty(len(classes), dtype=torch.int64)
    part[torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))] = (
        torch.arange(len(classes)) % folds
    )
    of_x, of_y = (part[one.cpu()].to(x.device) for one in members.split([len(given), len(gallery)]))
    found = []
    for number in range(folds):
        mine, theirs = of_x == number, of_y == number
        where = mine.nonzero()[:, 0]
        fit_x, fit_labels = x[~mine], given[~mine]
        if y is not None:
            fit_x, fit_labels = torch.cat([fit_x, y[~theirs]]), torch.cat([fit_labels, gallery[~theirs]])
        of_part = None if y is None else y[theirs]
        found.append(_Fold(x[where], of_part, given[where], gallery[theirs], where, fit_x, fit_labels))
    return [part for part in found if len(part.x)]  # of a gallery alone nothing is asked


def _sample(parts: list[_Fold], queries: int | None, seed: int) -> int | None:
    """Draw queries of all parts together; None if all are taken."""
    n = sum(len(part.x) for part in parts)
    if queries is None or queries >= n:
        return None
    check_rank(queries, "queries", n, "number of embeddings")
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:queries].sort().values
    start = 0
    for part in parts:
        mine = drawn[(drawn >= start) & (drawn < start + len(part.x))] - start
        part.rows = mine.to(part.x.device)
        start += len(part.x)
    if any(part.rows is not None and len(part.rows) == 0 for part in parts):
        raise ValueError(f"queries must be so many that each fold has one, got {queries}")
    return queries


def _gathered(
    found: Mapping[str, list[Mapping[str, Any]]],
    parts: list[_Fold],
    ranking: Mapping[str, str],
    sampled: int | None,
    fitted: list[str],
    n_train: int | None,
) -> Comparison:
    """The folds together: of scores of queries the mean over all queries, of others the mean over folds."""
    of_queries, rows = {}, {}
    for name, folds in found.items():
        columns = {key: np.concatenate([one[key] for one in folds]) for key in folds[0] if folds[0][key].ndim}
        of_queries[name] = pd.DataFrame(columns)
        others = {key: float(np.mean([one[key] for one in folds])) for key in folds[0] if not folds[0][key].ndim}
        rows[name] = {str(key): float(value) for key, value in of_queries[name].mean().items()} | others
    table = Comparison(pd.DataFrame(rows).T)
    table.queries, table.ranking = of_queries, ranking
    table.query_classes = np.concatenate([part.labels[part.queries].cpu().numpy() for part in parts])
    candidates = [len(part.gallery) - (part.y is None) for part in parts]
    table.about = {
        "queries": len(table.query_classes),
        "sampled": sampled is not None,
        "classes": len(np.unique(table.query_classes)),
        "images": sum(len(part.x) + (0 if part.y is None else len(part.y)) for part in parts),
        "gallery": None if parts[0].y is None else sum(len(part.gallery) for part in parts),
        "candidates": [min(candidates), max(candidates)],
        "components": parts[0].x.shape[1],
        "folds": len(parts),
        "fitted": fitted,
        "fitted_to": n_train,
    }
    return table


def _bytes_digest(*arrays: Any) -> str:
    made = hashlib.sha256()
    for array in arrays:
        values = np.ascontiguousarray(torch.as_tensor(array).detach().cpu().numpy())
        made.update(f"{values.shape} {values.dtype}".encode())
        made.update(values.tobytes())
    return made.hexdigest()[:16]


def _identity(*arrays: Tensor | None) -> str:
    """Of all that is judged, and of the code that judges."""
    return _bytes_digest(*(array for array in arrays if array is not None)) + _code()


@cache
def _code() -> str:
    made = hashlib.sha256()
    for path in imported_files("import snrlib.evaluate.compare, snrlib.mahalanobis"):
        made.update(Path(path).read_bytes())
    return made.hexdigest()[:16]


def _identity_of(way: Any) -> str:
    """Of a distance or of an estimator that is fitted here; "" of others, whose state is not known."""
    if isinstance(way, Distance):
        return f"{way!r} {_bytes_digest(*way.state_dict().values())}"
    return way.__repr__(N_CHAR_MAX=10**6) if _wants_fit(way) else ""
