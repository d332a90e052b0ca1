"""The grid on the index: its scores, its gaps, and where each number is from."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from report_cases import finish, rows, small_study, words

from snrlib.notebooks.find import find_notebook
from snrlib.notebooks.parameters import parameters
from snrlib.notebooks.run import experiment_fingerprint
from snrlib.report.grid import grid_section
from snrlib.study import grid
from snrlib.study.profiles import Task
from snrlib.study.tables import loss_table
from snrlib.study.tuned import from_parameters
from snrlib.study.workflow import summarize

DECLARED = {name: known.default for name, known in parameters("07").items()}
SOURCE = experiment_fingerprint(find_notebook("07"))
BLOCK = {"data": ["digits"], "backbone": ["conv4"], "loss": ["triplet", "contrastive"], "seed": [0, 1, 2]}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Path:
    folder = small_study(tmp_path, monkeypatch)
    shutil.copy(repository / "notebooks" / "07_train.ipynb", folder / "notebooks")
    return folder


def _begun(study: Path, **block: list[Any]) -> list[Task]:
    """The cells of a profile that was begun; beside it is one that was not."""
    (study / "study.yaml").write_text(
        yaml.safe_dump({"profiles": {name: [BLOCK | block] for name in ("<a>", "other")}})
    )
    profile = grid.Grid("<a>")
    summarize(profile)
    return profile.cells


def _finish(task: Task, score: float, **changes: Any) -> None:
    settings = asdict(from_parameters(DECLARED | task.values)) | {"margin": 1.5, "optimizer": "adam <w>"}
    anchor = "query" if task.values["distance"] == "snr" else None
    scores = [{"judge": "training", "anchor": anchor, "precision_at_1": score}]
    found = {"trained": True, "settings": settings, "scores": scores, "cost": {}, "files": "", "best_step": 1}
    changes = {"experiment": found | {"seconds": 1.0}, "experiment_source": SOURCE} | changes
    finish("07", task.output, task.values, **changes)


def _section() -> tuple[BeautifulSoup, str, str]:
    """The grid's part of the index, its words, and the gaps that are told above."""
    html, gaps = grid_section()
    section = BeautifulSoup(html, "html.parser")
    return section, words(section), "; ".join(gaps)


def test_scores_gaps_and_provenance_are_told(study: Path) -> None:
    scores = {}
    for number, task in enumerate(_begun(study, distance=["euclidean", "snr"])):
        is_snr = task.values["distance"] == "snr"
        if task.values["seed"] < 2:
            scores[task] = 0.5 + number / 100 + (0.2 if is_snr else 0)
            _finish(task, scores[task])
        elif is_snr:
            task.output.parent.mkdir()
            task.job().log.write_text("snr: 07_train failed: ValueError: a <b> & `more`\n")
    section, text, gaps = _section()
    assert "Profile <a>: 8 of 12 cells done" in text
    assert "digits with conv4: 8 of 12 cells, 2 seeds each" in text
    named = {"map": "", "variant": "", "judge": "training", "anchor": ""}
    found = [{**named, **task.values, "precision_at_1": one} for task, one in scores.items()]
    assert rows(section, "scores")[1:] == [[name, *line] for name, line in loss_table(pd.DataFrame(found)).iterrows()]
    assert "▲" in text
    assert gaps == "4 of 12 cells of profile <a> are missing"
    assert "2 cells: 07_train failed: ValueError: a <b> & more" in text
    assert "2 cells: it did not run to its end" in text
    assert len([cell for cell in section.select("li li code") if words(cell).startswith("digits-conv4-")]) == 4
    facts = rows(section, "facts")
    for fact in (["git_commit", "c0ffee"], ["backbone", "conv4"], ["margin", "1.5"], ["optimizer", "adam <w>"]):
        assert fact in facts, "what all have in common"
    assert "loss" not in dict(facts)
    own = [[str(task.values[axis]) for axis in ("distance", "loss", "seed")] for task in scores]
    assert [line[:3] for line in rows(section, "cells")[1:]] == own
    assert "other" not in text, "it was not begun"


def test_a_large_grid_keeps_the_page_small(study: Path) -> None:
    for task in _begun(study, distance=["euclidean", "snr"], seed=list(range(40))):
        _finish(task, 0.5)
    section, _, gaps = _section()
    assert len(rows(section, "cells")) == 161
    assert len(str(section)) < 35_000
    assert not gaps


def test_results_of_an_earlier_version_are_not_mixed(study: Path) -> None:
    cells = _begun(study, distance=["snr"])
    for task in cells[:3]:
        _finish(task, 0.5, source="of old", experiment_source="of old", versions={} if task != cells[2] else None)
    section, text, gaps = _section()
    assert "2 of 6 cells are there" in text, "one of the three is no result row"
    assert "run with other values, or by an earlier version of the notebook or the library" in text
    assert rows(section, "scores")[1] == ["snr", "0.500 ± 0.000"]
    assert "Missing, 4 of 6 cells" in text
    assert gaps == "all results of profile <a> are of an earlier version of notebook or library"
    _finish(cells[3], 0.25)
    section, text, gaps = _section()
    assert "1 of 6 cells done" in text
    assert rows(section, "scores")[1] == ["snr", "0.250"], "one seed has no interval"
    assert "3 cells: its result is of other values, or of an earlier notebook or library" in text
    assert gaps == "5 of 6 cells of profile <a> are missing"


def test_a_profile_without_euclid_or_damaged_is_said(study: Path) -> None:
    cells = _begun(study, distance=["euclidean"])
    assert "0 of 6 cells done" in _section()[1]
    for task in cells[:4]:
        _finish(task, 0.5)
    assert rows(_section()[0], "scores")[1] == ["euclidean", "0.500 ± 0.000", "0.500"], "nothing to compare with"
    (study / "study.yaml").write_text("profiles: [")
    _, text, gaps = _section()
    assert "<a>: study.yaml: while parsing" in text
    assert gaps == "profile <a> cannot be read"
    (study / "study.yaml").write_text("profiles: {quick: []}")
    assert grid_section() == ("", [])
