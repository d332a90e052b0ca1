"""What is done to images and labels: each corruption against loops or scipy, the same bits for the same seed."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from oracles import bad_options, refusals
from scipy.ndimage import gaussian_filter

from snrlib.data.corruptions import CORRUPTIONS, corrupt, mislabel


def _images(n: int = 6, channels: int = 3, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_seed_gives_the_same_bits_and_level_0_a_copy(kind: str) -> None:
    images = _images()
    kept = images.clone()
    same = corrupt(images, kind, 0)
    assert torch.equal(same, images)
    assert same.data_ptr() != images.data_ptr()
    away = [(corrupt(images, kind, level) - images).square().mean().item() for level in (0.3, 0.5, 0.8)]
    assert 0 < away[0] < away[1] < away[2], "a higher level takes it farther away"
    first = corrupt(images, kind, 0.5, seed=4)
    assert first.shape == images.shape
    assert torch.equal(first, corrupt(images, kind, 0.5, seed=4))
    assert torch.equal(first, corrupt(images, kind, 0.5, seed=5)) == (kind == "blur"), "nothing is drawn for a blur"
    assert torch.equal(images, kept), "the given images never change"


def test_noise_is_normal_with_the_deviation_of_its_level() -> None:
    images, level = _images(20), 0.4
    noise = (corrupt(images, "noise", level) - images).flatten().double()
    n = len(noise)
    assert abs(noise.mean().item()) < 4 * level / n**0.5
    assert noise.std().item() == pytest.approx(level, rel=4 / (2 * n) ** 0.5)
    assert (noise.abs() < level).double().mean().item() == pytest.approx(0.6827, abs=4 * (0.2166 / n) ** 0.5)
    pixels = noise.view(len(images), -1)
    assert abs(np.corrcoef(pixels[0], pixels[1])[0, 1]) < 4 / pixels.shape[1] ** 0.5, "each image has its own"


@pytest.mark.parametrize(("height", "width", "level"), [(32, 32, 1.0), (32, 32, 0.25), (20, 48, 0.75), (5, 64, 2.0)])
def test_blur_is_that_of_scipy_in_units_of_the_width(height: int, width: int, level: float) -> None:
    images = _images(3, 2, height, width).double()
    sigma = level * width / 32
    found = corrupt(images, "blur", level)
    for image, blurred in zip(images.flatten(0, 1), found.flatten(0, 1), strict=True):
        expected = gaussian_filter(image.numpy(), sigma, mode="nearest", radius=math.ceil(3 * sigma))
        np.testing.assert_allclose(blurred.numpy(), expected, rtol=1e-12)
    torch.testing.assert_close(corrupt(images.float(), "blur", level).double(), found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "level"), [(40, 40, 0.25), (32, 64, 0.1), (30, 30, 1.0)])
def test_occlusion_hides_its_share_by_a_rectangle_somewhere(height: int, width: int, level: float) -> None:
    images = _images(30, 3, height, width)
    spoiled, places = corrupt(images, "occlusion", level), set()
    sides = (round(height * level**0.5), round(width * level**0.5))
    for image, found in zip(images, spoiled, strict=True):
        rows, columns = (torch.where((found != image).any(dim=0).any(dim=dim))[0] for dim in (1, 0))
        assert (len(rows), len(columns)) == sides
        expected = image.clone()
        expected[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 0.5
        assert torch.equal(found, expected), "grey, in all channels, and nothing beside it"
        places.add((int(rows[0]), int(columns[0])))
    assert len(places) > 15 or level == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.33, 1.0])
def test_just_a_share_of_labels_becomes_another_class(share: float) -> None:
    labels = torch.tensor([3, 7, 9, 2]).repeat_interleave(3000)
    given = labels.clone()
    wrong = mislabel(labels, share, seed=2)
    assert int((wrong != labels).sum()) == round(share * 12000)
    assert torch.equal(wrong, mislabel(labels, share, seed=2))
    assert torch.equal(wrong, mislabel(labels, share, seed=3)) == (share == 0)
    assert torch.equal(labels, given), "the given ones do not change"
    if share == 1:  # drawn evenly among the others
        counts = torch.bincount(wrong[labels == 3])[[3, 7, 9, 2]]
        assert counts[0] == 0
        assert (counts[1:] - 1000).abs().max() < 4 * (3000 * 2 / 9) ** 0.5


test_what_cannot_be_spoiled_is_refused = refusals(
    *bad_options(partial(corrupt, _images(), level=0.1), kind=["fog"]),
    *bad_options(partial(corrupt, _images(), "noise"), level=[-0.1, math.nan]),
    *bad_options(partial(corrupt, _images(), "occlusion"), level=[1.1]),
    (partial(corrupt, _images()[0], "noise", 0.1), ValueError, r"images must be \(n, C, H, W\), .*got .*\(3, 32, 32\)"),
    (partial(corrupt, _images().byte(), "blur", 1), ValueError, "floating point, got torch.uint8"),
    *bad_options(partial(mislabel, torch.arange(4)), share=[1.5]),
    (partial(mislabel, torch.ones(4).long(), 0.5), ValueError, "second class"),
    (partial(mislabel, torch.ones(4), 0.5), ValueError, "labels must be a row of integers"),
)
