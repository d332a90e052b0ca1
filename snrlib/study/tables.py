"""Tables of many experiments: from the stored studies, from your own runs of notebook 07, or run on the spot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from snrlib.evaluate import confusion, most_confused
from snrlib.experiment import Experiment, Run, default_settings, experiment, read_run
from snrlib.notebooks.run import is_current
from snrlib.stats import effect_size, holm, mean_interval, t_test, verdict
from snrlib.study.stored import KEY, Results
from snrlib.utils.files import data_folder
from snrlib.utils.reading import read_json

__all__ = [
    "add_confusions",
    "confusions_of",
    "corrected",
    "differences",
    "gather_runs",
    "label",
    "loss_table",
    "paired_differences",
    "read_runs",
    "run_now",
    "run_rows",
    "summary",
    "under_training_distance",
]

_TOGETHER = {"distance": ("distance", "map", "variant"), "judge": ("judge", "anchor")}


def run_rows(found: dict[str, Any]) -> pd.DataFrame:
    """What an experiment found, as rows of `snrlib.study.stored.Results.runs`.

    Args:
        found: as `snrlib.experiment.Experiment.row` gives it, and the result row of a run of notebook 07 keeps it under
            ``experiment``. A network before training has no loss and no distance of its own.
    """
    s, trained = found["settings"], found["trained"]
    network = {"data": s["data"], "backbone": s["backbone"], "loss": "untrained", "distance": "", "map": ""}
    network |= {"variant": "softplus" if s.get("softplus") else "", "margin": float("nan"), "seed": s["seed"]}
    if trained:
        network |= {"loss": s["loss"], "distance": s["distance"], "map": s["map"] or "", "margin": s["margin"]}
        network |= {"variant": found.get("variant", "")}
    gallery = {name: found[name] for name in ("classes", "images") if name in found}
    rows = []
    for scores in found["scores"]:
        judge = s["distance"] if scores["judge"] == "training" and not trained else scores["judge"]
        named = {"judge": judge, "anchor": scores["anchor"] or ""}
        rows.append({**network, **scores, **named, **gallery, **found["cost"], "seconds": found["seconds"]})
    return pd.DataFrame(rows)


def confusions_of(done: Experiment | Run) -> pd.DataFrame:
    """All confusions of one experiment, classified by the nearest other image under its training distance."""
    labels, classes = (done.labels, done.classes) if isinstance(done, Run) else (done.test.labels, done.test.classes)
    matrix = confusion(done.embeddings, labels, distance=done.distance, classes=classes)
    pairs = most_confused(matrix, matrix.size).rename(columns={"taken for": "taken_for"})
    network = {key: getattr(done.settings, key) or "" for key in KEY}
    return pairs.assign(**network)[[*KEY, "class", "taken_for", "count"]]


def add_confusions(tables: Iterable[pd.DataFrame], n: int | None = None) -> pd.DataFrame:
    """Counts summed over the tables; of each network the n most frequent pairs, or all."""
    together = pd.concat(list(tables), ignore_index=True)
    summed = together.groupby([*KEY, "class", "taken_for"], sort=False)["count"].sum().reset_index()
    summed = summed.sort_values("count", ascending=False, kind="stable")
    chosen = summed if n is None else summed.groupby(list(KEY), sort=False).head(n)
    return chosen.sort_values(list(KEY), kind="stable", ignore_index=True)


def gather_runs(data: str, folder: str | Path | None = None) -> Results:
    """Your own runs of notebook 07 on a data set, those of the present notebook and library.

    Args:
        data: name of the data set.
        folder: that holds their folders; None is ``data/runs/07_train``.

    Raises:
        FileNotFoundError: there is none; the message says how to make one.
    """
    folder = data_folder("runs") / "07_train" if folder is None else Path(folder)
    current = [
        result
        for result in sorted(folder.glob("*/result.json"))
        if is_current(result.with_name("07_train.ipynb"))  # what is damaged is not
        and read_json(result, "run notebook 07 again")["parameters"].get("data") == data
    ]
    if not current:
        raise FileNotFoundError(f"{folder} holds no current run on {data}; `snr run 07 -p data={data}` makes one")
    return read_runs(current)


def read_runs(paths: Sequence[Path]) -> Results:
    """Runs of notebook 07, read from their result.json and the files beside it.

    Args:
        paths: of result.json; at least one.
    """
    runs = [read_run(path) for path in paths]
    table = pd.concat([run_rows(run.row) for run in runs], ignore_index=True)
    places = [path.parent.name for path in paths]
    return Results(table, add_confusions(map(confusions_of, runs)), {"runs": places})


def run_now(
    data: str,
    backbones: Sequence[str],
    losses: Sequence[str],
    distances: Sequence[str],
    seeds: Sequence[int] = (0,),
    **changes: Any,
) -> Results:
    """Small experiments on the spot, with usual margins (not tuned).

    Args:
        data: name of the data set.
        backbones: names.
        losses: names.
        distances: names.
        seeds: of each.
        **changes: settings of `snrlib.experiment.default_settings`, as ``steps``.
    """
    settings = [
        default_settings(data, backbone, loss=loss, distance=distance, seed=seed, **changes)
        for backbone in backbones
        for loss in losses
        for distance in distances
        for seed in seeds
    ]
    done = [experiment(one) for one in settings]  # all of them are checked before the first trains
    runs = pd.concat([run_rows(one.row()) for one in done], ignore_index=True)
    return Results(runs, add_confusions(confusions_of(one) for one in done), {"settings": asdict(done[0].settings)})


def under_training_distance(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of trained networks, each judged by its training distance with the query as anchor, if it has one."""
    return runs[(runs.judge == "training") & (runs.anchor != "ref") & (runs.loss != "untrained")]


def label(distance: str, kind: str, variant: str = "") -> str:
    """How a distance is called in a table; ``kind`` of map is named where it does not follow the training."""
    return ", ".join([distance, *([] if kind in ("", "running") else [kind]), *([variant] if variant else [])])


def summary(runs: pd.DataFrame, score: str = "precision_at_1", level: float = 0.95) -> pd.DataFrame:
    """Mean over seeds with its t-interval, for each network (`snrlib.study.stored.KEY`), judge and anchor.

    Args:
        runs: of `snrlib.study.stored.Results`.
        score: the column.
        level: of confidence.

    Returns:
        Columns ``mean``, ``half_width`` (of the interval; NaN for one seed) and ``seeds``.
    """
    names = [*KEY, "judge", "anchor"]
    rows = {key: _over_seeds(values, level) for key, values in runs.groupby(names, sort=False)[score]}
    return _indexed(rows, names, ["mean", "half_width", "seeds"])


def paired_differences(runs: pd.DataFrame, column: str, baseline: str, score: str = "precision_at_1") -> pd.DataFrame:
    """The difference of each run to the baseline's run of the same seed, all else equal.

    Args:
        runs: of `snrlib.study.stored.Results`.
        column: what is compared: "distance", together with its map and variant; "judge", together with its anchor,
            which compares ways to search one network; "backbone", "loss" or "data".
        baseline: its value that is subtracted.
        score: the column.

    Returns:
        A row per run that has a partner: `snrlib.study.stored.KEY` (and judge and anchor, if these are compared),
        ``seed``, ``difference``.

    Raises:
        ValueError: the column does not hold the baseline, or it holds several of it for one run, or a run has several
            rows: choose its judge and anchor first.
    """
    if baseline not in set(runs[column]):
        raise ValueError(f"{column} {baseline!r} is not among {', '.join(sorted(set(runs[column])))}")
    compared = _TOGETHER.get(column, (column,))
    others = [key for key in KEY if key not in compared]
    own = runs.dropna(subset=[score])
    is_theirs = own[column] == baseline
    if column == "distance" and (is_theirs & (own.variant == "")).any():
        is_theirs &= own.variant == ""  # the others of that name are variants
    theirs, own = own[is_theirs], own[~is_theirs]
    for part, names in ((theirs, others), (own, [*others, *compared])):
        if part.duplicated([*names, "seed"]).any():
            raise ValueError(f"a run has several rows under one {', '.join(compared)}; choose among them first")
    own = own.assign(order=own.groupby(others, sort=False).ngroup())
    pairs = own.merge(theirs[[*others, "seed", score]], on=[*others, "seed"], suffixes=("", " of the baseline"))
    pairs = pairs.sort_values("order", kind="stable", ignore_index=True)
    pairs["difference"] = pairs[score] - pairs[f"{score} of the baseline"]
    return pairs[[*others, *compared, "seed", "difference"]]


def differences(
    runs: pd.DataFrame, column: str, baseline: str, score: str = "precision_at_1", level: float = 0.95
) -> pd.DataFrame:
    """Differences to a baseline, paired by seed: `paired_differences`, summed up for each network.

    Args:
        runs: of `snrlib.study.stored.Results`, one row per run (choose the judge first, or compare by it).
        column: as for `paired_differences`.
        baseline: its value that is subtracted.
        score: the column that is compared.
        level: of confidence.

    Returns:
        As `summary`, with ``verdict``: "higher", "lower", or "no difference shown" if the interval contains 0; ``p``
        of the paired t-test, ``p_holm``, corrected for all rows of this table (`corrected`), and ``effect``, in
        standard deviations of the difference (`snrlib.stats`).

    Raises:
        ValueError: as `paired_differences`.
    """
    pairs = paired_differences(runs, column, baseline, score)
    names = list(pairs.columns[:-2])
    rows = {key: _over_seeds(values, level, tests=True) for key, values in pairs.groupby(names, sort=False).difference}
    table = _indexed(rows, names, ["mean", "half_width", "seeds", "p", "effect"])
    words = [verdict(mean, half) for mean, half in zip(table["mean"], table["half_width"], strict=True)]
    family = corrected(table.reset_index()) if column == "distance" else _holm(table.p)
    return table[["mean", "half_width", "seeds"]].assign(
        verdict=words, p=table.p, p_holm=family.to_numpy(), effect=table.effect
    )


def corrected(table: pd.DataFrame) -> pd.Series:
    """Holm's p-values for all comparisons of a table as one family, but for a near-copy.

    Relative Euclid differs from SNR by the row mean alone, which holds little of these embeddings: where both are
    compared, its tests are no new ones, are not counted, and have NaN.

    Args:
        table: with the columns ``distance`` and ``p``; NaN where nothing is compared.
    """
    twice = table.distance == "relative_euclidean"
    return _holm(table.p.mask(twice) if (table.distance == "snr").any() else table.p)


def _holm(p: pd.Series) -> pd.Series:
    return pd.Series(holm(p), p.index) if len(p) else p


def _indexed(rows: dict[Any, dict[str, float]], names: list[str], columns: list[str]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(list(rows), names=names) if rows else pd.MultiIndex.from_arrays([[]] * len(names))
    table = pd.DataFrame(list(rows.values()), index.set_names(names), columns, dtype=float)
    return table.astype({"seeds": int})


def _over_seeds(values: pd.Series, level: float, tests: bool = False) -> dict[str, float]:
    values = values.dropna()
    n = len(values)
    mean, half = mean_interval(values, level) if n else (float("nan"), float("nan"))
    row = {"mean": mean, "half_width": half, "seeds": n}
    if tests:
        row |= {"p": t_test(values), "effect": effect_size(values)}
    return row


def loss_table(
    runs: pd.DataFrame, score: str = "precision_at_1", baseline: str = "euclidean", level: float = 0.95
) -> pd.DataFrame:
    """Distances by losses: mean and half width of its interval, and an arrow where it differs from Euclid.

    ▲ higher, ▼ lower: also with Holm's correction for all comparisons of this table (`corrected`). △ ▽: only by itself,
    by the interval of the paired difference; among thirty cells without any difference, one or two such are to be
    expected. Both take the differences for normal: with five seeds a `snrlib.stats.sign_flip_test` cannot reach 0.05.

    Args:
        runs: of `snrlib.study.stored.Results`, of one data set and backbone.
        score: the column.
        baseline: the distance that the arrows compare with, paired by seed (`differences`).
        level: of confidence; 1 - level is the bound of the corrected p-values.

    Returns:
        One row per distance and map (`label`), one column per loss; texts as "0.513 ± 0.020 ▲".

    Raises:
        ValueError: the baseline is not there.
    """
    own = under_training_distance(runs)
    arrows = {("higher", True): " ▲", ("lower", True): " ▼", ("higher", False): " △", ("lower", False): " ▽"}
    against = differences(own, "distance", baseline, score, level).reset_index()
    keys = zip(against.verdict, against.p_holm < 1 - level, strict=True)
    against["arrow"] = [arrows.get(key, "") for key in keys]
    rows = summary(own, score, level).reset_index().merge(against[[*KEY, "arrow"]], "left", list(KEY))
    spread = ["" if pd.isna(half) else f" ± {half:.3f}" for half in rows.half_width]  # one seed has none
    rows["text"] = [f"{mean:.3f}{more}" for mean, more in zip(rows["mean"], spread, strict=True)]
    rows["text"] += rows.arrow.fillna("")
    rows["distance"] = [label(*names) for names in zip(rows.distance, rows["map"], rows.variant, strict=True)]
    table = rows.pivot(index="distance", columns="loss", values="text")
    return table.loc[list(dict.fromkeys(rows.distance)), list(dict.fromkeys(rows.loss))]
