"""Stanford Online Products: photographs of 22,634 articles in online shops, half of the articles to train.

Oh Song, Xiang, Jegelka, Savarese: Deep metric learning via lifted structured feature embedding. CVPR 2016, pp.
4004-4012. For research; the photographs belong to their owners.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from snrlib.data.base import Split, check_split
from snrlib.data.fetch.source import Archive, Source, find, missing
from snrlib.data.image_files import ImageFiles, visible
from snrlib.data.sets.lists import check_same, read_list, some
from snrlib.data.traits import DataSet

__all__ = ["DATASET", "SOP", "sop"]

_FOLDER = "Stanford_Online_Products"

SOP = Source(
    name="sop",
    page="https://cvgl.stanford.edu/projects/lifted_struct/",
    places=(f"{_FOLDER}/Ebay_train.txt",),
    archives=lambda: (
        Archive(
            f"{_FOLDER}.zip",
            (f"http://ftp.cs.stanford.edu/cs/cvgl/{_FOLDER}.zip",),
            "7f73d41a2f44250d4779881525aea32e",
            (_FOLDER,),
        ),
    ),
    train=(59_551, 11_318),
    test=(60_502, 11_316),
    split="as published: 11,318 articles to train, 11,316 others to test",
    gigabytes=3.0,
)


def sop(split: Split = "train", root: str | Path | None = None, size: int = 256) -> ImageFiles:
    """Articles of online shops; a class is an article, seen in a few photographs.

    Of a copy that holds only some of the twelve folders of kinds ("bicycle_final"), the articles of those are loaded;
    its note says so.

    Args:
        split: "train" (``Ebay_train.txt``) or "test" (``Ebay_test.txt``).
        root: the folder of downloaded data; ``Stanford_Online_Products`` is looked for in it and in its folders.
        size: side of the square image in pixels.

    Returns:
        Image files; factor ``super_class``, the kind of article ("bicycle").

    Raises:
        ValueError: unknown split, lists that share an article or do not match the disk.
        FileNotFoundError: the data set or one of its lists is not there.
    """
    check_split(split)
    listed = find(root, *SOP.places)
    if listed is None:
        raise missing(SOP, root)
    folder = listed.parent
    lists = {part: read_list(folder / f"Ebay_{part}.txt", columns=4, header=True) for part in ("train", "test")}
    articles = {part: {row[1] for row in rows} for part, rows in lists.items()}
    if both := sorted(articles["train"] & articles["test"], key=str):
        raise ValueError(f"Ebay_train.txt and Ebay_test.txt in {folder} share {len(both)} classes: {some(both)}")
    kinds = {path.name for path in visible(folder) if path.is_dir()}
    paths = [path for rows in lists.values() for *_, path in rows if path.split("/")[0] in kinds]
    used = {path.split("/")[0] for path in paths}
    on_disk = [f"{kind}/{path.name}" for kind in used for path in visible(folder / kind)]
    check_same(paths, "Ebay_train.txt and Ebay_test.txt", on_disk, str(folder))

    rows = [row for row in lists[split] if row[3].split("/")[0] in kinds]
    if not rows:
        raise ValueError(f"{folder} holds no image of Ebay_{split}.txt")
    names = {row[1]: f"{_kind(row[3])}/{row[1]}" for row in rows}
    index = {article: label for label, article in enumerate(names)}
    note = ""
    if len(names) < len(articles[split]):
        note = f"partial copy: {len(names)} of {len(articles[split])} classes, {len(used)} kinds of article"
    return ImageFiles(
        f"sop, {split}",
        tuple(folder / row[3] for row in rows),
        torch.tensor([index[row[1]] for row in rows]),
        tuple(names.values()),
        pd.DataFrame({"super_class": [_kind(row[3]) for row in rows]}),
        size,
        note,
    )


def _kind(path: str) -> str:
    return path.split("/")[0].removesuffix("_final")


DATASET = DataSet("sop", sop, source=SOP, kind="photographs", image_size=224, training=(11318, 5))
