"""The numbers in ``data/reference``: the one writer, and the one reader, which takes files of earlier editions as well.

What was measured under a name stands in ``NAME.json``, where it is from, and beside it in tables: ``NAME.csv`` and, if
there are more, ``NAME_SUFFIX.csv``; or in ``NAME.npz``, arrays. A *study* is a table with a row per run and judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from snrlib.distances import MAPPED
from snrlib.utils.files import data_folder, write_atomically, write_json, write_table
from snrlib.utils.reading import read_json, read_npz

__all__ = [
    "JUDGED",
    "KEY",
    "Results",
    "modern_table",
    "read",
    "read_about",
    "read_arrays",
    "read_table",
    "state",
    "studies",
    "taken_apart",
    "tuned_rows",
    "write",
    "write_arrays",
    "write_tables",
]

KEY: tuple[str, ...] = ("data", "backbone", "loss", "distance", "map", "variant")
"""The columns that name a network, its seed aside."""
JUDGED: tuple[str, ...] = (*KEY, "seed", "judge", "anchor")
"""The columns that name a row of a study."""
_CONFUSED = (*KEY, "class", "taken_for", "count")
_EARLIER = {  # how earlier editions named a judge
    "training distance": ("training", ""),
    "training distance, anchor query": ("training", "query"),
    "training distance, anchor ref": ("training", "ref"),
    "Euclid": ("euclidean", ""),
    "snr, anchor query": ("snr", "query"),
    "snr, anchor ref": ("snr", "ref"),
}


@dataclass(frozen=True, eq=False)
class Results:
    """Experiments that can be compared.

    Attributes:
        runs: a row per run and judge. `KEY` names the network: ``distance`` is the family's name, ``map`` running,
            whitening, lmnn, learned, or "" where the distance has none; ``variant`` what else decides the training
            (`snrlib.experiment.Settings.variant`), or "". Then ``margin``, ``seed``, and who judged:
            ``judge`` is "training", the distance that it was trained under, or the name of another; ``anchor`` is
            "query", "ref", or "" of a judge that has none. Then the scores of `snrlib.evaluate.evaluate` and
            `snrlib.evaluate.verification`, of characters ``precision_at_1_new_letter`` (`snrlib.study.evidence`), what
            it costs, ``seconds``. A network before training has the loss "untrained" and the distance "".
        confused: `KEY`, ``class``, ``taken_for``, ``count`` over all seeds, most frequent first.
        about: where they come from.
    """

    runs: pd.DataFrame
    confused: pd.DataFrame
    about: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        trained = self.runs[self.runs.loss != "untrained"]
        n = len(trained[[*KEY, "margin", "seed"]].drop_duplicates())
        return f"Results({n} trained networks, {trained.seed.nunique()} seeds; {', '.join(trained.backbone.unique())})"


def read(name: str) -> Results:
    """A study.

    Raises:
        FileNotFoundError: it was not measured.
        ValueError: its files are damaged or do not belong together; the message names the file and what is wrong.
    """
    runs, about = read_table(name), read_about(name)
    path = _path(name, ".csv")
    with taken_apart(_path(name, ".json")):
        shared = {"data": _data_of(about)}
        confused = pd.DataFrame([shared | row for row in about.get("most_confused", [])], columns=list(_CONFUSED))
    if missing := [column for column in JUDGED if column not in runs]:
        raise ValueError(f"{path} is no study: it has no column {', '.join(missing)}")
    if twice := int(runs.duplicated(list(JUDGED)).sum()):
        raise ValueError(f"{path} judges {twice} runs twice by the same distance and anchor")
    return Results(runs, confused, about)


def write(name: str, runs: pd.DataFrame, about: Mapping[str, Any], confused: pd.DataFrame | None = None) -> Path:
    """Store a study; arguments are the attributes of `Results`.

    Returns:
        The path of its table.

    Raises:
        ValueError: a column that names the rows is missing, or two rows are of the same run, judge and anchor.
    """
    if missing := [column for column in JUDGED if column not in runs]:
        raise ValueError(f"runs of {name} have no column {', '.join(missing)}")
    if runs.duplicated(list(JUDGED)).any():
        raise ValueError(f"runs of {name} differ by their settings alone; they are no study")
    pairs = [] if confused is None else confused[list(_CONFUSED)].to_dict("records")
    return write_tables(name, {"": runs}, {**about, "most_confused": pairs})


def read_table(name: str, suffix: str = "") -> pd.DataFrame:
    """One table that was measured under a name; errors are those of `read`."""
    return _read_table(name, suffix, state(name, suffix)).copy()


def state(name: str, suffix: str = "") -> tuple[tuple[str, int, int], ...]:
    """The files of a name, each with its size and the time of its last change: what is kept of them goes with it."""
    files = (path for path in (_path(name, ".csv", suffix), _path(name, ".json")) if path.exists())
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@lru_cache(maxsize=32)  # a scoreboard asks for each a dozen times
def _read_table(name: str, suffix: str, files: tuple[tuple[str, int, int], ...]) -> pd.DataFrame:
    path, about = _path(name, ".csv", suffix), read_about(name)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; `snr measure {name}` makes it")
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise ValueError(f"{path} is damaged: {error}") from error
    with taken_apart(_path(name, ".json")):
        data, expected = _data_of(about), about.get("rows", {}).get(path.stem, len(table))
    try:
        table = modern_table(table, data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if len(table) != expected:
        raise ValueError(f"{path} has {len(table)} rows, {_path(name, '.json').name} speaks of {expected}")
    return table


def write_tables(name: str, tables: Mapping[str, pd.DataFrame], about: Mapping[str, Any]) -> Path:
    """Store tables by their suffix, "" for the first, and where they are from; each file is written whole or not.

    Where they are from comes first: who reads while this is interrupted is told that the files do not belong together,
    unless the tables are as long as before.

    Returns:
        The path of the first table, or of the JSON file if there is none.
    """
    paths = {suffix: _path(name, ".csv", suffix) for suffix in tables}
    rows = {path.stem: len(tables[suffix]) for suffix, path in paths.items()}
    json_path = _path(name, ".json")
    write_json(json_path, {**about, "rows": rows} if rows else dict(about))
    for suffix, path in paths.items():
        write_table(path, tables[suffix])
    return next(iter(paths.values()), json_path)


def read_arrays(name: str) -> dict[str, NDArray[Any]]:
    """The arrays that were measured under a name; errors are those of `read`."""
    path = _path(name, ".npz")
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; `snr measure {name}` makes it")
    return read_npz(path, f"`snr measure {name}` makes it anew")


def write_arrays(name: str, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> Path:
    """Store arrays and where they are from, as `write_tables`; returns the path of the arrays."""
    path = _path(name, ".npz")
    write_json(_path(name, ".json"), dict(about))
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, **arrays))
    return path


def read_about(name: str) -> dict[str, Any]:
    """Where what was measured under a name is from; wherever it names a distance, with its map; errors as `read`."""
    path = _path(name, ".json")
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; `snr measure {name}` makes it")
    about = _about(path)
    if isinstance(about.get("rows"), int):  # as earlier editions wrote it
        about["rows"] = {name: about["rows"]}
    return about


def studies() -> list[str]:
    """The names of the studies that are stored, in alphabetical order."""
    names = []
    for path in sorted(data_folder("reference").glob("*.csv")):
        with path.open(encoding="utf-8", errors="replace") as lines:  # a damaged one is refused when it is read
            columns = set(next(lines, "").strip().split(","))
        if {"backbone", "loss", "seed"} <= columns and "study" not in columns:  # not a table about studies
            names.append(path.stem)
    return names


def tuned_rows() -> list[dict[str, Any]]:
    """Everything that was tuned, in the order of the names.

    Returns:
        A row per data, backbone, loss, distance, map, variant, ``embedding_size``, ``pretrained`` (whether the network
        started from given weights) and ``profile`` (of ``study.yaml``, or None), with one or more of ``margin``,
        ``scale`` and ``learning_rate``.

    Raises:
        ValueError: a damaged file.
    """
    files = sorted(data_folder("reference").glob("*.json"))
    return [dict(row) for row in _tuned_rows(tuple((path, path.stat().st_mtime_ns) for path in files))]


@lru_cache(maxsize=1)  # a grid asks for each of its cells
def _tuned_rows(files: tuple[tuple[Path, int], ...]) -> list[dict[str, Any]]:
    """Each file with the time of its last change, so that a changed one is read again."""
    found = []
    for path, _ in files:
        about = _about(path)
        with taken_apart(path):
            found += [{"profile": about.get("profile"), "pretrained": False} | row for row in about.get("tuned", [])]
            networks = about.get("study", {}).get("backbones", {})
            shared = {"data": _data_of(about), "profile": None}
            shared["embedding_size"] = about.get("settings", {}).get("embedding_size")
            found += [
                shared | {"pretrained": "weights" in networks.get(row["backbone"], {})} | row
                for row in about.get("tuned_margins", [])  # of studies of earlier editions
            ]
    return found


def modern_table(table: pd.DataFrame, data: str = "") -> pd.DataFrame:
    """A table with the columns of `Results.runs`; one of an earlier edition is translated, another is as it was.

    Earlier editions wrote the map behind the distance, "mahalanobis/whitening", and one column ``judged_by``.

    Args:
        table: the table as it stands in its file; missing texts may be NaN.
        data: the data set of a table that does not name it.

    Raises:
        ValueError: a judge that no edition knows.
    """
    table = table.copy()
    if "distance" in table and "map" not in table:
        pairs = [_split(str(name)) for name in table.distance]
        place = list(table.columns).index("distance")
        table["distance"] = [distance for distance, _ in pairs]
        table.insert(place + 1, "map", [kind for _, kind in pairs])
    if "judged_by" in table:
        if unknown := set(table.judged_by) - _EARLIER.keys():
            raise ValueError(f"unknown judge {', '.join(sorted(map(repr, unknown)))}")
        place = list(table.columns).index("judged_by")
        judges = [_EARLIER[judge] for judge in table.pop("judged_by")]
        table.insert(place, "judge", [judge for judge, _ in judges])
        table.insert(place + 1, "anchor", [anchor for _, anchor in judges])
    if "data" not in table and "backbone" in table:
        table.insert(0, "data", data)
    if "variant" not in table and {"backbone", "map"} <= set(table):
        table.insert(list(table.columns).index("map") + 1, "variant", "")
    for column in (*KEY, "judge", "anchor"):
        if column in table:  # an empty text reads as NaN
            table[column] = table[column].astype(object).fillna("").astype(str)
    return table


def _split(name: str) -> tuple[str, str]:
    """A distance and its map, of a name as earlier editions wrote it."""
    distance, _, kind = name.partition("/")
    if distance in MAPPED and not kind:
        kind = "running"
    return ("" if distance in ("none", "nan") else distance), kind


def _modern(value: Any) -> Any:
    """The same, where it names a distance, with its map and variant beside it."""
    if isinstance(value, list):
        return [_modern(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _modern(one) for key, one in value.items()}
    if isinstance(value.get("distance"), str) and "map" not in value:
        found["distance"], found["map"] = _split(value["distance"])
    if isinstance(value.get("distance"), str):
        found.setdefault("variant", "")
    return found


def _about(path: Path) -> dict[str, Any]:
    about = read_json(path, _cure(path))
    with taken_apart(path):
        return _modern(about)


@contextmanager
def taken_apart(path: Path) -> Iterator[None]:
    """Whatever is of another kind than expected, while the content of a file is taken apart, is damage of the file.

    Raises:
        ValueError: so; the message names the file and what makes it anew.
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}; {_cure(path)}") from error


def _cure(path: Path) -> str:
    return f"`snr measure {path.stem}` makes it anew"


def _data_of(about: Mapping[str, Any]) -> str:
    """The data set of a study of an earlier edition, which did not name it in its table."""
    return str(about.get("study", about.get("grid", {})).get("data", ""))


def _path(name: str, ending: str, suffix: str = "") -> Path:
    return data_folder("reference") / f"{name}{'_' if suffix else ''}{suffix}{ending}"
