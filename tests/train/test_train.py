"""The training loop: what it computes, what survives a kill, and that it stops with words when it cannot go on."""

import math
import os
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from training_cases import (
    CASES,
    KilledError,
    Result,
    flip,
    images,
    losses,
    network,
    processes,
    stop_at,
    training,
    training_in_slow_motion,
    training_that_dies,
    training_that_dies_between_its_checkpoints,
)

from snrlib.backbones import embed, embedder
from snrlib.data import LabelledImages, load
from snrlib.data.sets.folder import folder as image_folder
from snrlib.distances import get_distance
from snrlib.evaluate import retrieval
from snrlib.losses import TripletMarginLoss, ZeroMeanRegularizer
from snrlib.sampling import MPerClassSampler
from snrlib.train import train

every_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Bits depend on how many threads share a sum; the processes that are killed have one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _assert_same_bits(result: Result, expected: Result) -> None:
    """Weights and history, but for the seconds."""
    history, weights = result
    other_history, other_weights = expected
    pd.testing.assert_frame_equal(
        history.drop(columns="seconds"), other_history.drop(columns="seconds"), check_exact=True
    )
    assert history.attrs["best"] == other_history.attrs["best"]
    assert weights.keys() == other_weights.keys()
    for name, value in weights.items():
        assert torch.equal(value, other_weights[name]), name


# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_is_the_bare_loop_of_sampler_optimizer_and_one_cycle(optimizer: Any) -> None:
    steps, batch, rate = 12, 16, 0.01
    data, model, loss = images(), network(seed=3), losses("map")
    parameters = [*model.parameters(), *loss.parameters()]
    bare: torch.optim.Optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.1)
    if optimizer == "sgd":
        bare = torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(bare, rate, total_steps=steps + 1, pct_start=0.25)
    indices = list(MPerClassSampler(data.labels, 4, batch, length=steps * batch, seed=5))
    values, rates, norms = [], [], []
    for start in range(0, steps * batch, batch):
        chosen = torch.tensor(indices[start : start + batch])
        value = loss(model(data.images[chosen]), data.labels[chosen])
        bare.zero_grad()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        values.append(value.item())
        rates.append(schedule.get_last_lr()[0])
        norms.append(norm.item())
        bare.step()
        schedule.step()
    again, again_loss = network(seed=3), losses("map")
    choices: dict[str, Any] = {"steps": steps, "batch_size": batch, "m": 4, "seed": 5, "optimizer": optimizer}
    choices |= {"learning_rate": rate, "weight_decay": 0.1, "warm_up": 0.25, "clip": 0.5}
    history = train(again, data, again_loss, **choices)
    assert history.loss.tolist() == pytest.approx(values, rel=1e-6)
    assert history.learning_rate.tolist() == rates
    assert history.gradient_norm.tolist() == pytest.approx(norms, rel=1e-5)
    assert max(norms) > 0.5, "clipping had something to do"
    for ours, theirs in zip([*again.parameters(), *again_loss.parameters()], parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_learning_rate_rises_for_the_warm_up_and_then_falls() -> None:
    history = train(network(), images(), losses("snr"), steps=40, batch_size=16, learning_rate=0.01, warm_up=0.25)
    rate = history.learning_rate
    assert rate.idxmax() == pytest.approx(10, abs=1)
    assert rate.max() == pytest.approx(0.01, rel=1e-2)
    assert rate[:10].is_monotonic_increasing
    assert rate[11:].is_monotonic_decreasing
    assert rate.iloc[-1] < 1e-4


def test_the_trunk_has_a_learning_rate_of_its_own() -> None:
    model = embedder("conv4", 8)
    before = {name: value.clone() for name, value in model.named_parameters()}
    digits = load("digits", size=16)
    train(model, digits, losses("snr"), steps=2, batch_size=8, trunk_learning_rate=1e-12, weight_decay=0)
    moved = {name: (value - before[name]).abs().max().item() for name, value in model.named_parameters()}
    assert max(move for name, move in moved.items() if name.startswith("trunk.")) < 1e-9
    assert min(move for name, move in moved.items() if name.startswith("head.")) > 1e-5


def test_what_is_trainable_in_the_loss_is_trained() -> None:
    for name in ("softmax", "relation", "map"):
        loss = losses(name)
        before = [value.clone() for value in loss.parameters()]
        train(network(), images(), loss, steps=2, batch_size=16)
        assert before
        assert not any(torch.equal(a, b) for a, b in zip(before, loss.parameters(), strict=True)), name


def test_frozen_parameters_stay_as_they_are() -> None:
    model = embedder("conv4", 8).freeze(trunk=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(
        model, load("digits", size=16), losses("snr"), steps=2, batch_size=8, validation=load("digits", "test", size=16)
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("trunk."), name


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (training("all at once", None, seed=seed) for seed in (0, 0, 1))
    _assert_same_bits(first, again)
    assert first[0].loss.tolist() != other[0].loss.tolist()
    _assert_same_bits(training("all at once", tmp_path), first)


def test_the_random_numbers_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    training("all at once", None)
    assert torch.equal(torch.rand(3), expected)


def test_dropout_and_augmentation_differ_from_step_to_step() -> None:
    seen = []

    def watch(image: Tensor) -> Tensor:
        seen.append(torch.rand(()).item())
        return image

    train(network(), images(), losses("snr"), steps=2, batch_size=8, augment=watch)
    assert len(set(seen)) == 16


def test_the_history_has_a_row_a_step() -> None:
    history, _ = training("AdamW", None)
    assert history.index.tolist() == list(range(1, 11))
    assert history.columns.tolist() == ["loss", "learning_rate", "gradient_norm", "seconds", "validation"]
    assert history.drop(columns="validation").notna().all(axis=None)
    assert history.seconds.is_monotonic_increasing
    assert history.index[history.validation.notna()].tolist() == [3, 6, 9, 10], "every third step, and the last"


def test_a_progress_line_counts_the_steps_if_asked(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    training("AdamW", None)
    assert capsys.readouterr().err == ""
    training("AdamW", None, progress=True)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1, "one line, written over"
    assert "10/10" in shown
    assert "validation=" in shown
    with pytest.raises(KilledError):
        training("AdamW", tmp_path, stop_at(8, _kill))
    training("AdamW", tmp_path, progress=True)
    assert "6/10" in capsys.readouterr().err, "a resumed one goes on counting"


def test_images_can_come_from_files_and_by_worker_processes(tmp_path: Path) -> None:
    random_numbers = np.random.default_rng(0)
    for name in "abcd":
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = random_numbers.integers(0, 255, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    files = image_folder(root=tmp_path, size=8, share=0.5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    start = {key: value.clone() for key, value in model.state_dict().items()}
    histories = []
    for data, workers in ((files, 0), (files.in_memory(), 0), (files, 2)):
        model.load_state_dict(start)
        histories.append(train(model, data, losses("euclidean"), steps=3, batch_size=4, m=2, workers=workers).loss)
    assert histories[0].tolist() == histories[1].tolist() == histories[2].tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="mixed precision is for CUDA")
def test_mixed_precision_computes_the_network_in_float16_and_learns_about_the_same() -> None:
    seen = []
    histories = []
    for half in (True, False):
        model = network().cuda()
        model.get_submodule("0").register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
        loss = losses("snr").cuda()
        histories.append(train(model, images(), loss, steps=10, batch_size=16, mixed_precision=half))
    assert set(seen[:10]) == {torch.float16}
    assert set(seen[10:]) == {torch.float32}
    assert histories[0].loss.tolist() == pytest.approx(histories[1].loss.tolist(), rel=0.05)


def test_on_the_cpu_mixed_precision_changes_nothing() -> None:
    _assert_same_bits(training("AdamW", None, mixed_precision=True), training("AdamW", None, mixed_precision=False))


# --- what it learns ---------------------------------------------------------------------------------------------------


def _r1(model: nn.Module, data: LabelledImages) -> float:
    """R@1 under the SNR distance, the query its anchor."""
    return retrieval(embed(model, data.images), data.labels, get_distance("snr"))["precision_at_1"].mean()


def _trained(steps: int) -> nn.Module:
    torch.manual_seed(0)
    model = embedder("conv4", 64)
    train(model, load("glyphs"), TripletMarginLoss(get_distance("snr"), 0.5), steps=steps)
    return model


def test_a_few_steps_already_help_on_classes_never_seen() -> None:
    test_set = load("glyphs", "test")
    torch.manual_seed(0)
    before = _r1(embedder("conv4", 64), test_set)
    after = _r1(_trained(20), test_set)
    assert after > before + 0.05


@pytest.mark.slow
def test_400_steps_reach_070_on_unseen_characters() -> None:
    assert _r1(_trained(400), load("glyphs", "test")) >= 0.70


@pytest.mark.parametrize("loss", ["softmax", "relation", "map", "snr", "euclidean"])
def test_every_kind_of_loss_falls_under_the_same_loop(loss: str) -> None:
    history = train(network(), images(), losses(loss), steps=120, batch_size=16, learning_rate=0.02)
    assert history.loss[-10:].mean() < 0.7 * history.loss[:5].mean()


def test_the_softmax_classifier_learns_its_classes_and_helps_on_others() -> None:
    data, others = images(), images(6, seed=2)
    model, loss = network(), losses("softmax")
    before = retrieval(embed(model, others), others.labels)["mean_average_precision_at_r"].mean()
    train(model, data, loss, steps=120, batch_size=16, learning_rate=0.02)
    predicted = loss.neurons(embed(model, data)).argmax(dim=1)  # type: ignore[operator]
    assert (predicted == data.labels).float().mean() > 0.9
    assert retrieval(embed(model, others), others.labels)["mean_average_precision_at_r"].mean() > before


# --- validation -------------------------------------------------------------------------------------------------------


class _Watched(LabelledImages):
    """Images that remember whether the network was training when they were asked for."""

    model: nn.Module

    def __getitem__(self, index: int) -> Any:
        assert not self.model.training, "a validation image is trained on"
        return super().__getitem__(index)

    def __getitems__(self, indices: Any) -> Any:
        assert not self.model.training, "a validation image is trained on"
        return super().__getitems__(indices)


def test_validation_images_are_seen_in_evaluation_mode_only() -> None:
    model, others = network(dropout=0.5, batch_norm=True), images(4, seed=1)
    watched = _Watched("watched", others.images, others.labels, others.classes)
    watched.model = model
    history = train(model, images(), losses("snr"), steps=4, every=2, batch_size=16, validation=watched)
    assert history.validation.notna().sum() == 2
    assert model.training, "and the model is left as training has it"


def test_validation_changes_no_step_of_the_training() -> None:
    with_it, _ = training("all at once", None)
    without, _ = training("all at once", None, validation=None)
    columns = ["loss", "learning_rate", "gradient_norm"]
    pd.testing.assert_frame_equal(with_it[columns], without[columns], check_exact=True)
    assert without.validation.isna().all()
    assert without.attrs["best"] == 10, "without it the last weights are the ones"


def _scores(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Let the judgements come out like this, one after the other."""
    given = iter(scores)
    monkeypatch.setattr("snrlib.train._score", lambda *_: next(given))


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_model_ends_with_the_weights_of_the_best_validation_score(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_memory: bool
) -> None:
    seen = []
    _scores(monkeypatch, 0.2, 0.6, 0.6, 0.5)

    def wrap(loss: nn.Module) -> nn.Module:
        loss.register_forward_pre_hook(lambda module, _: seen.append([p.clone() for p in module.parameters()]))
        return loss

    history, weights = training("trainable map", None if in_memory else tmp_path, wrap)
    assert history.attrs["best"] == 6, "the first of two equal ones"
    assert torch.equal(weights["loss.distance.map.components"], seen[6][0]), "as step 7 found it"
    assert not torch.equal(weights["loss.distance.map.components"], seen[9][0])
    if not in_memory:
        best = torch.load(tmp_path / "best.pt", weights_only=True)
        assert (best["step"], best["validation"]) == (6, 0.6)
        for key, value in best["model"].items():
            assert torch.equal(value, weights[f"model.{key}"])


def test_the_score_is_map_at_r_under_the_distance_of_the_loss() -> None:
    others = images(4, seed=1)
    for name in ("snr", "euclidean"):
        model, loss = network(), losses(name)
        history = train(model, images(), loss, steps=2, batch_size=16, validation=others)
        scores = retrieval(embed(model, others), others.labels, get_distance(name))
        assert history.validation[2] == scores["mean_average_precision_at_r"].mean()
    model = network()
    history = train(model, images(), losses("softmax"), steps=2, batch_size=16, validation=others)
    scores = retrieval(embed(model, others), others.labels, get_distance("euclidean"))
    assert history.validation[2] == scores["mean_average_precision_at_r"].mean(), "a classifier by Euclid"


def test_patience_stops_after_so_many_judgements_without_a_new_best_score(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _scores(monkeypatch, 0.3, 0.5, 0.5, 0.4, 0.9)
    history, weights = training("AdamW", tmp_path, steps=20, patience=2)
    assert history.index[-1] == 12
    assert history.attrs["best"] == 6
    again = training("AdamW", tmp_path, steps=20, patience=2)  # no judgement is left, and none is asked for
    _assert_same_bits(again, (history, weights))
    _scores(monkeypatch, 0.3, 0.5, 0.5, 0.4, 0.9, 0.1, 0.1)
    assert training("AdamW", None, steps=20, patience=3)[0].index[-1] == 20, "a new best score starts the count again"


def test_a_score_that_is_not_defined_is_never_the_best(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        _scores(monkeypatch, *[math.nan] * 4)
        history, _ = training("AdamW", folder)
        assert history.attrs["best"] == 10


# --- going on ---------------------------------------------------------------------------------------------------------


def _kill() -> None:
    raise KilledError


@every_case
def test_a_resumed_training_ends_with_the_bits_of_an_uninterrupted_one(case: str, tmp_path: Path) -> None:
    expected = training(case, None)
    for step in (8, 3):  # the second begins at 7 and is stopped at 9; neither step has a checkpoint
        with pytest.raises(KilledError):
            training(case, tmp_path, stop_at(step, _kill))
        torch.rand(7)  # other work of the process in between
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 6
    _assert_same_bits(training(case, tmp_path), expected)
    _assert_same_bits(training(case, tmp_path), expected)  # a finished one is read, and not run again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


def test_seconds_go_on_counting(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        training("AdamW", tmp_path, stop_at(8, _kill))
    history, _ = training("AdamW", tmp_path)
    assert history.seconds.is_monotonic_increasing


def test_at_most_the_steps_since_the_last_checkpoint_are_repeated(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        training("AdamW", tmp_path, stop_at(9, _kill))
    seen = []

    def wrap(loss: nn.Module) -> nn.Module:
        loss.register_forward_pre_hook(lambda *_: seen.append(1))
        return loss

    training("AdamW", tmp_path, wrap)
    assert len(seen) == 4, "7, 8, 9 and 10"


def _run(target: Any, *arguments: Any) -> int:
    process = processes().Process(target=target, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


def test_kill_9_in_any_step_loses_at_most_the_steps_since_the_last_checkpoint(tmp_path: Path) -> None:
    expected = training("all at once", None)
    assert _run(training_that_dies, "all at once", tmp_path, 2) == -9
    assert not (tmp_path / "last.pt").exists(), "nothing to go on from yet"
    assert _run(training_that_dies, "all at once", tmp_path, 5) == -9
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 3
    assert _run(training_that_dies, "all at once", tmp_path, 6) == -9
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 6
    _assert_same_bits(training("all at once", tmp_path), expected)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_kill_9_between_last_and_best_loses_neither(tmp_path: Path, number: int) -> None:
    assert _run(training_that_dies_between_its_checkpoints, "AdamW", tmp_path, number) == -9
    _assert_same_bits(training("AdamW", tmp_path), training("AdamW", None))
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert best["step"] == training("AdamW", None)[0].attrs["best"]


def test_kill_9_at_random_moments_also_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    expected = training("all at once", None)
    random_numbers, log, kills, saving = random.Random(), tmp_path / "log", 0, 0
    folder = tmp_path / "checkpoints"
    for attempt in range(4):
        log.write_text("")
        process = processes().Process(target=training_in_slow_motion, args=("all at once", folder, attempt, log))
        process.start()
        events = random_numbers.randrange(1, 6)
        wanted = "saving" if attempt % 2 else "step"
        while process.is_alive() and (log.read_text().count(wanted) < (1 if attempt % 2 else events)):
            time.sleep(0.005)
        time.sleep(random_numbers.uniform(0, 0.05))
        kills += process.is_alive()
        process.kill()
        process.join()
        saving += log.read_text().endswith("saving\n")
        if (folder / "last.pt").exists():
            torch.load(folder / "last.pt", weights_only=True)  # whole, whenever it was
    assert kills >= 2
    assert saving >= 1
    _assert_same_bits(training("all at once", folder), expected)
    assert sorted(path.name for path in folder.iterdir()) == ["best.pt", "last.pt"], "what kills left behind is gone"


# --- checkpoints that do not fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 11}, "steps was 10, is 11"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"batch_size": 8}, "batch_size was 16, is 8"),
        ({"m": 2}, "m was 4, is 2"),
        ({"every": 4}, "every was 3, is 4"),
        ({"patience": 1}, "patience was None, is 1"),
        ({"optimizer": "sgd"}, "optimizer was 'adamw', is 'sgd'"),
        ({"learning_rate": 0.02}, r"learning_rate was 0\.01, is 0\.02"),
        ({"trunk_learning_rate": 0.02}, r"trunk_learning_rate was None, is 0\.02"),
        ({"weight_decay": 0.0}, r"weight_decay was 0\.01, is 0\.0"),
        ({"warm_up": 0.5}, r"warm_up was 0\.3, is 0\.5"),
        ({"clip": 1.0}, r"clip was None, is 1\.0"),
        ({"augment": flip}, "augment was 'None', is '<function flip>'"),
        ({"crop": nn.Identity()}, r"crop was 'None', is 'Identity\(\)'"),
        ({"validation": None}, "validation was '[0-9a-f]{16}', is None"),
        ({"validation": images(4, seed=9)}, "validation was '[0-9a-f]{16}', is '[0-9a-f]{16}'"),
        ({"network": {"dropout": 0.5}}, r"model was (.|\n)*p=0\.0(.|\n)*, is (.|\n)*p=0\.5"),
        ({"loss": "euclidean"}, "loss was "),
        ({"loss": "softmax"}, "loss was .*trainable parameters was"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_by_what_differs(tmp_path: Path, change: dict, named: str) -> None:
    training("AdamW", tmp_path, steps=change.get("steps", 11) - 1 if "steps" in change else 10)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(ValueError, match="(?s)" + named) as raised:
        training("AdamW", tmp_path, **change)
    assert f"{tmp_path / 'last.pt'} is of another training" in str(raised.value)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_other_images_margins_and_regularizers_are_another_training(tmp_path: Path) -> None:
    def once(seed: int = 0, margin: float = 0.5, weight: float = 0.1) -> None:
        loss = TripletMarginLoss(get_distance("snr"), margin, regularizer=ZeroMeanRegularizer(weight))
        train(network(), images(seed=seed), loss, steps=1, batch_size=16, folder=tmp_path)

    once()
    with pytest.raises(ValueError, match="data was "):
        once(seed=1)
    with pytest.raises(ValueError, match="loss was "):
        once(margin=0.6)
    with pytest.raises(ValueError, match="loss was "):
        once(weight=0.2)


def test_a_callable_without_a_repr_of_its_own_is_the_same_in_another_process(tmp_path: Path) -> None:
    def once() -> pd.DataFrame:
        return train(
            network(), images(), losses("snr"), steps=1, batch_size=16, folder=tmp_path, augment=lambda image: image
        )

    assert once().loss.tolist() == once().loss.tolist()


def test_numbers_of_numpy_can_be_gone_on_from(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {
        "steps": np.int64(10),
        "every": np.int64(3),
        "seed": np.int64(0),
        "patience": np.int64(9),
    }
    numbers |= {name: np.float64(0.01) for name in ("learning_rate", "trunk_learning_rate", "weight_decay", "clip")}
    with pytest.raises(KilledError):
        training("AdamW", tmp_path, stop_at(8, _kill), **numbers)
    _assert_same_bits(training("AdamW", tmp_path, **numbers), training("AdamW", None, **numbers))


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:100],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-5],
        lambda whole: b"not a checkpoint at all",
    ],
    ids=["empty", "its beginning", "half", "all but the end", "text"],
)
@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path: Path, name: str, damage: Any) -> None:
    training("AdamW", tmp_path)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(ValueError, match=r"Remove last\.pt and best\.pt to start from step 1") as raised:
        training("AdamW", tmp_path)
    assert str(tmp_path / name) in str(raised.value)
    for path in tmp_path.iterdir():
        path.unlink()
    _assert_same_bits(training("AdamW", tmp_path), training("AdamW", None))


def test_a_flipped_bit_anywhere_in_the_weights_is_noticed(tmp_path: Path) -> None:
    training("AdamW", tmp_path)
    path = tmp_path / "last.pt"
    whole = path.read_bytes()
    bytes_of_a_weight = torch.load(path, weights_only=True)["model"]["5.weight"].numpy().tobytes()
    place = whole.index(bytes_of_a_weight) + len(bytes_of_a_weight) // 2
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ValueError, match=r"last\.pt is damaged"):
        training("AdamW", tmp_path)


def test_weights_are_no_checkpoint(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt is damaged, or no checkpoint"):
        training("AdamW", tmp_path)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"settings": {}, "model": {}, "loss": {}, "step": Evil()}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt is damaged, or no checkpoint"):
        training("AdamW", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_cannot_be_written_is_an_error_before_any_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            training("AdamW", folder, stop_at(1, _kill))
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_disk_is_an_error_with_a_name_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        training("AdamW", tmp_path, stop_at(4, _kill))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # no file can grow beyond 2,000 bytes
    try:
        with pytest.raises(OSError, match=r"(last|best)\.pt could not be written"):
            training("AdamW", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    _assert_same_bits(training("AdamW", tmp_path), training("AdamW", None))


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_training_with_its_step() -> None:
    class Broken(nn.Module):
        def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            return embeddings.sum() * float("nan")

    with pytest.raises(FloatingPointError, match="became nan at step 1 of 5"):
        train(network(), images(), Broken(), steps=5, batch_size=8)


def test_embeddings_that_are_not_finite_stop_the_training_with_its_step() -> None:
    with pytest.raises(FloatingPointError, match="embeddings are not finite any more at step 2 of 5"):
        train(network(), images(), losses("euclidean"), steps=5, batch_size=8, learning_rate=1e38, optimizer="sgd")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps and learning_rate must be positive, got 0"),
        ({"learning_rate": 0.0}, "steps and learning_rate must be positive"),
        ({"warm_up": 0.0}, r"warm_up must be in \(0, 1\)"),
        ({"warm_up": 1.0}, r"warm_up must be in \(0, 1\)"),
        ({"every": 0}, "every at least 1"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"clip": math.nan}, "clip must be positive"),
        ({"patience": 2}, "patience needs validation images"),
        ({"patience": 0, "validation": images()}, "patience needs validation images and must be at least 1"),
        ({"optimizer": "adam"}, "optimizer must be one of adamw, sgd, got 'adam'"),
        ({"batch_size": 10}, "batch_size must be a positive multiple of m"),
        ({"batch_size": 64}, "a batch of 64 with 4 a class needs 16 classes, the labels hold 8"),
    ],
)
def test_values_out_of_range_are_refused_before_any_step(arguments: dict, message: str) -> None:
    def wrap(loss: nn.Module) -> nn.Module:
        return stop_at(1, _kill)(loss)

    with pytest.raises(ValueError, match=message):
        train(network(), images(), wrap(losses("snr")), **{"steps": 2, "batch_size": 16, **arguments})
