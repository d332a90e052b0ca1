"""The SNR distance matrix against its peers: forward, forward and backward, and peak memory.

python benchmarks/distances.py
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import pandas as pd
import torch
from measure import forward_backward, machine, medians, peak_memory, peak_of
from torch import Tensor

from snrlib.distances import get_distance

SHAPES = ((128, 128), (256, 512), (512, 512), (1024, 512))
OURS, PEER, CDIST, PRODUCT = "snrlib SNR", "pytorch-metric-learning SNR", "torch.cdist", "matrix product"


def methods() -> dict[str, Callable[[Tensor], Tensor]]:
    """What is compared; all take embeddings (n, M) and return (n, n)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peer's own imports
        from pytorch_metric_learning.distances import SNRDistance

    peer = SNRDistance(normalize_embeddings=False)
    return {
        OURS: get_distance("snr"),
        PEER: lambda x: peer(x),
        CDIST: lambda x: torch.cdist(x, x),
        PRODUCT: lambda x: x @ x.T,
    }


def forward(method: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    """One call without gradient."""

    @torch.no_grad()
    def call() -> None:
        method(x)

    return call


def compare(mode: Callable[..., Callable[[], object]]) -> pd.DataFrame:
    """Milliseconds of each method, and the two ratios that matter."""
    rows = {}
    for n, m in SHAPES:
        x = torch.randn(n, m, generator=torch.Generator().manual_seed(0))
        calls = {name: mode(method, x) for name, method in methods().items()}
        fast = medians({name: call for name, call in calls.items() if name != PEER}, repeats=200)
        slow = medians({name: call for name, call in calls.items() if name in (PEER, OURS)}, repeats=7)
        row = {name: 1e3 * (slow if name == PEER else fast)[name] for name in calls}
        row["peer / snrlib"] = slow[PEER] / slow[OURS]
        row["snrlib / product"] = fast[OURS] / fast[PRODUCT]
        rows[f"({n}, {m})"] = row
    return pd.DataFrame(rows).T


def peaks() -> pd.DataFrame:
    """MiB beyond the embeddings, forward and backward, each in a process of its own."""
    return pd.DataFrame(
        {f"({n}, {m})": {name: peak_memory(__file__, name, str(n), str(m)) for name in methods()} for n, m in SHAPES}
    ).T


def main() -> None:
    """Print the tables; with a method and a shape as arguments, only that one's peak memory."""
    if len(sys.argv) > 1:
        name, n, m = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        method = methods()[name]
        forward_backward(method, torch.randn(8, m))()  # libraries and thread pools are up now
        print(peak_of(forward_backward(method, torch.randn(n, m))))
        return
    print(machine())
    print("\nForward, ms (medians of one run, in turns)")
    print(compare(forward).round(2).to_string())
    print("\nForward and backward, ms")
    print(compare(forward_backward).round(2).to_string())
    print("\nPeak memory beyond the embeddings, forward and backward, MiB")
    print(peaks().round(1).to_string())


if __name__ == "__main__":
    main()
