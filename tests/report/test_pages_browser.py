"""The page to read and share in a real browser, opened from disk: on a phone, on a wide screen, with the keyboard."""

from pathlib import Path
from typing import Any

import pytest
from browser_cases import Visit
from report_cases import stored_report

from snrlib.notebooks.find import notebooks

pytestmark = pytest.mark.browser
OUTSIDE = "(e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)"
WRONG = {  # what must not be visible, by what is looked at; some parts scroll by themselves
    "img": "!e.complete || e.naturalWidth < 100 || e.width < .6 * e.naturalWidth || e.alt.split(' ').length < 5",
    "pre.result:not(.columns)": "e.scrollWidth > e.clientWidth",
    "math": "e.getBoundingClientRect().width < 2 || e.getBoundingClientRect().height < 6",
    "body *": f"{OUTSIDE} && !e.closest('.scroll, pre, figure, .formula, .long, .skip')",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored_report(tmp_path_factory)


def _wide(page: Any) -> int:
    return page.evaluate("document.scrollingElement.scrollWidth")


@pytest.mark.parametrize("name", [*(path.stem for path in notebooks()), "index"])
def test_a_page_fits_phone_and_wide_screen(folder: Path, visit: Visit, name: str) -> None:
    page = visit(folder / f"{name}.html")
    for width in (1440, 375):
        page.set_viewport_size({"width": width, "height": 900})
        assert _wide(page) <= width
        for selector, wrong in WRONG.items():
            script = f"all => all.filter(e => e.checkVisibility() && ({wrong})).map(e => e.outerHTML.slice(0, 150))"
            assert not page.locator(selector).evaluate_all(script), f"{selector} at {width} px"


def test_a_figure_that_scrolls_says_so(folder: Path, visit: Visit) -> None:
    page = visit(folder / "00_start_here.html", 375)
    script = (
        """all => all.map(e => [e.scrollWidth > e.clientWidth, getComputedStyle(e, '::after').content != 'none'])"""
    )
    said = page.locator("figure").evaluate_all(script)
    assert [True, True] in said
    assert all(scrolls == told for scrolls, told in said)
    page.set_viewport_size({"width": 1440, "height": 900})
    assert [True, True] not in page.locator("figure").evaluate_all(script), "there is room"


@pytest.mark.parametrize("name", ["index", "00_start_here", "04_losses"])
def test_the_keyboard_reaches_text_and_opens_folds(folder: Path, visit: Visit, name: str) -> None:
    page = visit(folder / f"{name}.html", 375)
    skip = page.locator(".skip")
    assert skip.evaluate("e => e.getBoundingClientRect().right") < 0, "out of sight until it is needed"
    page.keyboard.press("Tab")
    assert skip.evaluate("e => e === document.activeElement")
    assert min(skip.bounding_box()[side] for side in "xy") >= 0
    page.keyboard.press("Enter")
    page.wait_for_url("**/*#text")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)"), "past the navigation"
    folds = page.locator("details:not([open]) > summary")
    for summary in [folds.first, folds.last]:
        fold = summary.locator("xpath=..").element_handle()
        summary.focus()
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", "one sees where one is"
        for key, is_open in (("Enter", True), ("Space", False), ("Enter", True)):
            page.keyboard.press(key)
            assert fold.evaluate("e => e.open") is is_open
    page.locator("details").evaluate_all("all => all.forEach(e => e.open = true)")
    assert _wide(page) <= 375, "with everything open"
