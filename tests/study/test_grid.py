"""The state of the grid: what is finished, and that code, notebook, values and data make it out of date."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import data_copies
import nbformat
import pytest
from study_cases import BLOCK, finish, profile

from snrlib.data import files_state
from snrlib.notebooks.run import result_path
from snrlib.study.grid import NOT_RUN, STALE, Grid, scores
from snrlib.utils import provenance


def test_finished_is_what_ran_with_these_values(root: Path) -> None:
    first, second = Grid("quick").cells
    row = finish(first)
    found = Grid("quick")
    assert found.row(first) == row
    assert [task.name for task in found.to_do()] == [second.name, "07_train/default"]
    assert [task.name for task in Grid("quick", force=True).to_do()] == list(found.tasks)
    assert found.missing() == {second.name: NOT_RUN, "07_train/default": NOT_RUN}
    finish(second, parameters=row["parameters"])
    assert Grid("quick").missing()[second.name] == STALE, "another cell's values"
    second.job().log.write_text("snr: 07_train failed: no\nThe partial copy is there\n")
    assert Grid("quick").missing()[second.name] == "07_train failed: no", "of its last run"
    finish(second)
    assert second.name not in Grid("quick").missing()
    assert Grid("quick", force=True).missing()[second.name] == "07_train failed: no", "though the earlier one is kept"
    for damage in ("{", "[]", '{"parameters": 1}', ""):
        result_path(first.output).write_text(damage)
        assert Grid("quick").row(first) is None
    finish(first)
    first.output.unlink()
    assert Grid("quick").row(first) is None


def test_a_cells_scores_are_of_its_own_distance(root: Path) -> None:
    row = finish(Grid("quick").cells[0])
    numbers = {"precision_at_1": 0.5, "flops": 7, "margin": 0.3, "scale": None, "learning_rate": 0.1}
    numbers |= {"best_step": 1}
    assert scores(row) == numbers | {"wall_time_s": 1.0, "git_commit": None, "finished": "now"}
    row["experiment"]["scores"] = [{"judge": "training", "anchor": None, "precision_at_1": 0.7}]
    assert scores(row)["precision_at_1"] == 0.7, "an absolute distance has no anchor"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose cells and notebooks are all finished, with a copy of the library beside them."""
    folder, repository = tmp_path_factory.mktemp("study"), Path(__file__).resolve().parents[2]
    shutil.copytree(repository / "notebooks", folder / "notebooks")
    shutil.copytree(repository / "snrlib", folder / "snrlib", ignore=shutil.ignore_patterns("__pycache__"))
    profile(folder, BLOCK)
    with pytest.MonkeyPatch.context() as monkeypatch:
        _here(folder, monkeypatch)
        for task in Grid("quick").tasks.values():
            finish(task)
        assert not Grid("quick").to_do()
    return folder


@pytest.fixture
def editable(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, for a test that puts back what it edits."""
    _here(finished, monkeypatch)
    return finished


def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNR_ROOT", str(folder))
    monkeypatch.setenv("SNR_RUNS", str(folder / "data" / "runs"))
    monkeypatch.setattr(provenance, "_LIBRARY", folder / "snrlib")


@contextmanager
def _edited(*paths: Path) -> Iterator[None]:
    before = {path: path.read_bytes() for path in paths}
    for path, content in before.items():
        path.write_bytes(content + b"\n# edited\n")
    yield
    for path, content in before.items():
        path.write_bytes(content)


def _stale() -> tuple[bool, set[str]]:
    """Whether the cells are out of date, all or none, and the numbers of the notebooks that are."""
    grid = Grid("quick")
    names = {task.name for task in grid.to_do()}
    cells = {cell.name in names for cell in grid.cells}
    assert len(cells) == 1
    return cells.pop(), {task.name[:2] for task in grid.notebooks if task.name in names}


EDITS: dict[str, tuple[bool, set[str]]] = {  # whether the cells are out of date, and which notebooks
    "report/style.css": (False, set()),
    "explore/maps.py": (False, {"02", "10", "12"}),
    "plots.py": (False, {f"{n:02}" for n in range(15)}),
    "losses/triplet.py": (True, {"00", "02", "04", "05", "06", "07", "08", "09", "10", "12", "13", "14"}),
    "train/loop.py": (True, {"00", "05", "06", "07", "08", "09", "10", "12", "14"}),
}


def test_edited_code_makes_importers_out_of_date(editable: Path) -> None:
    found = {}
    for file in EDITS:
        with _edited(editable / "snrlib" / file):
            found[file] = _stale()
    assert found == EDITS
    with _edited(*(path for folder in ("report", "explore") for path in (editable / "snrlib" / folder).rglob("*.*"))):
        assert not _stale()[0], "whatever is edited there"


def test_a_new_notebook_makes_cells_out_of_date(editable: Path) -> None:
    path = editable / "notebooks" / "07_train.ipynb"
    notebook = nbformat.read(path, as_version=4)
    with _edited(path):
        notebook.cells[-2].outputs = []
        nbformat.write(notebook, path)
        assert _stale() == (False, set()), "what it shows is no part of it"
        notebook.cells[-2].source += "\n# edited"
        nbformat.write(notebook, path)
        assert _stale() == (True, {"07"})


def test_changed_images_make_cells_out_of_date(root: Path) -> None:
    images = root / "my images"
    for name in "abcd":
        (images / name).mkdir(parents=True)
        for number in range(2):
            (images / name / f"{number}.png").write_bytes(data_copies.png(number))
    settings = {"root": "my images", "image_size": 16}
    profile(root, {**BLOCK, "data": ["folder"], "distance": ["snr"], "settings": settings})
    (cell,) = Grid("quick").cells
    row = finish(cell)
    for change in (
        lambda: None,  # its files are none of those yet
        lambda: os.utime(images / "a/0.png", (0, 0)),
        lambda: (images / "b/2.png").write_bytes(data_copies.png(2)),
    ):
        change()
        assert Grid("quick").missing()[cell.name] == STALE
        row["experiment"]["files"] = files_state("folder", images)
        finish(cell, **row)
        assert Grid("quick").row(cell) == row
    images.rename(root / "elsewhere")
    assert Grid("quick").row(cell) == row, "what is not there has not changed"


@pytest.mark.parametrize("data", ["omniglot", "cub200"])
def test_a_cell_without_its_images_is_not_tried(root: Path, data: str) -> None:
    network = "conv4" if data == "omniglot" else "resnet18"
    profile(root, {**BLOCK, "data": [data], "backbone": [network]}, BLOCK)
    found = Grid("quick")
    assert [task.values.get("data") for task in found.to_do()] == ["digits", "digits", None]
    absent = [why for name, why in found.missing().items() if data in name]
    assert len(absent) == 2
    assert f"{data} is not in {root / 'data' / 'raw'}; `snr data fetch {data}`, or SNR_DATA=FOLDER" in absent
    row = finish(found.cells[0])
    assert Grid("quick").row(found.cells[0]) == row, "what was finished stays so"
