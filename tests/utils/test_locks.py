"""One process at a time writes into a folder, and nothing is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from process_cases import until

from snrlib.utils import locks
from snrlib.utils.files import write_json
from snrlib.utils.locks import one_at_a_time, one_study_at_a_time

HOLD = (
    "import pathlib, sys, time; from snrlib.utils.locks import one_at_a_time\n"
    "with one_at_a_time(pathlib.Path(sys.argv[1]), wait=False):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)"
)


@pytest.mark.parametrize("beside", [False, True])
def test_the_second_is_refused_and_nothing_is_left(tmp_path: Path, beside: bool) -> None:
    folder = tmp_path / "a" / "b"
    with one_at_a_time(folder, wait=False, beside=beside):
        assert folder.exists() is not beside
        refused = pytest.raises(FileExistsError, match=f"another run is writing into {folder}")
        with refused, one_at_a_time(folder, wait=False, beside=beside):
            pass
        with one_at_a_time(tmp_path / "a" / "other", wait=False, beside=beside):
            pass
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_those_that_wait_come_one_after_another(tmp_path: Path) -> None:
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        for _ in range(5):
            with one_at_a_time(tmp_path, wait=True):
                inside += 1
                most = max(most, inside)
                time.sleep(0.002)
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(FileExistsError), one_at_a_time(tmp_path, wait=False):
            pass
        process.send_signal(signal.SIGKILL)
    with one_at_a_time(tmp_path, wait=False):
        pass
    assert list(tmp_path.iterdir()) == []


# --- studies ----------------------------------------------------------------------------------------------------------

STUDY = HOLD.replace("one_at_a_time", "one_study_at_a_time").replace(", wait=False", "")


def test_a_second_study_is_told_who_works(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with subprocess.Popen([sys.executable, "-c", STUDY, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        until((tmp_path / ".study.json").exists, process)
        killer = threading.Timer(0.5, process.kill)
        killer.start()
        with one_study_at_a_time(tmp_path):
            assert process.wait(5) == -signal.SIGKILL, "it waited for the end of the other"
            until(lambda: json.loads((tmp_path / ".study.json").read_text())["process"] == os.getpid())
    said = capsys.readouterr().out
    who = f"(process {process.pid} on {socket.gethostname()}, since 2"
    assert said.startswith(f"Another study is at work in {tmp_path} {who}")
    assert said.endswith(" UTC); this one waits for it to end.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_study_of_another_machine_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Its lock does not reach this one; its note does, and renews itself until it is killed."""
    monkeypatch.setattr(locks, "_BEAT_S", 0.1)
    note, last = tmp_path / ".study.json", 0.0
    other = {"host": "elsewhere", "process": 7, "since": "noon"}
    write_json(note, {**other, "beat": -1})

    def work() -> None:
        nonlocal last
        for beat in range(10):
            write_json(note, {**other, "beat": beat})
            last = time.monotonic()
            time.sleep(0.1)

    working = threading.Thread(target=work)
    working.start()
    with one_study_at_a_time(tmp_path):
        assert not working.is_alive()
        assert time.monotonic() - last > 0.5
    said = capsys.readouterr().out
    assert said.startswith(
        f"A study of another machine may be at work in {tmp_path} (process 7 on elsewhere, since noon)"
    )
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"host": 3}'])
def test_a_damaged_note_stops_no_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(locks, "_BEAT_S", 0.01)
    (tmp_path / ".study.json").write_text(damage)
    with one_study_at_a_time(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
