"""``snr measure NAME``: what it takes, and a profile that is tuned, run and stored, once."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from study_cases import BLOCK, finish, profile

from snrlib.cli.main import main
from snrlib.study import contents, stored
from snrlib.study import measure as module
from snrlib.study.grid import Grid
from snrlib.study.measure import OTHERS, measure
from snrlib.study.profiles import Task, cells
from snrlib.study.tuning import tune
from snrlib.study.workflow import run_study

SETTINGS = {"steps": 2, "embedding_size": 8, "image_size": 16, "validation_share": 0}


def test_names_and_arguments_that_cannot_be_are_refused(
    real_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    profile(real_root, BLOCK, name="small")
    with pytest.raises(ValueError, match=f"unknown 'mnist'; choose a profile, small, or {', '.join(OTHERS)}"):
        measure("mnist")
    with pytest.raises(ValueError, match="jobs must be positive, got 0"):
        measure("small", jobs=0)
    with pytest.raises(ValueError, match=r"--weights is not for a profile; study\.yaml says where those of small are"):
        measure("small", weights=tmp_path / "w.pth")
    with pytest.raises(ValueError, match="cub_features needs --weights"):
        measure("cub_features")
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        measure("robustness", weights=tmp_path / "weights.pth")
    assert main(["measure", "mnist"]) == 2
    assert "snr: unknown 'mnist'" in capsys.readouterr().err


@pytest.mark.parametrize("name", OTHERS)
def test_each_name_is_measured_by_its_function(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def measured(*arguments: Any) -> Path:
        called.append(arguments)
        return Path("found.csv")

    function = {"cub_features": "measure_features"}.get(name, f"measure_{name}")
    monkeypatch.setattr(module, function, measured)
    assert measure(name, 3, "w.pth") == [Path("found.csv")]
    assert called == [{"robustness": (3, "w.pth"), "maps": (), "embeddings": (), "hashing": (3,)}.get(name, ("w.pth",))]


@pytest.mark.parametrize("word", ["measure", "reference"])
def test_the_command_measures_and_renews_the_contents(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    called: list[Any] = []

    def measured(*arguments: Any) -> list[Path]:
        called.append(arguments)
        return [Path("one.csv"), Path("two.csv")]

    monkeypatch.setattr(module, "measure", measured)
    monkeypatch.setattr(contents, "write_contents", lambda: called.append("contents"))
    assert main([word, "robustness", "--jobs", "3", "--weights", "w.pth"]) == 0
    assert capsys.readouterr().out == "one.csv\ntwo.csv\n"
    assert called == [("robustness", 3, "w.pth"), "contents"]


def test_a_profile_is_tuned_then_run_then_stored(
    real_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    profile(real_root, {**BLOCK, "seed": [0, 1]}, name="small")
    first, *others = cells("small")
    finish(first)
    called: list[Any] = []
    ends = [others[:-1], others[-1:]]

    def run(tasks: list[Task], jobs: int) -> None:
        called.append([task.name for task in tasks])
        for task in ends.pop(0):
            finish(task)

    monkeypatch.setattr(module, "tune", lambda name, jobs: called.append(("tune", name, jobs)))
    monkeypatch.setattr(module, "finish_tasks", run)
    monkeypatch.setattr(module, "store", lambda name: [Path(f"{name}.csv")])
    assert main(["measure", "small"]) == 1
    said = capsys.readouterr().err
    assert said == f"snr: 1 of 4 cells are missing, as {others[-1].name}: it did not run to its end\n"
    assert called == [("tune", "small", 2), [task.name for task in others]], "no notebook"
    key = {"data": "digits", "backbone": "conv4", "loss": "triplet", "map": "", "pretrained": False}
    rows = [{**key, "distance": name, "embedding_size": 64} for name in BLOCK["distance"]]
    (real_root / "data" / "reference").mkdir(parents=True)
    (real_root / "data" / "reference" / "tuned_small.json").write_text(json.dumps({"profile": "small", "tuned": rows}))
    called.clear()
    assert measure("small", jobs=1) == [Path("small.csv")]
    assert called == [[others[-1].name]], "it is tuned by now"


@pytest.mark.slow
def test_a_tiny_profile_is_measured_once(
    real_root: Path, in_process: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """With the real notebook 05, whose cells are run in processes of their own."""
    monkeypatch.setattr(module, "tune", lambda name, jobs: tune(name, 2, jobs))
    profile(real_root, {**BLOCK, "settings": SETTINGS}, name="small")
    folder = real_root / "data" / "reference"
    assert measure("small") == [folder / "small.csv"]
    found = stored.read("small")
    chosen = {row["distance"]: row["margin"] for row in stored.tuned_rows()}
    own = found.runs[found.runs.judge == "training"]
    assert dict(zip(own.distance, own.margin, strict=True)) == chosen
    assert own.precision_at_1.between(0.5, 1).all()
    assert {path.name for path in folder.iterdir()} == {"tuned_small.json", "small.csv", "small.json"}
    before = {path: path.stat().st_mtime_ns for path in (real_root / "data" / "runs").rglob("*.*") if path.is_file()}
    table = (folder / "small.csv").read_bytes()
    assert main(["measure", "small"]) == 0
    assert (folder / "small.csv").read_bytes() == table
    for task in Grid("small").notebooks:
        finish(task)
    assert run_study("small") == 0
    assert "Profile small: 2 cells, 2 up to date; 12 notebooks, 12 up to date" in capsys.readouterr().out
    scores = pd.read_csv(real_root / "data" / "runs" / "grid" / "small.csv").precision_at_1
    assert scores.tolist() == pytest.approx(own.query("anchor != 'ref'").precision_at_1.tolist(), abs=1e-5)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing was done again"
