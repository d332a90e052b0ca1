"""The cells of a profile measured without a notebook around them: tuned, trained, judged, and stored as studies.

Beside every network that trains stands the same one before training. All are judged, on the same classes, by

- the distance that trained them, its anchor the query and, where that matters, the reference;
- Euclid;
- the cosine;
- the *whitened search*: `snrlib.mahalanobis.whitened_search`, fitted to embeddings of at most `WHITENED` training
  images, which changes the search and no network.

Where images have a letter, as glyphs have, each judge's R@1 stands there once more as ``precision_at_1_new_letter``,
over the queries alone whose letter no training class has: an e with an accent is half known to who saw another e.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from sklearn.pipeline import Pipeline
from torch.utils.data import Subset

from snrlib.backbones import device_of, embed
from snrlib.distances import get_distance
from snrlib.evaluate import compare, judges, retrieval
from snrlib.experiment import Experiment, Settings, default_settings, device_name, experiment, untrained
from snrlib.mahalanobis import whitened_search
from snrlib.notebooks.parameters import parameters
from snrlib.study.profiles import cells, check
from snrlib.study.steps import Step, finish
from snrlib.study.storing import Measured, hits, write_studies
from snrlib.study.tables import confusions_of
from snrlib.study.tuned import from_parameters
from snrlib.study.tuning import is_tuned, tune
from snrlib.utils.files import data_folder, digest, write_json
from snrlib.utils.provenance import provenance

__all__ = ["SEARCHES", "WHITENED", "before_training", "measure_cell", "measure_profile"]

WHITENED = 2000
"""Training images, drawn at random, whose embeddings the whitened search is fitted to."""
SEARCHES: tuple[str, ...] = ("cosine", "whitened")
"""The judges beside those of `snrlib.evaluate.judges`."""
_CONFUSED = 100  # pairs of classes that are kept of each experiment, the most frequent ones
_SAME = ("root", "image_size", "weights", "embedding_size", "softplus", "split", "seed")  # before any training


def measure_profile(name: str, jobs: int = 2, device: str | None = None) -> list[Path]:
    """Tune what a profile leaves open, train and judge its cells, and store a study per data set.

    Each cell is kept when it is finished, in ``data/runs/cells``, under all its settings; a training that was
    interrupted goes on from its last checkpoint. The version of the library is not among what a result is kept under.

    Args:
        name: of the profile in ``study.yaml``.
        jobs: trainings at a time, each on one thread.
        device: that trains and judges; None is CUDA where there is one, else the CPU.

    Returns:
        The paths of the tables.

    Raises:
        ValueError: an unknown profile, or a cell that cannot be.
        FileNotFoundError: a data set or weights are not there.
        ChildProcessError: some cells failed, the message says which and why; the others are kept.
    """
    check(cells(name, tuned_values=False))
    if not is_tuned(name):
        tune(name, jobs=jobs, device=device)
    declared = {parameter: known.default for parameter, known in parameters("07").items()}
    given = [declared | task.values for task in cells(name)]
    chosen = [from_parameters(values) for values in given]
    before = {before_training(settings): values for settings, values in zip(chosen, given, strict=True)}
    steps = [_step(settings, values, device, trained=True) for settings, values in zip(chosen, given, strict=True)]
    steps += [_step(settings, values, device, trained=False) for settings, values in before.items()]
    return write_studies(name, finish(f"cells of {name}", steps, jobs))


def before_training(settings: Settings) -> Settings:
    """The network of some settings before it is trained, whatever it would be trained with.

    Given weights and given features have no seed, and no head: what is judged are the features.
    """
    s = settings
    same = {name: getattr(s, name) for name in _SAME}
    if s.features_given:
        same |= {"softplus": False} | ({} if s.split else {"seed": 0})
    return default_settings(s.data, s.backbone, distance="snr", **same)


def _step(settings: Settings, given: dict[str, Any], device: str | None, trained: bool) -> Step:
    s = settings
    names = (s.data, s.backbone, s.loss, s.distance, s.map) if trained else (s.data, s.backbone, "untrained")
    name = "-".join([*(name for name in names if name), f"seed={s.seed}", digest([asdict(s), trained])])
    arguments = {"settings": asdict(s), "parameters": given, "trained": trained, "device": device}
    return Step(f"{__name__}:measure_cell", arguments, data_folder("runs") / "cells" / f"{name}.json")


def measure_cell(
    settings: dict[str, Any], parameters: dict[str, Any], trained: bool, path: Path, device: str | None = None
) -> str:
    """One experiment, or its network before training.

    Args:
        settings: as a dictionary.
        parameters: of notebook 07, that made them.
        trained: whether it is.
        path: of the result, `snrlib.study.storing.Measured`; checkpoints stand beside it until it is there.
        device: that trains and judges; None is CUDA where there is one, else the CPU.

    Returns:
        A line that says how it went.
    """
    s, begun, folder = Settings(**settings), time.perf_counter(), path.with_suffix(".checkpoints")
    done = experiment(s, folder, device, cluster=False) if trained else untrained(s, device, cluster=False)
    row = done.row()
    whitened = _whitened(done)
    row["scores"] += _searches(done, whitened)
    if "letter" in done.test.factors:
        for scores, r1 in zip(row["scores"], _new_letters(done, whitened), strict=True):
            scores["precision_at_1_new_letter"] = r1
    found: Measured = {"experiment": row, "hits": hits(done), "data": done.fingerprints, "parameters": parameters}
    found["confused"] = confusions_of(done).to_dict("records")[:_CONFUSED] if trained else []
    found["device"] = device_name(device)
    found["wall_time_s"] = round(time.perf_counter() - begun, 1)
    write_json(path, found | provenance())
    shutil.rmtree(folder, ignore_errors=True)
    return f"{path.stem}: R@1 {done.scores.precision_at_1.iloc[0]:.3f}, {time.perf_counter() - begun:.0f} s"


def _whitened(done: Experiment) -> Pipeline:
    """The whitened search, fitted to training images."""
    order = torch.randperm(len(done.train), generator=torch.Generator().manual_seed(0))
    rows = order[:WHITENED].sort().values
    seen = embed(done.model, Subset(done.train, rows.tolist()), transform=done.crop)
    return whitened_search().fit(seen.numpy(), done.train.labels[rows].numpy())


def _searches(done: Experiment, whitened: Pipeline) -> list[dict[str, Any]]:
    """What `SEARCHES` find in the embeddings of the test images."""
    cosine, search = get_distance("cosine"), {"whitened": whitened}
    table = compare(done.embeddings.to(device_of(done.model)), done.test.labels, cosine, cluster=False, search=search)
    table = table.rename(index={"training distance": "cosine"})
    return [{"judge": name, "anchor": None, **{str(k): v for k, v in table.loc[name].items()}} for name in SEARCHES]


def _new_letters(done: Experiment, whitened: Pipeline) -> list[float]:
    """R@1 of the queries whose letter no training class has, by `judges` and `SEARCHES`; all images are searched."""
    x, euclid = done.embeddings, get_distance("euclidean")
    ways = [(x, judge.distance) for judge in judges(done.distance)]
    ways += [(x, get_distance("cosine")), (torch.from_numpy(whitened.transform(x.numpy())), euclid)]
    new = ~done.test.factors.letter.isin(done.train.factors.letter)
    found = [retrieval(z, done.test.labels, distance, ks=(1,)).precision_at_1 for z, distance in ways]
    return [float(hits[new].mean()) for hits in found]
