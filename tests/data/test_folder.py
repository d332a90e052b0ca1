"""A user's own images, as people have them: folders, tables, and what lies beside them."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from snrlib.cli.main import main
from snrlib.cli.notebooks import values_of
from snrlib.data import ImageFiles, load
from snrlib.experiment import default_settings, fit
from snrlib.experiment.parts import _load

LAYOUTS = r"Expected is one sub-folder per class"


def _images(folder: Path, n: int = 2, ending: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("RGB", (12, 9), (len(folder.name), i, 0)).save(folder / f"{i}.{ending}")


def _classes(folder: Path, names: str = "abcd") -> Path:
    for name in names:
        _images(folder / name)
    return folder


def _table(folder: Path, **columns: object) -> pd.DataFrame:
    """Of two images of each of four classes, in one folder."""
    _images(folder / "all", 8)
    usual = {"path": [f"all/{i}.png" for i in range(8)], "label": list("aabbccdd")}
    return pd.DataFrame({**usual, **columns})


def both(root: Path, **options: object) -> tuple[ImageFiles, ImageFiles]:
    train, test = (load("folder", split, root=root, size=8, **options) for split in ("train", "test"))
    for data in (train, test):
        image, label = data[len(data) - 1]
        assert image.shape == (3, 8, 8)
        assert label == len(data.classes) - 1
        assert data.name == f"{root.stem if root.is_file() else root.name}, {'train' if data is train else 'test'}"
    return train, test


def test_a_fixed_shuffle_splits_folders_by_class(tmp_path: Path) -> None:
    _classes(tmp_path, "abcdefgh")
    train, test = both(tmp_path)
    assert (len(train.classes), len(train), len(test.classes)) == (4, 8, 4)
    assert sorted(train.classes + test.classes) == list("abcdefgh")
    assert both(tmp_path, seed=1)[0].classes != train.classes
    assert both(tmp_path, seed=0)[0].classes == train.classes
    assert len(both(tmp_path, share=0.25)[0].classes) == 2


@pytest.mark.parametrize(
    ("parts", "in_train", "in_test"),
    [
        ({"train": "ab", "test": "cd"}, "ab", "cd"),
        ({"Training": "ab", "TEST": "cd"}, "ab", "cd"),
        ({"train": "ab", "val": "cd"}, "ab", "cd"),
        ({"train": "ab", "Valid": "ef", "test": "cd"}, "abef", "cd"),
    ],
)
def test_train_and_test_are_found_in_any_case(
    tmp_path: Path, parts: dict[str, str], in_train: str, in_test: str
) -> None:
    for part, names in parts.items():
        _classes(tmp_path / part, names)
    train, test = both(tmp_path)
    assert ("".join(train.classes), "".join(test.classes)) == (in_train, in_test)
    assert ("val belongs to train" in train.note) == (len(parts) == 3)


def test_a_closed_set_is_split_by_class_or_kept(tmp_path: Path) -> None:
    for part in ("train", "test"):
        _classes(tmp_path / part)
    train, test = both(tmp_path)
    assert len(train) == len(test) == 8, "two classes each, with the images of train and test"
    assert not set(train.classes) & set(test.classes)
    assert "train and test share 4 classes, so they are put together and split by class" in train.note
    train, test = both(tmp_path, classes="published")
    assert train.classes == test.classes == tuple("abcd")
    assert {path.parts[-3] for path in train.files} == {"train"}
    assert test.note == "as published: 4 classes are in both train and test"


@pytest.mark.parametrize("place", ["archive", "archive/archive", "train"])
def test_a_lone_folder_is_looked_into(tmp_path: Path, place: str) -> None:
    _classes(tmp_path / "own" / place)
    (tmp_path / "own" / "__MACOSX").mkdir()
    train, test = both(tmp_path / "own")
    assert set(train.classes + test.classes) == set("abcd")


def test_images_below_a_class_belong_to_it(tmp_path: Path) -> None:
    for name in "abcd":
        _images(tmp_path / name / "2024" / "may", 3)
        _images(tmp_path / name, 1)
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")  # a circle
    train, test = both(tmp_path)
    assert len(train) == len(test) == 8


def test_every_ending_of_an_image_is_read(tmp_path: Path) -> None:
    for name in "abcd":
        for ending in ("jfif", "avif", "WEBP", "jp2", "tga"):
            _images(tmp_path / name, 1, ending)
    train, test = both(tmp_path)
    assert len(train) == len(test) == 10
    assert not train.note


LEFT_BEHIND = (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", "Icon\r", "0.png~", "~$list.xlsx", "1.png.part")


def test_leftovers_are_passed_over_and_others_counted(tmp_path: Path) -> None:
    _classes(tmp_path)
    _images(tmp_path / "@eaDir")
    for name in LEFT_BEHIND:
        (tmp_path / "a" / name).write_bytes(b"x")
        (tmp_path / name).write_bytes(b"x")
    assert not both(tmp_path)[0].note
    (tmp_path / "a" / "list.txt").write_text("x")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "c" / "pipe.png")
    (tmp_path / "empty").mkdir()
    for data in both(tmp_path):
        assert "1 folders without an image left out: empty" in data.note
        assert "3 files that are no images left out: a/list.txt, b/gone.png, c/pipe.png" in data.note


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "semicolon.csv", "bom.csv"])
@pytest.mark.parametrize("split", [True, False])
def test_a_table_names_files_labels_and_split(tmp_path: Path, ending: str, split: bool) -> None:
    table = _table(tmp_path).rename(columns={"path": " File ", "label": "Class"})
    if split:
        table["split"] = ["train"] * 4 + ["Test", "test", "TEST", "testing"]
    path = tmp_path / f"labels.{ending}"
    if ending == "parquet":
        table.to_parquet(path)
    else:
        mark = {"tsv": "\t", "semicolon.csv": ";"}.get(ending, ",")
        table.to_csv(
            path, index=False, sep=mark, encoding="utf-8-sig" if "bom" in ending else None, lineterminator="\r\n"
        )
    train, test = both(path)
    assert (len(train), len(test)) == (4, 4)
    assert sorted(train.classes + test.classes) == list("abcd")
    if split:
        assert train.classes == ("a", "b")


def test_a_table_with_a_closed_set_is_one(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    _table(tmp_path, split=["train", "val"] * 4).to_csv(path, index=False)
    assert "share 4 classes" in both(path)[0].note
    train, test = both(path, classes="published")
    assert (train.classes, len(train), len(test)) == (tuple("abcd"), 4, 4)


def _write(what: Callable[[Path], object]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        what(folder)
        return folder

    return make


def _as_csv(**columns: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        _table(folder, **columns).to_csv(folder / "labels.csv", index=False)
        return folder / "labels.csv"

    return make


def _of_bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_write(lambda folder: None), rf"holds no class: it is empty\. {LAYOUTS}"),
        (_write(_images), r"holds no class: 2 images lie in it directly"),
        (_write(lambda folder: (folder / "photos.zip").write_bytes(b"")), r"photos\.zip is still packed"),
        (_write(_table), r"gives 0 of its 1 classes to train|gives 1 of its 1 classes to train"),
        (
            _write(lambda folder: (folder / "labels.csv").write_bytes(b"")),
            r"it holds the table labels\.csv, which root=",
        ),
        (_write(lambda folder: (folder / "a").mkdir()), r"1 sub-folders hold no image \(a\)"),
        (_write(lambda folder: _classes(folder, "abc")), r"gives 2 of its 3 classes to train|gives 1 of its 3 classes"),
        (lambda folder: folder / "gone", "there is no folder or table .*gone"),
        (_of_bytes("a.png", b"x"), r"a\.png is neither a folder nor a table \(\.csv, \.tsv, \.parquet\)"),
        (_of_bytes("a.csv", b"\xff\xfe\x00"), r"a\.csv cannot be read as a table: ."),
        (_of_bytes("a.csv", b""), r"a\.csv cannot be read as a table: ."),
        (_of_bytes("a.parquet", b"PAR1 no"), r"a\.parquet cannot be read as a table: ."),
        (_of_bytes("a.csv", b"x,y\n1,2\n"), r"has no column path and label, only x, y"),
        (_as_csv(label=["a", "", *"bbccdd"]), r"gives 1 images no label, first in row 2"),
        (_as_csv(path=["all/0.png"] * 8), r"names 1 images more than once: .*all/0\.png"),
        (_as_csv(path=[f"all/{i}.jpg" for i in range(8)]), r"8 of 8 images that .*labels\.csv names are not there"),
        (_as_csv(split=["train"] * 7 + ["holdout"]), r"has splits other than train.*'holdout'"),
    ],
)
def test_a_refusal_names_cause_and_layouts(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    root = make(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refused:
        both(root)
    assert str(root) in str(refused.value)


def test_bad_options_of_a_folder_are_named(tmp_path: Path) -> None:
    own = partial(load, "folder", root=_classes(tmp_path))
    for options, message in (
        ({"share": 1.5}, "share must be"),
        ({"classes": "open"}, "classes must be one of"),
        ({"classes": "published"}, "holds no train and test"),
        ({"share": 0.1}, "gives 0 of its 4 classes to train"),
        ({"root": None}, "needs root=PATH"),
    ):
        with pytest.raises(ValueError, match=message):
            own(**options)


def test_a_path_counts_from_where_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _classes(tmp_path / "photos")
    (tmp_path / "net.pth").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    given = values_of("07", ["data=folder", "root=photos", "weights=net.pth"])
    settings = default_settings("folder", root="photos", weights="net.pth")
    monkeypatch.chdir("/")
    for root, weights in ((given["root"], given["weights"]), (settings.root, settings.weights)):
        assert root == str(tmp_path / "photos")
        assert weights == str(tmp_path / "net.pth")
    assert values_of("07", ["root=auto", "weights=imagenet"]) == {"root": None, "weights": "imagenet"}


@pytest.mark.parametrize(("n_classes", "per_class"), [(4, 20), (10, 20), (12, 3), (22, 6), (41, 2), (82, 20)])
def test_few_classes_train_with_nothing_else_given(tmp_path: Path, n_classes: int, per_class: int) -> None:
    for number in range(n_classes):
        _images(tmp_path / f"c{number:02}", per_class)
    settings = default_settings("folder", "conv4", root=tmp_path, image_size=16, steps=1, every=1)
    fitted = fit(settings)
    assert len(fitted.history) == 1
    assert (n_classes // 2 < 5) == (settings.validation_share == 0)


def test_changed_images_are_refused_until_the_checkpoint_goes(tmp_path: Path) -> None:
    root, last = _classes(tmp_path / "images"), tmp_path / "run" / "last.pt"
    settings = default_settings("folder", "conv4", root=root, image_size=16, steps=1, batch_size=4, m=2)
    fit(settings, last.parent)
    shutil.copy(root / "a" / "0.png", root / "a" / "1.png")  # a class that trains
    os.utime(root / "a" / "1.png")
    _load.cache_clear()  # images that are kept in memory
    with pytest.raises(ValueError, match=r"last\.pt is of another training: data was '.+'\. Remove it, or choose"):
        fit(settings, last.parent)
    last.unlink()
    assert len(fit(settings, last.parent).history) == 1


def test_what_cannot_train_starts_no_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abcd":
        _images(tmp_path / "single" / name, 1)
    _images(tmp_path / "alone" / "a", 9)
    _classes(tmp_path / "whole")
    for root, more, message in (
        ("single", [], "folder has 2 classes to train, and the middle one holds 1"),
        ("alone", [], "of its 1 classes to"),
        ("gone", [], "there is no folder or table"),
        ("whole", ["-p", "weights=gone.pth"], "gone.pth"),
    ):
        assert main(["run", "07", "-p", "data=folder", "-p", f"root={tmp_path / root}", *more]) == 2
        assert message in capsys.readouterr().err
    assert not list(Path(os.environ["SNR_RUNS"]).rglob("*.ipynb"))
