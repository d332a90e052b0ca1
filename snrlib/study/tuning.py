"""Margins, scales and learning rates, tuned for each distance and loss with equal trials on validation classes.

A margin means something else under every distance, and so does a step: comparing distances at one margin and one
learning rate compares how well those happen to suit. So each gets the same number of trials, over the same range in its
own unit: four fixed ones, then what optuna's TPE proposes, on a share of the training classes, each with two seeds that
are not reported. The test classes are never loaded.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState

from snrlib.data import LabelledImages, training_classes
from snrlib.data.splits import usual_validation_share
from snrlib.experiment import Settings, device_name, fit, images_of, initial_scale
from snrlib.losses import LOSSES
from snrlib.notebooks.parameters import parameters
from snrlib.study import stored
from snrlib.study.grid import Grid
from snrlib.study.profiles import Task, cells, check
from snrlib.study.steps import Step, finish
from snrlib.study.tuned import from_parameters
from snrlib.utils.files import data_folder, digest, write_json
from snrlib.utils.locks import one_at_a_time
from snrlib.utils.provenance import cpu, provenance

__all__ = ["MARGINS", "RATES", "SCALES", "TRIAL_SEEDS", "is_tuned", "margin_unit", "storage", "tune", "tune_one"]

MARGINS: tuple[float, float] = (0.01, 10.0)
"""Between which margins are tried, in units of the distance, see `margin_unit`."""
SCALES: tuple[float, float] = (0.03, 30.0)
"""Between which scales of a softmax are tried, in units of the loss's usual one, over the distance's unit."""
RATES: tuple[float, float] = (1 / 16, 16.0)
"""Between which learning rates are tried, in units of the one that suits the network."""
TRIAL_SEEDS: tuple[int, ...] = (1000, 1001)
"""Of each trial, whose score is their mean."""
_KEY = ("data", "backbone", "loss", "distance", "map", "variant", "embedding_size", "pretrained")
_FIRST: tuple[dict[str, float], ...] = (
    {"margin": 0.3, "scale": 1.0, "learning_rate": 1.0},
    {"margin": 1.0, "scale": 0.3, "learning_rate": 0.25},
    {"margin": 0.1, "scale": 3.0, "learning_rate": 4.0},
    {"margin": 2.0, "scale": 10.0, "learning_rate": 0.5},
)  # tried first for every distance; then the sampler takes account of what was found


def tune(profile: str = "full", trials: int = 8, jobs: int = 2, device: str | None = None) -> Path:
    """Tune what the cells of a profile of ``study.yaml`` leave open; write ``data/reference/tuned_PROFILE.json``.

    Cells that differ by seed share the outcome; so do those whose seeds divide the classes anew, and what they share is
    found on the usual division. A margin, scale or learning rate that the profile's settings fix is not
    tuned. Of a loss's own numbers two are: the margin that is compared with a distance, and the scale of a softmax or
    log-sum-exp; angular loss has neither. Cells that train on all classes are tuned on the usual share of them. Trials
    stand in ``data/runs/tuning/trials.db`` (SQLite): an interrupted tuning goes on, with the trials that it would have
    made uninterrupted. Other settings or images start anew; another version of the library does not: remove the folder
    for that. A training that diverges is a trial that scored 0.

    Args:
        profile: its name.
        trials: of each data set, network, loss and distance.
        jobs: trainings at a time, each on one thread.
        device: that trains; None is CUDA where there is one, else the CPU.

    Returns:
        The path of the JSON file.

    Raises:
        ValueError: an unknown profile, one that leaves nothing open, or a cell that cannot be.
        FileNotFoundError: a data set or weights are not there.
        FileExistsError: another tuning of this study is at work.
        ChildProcessError: some failed; the message says which and why.
    """
    if trials < 1:
        raise ValueError(f"trials must be positive, got {trials}")
    if jobs < 1:
        raise ValueError(f"jobs must be positive, got {jobs}")
    tasks = cells(profile, tuned_values=False)
    check(tasks)
    grid = Grid(profile)
    if absent := dict.fromkeys(why for task in tasks if (why := grid.absent(task))):
        raise FileNotFoundError("; ".join(absent))
    groups = _groups(tasks)
    if not groups:
        raise ValueError(f"profile {profile} leaves nothing to tune")
    folder = data_folder("runs") / "tuning"
    with one_at_a_time(folder, wait=False):
        storage(folder)  # makes its tables, which two processes must not do at once
        steps = [_step(folder, settings, open_, trials, device) for settings, open_ in groups]
        found = finish(f"tuning of {profile}", steps, jobs)
    return stored.write_tables(f"tuned_{profile}", {}, _about(profile, trials, found))


def is_tuned(profile: str) -> bool:
    """Whether all that the cells of a profile leave open was tuned for it."""
    rows = [row for row in stored.tuned_rows() if row["profile"] == profile]
    known = {tuple(row[name] for name in _KEY): row.keys() for row in rows}
    groups = _groups(cells(profile, tuned_values=False))
    return all(known.get(_key(settings), set()) >= set(open_) for settings, open_ in groups)


def _groups(tasks: list[Task]) -> list[tuple[Settings, list[str]]]:
    """For each combination of a profile, seeds aside: the settings to tune with, and the names of what is open."""
    declared = {name: parameter.default for name, parameter in parameters("07").items()}
    found: dict[Settings, list[str]] = {}
    for task in tasks:
        if task.tuned_on not in (None, task.values["data"]):
            continue
        given = declared | task.values
        usual_split = {} if "split" in task.fixed else {"split": 0}
        settings = _usual(given | {"seed": TRIAL_SEEDS[0]} | usual_split)
        loss = LOSSES.get(settings.loss)
        open_ = []
        if given["margin"] is None and loss is not None and loss.margin_unit is not None:
            open_.append("margin")
        if given["scale"] is None and loss is not None and loss.default_scale is not None:
            open_.append("scale")
        if given["learning_rate"] is None:
            open_.append("learning_rate")
        if open_ and settings.normalize_embeddings:
            raise ValueError(
                f"{task.name}: embeddings of length 1 are not tuned; give a margin or a scale, and a learning_rate"
            )
        if open_:
            found[settings] = open_
    keys = [_key(settings) for settings in found]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f"blocks that differ by their settings alone cannot be tuned apart: {sorted(twice)[0]}")
    return list(found.items())


def _key(settings: Settings) -> tuple[Any, ...]:
    """What cells find their values by, as `snrlib.study.stored.tuned_rows` has it."""
    known = asdict(settings) | {"map": settings.map or "", "pretrained": settings.weights is not None}
    known["variant"] = settings.variant
    return tuple(known[name] for name in _KEY)


def _usual(given: dict[str, Any]) -> Settings:
    """The settings of a trial, before it changes a margin or a rate: validated once, at the end, nothing tuned."""
    share = given["validation_share"] or usual_validation_share(training_classes(given["data"], given["root"])[0])
    if not share:
        raise ValueError(f"{given['data']} has too few classes to set some aside, by which values could be chosen")
    # Normalised embeddings keep out what was tuned before.
    settings = from_parameters(given | {"normalize_embeddings": True, "validation_share": share})
    return replace(settings, normalize_embeddings=given["normalize_embeddings"], every=settings.steps)


def margin_unit(settings: Settings, device: str | None = None) -> float:
    """In which margins are tried, and over which scales: 1 for a relative distance, whose unit is the anchor's length.

    The unit of an absolute distance is the network's own: the mean squared distance of the untrained one
    (`snrlib.experiment.initial_scale`), or its root where the loss compares distances that are not squared.
    """
    if settings.relative:
        return 1.0
    squared = initial_scale(settings, device)
    return squared**0.5 if LOSSES[settings.loss].margin_unit == "distance" else squared


def storage(folder: Path) -> optuna.storages.RDBStorage:
    """Where the trials of a folder stand; its tables are made where there are none."""
    folder.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{folder / 'trials.db'}"
    return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})


def _step(folder: Path, settings: Settings, open_: list[str], trials: int, device: str | None) -> Step:
    """Its result is kept under the name of its trials and their number."""
    arguments = {"settings": asdict(settings), "open_": open_, "trials": trials, "device": device}
    name = _name(settings, open_).replace(", ", " ").replace(" ", "-")
    path = folder / f"{name}-{trials}.json"
    return Step("snrlib.study.tuning:tune_one", arguments, path)


def _name(settings: Settings, open_: list[str], images: LabelledImages | None = None) -> str:
    """Of the trials: the label, and a digest of all that decides them."""
    images = images_of(settings, "train") if images is None else images
    decides = [
        asdict(settings),
        images.fingerprint,
        open_,
        MARGINS,
        SCALES,
        RATES,
        _FIRST,
        TRIAL_SEEDS,
    ]
    return f"{_label(settings)} {digest(decides)}"


def _label(settings: Settings) -> str:
    s = settings
    return " ".join(name for name in (s.data, s.backbone, s.loss, s.distance, s.map, s.variant) if name)


def tune_one(
    settings: dict[str, Any],
    open_: list[str],
    trials: int,
    path: Path,
    device: str | None = None,
    images: LabelledImages | None = None,
) -> str:
    """The trials of one combination, those that are there already included; the best, and all, are written to a path.

    Args:
        settings: as a dictionary.
        open_: any of "margin", "scale" and "learning_rate".
        trials: how many.
        path: of the result; the trials stand beside it.
        device: that trains; None is CUDA where there is one, else the CPU.
        images: to train and validate on instead of those that the settings name, for example spoiled ones.

    Returns:
        A line that says what was chosen.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    s = Settings(**settings)
    study = _study(path.parent, _name(s, open_, images))
    ranges = {"margin": MARGINS, "scale": SCALES, "learning_rate": RATES}
    space: dict[str, BaseDistribution] = {name: FloatDistribution(*ranges[name], log=True) for name in open_}
    unit = margin_unit(s, device) if {"margin", "scale"} & set(open_) else 1.0
    while (done := len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))) < trials:
        # A sampler of its own for each trial: what it proposes depends on the finished trials alone.
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=len(_FIRST), multivariate=True, seed=done)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))  # put there by a killed process
        if done < len(_FIRST) and not waiting:
            study.enqueue_trial({name: _FIRST[done][name] for name in open_})
        trial = study.ask(space)
        study.tell(trial, _try(s, trial, unit, device, images))
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[:trials]
    scores = [trial.values[0] for trial in finished]
    best = int(np.argmax(scores))  # the first of equals
    chosen = {name: finished[best].user_attrs[name] for name in open_}
    at_bound = [
        name for name in open_ if not 1.2 * ranges[name][0] < finished[best].params[name] < ranges[name][1] / 1.2
    ]
    result: dict[str, Any] = dict(zip(_KEY, _key(s), strict=True))
    result["device"] = device_name(device)
    result |= {"steps": s.steps, "validation_share": s.validation_share, **chosen}
    result |= {"validation_map_at_r": round(scores[best], 5), "at_bound": at_bound}
    result["trials"] = [
        {name: trial.user_attrs[name] for name in (*open_, "seconds")}
        | {"validation_map_at_r": round(score, 5), "diverged": "diverged" in trial.user_attrs}
        for trial, score in zip(finished, scores, strict=True)
    ]
    write_json(path, result)
    at = f", at a bound: {', '.join(at_bound)}" if at_bound else ""
    return f"{_label(s)}: {chosen}, validation MAP@R {scores[best]:.4f}{at}"


def _study(folder: Path, name: str) -> optuna.Study:
    """The trials so far; one that a killed process has left is given up."""
    study = optuna.create_study(study_name=name, storage=storage(folder), direction="maximize", load_if_exists=True)
    for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(left.number, state=TrialState.FAIL)
    return study


def _try(
    settings: Settings, trial: optuna.Trial, unit: float, device: str | None, images: LabelledImages | None
) -> float:
    """Train with what a trial proposes; 0 if that diverges."""
    changes: dict[str, float] = {}
    if "scale" in trial.params:
        usual = LOSSES[settings.loss].default_scale
        assert usual is not None
        changes["scale"] = float(f"{trial.params['scale'] * usual / unit:.3g}")
        unit *= changes["scale"]  # a margin beside it is compared with the scaled distance
    if "margin" in trial.params:
        changes["margin"] = float(f"{trial.params['margin'] * unit:.3g}")
    if "learning_rate" in trial.params:
        rate = float(f"{trial.params['learning_rate'] * settings.learning_rate:.3g}")
        ratio = settings.trunk_learning_rate / settings.learning_rate
        changes |= {"learning_rate": rate, "trunk_learning_rate": rate * ratio}
    begun = time.perf_counter()
    chosen = replace(settings, **changes)  # type: ignore[arg-type]
    try:
        scores = [
            fit(replace(chosen, seed=seed), device=device, images=images).validation_score for seed in TRIAL_SEEDS
        ]
        score = float(np.mean(scores))
        if not np.isfinite(score):
            label = _label(settings)
            raise ValueError(f"{label}: the validation score must be finite, got {score}; has a class two images?")
    except FloatingPointError as error:
        score = 0.0
        trial.set_user_attr("diverged", str(error))
    for name, value in changes.items():
        trial.set_user_attr(name, value)
    trial.set_user_attr("seconds", round(time.perf_counter() - begun, 2))
    return score


def _about(profile: str, trials: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    key = ("data", "backbone", "loss", "distance", "map", "variant")
    return {
        "command": f"snr tune --profile {profile} --trials {trials}",
        "profile": profile,
        "margins": {"from": MARGINS[0], "to": MARGINS[1], "unit": "of the distance, snrlib.study.tuning.margin_unit"},
        "scales": {"from": SCALES[0], "to": SCALES[1], "unit": "the loss's usual one over that of the distance"},
        "learning_rates": {"from": RATES[0], "to": RATES[1], "unit": "the rate that suits the network"},
        "trials": trials,
        "seeds": TRIAL_SEEDS,
        "validation_shares": {row["data"]: row.pop("validation_share") for row in found},
        "tuned": [{name: value for name, value in row.items() if name != "trials"} for row in found],
        "tuning": [{name: row[name] for name in key} | trial for row in found for trial in row["trials"]],
        "core_minutes": round(sum(trial["seconds"] for row in found for trial in row["trials"]) / 60, 1),
        "devices": sorted({row.pop("device", cpu()) for row in found}),
        **provenance(),
    }
