"""Several ways to search the same embeddings, judged on the same queries; maps are fitted to other classes."""

from __future__ import annotations

import copy
import hashlib
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from snrlib.distances import Centre, Distance, LinearMap, get_distance
from snrlib.evaluate.comparison import Comparison
from snrlib.evaluate.folds import Fold, UnfitError, deal_folds, draw_queries, wants_fit
from snrlib.evaluate.retrieval import USUAL_KS, Labels, checked_sets
from snrlib.utils.cache import cached_arrays
from snrlib.utils.checks import as_labels, check_embeddings
from snrlib.utils.files import data_folder, digest
from snrlib.utils.provenance import imported_files

__all__ = ["Judge", "compare", "judges", "ranking_of"]

_KEPT_S = 30 * 86_400  # seconds, for which what an interrupted comparison has finished is kept


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
        resume: keep what is finished of each way and fold in ``data/cache`` until all is, and go on from there.

    Returns:
        One row per distance, named after it and its anchor side (`judges`), and those of ``search``; one column per
        score, ``AUC`` and ``EER`` included. Retrieval scores are means over queries, the others over folds. Its
        `Comparison.answer` says in a sentence what to use, its `Comparison.differences` why.

    Raises:
        TypeError, ValueError: as `evaluate` and `verification`; a ``search`` that is neither a distance nor a
            transformer or has the name of another row; too few classes for the folds.

    Warns:
        UserWarning: an estimator that cannot be fitted to what there is has no row; ``about["left_out"]`` says why.
    """
    if not isinstance(distance, Distance | None):
        raise TypeError(f"distance must be a Distance, as get_distance returns, got {distance!r}")
    ways = _ways(distance, search or {})
    x, y, given, gallery = checked_sets(embeddings, labels, reference, reference_labels)
    both = None if reference is None else y
    if (train is None) != (train_labels is None):
        raise ValueError("train and train_labels go together: one of them is missing")
    fitted = [name for name, way in ways.items() if wants_fit(way)]
    to: tuple[Tensor, ...] = ()
    if train is not None:
        fit_x = check_embeddings(train, "train")
        to = fit_x, as_labels(train_labels, len(fit_x))[0]
        parts = [Fold(x, both, given, gallery, *to)]
    elif fitted:
        parts = deal_folds(x, both, given, gallery, folds, seed)
    else:
        parts = [Fold(x, both, given, gallery)]
    draw_queries(parts, queries, seed)
    if ks is None and len(parts) > 1:
        fewest = min(part.candidates for part in parts)
        ks = [k for k in USUAL_KS if k <= fewest]
    plan: dict[str, Any] = {"ks": ks, "also": also, "cluster": cluster, "seed": seed}
    kept = None
    if resume:
        kept = f"compare-{digest([_bytes_digest(x, y, given, gallery, *to), _code(), plan, len(parts), queries])}"
        _forget_old()
    # Twins by algebra have the same neighbours; beside a training distance each is searched for itself, as ever.
    ranking = {name: ranking_of(way) for name, way in ways.items()}
    found, left_out = _judged(parts, ways, ranking if distance is None else {}, plan, kept, progress)
    for name, reason in left_out.items():
        warnings.warn(f"{name} is left out: {reason}", stacklevel=2)
    if kept:
        shutil.rmtree(data_folder("cache") / kept, ignore_errors=True)
    told: dict[str, Any] = {"fitted": [name for name in fitted if name in found], "left_out": left_out}
    told["fitted_to"] = None if train is None else len(train)
    return _gathered(found, parts, {name: ranking[name] for name in found}, told)


_Scores = Mapping[str, Any]


def _judged(
    parts: list[Fold],
    ways: Mapping[str, Any],
    ranking: Mapping[str, str],
    plan: Mapping[str, Any],
    kept: str | None,
    progress: bool,
) -> tuple[dict[str, list[_Scores]], dict[str, str]]:
    """The scores of each way in each part, and why some ways have none."""
    found: dict[str, list[_Scores]] = {name: [] for name in ways}
    left_out: dict[str, str] = {}
    total = len(ways) * sum(len(part.queries) for part in parts)
    with tqdm(total=total, unit=" queries", disable=not progress, smoothing=0.05, mininterval=1) as bar:
        for number, part in enumerate(parts):
            ranked: dict[str, _Scores] = {}
            clusters: dict[Any, dict[str, float]] = {}
            for name, way in ways.items():
                if name in left_out:
                    continue
                bar.set_postfix_str(name)
                before, twin = bar.n, ranked.get(ranking.get(name, ""))
                judge = partial(part.judge, way, plan, twin, clusters, bar.update)
                state = _state(way)
                try:
                    if kept and state:
                        scores = cached_arrays(f"{kept}/{digest([number, state])}", judge, what="scores")
                    else:
                        scores = judge()
                except UnfitError as error:
                    left_out[name] = str(error)
                    del found[name]
                    continue
                bar.update(len(part.queries) - (bar.n - before))  # of a twin, or of what was kept
                ranked.setdefault(ranking.get(name, name), scores)
                found[name].append(scores)
    return found, left_out


def _forget_old() -> None:
    """Remove what is kept of comparisons with which nobody went on for a month."""
    for left_behind in data_folder("cache").glob("compare-*"):
        with suppress(OSError):  # one that ends just now
            if left_behind.is_dir() and left_behind.stat().st_mtime < time.time() - _KEPT_S:
                shutil.rmtree(left_behind)


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


def _gathered(
    found: Mapping[str, list[Mapping[str, Any]]],
    parts: list[Fold],
    ranking: Mapping[str, str],
    told: Mapping[str, Any],
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
    candidates = [part.candidates for part in parts]
    table.about = {
        "queries": len(table.query_classes),
        "sampled": any(part.rows is not None for part in parts),
        "classes": len(np.unique(table.query_classes)),
        "images": sum(len(part.x) + (0 if part.y is None else len(part.y)) for part in parts),
        "gallery": None if parts[0].y is None else sum(len(part.gallery) for part in parts),
        "candidates": [min(candidates), max(candidates)],
        "components": parts[0].x.shape[1],
        "folds": len(parts),
    } | dict(told)
    return table


def _bytes_digest(*arrays: Any) -> str:
    made = hashlib.sha256()
    for array in arrays:
        values = np.ascontiguousarray(torch.as_tensor(array).detach().cpu().numpy())
        made.update(f"{values.shape} {values.dtype}".encode())
        made.update(values.tobytes())
    return made.hexdigest()[:16]


@cache
def _code() -> str:
    """Of the code that judges: another may judge otherwise."""
    made = hashlib.sha256()
    for path in imported_files("import snrlib.evaluate.compare, snrlib.mahalanobis"):
        made.update(Path(path).read_bytes())
    return made.hexdigest()[:16]


def _state(way: Any) -> str:
    """Of a distance or of an estimator that is fitted here; "" of others, whose state is not known."""
    if isinstance(way, Distance):
        return f"{way!r} {_bytes_digest(*way.state_dict().values())}"
    return way.__repr__(N_CHAR_MAX=10**6) if wants_fit(way) else ""
