"""LMNN against its peer, scikit-learn's neighbourhood components analysis, on the same standardised data.

python benchmarks/mahalanobis.py
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from measure import machine, peak_memory, peak_of
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import VarianceThreshold
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from snrlib.mahalanobis import LMNN

PEERS: dict[str, Any] = {"LMNN": LMNN, "NCA": lambda: NeighborhoodComponentsAnalysis(random_state=0)}


def gaussians(n: int, m: int) -> tuple[NDArray, NDArray]:
    """Ten overlapping classes."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 10
    return rng.normal(size=(n, m)) + 0.5 * rng.normal(size=(10, m))[y], y


def digits() -> tuple[NDArray, NDArray]:
    """scikit-learn's digits without the columns that hardly vary, standardised."""
    X, y = load_digits(return_X_y=True)
    return make_pipeline(VarianceThreshold(0.01), StandardScaler()).fit_transform(X), y


SETS: dict[str, tuple[NDArray, NDArray]] = {"digits": digits(), "gaussians": gaussians(3000, 64)}


def fit(peer: str, X: NDArray, y: NDArray) -> Any:
    """The fitted estimator, with the seconds that it took."""
    estimator, started = PEERS[peer](), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # NCA stops after 50 iterations by default
        estimator.fit(X, y)
    estimator.seconds = time.perf_counter() - started
    return estimator


def main() -> None:
    """Print the table; with a set and a peer as arguments, only the peak memory of one fit."""
    if len(sys.argv) > 1:
        X, y = SETS[sys.argv[1]]
        fit(sys.argv[2], *gaussians(200, 4))  # what is loaded on first use does not count
        print(peak_of(lambda: fit(sys.argv[2], X, y)))
        return
    print(machine())
    rows = {}
    for name, (X, y) in SETS.items():
        X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
        plain = KNeighborsClassifier(3).fit(X_train, y_train).score(X_test, y_test)
        for peer in PEERS:
            done = fit(peer, X_train, y_train)
            found = KNeighborsClassifier(3).fit(done.transform(X_train), y_train)
            rows[f"{name} {X_train.shape}", peer] = {
                "fit, s": done.seconds,
                "iterations": done.n_iter_,
                "s an iteration": done.seconds / done.n_iter_,
                "test error, %": 100 * (1 - found.score(done.transform(X_test), y_test)),
                "Euclid's, %": 100 * (1 - plain),
                "peak memory of a fit to all, MiB": peak_memory(__file__, name, peer),
            }
    print("\nFitting a square map (one run)")
    print(pd.DataFrame(rows).T.round(3).to_string())


if __name__ == "__main__":
    main()
