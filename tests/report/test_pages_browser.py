"""The page to read and share in a real browser, opened from disk: on a phone, on a wide screen, with the keyboard."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import Visit

from snrlib.notebooks.find import notebooks
from snrlib.report import index as report

pytestmark = pytest.mark.browser
WIDTHS = (375, 1440)
NAMES = [*(path.stem for path in notebooks()), "index"]
each_page = pytest.mark.parametrize("name", NAMES)
each_width = pytest.mark.parametrize("width", WIDTHS)
ACTIVE = "document.activeElement"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The report from the stored notebooks, without any run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNR_RUNS", str(tmp_path_factory.mktemp("study")))
        yield report.build().parent


def _found(page: Any, selector: str, wrong: str) -> list[str]:
    """The beginning of each visible element of which the JavaScript condition holds."""
    return page.locator(selector).evaluate_all(
        f"all => all.filter(e => e.checkVisibility() && ({wrong})).map(e => e.outerHTML.slice(0, 150))"
    )


@each_width
@each_page
def test_a_page_fits_its_window_and_all_of_it_is_seen(folder: Path, visit: Visit, name: str, width: int) -> None:
    page = visit(folder / f"{name}.html", width)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert not _found(page, "img", "!e.complete || e.naturalWidth < 100 || e.alt.split(' ').length < 5")
    assert not _found(page, "img", "e.width < .6 * e.naturalWidth"), "too small to be read"
    assert not _found(page, "pre.result:not(.columns)", "e.scrollWidth > e.clientWidth"), "words are cut off"
    assert not _found(page, "math", "e.getBoundingClientRect().width < 2 || e.getBoundingClientRect().height < 6")
    outside = "(e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)"
    alone = "!e.closest('.scroll, pre, figure, .formula, .long, .skip')"  # which scroll by themselves
    assert not _found(page, "body *", f"{outside} && {alone}")


@each_page
def test_the_outline_begins_with_the_one_h1_and_skips_no_level(folder: Path, visit: Visit, name: str) -> None:
    page = visit(folder / f"{name}.html")
    levels = page.locator("h1, h2, h3, h4, h5, h6").evaluate_all("all => all.map(e => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels


@each_page
def test_the_first_tab_reaches_the_link_to_the_text_and_it_leads_there(folder: Path, visit: Visit, name: str) -> None:
    page = visit(folder / f"{name}.html")
    assert page.locator(".skip").evaluate("e => e.getBoundingClientRect().right") < 0, "out of sight until it is needed"
    page.keyboard.press("Tab")
    assert page.evaluate(f"{ACTIVE}.className") == "skip"
    box = page.locator(".skip").bounding_box()
    assert box["x"] >= 0
    assert box["y"] >= 0
    page.keyboard.press("Enter")
    page.wait_for_url("**/*#text")
    page.keyboard.press("Tab")
    assert page.evaluate(f"document.querySelector('main').contains({ACTIVE})"), "past the navigation"


@each_page
def test_what_is_folded_opens_and_closes_with_the_keyboard(folder: Path, visit: Visit, name: str) -> None:
    page = visit(folder / f"{name}.html", 375)
    folds = page.locator("details:not([open]) > summary")
    assert folds.count() > 0
    for summary in [folds.first, folds.last]:
        fold = summary.locator("xpath=..").element_handle()
        summary.focus()
        assert page.evaluate(f"getComputedStyle({ACTIVE}).outlineStyle") == "solid", "where the reader is, is seen"
        for key, is_open in (("Enter", True), ("Space", False), ("Enter", True)):
            page.keyboard.press(key)
            assert fold.evaluate("e => e.open") is is_open
    page.locator("details").evaluate_all("all => all.forEach(e => e.open = true)")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 375, "with everything open"


@each_width
def test_next_and_previous_lead_through_all_notebooks_and_back(folder: Path, visit: Visit, width: int) -> None:
    page = visit(folder / "index.html", width)
    stems = [path.stem for path in notebooks()]
    for foot, rel, expected in ((False, "next", stems), (True, "prev", stems[-2::-1])):
        for stem in expected:
            links = page.locator(f"a[rel={rel}]")
            (links.last if foot else links.first).click()
            page.wait_for_url(f"**/{stem}.html")
    page.locator("footer a", has_text="Index").click()
    page.wait_for_url("**/index.html")


@pytest.mark.slow
def test_every_link_between_pages_opens_what_it_names_by_a_click(folder: Path, visit: Visit) -> None:
    page = visit(folder / "index.html")
    for number in range(page.locator("main table a").count()):
        link = page.locator("main table a").nth(number)
        label = link.inner_text()
        link.click()
        page.wait_for_load_state()
        assert page.title().startswith(label), "the page begins with its number and name"
        page.go_back()
    for name in NAMES:
        page.goto((folder / f"{name}.html").as_uri())
        inside = page.locator("main a[href*='#']:not([href^='http'])")
        targets = inside.evaluate_all("all => all.filter(e => e.checkVisibility()).map(e => e.getAttribute('href'))")
        for target in sorted(set(targets)):
            page.locator(f'main a[href="{target}"]').first.click()
            page.wait_for_load_state()
            page.wait_for_function(  # else the link named an anchor that is not there
                "() => { const e = document.querySelector(':target');"
                " return e && Math.abs(e.getBoundingClientRect().top) < innerHeight; }",
                timeout=10_000,
            )
            page.goto((folder / f"{name}.html").as_uri())
