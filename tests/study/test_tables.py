"""Tables of experiments: rows of runs, and differences between them against scipy and sums by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from snrlib.distances import get_distance
from snrlib.evaluate import confusion
from snrlib.experiment import default_settings, experiment
from snrlib.stats import holm, mean_interval, paired, verdict
from snrlib.study import tables
from snrlib.study.stored import KEY
from snrlib.study.tables import (
    add_confusions,
    confusions_of,
    differences,
    gather_runs,
    loss_table,
    run_now,
    run_rows,
    summary,
    under_training_distance,
)

SMALL = {"steps": 2, "image_size": 16, "embedding_size": 8}


# --- rows of runs -----------------------------------------------------------------------------------------------------

SETTINGS = {"data": "digits", "backbone": "conv4", "loss": "triplet", "distance": "snr", "map": None, "margin": 0.5}
ROW: dict[str, Any] = {
    "trained": True,
    "settings": {**SETTINGS, "seed": 3, "steps": 100},
    "scores": [
        {"judge": "training", "anchor": "query", "precision_at_1": 0.6, "EER": 0.2},
        {"judge": "training", "anchor": "ref", "precision_at_1": 0.5, "EER": 0.3},
        {"judge": "euclidean", "anchor": None, "precision_at_1": 0.4, "EER": 0.1},
    ],
    "cost": {"parameters": 1000, "flops": 20},
    "best_step": 80,
    "seconds": 1.5,
}


def test_a_result_becomes_a_row_per_judge() -> None:
    found = run_rows(ROW)
    assert found[["judge", "anchor", "precision_at_1", "EER"]].to_numpy().tolist() == [
        ["training", "query", 0.6, 0.2],
        ["training", "ref", 0.5, 0.3],
        ["euclidean", "", 0.4, 0.1],
    ]
    shared = {**SETTINGS, "map": "", "variant": "", "seed": 3, "parameters": 1000, "flops": 20, "seconds": 1.5}
    assert all((found[name] == value).all() for name, value in shared.items())
    assert "steps" not in found
    assert under_training_distance(found).precision_at_1.tolist() == [0.6]


def test_an_untrained_network_has_no_loss_and_distance() -> None:
    found = run_rows({**ROW, "trained": False})
    assert (found.loss == "untrained").all()
    assert (found[["distance", "map"]] == "").to_numpy().all()
    assert found.margin.isna().all()
    assert list(zip(found.judge, found.anchor, strict=True)) == [("snr", "query"), ("snr", "ref"), ("euclidean", "")]
    assert under_training_distance(found).empty


@pytest.mark.parametrize(
    ("distance", "kind", "anchor"),
    [
        ("snr", None, "query"),
        ("snr", None, "ref"),
        ("mahalanobis", "running", "query"),
        ("mahalanobis", "whitening", "query"),
        ("relative_mahalanobis", "lmnn", "ref"),
        ("relative_mahalanobis", "learned", "query"),
    ],
)
def test_own_runs_are_gathered_as_they_were(
    distance: str, kind: str | None, anchor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = experiment(default_settings("digits", "conv4", distance=distance, map=kind, anchor=anchor, **SMALL))
    done.save(tmp_path / "one")
    row = {"parameters": {"data": "digits"}, "experiment": done.row()}
    (tmp_path / "one" / "result.json").write_text(json.dumps(row))
    monkeypatch.setattr(tables, "is_current", lambda _: True)
    found = gather_runs("digits", tmp_path)
    pd.testing.assert_frame_equal(found.runs, run_rows(done.row()), check_like=True)
    key = ["class", "taken_for"]
    counted, expected = (
        table.astype(dict.fromkeys(key, str)).sort_values(key, ignore_index=True)
        for table in (found.confused, confusions_of(done))
    )
    pd.testing.assert_frame_equal(counted, expected)
    with pytest.raises(FileNotFoundError, match="no current run on glyphs; `snr run 07 -p data=glyphs` makes one"):
        gather_runs("glyphs", tmp_path)


def test_mahalanobis_confusions_are_euclids_behind_its_map() -> None:
    done = experiment(default_settings("digits", "conv4", distance="mahalanobis", **SMALL))
    mapped = done.embeddings @ done.distance.map.get_buffer("components").T
    behind, before = (
        confusion(x, done.test.labels, distance=get_distance("euclidean"), classes=done.test.classes).to_numpy()
        for x in (mapped, done.embeddings)
    )
    off_diagonal = behind[~np.eye(len(behind), dtype=bool)]
    assert confusions_of(done)["count"].tolist() == sorted(off_diagonal[off_diagonal > 0].tolist(), reverse=True)
    assert (behind != before).any(), "the map matters"


def test_confusions_are_summed_over_seeds_for_each_network() -> None:
    fixed = {**dict.fromkeys(KEY, ""), "data": "digits", "distance": "snr"}
    one = pd.DataFrame([{**fixed, "class": "3", "taken_for": other, "count": n} for other, n in (("8", 5), ("5", 2))])
    other = pd.DataFrame([{**fixed, "class": "3", "taken_for": "5", "count": 4}])
    found = add_confusions([one, other])
    assert found[["taken_for", "count"]].to_numpy().tolist() == [["5", 6], ["8", 5]]
    assert add_confusions([one, other], 1)["taken_for"].tolist() == ["5"]


def test_new_experiments_are_checked_and_cover_every_combination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "experiment", lambda settings: pytest.fail("trained before all are checked"))
    with pytest.raises(ValueError, match="softmax trains no map"):
        run_now("digits", ["conv4"], ["triplet", "softmax"], ["euclidean", "mahalanobis"], (0,), **SMALL)
    done = experiment(default_settings("digits", "conv4", **SMALL))
    monkeypatch.setattr(tables, "experiment", lambda settings: replace(done, settings=settings))
    found = run_now("digits", ["conv4"], ["triplet", "softmax"], ["euclidean", "snr"], (0, 1), **SMALL)
    assert len(found.runs[["loss", "distance", "seed"]].drop_duplicates()) == 2 * 2 * 2
    assert len(found.confused[["loss", "distance"]].drop_duplicates()) == 2 * 2
    assert found.about["settings"].items() >= SMALL.items()


# --- differences ------------------------------------------------------------------------------------------------------


def _runs(scores: dict[tuple[str, str], list[float]], **same: Any) -> pd.DataFrame:
    """Of loss and distance; conv4 on digits, judged by the training distance, if nothing else is said."""
    fixed = {"data": "digits", "backbone": "conv4", "map": "", "variant": "", "judge": "training", "anchor": ""} | same
    return pd.DataFrame(
        [
            {**fixed, "loss": loss, "distance": distance, "seed": seed, "precision_at_1": score}
            for (loss, distance), values in scores.items()
            for seed, score in enumerate(values)
        ]
    )


EUCLID = [0.50, 0.52, 0.48, 0.51]
LARGE, SURE = (0.100, 0.101, 0.099, 0.102), (0.01, 0.02, 0.03, 0.018)
RUNS = _runs(
    {
        **{(loss, "euclidean"): EUCLID for loss in ("triplet", "n_pair", "lifted")},
        ("triplet", "snr"): list(np.add(EUCLID, LARGE)),
        ("triplet", "mahalanobis"): list(np.add(EUCLID, SURE)),
        ("n_pair", "snr"): list(np.subtract(EUCLID, LARGE)),
        ("n_pair", "mahalanobis"): list(np.subtract(EUCLID, SURE)),
        ("lifted", "snr"): list(np.add(EUCLID, (0.1, -0.1, 0.02, -0.03))),
        ("lifted", "mahalanobis"): EUCLID[:1],
    }
)
OUTER: list[Any] = ["data", "backbone", "map", "variant"]


def _by_loss(runs: pd.DataFrame) -> pd.DataFrame:
    return differences(runs, "distance", "euclidean").droplevel(OUTER)


def test_differences_are_paired_by_seed_with_intervals() -> None:
    found: Any = _by_loss(RUNS.sample(frac=1, random_state=0))
    assert len(found) == 6
    for (loss, distance), row in found.iterrows():
        a, b = (
            RUNS[(RUNS.loss == loss) & (RUNS.distance == name)].set_index("seed").precision_at_1
            for name in (distance, "euclidean")
        )
        one = paired(a, b.loc[a.index], n_resamples=10)
        assert (row["mean"], row.half_width) == pytest.approx((one.mean, one.half_width), nan_ok=True)
        assert (row.p, row.effect) == pytest.approx((one.p, one.effect), nan_ok=True)
        assert (row.verdict, row.seeds) == (verdict(one.mean, one.half_width), one.n)
    assert found.p_holm.to_numpy() == pytest.approx(holm(found.p), nan_ok=True)
    assert math.isnan(found.p_holm["lifted", "mahalanobis"])


def test_a_near_copy_joins_no_family() -> None:
    runs = pd.concat([RUNS, RUNS[RUNS.distance == "snr"].assign(distance="relative_euclidean")])
    alone, both = _by_loss(RUNS).p_holm, _by_loss(runs).p_holm
    assert both.xs("relative_euclidean", level="distance").isna().all()
    pd.testing.assert_series_equal(both.dropna(), alone.dropna(), check_index=False)
    assert _by_loss(runs[runs.distance != "snr"]).p_holm.notna().sum() == 5, "no copy of anything there"


def test_an_untrained_pair_is_no_comparison() -> None:
    whole, part = _by_loss(RUNS), _by_loss(RUNS[(RUNS.loss != "lifted") | (RUNS.distance != "snr")])
    assert set(whole.index) - set(part.index) == {("lifted", "snr")}
    assert part.p_holm["n_pair", "mahalanobis"] < whole.p_holm["n_pair", "mahalanobis"], "fewer to correct for"


def test_maps_of_one_distance_are_compared_apart() -> None:
    scores = {"running": [0.6, 0.7, 0.8], "learned": [0.3, 0.2, 0.1]}
    parts = [_runs({("triplet", "mahalanobis"): values}, map=kind) for kind, values in scores.items()]
    found = differences(pd.concat([RUNS, *parts]).query("loss == 'triplet'"), "distance", "euclidean")
    means = found["mean"].xs("mahalanobis", level="distance").droplevel(["data", "backbone", "loss", "variant"])
    for kind, values in scores.items():
        assert means[kind] == pytest.approx(np.mean(np.subtract(values, EUCLID[:3])))
    with pytest.raises(
        ValueError, match="a run has several rows under one distance, map, variant; choose among them first"
    ):
        differences(pd.concat(parts), "distance", "mahalanobis")


def test_two_searches_of_one_network_are_paired() -> None:
    own, euclid = [0.20, 0.24, 0.19, 0.30], [0.18, 0.21, 0.18, 0.27]
    key = ("triplet", "snr")
    parts = [_runs({key: own}, anchor="query"), _runs({key: [0.5] * 4}, anchor="ref")]
    runs = pd.concat([*parts, _runs({key: euclid}, judge="euclidean")])
    found = differences(runs, "judge", "euclidean").droplevel(list(KEY))
    interval = stats.ttest_rel(own, euclid).confidence_interval(0.95)
    row: Any = found.loc["training", "query"]
    assert (row["mean"] - row.half_width, row["mean"] + row.half_width) == pytest.approx(tuple(interval), rel=1e-12)
    assert (row.seeds, row.verdict) == (4, "higher")
    assert found["mean"]["training", "ref"] == pytest.approx(0.5 - np.mean(euclid))
    with pytest.raises(ValueError, match="a run has several rows under one judge, anchor"):
        differences(runs, "judge", "training")
    with pytest.raises(ValueError, match="judge 'Minkowski' is not among euclidean, training"):
        differences(runs, "judge", "Minkowski")


def test_nothing_to_compare_and_one_seed_show_nothing() -> None:
    key = ("triplet", "snr")
    one = pd.concat([_runs({key: [0.3]}), _runs({key: [0.1]}, judge="euclidean")])
    found = differences(one, "judge", "euclidean")
    assert (found.verdict.tolist(), found.seeds.tolist()) == (["no difference shown"], [1])
    assert found[["half_width", "p", "p_holm", "effect"]].isna().to_numpy().all()
    apart = pd.concat([_runs({key: [0.3]}), _runs({("n_pair", "snr"): [0.1]}, judge="euclidean")])
    assert differences(apart, "judge", "euclidean").empty


def test_seeds_without_a_score_are_not_counted() -> None:
    runs = _runs({("triplet", "snr"): [0.4, math.nan, 0.5], ("n_pair", "snr"): [math.nan]})
    triplet, n_pair = summary(runs).to_numpy()
    assert triplet == pytest.approx([*mean_interval([0.4, 0.5]), 2])
    assert n_pair == pytest.approx([math.nan, math.nan, 0], nan_ok=True)


def test_filled_arrows_hold_after_holm_hollow_ones_alone() -> None:
    table = loss_table(RUNS)
    arrows = table.map(lambda text: text[13:]).T
    assert arrows.to_dict("index") == {
        "triplet": {"euclidean": "", "snr": " ▲", "mahalanobis": " △"},
        "n_pair": {"euclidean": "", "snr": " ▼", "mahalanobis": " ▽"},
        "lifted": {"euclidean": "", "snr": "", "mahalanobis": ""},
    }
    assert table.triplet["snr"] == "0.603 ± 0.029 ▲"
    loose = loss_table(RUNS, level=0.8)
    assert (loose.triplet["mahalanobis"][-1], loose.n_pair["mahalanobis"][-1]) == ("▲", "▼"), "at its own bound"
    frozen = _runs({("triplet", "mahalanobis"): EUCLID}, map="whitening")
    assert "mahalanobis, whitening" in loss_table(pd.concat([RUNS, frozen])).index
