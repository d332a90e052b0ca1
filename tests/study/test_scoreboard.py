"""The scoreboard: what it compares, corrects, counts and says, against sums by hand."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from snrlib import plots
from snrlib.cli.main import main
from snrlib.experiment import experiment, from_parameters
from snrlib.notebooks.parameters import parameters
from snrlib.stats import holm, paired_over_queries
from snrlib.study import grid, scoreboard
from snrlib.study.scoreboard import answers, by_search_and_training, hits, sentence, tally
from snrlib.study.tables import stored, under_training_distance

SCORES = {  # loss, distance: R@1 of four seeds under the training distance, and under Euclid
    ("triplet", "euclidean"): ([0.50, 0.52, 0.49, 0.51], [0.50, 0.52, 0.49, 0.51]),
    ("triplet", "snr"): ([0.60, 0.61, 0.60, 0.62], [0.59, 0.60, 0.58, 0.61]),
    ("n_pair", "euclidean"): ([0.40, 0.42, 0.41, 0.44], [0.40, 0.42, 0.41, 0.44]),
    ("n_pair", "snr"): ([0.41, 0.40, 0.42, 0.43], [0.30, 0.31, 0.30, 0.33]),
    ("n_pair", "mahalanobis"): ([0.20, 0.21, 0.22, 0.20], [0.21, 0.20, 0.20, 0.22]),
}


def _study(root: Path, name: str, **about: Any) -> None:
    rows = []
    for (loss, distance), (own, euclid) in SCORES.items():
        absolute = distance in ("euclidean", "mahalanobis")
        for judge, values in (("training distance" + ", anchor query" * (not absolute), own), ("Euclid", euclid)):
            if distance == "euclidean" and judge == "Euclid":
                continue
            fixed = {"backbone": "conv4", "loss": loss, "distance": distance, "margin": 0.1, "judged_by": judge}
            rows += [{**fixed, "seed": seed, "precision_at_1": value} for seed, value in enumerate(values)]
    rows.append({**rows[0], "loss": "untrained", "distance": "none", "judged_by": "snr, anchor query"})
    folder = root / "data" / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    (folder / f"{name}.json").write_text(json.dumps({"rows": len(rows), "most_confused": [], **about}))


def _rows(table: pd.DataFrame) -> dict[Any, dict[Any, Any]]:
    return table.to_dict("index")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies, the second with single queries."""
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    queries = {"backbone": "conv4", "loss": "triplet", "distance": "snr", "low": 0.02, "high": 0.2}
    _study(tmp_path, "one")
    _study(tmp_path, "two", same_queries=[queries])
    return tmp_path


def test_a_board_compares_each_distance_with_euclid_under_the_same_loss_by_seed(root: Path) -> None:
    board = _rows(scoreboard.scoreboard(["one"]).set_index(["loss", "distance"]))
    assert len(board) == len(SCORES)
    for (loss, distance), (own, _) in SCORES.items():
        row = board[(loss, distance)]
        assert row["study"] == "one"
        assert row["mean"] == pytest.approx(np.mean(own))
        assert row["half_width"] == pytest.approx(stats.sem(own) * stats.t.ppf(0.975, 3))
        if distance == "euclidean":
            assert row["verdict"] == ""
            assert np.isnan([row["difference"], row["p"], row["p_holm"]]).all()
            continue
        less = np.subtract(own, SCORES[(loss, "euclidean")][0])
        assert row["difference"] == pytest.approx(less.mean())
        assert row["difference_half_width"] == pytest.approx(stats.sem(less) * stats.t.ppf(0.975, 3))
        assert row["p"] == pytest.approx(stats.ttest_1samp(less, 0).pvalue)
        assert row["verdict"] == (
            "no difference shown" if row["p"] > 0.05 else "higher" if less.mean() > 0 else "lower"
        )


def test_p_values_are_corrected_over_the_whole_board(root: Path) -> None:
    one, both = scoreboard.scoreboard(["one"]), scoreboard.scoreboard(["one", "two"])
    assert both.p.dropna().tolist() == one.p.dropna().tolist() * 2
    np.testing.assert_allclose(both.p_holm, holm(both.p))
    assert both.p_holm.dropna().min() == pytest.approx(one.p_holm.dropna().min() * 2)


def test_intervals_over_queries_stand_where_single_answers_were_kept_and_only_of_their_score(root: Path) -> None:
    board = scoreboard.scoreboard(["one", "two"])
    there = board.dropna(subset=["low"])
    assert there[["study", "loss", "distance", "low", "high"]].to_numpy().tolist() == [
        ["two", "triplet", "snr", 0.02, 0.2]
    ]
    table = pd.read_csv(root / "data/reference/two.csv", keep_default_na=False, na_values=[""])
    table.assign(EER=1 - table.precision_at_1).to_csv(root / "data/reference/two.csv", index=False)
    assert scoreboard.scoreboard(["two"], "EER").low.isna().all()


def test_a_tally_counts_verdicts_and_those_that_survive_the_correction(root: Path) -> None:
    board = scoreboard.scoreboard(["one", "two"])
    names = ["higher", "lower", "no difference shown", "higher, Holm", "lower, Holm"]
    counts = _rows(tally(board))
    assert counts["snr"] == dict(zip(names, [2, 0, 2, 2, 0], strict=True))
    assert counts["mahalanobis"] == dict(zip(names, [0, 2, 0, 0, 2], strict=True))
    assert _rows(tally(board, ["distance", "loss"]))[("snr", "triplet")]["higher"] == 2
    doubtful = board.assign(p_holm=0.2)
    assert _rows(tally(doubtful))["snr"]["higher, Holm"] == 0
    assert _rows(tally(doubtful, level=0.7))["snr"]["higher, Holm"] == 2


def test_sentences_follow_the_numbers(root: Path) -> None:
    board = scoreboard.scoreboard(["one"])
    text = sentence(board, "snr")
    assert text.startswith(
        "snr is higher than Euclid more often than it is lower: in 2 comparisons of R@1 1 higher, 0 lower"
    )
    assert "1 without a difference shown; with Holm's correction 1 higher, 0 lower" in text
    assert text.endswith("From -0.003 (one, conv4, n_pair) to +0.102 (one, conv4, triplet).")
    assert "mahalanobis is higher than Euclid less often than it is lower" in sentence(board, "mahalanobis")
    nothing = board.assign(verdict=board.verdict.replace({"higher": "no difference shown"}))
    assert sentence(nothing, "snr").startswith("snr is nowhere shown to differ from Euclid: in 2")
    mixed = board.assign(verdict=board.verdict.mask((board.distance == "snr") & (board.loss == "n_pair"), "lower"))
    assert sentence(mixed, "snr").startswith("snr is higher than Euclid as often as it is lower")
    with pytest.raises(ValueError, match="'lmnn' is not compared; there are snr, mahalanobis"):
        sentence(board, "lmnn")


def test_search_and_training_add_up_to_the_difference(root: Path) -> None:
    parts = _rows(by_search_and_training(["one"]).droplevel(["study", "backbone"]))
    board = _rows(scoreboard.scoreboard(["one"]).set_index(["loss", "distance"]))
    assert set(parts) == {key for key in SCORES if key[1] != "euclidean"}
    for (loss, distance), row in parts.items():
        own, by_euclid = SCORES[(loss, distance)]
        assert row["search"] == pytest.approx(np.subtract(own, by_euclid).mean())
        assert row["training"] == pytest.approx(np.subtract(by_euclid, SCORES[(loss, "euclidean")][0]).mean())
        assert row["difference"] == pytest.approx(board[(loss, distance)]["difference"])


def test_a_comparison_that_two_studies_made_counts_once(root: Path) -> None:
    folder = root / "data" / "reference"
    for name in ("one", "two"):
        about = json.loads((folder / f"{name}.json").read_text())
        (folder / f"{name}.json").write_text(json.dumps({**about, "grid": {"data": "digits"}}))
    together = scoreboard.scoreboard(["one", "two"])
    pd.testing.assert_frame_equal(together, scoreboard.scoreboard(["one"]))
    assert set(by_search_and_training(["one", "two"]).index.get_level_values("study")) == {"one"}


def test_search_and_training_are_of_the_seeds_that_both_have(root: Path) -> None:
    path = root / "data" / "reference" / "one.csv"
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    lost = (table.distance == "euclidean") & (table.loss == "triplet") & (table.seed == 0)
    table[~lost].to_csv(path, index=False)
    about = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**about, "rows": len(table) - int(lost.sum())}))
    row = _rows(by_search_and_training(["one"]).droplevel(["study", "backbone"]))[("triplet", "snr")]
    own, by_euclid = SCORES[("triplet", "snr")]
    assert row["search"] == pytest.approx(np.subtract(own, by_euclid)[1:].mean())
    assert row["search"] + row["training"] == pytest.approx(row["difference"])


def test_what_cannot_be_on_a_board_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="studies must name at least one study"):
        scoreboard.scoreboard([])
    with pytest.raises(FileNotFoundError, match=r"three\.csv is not there"):
        scoreboard.scoreboard(["three"])
    with pytest.raises(ValueError, match="not compared on this scoreboard: lmnn"):
        plots.scoreboard_plot(scoreboard.scoreboard(["one"]), ("snr", "lmnn"))


def test_the_figure_has_a_marker_for_every_comparison(root: Path) -> None:
    figure = plots.scoreboard_plot(scoreboard.scoreboard(["one", "two"]))
    snr, mahalanobis = figure.axes
    assert [text.get_text() for text in snr.get_yticklabels()] == [
        f"{study}, conv4: {loss}" for study in ("one", "two") for loss in ("triplet", "n_pair")
    ]
    assert [len(axis.containers) for axis in (snr, mahalanobis)] == [4, 2]
    marks = [container[0].get_marker() for container in snr.containers]
    assert marks == [">", "o", ">", "o"]
    assert [container[0].get_markerfacecolor() == "white" for container in snr.containers] == [False, True, False, True]


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_robustness(root: Path) -> Path:
    """Also EER, where higher is worse, and a table of robustness in which SNR keeps more under noise."""
    folder = root / "data" / "reference"
    for name in ("one", "two"):
        table = pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""])
        table.assign(EER=(1 - table.precision_at_1) / 2).to_csv(folder / f"{name}.csv", index=False)
    rows = []
    for distance, keeps in (("euclidean", 0.5), ("snr", 0.7), ("mahalanobis", 0.5)):
        for seed in range(4):
            fixed = {"data": "glyphs", "loss": "triplet", "distance": distance, "seed": seed}
            noisy = 0.8 * keeps + (0.001 * seed if distance == "snr" else 0)
            rows += [{**fixed, "when": "never", "kind": "clean", "level": 0.0, "precision_at_1": 0.8}]
            rows += [{**fixed, "when": "test", "kind": "noise", "level": 0.1, "precision_at_1": noisy}]
            rows += [{**fixed, "when": "training", "kind": "noise", "level": 0.1, "precision_at_1": 0.4 + 0.01 * seed}]
    pd.DataFrame(rows).to_csv(folder / "robustness.csv", index=False)
    (folder / "robustness.json").write_text(json.dumps({"rows": len(rows)}))
    return folder


def test_the_answers_are_the_counts_of_the_tables(with_robustness: Path) -> None:
    found = answers(["one"])
    help, when, why, robust, other = found.values()
    assert help.startswith(
        "More often than it hurts: R@1 is higher than Euclid's in 1 of 2 comparisons, lower in 0, and in 1 no"
    )
    assert "with Holm's correction 1 higher" in help
    assert "EER, is higher than Euclid's in 0 of 2 comparisons, lower in 1" in help
    assert when.endswith("goes from -0.003 (n_pair) to +0.102 (triplet).")
    assert why == (
        "Because of both training and search: the search under it moves R@1 by at most 0.105, "
        "the training under it by up to 0.107."
    )
    assert "spoiled queries the share of its own clean R@1 that it keeps is higher than Euclid's in 1 of 1" in robust
    assert "wrong labels, the share of its own clean R@1 that it keeps is higher than Euclid's in 0 of 1" in robust
    assert "R@1 is higher than Euclid's in 0 of 1 comparisons, lower in 1" in other


def test_of_an_error_lower_is_better(with_robustness: Path) -> None:
    assert answers(["one"], "EER")["Does the SNR distance help?"].startswith(
        "More often than it hurts: EER is higher than"
    )
    worse = pd.read_csv(with_robustness / "one.csv", keep_default_na=False, na_values=[""])
    worse.assign(EER=1 - worse.EER).to_csv(with_robustness / "one.csv", index=False)
    assert answers(["one"], "EER")["Does the SNR distance help?"].startswith("Less often than it hurts: EER is higher")


# --- from finished cells ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cells_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose cells were run, without the notebook around them."""
    root = tmp_path_factory.mktemp("finished")
    (root / "notebooks").symlink_to(Path(__file__).resolve().parents[2] / "notebooks")
    block: dict[str, Any] = {"data": ["digits"], "backbone": ["conv4"], "distance": ["euclidean", "snr"]}
    block |= {"loss": ["triplet"], "seed": [0, 1, 2]}
    block |= {"settings": {"steps": 3, "embedding_size": 8, "learning_rate": 0.01, "margin": 0.2}}
    (root / "study.yaml").write_text(yaml.safe_dump({"profiles": {"small": [block]}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNR_ROOT", str(root))
        patch.setenv("SNR_RUNS", str(root / "runs"))
        for task in grid.cells("small"):
            p = {name: known.default for name, known in parameters("05").items()} | task.values
            done = experiment(from_parameters(p))
            done.save(task.output.parent)
            task.output.write_text("the executed notebook")
            row = {"parameters": p, "metrics": done.metrics, "data": done.fingerprints, "wall_time_s": 60.0}
            row |= {"git_commit": "abc", "versions": {"torch": "2"}, "finished": f"2026-01-0{task.values['seed'] + 1}"}
            task.output.with_name("result.json").write_text(json.dumps(row))
    return root


@pytest.fixture
def finished(cells_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = shutil.copytree(cells_run, tmp_path / "study", symlinks=True)
    monkeypatch.setenv("SNR_ROOT", str(root))
    monkeypatch.setenv("SNR_RUNS", str(root / "runs"))
    monkeypatch.setattr(grid, "is_current", lambda output, source: output.exists())
    return root


def test_finished_cells_become_a_study_with_its_single_queries(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "--profile", "small", "--store"]) == 0
    path = finished / "data" / "reference" / "small_digits.csv"
    assert capsys.readouterr().out.strip() == str(path)
    found = stored("small_digits")
    for task in grid.cells("small"):
        row = json.loads(task.output.with_name("result.json").read_text())
        chosen = found.runs[
            (found.runs.distance == task.values["distance"]) & (found.runs.seed == task.values["seed"])
        ].set_index("judged_by")
        for judge, scores in chosen.iterrows():
            assert scores.precision_at_1 == pytest.approx(row["metrics"][f"{judge}: precision_at_1"], rel=1e-5)
    assert found.about["grid"] == {"data": "digits", "seeds": [0, 1, 2], "cells": 6}
    assert found.about["core_minutes"] == 6.0
    assert (found.about["git_commit"], found.about["finished"]) == (["abc"], "2026-01-03")
    assert [row["learning_rate"] for row in found.about["chosen"]] == [0.01, 0.01]
    ours, theirs = (
        np.stack([hits(t.output.with_name("result.json")) for t in grid.cells("small") if t.values["distance"] == name])
        for name in ("snr", "euclidean")
    )
    expected = paired_over_queries(ours, theirs)
    (row,) = found.about["same_queries"]
    assert (row["low"], row["high"]) == pytest.approx(expected.over_both, rel=1e-4)
    assert row["queries"] == expected.queries == ours.shape[1]
    board = scoreboard.scoreboard(["small_digits"])
    assert board.difference.dropna().tolist() == pytest.approx([row["difference"]], abs=1e-5)


def test_hits_are_whether_the_nearest_other_image_is_of_the_same_class(finished: Path) -> None:
    task = next(task for task in grid.cells("small") if task.values["distance"] == "snr")
    with np.load(task.output.with_name("embeddings.npz")) as arrays:
        x, labels = arrays["embeddings"], arrays["labels"]
    expected = []
    for i, anchor in enumerate(x.astype(float)):
        distances = np.var(x - anchor, axis=1) / np.var(anchor)
        distances[i] = np.inf
        expected.append(float(labels[distances.argmin()] == labels[i]))
    assert hits(task.output.with_name("result.json")).tolist() == expected


def test_an_unfinished_grid_is_not_stored(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid.cells("small")[2].output.unlink()
    assert main(["study", "--profile", "small", "--store"]) == 2
    assert "1 of 6 cells of profile small are not finished" in capsys.readouterr().err
    assert not (finished / "data" / "reference").exists()


# --- as stored --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["glyphs", "omniglot", "cub_features", "cub200"])
def test_a_stored_study_of_the_full_profile_has_all_its_cells_as_they_were_tuned(data: str, repository: Path) -> None:
    found = stored(f"full_{data}")
    cells = [task.values for task in grid.cells("full") if task.values["data"] == data]
    key = ["backbone", "loss", "distance", "seed"]
    own = under_training_distance(found.runs)
    assert sorted(own[key].itertuples(index=False, name=None)) == sorted(
        tuple(values[name] for name in key) for values in cells
    )
    margins: dict[Any, float] = own.set_index(key).margin.to_dict()
    rates = {(row["backbone"], row["loss"], row["distance"]): row["learning_rate"] for row in found.about["chosen"]}
    tuning = json.loads((repository / "data" / "reference" / "tuned_full.json").read_text())
    for values in cells:
        index = tuple(values[name] for name in key)
        this = {"data": data, **dict(zip(key[:3], index, strict=False))}.items()
        same = [row for row in tuning["tuning"] if this <= row.items()]
        assert len(same) == tuning["trials"], "as many trials for each"
        best = max(same, key=lambda row: row["validation_map_at_r"])
        assert rates[index[:3]] == pytest.approx(best["learning_rate"])
        assert margins[index] == pytest.approx(best.get("margin", 0.0), rel=1e-5)
        assert tuning["seed"] != values["seed"]
    compared = {(values["loss"], values["distance"]) for values in cells if values["distance"] != "euclidean"}
    assert {(row["loss"], row["distance"]) for row in found.about["same_queries"]} == compared
