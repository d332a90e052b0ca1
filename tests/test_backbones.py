"""Networks with an embedding as their last layer."""

from pathlib import Path

import pytest
import torch

from snrlib.backbones import BACKBONES, embed, embedder


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [16, 32, 47])
def test_any_image_size_gives_embeddings_of_the_asked_size(name: str, size: int) -> None:
    assert embedder(name, 24, channels=3)(torch.randn(5, 3, size, size)).shape == (5, 24)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_last_layer_is_linear_and_every_parameter_gets_a_gradient(name: str) -> None:
    model = embedder(name, 8)
    assert isinstance(model[-1], torch.nn.Linear)  # type: ignore[index]
    model(torch.randn(4, 1, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_weights_are_loaded_strictly(tmp_path: Path) -> None:
    model = embedder("conv4", 8)
    file = tmp_path / "weights.pth"
    torch.save(model.state_dict(), file)
    images = torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(embed(embedder("conv4", 8, weights=str(file)), images), embed(model, images))
    with pytest.raises(RuntimeError, match="size mismatch"):
        embedder("conv4", 9, weights=str(file))
    with pytest.raises(FileNotFoundError):
        embedder("conv4", 8, weights=str(tmp_path / "none.pth"))


def test_embed_does_not_depend_on_the_batches_and_leaves_the_mode_alone() -> None:
    model = embedder("conv4", 8).train()
    images = torch.randn(10, 1, 16, 16)
    torch.testing.assert_close(embed(model, images, batch_size=3), embed(model, images))
    assert model.training
    before = [buffer.clone() for buffer in model.buffers()]
    embed(model, images)
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True)), "batch norm did not move"


def test_unknown_names_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'conv5'; choose from conv4"):
        embedder("conv5")
    with pytest.raises(ValueError, match="must be positive, got 0 and 1"):
        embedder("conv4", 0)
