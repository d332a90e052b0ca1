"""Cells measured without a notebook: tuned, trained, judged in four ways beside the untrained network, and stored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_cases import BLOCK, profile

from snrlib.backbones import embed
from snrlib.cli.main import main
from snrlib.evaluate import evaluate
from snrlib.experiment import default_settings, experiment, images_of, untrained
from snrlib.mahalanobis import whitened_search
from snrlib.study import evidence, stored
from snrlib.study.evidence import before_training, measure_cell, measure_profile
from snrlib.study.profiles import cells
from snrlib.study.tables import run_rows
from snrlib.study.untrained import untrained_scores
from snrlib.utils.reading import read_json

SMALL: dict[str, Any] = {"steps": 2, "image_size": 16, "embedding_size": 8, "learning_rate": 0.01, "margin": 0.2}


@pytest.fixture
def other(real_root: Path, in_process: None) -> Path:
    """A profile of Euclid and of an arm without a gradient through its unit; its two seeds divide the classes anew."""
    block = {**BLOCK, "distance": ["euclidean"], "seed": [0, 3], "settings": {**SMALL, "split": "seed"}}
    arm = {**block, "distance": ["snr"], "settings": {**block["settings"], "detach_unit": True}}
    profile(real_root, block, arm, name="other")
    return real_root


def test_every_seed_trains_on_classes_of_its_own(other: Path) -> None:
    assert [task.values.get("split", 0) for task in cells("other")] == [0, 3, 0, 3], "seed 0 has the usual division"
    both = (default_settings("digits", "conv4", split=split) for split in (0, 3))
    done = [untrained(settings, cluster=False) for settings in both]
    assert {*done[0].train.classes} != {*done[1].train.classes}
    for one in done:
        assert not {*one.train.classes} & {*one.test.classes}
        assert len(one.train.classes) == len(one.test.classes)


def test_a_profile_becomes_a_study_with_controls(other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "other", "--jobs", "1"]) == 0
    runs = stored.read("other").runs
    trained, before = runs[runs.loss == "triplet"], runs[runs.loss == "untrained"]
    assert {*zip(trained.distance, trained.variant, strict=True)} == {("euclidean", ""), ("snr", "unit detached")}
    assert set(before.variant) == {""}
    for part in (trained, before):
        assert sorted(part.seed.unique()) == [0, 3]
        assert {"euclidean", "cosine", "whitened"} <= set(part.judge)
    assert set(trained.judge) == {"training", "euclidean", "cosine", "whitened"}
    shown = untrained_scores("other").loc["conv4"]
    assert (shown.seeds, shown.classes) == (2, 5)
    assert shown["mean"] == pytest.approx(before[before.judge == "cosine"].precision_at_1.mean())
    kept = {path: path.stat().st_mtime_ns for path in (other / "data" / "runs").rglob("*.json")}
    assert len(kept) == 6
    measure_profile("other", 1)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "nothing was done again"


def test_a_cell_is_the_experiment_judged_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "WHITENED", 100)
    settings = default_settings("digits", "conv4", **SMALL)
    path = tmp_path / "cell.json"
    measure_cell(vars(settings), {}, True, path)
    found, done = read_json(path, ""), experiment(settings, cluster=False)
    rows = {(row["judge"], row["anchor"]): row for row in found["experiment"]["scores"]}
    assert rows["training", "query"]["precision_at_1"] == done.scores.precision_at_1.iloc[0]
    x = torch.nn.functional.normalize(done.embeddings)
    expected = evaluate(x, done.test.labels, cluster=False)["precision_at_1"]
    assert rows["cosine", None]["precision_at_1"] == pytest.approx(expected)
    chosen = torch.randperm(len(done.train), generator=torch.Generator().manual_seed(0))[:100].sort().values
    seen = embed(done.model, done.train)[chosen]
    whitened = whitened_search().fit(seen.numpy(), done.train.labels[chosen].numpy()).transform(done.embeddings.numpy())
    expected = evaluate(torch.from_numpy(whitened), done.test.labels, cluster=False)["precision_at_1"]
    assert rows["whitened", None]["precision_at_1"] == pytest.approx(expected)
    assert "precision_at_1_new_letter" not in rows["cosine", None], "digits have no letters"
    assert np.mean(found["hits"]) == pytest.approx(done.scores.precision_at_1.iloc[0])
    assert list(tmp_path.iterdir()) == [path], "no checkpoint is left"


def test_new_letters_are_those_of_this_division(tmp_path: Path) -> None:
    settings = default_settings("glyphs", "conv4", image_size=16, embedding_size=8, split=3, distance="snr")
    measure_cell(vars(settings), {}, False, tmp_path / "cell.json")
    rows = run_rows(read_json(tmp_path / "cell.json", "")["experiment"]).set_index(["judge", "anchor"])
    train, test = (images_of(settings, half) for half in ("train", "test"))
    usual = images_of(default_settings("glyphs", "conv4", image_size=16), "test")
    assert set(test.classes) != set(usual.classes)
    x, seen = untrained(settings, cluster=False).embeddings.numpy(), set(train.factors.letter)
    new = [i for i, letter in enumerate(test.factors.letter) if letter not in seen]
    assert 0.3 < len(new) / len(test) < 0.95
    y, z = test.labels.numpy(), x - x.mean(axis=1, keepdims=True)
    for judge, anchor, centred in (("euclidean", "", False), ("snr", "query", True)):
        hits = []
        for i in new:
            apart = np.square((z if centred else x) - (z if centred else x)[i]).sum(axis=1)
            apart[i] = np.inf
            hits.append(y[apart.argmin()] == y[i])
        assert rows.precision_at_1_new_letter[judge, anchor] == pytest.approx(np.mean(hits), abs=2e-3)
    assert rows.precision_at_1_new_letter.between(0, 1).all()


def test_arms_of_one_network_share_what_it_was() -> None:
    arms = [
        default_settings("digits", "conv4", distance=distance, loss=loss, optimizer=optimizer, steps=3)
        for distance, loss, optimizer in (("snr", "triplet", "sgd"), ("cosine", "nt_xent", "adamw"))
    ]
    assert before_training(arms[0]) == before_training(arms[1])
    assert before_training(arms[0]) != before_training(replace(arms[0], seed=1))
    features = default_settings("cub_features", "linear")
    assert before_training(features) == before_training(replace(features, seed=1)), "features have no seed"
    assert before_training(features) != before_training(replace(features, seed=1, split=1))
    assert before_training(features) == before_training(replace(features, softplus=True)), "and no head"
    assert before_training(arms[0]) != before_training(replace(arms[0], softplus=True))
