"""Where a result comes from."""

import subprocess
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from snrlib.utils.provenance import cpu, provenance


def test_a_commit_is_named_and_changes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance()["git_commit"] is None, "no checkout"
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (("init", "-q"), (*author, "commit", "-q", "--allow-empty", "-m", "first")):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = provenance()["git_commit"]
    assert len(commit) == 40
    (tmp_path / "new").touch()
    assert provenance()["git_commit"] == f"{commit}+changes"


def test_versions_time_and_processor_are_told() -> None:
    found = provenance()
    assert found["versions"]["torch"] == version("torch")
    assert {"python", "snrlib", "numpy"} <= found["versions"].keys()
    assert datetime.fromisoformat(found["finished"]).tzinfo
    assert cpu()
