"""The training loop: what it computes, what it learns, which weights it keeps, and when it stops with words."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from training_cases import Result, assert_same_bits, counting, images, interrupted, losses, network, training

from snrlib.backbones import embed, embedder
from snrlib.data import LabelledImages, load
from snrlib.data.sets.folder import folder as image_folder
from snrlib.distances import get_distance
from snrlib.evaluate import retrieval
from snrlib.losses import TripletMarginLoss
from snrlib.sampling import MPerClassSampler
from snrlib.train import train
from snrlib.train.recipe import fastest_precision

# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_is_the_bare_loop(optimizer: Any) -> None:
    steps, batch, rate = 12, 16, 0.01
    data, model, loss = images(), network(seed=3), losses("map")
    parameters = [*model.parameters(), *loss.parameters()]
    bare: torch.optim.Optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.1)
    if optimizer == "sgd":
        bare = torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(bare, rate, total_steps=steps + 1, pct_start=0.25)
    rows = []
    for chosen in torch.tensor(list(MPerClassSampler(data.labels, 4, batch, steps * batch, seed=5))).split(batch):
        value = loss(model(data.images[chosen]), data.labels[chosen])
        bare.zero_grad()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        rows.append([value.item(), schedule.get_last_lr()[0], norm.item()])
        bare.step()
        schedule.step()
    again, again_loss = network(seed=3), losses("map")
    choices: dict[str, Any] = {"steps": steps, "batch_size": batch, "m": 4, "seed": 5, "optimizer": optimizer}
    choices |= {"learning_rate": rate, "weight_decay": 0.1, "warm_up": 0.25, "clip": 0.5, "precision": "float32"}
    history = train(again, data, again_loss, **choices)
    expected = pd.DataFrame(rows, columns=["loss", "learning_rate", "gradient_norm"], index=history.index)
    pd.testing.assert_frame_equal(history[expected.columns], expected, rtol=1e-5)
    assert expected.gradient_norm.max() > 0.5, "clipping had something to do"
    assert history.learning_rate.idxmax() == 4, "the rate rises for a quarter of the steps and one, then it falls"
    for ours, theirs in zip([*again.parameters(), *again_loss.parameters()], parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
def test_trunk_has_its_own_rate_or_none(frozen: bool) -> None:
    model = embedder("conv4", 8).freeze(trunk=frozen)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    choices: dict[str, Any] = {} if frozen else {"trunk_learning_rate": 1e-12, "weight_decay": 0}
    digits, others = load("digits", size=16), load("digits", "test", size=16).of_classes([0, 1])
    train(model, digits, losses("snr"), steps=2, batch_size=8, validation=others, **choices)
    moved = {name: (value - before[name]).abs().max().item() for name, value in model.state_dict().items()}
    assert min(move for name, move in moved.items() if name.startswith("head.")) > 1e-5
    if frozen:
        assert not any(move for name, move in moved.items() if name.startswith("trunk."))
    else:
        assert max(moved[name] for name, _ in model.named_parameters() if name.startswith("trunk.")) < 1e-9


def test_the_seed_decides_the_steps_and_validation_none() -> None:
    first, without = training("all at once"), training("all at once", validation=None)
    assert_same_bits(training("all at once", precision=fastest_precision()), first)
    assert training("all at once", seed=1)[0].loss.tolist() != first[0].loss.tolist()
    columns = ["loss", "learning_rate", "gradient_norm"]
    pd.testing.assert_frame_equal(first[0][columns], without[0][columns], check_exact=True)
    assert without[0].validation.isna().all()
    assert without[0].attrs["best"] == 10, "without it the last weights are the ones"


def test_random_numbers_are_fresh_and_the_callers_untouched() -> None:
    drawn = []

    def watch(image: Tensor) -> Tensor:
        drawn.append(torch.rand(()).item())
        return image

    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    train(network(dropout=0.5), images(), losses("snr"), steps=2, batch_size=8, augment=watch)
    assert torch.equal(torch.rand(3), expected)
    assert len(set(drawn)) == 16, "another for every image of every step"


def test_the_history_has_a_row_per_step() -> None:
    history, _ = training("AdamW")
    assert history.index.tolist() == list(range(1, 11))
    assert history.columns.tolist() == ["loss", "learning_rate", "gradient_norm", "seconds", "validation"]
    assert history.drop(columns="validation").notna().all(axis=None)
    assert history.index[history.validation.notna()].tolist() == [3, 6, 9, 10], "every third step, and the last"


def test_a_progress_line_counts_steps_if_asked(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    training("AdamW")
    assert capsys.readouterr().err == ""
    training("AdamW", progress=True)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1, "one line, written over"
    assert "10/10" in shown
    assert "validation=" in shown
    interrupted("AdamW", tmp_path, 8)
    training("AdamW", tmp_path, progress=True)
    assert "6/10" in capsys.readouterr().err, "a resumed one goes on counting"


def test_images_come_from_files_and_worker_processes(tmp_path: Path) -> None:
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


CUDA = pytest.param("float16", "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


@pytest.mark.parametrize(("precision", "device"), [("bfloat16", "cpu"), CUDA])
def test_half_precision_is_the_trunks_alone(precision: Any, device: str) -> None:
    seen: list[tuple[str, torch.dtype]] = []
    histories = []
    for one in (precision, "float32"):
        torch.manual_seed(0)
        model, loss = embedder("conv4", 16).to(device), losses("snr").to(device)
        for part in (model.trunk.get_submodule("0"), model.head, model):
            part.register_forward_hook(lambda part, given, out, one=one: seen.append((one, out.dtype)))
        data = load("digits", size=16)
        histories.append(train(model, data, loss, steps=3, batch_size=16, m=4, learning_rate=1e-5, precision=one))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    low = getattr(torch, precision)
    assert [dtype for one, dtype in seen if one == precision] == 3 * [low, torch.float32, torch.float32]
    assert {dtype for one, dtype in seen if one == "float32"} == {torch.float32}
    assert histories[0].loss.tolist() == pytest.approx(histories[1].loss.tolist(), rel=0.05)
    assert histories[0].loss.tolist() != histories[1].loss.tolist()


def test_a_processor_takes_no_float16() -> None:
    with pytest.raises(ValueError, match="precision float16 is for CUDA; on a processor bfloat16 or float32 are"):
        train(network(), images(), losses("snr"), steps=1, batch_size=8, precision="float16")


# --- what it learns ---------------------------------------------------------------------------------------------------


def test_a_few_steps_help_on_classes_never_seen() -> None:
    """R@1 under the SNR distance, the query its anchor; notebook 00 trains on, to above 0.6."""
    torch.manual_seed(0)
    model, found, others = embedder("conv4", 64), [], load("glyphs", "test").of_classes(range(40))
    for steps in (0, 10):
        if steps:
            train(model, load("glyphs"), TripletMarginLoss(get_distance("snr"), 0.5), steps=steps, batch_size=64)
        scores = retrieval(embed(model, others), others.labels, get_distance("snr"), ks=(1,))
        found.append(scores["precision_at_1"].mean())
    assert found[1] > found[0] + 0.1


@pytest.mark.parametrize("name", ["softmax", "relation", "map", "snr", "euclidean"])
def test_every_kind_of_loss_falls(name: str) -> None:
    data, others, model, loss = images(), images(6, seed=2), network(), losses(name)
    before = retrieval(embed(model, others), others.labels)["mean_average_precision_at_r"].mean()
    history = train(model, data, loss, steps=120, batch_size=16, learning_rate=0.02, precision="float32")
    assert history.loss[-10:].mean() < 0.7 * history.loss[:5].mean()
    if name == "softmax":
        predicted = loss.neurons(embed(model, data)).argmax(dim=1)  # type: ignore[operator]
        assert (predicted == data.labels).float().mean() > 0.9, "the classifier learns its classes"
        after = retrieval(embed(model, others), others.labels)["mean_average_precision_at_r"].mean()
        assert after > before, "and helps on others"


# --- validation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "distance"), [("snr", "snr"), ("euclidean", "euclidean"), ("softmax", "euclidean")])
def test_scores_are_map_at_r_in_evaluation_mode(loss: str, distance: str) -> None:
    model, seen = network(dropout=0.5, batch_norm=True), []

    class Watched(LabelledImages):
        def __getitems__(self, indices: Any) -> Any:
            seen.append(model.training)
            return super().__getitems__(indices)

    def mirror(image: Tensor) -> Tensor:
        return image.flip(2)

    others = Watched(**vars(images(4, seed=1)))
    choices: dict[str, Any] = {"steps": 4, "every": 2, "batch_size": 16, "validation": others, "crop": mirror}
    history = train(model.eval(), images(), losses(loss), **choices)
    assert seen == [False, False], "all 24 images twice, and in no step"
    assert model.training, "and the model is left as training has it"
    scores = retrieval(embed(model, others, transform=mirror), others.labels, get_distance(distance))
    assert history.validation.max() == scores["mean_average_precision_at_r"].mean(), "of the weights it ends with"


@pytest.mark.parametrize(
    ("scores", "patience", "last", "best"),
    [
        ([0.2, 0.6, 0.6, 0.5, 0.1, 0.1, 0.1], None, 20, 6),  # the first of two equal ones
        ([math.nan] * 7, None, 20, 20),  # a score that is not defined is never the best: the last weights are
        ([0.3, 0.5, 0.5, 0.4], 2, 12, 6),
        ([0.3, 0.5, 0.5, 0.4, 0.9, 0.1, 0.1], 3, 20, 15),  # a new best one starts the count again
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_the_model_ends_with_its_best_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_memory: bool, scores: list, patience: int, last: int, best: int
) -> None:
    given, seen = iter(scores), list[list[Tensor]]()
    monkeypatch.setattr("snrlib.train.loop._score", lambda *_: next(given))

    def once() -> Result:
        folder = None if in_memory else tmp_path
        return training("trainable map", folder, counting(seen), steps=20, patience=patience)

    history, weights = once()
    assert (history.index[-1], history.attrs["best"], next(given, None)) == (last, best, None)
    if best < last:
        assert torch.equal(weights["loss.distance.map.components"], seen[best][0]), "as the next step found it"
        assert not torch.equal(weights["loss.distance.map.components"], seen[best + 1][0])
    if not in_memory:
        assert_same_bits(once(), (history, weights))  # no step is left, and no judgement is asked for
        assert len(seen) == last
    if not in_memory and best < last:
        stored = torch.load(tmp_path / "best.pt", weights_only=True)
        assert (stored["step"], stored["validation"]) == (best, max(scores))
        assert all(torch.equal(value, weights[f"model.{name}"]) for name, value in stored["model"].items())


# --- what is refused -------------------------------------------------------------------------------------------------


class _Broken(nn.Module):
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return embeddings.sum() * float("nan")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (_Broken(), "the loss became nan at step 1 of 5"),
        (losses("euclidean"), "the embeddings are not finite any more, or too large for a distance, at step 2 of 5"),
    ],
)
@pytest.mark.parametrize("rate", [1e20, 1e38])
def test_what_is_not_finite_stops_with_its_step(loss: nn.Module, message: str, rate: float) -> None:
    with pytest.raises(FloatingPointError, match=message):
        train(network(), images(), loss, steps=5, batch_size=8, learning_rate=rate, optimizer="sgd")


def test_a_validation_of_what_has_grown_stops() -> None:
    with pytest.raises(FloatingPointError, match="embeddings of the validation images are not finite any more, or too"):
        training("all at once", loss="euclidean", steps=1, every=1, learning_rate=1e30, optimizer="sgd")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": None}, TypeError, "steps must be a whole number of at least 1, got None"),
        ({"optimizer": "adam"}, ValueError, "optimizer must be one of adamw, sgd, got 'adam'"),
        ({"precision": "half"}, ValueError, "precision must be one of auto, float32, bfloat16, float16, got 'half'"),
        ({"patience": 2}, ValueError, "patience needs validation images, got patience=2 without any"),
        ({"batch_size": 10}, ValueError, "batch_size must be a positive multiple of m"),
        ({"batch_size": 64}, ValueError, "a batch of 64 with 4 a class needs 16 classes, the labels hold 8"),
        ({"epochs": 3, "lr": 1}, TypeError, r"train\(\) knows no epochs, lr; its keywords are steps, .*, validation"),
        ({"recipe": 100}, TypeError, "recipe must be a Recipe, got 100"),
    ],
)
def test_misfits_are_refused_before_any_step(arguments: dict, error: type[Exception], message: str) -> None:
    steps: list[Any] = []
    with pytest.raises(error, match=message):
        train(network(), images(), counting(steps)(losses("snr")), **{"steps": 2, "batch_size": 16, **arguments})
    assert not steps
