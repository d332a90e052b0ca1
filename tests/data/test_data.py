"""Data sets without a download: disjoint classes, seeds, factors, cache, and what is refused."""

import json
import sys
import unicodedata
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import bad_options, refusals

from snrlib.data import load
from snrlib.data.sets.glyphs import FACES, characters
from snrlib.utils.files import data_folder

one_each = partial(load, "glyphs", "test", per_class=1)


@pytest.mark.parametrize(
    ("name", "options"), [("glyphs", {"per_class": 2}), ("digits", {}), ("cub_features", {}), ("cub_features_40", {})]
)
def test_splits_share_nothing_and_loading_repeats_bits(name: str, options: dict) -> None:
    train, test = load(name, "train", **options), load(name, "test", **options)
    assert not set(train.classes) & set(test.classes)
    assert not {image.numpy().tobytes() for image in train.images} & {image.numpy().tobytes() for image in test.images}
    assert load(name, "test", **options).fingerprint == test.fingerprint != train.fingerprint
    for data in (train, test):
        assert (data.images.dtype, data.labels.dtype) == (torch.float32, torch.int64)
        assert data.labels.unique().tolist() == list(range(len(data.classes)))
        assert len(data) == len(data.images) == len(data.labels)
        image, label = data[3]
        assert torch.equal(image, data.images[3])
        assert label == data.labels[3]


def test_all_digits_are_there_whatever_their_size() -> None:
    small, large = (load("digits", "train", size=size) for size in (8, 32))
    assert len(small) + len(load("digits", "test")) == 1797
    assert large.images.shape[2:] == (32, 32)
    torch.testing.assert_close(large.images.mean((1, 2, 3)), small.images.mean((1, 2, 3)), atol=0.02, rtol=0)


def test_bird_features_are_of_fifty_kinds() -> None:
    train, test = load("cub_features"), load("cub_features", "test")
    assert [name[:3] for name in train.classes + test.classes] == [f"{number:03}" for number in range(1, 51)]
    for data in (train, test):
        assert data.images.shape == (750, 512, 1, 1)
        assert torch.bincount(data.labels).tolist() == [30] * 25
        assert data.images.min() >= 0, "means of what a rectifier leaves"
        assert torch.isfinite(data.images).all()
        assert (data.images.std(dim=0) > 0).all(), "no feature is constant"
    both = torch.cat([train.images, test.images]).flatten(1)
    forty, ten = load("cub_features_40"), load("cub_features_40", "test")
    assert (len(forty.classes), len(ten.classes)) == (40, 10)
    assert torch.equal(torch.cat([forty.images, ten.images]).flatten(1), both)
    assert len(both.unique(dim=0)) == 1500, "no photograph is there twice"
    assert len(both.sqrt().unique()) <= 256


def test_features_are_those_of_the_study_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = json.loads((data_folder("reference") / "cub_features_losses.json").read_text())
    for split in ("train", "test"):
        data = load("cub_features", split)
        assert about["data"][data.name] == data.fingerprint
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"data/reference/cub_features\.npz"):
        load("cub_features")


def test_characters_that_look_alike_are_one_class() -> None:
    of = {character: merged for merged in characters() for character in merged}
    assert of["A"] == of["\u0391"] == of["\u0410"]  # Latin, Greek, Cyrillic
    assert of["."] == of["\u00b7"]  # a middle dot: the ink is centred
    assert of["\u00b5"] == of["\u03bc"]  # micro and mu
    assert of["O"] != of["Q"]
    assert of["o"] != of["\u00f6"]
    assert len(of) == sum(map(len, characters())), "a character is in one class only"
    assert 550 < len(characters()) < len(of) < 700


def test_accents_do_not_change_a_letter() -> None:
    halves = [load("glyphs", half, per_class=2, noise=0) for half in ("train", "test")]
    of = {name: letter for half in halves for name, letter in zip(half.classes, half.factors.letter[::2], strict=True)}
    letters = {character: letter for name, letter in of.items() for character in name}
    assert {letters[c] for c in "e\u00e9\u0119"} == {"e"}, "acute, ogonek"
    assert {letters[c] for c in "A\u00c4\u0386\u0410"} == {"A"}, "an Alpha with tonos and a Cyrillic A are A"
    assert letters["E"] == "E"
    for name, letter in of.items():
        assert {letters.get(base := unicodedata.normalize("NFD", c)[0], base) for c in name} == {letter}
    seen = set(halves[0].factors.letter)
    assert (~halves[1].factors.letter.isin(seen)).sum() == 190 * 2


@pytest.mark.parametrize("per_class", [1, 17])
def test_faces_repeat_as_late_as_they_can(per_class: int) -> None:
    data = load("glyphs", "test", per_class=per_class, noise=0)
    assert len(data) == per_class * len(data.classes)
    assert (data.images.amax((1, 2, 3)) > 0.3).all(), "no image is empty"
    counts = data.factors.groupby([data.labels.numpy(), "face"]).size()
    assert counts.max() == -(-per_class // 16)
    assert len(counts) == len(data.classes) * min(per_class, len(FACES))


def test_factors_fill_their_ranges_and_follow_the_seed() -> None:
    wide = partial(load, "glyphs", "train", per_class=2, rotation=20, scale=0.3, shift=0.1)
    data, other = wide(seed=3), wide(seed=4)
    for factor, centre, most in (("rotation", 0, 20), ("scale", 1, 0.3), ("shift_x", 0, 0.1)):
        away = data.factors[factor] - centre
        assert away.abs().max() <= most
        assert away.std() == pytest.approx(most / np.sqrt(3), rel=0.05)
    assert other.classes == data.classes
    assert other.fingerprint != data.fingerprint


def test_noise_has_its_standard_deviation_and_no_mean() -> None:
    clean, noisy = (load("glyphs", "test", per_class=4, noise=noise).images for noise in (0, 0.35))
    assert (noisy - clean).std().item() == pytest.approx(0.35, rel=0.01)
    assert abs((noisy - clean).mean().item()) < 0.001
    assert (clean.min(), clean.max()) == (0, 1)


@pytest.mark.parametrize("size", [16, 47])
def test_any_resolution_draws_the_same_characters(size: int) -> None:
    images, expected = one_each(size=size, noise=0).images, one_each(size=64, noise=0).images
    assert images.shape[2:] == (size, size)
    assert np.corrcoef(images.mean((1, 2, 3)), expected.mean((1, 2, 3)))[0, 1] > 0.95


def test_a_shift_moves_ink_and_cuts_what_leaves() -> None:
    data = load("glyphs", "test", shift=0.5, noise=0, per_class=4, rotation=0, scale=0)
    mass = data.images.sum((1, 2, 3))
    kept = mass > 5
    centre = (data.images.sum((1, 2)) * torch.arange(32.0)).sum(1) / mass
    assert np.corrcoef(centre[kept], data.factors.shift_x[kept.numpy()])[0, 1] > 0.9


def test_glyphs_are_kept_and_damaged_ones_redrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNR_CACHE", str(tmp_path / "cache"))
    first = one_each().fingerprint
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["snrlib.data.sets.glyphs"], "_render", lambda *_: pytest.fail("drawn again"))
        assert one_each().fingerprint == first
        assert one_each(noise=0.5).fingerprint != first
    (path,) = (tmp_path / "cache").glob("glyphs-*.npz")
    content = path.read_bytes()
    np.savez_compressed(path, array=np.zeros((2, 2), np.uint8))
    flipped = content[:500] + bytes([content[500] ^ 0xFF]) + content[501:]
    for damaged in (path.read_bytes(), content[: len(content) // 2], flipped, b"hello", b""):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match=r"damaged.*glyphs are made anew"):
            assert one_each().fingerprint == first
        assert one_each().fingerprint == first, "and the file is whole again"
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SNR_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match=r"cannot be cached in .*SNR_CACHE"):
        assert one_each().fingerprint == first


test_wrong_arguments_are_refused_with_the_valid = refusals(
    (partial(load, "glyph"), ValueError, "unknown data set 'glyph'; choose from glyphs, digits"),
    (partial(load, "glyphs", size=32.0), TypeError, "size must be an integer, got 32.0"),
    (partial(load, "glyphs", colour=True), TypeError, "colour"),
    *bad_options(partial(load, "glyphs"), size=[8], per_class=[0], noise=[-0.1, float("nan")], scale=[0.6], seed=[-1]),
    *bad_options(partial(load, "digits"), size=[7]),
    *bad_options(partial(load, "cub_features"), size=[224], training=[1, 49]),
)
