"""The reference study: equal trials, margins chosen on validation classes, no finished experiment run twice."""

import io
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from snrlib.study.reference import STUDIES, Study, measure

from snrlib.cli.main import main
from snrlib.experiment import default_settings, experiment, initial_scale, tuned, untrained
from snrlib.study import reference
from snrlib.study.tables import stored, summary, under_training_distance

SMALL = Study(
    data="digits",
    backbones={"conv4": {}},
    distances=("euclidean", "snr"),
    margins=(0.1, 1.0),
    validation_share=0.4,
    seeds=(0, 1),
    settings={"steps": 2, "image_size": 16, "embedding_size": 8, "batch_size": 16, "m": 8},
)


class _Here:
    """A pool that runs everything at once, in this process."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def __enter__(self) -> "_Here":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def shutdown(self, cancel_futures: bool) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of its own, ``digits``, in a folder of its own; returns ``data/reference``."""
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setitem(STUDIES, "digits", SMALL)
    return tmp_path / "data" / "reference"


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, without processes of its own."""
    monkeypatch.setattr(reference, "ProcessPoolExecutor", _Here)
    return place


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One measured study, to be read only: its ``data/reference``, and what was printed meanwhile."""
    folder = tmp_path_factory.mktemp("study")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(printed):
        monkeypatch.setenv("SNR_ROOT", str(folder))
        monkeypatch.setenv("SNR_RUNS", str(folder / "runs"))
        monkeypatch.setitem(STUDIES, "digits", SMALL)
        monkeypatch.setattr(reference, "ProcessPoolExecutor", _Here)
        assert measure("digits") == folder / "data" / "reference" / "digits.csv"
    return folder / "data" / "reference", printed.getvalue()


def _cells(place: Path) -> dict[str, int]:
    folder = place.parent.parent / "runs" / "reference" / "digits"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}


def test_a_study_writes_its_runs_and_their_provenance(measured: tuple[Path, str]) -> None:
    here, out = measured
    assert sorted(path.name for path in here.iterdir()) == ["digits.csv", "digits.json"]
    table = pd.read_csv(here / "digits.csv", keep_default_na=False)
    assert len(table) == 2 * 3 + 2 * 2 + 2 * 3, "untrained, Euclid with two judges, SNR with three; two seeds each"
    assert set(table.loss) == {"untrained", "triplet"}
    assert set(table.columns) >= {"precision_at_1", "mean_average_precision_at_r", "NMI", "parameters", "seconds"}
    study = json.loads((here / "digits.json").read_text())
    assert study["command"] == "snr reference digits"
    assert study["study"] == {"data": "digits", "backbones": {"conv4": {}}, "seeds": [0, 1]}
    assert study["experiments"] == 4 + 4 + 2
    assert study["settings"]["steps"] == study["settings"]["every"] == 2
    assert study["settings"]["validation_share"] == 0
    assert set(study["data"]) == {"digits, train", "digits, test"}
    assert {"git_commit", "versions", "finished", "cpu", "core_minutes"} <= study.keys()
    assert "digits, tuning: 4 experiments, 0 finished before" in out
    assert "digits, reported: 4 experiments, 0 finished before" in out


def test_every_distance_gets_the_same_trials_with_a_seed_that_is_not_reported(measured: tuple[Path, str]) -> None:
    here, _ = measured
    study = json.loads((here / "digits.json").read_text())
    trials = {name: [row["margin"] for row in study["tuning"] if row["distance"] == name] for name in SMALL.distances}
    first = json.loads(next((here.parent.parent / "runs" / "reference" / "digits").glob("tuning-*.json")).read_text())
    unit = initial_scale(first["settings"] | {"distance": "euclidean"})
    assert trials == {"euclidean": [float(f"{margin * unit:.3g}") for margin in (0.1, 1.0)], "snr": [0.1, 1.0]}
    cells = [json.loads(path.read_text()) for path in here.parent.parent.glob("runs/reference/digits/*.json")]
    by_stage = {stage: [cell for cell in cells if cell["stage"] == stage] for stage in ("tuning", "reported")}
    seeds = {stage: {cell["settings"]["seed"] for cell in found} for stage, found in by_stage.items()}
    assert seeds["reported"] == {0, 1}
    assert not seeds["tuning"] & seeds["reported"]
    assert all(cell["settings"]["validation_share"] == 0.4 for cell in by_stage["tuning"])
    assert all(cell["settings"]["validation_share"] == 0.0 for cell in by_stage["reported"])
    varied = ("distance", "margin", "seed", "validation_share")
    shared = [{key: value for key, value in cell["settings"].items() if key not in varied} for cell in cells]
    assert all(settings == shared[0] for settings in shared), "nothing else differs"


@pytest.mark.parametrize("distance", ["euclidean", "mahalanobis", "mahalanobis/whitening", "mahalanobis/learned"])
@pytest.mark.parametrize(("loss", "power"), [("triplet", 1.0), ("contrastive", 0.5), ("lifted", 0.5)])
def test_margins_of_absolute_distances_are_multiples_of_their_unit(loss: str, power: float, distance: str) -> None:
    study = replace(SMALL, losses=(loss,), distances=(distance, f"relative_{distance}", "snr"))
    cells = list(reference._tuning(study, None))
    unit = initial_scale(cells[0])
    assert unit > 0
    tried = {name: [cell["margin"] for cell in cells if cell["distance"] == name] for name in study.distances}
    assert tried[distance] == [float(f"{margin * unit**power:.3g}") for margin in study.margins]
    assert tried[f"relative_{distance}"] == tried["snr"] == list(study.margins)
    assert all(cell["loss"] == loss for cell in cells)


def test_n_pair_loss_has_no_margin_to_tune_and_is_reported_with_none(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = replace(SMALL, losses=("n_pair", "triplet"), distances=("snr",), seeds=(0,), margins=(0.1,))
    assert [cell["loss"] for cell in reference._tuning(study, None)] == ["triplet"]
    monkeypatch.setitem(STUDIES, "digits", study)
    measure("digits")
    table = stored("digits").runs
    assert set(table[table.loss == "n_pair"].margin) == {0.0}
    assert [row["loss"] for row in stored("digits").about["tuned_margins"]] == ["triplet"]


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_asks_for_settings_that_go_together(name: str) -> None:
    study = STUDIES[name]
    for backbone in study.backbones:
        for loss in study.losses:
            for distance in study.distances:
                settings = reference._settings(study, None, backbone, loss, distance, 0.5, 0)
                assert (settings["data"], settings["distance"]) == (study.data, distance)
                assert settings["regularizer"] == (0.1 if distance.endswith("/learned") else 0.0)
    assert "euclidean" in study.distances, "the baseline"


@pytest.mark.parametrize("name", STUDIES)
def test_a_stored_study_holds_every_run_that_it_speaks_of(name: str) -> None:
    study, found = STUDIES[name], stored(name)
    own = under_training_distance(found.runs)
    asked = {
        (backbone, loss, distance, seed)
        for backbone in study.backbones
        for loss in study.losses
        for distance in study.distances
        for seed in study.seeds
    }
    assert set(own[["backbone", "loss", "distance", "seed"]].itertuples(index=False, name=None)) == asked
    assert len(own) == len(asked)
    margins = {(row["backbone"], row["loss"], row["distance"]): row["margin"] for row in found.about["tuned_margins"]}
    for (backbone, loss, distance), part in own.groupby(["backbone", "loss", "distance"]):
        assert set(part.margin) == {margins.get((backbone, loss, distance), 0.0)}
        tried = [
            row["validation_map_at_r"]
            for row in found.about["tuning"]
            if (row["backbone"], row["loss"], row["distance"]) == (backbone, loss, distance)
        ]
        assert len(tried) == (0 if loss == "n_pair" else len(study.margins)), "as many trials for each"


def _tuned(distance: str, margin: float, validation: float, test: float) -> dict[str, Any]:
    settings = {"backbone": "conv4", "loss": "triplet", "distance": distance, "margin": margin}
    return {"settings": settings, "validation": validation, "scores": {"Euclid": {"precision_at_1": test}}}


def test_the_margin_is_the_best_on_validation_classes_whatever_the_test_says() -> None:
    tuned = [_tuned("snr", 0.1, 0.5, 0.9), _tuned("snr", 0.3, 0.7, 0.1), _tuned("snr", 1.0, 0.6, 0.8)]
    tuned += [_tuned("euclidean", 0.1, 0.2, 0.1), _tuned("euclidean", 0.3, 0.1, 0.9)]
    found = reference._best_margins(tuned)
    assert found == {("conv4", "triplet", "snr"): 0.3, ("conv4", "triplet", "euclidean"): 0.1}


def test_the_reported_runs_use_the_margin_that_was_found_and_so_do_notebooks(
    measured: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = measured
    monkeypatch.setenv("SNR_ROOT", str(here.parent.parent))
    study = json.loads((here / "digits.json").read_text())
    table = stored("digits").runs
    for row in study["tuned_margins"]:
        tried = [trial for trial in study["tuning"] if trial["distance"] == row["distance"]]
        assert row["margin"] == max(tried, key=lambda trial: trial["validation_map_at_r"])["margin"]
        used = table[(table.loss == "triplet") & (table.distance == row["distance"])].margin
        assert set(used) == {row["margin"]}
        assert tuned("digits", "conv4", "triplet", row["distance"], 64) == {"margin": row["margin"]}
    assert table[table.loss == "untrained"].margin.isna().all()


def test_an_interrupted_study_goes_on_without_repeating_what_is_finished(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run, count = reference.experiment, [0]

    def interrupted(settings: dict[str, Any]) -> Any:
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return run(settings)

    monkeypatch.setattr(reference, "experiment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure("digits")
    finished = _cells(here)
    assert 2 <= len(finished) < 10
    assert not (here / "digits.csv").exists(), "no half study"
    monkeypatch.setattr(reference, "experiment", run)
    measure("digits")
    assert f"digits, tuning: 4 experiments, {len(finished)} finished before" in capsys.readouterr().out
    cells = _cells(here)
    assert len(cells) == 10
    assert {name: cells[name] for name in finished} == finished
    first = (here / "digits.csv").read_bytes()
    monkeypatch.setattr(reference, "experiment", lambda settings: pytest.fail("run again"))
    measure("digits")
    assert _cells(here) == cells
    assert (here / "digits.csv").read_bytes() == first


def test_other_settings_are_other_experiments(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = list(reference._tuning(SMALL, None))
    paths = {reference._cell_path("digits", "tuning", cell) for cell in settings}
    paths |= {reference._cell_path("digits", "reported", cell) for cell in settings}
    paths |= {reference._cell_path("digits", "tuning", {**cell, "steps": 3}) for cell in settings}
    assert len(paths) == 3 * len(settings)


@pytest.mark.slow
def test_processes_of_its_own_give_the_same_numbers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure("digits", jobs=2)
    first = pd.read_csv(place / "digits.csv")
    monkeypatch.setenv("SNR_RUNS", str(place / "other"))
    monkeypatch.setattr(reference, "ProcessPoolExecutor", _Here)
    measure("digits")
    again = pd.read_csv(place / "digits.csv")
    assert first.columns.equals(again.columns)
    np.testing.assert_allclose(first.precision_at_1, again.precision_at_1, atol=0.05)
    pd.testing.assert_frame_equal(first[["distance", "margin", "seed"]], again[["distance", "margin", "seed"]])


def test_an_unknown_study_or_missing_weights_are_refused(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"unknown study 'mnist'; choose from glyphs, .*digits"):
        measure("mnist")
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        measure("digits", weights=tmp_path / "weights.pth")
    with pytest.raises(FileNotFoundError, match=r"digits\.csv is not there; `snr reference digits` measures it"):
        stored("digits")
    assert main(["reference", "mnist"]) == 2
    assert "unknown study 'mnist'" in capsys.readouterr().err


def test_a_stored_study_whose_parts_do_not_belong_together_is_refused(here: Path, measured: tuple[Path, str]) -> None:
    shutil.copytree(measured[0], here)
    assert len(stored("digits").runs) == stored("digits").about["rows"]
    lines = (here / "digits.csv").read_text().splitlines()
    (here / "digits.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(
        ValueError, match=rf"digits\.csv has {len(lines) - 2} rows, digits\.json speaks of {len(lines) - 1}"
    ):
        stored("digits")


# --- summary ----------------------------------------------------------------------------------------------------------


def _runs(*scores: float, distance: str = "snr") -> pd.DataFrame:
    fixed = {"backbone": "conv4", "loss": "triplet", "distance": distance, "judged_by": "Euclid"}
    return pd.DataFrame([{**fixed, "seed": seed, "precision_at_1": score} for seed, score in enumerate(scores)])


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_interval_is_that_of_students_t(level: float) -> None:
    values = [0.61, 0.64, 0.58, 0.66, 0.60]
    found = summary(pd.concat([_runs(*values), _runs(0.1, 0.3, distance="euclidean")]), level=level)
    low, high = stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    row = found.iloc[0]
    assert row["mean"] - row.half_width == pytest.approx(low, rel=1e-12)
    assert row["mean"] + row.half_width == pytest.approx(high, rel=1e-12)
    assert row.seeds == 5
    low, high = stats.t.interval(level, 1, loc=0.2, scale=stats.sem([0.1, 0.3]))
    assert found.iloc[1].half_width == pytest.approx((high - low) / 2)
    assert [index[2] for index in found.index] == ["snr", "euclidean"], "in the order of the runs"


def test_one_seed_has_no_interval() -> None:
    row = summary(_runs(0.5)).iloc[0]
    assert (row["mean"], row.seeds) == (0.5, 1)
    assert np.isnan(row.half_width)


# --- on the real images -----------------------------------------------------------------------------------------------


def _real(name: str) -> Path:
    path = Path(os.environ.get("SNR_DATA", "")) / name
    if "SNR_DATA" not in os.environ or not path.exists():
        pytest.skip(f"SNR_DATA names no folder with {name}")
    return path


@pytest.mark.realdata
def test_pooled_features_of_the_given_weights_reach_the_known_score_on_cub() -> None:
    weights = _real("weights/squeezenet1_1.pth")
    _real("cub50")
    chosen = {"weights": str(weights), "distance": "euclidean", "normalize_embeddings": True}
    done = untrained(default_settings("cub200", "squeezenet1_1", **chosen))
    assert done.scores.precision_at_1["training distance"] == pytest.approx(0.605, abs=0.002)  # by other means
    assert done.scores.precision_at_1["Euclid"] < 0.59, "without the normalisation"


@pytest.mark.realdata
def test_a_stored_run_on_omniglot_comes_out_again() -> None:
    _real("omniglot")
    run = stored("omniglot").runs.query("backbone == 'conv4' and distance == 'snr' and seed == 0").iloc[0]
    study = STUDIES["omniglot"]
    done = experiment(reference._settings(study, None, "conv4", "triplet", "snr", run.margin, 0))
    # Not to the bit: another processor, or another number of threads, rounds otherwise and trains another network.
    assert done.scores.precision_at_1[run.judged_by] == pytest.approx(run.precision_at_1, abs=0.05)
