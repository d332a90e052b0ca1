"""Studies of their own: one whose cells are fast and misbehave when told to, and one with the real notebooks."""

import contextlib
import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from study_cases import BLOCK, BODY, profile

from snrlib.study import steps
from snrlib.utils.processes import Job


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Path:
    """A study of a small notebook 07 alone; files beside the study say which of its cells raise, and which wait."""
    shutil.copy(repository / "Snakefile", tmp_path)
    shutil.copytree(repository / "profiles", tmp_path / "profiles")
    real = nbformat.read(repository / "notebooks" / "07_train.ipynb", as_version=4)
    (head,) = [cell for cell in real.cells if "parameters" in cell.metadata.get("tags", [])]
    cells = [new_markdown_cell("# What is it?"), new_code_cell(head.source, metadata={"tags": ["parameters"]})]
    notebook = new_notebook(cells=[*cells, new_code_cell(BODY)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "07_train.ipynb")
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "data" / "runs"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    profile(tmp_path, BLOCK)
    return tmp_path


@pytest.fixture
def real_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Path:
    """A study with the notebooks of this one; nothing is tuned."""
    (tmp_path / "notebooks").symlink_to(repository / "notebooks")
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "data" / "runs"))
    return tmp_path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Steps are done one after the other in this process, which has imported torch, as they would be in their own."""

    def run_here(jobs: Sequence[Job], at_once: int, environment: Any = None) -> list[Job]:
        failed = []
        for job in jobs:
            with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
                status = steps._main(*job.command[3:])
            job.log.parent.mkdir(parents=True, exist_ok=True)
            job.log.write_text(said.getvalue())
            failed += [job] if status else []
        return failed

    threads = torch.get_num_threads()
    monkeypatch.setattr(steps, "run_jobs", run_here)
    yield
    torch.set_num_threads(threads)
