"""The page of the inspector in headless Chromium: bytes, first paint, frames under a lasso, hover, memory.

python benchmarks/inspector.py [POINTS ...]
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measure import machine

from snrlib.explore import Items, Map, inspect

SIZES = (5_000, 20_000, 100_000)
MAPS, CLASSES, NEIGHBOURS = 3, 100, 10
OPENED = 5  # times, of which the median counts
# Two frames after an event what it changed has been shown.
SHOWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def page_of(n: int, path: Path) -> tuple[str, ...]:
    """Write a page with n clustered points on three maps, two columns and a path; its notes."""
    rng = np.random.default_rng(0)
    labels = torch.arange(n) * CLASSES // n
    maps = []
    for name in ("Euclid", "cosine", "SNR")[:MAPS]:
        points = 10 * rng.normal(size=(CLASSES, 2))[labels] + rng.normal(size=(n, 2))
        near, far = rng.integers(0, n, size=(n, NEIGHBOURS)), np.sort(rng.random((n, NEIGHBOURS)), axis=1)
        hits = labels.numpy()[near] == labels.numpy()[:, None]
        facts: dict[str, Any] = {"perplexity": 30.0, "start": "PCA", "title": name}
        maps.append(Map(points.astype(np.float32), near, far.astype(np.float32), hits, name, "x", 0.5, 0.5, **facts))
    strokes = np.zeros((n, 32, 32), dtype=np.uint8)
    for picture, (top, left, size) in zip(strokes, rng.integers(4, 16, size=(n, 3)), strict=True):
        picture[top : top + size, left] = picture[top, left : left + size] = 255  # as characters have
    known = {"camera": rng.choice(["left", "right"], n), "sharpness": rng.normal(size=n)}
    factors = pd.DataFrame(known | {"path": [f"folder/{i // 100:04d}/picture {i}.png" for i in range(n)]})
    names = tuple(f"class {c}" for c in range(CLASSES))
    page = inspect(maps, Items("strokes", labels, names, factors, strokes), thumbnail=32)
    page.save(path)
    return page.notes


def opened(browser: Any, path: Path) -> Any:
    """The page, when its dots have been drawn."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(path.as_uri())
    limit = time.monotonic() + 120
    while not page.evaluate("performance.getEntriesByName('drawn').length > 0"):  # it forbids Playwright's own way
        if time.monotonic() > limit:
            raise TimeoutError(f"{path.name} is not drawn within two minutes")
        page.wait_for_timeout(20)
    return page


def measured(browser: Any, path: Path) -> dict[str, float]:
    """Medians of a page."""
    paints = []
    for _ in range(OPENED):
        page = opened(browser, path)
        paints.append(page.evaluate("performance.getEntriesByName('drawn')[0].startTime"))
        page.close()
    page = opened(browser, path)
    box = page.locator(".stage").first.bounding_box()
    middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    corners = [
        middle + 0.4 * min(box["width"], box["height"]) * np.array([np.cos(a), np.sin(a)])
        for a in np.linspace(0, 6, 90)
    ]
    # How long from an event of the pointer until what it changed has been painted: in the page, without the driver.
    page.evaluate(
        """() => { window.waits = []; document.querySelector(".stage").addEventListener("pointermove", (event) => {
            const from = event.timeStamp;
            requestAnimationFrame(() => setTimeout(() => waits.push(performance.now() - from))); }); }"""
    )
    for corner in corners[::6]:
        page.mouse.move(*corner)
        page.evaluate(SHOWN)
    hover = statistics.median(page.evaluate("waits"))
    page.evaluate(
        """() => { window.frames_ = [];
            const frame = (now) => { frames_.push(now); requestAnimationFrame(frame); };
            requestAnimationFrame(frame); }"""
    )
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.evaluate("frames_.length = 0")
    for corner in corners:
        page.mouse.move(*corner, steps=2)
    frames = np.diff(page.evaluate("frames_"))
    page.evaluate("window.from = performance.now()")
    page.mouse.up()
    chosen = page.evaluate(f"{SHOWN}.then(() => performance.now() - from)")
    page.evaluate("gc?.()")
    heap = page.evaluate("performance.memory.usedJSHeapSize") / 2**20
    count = page.evaluate("inspector.shared.chosen.length")
    page.close()
    return {
        "page, MiB": path.stat().st_size / 2**20,
        "first paint, s": statistics.median(paints) / 1000,
        "frames per second under a lasso": 1000 / frames.mean(),
        "slowest frame, ms": frames.max(),
        "hover, ms": hover,
        "lasso let go until lit, ms": chosen,
        "chosen by it": count,
        "JS heap, MiB": heap,
    }


def main() -> None:
    """Print the table."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("SNR_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    flags = ["--disable-gpu", "--enable-precise-memory-info", "--js-flags=--expose-gc"]
    rows = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        sandbox = hasattr(os, "geteuid") and os.geteuid() != 0  # Chromium's own does not start as root
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=sandbox, args=flags)
        print(f"{machine()}; Chromium {browser.version}, no graphics card, 1440 x 900; {MAPS} maps, {CLASSES} classes")
        for n in [int(size) for size in sys.argv[1:]] or SIZES:
            path = Path(folder) / f"{n}.html"
            for note in page_of(n, path):
                print(f"{n:,}: {note}")
            rows[f"{n:,}"] = measured(browser, path)
        browser.close()
    print(pd.DataFrame(rows).round(2).to_string())


if __name__ == "__main__":
    main()
