"""Experiments: the same bits for the same seed, classes apart, maps that follow, are fitted or learned."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import data_copies
import numpy as np
import pandas as pd
import pytest
import torch
from experiment_cases import few_digits, small
from torch import nn
from training_cases import KilledError, stop_at

from snrlib.backbones import embed, embedder
from snrlib.data import LabelledImages, load
from snrlib.distances import MAPPED, LinearMap, get_distance
from snrlib.evaluate import retrieval
from snrlib.experiment import (
    MAPS,
    Experiment,
    Settings,
    default_settings,
    experiment,
    initial_scale,
    untrained,
)
from snrlib.experiment import running as module
from snrlib.experiment.parts import Parts, unfitted
from snrlib.losses import LOSSES, LogDetRegularizer, ZeroMeanRegularizer
from snrlib.mahalanobis import LMNN, RunningWhitening, Whitening
from snrlib.notebooks.parameters import parameters
from snrlib.study.profiles import cells
from snrlib.study.tuned import from_parameters
from snrlib.train.recipe import Recipe
from snrlib.train.state import Training
from snrlib.utils.torchvision_import import torchvision

MAPPINGS = [("euclidean", None), ("snr", None), *((name, kind) for name in MAPPED for kind in MAPS)]


def _birds(**changes: Any) -> Settings:
    """Features of photographs and a last layer alone: its embeddings do not depend on the batch."""
    return default_settings("cub_features", "linear", **{"steps": 2, "every": 2, "embedding_size": 6, **changes})


def assert_same(one: Experiment, other: Experiment) -> None:
    """Embeddings, scores, history and map, to the bit."""
    assert torch.equal(one.embeddings, other.embeddings)
    pd.testing.assert_frame_equal(one.scores, other.scores, check_exact=True)
    history, expected = (result.history.drop(columns="seconds") for result in (one, other))
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    state, wanted = (result.distance.map.state_dict() for result in (one, other))
    assert state.keys() == wanted.keys()
    for name, value in state.items():
        assert torch.equal(value, wanted[name]), name


@pytest.fixture(scope="module", autouse=True)
def _few_digits() -> Iterator[None]:
    with few_digits():
        yield


@pytest.fixture(scope="module")
def done() -> Experiment:
    return experiment(small(), device="cpu")


def test_another_seed_draws_other_bits_of_same_data(done: Experiment) -> None:
    other = experiment(small(seed=1), device="cpu")
    assert not torch.equal(other.embeddings, done.embeddings)
    assert other.fingerprints == done.fingerprints


def test_training_validation_and_test_classes_are_disjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, LabelledImages] = {}

    def watched(model: Any, data: Any, loss: Any, **options: Any) -> Any:
        seen.update(train=data, validation=options["validation"])
        return train(model, data, loss, **options)

    train = module.train
    monkeypatch.setattr(module, "train", watched)
    result = experiment(small(), device="cpu")
    groups = [set(data.classes) for data in (seen["train"], seen["validation"], result.test)]
    assert set.union(*groups) == set("0123456789")
    assert sum(map(len, groups)) == 10
    assert [len(group) for group in groups] == [3, 2, 5]
    assert result.train is seen["train"]
    pictures = [{data[i][0].numpy().tobytes() for i in range(len(data))} for data in (*seen.values(), result.test)]
    assert not pictures[0] & pictures[1]
    assert not (pictures[0] | pictures[1]) & pictures[2]


def test_the_training_distance_judges_the_test_classes(done: Experiment) -> None:
    test = load("digits", "test", size=16)
    assert torch.equal(done.embeddings, embed(done.model, test))
    scores = retrieval(done.embeddings, test.labels, get_distance("snr"))
    assert done.scores.precision_at_1["training distance, anchor query"] == pytest.approx(scores.precision_at_1.mean())
    assert done.scores.index.tolist() == ["training distance, anchor query", "training distance, anchor ref", "Euclid"]
    assert done.validation_score == done.history.validation.max() > 0
    assert done.history.attrs["best"] == done.history.validation.idxmax()
    assert done.cost["parameters"] == sum(p.numel() for p in done.model.parameters())
    assert done.cost["seconds_per_step"] > 0
    assert repr(done).startswith("Experiment(conv4 on digits, test; R@1 by training distance, anchor query: 0.")


def test_without_validation_all_training_classes_train(done: Experiment) -> None:
    result = experiment(small(validation_share=0.0, steps=1), device="cpu")
    assert len(result.train.classes) == 5
    assert np.isnan(result.validation_score)


def test_untrained_is_the_network_before_its_first_step(done: Experiment) -> None:
    before = untrained(small())
    torch.manual_seed(0)
    assert torch.equal(before.embeddings, embed(embedder("conv4", 8), done.test))
    assert before.scores.index.tolist() == done.scores.index.tolist()
    assert before.test.fingerprint == done.test.fingerprint
    assert np.isnan(before.validation_score)
    assert not before.row()["trained"]
    assert before.row()["best_step"] == 0


def test_given_weights_are_judged_by_pooled_features(done: Experiment, tmp_path: Path) -> None:
    weights = tmp_path / "whole.pt"
    torch.save(torchvision.models.get_model("squeezenet1_1").state_dict(), weights)
    before = untrained(replace(small(), backbone="squeezenet1_1", weights=str(weights)))
    pooled = embedder("squeezenet1_1", None, weights, channels=1)
    assert before.embeddings.shape == (len(done.test), 512)
    assert torch.equal(before.embeddings, embed(pooled, done.test))


@pytest.mark.parametrize("distance", ["snr", "mahalanobis"])
def test_a_saved_embedder_is_its_own_baseline(done: Experiment, tmp_path: Path, distance: str) -> None:
    done.save(tmp_path, model=True)
    settings = small(weights=str(tmp_path / "model.pt"), distance=distance, steps=1)
    assert torch.equal(untrained(settings).embeddings, done.embeddings)
    assert experiment(settings, device="cpu").embeddings.shape == done.embeddings.shape, "and it trains on"


@pytest.mark.parametrize(("distance", "kind"), MAPPINGS)
def test_the_seed_alone_decides_the_bits(distance: str, kind: str | None) -> None:
    settings = small(distance=distance, map=kind, steps=2)
    first = experiment(settings, device="cpu")
    torch.rand(5)  # the state of the caller does not matter
    again = experiment(settings, device="cpu")
    assert_same(again, first)
    assert first.history.loss.notna().all()
    assert first.distance.anchored == ("relative" in distance or distance == "snr")
    assert len(first.scores) == (3 if first.distance.anchored else 2)
    before = untrained(settings)
    assert before.scores.index.tolist() == first.scores.index.tolist()
    assert before.scores.precision_at_1.between(0, 1).all()
    if kind == "running" and first.distance.relative:
        judged = retrieval(first.embeddings, first.test.labels, first.distance).precision_at_1.mean()
        assert first.scores.precision_at_1.iloc[0] == judged


@pytest.mark.parametrize("name", MAPPED)
def test_running_maps_follow_batches_and_learned_ones_gradients(name: str) -> None:
    def mapped(**changes: Any) -> Any:
        return module.fit(small(distance=name, steps=3, every=3, **changes), device="cpu").distance.map

    running, learned, frozen = mapped(), mapped(map="learned"), mapped(map="learned", learning_rate=1e-12)
    assert isinstance(running, RunningWhitening)
    assert running.weight.item() == pytest.approx(1 - 0.9**3), "three batches were seen, and no validation image"
    assert isinstance(learned, LinearMap)
    assert isinstance(learned.components, nn.Parameter)
    assert not torch.equal(learned.components, torch.eye(8))
    torch.testing.assert_close(frozen.components, torch.eye(8), rtol=0, atol=1e-9)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("map", ["whitening", "lmnn"])
def test_a_fitted_map_is_of_the_first_embeddings(map: str, normalize: bool) -> None:
    settings = _birds(distance="mahalanobis", map=map, normalize_embeddings=normalize, learning_rate=0.01)
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


def test_fitting_a_map_leaves_network_and_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(model: nn.Module, *_: Any, **__: Any) -> Any:
        state = {name: value.clone() for name, value in model.state_dict().items()}
        seen.append((state, model.training, torch.get_rng_state()))
        raise KilledError

    monkeypatch.setattr(module, "train", watched)
    for distance, kind in (("euclidean", None), ("mahalanobis", "whitening")):
        with pytest.raises(KilledError):
            experiment(small(distance=distance, map=kind), device="cpu")
    (plain, mode, random), (fitted, other_mode, other_random) = seen
    assert all(torch.equal(value, fitted[name]) for name, value in plain.items())
    assert mode == other_mode
    assert torch.equal(random, other_random)


@pytest.mark.parametrize("distance", MAPPED)
def test_untrained_maps_are_of_the_training_images(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {split: load("cub_features", split).of_classes(range(5)) for split in ("train", "test")}
    monkeypatch.setattr(module, "images_of", lambda _, split: few[split])
    before = untrained(_birds(distance=distance))
    assert torch.equal(before.embeddings, few["test"].images.flatten(1)), "the features, without a head"
    running = RunningWhitening(512)
    running.update(few["train"].images.flatten(1), few["train"].labels)
    found = before.distance.map.components
    torch.testing.assert_close(found, running.components, rtol=1e-4, atol=1e-4 * running.components.abs().max().item())


@pytest.mark.parametrize(("distance", "kind"), [("mahalanobis", "running"), ("relative_mahalanobis", "learned")])
def test_a_killed_experiment_goes_on_with_its_map(
    distance: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(distance=distance, map=kind, steps=5)
    whole, make_loss = experiment(settings, device="cpu"), Parts.loss

    def kill() -> None:
        raise KilledError

    for step in (1, 4):  # before there is a checkpoint, and after that of step 2
        with monkeypatch.context() as killing:
            killing.setattr(Parts, "loss", lambda *given, step=step: stop_at(step, kill)(make_loss(*given)))
            with pytest.raises(KilledError):
                experiment(settings, tmp_path, "cpu")
        assert (tmp_path / "last.pt").exists() == (step > 2)
    assert_same(experiment(settings, tmp_path, "cpu"), whole)


def test_the_map_goes_with_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.9, 0.1])
    monkeypatch.setattr("snrlib.train.loop._score", lambda *_: next(scores))
    done = module.fit(small(distance="mahalanobis"), device="cpu")
    assert done.history.attrs["best"] == 2
    assert done.distance.map.get_buffer("weight").item() == pytest.approx(1 - 0.9**2), "of two batches, not of four"


@pytest.mark.parametrize("loss", ["contrastive", "triplet", "n_pair", "lifted", "ranked_list"])
@pytest.mark.parametrize("distance", MAPPED)
def test_the_penalty_of_maps_is_in_loss_units(loss: str, distance: str) -> None:
    margin = 0.0 if loss == "n_pair" else 0.7
    settings = small(distance=distance, map="learned", loss=loss, margin=margin)
    parts = unfitted(settings, 1)
    made: Any = parts.loss(settings, 3)
    assert isinstance(made.regularizer, LogDetRegularizer)
    assert made.regularizer.map is parts.distance.map
    # Relative distances enter the losses as they are, absolute ones squared; triplet's margin is compared with those.
    far = {"n_pair": 1.0, "ranked_list": 3 * 0.7}.get(loss, 0.7)
    power = 2 if distance == "mahalanobis" and loss != "triplet" else 1
    assert made.regularizer.weight == pytest.approx(0.1 * far**power)
    none: Any = parts.loss(replace(settings, regularizer=0.0), 3)
    assert none.regularizer is None
    for others in (small(loss=loss, regularizer=0.1), small(loss=loss, distance=distance, regularizer=0.1)):
        plain: Any = unfitted(others, 1).loss(others, 3)
        assert isinstance(plain.regularizer, ZeroMeanRegularizer)


@pytest.mark.parametrize("loss", [*LOSSES, "softmax"])
def test_every_loss_trains_and_is_judged(loss: str) -> None:
    distance = {"angular": "euclidean", "normalised_softmax": "cosine", "arcface": "correlation"}.get(loss, "snr")
    result = experiment(small(loss=loss, distance=distance, steps=2), device="cpu")
    assert result.history.loss.notna().all()
    assert result.scores.precision_at_1.between(0, 1).all()


def test_the_zero_mean_penalty_takes_part() -> None:
    plain, penalised = (module.fit(small(regularizer=weight, steps=1), device="cpu") for weight in (0.0, 10.0))
    assert penalised.history.loss[1] > plain.history.loss[1] + 0.1


def test_the_energy_confusion_moves_the_last_layer_alone() -> None:
    settings = small(steps=1, optimizer="sgd", regularizer=0.1)
    plain, confused = (module.fit(replace(settings, energy_confusion=w), device="cpu").model for w in (0.0, 0.13))
    for (name, a), b in zip(plain.state_dict().items(), confused.state_dict().values(), strict=True):
        assert torch.equal(a, b) == (name != "head.weight"), name


def test_proxies_have_a_rate_of_their_own() -> None:
    settings = small(loss="proxy_nca", distance="mahalanobis", map="learned")
    parts = unfitted(settings, 1)
    loss: Any = parts.loss(settings, 6)
    loss.rate = 3.0
    training = Training(parts.model, loss, Recipe(steps=10, learning_rate=0.01, trunk_learning_rate=0.001))
    rates = {id(p): group["max_lr"] for group in training.optimizer.param_groups for p in group["params"]}
    wanted = ((loss.proxies, 0.03), (loss.distance.map.components, 0.01), (parts.model.head.weight, 0.01))
    assert all(rates[id(p)] == pytest.approx(rate) for p, rate in wanted)
    _, told, _ = training.take_step(parts.model, torch.rand(4, 1, 16, 16), torch.tensor([0, 0, 1, 1]))
    assert told == pytest.approx(0.01 / 25), "the head's, as one-cycle begins"


def test_a_frozen_trunk_keeps_its_weights() -> None:
    before, after = untrained(small()), experiment(small(frozen_trunk=True), device="cpu")
    for name, value in after.model.state_dict().items():
        assert torch.equal(value, before.model.state_dict()[name]) == name.startswith("trunk."), name
    assert after.cost["trainable"] == 256 * 8 + 8
    assert after.cost["flops"] == before.cost["flops"]


def test_an_interrupted_experiment_goes_on(done: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment(small(), tmp_path, "cpu")
    before = (tmp_path / "last.pt").stat().st_mtime_ns
    again = experiment(small(), tmp_path, "cpu")
    assert (tmp_path / "last.pt").stat().st_mtime_ns == before, "no step was run again"
    assert torch.equal(again.embeddings, done.embeddings)
    with pytest.raises(ValueError, match=r"is of another training: .*seed was 0, is 1"):
        experiment(small(seed=1), tmp_path, "cpu")


def test_photographs_are_cropped_to_train_and_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_unit_of_a_margin_is_before_training() -> None:
    settings = default_settings("digits", "conv4", distance="euclidean", image_size=16, seed=3)
    train_set = load("digits", size=16)
    torch.manual_seed(3)
    model = embedder("conv4", settings.embedding_size).train()
    rows = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(3))[:64]
    x = model(train_set.images[rows]).detach()
    squared = [(x[i] - x[j]).square().sum().item() for i in range(64) for j in range(64) if i != j]
    assert initial_scale(settings) == pytest.approx(sum(squared) / len(squared), rel=1e-5)


@pytest.mark.parametrize("kind", ["running", "whitening", "learned"])
def test_the_unit_of_a_margin_is_under_the_first_map(kind: str) -> None:
    settings = _birds(distance="mahalanobis", map=kind, seed=3)
    train_set = load("cub_features")
    torch.manual_seed(3)
    x = embedder("linear", 6, channels=512)(train_set.images).detach().double()
    labels = train_set.labels
    within = x - torch.stack([x[labels == label].mean(dim=0) for label in labels])
    S = within.T @ within / (len(x) - 25)
    if kind == "running":
        S = 0.9 * S + 0.1 * S.trace() / 6 * torch.eye(6)
    M = torch.eye(6, dtype=torch.float64) if kind == "learned" else S.inverse()
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))[:64].tolist()
    squared = [((x[i] - x[j]) @ M @ (x[i] - x[j])).item() for i in rows for j in rows if i != j]
    # Ledoit and Wolf shrink the covariance of 750 vectors of 6 components by little.
    rel = 0.1 if kind == "whitening" else 1e-3
    assert initial_scale(settings) == pytest.approx(np.mean(squared), rel=rel)
    if kind != "learned":
        assert 2 * 6 * 0.5 < initial_scale(settings) < 2 * 6 * 5, "of whitened vectors, whatever the network's unit"


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["alexnet", "resnet18", "resnet50"])
def test_cells_of_paper_run_on_small_copies(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are in study.yaml, but for weights that are not ImageNet's, smaller images and batches, and two steps."""
    data_copies.cub_copy(tmp_path, classes=8)
    data_copies.cars_copy(tmp_path, classes=8)
    data_copies.cifar_copy(tmp_path, monkeypatch, classes=10, tested=2)
    weights = tmp_path / "weights.pth"
    torch.save(torchvision.models.get_model(backbone, weights=None).state_dict(), weights)
    changes = {"root": str(tmp_path), "weights": str(weights), "image_size": 64, "batch_size": 8, "m": 2, "steps": 2}
    known = {name: parameter.default for name, parameter in parameters("07").items()}
    tried = set()
    for data, chosen in (("cars196", [0]), ("cub200", [25]), ("cifar10", [10, 35])):
        own = [
            cell.values for cell in cells("paper") if (cell.values["data"], cell.values["backbone"]) == (data, backbone)
        ]
        assert len(own) == 2 * 4 * 5
        for cell in (own[number] for number in chosen):
            done = experiment(from_parameters(known | cell | changes | {"validation_share": 0.0}))
            tried.add((cell["distance"], cell["loss"]))
            assert done.embeddings.shape[1] == 512
            assert torch.isfinite(done.embeddings).all()
            assert done.scores.precision_at_1.between(0, 1).all()
    assert {loss for _, loss in tried} == {"contrastive", "triplet", "n_pair", "lifted"}
    assert {distance for distance, _ in tried} == {"euclidean", "snr"}
