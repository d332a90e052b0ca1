"""Networks trained as classifiers of Tiny ImageNet: weights to start from where those of ImageNet cannot be had.

Their trunk is what counts: `snrlib.backbones.embedder` takes the file as ``weights`` and puts a random head on it.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from snrlib.backbones import NETWORKS, Embedder, embed, embedder
from snrlib.data import LabelledImages, load
from snrlib.data.base import take_rows
from snrlib.experiment import device_name, usual_device
from snrlib.losses import SoftmaxClassifier
from snrlib.train import train
from snrlib.utils.checks import check_choice
from snrlib.utils.files import data_folder, write_atomically, write_json
from snrlib.utils.locks import one_at_a_time
from snrlib.utils.provenance import provenance
from snrlib.utils.reading import read_json

__all__ = ["CLASSES", "RECIPES", "PretrainingRecipe", "pretrain"]


@dataclass(frozen=True)
class PretrainingRecipe:
    """What suits a network.

    Attributes:
        steps: of 128 images; about two hours of one core.
        learning_rate: at its peak.
    """

    steps: int
    learning_rate: float


RECIPES: dict[str, PretrainingRecipe] = {
    "alexnet": PretrainingRecipe(6_000, 5e-4),
    "resnet18": PretrainingRecipe(8_000, 2e-3),
}
"""The networks that can be trained so, on images of their `snrlib.backbones.Network.pretrained_side`."""
CLASSES: tuple[int, ...] = (200, 100)
"""All classes; or the first 100 alone, which are those that `snrlib.data.load` gives to train."""
_STORED = 64  # pixels, of a side of the published images
_BATCH, _M, _SMOOTHING, _SEED = 128, 2, 0.1, 0
_EVERY = 200  # steps between two checkpoints


def pretrain(
    network: str,
    classes: int = 200,
    size: int | None = None,
    steps: int | None = None,
    root: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Train a network to name the class of images, by a softmax over its pooled features; keep its trunk.

    Cross-entropy with labels smoothed by 0.1, AdamW, one-cycle, batches of 128 of 64 classes, images shifted and
    mirrored at random. What was killed goes on from its last checkpoint, to the same bits. The 50 validation images of
    each class are looked at once, at the end.

    Args:
        network: one of `RECIPES`.
        classes: one of `CLASSES`.
        size: side in pixels to which images are enlarged; None is what suits the network.
        steps: batches of 128; None likewise.
        root: the folder of downloaded data; None takes ``SNR_DATA``, else ``data/raw``.
        progress: show a progress bar.

    Returns:
        What stands in the JSON beside the weights: ``weights``, their file in ``data/cache/pretrained``; ``top_1``, the
        share of validation ``images`` whose class was named; what was trained how, and where it comes from. Of what is
        finished it is read.

    Raises:
        ValueError: an unknown network, classes, or a size or steps below 1.
        FileNotFoundError: Tiny ImageNet is not there; the message says which file to put where.
        FileExistsError: the file holds weights of another number of steps, or another process is training them.
    """
    recipe, usual = RECIPES[check_choice(network, "network", RECIPES)], NETWORKS[network].pretrained_side
    assert usual is not None
    if classes not in CLASSES:
        raise ValueError(f"classes must be one of {', '.join(map(str, CLASSES))}, got {classes!r}")
    size, steps = (usual if size is None else size), (recipe.steps if steps is None else steps)
    for name, value in (("size", size), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name} must be positive, got {value}")
    path = data_folder("cache") / "pretrained" / f"{network}-tinyimagenet{classes}-{size}.pth"
    folder = path.with_suffix("")
    with one_at_a_time(folder, wait=False, beside=True):
        if path.with_suffix(".json").exists():
            return _finished(path, steps)
        row = _trained(path, folder, network, classes, size, replace(recipe, steps=steps), root, progress)
        write_json(path.with_suffix(".json"), row)
        shutil.rmtree(folder)
    return row


def _finished(path: Path, steps: int) -> dict[str, Any]:
    """The row of weights that are there."""
    row = read_json(path.with_suffix(".json"), "remove it to train anew")
    if row.get("steps") != steps or not path.exists():
        raise FileExistsError(
            f"{path.with_suffix('.json')} is of {row.get('steps')} steps, not of {steps}, or its weights are gone; "
            "remove it to train anew"
        )
    return row


def _trained(
    path: Path,
    folder: Path,
    network: str,
    classes: int,
    size: int,
    recipe: PretrainingRecipe,
    root: str | Path | None,
    progress: bool,
) -> dict[str, Any]:
    """Train, write the weights, judge."""
    started = time.perf_counter()
    training, validation = _images(root, classes)
    torch.manual_seed(_SEED)
    model = embedder(network, None, smallest_side=size)
    loss = SoftmaxClassifier(classes, _features(model), _SMOOTHING)
    device = usual_device()
    history = train(
        model.to(device),
        training,
        loss.to(device),
        steps=recipe.steps,
        batch_size=_BATCH,
        m=_M,
        learning_rate=recipe.learning_rate,
        every=_EVERY,
        seed=_SEED,
        augment=_shifted_and_mirrored,
        folder=folder,
        progress=progress,
    )
    top_1 = _top_1(model, loss, validation)
    file = io.BytesIO()  # in a file, torch would write its name into it: same weights, other bytes
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, file)
    write_atomically(path, lambda temporary: temporary.write_bytes(file.getvalue()))
    return {
        "weights": path.name,
        "sha256": hashlib.sha256(file.getvalue()).hexdigest(),
        "network": network,
        "classes": classes,
        "size": size,
        "top_1": round(top_1, 5),
        "images": len(validation),
        "steps": recipe.steps,
        "batch_size": _BATCH,
        "learning_rate": recipe.learning_rate,
        "label_smoothing": _SMOOTHING,
        "seed": _SEED,
        "precision": history.attrs["precision"],
        "loss": float(history.loss[-100:].mean()),
        "training_seconds": round(float(history.seconds.iloc[-1]), 1),
        "seconds": round(time.perf_counter() - started, 1),
        "data": {"training": training.fingerprint, "validation": validation.fingerprint},
        "device": device_name(device),
        **provenance(),
    }


def _images(root: str | Path | None, classes: int) -> tuple[LabelledImages, LabelledImages]:
    """Training and validation images of the same classes."""
    if classes == CLASSES[0]:
        training, validation = (load("tinyimagenet", part, root, classes="published") for part in ("train", "test"))
        return training, validation
    both = load("tinyimagenet", "train", root)
    trains = torch.tensor(both.factors.is_training_image.to_numpy())
    return _rows(both, trains.nonzero()[:, 0]), _rows(both, (~trains).nonzero()[:, 0])


def _rows(data: LabelledImages, rows: Tensor) -> LabelledImages:
    return replace(data, images=data.images[rows], labels=data.labels[rows], factors=take_rows(data.factors, rows))


def _features(model: Embedder) -> int:
    """How many the trunk gives."""
    with torch.no_grad():
        return model.eval()(torch.zeros(1, model.channels, _STORED, _STORED)).shape[1]


def _shifted_and_mirrored(image: Tensor) -> Tensor:
    """The image (C, H, W) moved by up to an eighth of its side, the border filled with its mirror image."""
    height, width = image.shape[1:]
    most = height // 8
    top, left = torch.randint(2 * most + 1, (2,)).tolist()
    moved = F.pad(image, (most, most, most, most), mode="reflect")[:, top : top + height, left : left + width]
    return moved.flip(2) if torch.rand(()) < 0.5 else moved


def _top_1(model: Embedder, loss: SoftmaxClassifier, images: LabelledImages) -> float:
    """The share of images whose class has the highest score."""
    with torch.no_grad():
        scores = loss.neurons.cpu()(embed(model, images))
    return (scores.argmax(dim=1) == images.labels).double().mean().item()
