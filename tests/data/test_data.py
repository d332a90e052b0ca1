"""Data sets: disjoint classes, seeds, factors, cache, and what is refused."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from snrlib.data import load
from snrlib.data.sets.glyphs import FACES, characters
from snrlib.utils.files import data_folder


def _cache_files() -> list[Path]:
    return sorted(data_folder("cache").glob("glyphs-*.npz"))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", ["glyphs", "digits", "cub_features"])
def test_train_and_test_share_no_class_and_no_image(name: str) -> None:
    train, test = load(name, "train"), load(name, "test")
    assert not set(train.classes) & set(test.classes)
    assert not {image.numpy().tobytes() for image in train.images} & {image.numpy().tobytes() for image in test.images}
    for data in (train, test):
        assert data.images.dtype == torch.float32
        assert data.labels.dtype == torch.int64
        assert data.labels.unique().tolist() == list(range(len(data.classes)))
        assert len(data) == len(data.images) == len(data.labels)
        image, label = data[3]
        assert torch.equal(image, data.images[3])
        assert label == data.labels[3]


@pytest.mark.parametrize("name", ["glyphs", "digits", "cub_features"])
def test_the_same_arguments_give_the_same_bits(name: str) -> None:
    assert load(name, "test").fingerprint == load(name, "test").fingerprint
    assert load(name, "test").fingerprint != load(name, "train").fingerprint


def test_all_digits_are_there_and_enlarging_keeps_the_mean() -> None:
    small, large = load("digits", "train", size=8), load("digits", "train", size=32)
    assert len(load("digits", "train")) + len(load("digits", "test")) == 1797
    assert large.images.shape[2:] == (32, 32)
    torch.testing.assert_close(large.images.mean((1, 2, 3)), small.images.mean((1, 2, 3)), atol=0.02, rtol=0)


def test_features_of_photographs_are_25_and_25_kinds_of_birds_with_30_images_each() -> None:
    train, test = load("cub_features"), load("cub_features", "test")
    assert [name[:3] for name in train.classes] == [f"{number:03}" for number in range(1, 26)]
    assert [name[:3] for name in test.classes] == [f"{number:03}" for number in range(26, 51)]
    for data in (train, test):
        assert data.images.shape == (750, 512, 1, 1)
        assert data.images.dtype == torch.float32
        assert torch.bincount(data.labels).tolist() == [30] * 25
        assert data.images.min() >= 0, "means of what a rectifier leaves"
        assert torch.isfinite(data.images).all()
        assert (data.images.std(dim=0) > 0).all(), "no feature is constant"
    both = torch.cat([train.images, test.images]).flatten(1)
    assert len(both.unique(dim=0)) == 1500, "no photograph is there twice"
    assert len(both.sqrt().unique()) <= 256


def test_the_stored_study_trained_on_the_stored_features() -> None:
    about = json.loads((data_folder("reference") / "cub_features_losses.json").read_text())
    for split in ("train", "test"):
        data = load("cub_features", split)
        assert about["data"][data.name] == data.fingerprint


def test_features_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"data/reference/cub_features\.npz"):
        load("cub_features")


def test_characters_that_look_alike_are_one_class() -> None:
    of = {character: merged for merged in characters() for character in merged}
    assert of["A"] == of["\u0391"] == of["\u0410"]  # Latin, Greek, Cyrillic
    assert of["O"] != of["Q"]
    assert len(of) == sum(map(len, characters())), "a character is in one class only"
    assert 600 < len(characters()) < len(of) < 700


def test_every_face_draws_every_class_once_a_block_of_16() -> None:
    data = load("glyphs", "test", per_class=32, noise=0)
    counts = data.factors.groupby([data.labels.numpy(), "face"]).size()
    assert len(counts) == len(data.classes) * len(FACES)
    assert (counts == 2).all()
    assert (data.images.amax((1, 2, 3)) > 0.3).all(), "no image is empty"


@pytest.mark.parametrize("per_class", [1, 15, 17, 20, 40])
def test_any_number_of_images_a_class_repeats_a_face_as_late_as_it_can(per_class: int) -> None:
    data = load("glyphs", "test", per_class=per_class, noise=0)
    assert len(data) == per_class * len(data.classes)
    counts = data.factors.groupby([data.labels.numpy(), "face"]).size()
    assert counts.max() == -(-per_class // 16)


def test_the_factors_vary_within_their_ranges_and_the_seed_chooses_them() -> None:
    wide = partial(load, "glyphs", "train", per_class=4, rotation=20, scale=0.3, shift=0.1)
    data = wide(seed=3)
    assert data.factors.rotation.abs().max() <= 20
    assert data.factors.scale.between(0.7, 1.3).all()
    assert data.factors.shift_x.abs().max() <= 0.1
    assert data.factors.rotation.std() == pytest.approx(20 / np.sqrt(3), rel=0.05)
    other = wide(seed=4)
    assert other.classes == data.classes
    assert other.fingerprint != data.fingerprint


def test_noise_has_the_chosen_standard_deviation_and_leaves_the_drawing_alone() -> None:
    clean, noisy = load("glyphs", "test", noise=0), load("glyphs", "test", noise=0.35)
    difference = noisy.images - clean.images
    assert difference.std().item() == pytest.approx(0.35, rel=0.01)
    assert abs(difference.mean().item()) < 0.001
    assert clean.images.min() == 0
    assert clean.images.max() == 1


@pytest.mark.parametrize("size", [16, 47, 96])
def test_any_resolution_draws_the_same_characters(size: int) -> None:
    data = load("glyphs", "test", size=size, per_class=1, noise=0)
    assert data.images.shape[2:] == (size, size)
    reference = load("glyphs", "test", size=64, per_class=1, noise=0)
    ink, expected = data.images.mean((1, 2, 3)), reference.images.mean((1, 2, 3))
    assert np.corrcoef(ink.numpy(), expected.numpy())[0, 1] > 0.95


def test_a_shift_moves_the_ink_and_cuts_what_leaves_the_image() -> None:
    data = load("glyphs", "test", shift=0.5, noise=0, per_class=4, rotation=0, scale=0)
    columns = torch.arange(32.0)
    mass = data.images.sum((1, 2, 3))
    kept = mass > 5
    centre = (data.images.sum((1, 2)) * columns).sum(1) / mass
    shift = torch.tensor(data.factors.shift_x.to_numpy())
    assert np.corrcoef(centre[kept], shift[kept])[0, 1] > 0.9


def test_the_second_load_comes_from_the_cache(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    first = load("glyphs", "test", per_class=1)
    assert len(_cache_files()) == 1
    monkeypatch.setattr(sys.modules["snrlib.data.sets.glyphs"], "_render", lambda *_: pytest.fail("drawn again"))
    assert load("glyphs", "test", per_class=1).fingerprint == first.fingerprint
    assert load("glyphs", "test", per_class=1, noise=0.5).fingerprint != first.fingerprint


@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "not a zip", "wrong shape", "empty"])
def test_a_damaged_cache_file_is_reported_and_drawn_anew(empty_cache: Path, damage: str) -> None:
    first = load("glyphs", "test", per_class=1)
    (path,) = _cache_files()
    content = bytearray(path.read_bytes())
    if damage == "wrong shape":
        np.savez_compressed(path, array=np.zeros((2, 2), np.uint8))
    else:
        middle = len(content) // 2
        content[middle] ^= 0xFF
        kinds = {
            "truncated": bytes(content[:middle]),
            "bit flipped": bytes(content),
            "not a zip": b"hello",
            "empty": b"",
        }
        path.write_bytes(kinds[damage])
    with pytest.warns(UserWarning, match=r"damaged.*glyphs are made anew"):
        assert load("glyphs", "test", per_class=1).fingerprint == first.fingerprint
    assert load("glyphs", "test", per_class=1).fingerprint == first.fingerprint, "and the file is whole again"


def test_a_cache_that_cannot_be_written_is_reported_and_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load("glyphs", "test", per_class=1).fingerprint
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SNR_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match=r"cannot be cached in .*SNR_CACHE"):
        assert load("glyphs", "test", per_class=1).fingerprint == expected


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("glyph", {}, "unknown data set 'glyph'; choose from glyphs, digits"),
        ("glyphs", {"split": "val"}, "split must be one of train, test, got 'val'"),
        ("digits", {"split": "val"}, "split must be one of train, test, got 'val'"),
        ("cub_features", {"split": "val"}, "split must be one of train, test, got 'val'"),
        ("cub_features", {"size": 224}, "size must be 1, features have no picture any more, got 224"),
        ("digits", {"size": 7}, "size must be at least 8"),
        ("glyphs", {"size": 8}, "size must be from 16 to 1024, got 8"),
        ("glyphs", {"per_class": 0}, "per_class must be from 1"),
        ("glyphs", {"noise": -0.1}, "noise must be from 0"),
        ("glyphs", {"noise": float("nan")}, "noise must be from 0"),
        ("glyphs", {"scale": 0.6}, "scale must be from 0 to 0.5, got 0.6"),
        ("glyphs", {"seed": -1}, "seed must be from 0"),
        ("glyphs", {"size": 32.0}, "size must be an integer, got 32.0"),
    ],
)
def test_wrong_arguments_are_refused_with_the_valid_ones(name: str, arguments: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        load(name, **arguments)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        load("glyphs", colour=True)
