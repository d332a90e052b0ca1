"""Tuning: as many trials for every distance, in its own unit, on validation classes alone, and none made twice."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from process_cases import processes, until
from study_cases import BLOCK, finish, profile

from snrlib.cli.main import main
from snrlib.data import load
from snrlib.experiment import Settings, default_settings, initial_scale, running
from snrlib.study import tuning
from snrlib.study.grid import STALE, Grid
from snrlib.study.profiles import cells
from snrlib.study.tuned import tuned
from snrlib.study.tuning import MARGINS, RATES, SCALES, is_tuned, margin_unit, tune

FIXED = {"steps": 2, "embedding_size": 8}
BOTH: dict[str, Any] = {**BLOCK, "loss": ["triplet", "lifted", "n_pair", "nt_xent"], "seed": [0, 1], "settings": FIXED}
ONE: dict[str, Any] = {**BLOCK, "distance": ["snr"], "settings": FIXED}


@pytest.fixture
def small(real_root: Path, in_process: None) -> Path:
    """A profile *small* of two distances and two losses, two seeds each."""
    profile(real_root, BOTH, name="small")
    return real_root


class Trainings:
    """In place of a training: what it was asked for, and a score that depends on it."""

    def __init__(self) -> None:
        self.asked: list[Settings] = []
        self.stop_at: int | None = None
        self.diverges: Callable[[Settings], bool] = lambda settings: False

    def __call__(self, settings: Settings, device: str, images: None) -> SimpleNamespace:
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(settings)
        if self.diverges(settings):
            raise FloatingPointError("the loss is nan at step 1")
        return SimpleNamespace(
            validation_score=1 / (1 + abs(settings.learning_rate - 0.006) + (settings.margin or 0) / 1e3)
        )


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """Trials without trainings."""
    fake = Trainings()
    monkeypatch.setattr(tuning, "fit", fake)
    return fake


def _tune(trials: int) -> dict[str, Any]:
    return json.loads(tune("small", trials).read_text())


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["loss"], row["distance"]


def _found(row: dict[str, Any]) -> dict[str, float]:
    return {name: row[name] for name in ("margin", "scale", "learning_rate") if name in row}


def test_each_distance_gets_equal_trials_within_equal_bounds(small: Path, trainings: Trainings) -> None:
    about = _tune(5)
    assert [_key(row) for row in about["tuned"]] == [_key(cell.values) for cell in cells("small")[::2]], "seeds share"
    usual = default_settings("digits", "conv4").learning_rate
    for row in about["tuned"]:
        trials = [trial for trial in about["tuning"] if _key(trial) == _key(row)]
        assert len(trials) == 5
        best = max(trials, key=lambda trial: trial["validation_map_at_r"])
        assert row["validation_map_at_r"] == best["validation_map_at_r"]
        assert _found(row) == _found(best)
        assert ("margin" in row) == (row["loss"] in ("triplet", "lifted")), "N-pair loss has none to tune"
        rates = [trial["learning_rate"] / usual for trial in trials]
        assert rates[:4] == pytest.approx([1, 0.25, 4, 0.5]), "the same first ones for every distance"
        assert all(RATES[0] * 0.99 <= rate <= RATES[1] * 1.01 for rate in rates)
        asked = next(one for one in trainings.asked if (one.loss, one.distance) == _key(row))
        unit = 1.0 if row["distance"] == "snr" else initial_scale(asked)
        unit = unit**0.5 if row["loss"] == "lifted" else unit
        assert ("scale" in row) == (row["loss"] != "triplet")
        if "scale" in row:
            usual_scale = 10 if row["loss"] == "nt_xent" else 1
            scales = [trial["scale"] * unit / usual_scale for trial in trials]
            assert scales[:4] == pytest.approx([1, 0.3, 3, 10], rel=0.01)
            assert all(SCALES[0] * 0.99 <= scale <= SCALES[1] * 1.01 for scale in scales)
        if "margin" in row:
            margins = [trial["margin"] / (unit * trial.get("scale", 1)) for trial in trials]
            assert margins[:4] == pytest.approx([0.3, 1, 0.1, 2], rel=0.01)
            assert all(MARGINS[0] * 0.99 <= margin <= MARGINS[1] * 1.01 for margin in margins)
            assert len(set(margins)) == 5
    assert not set(about["seeds"]) & set(BOTH["seed"]), "seeds that are not reported"
    assert {one.seed for one in trainings.asked} == set(about["seeds"])
    assert {one.validation_share for one in trainings.asked} == {0.4}, "that of the data set"
    assert {one.every for one in trainings.asked} == {2}, "validated once: no best moment is picked"
    assert {one.trunk_learning_rate / one.learning_rate for one in trainings.asked} == {1.0}


@pytest.mark.parametrize(
    ("loss", "map"),
    [
        *((loss, None) for loss in ("triplet", "contrastive", "lifted", "multi_similarity", "nt_xent", "proxy_nca")),
        *(("triplet", map) for map in ("running", "whitening", "learned")),
    ],
)
def test_margins_of_absolute_distances_have_their_own_unit(loss: str, map: str | None) -> None:
    absolute, relative = ("mahalanobis", "relative_mahalanobis") if map else ("euclidean", "snr")
    small = {"image_size": 16, "embedding_size": 8, "loss": loss, "map": map}
    settings = default_settings("digits", "conv4", distance=absolute, **small)
    squared = initial_scale(settings)
    assert squared != pytest.approx(1, rel=0.01)
    assert margin_unit(settings) == pytest.approx(squared**0.5 if loss in ("contrastive", "lifted") else squared)
    assert margin_unit(default_settings("digits", "conv4", distance=relative, **small)) == 1


def test_a_tuning_never_loads_the_test_classes(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images_of = running.images_of

    def images(settings: Settings, split: Any) -> Any:
        assert split == "train"
        return images_of(settings, split)

    for module in (running, tuning):
        monkeypatch.setattr(module, "images_of", images)
    profile(small, ONE, name="small")
    (row,) = _tune(2)["tuned"]
    assert 0 < row["validation_map_at_r"] <= 1


def test_an_interrupted_tuning_makes_the_same_trials(
    small: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile(small, ONE, name="small")
    whole = _tune(6)
    expected, trainings.asked = trainings.asked, []
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "other"))
    for stop in (4, 9):  # between two trials, and within one, whose seeds begin again
        trainings.stop_at = stop
        with pytest.raises(KeyboardInterrupt):
            tune("small", 6)
    trainings.stop_at = None
    assert _tune(6)["tuned"] == whole["tuned"]
    asked = list(dict.fromkeys(trainings.asked))
    assert asked == expected
    _tune(3)
    assert list(dict.fromkeys(trainings.asked)) == expected, "fewer are the first of them"
    _tune(7)
    assert len(dict.fromkeys(trainings.asked)) == 2 * 7, "more go on from them"
    names = sorted(path.suffix for path in (tmp_path / "other" / "tuning").iterdir() if path.suffix != ".log")
    assert names == [".db", *[".json"] * 3], "all trials stand in one file"


def test_other_settings_and_other_images_start_anew(
    small: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile(small, ONE, name="small")
    _tune(1)
    profile(small, {**ONE, "settings": {**FIXED, "steps": 3}}, name="small")
    _tune(1)
    assert len(trainings.asked) == 4
    monkeypatch.setattr(tuning, "images_of", lambda settings, split: load("digits", "test"))
    _tune(1)
    assert len(trainings.asked) == 6


def test_a_training_that_diverges_scored_nothing(small: Path, trainings: Trainings) -> None:
    profile(small, ONE, name="small")
    trainings.diverges = lambda settings: settings.learning_rate >= 0.0079
    about = _tune(5)
    diverged = [trial for trial in about["tuning"] if trial["diverged"]]
    assert 0 < len(diverged) < len(about["tuning"]) == 5
    assert {trial["validation_map_at_r"] for trial in diverged} == {0.0}
    assert about["tuned"][0]["learning_rate"] < 0.0079


def test_what_a_profile_fixes_is_not_tuned(small: Path, trainings: Trainings) -> None:
    both_losses = {**BOTH, "loss": ["triplet", "angular"], "distance": ["euclidean"]}
    profile(small, {**both_losses, "settings": {**FIXED, "learning_rate": 0.002}}, name="small")
    assert [row["loss"] for row in _tune(1)["tuned"]] == ["triplet"], "angular loss has nothing left to tune"
    assert {one.learning_rate for one in trainings.asked} == {0.002}
    one_loss = {**both_losses, "loss": ["triplet"]}
    profile(small, {**one_loss, "settings": {**FIXED, "margin": 0.7}}, name="small")
    trainings.asked = []
    assert not is_tuned("small")
    _tune(1)
    assert is_tuned("small")
    assert {one.margin for one in trainings.asked} == {0.7}
    profile(small, {**one_loss, "settings": {"margin": 0.7, "learning_rate": 0.002}}, name="small")
    assert is_tuned("small"), "nothing is left open"
    with pytest.raises(ValueError, match="profile small leaves nothing to tune"):
        tune("small")


def test_cells_take_found_values_and_turn_stale(small: Path, trainings: Trainings) -> None:
    before = {cell.name: cell.values for cell in cells("small")}
    old = cells("small")[0]
    finish(old)
    assert Grid("small").row(old)
    about = _tune(1)
    for cell in cells("small"):
        (row,) = [one for one in about["tuned"] if _key(one) == _key(cell.values)]
        assert cell.values == before[cell.name] | _found(row), "its name stays"
        key = ("digits", "conv4", cell.values["loss"], cell.values["distance"], None)
        assert tuned(*key, embedding_size=8) == _found(row)
    assert Grid("small").missing()[old.name] == STALE


def test_other_data_take_values_tuned_on_one(small: Path, trainings: Trainings) -> None:
    block = {**BOTH, "loss": ["triplet", "n_pair"], "data": ["glyphs", "digits"], "tuned_on": "digits"}
    profile(small, block, name="small")
    assert not is_tuned("small")
    about = _tune(1)
    assert {row["data"] for row in about["tuned"]} == {one.data for one in trainings.asked} == {"digits"}
    assert is_tuned("small")
    found = {_key(row): _found(row) for row in about["tuned"]}
    taken = [cell.values for cell in cells("small")]
    assert {values["data"] for values in taken} == {"glyphs", "digits"}
    assert all(_found(values) == found[_key(values)] for values in taken)


def test_a_tuning_that_cannot_be_is_refused(small: Path, trainings: Trainings, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"unknown profile 'large'; study\.yaml has small"):
        tune("large")
    for wrong in ({"trials": 0}, {"jobs": 0}):
        with pytest.raises(ValueError, match=r"(trials|jobs) must be positive, got 0"):
            tune("small", **wrong)  # type: ignore[arg-type]
    for change, message in (
        ({"settings": {**FIXED, "normalize_embeddings": True}}, "embeddings of length 1 are not tuned"),
        ({"data": ["cub200"], "backbone": ["resnet18"]}, "cub200 is not in .*; `snr data fetch cub"),
    ):
        profile(small, {**BOTH, **change}, name="small")
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            tune("small")
    profile(small, BOTH, {**BOTH, "settings": {**FIXED, "steps": 5}}, name="small")
    with pytest.raises(ValueError, match=r"that differ by their settings alone cannot be tuned apart: \('digits'"):
        tune("small")
    profile(small, {**BOTH, "backbone": ["linear"]}, name="small")
    assert main(["tune", "--profile", "small"]) == 2
    assert "features go with backbone linear" in capsys.readouterr().err
    assert not trainings.asked


def test_a_score_without_number_ends_the_tuning(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "fit", lambda settings, device, images: SimpleNamespace(validation_score=float("nan")))
    profile(small, ONE, name="small")
    with pytest.raises(ChildProcessError, match="validation score must be finite, got nan; has a class two im"):
        tune("small")


@pytest.mark.slow
def test_a_killed_tuning_makes_the_same_trials(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that processes of their own make, two at a time, and those of this one."""
    profile(small, {**BOTH, "loss": ["triplet"]}, name="small")
    whole = _tune(3)
    runs = tmp_path / "other"
    monkeypatch.setenv("SNR_RUNS", str(runs))
    command = [sys.executable, "-m", "snrlib", "tune", "--profile", "small", "--trials", "3"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until(lambda: _complete(runs / "tuning" / "trials.db") >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not processes("snrlib.study.steps", str(runs)), seconds=60)
    again = _tune(3)
    same = ("loss", "distance", "margin", "learning_rate", "validation_map_at_r")
    trials = [[{name: trial[name] for name in same} for trial in about["tuning"]] for about in (whole, again)]
    assert trials[0] == trials[1]
    assert len(trials[0]) == 2 * 3


def _complete(path: Path) -> int:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as trials:
            return trials.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()[0]
    except sqlite3.OperationalError:  # not there yet
        return 0
