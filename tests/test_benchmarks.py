"""The benchmarks run; what they measure of memory is asserted, what they measure of time is not."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")


def _peak(repository: Path, *arguments: str) -> float:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=repository / "benchmarks", capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_the_snr_distance_of_1024_by_512_needs_no_third_axis(repository: Path) -> None:
    third_axis = 1024 * 1024 * 512 * 4 / 2**20
    assert 0 < _peak(repository, "distances.py", "snrlib SNR", "1024", "512") < third_axis / 20


def test_a_search_of_20000_by_128_needs_a_fraction_of_the_full_matrix(repository: Path) -> None:
    full_matrix = 20_000**2 * 4 / 2**20
    assert 0 < _peak(repository, "neighbours.py", "20000", "128") < full_matrix / 4


def test_the_lifted_loss_of_a_batch_of_1024_needs_some_matrices_of_pairs_and_no_table_of_them(repository: Path) -> None:
    matrix = 1024**2 * 4 / 2**20
    assert 0 < _peak(repository, "losses.py", "lifted, Euclid", "1024", "snrlib") < 20 * matrix


def test_the_triplet_loss_of_a_batch_of_1024_needs_some_matrices_of_pairs(repository: Path) -> None:
    matrix = 1024**2 * 4 / 2**20
    assert 0 < _peak(repository, "losses.py", "triplet, SNR", "1024", "snrlib") < 20 * matrix


def test_lmnn_needs_blocks_of_the_pairs_and_not_all_of_them(repository: Path) -> None:
    at_once = 3000**2 * 100 / 2**20  # at the start nearly all pairs are impostors: indices, hinges, weights
    assert 0 < _peak(repository, "mahalanobis.py", "gaussians", "LMNN") < at_once / 2


def test_the_training_loop_is_compared_with_the_bare_steps(repository: Path) -> None:
    _peak(repository, "training.py", "conv4", "8", "1")  # a number; how large it may be depends on who else computes
