"""Spoiled images and labels: what is done to them, who searches what, what is kept of the scores, what is stored."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.ndimage import gaussian_filter
from snrlib.study.reference import STUDIES, Study, run_processes

from snrlib.cli.main import main
from snrlib.data import LabelledImages, load
from snrlib.distances import get_distance
from snrlib.evaluate import retrieval
from snrlib.study import robustness
from snrlib.study.robustness import (
    CORRUPTIONS,
    DISTANCES,
    LEVELS,
    SEEDS,
    compare_drops,
    corrupt,
    measure_robustness,
    mislabel,
    spoiled_recall,
)


def _images(n: int = 6, channels: int = 3, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(1))


# --- spoiling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_level_0_is_a_copy_and_the_given_images_never_change(kind: str) -> None:
    images = _images()
    kept = images.clone()
    same = corrupt(images, kind, 0)
    assert torch.equal(same, images)
    assert same.data_ptr() != images.data_ptr()
    corrupt(images, kind, 0.3)
    assert torch.equal(images, kept)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_higher_level_takes_an_image_farther_away_and_a_seed_gives_the_same_bits(kind: str) -> None:
    images = _images()
    away = [(corrupt(images, kind, level) - images).square().mean().item() for level in LEVELS[kind]]
    assert away == sorted(away)
    assert away[0] > 0
    first = corrupt(images, kind, 0.3, seed=4)
    assert first.shape == images.shape
    assert torch.equal(first, corrupt(images, kind, 0.3, seed=4))
    assert torch.equal(first, corrupt(images, kind, 0.3, seed=5)) == (kind == "blur"), "nothing is drawn for a blur"


@pytest.mark.parametrize("level", [0.05, 0.4])
def test_noise_is_normal_with_the_standard_deviation_of_its_level(level: float) -> None:
    images = _images(20)
    noise = (corrupt(images, "noise", level) - images).flatten().double()
    n = len(noise)
    assert abs(noise.mean().item()) < 4 * level / n**0.5
    assert noise.std().item() == pytest.approx(level, rel=4 / (2 * n) ** 0.5)
    assert (noise.abs() < level).double().mean().item() == pytest.approx(0.6827, abs=4 * (0.2166 / n) ** 0.5)
    pixels = noise.view(len(images), -1)
    assert abs(np.corrcoef(pixels[0], pixels[1])[0, 1]) < 4 / pixels.shape[1] ** 0.5, "each image has its own"


@pytest.mark.parametrize(("height", "width", "level"), [(32, 32, 1.0), (32, 32, 0.25), (20, 48, 0.75), (5, 64, 2.0)])
def test_blur_is_that_of_scipy_with_a_deviation_in_units_of_the_width(height: int, width: int, level: float) -> None:
    images = _images(3, 2, height, width).double()
    sigma = level * width / 32
    found = corrupt(images, "blur", level)
    for image, blurred in zip(images.flatten(0, 1), found.flatten(0, 1), strict=True):
        expected = gaussian_filter(image.numpy(), sigma, mode="nearest", radius=math.ceil(3 * sigma))
        np.testing.assert_allclose(blurred.numpy(), expected, rtol=1e-12)
    torch.testing.assert_close(corrupt(images.float(), "blur", level).double(), found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "level"), [(40, 40, 0.25), (32, 64, 0.1), (30, 30, 1.0)])
def test_occlusion_hides_its_share_of_the_area_by_one_rectangle_at_places_that_differ(
    height: int, width: int, level: float
) -> None:
    images = _images(30, 3, height, width)
    hidden = corrupt(images, "occlusion", level) != images
    assert torch.equal(corrupt(images, "occlusion", level)[hidden], torch.full((int(hidden.sum()),), 0.5))
    assert (hidden.all(dim=1) == hidden.any(dim=1)).all(), "all channels alike"
    places = set()
    for mask in hidden.any(dim=1):
        rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
        top, left, bottom, right = (int(x) for x in (rows[0], columns[0], rows[-1], columns[-1]))
        assert mask[top : bottom + 1, left : right + 1].all(), "a whole rectangle"
        sides = (bottom + 1 - top, right + 1 - left)
        assert sides == (round(height * level**0.5), round(width * level**0.5))
        places.add((top, left))
    assert len(places) > 15 or level == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((_images(), "fog", 0.1), "kind must be one of noise, blur, occlusion, got 'fog'"),
        ((_images(), "noise", -0.1), "level must be a finite number at least 0, got -0.1"),
        ((_images(), "blur", math.nan), "level must be a finite number at least 0, got nan"),
        ((_images(), "occlusion", 1.1), "level must be a finite number at least 0 and at most 1, got 1.1"),
        ((_images()[0], "noise", 0.1), r"images must be \(n, C, H, W\), floating point, got .*\(3, 32, 32\)"),
        ((torch.zeros(1, 1, 2, 2, dtype=torch.uint8), "blur", 1), "floating point, got torch.uint8"),
    ],
)
def test_unknown_kinds_other_images_and_levels_out_of_range_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corrupt(*arguments)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.33, 0.5, 1.0])
def test_just_a_share_of_the_labels_becomes_another_class_of_the_same_set(share: float) -> None:
    labels = torch.tensor([3, 7, 9]).repeat_interleave(40)
    wrong = mislabel(labels, share, seed=2)
    assert int((wrong != labels).sum()) == round(share * 120)
    assert set(wrong.tolist()) <= {3, 7, 9}
    assert torch.equal(wrong, mislabel(labels, share, seed=2))
    assert torch.equal(wrong, mislabel(labels, share, seed=3)) == (share == 0)
    assert torch.equal(labels, torch.tensor([3, 7, 9]).repeat_interleave(40)), "the given ones do not change"


def test_wrong_labels_are_drawn_evenly_among_the_others() -> None:
    labels = torch.arange(4).repeat_interleave(3000)
    counts = torch.bincount(mislabel(labels, 1.0)[labels == 0], minlength=4)
    assert counts[0] == 0
    assert (counts[1:] - 1000).abs().max() < 4 * (3000 * 2 / 9) ** 0.5


@pytest.mark.parametrize(
    ("labels", "share", "message"),
    [
        (torch.ones(4, dtype=torch.int64), 0.5, "second class"),
        (torch.arange(4), 1.5, r"share must be a finite number at least 0 and at most 1, got 1\.5"),
        (torch.ones(4), 0.5, "labels must be a row of integers"),
    ],
)
def test_wrong_labels_need_a_second_class_and_a_share(labels: torch.Tensor, share: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mislabel(labels, share)


# --- searching --------------------------------------------------------------------------------------------------------


def _vectors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat_interleave(4)
    gallery = torch.randn(40, 6, generator=generator, dtype=torch.float64) + labels[:, None] / 4
    return gallery + 0.5 * torch.randn(40, 6, generator=generator, dtype=torch.float64), gallery, labels


@pytest.mark.parametrize(("name", "anchor"), [("euclidean", "query"), ("snr", "query"), ("snr", "ref")])
def test_a_spoiled_query_searches_all_clean_images_but_its_own(name: Any, anchor: Any) -> None:
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


def test_queries_gallery_and_labels_that_are_not_as_many_are_refused() -> None:
    query, gallery, labels = _vectors()
    with pytest.raises(ValueError, match="need a query and a label an image, got 40, 39 and 40"):
        spoiled_recall(query, gallery, labels[1:], get_distance("snr"))
    with pytest.raises(ValueError, match="got 40, 40 and 39"):
        spoiled_recall(query, gallery[1:], labels, get_distance("snr"))


# --- what is kept -----------------------------------------------------------------------------------------------------


def _scores(n_seeds: int = 5) -> pd.DataFrame:
    random, rows = np.random.default_rng(3), []
    for data in ("glyphs", "photographs"):
        for distance in DISTANCES:
            for seed in range(n_seeds):
                same = {"data": data, "loss": "triplet", "distance": distance, "seed": seed}
                cases = [("never", "clean", 0.0)]
                cases += [("test", kind, level) for kind in ("noise", "blur") for level in (0.1, 0.2)]
                cases += [("training", "wrong labels", level) for level in (0.1, 0.2, 0.4)]
                for when, kind, level in cases:
                    score = (0.6 + 0.1 * (distance == "snr")) * (1 - level) + random.normal(scale=0.02)
                    rows.append({**same, "when": when, "kind": kind, "level": level, "precision_at_1": score})
    return pd.DataFrame(rows)


def _kept(table: pd.DataFrame, key: tuple[str, ...], seed: int, relative: bool) -> float:
    """By loops: the mean over the levels of what one run keeps."""
    data, when, kind, distance = key
    clean, spoiled = None, []
    for row in table.to_dict("records"):
        if (row["data"], row["distance"], row["seed"]) == (data, distance, seed):
            if row["when"] == "never":
                clean = row["precision_at_1"]
            elif (row["when"], row["kind"]) == (when, kind):
                spoiled.append(row["precision_at_1"])
    assert clean is not None
    return sum(score / clean if relative else score - clean for score in spoiled) / len(spoiled)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_shares_kept_are_those_of_loops_their_intervals_and_tests_those_of_scipy(relative: bool, level: float) -> None:
    table = _scores()
    found = compare_drops(table.sample(frac=1, random_state=0), level, relative)
    assert found.index.names == ["data", "when", "kind", "distance"]
    assert len(found) == 2 * 3 * 3
    p_values = []
    for key, row in found.iterrows():
        assert isinstance(key, tuple)
        own = [_kept(table, key, seed, relative) for seed in range(5)]
        assert row["mean"] == pytest.approx(np.mean(own))
        t = stats.t.ppf((1 + level) / 2, 4)
        assert row.half_width == pytest.approx(t * stats.sem(own))
        assert row.seeds == 5
        if key[-1] == "euclidean":
            assert row[["difference", "difference_half_width", "p", "p_holm"]].isna().all()
            assert row.verdict == ""
            continue
        euclid = [_kept(table, (*key[:-1], "euclidean"), seed, relative) for seed in range(5)]
        less = np.subtract(own, euclid)
        assert row.difference == pytest.approx(less.mean())
        assert row.difference_half_width == pytest.approx(t * stats.sem(less))
        assert row.p == pytest.approx(stats.ttest_rel(own, euclid).pvalue)
        shown = abs(row.difference) > row.difference_half_width
        assert row.verdict == (("higher" if row.difference > 0 else "lower") if shown else "no difference shown")
        p_values.append(row.p)
    assert found.p_holm.min() == pytest.approx(min(1, len(p_values) * min(p_values)))


def test_who_starts_higher_and_loses_the_same_share_is_not_called_less_robust() -> None:
    table = _scores()
    by_level = table.level.map({0.0: 1.0, 0.1: 0.8, 0.2: 0.5, 0.4: 0.3})
    start = 0.4 + 0.01 * table.seed + 0.3 * (table.distance == "snr")
    table["precision_at_1"] = start * by_level
    share = compare_drops(table).xs("snr", level="distance")
    np.testing.assert_allclose(share.difference, 0, atol=1e-12)
    plain = compare_drops(table, relative=False).xs("snr", level="distance")
    assert (plain.difference < -0.05).all()
    assert set(plain.verdict) == {"lower"}


def test_seeds_without_a_partner_count_for_the_mean_alone() -> None:
    table = _scores()
    found = compare_drops(table[(table.distance != "snr") | (table.seed < 3)])
    assert set(found.xs("snr", level="distance").seeds) == {3}
    euclid = compare_drops(table[(table.distance != "euclidean") | (table.seed < 3)])
    assert set(euclid.xs("snr", level="distance").seeds) == {3}
    everything = compare_drops(table)
    pd.testing.assert_series_equal(
        euclid.xs("snr", level="distance")["mean"], everything.xs("snr", level="distance")["mean"]
    )


def test_a_comparison_needs_one_loss_euclid_and_the_clean_score() -> None:
    table = _scores(2)
    with pytest.raises(ValueError, match="one loss is compared at a time, got lifted, triplet"):
        compare_drops(pd.concat([table, table.assign(loss="lifted")]))
    with pytest.raises(ValueError, match="baseline euclidean is not among mahalanobis, snr"):
        compare_drops(table[table.distance != "euclidean"])
    with pytest.raises(ValueError, match="84 of 84 rows have no clean R@1"):
        compare_drops(table[table.when != "never"])
    with pytest.raises(ValueError, match="42 of 84 rows have no clean R@1 above 0"):
        compare_drops(table.assign(precision_at_1=table.precision_at_1.where(table.seed == 0, 0.0)))


# --- measuring --------------------------------------------------------------------------------------------------------

_SMALL = {"steps": 2, "image_size": 8, "embedding_size": 8, "batch_size": 24, "m": 8}
_FEW = {"noise": (0.1, 0.2), "blur": (0.5,), "wrong labels": (0.5,)}


def _here(work: Callable[..., Any], tasks: list[tuple[Any, ...]], jobs: int) -> list[Any]:
    """`snrlib.study.reference.run_processes` in this process."""
    return [work(*task) for task in tasks]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small networks on digits in the place of glyphs, in a folder of its own; returns that of the kept files."""
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(robustness, "run_processes", _here)
    monkeypatch.setattr(robustness, "LEVELS", _FEW)
    monkeypatch.setattr(robustness, "SEEDS", (3,))
    monkeypatch.setattr(robustness, "CORRUPTIONS", {kind: CORRUPTIONS[kind] for kind in ("noise", "blur")})
    monkeypatch.setattr(robustness, "_STUDIES", {"glyphs": "digits", "photographs": "cub_features_losses"})
    monkeypatch.setitem(STUDIES, "digits", Study(data="digits", backbones={"conv4": {}}, settings=_SMALL))
    folder = tmp_path / "data" / "reference"
    folder.mkdir(parents=True)
    both = {"digits": ("conv4", 8), "cub_features": ("linear", 128)}
    rows = [
        {"data": data, "backbone": backbone, "loss": "triplet", "distance": distance, "embedding_size": size}
        | {"margin": 0.1 * number, "learning_rate": 0.002}
        for data, (backbone, size) in both.items()
        for number, distance in enumerate(DISTANCES, start=1)
    ]
    (folder / "tuned_full.json").write_text(json.dumps({"tuned": rows}))
    return tmp_path / "runs" / "robustness"


def _files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}


def test_every_distance_seed_and_level_is_measured_with_what_was_tuned(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = measure_robustness()
    table = pd.read_csv(path)
    assert list(table.columns) == ["data", "loss", "distance", "seed", "when", "kind", "level", "precision_at_1"]
    wanted = {("never", "clean", 0.0), ("test", "noise", 0.1), ("test", "noise", 0.2), ("test", "blur", 0.5)}
    wanted |= {("training", "noise", 0.1), ("training", "blur", 0.5), ("training", "wrong labels", 0.5)}
    for _, part in table.groupby(["distance", "seed"]):
        assert set(part[["when", "kind", "level"]].itertuples(index=False, name=None)) == wanted
        assert len(part) == len(wanted)
    assert table.precision_at_1.between(0, 1).all()
    assert len(table) == 3 * len(wanted)
    assert list(compare_drops(table).verdict[:1]) == [""]
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["rows"] == len(table)
    assert about["not_measured"].startswith("photographs, which need --weights")
    assert [(row["distance"], round(row["margin"], 3), row["learning_rate"]) for row in about["trained"]] == [
        ("euclidean", 0.1, 0.002),
        ("snr", 0.2, 0.002),
        ("mahalanobis", 0.3, 0.002),
    ]
    assert about["settings"]["glyphs"]["steps"] == about["settings"]["glyphs"]["every"] == 2
    assert about["settings"]["glyphs"]["validation_share"] == 0
    assert set(about["data"]) == {"digits, train", "digits, test"}
    assert about["weights_sha256"] is None
    assert {"git_commit", "versions", "finished", "cpu", "core_minutes_of_networks"} <= about.keys()


def test_spoiled_images_and_labels_train_and_clean_ones_judge(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[LabelledImages] = []

    def fit(settings: dict[str, Any], device: str, images: LabelledImages) -> Any:
        trained.append(images)
        return run(settings, device=device, images=images)

    run = robustness.fit
    monkeypatch.setattr(robustness, "fit", fit)
    monkeypatch.setattr(robustness, "DISTANCES", ("snr",))
    measure_robustness()
    clean, noise, blur, labels = trained
    train = load("digits", "train", size=8)
    assert torch.equal(clean.images, train.images)
    assert torch.equal(clean.labels, train.labels)
    assert torch.equal(noise.images, corrupt(train.images, "noise", 0.1))
    assert torch.equal(blur.images, corrupt(train.images, "blur", 0.5))
    assert torch.equal(noise.labels, train.labels)
    assert torch.equal(labels.images, train.images)
    assert torch.equal(labels.labels, mislabel(train.labels, 0.5, 3))


def test_what_is_finished_is_kept_if_another_fails_and_a_second_run_repeats_only_that(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run, calls = robustness.fit, [0]

    def fit(settings: dict[str, Any], **more: Any) -> Any:
        calls[0] += 1
        if settings["distance"] == "snr":
            raise OSError("disk full")
        return run(settings, **more)

    monkeypatch.setattr(robustness, "fit", fit)
    with pytest.raises(ChildProcessError, match=r"1 of 3 failed, the others are kept: .* snr 3 failed: .*disk full"):
        measure_robustness()
    finished = _files(place)
    assert len(finished) == 2
    assert not (place.parent.parent / "data/reference/robustness.csv").exists(), "no half table"
    assert main(["reference", "robustness"]) == 1
    assert "snr: 1 of 3 failed" in capsys.readouterr().err
    monkeypatch.setattr(robustness, "fit", run)
    assert main(["reference", "robustness", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "robustness: 3 distances and seeds, 2 finished before" in out
    assert out.endswith("robustness.csv\n")
    everything = _files(place)
    assert len(everything) == 3
    assert {name: everything[name] for name in finished} == finished
    monkeypatch.setattr(robustness, "fit", lambda *_, **__: pytest.fail("trained again"))
    assert main(["reference", "robustness"]) == 0


def test_an_interrupted_measurement_keeps_what_is_finished(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = robustness.fit

    def fit(settings: dict[str, Any], **more: Any) -> Any:
        if settings["distance"] == "snr":
            raise KeyboardInterrupt
        return run(settings, **more)

    monkeypatch.setattr(robustness, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        measure_robustness()
    assert [name.split("-")[:4] for name in _files(place)] == [["glyphs", "triplet", "euclidean", "3"]]
    assert len(list(place.iterdir())) == 1, "nothing half-written"


def test_a_training_that_diverges_scores_0_but_a_clean_one_fails(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, spoiled = robustness.fit, [True]

    def fit(settings: dict[str, Any], *, device: str, images: LabelledImages) -> Any:
        if torch.equal(images.images, load("digits", "train", size=8).images) != spoiled[0]:
            raise FloatingPointError("the loss is nan")
        return run(settings, device=device, images=images)

    monkeypatch.setattr(robustness, "fit", fit)
    table = pd.read_csv(measure_robustness())
    noise = table[(table.when == "training") & (table.kind == "noise")]
    assert list(noise.precision_at_1) == [0.0] * 3
    spoiled[0] = False
    monkeypatch.setattr(robustness, "SEEDS", (3, 4))
    with pytest.raises(ChildProcessError, match=r"3 of 6 failed.*FloatingPointError: the loss is nan"):
        measure_robustness()


def test_other_settings_levels_or_weights_are_other_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = robustness._cell("photographs", "snr", 0, "ab" * 32)
    changed = [
        robustness._cell("photographs", "snr", 1, "ab" * 32),
        robustness._cell("photographs", "euclidean", 0, "ab" * 32),
        robustness._cell("photographs", "snr", 0, "cd" * 32),
        robustness._cell("glyphs", "snr", 0, "ab" * 32),
        {**cell, "levels": {**_FEW, "blur": (0.6,)}},
        {**cell, "settings": {**cell["settings"], "margin": 7.0}},
    ]
    paths = {robustness._cell_path(one) for one in (cell, *changed)}
    assert len(paths) == 7
    assert robustness._cell_path(robustness._cell("photographs", "snr", 0, "ab" * 32)) in paths
    glyphs = {robustness._cell_path(robustness._cell("glyphs", "snr", 0, sha)) for sha in (None, "ab" * 32)}
    assert len(glyphs) == 1, "which weights photographs take is nothing to glyphs"
    assert robustness._feature_path("ab" * 32, "test", "blur", 0.5) != robustness._feature_path(
        "cd" * 32, "test", "blur", 0.5
    )


def test_the_photographs_are_spoiled_not_their_features(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def photographs(split: str) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
        first = 60 * (split == "test")
        return (
            _images(120, 3, 8, 8)[first : first + 60],
            torch.arange(20).repeat_interleave(3),
            tuple("abcdefghijklmnopqrst"),
        )

    class Means(torch.nn.Module):
        """The means of rows and columns as features."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.cat([images.mean(dim=2).flatten(1), images.mean(dim=3).flatten(1)], dim=1)

    def embedder(*arguments: Any) -> Means:
        made.append(arguments)
        return Means()

    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(robustness, "photographs", photographs)
    monkeypatch.setattr(robustness, "embedder", embedder)
    monkeypatch.setattr(robustness, "DISTANCES", ("euclidean", "mahalanobis"))
    study = STUDIES["cub_features_losses"]
    small = Study(
        data=study.data,
        backbones=study.backbones,
        settings={"steps": 2, "embedding_size": 128, "batch_size": 24, "m": 3},
    )
    monkeypatch.setitem(STUDIES, "cub_features_losses", small)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"1")
    path = measure_robustness(weights=weights)
    assert set(made) == {("squeezenet1_1", None, weights)}
    table = pd.read_csv(path)
    assert set(table.data) == {"glyphs", "photographs"}
    assert (table.data == "photographs").sum() == 2 * 7
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["not_measured"] == ""
    assert about["command"] == "snr reference robustness --weights FILE"
    assert set(about["data"]) == {"digits, train", "digits, test", "photographs, train", "photographs, test"}
    sha = about["weights_sha256"]
    kept = torch.load(robustness._feature_path(sha, "test", "noise", 0.2), weights_only=True)
    images = photographs("test")[0]
    spoiled = torch.cat([corrupt(images[:50], "noise", 0.2, seed=0), corrupt(images[50:], "noise", 0.2, seed=1)])
    torch.testing.assert_close(kept["images"][:, :, 0, 0], Means()(spoiled))
    made.clear()
    measure_robustness(weights=weights)
    assert made == [], "features are kept"
    weights.write_bytes(b"2")
    measure_robustness(weights=weights)
    assert len(made) == 2 + 5, "other weights, other features"


def test_missing_margins_and_weights_are_said_before_anything_is_trained(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robustness, "fit", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        measure_robustness(weights=tmp_path / "weights.pth")
    (tmp_path / "data" / "reference" / "tuned_full.json").unlink()
    with pytest.raises(FileNotFoundError, match="euclidean has no tuned margin; `snr reference digits` finds it"):
        measure_robustness()


@pytest.mark.slow
def test_processes_of_its_own_give_the_same_scores(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(robustness, "CORRUPTIONS", CORRUPTIONS)
    monkeypatch.setattr(
        robustness, "LEVELS", {"noise": (0.3,), "blur": (), "occlusion": (0.1, 0.2), "wrong labels": ()}
    )
    first = pd.read_csv(measure_robustness())
    capsys.readouterr()
    monkeypatch.setenv("SNR_RUNS", str(place / "other"))
    monkeypatch.setattr(robustness, "run_processes", run_processes)
    again = pd.read_csv(measure_robustness(jobs=2))
    assert "  3/3 glyphs " in capsys.readouterr().out
    np.testing.assert_allclose(first.precision_at_1, again.precision_at_1, atol=0.05)
    pd.testing.assert_frame_equal(first.drop(columns="precision_at_1"), again.drop(columns="precision_at_1"))


_STORED = Path(__file__).resolve().parents[2] / "data" / "reference" / "robustness.csv"


def test_the_stored_table_holds_every_distance_seed_and_level() -> None:
    table, about = pd.read_csv(_STORED), json.loads(_STORED.with_suffix(".json").read_text())
    assert len(table) == about["rows"]
    wanted = {("never", "clean", 0.0)}
    for kind, levels in LEVELS.items():
        wanted |= {("test", kind, level) for level in levels if kind in CORRUPTIONS}
        wanted |= {("training", kind, level) for level in (levels[::2] if kind in CORRUPTIONS else levels)}
    for _, part in table.groupby("data"):
        asked = {(distance, seed, *case) for distance in DISTANCES for seed in SEEDS for case in wanted}
        found = part[["distance", "seed", "when", "kind", "level"]].itertuples(index=False, name=None)
        assert set(found) == asked
        assert len(part) == len(asked)
