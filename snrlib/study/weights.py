"""Small trained weights that come with the study, so that a lesson can load a network in place of training it.

``snr measure weights`` trains and writes ``data/reference/weights``: the weights in float16, their checksum and scores
(JSON), and a card for people (``README.md``). ``embedder("conv4", 64, "glyphs")`` loads them.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snrlib.backbones import embed, embedder, weights_path
from snrlib.distances import get_distance
from snrlib.evaluate import retrieval
from snrlib.experiment import default_settings, experiment
from snrlib.utils.files import write_atomically, write_json, write_text
from snrlib.utils.provenance import provenance

__all__ = ["measure_weights"]

_SETTINGS: dict[str, Any] = {"data": "glyphs", "backbone": "conv4", "loss": "triplet", "distance": "snr"}
_SETTINGS |= {"margin": 0.1, "steps": 1500, "embedding_size": 64, "precision": "float32", "seed": 0}
_JUDGES = ("snr", "euclidean", "cosine")


def measure_weights() -> Path:
    """Train conv4 on the training characters, once, and store it with its card; minutes.

    Returns:
        The path of the weights.
    """
    settings = default_settings(**_SETTINGS)
    done = experiment(settings)
    path = weights_path("conv4", "glyphs")
    assert path is not None
    file = io.BytesIO()  # in a file, torch would write its name into it: same weights, other bytes
    torch.save({name: _half(value.cpu()) for name, value in done.model.state_dict().items()}, file)
    about: dict[str, Any] = {
        "command": "snr measure weights",
        "sha256": hashlib.sha256(file.getvalue()).hexdigest(),
        "bytes": len(file.getvalue()),
        "settings": _SETTINGS | {"validation_share": settings.validation_share},
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "data": done.fingerprints,
        "gallery": {"classes": len(done.test.classes), "images": len(done.test)},
    }
    write_atomically(path, lambda temporary: temporary.write_bytes(file.getvalue()))
    write_json(path.with_suffix(".json"), about)  # the checksum with which they are read next
    torch.manual_seed(settings.seed)
    networks = {"untrained": embedder("conv4", 64), "trained": embedder("conv4", 64, "glyphs")}
    about["scores"] = {name: _scores(embed(one, done.test), done.test.labels) for name, one in networks.items()}
    write_json(path.with_suffix(".json"), about | provenance())
    write_text(path.with_name("README.md"), _card(about))
    return path


def _half(values: Tensor) -> Tensor:
    return values.half() if values.is_floating_point() else values


def _scores(embeddings: Tensor, labels: Tensor) -> dict[str, dict[str, float]]:
    """R@1 and MAP@R by distance, the query its anchor."""
    found = {}
    for judge in _JUDGES:
        scores = retrieval(embeddings, labels, get_distance(judge), ks=(1,))
        means = {"R@1": scores.precision_at_1, "MAP@R": scores.mean_average_precision_at_r}
        found[judge] = {name: round(float(values.mean()), 4) for name, values in means.items()}
    return found


def _card(about: dict[str, Any]) -> str:
    said, gallery = about["settings"], about["gallery"]
    share = f"{said['validation_share']:.0%}"
    rows = [
        f"| {name} | "
        + " | ".join(f"{judges[judge][score]:.3f}" for judge in _JUDGES for score in ("R@1", "MAP@R"))
        + " |"
        for name, judges in about["scores"].items()
    ]
    titles = " | ".join(f"{judge}, {score}" for judge in _JUDGES for score in ("R@1", "MAP@R"))
    return f"""# Trained weights: conv4 on characters

This page is generated (`snrlib.study.weights`).

```python
from snrlib.backbones import embedder

model = embedder("conv4", embedding_size=64, weights="glyphs")  # grey images (n, 1, 32, 32), about [0, 1] -> (n, 64)
```

- **What:** the network *conv4* of `snrlib.backbones` with a linear layer of 64 components, in float16:
  `conv4-glyphs.pth`, {about["bytes"]:,} bytes. Loading refuses a file whose SHA-256 is not
  `{about["sha256"]}`, and executes nothing in it.
- **Made by:** `{about["command"]}`: {said["steps"]} steps of {about["batch_size"]} images, triplet loss with margin
  {said["margin"]} under the SNR distance, AdamW, learning rate {about["learning_rate"]:g}, seed {said["seed"]}.
- **Data:** the training half of the characters (`load("glyphs", "train")`; {share} of its classes chose the
  best weights), rendered here from the typefaces that matplotlib ships. No person is in them.
- **Licence:** MIT, as the study. The typefaces are DejaVu and STIX, under their own free licences.

Scores on the test half, {gallery["classes"]} classes and {gallery["images"]:,} images, whose classes no training saw;
each image is a query against all others. *Untrained* is the same network with its first random weights:

| network | {titles} |
| --- |{" --- |" * (2 * len(_JUDGES))}
{chr(10).join(rows)}

**Limits:** one training of one seed, so it says nothing about which distance is better. It knows small grey characters
that are turned by up to 10 degrees, with noise; photographs are beyond it. Of the test classes, 109 are of a letter
that the training half has with another accent. Rounded to float16, embeddings differ a little from those of the run.
"""
