"""`snr compare`: from a file to an answer, a page without scripts, CSV and JSON; killed, it goes on where it was."""

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

from snrlib.cli.main import main
from snrlib.evaluate.folds import Fold


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
    assert facts["answers"]["precision_at_1"] in printed
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


def test_a_killed_comparison_goes_on(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, cache = birds.with_name("plain.parquet"), birds.with_name("cache")
    command = [sys.executable, "-m", "snrlib", "compare", str(plain), "-o", str(birds.with_name("a.html"))]
    running = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while len(list(cache.glob("compare-*"))) < 3 and time.monotonic() < limit and running.poll() is None:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    kept = len(list(cache.glob("compare-*")))
    assert kept >= 3
    judge, judged = Fold.judge, list[object]()

    def counted(self: Fold, way: object, *rest: object) -> object:
        judged.append(way)
        return judge(self, way, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Fold, "judge", counted)
    assert main(["compare", str(plain), "-o", str(birds.with_name("a.html"))]) == 0
    assert len(judged) == 2 * 11 - kept, "ways of both folds, less what was finished"
