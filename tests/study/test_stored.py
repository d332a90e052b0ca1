"""The one writer and the one reader of stored numbers, and that nothing is lost of what earlier editions stored."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from snrlib.distances import MAPPED
from snrlib.study import stored
from snrlib.study.profiles import cells
from snrlib.study.stored import KEY, modern_table, read, read_about, read_arrays, read_table, tuned_rows
from snrlib.study.tables import under_training_distance

EARLIER = {  # written out here once more: distance and map, judge and anchor
    "none": ("", ""),
    "euclidean": ("euclidean", ""),
    "relative_euclidean": ("relative_euclidean", ""),
    "snr": ("snr", ""),
    **{
        f"{name}{ending}": (name, kind)
        for name in ("mahalanobis", "relative_mahalanobis")
        for ending, kind in (("", "running"), ("/whitening", "whitening"), ("/lmnn", "lmnn"), ("/learned", "learned"))
    },
}
JUDGES = {
    "training distance": ("training", ""),
    "training distance, anchor query": ("training", "query"),
    "training distance, anchor ref": ("training", "ref"),
    "Euclid": ("euclidean", ""),
    "snr, anchor query": ("snr", "query"),
    "snr, anchor ref": ("snr", "ref"),
}
NETWORK = {
    "data": "digits",
    "backbone": "conv4",
    "loss": "triplet",
    "distance": "mahalanobis",
    "map": "running",
    "variant": "",
}
RUN: dict[str, Any] = {**NETWORK, "margin": 0.5, "seed": 0, "judge": "training", "anchor": ""}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``data/reference``."""
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    (tmp_path / "data" / "reference").mkdir(parents=True)
    return tmp_path / "data" / "reference"


def _runs(n: int = 3) -> pd.DataFrame:
    return pd.DataFrame([{**RUN, "seed": seed, "precision_at_1": 0.5 + seed / 8} for seed in range(n)])


@pytest.mark.parametrize("name", [*stored.studies(), "robustness"])
def test_nothing_measured_is_lost_in_translation(name: str, repository: Path) -> None:
    raw = pd.read_csv(repository / f"data/reference/{name}.csv", keep_default_na=False, na_values=[""])
    found = read_table(name)
    assert len(found) == len(raw)
    numbers = raw.select_dtypes("number").columns.difference([*KEY, "anchor"])  # empty texts read as numbers
    assert set(numbers) <= set(found)
    pd.testing.assert_frame_equal(found[numbers], raw[numbers])
    if "map" not in raw:
        pairs = [EARLIER[distance] for distance in raw.distance]
        assert list(zip(found.distance, found["map"], strict=True)) == pairs
    if "judged_by" in raw:
        assert list(zip(found.judge, found.anchor, strict=True)) == [JUDGES[judge] for judge in raw.judged_by]
        assert not (found[["data", "backbone", "loss"]] == "").to_numpy().any()


def test_a_modern_table_is_as_it_was() -> None:
    pd.testing.assert_frame_equal(modern_table(_runs()), _runs())


@pytest.mark.parametrize("name", [name for name in stored.studies() if "tuned_margins" in read_about(name)])
def test_stored_studies_have_their_profiles_runs_equally_tuned(name: str) -> None:
    found = read(name)
    own = under_training_distance(found.runs)
    network = ["backbone", "loss", "distance", "map"]
    asked = set()
    for cell in (task.values for task in cells(name)):
        kind = cell.get("map", "running") if cell["distance"] in MAPPED else ""
        asked.add((cell["backbone"], cell["loss"], cell["distance"], kind, cell["seed"]))
    assert set(own[[*network, "seed"]].itertuples(index=False, name=None)) == asked
    assert len(own) == len(asked)
    assert set(own.seed) == set(found.about["study"]["seeds"])
    margins = {tuple(row[key] for key in network): row["margin"] for row in found.about["tuned_margins"]}
    tried = Counter(tuple(row[key] for key in network) for row in found.about["tuning"])
    for key, part in own.groupby(network):
        assert set(part.margin) == {margins.get(key, 0.0)}
        assert (tried[key] == 0) == ("n_pair" in key)
    assert len(set(tried.values())) == 1
    assert list(found.confused)[: len(KEY)] == list(KEY)
    assert set(found.confused[network].itertuples(index=False, name=None)) == {key[:-1] for key in asked}


def test_everything_tuned_is_among_the_tuned_rows(repository: Path) -> None:
    expected = []
    for path in sorted((repository / "data/reference").glob("*.json")):
        about = json.loads(path.read_text())
        expected += [row["margin"] for row in about.get("tuned", []) if "margin" in row]
        expected += [row["margin"] for row in about.get("tuned_margins", [])]
    rows = tuned_rows()
    assert sorted(row["margin"] for row in rows if "margin" in row) == sorted(expected)
    names = {"data", "backbone", "loss", "distance", "map", "variant", "embedding_size", "pretrained", "profile"}
    assert all(names <= row.keys() for row in rows)
    assert {(row["data"], row["pretrained"]) for row in rows} >= {("cub200", True), ("glyphs", False)}


def test_a_changed_tuning_is_read_again(folder: Path) -> None:
    tuned = {"data": "digits", "backbone": "conv4", "loss": "triplet", "distance": "snr", "map": "", "margin": 0.1}
    stored.write_tables("tuned_small", {}, {"profile": "small", "tuned": [tuned]})
    assert tuned_rows() == [{"profile": "small", "pretrained": False, **tuned, "variant": ""}]
    stored.write_tables("tuned_small", {}, {"profile": "small", "tuned": [tuned, tuned | {"margin": 0.2}]})
    assert [row["margin"] for row in tuned_rows()] == [0.1, 0.2]


def test_what_is_written_is_read(folder: Path) -> None:
    confused = pd.DataFrame([{**NETWORK, "class": "3", "taken_for": "8", "count": 5}])
    path = stored.write("small", _runs(), {"command": "snr measure small"}, confused)
    assert path == folder / "small.csv"
    found = read("small")
    pd.testing.assert_frame_equal(found.runs, _runs())
    pd.testing.assert_frame_equal(found.confused, confused)
    assert found.about["command"] == "snr measure small"
    assert stored.studies() == ["small"]
    arrays = {"x": np.arange(3.0)}
    stored.write_arrays("space", arrays, {"images": 3})
    assert read_arrays("space")["x"].tolist() == [0, 1, 2]
    assert read_about("space") == {"images": 3}


def test_several_tables_stand_under_one_name(folder: Path) -> None:
    one, two = pd.DataFrame({"error": [0.5]}), pd.DataFrame({"low": [0.1, 0.2]})
    stored.write_tables("fits", {"": one, "unseen": two}, {"k": 3})
    pd.testing.assert_frame_equal(read_table("fits"), one)
    pd.testing.assert_frame_equal(read_table("fits", "unseen"), two)
    assert sorted(path.name for path in folder.iterdir()) == ["fits.csv", "fits.json", "fits_unseen.csv"]


def test_an_interrupted_writer_leaves_a_visible_mismatch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored.write("small", _runs(2), {})
    monkeypatch.setattr(stored, "write_table", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        stored.write("small", _runs(3), {})
    with pytest.raises(ValueError, match=r"small\.csv has 2 rows, small\.json speaks of 3"):
        read("small")


def test_runs_that_are_no_study_are_not_written(folder: Path) -> None:
    with pytest.raises(ValueError, match="runs of small differ by their settings alone"):
        stored.write("small", pd.concat([_runs(), _runs(1)]), {})
    with pytest.raises(ValueError, match="runs of small have no column map, anchor"):
        stored.write("small", _runs().drop(columns=["anchor", "map"]), {})
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("small.json", "{", r"small\.json is damaged"),
        ("small.json", "[1]", r"small\.json is damaged: it holds a list instead of an object"),
        ("small.json", '{"rows": 7}', r"small\.csv has 3 rows, small\.json speaks of 7"),
        ("small.csv", "", r"small\.csv is damaged"),
        ("small.csv", "data,backbone\na,b\na,b\na,b\n", r"small\.csv is no study: it has no column loss, distance"),
        ("small.csv", "judged_by\nMinkowski\n", r"small\.csv: unknown judge 'Minkowski'"),
    ],
)
def test_a_damaged_study_is_named(folder: Path, name: str, content: str, message: str) -> None:
    stored.write("small", _runs(), {})
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read("small")


@pytest.mark.parametrize("value", [None, "x", [1], [{"a": 1}]])
@pytest.mark.parametrize(
    ("key", "reader"),
    [
        ("rows", lambda: read("small")),
        ("study", lambda: read("small")),
        ("study", tuned_rows),
        ("settings", tuned_rows),
        ("tuned_margins", tuned_rows),
    ],
)
def test_values_of_a_wrong_kind_are_named(folder: Path, key: str, reader: Any, value: Any) -> None:
    stored.write("small", _runs(), {})
    (folder / "small.json").write_text(json.dumps({key: value}))
    with pytest.raises(ValueError, match=r"small\.json is damaged: \w+Error: .*; `snr measure small` makes it anew"):
        reader()


def test_bytes_that_are_no_text_are_named(folder: Path) -> None:
    stored.write("small", _runs(), {})
    stored.write("other", _runs(), {})
    (folder / "small.csv").write_bytes((folder / "small.csv").read_bytes() + b"\xff")
    assert stored.studies() == ["other", "small"]
    with pytest.raises(ValueError, match=r"small\.csv is damaged"):
        read("small")


def test_what_was_not_measured_says_how(folder: Path) -> None:
    readers: list[Any] = [read, read_table, read_about, read_arrays]
    for reader in readers:
        with pytest.raises(FileNotFoundError, match=r"small\.\w+ is not there; `snr measure small` makes it"):
            reader("small")
    (folder / "small.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"small\.npz is damaged"):
        read_arrays("small")
