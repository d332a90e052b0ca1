"""What was tuned, for whoever leaves it open: parameters of notebook 07 become settings."""

import itertools
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
from snrlib.study.tuned import from_parameters, tuned, tuned_parameters

KNOWN = parameters("07")
DECLARED = {name: known.default for name, known in KNOWN.items()}
PARAMETERS: dict[str, Any] = DECLARED | {"backbone": "conv4", "embedding_size": 32, "seed": 3}


@pytest.fixture(autouse=True)
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``data/reference``."""
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    (tmp_path / "data" / "reference").mkdir(parents=True)
    return tmp_path / "data" / "reference"


def _store(reference: Path, name: str, **about: Any) -> None:
    (reference / f"{name}.json").write_text(json.dumps(about))


def test_none_leaves_the_choice_to_the_study() -> None:
    usual = default_settings("glyphs", "conv4", embedding_size=32, seed=3, steps=BUDGETS["quick"])
    assert from_parameters(PARAMETERS) == usual
    assert from_parameters({**PARAMETERS, "budget": "full"}).steps == BUDGETS["full"]


def test_what_is_given_is_taken() -> None:
    given: dict[str, Any] = {"steps": 7, "batch_size": 32, "m": 8, "margin": 0.0, "learning_rate": 0.5}
    given |= {"image_size": 48, "root": "/images", "weights": "/w.pt", "validation_share": 0.0, "regularizer": 0.0}
    chosen = from_parameters({**PARAMETERS, **given, "distance": "mahalanobis", "map": "learned", "budget": "full"})
    assert {name: getattr(chosen, name) for name in given} == given


def test_notebook_05_offers_what_there_is() -> None:
    assert from_parameters(DECLARED) == default_settings()
    offered: dict[str, Any] = {"data": DATASETS, "backbone": NETWORKS, "distance": DISTANCES, "map": MAPS}
    offered["loss"] = [*LOSSES, "softmax"]
    for name, choices in offered.items():
        assert set(KNOWN[name].choices) == set(choices)


def test_a_variant_takes_what_was_tuned_for_it(reference: Path) -> None:
    key = {"data": "glyphs", "backbone": "conv4", "loss": "triplet", "distance": "snr", "map": "", "embedding_size": 32}
    rows = [key | {"variant": variant, "margin": m} for variant, m in (("", 0.1), ("unit detached", 0.2), ("sgd", 0.3))]
    _store(reference, "tuned_small", profile="small", tuned=rows)
    usual = {**PARAMETERS, "distance": "snr"}

    def margin(**changes: Any) -> float | None:
        return from_parameters(usual | changes).margin

    assert (margin(), margin(detach_unit=True), margin(optimizer="sgd")) == (0.1, 0.2, 0.3)
    assert margin(power=2) == default_settings().margin, "the margins of the others are in other units"
    assert margin(anchor="ref") == margin(energy_confusion=0.1) == 0.1


@pytest.mark.parametrize(("distance", "kind"), list(itertools.product(DISTANCES, MAPS)))
def test_the_map_counts_where_there_is_one(distance: str, kind: str) -> None:
    settings = from_parameters({**PARAMETERS, "distance": distance, "map": kind})
    assert settings.map == (kind if distance in MAPPED else None)


def test_a_tuned_margin_is_of_its_combination(reference: Path) -> None:
    row = {"backbone": "conv4", "loss": "triplet", "distance": "snr", "margin": 0.3}
    _store(reference, "a", study={"data": "glyphs"}, tuned_margins=[{**row, "distance": "euclidean", "margin": 9}, row])
    _store(reference, "b", study={"data": "digits"}, tuned_margins=[{**row, "loss": "lifted"}])
    _store(reference, "maps", command="snr measure maps")
    assert from_parameters(PARAMETERS).margin == 0.3
    assert from_parameters({**PARAMETERS, "margin": 1.0}).margin == 1.0
    for other in ({"loss": "lifted"}, {"backbone": "resnet18"}, {"data": "digits"}, {"weights": "w.pt"}):
        usual: dict[str, Any] = {"data": "glyphs", "backbone": "conv4", "embedding_size": 32, "seed": 3} | other
        assert from_parameters({**PARAMETERS, **other}) == default_settings(**usual)
    assert tuned_parameters({**PARAMETERS, "normalize_embeddings": True}) == {}, "another unit"


def test_maps_of_earlier_files_are_told_apart(reference: Path) -> None:
    named = {"relative_mahalanobis": 0.1, "relative_mahalanobis/learned": 0.7}
    rows = [{"backbone": "conv4", "loss": "triplet", "distance": name, "margin": named[name]} for name in named]
    _store(reference, "glyphs", study={"data": "glyphs"}, tuned_margins=rows)
    found = {kind: tuned("glyphs", "conv4", "triplet", MAPPED[1], kind, embedding_size=64) for kind in MAPS}
    assert found == {"running": {"margin": 0.1}, "whitening": {}, "lmnn": {}, "learned": {"margin": 0.7}}


def test_the_nearest_tuning_comes_first(reference: Path) -> None:
    same: dict[str, Any] = {"data": "glyphs", "backbone": "conv4", "loss": "triplet", "distance": "snr"}

    def best(profile: str | None = None, size: int = 64) -> dict[str, float]:
        return tuned(**same, map=None, embedding_size=size, profile=profile)

    margin = [{key: value for key, value in same.items() if key != "data"} | {"margin": 0.1}]
    _store(reference, "a", study={"data": "glyphs"}, settings={"embedding_size": 64}, tuned_margins=margin)
    assert best() == {"margin": 0.1}
    rate = same | {"embedding_size": 64, "margin": 0.2, "learning_rate": 0.01}
    _store(reference, "tuned_one", profile="one", tuned=[rate])
    assert best() == {"margin": 0.2, "learning_rate": 0.01}, "with its rate before a margin alone"
    _store(reference, "tuned_two", profile="two", tuned=[rate | {"margin": 0.3}])
    assert [best(name)["margin"] for name in (None, "one", "two")] == [0.2, 0.2, 0.3], "the profile's own"
    _store(reference, "tuned_three", profile="three", tuned=[rate | {"margin": 0.4, "embedding_size": 32}])
    assert best("three")["margin"] == 0.2, "the size before the profile"
    assert best("two", 32)["margin"] == 0.4
