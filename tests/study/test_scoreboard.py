"""The scoreboard: what it compares, corrects, averages, counts and says, against sums by hand and scipy."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from snrlib import plots
from snrlib.data import load
from snrlib.distances import get_distance
from snrlib.evaluate import evaluate
from snrlib.experiment import default_settings, untrained
from snrlib.notebooks.refresh import figures
from snrlib.stats import holm
from snrlib.study import contents, profiles
from snrlib.study.contents import loss_tables, reference_table, untrained_table, with_answers, write_contents
from snrlib.study.scoreboard import (
    by_search_and_training,
    mean_differences,
    scoreboard,
    tally,
    training_helped,
)
from snrlib.study.stored import read, write, write_tables
from snrlib.study.tables import under_training_distance
from snrlib.study.untrained import measure_untrained, untrained_scores
from snrlib.study.words import answers, effect, sentence

SCORES = {  # loss, distance: R@1 of four seeds under the training distance, and under Euclid
    ("triplet", "euclidean"): ([0.50, 0.52, 0.49, 0.51], [0.50, 0.52, 0.49, 0.51]),
    ("triplet", "snr"): ([0.60, 0.61, 0.60, 0.62], [0.59, 0.60, 0.58, 0.61]),
    ("n_pair", "euclidean"): ([0.40, 0.42, 0.41, 0.44], [0.40, 0.42, 0.41, 0.44]),
    ("n_pair", "snr"): ([0.41, 0.40, 0.42, 0.43], [0.30, 0.31, 0.30, 0.33]),
    ("n_pair", "relative_euclidean"): ([0.41, 0.40, 0.42, 0.43], [0.41, 0.40, 0.42, 0.43]),
    ("n_pair", "mahalanobis"): ([0.20, 0.21, 0.22, 0.20], [0.21, 0.20, 0.20, 0.22]),
}
COMPARED = [key for key in SCORES if key[1] != "euclidean"]


def _study(
    name: str, data: str, backbone: str = "conv4", shift: float = 0.0, seeds: int = 4, about: Any = None
) -> None:
    """Stored: `SCORES` on a data set; ``shift`` is added to what SNR gives. EER is half of what R@1 lacks."""
    rows = []
    for (loss, distance), both in SCORES.items():
        anchor = "query" if distance in ("snr", "relative_euclidean") else ""
        same: dict[str, Any] = {"data": data, "backbone": backbone, "loss": loss, "distance": distance}
        same |= {"map": "running" if distance == "mahalanobis" else "", "variant": "", "margin": 0.1}
        for (judge, side), values in zip((("training", anchor), ("euclidean", "")), both, strict=True):
            for seed, value in enumerate(values[:seeds]):
                score = value + shift * (distance == "snr")
                judged = {"seed": seed, "judge": judge, "anchor": side}
                row = {"precision_at_1": score, "mean_average_precision_at_r": score / 2, "EER": (1 - score) / 2}
                rows.append({**same, **judged, **row})
    rows.append({**rows[0], "loss": "untrained", "distance": "", "judge": "snr", "anchor": "query"})
    write(name, pd.DataFrame(rows), {"command": f"snr measure {name}"} | (about or {}))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies of two data sets, the second with single queries."""
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    queries = {"backbone": "conv4", "loss": "triplet", "distance": "snr", "map": "", "variant": "", "low": 0.02}
    queries |= {"high": 0.2}
    _study("one", "digits")
    _study("two", "glyphs", shift=0.1, about={"same_queries": [queries]})
    return tmp_path


# --- the board --------------------------------------------------------------------------------------------------------


def test_a_board_pairs_distances_with_euclid_by_seed(root: Path) -> None:
    board = scoreboard(["one"]).set_index(["loss", "distance"]).to_dict("index")
    assert len(board) == len(SCORES)
    for (loss, distance), (own, _) in SCORES.items():
        row: Any = board[(loss, distance)]
        assert (row["study"], row["data"], row["mean"]) == ("one", "digits", pytest.approx(np.mean(own)))
        assert row["half_width"] == pytest.approx(stats.sem(own) * stats.t.ppf(0.975, 3))
        if distance == "euclidean":
            assert row["verdict"] == ""
            assert np.isnan([row["difference"], row["p"], row["p_holm"]]).all()
            continue
        less = np.subtract(own, SCORES[(loss, "euclidean")][0])
        assert row["difference"] == pytest.approx(less.mean())
        assert row["difference_half_width"] == pytest.approx(stats.sem(less) * stats.t.ppf(0.975, 3))
        assert row["p"] == pytest.approx(stats.ttest_1samp(less, 0).pvalue)
        said = "higher" if less.mean() > 0 else "lower"
        assert row["verdict"] == (said if row["p"] < 0.05 else "no difference shown")


def test_one_family_holds_all_comparisons_but_near_copies(root: Path) -> None:
    board = scoreboard(["one", "two"])
    family = board.p.mask(board.distance == "relative_euclidean")
    assert family.notna().sum() == 2 * (len(COMPARED) - 1)
    np.testing.assert_allclose(board.p_holm, holm(family))


def test_query_intervals_are_of_their_study_and_score(root: Path) -> None:
    there = scoreboard(["one", "two"]).dropna(subset=["low"])
    kept = there[["study", "loss", "distance", "low", "high"]].to_numpy().tolist()
    assert kept == [["two", "triplet", "snr", 0.02, 0.2]]
    assert scoreboard(["two"], "EER").low.isna().all()


def test_a_comparison_that_two_studies_made_counts_once(root: Path) -> None:
    _study("again", "digits", shift=0.3)
    pd.testing.assert_frame_equal(scoreboard(["one", "again"]), scoreboard(["one"]))
    for function in (mean_differences, lambda studies: by_search_and_training(studies)["search"]):
        pd.testing.assert_frame_equal(function(["one", "again"]), function(["one"]))


def test_what_cannot_be_on_a_board_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="studies must name at least one study"):
        scoreboard([])
    with pytest.raises(FileNotFoundError, match=r"three\.json is not there; `snr measure three` makes it"):
        scoreboard(["three"])
    with pytest.raises(ValueError, match="not compared on this scoreboard: lmnn"):
        plots.scoreboard_plot(scoreboard(["one"]), ("snr", "lmnn"))


def test_the_figure_has_a_marker_for_every_comparison(root: Path) -> None:
    board = scoreboard(["one", "two"])
    snr, near_copy, mahalanobis = plots.scoreboard_plot(board, ("snr", "relative_euclidean", "mahalanobis")).axes
    assert [text.get_text() for text in snr.get_yticklabels()] == [
        f"{data}, conv4: {loss}" for data in ("digits", "glyphs") for loss in ("triplet", "n_pair")
    ]
    assert [len(axis.containers) for axis in (snr, near_copy, mahalanobis)] == [4, 2, 2]
    shown: Any = board[(board.distance == "snr")]
    for container, row in zip(snr.containers, shown.itertuples(), strict=True):
        assert container[0].get_marker() == {"higher": ">", "lower": "<", "no difference shown": "o"}[row.verdict]
        assert (container[0].get_markerfacecolor() == "white") == (row.p_holm >= 0.05)
    assert all(container[0].get_markerfacecolor() == "white" for container in near_copy.containers)
    assert len({axis.get_xlim() for axis in (snr, near_copy, mahalanobis)}) == 1, "one scale"


# --- what the differences come to -------------------------------------------------------------------------------------


def test_a_tally_counts_verdicts_and_those_that_survive(root: Path) -> None:
    board = scoreboard(["one", "two"])
    counts = tally(board)
    for distance, row in counts.iterrows():
        part = board[(board.distance == distance) & (board.verdict != "")]
        for word in ("higher", "lower", "no difference shown"):
            assert row[word] == (part.verdict == word).sum()
        assert row.p == pytest.approx(stats.binomtest(int(row.higher), int(row.higher + row.lower) or 1).pvalue)
    assert counts["higher, Holm"]["snr"] == ((board.distance == "snr") & (board.p_holm < 0.05)).sum() > 0
    assert pd.isna(counts["higher, Holm"]["relative_euclidean"]), "not in the family"
    assert tally(board.assign(p_holm=0.2))["higher, Holm"]["snr"] == 0
    assert tally(board.assign(p_holm=0.2), level=0.7)["higher, Holm"]["snr"] == counts.higher["snr"]
    assert tally(board, ["distance", "loss"]).higher["snr", "triplet"] == 2


def test_each_data_set_is_one_unit_of_intervals(root: Path) -> None:
    _study("more", "glyphs", backbone="resnet18", shift=-0.2)
    _study("third", "omniglot", shift=0.05)
    studies = ["one", "two", "more", "third"]
    found: Any = mean_differences(studies, by=("distance", "loss")).loc["snr", "triplet"]
    less = np.subtract(SCORES["triplet", "snr"][0], SCORES["triplet", "euclidean"][0])
    digits, glyphs = less.mean(), np.mean([less.mean() + 0.1, less.mean() - 0.2])
    omniglot = less.mean() + 0.05
    assert found["mean"] == pytest.approx((digits + glyphs + omniglot) / 3)
    low, high = stats.t.interval(0.95, 2, found["mean"], stats.sem([digits, glyphs, omniglot]))
    assert found.half_width == pytest.approx((high - low) / 2)
    variances = less.var(ddof=1) / 4 * np.array([2, 1, 1, 2]) ** 2 / 36  # the strata have the same spread here
    freedom = variances.sum() ** 2 / (variances**2 / 3).sum()
    assert found.half_width_seeds == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(variances.sum()))
    assert (found.data_sets, found.comparisons, found.runs) == (3, 4, 16)
    assert (found.verdict, found.verdict_seeds) == ("no difference shown", "higher")
    both, each = (mean_differences(studies, by=by)["mean"]["snr"] for by in (("distance",), ("distance", "loss")))
    assert both == pytest.approx(each.mean(), rel=1e-12)
    assert np.isnan(mean_differences(["one", "two"]).half_width).all(), "two data sets say nothing of others"


def test_other_divisions_are_no_other_data(root: Path) -> None:
    _study("features", "cub_features")
    _study("forty", "cub_features_40", shift=0.2)
    _study("photographs", "cub200", shift=0.1)
    found: Any = mean_differences(["one", "features", "forty", "photographs"], by=("distance", "loss"))
    less = np.subtract(SCORES["triplet", "snr"][0], SCORES["triplet", "euclidean"][0]).mean()
    assert (found.data_sets == 2).all()
    assert found["mean"]["snr", "triplet"] == pytest.approx((less + less + 0.1) / 2)


def test_search_and_training_add_up_to_the_difference(root: Path) -> None:
    parts = by_search_and_training(["one"])
    assert set(parts["search"].index) == {"snr", "relative_euclidean"}, "no distance with a map"
    rows = [key for key in COMPARED if key[1] == "snr"]
    search = np.mean([np.subtract(*SCORES[key]) for key in rows])
    training = np.mean([np.subtract(SCORES[key][1], SCORES[key[0], "euclidean"][0]) for key in rows])
    means = {name: table["mean"]["snr"] for name, table in parts.items()}
    assert means == pytest.approx({"search": search, "training": training, "difference": search + training})
    assert means["difference"] == pytest.approx(mean_differences(["one"], by=("distance",))["mean"]["snr"])


def test_search_and_training_are_of_shared_seeds(root: Path) -> None:
    runs = read("one").runs
    lost = (runs.distance == "euclidean") & (runs.loss == "triplet") & (runs.seed == 0)
    write("one", runs[~lost & (runs.loss == "triplet")], {})
    found = by_search_and_training(["one"])["search"].loc["snr"]
    assert found["mean"] == pytest.approx(np.subtract(*SCORES["triplet", "snr"])[1:].mean())
    assert found.runs == 3


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("up", "down", "said"),
    [
        (6, 6, "no consistent effect"),
        (0, 0, "no consistent effect"),
        (5, 0, "no consistent effect"),  # p = 0.0625
        (6, 0, "more often higher than lower"),
        (2, 10, "more often lower than higher"),
    ],
)
def test_words_for_counts_follow_the_sign_test(up: int, down: int, said: str) -> None:
    assert effect(up, down) == said
    assert effect(up, down, level=0.9999999) == "no consistent effect"


def test_sentences_follow_the_numbers(root: Path) -> None:
    board = scoreboard(["one"])
    assert sentence(board, "snr") == (
        "snr against Euclid, R@1: no consistent effect; higher in 1 of 2 comparisons, lower in 0 (sign test p = 1.00; "
        "with Holm's correction 1 higher, 0 lower). From -0.003 (one, conv4, n_pair) to +0.102 (one, conv4, triplet)."
    )
    assert "Holm" not in sentence(board, "relative_euclidean") + sentence(board, "snr", corrected=False)
    many = pd.concat([board.assign(study=f"s{n}") for n in range(6)])
    turned = many.assign(verdict=many.verdict.replace({"higher": "lower"}))
    for table, said in (
        (many, "higher than lower; higher in 6 of 12"),
        (turned, "lower than higher; higher in 0 of 12"),
    ):
        assert sentence(table, "snr").startswith(f"snr against Euclid, R@1: more often {said}")
    with pytest.raises(ValueError, match="'lmnn' is not compared; there are snr, relative_euclidean, mahalanobis"):
        sentence(board, "lmnn")


@pytest.fixture
def with_robustness(root: Path) -> Path:
    """Also a table of robustness in which SNR keeps more under noise."""
    rows = []
    for distance, keeps in (("euclidean", 0.5), ("snr", 0.7), ("mahalanobis", 0.5)):
        for seed in range(4):
            fixed = {"data": "glyphs", "loss": "triplet", "distance": distance, "map": "", "variant": "", "seed": seed}
            fixed["tuned_on"] = "clean"
            noisy = 0.8 * keeps + (0.001 * seed if distance == "snr" else 0)
            rows += [{**fixed, "when": "never", "kind": "clean", "level": 0.0, "precision_at_1": 0.8}]
            rows += [{**fixed, "when": "test", "kind": "noise", "level": 0.1, "precision_at_1": noisy}]
            rows += [{**fixed, "when": "training", "kind": "noise", "level": 0.1, "precision_at_1": 0.4 + 0.01 * seed}]
    write_tables("robustness", {"": pd.DataFrame(rows)}, {})
    return root


def test_the_answers_are_those_of_the_tables(with_robustness: Path) -> None:
    studies = ["one", "two"]
    conclusion, helped, help, when, why, robust, other = answers(studies).values()
    counts = tally(scoreboard(studies)).loc["snr"]
    assert "the SNR distance has no consistent effect on R@1" in conclusion
    assert "In 4 of 4 combinations" in helped
    of = f"R@1 is higher in {counts.higher:.0f} of 4 comparisons, lower in {counts.lower:.0f}"
    assert help.startswith(f"No consistent effect. Against Euclid under the same loss {of}")
    assert "MAP@R is higher in" in help
    assert "EER, of which less is better, is higher in 0 of 4" in help
    assert "the 6 comparisons of R@1 with Euclid; relative Euclid, a near-copy of SNR, is not in it" in help
    row: Any = mean_differences(studies, by=("distance", "loss")).loc["snr", "triplet"]
    shown = f"triplet {row['mean']:+.3f} on two data sets (± {row.half_width_seeds:.3f})"
    assert shown in when.partition("MAP@R")[0]
    search = by_search_and_training(studies, "EER")["search"].loc["snr"]
    assert f"the search under SNR makes {search['mean']:+.3f} on two data sets" in why
    assert "With spoiled queries, SNR against Euclid by R@1 itself: no consistent effect" in robust
    assert "higher in 1 of 1 comparisons" in robust
    assert {"Mahalanobis", "Relative Euclid"} <= set(re.findall("Mahalanobis|Relative Euclid", other))


def test_a_conclusion_names_what_other_data_show(with_robustness: Path) -> None:
    for number, data in enumerate(("cifar10", "cars196", "omniglot")):
        _study(f"s{number}", data, shift=0.101 + number / 1000)
    said = answers(["one", *(f"s{number}" for number in range(3))])["What may be concluded?"]
    assert "R@1 under the SNR distance is more often higher than lower than under Euclid" in said
    assert "EER, of which less is better, is more often lower than higher" in said
    assert "shown to hold for other data sets, each loss taken alone: R@1 higher under triplet" in said
    assert "its mean difference is higher under triplet, n_pair" in said


def test_answers_set_the_cosine_beside_snr(with_robustness: Path) -> None:
    runs = read("one").runs
    cosine = runs[(runs.distance == "snr") & (runs.anchor != "ref")].assign(distance="cosine", anchor="")
    cosine["precision_at_1"] += 0.04
    write("one", pd.concat([runs, cosine]), {})
    said = answers(["one"])
    euclid, snr = (np.mean([SCORES[loss, name][0] for loss in ("triplet", "n_pair")]) for name in ("euclidean", "snr"))
    gains = f"has {snr + 0.04 - euclid:+.3f} against Euclid, and the SNR distance -0.040 against the cosine"
    assert gains in said["What may be concluded?"]
    assert "all losses -0.040 on one data set" in said["And against the cosine?"]
    found: Any = mean_differences(["one", "two"], by=("distance",), baseline="cosine")
    assert found["mean"]["snr"] == pytest.approx(-0.04)
    assert found["mean"]["euclidean"] == pytest.approx(euclid - snr - 0.04)
    assert (found.data_sets == 1).all(), "a study without a cosine is passed over"


# --- before training --------------------------------------------------------------------------------------------------


JUDGES = [("cosine", ""), ("euclidean", ""), ("snr", "query"), ("snr", "ref")]


def _untrained(study: str, value: float) -> None:
    fixed = {
        "study": study,
        "data": "digits",
        "backbone": "conv4",
        "loss": "untrained",
        "distance": "",
        "map": "",
        "variant": "",
    }
    rows = [
        {**fixed, "seed": seed, "judge": judge, "anchor": anchor, "precision_at_1": value + step, "EER": 1 - value}
        | {"mean_average_precision_at_r": (value + step) / 2}
        for seed in (0, 1)
        for (judge, anchor), step in zip(JUDGES, (0.0, 0.2, 0.3, 1), strict=True)
    ]
    write_tables("untrained", {"": pd.DataFrame(rows).assign(classes=5, images=896)}, {})


def test_the_untrained_network_stands_beside_the_trained(with_robustness: Path) -> None:
    assert scoreboard(["one"]).untrained.isna().all()
    _untrained("one", 0.45)
    board = scoreboard(["one", "two"])
    assert board.groupby("study").untrained.first().tolist() == pytest.approx([0.45, np.nan], nan_ok=True)
    assert (board.classes.max(), board.images.max()) == (5, 896)
    assert untrained_scores("one", judge="snr")["mean"]["conv4"] == pytest.approx(0.75), "the query is the anchor"
    table = untrained_table(["one", "two"])
    assert "| one | conv4 | 5 classes, 896 images | 0.450 | 0.417 to 0.505 |" in table
    assert "| one, conv4: 5 classes, 896 images | untrained, cosine | 0.450 | 0.450 |" in loss_tables(["one"])
    assert "| two, conv4 | euclidean | 0.505 ± " in loss_tables(["two"])
    assert "untrained, cosine |  | 0.450 |" in reference_table(["one"]).replace("nan", "")


def test_what_training_did_not_help_counts_nowhere(with_robustness: Path) -> None:
    before = scoreboard(["one"])
    _untrained("one", 0.45)  # between the best arm of n_pair and that of triplet
    assert training_helped("one").to_dict() == {("conv4", "triplet"): True, ("conv4", "n_pair"): False}
    board = scoreboard(["one"])
    assert board.helped.tolist() == (board.loss == "triplet").tolist()
    assert (board.verdict[~board.helped] == "").all()
    assert board.p_holm[~board.helped].isna().all()
    assert board.difference.equals(before.difference), "still shown"
    assert board.p_holm.notna().sum() == 1, "the family is smaller"
    assert tally(board).sum(axis=1).index.tolist() == ["snr"]
    assert set(mean_differences(["one"]).reset_index().loss) == {"triplet"}
    assert by_search_and_training(["one"])["search"].runs["snr"] == 4
    assert (
        "The others count in no comparison: digits, conv4, n_pair."
        in answers(["one"])["Where does training help at all?"]
    )
    _untrained("one", 0.604)  # less than the mean of the best arm, but within its interval
    assert not training_helped("one").any()


def test_untrained_networks_are_measured_as_their_study_judges(root: Path) -> None:
    test = load("digits", "test", size=16)
    about = {"settings": {"embedding_size": 8, "image_size": 16}, "data": {test.name: test.fingerprint}}
    _study("one", "digits", seeds=2, about=about)
    path = measure_untrained(studies=["one"])
    assert path == root / "data/reference/untrained.csv"
    found = pd.read_csv(path, keep_default_na=False)
    assert list(zip(found.judge, found.anchor, strict=True)) == JUDGES * 2
    assert (found.classes.unique(), found.images.unique()) == ([5], [len(test)])
    x = untrained(default_settings("digits", "conv4", embedding_size=8, image_size=16, seed=1)).embeddings.double()
    cosine = (x @ x.T) / (x.norm(dim=1)[:, None] * x.norm(dim=1))
    nearest = cosine.fill_diagonal_(-2).argmax(dim=1)
    own = found[found.seed == 1].set_index(["judge", "anchor"]).precision_at_1
    assert own["cosine", ""] == pytest.approx(float((test.labels[nearest] == test.labels).double().mean()), abs=1e-3)
    snr = get_distance("snr", anchor="ref")
    expected = evaluate(x.float(), test.labels, snr, cluster=False)["precision_at_1"]
    assert own["snr", "ref"] == pytest.approx(expected, rel=1e-5)
    _study("one", "digits", about=about | {"data": {test.name: "others"}})
    with pytest.raises(ValueError, match="one was judged on other images than digits, test has here"):
        measure_untrained(studies=["one"])
    _study("one", "digits", about=about | {"settings": {"weights": "imagenet"}})
    with pytest.raises(FileNotFoundError, match="one starts from ImageNet weights: --weights names their file"):
        measure_untrained(studies=["one"])


def test_a_study_with_untrained_rows_is_not_measured(root: Path) -> None:
    test = load("digits", "test", size=16)
    about = {"settings": {"embedding_size": 8, "image_size": 16}, "data": {test.name: test.fingerprint}}
    _study("one", "digits", seeds=1, about=about)
    runs = read("two").runs
    before = runs.loss == "untrained"
    own = runs.assign(judge=runs.judge.where(~before, "cosine"), anchor=runs.anchor.where(~before, ""), classes=5)
    write("two", own.assign(images=9), {})
    assert set(pd.read_csv(measure_untrained()).study) == {"one"}
    assert untrained_scores("two")[["classes", "images"]].to_numpy().tolist() == [[5, 9]]


# --- as stored --------------------------------------------------------------------------------------------------------


def test_the_full_profile_is_stored_as_tuned(repository: Path) -> None:
    tuning = json.loads((repository / "data" / "reference" / "tuned_full.json").read_text())
    key = ["backbone", "loss", "distance", "seed"]
    all_cells = [task.values for task in profiles.cells("full")]
    for data in dict.fromkeys(values["data"] for values in all_cells):
        found = read(f"full_{data}")
        cells = {tuple(values[name] for name in key) for values in all_cells if values["data"] == data}
        own = under_training_distance(found.runs).set_index(key)
        assert (set(own.index), len(own)) == (cells, len(cells))
        rates = {(row["backbone"], row["loss"], row["distance"]): row["learning_rate"] for row in found.about["chosen"]}
        for *network, seed in cells:
            this = dict(zip(["data", *key], [data, *network], strict=False)).items()
            same = [row for row in tuning["tuning"] if this <= row.items()]
            assert len(same) == tuning["trials"], "as many trials for each"
            best = max(same, key=lambda row: row["validation_map_at_r"])
            assert rates[tuple(network)] == pytest.approx(best["learning_rate"])
            assert own.margin[*network, seed] == pytest.approx(best.get("margin", 0.0), rel=1e-5)
            assert tuning["seed"] != seed
        compared = {(loss, distance) for _, loss, distance, _ in cells if distance != "euclidean"}
        assert {(row["loss"], row["distance"]) for row in found.about["same_queries"]} == compared


def test_a_studys_untrained_rows_are_found_again() -> None:
    measured = read("omniglot").runs.query("loss == 'untrained'")
    for judge, anchor in (("euclidean", ""), ("snr", "query")):
        rows = measured[(measured.judge == judge) & (measured.anchor == anchor)]
        found = untrained_scores("omniglot", judge=judge)["mean"]
        assert found.to_dict() == pytest.approx(rows.groupby("backbone").precision_at_1.mean().to_dict(), abs=1e-5)


def test_readme_page_and_notebook_say_what_tables_say(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [Path("README.md"), Path("data/reference/README.md")]
    readme, reference = ((repository / page).read_text() for page in pages)
    said = re.findall(r"^- \*\*(.+?)\*\* (.+)$", readme.partition("<!-- answers: end -->")[0], re.MULTILINE)
    (alt,) = re.findall(r"!\[(.*)\]\(data/reference/scoreboard\.png\)", readme)
    for folder in ("data/reference", "notebooks"):
        shutil.copytree(repository / folder, tmp_path / folder)
    (tmp_path / pages[0]).write_text(readme.replace(said[0][1], "of old").replace(alt, "of old"))
    (tmp_path / pages[1]).write_text("of old")
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    write_contents()
    assert [(tmp_path / page).read_text() for page in pages] == [readme, reference]
    assert len(said) == 8
    notebook = repository / "notebooks" / "12_scoreboard.ipynb"
    outputs = [out for cell in json.loads(notebook.read_text())["cells"] for out in cell.get("outputs", [])]
    printed = "".join("".join(out.get("text", [])) for out in outputs)
    assert all(f"{question} {text}" in printed for question, text in said)
    assert (repository / "data/reference/scoreboard.png").read_bytes() == figures(notebook)[0]
    assert json.dumps(alt) in notebook.read_text()


def test_a_readme_without_its_parts_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "answers", dict)
    monkeypatch.setattr(contents, "discussion", str)
    monkeypatch.setattr(contents, "untrained_table", lambda studies: "")
    readme = "<!-- answers: begin -->\n<!-- answers: end -->\n<!-- untrained: begin -->\n"
    with pytest.raises(ValueError, match="the README has no part untrained"):
        with_answers(readme)


def test_every_stored_file_has_its_row(repository: Path) -> None:
    page = (repository / "data/reference/README.md").read_text()
    files = {path.name for path in (repository / "data/reference").iterdir() if path.is_file()} - {"README.md"}
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert {name for line in rows for name in re.findall(r"`([\w.]+\.\w+)`", line)} == files
    assert all(line.split(" | ")[1].strip() and "`snr " in line.split(" | ")[2] for line in rows)
