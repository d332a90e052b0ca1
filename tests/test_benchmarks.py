"""The benchmarks run; what they measure of memory is asserted, what they measure of time is not."""

import subprocess
import sys
from pathlib import Path

import pytest

PAIRS = 1024**2 * 4 / 2**20  # MiB, of one matrix of a batch of 1024
MOST = {
    "no third axis": (["distances.py", "snrlib SNR", "1024", "512"], 512 * PAIRS / 20),
    "a fraction of the full matrix": (["neighbours.py", "20000", "128"], 20_000**2 * 4 / 2**20 / 4),
    "no table of pairs, lifted": (["losses.py", "lifted, Euclid", "1024", "snrlib"], 20 * PAIRS),
    "no table of triplets": (["losses.py", "triplet, SNR", "1024", "snrlib"], 20 * PAIRS),
    # at the start nearly all pairs are impostors: indices, hinges, weights
    "blocks of the impostors": (["mahalanobis.py", "gaussians", "LMNN"], 3000**2 * 100 / 2**20 / 2),
    "the training loop, whatever it takes": (["training.py", "conv4", "8", "1"], float("inf")),
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("claim", MOST)
def test_memory_stays_below_what_is_claimed(repository: Path, claim: str) -> None:
    arguments, mebibytes = MOST[claim]
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=repository / "benchmarks", capture_output=True, text=True, check=True)
    assert float(done.stdout) < mebibytes
    assert float(done.stdout) > 0 or claim.startswith("the training loop")
