"""Photographs of birds and cars as a pretrained network takes them, and its features of them."""

from pathlib import Path
from typing import Any, get_args

import data_copies
import numpy as np
import pytest
import torch
from torch import nn

from snrlib.backbones import embed, embedder, transforms
from snrlib.data import load
from snrlib.data.base import Split
from snrlib.study import bird_features, car_features
from snrlib.study.bird_features import features, measure_features, photographs
from snrlib.utils.torchvision_import import torchvision


def test_the_first_fifty_kinds_are_shared_out(tmp_path: Path) -> None:
    data_copies.cub_copy(tmp_path, classes=51, per_class=3)
    both = {split: photographs(split, tmp_path, per_class=2) for split in get_args(Split)}
    for split, first in (("train", 1), ("test", 26)):
        images, labels, names = both[split]
        assert names == tuple(f"{number:03}.Bird_{number}" for number in range(first, first + 25))
        assert torch.equal(labels, torch.arange(25).repeat_interleave(2))
        assert images.shape == (50, 3, 224, 224)
        assert 0 <= images.min() < images.max() <= 1
        assert len({image.numpy().tobytes() for image in images}) == 50
    alone = photographs.__wrapped__("test", tmp_path, 2)
    assert torch.equal(alone[0], both["test"][0]), "the draws do not depend on the split asked for"
    with pytest.raises(ValueError, match=r"001\.Bird_1 has 3 photographs, 4 are wanted"):
        photographs("train", tmp_path, per_class=4)


def test_too_few_kinds_or_no_photographs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        measure_features(tmp_path / "weights.pth", tmp_path)
    data_copies.cub_copy(tmp_path, classes=30, per_class=2)
    with pytest.raises(ValueError, match="classes 26 to 50 of CUB are wanted, 5 of them are there"):
        photographs("test", tmp_path, per_class=1)


def test_stored_features_are_those_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    weights = tmp_path / "weights.pth"
    torch.save(torchvision.models.get_model("squeezenet1_1").state_dict(), weights)
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).split(4)
    parts: dict[Split, Any] = {
        "train": (images[0], torch.tensor([0, 0, 1, 1]), ("a", "b")),
        "test": (images[1], torch.tensor([0, 0, 1, 1]), ("c", "d")),
    }
    monkeypatch.setattr(bird_features, "photographs", lambda split, root: parts[split])
    assert measure_features(weights) == tmp_path / "data" / "reference" / "cub_features.npz"
    model = embedder("squeezenet1_1", None, weights)
    for split, (pictures, labels, names) in parts.items():
        expected = embed(model, pictures)
        X, y = features(split)
        assert X.shape == (4, 512)
        np.testing.assert_allclose(np.sqrt(X), expected.sqrt(), atol=float(expected.max()) ** 0.5 / 255)
        assert np.array_equal(y, labels)
        assert load("cub_features", split).classes == names


def test_stored_car_features_are_those_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNR_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match="snr measure cars_features"):
        load("cars_features")
    data_copies.cars_copy(tmp_path / "files", classes=4)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())  # stands in for EfficientNet
    asked = []

    def stand_in(*named: Any) -> nn.Module:
        asked.append(named)
        return network

    monkeypatch.setattr(car_features, "embedder", stand_in)
    path = car_features.measure_car_features(tmp_path / "files")
    assert asked == [("efficientnet_lite0", None, "imagenet")]
    assert path == tmp_path / "cache" / "cars_features.npz"
    for split in get_args(Split):
        photographs, found = load("cars196", split, tmp_path / "files", size=128), load("cars_features", split)
        assert found.classes == photographs.classes
        assert torch.equal(found.labels, photographs.labels)
        crop = transforms("efficientnet_lite0", 128)
        expected = network(torch.stack([crop(image) for image, _ in photographs]))
        step = float(load("cars_features").images.max().sqrt()) / 255
        torch.testing.assert_close(found.images.flatten(1).sqrt(), expected.sqrt(), atol=2 * step, rtol=0)
