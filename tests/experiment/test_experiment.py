"""Experiments: every choice stated, the same bits for the same seed, classes apart, results that can be read back."""

import json
from pathlib import Path
from typing import Any

import data_copies
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from training_cases import KilledError, stop_at

from snrlib.backbones import BACKBONES, embed, embedder
from snrlib.data import DATASETS, LabelledImages, load
from snrlib.distances import DISTANCES, LinearMap, get_distance
from snrlib.evaluate import retrieval
from snrlib.experiment import (
    BUDGETS,
    MAPS,
    Experiment,
    default_settings,
    distance_of,
    experiment,
    from_parameters,
    initial_scale,
    tuned,
    untrained,
)
from snrlib.experiment import running as module
from snrlib.losses import LOSSES, LogDetRegularizer, ZeroMeanRegularizer
from snrlib.mahalanobis import LMNN, RunningWhitening, Whitening
from snrlib.notebooks.parameters import parameters
from snrlib.study import grid
from snrlib.utils.torchvision_import import torchvision


def _settings(**changes: Any) -> dict[str, Any]:
    """Digits, small: two of their five classes validate."""
    small = {"steps": 4, "every": 2, "image_size": 16, "embedding_size": 8, "batch_size": 24, "m": 8}
    return default_settings("digits", "conv4", **{**small, **changes})


ABSOLUTE_OR_RELATIVE = ("mahalanobis", "relative_mahalanobis")
FITTED_OR_LEARNED = [f"{name}/{map}" for name in ABSOLUTE_OR_RELATIVE for map in MAPS[1:]]


def _birds(**changes: Any) -> dict[str, Any]:
    """Features of photographs and a last layer alone: its embeddings do not depend on the batch."""
    return default_settings("cub_features", "linear", **{"steps": 2, "every": 2, "embedding_size": 6, **changes})


@pytest.fixture(scope="module")
def done() -> Experiment:
    return experiment(_settings(), device="cpu")


# --- settings ---------------------------------------------------------------------------------------------------------


def test_an_unknown_setting_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(TypeError, match="unknown setting epochs, stpes; choose from data, root, image_size, backbone,"):
        default_settings(stpes=3, epochs=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "mnist"}, "data must be one of glyphs, digits, omniglot"),
        ({"backbone": "vgg"}, "backbone must be one of conv4, alexnet"),
        ({"loss": "proxy"}, "loss must be one of contrastive, .*softmax, got 'proxy'"),
        ({"distance": "cosine"}, "distance must be one of euclidean, .*snr, .*, got 'cosine'"),
        ({"distance": "mahalanobis/running"}, "distance must be one of"),
        ({"distance": "snr/whitening"}, "distance must be one of"),
        (
            {"data": "cub_features"},
            "features go with backbone linear and images with another one, got cub_features and",
        ),
        ({"backbone": "linear"}, "features go with backbone linear and images with another one, got glyphs and linear"),
        (
            {"loss": "softmax", "distance": "mahalanobis"},
            r"take mahalanobis/whitening \(in notebook 05 map=whitening\), got mahalanobis",
        ),
        (
            {"loss": "softmax", "distance": "relative_mahalanobis/learned"},
            "softmax trains no map; take relative_mahalanobis/whitening .*, got relative_mahalanobis/learned",
        ),
    ],
)
def test_an_unknown_choice_is_refused_with_the_valid_ones(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        default_settings(**changes)


PAIRS = [(data, backbone) for data in DATASETS if data != "cub_features" for backbone in BACKBONES]


@pytest.mark.parametrize(("data", "backbone"), [*PAIRS, ("cub_features", "linear")])
def test_every_data_set_and_backbone_has_settings(data: str, backbone: str) -> None:
    settings = default_settings(data, backbone)
    assert (settings["data"], settings["backbone"]) == (data, backbone)
    assert settings["batch_size"] % settings["m"] == 0
    assert settings["learning_rate"] > 0
    assert settings["augment"] == (settings["image_size"] == 224)
    assert settings.keys() == default_settings().keys()


def test_given_weights_get_a_tenth_of_the_rate_and_keep_their_batch_norm() -> None:
    random, given = default_settings(backbone="resnet18"), default_settings(backbone="resnet18", weights="imagenet")
    assert random["trunk_learning_rate"] == random["learning_rate"]
    assert given["trunk_learning_rate"] == given["learning_rate"] / 10
    assert (random["frozen_batch_norm"], given["frozen_batch_norm"]) == (False, True)
    assert default_settings(learning_rate=1.0)["trunk_learning_rate"] == 1.0


@pytest.mark.parametrize("distance", [*DISTANCES, *FITTED_OR_LEARNED])
def test_only_a_learned_map_has_a_penalty_if_nobody_says_otherwise(distance: str) -> None:
    assert default_settings(distance=distance)["regularizer"] == (0.1 if distance.endswith("/learned") else 0.0)
    assert default_settings(distance=distance, regularizer=0.0)["regularizer"] == 0.0
    assert default_settings(distance=distance, regularizer=3.0)["regularizer"] == 3.0


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``data/reference``."""
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    (tmp_path / "data" / "reference").mkdir(parents=True)
    return tmp_path / "data" / "reference"


PARAMETERS: dict[str, Any] = {
    **{"data": "glyphs", "root": "", "backbone": "conv4", "weights": "", "frozen_trunk": False, "embedding_size": 32},
    **{
        "distance": "snr",
        "map": "running",
        "anchor": "query",
        "normalize_embeddings": False,
        "loss": "triplet",
        "margin": -1.0,
    },
    **{"regularizer": 0.0, "budget": "quick", "steps": 0, "batch_size": 0, "m": 0, "learning_rate": 0.0},
    **{"image_size": 0, "seed": 3},
}


def test_zero_empty_and_negative_leave_the_choice_to_the_study(reference: Path) -> None:
    assert from_parameters(PARAMETERS) == default_settings(
        "glyphs", "conv4", embedding_size=32, seed=3, steps=BUDGETS["quick"]
    )
    full = from_parameters({**PARAMETERS, "budget": "full"})
    assert full["steps"] == BUDGETS["full"] > BUDGETS["quick"]


def test_what_is_given_is_taken(reference: Path) -> None:
    given = {
        "steps": 7,
        "batch_size": 32,
        "m": 8,
        "margin": 0.0,
        "learning_rate": 0.5,
        "image_size": 48,
        "root": "/images",
        "weights": "w.pt",
    }
    chosen = from_parameters({**PARAMETERS, **given, "budget": "full"})
    assert {name: chosen[name] for name in given} == given


def test_a_negative_margin_takes_the_tuned_one_of_just_this_combination(reference: Path) -> None:
    row = {"backbone": "conv4", "loss": "triplet", "distance": "snr", "margin": 0.3}
    about = {"study": {"data": "glyphs"}, "tuned_margins": [{**row, "distance": "euclidean"}, row]}
    (reference / "glyphs.json").write_text(json.dumps(about))
    assert tuned("glyphs", "conv4", "triplet", "snr", 64) == {"margin": 0.3}
    assert from_parameters(PARAMETERS)["margin"] == 0.3
    assert from_parameters({**PARAMETERS, "margin": 1.0})["margin"] == 1.0
    assert from_parameters({**PARAMETERS, "loss": "lifted"})["margin"] == default_settings(loss="lifted")["margin"]
    assert tuned("glyphs", "resnet18", "triplet", "snr", 64) == {}
    assert tuned("digits", "conv4", "triplet", "snr", 64) == {}


def test_a_tuned_margin_is_found_in_any_study_of_the_data_set(reference: Path) -> None:
    row = {"backbone": "conv4", "loss": "triplet", "distance": "relative_mahalanobis/learned", "margin": 0.7}
    for name, data, rows in (
        ("a", "digits", [{**row, "margin": 9.0}]),
        ("glyphs", "glyphs", [{**row, "distance": "relative_mahalanobis"}]),
        ("glyphs_losses", "glyphs", [{**row, "loss": "lifted"}, row]),
    ):
        (reference / f"{name}.json").write_text(json.dumps({"study": {"data": data}, "tuned_margins": rows}))
    (reference / "maps.json").write_text(json.dumps({"command": "snr reference maps"}))
    assert tuned("glyphs", "conv4", "triplet", "relative_mahalanobis/learned", 64) == {"margin": 0.7}
    assert tuned("glyphs", "conv4", "triplet", "relative_mahalanobis/lmnn", 64) == {}
    p = {**PARAMETERS, "distance": "relative_mahalanobis", "map": "learned"}
    assert from_parameters(p)["margin"] == 0.7


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("map", MAPS)
def test_the_map_is_a_part_of_the_distances_name_where_there_is_one(reference: Path, distance: str, map: str) -> None:
    settings = from_parameters({**PARAMETERS, "distance": distance, "map": map})
    has_map = "mahalanobis" in distance and map != "running"
    assert settings["distance"] == (f"{distance}/{map}" if has_map else distance)
    assert settings["regularizer"] == (0.1 if has_map and map == "learned" else 0.0)


def test_notebook_05_has_the_parameters_that_are_read(repository: Path) -> None:
    if not list((repository / "notebooks").glob("05*.ipynb")):
        pytest.skip("there is no notebook 05")
    known = parameters("05")
    assert known.keys() >= PARAMETERS.keys()
    settings = from_parameters({name: parameter.default for name, parameter in known.items()})
    assert settings.keys() == default_settings().keys()
    assert set(known["data"].choices) == set(DATASETS)
    assert set(known["backbone"].choices) == {*BACKBONES, "linear"}
    assert set(known["distance"].choices) == set(DISTANCES)
    assert known["map"].choices == MAPS
    assert set(known["loss"].choices) == {*LOSSES, "softmax"}


# --- one experiment ---------------------------------------------------------------------------------------------------


def test_the_same_settings_give_the_same_bits_and_another_seed_others(done: Experiment) -> None:
    torch.rand(5)  # the state of the caller does not matter
    again = experiment(_settings(), device="cpu")
    assert torch.equal(again.embeddings, done.embeddings)
    pd.testing.assert_frame_equal(again.scores, done.scores, check_exact=True)
    history, expected = (result.history.drop(columns="seconds") for result in (again, done))
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    other = experiment(_settings(seed=1), device="cpu")
    assert not torch.equal(other.embeddings, done.embeddings)
    assert other.fingerprints == done.fingerprints, "data and classes do not depend on the seed"


def test_training_validation_and_test_classes_are_disjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, LabelledImages] = {}

    def watched(model: Any, data: Any, loss: Any, **options: Any) -> Any:
        seen.update(train=data, validation=options["validation"])
        return train(model, data, loss, **options)

    train = module.train
    monkeypatch.setattr(module, "train", watched)
    result = experiment(_settings(), device="cpu")
    groups = [set(data.classes) for data in (seen["train"], seen["validation"], result.test)]
    assert set.union(*groups) == set("0123456789")
    assert sum(map(len, groups)) == 10
    assert [len(group) for group in groups] == [3, 2, 5]
    assert result.train is seen["train"]
    pictures = [{data[i][0].numpy().tobytes() for i in range(len(data))} for data in (*seen.values(), result.test)]
    assert not pictures[0] & pictures[1]
    assert not (pictures[0] | pictures[1]) & pictures[2]


def test_it_is_judged_on_the_test_classes_under_its_distance(done: Experiment) -> None:
    test = load("digits", "test", size=16)
    assert torch.equal(done.embeddings, embed(done.model, test))
    scores = retrieval(done.embeddings, test.labels, get_distance("snr"))
    assert done.scores.precision_at_1["training distance, anchor query"] == pytest.approx(scores.precision_at_1.mean())
    assert done.scores.index.tolist() == ["training distance, anchor query", "training distance, anchor ref", "Euclid"]
    assert done.validation_score == done.history.validation.max() > 0
    assert done.history.attrs["best"] == done.history.validation.idxmax()
    assert done.metrics["training distance, anchor query: precision_at_1"] == done.scores.precision_at_1.iloc[0]
    assert done.metrics["best_step"] == done.history.attrs["best"]
    assert done.metrics["parameters"] == sum(p.numel() for p in done.model.parameters())
    assert done.metrics["seconds_per_step"] > 0
    assert done.metrics["experiment_s"] == done.wall_time_s
    assert repr(done).startswith("Experiment(conv4 on digits, test; R@1 by training distance, anchor query: 0.")


def test_without_validation_all_training_classes_train(done: Experiment) -> None:
    result = experiment(_settings(validation_share=0.0, steps=1), device="cpu")
    assert len(result.train.classes) == 5
    assert np.isnan(result.validation_score)


def test_the_untrained_baseline_is_the_network_before_its_first_step(done: Experiment) -> None:
    before = untrained(_settings())
    torch.manual_seed(0)
    assert torch.equal(before.embeddings, embed(embedder("conv4", 8), done.test))
    assert before.scores.index.tolist() == done.scores.index.tolist()
    assert before.test.fingerprint == done.test.fingerprint
    assert np.isnan(before.validation_score)
    assert before.metrics["best_step"] == 0


def test_the_baseline_of_given_weights_is_their_pooled_features(done: Experiment, tmp_path: Path) -> None:
    weights = tmp_path / "whole.pt"
    torch.save(torchvision.models.get_model("squeezenet1_1").state_dict(), weights)
    before = untrained(_settings() | {"backbone": "squeezenet1_1", "weights": str(weights)})
    pooled = embedder("squeezenet1_1", None, weights, channels=1)
    assert before.embeddings.shape == (len(done.test), 512)
    assert torch.equal(before.embeddings, embed(pooled, done.test))


@pytest.mark.parametrize("distance", ["snr", "mahalanobis"])
def test_the_baseline_of_a_saved_embedder_is_that_embedder(done: Experiment, tmp_path: Path, distance: str) -> None:
    done.save(tmp_path, model=True)
    settings = _settings(weights=str(tmp_path / "model.pt"), distance=distance, steps=1)
    assert torch.equal(untrained(settings).embeddings, done.embeddings)
    assert experiment(settings, device="cpu").embeddings.shape == done.embeddings.shape, "and it trains on"


@pytest.mark.parametrize("distance", [*DISTANCES, *FITTED_OR_LEARNED])
def test_every_distance_and_map_trains_and_is_judged_to_the_same_bits(distance: str) -> None:
    first, again = (experiment(_settings(distance=distance, steps=2), device="cpu") for _ in range(2))
    assert torch.equal(first.embeddings, again.embeddings)
    pd.testing.assert_frame_equal(first.scores, again.scores, check_exact=True)
    assert first.history.loss.notna().all()
    assert first.distance.relative == ("relative" in distance or distance == "snr")
    assert len(first.scores) == (3 if first.distance.relative else 2)
    assert first.distance.map.state_dict().keys() == again.distance.map.state_dict().keys()
    for name, value in first.distance.map.state_dict().items():
        assert torch.equal(value, again.distance.map.state_dict()[name]), name
    before = untrained(_settings(distance=distance))
    assert before.scores.index.tolist() == first.scores.index.tolist()
    assert before.scores.precision_at_1.between(0, 1).all()
    if distance == "relative_mahalanobis":
        judged = retrieval(first.embeddings, first.test.labels, first.distance).precision_at_1.mean()
        assert first.scores.precision_at_1.iloc[0] == judged


@pytest.mark.parametrize("name", ABSOLUTE_OR_RELATIVE)
def test_a_running_map_follows_the_batches_and_a_learned_one_the_gradient(name: str) -> None:
    running = experiment(_settings(distance=name, steps=3, every=3), device="cpu").distance.map
    assert isinstance(running, RunningWhitening)
    assert running.weight.item() == pytest.approx(1 - 0.9**3), "three batches were seen, and no validation image"
    learned = experiment(_settings(distance=f"{name}/learned", steps=3), device="cpu").distance.map
    assert isinstance(learned, LinearMap)
    assert isinstance(learned.components, nn.Parameter)
    assert not torch.equal(learned.components, torch.eye(8))
    frozen = experiment(_settings(distance=f"{name}/learned", steps=3, learning_rate=1e-12), device="cpu").distance.map
    torch.testing.assert_close(frozen.components, torch.eye(8), rtol=0, atol=1e-9)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("map", ["whitening", "lmnn"])
def test_a_fitted_map_is_that_of_the_first_embeddings_and_stays(map: str, normalize: bool) -> None:
    settings = _birds(distance=f"mahalanobis/{map}", normalize_embeddings=normalize, learning_rate=0.01)
    after = experiment(settings, device="cpu")
    torch.manual_seed(0)
    assert isinstance(after.train, LabelledImages)
    x = embedder("linear", 6, channels=512)(after.train.images).detach()
    x = x / x.norm(dim=1, keepdim=True) if normalize else x
    estimator = LMNN() if map == "lmnn" else Whitening("ledoit_wolf", within_class=True)
    expected = estimator.fit(x.numpy(), after.train.labels.numpy()).components_
    assert isinstance(after.distance.map, LinearMap)
    scale = np.abs(expected).max()
    found = after.distance.map.components.numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=(0.02 if map == "lmnn" else 1e-3) * scale)
    assert not list(after.distance.parameters())
    assert len(after.train.classes) < 25, "validation classes have no part in it"


def test_to_fit_a_map_changes_neither_the_network_nor_the_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(model: nn.Module, *_: Any, **__: Any) -> Any:
        state = {name: value.clone() for name, value in model.state_dict().items()}
        seen.append((state, model.training, torch.get_rng_state()))
        raise KilledError

    monkeypatch.setattr(module, "train", watched)
    for distance in ("euclidean", "mahalanobis/whitening"):
        with pytest.raises(KilledError):
            experiment(_settings(distance=distance), device="cpu")
    (plain, mode, random), (fitted, other_mode, other_random) = seen
    assert all(torch.equal(value, fitted[name]) for name, value in plain.items())
    assert mode == other_mode
    assert torch.equal(random, other_random)


@pytest.mark.parametrize("distance", ABSOLUTE_OR_RELATIVE)
def test_the_untrained_baseline_has_the_map_of_the_training_images(distance: str) -> None:
    before = untrained(_birds(distance=distance))
    features = {split: load("cub_features", split) for split in ("train", "test")}
    assert torch.equal(before.embeddings, features["test"].images.flatten(1)), "the features, without a head"
    running = RunningWhitening(512)
    running.update(features["train"].images.flatten(1), features["train"].labels)
    found = before.distance.map.components
    torch.testing.assert_close(found, running.components, rtol=1e-4, atol=1e-4 * running.components.abs().max().item())


@pytest.mark.parametrize("distance", ["mahalanobis", "relative_mahalanobis", "relative_mahalanobis/learned"])
@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_killed_experiment_goes_on_to_the_same_bits_its_map_included(
    distance: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(distance=distance, steps=5)
    whole = experiment(settings, device="cpu")
    make_loss = module._loss

    def kill() -> None:
        raise KilledError

    monkeypatch.setattr(module, "_loss", lambda *arguments: stop_at(step, kill)(make_loss(*arguments)))
    with pytest.raises(KilledError):
        experiment(settings, tmp_path, "cpu")
    assert (tmp_path / "last.pt").exists() == (step > 2)
    monkeypatch.setattr(module, "_loss", make_loss)
    again = experiment(settings, tmp_path, "cpu")
    assert torch.equal(again.embeddings, whole.embeddings)
    pd.testing.assert_frame_equal(again.scores, whole.scores, check_exact=True)
    for name, value in whole.distance.map.state_dict().items():
        assert torch.equal(again.distance.map.state_dict()[name], value), name
    columns = ["loss", "gradient_norm", "validation"]
    pd.testing.assert_frame_equal(again.history[columns], whole.history[columns], check_exact=True)


def test_the_map_ends_as_it_was_with_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.9, 0.1])
    monkeypatch.setattr("snrlib.train._score", lambda *_: next(scores))
    done = experiment(_settings(distance="mahalanobis"), device="cpu")
    assert done.history.attrs["best"] == 2
    assert done.distance.map.get_buffer("weight").item() == pytest.approx(1 - 0.9**2), "of two batches, not of four"


@pytest.mark.parametrize("loss", ["contrastive", "triplet", "n_pair", "lifted", "ranked_list"])
@pytest.mark.parametrize("distance", ABSOLUTE_OR_RELATIVE)
def test_the_penalty_of_a_learned_map_is_in_units_of_the_loss_at_its_margin(loss: str, distance: str) -> None:
    settings = _settings(distance=f"{distance}/learned", loss=loss, margin=0.0 if loss == "n_pair" else 0.7)
    map = module._distance(settings, load("digits"), None)
    made = module._loss(settings, map, 3)
    assert isinstance(made.regularizer, LogDetRegularizer)
    assert made.regularizer.map is map.map
    # Relative distances enter the losses as they are, absolute ones squared; triplet's margin is compared with those.
    far = {"n_pair": 1.0, "ranked_list": 3 * 0.7}.get(loss, 0.7)
    power = 2 if distance == "mahalanobis" and loss != "triplet" else 1
    assert made.regularizer.weight == pytest.approx(0.1 * far**power)
    without = module._loss({**settings, "regularizer": 0.0}, map, 3)
    assert without.regularizer is None
    plain = module._loss(_settings(loss=loss, regularizer=0.1), get_distance("snr"), 3)
    assert isinstance(plain.regularizer, ZeroMeanRegularizer)
    running = module._loss({**settings, "distance": distance}, get_distance("snr"), 3)
    assert isinstance(running.regularizer, ZeroMeanRegularizer)


@pytest.mark.parametrize("loss", [*LOSSES, "softmax"])
def test_every_loss_trains_and_is_judged(loss: str) -> None:
    distance = "euclidean" if loss == "angular" else "snr"
    result = experiment(_settings(loss=loss, distance=distance, steps=2), device="cpu")
    assert result.history.loss.notna().all()
    assert result.scores.precision_at_1.between(0, 1).all()


def test_the_zero_mean_penalty_takes_part() -> None:
    plain, penalised = (experiment(_settings(regularizer=weight, steps=1), device="cpu") for weight in (0.0, 10.0))
    assert penalised.history.loss[1] > plain.history.loss[1] + 0.1


def test_a_frozen_trunk_keeps_its_weights_and_costs_the_same() -> None:
    before, after = untrained(_settings()), experiment(_settings(frozen_trunk=True), device="cpu")
    for name, value in after.model.state_dict().items():
        assert torch.equal(value, before.model.state_dict()[name]) == name.startswith("trunk."), name
    assert after.cost["trainable"] == 256 * 8 + 8
    assert after.cost["flops"] == before.cost["flops"]


def test_an_interrupted_experiment_goes_on(done: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment(_settings(), tmp_path, "cpu")
    before = (tmp_path / "last.pt").stat().st_mtime_ns
    again = experiment(_settings(), tmp_path, "cpu")
    assert (tmp_path / "last.pt").stat().st_mtime_ns == before, "no step was run again"
    assert torch.equal(again.embeddings, done.embeddings)
    with pytest.raises(ValueError, match=r"is of another training: .*seed was 0, is 1"):
        experiment(_settings(seed=1), tmp_path, "cpu")


def test_photographs_are_cropped_at_random_to_train_and_in_the_middle_to_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.fromarray(random.integers(0, 255, (40, 52, 3), dtype=np.uint8)).save(
                tmp_path / name / f"{number}.png"
            )
    sizes: dict[str, Any] = {}

    def watched(model: Any, data: Any, loss: Any, **options: Any) -> Any:
        image = data[0][0]
        torch.manual_seed(0)
        sizes.update(
            stored=image.shape, train=[options["augment"](image) for _ in range(2)], judge=options["crop"](image)
        )
        return train(model, data, loss, **options)

    train = module.train
    monkeypatch.setattr(module, "train", watched)
    settings = default_settings(
        "folder", "conv4", root=str(tmp_path), image_size=28, steps=1, batch_size=4, m=2, validation_share=0.5
    )
    result = experiment(settings, device="cpu")
    assert sizes["stored"] == (3, 32, 32)
    assert all(image.shape == (3, 28, 28) for image in [*sizes["train"], sizes["judge"]])
    assert not torch.equal(*sizes["train"])
    assert result.model.channels == 3
    assert len(result.embeddings) == 20


# --- results ----------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_came_out(done: Experiment, tmp_path: Path) -> None:
    done.save(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["embeddings.npz", "history.csv", "scores.csv"]
    history = pd.read_csv(tmp_path / "new" / "history.csv", index_col="step")
    assert history.loss.tolist() == pytest.approx(done.history.loss.tolist())
    scores = pd.read_csv(tmp_path / "new" / "scores.csv", index_col="distance")
    pd.testing.assert_frame_equal(scores, done.scores, check_names=False)
    with np.load(tmp_path / "new" / "embeddings.npz", allow_pickle=False) as stored:
        assert np.array_equal(stored["embeddings"], done.embeddings.numpy())
        assert np.array_equal(stored["labels"], done.test.labels.numpy())
        assert tuple(stored["classes"]) == done.test.classes
        assert "components" not in stored, "the settings alone make this distance"


@pytest.mark.parametrize("distance", [*ABSOLUTE_OR_RELATIVE, *FITTED_OR_LEARNED])
def test_a_map_is_saved_and_makes_the_same_distance_again(distance: str, tmp_path: Path) -> None:
    done = experiment(_settings(distance=distance, anchor="ref", normalize_embeddings=True, steps=1), device="cpu")
    done.save(tmp_path)
    with np.load(tmp_path / "embeddings.npz", allow_pickle=False) as stored:
        again = distance_of(done.settings, stored["components"])
    assert torch.equal(again(done.embeddings), done.distance(done.embeddings))
    assert (again.relative, again.anchor, again.normalize_embeddings) == (done.distance.relative, "ref", True)


def test_the_saved_model_gives_the_same_embeddings(done: Experiment, tmp_path: Path) -> None:
    done.save(tmp_path, model=True)
    torch.manual_seed(9)
    model = embedder("conv4", 8, weights=tmp_path / "model.pt")
    assert torch.equal(embed(model, done.test), done.embeddings)


def test_a_save_that_fails_leaves_the_files_before(done: Experiment, tmp_path: Path, monkeypatch: Any) -> None:
    done.save(tmp_path, model=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def half(path: Path, **_: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("numpy.savez_compressed", half)
    monkeypatch.setattr("pandas.DataFrame.to_csv", lambda self, path, **_: half(path))
    monkeypatch.setattr("torch.save", lambda state, path: half(path))
    for model in (True, False):
        with pytest.raises(OSError, match="disk full"):
            done.save(tmp_path, model)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_training_beats_the_untrained_network_on_unseen_characters() -> None:
    settings = default_settings("glyphs", "conv4", steps=100)
    before, after = untrained(settings), experiment(settings, device="cpu")
    assert after.scores.precision_at_1.iloc[0] > before.scores.precision_at_1.iloc[0] + 0.1


def test_the_unit_of_an_absolute_margin_is_the_mean_squared_distance_before_training() -> None:
    settings = default_settings("digits", "conv4", distance="euclidean", image_size=16, seed=3)
    train_set = load("digits", size=16)
    torch.manual_seed(3)
    model = embedder("conv4", settings["embedding_size"]).train()
    rows = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(3))[:64]
    x = model(train_set.images[rows]).detach()
    squared = [(x[i] - x[j]).square().sum().item() for i in range(64) for j in range(64) if i != j]
    assert initial_scale(settings) == pytest.approx(sum(squared) / len(squared), rel=1e-5)


@pytest.mark.parametrize("distance", ["mahalanobis", "mahalanobis/whitening", "mahalanobis/learned"])
def test_the_unit_of_a_mahalanobis_margin_is_the_mean_squared_distance_under_the_first_map(distance: str) -> None:
    settings = _birds(distance=distance, seed=3)
    train_set = load("cub_features")
    torch.manual_seed(3)
    x = embedder("linear", 6, channels=512)(train_set.images).detach().double()
    labels = train_set.labels
    within = x - torch.stack([x[labels == label].mean(dim=0) for label in labels])
    S = within.T @ within / (len(x) - 25)
    if distance == "mahalanobis":
        S = 0.9 * S + 0.1 * S.trace() / 6 * torch.eye(6)
    M = torch.eye(6, dtype=torch.float64) if distance == "mahalanobis/learned" else S.inverse()
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))[:64].tolist()
    squared = [((x[i] - x[j]) @ M @ (x[i] - x[j])).item() for i in rows for j in rows if i != j]
    # Ledoit and Wolf shrink the covariance of 750 vectors of 6 components by little.
    rel = 0.1 if distance == "mahalanobis/whitening" else 1e-3
    assert initial_scale(settings) == pytest.approx(np.mean(squared), rel=rel)
    if distance != "mahalanobis/learned":
        assert 2 * 6 * 0.5 < initial_scale(settings) < 2 * 6 * 5, "of whitened vectors, whatever the network's unit"


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["alexnet", "resnet18", "resnet50"])
def test_cells_of_the_profile_paper_run_on_small_copies_of_its_images(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are in study.yaml, but for weights that are not ImageNet's, smaller images and batches, and two steps."""
    data_copies.cub_copy(tmp_path, classes=8)
    data_copies.cars_copy(tmp_path, classes=8)
    data_copies.cifar_copy(tmp_path, monkeypatch, classes=10)
    weights = tmp_path / "weights.pth"
    torch.save(torchvision.models.get_model(backbone, weights=None).state_dict(), weights)
    small = {"root": str(tmp_path), "weights": str(weights), "image_size": 64, "batch_size": 8, "m": 2, "steps": 2}
    known = {name: parameter.default for name, parameter in parameters("05").items()}
    tried = set()
    for number, data in enumerate(("cars196", "cub200", "cifar10")):
        cells = [
            cell.values
            for cell in grid.cells("paper")
            if (cell.values["data"], cell.values["backbone"]) == (data, backbone)
        ]
        assert len(cells) == 2 * 4 * 5
        for cell in (cells[number * 5], cells[20 + (number + 1) * 5]):
            done = experiment(from_parameters(known | cell | small) | {"validation_share": 0.0})
            tried.add((cell["distance"], cell["loss"]))
            assert done.embeddings.shape[1] == 512
            assert torch.isfinite(done.embeddings).all()
            assert done.scores.precision_at_1.between(0, 1).all()
    assert {loss for _, loss in tried} == {"contrastive", "triplet", "n_pair", "lifted"}
    assert {distance for distance, _ in tried} == {"euclidean", "snr"}
