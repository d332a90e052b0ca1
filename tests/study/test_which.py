"""Which distance for given embeddings: what is measured and kept, what random vectors give, and what is said of it."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from snrlib.evaluate import compare
from snrlib.evaluate.comparison import SCORE_WORDS, Comparison
from snrlib.mahalanobis import usual_ways
from snrlib.notebooks.run import run
from snrlib.study import stored, which
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


@pytest.mark.parametrize("score", SCORE_WORDS)
def test_false_alarms_are_those_of_each_family(score: str) -> None:
    x, y = offset_rows()
    search = {name: way for name, way in usual_ways().items() if not hasattr(way, "transform")}
    table = compare(x, y, search=search, cluster=False)
    called = false_alarms(table)[score]
    assert called == {"against Euclid": True, "any baseline": True, "any pair": True}, "centring is needed"
    alike = compare(x, y, search={"relative": search["relative Euclid, anchor query"], "Euclid": search["Euclid"]})
    alike.queries = {**alike.queries, "third": alike.queries["Euclid"]}
    alike.ranking = {**alike.ranking, "third": "of its own"}
    assert not any(false_alarms(alike)[score].values()), "the same answers"


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


def test_without_the_packages_sentences_say_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chatterbot_corpus", None)
    with pytest.raises(ImportError, match=r"pip install 'snrlib\[sentences\]'"):
        given_embeddings(GIVEN["sentences, all-MiniLM-L6-v2"])


@pytest.mark.realdata
def test_images_of_whole_classes_are_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 49th kind of car of either half, two photographs of each."""
    given = Given("cars196", "squeezenet1_1", every=49, most=2)
    monkeypatch.setattr("snrlib.study.which_sets.embedder", lambda *_, **__: torch.nn.Flatten())
    x, y = given_embeddings(given)
    assert x.shape == (8, 3 * 224 * 224)
    assert y.tolist() == [0, 0, 49, 49, 98, 98, 147, 147]
    x, y = given_embeddings(GIVEN["digits, pixels"])
    assert x.shape == (1797, 64)
    assert y.unique().tolist() == list(range(10))


@pytest.mark.slow
@pytest.mark.parametrize("roles", [False, True])
def test_the_notebook_takes_a_file_of_ones_own(roles: bool, tmp_path: Path) -> None:
    x, y = offset_rows()
    table = pd.DataFrame(x.numpy()).add_prefix("f").assign(species=y.numpy())
    if roles:
        table["role"] = np.where(np.arange(len(table)) < 36, "query", "gallery")
    table.to_parquet(tmp_path / "mine.parquet")
    row = run("12", {"file": str(tmp_path / "mine.parquet")}, tmp_path / "own" / "12.ipynb")
    cut = slice(36) if roles else slice(None)
    sets: dict[str, Any] = {"reference": x[36:], "reference_labels": y[36:]} if roles else {}
    own = compare(x[cut], y[cut], search=usual_ways(len(x[cut]) // 2, 16), cluster=False, **sets)
    for way in ("Euclid", "SNR, anchor query"):
        assert row["metrics"][f"R@1 {way}"] == pytest.approx(own.precision_at_1[way])
