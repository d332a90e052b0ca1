"""Who is searched for and who is searched: sizes, disjointness, balance and seeds of every protocol."""

from dataclasses import replace

import pytest
import torch
from oracles import refusals

from snrlib.data import LabelledImages
from snrlib.hashing import PROTOCOLS, Protocol, Split, hashing_sets, split

CIFAR = torch.arange(60_000) % 10
SIZES = {
    "cifar10": (1_000, 5_000, 54_000),
    "cifar10-1": (1_000, 5_000, 59_000),
    "cifar10-2": (10_000, 50_000, 50_000),
    "glyphs": (400, 1_600, 2_800),
}


def labels_of(protocol: str) -> torch.Tensor:
    return CIFAR if protocol.startswith("cifar10") else torch.arange(100).repeat_interleave(32)


def sets(drawn: Split) -> tuple[set[int], set[int], set[int]]:
    return set(drawn.query.tolist()), set(drawn.train.tolist()), set(drawn.database.tolist())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_parts_have_their_sizes_and_classes(protocol: str) -> None:
    labels = labels_of(protocol)
    drawn = split(labels, protocol, seed=3)
    query, train, database = sets(drawn)
    assert (len(query), len(train), len(database)) == SIZES[protocol]
    assert (len(drawn.query), len(drawn.train), len(drawn.database)) == SIZES[protocol], "none twice"
    assert not query & (train | database)
    shared = {"rest": set(), "all": train, "train": train}[PROTOCOLS[protocol].database]
    assert train & database == shared
    for part in (drawn.query, drawn.train, drawn.database):
        assert len(labels[part].bincount().unique()) == 1, "as many of each class"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_seed_is_one_draw(protocol: str) -> None:
    labels = labels_of(protocol)
    first, again, other = (split(labels, protocol, seed).query for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert len(set(first.tolist()) & set(other.tolist())) < 0.4 * len(first)


def test_glyphs_ask_about_seen_and_unseen_characters() -> None:
    drawn = hashing_sets("glyphs")
    seen, unseen = drawn.galleries["seen"], drawn.galleries["unseen"]
    assert drawn.train.classes == seen.query.classes == seen.database.classes
    assert unseen.query.classes == unseen.database.classes
    assert not set(seen.query.classes) & set(unseen.query.classes)
    assert [len(part) for part in (seen.query, seen.database, unseen.query, unseen.database)] == [400, 2800, 400, 2800]
    images = {gallery.query.fingerprint for gallery in (seen, unseen)}
    assert len(images | {drawn.train.fingerprint}) == 3


def test_images_at_hand_are_shared_out() -> None:
    labels = torch.arange(60_000) % 10
    data = LabelledImages("cifar10", torch.arange(60_000)[:, None, None, None].int(), labels, tuple("abcdefghij"))
    drawn, indices = hashing_sets("cifar10-1", seed=5, images=data), split(labels, "cifar10-1", seed=5)
    gallery = drawn.galleries["seen"]
    for images, rows in (
        (drawn.train, indices.train),
        (gallery.query, indices.query),
        (gallery.database, indices.database),
    ):
        assert torch.equal(images.images.flatten(), rows.int())
        assert torch.equal(images.labels, labels[rows])
    assert list(drawn.galleries) == ["seen"]


few = Protocol("glyphs", 2, 3, "rest", 6)

test_bad_protocols_are_refused = refusals(
    (lambda: split(CIFAR, "cifar10-3"), ValueError, "protocol must be one of cifar10, .* got 'cifar10-3'"),
    (lambda: split(CIFAR[:1000], "cifar10"), ValueError, "each class needs 601 images, class 0 has 100"),
    (lambda: split(torch.arange(10) // 5, few), ValueError, "each class needs 6 images, class 0 has 5"),
    (lambda: split(torch.ones(4), replace(few, query=1)), ValueError, "labels must be a row of integers"),
    (lambda: hashing_sets("nus-wide"), ValueError, "protocol must be one of cifar10"),
    (lambda: hashing_sets("cifar10", root="/nowhere"), FileNotFoundError, "cifar10 is not there"),
)
