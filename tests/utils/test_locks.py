"""One process at a time writes into a folder, and nothing is left behind."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from snrlib.utils.locks import one_at_a_time

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
