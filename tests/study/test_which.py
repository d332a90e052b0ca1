"""Which distance for embeddings that nobody trained here: what is measured and kept, and the words that follow it."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from snrlib.data import load
from snrlib.evaluate.comparison import SCORE_WORDS, Comparison
from snrlib.mahalanobis import usual_ways
from snrlib.study import stored, which, which_sets
from snrlib.study.which import BASELINES, DRAWS, false_alarms, measure_which
from snrlib.study.which_sets import GIVEN, Given, given_embeddings
from snrlib.study.which_words import SNR, WHITENED, answers, best_ways, set_names, shown

SMALL = {given.name: given for given in (Given("birds", "random"), Given("cars", "random"))}
R1, MAP = SCORE_WORDS


def few(given: Given, weights: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(given.data))
    y = torch.arange(48) % 8
    return torch.randn(8, 6, generator=generator)[y] + torch.randn(48, 6, generator=generator), y


@pytest.fixture
def place(real_root: Path, in_process: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where steps are kept: two sets of 48 embeddings, three draws of the control."""
    monkeypatch.setattr(which, "GIVEN", SMALL)
    monkeypatch.setattr(which, "DRAWS", 3)
    monkeypatch.setattr(which, "given_embeddings", few)
    return real_root / "data" / "runs" / "which"


def test_every_set_and_way_is_stored(place: Path) -> None:
    measure_which()
    scores, differences = stored.read_table("which"), stored.read_table("which", "differences")
    about = stored.read_about("which")
    ways = {*usual_ways(24, 6)}
    assert set_names(scores) == [*SMALL]
    for _, part in scores.groupby("data"):
        assert set(part.way) == ways
        assert set(part.classes) == {8}
        assert set(part.images) == {48}
    for (_, _, base), part in differences.groupby(["data", "score", "baseline"]):
        assert set(part.way) == ways - {base}
    assert len(differences) == len(SMALL) * len(SCORE_WORDS) * len(BASELINES) * (len(ways) - 1)
    own = scores[scores.data == "birds"].set_index("way")
    rows = differences[(differences.data == "birds") & (differences.baseline == "cosine") & (differences.score == R1)]
    assert np.allclose(rows["mean"], own[R1][rows.way] - own[R1]["cosine"], atol=1e-5)
    assert about["random"]["draws"] == 3
    assert [one["geometry"]["rows"] for one in about["sets"]] == [48, 48]
    assert [one["about"]["folds"] for one in about["sets"]] == [2, 2]


def test_a_failed_set_keeps_others_and_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(given: Given, weights: Any = None) -> Any:
        if given.data == "cars":
            raise FileNotFoundError("cars is not there")
        return few(given)

    monkeypatch.setattr(which, "given_embeddings", fails)
    with pytest.raises(ChildProcessError, match=r"1 of 3 steps failed, the others are kept: .*cars is not there"):
        measure_which()
    finished = {path: path.stat().st_mtime_ns for path in place.glob("*.json")}
    assert len(finished) == 2
    monkeypatch.setattr(which, "given_embeddings", few)
    measure_which()
    assert finished.items() <= {path: path.stat().st_mtime_ns for path in place.glob("*.json")}.items()
    monkeypatch.setattr(which, "compare", lambda *_, **__: pytest.fail("measured again"))
    measure_which()


def comparison(**hits: float) -> Comparison:
    """20 classes of 10 queries; of each way the share of classes whose queries are all right."""
    table = Comparison({"precision_at_1": hits})
    classes = np.arange(20).repeat(10)
    table.query_classes = classes
    right = {name: (classes < 20 * share) * 1.0 for name, share in hits.items()}
    table.queries = {name: pd.DataFrame(dict.fromkeys(SCORE_WORDS, values)) for name, values in right.items()}
    table.ranking = {name: name for name in hits}
    return table


@pytest.mark.parametrize(
    ("hits", "called"),
    [
        ({"Euclid": 0.5, "a": 0.5, "b": 0.5}, (False, False, False)),
        ({"Euclid": 0.0, "a": 1.0, "b": 0.5}, (True, True, True)),
        ({"Euclid": 0.5, "a": 0.3, "b": 0.7}, (False, True, True)),  # a and b alone differ
        ({"Euclid": 0.5, "a": 0.35, "b": 0.65}, (False, False, False)),
    ],
)
def test_alarms_are_those_of_planted_differences(hits: dict[str, float], called: tuple[bool, ...]) -> None:
    for found in false_alarms(comparison(**hits)).values():
        assert tuple(found.values()) == called


def test_ways_that_rank_alike_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tested: list[Any] = []
    real: Any = which.paired_over_classes
    monkeypatch.setattr(which, "paired_over_classes", lambda *a, **b: tested.append(a) or real(*a, **b))
    table = comparison(Euclid=0.5, twin=0.5, a=0.2)
    table.ranking = {"Euclid": "x", "twin": "x", "a": "a"}
    false_alarms(table)
    assert len(tested) == len(SCORE_WORDS)


def test_classes_of_all_splits_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(which_sets, "embedder", lambda *_, **__: nn.Flatten())
    x, y = given_embeddings(Given("glyphs", "pixels of glyphs", every=60, most=3, side=24))
    images, labels, before = [], [], 0
    for split in ("train", "test"):
        glyphs = load("glyphs", split)
        for c in range(0, len(glyphs.classes), 60):
            own = glyphs.images[glyphs.labels == c][:3]
            images += [*own.flatten(1).float()]
            labels += [before + c] * len(own)
        before += len(glyphs.classes)
    assert y.tolist() == labels
    assert torch.allclose(x, torch.stack(images))


def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    x, y = given_embeddings(GIVEN["digits, pixels"])
    assert (x.shape, len(y.unique())) == ((1797, 64), 10)
    monkeypatch.setenv("SNR_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="the Olivetti faces"):
        given_embeddings(GIVEN["faces, pixels"])
    monkeypatch.setitem(sys.modules, "chatterbot_corpus", None)
    with pytest.raises(ImportError, match=r"pip install 'snrlib\[sentences\]'"):
        given_embeddings(GIVEN["sentences, all-MiniLM-L6-v2"])


def tables(*verdicts: tuple[str, str, float, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and differences of a set each, from the baseline's R@1 of 0.5: (set, way, difference, verdict)."""
    key = {"features": "f", "classes": 9, "images": 90}
    ways = list(dict.fromkeys(["Euclid", "cosine", WHITENED, *SNR, *(way for _, way, _, _ in verdicts)]))
    told = {(name, way): (mean, verdict) for name, way, mean, verdict in verdicts}
    none = (0.0, "no difference shown")
    scores, differences = [], []
    for name in dict.fromkeys(name for name, *_ in verdicts):
        scores += [{"data": name, **key, "way": way, R1: 0.5 + told.get((name, way), none)[0]} for way in ways]
        for base in BASELINES:
            for way in ways:
                mean, verdict = told.get((name, way), none)
                row = {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "p": 0.01, "verdict": verdict}
                differences += [{"score": R1, "baseline": base, "data": name, **key, "way": way, **row}] * (way != base)
    return pd.DataFrame(scores), pd.DataFrame(differences)


def test_a_way_is_used_only_where_it_is_shown() -> None:
    scores, differences = tables(
        ("birds", "cosine", 0.02, "higher"),
        ("birds", WHITENED, 0.04, "higher"),
        ("birds", SNR[0], 0.09, "no difference shown"),
        ("cars", SNR[1], -0.04, "lower"),
    )
    best = best_ways(scores, differences)
    assert [*best.use] == [WHITENED, "Euclid"]
    assert [*best["mean"]] == [0.04, 0]
    assert best.highest["birds, f"] == SNR[0]
    assert shown(differences, SNR[1]) == {"higher": [], "lower": ["cars, f"], "no difference shown": ["birds, f"]}
    with pytest.raises(ValueError, match="way must be one of"):
        shown(differences, "manhattan")


@pytest.mark.parametrize(
    ("verdict", "told"), [("higher", "Yes, on birds, f"), ("no difference shown", "On none of these 1 sets")]
)
def test_the_answer_on_snr_follows_the_table(verdict: str, told: str) -> None:
    found = answers(*tables(("birds", SNR[0], 0.05, verdict)), {"draws": 200, "called": {R1: {"any pair": 10}}})
    assert found["Is SNR ever the one to use?"].startswith(told)
    assert "10 of 200 draws, 5.0%" in found["Does the test cry wolf?"]


def test_the_stored_table_holds_all_that_is_given() -> None:
    scores, differences = stored.read_table("which"), stored.read_table("which", "differences")
    about = stored.read_about("which")
    assert set_names(scores) == [*GIVEN]
    assert about["random"]["draws"] == DRAWS
    for name, one in zip(GIVEN, about["sets"], strict=True):
        ways = {*usual_ways(one["images"] // 2, one["about"]["components"])}
        own = scores[scores.data + ", " + scores.features == name]
        assert set(own.way) == ways - one["about"]["left_out"].keys()
        assert set(own.classes) == {one["classes"]}
        assert set(own.images) == {one["images"]}
        for base in BASELINES:
            for score, word in SCORE_WORDS.items():
                rows = differences[(differences.data + ", " + differences.features == name)]
                rows = rows[(rows.baseline == base) & (rows.score == score)]
                assert set(rows.way) == set(own.way) - {base}
                answer = one["answers"][f"{score} against {base}"]
                assert word in answer
                assert answer.startswith("Use") == bool(((rows.verdict == "higher") & rows.p.notna()).any())
