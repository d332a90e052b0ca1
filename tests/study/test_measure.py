"""``snr measure NAME``: what it takes, and a profile that is tuned, run and stored, once."""

from pathlib import Path
from typing import Any

import pytest
from study_cases import BLOCK, profile

from snrlib.cli.main import main
from snrlib.study import contents, evidence, stored
from snrlib.study import measure as module
from snrlib.study.measure import OTHERS, measure
from snrlib.study.tuning import tune

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

    function = {"cub_features": "measure_features", "cars_features": "measure_car_features"}.get(
        name, f"measure_{name}"
    )
    monkeypatch.setattr(module, function, measured)
    assert measure(name, 3, "w.pth") == [Path("found.csv")]
    given: dict[str, tuple[Any, ...]] = {"robustness": (3, "w.pth"), "hashing": (3,)}
    given |= dict.fromkeys(("maps", "embeddings", "weights", "cars_features"), ())
    assert called == [given.get(name, ("w.pth",))]


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
    assert called == [("robustness", 3, "w.pth", None), "contents"]


def test_what_is_open_is_tuned_before_it_runs(real_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile(real_root, {**BLOCK, "seed": [0, 1]}, name="small")
    called: list[Any] = []
    monkeypatch.setattr(evidence, "tune", lambda name, jobs, device: called.append(("tune", name, jobs, device)))
    monkeypatch.setattr(evidence, "finish", lambda title, steps, jobs: called.append(len(steps)))
    monkeypatch.setattr(evidence, "write_studies", lambda name, found: [Path(f"{name}.csv")])
    assert measure("small", jobs=1, device="cpu") == [Path("small.csv")]
    assert called == [("tune", "small", 1, "cpu"), 4 + 2], "four trainings, and two networks before them"
    monkeypatch.setattr(evidence, "is_tuned", lambda name: name == "small")
    assert measure("small", jobs=1) == [Path("small.csv")]
    assert called[2:] == [4 + 2]


@pytest.mark.slow
def test_a_tiny_profile_is_measured_once(
    real_root: Path, in_process: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Tuned, trained and stored; the second time it is read."""
    monkeypatch.setattr(evidence, "tune", lambda name, jobs, device: tune(name, 2, jobs, device))
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
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing was done again"
