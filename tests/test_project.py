"""The house: pins agree, public names stay where they are, and what the README says is true."""

import ast
import importlib
import re
import tomllib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
import yaml

from snrlib.notebooks.find import notebooks
from snrlib.notebooks.refresh import figures

SNRLIB = Path(__file__).parent.parent / "snrlib"
SOURCES = {
    ".".join(path.relative_to(SNRLIB.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SNRLIB.rglob("*.py")
}
PUBLIC = {  # what notebooks and other people's code import
    "snrlib.backbones": ["embedder"],
    "snrlib.data": ["DATASETS", "load"],
    "snrlib.distances": ["DISTANCES", "Distance", "get_distance"],
    "snrlib.evaluate": ["compare", "evaluate", "interval", "knn"],
    "snrlib.explore": ["inspect", "playground", "tsne"],
    "snrlib.hashing": ["METHODS", "PROTOCOLS", "get_method", "hamming", "hasher", "pack", "score_codes"],
    "snrlib.losses": [
        *("ContrastiveLoss", "LiftedStructureLoss", "NPairsLoss", "TripletMarginLoss"),
        *("ZeroMeanRegularizer", "get_loss"),
    ],
    "snrlib.mahalanobis": ["LMNN", "Whitening"],
    "snrlib.notebooks.exercises": ["check"],
    "snrlib.notebooks.inside": ["record"],
    "snrlib.notebooks.run": ["run"],
    "snrlib.sampling": ["MPerClassSampler"],
    "snrlib.train": ["train"],
}


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s=<>!~\[;]", requirement.strip())[0]).lower()


@pytest.fixture
def pins(repository: Path) -> dict[str, str]:
    lines = [line for line in (repository / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines)
    return dict(line.split("==") for line in lines)


@pytest.fixture
def direct(repository: Path) -> set[str]:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert all("==" in one for one in extras.pop("sentences")), "pinned where it stands: one measurement needs it alone"
    groups = [project["dependencies"], *extras.values()]
    return {_name(requirement) for group in groups for requirement in group}


def test_pyproject_constraints_and_environment_agree(repository: Path, pins: dict[str, str], direct: set[str]) -> None:
    text = (repository / "environment.yml").read_text()
    (packages,) = [entry["pip"] for entry in yaml.safe_load(text)["dependencies"] if isinstance(entry, dict)]
    assert packages[:2] == ["-c constraints.txt", "-e ."]
    stated = dict(package.split("==") for package in packages[2:])
    assert stated.keys() == direct
    assert {name: pins[name] for name in stated} == stated
    assert pins["torch"] == "2.13.0"
    lines = [line for line in text.splitlines() if "==" in line]
    assert all(len(line.partition("# ")[2].split()) >= 3 for line in lines), "each says what it is for"


def test_what_is_installed_is_what_is_pinned(pins: dict[str, str], direct: set[str]) -> None:
    assert {name: version(name).partition("+")[0] for name in direct} == {name: pins[name] for name in direct}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_import_from_their_paths(module: str) -> None:
    assert set(PUBLIC[module]) <= set(importlib.import_module(module).__all__)


def test_every_public_name_is_in_all() -> None:
    for name, path in SOURCES.items():
        body = ast.parse(path.read_text()).body
        defined = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        if public := {one for one in defined if not one.startswith("_")}:
            assert public <= set(importlib.import_module(name).__all__), name


@cache
def _imports(source: str | Path) -> set[str]:
    """The modules of snrlib that a source imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text() if isinstance(source, Path) else source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & SOURCES.keys()


def _imported(source: str) -> set[str]:
    """Those modules, those that they import, and so on."""
    found, new = set[str](), _imports(source)
    while new := new - found:
        found |= new
        new = {name for module in new for name in _imports(SOURCES[module])}
    return found


def test_the_map_of_notebooks_to_code_is_true(repository: Path) -> None:
    stated = dict(re.findall(r"^ {4}(\d\d) .*?  +(.+)$", importlib.import_module("snrlib").__doc__ or "", re.MULTILINE))
    rows = re.findall(r"^\| \[(\d\d) .*\| ([^|]+) \|$", (repository / "README.md").read_text(), re.MULTILINE)
    assert {number: code.replace("`", "") for number, code in rows} == stated
    for path in notebooks():
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        behind = {f"snrlib.{module}" for module in stated[path.stem[:2]].split(", ")}
        assert behind <= _imported("\n".join(cells)), path.stem


def test_the_readme_names_all_notebooks_and_true_targets(repository: Path) -> None:
    readme = (repository / "README.md").read_text()
    makefile = (repository / "Makefile").read_text()
    assert all(f"notebooks/{path.name}" in readme for path in notebooks())
    targets = re.findall(r"(?:`|^)make ([a-z]+)", readme, re.MULTILINE)
    assert {"study", "test", "lab", "bench"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    for image in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme):
        assert (repository / image).exists(), image


def test_the_code_of_the_readme_runs(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    embeddings = torch.randn(200, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    names: dict[str, Any] = {"embeddings": embeddings, "labels": torch.arange(200) // 4}
    names |= {"train_embeddings": embeddings.detach().numpy(), "train_labels": names["labels"].numpy()}
    exec(code, names)
    assert embeddings.grad is not None
    assert names["scores"]["precision_at_1"] == names["table"].precision_at_1.iloc[0]
    assert "triplets are active" in capsys.readouterr().out


def test_the_picture_is_that_of_notebook_00(repository: Path) -> None:
    picture = repository / "data" / "reference" / "retrieval.png"
    notebook = repository / "notebooks" / "00_start_here.ipynb"
    assert picture.read_bytes() == figures(notebook)[-1]
    (right,) = re.findall(r"\b(\d+) of the 48 show the same character", (repository / "README.md").read_text())
    assert f"{right} of 48 neighbours show the same character" in notebook.read_text()


def test_the_version_has_its_changelog_and_citation(repository: Path) -> None:
    number = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {number}" in (repository / "CHANGELOG.md").read_text()
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert citation["version"] == number
    assert [reference["type"] for reference in citation["references"]] == ["report", "conference-paper"]
    assert all(reference["title"] and reference["authors"] for reference in citation["references"])
