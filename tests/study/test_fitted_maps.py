"""Fitted maps on fixed vectors: the protocol against scikit-learn, its intervals, and what it stores."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t as student_t
from sklearn.datasets import load_iris
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from snrlib.data import load
from snrlib.data.base import Split
from snrlib.distances import get_distance
from snrlib.evaluate import retrieval
from snrlib.experiment import Settings
from snrlib.mahalanobis import Whitening
from snrlib.study import fitted_maps, stored
from snrlib.study.fitted_maps import (
    FORMS,
    MAPS,
    MAPS_OF_FEW,
    SETS,
    balance,
    glyph_embeddings,
    measure_maps,
    split_errors,
    summarise,
    unseen_classes,
)

FEW = {name: MAPS[name] for name in ("none (Euclid)", "whitening")}
WITHIN = {**FEW, "within": lambda: Whitening(within_class=True)}


def _iris() -> tuple[np.ndarray, np.ndarray]:
    """Without ties."""
    X, y = load_iris(return_X_y=True)
    return X + np.random.default_rng(0).normal(scale=1e-3, size=X.shape), y


def _others() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Vectors of forty classes, noisy in their last three components; half of the classes to fit to."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) // 5
    X = rng.normal(size=(40, 6))[labels] + rng.normal(size=(200, 6)) * [0.5, 0.5, 0.5, 4, 4, 4]
    return (X[:100], labels[:100]), (X[100:], labels[100:])


def test_the_balance_scale_has_the_published_numbers() -> None:
    X, y = balance()
    assert X.shape == (625, 4)
    assert len(np.unique(X, axis=0)) == 625
    assert [(y == side).sum() for side in (1, 0, -1)] == [288, 49, 288]  # UCI: left, balanced, right


def test_every_map_is_a_fresh_estimator_with_components() -> None:
    (X, y), _ = _others()
    for make in MAPS.values():
        estimator = make()
        assert estimator is None or estimator is not make()
        if estimator is not None:
            np.testing.assert_allclose(estimator.fit(X, y).transform(X).shape, X.shape)
            assert estimator.components_.shape == (6, 6)
    wide = np.random.default_rng(1).normal(size=(90, 80))
    for name, make in MAPS_OF_FEW.items():
        if (estimator := make()) is not None:
            rows = 64 if name in ("LMNN", "NCA") else 80
            assert estimator.fit(wide, np.arange(90) // 30).transform(wide).shape == (90, rows)


@pytest.mark.parametrize("form", FORMS)
def test_unseen_classes_are_searched_with_others_map(form: str) -> None:
    train, test = _others()
    table = unseen_classes(train, test, WITHIN).set_index(["map", "form"])
    x, labels = map(torch.from_numpy, test)
    L = torch.from_numpy(Whitening(within_class=True).fit(*train).components_)
    name = "mahalanobis" if form == "absolute" else "relative_mahalanobis"
    distance = get_distance(name, components=L, anchor="ref" if form.endswith("ref") else "query").double()
    row: Any = table.loc[("within", form)]
    assert row.precision_at_1 == retrieval(x, labels, distance).precision_at_1.mean()
    plain: Any = table.loc[("none (Euclid)", "absolute")]
    assert plain.precision_at_1 == retrieval(x, labels).precision_at_1.mean()
    assert (plain[["difference", "low", "high"]] == 0).all()
    if form == "absolute":
        assert row.precision_at_1 > plain.precision_at_1, "what is noise in some classes is so in others"
        assert row.difference == pytest.approx(row.precision_at_1 - plain.precision_at_1)
        assert row.low < row.difference < row.high


def test_glyph_embeddings_are_of_the_network_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, asked = fitted_maps.experiment, []

    def short(settings: Settings, device: str) -> Any:
        asked.append(settings)
        small = {"data": "digits", "steps": 1, "every": 1, "batch_size": 20, "m": 4, "image_size": 8}
        return experiment(Settings(**{**vars(settings), **small}), device=device)

    monkeypatch.setattr(fitted_maps, "experiment", short)
    fitted_maps._glyph_network.cache_clear()
    try:
        parts = {split: glyph_embeddings(split) for split in get_args(Split)}
        few, labels = glyph_embeddings(n_classes=2)
    finally:
        fitted_maps._glyph_network.cache_clear()
    (settings,) = asked
    known = {"data": "glyphs", "backbone": "conv4", "distance": "euclidean", "margin": 4.0, "seed": 0}
    assert vars(settings).items() >= known.items()
    for split, (X, y) in parts.items():
        images = load("digits", split)
        assert X.shape == (len(images), 64)
        assert X.dtype == np.float64
        assert np.array_equal(y, images.labels)
    X, y = parts["test"]
    assert np.array_equal(few, X[y < 2])
    assert set(labels) == {0, 1}


@pytest.mark.parametrize("standardise", [False, True])
def test_errors_are_those_of_scikit_learn(standardise: bool) -> None:
    X, y = _iris()
    found = split_errors(X, y, FEW, standardise=standardise, n_splits=4, k=1, seed=5)
    wide = found[found.form == "absolute"].pivot(index="split", columns="map", values="error")
    splits = StratifiedShuffleSplit(4, test_size=0.3, random_state=5).split(X, y)
    for number, (fit_to, judged) in enumerate(splits):
        train, test = X[fit_to], X[judged]
        if standardise:
            scale = StandardScaler().fit(train)
            train, test = scale.transform(train), scale.transform(test)
        inverse = np.linalg.inv(np.cov(train.T, ddof=0))
        by_inverse = KNeighborsClassifier(1, algorithm="brute", metric="mahalanobis", metric_params={"VI": inverse})
        for name, peer in (("none (Euclid)", KNeighborsClassifier(1)), ("whitening", by_inverse)):
            right = peer.fit(train, y[fit_to]).score(test, y[judged])
            assert wide.loc[number, name] == pytest.approx(1 - right)


def test_only_a_reference_anchor_changes_errors() -> None:
    X, y = _iris()
    found = split_errors(X, y, FEW, n_splits=5, k=1)
    again = split_errors(np.column_stack([X, np.full(len(X), 7.0)]), y, FEW, n_splits=5, k=1)
    pd.testing.assert_frame_equal(found.drop(columns="fit_s"), again.drop(columns="fit_s"))
    wide = found.pivot(index=["map", "split"], columns="form", values="error")
    assert (wide["absolute"] == wide["relative, anchor query"]).all()
    assert (wide["absolute"] != wide["relative, anchor ref"]).any()
    assert set(wide.columns) == set(FORMS)


def test_intervals_are_corrected_for_overlapping_splits() -> None:
    rng = np.random.default_rng(0)
    rows = [(split, name, "absolute", rng.random(), 0.5) for split in range(6) for name in FEW]
    errors = pd.DataFrame(rows, columns=["split", "map", "form", "error", "fit_s"])
    table = summarise(errors).set_index("map")
    row: Any = table.loc["whitening"]
    a, b = (errors[errors["map"] == name].error.to_numpy() for name in ("whitening", "none (Euclid)"))
    assert row.error == pytest.approx(a.mean())
    assert row.standard_error == pytest.approx(a.std(ddof=1) / 6**0.5)
    assert row.difference == pytest.approx((a - b).mean())
    naive = student_t.ppf(0.975, 5) * (a - b).std(ddof=1) / 6**0.5
    assert row.half_width == pytest.approx(naive * (1 + 6 * 0.3 / 0.7) ** 0.5)
    assert (row.splits, row.fit_s) == (6, 0.5)
    assert summarise(errors, 0.8).half_width.iloc[-1] < row.half_width
    assert (table.loc["none (Euclid)", ["difference", "half_width"]] == 0).all()


def test_the_measured_tables_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = _iris()
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    monkeypatch.setattr(fitted_maps, "SETS", {"iris": (lambda: (X, y), False, 2)})
    monkeypatch.setattr(fitted_maps, "glyph_embeddings", lambda split="test", n_classes=None: (X[:100], y[:100]))
    monkeypatch.setattr(fitted_maps, "features", lambda split: (X[50:], y[50:]))
    monkeypatch.setattr(fitted_maps, "MAPS", FEW)
    monkeypatch.setattr(fitted_maps, "MAPS_OF_FEW", FEW)
    path = measure_maps()
    assert path == tmp_path / "data" / "reference" / "maps.csv"
    table, unseen = stored.read_table("maps"), stored.read_table("maps", "unseen")
    assert len(table) == len(FEW) * len(FORMS)
    assert (table.splits == 2).all()
    assert set(unseen["set"]) == {"glyph embeddings", "photographs"}
    assert len(unseen) == 2 * len(FEW) * len(FORMS)
    about = stored.read_about("maps")
    assert about["command"] == "snr measure maps"
    assert {"versions", "minutes", "threads"} <= about.keys()


def test_the_stored_tables_hold_every_map_and_form() -> None:
    table, unseen = stored.read_table("maps"), stored.read_table("maps", "unseen")
    rows = {(name, map, form) for name in SETS for map in MAPS for form in FORMS}
    assert set(table[["set", "map", "form"]].itertuples(index=False, name=None)) == rows
    splits = table.groupby("set").splits.unique()
    assert all(splits[name] == [n_splits] for name, (_, _, n_splits) in SETS.items())
    rows = {("glyph embeddings", map, form) for map in MAPS for form in FORMS}
    rows |= {("photographs", map, form) for map in MAPS_OF_FEW for form in FORMS}
    assert set(unseen[["set", "map", "form"]].itertuples(index=False, name=None)) == rows
