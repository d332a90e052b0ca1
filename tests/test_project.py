"""The house: dependencies agree, imports run one way, public names are documented, the README is true."""

import ast
import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from snrlib.notebooks.find import figures

SNRLIB = Path(__file__).parent.parent / "snrlib"
MODULES = sorted(
    ".".join(path.relative_to(SNRLIB.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in SNRLIB.rglob("*.py")
    if path.stem != "__main__"
)


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
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return {_name(requirement) for group in groups for requirement in group}


def test_pyproject_constraints_and_environment_agree(repository: Path, pins: dict[str, str], direct: set[str]) -> None:
    environment = yaml.safe_load((repository / "environment.yml").read_text())["dependencies"]
    (packages,) = [entry["pip"] for entry in environment if isinstance(entry, dict)]
    assert packages[:2] == ["-c constraints.txt", "-e ."]
    stated = dict(package.split("==") for package in packages[2:])
    assert stated.keys() == direct
    assert {name: pins[name] for name in stated} == stated
    assert pins["torch"] == "2.13.0"


def test_every_dependency_says_which_part_needs_it(repository: Path) -> None:
    lines = [line for line in (repository / "environment.yml").read_text().splitlines() if "==" in line]
    assert lines
    assert all(len(line.partition("# ")[2].split()) >= 3 for line in lines)


def test_what_is_installed_is_what_is_pinned(pins: dict[str, str], direct: set[str]) -> None:
    from importlib.metadata import version

    assert {name: version(name).partition("+")[0] for name in direct} == {name: pins[name] for name in direct}


def test_every_direct_dependency_is_used(repository: Path, direct: set[str]) -> None:
    modules = {
        "scikit-learn": "sklearn",
        "pyyaml": "yaml",
        "faiss-cpu": "faiss",
        "ipython": "IPython",
        "pillow": "PIL",
        "opentsne": "openTSNE",
    }
    tools = {"jupyterlab", "ipykernel", "ruff", "mypy", "pandas-stubs"}  # called by make or by a kernel
    tools.add("snakemake-executor-plugin-cluster-generic")  # by snakemake
    sources = [
        path for folder in ("snrlib", "tests", "benchmarks", "notebooks") for path in (repository / folder).rglob("*")
    ]
    text = "\n".join(path.read_text() for path in sources if path.suffix in (".py", ".ipynb"))
    for name in direct - tools:
        module = modules.get(name, name.replace("-", "_"))
        assert re.search(rf"\b(import|from) {module}\b", text), f"{name} is declared and not imported"


def _imports(module: str) -> set[str]:
    path = SNRLIB.parent / (module.replace(".", "/") + ".py")
    path = path if path.exists() else path.with_suffix("") / "__init__.py"
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(MODULES) - {"snrlib"}


def test_imports_run_one_way() -> None:
    assert _imports("snrlib.utils.checks") == set()
    assert _imports("snrlib.backbones") == {"snrlib.utils.torchvision_import"}
    assert _imports("snrlib.distances") == _imports("snrlib.sampling") == {"snrlib.utils.checks"}
    for package in ("snrlib.losses", "snrlib.evaluate"):
        for module in (name for name in MODULES if name.startswith(package)):
            outside = {name for name in _imports(module) if not name.startswith(package)}
            assert outside <= {"snrlib.utils.checks", "snrlib.distances"}, module
    assert _imports("snrlib.train.processes") == set()
    for module in (name for name in MODULES if name.startswith("snrlib.mahalanobis")):
        outside = {name for name in _imports(module) if not name.startswith("snrlib.mahalanobis")}
        assert outside <= {"snrlib.utils.checks", "snrlib.distances", "snrlib.evaluate"}, module
    below = {"backbones", "checks", "distances", "evaluate", "evaluate.retrieval", "files", "parallel", "sampling"}
    assert _imports("snrlib.train") <= {f"snrlib.{name}" for name in below}, "training knows no loss and no data set"
    for module in MODULES:
        names = (
            "experiment",
            "frozen",
            "grid",
            "gridpage",
            "reference",
            "report",
            "results",
            "robustness",
            "scoreboard",
            "study",
            "tuning",
        )
        above = {f"snrlib.{name}" for name in names}
        explores = module.startswith("snrlib.explore")  # with the page of the report that leads there
        assert module in above or explores or not _imports(module) & above, module
        assert "snrlib.notebooks.exercises" not in _imports(module), "for notebooks only"
        assert explores or "snrlib.plots" not in _imports(module), "for notebooks and what is looked at"


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_listed_documented_and_typed(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    if name == "snrlib":
        return
    tree = ast.parse(Path(module.__file__ or "").read_text())
    public = {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    assert public.keys() <= set(module.__all__)
    for node in public.values():
        assert ast.get_docstring(node), f"{name}.{node.name}"
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.args, *node.args.kwonlyargs]
            assert node.returns, f"{name}.{node.name}"
            assert all(argument.annotation for argument in arguments), f"{name}.{node.name}"


def test_the_readme_names_every_notebook_and_only_targets_that_make_knows(repository: Path) -> None:
    readme = (repository / "README.md").read_text()
    makefile = (repository / "Makefile").read_text()
    for path in (repository / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{path.name}" in readme
    targets = re.findall(r"(?:`|^)make ([a-z]+)", readme, re.MULTILINE)
    assert {"study", "test", "lab", "bench"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    for image in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme):
        assert (repository / image).exists(), image


def test_the_code_of_the_readme_runs(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    embeddings = torch.randn(200, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    names: dict[str, Any] = {"embeddings": embeddings, "labels": torch.arange(200) // 4}
    exec(code, names)
    assert embeddings.grad is not None
    assert names["scores"]["precision_at_1"] == names["table"].precision_at_1.iloc[0]
    assert "triplets are active" in capsys.readouterr().out


def test_the_picture_of_the_readme_is_the_stored_figure_of_notebook_00(repository: Path) -> None:
    picture = repository / "data" / "reference" / "retrieval.png"
    notebook = repository / "notebooks" / "00_start_here.ipynb"
    assert picture.read_bytes() == figures(notebook)[-1]
    (right,) = re.findall(r"\b(\d+) of the 48 show the same character", (repository / "README.md").read_text())
    assert f"{right} of 48 neighbours show the same character" in notebook.read_text()


def test_the_version_has_its_changelog_and_citation(repository: Path) -> None:
    version = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (repository / "CHANGELOG.md").read_text()
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert [reference["type"] for reference in citation["references"]] == ["report", "conference-paper"]
    assert all(reference["title"] and reference["authors"] for reference in citation["references"])
