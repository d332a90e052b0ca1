"""The study of hashing: what is tuned, trained and kept; what is compared; what is stored."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from snrlib.data import load
from snrlib.hashing import METHODS, Gallery, HashingSets, Protocol, hashing_sets, split
from snrlib.hashing.protocols import rows_of
from snrlib.stats import mean_interval
from snrlib.study import hashing, stored
from snrlib.study.hashing import PLANS, SEEDS, SHARES, UNTRAINED, against, answers, measure_hashing, validation_sets

FEW = ("snr_triplet", "dtsh")
SMALL = {"protocol": "glyphs", "bits": [8, 12], "steps": 2, "batch_size": 8, "m": 2, "at": [1, 10]}


def small_sets(plan: dict[str, Any], data: str) -> HashingSets:
    digits = load("digits", "train")
    images = rows_of(digits, torch.arange(0, len(digits), 6), "train")
    drawn = split(images.labels, Protocol("digits", 4, 8, "all", 16))
    gallery = Gallery(rows_of(images, drawn.query, "query"), rows_of(images, drawn.database, "database"))
    return HashingSets(rows_of(images, drawn.train, "train"), {"seen": gallery})


@pytest.fixture
def place(real_root: Path, in_process: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where steps are kept: two methods and seeds on digits; CIFAR-10 is not there."""
    tuning = {"tuned_at": 8, "tuning_steps": 1, "validation": 2}
    monkeypatch.setattr(hashing, "PLANS", {"glyphs": SMALL | tuning, "cifar10": PLANS["cifar10"]})
    monkeypatch.setattr(hashing, "METHODS", FEW)
    monkeypatch.setattr(hashing, "SEEDS", (0, 1))
    monkeypatch.setattr(hashing, "_sets", small_sets)
    monkeypatch.setenv("SNR_DATA", str(real_root / "nothing"))
    return real_root / "data" / "runs" / "hashing"


def test_every_method_is_tuned_measured_and_stored(place: Path) -> None:
    measure_hashing()
    rows, about = stored.read_table("hashing"), stored.read_about("hashing")
    key = ["data", "gallery", "method", "bits", "seed"]
    wanted = {("glyphs", "seen", m, b, s) for m in (*FEW, UNTRAINED) for b in (8, 12) for s in (0, 1)}
    assert set(rows[key].itertuples(index=False, name=None)) == wanted
    assert len(rows) == len(wanted)
    scores = rows.drop(columns=key)
    assert ((scores.to_numpy() >= 0) & (scores.to_numpy() <= 3)).all()
    trials = pd.DataFrame(about["trials"])
    assert set(trials[["method", "share"]].itertuples(index=False, name=None)) == {(m, s) for m in FEW for s in SHARES}
    for chosen in about["chosen"]:
        assert chosen["mAP"] == trials[trials.method == chosen["method"]].mAP.max()
    assert about["not_measured"] == "cifar10, which is not there"
    assert set(about["data"]) == {"digits, train", "digits, query", "digits, database"}
    curves = stored.read_table("hashing", "curves")
    last = curves[curves.radius == curves.bits]
    assert len(last) == 3 * 2
    assert (last.recall == 1).all()
    within = curves[curves.radius == 2].set_index(["method", "bits"]).precision
    means = rows.groupby(["method", "bits"]).precision_within_2.mean()
    assert np.allclose(within.sort_index(), means.sort_index(), atol=1e-5)


def test_a_failed_method_keeps_others_and_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train: Any = hashing.train

    def fails(*arguments: Any, **options: Any) -> Any:
        if options["seed"] == 1:
            raise OSError("disk full")
        return train(*arguments, **options)

    monkeypatch.setattr(hashing, "train", fails)
    with pytest.raises(ChildProcessError, match=r"2 of 6 steps failed, the others are kept: .*disk full"):
        measure_hashing()
    finished = {path: path.stat().st_mtime_ns for path in place.glob("*.json")}
    assert len(finished) == len(FEW) + 4
    monkeypatch.setattr(hashing, "train", train)
    measure_hashing()
    everything = {path: path.stat().st_mtime_ns for path in place.glob("*.json")}
    assert finished.items() <= everything.items()
    assert len(everything) == len(FEW) + 6
    monkeypatch.setattr(hashing, "train", lambda *_, **__: pytest.fail("trained again"))
    measure_hashing()


def test_validation_queries_are_training_images_alone() -> None:
    train = hashing_sets("glyphs").train
    sets = validation_sets(train, 4)
    query, database = sets.galleries["validation"].query, sets.galleries["validation"].database
    assert (len(query), len(database), len(sets.train)) == (400, 1200, 1200)
    seen = [{image.numpy().tobytes() for image in part.images} for part in (query, sets.train, train)]
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == seen[2]


def test_differences_are_paired_by_seed() -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame(
        [
            {"data": data, "gallery": "seen", "method": method, "bits": bits, "seed": seed, "mAP": random.normal()}
            for data in ("glyphs", "cifar10")
            for method in ("snr_pair", "dsh")
            for bits in (16, 48)
            for seed in (0, 1, 2)
        ]
    )
    table = against(rows.sample(frac=1, random_state=1), "snr_pair", "dsh")
    assert len(table) == 4
    for key, found in table.to_dict("index").items():
        part = rows[[row == key for row in rows[["data", "gallery", "bits"]].itertuples(index=False, name=None)]]
        ours, theirs = (part[part.method == method].set_index("seed").mAP for method in ("snr_pair", "dsh"))
        assert (found["mean"], found["half_width"]) == pytest.approx(mean_interval(ours - theirs))
    pooled = against(rows, "snr_pair", "dsh", by=("data",))
    for data, found in pooled.to_dict("index").items():
        own = rows[rows.data == data]
        less = np.subtract(
            *(
                np.array([own[(own.method == method) & (own.seed == seed)].mAP.mean() for seed in (0, 1, 2)])
                for method in ("snr_pair", "dsh")
            )
        )
        assert (found["mean"], found["half_width"]) == pytest.approx(mean_interval(less))
    with pytest.raises(ValueError, match="not measured: dtsh; there are snr_pair, dsh"):
        against(rows, "snr_pair", "dtsh")


def test_the_stored_table_holds_every_method_and_seed() -> None:
    rows = stored.read_table("hashing")
    for data, part in rows.groupby("data"):
        galleries = ["seen", "unseen"] if data == "glyphs" else ["seen"]
        wanted = {
            (gallery, method, bits, seed)
            for gallery in galleries
            for method in (*METHODS, UNTRAINED)
            for bits in PLANS[str(data)]["bits"]
            for seed in SEEDS
        }
        found = part[["gallery", "method", "bits", "seed"]].itertuples(index=False, name=None)
        assert set(found) == wanted
        assert len(part) == len(wanted)


def test_answers_follow_the_numbers() -> None:
    random, lead = np.random.default_rng(0), {"snr": 0.2, "euclidean": 0.1, "cosine": 0.3, "dsh": 0.2, "dtsh": 0.2}
    rows = pd.DataFrame(
        [
            {"data": "glyphs", "gallery": gallery, "method": method, "bits": bits, "seed": seed}
            | {"mAP": lead.get(method.split("_")[0], 0.0) + 1e-4 * random.normal()}
            for gallery in ("seen", "unseen")
            for method in (*METHODS, UNTRAINED)
            for bits in (16, 32, 64)
            for seed in (0, 1, 2)
        ]
    ).assign(mAP_relaxed=lambda rows: rows.mAP + 0.05)
    euclid, cosine, published, highest, cost = answers(rows).values()
    assert euclid.count("glyphs +0.100 ± 0.000 (higher); by itself higher in 6 of 6 rankings, lower in 0") == 2
    assert cosine.count("glyphs -0.100 ± 0.000 (lower); by itself higher in 0 of 6 rankings, lower in 6") == 2
    assert published.startswith("snr_pair minus dsh: glyphs ")
    assert [part.split(": ")[1].split("_")[0] for part in highest.split("; ")] == ["cosine", "cosine"]
    assert cost == "mAP, on average: " + ", ".join(f"{name} 0.050" for name in lead)
