"""Packed codes, their Hamming distance and the search for the nearest, against loops, numpy and faiss."""

import numpy as np
import pytest
import torch
from oracles import normal, refusals
from torch import Tensor

from snrlib.distances import get_distance
from snrlib.hashing import code_distance, hamming, nearest_codes, pack, unpack
from snrlib.hashing import search as module

every_length = pytest.mark.parametrize("bits", [2, 7, 8, 12, 48, 300])


def balanced(n: int, bits: int, seed: int = 0) -> Tensor:
    """Codes of -1 and +1, as many of each, in random order."""
    half = torch.cat([torch.ones(bits // 2), -torch.ones(bits // 2)]).double()
    order = normal(n, bits, seed=seed).argsort(dim=1)
    return half[order]


def differing(a: Tensor, b: Tensor) -> int:
    return sum(x != y for x, y in zip((a > 0).tolist(), (b > 0).tolist(), strict=True))


@every_length
def test_packing_equals_numpy_and_is_undone(bits: int) -> None:
    x = normal(5, bits)
    x[0, 0] = 0.0
    assert np.array_equal(pack(x).numpy(), np.packbits(x.numpy() > 0, axis=1))
    assert torch.equal(unpack(pack(x), bits), torch.where(x > 0, 1.0, -1.0))


@every_length
def test_hamming_counts_the_bits_that_differ(bits: int) -> None:
    a, b = normal(6, bits), normal(4, bits, seed=1)
    expected = [[differing(x, y) for y in b] for x in a]
    assert hamming(pack(a), pack(b)).tolist() == expected


@every_length
@pytest.mark.parametrize("block", [1, 2**22])
def test_nearest_codes_break_ties_by_place(bits: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    a, b = normal(6, bits), normal(40, bits, seed=1).repeat(2, 1)
    distances, indices = nearest_codes(pack(a), 17, pack(b))
    for row, x in enumerate(a):
        expected = sorted((differing(x, y), place) for place, y in enumerate(b))[:17]
        assert list(zip(distances[row].tolist(), indices[row].tolist(), strict=True)) == expected


@every_length
def test_faiss_finds_codes_equally_near(bits: int) -> None:
    pytest.importorskip("faiss")
    a, b = pack(normal(20, bits)), pack(normal(100, bits, seed=1))
    ours, theirs = nearest_codes(a, 9, b), nearest_codes(a, 9, b, backend="faiss")
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(hamming(a, b).long().gather(1, theirs[1]), theirs[0])


@pytest.mark.parametrize("bits", [2, 16, 48, 64])
def test_snr_of_balanced_codes_is_hamming(bits: int) -> None:
    codes = balanced(12, bits)
    H = hamming(pack(codes), pack(codes)).double()
    torch.testing.assert_close(get_distance("snr")(codes), 4 * H / bits, rtol=0, atol=1e-12)
    for name in ("snr", "euclidean", "cosine"):
        expected = torch.tensor([[code_distance(name, bits, h / bits) for h in row] for row in H.tolist()])
        torch.testing.assert_close(get_distance(name)(codes).float(), expected, rtol=0, atol=1e-5)


def test_snr_of_unbalanced_codes_knows_their_means() -> None:
    codes = torch.where(normal(12, 16) > 0.7, 1.0, -1.0).double()
    codes = codes[codes.std(dim=1) > 0]
    H, mean = hamming(pack(codes), pack(codes)).double(), codes.mean(dim=1)
    expected = (4 * H / 16 - (mean - mean[:, None]) ** 2) / (1 - mean[:, None] ** 2)
    torch.testing.assert_close(get_distance("snr")(codes), expected, rtol=0, atol=1e-12)
    assert (expected - 4 * H / 16).abs().max() > 0.1


codes = pack(normal(3, 16))

test_bad_codes_are_refused = refusals(
    (lambda: pack(torch.ones(3, 4, dtype=torch.int64)), TypeError, "relaxed codes must be floating point"),
    (lambda: pack(torch.ones(3)), ValueError, r"relaxed codes must be 2-D"),
    (lambda: unpack(codes.float()), TypeError, r"codes must be packed codes, a uint8 tensor .* got torch.float32"),
    (lambda: unpack(codes[0]), ValueError, r"shape \(n, bytes\), not empty, got shape \(2,\)"),
    (lambda: unpack(codes, 8), ValueError, "bits of codes of 2 bytes must be from 9 to 16, got 8"),
    (lambda: hamming(codes, codes.bool()), TypeError, "database must be packed codes, .* got torch.bool"),
    (lambda: hamming(codes, codes[:, :1]), ValueError, "codes of one length, got 2 and 1"),
    (lambda: hamming(codes[:0], codes), ValueError, r"query must be .* not empty, got shape \(0, 2\)"),
    (lambda: nearest_codes(codes, 4, codes), ValueError, "k must be an integer from 1 to 3, .* got 4"),
    (lambda: nearest_codes(codes, True, codes), ValueError, "k must be an integer .* got True"),
    (lambda: nearest_codes(codes, 1, codes[:, :1]), ValueError, "codes of one length, got 2 and 1"),
    (lambda: nearest_codes(codes, 1, codes, "gpu"), ValueError, "backend must be one of torch, faiss, got 'gpu'"),
    (lambda: code_distance("mahalanobis", 16, 0.5), ValueError, "distance must be one of snr, euclidean, cosine"),
    (lambda: code_distance("snr", 16, 1.5), ValueError, "share must be .* at most 1, got 1.5"),
)
