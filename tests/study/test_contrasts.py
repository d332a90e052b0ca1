"""The contrasts of what acts: one thing at a time, a pair per seed, one family."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from snrlib.stats import holm, t_test
from snrlib.study.contrasts import CONTRASTS, EQUAL, contrasts
from snrlib.study.stored import read_about

ARMS = list(dict.fromkeys(arm for pairs in CONTRASTS.values() for pair in pairs for arm in pair))
SEEDS = 6


def _runs(effects: dict[str, float], beside: str = "", loss: str = "triplet") -> pd.DataFrame:
    """Scores to which centring, the anchor's own unit, its gradient and the square each add something."""
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for seed in range(SEEDS):
        split = random.normal(scale=0.1)  # what all arms of a seed share
        for distance, variant in ARMS:
            own = distance in ("relative_euclidean", "snr")
            has = {
                "centring": distance in ("centred_euclidean", "snr", "symmetric_snr"),
                "own unit": own,
                "gradient through the unit": (own and variant == "") or variant == "unit batch",
                "power": variant != "power 1",
            }
            score = 0.5 + split + sum(effects.get(name, 0) for name, true in has.items() if true)
            told = ", ".join(part for part in (variant, beside) if part)
            row: dict[str, Any] = {"data": "birds", "backbone": "linear", "loss": loss, "distance": distance, "map": ""}
            row |= {"variant": told, "seed": seed, "judge": "training", "anchor": "query" if own else ""}
            rows.append(row | {"mean_average_precision_at_r": score + random.normal(scale=1e-3)})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("name", CONTRASTS)
def test_each_contrast_sees_its_own_effect_alone(name: str) -> None:
    table = contrasts(_runs({name: 0.04}))
    assert table["mean"].to_dict() == pytest.approx({one: 0.04 * (one == name) for one in CONTRASTS}, abs=2e-3)
    assert table.verdict[name] == "higher"
    assert (table.p_equal.drop(name) < 0.01).all(), "the others are equal, and shown to be"
    assert table.p_equal[name] > 0.99
    assert table.pairs.to_dict() == {one: len(pairs) for one, pairs in CONTRASTS.items()}
    assert (table.seeds == SEEDS).all()


def test_arms_differ_by_nothing_but_their_contrast() -> None:
    """Read from the formulas: what a pair of arms shares is all but one of map, unit, its gradient and power."""
    from snrlib.experiment import default_settings
    from snrlib.experiment.parts import distance_of

    changes: dict[str, dict[str, Any]] = {
        "unit batch": {"unit": "batch"},
        "unit both": {"unit": "both"},
        "unit detached": {"detach_unit": True},
    }
    changes |= {"power 1": {"power": 1}, "": {}}

    def traits(distance: str, variant: str) -> dict[str, Any]:
        settings = default_settings("digits", "conv4", distance=distance, **changes[variant])
        assert settings.variant == variant
        d = distance_of(settings)
        return {
            "centring": type(d.map).__name__,
            "own unit": d.unit,
            "gradient through the unit": d.detach_unit,
            "power": settings.power,
        }

    for name, pairs in CONTRASTS.items():
        for ours, theirs in pairs:
            a, b = traits(*ours), traits(*theirs)
            assert {trait for trait in a if a[trait] != b[trait]} == {name}


def test_one_family_is_corrected_and_pairs_are_averaged() -> None:
    runs = _runs({"centring": 0.002})
    table = contrasts(runs)
    assert table.p_holm.tolist() == pytest.approx(holm(table.p).tolist())
    wide = runs.pivot(index="seed", columns=["distance", "variant"], values="mean_average_precision_at_r")
    less = np.mean([wide[a] - wide[b] for a, b in CONTRASTS["centring"]], axis=0)
    assert table.p["centring"] == pytest.approx(t_test(less))
    softplus = contrasts(_runs({"centring": 0.04}, beside="softplus"), beside="softplus")
    assert softplus["mean"]["centring"] == pytest.approx(0.04, abs=2e-3)
    assert EQUAL == 0.02


def test_a_contrast_without_its_arms_is_left_out() -> None:
    runs = _runs({})
    few = runs[runs.distance.isin(["snr", "relative_euclidean"]) & (runs.variant == "")]
    assert list(contrasts(few).index) == ["centring"]
    with pytest.raises(ValueError, match="none of centring, own unit, gradient through the unit, power is among"):
        contrasts(few[few.distance == "snr"])
    with pytest.raises(ValueError, match="of one data set, network and loss, got several or no loss"):
        contrasts(pd.concat([runs, _runs({}, loss="lifted")]))


@pytest.mark.parametrize("data", ["birds", "glyphs"])
@pytest.mark.parametrize("setting", ["near", "far"])
def test_arms_of_one_setting_share_it(data: str, setting: str) -> None:
    chosen = read_about(f"acts_{data}_{setting}")["chosen"]
    arms = {(one["distance"], one["variant"]) for one in chosen}
    assert arms == {
        (distance, variant)
        for variant, pair in {
            "": ("relative_euclidean", "snr"),
            "unit detached": ("relative_euclidean", "snr"),
            "unit batch": ("euclidean", "centred_euclidean"),
        }.items()
        for distance in pair
    }
    (shared,) = {(one["margin"], one["learning_rate"]) for one in chosen}
    tuned = {one["distance"]: one for one in read_about(f"acts_{data}")["chosen"] if one["variant"] == ""}
    assert shared in {(tuned[one]["margin"], tuned[one]["learning_rate"]) for one in ("relative_euclidean", "snr")}
