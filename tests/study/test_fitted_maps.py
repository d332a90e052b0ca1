"""Fitted maps on fixed vectors: the protocol, its intervals, and what it stores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t as student_t
from sklearn.datasets import load_iris
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from snrlib.evaluate import retrieval
from snrlib.mahalanobis import Whitening
from snrlib.study import fitted_maps as frozen
from snrlib.study.fitted_maps import (
    FORMS,
    MAPS,
    balance,
    measure_features,
    measure_maps,
    split_errors,
    summarise,
    unseen_classes,
)

FEW = {name: MAPS[name] for name in ("none (Euclid)", "whitening")}


def test_the_balance_scale_has_the_published_numbers_of_each_class() -> None:
    X, y = balance()
    assert X.shape == (625, 4)
    assert len(np.unique(X, axis=0)) == 625
    assert [(y == side).sum() for side in (1, 0, -1)] == [288, 49, 288]  # UCI: left, balanced, right


@pytest.mark.parametrize("standardise", [False, True])
def test_errors_of_one_neighbour_are_those_of_scikit_learn_on_the_same_splits(standardise: bool) -> None:
    X, y = load_iris(return_X_y=True)
    X = X + np.random.default_rng(0).normal(scale=1e-3, size=X.shape)  # no ties
    found = split_errors(X, y, FEW, standardise=standardise, n_splits=4, k=1, seed=5)
    wide = found[found.form == "absolute"].pivot(index="split", columns="map", values="error")
    splits = StratifiedShuffleSplit(4, test_size=0.3, random_state=5).split(X, y)
    for number, (fit_to, judged) in enumerate(splits):
        train, test = X[fit_to], X[judged]
        if standardise:
            scale = StandardScaler().fit(train)
            train, test = scale.transform(train), scale.transform(test)
        plain = KNeighborsClassifier(1).fit(train, y[fit_to]).score(test, y[judged])
        inverse = np.linalg.inv(np.cov(train.T, ddof=0))
        by_inverse = KNeighborsClassifier(1, algorithm="brute", metric="mahalanobis", metric_params={"VI": inverse})
        assert wide.loc[number, "none (Euclid)"] == pytest.approx(1 - plain)
        assert wide.loc[number, "whitening"] == pytest.approx(
            1 - by_inverse.fit(train, y[fit_to]).score(test, y[judged])
        )


def test_the_query_anchor_changes_no_error_the_reference_anchor_does_and_a_seed_gives_the_same_table() -> None:
    X, y = load_iris(return_X_y=True)
    found = split_errors(X, y, FEW, n_splits=5, k=1)
    again = split_errors(X, y, FEW, n_splits=5, k=1)
    pd.testing.assert_frame_equal(found.drop(columns="fit_s"), again.drop(columns="fit_s"))
    wide = found.pivot(index=["map", "split"], columns="form", values="error")
    assert (wide["absolute"] == wide["relative, anchor query"]).all()
    assert (wide["absolute"] != wide["relative, anchor ref"]).any()
    assert list(wide.columns.sort_values()) == sorted(FORMS)


def test_columns_that_are_constant_in_the_training_part_are_left_out() -> None:
    X, y = load_iris(return_X_y=True)
    padded = np.column_stack([X, np.full(len(X), 7.0)])
    pd.testing.assert_frame_equal(
        split_errors(X, y, FEW, n_splits=2).drop(columns="fit_s"),
        split_errors(padded, y, FEW, n_splits=2).drop(columns="fit_s"),
    )


def test_the_interval_of_a_difference_is_corrected_for_overlapping_splits() -> None:
    rng = np.random.default_rng(0)
    errors = pd.DataFrame(
        [
            {"split": split, "map": name, "form": "absolute", "error": rng.random(), "fit_s": 0.5}
            for split in range(6)
            for name in FEW
        ]
    )
    row: Any = summarise(errors).set_index("map").loc["whitening"]
    a, b = (errors[errors["map"] == name].error.to_numpy() for name in ("whitening", "none (Euclid)"))
    assert row.error == pytest.approx(a.mean())
    assert row.standard_error == pytest.approx(a.std(ddof=1) / 6**0.5)
    assert row.difference == pytest.approx((a - b).mean())
    naive = student_t.ppf(0.975, 5) * (a - b).std(ddof=1) / 6**0.5
    assert row.half_width == pytest.approx(naive * (1 + 6 * 0.3 / 0.7) ** 0.5)
    assert (row.splits, row.fit_s) == (6, 0.5)


def test_unseen_classes_are_searched_with_the_map_of_the_others() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) // 5
    X = rng.normal(size=(12, 6))[labels] + rng.normal(size=(60, 6)) * [1, 1, 1, 4, 4, 4]
    train, test = (X[:30], labels[:30]), (X[30:], labels[30:])
    table = unseen_classes(train, test, {**FEW, "within": lambda: Whitening(within_class=True)})
    within = Whitening(within_class=True).fit(*train).transform(test[0])
    hits, plain = (retrieval(torch.from_numpy(z), torch.from_numpy(test[1])).precision_at_1 for z in (within, test[0]))
    row: Any = table.set_index(["map", "form"]).loc["within", "absolute"]
    assert row.precision_at_1 == hits.mean()
    assert row.difference == pytest.approx(hits.mean() - plain.mean())
    assert row.low <= row.difference <= row.high
    assert (table[table["map"] == "none (Euclid)"].iloc[0][["difference", "low", "high"]] == 0).all()


def test_the_measured_tables_are_stored_with_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = load_iris(return_X_y=True)
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(frozen, "SETS", {"iris": (lambda: (X, y), False, 2)})
    monkeypatch.setattr(frozen, "glyph_embeddings", lambda split="test", n_classes=None: (X[:100], y[:100]))
    monkeypatch.setattr(frozen, "features", lambda split: (X[50:], y[50:]))
    monkeypatch.setattr(frozen, "MAPS", FEW)
    monkeypatch.setattr(frozen, "MAPS_OF_FEW", FEW)
    path = measure_maps()
    table = pd.read_csv(path)
    assert path == tmp_path / "data" / "reference" / "maps.csv"
    assert set(table["map"]) == set(FEW)
    assert (table.splits == 2).all()
    assert set(pd.read_csv(path.with_name("maps_unseen.csv"))["set"]) == {"glyph embeddings", "photographs"}
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["command"] == "snr reference maps"
    assert about["versions"]


def test_the_stored_table_holds_every_set_map_and_form(repository: Path) -> None:
    table = pd.read_csv(repository / "data" / "reference" / "maps.csv")
    rows = {(name, map, form) for name in frozen.SETS for map in MAPS for form in FORMS}
    assert set(table[["set", "map", "form"]].itertuples(index=False, name=None)) == rows
    splits = table.groupby("set").splits.unique()
    assert all(splits[name] == [n_splits] for name, (_, _, n_splits) in frozen.SETS.items())


def test_features_need_the_photographs_and_the_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        measure_features(tmp_path / "weights.pth", tmp_path)
