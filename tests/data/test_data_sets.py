"""The data sets that are files: layouts, splits, what is refused. Real files are read where SNR_DATA has them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_copies
import pytest
import torch
from PIL import Image

from snrlib.data import DATASETS, SOURCES, ImageFiles, LabelledImages, load
from snrlib.data.fetch.source import data_root
from snrlib.utils.files import study_root


def _images(data: LabelledImages | ImageFiles) -> set[bytes]:
    files = data.files if isinstance(data, ImageFiles) else ()
    return {file.read_bytes() for file in files} or {data[i][0].numpy().tobytes() for i in range(len(data))}


def _check_split(train: LabelledImages | ImageFiles, test: LabelledImages | ImageFiles, images: int) -> None:
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


def _mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def _real(folder: str) -> Path:
    if not os.environ.get("SNR_DATA"):
        pytest.skip("SNR_DATA names no folder of data")
    if not (data_root() / folder).exists():
        pytest.skip(f"{data_root()} holds no {folder}")
    return data_root()


# where it is looked for


def test_the_root_is_the_argument_then_snr_data_then_data_raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNR_DATA", raising=False)
    assert data_root() == study_root() / "data" / "raw"
    monkeypatch.setenv("SNR_DATA", str(tmp_path / "a"))
    assert data_root() == tmp_path / "a"
    assert data_root(tmp_path / "b") == tmp_path / "b"


def test_a_relative_snr_data_counts_from_the_study_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNR_ROOT", str(tmp_path / "study"))
    monkeypatch.setenv("SNR_DATA", "../files")
    monkeypatch.chdir("/")
    assert data_root() == tmp_path / "files"


@pytest.mark.parametrize("name", list(SOURCES))
def test_a_missing_data_set_says_where_was_looked_which_file_goes_where_and_the_command(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load(name, root=tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert f"snr data fetch {name}" in message
    assert f"{tmp_path}/{name}" in message
    for archive in SOURCES[name].archives():
        assert archive.file in message


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "folder"])
def test_an_unknown_split_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split must be one of train, test, got 'val'"):
        load(name, "val", root=tmp_path)  # type: ignore[arg-type]


def test_every_source_has_a_checksum_and_an_address() -> None:
    for source in SOURCES.values():
        for archive in source.archives():
            assert len(bytes.fromhex(archive.md5)) == 16
            assert archive.urls
            assert all(url.startswith("http") and url.endswith(archive.file) for url in archive.urls)


# omniglot


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("unpacked", [False, True])
def test_omniglot_is_read_from_either_pair_zipped_or_not(tmp_path: Path, small: bool, unpacked: bool) -> None:
    data_copies.omniglot_copy(tmp_path, small)
    zipped = [load("omniglot", split, root=tmp_path) for split in ("train", "test")]
    if unpacked:
        for path in (tmp_path / "omniglot").glob("*.zip"):
            shutil.unpack_archive(path, path.parent)
            path.unlink()
    train, test = (load("omniglot", split, root=tmp_path) for split in ("train", "test"))
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
    assert load("omniglot", "test", root=tmp_path).classes[0].startswith("Tengwar")
    assert "3 of 659 classes" in load("omniglot", "test", root=tmp_path).note
    (tmp_path / "omniglot" / "images_background.zip").unlink()
    assert "small pair" in load("omniglot", "test", root=tmp_path).note, "half of a pair is no pair"


@pytest.mark.parametrize("size", [14, 28, 105])
def test_omniglot_is_ink_1_on_paper_0_and_resizing_keeps_the_ink(tmp_path: Path, size: int) -> None:
    data = load("omniglot", root=data_copies.omniglot_copy(tmp_path), size=size)
    full = load("omniglot", root=tmp_path, size=105)
    assert data.images.shape[1:] == (1, size, size)
    assert data.images.dtype == torch.float32
    assert (data.images[:, 0, 0, 0] == 0).all(), "a corner is paper"
    assert set(full.images.unique().tolist()) == {0, 1}
    torch.testing.assert_close(data.images.mean((1, 2, 3)), full.images.mean((1, 2, 3)), atol=0.004, rtol=0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", r"images_background\.zip is damaged: .*fetch it again"),
        ("bit", r"images_background\.zip is damaged: Bad CRC"),
        ("drawing", r"0000_01\.png in .*images_background\.zip cannot be read as an image"),
        ("19", r"has 20 drawings; in .*images_background\.zip Greek/character01 has 19"),
        ("none", r"images_background\.zip holds no drawing"),
    ],
)
def test_a_damaged_omniglot_is_refused_by_name(tmp_path: Path, damage: str, message: str) -> None:
    import zipfile

    path = data_copies.omniglot_copy(tmp_path) / "omniglot" / "images_background.zip"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "bit":
        content[200] ^= 1
        path.write_bytes(content)
    elif damage == "drawing":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images_background/Greek/character01/0000_01.png", b"no image")
    elif damage == "19":
        data_copies.omniglot_zip(path, {"Greek": 1}, drawings=19)
    else:
        data_copies.omniglot_zip(path, {})
    with pytest.raises(ValueError, match=message):
        load("omniglot", root=tmp_path)


def test_an_empty_character_of_omniglot_is_refused_by_name(tmp_path: Path) -> None:
    for path in (data_copies.omniglot_copy(tmp_path) / "omniglot").glob("*.zip"):
        shutil.unpack_archive(path, path.parent)
        path.unlink()
    (tmp_path / "omniglot" / "images_background" / "Greek" / "character09").mkdir()
    with pytest.raises(ValueError, match="character09 holds no drawing"):
        load("omniglot", root=tmp_path)


@pytest.mark.realdata
def test_the_real_omniglot_has_no_alphabet_on_both_sides() -> None:
    root = _real("omniglot")
    train, test = (load("omniglot", split, root=root) for split in ("train", "test"))
    assert not set(train.factors.alphabet) & set(test.factors.alphabet)
    _check_split(train, test, images=20 * (len(train.classes) + len(test.classes)))
    if "small pair" in train.note:
        assert (len(train.classes), len(test.classes)) == (136, 106)
    else:
        assert (len(train.classes), len(test.classes)) == (964, 659)
    assert 0.02 < train.images.mean() < 0.2, "little ink on much paper"


# cub200


@pytest.mark.parametrize("place", ["", "cub200", "birds"])
def test_cub_splits_the_classes_present_in_half_and_says_that_it_is_partial(tmp_path: Path, place: str) -> None:
    data_copies.cub_copy(tmp_path / place, classes=5)
    train, test = (load("cub200", split, root=tmp_path, size=16) for split in ("train", "test"))
    _check_split(train, test, images=15)
    assert train.classes == ("001.Bird_1", "002.Bird_2")
    assert test.classes == ("003.Bird_3", "004.Bird_4", "005.Bird_5")
    assert "partial copy: 5 of 200 classes, the first 2 to train" in train.note
    assert train.note in repr(train)
    assert train.factors.is_training_image.tolist() == [False, True, False] * 2
    assert train[0][0].shape == (3, 16, 16)


def test_the_whole_of_cub_is_its_first_and_last_100_classes_without_a_note(tmp_path: Path) -> None:
    data_copies.cub_copy(tmp_path, classes=200, per_class=1)
    train, test = (load("cub200", split, root=tmp_path) for split in ("train", "test"))
    _check_split(train, test, images=200)
    assert (train.classes[0], train.classes[-1]) == ("001.Bird_1", "100.Bird_100")
    assert (test.classes[0], test.classes[-1]) == ("101.Bird_101", "200.Bird_200")
    assert train.note == test.note == ""


def test_cub_with_whole_lists_and_some_classes_on_disk_is_partial(tmp_path: Path) -> None:
    folder = data_copies.cub_copy(tmp_path, classes=6)
    for number in (1, 4):
        shutil.rmtree(folder / "images" / f"{number:03}.Bird_{number}")
    (folder / "train_test_split.txt").unlink()
    train, test = (load("cub200", split, root=tmp_path) for split in ("train", "test"))
    _check_split(train, test, images=12)
    assert train.classes == ("002.Bird_2", "003.Bird_3")
    assert "4 of 200 classes" in test.note
    assert train.factors.empty


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def _line(folder: Path, name: str, change: Callable[[list[str]], Any]) -> None:
    lines = (folder / name).read_text().splitlines()
    change(lines)
    (folder / name).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: _line(f, "images.txt", list.pop), r"1 of 12 in image_class_labels\.txt are not in images\.txt: 12"),
        (lambda f: _line(f, "image_class_labels.txt", list.pop), r"in images\.txt are not in image_class_labels"),
        (lambda f: _line(f, "classes.txt", list.pop), r"in image_class_labels\.txt are not in classes\.txt: 4"),
        (lambda f: _line(f, "classes.txt", lambda x: x.append("9 009.X")), r"not in image_class_labels\.txt: 9"),
        (lambda f: _line(f, "train_test_split.txt", list.pop), r"are not in train_test_split\.txt: 12"),
        (lambda f: _line(f, "images.txt", lambda x: x.append(x[0])), r"images\.txt holds 1 entries more than once: 1"),
        (lambda f: _line(f, "images.txt", lambda x: x.append("13")), r"images\.txt, line 13: 2 fields are expected"),
        (lambda f: (f / "images.txt").write_text("\n"), r"images\.txt lists nothing"),
        (
            lambda f: _line(f, "image_class_labels.txt", lambda x: x.__setitem__(0, "1 4")),
            r"disagree on 1: 001\.Bird_1/Bird_1_0\.jpg",
        ),
        (
            lambda f: (f / "images/001.Bird_1/Bird_1_2.jpg").unlink(),
            r"1 of 12 .* are not in .*images: 001\.Bird_1/Bird",
        ),
        (lambda f: (f / "images/001.Bird_1/new.jpg").touch(), r"1 of 13 .* are not in .*images\.txt: 001\.Bird_1/new"),
        (
            lambda f: [path.unlink() for path in (f / "images/002.Bird_2").iterdir()],
            r"3 of 12 in .*images\.txt are not in .*images: 002\.Bird_2/Bird_2_0\.jpg",
        ),
        (lambda f: _remove(*(f / f"images/00{i}.Bird_{i}" for i in (1, 2, 3))), "holds 1 of the 4 classes"),
    ],
)
def test_a_cub_whose_lists_do_not_match_is_refused_with_the_first_of_them(
    tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(data_copies.cub_copy(tmp_path))
    with pytest.raises(ValueError, match=message):
        load("cub200", root=tmp_path)


def test_cub_without_one_of_its_lists_names_it(tmp_path: Path) -> None:
    (data_copies.cub_copy(tmp_path) / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"classes\.txt"):
        load("cub200", root=tmp_path)


def test_cub_has_one_split_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="classes must be one of disjoint, got 'published'"):
        load("cub200", root=tmp_path, classes="published")


@pytest.mark.realdata
def test_the_real_cub_loads_and_its_grey_images_become_rgb() -> None:
    root = _real("cub50")
    train, test = (load("cub200", split, root=root, size=32) for split in ("train", "test"))
    assert len(train.classes) == len(test.classes) == 25
    assert (len(train), len(test)) == (1402, 1487)
    assert "50 of 200 classes" in train.note
    grey = [(data, i) for data in (train, test) for i, file in enumerate(data.files) if _mode(file) == "L"]
    assert len(grey) == 2
    for data, i in grey:
        red, green, blue = data[i][0]
        assert torch.equal(red, green)
        assert torch.equal(red, blue)


# cars196


@pytest.mark.parametrize("devkit", [False, True])
@pytest.mark.parametrize("place", ["", "stanford_cars"])
def test_cars_reads_both_layouts_into_the_same_data(tmp_path: Path, devkit: bool, place: str) -> None:
    data_copies.cars_copy(tmp_path / place, classes=4, devkit=devkit)
    train, test = (load("cars196", split, root=tmp_path, size=8) for split in ("train", "test"))
    _check_split(train, test, images=12)
    assert train.classes == ("Car 0", "Car 1")
    assert test.classes == ("Car 2", "Car 3")
    assert "4 of 196 classes" in train.note
    assert train.factors.is_training_image.sum() == 4, "the authors' own split stands in both"
    pixels = {tuple(train[i][0][:, 0, 0].mul(255).round().int().tolist()) for i in range(len(train))}
    assert pixels == {(k * 7 % 256, k * 31 % 256, k // 37) for k in range(6)}


def test_the_whole_of_cars_is_its_first_and_last_98_classes(tmp_path: Path) -> None:
    data_copies.cars_copy(tmp_path, classes=196, per_class=1)
    train, test = (load("cars196", split, root=tmp_path) for split in ("train", "test"))
    _check_split(train, test, images=196)
    assert (train.classes[-1], test.classes[0], train.note) == ("Car 97", "Car 98", "")


def test_cars_without_any_image_of_a_class_is_partial_and_with_some_is_refused(tmp_path: Path) -> None:
    data_copies.cars_copy(tmp_path, classes=5)
    for k in (3, 4, 5):
        (tmp_path / "car_ims" / f"{k:06}.jpg").unlink()
    assert load("cars196", root=tmp_path).classes == ("Car 0", "Car 2")
    assert "4 of 196 classes" in load("cars196", root=tmp_path).note
    (tmp_path / "car_ims" / "000006.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 12 annotated images are not in .*: 000006\.jpg"):
        load("cars196", root=tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "car_ims" / "new.jpg").touch(), r"1 of 13 images in .* have no annotation: new\.jpg"),
        (lambda f: (f / "cars_annos.mat").write_bytes(b"hello"), r"cars_annos\.mat cannot be read as annotations"),
        (lambda f: shutil.rmtree(f / "car_ims"), "holds images of 0 of the 4 classes"),
    ],
)
def test_damaged_cars_are_refused_by_name(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(data_copies.cars_copy(tmp_path))
    with pytest.raises(ValueError, match=message):
        load("cars196", root=tmp_path)


def test_cars_without_the_labels_of_its_test_images_names_the_file(tmp_path: Path) -> None:
    data_copies.cars_copy(tmp_path, devkit=True)
    (tmp_path / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"cars_test_annos_withlabels\.mat is there; it labels"):
        load("cars196", root=tmp_path)


# sop


def test_sop_is_split_by_its_two_lists(tmp_path: Path) -> None:
    data_copies.sop_copy(tmp_path)
    train, test = (load("sop", split, root=tmp_path, size=8) for split in ("train", "test"))
    _check_split(train, test, images=20)
    assert train.classes == ("bicycle/1", "bicycle/2", "bicycle/3", "mug/4", "mug/5", "mug/6")
    assert test.factors.super_class.tolist() == ["bicycle"] * 4 + ["mug"] * 4
    assert train.note == ""


def test_sop_with_some_kinds_of_article_is_partial(tmp_path: Path) -> None:
    shutil.rmtree(data_copies.sop_copy(tmp_path) / "mug_final")
    train = load("sop", root=tmp_path)
    assert train.classes == ("bicycle/1", "bicycle/2", "bicycle/3")
    assert "partial copy: 3 of 6 classes" in train.note


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "mug_final" / "11104_1.JPG").unlink(), r"1 of 20 in .* are not in .*: mug_final/11104_1\.JPG"),
        (lambda f: (f / "mug_final" / "new.JPG").touch(), r"1 of 21 in .* are not in Ebay_train\.txt and Ebay_test"),
        (
            lambda f: _line(f, "Ebay_test.txt", lambda x: x.append("99 2 1 bicycle_final/11102_0.JPG")),
            "share 1 classes: 2",
        ),
        (lambda f: _line(f, "Ebay_train.txt", lambda x: x.append("99 2 1")), r"Ebay_train\.txt, line 14: 4 fields"),
        (lambda f: _remove(f / "mug_final", f / "bicycle_final"), r"no image of Ebay_train\.txt"),
    ],
)
def test_a_sop_whose_lists_do_not_match_is_refused(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(data_copies.sop_copy(tmp_path))
    with pytest.raises(ValueError, match=message):
        load("sop", root=tmp_path)


# cifar


def test_cifar10_as_published_shows_its_classes_on_both_sides_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_copies.cifar_copy(tmp_path / "cifar10", monkeypatch)
    train, test = (load("cifar10", split, root=tmp_path) for split in ("train", "test"))
    assert train.classes == test.classes == ("class 0", "class 1", "class 2", "class 3")
    assert (len(train), len(test)) == (40, 4)
    assert "same classes in train and test" in train.note
    assert train.images.dtype == torch.uint8
    assert train.images.shape[1:] == (3, 32, 32)


@pytest.mark.parametrize("kind", ["CIFAR10", "CIFAR100"])
def test_a_class_disjoint_cifar_uses_all_images_by_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    data_copies.cifar_copy(tmp_path, monkeypatch, kind)
    train, test = (load(kind.lower(), split, root=tmp_path, classes="disjoint") for split in ("train", "test"))
    _check_split(train, test, images=44 if kind == "CIFAR10" else 12)
    assert train.classes == ("class 0", "class 1")
    assert train.factors.is_training_image.mean() == pytest.approx(40 / 44 if kind == "CIFAR10" else 8 / 12)
    published = load(kind.lower(), "test", root=tmp_path, classes="published")
    own = test.images[torch.tensor(~test.factors.is_training_image.to_numpy())]
    assert torch.equal(own, published.images[published.labels >= 2])


def test_cifar100_is_disjoint_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_copies.cifar_copy(tmp_path, monkeypatch, "CIFAR100")
    assert (
        load("cifar100", root=tmp_path).fingerprint == load("cifar100", root=tmp_path, classes="disjoint").fingerprint
    )


def test_a_cifar_file_that_was_changed_is_refused_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data_copies.cifar_copy(tmp_path, monkeypatch)
    (folder / "data_batch_3").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    (folder / "test_batch").unlink()
    with pytest.raises(ValueError, match=r"2 of 7 files in .*another MD5 than published: data_batch_3, test_batch"):
        load("cifar10", root=tmp_path)


def test_cifar_refuses_an_unknown_choice_of_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="classes must be one of published, disjoint, got 'half'"):
        load("cifar10", root=tmp_path, classes="half")


# folder


def _own(root: Path, classes: list[str], per_class: int = 2) -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            (root / name / f"{i}.PNG").write_bytes(data_copies.png(number * per_class + i + 1))
    return root


def test_a_folder_is_one_class_a_sub_folder_split_by_a_fixed_shuffle(tmp_path: Path) -> None:
    names = [f"thing {i}" for i in range(9)]
    _own(tmp_path, names)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "README").write_text("beside the classes")
    train, test = (load("folder", split, root=tmp_path, size=8) for split in ("train", "test"))
    _check_split(train, test, images=18)
    assert sorted({*train.classes, *test.classes}) == names
    assert train.classes == load("folder", root=tmp_path).classes
    assert len(load("folder", root=tmp_path, share=0.7).classes) == 6
    assert len({load("folder", root=tmp_path, seed=seed).classes for seed in range(5)}) > 1
    assert train.note == ""


def test_a_folder_with_train_and_test_is_split_so(tmp_path: Path) -> None:
    _own(tmp_path / "train", ["b", "a"])
    _own(tmp_path / "test", ["c", "d", "e"], per_class=3)
    (tmp_path / "old").mkdir()
    train, test = (load("folder", split, root=tmp_path) for split in ("train", "test"))
    assert (train.classes, test.classes) == (("a", "b"), ("c", "d", "e"))
    assert "left out: old" in train.note
    _own(tmp_path / "test", ["a"])
    with pytest.raises(ValueError, match=r"1 classes are in both train and test of .*: a"):
        load("folder", root=tmp_path)


def test_a_folder_says_which_files_it_left_out(tmp_path: Path) -> None:
    _own(tmp_path, ["a", "b", "c", "d"])
    for name in "abcd":
        (tmp_path / name / "notes.doc").write_text("no image")
    assert load("folder", root=tmp_path).note.startswith("2 files without an image's ending left out: ")


def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs root=PATH"):
        load("folder")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*gone"):
        load("folder", root=tmp_path / "gone")
    with pytest.raises(ValueError, match="gives 0 classes to train; at least two"):
        load("folder", root=tmp_path)
    _own(tmp_path, ["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="share must be"):
        load("folder", root=tmp_path, share=2)
    for name in "abcd":
        for file in (tmp_path / name).iterdir():
            file.unlink()
    with pytest.raises(ValueError, match=r"the class .*/[abcd] holds no image \(\.jpg"):
        load("folder", root=tmp_path)


@pytest.mark.realdata
def test_a_real_folder_of_faces_loads() -> None:
    root = _real("orl_faces") / "orl_faces"
    root = next((path for path in (root / "att_faces",) if path.is_dir()), root)
    train, test = (load("folder", split, root=root, size=64) for split in ("train", "test"))
    _check_split(train, test, images=400)
    assert len(train.classes) == len(test.classes) == 20
