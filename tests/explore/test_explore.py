"""Maps, the inspector in Python, stored embeddings and the commands that write pages."""

import base64
import io
import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_cases import small
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image
from sklearn.manifold import TSNE, trustworthiness
from torch import Tensor

from snrlib.cli.main import main
from snrlib.data import LabelledImages
from snrlib.distances import DISTANCES, get_distance
from snrlib.evaluate import knn, retrieval
from snrlib.experiment import experiment
from snrlib.explore import ExplorePage, inspect, map_figure, thumbnails, tsne
from snrlib.explore.maps import _symmetrised
from snrlib.explore.playground import FIGURE_ALT, _start, playground_figure
from snrlib.losses import get_loss
from snrlib.study.embeddings import SPACES, run_embeddings, stored_embeddings


def groups(n: int = 120, components: int = 16, classes: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    centres = 3 * torch.randn(classes, components, generator=generator)
    return centres[labels] + torch.randn(n, components, generator=generator), labels


def pictures(labels: Tensor, channels: int = 1) -> LabelledImages:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(len(labels), channels, 12, 12, generator=generator)
    return LabelledImages("noise", images, labels, tuple("abcdefghij"[: int(labels.max()) + 1]))


def assert_groups_are_seen(points: np.ndarray, labels: Tensor) -> None:
    _, near = knn(torch.from_numpy(points), 1)
    assert (labels[near[:, 0]] == labels).float().mean() > 0.95


@pytest.mark.parametrize("name", DISTANCES)
def test_maps_remember_the_distances_neighbours_and_scores(name: str) -> None:
    x, labels = groups()
    components = torch.diag(torch.linspace(0.5, 2, 16)) if "mahalanobis" in name else None
    distance = get_distance(name, components=components)
    one = tsne(x, labels, distance, perplexity=10, k=5)
    d = distance(x).fill_diagonal_(torch.inf)
    assert np.allclose(one.distances, d.topk(5, largest=False).values, rtol=1e-4, atol=1e-5)
    assert (one.hits == (labels[one.neighbours] == labels[:, None]).numpy()).all()
    assert one.precision_at_1 == pytest.approx((labels[d.argmin(dim=1)] == labels).float().mean().item())
    assert one.points.shape == (120, 2)
    assert np.isfinite(one.points).all()
    measured = trustworthiness(distance(x).numpy(), one.points, n_neighbors=5, metric="precomputed")
    assert one.trustworthiness == pytest.approx(measured)
    assert_groups_are_seen(one.points, labels)
    noise = torch.randn(120, 64, generator=torch.Generator().manual_seed(2))
    assert tsne(noise, labels, perplexity=10).trustworthiness < one.trustworthiness


def test_maps_show_the_mapped_space_or_both_anchors() -> None:
    x, labels = groups()
    snr, centred = (tsne(x, labels, get_distance(name), perplexity=10) for name in ("snr", "centred_euclidean"))
    assert np.array_equal(snr.points, centred.points)
    assert "P x" in snr.facts
    assert "anchor = query" in snr.scores
    d = get_distance("snr")(x)
    expected = ((d + d.T) / 2).fill_diagonal_(torch.inf).topk(7, largest=False)
    near, far = _symmetrised(x, get_distance("snr", anchor="ref"), 7)
    assert np.allclose(far, expected.values.sqrt(), rtol=1e-4)
    assert (near == expected.indices).double().mean() > 0.99
    one = tsne(x, labels, get_distance("snr"), perplexity=10, space="symmetrised")
    assert "both anchor sides" in one.facts
    assert not np.array_equal(one.points, snr.points)


def test_maps_repeat_are_kept_and_damaged_ones_remade(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    x, labels = groups()
    found = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        monkeypatch.setenv("SNR_CACHE", str(tmp_path / folder))  # nothing to remember
        found.append(tsne(x, labels, perplexity=10, start="random", seed=seed).points)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    (kept,) = (tmp_path / "c").glob("tsne-*.npz")
    again = partial(tsne, x, labels, perplexity=10, start="random", seed=1)
    np.savez(kept, array=found[2] + 1)
    assert np.array_equal(again().points, found[2] + 1), "it was read"
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.warns(UserWarning, match="is damaged"):
        assert np.array_equal(again().points, found[2])


def test_open_tsne_keeps_the_same_neighbours_together() -> None:
    x, labels = groups()
    one = tsne(x, labels, get_distance("snr"), perplexity=10, engine="openTSNE")
    assert_groups_are_seen(one.points, labels)
    assert one.trustworthiness > 0.9


@pytest.mark.parametrize("n", [5, 8, 40, 91, 92])
def test_few_embeddings_get_the_map_they_allow(n: int) -> None:
    x, labels = groups(n, classes=2)
    found = tsne(x, labels)
    assert found.points.shape == (n, 2)
    assert found.perplexity == (30 if n == 92 else (n - 2) // 3)
    assert found.neighbours.shape[1] == min(10, (n - 1) // 2)
    assert 0 < found.trustworthiness <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"perplexity": 40}, "perplexity 40 needs more than 122 embeddings, got 120"),
        ({"perplexity": 0.5}, "perplexity must be a finite number at least 1"),
        ({"space": "other"}, "space must be one of mapped, symmetrised"),
        ({"start": "spectral"}, "start must be one of pca, random"),
        ({"engine": "umap"}, "engine must be one of auto, sklearn, openTSNE"),
        ({"k": 120}, "k must be an integer from 1 to 119"),
    ],
)
def test_options_outside_their_range_are_refused(change: dict, message: str) -> None:
    x, labels = groups()
    with pytest.raises(ValueError, match=message):
        tsne(x, labels, **change)


def test_the_inspector_is_one_file_saved_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = groups()
    maps = [tsne(x, labels, get_distance(name), perplexity=10, title=f"<{name}>") for name in ("euclidean", "snr")]
    page = inspect(maps, pictures(labels), ["train", "test"] * 60, title="</script> & co", save=tmp_path / "a.html")
    assert not re.search("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-", page.html), "no random names: same maps, same bytes"
    assert isinstance(page, ExplorePage)
    html = (tmp_path / "a.html").read_text()
    assert html == page.html
    assert "</script> & co" not in html
    assert "&lt;snr&gt;" in html
    assert "default-src 'none'" in html
    assert 'srcdoc="&lt;!DOCTYPE html&gt;' in page._repr_html_()
    assert "2 maps of 120 images" in repr(page)
    with pytest.raises(ValueError, match=r"saved as \.html"):
        page.save(tmp_path / "a.txt")
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        page.save(tmp_path / "a.html")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    assert (tmp_path / "a.html").read_text() == html, "whole or not at all"


def test_maps_and_images_apart_are_refused() -> None:
    x, labels = groups()
    one, images = tsne(x, labels, perplexity=10), pictures(labels)
    wrong: list[tuple[tuple, dict, str]] = [
        (([], images), {}, "1 to 8 of them, got 0"),
        (([x], images), {}, r"what snrlib\.explore\.tsne returns"),
        (([one], pictures(labels[:60])), {}, "of the 60 images given, got maps of 120 points"),
        (([one], images, ["train", "test"]), {}, "a word for each of the 120 images, got 2"),
        (([one], images), {"thumbnail": 8}, "16 to 128 pixels, got 8"),
    ]
    for given, options, message in wrong:
        with pytest.raises((TypeError, ValueError), match=message):
            inspect(*given, **options)


@pytest.mark.parametrize(("channels", "kind", "tolerance"), [(1, "L", 0.003), (3, "RGB", 0.2)])
def test_thumbnails_are_the_images(channels: int, kind: str, tolerance: float) -> None:
    images = pictures(torch.arange(3), channels)
    for index, address in enumerate(thumbnails(images, 24)):
        head, _, text = address.partition(",")
        assert head == "data:image/webp;base64"
        small = Image.open(io.BytesIO(base64.b64decode(text))).convert(kind)
        assert small.size == (24, 24)
        expected = images.images[index].permute(1, 2, 0).numpy().squeeze().repeat(2, 0).repeat(2, 1)
        assert np.abs(np.asarray(small) / 255 - expected).mean() < tolerance


def test_the_static_twin_shows_every_map_and_score() -> None:
    x, labels = groups()
    maps = [tsne(x, labels, get_distance(name), perplexity=10) for name in ("euclidean", "snr")]
    for wrong in (False, True):
        figure = map_figure(maps, labels, chosen=[3], wrong=wrong)
        assert [axis.get_title(loc="left") or axis.get_title() for axis in figure.axes] == [one.title for one in maps]
        for axis, one in zip(figure.axes, maps, strict=True):
            assert f"R@1 {one.precision_at_1:.3f}" in axis.get_xlabel()
            assert sum(len(np.asarray(drawn.get_offsets())) for drawn in axis.collections) == 121


def test_each_class_has_a_picture_in_its_middle() -> None:
    x, labels = groups()
    one = tsne(x, labels, get_distance("euclidean"), perplexity=10)
    brightness = torch.linspace(0, 1, len(labels))[:, None, None, None].expand(-1, 1, 8, 8)
    (axis,) = map_figure([one], labels, pictures=brightness).axes
    boxes = [box for box in axis.artists if isinstance(box, AnnotationBbox)]
    assert len(boxes) == len(labels.unique())
    for c, box in zip(labels.unique(), boxes, strict=True):
        own = np.flatnonzero(labels == c)
        (middle,) = [row for row in own if tuple(one.points[row]) == tuple(box.xy)]
        to_all = [np.linalg.norm(one.points[own] - one.points[row], axis=1).sum() for row in own]
        assert own[np.argmin(to_all)] == middle
        assert isinstance(box.offsetbox, OffsetImage)
        assert np.allclose(np.asarray(box.offsetbox.get_data()), 1 - brightness[middle, 0]), "dark ink on white"


def test_the_playgrounds_figure_and_words_are_true() -> None:
    titles = [axis.get_title(loc="left") or axis.get_title() for axis in playground_figure().axes]
    assert titles[1].endswith("= 0.401")
    assert "at the SNR distance 0.401" in FIGURE_ALT
    longest = []
    plane = torch.tensor([[1.0, -1, 0], [1, 1, -2]], dtype=torch.float64) / torch.tensor([[2.0], [6]]).sqrt()
    for name, title in zip(("contrastive", "triplet", "n_pair", "lifted"), titles[2:], strict=True):
        x = (torch.tensor(_start()["points"], dtype=torch.float64) @ plane).requires_grad_()
        options = {} if name == "n_pair" else {"margin": 1.0}
        value = get_loss(name, get_distance("snr"), **options)(x, torch.tensor([0, 0, 1, 1]))
        (gradient,) = torch.autograd.grad(value, x)
        assert title.startswith(f"{name}: {value.item():.3f}")
        longest.append(("a", "p", "n₁", "n₂")[int(gradient.norm(dim=1).argmax())])
    assert longest == ["a", "n₁", "n₂", "n₁"]
    assert "the longest step is a's with contrastive, n₂'s with N-pair, n₁'s with triplet and lifted loss" in FIGURE_ALT


def test_the_stored_embeddings_are_those_of_the_characters() -> None:
    stored = stored_embeddings()
    assert tuple(stored.embeddings) == SPACES
    assert all(x.shape == (len(stored.images), 64) for x in stored.embeddings.values())
    found = retrieval(stored.embeddings["snr"], stored.images.labels, stored.distances["snr"])
    assert found.precision_at_1.mean() > 10 / len(stored.images.classes), (
        "far above chance, so that the labels are theirs"
    )


def test_damage_of_the_stored_embeddings_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snrlib.study.stored.read_about", lambda name: {"images": 640})
    with pytest.raises(
        ValueError, match=r"embeddings\.json is damaged: KeyError: 'characters'; `snr measure embeddings`"
    ):
        stored_embeddings()


def test_a_runs_embeddings_images_and_distance_are_read(tmp_path: Path) -> None:
    done = experiment(small(distance="mahalanobis", seed=3))
    done.save(tmp_path / "one")
    (tmp_path / "one" / "result.json").write_text(json.dumps({"experiment": done.row()}))
    found, name = run_embeddings([tmp_path / "one"]), str(tmp_path / "one")
    assert torch.equal(found.embeddings[name], done.embeddings)
    assert torch.equal(found.images.labels, done.test.labels)
    assert torch.allclose(found.distances[name](done.embeddings), done.distance(done.embeddings), rtol=1e-4, atol=1e-4)
    assert found.titles == {name: "conv4, triplet, mahalanobis, seed 3"}
    for folder, margin in (("a/run", 0.5), ("b/run", 0.5), ("c/run", 0.25)):
        shutil.copytree(tmp_path / "one", tmp_path / folder)
        row = json.loads((tmp_path / folder / "result.json").read_text())
        row["experiment"]["settings"] |= {"margin": margin, "root": f"/home/{folder}", "weights": f"/home/{margin}.pt"}
        (tmp_path / folder / "result.json").write_text(json.dumps(row))
    several = run_embeddings([tmp_path / folder / "run" for folder in "abca"])
    usual, near = "conv4, triplet, mahalanobis, seed 3, weights", "0.5.pt, margin 0.5"
    expected = [f"{usual} {near}, a/run", f"{usual} {near}, b/run", f"{usual} 0.25.pt, margin 0.25"]
    assert list(several.titles.values()) == expected, "no path but its end"
    other: dict[str, Any] = {
        "embeddings": done.embeddings[:9],
        "labels": done.test.labels[:9].flip(0),
        "classes": np.array(done.test.classes),
        "components": np.eye(8),
    }
    np.savez(tmp_path / "one" / "embeddings.npz", **other)
    with pytest.raises(ValueError, match="other images than digits, test"):
        run_embeddings([tmp_path / "one"])


def test_a_page_replaces_no_file_but_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, folder = tmp_path / "mine.html", tmp_path / "folder.html"
    mine.write_text("<h1>My own</h1>")
    folder.mkdir()
    for command in ("inspect", "playground"):
        for place, message in ((mine, "is no page of this study"), (folder, "is no page of this study")):
            assert main([command, "-o", str(place)]) == 2
            assert message in capsys.readouterr().err
        assert main([command, "gone"] if command == "inspect" else [command, "-o", "x.txt"]) == 2
    assert main(["inspect", "-o", "x.txt"]) == 2
    assert "a page is saved as .html, got 'x.txt'" in capsys.readouterr().err, "before any map is made"
    assert mine.read_text() == "<h1>My own</h1>"
    for _ in range(2):
        assert main(["playground", "-o", str(tmp_path / "own.html")]) == 0, "and replaces its own"


def test_a_folder_without_a_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run of notebook 07"):
        run_embeddings([tmp_path])
    with pytest.raises(ValueError, match="at least one folder"):
        run_embeddings([])
    assert main(["inspect", str(tmp_path), "-o", str(tmp_path / "a.html")]) == 2
    assert "holds no run of notebook 07" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_commands_write_their_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snrlib.explore.maps.TSNE", partial(TSNE, max_iter=250))  # how good the maps are is not asked,
    monkeypatch.setattr("snrlib.explore.maps.cached_array", lambda *given, **_: given[3]())  # and none is kept
    for command in ("inspect", "playground"):
        assert main([command, "-o", str(tmp_path / f"{command}.html")]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / f"{command}.html")
        assert (tmp_path / f"{command}.html").read_text().startswith("<!DOCTYPE html>")
