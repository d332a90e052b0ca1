"""For tests in a browser."""

from collections.abc import Callable
from typing import Any

Visit = Callable[..., Any]
"""``visit(address or path, width=1440, height=900, finger=False)`` opens a page in Chromium, as Playwright's Page."""
