"""Images in files and in memory: what is read, what is refused, classes taken out, validation by class."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracles import bad_options, refusals
from PIL import Image
from torch.utils.data import DataLoader

from snrlib.data import ImageFiles, LabelledImages, load, validation_split
from snrlib.data.image_files import read_image
from snrlib.data.splits import other_classes


def _picture(width: int, height: int) -> Image.Image:
    """Smooth, and different in every corner and channel."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray((255 * np.stack([x, y, (1 - x) * (1 - y)], axis=2)).astype(np.uint8))


def _files(folder: Path, size: int = 16) -> ImageFiles:
    """Four classes of three images."""
    paths = [folder / f"{label}_{i}.png" for label in range(4) for i in range(3)]
    for n, path in enumerate(paths):
        Image.new("RGB", (20, 20), (10 * (n // 3), 50 + n % 3, 200)).save(path)
    factors, labels = pd.DataFrame({"take": [0, 1, 2] * 4}), torch.arange(4).repeat_interleave(3)
    return ImageFiles("made, train", tuple(paths), labels, tuple("abcd"), factors, size, "made here")


def _memory(dtype: torch.dtype) -> LabelledImages:
    images = torch.randint(256, (6, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images = images if dtype == torch.uint8 else images.float() / 255
    return LabelledImages("made", images, torch.tensor([0, 0, 1, 1, 2, 2]), ("a", "b", "c"))


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 301), (31, 77), (1, 9)])
def test_resizing_and_cropping_are_torchvisions(tmp_path: Path, width: int, height: int) -> None:
    from snrlib.utils.torchvision_import import torchvision

    transforms = torchvision.transforms.functional
    picture = _picture(width, height)
    picture.save(tmp_path / "a.png")
    expected = transforms.center_crop(transforms.resize(picture, 64), 64)
    assert torch.equal(read_image(tmp_path / "a.png", 64), transforms.pil_to_tensor(expected))


def test_the_cameras_orientation_is_applied(tmp_path: Path) -> None:
    upright = _picture(60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn a quarter to the right to see it so
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    assert torch.equal(read_image(tmp_path / "turned.png", 32), read_image(tmp_path / "upright.png", 32))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGBA", "LA", "I;16", "I"])
def test_any_kind_of_image_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = np.repeat(np.linspace(0, 255, 40).astype(np.uint8)[None], 40, axis=0)
    if mode.startswith("I"):
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert("RGB").convert(mode)
    path = tmp_path / {"I": "a.pgm", "CMYK": "a.jpg"}.get(mode, "a.png")
    image.save(path)
    read = read_image(path, 40)
    assert (read.shape, read.dtype) == ((3, 40, 40), torch.uint8)
    tolerance = {"1": 255, "P": 80}.get(mode, 3)  # dithered to few colours
    assert (read.int() - torch.from_numpy(grey).int()).abs().max() <= tolerance
    assert abs(read.float().mean().item() - grey.mean()) < 3


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([9, 9, 9] * 16)
    palette.save(tmp_path / "b.png", transparency=3)
    for name in "ab":
        assert (read_image(tmp_path / f"{name}.png", 8) == 255).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's own remark on the way
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_damaged_files_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"bird.{ending}"
    _picture(80, 80).save(path)
    whole = path.read_bytes()
    Image.fromarray(np.ones((9, 9), np.float32)).save(path, format="tiff")
    for damaged in (path.read_bytes(), whole[: len(whole) // 2], whole[:20], b"hello", b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"bird\.{ending} cannot be read as an image: ."):
            read_image(path, 16)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="bird"):  # a missing one is not called damaged
        read_image(path, 16)


def test_files_in_memory_are_the_same_images(tmp_path: Path) -> None:
    data = _files(tmp_path)
    memory = data.in_memory()
    assert memory.images.dtype == torch.uint8
    assert (memory.name, memory.note, memory.classes) == (data.name, data.note, data.classes)
    pd.testing.assert_frame_equal(memory.factors, data.factors)
    for (image, label), (same, same_label) in zip(data, memory, strict=True):  # type: ignore[call-overload]
        assert (image.shape, image.dtype) == ((3, 16, 16), torch.float32)
        assert 0 <= image.min() < image.max() <= 1
        torch.testing.assert_close(image, same)
        assert label == same_label
    assert repr(data) == "made, train: 12 images (3, 16, 16) of 4 classes (made here)"
    for one in (data, memory):
        assert pickle.loads(pickle.dumps(one)).fingerprint == one.fingerprint, "it travels to another process"
    data.files[5].write_bytes(b"no image")
    with pytest.raises(ValueError, match=f"{data.files[5].name} cannot be read"):
        data.in_memory()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_batches_equal_their_images_one_by_one(dtype: torch.dtype) -> None:
    data = _memory(dtype)
    for (image, label), i in zip(data.__getitems__([4, 0, 3]), [4, 0, 3], strict=True):
        assert image.dtype == torch.float32
        assert torch.equal(image, data[i][0])
        assert label == data[i][1]
    torch.testing.assert_close(data[2][0], _memory(torch.float32)[2][0])


def test_a_data_loader_takes_either_kind(tmp_path: Path) -> None:
    files = _files(tmp_path)
    for data in (files, files.in_memory()):
        for workers in (0, 1):
            images, labels = next(iter(DataLoader(data, batch_size=5, num_workers=workers)))
            assert images.shape == (5, 3, 16, 16)
            assert torch.equal(labels, data.labels[:5])


def test_classes_are_chosen_in_the_order_given(tmp_path: Path) -> None:
    files = _files(tmp_path)
    for data in (files, files.in_memory()):
        chosen = data.of_classes([3, 1])
        assert type(chosen) is type(data)
        assert (chosen.name, chosen.note, chosen.classes) == (data.name, data.note, ("d", "b"))
        assert chosen.labels.tolist() == [1, 1, 1, 0, 0, 0]
        assert chosen.factors["take"].tolist() == [0, 1, 2, 0, 1, 2]
        assert torch.equal(chosen[3][0], data[9][0])
        for wrong in ([], [0, 0], [4], [-1]):
            with pytest.raises(ValueError, match="class indices must be one or more of 0 to 3, each once"):
                data.of_classes(wrong)


def test_fingerprints_follow_pixels_labels_and_size(tmp_path: Path) -> None:
    data = _files(tmp_path)
    first = data.fingerprint
    assert len(first) == 16
    assert _files(tmp_path).fingerprint == first
    assert first not in (_files(tmp_path, size=17).fingerprint, data.of_classes([1, 0, 2, 3]).fingerprint)
    Image.new("RGB", (20, 20), (1, 2, 3)).save(data.files[0])
    assert data.fingerprint == first, "computed once"
    assert ImageFiles(data.name, data.files, data.labels, data.classes, size=16).fingerprint != first
    memory = _memory(torch.uint8)
    assert repr(memory) == "made: 6 images (3, 4, 4) of 3 classes"
    assert memory.fingerprint == _memory(torch.uint8).fingerprint != _memory(torch.float32).fingerprint


def test_validation_takes_whole_classes_by_its_seed(tmp_path: Path) -> None:
    glyphs = load("glyphs", per_class=1, noise=0)
    for data in (glyphs, _files(tmp_path)):
        train, validation = validation_split(data, share=0.5)
        assert sorted(train.classes + validation.classes) == sorted(data.classes)
        assert len(train) + len(validation) == len(data)
        assert train.name == f"{data.name}, without validation classes"
        assert validation.name == f"{data.name}, validation classes"
        assert len(validation.classes) == round(0.5 * len(data.classes))
        for part in (train, validation):
            assert part.labels.unique().tolist() == list(range(len(part.classes)))
    first, again, other = (validation_split(glyphs, seed=seed)[1] for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint
    assert first.classes != other.classes
    assert len(first.classes) == round(0.25 * len(glyphs.classes))


def test_other_classes_deal_both_halves_anew(tmp_path: Path) -> None:
    def held(*halves: Any) -> list[tuple[str, bytes]]:
        return sorted((half.classes[label], image.numpy().tobytes()) for half in halves for image, label in half)

    files, glyphs = _files(tmp_path), [load("glyphs", half, per_class=1, noise=0) for half in ("train", "test")]
    halves = [files.of_classes([0, 1]), files.of_classes([2, 3])]
    both: Any
    for both in (halves, [half.in_memory() for half in halves], glyphs):
        train, test = both
        first, second = other_classes(train, test, seed=2)
        assert held(first, second) == held(train, test)
        assert (len(first.classes), len(second.classes)) == (len(train.classes), len(test.classes))
        assert set(first.classes) != set(train.classes)
        assert not set(first.classes) & set(second.classes)
    again, other = (other_classes(both[0], both[1], seed)[0] for seed in (2, 3))
    assert again.fingerprint == first.fingerprint != other.fingerprint


test_what_makes_no_data_set_is_refused = refusals(
    (lambda: ImageFiles("made", (Path("a"),), torch.arange(2), ("a", "b")), ValueError, "1 files have 2 labels"),
    (lambda: ImageFiles("made", (), torch.tensor([]), (), size=0), ValueError, "size must be at least 1 pixel, got 0"),
    (lambda: validation_split(load("digits"), 0.2), ValueError, "two classes on each side"),
    (lambda: validation_split(load("digits"), 0.9), ValueError, "two classes on each side"),
    (lambda: other_classes(load("digits"), load("digits"), 1), ValueError, "share 5 classes, as 0"),
    *bad_options(lambda share: validation_split(load("digits"), share), share=[1.5]),
)
