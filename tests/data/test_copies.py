"""Published data sets as people have them: halves, nested archives, folders of images, what systems leave behind."""

import shutil
from collections.abc import Callable
from pathlib import Path

import data_copies
import numpy as np
import pytest
import torch
from PIL import Image

from snrlib.data import LabelledImages, files_state, load
from snrlib.data.fetch.verify import check
from snrlib.data.image_files import read_image


def _both(name: str, root: Path, **options: object) -> tuple[LabelledImages, LabelledImages]:
    train, test = (load(name, split, root=root, **options) for split in ("train", "test"))
    return train, test


@pytest.mark.parametrize("root", [".", "CUB_200_2011", ".."])
def test_cub_is_found_from_within_and_above(tmp_path: Path, root: str) -> None:
    folder = data_copies.cub_copy(tmp_path / "birds" / "own", classes=4)
    train, test = _both("cub200", (tmp_path / "birds" / "own" / root).resolve())
    assert {path.parents[2] for path in (*train.files, *test.files)} == {folder}  # type: ignore[attr-defined]


def test_a_renamed_folder_is_found_when_given(tmp_path: Path) -> None:
    data_copies.cub_copy(tmp_path, classes=4).rename(tmp_path / "my birds")
    assert len(load("cub200", root=tmp_path / "my birds").classes) == 2
    with pytest.raises(FileNotFoundError, match="cub200 is not there"):
        load("cub200", root=tmp_path)


@pytest.mark.parametrize("nested", [False, True])
def test_cars_load_from_their_training_half(tmp_path: Path, nested: bool) -> None:
    root = data_copies.cars_copy(tmp_path / "cars", classes=196, devkit=True)
    (root / data_copies.CARS_TEST).unlink()
    with pytest.raises(FileNotFoundError, match="it labels the images of cars_test"):
        load("cars196", root=root)
    shutil.rmtree(root / "cars_test")
    if nested:
        (root / "cars_train").rename(root / "inner")
        (root / "cars_train").mkdir()
        (root / "inner").rename(root / "cars_train" / "cars_train")
        (root / "car_devkit").mkdir()
        (root / "devkit").rename(root / "car_devkit" / "devkit")
    train, test = _both("cars196", root)
    assert len(train.classes) == len(test.classes) == 98
    assert train.note == test.note == "the authors' training half alone: cars_test is not there"
    assert train.factors.is_training_image.all()
    lines, whole = check("cars196", root)
    assert whole, "a half that says so is not damaged"
    assert sum("a part of the published" in line for line in lines) == 2


@pytest.mark.parametrize("name", ["cub200", "cars196", "sop"])
def test_leftovers_stand_in_no_ones_way(tmp_path: Path, name: str) -> None:
    copies: dict[str, Callable[..., Path]] = {"cub200": data_copies.cub_copy, "cars196": data_copies.cars_copy}
    (copies | {"sop": data_copies.sop_copy})[name](tmp_path)
    before = [len(data) for data in _both(name, tmp_path)]
    for folder in [path for path in tmp_path.rglob("*") if path.is_dir()]:
        for left in ("Thumbs.db", ".DS_Store", "desktop.ini", "._1.jpg"):
            (folder / left).write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    assert [len(data) for data in _both(name, tmp_path)] == before


def test_lists_with_windows_line_ends_are_read(tmp_path: Path) -> None:
    for path in (*data_copies.cub_copy(tmp_path).glob("*.txt"), *data_copies.sop_copy(tmp_path).glob("*.txt")):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    for name in ("cub200", "sop"):
        assert len(load(name, root=tmp_path)) > 0


def _cifar_images(root: Path, classes: int) -> Path:
    first = "airplane" if classes == 10 else "apple"
    for part, n in (("train", 3), ("test", 2)):
        for number in range(classes):
            folder = root / part / (first if number == 0 else f"z{number:02}")
            folder.mkdir(parents=True)
            for i in range(n):
                Image.new("RGB", (32, 32), (number, i, n)).save(folder / f"{i}.png")
    return root


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_loads_from_folders_of_images(tmp_path: Path, name: str, classes: int) -> None:
    root = _cifar_images(tmp_path / "own", classes)
    (root / "train" / "airplane.txt").write_text("")
    train, test = _both(name, tmp_path, classes="published")
    assert train.images.shape == (3 * classes, 3, 32, 32)
    assert test.images.shape == (2 * classes, 3, 32, 32)
    assert torch.equal(train.images[:, 0, 0, 0].long(), train.labels), "the colour tells the class"
    assert train.note.endswith("; a copy as folders of images, not the original bits")
    train, test = _both(name, tmp_path, classes="disjoint")
    assert not set(train.classes) & set(test.classes)
    assert len(train) == len(test) == 5 * classes // 2
    assert sorted(set(test.images[:, 0, 0, 0].tolist())) == list(range(classes // 2, classes))
    state = files_state(name, tmp_path)
    Image.new("RGB", (32, 32)).save(root / "test" / ("airplane" if classes == 10 else "apple") / "new.png")
    assert files_state(name, tmp_path) != state
    shutil.rmtree(root / "test" / "z01")
    with pytest.raises(
        ValueError, match=f"holds {classes - 1} folders of classes; train and test need the same {classes}"
    ):
        load(name, root=tmp_path)


def test_tiny_imagenet_is_halved_by_wnid(tmp_path: Path) -> None:
    folder = data_copies.tiny_imagenet_copy(tmp_path)
    train, test = _both("tinyimagenet", tmp_path)
    assert train.images.shape == test.images.shape == (300, 3, 64, 64)
    assert (train.classes[0], test.classes[0]) == ("thing n00000000 (n00000000)", "thing n00000100 (n00000100)")
    assert not train.note
    assert train.factors.is_training_image.sum() == 200
    assert ((train.images[:, 0, 0, 0].long() - train.labels).abs() <= 1).all(), "but for the JPEG"
    train, test = _both("tinyimagenet", tmp_path, classes="published", size=32)
    assert (train.images.shape, test.images.shape) == ((400, 3, 32, 32), (200, 3, 32, 32))
    assert train.classes == test.classes
    state = files_state("tinyimagenet", tmp_path)
    (folder / "val" / "images" / "val_7.JPEG").unlink()
    assert files_state("tinyimagenet", tmp_path) != state
    with pytest.raises(ValueError, match=r"1 of 200 in val_annotations\.txt are not in .*val/images: val_7\.JPEG"):
        load("tinyimagenet", root=tmp_path)
    shutil.rmtree(folder / "train" / "n00000005")
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn00000000\t0\nval_0.JPEG\tn00000001\t0\n")
    with pytest.raises(ValueError, match=r"holds 1 images more than once: val_0\.JPEG"):
        load("tinyimagenet", root=tmp_path)


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1)])
def test_a_long_strip_is_cut_before_resizing(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels.reshape(-1, 3)[49_900:50_100] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png", 64)  # as a whole it would have 64 x 6,400,000 pixels
    assert torch.equal(read, torch.tensor([255, 0, 0]).byte()[:, None, None].expand(3, 64, 64))


@pytest.mark.parametrize(("brightest", "fits"), [(65_535, True), (100_000, False), (-1, False)])
def test_pixels_of_32_bits_are_never_wrapped(tmp_path: Path, brightest: int, fits: bool) -> None:
    Image.fromarray(np.full((8, 8), brightest, dtype=np.int32)).save(tmp_path / "a.tif")
    if fits:
        assert (read_image(tmp_path / "a.tif", 8) == 255).all()
        return
    with pytest.raises(
        ValueError, match=rf"a\.tif cannot be read as an image: its pixels of 32 bits reach .*{brightest}"
    ):
        read_image(tmp_path / "a.tif", 8)


@pytest.mark.realdata
def test_the_real_cars_are_a_training_half() -> None:
    from snrlib.data.fetch.source import data_root

    if not (data_root() / "cars196").exists():
        pytest.skip("SNR_DATA holds no cars196")
    train, test = _both("cars196", data_root() / "cars196")
    assert (len(train), len(train.classes), len(test), len(test.classes)) == (4052, 98, 4092, 98)
