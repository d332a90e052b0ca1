"""Commands that are killed, or run out of memory, or find no temporary folder: the next call ends with the same bits.

Every command below is run whole once. Then it is begun anew and sent a signal, to its first process alone, at a random
moment of its duration, and called again. Afterwards every file must hold what the whole run's holds (`_content` says
what must differ, and why), nothing temporary may be left, and no process of it may be alive. ``SNR_KILLS`` is how many
moments are tried of each command and signal; without it two kills stand for all::

    SNR_KILLS=30 python -m pytest tests/test_killed.py -m slow -k SIGKILL

Counts of version 0.7 on Linux, two busy cores, a study of two cells: all completed to the same bits, and nothing was
orphaned:

========  =======  =======  ======  ======
command   SIGKILL  SIGTERM  SIGINT  SIGHUP
========  =======  =======  ======  ======
study     30       1        0       0
inspect   30       3        3       3
report    30       3        3       3
tune      30       3        3       3
train     30       4        3       3
========  =======  =======  ======  ======
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image
from process_cases import until

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parent.parent
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TINY = {"data": "folder", "root": "images", "backbone": "conv4", "steps": 6, "batch_size": 8, "m": 2}
TINY |= {"image_size": 16, "embedding_size": 4, "distance": "snr"}
VALUES = [part for name, value in TINY.items() for part in ("-p", f"{name}={value}")]
COMMANDS = {
    "train": ["train", *VALUES, "-o", "run"],
    "inspect": ["inspect", "done", "-o", "page.html"],
    "report": ["report"],
    "tune": ["tune", "--profile", "tiny", "--trials", "2", "--jobs", "1"],
    "study": ["study", "--profile", "tiny", "--cores", "2"],
}
BODY = """
if seed:  # the notebook's own run trains nothing, the cells do
    from snrlib.experiment import experiment
    from snrlib.notebooks.inside import checkpoint_folder, files_folder, record
    from snrlib.study.tuned import from_parameters
    names = {names}
    done = experiment(from_parameters({{name: globals()[name] for name in names}}), checkpoint_folder())
    done.save(files_folder())
    own = done.scores.precision_at_1.iloc[0]
    record({{"precision_at_1": own}}, done.train, done.test, experiment=done.row())
"""
CLOCKS = {"finished", "wall_time_s", "seconds", "seconds_per_step", "core_minutes"}
CLOCKS |= {"datePublished", "startTime", "endTime", "contentSize", "sha256"}  # of crates, and of files that hold times
"""Names of what no two runs share: when they were, and how long they took."""


def _cases() -> list[tuple[str, int, int]]:
    """Command, signal and seed; without ``SNR_KILLS`` a few that take little time."""
    if kills := int(os.environ.get("SNR_KILLS", "0")):
        return [(command, number, seed) for command in COMMANDS for number in SIGNALS for seed in range(kills)]
    return [("train", signal.SIGKILL, 0), ("study", signal.SIGKILL, 0)]


_CLOCKED = r"\d{4}-\d\d-\d\d(T[\d:]+\+00:00(</td><td>[\d.]+)?|,\s\d+\ss)?|wall_time_s</th><td>[\d.]+"


@dataclass
class Whole:
    """What an undisturbed run leaves, and how long it takes."""

    contents: dict[str, Any]
    seconds: float


@dataclass
class Place:
    """A small study that is put up anew for every run, always at the same place, which results name."""

    root: Path
    template: Path
    environment: dict[str, str]
    whole: dict[str, Whole] = field(default_factory=dict)

    def fresh(self, command: str) -> None:
        """As nobody has run anything; a report finds a finished study."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.template / ("finished" if command == "report" else "new"), self.root)
        (self.root / "tmp").mkdir()

    def begin(self, command: str, **variables: str) -> subprocess.Popen:
        """It, in a session of its own."""
        call = [sys.executable, "-m", "snrlib", *COMMANDS[command]]
        said = (self.root.parent / "said").open("w")
        with said:
            return subprocess.Popen(
                call,
                cwd=self.root,
                env=self.environment | variables,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """By the last one."""
        return (self.root.parent / "said").read_text()

    def alive(self) -> list[int]:
        """Processes that a command of this place has started, however deep."""
        mark, found = f"SNR_ROOT={self.root}\0".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes() and int(path.parent.name) != os.getpid():
                    found.append(int(path.parent.name))
            except OSError:  # it has ended, or is another user's
                continue
        return found

    def complete(self, command: str, **variables: str) -> dict[str, Any]:
        """Call it to its end; what all files hold."""
        done = (self.root / "run" / "result.json").exists()  # killed in its last moment: it refuses to run once more
        status = self.begin(command, **variables).wait(300)
        assert status == (2 if done else 0), self.said
        until(lambda: not self.alive(), seconds=60)
        assert self.temporary() == []
        return contents(self.root)

    def undisturbed(self, command: str) -> Whole:
        """From the beginning to the end, without a folder for temporary files if it is a study."""
        self.fresh(command)
        nowhere = self.root.parent / "nowhere"
        nowhere.mkdir(exist_ok=True)
        # Python takes another folder if TMPDIR is full or none; so all processes are told of one alone.
        (nowhere / "sitecustomize.py").write_text("import tempfile\ntempfile.tempdir = '/nowhere'\n")
        path = os.pathsep.join([str(nowhere), *filter(None, [os.environ.get("PYTHONPATH")])])
        begun = time.monotonic()
        found = self.complete(command, **({"PYTHONPATH": path} if command == "study" else {}))
        return Whole(found, time.monotonic() - begun)

    def temporary(self) -> list[str]:
        """What is hidden, or lies in the folder for temporary files."""
        found = [path.relative_to(self.root) for path in self.root.rglob("*")]
        return sorted(str(path) for path in found if "/." in f"/{path}" or str(path).startswith("tmp/"))


def contents(root: Path) -> dict[str, Any]:
    """Of every file, by its name, all but what must differ between two whole runs."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): _content(path) for path in paths if path.suffix != ".log"}


def _content(path: Path) -> Any:
    """All bytes of a file, without the clock's: times, durations, and what a run draws at random as a name.

    Logs are left out by `contents`: a step that was finished before the kill is not done again, and says nothing anew.
    Of the database of trials the finished ones count: one that was killed is kept as failed.
    """
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(path.read_text()))
        return [_timeless(row) for row in rows]
    if path.suffix == ".pt" and path.parent.name == "checkpoints":  # torch writes the file's temporary name into it
        state = torch.load(path, weights_only=True)
        if "history" in state:
            state["history"] = [[value for i, value in enumerate(row) if i != 3] for row in state["history"]]
        file = io.BytesIO()
        torch.save(state, file)
        return file.getvalue()
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, as_version=4)
        return [(cell.cell_type, cell.source, _timeless(cell.get("outputs"))) for cell in notebook.cells]
    if path.suffix == ".db":
        return None  # what it holds stands in the JSON file of the tuning
    if path.parent.name == "report":
        return re.sub(_CLOCKED, "", path.read_text()).splitlines()
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in CLOCKS}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """With small images of twelve classes, and a notebook that trains and says little."""
    base = tmp_path_factory.mktemp("killed")
    new = base / "template" / "new"
    noise = np.random.default_rng(0)
    for label in range(12):
        pattern = noise.integers(0, 128, (16, 16))
        for number in range(4):
            path = new / "images" / f"class {label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pattern + noise.integers(0, 128, (16, 16))).astype(np.uint8)).save(path)
    settings = {name: value for name, value in TINY.items() if name not in ("data", "backbone", "distance")}
    block = {"data": ["folder"], "backbone": ["conv4"], "loss": ["triplet"], "distance": ["snr"]}
    study = {"profiles": {"tiny": [{**block, "seed": [1], "settings": settings}]}}
    (new / "study.yaml").write_text(yaml.safe_dump(study))
    real = nbformat.read(REPOSITORY / "notebooks" / "07_train.ipynb", as_version=4)
    (head,) = [cell.source for cell in real.cells if "parameters" in cell.metadata.get("tags", [])]
    names = re.findall(r"(?m)^(\w+):", head)
    cells = [new_markdown_cell("# What is it?"), new_code_cell(head, metadata={"tags": ["parameters"]})]
    cells.append(new_code_cell(BODY.format(names=names).strip()))
    notebook = new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (new / "notebooks").mkdir()
    nbformat.write(notebook, new / "notebooks" / "07_train.ipynb")
    root = base / "root"
    places = {"ROOT": root, "RUNS": root / "data" / "runs", "CACHE": root / "cache"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(root / "tmp")}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(base / "torch")  # torch makes it when it is imported, and keeps it
    environment |= {f"SNR_{name}": str(value) for name, value in places.items()}
    made = Place(root, base / "template", environment)
    made.whole["train"] = made.undisturbed("train")
    shutil.copytree(root / "run", new / "done")
    made.whole["train"].contents |= {f"done/{name}": content for name, content in contents(new / "done").items()}
    yield made
    for pid in made.alive():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(place: Place) -> Any:
    """A function that gives the undisturbed run of a command, run once."""

    def of(command: str) -> Whole:
        if command == "report" and not (place.template / "finished").exists():
            of("study")
            place.fresh("study")
            place.complete("study")
            shutil.rmtree(place.root / "data" / "runs" / "report")
            shutil.copytree(place.root, place.template / "finished", ignore=shutil.ignore_patterns("tmp"))
        if command not in place.whole:
            place.whole[command] = place.undisturbed(command)
        return place.whole[command]

    return of


@pytest.mark.parametrize(("command", "number", "seed"), _cases(), ids=lambda one: getattr(one, "name", str(one)))
def test_a_killed_command_completes_to_same_bits(
    command: str, number: int, seed: int, place: Place, whole: Callable[[str], Whole]
) -> None:
    expected = whole(command)
    part, ended = random.Random(f"{command} {number} {seed}").random(), True
    while ended:  # before its moment: then it takes less time than was thought
        place.fresh(command)
        begun, moment = time.monotonic(), part * expected.seconds
        process = place.begin(command)
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        process.send_signal(number)
        status = process.wait(90)
        ended = status == 0 and time.monotonic() - begun < moment
        expected.seconds = min(expected.seconds, time.monotonic() - begun) if ended else expected.seconds
    until(lambda: not place.alive(), seconds=90)
    said, left = place.said, place.temporary()
    found = place.complete(command)
    about = f"{command}, {signal.Signals(number).name}, seed {seed}, after {moment:.2f} s: status {status}"
    print(f"{about}; left {left}; {said.strip().splitlines()[-1:]}", flush=True)
    assert status in (0, -number, 130 if number == signal.SIGINT else 128 + number), about
    assert found.keys() == expected.contents.keys(), about
    for name, content in found.items():
        assert content == expected.contents[name], f"{about}: {name}"
    if number != signal.SIGKILL:
        assert "Traceback" not in said, f"{about}\n{said}"
        assert [name for name in left if ".checkpoints-" not in name] == [], f"{about}: from those the next goes on"


def test_want_of_memory_is_said_and_mended(place: Place, whole: Callable[[str], Whole]) -> None:
    """From the moment at which the training begins it gets no byte more."""
    expected = whole("train")
    place.fresh("train")
    process = place.begin("train")
    until((place.root / "run" / "checkpoints").exists, process)
    (size,) = re.findall(r"VmSize:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    resource.prlimit(process.pid, resource.RLIMIT_AS, (1024 * int(size), 1024 * int(size)))
    assert process.wait(60) == 1
    assert re.fullmatch(r"snr: there is not enough memory \(.+\); what was finished is kept\. .+\n", place.said)
    assert place.temporary() == []
    assert place.complete("train") == expected.contents


def test_a_study_needs_no_temporary_folder(whole: Callable[[str], Whole]) -> None:
    """The whole one, with which the killed ones are compared, had none."""
    assert [name for name in whole("study").contents if name.endswith("07_train.ipynb") and "runs/grid" in name]
