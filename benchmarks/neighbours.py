"""The exact nearest-neighbour search against faiss: a self-search for k = 10 under the SNR distance.

python benchmarks/neighbours.py
"""

from __future__ import annotations

import sys
from functools import partial

import faiss
import pandas as pd
import torch
from measure import machine, medians, peak_memory, peak_of

from snrlib.distances import get_distance
from snrlib.evaluate import knn

K = 10
SHAPES = {(20_000, 128): 5, (60_000, 512): 3}  # rounds


def flat_l2(x: torch.Tensor) -> None:
    """The peer: faiss's exact Euclidean search, self included."""
    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x.numpy())
    index.search(x.numpy(), K + 1)


def embeddings(n: int, m: int) -> torch.Tensor:
    """The same random embeddings for all."""
    return torch.randn(n, m, generator=torch.Generator().manual_seed(0))


def main() -> None:
    """Print the table; with a shape as arguments, only the peak memory of one search."""
    if len(sys.argv) > 1:
        x = embeddings(int(sys.argv[1]), int(sys.argv[2]))
        knn(x[:100], K, distance=get_distance("snr", anchor="ref"))
        print(peak_of(partial(knn, x, K, distance=get_distance("snr", anchor="ref"))))
        return
    print(machine())
    rows = {}
    for (n, m), rounds in SHAPES.items():
        x = embeddings(n, m)
        query, ref = get_distance("snr"), get_distance("snr", anchor="ref")
        seconds = medians(
            {
                "faiss IndexFlatL2": partial(flat_l2, x),
                "knn, anchor query": partial(knn, x, K, distance=query),
                "knn, anchor ref": partial(knn, x, K, distance=ref),
                "knn through faiss": partial(knn, x, K, distance=query, backend="faiss"),
            },
            rounds,
        )
        peer = seconds["faiss IndexFlatL2"]
        row = {f"{name}, s": value for name, value in seconds.items()}
        row |= {f"{name} / faiss": value / peer for name, value in seconds.items() if "knn" in name}
        row["peak memory beyond the data, MiB"] = peak_memory(__file__, str(n), str(m))
        rows[f"({n}, {m})"] = row
    print(f"\nSelf-search, k = {K} (medians of one run, in turns)")
    print(pd.DataFrame(rows).round(2).to_string())


if __name__ == "__main__":
    main()
