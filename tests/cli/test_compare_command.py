"""`snr compare`: from a file to an answer, a page without scripts, CSV and JSON; stopped, it goes on where it was."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from snrlib.cli.main import main
from snrlib.data.embedding_file import read_embeddings
from snrlib.distances import get_distance
from snrlib.evaluate import compare, evaluate
from snrlib.evaluate.folds import Fold
from snrlib.mahalanobis import whitened_search


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNR_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    y = np.arange(160) % 16
    x = rng.normal(size=(160, 6)) + rng.normal(size=(16, 6))[y] + 3
    role = np.where(np.arange(160) < 80, "query", "gallery")
    table = pd.DataFrame({"embedding": [*x.astype(np.float32)], "species": [f"bird <{c}>" for c in y], "role": role})
    table.to_parquet(tmp_path / "birds.parquet")
    table.drop(columns="role").to_parquet(tmp_path / "plain.parquet")
    return tmp_path / "birds.parquet"


def test_a_file_becomes_an_answer_and_a_page(birds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = birds.with_name("out.html")
    assert main(["compare", str(birds), "-o", str(page)]) == 0
    printed, html = capsys.readouterr().out, page.read_text()
    facts, table = json.loads(page.with_suffix(".json").read_text()), pd.read_csv(page.with_suffix(".csv"))
    assert all(answer in printed for answer in facts["answers"].values())
    assert "<script" not in html
    assert "script-src" not in html
    assert re.search(r"default-src 'none'; img-src data:", html)
    assert html.count("<img ") == html.count('alt="R@1 minus') + html.count('alt="MAP@R minus') == 2
    assert "80 of them queries" in printed
    assert facts["about"]["queries"] == 80
    assert list(table.way) == list(facts["scores"])
    assert {"Euclid", "LMNN", "whitening, centred, length 1"} <= {*table.way}
    assert main(["compare", str(birds), "-o", str(page)]) == 0, "what it made is replaced"


@pytest.mark.parametrize("taken", ["out.html", "out.csv", "out.json"])
def test_what_others_made_is_not_replaced(taken: str, birds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    birds.with_name(taken).write_text("mine")
    assert main(["compare", str(birds), "-o", str(birds.with_name("out.html"))]) == 2
    assert taken in capsys.readouterr().err
    assert birds.with_name(taken).read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--baseline", "Manhattan"], "--baseline must be one of Euclid; cosine"),
        (["--labels", "colour"], "no column 'colour' for labels"),
        (["--role", "species"], "no column 'species' for role"),
        (["--folds", "1"], "folds must be at least 2"),
    ],
)
def test_wrong_options_are_refused_in_words(
    options: list[str], words: str, birds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(birds), "-o", str(birds.with_name("out.html")), *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_comparison_goes_on_to_the_same_bytes(
    stop: signal.Signals, birds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, cache, page = birds.with_name("plain.parquet"), birds.with_name("cache"), birds.with_name("a.html")
    command = [sys.executable, "-m", "snrlib", "compare", str(plain), "-o", str(page)]
    running = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while len(list(cache.glob("compare-*/[!.]*.npz"))) < 3 and time.monotonic() < limit and running.poll() is None:
        time.sleep(0.005)
    running.send_signal(stop)
    said = running.communicate()[1].decode()
    assert running.returncode == (130 if stop == signal.SIGINT else -stop)
    assert ("what was finished is kept" in said) == (stop == signal.SIGINT)
    assert not page.exists()
    kept = len(list(cache.glob("compare-*/[!.]*.npz")))
    assert kept >= 3
    judge, judged = Fold.judge, list[object]()

    def counted(self: Fold, way: object, *rest: object) -> object:
        judged.append(way)
        return judge(self, way, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Fold, "judge", counted)
    assert main(["compare", str(plain), "-o", str(page)]) == 0
    assert len(judged) == 2 * 11 - kept, "ways of both folds, less what was finished"
    assert not [*cache.glob("compare-*")], "what is finished keeps nothing"
    assert main(["compare", str(plain), "-o", str(birds.with_name("b.html"))]) == 0
    assert len(judged) == 2 * 11 - kept + 2 * 11
    for ending in (".html", ".csv"):
        assert page.with_suffix(ending).read_bytes() == birds.with_name(f"b{ending}").read_bytes()
    facts = [json.loads(one.with_suffix(".json").read_text()) for one in (page, birds.with_name("b.html"))]
    assert facts[0] | {"finished": ""} == facts[1] | {"finished": ""}


def test_what_nobody_went_on_with_is_forgotten(birds: Path) -> None:
    cache = birds.with_name("cache")
    for name, days in {"compare-old": 31, "compare-new": 29, "maps": 99}.items():
        (cache / name).mkdir(parents=True)
        (cache / name / "1.npz").write_bytes(b"")
        os.utime(cache / name, times=(0, time.time() - days * 86_400))
    compare(torch.eye(8), torch.arange(8) // 2, get_distance("snr"), [1], cluster=False, resume=True)
    assert sorted(one.name for one in cache.iterdir()) == ["compare-new", "maps"]


def test_maps_are_fitted_to_the_training_file(birds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, train, page = (birds.with_name(name) for name in ("plain.parquet", "train.npz", "a.html"))
    read = read_embeddings(plain)
    x, y = read.embeddings, read.labels
    other = x[::2] * torch.arange(1, 7)
    command = ["compare", str(plain), "--train", str(train), "-o", str(page)]
    np.savez(train, x=other, y=np.array(read.classes)[y[::2]])
    assert main(command) == 0
    assert "8 of the 16 classes are in train.npz, too." in capsys.readouterr().out
    facts = json.loads(page.with_suffix(".json").read_text())
    assert facts["judged"]["Maps"] == "fitted to 80 embeddings of 8 classes of train.npz"
    assert (facts["about"]["folds"], facts["about"]["fitted_to"]) == (1, 80)
    mapped = whitened_search().fit(other, y[::2]).transform(x)
    expected = evaluate(torch.as_tensor(mapped), y, cluster=False)["mean_average_precision_at_r"]
    found = facts["scores"]["whitening, centred, length 1"]["mean_average_precision_at_r"]
    assert found == pytest.approx(float(expected), abs=1e-6)
    np.savez(train, x=other[:, :5], y=y[::2])
    assert main(command) == 2
    assert "train.npz has embeddings of 5 components, plain.parquet of 6" in capsys.readouterr().err


def test_labels_come_from_another_file(birds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, lone, table = (birds.with_name(name) for name in ("plain.parquet", "lone.npy", "names.csv"))
    read, pages = read_embeddings(plain), [birds.with_name(name) for name in ("a.html", "b.html")]
    np.save(lone, read.embeddings)
    pd.DataFrame({"species": [read.classes[c] for c in read.labels]}).to_csv(table, index=False)
    assert main(["compare", str(lone), "--labels-from", str(table), "-o", str(pages[0])]) == 0
    assert main(["compare", str(plain), "-o", str(pages[1])]) == 0
    one, two = (json.loads(page.with_suffix(".json").read_text())["scores"] for page in pages)
    assert one == two
    capsys.readouterr()
    assert main(["compare", str(lone), "--labels-from", str(table), "-o", str(lone.with_suffix(".html"))]) == 2
    assert "lone.csv beside lone.npy would be taken for its labels" in capsys.readouterr().err
    pd.DataFrame({"species": ["a", "b"]}).to_csv(table, index=False)
    capsys.readouterr()
    assert main(["compare", str(lone), "--labels-from", str(table), "-o", str(pages[0])]) == 2
    assert "labels must have a value for each of the 160 embeddings" in capsys.readouterr().err


X, Y = np.random.default_rng(1).normal(size=(48, 6)).astype(np.float32), np.arange(48) % 6
ROLE = np.array(["query", "gallery"])[(np.arange(48) >= 24).astype(int)]
ODD = {
    "one class": ({"x": X, "y": 0 * Y}, "odd.npz holds one class, '0'"),
    "classes of one": ({"x": X, "y": np.arange(48)}, "every class of odd.npz has one row"),
    "one component": ({"x": X[:, :1], "y": Y}, "embeddings of one component"),
    "one axis": ({"x": X[:, 0], "y": Y}, "no column holds the embeddings"),
    "all the same": ({"x": 0 * X + 7, "y": Y}, "the embeddings of odd.npz are all the same"),
    "vanishing": ({"x": X * np.float32(1e-30), "y": Y}, "of which the square vanishes"),
    "too large": ({"x": X * np.float32(1e30), "y": Y}, "overflows"),
    "a NaN": ({"x": np.where(X.max() == X, np.nan, X), "y": Y}, "NaN or an infinity in 1 of 48 rows"),
    "few labels": ({"x": X, "y": Y[:9]}, "labels must have a value for each of the 48 embeddings"),
    "no row": ({"x": X[:0], "y": Y[:0]}, "columns and no rows"),
    "other classes": ({"x": X, "y": Y + 6 * (np.arange(48) >= 24), "role": ROLE}, "is in its gallery"),
}


@pytest.mark.parametrize(("arrays", "words"), [*ODD.values()], ids=[*ODD])
def test_odd_input_is_refused_in_words(
    arrays: dict[str, np.ndarray], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "odd.npz", **arrays)  # type: ignore[arg-type]
    assert main(["compare", str(tmp_path / "odd.npz"), "-o", str(tmp_path / "a.html")]) == 2
    assert words in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["odd.npz"]


@pytest.mark.parametrize("kind", [".npz", ".parquet", ".npy"])
def test_truncated_files_and_folders_are_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, cut, page = tmp_path / f"a{kind}", tmp_path / f"b{kind}", tmp_path / "a.html"
    table = pd.DataFrame({"embedding": [*X], "label": Y})
    table[["label"]].to_csv(tmp_path / "b.csv", index=False)
    {".npz": lambda: np.savez(whole, x=X, y=Y), ".npy": lambda: np.save(whole, X)}.get(
        kind, lambda: table.to_parquet(whole)
    )()
    cut.write_bytes(whole.read_bytes()[:700])
    assert main(["compare", str(cut), "-o", str(page)]) == 2
    assert f"b{kind} cannot be read as {kind}" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), "-o", str(page)]) == 2
    assert "holds no run of notebook 07" in capsys.readouterr().err
    assert not page.exists()


def test_half_precision_and_words_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNR_CACHE", str(tmp_path / "cache"))
    scores = []
    half = X.astype(np.float16)
    for name, x, y in (("half.npz", half, Y), ("words.npz", half.astype(np.float32), np.array([*"abcdef"])[Y])):
        np.savez(tmp_path / name, x=x, y=y)
        assert main(["compare", str(tmp_path / name), "-o", str(tmp_path / "a.html")]) == 0
        scores.append(json.loads((tmp_path / "a.json").read_text())["scores"])
    assert scores[0] == scores[1]
