"""Finished cells become studies: their rows, where they are from, and single queries against Euclid."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from snrlib.cli.main import main
from snrlib.experiment import experiment, read_run
from snrlib.notebooks.find import find_notebook
from snrlib.notebooks.parameters import parameters
from snrlib.notebooks.run import experiment_fingerprint
from snrlib.stats import paired_over_queries
from snrlib.study.profiles import cells
from snrlib.study.scoreboard import scoreboard
from snrlib.study.stored import read
from snrlib.study.storing import hits
from snrlib.study.tuned import from_parameters


@pytest.fixture(scope="module")
def cells_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose cells were run, without the notebook around them."""
    root = tmp_path_factory.mktemp("finished")
    (root / "notebooks").symlink_to(Path(__file__).resolve().parents[2] / "notebooks")
    block: dict[str, Any] = {"data": ["digits"], "backbone": ["conv4"], "distance": ["euclidean", "snr"]}
    block |= {"loss": ["triplet"], "seed": [0, 1]}
    block |= {"settings": {"steps": 2, "image_size": 16, "embedding_size": 8, "learning_rate": 0.01, "margin": 0.2}}
    (root / "study.yaml").write_text(yaml.safe_dump({"profiles": {"small": [block]}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNR_ROOT", str(root))
        patch.setenv("SNR_RUNS", str(root / "runs"))
        for task in cells("small"):
            p = {name: known.default for name, known in parameters("07").items()} | task.values
            done = experiment(from_parameters(p))
            done.save(task.output.parent)
            task.output.write_text("the executed notebook")
            row = {"parameters": p, "experiment": done.row(), "data": done.fingerprints, "wall_time_s": 60.0}
            row |= {"experiment_source": experiment_fingerprint(find_notebook("07"))}
            row |= {"git_commit": "abc", "versions": {"torch": "2"}, "finished": f"2026-01-0{task.values['seed'] + 1}"}
            task.output.with_name("result.json").write_text(json.dumps(row))
    return root


@pytest.fixture
def finished(cells_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = shutil.copytree(cells_run, tmp_path / "study", symlinks=True)
    monkeypatch.setenv("SNR_ROOT", str(root))
    monkeypatch.setenv("SNR_RUNS", str(root / "runs"))
    return root


def test_finished_cells_become_a_study_with_queries(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "--profile", "small", "--store"]) == 0
    path = finished / "data" / "reference" / "small.csv"
    assert capsys.readouterr().out.strip() == str(path)
    found = read("small")
    for task in cells("small"):
        row = json.loads(task.output.with_name("result.json").read_text())
        chosen = found.runs[(found.runs.distance == task.values["distance"]) & (found.runs.seed == task.values["seed"])]
        kept = [scores["precision_at_1"] for scores in row["experiment"]["scores"]]
        assert chosen.precision_at_1.tolist() == pytest.approx(kept, rel=1e-5)
    assert found.about["grid"] == {"data": "digits", "seeds": [0, 1], "cells": 4}
    assert found.about["core_minutes"] == 4.0
    assert (found.about["git_commit"], found.about["finished"]) == (["abc"], "2026-01-02")
    assert [row["learning_rate"] for row in found.about["chosen"]] == [0.01, 0.01]
    ours, theirs = (
        [hits(read_run(t.output.with_name("result.json"))) for t in cells("small") if t.values["distance"] == name]
        for name in ("snr", "euclidean")
    )
    expected = paired_over_queries(np.array(ours, float), np.array(theirs, float))
    (row,) = found.about["same_queries"]
    assert (row["low"], row["high"]) == pytest.approx(expected.over_both, rel=1e-4)
    assert row["queries"] == expected.queries == len(ours[0])
    board = scoreboard(["small"])
    assert board.difference.dropna().tolist() == pytest.approx([row["difference"]], abs=1e-5)


def test_hits_say_whether_the_nearest_other_matches(finished: Path) -> None:
    task = next(task for task in cells("small") if task.values["distance"] == "snr")
    with np.load(task.output.with_name("embeddings.npz")) as arrays:
        x, labels = arrays["embeddings"], arrays["labels"]
    expected = []
    for i, anchor in enumerate(x.astype(float)):
        distances = np.var(x - anchor, axis=1) / np.var(anchor)
        distances[i] = np.inf
        expected.append(float(labels[distances.argmin()] == labels[i]))
    assert hits(read_run(task.output.with_name("result.json"))) == expected


def test_an_unfinished_grid_is_not_stored(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells("small")[2].output.unlink()
    assert main(["study", "--profile", "small", "--store"]) == 2
    assert "1 of 4 cells of profile small are not finished" in capsys.readouterr().err
    assert not (finished / "data" / "reference").exists()
