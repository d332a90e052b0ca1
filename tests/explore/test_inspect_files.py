"""Files of embeddings in the inspector: what is read of images and columns, said in words, and exported."""

import io
import json
import re
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from snrlib.cli.main import main
from snrlib.data.embedding_file import read_embeddings
from snrlib.distances import get_distance
from snrlib.explore import Items, export_atlas, inspect, items_of, tsne
from snrlib.explore.items import thumbnails
from snrlib.study.embeddings import file_embeddings

N = 60


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A Parquet file of embeddings and a folder of images: three are missing, one is outside, one damaged."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 3
    paths = [f"{row}.png" for row in range(N)]
    (tmp_path / "photos").mkdir()
    for row, path in enumerate(paths):
        Image.new("RGB", (40, 20 + row), (4 * row, 0, 99)).save(tmp_path / "photos" / path)
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (tmp_path / "photos" / "4.png").write_bytes(b"no image")
    paths[:4] = ["gone.png", "x" * 5000, "nul\0.png", "../secret.png"]
    centres = 4 * rng.normal(size=(3, 8))
    known = {"label": [f"bird {c}" for c in labels], "path": paths, "weight": rng.normal(size=N)}
    frame = pd.DataFrame({"embedding": list((centres[labels] + rng.normal(size=(N, 8))).astype(np.float32)), **known})
    frame.to_parquet(tmp_path / "birds.parquet")
    return tmp_path / "birds.parquet"


def test_a_file_becomes_page_and_table(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, atlas, photos = (table.with_name(name) for name in ("birds.html", "atlas.parquet", "photos"))
    command = ["inspect", str(table), "--images", str(photos), "-o", str(page), "--export", str(atlas)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(page), str(atlas)]
    for words in ("3 of 60 images: not there", "1 of 60 images: outside", "1 of 60 images: damaged"):
        assert words in said.err
        assert words in page.read_text()
    facts = json.loads(re.findall(r'id="facts">(.*?)</script>', page.read_text())[0])
    assert [one["title"] for one in facts["maps"]] == ["Euclid", "cosine", "SNR"]
    assert facts["classes"] == ["bird 0", "bird 1", "bird 2"]
    assert {one["name"]: one["colour"] for one in facts["columns"]} == {"weight": True, "path": False}
    read, found = read_embeddings(table), pd.read_parquet(atlas)
    one = tsne(read.embeddings, read.labels, get_distance("snr"))
    assert np.array_equal(found[["x_snr", "y_snr"]], one.points)
    assert [list(row["ids"]) for row in found.neighbors_snr] == one.neighbours.tolist()
    assert found.right_snr.tolist() == one.hits[:, 0].tolist()
    assert found["class"].tolist() == [read.classes[c] for c in read.labels]
    assert found.image.isna().tolist() == [row < 5 for row in range(N)]
    picture = Image.open(io.BytesIO(found.image[50]["bytes"])).convert("RGB")
    assert np.abs(np.asarray(picture)[60, 60].astype(int) - [200, 0, 99]).max() < 8
    assert main(command) == 0, "and replaces its own"
    foreign = table.read_bytes()
    assert main([*command[:-1], str(table)]) == 2
    assert "is no export of this study" in capsys.readouterr().err
    assert table.read_bytes() == foreign


def test_what_a_file_cannot_give_is_said(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lone, out = table.with_name("lone.npz"), str(table.with_name("a.html"))
    np.savez(lone, embeddings=np.eye(N, 8, dtype=np.float32), labels=np.arange(N)[::-1] % 4)
    wrong = {
        ("--images", str(table.parent)): "has no column of paths",
        ("--images", str(lone)): "is no folder",
        ("--distance", "manhattan"): "manhattan",
        (str(table),): "has other rows than",
        ("--distance", "snr", "--export", "a.csv"): "exported as .parquet",
    }
    for options, message in wrong.items():
        assert main(["inspect", str(lone), *options, "-o", out]) == 2
        assert message in capsys.readouterr().err
    assert main(["inspect", "--images", str(table.parent), "-o", out]) == 2
    assert "belong to files of embeddings" in capsys.readouterr().err
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("labels", "note", "score"),
    [
        (np.zeros(N, dtype=int), "All are of one class, '0'", "R@1 1.000"),
        (np.arange(N), f"{N} of {N} classes have one row", "R@1 of none"),
        (np.maximum(np.arange(N), N // 2), f"{N // 2 - 1} of {N // 2} classes have one row", "R@1 1.000"),
    ],
)
def test_what_labels_cannot_tell_is_said(labels: np.ndarray, note: str, score: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(N, 5)) + 100 * (labels[:, None] == np.bincount(labels).argmax())
    np.savez(tmp_path / "few.npz", embeddings=x, labels=labels)
    read = read_embeddings(tmp_path / "few.npz")
    one = tsne(read.embeddings, read.labels)
    assert score in one.scores
    assert escape(note) in inspect([one], items_of(read)).html


def test_the_same_rows_are_drawn_from_files(tmp_path: Path) -> None:
    x, files = np.random.default_rng(0).normal(size=(N, 5)), [tmp_path / "one.npz", tmp_path / "two.npz"]
    for factor, file in enumerate(files, start=1):
        np.savez(file, embeddings=factor * x, labels=np.arange(N) % 3)
    found = file_embeddings(files, ["snr"], rows=40)
    assert isinstance(found.images, Items)
    rows = found.images.factors.row.tolist()
    assert len(set(rows)) == 40
    assert rows == sorted(rows)
    for factor, drawn in enumerate(found.embeddings.values(), start=1):
        assert np.array_equal(drawn, factor * x[rows])
    assert found.images.labels.tolist() == [row % 3 for row in rows]
    assert f"Drawn at random: 40 of {N} rows." in found.images.notes


@pytest.mark.parametrize("shape", [(N, 6, 5), (N, 6, 5, 1), (N, 6, 5, 3), (N, 3, 6, 5)])
def test_images_of_any_layout_are_shown_alike(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 255, size=shape, dtype=np.uint8)
    items = Items("some", torch.zeros(N, dtype=torch.int64), ("a",), images=values)
    image = items[7][0]
    assert image is not None
    assert image.shape == (3 if 3 in shape[1:] else 1, 6, 5)
    assert image.sum() == pytest.approx(values[7].sum() / 255, rel=1e-5)
    assert thumbnails(items) == thumbnails(Items("some", items.labels, ("a",), images=values / 255))


def test_the_same_maps_make_the_same_bytes(table: Path) -> None:
    read = read_embeddings(table)
    one, items = tsne(read.embeddings, read.labels), items_of(read, table.parent / "photos")
    pages = [inspect([one], items).html for _ in range(2)]
    assert pages[0] == pages[1]
    files = [export_atlas([one], items, table.with_name(f"{k}.parquet")).read_bytes() for k in "ab"]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.ones((N, 1)), "y": np.arange(N) % 3}, "at least two components, got one"),
        ({"x": np.ones((N, 4)), "y": np.arange(N) % 3}, "the embeddings are all the same"),
        ({}, "odd.npz is not there"),
    ],
)
def test_what_has_no_map_is_refused_in_words(
    arrays: dict[str, np.ndarray], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if arrays:
        np.savez(tmp_path / "odd.npz", **arrays)  # type: ignore[arg-type]
    assert main(["inspect", str(tmp_path / "odd.npz"), "-o", str(tmp_path / "a.html")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()
