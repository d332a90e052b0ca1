"""CUB-200-2011: photographs of 200 species of birds, the first 100 to train and the last 100 to test.

Wah, Branson, Welinder, Perona, Belongie: The Caltech-UCSD Birds-200-2011 Dataset. Technical report CNS-TR-2011-001,
California Institute of Technology, 2011. For research and education; the photographs belong to their owners.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from snrlib.data.base import Split, check_split
from snrlib.data.fetch.source import Archive, Source, find, missing
from snrlib.data.image_files import ImageFiles, visible
from snrlib.data.sets.lists import check_same, read_map, some
from snrlib.data.traits import DataSet
from snrlib.utils.checks import check_choice

__all__ = ["CUB200", "DATASET", "cub200"]

_FOLDER = "CUB_200_2011"
_CLASSES = 200

CUB200 = Source(
    name="cub200",
    page="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    places=(f"{_FOLDER}/images.txt",),
    archives=lambda: (
        Archive(
            f"{_FOLDER}.tgz",
            (
                f"https://data.caltech.edu/records/65de6-vp158/files/{_FOLDER}.tgz",
                f"http://www.vision.caltech.edu/visipedia-data/CUB-200-2011/{_FOLDER}.tgz",
            ),
            "97eceeb196236b17998738112f37df78",
            (_FOLDER,),
        ),
    ),
    train=(5_864, 100),
    test=(5_924, 100),
    split="the first 100 classes to train, the last 100 to test",
    gigabytes=1.2,
)


def cub200(
    split: Split = "train", root: str | Path | None = None, size: int = 256, classes: str = "disjoint"
) -> ImageFiles:
    """Birds by species, in the field's split for metric learning: no species is in both.

    Of a copy that holds only some classes, the first half of those go to train, the others to test; its note says so.

    Args:
        split: "train" or "test".
        root: the folder of downloaded data; ``CUB_200_2011`` is looked for in it and in its folders.
        size: side of the square image in pixels.
        classes: "disjoint", the only choice: the authors' own split shows every class on both sides.

    Returns:
        Image files; factor ``is_training_image``, that own split, if its list is there.

    Raises:
        ValueError: unknown split or option, lists that do not match each other or the disk, a class without images.
        FileNotFoundError: the data set or one of its lists is not there.
    """
    check_split(split)
    check_choice(classes, "classes", ("disjoint",))
    listed = find(root, *CUB200.places)
    if listed is None:
        raise missing(CUB200, root)
    folder = listed.parent
    names = read_map(folder / "classes.txt")
    files = read_map(folder / "images.txt")
    class_of = read_map(folder / "image_class_labels.txt")
    check_same(files, "images.txt", class_of, "image_class_labels.txt")
    check_same(names, "classes.txt", set(class_of.values()), "image_class_labels.txt")
    if wrong := [f for i, f in files.items() if f.split("/")[0] != names[class_of[i]]]:
        raise ValueError(
            f"image_class_labels.txt and the folders in images.txt disagree on {len(wrong)}: {some(wrong)}"
        )
    present = [number for number, name in names.items() if (folder / "images" / name).is_dir()]
    there = set(present)
    files = {i: f for i, f in files.items() if class_of[i] in there}
    on_disk = [f"{names[n]}/{path.name}" for n in present for path in visible(folder / "images" / names[n])]
    check_same(files.values(), f"{folder}/images.txt", on_disk, f"{folder}/images")
    if len(present) < 2:
        raise ValueError(f"{folder}/images holds {len(present)} of the {len(names)} classes; two are needed")

    half = len(present) // 2
    chosen = present[:half] if split == "train" else present[half:]
    index = {number: label for label, number in enumerate(chosen)}
    rows = [i for i in files if class_of[i] in index]
    factors = pd.DataFrame()
    if (folder / "train_test_split.txt").exists():
        official = read_map(folder / "train_test_split.txt")
        check_same(class_of, "image_class_labels.txt", official, "train_test_split.txt")
        factors = pd.DataFrame({"is_training_image": [official[i] == "1" for i in rows]})
    note = ""
    if len(present) < _CLASSES:
        note = f"partial copy: {len(present)} of {_CLASSES} classes, the first {half} to train and the others to test"
    return ImageFiles(
        f"cub200, {split}",
        tuple(folder / "images" / files[i] for i in rows),
        torch.tensor([index[class_of[i]] for i in rows]),
        tuple(names[number] for number in chosen),
        factors,
        size,
        note,
    )


DATASET = DataSet("cub200", cub200, source=CUB200, kind="photographs", image_size=224, training=(100, 60))
