"""The reference numbers in ``data/reference``: which experiments they are, how the margins were tuned, how they ran.

A study trains each backbone under each distance with the same images, batches, steps and learning rate. The margin,
whose meaning differs between distances, is tuned for each of them with the same trials: on a quarter of the training
classes, with one seed that is not reported. Then every distance trains on all training classes, with its best margin,
for the same number of steps, with several seeds, and is judged once on the test classes.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from snrlib.distances import RELATIVE
from snrlib.experiment import Experiment, default_settings, experiment, initial_scale, untrained
from snrlib.study.tables import add_confusions, confusions_of, table_of
from snrlib.utils.files import data_folder, write_json, write_table
from snrlib.utils.provenance import MEMORY, cpu, provenance

__all__ = ["STUDIES", "Study", "margin_unit", "measure", "run_processes"]

T = TypeVar("T")

_TUNING_SEED = 1000
_FOUR = ("contrastive", "triplet", "n_pair", "lifted")  # the report's
_POWER = {"triplet": 1.0, "contrastive": 0.5, "lifted": 0.5, "ranked_list": 0.5}  # of a squared distance, in the margin


@dataclass(frozen=True)
class Study:
    """A grid of experiments on one data set.

    Attributes:
        data: its name.
        backbones: the names, each with its own settings.
        losses: the names.
        distances: the names.
        margins: tried for each distance and loss that has one, in units of `margin_unit`.
        validation_share: of the training classes, on which the margins are tried.
        seeds: of the reported runs.
        settings: shared by all.
    """

    data: str
    backbones: dict[str, dict[str, Any]]
    losses: tuple[str, ...] = ("triplet",)
    distances: tuple[str, ...] = ("euclidean", "relative_euclidean", "snr")
    margins: tuple[float, ...] = (0.1, 0.3, 1.0)
    validation_share: float = 0.25
    seeds: tuple[int, ...] = (0, 1, 2)
    settings: dict[str, Any] = field(default_factory=dict)


STUDIES: dict[str, Study] = {
    "glyphs": Study(
        data="glyphs",
        backbones={"alexnet": {}, "resnet18": {}},
        settings={"steps": 150},
    ),
    "omniglot": Study(
        data="omniglot",
        backbones={"conv4": {}, "resnet18": {}},
        margins=(0.1, 0.3, 0.6, 1.0, 1.5),
        seeds=(0, 1, 2, 3, 4),
        settings={"steps": 300},
    ),
    "cub200": Study(
        data="cub200",
        backbones={"squeezenet1_1": {"weights": "imagenet"}},
        settings={"steps": 200, "image_size": 160, "embedding_size": 512, "learning_rate": 3e-4},
    ),
    "glyphs_losses": Study(
        data="glyphs",
        backbones={"conv4": {}},
        losses=_FOUR,
        distances=("euclidean", "relative_euclidean", "snr", "mahalanobis", "relative_mahalanobis"),
        margins=(0.1, 0.3, 1.0, 2.0),
        seeds=(0, 1, 2, 3, 4),
        settings={"steps": 150},
    ),
    "cub_features_losses": Study(
        data="cub_features",
        backbones={"linear": {}},
        losses=_FOUR,
        distances=(
            *("euclidean", "relative_euclidean", "snr", "mahalanobis", "relative_mahalanobis"),
            *("mahalanobis/whitening", "relative_mahalanobis/whitening"),
            *("mahalanobis/learned", "relative_mahalanobis/learned"),
        ),
        margins=(0.1, 0.3, 1.0, 2.0),
        seeds=(0, 1, 2, 3, 4),
        settings={"steps": 300, "embedding_size": 128},
    ),
}


def measure(name: str, jobs: int = 2, weights: str | Path | None = None) -> Path:
    """Run a study, each experiment on one thread, and write ``data/reference/NAME.csv`` and ``NAME.json``.

    Finished experiments are kept in ``data/runs/reference``; an interrupted study goes on with the others.

    Args:
        name: one of `STUDIES`.
        jobs: experiments at a time.
        weights: of the backbones that start from ImageNet weights; None downloads torchvision's.

    Returns:
        The path of the CSV file.

    Raises:
        ValueError: an unknown study.
        FileNotFoundError: the data set or the weights are not there.
    """
    if name not in STUDIES:
        raise ValueError(f"unknown study {name!r}; choose from {', '.join(STUDIES)}")
    study = STUDIES[name]
    given = None if weights is None else str(Path(weights).expanduser().resolve(strict=True))
    cells = list(_tuning(study, given))
    tuned = _run_all(name, "tuning", cells, jobs)
    margins = _best_margins(tuned)
    reported = [
        _settings(study, given, backbone, loss, distance, margins.get((backbone, loss, distance), 0.0), seed)
        for backbone in study.backbones
        for loss in study.losses
        for distance in study.distances
        for seed in study.seeds
    ]
    results = _run_all(name, "reported", reported, jobs)
    before = [
        _settings(study, given, backbone, study.losses[0], "snr", 0.0, seed)
        for backbone, own in study.backbones.items()
        for seed in (study.seeds[:1] if "weights" in own else study.seeds)
    ]
    results = _run_all(name, "untrained", before, jobs) + results

    table = pd.DataFrame([row for result in results for row in result["runs"]])
    csv = data_folder("reference") / f"{name}.csv"
    write_json(csv.with_suffix(".json"), _provenance(name, tuned, results, margins, given))
    write_table(csv, table)
    return csv


def _settings(
    study: Study, weights: str | None, backbone: str, loss: str, distance: str, margin: float, seed: int, **more: Any
) -> dict[str, Any]:
    own = dict(study.backbones[backbone])
    if weights is not None and "weights" in own:
        own["weights"] = weights
    chosen = {"loss": loss, "distance": distance, "margin": margin, "seed": seed, "validation_share": 0.0}
    settings = default_settings(study.data, backbone, **(study.settings | own | chosen | more))
    return settings | {"every": settings["steps"]}  # judged once, at the end


def _tuning(study: Study, weights: str | None) -> Iterator[dict[str, Any]]:
    for backbone in study.backbones:
        for loss in study.losses:
            for distance in study.distances:
                share = {"validation_share": study.validation_share}
                first = _settings(study, weights, backbone, loss, distance, 0.0, _TUNING_SEED, **share)
                if loss != "n_pair":
                    unit = margin_unit(first)
                    yield from (first | {"margin": float(f"{margin * unit:.3g}")} for margin in study.margins)


def margin_unit(settings: dict[str, Any]) -> float:
    """In which margins are tried: 1 for a relative distance, whose unit is the anchor's length.

    The unit of an absolute distance is the network's own: the mean squared distance of the untrained one
    (`snrlib.experiment.initial_scale`), or its root where the loss compares distances that are not squared.
    """
    if settings["distance"].partition("/")[0] in RELATIVE:
        return 1.0
    return initial_scale(settings) ** _POWER[settings["loss"]]


def _run_all(study: str, stage: str, cells: list[dict[str, Any]], jobs: int) -> list[dict[str, Any]]:
    """The results of all cells, in their order; those that are there already are read."""
    paths = [_cell_path(study, stage, settings) for settings in cells]
    missing = [(stage, settings, path) for settings, path in zip(cells, paths, strict=True) if not path.exists()]
    print(f"{study}, {stage}: {len(cells)} experiments, {len(cells) - len(missing)} finished before", flush=True)
    run_processes(_run_cell, missing, jobs)
    return [json.loads(path.read_text()) for path in paths]


def run_processes(work: Callable[..., T], tasks: Sequence[tuple[Any, ...]], jobs: int) -> list[T]:
    """Call ``work`` with each of the tasks' arguments in processes of one thread each; say how many are done.

    What has begun is finished if another one fails.

    Args:
        work: a function that a process can import.
        tasks: its arguments.
        jobs: processes.

    Returns:
        What it returned, in the order of the tasks.

    Raises:
        Exception: the first one that ``work`` raised.
        ChildProcessError: a process was killed.
    """
    os.environ.update({name: value for name, value in MEMORY.items() if name not in os.environ})  # they inherit it
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(work, *task) for task in tasks]
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                result = future.result()
                print(f"  {number}/{len(tasks)}" + f" {result}" * isinstance(result, str), flush=True)
        except BrokenProcessPool as error:
            what = "a process ended before its work was done, often for want of memory; what is finished is kept"
            raise ChildProcessError(what) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _cell_path(study: str, stage: str, settings: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps([stage, settings], sort_keys=True).encode()).hexdigest()[:16]
    return data_folder("runs") / "reference" / study / f"{stage}-{digest}.json"


def _run_cell(stage: str, settings: dict[str, Any], path: Path) -> str:
    """Run one experiment and keep its result; returns a line that says how it went."""
    done = untrained(settings) if stage == "untrained" else experiment(settings)
    result = _result(stage, done)
    write_json(path, result)
    label = " ".join(f"{settings[key]}" for key in ("backbone", "loss", "distance", "margin", "seed"))
    score = f"validation MAP@R {done.validation_score:.4f}" if stage == "tuning" else repr(done)
    return f"{label}: {score}, {done.wall_time_s:.0f} s"


def _result(stage: str, done: Experiment) -> dict[str, Any]:
    return {
        "stage": stage,
        "settings": done.settings,
        "validation": done.validation_score if stage == "tuning" else None,
        "runs": table_of(done, trained=stage != "untrained").to_dict("records"),
        "confused": confusions_of(done).to_dict("records") if stage == "reported" else [],
        "seconds": done.wall_time_s,
        "data": done.fingerprints,
    }


def _best_margins(tuned: list[dict[str, Any]]) -> dict[tuple[str, str, str], float]:
    best: dict[tuple[str, str, str], dict[str, Any]] = {}
    for result in tuned:
        key = tuple(result["settings"][name] for name in ("backbone", "loss", "distance"))
        if key not in best or result["validation"] > best[key]["validation"]:
            best[key] = result
    return {key: result["settings"]["margin"] for key, result in best.items()}


def _provenance(
    name: str, tuned: list[dict[str, Any]], results: list[dict[str, Any]], margins: dict, weights: str | None
) -> dict[str, Any]:
    study = STUDIES[name]
    shared = {**results[-1]["settings"], "weights": None, "root": None}
    for varied in ("backbone", "loss", "distance", "margin", "seed", "learning_rate", "trunk_learning_rate"):
        shared.pop(varied)
    confused = [pd.DataFrame(result["confused"]) for result in results if result["confused"]]
    return {
        "command": f"snr reference {name}",
        "study": {"data": study.data, "backbones": study.backbones, "seeds": study.seeds},
        "learning_rate": {result["settings"]["backbone"]: result["settings"]["learning_rate"] for result in results},
        "settings": shared,
        "weights_sha256": None if weights is None else hashlib.sha256(Path(weights).read_bytes()).hexdigest(),
        "tuning": [
            {key: result["settings"][key] for key in ("backbone", "loss", "distance", "margin")}
            | {"validation_map_at_r": round(result["validation"], 5)}
            for result in tuned
        ],
        "tuned_margins": [
            {"backbone": backbone, "loss": loss, "distance": distance, "margin": margin}
            for (backbone, loss, distance), margin in margins.items()
        ],
        "rows": sum(len(result["runs"]) for result in results),
        "most_confused": add_confusions(confused, 12).to_dict("records"),
        "data": results[-1]["data"],
        "cpu": cpu(),
        "threads_per_experiment": 1,
        "experiments": len(tuned) + len(results),
        "core_minutes": round(sum(result["seconds"] for result in [*tuned, *results]) / 60, 1),
        **provenance(),
    }
