"""The training loop: seeded, it learns, and it stops with words when it cannot."""

import pytest
import torch

from snrlib.backbones import embed, embedder
from snrlib.data import LabelledImages, load
from snrlib.distances import get_distance
from snrlib.evaluate import retrieval
from snrlib.losses import TripletMarginLoss
from snrlib.train import train


def _r1(model: torch.nn.Module, data: LabelledImages) -> float:
    """R@1 under the SNR distance, the query its anchor."""
    return retrieval(embed(model, data.images), data.labels, get_distance("snr"))["precision_at_1"].mean()


def _trained(steps: int, seed: int = 0, data: LabelledImages | None = None) -> tuple[torch.nn.Module, list[float]]:
    torch.manual_seed(seed)
    model = embedder("conv4", 64)
    loss = TripletMarginLoss(get_distance("snr"), 0.5)
    history = train(model, data or load("glyphs", seed=seed), loss, steps=steps, seed=seed)
    return model, history.loss.tolist()


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    (first, loss), (second, again), (_, other) = _trained(3), _trained(3), _trained(3, seed=1)
    assert loss == again
    assert loss != other
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_history_has_a_row_a_step() -> None:
    history = train(
        embedder("conv4", 8), load("digits"), TripletMarginLoss(get_distance("snr"), 0.5), steps=4, batch_size=8
    )
    assert history.index.tolist() == [1, 2, 3, 4]
    assert history.loss.notna().all()
    assert history.seconds.is_monotonic_increasing


def test_a_few_steps_already_help_on_classes_never_seen() -> None:
    test_set = load("glyphs", "test")
    torch.manual_seed(0)
    before = _r1(embedder("conv4", 64), test_set)
    after = _r1(_trained(30)[0], test_set)
    assert after > before + 0.1


@pytest.mark.slow
def test_400_steps_reach_070_on_unseen_characters() -> None:
    test_set = load("glyphs", "test")
    model, _ = _trained(400)
    assert _r1(model, test_set) >= 0.70


def test_a_loss_that_is_not_finite_stops_the_training_with_its_step() -> None:
    class Broken(torch.nn.Module):
        def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return embeddings.sum() * float("nan")

    with pytest.raises(FloatingPointError, match="became nan at step 1 of 5"):
        train(embedder("conv4", 8), load("digits"), Broken(), steps=5, batch_size=8)


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"learning_rate": 0.0}])
def test_sizes_below_one_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="steps and learning_rate must be positive"):
        train(embedder("conv4", 8), load("digits"), TripletMarginLoss(get_distance("snr"), 0.5), **arguments)
