"""The pool of processes: jobs in order, some at a time, each tried twice; none outlives it."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process_cases import processes, until

from snrlib.utils import processes as pool
from snrlib.utils.processes import Job, Progress, run_jobs

LASTING = f"sleep 1000.{os.getpid()}"  # of this test alone


def _job(folder: Path, name: str, script: str) -> Job:
    return Job(name, ("sh", "-c", script), folder / "logs" / f"{name}.log")


def test_jobs_run_in_order_with_their_environment_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", "mine")
    said = f'echo "$0 $GIVEN $NEW" | tee -a {tmp_path}/order; echo more >&2'
    jobs = [Job(name, ("sh", "-c", said, name), tmp_path / "logs" / name) for name in "cab"]
    assert run_jobs(jobs, 1, {"GIVEN": "theirs", "NEW": "new"}) == []
    assert (tmp_path / "order").read_text() == "c mine new\na mine new\nb mine new\n", "what is set stays"
    assert jobs[1].log.read_text() == "a mine new\nmore\n"
    assert run_jobs([], 3) == []


def test_a_job_that_fails_is_tried_once_more(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    count = f'echo "$0" >> {tmp_path}/tries; n=$(grep -c "$0" {tmp_path}/tries); '
    scripts = {
        "second": "test $n = 2",
        "never": 'echo "snr: no: $n"; echo "Traceback"; false',
        "dumb": "exit 7",
        "killed": "kill -9 $$",
        "missing": "exec /no/such/program",
        "good": "echo fine",
    }
    jobs = [Job(name, ("sh", "-c", count + script, name), tmp_path / name) for name, script in scripts.items()]
    failed = run_jobs(jobs, 2)
    assert {job.name: job.error for job in failed} == {
        "never": "no: 2",
        "dumb": "it ended with status 7; -9 or 137 is a kill, often for want of memory",
        "killed": "it ended with status 137; -9 or 137 is a kill, often for want of memory",
        "missing": "it ended with status 127; -9 or 137 is a kill, often for want of memory",
    }
    tries = (tmp_path / "tries").read_text().split()
    assert {name: tries.count(name) for name in scripts} == dict.fromkeys(scripts, 2) | {"good": 1}
    assert jobs[1].log.read_text() == "snr: no: 2\nTraceback\n", "a log is of the last try"
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 6 done, 4 failed, 0 running, 0 to go"


@pytest.mark.parametrize("at_once", [1, 3])
def test_just_so_many_run_at_once(tmp_path: Path, at_once: int) -> None:
    (tmp_path / "started").mkdir()
    wait = f"while [ $(ls {tmp_path}/started | wc -l) -lt {at_once} ]; do sleep 0.02; done"
    script = f"echo + >> {tmp_path}/log; touch {tmp_path}/started/$0; {wait}; sleep 0.1; echo - >> {tmp_path}/log"
    jobs = [Job(str(n), ("sh", "-c", script, str(n)), tmp_path / str(n)) for n in range(6)]
    assert run_jobs(jobs, at_once) == []
    running, most = 0, 0
    for step in (tmp_path / "log").read_text().split():
        running += 1 if step == "+" else -1
        most = max(most, running)
    assert most == at_once


def test_after_a_log_that_cannot_be_written_nothing_begins(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    running, first = _job(tmp_path, "running", "sleep 1; echo done"), _job(tmp_path, "first", "sleep 0.2")
    after = _job(tmp_path, "after", "true")
    with pytest.raises(FileExistsError):
        run_jobs([running, first, Job("bad", ("true",), tmp_path / "file" / "log"), after], 2)
    assert running.log.read_text() == "done\n", "what ran goes on to its end"
    assert not after.log.exists()


def test_what_a_finished_job_leaves_behind_is_ended(tmp_path: Path) -> None:
    assert run_jobs([_job(tmp_path, "parent", f"{LASTING} & echo done")], 1) == []
    assert not processes(LASTING.split()[1])


DRIVER = """
import sys
from pathlib import Path
from snrlib.utils import processes
processes._END_S = 0.5  # then it is a kill
jobs = [("sh", "-c", script) for script in sys.argv[2:]]
jobs = [processes.Job(str(n), command, Path(sys.argv[1], f"{n}.log")) for n, command in enumerate(jobs)]
processes.run_jobs(jobs, 3)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_jobs_end_with_the_process_that_started_them(tmp_path: Path, number: int) -> None:
    scripts = [f"exec {LASTING}", f"{LASTING}; true"]
    if number == signal.SIGINT:  # of the others the driver sees nothing, and its jobs end themselves
        scripts.append(f"trap '' TERM; {LASTING}")
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, tmp_path, *scripts], stderr=subprocess.DEVNULL)
    until(lambda: len(processes(LASTING.replace(" ", "\0"))) == len(scripts), driver)
    driver.send_signal(number)
    driver.wait(timeout=30)
    until(lambda: not processes(LASTING.split()[1]), seconds=20)


def test_on_a_terminal_one_line_is_renewed(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", DRIVER, str(tmp_path), "true", "true", "true"]
    driver = subprocess.Popen(command, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # its end
        pass
    assert driver.wait(timeout=60) == 0
    (line, rest) = shown.decode().split("\r\n")
    assert rest == ""
    assert line.split("\r")[-1].startswith("3 of 3 done, 0 running, 0 to go")


def test_elsewhere_a_line_is_printed_when_it_has_changed(capsys: pytest.CaptureFixture) -> None:
    progress = Progress(2)
    for _ in range(3):
        progress.show()
    progress.begin("a")
    progress.show()
    progress._printed -= pool._PLAIN_S + 1
    for _ in range(3):
        progress.show()
    progress.end("a", True)
    progress.show()
    progress.show(last=True)
    assert capsys.readouterr().out == "0 of 2 done, 1 running, 1 to go\n1 of 2 done, 0 running, 1 to go\n"


def test_the_line_counts_and_says_how_long_it_may_take() -> None:
    progress = Progress(5)
    for name in "abc":
        progress.begin(name)
    assert progress.line() == "0 of 5 done, 3 running, 2 to go"
    progress.running = {name: since - 100 for name, since in progress.running.items()}
    progress.end("a", True)
    assert progress.line() == "1 of 5 done, 2 running, 2 to go, about 2 min left"
    progress.end("b", False)
    assert progress.line() == "1 of 5 done, 1 failed, 1 running, 2 to go, about 3 min left"
    progress.end("c", True)
    assert progress.line() == "2 of 5 done, 1 failed, 0 running, 2 to go"
