"""Margins and learning rates, tuned for each distance and loss with equal trials on validation classes.

A margin means something else under every distance, and so does a step: comparing distances at one margin and one
learning rate compares how well those happen to suit. So each gets the same number of trials, over the same range in its
own unit: four fixed ones, then what optuna's TPE proposes, on a share of the training classes and with one seed that is
not reported. The test classes are never loaded.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState

from snrlib.experiment import default_settings, fit, from_parameters, images_of
from snrlib.notebooks.parameters import parameters
from snrlib.study.grid import Grid, cells, check
from snrlib.study.reference import margin_unit, run_processes
from snrlib.utils.files import data_folder, write_json
from snrlib.utils.locks import one_at_a_time
from snrlib.utils.provenance import cpu, provenance

__all__ = ["MARGINS", "RATES", "tune"]

MARGINS: tuple[float, float] = (0.03, 3.0)
"""Between which margins are tried, in units of the distance, see `snrlib.study.reference.margin_unit`."""
RATES: tuple[float, float] = (0.25, 4.0)
"""Between which learning rates are tried, in units of the one that suits the network."""
_SEED = 1000
_KEY = ("data", "backbone", "loss", "distance", "embedding_size")  # what cells find their values by
_FIRST: tuple[dict[str, float], ...] = (
    {"margin": 0.3, "learning_rate": 1.0},
    {"margin": 1.0, "learning_rate": 0.5},
    {"margin": 0.1, "learning_rate": 2.0},
    {"margin": 2.0, "learning_rate": 1.5},
)  # tried first for every distance; then the sampler takes account of what was found


def tune(profile: str = "full", trials: int = 8, jobs: int = 2) -> Path:
    """Tune what the cells of a profile of ``study.yaml`` leave open; write ``data/reference/tuned_PROFILE.json``.

    Cells that differ by seed share the outcome. A margin or a learning rate that the profile's settings fix is not
    tuned; N-pair loss has no margin. Trials stand in ``data/runs/tuning/trials.db`` (SQLite): an interrupted tuning
    goes on, with the trials that it would have made uninterrupted. Other settings or images start anew; another version
    of the library does not: remove the file for that. A training that diverges is a trial that scored 0.

    Args:
        profile: its name.
        trials: of each data set, network, loss and distance.
        jobs: trainings at a time, each on one thread.

    Returns:
        The path of the JSON file.

    Raises:
        ValueError: an unknown profile, one that leaves nothing open, or a cell that cannot be.
        FileNotFoundError: a data set or weights are not there.
        FileExistsError: another tuning of this study is at work.
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
        storage = f"sqlite:///{folder / 'trials.db'}"
        _storage(storage)  # makes its tables, which two processes must not do at once
        found = run_processes(_tune_one, [(storage, settings, open_, trials) for settings, open_ in groups], jobs)
    path = data_folder("reference") / f"tuned_{profile}.json"
    write_json(path, _about(profile, trials, found))
    return path


def _groups(tasks: list[Any]) -> list[tuple[dict[str, Any], list[str]]]:
    """For each combination of a profile, seeds aside: the settings to tune with, and the names of what is open."""
    declared = {name: parameter.default for name, parameter in parameters("05").items()}
    found = {}
    for task in tasks:
        p = declared | task.values | {"seed": _SEED}
        open_ = ["margin"] * (p["margin"] < 0 and p["loss"] not in ("n_pair", "angular", "softmax"))
        open_ += ["learning_rate"] * (not p["learning_rate"])
        usual = default_settings(p["data"], p["backbone"], **({"weights": p["weights"]} if p["weights"] else {}))
        chosen = {"margin": max(p["margin"], 0.0), "learning_rate": p["learning_rate"] or usual["learning_rate"]}
        settings = from_parameters(p | chosen)
        settings |= {"every": settings["steps"]}  # validated once, at the end
        if open_ and p["normalize_embeddings"]:
            raise ValueError(f"{task.name}: embeddings of length 1 are not tuned; give a margin and a learning_rate")
        if open_:
            found[json.dumps(settings, sort_keys=True)] = (settings, open_)
    keys = [(*(settings[name] for name in _KEY), bool(settings["weights"])) for settings, _ in found.values()]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f"blocks that differ by their settings alone cannot be tuned apart: {sorted(twice)[0]}")
    return list(found.values())


def _storage(url: str) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})


def _tune_one(url: str, settings: dict[str, Any], open_: list[str], trials: int) -> dict[str, Any]:
    """The trials of one combination, those that are there already included; the best, and all."""
    started = time.perf_counter()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: dict[str, BaseDistribution] = {"learning_rate": FloatDistribution(*RATES, log=True)}
    if "margin" in open_:
        space["margin"] = FloatDistribution(*MARGINS, log=True)
    space = {name: space[name] for name in open_}
    decides = [settings, images_of(settings, "train").fingerprint, open_, MARGINS, RATES, _FIRST]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    label = " ".join(settings[key] for key in ("data", "backbone", "loss", "distance"))
    study = optuna.create_study(
        study_name=f"{label} {digest}", storage=_storage(url), direction="maximize", load_if_exists=True
    )
    for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):  # by a process that was killed
        study.tell(left.number, state=TrialState.FAIL)
    unit = None
    while (done := len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))) < trials:
        # A sampler of its own for each trial: what it proposes depends on the finished trials alone.
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=len(_FIRST), multivariate=True, seed=done)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))  # put there by a killed process
        if done < len(_FIRST) and not waiting:
            study.enqueue_trial({name: _FIRST[done][name] for name in open_})
        trial = study.ask(space)
        changes = {}
        if "margin" in open_:
            unit = margin_unit(settings) if unit is None else unit
            changes["margin"] = float(f"{trial.params['margin'] * unit:.3g}")
        if "learning_rate" in open_:
            ratio = settings["trunk_learning_rate"] / settings["learning_rate"]
            rate = float(f"{trial.params['learning_rate'] * settings['learning_rate']:.3g}")
            changes |= {"learning_rate": rate, "trunk_learning_rate": rate * ratio}
        begun = time.perf_counter()
        try:
            score = fit(settings | changes, device="cpu").validation_score
            if not np.isfinite(score):
                raise ValueError(f"{label}: the validation score must be finite, got {score}; has a class two images?")
        except FloatingPointError as error:
            score = 0.0
            trial.set_user_attr("diverged", str(error))
        for name, value in changes.items():
            trial.set_user_attr(name, value)
        trial.set_user_attr("seconds", round(time.perf_counter() - begun, 2))
        study.tell(trial, score)
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[:trials]
    scores = [trial.values[0] for trial in finished]
    best = int(np.argmax(scores))  # the first of equals
    key = {name: settings[name] for name in (*_KEY, "steps", "validation_share")}
    key["pretrained"] = bool(settings["weights"])
    chosen = {name: finished[best].user_attrs[name] for name in open_}
    seconds = time.perf_counter() - started
    print(f"  {label}: {chosen}, validation MAP@R {scores[best]:.4f}, {seconds:.0f} s", flush=True)
    return {
        **key,
        **chosen,
        "validation_map_at_r": round(scores[best], 5),
        "trials": [
            {name: trial.user_attrs[name] for name in (*open_, "seconds")}
            | {"validation_map_at_r": round(score, 5), "diverged": "diverged" in trial.user_attrs}
            for trial, score in zip(finished, scores, strict=True)
        ],
    }


def _about(profile: str, trials: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "command": f"snr tune --profile {profile} --trials {trials}",
        "profile": profile,
        "margins": {
            "from": MARGINS[0],
            "to": MARGINS[1],
            "unit": "of the distance, snrlib.study.reference.margin_unit",
        },
        "learning_rates": {"from": RATES[0], "to": RATES[1], "unit": "the rate that suits the network"},
        "trials": trials,
        "seed": _SEED,
        "validation_shares": {row["data"]: row.pop("validation_share") for row in found},
        "tuned": [{key: value for key, value in row.items() if key != "trials"} for row in found],
        "tuning": [
            {key: row[key] for key in ("data", "backbone", "loss", "distance")} | trial
            for row in found
            for trial in row["trials"]
        ],
        "core_minutes": round(sum(trial["seconds"] for row in found for trial in row["trials"]) / 60, 1),
        "cpu": cpu(),
        **provenance(),
    }
