"""Writing whole or not at all, and where things live."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snrlib.utils.files import data_folder, study_root, write_atomically


def test_the_file_appears_whole_with_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_atomically(path, lambda temporary: temporary.write_text("hello"))
    assert path.read_text() == "hello"
    assert list(path.parent.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    code = (
        "import os, pathlib, signal, sys; from snrlib.utils.files import write_atomically\n"
        "def write(p): p.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(pathlib.Path(sys.argv[1]), write)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert list(tmp_path.iterdir()) == [path], "the next one removes what it has left"


def test_two_writers_leave_each_other_alone(tmp_path: Path) -> None:
    path = tmp_path / "[file].txt"

    def write(temporary: Path) -> None:
        write_atomically(path, lambda other: other.write_text("second"))
        assert path.read_text() == "second"
        assert temporary.exists()
        temporary.write_text("first")

    write_atomically(path, write)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_cannot_be_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_atomically(tmp_path / "file" / "result.json", lambda temporary: temporary.write_text("x"))
    assert (tmp_path / "file").read_text() == "in the way"


def test_the_study_is_found_and_can_be_moved(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SNR_ROOT", "SNR_CACHE", "SNR_RUNS"):
        monkeypatch.delenv(name, raising=False)
    assert study_root() == repository
    assert data_folder("cache") == repository / "data" / "cache"
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    assert data_folder("runs") == tmp_path / "data" / "runs"
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "elsewhere"))
    assert data_folder("runs") == tmp_path / "elsewhere"
