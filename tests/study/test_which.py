"""Which distance for given embeddings: what is measured and kept, what random vectors give, and what is said of it."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from snrlib.data import load
from snrlib.evaluate import compare
from snrlib.evaluate.comparison import SCORE_WORDS, Comparison
from snrlib.mahalanobis import usual_ways
from snrlib.notebooks.run import run
from snrlib.study import stored, which, which_sets
from snrlib.study.which import BASELINES, false_alarms, measure_which
from snrlib.study.which_sets import GIVEN, Given, given_embeddings
from snrlib.study.which_words import SNR, answers, best_ways, set_names, shown


def offset_rows(n_classes: int = 12, each: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes that differ by direction, under an offset of each row: centring is needed."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n_classes * each) % n_classes
    x = torch.randn(n_classes, 16, generator=generator)[y] + 0.5 * torch.randn(len(y), 16, generator=generator)
    return x + 5 * torch.randn(len(y), 1, generator=generator), y


@pytest.fixture
def small(real_root: Path, in_process: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two small sets in place of the nine, and which were embedded."""
    given = {"a, pixels": Given("a", "pixels"), "b, squeezenet1_1": Given("b", "squeezenet1_1", every=2)}
    embedded: list[str] = []

    def made(one: Given, weights: Any) -> tuple[torch.Tensor, torch.Tensor]:
        embedded.append(one.name)
        return offset_rows(seed=len(one.data + one.features))

    monkeypatch.setattr(which, "GIVEN", given)
    monkeypatch.setattr(which, "given_embeddings", made)
    monkeypatch.setattr(which, "DRAWS", 2)
    return embedded


def test_each_set_is_measured_once_and_stored(small: list[str]) -> None:
    path = measure_which()
    written = path.read_bytes()
    scores, differences = stored.read_table("which"), stored.read_table("which", "differences")
    assert set_names(scores) == small == ["a, pixels", "b, squeezenet1_1"]
    x, y = offset_rows(seed=len("apixels"))
    table = compare(x, y, search=usual_ways(len(x) // 2, 16), cluster=False)
    own = scores[scores.data == "a"].set_index("way")
    assert list(own.index) == list(table.index)
    assert np.allclose(own[table.columns], table, atol=1e-12)
    for score in SCORE_WORDS:
        for base in BASELINES:
            mine = differences[
                (differences.data == "a") & (differences.score == score) & (differences.baseline == base)
            ].set_index("way")
            other = table.differences(base, score)
            assert list(mine.verdict) == list(other.verdict)
            assert np.allclose(mine.p_holm, other.p_holm, equal_nan=True)
    about = stored.read_about("which")
    assert [one["subset"] for one in about["sets"]] == ["all classes", "every second class"]
    assert about["random"]["draws"] == 2
    assert measure_which().read_bytes() == written
    assert len(small) == 2, "nothing was embedded again"


def test_a_failed_set_keeps_others_and_goes_on(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = which.given_embeddings

    def fails(given: Given, weights: Any) -> Any:
        if given.data == "b":
            raise FileNotFoundError("b is not there")
        return made(given, weights)

    monkeypatch.setattr(which, "given_embeddings", fails)
    with pytest.raises(ChildProcessError, match=r"1 of 3 steps failed, the others are kept: .*b is not there"):
        measure_which()
    monkeypatch.setattr(which, "given_embeddings", made)
    measure_which()
    assert small == ["a, pixels", "b, squeezenet1_1"], "each was embedded once"


def judged(**right: float) -> Comparison:
    """20 classes of ten queries; of each way, the share of classes whose queries are all answered right."""
    table = Comparison(index=list(right))
    classes = np.arange(20).repeat(10)
    hits = {name: (classes < 20 * share).astype(float) for name, share in right.items()}
    table.queries = {name: pd.DataFrame(dict.fromkeys(SCORE_WORDS, found)) for name, found in hits.items()}
    table.query_classes, table.ranking = classes, {name: name for name in right}
    return table


@pytest.mark.parametrize(
    ("right", "called"),
    [
        ({"Euclid": 0.5, "a": 0.5, "b": 0.5}, (False, False, False)),
        ({"Euclid": 0.5, "a": 0.35, "b": 0.65}, (False, False, False)),
        ({"Euclid": 0.5, "a": 0.3, "b": 0.7}, (False, True, True)),  # a and b alone are far apart
        ({"Euclid": 0.0, "a": 1.0, "b": 0.5}, (True, True, True)),
    ],
)
def test_alarms_are_those_of_planted_differences(right: dict[str, float], called: tuple[bool, ...]) -> None:
    for found in false_alarms(judged(**right)).values():
        assert tuple(found.values()) == called


def test_ways_that_rank_alike_count_once() -> None:
    """p is .03 between Euclid and a: below .05 as one test, not as the least of three."""
    table = judged(Euclid=0.5, a=0.2, twin=0.2)
    apart = [*false_alarms(table).values()]
    table.ranking = {"Euclid": "x", "a": "y", "twin": "y"}
    alike = [*false_alarms(table).values()]
    assert [one["any pair"] for one in (*apart, *alike)] == [False, False, True, True]


def test_one_baseline_may_call_what_all_pairs_do_not() -> None:
    """Seven classes agree that "all" beats "none", p = 2 / 2^7: three tests are below .05, six are not."""
    first = np.arange(7) < 4
    hits = {"Euclid": first, "all": first | True, "none": first & False, "others": ~first}
    table = Comparison(index=list(hits))
    table.queries = {
        name: pd.DataFrame(dict.fromkeys(SCORE_WORDS, found.astype(float))) for name, found in hits.items()
    }
    table.query_classes, table.ranking = np.arange(7), {name: name for name in hits}
    for called in false_alarms(table).values():
        assert called == {"against Euclid": False, "any baseline": True, "any pair": False}


def _tables(use: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One set, on which a way is shown to be better than both baselines; "" shows none."""
    ways = ("Euclid", "cosine", *SNR, "whitening, centred, length 1")
    scores = pd.DataFrame({"way": ways, "precision_at_1": [0.9 if way == use else 0.5 for way in ways]})
    rows = [
        {"score": "precision_at_1", "baseline": base, "way": way, "mean": 0.4 * (way == use), "low": 0.3, "high": 0.5}
        | {"p": 0.001, "verdict": "higher" if way == use else "no difference shown"}
        for base in BASELINES
        for way in ways
        if way != base
    ]
    both = scores, pd.DataFrame(rows)
    for table in both:
        table["data"], table["features"], table["classes"], table["images"] = "birds", "pixels", 20, 300
    return both


@pytest.mark.parametrize("use", ["", "SNR, anchor ref", "cosine"])
def test_words_follow_the_tables(use: str) -> None:
    scores, differences = _tables(use)
    assert list(best_ways(scores, differences).use) == [use or "Euclid"]
    random = {"draws": 200, "called": {"precision_at_1": {"against Euclid": 4}}}
    said = answers(scores, differences, random)
    expected = f"{use}, R@1 0.900 instead of 0.500" if use else "Euclid, R@1 0.500, no way is shown to be better"
    assert expected in said["What should be used?"]
    assert said["Is SNR ever the one to use?"].startswith(
        "Yes, on birds, pixels" if use in SNR else "On none of these 1"
    )
    assert "called in 4 of 200 draws, 2.0% (0.5% to 5.0%)" in said["Does the test cry wolf?"]
    with pytest.raises(ValueError, match="way must be one of"):
        shown(differences, "no such way")


@pytest.mark.parametrize("score", SCORE_WORDS)
@pytest.mark.parametrize("baseline", BASELINES)
def test_stored_advice_is_that_of_compare(score: str, baseline: str) -> None:
    scores, differences = stored.read_table("which"), stored.read_table("which", "differences")
    about = stored.read_about("which")
    assert set_names(scores) == list(GIVEN)
    for use, one in zip(best_ways(scores, differences, baseline, score).use, about["sets"], strict=True):
        said = one["answers"][f"{score} against {baseline}"]
        assert said.startswith(f"Stay with {baseline}" if use == baseline else f"Use {use}:"), said


def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNR_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="the Olivetti faces"):
        given_embeddings(GIVEN["faces, pixels"])
    monkeypatch.setitem(sys.modules, "chatterbot_corpus", None)
    with pytest.raises(ImportError, match=r"pip install 'snrlib\[sentences\]'"):
        given_embeddings(GIVEN["sentences, all-MiniLM-L6-v2"])


def test_classes_of_all_splits_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(which_sets, "embedder", lambda *_, **__: torch.nn.Flatten())
    x, y = given_embeddings(Given("glyphs", "no network", every=60, most=3, side=32))
    images, labels, before = [], [], 0
    for split in ("train", "test"):
        glyphs = load("glyphs", split)
        for label in range(0, len(glyphs.classes), 60):
            own = glyphs.images[glyphs.labels == label][:3]
            images += [*own.flatten(1)]
            labels += [before + label] * len(own)
        before += len(glyphs.classes)
    assert y.tolist() == labels
    assert torch.equal(x, torch.stack(images))


@pytest.mark.slow
@pytest.mark.parametrize("roles", [False, True])
def test_the_notebook_takes_a_file_of_ones_own(roles: bool, tmp_path: Path) -> None:
    x, y = offset_rows()
    table = pd.DataFrame(x.numpy()).add_prefix("f").assign(species=y.numpy())
    if roles:
        table["role"] = np.where(np.arange(len(table)) < 36, "query", "gallery")
    table.to_parquet(tmp_path / "mine.parquet")
    row = run("11", {"file": str(tmp_path / "mine.parquet")}, tmp_path / "own" / "11.ipynb")
    cut = slice(36) if roles else slice(None)
    sets: dict[str, Any] = {"reference": x[36:], "reference_labels": y[36:]} if roles else {}
    own = compare(x[cut], y[cut], search=usual_ways(len(x[cut]) // 2, 16), cluster=False, **sets)
    for way in ("Euclid", "SNR, anchor query"):
        assert row["metrics"][f"R@1 {way}"] == pytest.approx(own.precision_at_1[way])
