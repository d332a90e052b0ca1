"""Classifiers of Tiny ImageNet, whose trunk others start from."""

import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from data_copies import tiny_imagenet_copy
from oracles import bad_options, refusals
from torch import nn
from torch.nn import functional as F

from snrlib.backbones import Embedder, embedder
from snrlib.cli.main import main
from snrlib.data import LabelledImages
from snrlib.losses import SoftmaxClassifier
from snrlib.study import pretraining
from snrlib.study.pretraining import RECIPES, pretrain
from snrlib.train.state import Training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    tiny_imagenet_copy(root)
    return root


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pretrained"


@pytest.mark.parametrize(("network", "size"), [("resnet18", 16), ("alexnet", 63)])
def test_an_embedder_starts_from_the_trunk_alone(network: str, size: int, data: Path, cache: Path) -> None:
    row = pretrain(network, 100, size, steps=1, root=data)
    stem = f"{network}-tinyimagenet100-{size}"
    assert sorted(path.name for path in cache.iterdir()) == [f"{stem}.json", f"{stem}.pth"], "no checkpoints are left"
    assert json.loads((cache / row["weights"]).with_suffix(".json").read_text()) == row
    expected = {"network": network, "classes": 100, "size": size, "steps": 1, "images": 100}
    assert {name: row[name] for name in expected} == expected
    assert 0 <= row["top_1"] <= 1
    file = torch.load(cache / row["weights"], weights_only=True)
    model = embedder(network, 8, cache / row["weights"])
    assert not model.given_head
    trained, fresh = model.trunk.state_dict(), embedder(network, 8).trunk.state_dict()
    assert all(torch.equal(file[f"trunk.{name}"], value) for name, value in trained.items())
    assert file.keys() == {f"trunk.{name}" for name in fresh}


def test_a_killed_training_goes_on_to_the_bit(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = partial(pretrain, "resnet18", size=32, steps=4, root=data)
    monkeypatch.setattr(pretraining, "_EVERY", 1)
    expected = short()
    weights = torch.load(cache / expected["weights"], weights_only=True)
    for path in list(cache.iterdir()):
        path.unlink()
    step, taken = Training.take_step, list[int]()

    def killed(self: Training, *batch: Any) -> Any:
        taken.append(self.step)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(Training, "take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        short()
    assert not list(cache.glob("*.pth"))
    found = short()
    assert taken == [0, 1, 2, 2, 3]
    assert (found["top_1"], found["loss"]) == (expected["top_1"], expected["loss"])
    again = torch.load(cache / found["weights"], weights_only=True)
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def test_what_is_finished_is_not_trained_again(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pretrain("resnet18", 100, 16, steps=1, root=data)
    monkeypatch.setattr(pretraining, "train", None)
    assert pretrain("resnet18", 100, 16, steps=1, root=data) == first
    with pytest.raises(FileExistsError, match=r"100-16\.json is of 1 steps, not of 2.*remove it to train anew"):
        pretrain("resnet18", 100, 16, steps=2, root=data)


def test_validation_images_never_train(data: Path) -> None:
    for classes, kept in itertools.product((200, 100), (True, False)):
        images = pretraining._images(data, classes)[0 if kept else 1]
        assert (images.factors.is_training_image == kept).all()
        assert images.labels.bincount().tolist() == [2 if kept else 1] * classes
        assert (images.images[:, 0, 0, 0].long() - images.labels).abs().max() <= 1, "the first classes, by their colour"


def test_top_1_counts_images_one_by_one() -> None:
    torch.manual_seed(0)
    data = LabelledImages("random", torch.rand(40, 3, 32, 32), torch.arange(40) % 2, ("a", "b"))
    model = Embedder("resnet18", nn.Flatten(), nn.Identity(), channels=3).eval()
    loss = SoftmaxClassifier(2, 3 * 32 * 32)
    right = [
        loss.neurons(model(image[None]))[0].argmax() == label
        for image, label in zip(data.images, data.labels, strict=True)
    ]
    assert pretraining._top_1(model, loss, data) == sum(right) / 40 not in (0, 1)


def test_images_are_shifted_an_eighth_and_mirrored() -> None:
    image = torch.rand(3, 16, 16)
    wide = F.pad(image, (2, 2, 2, 2), mode="reflect")
    moved = [wide[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
    possible = {tuple(one.flatten().tolist()) for part in moved for one in (part, part.flip(2))}
    torch.manual_seed(0)
    seen = {tuple(pretraining._shifted_and_mirrored(image).flatten().tolist()) for _ in range(600)}
    assert len(possible) == 50
    assert seen == possible


def test_the_command_tells_top_1_and_the_file(data: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--classes", "100", "--size", "16", "--steps", "1", "--root", str(data)]
    assert main(["pretrain", "resnet18", *options]) == 0
    said = capsys.readouterr().out
    assert "resnet18, 1 steps, 100 classes: top-1 0." in said
    assert str(cache / "resnet18-tinyimagenet100-16.pth") in said
    assert main(["pretrain", "resnet18", "--root", str(cache)]) == 2
    assert "tinyimagenet is not there" in capsys.readouterr().err
    assert main(["pretrain", "vgg"]) == 2
    assert f"network must be one of {', '.join(RECIPES)}, got 'vgg'" in capsys.readouterr().err


test_bad_input_is_refused = refusals(
    *bad_options(partial(pretrain, "resnet18"), classes=[50, "200"], size=[0], steps=[0]),
    (partial(pretrain, "conv4"), ValueError, "network must be one of alexnet, resnet18, got 'conv4'"),
)
