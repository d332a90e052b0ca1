"""Tables of experiments: your own runs read back as they were."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from snrlib.distances import get_distance
from snrlib.evaluate import confusion
from snrlib.experiment import default_settings, experiment
from snrlib.study import tables as results
from snrlib.study.tables import confusions_of, differences, gather_runs, run_now, table_of

SMALL = {"steps": 2, "image_size": 16, "embedding_size": 8}


MAPPED = ["mahalanobis", "relative_mahalanobis", "mahalanobis/whitening", "relative_mahalanobis/lmnn"]
MAPPED += ["mahalanobis/learned", "relative_mahalanobis/learned"]


@pytest.mark.parametrize("anchor", ["query", "ref"])
@pytest.mark.parametrize("distance", ["snr", *MAPPED])
def test_own_runs_are_gathered_as_they_were(
    distance: str, anchor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = experiment(default_settings("digits", "conv4", distance=distance, anchor=anchor, **SMALL))
    done.save(tmp_path / "one")
    row = {"parameters": {"data": "digits"}, "metrics": done.metrics}
    (tmp_path / "one" / "result.json").write_text(json.dumps(row))
    monkeypatch.setattr(results, "is_current", lambda _: True)
    found = gather_runs("digits", tmp_path)
    pd.testing.assert_frame_equal(found.runs, table_of(done), check_like=True)
    key = ["class", "taken_for"]
    counted, expected = (
        table.astype(dict.fromkeys(key, str)).sort_values(key, ignore_index=True)
        for table in (found.confused, confusions_of(done))
    )
    pd.testing.assert_frame_equal(counted, expected)
    with pytest.raises(FileNotFoundError, match="no current run on glyphs; `snr run 05 -p data=glyphs` makes one"):
        gather_runs("glyphs", tmp_path)


def test_confusions_of_a_mahalanobis_distance_are_those_of_euclid_behind_its_map() -> None:
    done = experiment(default_settings("digits", "conv4", distance="mahalanobis", **SMALL))
    mapped = done.embeddings @ done.distance.map.get_buffer("components").T
    behind, before = (
        confusion(x, done.test.labels, distance=get_distance("euclidean"), classes=done.test.classes).to_numpy()
        for x in (mapped, done.embeddings)
    )
    off_diagonal = behind[~np.eye(len(behind), dtype=bool)]
    assert confusions_of(done)["count"].tolist() == sorted(off_diagonal[off_diagonal > 0].tolist(), reverse=True)
    assert (behind != before).any(), "the map matters"


def test_new_experiments_are_checked_before_the_first_one_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "experiment", lambda settings: pytest.fail("trained"))
    with pytest.raises(ValueError, match="softmax trains no map"):
        run_now("digits", ["conv4"], ["triplet", "softmax"], ["euclidean", "mahalanobis"], (0,), **SMALL)


def test_new_experiments_cover_every_combination() -> None:
    found = run_now("digits", ["conv4"], ["triplet", "softmax"], ["euclidean", "snr"], (0, 1), **SMALL)
    kinds = found.runs[["loss", "distance", "seed"]].drop_duplicates()
    assert len(kinds) == 8
    assert set(found.confused.loss) == {"triplet", "softmax"}


# --- differences ------------------------------------------------------------------------------------------------------


def _judged(distance: str, judge: str, scores: list[float]) -> pd.DataFrame:
    fixed = {"backbone": "conv4", "loss": "triplet", "distance": distance, "judged_by": judge}
    return pd.DataFrame([{**fixed, "seed": seed, "EER": score} for seed, score in enumerate(scores)])


def test_two_ways_to_search_one_network_are_compared_by_seed() -> None:
    own, euclid = [0.20, 0.24, 0.19, 0.30], [0.18, 0.21, 0.18, 0.27]
    runs = pd.concat([_judged("snr", "training distance", own), _judged("snr", "Euclid", euclid)])
    found = differences(runs, "judged_by", "Euclid", "EER")
    assert found.index.tolist() == [("conv4", "triplet", "snr", "training distance")]
    interval = stats.ttest_rel(own, euclid).confidence_interval(0.95)
    row = found.iloc[0]
    assert row["mean"] - row.half_width == pytest.approx(interval.low, rel=1e-12)
    assert row["mean"] + row.half_width == pytest.approx(interval.high, rel=1e-12)
    assert (row.seeds, row.verdict) == (4, "higher")
    swapped = differences(runs, "judged_by", "training distance", "EER").iloc[0]
    assert (swapped["mean"], swapped.verdict) == (pytest.approx(-row["mean"]), "lower")
    with pytest.raises(ValueError, match="judged_by 'Minkowski' is not among Euclid, training distance"):
        differences(runs, "judged_by", "Minkowski", "EER")


def test_what_has_no_partner_is_left_out_and_one_seed_shows_nothing() -> None:
    runs = pd.concat(
        [
            _judged("snr", "training distance", [0.3]),
            _judged("snr", "Euclid", [0.1]),
            _judged("mahalanobis", "training distance", [0.2, 0.4]),
        ]
    )
    found = differences(runs, "judged_by", "Euclid", "EER")
    assert found.index.get_level_values("distance").tolist() == ["snr"]
    assert found.verdict.tolist() == ["no difference shown"]
    assert np.isnan(found.half_width.iloc[0])
    alone = pd.concat([_judged("snr", "Euclid", [0.1]), _judged("mahalanobis", "training distance", [0.2])])
    assert differences(alone, "judged_by", "Euclid", "EER").empty
