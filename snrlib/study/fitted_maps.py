"""Maps fitted to vectors that no longer change: how well do neighbours classify under each, absolute and relative?

``snr measure maps`` measures; ``data/reference/maps.csv`` and ``maps.json`` hold what came out. There are two
questions. *Splits*: samples of the same classes, 70 % to fit and to be neighbours, 30 % to be classified, drawn anew
many times. *Unseen classes*: the map is fitted to the training classes and searches among images of others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.feature_selection import VarianceThreshold
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from snrlib.backbones import embed
from snrlib.distances import get_distance
from snrlib.evaluate import classify, interval, retrieval
from snrlib.experiment import Experiment, default_settings, experiment
from snrlib.mahalanobis import LMNN, Whitening
from snrlib.stats import mean_interval
from snrlib.study import stored
from snrlib.study.bird_features import features
from snrlib.utils.provenance import provenance

__all__ = [
    "FORMS",
    "MAPS",
    "MAPS_OF_FEW",
    "SETS",
    "balance",
    "glyph_embeddings",
    "measure_maps",
    "split_errors",
    "summarise",
    "unseen_classes",
]

Vectors = tuple[NDArray, NDArray]
_TEST_SHARE = 0.3

MAPS: dict[str, Callable[[], BaseEstimator | None]] = {
    "none (Euclid)": lambda: None,
    "whitening": lambda: Whitening(),
    "whitening, shrunk": lambda: Whitening("ledoit_wolf"),
    "whitening within classes, shrunk": lambda: Whitening("ledoit_wolf", within_class=True),
    "LMNN": lambda: LMNN(),
    "NCA": lambda: NeighborhoodComponentsAnalysis(random_state=0),
}
"""Each gives a fresh estimator. NCA (Goldberger et al. 2004) is scikit-learn's, the peer."""

MAPS_OF_FEW: dict[str, Callable[[], BaseEstimator | None]] = {
    **{name: make for name, make in MAPS.items() if name != "whitening"},
    "LMNN": lambda: LMNN(n_components=64, init="pca"),
    "NCA": lambda: NeighborhoodComponentsAnalysis(64, init="pca", random_state=0),
}
"""The same for 750 photographs with 512 features, which no square map can be learned from: to 64 components."""

FORMS: dict[str, tuple[str, str]] = {
    "absolute": ("euclidean", "query"),
    "relative, anchor query": ("relative_euclidean", "query"),
    "relative, anchor ref": ("relative_euclidean", "ref"),
}
"""Distances of the mapped vectors: those of the family with the fitted map."""


def balance() -> Vectors:
    """The balance scale: all 625 ``(left weight, left arm, right weight, right arm)`` of 1 to 5, and which side sinks.

    The rule behind the UCI data set of that name (R. Siegler, 1976), written out.
    """
    X = np.stack(np.meshgrid(*[np.arange(1.0, 6.0)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    return X, np.sign(X[:, 0] * X[:, 1] - X[:, 2] * X[:, 3]).astype(int)


def glyph_embeddings(split: str = "test", n_classes: int | None = None) -> Vectors:
    """64 components of a small network, conv4, that a Euclidean triplet loss trained for 150 steps (seed 0).

    Args:
        split: "train", the classes that trained it, or "test", others.
        n_classes: the first so many; None is all.
    """
    done = _glyph_network()
    images = done.train if split == "train" else done.test
    X = done.embeddings if split == "test" else embed(done.model, images)
    chosen = images.labels < (n_classes or len(images.classes))
    return X[chosen].double().numpy(), images.labels[chosen].numpy()


@lru_cache
def _glyph_network() -> Experiment:
    chosen = {"margin": 4.0, "steps": 150, "every": 150, "validation_share": 0.0, "precision": "float32"}
    return experiment(default_settings("glyphs", "conv4", distance="euclidean", **chosen), device="cpu")


SETS: dict[str, tuple[Callable[[], Vectors], bool, int]] = {
    "iris": (lambda: load_iris(return_X_y=True), False, 30),
    "wine": (lambda: load_wine(return_X_y=True), False, 30),
    "wine, standardised": (lambda: load_wine(return_X_y=True), True, 30),
    "balance, standardised": (balance, True, 10),
    "digits": (lambda: load_digits(return_X_y=True), False, 10),
    "glyph embeddings": (lambda: glyph_embeddings(n_classes=60), False, 10),
}
"""Name: where the vectors come from, whether their columns are standardised by the training part, how many splits."""


def split_errors(
    X: NDArray,
    y: NDArray,
    maps: dict[str, Callable[[], BaseEstimator | None]] = MAPS,
    *,
    standardise: bool = False,
    n_splits: int = 30,
    k: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Test error of the k nearest neighbours over random splits, 70 to 30, stratified by class.

    Args:
        X: (n, M).
        y: (n,), classes.
        maps: as `MAPS`.
        standardise: scale every column by the mean and deviation of the training part; this moves the origin, which a
            relative distance looks at.
        n_splits: how many.
        k: neighbours that vote.
        seed: of the splits.

    Returns:
        One row a split, map and form: ``split``, ``map``, ``form``, ``error`` (a share) and ``fit_s``, the seconds of
        fitting the map.
    """
    splits = StratifiedShuffleSplit(n_splits, test_size=_TEST_SHARE, random_state=seed)
    rows = []
    for number, (fit_to, judged) in enumerate(splits.split(X, y)):
        scalers = [StandardScaler()] if standardise else []
        prepare = make_pipeline(VarianceThreshold(), *scalers).fit(X[fit_to])
        train, test = prepare.transform(X[fit_to]), prepare.transform(X[judged])
        for name, make in maps.items():
            estimator, started = make(), time.perf_counter()
            if estimator is not None:
                estimator.fit(train, y[fit_to])
            seconds = time.perf_counter() - started
            z_train, z_test = (z if estimator is None else estimator.transform(z) for z in (train, test))
            for form, (distance, anchor) in FORMS.items():
                found = classify(
                    torch.from_numpy(z_test),
                    torch.from_numpy(z_train),
                    torch.from_numpy(y[fit_to]),
                    k,
                    get_distance(distance, anchor=anchor),
                )
                error = float((found.numpy() != y[judged]).mean())
                rows.append({"split": number, "map": name, "form": form, "error": error, "fit_s": seconds})
    return pd.DataFrame(rows)


def summarise(errors: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Mean error of every map and form, and its difference to Euclid without a map, paired by split.

    The splits of one set overlap, and what they say is not independent: the interval of the difference is corrected
    for that (`snrlib.stats.mean_interval`).

    Args:
        errors: of `split_errors`.
        level: of confidence.

    Returns:
        One row a map and form: ``map``, ``form``, ``error``, ``standard_error`` (of the mean, as if the splits were
        independent), ``difference``, ``half_width``, ``fit_s`` (median), ``splits``.
    """
    wide = errors.pivot(index="split", columns=["map", "form"], values="error")
    less = wide.sub(wide["none (Euclid)", "absolute"], axis=0)
    table = pd.DataFrame({"error": wide.mean(), "standard_error": wide.sem(), "difference": less.mean()})
    table["half_width"] = less.apply(lambda column: mean_interval(column, level, _TEST_SHARE)[1])
    table["fit_s"] = errors.groupby(["map", "form"]).fit_s.median()
    return table.assign(splits=len(wide)).reset_index()


def unseen_classes(
    train: Vectors, test: Vectors, maps: dict[str, Callable[[], BaseEstimator | None]] = MAPS
) -> pd.DataFrame:
    """R@1 among the vectors of other classes than those that the map was fitted to.

    Args:
        train: (n, M) and (n,), to fit.
        test: the same of other classes, each searched among all others.
        maps: as `MAPS`.

    Returns:
        One row a map and form: ``map``, ``form``, ``precision_at_1``, ``difference`` to the Euclidean search of the
        same queries without a map, and ``low`` and ``high``, its 95 % bootstrap interval over queries.
    """
    labels = torch.from_numpy(test[1])
    plain = retrieval(torch.from_numpy(test[0]), labels, ks=(1,)).precision_at_1
    rows = []
    for name, make in maps.items():
        estimator = make()
        z = test[0] if estimator is None else estimator.fit(*train).transform(test[0])
        for form, (distance, anchor) in FORMS.items():
            hits = retrieval(torch.from_numpy(z), labels, get_distance(distance, anchor=anchor), (1,)).precision_at_1
            low, high = interval(hits - plain)
            rows.append(
                {"map": name, "form": form, "precision_at_1": hits.mean(), "difference": (hits - plain).mean()}
                | {"low": low, "high": high}
            )
    return pd.DataFrame(rows)


def measure_maps() -> Path:
    """All sets of `SETS` under all maps, and unseen classes of glyphs and photographs; minutes.

    Returns:
        The path of ``data/reference/maps.csv``; beside it lie ``maps_unseen.csv`` and ``maps.json``.
    """
    started = time.perf_counter()
    errors = {}
    for name, (vectors, standardise, n_splits) in SETS.items():
        errors[name] = split_errors(*vectors(), MAPS, standardise=standardise, n_splits=n_splits)
        print(f"maps: {name}, {time.perf_counter() - started:.0f} s", flush=True)
    table = pd.concat([summarise(one).assign(set=name) for name, one in errors.items()], ignore_index=True)

    glyphs = unseen_classes(glyph_embeddings("train"), glyph_embeddings("test"), MAPS).assign(set="glyph embeddings")
    birds = unseen_classes(features("train"), features("test"), MAPS_OF_FEW).assign(set="photographs")
    unseen = pd.concat([glyphs, birds])
    print(f"maps: unseen classes, {time.perf_counter() - started:.0f} s", flush=True)
    about = {"command": "snr measure maps", "test_share": _TEST_SHARE, "k": 3, "seed": 0}
    about |= {"minutes": round((time.perf_counter() - started) / 60, 1), "threads": torch.get_num_threads()}
    return stored.write_tables("maps", {"": table, "unseen": unseen}, about | provenance())
