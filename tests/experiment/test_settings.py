"""Settings: what suits the data, the network and the loss, what nobody may combine, and None that chooses."""

import itertools
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from snrlib.backbones import NETWORKS, Network
from snrlib.data import DATASETS
from snrlib.data.sets.cub200 import cub200
from snrlib.data.traits import DataSet
from snrlib.distances import DISTANCES, MAPPED, RELATIVE, get_distance
from snrlib.experiment import BUDGETS, MAPS, Settings, default_settings
from snrlib.experiment.parts import unfitted
from snrlib.losses import LOSSES, TripletMarginLoss, get_loss

MAPPINGS = [(name, None) for name in DISTANCES if name not in MAPPED] + list(itertools.product(MAPPED, MAPS))
MARGINLESS = ["softmax", *(loss for loss in LOSSES if LOSSES[loss].default_margin is None)]
OVER_COSINES = ("normalised_softmax", "arcface")


def test_every_data_set_goes_with_every_network_that_takes_it() -> None:
    for data, backbone in itertools.product(DATASETS, NETWORKS):
        sizes = {"batch_size": 8, "m": 2, "validation_share": 0} if data == "folder" else {}  # its files would tell
        if (DATASETS[data].kind == "features") != (backbone == "linear"):
            with pytest.raises(ValueError, match=f"features go with backbone linear .*, got {data} and {backbone}"):
                default_settings(data, backbone, **sizes)
            continue
        settings, traits = default_settings(data, backbone, **sizes), DATASETS[data]
        assert (settings.data, settings.backbone) == (data, backbone)
        assert settings.image_size == traits.image_size
        assert settings.batch_size % settings.m == 0
        assert settings.learning_rate == NETWORKS[backbone].learning_rate > 0
        assert settings.augment == (traits.kind == "photographs")


@pytest.mark.parametrize(("distance", "kind"), MAPPINGS)
@pytest.mark.parametrize("loss", [*LOSSES, "softmax"])
def test_losses_distances_and_maps_combine_or_are_refused(loss: str, distance: str, kind: str | None) -> None:
    if loss == "softmax" and kind in ("running", "learned"):
        with pytest.raises(ValueError, match=f"softmax trains no map; take map=whitening, got {kind}"):
            default_settings(loss=loss, distance=distance, map=kind)
    elif loss == "angular" and distance in RELATIVE:
        with pytest.raises(ValueError, match="angular"):
            default_settings(loss=loss, distance=distance, map=kind)
    elif loss in OVER_COSINES and distance not in ("cosine", "correlation"):
        with pytest.raises(ValueError, match="a softmax over cosines, defined over cosine, correlation"):
            default_settings(loss=loss, distance=distance, map=kind)
    else:
        settings = default_settings("digits", "conv4", loss=loss, distance=distance, map=kind, embedding_size=8)
        assert (settings.map, settings.margin is None) == (kind, loss in MARGINLESS)
        assert settings.regularizer == (0.1 if kind == "learned" else 0.0)
        parts = unfitted(settings, channels=1)
        x, labels = parts.model(torch.rand(6, 1, 16, 16)), torch.tensor([0, 0, 1, 1, 2, 2])
        assert parts.loss(settings, n_classes=3)(x, labels).isfinite()


ARMS: list[tuple[dict[str, Any], str, str]] = [  # settings, what they change in the formula, how they are told apart
    ({"distance": "euclidean", "unit": "batch"}, "||A(b - a)||^2 / mean ||A x||^2", "unit batch"),
    ({"distance": "euclidean", "unit": "both"}, "/ (||A a|| ||A b||)", "unit both"),
    ({"distance": "snr", "detach_unit": True}, "unit without gradient", "unit detached"),
    ({"distance": "snr", "anchor": "ref"}, "anchor a = ref", "anchor ref"),
    ({"distance": "snr", "power": 2}, "power=2", "power 2"),
    ({"distance": "snr", "softplus": True, "optimizer": "sgd"}, "", "softplus, sgd"),
]


@pytest.mark.parametrize(("changes", "formula", "variant"), ARMS)
def test_an_arm_reaches_its_formula_and_name(changes: dict[str, Any], formula: str, variant: str) -> None:
    settings = default_settings("digits", "conv4", embedding_size=8, **changes)
    parts = unfitted(settings, channels=1)
    assert formula in repr(parts.loss(settings, n_classes=3))
    assert settings.variant == variant
    assert settings.relative == parts.distance.relative
    embeddings = parts.model(torch.rand(4, 1, 16, 16))
    assert bool((embeddings > 0).all()) == settings.softplus


@pytest.mark.parametrize(("distance", "kind"), MAPPINGS)
def test_a_penalty_of_zero_can_be_asked_for(distance: str, kind: str | None) -> None:
    assert default_settings(distance=distance, map=kind, regularizer=0.0).regularizer == 0.0
    assert default_settings(distance=distance, map=kind, regularizer=3.0).regularizer == 3.0


def test_none_chooses_what_nothing_does() -> None:
    given: dict[str, Any] = {name: None for name in asdict(default_settings()) if name not in ("data", "backbone")}
    assert default_settings(**given) == default_settings()
    assert default_settings(distance="mahalanobis", map=None).map == "running"
    assert default_settings().steps == BUDGETS["quick"] < BUDGETS["full"]


def test_each_loss_states_its_margin() -> None:
    for name, loss in LOSSES.items():
        distance = "cosine" if name in OVER_COSINES else "euclidean"
        settings = default_settings(loss=name, distance=distance)
        assert (settings.margin, settings.scale) == (loss.default_margin, loss.default_scale)
        tuned = (loss.margin_unit is not None, loss.default_scale is not None)
        assert any(tuned) == (name != "angular")
        made = get_loss(name, get_distance(distance), **settings.loss_options(n_classes=3, embedding_size=4))
        assert (settings.margin, settings.scale) == tuple(
            getattr(made, number, None) if number != "scale" or loss.default_scale else None
            for number in ("margin", "scale")
        )
        assert made(torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])).isfinite()


def test_traits_stand_with_what_they_are_traits_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nowhere else: a data set, a network and a loss that are new, or change, need no second list."""
    mine = DataSet("mine", cub200, kind="photographs", image_size=40, training=(5, 6))
    monkeypatch.setitem(DATASETS, "mine", mine)
    monkeypatch.setitem(NETWORKS, "own", Network(0.25, library=None))
    monkeypatch.setattr(TripletMarginLoss, "default_margin", 7.0)
    known: dict[str, Any] = {"image_size": 40, "batch_size": 12, "m": 4, "validation_share": 0.4, "augment": True}
    settings = default_settings("mine", "own")
    known |= {"learning_rate": 0.25, "trunk_learning_rate": 0.25, "margin": 7.0}
    assert {name: getattr(settings, name) for name in known} == known
    monkeypatch.setattr(TripletMarginLoss, "default_margin", None)
    assert default_settings("mine", "own").margin is None


def test_given_weights_train_slowly_and_keep_their_norms() -> None:
    random, given = default_settings(backbone="resnet18"), default_settings(backbone="resnet18", weights="imagenet")
    assert random.trunk_learning_rate == random.learning_rate
    assert given.trunk_learning_rate == given.learning_rate / 10
    assert (random.frozen_batch_norm, given.frozen_batch_norm) == (False, True)
    assert default_settings(learning_rate=1.0).trunk_learning_rate == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "mnist"}, "data must be one of glyphs, digits, omniglot"),
        ({"backbone": "vgg"}, "backbone must be one of conv4, alexnet"),
        ({"loss": "proxy"}, "loss must be one of contrastive, .*softmax, got 'proxy'"),
        ({"distance": "cosines"}, "distance must be one of euclidean, .*snr, .*, got 'cosines'"),
        (
            {"distance": "mahalanobis", "map": "none"},
            "map must be one of running, whitening, lmnn, learned, got 'none'",
        ),
        ({"distance": "snr", "map": "whitening"}, "only mahalanobis and relative_mahalanobis have a map"),
        (
            {"backbone": "conv4", "weights": "imagenet"},
            "conv4 has no ImageNet weights; alexnet, .*efficientnet_lite0 have",
        ),
        (
            {"backbone": "conv4", "weights": "tinyimagenet100"},
            "conv4 has no weights tinyimagenet100; alexnet, resnet18 have",
        ),
        ({"data": "cifar10", "image_size": 16}, "cifar10 has images of 32 pixels, got image_size=16"),
        ({"loss": "softmax", "margin": 0.5}, "softmax has no margin, got 0.5"),
        ({"loss": "angular", "distance": "euclidean", "margin": 0.5}, "angular has no margin, got 0.5"),
        ({"scale": 2.0}, "triplet has no scale, got 2.0"),
        ({"loss": "softmax", "energy_confusion": 0.1}, "softmax takes no energy confusion, got 0.1"),
        ({"distance": "euclidean", "detach_unit": True}, "detach_unit needs a unit that has a gradient, got euclidean"),
        ({"unit": "row"}, "unit must be 'anchor', 'both', 'batch'"),
        ({"loss": "softmax", "power": 1}, "softmax has no power, got 1"),
        ({"loss": "supcon", "power": 3}, "power must be"),
        ({"energy_confusion": -0.1}, "energy_confusion must be a finite number at least 0, got -0.1"),
        ({"loss": "contrastive", "margin": -1.0}, "margin must be a finite number above 0, got -1"),
    ],
)
def test_what_cannot_be_is_refused_with_choices(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        default_settings(**changes)


def test_unknown_settings_are_refused_with_the_known() -> None:
    with pytest.raises(TypeError, match="unknown setting epochs, stpes; choose from data, root, image_size, backbone,"):
        default_settings(stpes=3, epochs=2)


def test_a_record_stays_as_it_is() -> None:
    settings = default_settings()
    with pytest.raises(AttributeError):
        settings.margin = 2.0  # type: ignore[misc]
    assert Settings(**asdict(settings)) == settings
    with pytest.raises(ValueError, match="triplet needs a margin, got None"):
        replace(settings, margin=None)
