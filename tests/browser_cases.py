"""For tests in a browser."""

import time
from collections.abc import Callable
from typing import Any

Visit = Callable[..., Any]
"""``visit(address or path, width=1440, height=900, finger=False)`` opens a page in Chromium, as Playwright's Page."""


def wait_until(page: Any, expression: str, seconds: float = 30) -> None:
    """Until an expression is true in a page or frame.

    Playwright's own ``wait_for_function`` evaluates it again from within the page, which our pages forbid (their
    Content-Security-Policy has no ``unsafe-eval``): it holds only where the expression is true at once.
    """
    limit = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < limit, f"not within {seconds} s: {expression}"
        page.wait_for_timeout(20)
