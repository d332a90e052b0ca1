"""Every test gets caches and runs of its own, so that none reads or leaves anything in ``data``; and a browser."""

import itertools
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser_cases import Visit
from process_cases import shared_folder

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNR_CACHE", str(shared_folder(tmp_path_factory) / "cache"))
        yield


@pytest.fixture(autouse=True)
def _own_runs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path_factory.getbasetemp() / "runs" / str(next(numbers))  # mktemp would list all of the base every time
    runs.mkdir(parents=True)
    monkeypatch.setenv("SNR_RUNS", str(runs))


@pytest.fixture
def repository() -> Path:
    """The folder of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium. Module by module, since Playwright's event loop would be in the way of other tests."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("SNR_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        message = "no Chromium on the PATH (Debian: apt-get install chromium), and SNR_CHROMIUM names none"
        if os.environ.get("SNR_BROWSER") == "required":
            pytest.fail(message)
        pytest.skip(message)
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    with sync_playwright() as playwright:
        sandbox = hasattr(os, "geteuid") and os.geteuid() != 0  # Chromium's own does not start as root
        opened = playwright.chromium.launch(
            executable_path=program, chromium_sandbox=sandbox, args=["--no-first-run", "--disable-gpu", *quiet]
        )
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Opens pages, and afterwards asserts that none wrote an error to its console or asked another machine."""
    contexts, wrong = [], []

    def opened(place: str | Path, width: int = 1440, height: int = 900, finger: bool = False) -> Any:
        size = {"width": width, "height": height}
        context = browser.new_context(viewport=size, service_workers="block", has_touch=finger, is_mobile=finger)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: None if _is_local(asked.url) else wrong.append(f"asked {asked.url}"))
        page.on("websocket", lambda asked: None if _is_local(asked.url) else wrong.append(f"asked {asked.url}"))
        page.goto(place.resolve().as_uri() if isinstance(place, Path) else place)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def _is_local(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("file", "data", "blob", "about") or parts.hostname in ("127.0.0.1", "localhost")
