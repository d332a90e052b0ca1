"""Tables of many experiments: from the stored studies, from your own runs of notebook 05, or run on the spot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from snrlib.distances import Distance
from snrlib.evaluate import confusion, most_confused
from snrlib.experiment import Experiment, default_settings, distance_of, experiment
from snrlib.notebooks.run import is_current
from snrlib.stats import effect_size, holm, mean_interval, t_test, verdict
from snrlib.utils.files import data_folder

__all__ = [
    "Results",
    "Run",
    "add_confusions",
    "confusions_of",
    "differences",
    "gather_runs",
    "loss_table",
    "loss_tables",
    "read_run",
    "read_runs",
    "reference_table",
    "run_now",
    "stored",
    "summary",
    "table_of",
    "under_training_distance",
]

_KEY = ["backbone", "loss", "distance"]


@dataclass(frozen=True, eq=False)
class Results:
    """Experiments that can be compared.

    Attributes:
        runs: one row a run and judging distance: backbone, loss, distance, margin, seed, judged_by, the scores of
            `snrlib.evaluate.compare`, cost. ``judged_by`` names the anchor side; loss "untrained" is the baseline.
        confused: backbone, loss, distance, class, taken_for, count over all seeds, most frequent first.
        about: where they come from.
    """

    runs: pd.DataFrame
    confused: pd.DataFrame
    about: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        trained = self.runs[self.runs.loss != "untrained"]
        n = len(trained[[*_KEY, "margin", "seed"]].drop_duplicates())
        return f"Results({n} trained networks, {trained.seed.nunique()} seeds; {', '.join(trained.backbone.unique())})"


def table_of(done: Experiment, trained: bool = True) -> pd.DataFrame:
    """One experiment as rows of `Results.runs`."""
    s = done.settings
    return pd.DataFrame(
        [
            {
                "backbone": s["backbone"],
                "loss": s["loss"] if trained else "untrained",
                "distance": s["distance"] if trained else "none",
                "margin": s["margin"] if trained else float("nan"),
                "seed": s["seed"],
                "judged_by": judge if trained else str(judge).replace("training distance", s["distance"]),
                **scores,
                **done.cost,
                "seconds": done.wall_time_s,
            }
            for judge, scores in done.scores.to_dict("index").items()
        ]
    )


def confusions_of(done: Experiment) -> pd.DataFrame:
    """All confusions of one experiment, classified by the nearest other image under its training distance."""
    return _confusions(done.embeddings, done.test.labels, done.test.classes, done.distance, done.settings)


def _confusions(
    x: Tensor, labels: Tensor, classes: Sequence[str], distance: Distance, settings: dict[str, Any]
) -> pd.DataFrame:
    matrix = confusion(x, labels, distance=distance, classes=classes)
    pairs = most_confused(matrix, matrix.size).rename(columns={"taken for": "taken_for"})
    return pairs.assign(**{key: settings[key] for key in _KEY})[[*_KEY, "class", "taken_for", "count"]]


def add_confusions(tables: Iterable[pd.DataFrame], n: int | None = None) -> pd.DataFrame:
    """Counts summed over the tables; of each network the n most frequent pairs, or all."""
    together = pd.concat(list(tables), ignore_index=True)
    summed = together.groupby([*_KEY, "class", "taken_for"], sort=False)["count"].sum().reset_index()
    summed = summed.sort_values("count", ascending=False, kind="stable")
    chosen = summed if n is None else summed.groupby(_KEY, sort=False).head(n)
    return chosen.sort_values([*_KEY, "count"], ascending=[True, True, True, False], kind="stable", ignore_index=True)


def stored(name: str) -> Results:
    """A study of `snrlib.study.reference`, as stored in ``data/reference``.

    Raises:
        FileNotFoundError: it was not measured.
        ValueError: its files are damaged or do not belong together.
    """
    path = data_folder("reference") / f"{name}.csv"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; `snr reference {name}` measures it")
    about = json.loads(path.with_suffix(".json").read_text())
    runs = pd.read_csv(path, keep_default_na=False, na_values=[""])
    if len(runs) != about["rows"]:
        raise ValueError(f"{path} has {len(runs)} rows, {path.with_suffix('.json').name} speaks of {about['rows']}")
    return Results(runs, pd.DataFrame(about.get("most_confused", [])), about)


def gather_runs(data: str, folder: str | Path | None = None) -> Results:
    """Your own runs of notebook 05 on a data set, those of the notebook and library as they are now.

    Args:
        data: name of the data set.
        folder: that holds their folders; None is ``data/runs/05_train``.

    Raises:
        FileNotFoundError: there is none; the message says how to make one.
    """
    folder = data_folder("runs") / "05_train" if folder is None else Path(folder)
    current = [
        result
        for result in sorted(folder.glob("*/result.json"))
        if json.loads(result.read_text())["parameters"].get("data") == data
        and is_current(result.with_name("05_train.ipynb"))
    ]
    if not current:
        raise FileNotFoundError(f"{folder} holds no current run on {data}; `snr run 05 -p data={data}` makes one")
    return read_runs(current)


def read_runs(paths: Sequence[Path]) -> Results:
    """Runs of notebook 05, read from their result.json and the files beside it.

    Args:
        paths: of result.json; at least one.
    """
    tables, confused = [], []
    for result in paths:
        run = read_run(result)
        p = run.settings
        scores = pd.read_csv(result.with_name("scores.csv"), index_col="distance").to_dict("index")
        cost = {key: run.metrics[key] for key in ("parameters", "trainable", "flops", "seconds_per_step")}
        own = {key: p[key] for key in (*_KEY, "margin", "seed")}
        seconds = run.metrics["experiment_s"]
        rows = [{**own, "judged_by": judge, **found, **cost, "seconds": seconds} for judge, found in scores.items()]
        tables.append(pd.DataFrame(rows))
        confused.append(_confusions(run.embeddings, run.labels, run.classes, run.distance, p))
    places = [result.parent.name for result in paths]
    return Results(pd.concat(tables, ignore_index=True), add_confusions(confused), {"runs": places})


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run of notebook 05.

    Attributes:
        settings: of `snrlib.experiment.experiment`.
        metrics: of its result row.
        embeddings: (n, M), of the test images.
        labels: (n,), integers.
        classes: their names, by label.
        distance: the training distance with its map, anchor side included.
    """

    settings: dict[str, Any]
    metrics: dict[str, Any]
    embeddings: Tensor
    labels: Tensor
    classes: list[str]
    distance: Distance


def read_run(result: Path) -> Run:
    """A run of notebook 05, from its result.json and the embeddings.npz that `Experiment.save` put beside it."""
    metrics = json.loads(result.read_text())["metrics"]
    names = {name: name.removeprefix("setting ") for name in metrics if name.startswith("setting ")}
    # No row holds the settings that are None; the default of those is None.
    settings = default_settings(**{short: metrics[name] for name, short in names.items()})
    with np.load(result.with_name("embeddings.npz")) as arrays:
        x, labels = (torch.from_numpy(arrays[key]) for key in ("embeddings", "labels"))
        distance = distance_of(settings, arrays.get("components"))
        return Run(settings, metrics, x, labels, arrays["classes"].tolist(), distance)


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
    runs = pd.concat([table_of(one) for one in done], ignore_index=True)
    return Results(runs, add_confusions(confusions_of(one) for one in done), {"settings": done[0].settings})


def under_training_distance(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of trained networks, each judged by its training distance with the query as anchor, if it has one."""
    judge = runs.judged_by.isin(["training distance", "training distance, anchor query"])
    return runs[judge & (runs.loss != "untrained")]


def loss_table(
    runs: pd.DataFrame, score: str = "precision_at_1", baseline: str = "euclidean", level: float = 0.95
) -> pd.DataFrame:
    """Distances by losses: mean and half width of its interval, and an arrow where it differs from Euclid.

    ▲ higher, ▼ lower: also with Holm's correction for all comparisons of this table. △ ▽: only by itself, by the
    interval of the paired difference; among thirty cells without any difference, one or two such are to be expected.
    Both take the differences for normal: with five seeds a `snrlib.stats.sign_flip_test` cannot reach 0.05.

    Args:
        runs: of `Results`, of one backbone.
        score: the column.
        baseline: the distance that the arrows compare with, paired by seed (`differences`).
        level: of confidence; 1 - level is the bound of the corrected p-values.

    Returns:
        One row a distance, one column a loss; texts as "0.513 ± 0.020 ▲".

    Raises:
        ValueError: the baseline is not there.
    """
    own = under_training_distance(runs)
    arrows = {("higher", True): " ▲", ("lower", True): " ▼", ("higher", False): " △", ("lower", False): " ▽"}
    against = differences(own, "distance", baseline, score, level)
    keys = zip(against.verdict, against.p_holm < 1 - level, strict=True)
    shown = dict(zip(against.droplevel("backbone").index, (arrows.get(key, "") for key in keys), strict=True))
    rows = summary(own, score, level).reset_index()
    rows["text"] = [
        f"{row.mean:.3f} ± {row.half_width:.3f}{shown.get((row.loss, row.distance), '')}" for row in rows.itertuples()
    ]
    table = rows.pivot(index="distance", columns="loss", values="text")
    return table.loc[list(dict.fromkeys(own.distance)), list(dict.fromkeys(own.loss))]


def loss_tables(names: Sequence[str]) -> str:
    """`loss_table` of stored studies as one Markdown table.

    Raises:
        FileNotFoundError: one was not measured.
    """
    tables = {name: loss_table(stored(name).runs) for name in names}
    losses = list(next(iter(tables.values())).columns)
    lines = ["| " + " | ".join(["study", "distance", *losses]) + " |", "|---" * (len(losses) + 2) + "|"]
    for name, table in tables.items():
        for distance, row in table.reindex(columns=losses, fill_value="").iterrows():
            lines.append("| " + " | ".join([name, str(distance), *row]) + " |")
            name = ""
    return "\n".join(lines)


def summary(runs: pd.DataFrame, score: str = "precision_at_1", level: float = 0.95) -> pd.DataFrame:
    """Mean over seeds with its t-interval, for each backbone, loss, distance and judging distance.

    Args:
        runs: of `Results`.
        score: the column.
        level: of confidence.

    Returns:
        Columns ``mean``, ``half_width`` (of the interval; NaN for one seed) and ``seeds``.
    """
    groups = runs.groupby([*_KEY, "judged_by"], sort=False)[score]
    table = pd.DataFrame({name: _over_seeds(values, level) for name, values in groups}).T
    return table.astype({"seeds": int}).rename_axis([*_KEY, "judged_by"])


def differences(
    runs: pd.DataFrame, column: str, baseline: str, score: str = "precision_at_1", level: float = 0.95
) -> pd.DataFrame:
    """Differences to a baseline, paired by seed: for each other value of ``column``, all else equal.

    Args:
        runs: of `Results`, one row a run (choose the judging distance first, or compare by it).
        column: "distance", "backbone", "loss" or "judged_by", which compares two ways to search one network.
        baseline: its value that is subtracted.
        score: the column that is compared.
        level: of confidence.

    Returns:
        As `summary`, with ``verdict``: "higher", "lower", or "no difference shown" if the interval contains 0; ``p``
        of the paired t-test, ``p_holm``, corrected for all rows of this table, and ``effect``, in standard deviations
        of the difference (`snrlib.stats`).

    Raises:
        ValueError: the column does not hold the baseline.
    """
    if baseline not in set(runs[column]):
        raise ValueError(f"{column} {baseline!r} is not among {', '.join(sorted(set(runs[column])))}")
    others = [key for key in _KEY if key != column]
    wide = runs.pivot_table(score, index=[*others, "seed"], columns=column, sort=False)
    less = wide.drop(columns=baseline).sub(wide[baseline], axis=0)
    rows = {
        (*(key if isinstance(key, tuple) else (key,)), name): _over_seeds(values, level, tests=True)
        for key, group in less.groupby(others, sort=False)
        for name, values in group.items()
    }
    table = pd.DataFrame(rows).T.astype({"seeds": int}).rename_axis([*others, column])
    table = table[table.seeds > 0]  # the others have nothing to be compared with
    words = [verdict(mean, half) for mean, half in zip(table["mean"], table["half_width"], strict=True)]
    corrected = holm(table["p"]) if len(table) else table["p"]
    return table[["mean", "half_width", "seeds"]].assign(
        verdict=words, p=table["p"], p_holm=corrected, effect=table["effect"]
    )


def _over_seeds(values: pd.Series, level: float, tests: bool = False) -> dict[str, float]:
    values = values.dropna()
    n = len(values)
    mean, half = mean_interval(values, level) if n else (float("nan"), float("nan"))
    row = {"mean": mean, "half_width": half, "seeds": n}
    if tests:
        row |= {"p": t_test(values), "effect": effect_size(values)} if n else {"p": mean, "effect": mean}
    return row


def reference_table(names: Sequence[str]) -> str:
    """The stored studies as a Markdown table: R@1, MAP@R and EER by the training distance, query as anchor.

    Args:
        names: of the studies.

    Raises:
        FileNotFoundError: one was not measured.
    """
    titles = ("study", "network", "distance", "margin", "R@1", "MAP@R", "EER", "seeds", "R@1 against Euclid")
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    scores = ("precision_at_1", "mean_average_precision_at_r", "EER")
    for name in names:
        results = stored(name)
        before = (results.runs.loss == "untrained") & results.runs.judged_by.str.endswith("anchor query")
        own, untrained = under_training_distance(results.runs), results.runs[before]
        against = differences(own, "distance", "euclidean")
        minutes = (
            f"{name}, {results.about['experiments']} experiments, {results.about['core_minutes']:.0f} core minutes"
        )
        for backbone in own.backbone.unique():
            start = untrained[untrained.backbone == backbone][list(scores)].mean()
            cells = [
                minutes,
                backbone,
                "untrained, judged by SNR",
                "",
                *(f"{start[score]:.3f}" for score in scores),
                "",
                "",
            ]
            lines.append("| " + " | ".join(cells) + " |")
            for distance in own.distance.unique():
                part = own[(own.backbone == backbone) & (own.distance == distance)]
                shown = []
                for score in scores:
                    row = summary(part, score).iloc[0]
                    shown.append(f"{row['mean']:.3f} ± {row.half_width:.3f}")
                verdict = ""
                if distance != "euclidean":
                    row = against.T[(backbone, part.loss.iloc[0], distance)]
                    verdict = f"{row.verdict} ({row['mean']:+.3f} ± {row.half_width:.3f})"
                cells = ["", backbone, distance, f"{part.margin.iloc[0]:g}", *shown, str(part.seed.nunique()), verdict]
                lines.append("| " + " | ".join(cells) + " |")
            minutes = ""
    return "\n".join(lines)
