"""The inspector in a real browser: what is shown under the pointer, chosen on every map, listed, hidden and counted."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from browser_cases import Visit, wait_until
from explore_cases import kept_open

from snrlib.data import LabelledImages
from snrlib.distances import get_distance
from snrlib.explore import Items, Map, inspect, tsne

pytestmark = pytest.mark.browser

N, CLASSES = 150, 5
LOUD = "</script><b>loud</b>"
SIZES = np.random.default_rng(0).normal(size=N)


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    pixels = torch.rand(N, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    factors = pd.DataFrame({"size": SIZES, LOUD: ["left", "right", "<i>up</i>"] * 50})
    factors.loc[3, "size"] = np.nan
    return LabelledImages("noise", pixels, torch.arange(N) % CLASSES, ("a", "b", "B<i><!--<script>", "Ж", ""), factors)


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


DRAWN = "performance.getEntriesByName('drawn').length > 0"


@pytest.fixture(scope="module")
def opened(browser: Any, path: Path) -> Iterator[Any]:
    with kept_open(browser, path) as page:
        wait_until(page, DRAWN)
        yield page


@pytest.fixture
def page(opened: Any) -> Any:
    """As it begins."""
    opened.mouse.move(0, 0)
    opened.set_viewport_size({"width": 1440, "height": 1000})
    opened.evaluate(
        "() => { location.hash = `at=${performance.now()}`; document.activeElement.blur(); scrollTo(0, 0); }"
    )
    opened.wait_for_timeout(300)
    return opened


def _place(page: Any, m: int, row: int) -> tuple[float, float]:
    """Where an image's dot is on the screen."""
    x, y = page.evaluate("([m, row]) => inspector.place(m, row)", [m, row])
    return x, y


def _chosen(page: Any) -> list[int]:
    return page.evaluate("inspector.shared.chosen")


def _colours(page: Any, m: int) -> list[list[str]]:
    """Colour and mark of every image on a map."""
    return page.evaluate("m => Array.from(inspector.views[m].look.codes, (c) => inspector.views[m].look.palette[c])", m)


def _pixel(page: Any, m: int, row: int) -> list[int]:
    """Red, green and blue in the middle of a dot."""
    return page.evaluate(
        """([m, row]) => {
            const view = inspector.views[m], [x, y] = view.toScreen(row);
            const pen = view.dots.getContext("2d");
            const at = [x, y].map((value) => Math.round(value * view.ratio));
            return Array.from(pen.getImageData(...at, 1, 1).data).slice(0, 3);
        }""",
        [m, row],
    )


def _lonely(one: Map) -> int:
    """The image whose dot is farthest from all others."""
    gaps = np.linalg.norm(one.points[:, None] - one.points[None], axis=2) + np.diag(np.full(N, np.inf))
    return int(gaps.min(axis=1).argmax())


def test_the_pointer_shows_and_a_click_chooses(page: Any, maps: list[Map], images: LabelledImages) -> None:
    row = _lonely(maps[1])
    page.mouse.move(*_place(page, 1, row))
    tip = page.locator("#tip")
    tip.wait_for()
    assert tip.locator("img").evaluate("image => image.complete && image.naturalWidth") > 0
    text = tip.inner_text()
    assert (images.classes[int(images.labels[row])] or "(no name)") in text
    assert f"{maps[1].distances[row, 0]:.4f}" in text
    assert ("✓" if maps[1].hits[row, 0] else "✗") in text
    assert f"{LOUD}: {images.factors[LOUD][row]}" in text
    assert "split: " + ("train" if row < 100 else "test") in text
    page.mouse.click(*_place(page, 1, row))
    assert _chosen(page) == [row]
    lists = page.locator("#lists ul").all()
    for m, (shown_list, one) in enumerate(zip(lists, maps, strict=True)):
        cards = shown_list.locator("button").all()
        for j, (card, near) in enumerate(zip(cards, one.neighbours[row].tolist(), strict=True)):
            verdict = "right" if one.hits[row, j] else "wrong"
            name = images.classes[int(images.labels[near])] or "(no name)"
            assert card.get_attribute("aria-label") == f"image {near}, class {name}, {verdict}"
            assert card.inner_text().startswith("✓" if one.hits[row, j] else "✗")
            assert float(card.inner_text().split()[-1]) == pytest.approx(float(one.distances[row, j]), rel=6e-3)
            assert card.locator("img").evaluate("image => image.naturalWidth") > 0
        drawn = page.evaluate(f"inspector.views[{m}].links.map((link) => [link.from, link.to, link.right])")
        assert drawn == [
            [row, *pair] for pair in zip(one.neighbours[row].tolist(), one.hits[row].tolist(), strict=True)
        ]
    page.keyboard.press("Escape")
    assert _chosen(page) == []
    assert not tip.is_visible()


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
        assert sorted(set(images.labels[_chosen(page)].tolist())) == wanted
        assert len(_chosen(page)) == 30 * len(wanted)
    assert page.locator("#legend i, #tip b b, #controls i").count() == 0
    assert "(no name)" in page.locator("#legend").inner_text()


def test_looks_follow_columns_numbers_and_errors(page: Any, maps: list[Map], images: LabelledImages) -> None:
    groups = {
        "class": images.labels.tolist(),
        LOUD: images.factors[LOUD].tolist(),
        "split": [r < 100 for r in range(N)],
    }
    for by, group in groups.items():
        page.locator("#colour").select_option(label=by)
        looks = list(map(tuple, _colours(page, 0)))
        assert len(set(zip(looks, group, strict=True))) == len(set(group)) == len(set(looks))
        assert page.locator("#legend button").count() == len(set(group))
    page.locator("#colour").select_option("wrong")
    for m, one in enumerate(maps):
        judged = [look[:2] for look in _colours(page, m)]
        assert judged == [["#3f90da", "circle"] if hit else ["#bd1f01", "star"] for hit in one.hits[:, 0]]
    row = _lonely(maps[0])
    page.wait_for_timeout(100)
    assert _pixel(page, 0, row) == ([0x3F, 0x90, 0xDA] if maps[0].hits[row, 0] else [0xBD, 0x1F, 0x01]), "it is drawn"
    page.locator("#colour").select_option(label="size")
    codes = np.array(page.evaluate("Array.from(inspector.views[0].look.codes)"))
    known = np.arange(N) != 3
    assert codes[3] > codes[known].max(), "no number is grey"
    order = np.argsort(images.factors["size"].to_numpy()[known])
    assert (np.diff(codes[known][order]) >= 0).all()
    assert "no number: 1" in page.locator("#legend").inner_text()


def test_the_legend_hides_shows_and_isolates(page: Any, images: LabelledImages, maps: list[Map]) -> None:
    def shown() -> set[int]:
        mask = np.array(page.evaluate("Array.from(inspector.shared.shown)"), dtype=bool)
        classes = set(images.labels[mask].tolist())
        assert mask.sum() == 30 * len(classes)
        return classes

    buttons = page.locator("#legend button")
    buttons.nth(1).click()
    assert shown() == {0, 2, 3, 4}
    assert buttons.nth(1).get_attribute("aria-pressed") == "false"
    page.wait_for_timeout(100)
    row = next(r for r in range(N) if (images.labels[r] == 1 and r == _lonely(maps[0])) or images.labels[r] == 1)
    page.mouse.click(*_place(page, 0, row))
    assert row not in _chosen(page), "what is hidden is not there for the pointer"
    buttons.nth(3).dblclick()
    assert shown() == {3}
    page.locator("#all").click()
    assert shown() == {0, 1, 2, 3, 4}
    buttons.nth(0).focus()
    page.keyboard.press("Shift+Enter")
    assert shown() == {0}


def test_the_address_holds_the_whole_view(visit: Visit, page: Any, path: Path) -> None:
    page.locator("#colour").select_option(label=LOUD)
    page.locator("#legend button").nth(2).click()
    page.locator("#standing button").nth(1).click()
    page.evaluate("inspector.select([3, 10, 11, 12])")
    page.locator("[data-do=in]").first.click()
    state = """() => ({...Object.fromEntries(["chosen", "hidden"].map((key) => [key, [...inspector.shared[key]]])),
      colour: document.getElementById("colour").value, view: inspector.views[0].view.zoom,
      standing: [...document.querySelectorAll("#maps > section")].map((one) => one.hidden)})"""
    wanted = page.evaluate(state)
    assert wanted["chosen"] == [3, 10, 11, 12]
    assert wanted["hidden"] == [2]
    assert wanted["standing"] == [False, True, False]
    page.wait_for_timeout(400)
    asked = page.evaluate("location.hash")
    assert "chosen=3,10-12" in asked
    other = visit(f"{path.resolve().as_uri()}{asked}")
    wait_until(other, DRAWN)
    assert other.evaluate(state) == wanted
    for odd in ("chosen=-1,1e9,x,7&maps=99&colour=__proto__&view0=a,b,c&hidden=5-", "%", "chosen=0-99999999999"):
        wait_until(visit(f"{path.resolve().as_uri()}#{odd}"), DRAWN)


def test_a_name_stands_on_a_cluster_alone(visit: Visit, tmp_path: Path, page: Any, maps: list[Map]) -> None:
    taken = "m => inspector.views[m].taken.map(([x, y, half, name]) => [x, y, half, name])"
    assert [page.evaluate(taken, m) for m in range(3)] == [[], [], []], "these classes lie over each other"
    page.locator("#legend button").nth(3).hover()
    page.wait_for_timeout(400)
    for m, one in enumerate(maps):
        ((x, y, _, name),) = page.evaluate(taken, m)
        assert name == "Ж"
        middle = np.sort(one.points[3::5], axis=0)[14]  # of 30, the lower median
        assert page.evaluate(f"(at) => inspector.views[{m}].toMap(...at)", [x, y]) == pytest.approx(
            middle.tolist(), abs=1e-3
        )
    classes = torch.arange(N) % 50  # on a line, too close for every name
    tight = replace(maps[0], points=np.stack([classes.numpy(), np.zeros(N)], axis=1).astype(np.float32))
    names = tuple(f"{c} " + 40 * "long" for c in range(50))
    opened = visit(inspect([tight], Items("line", classes, names)).save(tmp_path / "line.html"))
    wait_until(opened, DRAWN)
    found = opened.evaluate(taken, 0)
    assert 1 < len(found) < 50
    for i, (x, _, half, name) in enumerate(found):
        assert len(name) <= 24
        assert all(abs(x - u) >= half + h for u, _, h, _ in found[:i]), "none covers another"


def test_pictures_replace_dots_once_zoomed_in(page: Any, maps: list[Map]) -> None:
    assert page.evaluate("inspector.views.some((view) => view.pictured)") is False
    page.evaluate("inspector.views[0].zoom(6, 200, 200)")
    page.wait_for_timeout(400)
    seen = page.evaluate("inspector.views[0].inView")
    box = page.locator(".stage").first.bounding_box()
    places = np.array([_place(page, 0, row) for row in range(N)]) - [box["x"], box["y"]]
    expected = ((places >= 0) & (places < [box["width"], box["height"]])).all(axis=1)
    assert seen == np.flatnonzero(expected).tolist()
    assert page.evaluate("inspector.views[0].pictured") is (len(seen) > 0)
    whole = page.locator("[data-do=whole]").first
    whole.click()
    assert page.evaluate("inspector.views[0].view.zoom") == 1


def test_the_keyboard_reaches_controls_and_walks(page: Any, maps: list[Map]) -> None:
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"colour", "class", "image", "before", "after", "judge", "error", "none", "drag", "stage"} <= reached
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
    stage = page.locator(".stage").first
    left = int(maps[0].points[:, 0].argmin())
    chosen_by("#image", str(left))
    stage.focus()
    page.keyboard.press("ArrowRight")
    (row,) = _chosen(page)
    assert maps[0].points[row, 0] > maps[0].points[left, 0]
    page.keyboard.press("+")
    assert page.evaluate("inspector.views[0].view.zoom") == 1.5
    page.keyboard.press("0")
    assert page.evaluate("inspector.views[0].view.zoom") == 1
    assert chosen_by("#none") == []
    assert page.locator("#said").inner_text() == "No image is chosen."


def test_a_finger_scrolls_taps_and_draws_a_lasso(visit: Visit, path: Path, maps: list[Map]) -> None:
    page = visit(path, width=375, height=1000, finger=True)
    wait_until(page, DRAWN)
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
    assert _chosen(page) == [row]
    page.locator("#help summary").tap()
    assert "pick it" in page.locator("#help").inner_text()
    page.locator("#tools > summary").tap()
    page.locator("#drag").select_option("lasso")
    page.locator("#tools > summary").tap()
    page.locator(".stage").first.scroll_into_view_if_needed()
    page.evaluate("inspector.select([])")
    scrolled = page.evaluate("scrollY")
    x, y = _place(page, 0, row)
    swipe([(x + 30 * u, y + 30 * v) for u, v in ((-1, -1), (0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0))])
    assert row in _chosen(page)
    assert page.evaluate("scrollY") == scrolled


@pytest.mark.parametrize("width", [1920, 1440, 768, 375])
def test_nothing_is_cut_off_or_left_unsaid(page: Any, maps: list[Map], width: int) -> None:
    page.evaluate("inspector.select([3])")
    page.set_viewport_size({"width": width, "height": 1000})
    page.wait_for_timeout(300)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    area = 0.0
    for section, one in zip(page.locator("#maps section").all(), maps, strict=True):
        box, stage = section.bounding_box(), section.locator(".stage").bounding_box()
        assert box["x"] >= 0
        assert 250 < box["width"] <= width - box["x"]
        area += stage["width"] * stage["height"]
        text = re.sub(r"\s+", " ", section.inner_text())
        assert f"R@1 {one.precision_at_1:.3f} under {one.distance}" in text
        assert one.facts in text
    assert page.locator("#lists button").first.is_visible()
    if width >= 1440:
        assert area > 0.5 * width * 1000, "maps fill a wide screen"
        assert page.evaluate("document.scrollingElement.scrollHeight") <= 1000
        stages = page.locator(".stage").all()
        sizes = [stage.bounding_box()["width"] for stage in stages]
        assert sizes[0] > 1.4 * sizes[1], "one large, beside it the others"
        page.locator("[data-do=alone]").nth(2).click()
        assert stages[2].bounding_box()["width"] == sizes[0], "the small one has become large"
        page.locator("[data-do=alone]").nth(2).click()
        alone = page.locator(".stage:visible").bounding_box()
        assert alone["width"] * alone["height"] > 0.5 * width * 1000
        page.locator("[data-do=alone]:visible").click()
        assert page.locator(".stage:visible").count() == 3


def test_it_works_in_a_notebooks_frame(visit: Visit, tmp_path: Path, maps: list[Map]) -> None:
    points = Items("words", torch.arange(N) % CLASSES, ("א ב", "b", "c", "d", "e" * 400))
    around = tmp_path / "notebook.html"
    around.write_text(
        f"<!DOCTYPE html><title>A notebook</title>{inspect(maps, points)._repr_html_()}", encoding="utf-8"
    )
    page = visit(around)
    frame = page.frames[1]
    wait_until(frame, DRAWN)
    frame.evaluate("inspector.select([5])")
    assert frame.locator("#said").inner_text().startswith("א ב, point 5")
    assert frame.locator("#lists button").count() == 18
    assert frame.locator("img").count() == 0, "points without images are words"
    page.wait_for_timeout(400)
    assert page.evaluate("location.hash") == ""


@pytest.mark.slow
@pytest.mark.parametrize("n", [5000, 100_000])
def test_thousands_of_images_fit_and_paint_soon(repository: Path, visit: Visit, tmp_path: Path, n: int) -> None:
    """Points and pictures of the size at issue; `benchmarks/inspector.py` measures the rest."""
    rng = np.random.default_rng(0)
    labels = torch.arange(n) * 40 // n
    near = rng.integers(0, n, size=(n, 10))
    far = np.sort(rng.random((n, 10)).astype(np.float32))
    points, hits = rng.normal(size=(n, 2)).astype(np.float32), labels.numpy()[near] == labels.numpy()[:, None]
    one = Map(points, near, far, hits, "Euclid", "x", 0.5, 0.5, perplexity=30.0, start="PCA", title="many")
    glyphs = rng.integers(0, 255, size=(n, 8, 8, 3), dtype=np.uint8)
    page = inspect([one, one, one], Items("noise", labels, tuple(map(str, range(40))), images=glyphs))
    path = page.save(tmp_path / "many.html")
    assert path.stat().st_size <= 62 * 2**20
    assert any("do not fit" in note for note in page.notes) is (n > 5000)
    opened = visit(path)
    wait_until(opened, DRAWN, seconds=60)
    drawn = opened.evaluate("performance.getEntriesByName('drawn')[0].startTime")
    print(f"{n} points: {path.stat().st_size / 2**20:.1f} MiB, drawn after {drawn:.0f} ms")
    opened.locator("#class").fill("7")
    opened.locator("#class").press("Enter")
    assert len(_chosen(opened)) == n // 40
    assert drawn < 30_000, "a bound for a busy machine; the number itself is printed"


def test_dark_pages_print_whole_maps_on_white(visit: Visit, path: Path, maps: list[Map]) -> None:
    page = visit(path)
    wait_until(page, DRAWN)
    page.emulate_media(color_scheme="dark")
    page.evaluate("inspector.select([7])")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for m in range(len(maps)):
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        drawn = page.evaluate(
            """m => { const dots = inspector.views[m].dots, pen = dots.getContext("2d");
                const { data } = pen.getImageData(0, 0, dots.width, dots.height);
                return [dots.width / dots.height, data.filter((value, k) => k % 4 === 3 && value > 0).length]; }""",
            m,
        )
        assert drawn[0] == pytest.approx(1, abs=0.01)
        assert drawn[1] > 20 * N
    page.emulate_media(media="print", color_scheme="dark")
    for hidden in ("#tools", "#maps header button", "#all", "canvas + canvas"):
        assert not page.locator(hidden).first.is_visible()
    assert page.locator("#legend button").last.is_visible()
    assert page.evaluate(
        "[...document.querySelectorAll('#panel, #legend, #key')].every("
        "(one) => one.scrollHeight <= one.clientHeight + 1)"
    )
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert page.locator("canvas + canvas").first.is_visible()
