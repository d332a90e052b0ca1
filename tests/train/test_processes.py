"""Two processes train as one does: the loss sees the whole batch, in value and gradient."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from parallel_cases import batch, values_and_gradients, what_one_sees
from training_cases import Result, interrupted, network, together, training

from snrlib.cli.main import main
from snrlib.experiment import running as experiment
from snrlib.train import processes


def test_every_loss_has_one_process_values_and_gradients() -> None:
    expected = values_and_gradients()
    assert len(expected) == 29
    for found in together(2, values_and_gradients):
        assert found.keys() == expected.keys()
        for name, tensors in expected.items():
            assert len(found[name]) == len(tensors) > 4
            assert tensors[1].abs().max() > 1e-6, f"{name}: there is a gradient to compare"
            for a, b in zip(found[name], tensors, strict=True):
                assert (a - b).abs().max() <= 1e-12 * (1 + b.abs().max()), name


def test_each_of_two_processes_sees_what_is_documented() -> None:
    first, second = together(2, what_one_sees)
    for found in (first, second):
        assert (found["size"], found["from the first"]) == (2, 0)
        assert found["gathered"][:, 0].tolist() == [0, 2, 4, 100, 102, 104], "in the order of the processes"
        assert found["refused"] == "batch_size must be a multiple of the 2 processes, got 9"
        assert len(found["drawn"]) == 16, "two steps of half a batch"
    assert not set(first["drawn"]) & set(second["drawn"]), "each has augmentations of its own"
    for a, b in zip(first["weights"], second["weights"], strict=True):
        assert torch.equal(a, b), "all begin with the weights of the first"
    # On the CPU, batch norm sees the share of its process.
    x, model = batch()[0], network(batch_norm=True).double()
    shares = torch.cat([model(share) for share in x.chunk(2)])
    torch.testing.assert_close(first["batch norm"], shares.detach())
    torch.testing.assert_close(second["batch norm"], shares.detach())
    assert (model(x) - shares).abs().max() > 1e-3, "one process would see the whole batch"


def test_a_process_alone_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    x, model = torch.randn(3, 2), network()
    assert (processes.world_size(), processes.rank()) == (1, 0)
    assert processes.gather(x) is x
    assert processes.distribute(model) is model
    assert processes.from_first(lambda: 5) == 5
    processes.barrier()
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes.process_group() as device:
        assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("case", ["AdamW", "softmax classifier", "trainable map"])
def test_two_processes_take_the_steps_of_one(case: str) -> None:
    more: dict[str, Any] = {"steps": 5, "clip": 0.5, "precision": "float32"}
    expected, weights = training(case, **more)
    both: list[Result] = together(2, training, case, **more)
    for history, found in both:
        pd.testing.assert_frame_equal(history.drop(columns="seconds"), expected.drop(columns="seconds"), rtol=1e-4)
        for name, value in weights.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)
    (first, first_weights), (second, second_weights) = both
    assert first.validation.equals(second.validation), "one judgement for all"
    for name, value in first_weights.items():
        assert torch.equal(value, second_weights[name]), f"{name} drifts apart"


def test_two_processes_resume_to_the_same_bits(tmp_path: Path) -> None:
    whole = together(2, training, "all at once", tmp_path / "whole")
    together(2, interrupted, "all at once", tmp_path / "parts", 8)
    assert torch.load(tmp_path / "parts" / "last.pt", weights_only=True)["step"] == 6
    parts = together(2, training, "all at once", tmp_path / "parts")
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["best.pt", "last.pt"], "by one of them"
    for (history, weights), (expected, expected_weights) in zip(parts, whole, strict=True):
        columns = expected.columns.drop("seconds")
        pd.testing.assert_frame_equal(history[columns], expected[columns], check_exact=True)
        for name, value in expected_weights.items():
            if "running_" not in name:  # batch norm's statistics are the first process's, given to all before a step
                assert torch.equal(weights[name], value), name


# --- snr train --------------------------------------------------------------------------------------------------------

SMALL = {"data": "digits", "backbone": "conv4", "embedding_size": 8, "steps": 3, "batch_size": 24, "m": 8}
SMALL |= {"image_size": 16, "seed": 4}
VALUES = [part for name, value in SMALL.items() for part in ("-p", f"{name}={value}")]


def test_snr_train_that_diverges_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def diverging(*arguments: Any, **options: Any) -> Any:
        trained(*arguments, **options)
        raise FloatingPointError("the loss became nan at step 3 of 3")

    trained = experiment.train
    monkeypatch.setattr(experiment, "train", diverging)
    assert main(["train", "-o", str(tmp_path), *VALUES]) == 1
    assert "snr: the loss became nan at step 3 of 3" in capsys.readouterr().err
    assert not (tmp_path / "result.json").exists()
    before = (tmp_path / "checkpoints" / "last.pt").stat().st_mtime_ns
    monkeypatch.setattr(experiment, "train", trained)
    assert main(["train", "-o", str(tmp_path), *VALUES]) == 0
    assert (tmp_path / "checkpoints" / "last.pt").stat().st_mtime_ns == before, "no step was run again"
    _assert_whole(tmp_path, 1)
    assert main(["train", "-o", str(tmp_path)]) == 2
    assert f"{tmp_path} holds result.json; choose another folder" in capsys.readouterr().err


@pytest.mark.slow
def test_snr_train_under_torchrun_writes_one_result(tmp_path: Path) -> None:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "snrlib", "train"]
    done = subprocess.run(
        [sys.executable, *command, "-o", str(tmp_path), *VALUES],
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("Experiment(conv4 on digits, test") == 1, "one of them speaks"
    _assert_whole(tmp_path, 2)


def _assert_whole(folder: Path, n: int) -> None:
    """What `snr train` leaves of n processes."""
    row = json.loads((folder / "result.json").read_text())
    assert row["processes"] == n
    assert row["parameters"].items() >= SMALL.items()
    assert row["data"].keys() == {"digits, train, without validation classes", "digits, test"}
    assert {"experiment", "git_commit", "versions", "finished"} <= row.keys()
    written = {path.name for path in folder.iterdir()}
    assert written == {
        "checkpoints",
        "embeddings.npz",
        "history.csv",
        "model.pt",
        "result.json",
        "ro-crate-metadata.json",
        "scores.csv",
    }
    assert pd.read_csv(folder / "history.csv").step.tolist() == [1, 2, 3]


def test_snr_train_replaces_no_file_of_others(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "history.csv").write_text("my own")
    assert main(["train", "-o", str(tmp_path), *VALUES]) == 2
    assert f"{tmp_path} holds history.csv; choose another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
