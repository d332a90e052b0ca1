"""The grid on the page to read and share: scores, what is missing and why, where each cell's numbers are from."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd

from snrlib.notebooks.run import result_row
from snrlib.report.chapters import is_row
from snrlib.report.html import code, details, provenance_tables, table
from snrlib.study.grid import STALE, Grid
from snrlib.study.profiles import AXES, Task, profiles
from snrlib.study.tables import loss_table, run_rows, summary, under_training_distance
from snrlib.utils.files import data_folder

__all__ = ["grid_section"]

Row = dict[str, Any]
_FEW = 4  # missing cells that are named without being asked for
_READ = (
    "R@1 on classes that no training saw, under the training distance: mean over the seeds that are done and, of two "
    "or more, half of its 95 % t-interval. An arrow marks what is higher or lower than Euclid under the same loss, "
    "paired by seed: ▲ ▼ also with Holm's correction for all cells of the table, △ ▽ only by itself."
)


def grid_section() -> tuple[str, list[str]]:
    """The profiles of ``study.yaml`` that were begun: their scores and their gaps.

    Returns:
        HTML, empty if none was begun, and for each profile that has gaps a sentence about them, as plain text.
    """
    begun = sorted(
        path.name.removesuffix(".missing.csv") for path in (data_folder("runs") / "grid").glob("*.missing.csv")
    )
    html, gaps = "", []
    for name in begun:
        try:
            if name not in profiles():
                continue
            part, gap = _profile(Grid(name))
        except (OSError, ValueError) as error:  # study.yaml is damaged
            part, gap = f"<p>{escape(name)}: {code(str(error))}</p>\n", f"profile {name} cannot be read"
        html += part
        gaps += [gap] if gap else []
    return (f'<h2 id="grid">The grid</h2>\n<p>{_READ}</p>\n{html}' if html else ""), gaps


def _profile(grid: Grid) -> tuple[str, str]:
    done, outdated = _rows(grid)
    missing = {name: why for name, why in grid.missing().items() if name.startswith("grid/")}
    count = f"{len(done)} of {len(grid.cells)} cells {'are there' if outdated else 'done'}"
    html, gap = f"<h3>Profile {escape(grid.profile)}: {count}</h3>\n", ""
    if outdated:
        gap = f"all results of profile {grid.profile} are of an earlier version of notebook or library"
        again = (
            "run with other values, or by an earlier version of the notebook or the library; "
            f"`snr study --profile {grid.profile}` repeats"
        )
        html += f'<p class="note">{code(again)} them.</p>\n'
        missing = {name: why for name, why in missing.items() if why != STALE or grid.tasks[name] not in done}
    if missing:
        gap = gap or f"{len(missing)} of {len(grid.cells)} cells of profile {grid.profile} are missing"
        html += _list(missing, grid)
    groups: dict[tuple[str, str, str], dict[Task, Row]] = defaultdict(dict)
    for task, row in done.items():
        groups[_group(task)][task] = row
    for (data, backbone, settings), rows in groups.items():
        title = ", ".join(part for part in (f"{data} with {backbone}", settings) if part)
        own = [task for task in grid.cells if _group(task) == (data, backbone, settings)]
        html += f"<h4>{escape(title)}: {len(rows)} of {len(own)} cells, {_seeds(rows)}</h4>\n" + _scores(rows)
        html += details(f"Where the numbers are from: {title}", _provenance(rows))
    return html, gap


def _rows(grid: Grid) -> tuple[dict[Task, Row], bool]:
    """Result rows of the finished cells; if there are none, those that one earlier version has left, and True."""
    if current := {task: row for task in grid.cells if (row := grid.row(task)) is not None}:
        return current, False
    versions: dict[str, dict[Task, Row]] = defaultdict(dict)
    for task in grid.cells:
        row = result_row(task.output)
        if row is None or not is_row(row) or "experiment" not in row:
            continue
        if all(row["parameters"].get(axis) == task.values[axis] for axis in AXES):
            versions[row.get("experiment_source", row["source"])][task] = row
    return max(versions.values(), key=len, default={}), bool(versions)


def _group(task: Task) -> tuple[str, str, str]:
    """Data, network, and the settings that are part of a cell's name: what one table has in common."""
    return task.values["data"], task.values["backbone"], ", ".join(f"{key}={task.values[key]}" for key in task.fixed)


def _seeds(rows: Mapping[Task, Row]) -> str:
    counts = pd.Series([(task.values["distance"], task.values["loss"]) for task in rows]).value_counts()
    low, high = int(counts.min()), int(counts.max())
    return f"{low} to {high} seeds each" if low < high else f"{_counted(high, 'seed')} each"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _list(missing: Mapping[str, str], grid: Grid) -> str:
    """The missing cells by reason, the most frequent first."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, why in missing.items():
        reasons[why].append(name.removeprefix("grid/"))
    items = ""
    for why, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        cells = "".join(f"<li><code>{escape(name)}</code></li>" for name in names)
        which = details("Which", f"<ul>{cells}</ul>") if len(names) > _FEW else f"<ul>{cells}</ul>"
        items += f"<li>{_counted(len(names), 'cell')}: {code(why)}\n{which}</li>\n"
    intro = f"Missing, {len(missing)} of {len(grid.cells)} cells; `snr study --profile {grid.profile}` runs them"
    return f"<p>{code(intro)}:</p>\n<ul>{items}</ul>\n"


def _scores(rows: Mapping[Task, Row]) -> str:
    """Distances by losses, as `loss_table` has them; without arrows where there is no Euclid."""
    frame = under_training_distance(pd.concat([run_rows(row["experiment"]) for row in rows.values()]))
    if {"euclidean"} < set(frame.distance):
        shown = loss_table(frame)
    else:
        shown = summary(frame).reset_index()
        shown["text"] = [f"{mean:.3f} ± {half:.3f}" for mean, half in zip(shown["mean"], shown.half_width, strict=True)]
        shown = shown.pivot(index="distance", columns="loss", values="text")
        shown = shown.loc[list(dict.fromkeys(frame.distance)), list(dict.fromkeys(frame.loss))]
    texts = shown.fillna("–").apply(
        lambda column: column.str.replace(" ± nan", "").str.replace(" ", "\N{NO-BREAK SPACE}")
    )
    lines = [[escape(str(name)), *(escape(text) for text in row)] for name, row in texts.iterrows()]
    return table(["distance", *map(str, shown.columns)], lines, "scores")


def _provenance(rows: Mapping[Task, Row]) -> str:
    """What all have in common once, then one line per cell."""
    flat = {task: _flat(row) for task, row in rows.items()}
    names = list(dict.fromkeys(name for one in flat.values() for name in one))
    varying = {key for part, key in names if len({json.dumps(one.get((part, key))) for one in flat.values()}) > 1}
    shared: dict[str, Any] = {}
    for (part, key), value in next(iter(flat.values())).items():
        if key not in varying:
            (shared.setdefault(part, {}) if part else shared)[key] = value
    parts = {key: part for part, key in names if key in varying}  # the last: as it was trained, rather than asked
    columns = sorted(parts, key=lambda key: key not in AXES)
    lines = []
    for task, row in rows.items():
        found = [flat[task].get((parts[key], key), row["parameters"].get(key)) for key in columns]
        lines.append([_cell(value) for value in (*found, row["finished"], row["wall_time_s"])])
    titles = [*(key.replace("_", " ") for key in columns), "finished", "seconds"]
    return provenance_tables(shared) + "<h4>cells</h4>\n" + table(titles, lines, "cells")


def _flat(row: Row) -> dict[tuple[str, str], Any]:
    """Part and name to value: commit and source, parameters, settings that differ from them, versions, data."""
    parameters = row["parameters"]
    found: dict[tuple[str, str], Any] = {("", key): row.get(key) for key in ("git_commit", "source")}
    found |= {("parameters", key): value for key, value in parameters.items()}
    for key, value in row["experiment"]["settings"].items():
        if parameters.get(key) != value:
            found["as_trained", key] = value
    for part in ("versions", "data"):
        found |= {(part, key): value for key, value in row[part].items()}
    return found


def _cell(value: Any) -> str:
    return "–" if value is None else escape(f"{value:.4g}" if isinstance(value, float) else str(value))
