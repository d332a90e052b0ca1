"""Tiny copies of the data sets, made in their original layouts."""

from __future__ import annotations

import io
import itertools
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.io import savemat

FULL = ({"Latin": 2, "Greek": 2}, {"Tengwar": 3})
CARS_TEST = "cars_test_annos_withlabels.mat"
SMALL = ({"Latin": 2, "Greek": 1}, {"Greek": 1, "Sanskrit": 2, "Tagalog": 1, "Latin": 2})


def png(seed: int, side: int = 24) -> bytes:
    """A coloured image of its own."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (seed * 7 % 256, seed * 31 % 256, seed // 37 % 256)).save(buffer, "png")
    return buffer.getvalue()


def omniglot_drawing(name: str) -> bytes:
    """Black strokes on white, 105 x 105, one bit a pixel, as published; another name, other strokes."""
    image = Image.new("1", (105, 105), 1)
    points = np.random.default_rng(list(name.encode())).integers(10, 95, size=8)
    ImageDraw.Draw(image).line(points.tolist(), fill=0, width=3)
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def omniglot_zip(path: Path, alphabets: Mapping[str, int], drawings: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for alphabet, characters in alphabets.items():
            for character in range(1, characters + 1):
                for drawer in range(1, drawings + 1):
                    name = f"{alphabet}/character{character:02}/0001_{drawer:02}.png"
                    archive.writestr(f"{path.stem}/{name}", omniglot_drawing(name))
    return path


def omniglot_copy(root: Path, small: bool = False) -> Path:
    names = ("background_small1", "background_small2") if small else ("background", "evaluation")
    for name, alphabets in zip(names, SMALL if small else FULL, strict=True):
        omniglot_zip(root / "omniglot" / f"images_{name}.zip", alphabets)
    return root


def cub_copy(root: Path, classes: int = 4, per_class: int = 3) -> Path:
    """The folder CUB_200_2011."""
    folder = root / "CUB_200_2011"
    names = [f"{number:03}.Bird_{number}" for number in range(1, classes + 1)]
    rows = [(number, name, i) for number, name in enumerate(names, 1) for i in range(per_class)]
    for number, name, i in rows:  # Pillow looks at the content, not at the ending
        put(folder / "images" / name / f"Bird_{number}_{i}.jpg", png(number * per_class + i))
    lists: dict[str, list[tuple[Any, ...]]] = {
        "classes.txt": list(enumerate(names, 1)),
        "images.txt": [(k, f"{name}/Bird_{number}_{i}.jpg") for k, (number, name, i) in enumerate(rows, 1)],
        "image_class_labels.txt": [(k, number) for k, (number, *_) in enumerate(rows, 1)],
        "train_test_split.txt": [(k, i % 2) for k, (*_, i) in enumerate(rows, 1)],
    }
    for name, entries in lists.items():
        (folder / name).write_text("".join(f"{key} {value}\n" for key, value in entries))
    return folder


def cars_copy(root: Path, classes: int = 4, per_class: int = 3, devkit: bool = False) -> Path:
    """Everything in one folder, or with ``devkit`` train and test apart."""
    rows = [(label, i) for label in range(classes) for i in range(per_class)]
    names = np.array([f"Car {label}" for label in range(classes)], dtype=object)

    def annotate(file: str, entries: list[dict[str, Any]], **others: Any) -> None:
        kinds = [(key, object) for key in entries[0]]
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        savemat(root / file, {"annotations": np.array([tuple(e.values()) for e in entries], dtype=kinds), **others})

    entries: dict[str, list[dict[str, Any]]] = {"all": [], "train": [], "test": []}
    for k, (label, i) in enumerate(rows):
        part = "test" if i % 2 else "train"
        path = put(root / (f"cars_{part}/{k:05}.jpg" if devkit else f"car_ims/{k:06}.jpg"), png(k))
        entry = {"bbox_x1": 1, "class": label + 1}
        entries[part].append({**entry, "fname": path.name})
        entries["all"].append({**entry, "relative_im_path": f"car_ims/{path.name}", "test": i % 2})
    if devkit:
        annotate("devkit/cars_train_annos.mat", entries["train"])
        annotate(CARS_TEST, entries["test"])
        savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    else:
        annotate("cars_annos.mat", entries["all"], class_names=names)
    return root


def sop_copy(root: Path) -> Path:
    """The folder Stanford_Online_Products: two kinds, three articles of each to train and two to test."""
    folder = root / "Stanford_Online_Products"
    articles, images = itertools.count(1), itertools.count(1)
    for part, n in (("train", 3), ("test", 2)):
        rows = ["image_id class_id super_class_id path"]
        for number, kind in [(1, "bicycle")] * n + [(2, "mug")] * n:
            article = next(articles)
            for i in range(2):
                image = next(images)
                path = put(folder / f"{kind}_final" / f"1110{article}_{i}.JPG", png(image))
                rows.append(f"{image} {article} {number} {kind}_final/{path.name}")
        (folder / f"Ebay_{part}.txt").write_text("\n".join(rows) + "\n")
    return folder


def cifar_copy(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str = "CIFAR10", classes: int = 4, tested: int = 1
) -> Path:
    """CIFAR's folder with a few images, ``tested`` of each class to test, whose MD5 torchvision is told to expect."""
    from snrlib.utils.torchvision_import import torchvision

    known = getattr(torchvision.datasets, kind)
    folder = root / known.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    key = "labels" if kind == "CIFAR10" else "fine_labels"

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return md5((folder / name).read_bytes()).hexdigest()

    for part in ("train_list", "test_list"):
        files = [name for name, _ in getattr(known, part)]
        n = (2 if part == "train_list" else tested) * classes
        labels = [i % classes for i in range(n)]
        data = [random.integers(256, size=(n, 3072), dtype=np.uint8) for _ in files]
        written = [[name, write(name, {"data": d, key: labels})] for name, d in zip(files, data, strict=True)]
        monkeypatch.setattr(known, part, written)
    names = [f"class {label}" for label in range(classes)]
    meta = {**known.meta, "md5": write(known.meta["filename"], {known.meta["key"]: names})}
    monkeypatch.setattr(known, "meta", meta)
    return folder


def tar(path: Path, folder: Path) -> Path:
    """The folder as a gzipped tar file, under its own name."""
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


def tiny_imagenet_copy(root: Path, classes: int = 200) -> Path:
    """Of each class two training images and a validation image, all of one colour."""
    folder = root / "tiny-imagenet-200"
    wnids = [f"n{number:08}" for number in range(classes)]
    (folder / "val" / "images").mkdir(parents=True)
    for number, wnid in enumerate(wnids):
        (folder / "train" / wnid / "images").mkdir(parents=True)
        image = Image.new("L" if number == 3 else "RGB", (64, 64), number if number == 3 else (number, 9, 9))
        for i in range(2):
            image.save(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", quality=100)
        image.save(folder / "val" / "images" / f"val_{number}.JPEG", quality=100)
    rows = [f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t62\n" for number, wnid in enumerate(wnids)]
    (folder / "val" / "val_annotations.txt").write_text("".join(rows))
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in reversed(wnids)))
    (folder / "words.txt").write_text("".join(f"{wnid}\tthing {wnid}, it\n" for wnid in wnids))
    return folder
