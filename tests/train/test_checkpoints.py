"""Checkpoints: a training that was stopped ends with the same bits, and none goes on from what does not fit."""

import dataclasses
import io
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from training_cases import (
    CASES,
    Result,
    assert_same_bits,
    counting,
    exit_code,
    flip,
    images,
    interrupted,
    network,
    training,
    training_that_dies,
)

from snrlib.distances import get_distance
from snrlib.losses import TripletMarginLoss, ZeroMeanRegularizer
from snrlib.train import Recipe

# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_training_ends_with_the_same_bits(case: str, tmp_path: Path) -> None:
    expected = training(case)
    for step in (8, 3):  # the second begins at 7 and is stopped at 9; neither step has a checkpoint
        interrupted(case, tmp_path, step)
        torch.rand(7)  # other work of the process in between
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 6
    steps: list[Any] = []
    resumed = training(case, tmp_path, counting(steps))
    assert_same_bits(resumed, expected)
    assert len(steps) == 4, "7, 8, 9 and 10: at most those since the checkpoint are repeated"
    assert resumed[0].seconds.is_monotonic_increasing
    assert_same_bits(training(case, tmp_path, counting(steps)), expected)
    assert len(steps) == 4, "a finished one is read, and not run again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


@pytest.mark.parametrize(
    ("moment", "kills"),  # each is the so-many-th such moment of its process, and the step of last.pt afterwards
    [
        ("step", [(2, 0), (5, 3), (6, 6)]),
        ("saving", [(1, 0), (2, 3), (2, 3), (3, 6)]),
        ("replaced", [(1, 3), (1, 3), (2, 6), (1, 6), (2, 9)]),
    ],
)
def test_kill_9_loses_only_steps_since_the_checkpoint(moment: str, kills: list, tmp_path: Path) -> None:
    for number, step in kills:
        assert exit_code(training_that_dies, "AdamW", tmp_path, moment, number) == -9
        last = tmp_path / "last.pt"
        assert (torch.load(last, weights_only=True)["step"] if last.exists() else 0) == step
    assert_same_bits(training("AdamW", tmp_path), training("AdamW"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"], "nothing is left behind"
    assert torch.load(tmp_path / "best.pt", weights_only=True)["step"] == 6


# --- checkpoints that do not fit --------------------------------------------------------------------------------------


def _triplet(distance: str = "snr", margin: float = 0.5, weight: float = 0.1) -> nn.Module:
    return TripletMarginLoss(get_distance(distance), margin, regularizer=ZeroMeanRegularizer(weight))


class Finished(NamedTuple):
    """A training that is over, which nobody changes."""

    folder: Path
    result: Result
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    result = training("AdamW", folder, loss=_triplet())
    return Finished(folder, result, {path.name: path.read_bytes() for path in folder.iterdir()})


OTHER_NUMBERS = {"steps": 11, "seed": 1, "batch_size": 8, "m": 2, "every": 4, "patience": 1, "optimizer": "sgd"}
OTHER_NUMBERS |= {"learning_rate": 0.02, "trunk_learning_rate": 0.02, "weight_decay": 0.0, "warm_up": 0.5, "clip": 1.0}
USUAL = dataclasses.asdict(Recipe(steps=10, batch_size=16, every=3, learning_rate=0.01))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        *[({name: value}, f"{name} was {USUAL[name]!r}, is {value!r}") for name, value in OTHER_NUMBERS.items()],
        ({"augment": flip}, "augment was 'None', is '<function flip>'"),
        ({"crop": nn.Identity()}, r"crop was 'None', is 'Identity\(\)'"),
        ({"data": images(seed=1)}, "data was '[0-9a-f]{16}', is '[0-9a-f]{16}'"),
        ({"validation": None}, "validation was '[0-9a-f]{16}', is None"),
        ({"validation": images(4, seed=9)}, "validation was '[0-9a-f]{16}', is '[0-9a-f]{16}'"),
        ({"network": {"dropout": 0.5}}, r"model was .*p=0\.0.*, is .*p=0\.5"),
        ({"loss": "softmax"}, "loss was .*trainable parameters was"),
        ({"loss": _triplet("euclidean")}, "loss was "),
        ({"loss": _triplet(margin=0.6)}, "loss was "),
        ({"loss": _triplet(weight=0.2)}, "loss was "),
    ],
)
def test_another_training_is_refused_by_what_differs(finished: Finished, change: dict, named: str) -> None:
    last = finished.folder / "last.pt"
    with pytest.raises(ValueError, match="(?s)" + named) as raised:
        training("AdamW", finished.folder, **{"loss": _triplet(), **change})
    assert f"{last} is of another training" in str(raised.value)
    assert last.read_bytes() == finished.files["last.pt"]


def test_numpy_numbers_and_lambdas_can_be_resumed(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {"steps": np.int64(10), "every": np.int64(3), "seed": np.int64(0), "patience": np.int8(9)}
    numbers |= {name: np.float64(0.01) for name in ("learning_rate", "trunk_learning_rate", "weight_decay", "clip")}
    first, second = (lambda image: image for _ in range(2))  # at two addresses
    interrupted("AdamW", tmp_path, 8, **numbers, augment=first)
    assert_same_bits(training("AdamW", tmp_path, **numbers, augment=second), training("AdamW", **numbers))


class _Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def _flip_a_bit(whole: bytes) -> bytes:
    """In the middle of a weight."""
    weight = torch.load(io.BytesIO(whole), weights_only=True)["model"]["5.weight"].numpy().tobytes()
    place = whole.index(weight) + len(weight) // 2
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


def _saved(content: Any) -> Callable[[bytes], bytes]:
    file = io.BytesIO()
    torch.save(content, file)
    return lambda _: file.getvalue()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "beginning": lambda whole: whole[:100],
    "half": lambda whole: whole[: len(whole) // 2],
    "all but the end": lambda whole: whole[:-5],
    "text": lambda whole: b"not a checkpoint at all",
    "a bit": _flip_a_bit,
    "weights": _saved(network().state_dict()),
    "code": _saved({"settings": {}, "step": _Evil(), "model": {}, "loss": {}, "history": []}),
}


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_damaged_checkpoint_is_named_with_advice(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, path = finished.files, tmp_path / name
    advice = "is missing or damaged, or no checkpoint of a training. Remove last.pt and best.pt to start from step 1"
    damaged = [damage(whole[name]) for damage in DAMAGES.values()]
    for content in (*damaged, whole["best.pt"] if name == "last.pt" else None):
        for file, right in whole.items():
            (tmp_path / file).write_bytes(right)
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(f"{path} {advice}")):
            training("AdamW", tmp_path, loss=_triplet())
    assert not (tmp_path / "ran").exists(), "no code is run"
    for file in whole:
        (tmp_path / file).unlink(missing_ok=True)
    assert_same_bits(training("AdamW", tmp_path, loss=_triplet()), finished.result)


def test_an_unwritable_folder_fails_before_any_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    steps: list[Any] = []
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            training("AdamW", folder, counting(steps))
    assert not steps
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    interrupted("AdamW", tmp_path, 4)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # no file can grow beyond 2,000 bytes
    try:
        with pytest.raises(OSError, match=r"(last|best)\.pt could not be written"):
            training("AdamW", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert_same_bits(training("AdamW", tmp_path), training("AdamW"))
