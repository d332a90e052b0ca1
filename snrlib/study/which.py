"""Which distance for embeddings that nobody trained for this study? `snrlib.evaluate.compare` on nine sets of them.

``snr measure which`` measures; ``data/reference/which.csv``, ``which_differences.csv`` and ``which.json`` hold what
came out. The protocol: `snrlib.study.which_sets.GIVEN`, all usual ways, two folds of classes, seed 0; each way minus
Euclid and minus the cosine, one family of tests for Holm per set, score and baseline. The control are random vectors,
200 draws, which have no classes to find.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from snrlib.evaluate import compare, geometry
from snrlib.evaluate.comparison import SCORE_WORDS, Comparison
from snrlib.mahalanobis import usual_ways
from snrlib.stats import holm, paired_over_classes
from snrlib.study import stored
from snrlib.study.steps import Step, finish
from snrlib.study.which_sets import GIVEN, Given, given_embeddings
from snrlib.utils.files import data_folder, digest, identified, write_json
from snrlib.utils.provenance import cpu, provenance

__all__ = ["BASELINES", "DRAWS", "false_alarms", "measure_one", "measure_random", "measure_which"]

BASELINES: tuple[str, ...] = ("Euclid", "cosine")
"""What the ways are compared with: nothing, and what most people take."""
DRAWS = 200
"""Of the random vectors."""
_LEVEL = 0.05
_KEY = ("data", "features")


def measure_which(weights: str | Path | None = None) -> Path:
    """Compare the usual ways on every set of `GIVEN`, and on random vectors; one process at a time.

    Args:
        weights: file with the ImageNet weights of SqueezeNet 1.1; None takes torchvision's.

    Returns:
        The path of ``which.csv``: a row per set and way, with its scores and how it was judged. Each set is kept in
        ``data/runs/which`` under a digest of all that it depends on; what is there is not measured again.

    Raises:
        ChildProcessError: some sets failed, the message says which and why; the others are kept.
    """
    weights, sha = identified(weights)
    folder = data_folder("runs") / "which"
    steps = []
    for name, given in GIVEN.items():
        of_file = given.features == "squeezenet1_1"
        decides = {"given": asdict(given), "weights": sha if of_file else None}
        arguments = {"name": name, "weights": str(weights) if of_file and weights else None}
        path = folder / f"{given.data}-{given.features}-{digest(decides)}.json"
        steps.append(Step(f"{__name__}:measure_one", arguments, path))
    control = Step(f"{__name__}:measure_random", {"draws": DRAWS}, folder / f"random-{DRAWS}.json")
    *found, random = finish("which", [*steps, control], 1)
    tables = {
        suffix: pd.DataFrame([row for one in found for row in one[key]])
        for suffix, key in (("", "scores"), ("differences", "differences"))
    }
    about = {
        "command": "snr measure which" + ("" if sha is None else " --weights FILE"),
        "weights_sha256": sha,
        "sets": [one["set"] for one in found],
        "random": random["random"],
        "cpu": cpu(),
        "threads_per_process": 1,
        "core_minutes": round(sum(one["seconds"] for one in [*found, random]) / 60, 1),
        **provenance(),
    }
    return stored.write_tables("which", tables, about)


def measure_one(name: str, weights: str | None, path: Path) -> str:
    """Compare the ways on one set, and keep it.

    Args:
        name: one of `GIVEN`.
        weights: file of its network, see `snrlib.study.which_sets.given_embeddings`.
        path: of the result.

    Returns:
        A line that says what came out.
    """
    started, given = time.process_time(), GIVEN[name]
    x, y = given_embeddings(given, weights)
    table = _compared(x, y, usual_ways(len(x) // 2, x.shape[1]))
    about = dict(table.about)
    key = dict(zip(_KEY, (given.data, given.features), strict=True))
    key |= {"classes": about["classes"], "images": about["images"]}
    answers = {f"{score} against {base}": table.answer(base, score) for score in SCORE_WORDS for base in BASELINES}
    facts = key | {"subset": _subset(given), "about": about, "geometry": asdict(geometry(x, y)), "answers": answers}
    facts["fingerprint"] = hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()[:16]
    rows = json.loads(table.rename_axis("way").reset_index().to_json(orient="records", double_precision=15))
    seconds = time.process_time() - started
    differences = [key | row for row in _differences(table)]
    write_json(
        path, {"scores": [key | row for row in rows], "differences": differences, "set": facts, "seconds": seconds}
    )
    return f"{name}: {answers['precision_at_1 against Euclid']} {seconds:.0f} s"


def _compared(x: torch.Tensor, y: torch.Tensor, ways: Mapping[str, Any], seed: int = 0) -> Comparison:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is left out stands in its `about`
        return compare(x, y, search=ways, cluster=False, seed=seed)


def _subset(given: Given) -> str:
    """What was taken, in words."""
    classes = "all classes" if given.every == 1 else "every second class"
    return classes + ("" if given.most is None else f", the first {given.most} test images of each")


def _differences(table: Comparison) -> list[dict[str, Any]]:
    found = []
    for score, base in itertools.product(SCORE_WORDS, BASELINES):
        rows = table.differences(base, score).rename_axis("way").reset_index()
        rows = rows.drop(columns=["classes", "queries"])
        listed = json.loads(rows.to_json(orient="records", double_precision=15))
        found += [{"score": score, "baseline": base} | row for row in listed]
    return found


def measure_random(draws: int, path: Path) -> str:
    """How often a difference is called between ways to search random vectors, where there is none to find.

    Args:
        draws: of 300 vectors of 16 components, in 20 classes of 15.
        path: of the result.

    Returns:
        A line with the counts.
    """
    started = time.process_time()
    called = []
    for draw in range(draws):
        x = torch.randn(300, 16, generator=torch.Generator().manual_seed(draw))
        called.append(false_alarms(_compared(x, torch.arange(300) % 20, usual_ways(), draw)))
    words = {score: list(called[0][score]) for score in SCORE_WORDS}
    counts = {score: {how: sum(one[score][how] for one in called) for how in words[score]} for score in words}
    seconds = time.process_time() - started
    write_json(path, {"random": {"draws": draws, "level": _LEVEL, "called": counts}, "seconds": seconds})
    return f"random: {counts} of {draws}, {seconds:.0f} s"


def false_alarms(table: Comparison) -> Mapping[str, Mapping[str, bool]]:
    """Whether a difference is called: to Euclid, or between any two ways.

    Args:
        table: of random vectors.

    Returns:
        By score: ``against Euclid``, as `Comparison.differences` says, with Holm's correction for the ways;
        ``any baseline``, so for each way in turn as the baseline, as somebody would who tries them all;
        ``any pair``, with Holm's correction for all pairs. Ways that rank alike by algebra count once.
    """
    ways = list(dict.fromkeys(table.ranking.values()))
    first = {rank: next(name for name, own in table.ranking.items() if own == rank) for rank in ways}
    found = {}
    for score in SCORE_WORDS:
        values = {rank: table.queries[name][score].to_numpy() for rank, name in first.items()}
        p = {
            pair: paired_over_classes(values[pair[0]], values[pair[1]], table.query_classes, n_resamples=100).p
            for pair in itertools.combinations(ways, 2)
        }
        families = [[value for pair, value in p.items() if way in pair] for way in ways]
        found[score] = {
            "against Euclid": bool((table.differences(score=score).verdict != "no difference shown").any()),
            "any baseline": any(bool((holm(family) < _LEVEL).any()) for family in families),
            "any pair": bool((holm([*p.values()]) < _LEVEL).any()),
        }
    return found
