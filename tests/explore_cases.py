"""For the tests of pages: one that is opened once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def kept_open(browser: Any, path: Path) -> Iterator[Any]:
    """A page for all tests of a module, which writes no error to its console."""
    page, wrong = browser.new_page(), []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(path.resolve().as_uri())
    yield page
    page.close()
    assert not wrong
