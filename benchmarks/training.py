"""The training loop against the bare minimum, and float32 against the fastest precision of the processor.

python benchmarks/training.py
"""

from __future__ import annotations

import statistics
import sys
import time
from itertools import pairwise

import pandas as pd
import torch
from measure import machine
from torch import nn

from snrlib.backbones import embed, embedder
from snrlib.data import LabelledImages
from snrlib.distances import get_distance
from snrlib.evaluate import retrieval
from snrlib.experiment import default_settings, fit, images_of
from snrlib.losses import TripletMarginLoss
from snrlib.train import train

BATCHES = {"conv4": 128, "resnet18": 64}
M, STEPS = 4, 6
SIDES = {"conv4": 32, "squeezenet1_1": 128, "resnet18": 64, "alexnet": 127}  # pixels
CLOCKS = {"wall": time.perf_counter, "CPU": time.process_time}
Seconds = dict[str, list[float]]  # of each clock


def images(size: int = 32, n_classes: int = 64, per_class: int = 20) -> LabelledImages:
    """Random grey images in memory."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n_classes).repeat_interleave(per_class)
    pixels = torch.rand(len(labels), 1, size, size, generator=generator)
    return LabelledImages("random", pixels, labels, tuple(map(str, range(n_classes))))


def bare(model: nn.Module, data: LabelledImages, loss: nn.Module, batch: int) -> None:
    """Nothing but the arithmetic, on the same batch in every step."""
    chosen = slice(0, batch * 20 // M, 20 // M)  # M of a class
    x, labels = data.images[chosen].clone(), data.labels[chosen].clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(STEPS):
        value = loss(model(x), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()


def looped(model: nn.Module, data: LabelledImages, loss: nn.Module, batch: int) -> None:
    """The same by `snrlib.train.train`."""
    train(model, data, loss, steps=STEPS, batch_size=batch, m=M, precision="float32")


def compare(name: str, batch: int, rounds: int) -> dict[str, float]:
    """Milliseconds of a step, from loss to loss, of both in turns; and what the loop adds, in per cent.

    Medians over the rounds; what is added is the median of each round's own ratio, so that a busy minute, which
    meets both, does not count.
    """
    data = images()
    found: dict[str, Seconds] = {way.__name__: {clock: [] for clock in CLOCKS} for way in (bare, looped)}
    for number in range(rounds + 1):
        for way in (bare, looped) if number % 2 else (looped, bare):
            model, loss = embedder(name, 64, channels=1), TripletMarginLoss(get_distance("snr"), 0.5)
            seen: Seconds = {clock: [] for clock in CLOCKS}

            def note(*_: object, seen: Seconds = seen) -> None:
                for clock, read in CLOCKS.items():
                    seen[clock].append(read())

            loss.register_forward_pre_hook(note)
            way(model, data, loss, batch)
            if number:  # the first round warms up, and so does the first step of each
                for clock, times in seen.items():
                    step = statistics.median([later - earlier for earlier, later in pairwise(times)][1:])
                    found[way.__name__][clock].append(step)
    row: dict[str, float] = {}
    for clock in CLOCKS:
        least, ours = found["bare"][clock], found["looped"][clock]
        ratio = statistics.median(x / y for x, y in zip(ours, least, strict=True))
        row |= {
            f"bare, {clock}, ms": 1e3 * statistics.median(least),
            f"train, {clock}, ms": 1e3 * statistics.median(ours),
        }
        row[f"added, {clock}, %"] = 100 * (ratio - 1)
    return row


def precisions(name: str, side: int, steps: int = 40) -> dict[str, float | str]:
    """Milliseconds of a step, its median, and R@1 on unseen glyphs afterwards: in float32, and in what "auto" takes."""
    row: dict[str, float | str] = {}
    for precision in ("float32", "auto"):
        settings = default_settings(
            "glyphs", name, image_size=side, steps=steps, every=steps, validation_share=0.0, precision=precision
        )
        done = fit(settings, device="cpu")
        unseen = images_of(settings, "test")
        unseen = unseen.of_classes(range(0, len(unseen.classes), 4))
        hits = retrieval(embed(done.model, unseen), unseen.labels, done.distance, ks=(1,)).precision_at_1
        row |= {f"{precision}, ms": round(1e3 * done.seconds_per_step, 1), f"{precision}, R@1": round(hits.mean(), 3)}
    return row | {"auto is": done.history.attrs["precision"]}


def main() -> None:
    """Print the table; with a backbone, a batch and rounds as arguments, what the loop adds in CPU time, per cent."""
    if len(sys.argv) > 1:
        print(compare(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))["added, CPU, %"])
        return
    print(machine())
    print("\nA step of training on 32 x 32 images, triplet loss over SNR, AdamW; medians of one run")
    rows = {(name, batch): compare(name, batch, rounds=24) for name, batch in BATCHES.items()}
    print(pd.DataFrame(rows).T.round(1).to_string())
    print("\nA step of 64 glyphs, triplet loss over SNR, and R@1 on 79 unseen classes after 40 of them, one seed")
    print(pd.DataFrame({(name, side): precisions(name, side) for name, side in SIDES.items()}).T.to_string())


if __name__ == "__main__":
    main()
