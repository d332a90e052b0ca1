"""How often `snrlib.evaluate.compare` calls a difference between ways to search random vectors: 5 % is stated.

``python benchmarks/compare_random.py [DRAWS]``: 300 vectors of 16 components in 20 classes, all usual ways but LMNN.
"""

from __future__ import annotations

import sys

import torch

from snrlib.evaluate import compare
from snrlib.evaluate.comparison import SCORE_WORDS
from snrlib.mahalanobis import usual_ways


def called(draw: int) -> dict[str, bool]:
    """Whether any way is said to differ from Euclid, by score."""
    x = torch.randn(300, 16, generator=torch.Generator().manual_seed(draw))
    table = compare(x, torch.arange(300) % 20, search=usual_ways(), cluster=False, seed=draw)
    return {
        word: bool((table.differences(score=score).verdict != "no difference shown").any())
        for score, word in SCORE_WORDS.items()
    }


if __name__ == "__main__":
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    found = [called(draw) for draw in range(draws)]
    for word in SCORE_WORDS.values():
        print(f"{word}: a difference is called in {sum(one[word] for one in found)} of {draws} draws")
