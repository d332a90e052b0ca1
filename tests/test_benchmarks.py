"""The benchmarks run; what they measure of memory is asserted, what they measure of time is not."""

import subprocess
import sys
from pathlib import Path

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
