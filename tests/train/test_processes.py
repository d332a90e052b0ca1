"""Two processes train as one does: the loss sees the whole batch, in value and gradient."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from parallel_cases import (
    batch,
    stop_in_step_8,
    train_loss_parameters_of_another_seed,
    values_and_gradients,
    write_batch_norm,
    write_draws,
    write_embeddings,
    write_training,
    write_values_and_gradients,
)
from torch import Tensor
from training_cases import network, together, training

from snrlib.cli.main import main
from snrlib.train import processes as parallel


def test_every_loss_has_the_value_and_gradients_of_one_process(tmp_path: Path) -> None:
    together(2, write_values_and_gradients, tmp_path)
    expected = values_and_gradients()
    assert len(expected) == 15
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, tensors in expected.items():
            assert len(found[name]) == len(tensors) > 4
            assert tensors[1].abs().max() > 1e-6, f"{name}: there is a gradient to compare"
            for a, b in zip(found[name], tensors, strict=True):
                assert (a - b).abs().max() <= 1e-12 * (1 + b.abs().max()), name


def test_embeddings_are_gathered_in_the_order_of_the_processes(tmp_path: Path) -> None:
    together(2, write_embeddings, tmp_path)
    expected = torch.cat([torch.arange(6.0).view(3, 2), torch.arange(6.0).view(3, 2) + 100])
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected)


def test_a_process_alone_needs_no_group() -> None:
    x, model = torch.randn(3, 2), network()
    assert (parallel.world_size(), parallel.rank()) == (1, 0)
    assert parallel.gather(x) is x
    assert parallel.distribute(model) is model
    assert parallel.from_first(lambda: 5) == 5
    parallel.barrier()


def test_a_process_alone_gets_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with parallel.process_group() as device:
        assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
        assert not torch.distributed.is_initialized()


# --- train ------------------------------------------------------------------------------------------------------------


def _read(folder: Path, rank: int) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    weights = torch.load(folder / f"{rank}.pt", weights_only=True)
    return pd.read_pickle(folder / f"{rank}.pickle"), weights


@pytest.mark.parametrize("case", ["AdamW", "softmax classifier", "trainable map"])
def test_five_steps_of_two_processes_are_those_of_one(case: str, tmp_path: Path) -> None:
    more: dict[str, Any] = {"steps": 5, "clip": 0.5}
    together(2, write_training, case, tmp_path, False, more)
    expected, weights = training(case, None, **more)
    for rank in range(2):
        history, found = _read(tmp_path, rank)
        columns = ["loss", "learning_rate", "gradient_norm", "validation"]
        pd.testing.assert_frame_equal(history[columns], expected[columns], rtol=1e-4)
        for name, value in weights.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)
    first, second = _read(tmp_path, 0), _read(tmp_path, 1)
    assert first[0].validation.equals(second[0].validation), "one judgement for all"
    for name, value in first[1].items():
        assert torch.equal(value, second[1][name]), f"{name} drifts apart"


def test_two_processes_resume_to_the_bits_of_an_uninterrupted_training(tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    together(2, write_training, "all at once", tmp_path / "whole", True, {})
    last = tmp_path / "parts" / "checkpoints"
    together(2, stop_in_step_8, "all at once", last)
    assert torch.load(last / "last.pt", weights_only=True)["step"] == 6
    together(2, write_training, "all at once", tmp_path / "parts", True, {})
    assert sorted(path.name for path in last.iterdir()) == ["best.pt", "last.pt"], "written by one of them"
    for rank in range(2):
        (history, weights), (expected, expected_weights) = (_read(tmp_path / name, rank) for name in ("parts", "whole"))
        pd.testing.assert_frame_equal(
            history.drop(columns="seconds"), expected.drop(columns="seconds"), check_exact=True
        )
        for name, value in expected_weights.items():
            if "running_" not in name:  # batch norm's statistics are the first process's, given to all before a step
                assert torch.equal(weights[name], value), name


def test_all_begin_with_the_weights_of_the_first(tmp_path: Path) -> None:
    together(2, train_loss_parameters_of_another_seed, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_every_process_draws_augmentations_of_its_own_and_an_uneven_batch_is_refused(tmp_path: Path) -> None:
    together(2, write_draws, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert len(first) == len(second) == 16, "two steps of half a batch"
    assert not set(first) & set(second)
    for rank in range(2):
        assert (tmp_path / f"{rank}.txt").read_text() == "batch_size must be a multiple of the 2 processes, got 9"


def test_on_the_cpu_batch_norm_sees_the_share_of_its_process_as_documented(tmp_path: Path) -> None:
    together(2, write_batch_norm, tmp_path)
    x, _ = batch()
    model = network(batch_norm=True).double()
    shares = torch.cat([model(share) for share in x.chunk(2)])
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt", weights_only=True), shares.detach())
    assert (model(x) - shares).abs().max() > 1e-3, "one process would see the whole batch"
    assert "Batch norm sees a process's own share" in (parallel.__doc__ or "")


# --- snr train --------------------------------------------------------------------------------------------------------

PARAMETERS = """
data: str = "digits"  # images
root: str = ""  # their folder
backbone: str = "conv4"  # network
weights: str = ""  # of its trunk
frozen_trunk: bool = False  # train the last layer only
embedding_size: int = 8  # components
distance: str = "snr"  # distance
anchor: str = "query"  # side
normalize_embeddings: bool = False  # length 1
loss: str = "triplet"  # loss
margin: float = -1.0  # of the loss
regularizer: float = 0.0  # weight
budget: str = "quick"  # steps
steps: int = 3  # steps
batch_size: int = 24  # images a step
m: int = 8  # images a class
learning_rate: float = 0.0  # peak
image_size: int = 16  # side
seed: int = 0  # of the training
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study whose notebook 05 has small defaults."""
    cells = [new_markdown_cell("# What?"), new_code_cell(PARAMETERS.strip(), metadata={"tags": ["parameters"]})]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "05_train.ipynb")
    return tmp_path


def test_snr_train_under_torchrun_trains_together_and_writes_one_result(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = study / "out"
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "snrlib", "train"]
    done = subprocess.run(
        [sys.executable, *command, "-o", str(folder), "-p", "seed=4"],
        env={**os.environ, "SNR_ROOT": str(study), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("Experiment(conv4 on digits, test") == 1, "one of them speaks"
    row = json.loads((folder / "result.json").read_text())
    assert row["processes"] == 2
    assert row["parameters"]["seed"] == row["settings"]["seed"] == 4
    assert row["settings"]["steps"] == 3
    assert row["data"].keys() == {"digits, train, without validation classes", "digits, test"}
    assert {"git_commit", "versions", "finished"} <= row.keys()
    written = sorted(path.name for path in folder.iterdir())
    assert written == ["checkpoints", "embeddings.npz", "history.csv", "model.pt", "result.json", "scores.csv"]
    history = pd.read_csv(folder / "history.csv")
    assert history.step.tolist() == [1, 2, 3]
    monkeypatch.setenv("SNR_ROOT", str(study))
    assert main(["train", "-o", str(folder)]) == 2
    assert f"{folder / 'result.json'} exists; choose another folder" in capsys.readouterr().err


def test_snr_train_that_diverges_says_so_and_goes_on_from_its_checkpoint(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from snrlib.experiment import running as experiment

    monkeypatch.setenv("SNR_ROOT", str(study))
    trained = experiment.train

    def diverging(*arguments: Any, **options: Any) -> Any:
        trained(*arguments, **options)
        raise FloatingPointError("the loss became nan at step 3 of 3")

    monkeypatch.setattr(experiment, "train", diverging)
    assert main(["train", "-o", str(study / "out")]) == 1
    assert "snr: the loss became nan at step 3 of 3" in capsys.readouterr().err
    assert not (study / "out" / "result.json").exists()
    before = (study / "out" / "checkpoints" / "last.pt").stat().st_mtime_ns
    monkeypatch.setattr(experiment, "train", trained)
    assert main(["train", "-o", str(study / "out")]) == 0
    assert (study / "out" / "checkpoints" / "last.pt").stat().st_mtime_ns == before, "no step was run again"
