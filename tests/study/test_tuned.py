"""Parameters of notebook 05 become settings; what they leave open is what was tuned, or what suits."""

import json
from pathlib import Path
from typing import Any

import pytest

from snrlib.backbones import NETWORKS
from snrlib.data import DATASETS
from snrlib.distances import DISTANCES, MAPPED
from snrlib.experiment import BUDGETS, MAPS, default_settings
from snrlib.losses import LOSSES
from snrlib.notebooks.parameters import parameters
from snrlib.study.tuned import from_parameters, tuned

KEY: dict[str, Any] = {"data": "glyphs", "backbone": "conv4", "loss": "triplet", "distance": "snr"}
SMALL = {**KEY, "embedding_size": 32}


@pytest.fixture
def reference(real_root: Path) -> Path:
    """An empty ``data/reference``."""
    (real_root / "data" / "reference").mkdir(parents=True)
    return real_root / "data" / "reference"


def _defaults(**changes: Any) -> dict[str, Any]:
    return {name: known.default for name, known in parameters("05").items()} | changes


def _write(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    usual = {**SMALL, "map": "", "pretrained": False}
    (folder / f"tuned_{name}.json").write_text(json.dumps({"profile": name, "tuned": [usual | row for row in rows]}))


def test_notebook_05_offers_all_there_is() -> None:
    known = parameters("05")
    choices = {"data": DATASETS, "backbone": NETWORKS, "distance": DISTANCES, "map": MAPS}
    choices |= {"loss": [*LOSSES, "softmax"], "budget": BUDGETS, "anchor": ["query", "ref"]}
    assert {name: set(known[name].choices) for name in choices} == {name: set(all_) for name, all_ in choices.items()}


def test_auto_leaves_the_choice_to_the_study(reference: Path) -> None:
    usual = default_settings("glyphs", "conv4", embedding_size=32, seed=3, steps=BUDGETS["quick"])
    assert from_parameters(_defaults(**SMALL, seed=3)) == usual
    full = from_parameters(_defaults(**SMALL, budget="full"))
    assert full.steps == BUDGETS["full"] > BUDGETS["quick"]


def test_what_is_given_is_taken(reference: Path) -> None:
    given = {"steps": 7, "batch_size": 32, "m": 8, "margin": 0.0, "learning_rate": 0.5, "image_size": 48}
    given |= {"root": "/images", "weights": "w.pt", "regularizer": 0.0, "validation_share": 0.0, "anchor": "ref"}
    _write(reference, "small", {"margin": 0.3, "learning_rate": 0.01, "pretrained": True})
    chosen = from_parameters(_defaults(**SMALL, **given, budget="full"))
    assert {name: getattr(chosen, name) for name in given} == given


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("map", MAPS)
def test_a_map_counts_where_the_distance_has_one(reference: Path, distance: str, map: str) -> None:
    settings = from_parameters(_defaults(**{**SMALL, "distance": distance}, map=map))
    assert settings.map == (map if distance in MAPPED else None)
    assert settings.regularizer == (0.1 if settings.map == "learned" else 0.0)


def test_just_the_tuned_combination_is_taken(reference: Path) -> None:
    row = {"distance": "relative_mahalanobis", "map": "learned"}
    others = [{"map": "running"}, {"loss": "lifted"}, {"data": "digits"}, {"backbone": "resnet18"}]
    _write(reference, "small", *(row | other | {"margin": 9.0} for other in others), row | {"margin": 0.7})
    (reference / "maps.json").write_text(json.dumps({"command": "snr measure maps"}))
    key = (*(KEY | row).values(), "learned")[:4]
    assert tuned(*key, "learned", embedding_size=32) == {"margin": 0.7}
    assert tuned(*key, "lmnn", embedding_size=32) == {}
    p = _defaults(**SMALL | row)
    assert from_parameters(p).margin == 0.7
    assert from_parameters(p | {"margin": 1.0}).margin == 1.0
    assert from_parameters(p | {"loss": "contrastive"}).margin == LOSSES["contrastive"].default_margin
    assert from_parameters(p | {"normalize_embeddings": True}).margin == 0.5, "another unit"


def test_the_nearest_of_several_tunings_is_taken(reference: Path) -> None:
    rate = {"learning_rate": 0.01}
    _write(reference, "small", *({"embedding_size": size, "margin": size / 100} | rate for size in (8, 16)))
    study = {"data": "glyphs", "backbones": {"conv4": {}}}
    early = {"study": study, "settings": {"embedding_size": 8}, "tuned_margins": [{**KEY, "margin": 5.0}]}
    (reference / "z.json").write_text(json.dumps(early))  # of an earlier edition
    key = (*KEY.values(), None)
    assert tuned(*key, embedding_size=8) == {"margin": 0.08} | rate, "a tuned rate before none"
    assert tuned(*key, embedding_size=16) == {"margin": 0.16} | rate, "the same size before another"
    assert tuned(*key, embedding_size=64)["learning_rate"] == 0.01
    _write(reference, "a", {"embedding_size": 8, "margin": 9.0} | rate)
    assert tuned(*key, embedding_size=8, profile="small")["margin"] == 0.08, "a profile's own"
    assert tuned(*key, embedding_size=8, profile="a")["margin"] == 9.0
    assert tuned(*key, embedding_size=8, pretrained=True) == {}, "given weights want other rates"
    for name in ("a", "small"):
        (reference / f"tuned_{name}.json").unlink()
    assert tuned(*key, embedding_size=8) == tuned(*key, embedding_size=64) == {"margin": 5.0}
