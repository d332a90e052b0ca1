"""The inspector in a real browser: what is shown under the pointer, chosen on every map, listed and counted."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser_cases import Visit
from explore_cases import kept_open

from snrlib.data import LabelledImages
from snrlib.distances import get_distance
from snrlib.explore import Map, inspect, tsne

pytestmark = pytest.mark.browser

N, CLASSES = 150, 5


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    pixels = torch.rand(N, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    return LabelledImages("noise", pixels, torch.arange(N) % CLASSES, ("a", "b", "B<i><!--<script>", "Ж", "µ"))


@pytest.fixture(scope="module")
def maps(images: LabelledImages) -> list[Map]:
    generator = torch.Generator().manual_seed(0)
    centres = 0.7 * torch.randn(CLASSES, 16, generator=generator)
    x = centres[images.labels] + torch.randn(N, 16, generator=generator)
    distances = [get_distance("euclidean"), get_distance("snr"), get_distance("relative_euclidean", anchor="ref")]
    return [tsne(x, images.labels, one, perplexity=10, k=6) for one in distances]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, maps: list[Map], images: LabelledImages) -> Path:
    path = tmp_path_factory.mktemp("inspector") / "tsne.html"
    inspect(maps, images, ["train" if row < 100 else "test" for row in range(N)], save=path)
    return path


DRAWN = "window.inspector && document.querySelector('.bk-Figure')"


@pytest.fixture(scope="module")
def opened(browser: Any, path: Path) -> Iterator[Any]:
    with kept_open(browser, path) as page:
        page.wait_for_function(DRAWN)
        yield page


@pytest.fixture
def page(opened: Any) -> Any:
    """As it begins."""
    opened.mouse.move(0, 0)
    opened.set_viewport_size({"width": 1440, "height": 1000})
    opened.evaluate("() => { inspector.select([]); document.activeElement.blur(); scrollTo(0, 0); }")
    opened.wait_for_timeout(300)
    return opened


def _place(page: Any, m: int, row: int) -> tuple[float, float]:
    """Where an image's dot is on the screen."""
    x, y = page.evaluate(
        """([m, row]) => {
            const view = Bokeh.index.roots[m];
            const box = view.el.getBoundingClientRect();
            const data = inspector.source.data;
            return [box.left + view.frame.x_scale.compute(data[`x${m}`][row]),
                    box.top + view.frame.y_scale.compute(data[`y${m}`][row])];
        }""",
        [m, row],
    )
    return x, y


def _chosen(page: Any) -> list[int]:
    return sorted(page.evaluate("Array.from(inspector.source.selected.indices)"))


def _lonely(one: Map) -> int:
    """The image whose dot is farthest from all others."""
    gaps = np.linalg.norm(one.points[:, None] - one.points[None], axis=2) + np.diag(np.full(N, np.inf))
    return int(gaps.min(axis=1).argmax())


def test_the_pointer_shows_and_a_click_chooses(page: Any, maps: list[Map], images: LabelledImages) -> None:
    row = _lonely(maps[1])
    page.mouse.move(*_place(page, 1, row))
    tip = page.locator(".bk-Tooltip")
    tip.wait_for()
    assert tip.locator("img").is_visible()
    assert tip.locator("img").evaluate("image => image.complete && image.naturalWidth") > 0
    text = " ".join(tip.locator("div").all_inner_texts())  # of its shadow tree
    assert images.classes[int(images.labels[row])] in text
    assert f"{maps[1].distances[row, 0]:.4f}" in text
    assert ("✓" if maps[1].hits[row, 0] else "✗") in text
    page.mouse.click(*_place(page, 1, row))
    page.wait_for_function("inspector.source.selected.indices.length > 0")
    assert _chosen(page) == [row]
    lists = page.locator("#lists ul").all()
    for m, (shown_list, one) in enumerate(zip(lists, maps, strict=True)):
        cards = shown_list.locator("button").all()
        for j, (card, near) in enumerate(zip(cards, one.neighbours[row].tolist(), strict=True)):
            verdict = "right" if one.hits[row, j] else "wrong"
            name = images.classes[int(images.labels[near])]
            assert card.get_attribute("aria-label") == f"image {near}, class {name}, {verdict}"
            assert card.inner_text().startswith("✓" if one.hits[row, j] else "✗")
            assert float(card.inner_text().split()[-1]) == pytest.approx(float(one.distances[row, j]), rel=6e-3)
            assert card.locator("img").evaluate("image => image.naturalWidth") > 0
        drawn = page.evaluate(f"Array.from(Bokeh.documents[0].get_model_by_name('links{m}').data.x1)")
        assert drawn == pytest.approx(one.points[one.neighbours[row], 0].tolist(), abs=1e-4)


def test_a_lasso_chooses_the_images_within_it(page: Any, maps: list[Map], images: LabelledImages) -> None:
    places = np.array([_place(page, 2, row) for row in range(N)])
    middle = places[images.labels.numpy() == 3].mean(axis=0)
    assert "pick it" not in page.locator("body").inner_text(), "that is for fingers"
    corners = middle + 45 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=5)
    page.mouse.up()
    page.wait_for_function("inspector.source.selected.indices.length > 0")
    found, away = _chosen(page), np.abs(places - middle)
    inside = (away < 45).all(axis=1)
    sure = inside & (np.abs(away - 45) > 2).all(axis=1)
    assert set(np.flatnonzero(sure)) <= set(found)
    assert len(set(found) ^ set(np.flatnonzero(inside))) <= int((inside & ~sure).sum()) + 2
    said = page.locator("#said").inner_text()
    assert said.startswith(f"{len(found)} images of {len(set(images.labels[found].tolist()))} class")
    for one in maps:
        assert f"{int((~one.hits[found, 0]).sum())} on {one.title}" in said


def test_a_class_is_found_and_its_name_escaped(page: Any, images: LabelledImages) -> None:
    for text, wanted in (("Ж", [3]), ("b", [1]), ("<i", [2]), ("nothing", [])):
        page.locator("#class").fill(text)
        page.locator("#class").press("Enter")
        page.wait_for_timeout(100)
        assert sorted(set(images.labels[_chosen(page)].tolist())) == wanted
        assert len(_chosen(page)) == 30 * len(wanted)
    assert page.locator("#legend i").count() == 0


def test_looks_follow_class_split_and_errors(page: Any, maps: list[Map], images: LabelledImages) -> None:

    def looks(m: int) -> list[tuple[str, str]]:
        colours, marks = page.evaluate(f"[inspector.source.data.colour{m}, inspector.source.data.mark{m}]")
        return list(zip(colours, marks, strict=True))

    for by, group in (("class", images.labels.tolist()), ("split", [row < 100 for row in range(N)])):
        page.locator("#colour").select_option(by)
        assert len(set(zip(looks(0), group, strict=True))) == len(set(group)) == len(set(looks(0)))
        assert page.locator("#legend button").count() == len(set(group))
    page.locator("#colour").select_option("wrong")
    for m, one in enumerate(maps):
        wanted = [("#3f90da", "circle") if hit else ("#bd1f01", "star") for hit in one.hits[:, 0]]
        assert looks(m) == wanted


def test_the_keyboard_reaches_controls_and_walks_errors(page: Any, maps: list[Map]) -> None:
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert {"colour", "class", "image", "before", "after", "judge", "error", "none"} <= set(reached)
    page.locator("#judge").select_option("1")
    errors = np.flatnonzero(~maps[1].hits[:, 0])[:3].tolist()

    def chosen_by(control: str, text: str | None = None) -> list[int]:
        if text is not None:
            page.locator(control).fill(text)
        page.locator(control).first.press("Enter")
        return _chosen(page)

    assert [chosen_by("#error") for _ in range(3)] == [[row] for row in errors]
    assert chosen_by("#after") == [errors[-1] + 1]
    assert chosen_by("#image", "7") == chosen_by("#image", "9999") == [7]
    assert chosen_by("#lists button") == [int(maps[0].neighbours[7, 0])]
    assert chosen_by("#none") == []
    assert page.locator("#said").inner_text() == "No image is chosen."


def test_a_finger_scrolls_taps_and_draws_a_lasso(visit: Visit, path: Path, maps: list[Map]) -> None:
    page = visit(path, width=375, height=1000, finger=True)
    page.wait_for_function(DRAWN)
    page.wait_for_timeout(300)
    device = page.context.new_cdp_session(page)

    def swipe(places: list[tuple[float, float]]) -> None:
        for step, (x, y) in enumerate(places):
            touch = {"type": "touchMove" if step else "touchStart", "touchPoints": [{"x": x, "y": y}]}
            device.send("Input.dispatchTouchEvent", touch)
        device.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_timeout(300)

    page.locator("#maps section").first.scroll_into_view_if_needed()
    scrolled = page.evaluate("scrollY")
    row = _lonely(maps[0])
    x, y = _place(page, 0, row)
    swipe([(x, y - 8 * step) for step in range(12)])
    assert page.evaluate("scrollY") > scrolled + 20
    assert _chosen(page) == []
    page.touchscreen.tap(*_place(page, 0, row))
    page.wait_for_function("inspector.source.selected.indices.length > 0")
    assert _chosen(page) == [row]

    assert "pick it above the map first" in page.locator("body").inner_text()
    page.locator("#maps section").first.locator("[title='Lasso Select']").tap()
    scrolled = page.evaluate("scrollY")
    x, y = _place(page, 0, row)
    swipe([(x + 30 * u, y + 30 * v) for u, v in ((-1, -1), (0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0))])
    assert row in _chosen(page)
    assert page.evaluate("scrollY") == scrolled


def test_nothing_is_cut_off_or_left_unsaid(page: Any, maps: list[Map]) -> None:
    page.evaluate("inspector.select([3])")
    for width in (1440, 375):
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_timeout(300)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        for section, one in zip(page.locator("#maps section").all(), maps, strict=True):
            box = section.bounding_box()
            assert box["x"] >= 0
            assert 250 < box["width"] <= width - box["x"]
            text = section.inner_text()
            assert f"R@1 {one.precision_at_1:.3f} under {one.distance}" in re.sub(r"\s+", " ", text)
            assert one.facts in text


@pytest.mark.slow
@pytest.mark.parametrize(("n", "mebibytes", "seconds"), [(5000, 10, 2), (20000, 40, 10)])
def test_thousands_of_images_fit_and_paint_soon(
    visit: Visit, tmp_path: Path, n: int, mebibytes: float, seconds: float
) -> None:
    """Points and pictures of the size at issue; how the points were found does not matter here."""
    rng = np.random.default_rng(0)
    labels = torch.arange(n) % 40
    glyphs = torch.zeros(n, 1, 48, 48)
    for glyph, (top, left, size) in zip(glyphs[:, 0], rng.integers(4, 24, size=(n, 3)).tolist(), strict=True):
        glyph[top : top + size, left] = glyph[top, left : left + size] = 1  # strokes on black, as characters have
    near = rng.integers(0, n, size=(n, 10))
    far = np.sort(rng.random((n, 10)).astype(np.float32))
    points, hits = rng.normal(size=(n, 2)).astype(np.float32), labels.numpy()[near] == labels.numpy()[:, None]
    one = Map(points, near, far, hits, "Euclid", "x", 0.5, 0.5, perplexity=30.0, start="PCA", title="many")
    images = LabelledImages("strokes", glyphs, labels, tuple(f"class {c}" for c in range(40)))
    path = tmp_path / "many.html"
    inspect([one, one, one], images, save=path)
    assert path.stat().st_size <= mebibytes * 2**20
    page = visit(path)
    page.wait_for_function("window.inspector !== undefined", timeout=60_000)
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    print(f"{n} images: {path.stat().st_size / 2**20:.1f} MiB, first paint after {painted:.0f} ms")
    page.locator("#class").fill("class 7")
    page.locator("#class").press("Enter")
    assert len(_chosen(page)) == n // 40
    assert painted / 1000 < 10 * seconds, "a bound for a busy machine; the number itself is printed"
