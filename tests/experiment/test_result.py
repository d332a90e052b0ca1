"""Results of experiments: rows, and files that can be read back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from experiment_cases import few_digits, small

from snrlib.backbones import embed, embedder
from snrlib.distances import MAPPED
from snrlib.experiment import MAPS, Experiment, Settings, experiment, read_run
from snrlib.train.recipe import fastest_precision


@pytest.fixture(scope="module", autouse=True)
def _few_digits() -> Iterator[None]:
    with few_digits():
        yield


@pytest.fixture(scope="module")
def done() -> Experiment:
    return experiment(small(), device="cpu")


def test_a_row_is_nested_json(done: Experiment) -> None:
    row = json.loads(json.dumps(done.row()))
    assert row["trained"]
    assert Settings(**row["settings"]) == done.settings
    assert [(one["judge"], one["anchor"]) for one in row["scores"]] == [
        ("training", "query"),
        ("training", "ref"),
        ("euclidean", None),
    ]
    assert [one["precision_at_1"] for one in row["scores"]] == done.scores.precision_at_1.tolist()
    assert row["cost"] == pytest.approx(done.cost)
    assert (row["classes"], row["images"]) == (len(done.test.classes), len(done.test))
    assert (row["best_step"], row["seconds"]) == (done.history.attrs["best"], done.wall_time_s)
    assert (row["settings"]["precision"], row["precision"]) == ("auto", fastest_precision("cpu"))


@pytest.mark.parametrize("row", [{}, {"experiment": {}}, {"metrics": {"setting data": "digits"}}, {"experiment": 3}])
def test_rows_of_earlier_versions_are_refused(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(row))
    with pytest.raises(
        ValueError, match="is not of notebook 07, or of an earlier version of it; run notebook 07 again"
    ):
        read_run(tmp_path / "result.json")


def test_what_is_saved_is_what_came_out(done: Experiment, tmp_path: Path) -> None:
    done.save(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["embeddings.npz", "history.csv", "scores.csv"]
    history = pd.read_csv(tmp_path / "new" / "history.csv", index_col="step")
    assert history.loss.tolist() == pytest.approx(done.history.loss.tolist())
    scores = pd.read_csv(tmp_path / "new" / "scores.csv", index_col="distance")
    pd.testing.assert_frame_equal(scores, done.scores, check_names=False, check_frame_type=False)
    with np.load(tmp_path / "new" / "embeddings.npz", allow_pickle=False) as stored:
        assert np.array_equal(stored["embeddings"], done.embeddings.numpy())
        assert np.array_equal(stored["labels"], done.test.labels.numpy())
        assert tuple(stored["classes"]) == done.test.classes
        assert "components" not in stored, "the settings alone make this distance"


@pytest.mark.parametrize(("distance", "kind"), [(name, kind) for name in MAPPED for kind in MAPS])
def test_a_run_is_read_back_with_its_map(distance: str, kind: str, tmp_path: Path) -> None:
    chosen = {"distance": distance, "map": kind, "anchor": "ref", "normalize_embeddings": True, "steps": 1}
    done = experiment(small(**chosen), device="cpu")
    done.save(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({"experiment": done.row()}))
    run = read_run(tmp_path / "result.json")
    assert run.settings == done.settings
    assert torch.equal(run.embeddings, done.embeddings)
    assert torch.equal(run.labels, done.test.labels)
    assert run.classes == list(done.test.classes)
    again = run.distance
    assert torch.equal(again(done.embeddings), done.distance(done.embeddings))
    assert (again.relative, again.anchor, again.normalize_embeddings) == (done.distance.relative, "ref", True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda arrays: arrays.pop("labels"), "it holds no labels"),
        (lambda arrays: arrays.update(labels=arrays["labels"][:-1]), "labels must be"),
        (lambda arrays: arrays.update(labels=arrays["labels"] + 9), "labels must be from 0 to 4"),
        (lambda arrays: arrays.update(embeddings=np.full((3, 8), np.nan, np.float32)), "embeddings must be finite"),
        (lambda arrays: arrays.update(embeddings=np.array(["a"])), "can't convert"),
    ],
)
def test_damaged_embeddings_of_a_run_are_named(spoil: Any, message: str, done: Experiment, tmp_path: Path) -> None:
    done.save(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({"experiment": done.row()}))
    arrays = dict(np.load(tmp_path / "embeddings.npz"))
    spoil(arrays)
    np.savez(tmp_path / "embeddings.npz", **arrays)
    with pytest.raises(ValueError, match=rf"embeddings\.npz is damaged: .*{message}.*; run notebook 07 again"):
        read_run(tmp_path / "result.json")


def test_the_same_weights_have_the_same_bytes(done: Experiment, tmp_path: Path) -> None:
    for name in ("a", "b"):
        done.save(tmp_path / name, model=True)
    assert (tmp_path / "a" / "model.pt").read_bytes() == (tmp_path / "b" / "model.pt").read_bytes()


def test_the_saved_model_gives_the_same_embeddings(done: Experiment, tmp_path: Path) -> None:
    done.save(tmp_path, model=True)
    torch.manual_seed(9)
    model = embedder("conv4", 8, weights=tmp_path / "model.pt")
    assert torch.equal(embed(model, done.test), done.embeddings)


def test_a_failed_save_leaves_the_files_before(done: Experiment, tmp_path: Path, monkeypatch: Any) -> None:
    done.save(tmp_path, model=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def half(path: Path, **_: Any) -> None:
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("numpy.savez_compressed", half)
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda self, content: half(self))
    for model in (True, False):
        with pytest.raises(OSError, match="disk full"):
            done.save(tmp_path, model)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
