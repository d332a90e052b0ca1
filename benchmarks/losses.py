"""The losses against their peers with equal settings: forward and backward, and peak memory.

python benchmarks/losses.py
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
from snrlib.losses import ContrastiveLoss, LiftedStructureLoss, NPairsLoss, TripletMarginLoss

M = 128
BATCHES = {64: 100, 128: 50, 256: 20, 512: 5, 1024: 3}  # rounds of the peer
OURS, PEER, PRODUCT = "snrlib", "pytorch-metric-learning", "matrix product"
Function = Callable[[Tensor], Tensor]


def losses() -> dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor], int, int]]:
    """Name: ours, the peer's, images a class, and the largest batch that the peer's memory allows here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peer's own imports
        from pytorch_metric_learning import distances, reducers
        from pytorch_metric_learning import losses as peer

    snr, euclidean = get_distance("snr"), get_distance("euclidean")
    peer_snr = distances.SNRDistance(normalize_embeddings=False)
    mean = reducers.MeanReducer()
    peer_contrastive = peer.ContrastiveLoss(0, 1, distance=peer_snr, reducer=mean)
    return {
        "contrastive, SNR": (
            ContrastiveLoss(snr, 1.0, balanced=True),
            lambda x, y: peer_contrastive(x, y) / 2,  # it adds the means that ours averages
            4,
            1024,
        ),
        "triplet, SNR": (
            TripletMarginLoss(snr, 0.5),
            peer.TripletMarginLoss(0.5, distance=peer_snr, reducer=mean),
            4,
            1024,
        ),
        "triplet, Euclid": (
            TripletMarginLoss(euclidean, 0.5),
            peer.TripletMarginLoss(
                0.5, distance=distances.LpDistance(power=2, normalize_embeddings=False), reducer=mean
            ),
            4,
            1024,
        ),
        "lifted, Euclid": (
            LiftedStructureLoss(euclidean, 1.0),
            peer.LiftedStructureLoss(1, distance=distances.LpDistance(normalize_embeddings=False)),
            4,
            256,  # its table of positive against negative pairs takes 1 GiB here and grows with the cube of the batch
        ),
        "N-pair, inner product": (
            NPairsLoss(euclidean),
            peer.NPairsLoss(distance=distances.DotProductSimilarity(normalize_embeddings=False)),
            2,  # the peer uses two images a class, however many there are
            1024,
        ),
    }


def methods(name: str, n: int) -> dict[str, Function]:
    """What is compared on a batch of n; all take embeddings (n, M)."""
    ours, peer, per_class, largest = losses()[name]
    labels = torch.arange(n) // per_class
    compared: dict[str, Function] = {OURS: lambda x: ours(x, labels), PRODUCT: lambda x: x @ x.T}
    if n <= largest:
        compared[PEER] = lambda x: peer(x, labels)
    return compared


def batch(n: int) -> Tensor:
    """The same random embeddings for all."""
    return torch.randn(n, M, generator=torch.Generator().manual_seed(0))


def compare() -> pd.DataFrame:
    """Milliseconds of each, and the ratios that matter; values are asserted equal first."""
    rows = {}
    for name in losses():
        growth = float("nan")
        for n, rounds in BATCHES.items():
            x = batch(n)
            rounds = min(rounds, 3) if "lifted" in name else rounds  # seconds each
            compared = methods(name, n)
            if PEER in compared:
                torch.testing.assert_close(compared[OURS](x), compared[PEER](x), rtol=1e-4, atol=1e-5)
            calls = {key: forward_backward(method, x) for key, method in compared.items()}
            fast = medians({key: calls[key] for key in (OURS, PRODUCT)}, repeats=100)
            row = {f"{key}, ms": 1e3 * value for key, value in fast.items()}
            if PEER in calls:
                # By itself: its large temporaries would slow down what runs after it.
                slow = medians({PEER: calls[PEER]}, repeats=rounds)[PEER]
                row |= {f"{PEER}, ms": 1e3 * slow, "peer / snrlib": slow / fast[OURS]}
            row |= {"snrlib / product": fast[OURS] / fast[PRODUCT], "growth": fast[OURS] / growth}
            growth = fast[OURS]
            rows[name, n] = row
    columns = [f"{OURS}, ms", f"{PEER}, ms", f"{PRODUCT}, ms", "peer / snrlib", "snrlib / product", "growth"]
    return pd.DataFrame(rows).T[columns]


def peaks() -> pd.DataFrame:
    """MiB beyond the embeddings, forward and backward, each in a process of its own."""
    return pd.DataFrame(
        {
            (name, n): {key: peak_memory(__file__, name, str(n), key) for key in methods(name, n) if key != PRODUCT}
            for name in losses()
            for n in (256, 1024)
        }
    ).T


def main() -> None:
    """Print the tables; with a loss, a batch and a method as arguments, only that one's peak memory."""
    if len(sys.argv) > 1:
        name, n, key = sys.argv[1], int(sys.argv[2]), sys.argv[3]
        forward_backward(methods(name, 16)[key], batch(16))()  # libraries and thread pools are up now
        print(peak_of(forward_backward(methods(name, n)[key], batch(n))))
        return
    print(machine())
    print(f"\nForward and backward, M = {M}, 4 images a class (N-pair: 2); medians of one run")
    print(compare().round(2).to_string())
    print("\nPeak memory beyond the embeddings, forward and backward, MiB")
    print(peaks().round(1).to_string())


if __name__ == "__main__":
    main()
