"""Robustness: who searches what, what is kept of the scores, and what is measured of spoiled images and labels."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from snrlib.data import LabelledImages, load
from snrlib.data.corruptions import CORRUPTIONS, corrupt, mislabel
from snrlib.distances import get_distance
from snrlib.evaluate import retrieval
from snrlib.experiment import Settings
from snrlib.study import robustness, stored, tuning
from snrlib.study.robustness import (
    DISTANCES,
    LEVELS,
    SEEDS,
    TUNED_ON,
    compare_drops,
    measure_robustness,
    spoiled_recall,
)
from snrlib.utils.files import write_json


def _vectors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat_interleave(4)
    gallery = torch.randn(40, 6, generator=generator, dtype=torch.float64) + labels[:, None] / 4
    return gallery + 0.5 * torch.randn(40, 6, generator=generator, dtype=torch.float64), gallery, labels


@pytest.mark.parametrize(("name", "anchor"), [("euclidean", "query"), ("snr", "query"), ("snr", "ref")])
def test_a_spoiled_query_searches_all_but_its_own(name: Any, anchor: Any) -> None:
    query, gallery, labels = _vectors()
    distance = get_distance(name, anchor=anchor)
    right = 0
    for i in range(len(query)):
        found, nearest = -1, math.inf
        for j in range(len(gallery)):
            d = float(distance.pairwise_distance(query[i : i + 1], gallery[j : j + 1]))
            if j != i and d < nearest:
                found, nearest = j, d
        right += bool(labels[found] == labels[i])
    assert 0 < right < len(query)
    assert spoiled_recall(query, gallery, labels, distance) == right / len(query)
    clean = spoiled_recall(gallery, gallery, labels, distance)
    assert clean == pytest.approx(retrieval(gallery, labels, distance).precision_at_1.mean()), "unspoiled: plain R@1"
    for parts in ((query, gallery, labels[1:]), (query, gallery[1:], labels)):
        with pytest.raises(ValueError, match=r"need a query and a label an image, got 40, (39 and 40|40 and 39)"):
            spoiled_recall(*parts, distance)


def _scores(n_seeds: int = 5) -> pd.DataFrame:
    random, rows = np.random.default_rng(3), []
    for data in ("glyphs", "photographs"):
        for distance in DISTANCES:
            for seed in range(n_seeds):
                same = {"data": data, "tuned_on": "clean", "loss": "triplet", "distance": distance, "seed": seed}
                cases = [("never", "clean", 0.0)]
                cases += [("test", kind, level) for kind in ("noise", "blur") for level in (0.1, 0.2)]
                cases += [("training", "wrong labels", level) for level in (0.1, 0.2, 0.4)]
                for when, kind, level in cases:
                    score = (0.6 + 0.1 * (distance == "snr")) * (1 - level) + random.normal(scale=0.02)
                    rows.append({**same, "when": when, "kind": kind, "level": level, "precision_at_1": score})
    return pd.DataFrame(rows)


def _kept(table: pd.DataFrame, key: tuple[str, ...], seed: int, measure: str) -> float:
    """By loops: the mean over the levels of what one run keeps."""
    data, tuned_on, when, kind, distance = key
    assert tuned_on == "clean"
    clean, spoiled = math.nan, []
    for row in table.to_dict("records"):
        if (row["data"], row["distance"], row["seed"]) == (data, distance, seed):
            if row["when"] == "never":
                clean = row["precision_at_1"]
            elif (row["when"], row["kind"]) == (when, kind):
                spoiled.append(row["precision_at_1"])
    kept = {"score": lambda score: score, "share": lambda score: score / clean, "change": lambda score: score - clean}
    return sum(map(kept[measure], spoiled)) / len(spoiled)


@pytest.mark.parametrize(("measure", "level"), [("share", 0.95), ("change", 0.8), ("score", 0.95)])
def test_drops_and_tests_agree_with_loops_and_scipy(measure: str, level: float) -> None:
    table = _scores()
    found = compare_drops(table.sample(frac=1, random_state=0), level, measure)
    assert found.index.names == ["data", "tuned_on", "when", "kind", "distance"]
    assert len(found) == 2 * 3 * 4
    p_values = []
    for key, row in found.iterrows():
        assert isinstance(key, tuple)
        own = [_kept(table, key, seed, measure) for seed in range(5)]
        assert row["mean"] == pytest.approx(np.mean(own))
        t = stats.t.ppf((1 + level) / 2, 4)
        assert row.half_width == pytest.approx(t * stats.sem(own))
        assert row.seeds == 5
        if key[-1] == "euclidean":
            assert row[["difference", "difference_half_width", "p", "p_holm"]].isna().all()
            assert row.verdict == ""
            continue
        euclid = [_kept(table, (*key[:-1], "euclidean"), seed, measure) for seed in range(5)]
        less = np.subtract(own, euclid)
        assert row.difference == pytest.approx(less.mean())
        assert row.difference_half_width == pytest.approx(t * stats.sem(less))
        assert row.p == pytest.approx(stats.ttest_rel(own, euclid).pvalue)
        shown = abs(row.difference) > row.difference_half_width
        assert row.verdict == (("higher" if row.difference > 0 else "lower") if shown else "no difference shown")
        p_values.append(row.p)
    assert found.p_holm.min() == pytest.approx(min(1, len(p_values) * min(p_values)))


def test_who_starts_higher_is_not_called_less_robust() -> None:
    table = _scores()
    by_level = table.level.map({0.0: 1.0, 0.1: 0.8, 0.2: 0.5, 0.4: 0.3})
    table["precision_at_1"] = (0.4 + 0.01 * table.seed + 0.3 * (table.distance == "snr")) * by_level
    share = compare_drops(table).xs("snr", level="distance")
    np.testing.assert_allclose(share.difference, 0, atol=1e-12)
    plain = compare_drops(table, measure="change").xs("snr", level="distance")
    assert (plain.difference < -0.05).all()
    assert set(plain.verdict) == {"lower"}


def test_seeds_without_partner_count_for_means_alone() -> None:
    table = _scores()
    everything = compare_drops(table).xs("snr", level="distance")
    for short in ("snr", "euclidean"):
        found = compare_drops(table[(table.distance != short) | (table.seed < 3)]).xs("snr", level="distance")
        assert set(found.seeds) == {3}
    pd.testing.assert_series_equal(found["mean"], everything["mean"])


def test_ways_of_tuning_are_compared_apart() -> None:
    clean = _scores()
    other = clean.assign(tuned_on="spoiled", precision_at_1=clean.precision_at_1.where(clean.distance != "snr", 0.2))
    both = compare_drops(pd.concat([clean, other]))
    for name, table in (("clean", clean), ("spoiled", other)):
        alone = compare_drops(table).drop(columns="p_holm")
        part = both[both.index.get_level_values("tuned_on") == name].drop(columns="p_holm")
        pd.testing.assert_frame_equal(part, alone)


def test_comparing_needs_one_loss_euclid_and_clean_scores() -> None:
    table = _scores(2)
    without = table.assign(precision_at_1=table.precision_at_1.where(table.seed == 0, 0.0))
    for wrong, message in (
        (pd.concat([table, table.assign(loss="lifted")]), "one loss is compared at a time, got lifted, triplet"),
        (table[table.distance != "euclidean"], "baseline euclidean is not among cosine, mahalanobis, snr"),
        (table[table.when != "never"], "112 of 112 rows have no clean R@1"),
        (without, "56 of 112 rows have no clean R@1 above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_drops(wrong)
    with pytest.raises(ValueError, match="measure must be one of score, share, change, got 'loss'"):
        compare_drops(table, measure="loss")


NETWORKS: dict[str, dict[str, Any]] = {
    "glyphs": {"data": "digits", "backbone": "conv4", "image_size": 8, "embedding_size": 8, "batch_size": 24, "m": 8},
    "photographs": {"data": "cub_features", "backbone": "linear", "embedding_size": 8, "batch_size": 24, "m": 3},
}
FEW = {"noise": (0.1, 0.2), "blur": (0.5,), "wrong labels": (0.5,)}
CASES = [("never", "clean", 0.0), ("test", "noise", 0.1), ("test", "noise", 0.2), ("test", "blur", 0.5)]
CASES += [("training", "noise", 0.1), ("training", "blur", 0.5), ("training", "wrong labels", 0.5)]


MARGINS = {"snr": 0.2, "mahalanobis": 0.3, "cosine": 0.4}


def tune_one(settings: dict[str, Any], open_: list[str], trials: int, path: Path, device: str, images: Any) -> str:
    """Nothing is tried: a margin for each distance, ten times as large where noise makes pixels negative."""
    spoiled = bool((images.images < 0).any())
    found = {"margin": MARGINS[settings["distance"]] * 10**spoiled, "learning_rate": 0.002}
    write_json(path, found | {"at_bound": [], "trials": [{"seconds": 60.0}] * trials})
    return f"tuned {open_}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None) -> Path:
    """Small networks on few digits in the place of glyphs, in a folder of its own; returns that of the kept files."""

    def few(*arguments: Any, **more: Any) -> LabelledImages:
        images = load(*arguments, **more)
        return replace(images, images=images.images[::5], labels=images.labels[::5])

    monkeypatch.setattr(robustness, "load", few)
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(robustness, "LEVELS", FEW)
    monkeypatch.setattr(robustness, "SEEDS", (3,))
    monkeypatch.setattr(robustness, "CORRUPTIONS", {kind: CORRUPTIONS[kind] for kind in ("noise", "blur")})
    monkeypatch.setattr(robustness, "_NETWORKS", {name: one | {"steps": 2} for name, one in NETWORKS.items()})
    monkeypatch.setattr(robustness, "DISTANCES", ("snr", "mahalanobis"))
    monkeypatch.setattr(robustness, "_TRIALS", 1)
    monkeypatch.setattr(robustness, "tune_one", tune_one)
    (tmp_path / "data" / "reference").mkdir(parents=True)
    return tmp_path / "runs" / "robustness"


def test_every_case_is_trained_and_measured_as_tuned(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, trained = robustness.fit, []

    def watched(settings: Settings, device: str, images: LabelledImages) -> Any:
        trained.append(images)
        return fit(settings, device=device, images=images)

    monkeypatch.setattr(robustness, "fit", watched)
    path = measure_robustness()
    train = robustness.load("digits", "train", size=8)
    expected = [train.images, corrupt(train.images, "noise", 0.1), corrupt(train.images, "blur", 0.5), train.images]
    labels = [train.labels] * 3 + [mislabel(train.labels, 0.5, 3)]
    assert all(torch.equal(found.images, one) for found, one in zip(trained, expected * 4, strict=True))
    assert all(torch.equal(found.labels, one) for found, one in zip(trained, labels * 4, strict=True))
    table, about = stored.read_table("robustness"), stored.read_about("robustness")
    columns = ["data", "tuned_on", "loss", "distance", "map", "seed", "when", "kind", "level", "precision_at_1"]
    assert list(pd.read_csv(path).columns) == columns
    for _, part in table.groupby(["tuned_on", "distance"]):
        assert list(part[["when", "kind", "level"]].itertuples(index=False, name=None)) == CASES
    assert len(table) == 2 * 2 * len(CASES)
    assert table.precision_at_1.between(0, 1).all()
    maps = {"snr": "", "mahalanobis": "running"}
    assert dict(table[["distance", "map"]].drop_duplicates().itertuples(index=False)) == maps
    assert about["not_measured"].startswith("photographs, which need --weights")
    margins = {(row["tuned_on"], row["distance"]): row["margin"] for row in about["trained"]}
    assert margins == {
        (on, name): m * 10 ** (on == "spoiled") for on in TUNED_ON for name, m in list(MARGINS.items())[:2]
    }
    assert about["core_minutes_of_tuning"] == 4.0
    assert {row["learning_rate"] for row in about["trained"]} == {0.002}
    assert about["settings"]["glyphs"]["steps"] == about["settings"]["glyphs"]["every"] == 2
    assert about["settings"]["glyphs"]["validation_share"] == 0
    assert set(about["data"]) == {"digits, train", "digits, test"}
    assert about["weights_sha256"] is None
    assert {"git_commit", "versions", "finished", "cpu", "core_minutes_of_networks"} <= about.keys()


def test_margins_are_tuned_on_images_spoiled_in_turn(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "tune_one", tuning.tune_one)
    monkeypatch.setattr(robustness, "DISTANCES", ("cosine",))
    fit, seen = tuning.fit, []

    def watched(settings: Settings, *, device: str, images: LabelledImages) -> Any:
        seen.append((settings, images))
        return fit(settings, device=device, images=images)

    monkeypatch.setattr(tuning, "fit", watched)
    measure_robustness(jobs=1)
    train = robustness.load("digits", "train", size=8)
    parts = [corrupt(train.images, "noise", 0.2), corrupt(train.images, "blur", 0.5)]
    spoiled = torch.stack([parts[i % 2][i] for i in range(len(train))])
    assert [settings.seed for settings, _ in seen] == [1000, 1001] * 2
    assert all(settings.validation_share > 0 for settings, _ in seen)
    given = [[torch.equal(images.images, one) for _, images in seen] for one in (train.images, spoiled)]
    assert sorted(given) == [[False, False, True, True], [True, True, False, False]]
    assert all(torch.equal(images.labels, train.labels) for _, images in seen)


def test_a_failed_measurement_keeps_others_and_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit: Any = robustness.fit

    def fails(settings: Settings, **more: Any) -> Any:
        if settings.distance == "snr":
            raise OSError("disk full")
        return fit(settings, **more)

    monkeypatch.setattr(robustness, "fit", fails)
    with pytest.raises(ChildProcessError, match=r"2 of 4 steps failed, the others are kept: glyphs-.*-snr-3-.*disk f"):
        measure_robustness()
    finished = {path: path.stat().st_mtime_ns for path in place.glob("*.json")}
    assert len(finished) == 4 + 2, "tunings and networks"
    assert not (place.parent.parent / "data/reference/robustness.csv").exists(), "no half table"
    monkeypatch.setattr(robustness, "fit", fit)
    measure_robustness()
    everything = {path: path.stat().st_mtime_ns for path in place.glob("*.json")}
    assert len(everything) == 4 + 4
    assert finished.items() <= everything.items()
    monkeypatch.setattr(robustness, "fit", lambda *_, **__: pytest.fail("trained again"))
    measure_robustness()


def test_a_spoiled_training_that_diverges_scores_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, clean, diverges = robustness.fit, robustness.load("digits", "train", size=8).images, [False]

    def fit(settings: Settings, *, device: str, images: LabelledImages) -> Any:
        if torch.equal(images.images, clean) == diverges[0]:
            raise FloatingPointError("the loss is nan")
        return run(settings, device=device, images=images)

    monkeypatch.setattr(robustness, "fit", fit)
    monkeypatch.setattr(robustness, "DISTANCES", ("snr",))
    table = pd.read_csv(measure_robustness())
    noise = table[(table.when == "training") & (table.kind == "noise")]
    assert list(noise.precision_at_1) == [0.0, 0.0]
    diverges[0] = True
    monkeypatch.setattr(robustness, "SEEDS", (3, 4))
    with pytest.raises(ChildProcessError, match=r"2 of 4 steps failed.*FloatingPointError: the loss is nan"):
        measure_robustness()


def test_other_settings_levels_or_weights_are_other_files(place: Path) -> None:
    sha, found = "ab" * 32, {"margin": 0.1, "learning_rate": 0.002}
    usual: tuple[Any, ...] = ("photographs", "clean", "snr", 0, sha, found)

    def path(*changed: Any) -> Path:
        return robustness._path(robustness._cell(*changed))

    cell = robustness._cell(*usual)
    others = [
        path(*(other if place == n else one for place, one in enumerate(usual)))
        for n, other in enumerate(["glyphs", "spoiled", "euclidean", 1, "cd" * 32, found | {"margin": 7.0}])
    ]
    assert len({path(*usual), robustness._path({**cell, "levels": {**FEW, "blur": (0.6,)}}), *others}) == 8
    assert path("glyphs", *usual[1:4], None, found) == path("glyphs", *usual[1:]), "of no weights"


class Means(torch.nn.Module):
    """The means of rows and columns as features: as many as SqueezeNet has."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = torch.cat([images.mean(dim=2).flatten(1), images.mean(dim=3).flatten(1)], dim=1)
        return means.repeat(1, 11)[:, :512]


def test_photographs_are_spoiled_not_their_features(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(120, 3, 8, 8, generator=torch.Generator().manual_seed(1)).split(60)
    labels, names = torch.arange(20).repeat_interleave(3), tuple("abcdefghijklmnopqrst")
    made: list[tuple[Any, ...]] = []

    def embedder(*arguments: Any) -> Means:
        made.append(arguments)
        return Means()

    monkeypatch.setattr(robustness, "photographs", lambda split: (images[split == "test"], labels, names))
    monkeypatch.setattr(robustness, "embedder", embedder)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"1")
    measure_robustness(weights=weights)
    assert set(made) == {("squeezenet1_1", None, str(weights))}
    table, about = stored.read_table("robustness"), stored.read_about("robustness")
    assert dict(table.data.value_counts()) == {"glyphs": 4 * len(CASES), "photographs": 4 * len(CASES)}
    assert about["not_measured"] == ""
    assert about["command"] == "snr measure robustness --weights FILE"
    assert set(about["data"]) == {"digits, train", "digits, test", "photographs, train", "photographs, test"}
    kept = torch.load(robustness._feature_path(about["weights_sha256"], "test", "noise", 0.2), weights_only=True)
    parts = [corrupt(part, "noise", 0.2, seed=number) for number, part in enumerate(images[1].split(50))]
    torch.testing.assert_close(kept["images"][:, :, 0, 0], Means()(torch.cat(parts)))
    made.clear()
    measure_robustness(weights=weights)
    assert made == [], "features are kept"
    weights.write_bytes(b"2")
    measure_robustness(weights=weights)
    assert len(made) == 2 * (1 + 3), "other weights, other features"


def test_missing_weights_are_said_first(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "tune_one", lambda *_, **__: pytest.fail("tuned"))
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        measure_robustness(weights=tmp_path / "weights.pth")


def test_the_stored_table_holds_every_seed_and_level() -> None:
    table = stored.read_table("robustness")
    wanted = {("never", "clean", 0.0)}
    for kind, levels in LEVELS.items():
        wanted |= {("test", kind, level) for level in levels if kind in CORRUPTIONS}
        wanted |= {("training", kind, level) for level in (levels[::2] if kind in CORRUPTIONS else levels)}
    assert set(table.tuned_on) == set(TUNED_ON)
    for _, part in table.groupby(["data", "tuned_on"]):
        asked = {(distance, seed, *case) for distance in DISTANCES for seed in SEEDS for case in wanted}
        found = part[["distance", "seed", "when", "kind", "level"]].itertuples(index=False, name=None)
        assert set(found) == asked
        assert len(part) == len(asked)
