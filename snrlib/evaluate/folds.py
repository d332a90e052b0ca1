"""A part of the classes, searched by itself, and what maps are fitted to: all other classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from snrlib.distances import Distance, get_distance
from snrlib.evaluate.clustering import clustering
from snrlib.evaluate.retrieval import retrieval
from snrlib.evaluate.verification import verification
from snrlib.utils.checks import check_rank

__all__ = ["Fold", "UnfitError", "deal_folds", "draw_queries", "wants_fit"]


@dataclass
class Fold:
    """One part of the classes, searched by itself, and what maps are fitted to.

    Attributes:
        x: (n, M).
        y: (n_reference, M), the gallery; None searches x itself.
        labels: (n,), of x.
        gallery: labels of y, or of x without one.
        fit_x: what maps are fitted to.
        fit_labels: their classes.
        rows: those of x that are queries; None is all.
    """

    x: Tensor
    y: Tensor | None
    labels: Tensor
    gallery: Tensor
    fit_x: Tensor | None = None
    fit_labels: Tensor | None = None
    rows: Tensor | None = None

    @property
    def queries(self) -> Tensor:
        """Their row numbers in x."""
        return torch.arange(len(self.x)) if self.rows is None else self.rows

    @property
    def candidates(self) -> int:
        """How many rows are searched for each query."""
        return len(self.gallery) - (self.y is None)

    def judge(
        self, way: Any, plan: Mapping[str, Any], twin: Mapping[str, Any] | None, clusters: dict[Any, Any], progress: Any
    ) -> Mapping[str, Any]:
        """The scores by name: one for each query, or one for all (0-dimensional).

        Args:
            way: a distance or a transformer.
            plan: what `snrlib.evaluate.compare` was asked for.
            twin: the scores of a way that ranks alike, whose neighbours are the same; None searches.
            clusters: scores of k-means, kept for ways with one map.
            progress: is told how many queries were done.
        """
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
        if wants_fit(way):
            if self.fit_x is None or self.fit_labels is None:
                raise AssertionError("there is nothing to fit to")
            way = clone(way)
            try:
                way.fit(self.fit_x.detach().cpu().numpy(), self.fit_labels.cpu().numpy())
            except ValueError as error:
                raise UnfitError(f"it cannot be fitted to {len(self.fit_x):,} rows: {error}") from error
            dtype = self.x.dtype  # a map of float64 makes float64 of float32, at twice the cost of the search
        x, y = _mapped(way, self.x, dtype), None if self.y is None else _mapped(way, self.y, dtype)
        return get_distance("euclidean"), x, y


class UnfitError(ValueError):
    """An estimator cannot be fitted to what there is."""


def _mapped(way: Any, x: Tensor, dtype: torch.dtype | None) -> Tensor:
    return torch.as_tensor(way.transform(x.detach().cpu().numpy()), device=x.device, dtype=dtype)


def wants_fit(way: Any) -> bool:
    """Whether it is an estimator that was not fitted yet."""
    if isinstance(way, Distance) or not isinstance(way, BaseEstimator):
        return False
    if hasattr(way, "steps"):  # a pipeline takes itself for fitted if its last step needs no fit
        return any(wants_fit(step) for _, step in way.steps)
    try:
        check_is_fitted(way)
    except NotFittedError:
        return True
    return False


def deal_folds(x: Tensor, y: Tensor | None, given: Tensor, gallery: Tensor, folds: int, seed: int) -> list[Fold]:
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
    dealt = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
    part[dealt] = torch.arange(len(classes)) % folds
    of_x, of_y = (part[one.cpu()].to(x.device) for one in members.split([len(given), len(gallery)]))
    found = []
    for number in range(folds):
        mine, theirs = of_x == number, of_y == number
        fit_x, fit_labels = x[~mine], given[~mine]
        if y is not None:
            fit_x, fit_labels = torch.cat([fit_x, y[~theirs]]), torch.cat([fit_labels, gallery[~theirs]])
        of_part = None if y is None else y[theirs]
        found.append(Fold(x[mine], of_part, given[mine], gallery[theirs], fit_x, fit_labels))
    return [part for part in found if len(part.x)]  # of a gallery alone nothing is asked


def draw_queries(parts: list[Fold], queries: int | None, seed: int) -> None:
    """Draw the queries of all parts together at random; None takes all."""
    n = sum(len(part.x) for part in parts)
    if queries is None or queries >= n:
        return
    check_rank(queries, "queries", n, "number of embeddings")
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:queries].sort().values
    start = 0
    for part in parts:
        mine = drawn[(drawn >= start) & (drawn < start + len(part.x))] - start
        part.rows = mine.to(part.x.device)
        start += len(part.x)
    if any(part.rows is not None and len(part.rows) == 0 for part in parts):
        raise ValueError(f"queries must be so many that each fold has one, got {queries}")
