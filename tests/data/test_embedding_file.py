"""Files of embeddings: every kind comes out as the same arrays, and what cannot be read is refused in words."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from snrlib.data import embedding_columns
from snrlib.data.embedding_file import EmbeddingFile, read_embeddings

N, M = 12, 11  # e10 comes after e9, and before it in the alphabet
X = np.random.default_rng(0).normal(size=(N, M)).astype(np.float32)
Y = np.array([3, 1, 1, -2] * 3)
WORDS = np.array([{3: "owl", 1: "auk", -2: "tern"}[y] for y in Y.tolist()])
PATHS = [f"{i}.png" for i in range(N)]
SHARP = np.linspace(0, 1, N)
ROLE = np.array(["query", "gallery", "gallery"] * 4)


def _wide(prefix: str = "e", x: Any = X, **rest: Any) -> pd.DataFrame:
    return pd.DataFrame({f"{prefix}{m}": x[:, m] for m in reversed(range(x.shape[1]))} | rest)


def _csv(table: pd.DataFrame, **options: Any) -> Callable[[Path], object]:
    return lambda path: table.to_csv(path, index=False, **options)


def _parquet(**columns: Any) -> Callable[[Path], object]:
    return lambda path: pq.write_table(pa.table(columns), path)


def _npz(**arrays: Any) -> Callable[[Path], object]:
    return lambda path: np.savez(path, **arrays)


def _npy(table: pd.DataFrame, x: Any = X) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        np.save(path, x)
        table.to_csv(path.with_suffix(".csv"), index=False)

    return write


LISTS = {"embedding": X.tolist()}
BFLOAT = torch.from_numpy(X).bfloat16()
WHOLE: list[tuple[str, Callable[[Path], object], dict[str, Any]]] = [
    ("a.npz", _npz(embeddings=X, labels=Y, paths=np.array(PATHS)), {}),
    ("b.npz", _npz(X=X, y=Y, sharp=SHARP, split=ROLE), {}),
    ("c.npz", _npz(layer4=X, target=Y.astype(float), images=np.zeros((N, 4, 4))), {}),
    ("d.npz", _npz(features=X, other=X[:, :3], who=WORDS), {"labels": "who"}),
    ("e.npz", _npz(features=X, y=(Y == 3) + 2 * (Y == 1), class_names=np.array(["tern", "owl", "auk"])), {}),
    ("f.npz", _npz(emb=BFLOAT.view(torch.int16).numpy().view("V2"), y=Y), {"near": 0.02}),
    ("g.npz", _npz(emb=X.astype(np.float16), y=WORDS.astype(bytes)), {"near": 0.002}),
    ("h.npy", _npy(pd.DataFrame({"species": WORDS, "sharp": SHARP})), {}),
    ("i.npy", _npy(pd.DataFrame({"whatever": WORDS})), {}),
    ("j.csv", _csv(_wide(label=Y, species=WORDS, sharp=SHARP, file=PATHS)), {}),
    ("ja.csv", lambda path: _wide(person=WORDS, split=["train"] * N, img=PATHS).drop(columns="img").to_csv(path), {}),
    ("k.csv", _csv(_wide("emb_", Class=WORDS, role=ROLE), sep=";"), {}),
    ("l.csv", _csv(pd.DataFrame({"embedding": [str(row) for row in X.tolist()], "label": WORDS})), {}),
    ("m.csv", _csv(_wide("", y=Y, split=["train"] * N)), {}),
    ("n.csv", _csv(_wide("u", label=WORDS).join(_wide("v", X + 1))), {"embeddings": "u"}),
    ("o.tsv", _csv(_wide("feat.", label=Y), sep="\t"), {}),
    ("p.parquet", _parquet(**LISTS, label=WORDS.tolist(), sharp=SHARP), {}),
    ("q.parquet", _parquet(embedding=pa.array(X.tolist(), pa.list_(pa.float32(), M)), label=Y), {}),
    ("r.parquet", lambda path: _wide(category=pd.Categorical(WORDS)).to_parquet(path), {}),
    ("s.parquet", _parquet(**LISTS, label=pa.array(Y), query=ROLE == "query"), {}),
]


@pytest.mark.parametrize(("name", "write", "options"), WHOLE, ids=[name for name, *_ in WHOLE])
def test_every_kind_gives_the_same_arrays(name: str, write: Any, options: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / name)
    near = options.pop("near", 1e-6)
    read = read_embeddings(tmp_path / name, **options)
    np.testing.assert_allclose(read.embeddings, X, rtol=0, atol=near)
    assert read.embeddings.dtype == (torch.float64 if name in ("p.parquet", "s.parquet") else torch.float32)
    assert sorted(read.classes) == (["auk", "owl", "tern"] if read.classes[0].isalpha() else ["-2", "1", "3"])
    known = dict(zip(["-2", "1", "3"], ["tern", "auk", "owl"], strict=True))
    assert [known.get(c, c) for c in (read.classes[label] for label in read.labels.tolist())] == WORDS.tolist()
    if "sharp" in read.columns:
        np.testing.assert_allclose(read.columns.sharp, SHARP)
    assert read.paths in (None, tuple(PATHS))
    assert (read.paths is not None) == (name in ("a.npz", "j.csv"))
    assert (read.images is not None) == (name == "c.npz")
    expected = name in ("b.npz", "k.csv", "s.parquet")
    assert (read.is_query is not None) == expected
    assert not expected or (read.is_query == (ROLE == "query")).all()


HOLES = X.copy()
HOLES[[2, 5, 7], 3] = np.nan, np.inf, -np.inf
UNEQUAL = [row[: M - (i == 4)] for i, row in enumerate(X.tolist())]
ZIP = b"PK\x03\x04" + b"\0" * 200
REFUSED: list[tuple[str, Callable[[Path], object] | bytes, dict[str, Any], str]] = [
    ("a.npz", b"", {}, "empty: it has no bytes"),
    ("b.npz", ZIP, {}, "b.npz cannot be read as .npz"),
    ("c.npz", pickle.dumps([1]), {}, "c.npz cannot be read as .npz"),
    ("d.parquet", b"PAR1" + b"\0" * 40, {}, "d.parquet cannot be read as .parquet"),
    ("e.csv", b"\xff\xfe\0\0", {}, "e.csv is not written in UTF-8.*0xff.*CSV UTF-8"),
    ("ea.csv", "e0,e1,label\n1,2,Müller\n".encode("cp1252"), {}, "ea.csv is not written in UTF-8.*0xfc"),
    ("f.csv", b"\n\n1,2\n", {}, "names of its columns"),
    ("g.csv", b"0.5,-1.25,3\n1,2,3\n", {}, "numbers in its first row"),
    ("h.csv", b"e0,e1,e0,label\n1,2,3,a\n", {}, r"same name to more than one column \(e0\)"),
    ("i.csv", b"e0,e1,label\n", {}, "columns and no rows"),
    ("j.csv", b"e0,e1,label\n1,2,a\n1,many,b\n", {}, r"'e1' should hold numbers.* 1 of 2 rows.*row 1.*'many'"),
    ("k.csv", b"a,b,label\n1,2,x\n", {}, "no column holds the embeddings.*'a', 'b', 'label'.*--embeddings"),
    ("l.csv", b"e0,e1,who\n1,2,x\n", {"labels": "whom"}, "no column 'whom' for labels; the columns are 'who'"),
    ("m.csv", b"e0,e1,who,x1\n1,2,x,1\n", {}, "no column has a usual name of the labels.*'who'.*--labels"),
    ("n.csv", _csv(_wide(label=Y, category=SHARP)), {}, "more than one column could hold the labels"),
    ("o.csv", _csv(_wide(label=SHARP)), {}, "10 numbers that are not whole"),
    ("p.csv", _csv(_wide("u", label=Y).join(_wide("v"))), {}, "more than one column could hold the embeddings"),
    ("q.csv", _csv(_wide("e", HOLES, label=Y)), {}, "NaN or an infinity in 3 of 12 rows.*2, 5, 7.*--drop-bad"),
    ("r.csv", _csv(_wide(label=[None, *Y[1:]])), {}, "no label in 1 of 12 rows"),
    ("s.csv", _csv(_wide(label=Y, role=["query"] * N)), {"role": "role"}, "'role' says the same in every row"),
    ("t.csv", _csv(_wide(label=Y, role=["test"] * N)), {"role": "role"}, "'role' says also test"),
    ("u.npz", _npz(embeddings=np.array([{}] * N, dtype=object), y=Y), {}, "'embeddings' of u.npz holds pickled"),
    ("v.npz", _npz(embeddings=X, y=Y[:5]), {}, r"labels must have a value for each of the 12.*'y' is \(5,\)"),
    ("w.npz", _npz(embeddings=X[:, :, None], y=Y), {}, "no column holds the embeddings"),
    ("x.npz", _npz(embeddings=X * 1j, y=Y), {}, "should hold real numbers, got complex"),
    ("y.npz", _npz(embeddings=X.astype(str), y=Y), {}, "should hold real numbers, got <U"),
    ("z.npz", _npz(embeddings=X * np.float32(1e37), y=Y), {}, "overflows"),
    ("za.parquet", _parquet(embedding=UNEQUAL, label=Y), {}, "unequal lengths: 11 in most rows, another in 1 of 12.*4"),
    ("zb.npy", lambda path: np.save(path, X), {}, "no zb.csv, .tsv or .parquet stands beside it.*--labels-from"),
    ("zc.pkl", b"x", {}, "ends in '.pkl'"),
    ("zd.npz", _npz(embeddings=X, y=np.eye(N)[:, :3]), {}, "one number or word per row"),
]


@pytest.mark.parametrize(("name", "content", "options", "words"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_what_cannot_be_read_is_refused_in_words(
    name: str, content: Any, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        content(tmp_path / name)
    with pytest.raises(ValueError, match=words):
        read_embeddings(tmp_path / name, **options)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_bad_rows_are_left_out_on_request(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    labels: list[Any] = WORDS.tolist()
    labels[0], labels[3], labels[11] = None, None, None  # of the terns the one in row 7 is left, which has a hole
    table = _wide("e", HOLES, label=labels, sharp=SHARP, path=PATHS, role=ROLE)
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    kept = [1, 4, 6, 8, 9, 10]
    read = read_embeddings(path, drop_bad=True)
    np.testing.assert_allclose(read.embeddings, X[kept], rtol=1e-6)
    assert read.classes == ("auk", "owl")
    assert read.paths == tuple(PATHS[row] for row in kept)
    assert read.columns.sharp.tolist() == pytest.approx(SHARP[kept].tolist())
    assert read.is_query is not None
    assert (read.is_query == (ROLE == "query")[kept]).all()
    assert "Left out: 6 of 12 rows" in read.notes[-1]


def test_a_row_without_a_list_is_a_bad_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"embedding": [*X[:-1].tolist(), None], "label": Y}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"1 of 12 rows \(counted from 0: 11\)"):
        read_embeddings(tmp_path / "a.parquet")
    assert len(read_embeddings(tmp_path / "a.parquet", drop_bad=True)) == 11


@pytest.mark.parametrize("name", ["a.npz", "j.csv", "p.parquet", "h.npy"])
def test_what_does_not_fit_is_refused_before_reading(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    {one: write for one, write, _ in WHOLE}[name](tmp_path / name)
    monkeypatch.setattr("snrlib.utils.memory.available_memory", lambda: 400.0)
    with pytest.raises(ValueError, match="GiB of memory, and"):
        read_embeddings(tmp_path / name)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_embeddings(tmp_path / "a.npz")
    assert embedding_columns.ENDINGS[0] == ".npz"


def test_rows_number_their_classes_anew() -> None:
    whole = EmbeddingFile(
        "a", torch.arange(6.0)[:, None], torch.tensor([0, 1, 2, 0, 1, 2]), ("a", "b", "c"), _wide()[:6]
    )
    part = whole.rows(np.array([5, 0]))
    assert part.embeddings[:, 0].tolist() == [5, 0]
    assert [part.classes[label] for label in part.labels.tolist()] == ["c", "a"]
