"""The benchmarks run; what they measure of memory is asserted, what they measure of time is not."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

slow = pytest.mark.slow
PAIRS = 1024**2 * 4 / 2**20  # MiB, of one matrix of a batch of 1024
MOST = [
    pytest.param("distances.py", ["snrlib SNR", "1024", "512"], 512 * PAIRS / 20, id="no third axis"),
    pytest.param("neighbours.py", ["12000", "16"], 12_000**2 * 4 / 2**20 / 2, id="no full matrix", marks=slow),
    pytest.param("losses.py", ["lifted, Euclid", "1024", "snrlib"], 20 * PAIRS, id="no table of pairs", marks=slow),
    pytest.param("losses.py", ["triplet, SNR", "1024", "snrlib"], 20 * PAIRS, id="no table of triplets", marks=slow),
    pytest.param("mahalanobis.py", ["digits", "LMNN"], 3 * 1797**2 * 8 / 2**20, id="fit in blocks", marks=slow),
    pytest.param("training.py", ["conv4", "8", "1"], float("inf"), id="training takes what it takes", marks=slow),
]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("program", "arguments", "most"), MOST)
def test_memory_stays_below_what_is_claimed(repository: Path, program: str, arguments: list[str], most: float) -> None:
    command = [sys.executable, program, *arguments]
    done = subprocess.run(command, cwd=repository / "benchmarks", capture_output=True, text=True, check=True)
    assert float(done.stdout) < most
    assert float(done.stdout) > 0 or program == "training.py"


def _table(repository: Path, program: str, *arguments: str) -> dict[str, list[float]]:
    """The rows that it prints, by their names; a row ends in numbers."""
    command = [sys.executable, program, *arguments]
    done = subprocess.run(command, cwd=repository / "benchmarks", capture_output=True, text=True, check=True)
    rows = [re.fullmatch(r"(\S.*?)((?:\s+-?[\d.]+)+)", line) for line in done.stdout.splitlines()]
    return {row[1]: [float(word) for word in row[2].split()] for row in rows if row}


@slow
def test_a_large_file_is_compared_and_measured(repository: Path) -> None:
    seconds, peak = _table(repository, "large_files.py", "600", "8")["(600, 8)"]
    assert seconds > 0
    assert 0.1 < peak < 2, "GiB, of which torch alone takes a part"


@slow
@pytest.mark.browser
def test_the_inspector_is_measured(repository: Path, browser: Any) -> None:
    found = _table(repository, "inspector.py", "300", "600")
    small, large = found["page, MiB"]
    assert 0 < small < large < 2
    assert all(0 < count <= n for count, n in zip(found["chosen by it"], (300, 600), strict=True))
    assert all(0 < paint < 60 for paint in found["first paint, s"])
    assert min(found["frames per second under a lasso"]) > 0
