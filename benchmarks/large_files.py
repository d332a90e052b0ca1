"""`snr compare` of a large file, in a process of its own: seconds and peak memory.

python benchmarks/large_files.py [ROWS COMPONENTS]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from measure import machine

ROWS, COMPONENTS, PER_CLASS = 100_000, 512, 100
ARRAY = "embeddings.npy"


def write(folder: Path, n: int, m: int) -> None:
    """Embeddings of noisy classes, float32, and a table of labels beside them."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) * max(n // PER_CLASS, 2) // n
    centres = rng.normal(size=(labels[-1] + 1, m)).astype(np.float32)
    with open(folder / ARRAY, "wb") as file:  # by parts: what this process needs counts as its child's
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (n, m)})
        for start in range(0, n, 5_000):
            rows = centres[labels[start : start + 5_000]]
            file.write((rows + 2 * rng.normal(size=rows.shape)).astype("<f4").tobytes())
    pd.DataFrame({"label": labels}).to_csv(folder / "embeddings.csv", index=False)


def measured(folder: Path) -> dict[str, float]:
    """Seconds of the command, start included, and the most memory that its process had resident."""
    said = os.open(folder / "said.txt", os.O_CREAT | os.O_RDWR)
    environment = os.environ | {"SNR_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "snrlib", "compare", str(folder / ARRAY), "-o", str(folder / "page.html")]
    started = time.perf_counter()
    to_file = [(os.POSIX_SPAWN_DUP2, said, 1), (os.POSIX_SPAWN_DUP2, said, 2)]
    _, status, used = os.wait4(os.posix_spawn(sys.executable, command, environment, file_actions=to_file), 0)
    seconds = time.perf_counter() - started
    if status:
        raise ChildProcessError((folder / "said.txt").read_text(encoding="utf-8")[-2000:])
    return {"seconds": seconds, "peak, GiB": used.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)}


def main() -> None:
    """Print the table."""
    n, m = map(int, sys.argv[1:]) if len(sys.argv) > 1 else (ROWS, COMPONENTS)
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), n, m)
        print(pd.DataFrame({f"({n}, {m})": measured(Path(folder))}).T.round(2).to_string())


if __name__ == "__main__":
    main()
