"""Tuning: as many trials for every distance, in its own unit, on validation classes alone, and none made twice."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from snrlib.study.reference import margin_unit

from snrlib.cli.main import main
from snrlib.data import load
from snrlib.experiment import from_parameters, initial_scale, tuned
from snrlib.experiment import running as experiment
from snrlib.notebooks.find import find_notebook
from snrlib.notebooks.parameters import parameters
from snrlib.notebooks.run import source_fingerprint
from snrlib.study import grid, tuning
from snrlib.study.tuning import MARGINS, RATES, tune

BLOCK: dict[str, Any] = {
    **{"data": ["digits"], "backbone": ["conv4"], "distance": ["euclidean", "snr"], "loss": ["triplet", "n_pair"]},
    **{"seed": [0, 1], "settings": {"steps": 2, "embedding_size": 8}},
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Path:
    """A study with the notebooks of this one and a profile of its own."""
    (tmp_path / "notebooks").symlink_to(repository / "notebooks")
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    _profile(tmp_path, BLOCK)
    return tmp_path


def _profile(root: Path, *blocks: dict[str, Any]) -> None:
    (root / "study.yaml").write_text(yaml.safe_dump({"profiles": {"small": list(blocks)}}))


class Trainings:
    """In place of a training: what it was asked for, and a score that depends on it."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.stop_at: int | None = None
        self.diverges: Callable[[dict[str, Any]], bool] = lambda settings: False

    def __call__(self, settings: dict[str, Any], device: str) -> SimpleNamespace:
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(settings)
        if self.diverges(settings):
            raise FloatingPointError("the loss is nan at step 1")
        return SimpleNamespace(
            validation_score=1 / (1 + abs(settings["learning_rate"] - 0.006) + settings["margin"] / 1e3)
        )


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """Trials without trainings, in this process."""
    fake = Trainings()
    monkeypatch.setattr(tuning, "fit", fake)
    units: dict[str, float] = {}

    def unit(settings: dict[str, Any]) -> float:
        if settings["distance"] not in units:
            units[settings["distance"]] = margin_unit(settings)
        return units[settings["distance"]]

    monkeypatch.setattr(tuning, "margin_unit", unit)
    monkeypatch.setattr(tuning, "run_processes", lambda work, tasks, jobs: [work(*task) for task in tasks])
    return fake


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _by_distance(asked: list[dict[str, Any]], loss: str) -> dict[str, list[dict[str, Any]]]:
    chosen = [settings for settings in asked if settings["loss"] == loss]
    return {name: [one for one in chosen if one["distance"] == name] for name in ("euclidean", "snr")}


def test_every_loss_and_distance_gets_as_many_trials_and_seeds_share_them(root: Path, trainings: Trainings) -> None:
    about = _read(tune("small", trials=6))
    assert len(trainings.asked) == 4 * 6
    groups = {(row["loss"], row["distance"]) for row in about["tuned"]}
    assert len(groups) == len(about["tuned"]) == 4
    for loss, distance in groups:
        trials = [row for row in about["tuning"] if (row["loss"], row["distance"]) == (loss, distance)]
        assert len(trials) == 6
        (best,) = [row for row in about["tuned"] if (row["loss"], row["distance"]) == (loss, distance)]
        assert best["validation_map_at_r"] == max(trial["validation_map_at_r"] for trial in trials)
        assert {name: best[name] for name in ("margin", "learning_rate") if name in best} in [
            {name: trial[name] for name in ("margin", "learning_rate") if name in trial} for trial in trials
        ]
        assert ("margin" in best) == (loss == "triplet"), "N-pair loss has none"


def test_margins_are_tried_in_the_distances_own_unit_and_rates_in_the_networks(
    root: Path, trainings: Trainings
) -> None:
    tune("small", trials=8)
    tried = _by_distance(trainings.asked, "triplet")
    unit = initial_scale(tried["euclidean"][0])
    assert unit != pytest.approx(1, rel=0.2)
    usual = experiment.default_settings("digits", "conv4")["learning_rate"]
    for name, scale in (("euclidean", unit), ("snr", 1.0)):
        margins = [settings["margin"] / scale for settings in tried[name]]
        rates = [settings["learning_rate"] / usual for settings in tried[name]]
        assert margins[:4] == pytest.approx([0.3, 1, 0.1, 2], rel=0.01), "the same first ones for every distance"
        assert rates[:4] == pytest.approx([1, 0.5, 2, 1.5])
        assert all(MARGINS[0] * 0.99 <= value <= MARGINS[1] * 1.01 for value in margins)
        assert all(RATES[0] * 0.99 <= value <= RATES[1] * 1.01 for value in rates)
        assert len(set(margins)) == len(margins)


def test_trials_use_validation_classes_and_a_seed_that_is_not_reported(root: Path, trainings: Trainings) -> None:
    about = _read(tune("small", trials=1))
    assert {settings["validation_share"] for settings in trainings.asked} == {0.4}, "that of the data set"
    assert {settings["seed"] for settings in trainings.asked} == {about["seed"]}
    assert about["seed"] not in BLOCK["seed"]
    assert {settings["every"] for settings in trainings.asked} == {2}, "validated once: no best moment is picked"


def test_a_tuning_never_loads_the_test_classes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = experiment.images_of

    def images(settings: dict[str, Any], split: Any) -> Any:
        assert split == "train"
        return load(settings, split)

    for module in (experiment, tuning):
        monkeypatch.setattr(module, "images_of", images)
    monkeypatch.setattr(tuning, "run_processes", lambda work, tasks, jobs: [work(*task) for task in tasks])
    _profile(root, {**BLOCK, "loss": ["triplet"], "distance": ["snr"]})
    (row,) = _read(tune("small", trials=2))["tuned"]
    assert 0 < row["validation_map_at_r"] <= 1


def test_an_interrupted_tuning_goes_on_with_the_trials_it_would_have_made(
    root: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = _read(tune("small", trials=7))
    expected, trainings.asked = trainings.asked, []
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "other"))
    for stop in (2, 9, 10):
        trainings.stop_at = stop
        with pytest.raises(KeyboardInterrupt):
            tune("small", trials=7)
    trainings.stop_at = None
    again = _read(tune("small", trials=7))
    assert trainings.asked == expected
    assert again["tuned"] == whole["tuned"]
    finished = len(trainings.asked)
    tune("small", trials=7)
    assert len(trainings.asked) == finished, "nothing is repeated"


def test_more_trials_go_on_from_the_first_and_fewer_are_the_first_of_them(root: Path, trainings: Trainings) -> None:
    few = _read(tune("small", trials=3))
    tune("small", trials=6)
    assert len(trainings.asked) == 4 * 6
    assert _read(tune("small", trials=3))["tuned"] == few["tuned"]


def test_other_settings_and_other_images_start_anew(
    root: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune("small", trials=2)
    _profile(root, {**BLOCK, "settings": {"steps": 3, "embedding_size": 8}})
    tune("small", trials=2)
    assert len(trainings.asked) == 2 * 4 * 2
    monkeypatch.setattr(tuning, "images_of", lambda settings, split: load("glyphs", split, per_class=1))
    tune("small", trials=2)
    assert len(trainings.asked) == 3 * 4 * 2


def test_a_training_that_diverges_is_a_trial_that_scored_nothing(root: Path, trainings: Trainings) -> None:
    trainings.diverges = lambda settings: settings["learning_rate"] >= 0.0079
    about = _read(tune("small", trials=5))
    assert len(trainings.asked) == 4 * 5
    diverged = [trial for trial in about["tuning"] if trial["diverged"]]
    assert diverged
    assert {trial["validation_map_at_r"] for trial in diverged} == {0.0}
    assert all(row["learning_rate"] < 0.0079 for row in about["tuned"])


def test_what_a_profile_fixes_is_not_tuned(root: Path, trainings: Trainings) -> None:
    _profile(root, {**BLOCK, "settings": {**BLOCK["settings"], "learning_rate": 0.002}})
    about = _read(tune("small", trials=5))
    assert [row["loss"] for row in about["tuned"]] == ["triplet", "triplet"], "N-pair has nothing left to tune"
    assert {settings["learning_rate"] for settings in trainings.asked} == {0.002}
    _profile(root, {**BLOCK, "settings": {**BLOCK["settings"], "margin": 0.7}})
    trainings.asked = []
    tune("small", trials=5)
    assert {settings["margin"] for settings in trainings.asked if settings["loss"] == "triplet"} == {0.7}
    _profile(root, {**BLOCK, "settings": {"margin": 0.7, "learning_rate": 0.002}})
    with pytest.raises(ValueError, match="profile small leaves nothing to tune"):
        tune("small")


def test_cells_and_notebook_05_take_what_was_found(root: Path, trainings: Trainings) -> None:
    before = {cell.name: cell.values for cell in grid.cells("small")}
    about = _read(tune("small", trials=5))
    for cell in grid.cells("small"):
        key = ("digits", "conv4", cell.values["loss"], cell.values["distance"])
        (row,) = [one for one in about["tuned"] if (one["loss"], one["distance"]) == key[2:]]
        found = {name: row[name] for name in ("margin", "learning_rate") if name in row}
        assert cell.values == before[cell.name] | found, "its name stays"
        assert tuned(*key, 8) == found
        settings = from_parameters({name: known.default for name, known in parameters("05").items()} | cell.values)
        assert {name: settings[name] for name in found} == found
        given = from_parameters(
            {name: known.default for name, known in parameters("05").items()}
            | before[cell.name]
            | {"margin": 0.25, "learning_rate": 0.5}
        )
        assert (given["margin"], given["learning_rate"]) == (0.25, 0.5)
        normalised = before[cell.name] | {"normalize_embeddings": True}
        assert from_parameters({name: known.default for name, known in parameters("05").items()} | normalised)[
            "learning_rate"
        ] == pytest.approx(experiment.default_settings("digits", "conv4")["learning_rate"]), "another unit"


def test_a_plan_says_how_many_cells_are_not_tuned(
    root: Path, trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "--profile", "small", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "  8 cells of digits with conv4: 2 distances, 2 losses, 2 seeds\n" in said
    assert "  8 take the usual margin and learning rate; `snr tune --profile small` tunes them\n" in said
    tune("small", trials=1)
    capsys.readouterr()
    assert main(["study", "--profile", "small", "--dry-run"]) == 0
    assert "usual" not in capsys.readouterr().out


def test_the_same_embedding_size_comes_before_another_and_a_tuned_rate_before_none(root: Path) -> None:
    folder = root / "data" / "reference"
    folder.mkdir(parents=True)
    key = {"data": "digits", "backbone": "conv4", "loss": "triplet", "distance": "snr"}
    rows = [
        {**key, "embedding_size": size, "pretrained": False, "margin": size / 100, "learning_rate": 0.01}
        for size in (8, 16)
    ]
    (folder / "tuned_small.json").write_text(json.dumps({"profile": "small", "tuned": rows}))
    study = {"study": {"data": "digits"}, "settings": {"embedding_size": 8}, "tuned_margins": [{**key, "margin": 5.0}]}
    (folder / "z.json").write_text(json.dumps(study))
    args = ("digits", "conv4", "triplet", "snr")
    assert tuned(*args, 8) == {"margin": 0.08, "learning_rate": 0.01}
    assert tuned(*args, 16) == {"margin": 0.16, "learning_rate": 0.01}
    assert tuned(*args, 64)["learning_rate"] == 0.01
    first = {"profile": "a", "tuned": [{**rows[0], "margin": 9.0}]}
    (folder / "tuned_a.json").write_text(json.dumps(first))
    assert tuned(*args, 8, profile="small")["margin"] == 0.08, "a profile's own"
    assert tuned(*args, 8, profile="a")["margin"] == 9.0
    assert tuned(*args, 8, pretrained=True) == {}, "given weights want other rates"
    (folder / "tuned_a.json").unlink()
    (folder / "tuned_small.json").unlink()
    assert tuned(*args, 8) == tuned(*args, 64) == {"margin": 5.0}


def test_a_tuning_that_cannot_be_is_refused(root: Path, trainings: Trainings, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"unknown profile 'large'; study\.yaml has small"):
        tune("large")
    with pytest.raises(ValueError, match="trials must be positive, got 0"):
        tune("small", trials=0)
    _profile(root, {**BLOCK, "backbone": ["linear"]})
    assert main(["tune", "--profile", "small"]) == 2
    assert "features go with backbone linear" in capsys.readouterr().err
    assert not trainings.asked


def test_what_cells_could_not_tell_apart_is_not_tuned(root: Path, trainings: Trainings) -> None:
    _profile(root, BLOCK, {**BLOCK, "settings": {"steps": 5, "embedding_size": 8}})
    with pytest.raises(
        ValueError, match=r"blocks that differ by their settings alone cannot be tuned apart: \('digits'"
    ):
        tune("small")
    _profile(root, {**BLOCK, "settings": {**BLOCK["settings"], "normalize_embeddings": True}})
    with pytest.raises(ValueError, match="embeddings of length 1 are not tuned; give a margin and a learning_rate"):
        tune("small")
    with pytest.raises(ValueError, match="jobs must be positive, got 0"):
        tune("small", jobs=0)
    _profile(root, {**BLOCK, "data": ["cub200"]})
    with pytest.raises(FileNotFoundError, match=r"cub200 is not in .*; `snr data fetch cub200`"):
        tune("small")
    assert not trainings.asked


def test_a_score_that_is_no_number_ends_the_tuning_instead_of_being_tried_for_ever(
    root: Path, monkeypatch: pytest.MonkeyPatch, trainings: Trainings
) -> None:
    monkeypatch.setattr(tuning, "fit", lambda settings, device: SimpleNamespace(validation_score=float("nan")))
    with pytest.raises(ValueError, match="validation score must be finite, got nan"):
        tune("small", trials=2)


def test_a_cell_that_was_tuned_to_other_values_is_not_finished_any_more(root: Path, trainings: Trainings) -> None:
    cell = grid.cells("small")[0]
    cell.output.parent.mkdir(parents=True)
    cell.output.write_text("{}")
    values = {name: known.default for name, known in parameters("05").items()} | cell.values
    row = {"parameters": values, "source": source_fingerprint(find_notebook("05"))}
    cell.output.with_name("result.json").write_text(json.dumps(row))
    assert grid.Grid("small").row(cell) == row
    tune("small", trials=1)
    now = grid.Grid("small")
    assert now.row(now.cells[0]) is None
    assert now.cells[0].name == cell.name
    assert now.missing()[cell.name] == grid.STALE


def test_the_trials_stand_in_one_sqlite_file(root: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = root / "runs"
    monkeypatch.setenv("SNR_RUNS", str(runs))
    tune("small", trials=2)
    names = optuna.get_all_study_names(f"sqlite:///{runs / 'tuning' / 'trials.db'}")
    assert len(names) == 4
    assert sorted(path.name for path in (runs / "tuning").iterdir()) == ["trials.db"]


@pytest.mark.slow
def test_two_processes_tune_at_once(root: Path) -> None:
    about = _read(tune("small", trials=2, jobs=2))
    assert len(about["tuning"]) == 4 * 2
