"""The data sets that are files: layouts, splits, what is refused. Real files are read where SNR_DATA has them."""

import os
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import data_copies
import pytest
import torch
from oracles import refusals
from PIL import Image

from snrlib.data import DATASETS, SOURCES, ImageFiles, LabelledImages, load
from snrlib.data.base import Split
from snrlib.data.fetch.source import data_root
from snrlib.experiment import default_settings, images_of
from snrlib.utils.files import study_root

Data = LabelledImages | ImageFiles


def _both(name: str, root: Path, **options: Any) -> Any:
    """Train and test."""
    return tuple(load(name, split, root=root, **options) for split in ("train", "test"))


def _images(data: Data) -> set[bytes]:
    files = data.files if isinstance(data, ImageFiles) else ()
    return {file.read_bytes() for file in files} or {data[i][0].numpy().tobytes() for i in range(len(data))}


def _check_split(train: Data, test: Data, images: int) -> None:
    """What holds for every class-disjoint data set."""
    assert not set(train.classes) & set(test.classes)
    assert not _images(train) & _images(test)
    assert len(train) + len(test) == images
    for data in (train, test):
        assert data.labels.dtype == torch.int64
        assert data.labels.unique().tolist() == list(range(len(data.classes)))
        assert len(data.factors) in (0, len(data))
        image, _ = data[0]
        assert image.dtype == torch.float32
        assert 0 <= image.min() <= image.max() <= 1


def _real(folder: str) -> Path:
    if not os.environ.get("SNR_DATA"):
        pytest.skip("SNR_DATA names no folder of data")
    if not (data_root() / folder).exists():
        pytest.skip(f"{data_root()} holds no {folder}")
    return data_root()


def _remove(*places: Path) -> None:
    for place in places:
        shutil.rmtree(place) if place.is_dir() else place.unlink()


def _unzip(folder: Path) -> None:
    for path in folder.glob("*.zip"):
        shutil.unpack_archive(path, path.parent)
        path.unlink()


def test_the_data_root_is_found_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNR_DATA", raising=False)
    assert data_root() == study_root() / "data" / "raw"
    monkeypatch.setenv("SNR_DATA", str(tmp_path / "a"))
    assert data_root() == tmp_path / "a"
    assert data_root(tmp_path / "b") == tmp_path / "b"
    monkeypatch.setenv("SNR_ROOT", str(tmp_path / "study"))
    monkeypatch.setenv("SNR_DATA", "../files")
    monkeypatch.chdir("/")
    assert data_root() == tmp_path / "files", "counted from the study, wherever one stands"


@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_data_set_says_what_to_do(name: str, tmp_path: Path) -> None:
    if name != "folder":
        with pytest.raises(ValueError, match="split must be one of train, test, got 'val'"):
            load(name, "val", root=tmp_path)  # type: ignore[arg-type]
    if name in ("glyphs", "digits", "cub_features", "cub_features_40", "cars_features", "folder"):  # no download
        assert name not in SOURCES
        return
    archives = SOURCES[name].archives()
    with pytest.raises(FileNotFoundError) as caught:
        load(name, root=tmp_path)
    place = SOURCES[name].name  # of cifar10_published that of cifar10
    for word in (f"snr data fetch {place}", f"{tmp_path}/{place}", *(archive.file for archive in archives)):
        assert word in str(caught.value)
    for archive in archives:
        assert len(bytes.fromhex(archive.md5)) == 16
        assert archive.urls
        assert all(url.startswith("http") and url.endswith(archive.file) for url in archive.urls)


Damage = Callable[[Path], Any]


def _zip(content: Damage) -> Damage:
    return lambda root: content(root / "omniglot" / "images_background.zip")


def _one_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images_background/Greek/character01/0000_01.png", b"no image")


def _empty_character(root: Path) -> None:
    _unzip(root / "omniglot")
    (root / "omniglot" / "images_background" / "Greek" / "character09").mkdir()


def _unlabelled(root: Path) -> None:
    _remove(root / "cars_annos.mat", data_copies.cars_copy(root, devkit=True) / data_copies.CARS_TEST)


def _gone(*places: str) -> Damage:
    return lambda folder: _remove(*(path for place in places for path in folder.glob(place)))


def _new(place: str, content: bytes = b"") -> Damage:
    return lambda folder: (folder / place).write_bytes(content)


def _lines(name: str, change: Callable[[list[str]], list[str]]) -> Damage:
    return lambda f: (f / name).write_text("\n".join(change((f / name).read_text().splitlines())) + "\n")


def _added(name: str, line: str) -> Damage:
    return _lines(name, lambda lines: [*lines, line])


DAMAGES: dict[str, list[tuple[Damage, str]]] = {
    "omniglot": [
        (_zip(lambda f: f.write_bytes(f.read_bytes()[:9000])), r"background\.zip is damaged: .*fetch it again"),
        (_zip(lambda f: f.write_bytes(f.read_bytes()[:200] + b"x" + f.read_bytes()[201:])), "damaged: Bad CRC"),
        (_zip(_one_file), r"0000_01\.png in .*images_background\.zip cannot be read as an image"),
        (_zip(lambda f: data_copies.omniglot_zip(f, {"Greek": 1}, 19)), "has 20 .*Greek/character01 has 19"),
        (_zip(lambda f: data_copies.omniglot_zip(f, {})), r"images_background\.zip holds no drawing"),
        (_empty_character, "character09 holds no drawing"),
    ],
    "cub200": [
        (_gone("classes.txt"), r"classes\.txt"),
        (_lines("images.txt", lambda x: x[:-1]), r"1 of 12 in image_class_labels\.txt are not in images\.txt: 12"),
        (_lines("train_test_split.txt", lambda x: x[:-1]), r"are not in train_test_split\.txt: 12"),
        (_added("classes.txt", "9 009.X"), r"not in image_class_labels\.txt: 9"),
        (_added("images.txt", "1 001.Bird_1/Bird_1_0.jpg"), r"images\.txt holds 1 entries more than once: 1"),
        (_added("images.txt", "13"), r"images\.txt, line 13: 2 fields are expected"),
        (_new("images.txt", b"\n"), r"images\.txt lists nothing"),
        (_lines("image_class_labels.txt", lambda x: ["1 4", *x[1:]]), r"disagree on 1: 001\.Bird_1/Bird_1_0\.jpg"),
        (_gone("images/001.Bird_1/Bird_1_2.jpg"), r"1 of 12 .* not in .*images: 001\.Bird_1/Bird"),
        (_new("images/001.Bird_1/new.jpg"), r"1 of 13 .* are not in .*images\.txt: 001\.Bird_1/new"),
        (_gone("images/002.Bird_2/*"), r"3 of 12 in .*images\.txt are not in .*images: 002\.Bird_2/Bird_2_0\.jpg"),
        (_gone("images/00[123].*"), "holds 1 of the 4 classes"),
    ],
    "cars196": [
        (_new("car_ims/new.jpg"), r"1 of 13 images in .* have no annotation: new\.jpg"),
        (_gone("car_ims/000006.jpg"), r"1 of 12 annotated images are not in .*: 000006\.jpg"),
        (_new("cars_annos.mat", b"hello"), r"cars_annos\.mat cannot be read as annotations"),
        (_gone("car_ims"), "holds images of 0 of the 4 classes"),
        (_unlabelled, r"cars_test_annos_withlabels\.mat is there; it labels"),
    ],
    "sop": [
        (_gone("mug_final/11104_1.JPG"), r"1 of 20 in .* are not in .*: mug_final/11104_1\.JPG"),
        (_new("mug_final/new.JPG"), r"1 of 21 in .* are not in Ebay_train\.txt and Ebay_test"),
        (_added("Ebay_test.txt", "99 2 1 bicycle_final/11102_0.JPG"), "share 1 classes: 2"),
        (_added("Ebay_train.txt", "99 2 1"), r"Ebay_train\.txt, line 14: 4 fields"),
        (_gone("*_final"), r"no image of Ebay_train\.txt"),
    ],
}
COPY: dict[str, Callable[..., Path]] = {
    "omniglot": data_copies.omniglot_copy,
    "cub200": data_copies.cub_copy,
    "cars196": data_copies.cars_copy,
    "sop": data_copies.sop_copy,
}


@pytest.mark.parametrize(
    ("name", "damage", "message"), [(name, *row) for name, damages in DAMAGES.items() for row in damages]
)
def test_what_is_damaged_is_refused_by_name(tmp_path: Path, name: str, damage: Damage, message: str) -> None:
    damage(COPY[name](tmp_path))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(name, root=tmp_path)


test_an_unknown_choice_of_classes_is_refused = refusals(
    (partial(load, "cub200", classes="half"), ValueError, "classes must be one of disjoint, got 'half'"),
    (
        partial(load, "cifar10", classes="half"),
        ValueError,
        "classes must be one of published, disjoint, unseen, got",
    ),
)


@pytest.mark.parametrize("small", [False, True])
def test_omniglot_reads_either_pair_zipped_or_not(tmp_path: Path, small: bool) -> None:
    data_copies.omniglot_copy(tmp_path, small)
    zipped = _both("omniglot", tmp_path)
    _unzip(tmp_path / "omniglot")
    train, test = _both("omniglot", tmp_path)
    assert [train.fingerprint, test.fingerprint] == [data.fingerprint for data in zipped]
    _check_split(train, test, images=120 if small else 140)
    assert train.classes[:2] == ("Greek/character01", "Latin/character01" if small else "Greek/character02")
    assert set(train.factors.alphabet) == {"Greek", "Latin"}
    assert set(test.factors.alphabet) == ({"Sanskrit", "Tagalog"} if small else {"Tengwar"})
    assert sorted(train.factors.drawer.unique()) == list(range(1, 21))
    assert ("small pair" in test.note) == small


def test_omniglot_prefers_the_full_pair(tmp_path: Path) -> None:
    data_copies.omniglot_copy(tmp_path, small=True)
    data_copies.omniglot_copy(tmp_path)
    assert "3 of 659 classes" in load("omniglot", "test", root=tmp_path).note
    _remove(tmp_path / "omniglot" / "images_background.zip")
    assert "small pair" in load("omniglot", "test", root=tmp_path).note, "half of a pair is no pair"


def test_omniglot_is_ink_1_whatever_its_size(tmp_path: Path) -> None:
    full, _ = _both("omniglot", data_copies.omniglot_copy(tmp_path), size=105)
    assert set(full.images.unique().tolist()) == {0, 1}
    for size in (14, 28):
        data, _ = _both("omniglot", tmp_path, size=size)
        assert data.images.shape[1:] == (1, size, size)
        assert data.images.dtype == torch.float32
        assert (data.images[:, 0, 0, 0] == 0).all(), "a corner is paper"
        torch.testing.assert_close(data.images.mean((1, 2, 3)), full.images.mean((1, 2, 3)), atol=0.004, rtol=0)


@pytest.mark.parametrize("place", ["", "cub200", "birds"])
def test_a_partial_cub_is_halved_and_says_so(tmp_path: Path, place: str) -> None:
    folder = data_copies.cub_copy(tmp_path / place, classes=6)
    _remove(folder / "images" / "001.Bird_1")
    train, test = _both("cub200", tmp_path, size=16)
    _check_split(train, test, images=15)
    assert train.classes == ("002.Bird_2", "003.Bird_3")
    assert test.classes == ("004.Bird_4", "005.Bird_5", "006.Bird_6")
    assert "partial copy: 5 of 200 classes, the first 2 to train" in train.note
    assert train.note in repr(train)
    assert train.factors.is_training_image.tolist() == [False, True, False] * 2
    assert train[0][0].shape == (3, 16, 16)
    _remove(folder / "train_test_split.txt")
    assert load("cub200", root=tmp_path).factors.empty


@pytest.mark.parametrize(("place", "devkit"), [("", False), ("stanford_cars", True)])
def test_cars_reads_both_layouts_alike(tmp_path: Path, place: str, devkit: bool) -> None:
    folder = data_copies.cars_copy(tmp_path / place, classes=4, devkit=devkit)
    train, test = _both("cars196", tmp_path, size=8)
    _check_split(train, test, images=12)
    assert train.classes + test.classes == ("Car 0", "Car 1", "Car 2", "Car 3")
    assert "4 of 196 classes" in train.note
    assert train.factors.is_training_image.sum() == 4, "the authors' own split stands in both"
    pixels = {tuple(train[i][0][:, 0, 0].mul(255).round().int().tolist()) for i in range(len(train))}
    assert pixels == {(k * 7 % 256, k * 31 % 256, k // 37) for k in range(6)}
    if not devkit:
        _remove(*(folder / "car_ims" / f"{k:06}.jpg" for k in (3, 4, 5)))
        assert [data.classes for data in _both("cars196", tmp_path)] == [("Car 0",), ("Car 2", "Car 3")]
        assert "3 of 196 classes" in load("cars196", root=tmp_path).note


@pytest.mark.parametrize(
    ("name", "classes", "edge"),
    [
        ("cub200", 200, ("001.Bird_1", "100.Bird_100", "101.Bird_101", "200.Bird_200")),
        ("cars196", 196, ("Car 0", "Car 97", "Car 98", "Car 195")),
    ],
)
def test_whole_sets_are_halved_without_a_note(tmp_path: Path, name: str, classes: int, edge: tuple) -> None:
    COPY[name](tmp_path, classes=classes, per_class=1)
    train, test = _both(name, tmp_path)
    _check_split(train, test, images=classes)
    assert (train.classes[0], train.classes[-1], test.classes[0], test.classes[-1]) == edge
    assert train.note == test.note == ""


def test_sop_is_split_by_its_two_lists(tmp_path: Path) -> None:
    folder = data_copies.sop_copy(tmp_path)
    train, test = _both("sop", tmp_path, size=8)
    _check_split(train, test, images=20)
    assert train.classes == ("bicycle/1", "bicycle/2", "bicycle/3", "mug/4", "mug/5", "mug/6")
    assert test.factors.super_class.tolist() == ["bicycle"] * 4 + ["mug"] * 4
    assert train.note == ""
    _remove(folder / "mug_final")
    train = load("sop", root=tmp_path)
    assert train.classes == ("bicycle/1", "bicycle/2", "bicycle/3")
    assert "partial copy: 3 of 6 classes" in train.note


def test_cifar10_as_published_shares_classes_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data_copies.cifar_copy(tmp_path / "cifar10", monkeypatch)
    train, test = _both("cifar10", tmp_path)
    assert train.classes == test.classes == ("class 0", "class 1", "class 2", "class 3")
    assert (len(train), len(test)) == (40, 4)
    assert "same classes in train and test" in train.note
    assert train.images.dtype == torch.uint8
    assert train.images.shape[1:] == (3, 32, 32)
    (folder / "data_batch_3").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    _remove(folder / "test_batch")
    with pytest.raises(ValueError, match=r"2 of 7 files in .*another MD5 than published: data_batch_3, test_batch"):
        load("cifar10", root=tmp_path)  # before anything is unpickled


@pytest.mark.parametrize(("kind", "published"), [("CIFAR10", 40), ("CIFAR100", 8)])
def test_a_disjoint_cifar_uses_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, published: int
) -> None:
    data_copies.cifar_copy(tmp_path, monkeypatch, kind)
    name = kind.lower()
    train, test = _both(name, tmp_path, **({"classes": "disjoint"} if name == "cifar10" else {}))
    _check_split(train, test, images=published + 4)
    assert train.classes == ("class 0", "class 1")
    assert train.factors.is_training_image.mean() == pytest.approx(published / (published + 4))
    _, as_published = _both(name, tmp_path, classes="published")
    own = test.images[torch.tensor(~test.factors.is_training_image.to_numpy())]
    assert torch.equal(own, as_published.images[as_published.labels >= 2])


@pytest.mark.parametrize(("name", "images"), [("cifar10", (20, 2)), ("cifar100", (4, 2)), ("tinyimagenet", (200, 100))])
def test_unseen_classes_are_of_the_published_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, images: tuple[int, int]
) -> None:
    if name == "tinyimagenet":
        data_copies.tiny_imagenet_copy(tmp_path)
    else:
        data_copies.cifar_copy(tmp_path, monkeypatch, name.upper())
    unseen, published = (_both(name, tmp_path, classes=classes) for classes in ("unseen", "published"))
    assert tuple(map(len, unseen)) == images
    assert unseen[0].classes + unseen[1].classes == published[0].classes, "each in one split"
    for split, own, half in zip(get_args(Split), unseen, published, strict=True):
        chosen = [i for i, label in enumerate(half.labels) if half.classes[label] in own.classes]
        assert torch.equal(own.images, half.images[chosen])
        assert [own.classes[i] for i in own.labels] == [half.classes[half.labels[i]] for i in chosen]
        assert set(own.factors.is_training_image) == {split == "train"}
        loaded = images_of(default_settings(name, "resnet18", root=str(tmp_path)), split)
        assert torch.equal(loaded.images, own.images), "what an experiment trains on and is judged on"


@pytest.mark.realdata
def test_the_real_omniglot_shares_no_alphabet() -> None:
    train, test = _both("omniglot", _real("omniglot"))
    assert not set(train.factors.alphabet) & set(test.factors.alphabet)
    _check_split(train, test, images=20 * (len(train.classes) + len(test.classes)))
    published = (136, 106) if "small pair" in train.note else (964, 659)
    assert (len(train.classes), len(test.classes)) == published
    assert 0.02 < train.images.mean() < 0.2, "little ink on much paper"


@pytest.mark.realdata
def test_the_real_cubs_grey_images_become_rgb() -> None:
    train, test = _both("cub200", _real("cub50"), size=32)
    assert len(train.classes) == len(test.classes) == 25
    assert (len(train), len(test)) == (1402, 1487)
    assert "50 of 200 classes" in train.note
    grey = 0
    for data in (train, test):
        for i, file in enumerate(data.files):
            with Image.open(file) as image:
                if image.mode == "L":
                    grey += 1
                    assert torch.equal(data[i][0], data[i][0][:1].expand(3, -1, -1))
    assert grey == 2


@pytest.mark.realdata
def test_a_real_folder_of_faces_loads() -> None:
    root = _real("orl_faces") / "orl_faces"
    root = next((path for path in (root / "att_faces",) if path.is_dir()), root)
    train, test = _both("folder", root, size=64)
    _check_split(train, test, images=400)
    assert len(train.classes) == len(test.classes) == 20
