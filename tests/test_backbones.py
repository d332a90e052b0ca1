"""Networks with an embedding as their last layer."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from snrlib.backbones import BACKBONES, cost, embed, embedder, transforms
from snrlib.utils.torchvision_import import torchvision

SMALL = [name for name in BACKBONES if name != "alexnet"]  # alexnet has 57 million parameters


@pytest.mark.parametrize("name", BACKBONES)
def test_any_image_size_gives_embeddings_of_the_asked_size(name: str) -> None:
    model = embedder(name, 24, channels=3).eval()
    for size in (16, 32, 47, 64):
        assert model(torch.rand(2, 3, size, size)).shape == (2, 24)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_last_layer_is_linear_and_every_parameter_gets_a_gradient(name: str) -> None:
    model = embedder(name, 8)
    assert list(model.children())[-1] is model.head
    assert isinstance(model.head, torch.nn.Linear)
    model(torch.rand(4, model.channels, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_weights_are_loaded_strictly(tmp_path: Path) -> None:
    model = embedder("conv4", 8)
    file = tmp_path / "weights.pth"
    torch.save(model.state_dict(), file)
    images = torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(embed(embedder("conv4", 8, weights=file), images), embed(model, images))
    with pytest.raises(RuntimeError, match="size mismatch"):
        embedder("conv4", 9, weights=str(file))
    with pytest.raises(FileNotFoundError):
        embedder("conv4", 8, weights=str(tmp_path / "none.pth"))
    with pytest.raises(RuntimeError, match="Missing key"):
        embedder("resnet18", 8, weights=file)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_the_weights_of_a_whole_model_of_torchvision_become_the_trunk(name: str, tmp_path: Path) -> None:
    whole = torchvision.models.get_model(name, weights=None).eval()
    file = tmp_path / "whole.pth"
    torch.save(whole.state_dict(), file)
    model = embedder(name, 8, weights=file).eval()
    images = torch.rand(2, 3, 64, 64)
    features: list[torch.Tensor] = []
    if name == "resnet18":
        whole.fc.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    else:
        whole.features.register_forward_hook(lambda _, inputs, output: features.append(output.mean(dim=(2, 3))))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    whole((images - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(model(images), model.head(features[0]), rtol=1e-4, atol=1e-5)


def test_weights_that_are_more_than_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"head.weight": Path("/")}, file)  # a pickle could run code
    with pytest.raises(Exception, match="Weights only load failed"):
        embedder("conv4", 8, weights=file)


def test_imagenet_weights_without_a_network_say_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(
        OSError, match=r"resnet18 could not be downloaded .*put https://.*resnet18.*\.pth into .*checkpoints"
    ):
        embedder("resnet18", 8, weights="imagenet")
    with pytest.raises(ValueError, match="conv4 has no ImageNet weights"):
        embedder("conv4", 8, weights="imagenet")


def test_imagenet_weights_in_the_cache_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    whole = torchvision.models.get_model("squeezenet1_1", weights=None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(whole.state_dict(), folder / Path(torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url).name)
    model = embedder("squeezenet1_1", 8, weights="imagenet")
    assert torch.equal(model.trunk[0][0].weight, whole.features[0].weight)  # type: ignore[index]


def test_grey_images_are_taken_as_three_equal_channels() -> None:
    torch.manual_seed(0)
    grey = embedder("resnet18", 8, channels=1).eval()
    colour = embedder("resnet18", 8).eval()
    colour.load_state_dict(grey.state_dict())
    images = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(grey(images), colour(images.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match=r"images must have shape \(n, 1, H, W\), got \(2, 3, 32, 32\)"):
        grey(images.repeat(1, 3, 1, 1))


@pytest.mark.parametrize("name", SMALL)
def test_a_frozen_trunk_does_not_move_in_training(name: str) -> None:
    model = embedder(name, 8, channels=1).freeze(trunk=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameter_groups(0.1))
    model(torch.rand(4, 1, 32, 32)).square().sum().backward()
    optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", ["conv4", "resnet18"])
def test_frozen_batch_norms_keep_statistics_and_parameters_while_the_rest_trains(name: str) -> None:
    model = embedder(name, 8, channels=1).freeze(batch_norm=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameter_groups(0.1))
    model(torch.rand(4, 1, 32, 32)).square().sum().backward()
    optimizer.step()
    norms = {
        f"{key}.{own}"
        for key, module in model.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for own in module.state_dict()
    }
    kept = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    assert norms
    assert kept == norms
    model.freeze()
    assert all(p.requires_grad for p in model.parameters())


def test_trunk_and_head_have_learning_rates_of_their_own() -> None:
    model = embedder("conv4", 8)
    trunk, head = model.parameter_groups(0.1, trunk_learning_rate=0.01)
    assert (trunk["lr"], head["lr"]) == (0.01, 0.1)
    assert len(trunk["params"]) + len(head["params"]) == len(list(model.parameters()))
    assert [group["lr"] for group in model.parameter_groups(0.1)] == [0.1, 0.1]
    assert [group["lr"] for group in model.parameter_groups(0.1, trunk_learning_rate=0.0)] == [0.0, 0.1]


def test_cost_counts_parameters_and_two_operations_a_multiplication() -> None:
    model = embedder("conv4", 8).train()
    convolutions = 2 * 9 * 64 * (32**2 * 1 + 16**2 * 64 + 8**2 * 64 + 4**2 * 64)
    assert cost(model, (1, 32, 32)) == {
        "parameters": 9 * 64 * (1 + 3 * 64) + 4 * 2 * 64 + 256 * 8 + 8,
        "trainable": 9 * 64 * (1 + 3 * 64) + 4 * 2 * 64 + 256 * 8 + 8,
        "flops": convolutions + 2 * 256 * 8,
    }
    assert model.training
    assert cost(model.freeze(trunk=True), (1, 32, 32))["trainable"] == 256 * 8 + 8


@pytest.mark.parametrize("name", BACKBONES[1:])
def test_the_cost_of_the_published_size_is_the_published_cost(name: str) -> None:
    published = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta
    found = cost(embedder(name, 1000), (3, 224, 224))
    assert found["parameters"] == published["num_params"]
    # torchvision counts a multiplication and an addition once; its squeezenet classifies before the pooling.
    before_pooling = (13 * 13 - 1) * 512 * 1000 if name == "squeezenet1_1" else 0
    assert (found["flops"] / 2 + before_pooling) / 1e9 == pytest.approx(published["_ops"], abs=6e-4)


def test_embed_does_not_depend_on_the_batches_and_leaves_the_mode_alone() -> None:
    model = embedder("conv4", 8).train()
    images = torch.randn(10, 1, 16, 16)
    torch.testing.assert_close(embed(model, images, batch_size=3), embed(model, images))
    assert model.training
    before = [buffer.clone() for buffer in model.buffers()]
    embed(model, images)
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True)), "batch norm did not move"


class Photographs(Dataset):
    """Pairs of image and label, whole batches at once, as the photographs' data sets give them."""

    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], index

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        return [self[index] for index in indices]


@pytest.mark.parametrize("workers", [0, 2])
def test_embed_takes_a_data_set_for_its_images_in_order(workers: int) -> None:
    model, images = embedder("conv4", 8), torch.randn(10, 1, 16, 16)
    for data in (Photographs(images), TensorDataset(images, torch.arange(10))):
        torch.testing.assert_close(embed(model, data, batch_size=4, workers=workers), embed(model, images))


def test_embed_transforms_each_image_before_it_joins_a_batch() -> None:
    model, images = embedder("conv4", 8), [torch.rand(1, 20 + i, 30) for i in range(5)]
    data = [(image, 0) for image in images]
    expected = embed(model, torch.stack([image[:, :16, :16] for image in images]))
    found = embed(model, data, 2, transform=lambda image: image[:, :16, :16])  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)


def test_embed_draws_nothing_from_the_generator_that_training_uses() -> None:
    model, images = embedder("conv4", 8), torch.rand(6, 1, 16, 16)
    before = torch.get_rng_state()
    embed(model, Photographs(images), workers=1)
    embed(model, images)
    assert torch.equal(torch.get_rng_state(), before)


def test_embed_takes_a_model_without_parameters_and_refuses_no_images() -> None:
    images = torch.rand(6, 1, 4, 4)
    assert torch.equal(embed(torch.nn.Flatten(), images), images.flatten(1))
    with pytest.raises(ValueError, match="no images to embed"):
        embed(torch.nn.Flatten(), images[:0])


@pytest.mark.parametrize(
    ("name", "size"), [("conv4", 256), ("alexnet", 4096), ("resnet18", 512), ("resnet50", 2048), ("squeezenet1_1", 512)]
)
def test_without_a_head_the_embedding_is_what_the_head_would_see(name: str, size: int, tmp_path: Path) -> None:
    headless, images = embedder(name, None, channels=3).eval(), torch.rand(2, 3, 64, 64)
    features = headless(images)
    assert features.shape == (2, size)
    assert "no head" in repr(headless)
    assert len(headless.parameter_groups(0.1)) == 1
    model = embedder(name, 8, channels=3).eval()
    model.trunk.load_state_dict(headless.trunk.state_dict(), strict=True)
    torch.testing.assert_close(model(images), model.head(features))
    torch.save(headless.state_dict(), tmp_path / "headless.pth")
    again = embedder(name, None, tmp_path / "headless.pth", channels=3).eval()
    torch.testing.assert_close(again(images), features)
    with pytest.raises(RuntimeError, match=r"Missing key.*head\.weight"):
        embedder(name, 8, tmp_path / "headless.pth", channels=3)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("channels", [1, 3])
def test_training_takes_a_random_part_of_a_photograph_that_torchs_seed_fixes(name: str, channels: int) -> None:
    augment, image = transforms(name, 64, train=True), torch.rand(channels, 256, 200)
    torch.manual_seed(3)
    first, second = augment(image), augment(image)
    torch.manual_seed(3)
    assert torch.equal(augment(image), first)
    assert not torch.equal(first, second)
    assert first.shape == (channels, 64, 64)
    assert first.min() >= 0
    assert first.max() <= 1


def test_training_sees_16_to_100_percent_of_the_area_and_half_of_the_images_mirrored() -> None:
    augment = transforms("resnet18", 32, train=True)
    rise = torch.linspace(0, 1, 256)
    image = torch.stack([rise.expand(256, 256), rise.expand(256, 256).T])  # x in the first channel, y in the second
    torch.manual_seed(0)
    views = torch.stack([augment(image) for _ in range(400)])
    width = (views[:, 0].amax(dim=(1, 2)) - views[:, 0].amin(dim=(1, 2))) * 32 / 31
    height = (views[:, 1].amax(dim=(1, 2)) - views[:, 1].amin(dim=(1, 2))) * 32 / 31
    area = width * height
    assert 0.14 < area.min() < 0.2
    assert 0.9 < area.max() < 1.02
    assert 0.7 < (width / height).min() < 0.8
    assert 1.25 < (width / height).max() < 1.42
    mirrored = views[:, 0, 0, 0] > views[:, 0, 0, -1]
    assert 160 < mirrored.sum() < 240  # four standard deviations
    assert (views[:, 1, 0, 0] < views[:, 1, -1, 0]).all(), "never upside down"


def test_judging_cuts_the_middle_224_of_256_pixels_and_smaller_images_are_enlarged_first() -> None:
    image = torch.rand(3, 256, 256)
    assert torch.equal(transforms("alexnet")(image), image[:, 16:-16, 16:-16])
    judge = transforms("alexnet", 64)
    small = torch.ones(3, 32, 40)
    assert judge(small).shape == (3, 64, 64)
    assert (judge(small) == 1).all(), "no border is made up"


def test_conv4_takes_drawn_images_as_they_are() -> None:
    image = torch.rand(1, 32, 32)
    for train in (False, True):
        assert torch.equal(transforms("conv4", train=train)(image), image)


def test_transforms_refuse_unknown_names_and_sizes() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'conv5'"):
        transforms("conv5")
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        transforms("alexnet", 0)


def test_bytes_are_refused_rather_than_taken_for_0_to_1() -> None:
    with pytest.raises(TypeError, match=r"floating point, about \[0, 1\], got torch.uint8"):
        embedder("conv4")(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))


@pytest.mark.realdata
def test_the_trained_squeezenet_loads_strictly_and_becomes_the_trunk() -> None:
    folder = os.environ.get("SNR_DATA")
    path = Path(folder or "") / "weights" / "squeezenet1_1.pth"
    if not folder or not path.exists():
        pytest.skip("SNR_DATA names no folder with weights/squeezenet1_1.pth")
    whole = torchvision.models.squeezenet1_1(weights=None)
    whole.load_state_dict(torch.load(path, weights_only=True), strict=True)
    model = embedder("squeezenet1_1", weights=path)
    features = model.trunk.get_submodule("0").state_dict()
    assert all(torch.equal(features[key], value) for key, value in whole.features.state_dict().items())
    assert embed(embedder("squeezenet1_1", None, path), torch.rand(2, 3, 224, 224)).shape == (2, 512)


def test_unknown_names_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'conv5'; choose from conv4, alexnet, resnet18"):
        embedder("conv5")
    with pytest.raises(ValueError, match="embedding_size must be positive, got 0"):
        embedder("conv4", 0)
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
        embedder("conv4", channels=2)


def test_linear_is_the_head_alone_on_features_in_the_form_of_images() -> None:
    model = embedder("linear", 3, channels=5)
    features = torch.randn(4, 5, 1, 1)  # below 0 and above 1 they stay as they are
    expected = features[:, :, 0, 0] @ model.head.weight.T + model.head.bias  # type: ignore[operator]
    torch.testing.assert_close(model(features), expected)
    assert len(list(model.parameters())) == 2
    assert sum(len(group["params"]) for group in model.parameter_groups(0.1, 0.01)) == 2
    assert model.parameter_groups(0.1, 0.01)[-1]["lr"] == 0.1
    assert cost(model, (5, 1, 1)) == {"parameters": 18, "trainable": 18, "flops": 2 * 5 * 3}
    with pytest.raises(ValueError, match=r"images must have shape \(n, 5, H, W\), got \(4, 4, 1, 1\)"):
        model(features[:, :4])


def test_linear_without_a_head_leaves_the_features() -> None:
    model, features = embedder("linear", None, channels=5), torch.randn(4, 5, 1, 1)
    assert torch.equal(embed(model, features), features[:, :, 0, 0])
    assert cost(model, (5, 1, 1)) == {"parameters": 0, "trainable": 0, "flops": 0}


def test_linear_takes_weights_of_its_own_and_no_others(tmp_path: Path) -> None:
    model, features = embedder("linear", 3, channels=5), torch.randn(4, 5, 1, 1)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    again = embedder("linear", 3, tmp_path / "weights.pth", channels=5)
    assert torch.equal(embed(again, features), embed(model, features))
    with pytest.raises(RuntimeError, match="size mismatch"):
        embedder("linear", 3, tmp_path / "weights.pth", channels=6)
    torch.save(embedder("conv4", 3).state_dict(), tmp_path / "conv4.pth")
    with pytest.raises(RuntimeError, match="Unexpected key"):
        embedder("linear", 3, tmp_path / "conv4.pth", channels=256)
    with pytest.raises(ValueError, match="linear has no ImageNet weights"):
        embedder("linear", 3, "imagenet", channels=5)


@pytest.mark.parametrize("channels", [None, 0])
def test_linear_needs_the_number_of_features(channels: int | None) -> None:
    with pytest.raises(ValueError, match=f"linear needs channels=, the number of features, got {channels}"):
        embedder("linear", 3, channels=channels)
