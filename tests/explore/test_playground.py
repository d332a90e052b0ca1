"""The playground: its numbers are snrlib's, everything can be reached and moved, and its claims hold."""

import contextlib
import io
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import Visit
from playwright.sync_api import expect

from snrlib.distances import DISTANCES, RELATIVE, Distance, get_distance
from snrlib.explore.playground import FIGURE_ALT, _start, playground, playground_figure
from snrlib.losses import get_loss

LOSSES = ("contrastive", "triplet", "n_pair", "lifted", "distance")
LABELS = torch.tensor([0, 0, 1, 1])
LESSONS = ("start", "asymmetry", "triangle", "offset", "signals", "normalisation", "flees", "constant")
CLOSE: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}  # asked for: 1e-6


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("playground") / "page.html"
    playground(save=path)
    return path


def embeddings(state: dict[str, Any]) -> torch.Tensor:
    """Spelled out here once more, so that the page's own are tested too."""
    if state["mode"] == "signals":
        return torch.tensor(state["signals"], dtype=torch.float64)
    e1 = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64) / math.sqrt(2)
    e2 = torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64) / math.sqrt(6)
    offsets = [state["anchor_offset"]] + 3 * [state["offset"]]
    return torch.stack([u * e1 + v * e2 + c for (u, v), c in zip(state["points"], offsets, strict=True)])


def distance_of(state: dict[str, Any], name: str, anchor: str) -> Distance:
    options: dict[str, Any] = {"anchor": anchor, "normalize_embeddings": state["normalize_embeddings"]}
    if name.endswith("mahalanobis"):
        if state["mode"] == "points":
            angle = math.radians(state["angle"])
            w = embeddings(state | {"points": [[math.cos(angle), math.sin(angle)]] * 4, "anchor_offset": 0})[0]
        else:
            w = torch.full((32,), 32**-0.5, dtype=torch.float64)
        options["components"] = torch.eye(len(w), dtype=w.dtype) + (state["stretch"] - 1) * torch.outer(w, w)
    return get_distance(name, **options)


def distances_of(state: dict[str, Any], name: str) -> np.ndarray:
    """(4, 4), the anchor is the row."""
    return distance_of(state, name, "query")(embeddings(state)).numpy()


def loss_of(state: dict[str, Any], name: str, distance: str, anchor: str) -> tuple[float, np.ndarray]:
    d = distance_of(state, distance, anchor)
    x = embeddings(state).requires_grad_()
    if name == "distance":
        value = d(x)[0, 1]
    else:
        value = get_loss(name, d, **({} if name == "n_pair" else {"margin": state["margin"]}))(x, LABELS)
    value.backward()
    assert x.grad is not None
    return value.item(), x.grad.numpy()


def assert_equals_snrlib(state: dict[str, Any], shown: dict[str, Any]) -> None:
    np.testing.assert_allclose(shown["embeddings"], embeddings(state).numpy(), **CLOSE)
    for name in DISTANCES:
        np.testing.assert_allclose(
            shown["distances"][name], distances_of(state, name), **CLOSE, err_msg=f"{name} {state}"
        )
    value, gradient = loss_of(state, state["loss"], state["distance"], state["anchor"])
    np.testing.assert_allclose(shown["loss"], value, **CLOSE, err_msg=str(state))
    np.testing.assert_allclose(shown["gradient"], gradient, **CLOSE, err_msg=str(state))
    for distance, loss in itertools.product(DISTANCES, LOSSES):
        expected, _ = loss_of(state, loss, distance, state["anchor"])
        np.testing.assert_allclose(shown["losses"][distance][loss], expected, **CLOSE, err_msg=f"{loss} {distance}")


def random_states(n: int, seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    signals = random.normal(0, 1.5, (n, 4, 32)).round(2)
    signals[::2, 1] = (signals[::2, 0] + random.normal(0, 0.5, (len(signals[::2]), 32))).round(2)
    return [
        {
            "mode": "signals" if i % 3 == 2 else "points",
            "points": random.uniform(-2.9, 2.9, (4, 2)).round(2).tolist(),
            "anchor_offset": random.uniform(-2, 2).__round__(1) if i % 2 else 0.0,
            "offset": random.uniform(-2, 2).__round__(1) if i % 4 else 0.0,
            "signals": signals[i].tolist(),
            "distance": "snr",
            "loss": "triplet",
            "margin": float(random.integers(1, 80) / 20),
            "normalize_embeddings": bool(random.integers(2)),
            "anchor": "query",
            "stretch": [0.0, 1.0, float(random.integers(0, 60) / 20)][i % 3 if i < 6 else 2],
            "angle": float(5 * random.integers(-18, 19)),
        }
        for i in range(n)
    ]


def claim(page: Any) -> tuple[bool, str]:
    line = page.locator("#claim")
    return line.get_attribute("data-holds") == "true", line.inner_text()


def cell(page: Any, key: str) -> float:
    """The whole number behind a cell of a table, which shows four digits of it."""
    found = page.locator(f'data[data-number="{key}"]')
    value, text = float(found.get_attribute("value")), found.inner_text().replace("−", "-")
    assert math.isclose(float(text), value, rel_tol=1e-3, abs_tol=5.1e-5)
    return value


def set_range(page: Any, key: str, value: float) -> None:
    page.locator(f'[data-key="{key}"]').fill(str(value))


# --- Without a browser -----------------------------------------------------------------------------


def test_page_asks_for_nothing_and_holds_every_part() -> None:
    html = playground().html
    assert "default-src 'none'" in html
    for asks in (r"\bsrc\s*=", r"\bhref\s*=", r"@import", r"\burl\(", r"\bfetch\(", "XMLHttpRequest", "WebSocket"):
        assert not re.search(asks, html), asks
    assert set(re.findall(r"https?://[\w./]+", html)) <= {
        "http://www.w3.org/1998/Math/MathML",
        "http://www.w3.org/2000/svg",
    }
    assert "{{" not in html
    assert "\\[" not in html
    assert "\\(" not in html
    for number in range(1, 11):  # the equations of the report that it names
        assert f"({number})" in html or f"eq. {number}" in html, number
    assert html.count("<math") >= 20


def test_saves_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = playground(save=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page.html
    with pytest.raises(ValueError, match="html"):
        playground(save=tmp_path / "page.txt")
    (tmp_path / "page.html").write_text("before", encoding="utf-8")

    def fails(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_text", fails)
    with pytest.raises(OSError, match="disk full"):
        playground(save=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_repr_is_the_same_page_in_a_frame() -> None:
    from html.parser import HTMLParser

    found: dict[str, str | None] = {}
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.update(attrs) if tag == "iframe" else None  # type: ignore[method-assign]
    parser.feed(playground()._repr_html_())
    assert found["srcdoc"] == playground().html
    assert found["title"]


def test_figure_shows_snrlibs_numbers_and_its_words_are_true() -> None:
    figure = playground_figure()
    start = _start()
    titles = [axis.get_title(loc="left") or axis.get_title() for axis in figure.axes]
    assert titles[1].endswith("= 0.401")
    assert "at the SNR distance 0.401" in FIGURE_ALT
    longest = {}
    for name, title in zip(LOSSES[:4], titles[2:], strict=True):
        value, gradient = loss_of(start, name, "snr", "query")
        assert title.startswith(f"{name}: {value:.3f}")
        longest[name] = ("a", "p", "n₁", "n₂")[int(np.linalg.norm(gradient, axis=1).argmax())]
    assert longest == {"contrastive": "a", "triplet": "n₁", "n_pair": "n₂", "lifted": "n₁"}
    assert "the longest step is a's with contrastive, n₂'s with N-pair, n₁'s with triplet and lifted loss" in FIGURE_ALT
    plt.close(figure)


# --- Numbers ---------------------------------------------------------------------------------------


@pytest.mark.browser
def test_numbers_and_gradients_equal_snrlib(visit: Visit, file: Path) -> None:
    page = visit(file)
    assert page.evaluate("playground.lessons") == list(LESSONS)
    states = random_states(24)
    for lesson in LESSONS:
        page.evaluate("name => playground.choose(name)", lesson)
        states.append(page.evaluate("playground.state()"))
    assert states[24] == _start()
    combinations = list(itertools.product(LOSSES, DISTANCES, ("query", "ref")))
    found = page.evaluate(
        """([states, combinations]) => states.map((state) => ({
          all: playground.numbers(state),
          each: combinations.map(([loss, distance, anchor]) => {
            const { loss: value, gradient } = playground.numbers({ ...state, loss, distance, anchor });
            return { value, gradient };
          }),
        }))""",
        [states, combinations],
    )
    seen = 0.0
    for state, of_state in zip(states, found, strict=True):
        assert_equals_snrlib(state, of_state["all"])
        for (loss, distance, anchor), one in zip(combinations, of_state["each"], strict=True):
            value, gradient = loss_of(state, loss, distance, anchor)
            where = f"{loss} {distance} {anchor} {state}"
            np.testing.assert_allclose(one["value"], value, **CLOSE, err_msg=where)
            np.testing.assert_allclose(one["gradient"], gradient, **CLOSE, err_msg=where)
            seen += float(np.abs(gradient).max() > 1e-3)
    assert seen > 0.5 * len(states) * len(combinations)  # most of them had a gradient to compare


@pytest.mark.browser
def test_tables_show_the_numbers(visit: Visit, file: Path) -> None:
    page = visit(file)
    state = _start() | {"anchor_offset": -0.4, "offset": 0.6}
    page.evaluate("changes => playground.set(changes)", state)
    for i, j in ((0, 1), (1, 0), (0, 2), (2, 0), (0, 3), (3, 0)):
        for name in DISTANCES:
            assert cell(page, f"{name} {i} {j}") == pytest.approx(distances_of(state, name)[i, j], rel=1e-9)
    for name, loss in itertools.product(DISTANCES, LOSSES):
        assert cell(page, f"{name} {loss}") == pytest.approx(loss_of(state, loss, name, "query")[0], rel=1e-9)
    _, gradient = loss_of(state, "triplet", "snr", "query")
    for i, m in itertools.product(range(4), range(3)):
        assert cell(page, f"gradient {i} {m}") == pytest.approx(gradient[i, m], rel=1e-9)
    for i, j in itertools.product(range(4), repeat=2):
        assert cell(page, f"pair {i} {j}") == pytest.approx(distances_of(state, "snr")[i, j], rel=1e-9)
    a, p = embeddings(state)[:2].numpy()
    facts = {
        "signal": a.var(),
        "compared": p.var(),
        "noise": (p - a).var(),
        "snr": a.var() / (p - a).var(),
        "decibel": 10 * math.log10(a.var() / (p - a).var()),
        "correlation": np.corrcoef(a, p)[0, 1],
        "formula": (1 + (p - a).var() / a.var()) ** -0.5,
    }
    for name, value in facts.items():
        assert cell(page, f"fact {name}") == pytest.approx(value, rel=1e-9)


@pytest.mark.browser
@pytest.mark.parametrize("mode", ["points", "signals"])
def test_controls_change_the_numbers(visit: Visit, file: Path, mode: str) -> None:
    page = visit(file)
    page.get_by_label("signals of 32 components" if mode == "signals" else "points in the plane").check()
    page.get_by_role("combobox", name="Distance").select_option("relative_mahalanobis")
    page.get_by_role("combobox", name="Loss").select_option("lifted")
    page.get_by_label("reference j").check()
    page.get_by_label("scale every embedding").check()
    set_range(page, "margin", 0.65)
    set_range(page, "stretch", 2.6)
    wanted = {"mode": mode, "margin": 0.65, "stretch": 2.6, "distance": "relative_mahalanobis", "loss": "lifted"}
    if mode == "points":
        for key, value in (("angle", -40), ("anchor_offset", 0.7), ("offset", -1.2)):
            set_range(page, key, value)
            wanted[key] = value
    state = page.evaluate("playground.state()")
    assert state == _start() | wanted | {"anchor": "ref", "normalize_embeddings": True}
    assert_equals_snrlib(state, page.evaluate("playground.numbers()"))
    value, _ = loss_of(state, "lifted", "relative_mahalanobis", "ref")
    assert cell(page, "relative_mahalanobis lifted") == pytest.approx(value, rel=1e-9)
    chosen = page.locator(".formula-box.chosen h3").all_inner_texts()
    assert chosen == ["relative_mahalanobis", "lifted"]
    page.get_by_role("button", name="Start again").click()
    assert page.evaluate("playground.state()") == _start()


@pytest.mark.browser
@pytest.mark.parametrize("distance", ["mahalanobis", "snr"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mode", ["points", "signals"])
def test_python_code_computes_the_same(visit: Visit, file: Path, mode: str, loss: str, distance: str) -> None:
    page = visit(file)
    page.evaluate(
        "changes => playground.set(changes)",
        {
            "mode": mode,
            "loss": loss,
            "distance": distance,
            "anchor": "ref",
            "offset": 0.3,
            "normalize_embeddings": loss == "lifted",
        },
    )
    shown = page.evaluate("playground.numbers()")
    space: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(page.locator("#snippet").input_value(), space)
    np.testing.assert_allclose(space["loss"].item(), shown["loss"], **CLOSE)
    np.testing.assert_allclose(space["x"].grad.numpy(), shown["gradient"], **CLOSE)
    d = np.array(shown["distances"][distance])  # the anchor is the row; in Python it is the ref, the column
    np.testing.assert_allclose(space["distance"](space["x"]).detach().numpy(), d.T, **CLOSE)
    assert f"{shown['loss']:.6f}"[:6] in printed.getvalue()


@pytest.mark.browser
def test_copy_says_so_and_opens_the_code(visit: Visit, file: Path) -> None:
    page = visit(file)
    page.locator("#copy").click()
    expect(page.locator("#copy")).not_to_have_text("Copy as Python")
    assert page.locator("#snippet").is_visible()


# --- Moving and drawing ----------------------------------------------------------------------------


def centre_of(page: Any, selector: str) -> tuple[float, float]:
    page.locator(selector).scroll_into_view_if_needed()
    box = page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def unit(page: Any) -> float:
    """Pixels of one unit of the plane."""
    return page.locator("#plane").bounding_box()["width"] / 6


@pytest.mark.browser
@pytest.mark.parametrize("width", [375, 1440])
def test_drag_with_the_mouse(visit: Visit, file: Path, width: int) -> None:
    page = visit(file, width=width)
    before = page.evaluate("playground.numbers()")
    x, y = centre_of(page, "#point-1 .hit")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - unit(page), y + 0.5 * unit(page), steps=4)
    page.mouse.up()
    page.mouse.move(x - unit(page) + 8, y + 0.5 * unit(page))  # over the point, which moves no more
    state = page.evaluate("playground.state()")
    (u, v), (u_0, v_0) = state["points"][1], _start()["points"][1]
    assert u == pytest.approx(u_0 - 1, abs=0.03)
    assert v == pytest.approx(v_0 - 0.5, abs=0.03)
    assert state["points"][0] == _start()["points"][0]
    shown = page.evaluate("playground.numbers()")
    assert shown["distances"]["snr"][0][1] != before["distances"]["snr"][0][1]
    assert_equals_snrlib(state, shown)
    assert cell(page, "snr 0 1") == pytest.approx(distances_of(state, "snr")[0, 1], rel=1e-9)
    assert cell(page, "snr triplet") == pytest.approx(loss_of(state, "triplet", "snr", "query")[0], rel=1e-9)


@pytest.mark.browser
def test_drag_with_a_finger(visit: Visit, file: Path) -> None:
    page = visit(file, width=375)
    x, y = centre_of(page, "#point-0 .hit")
    device = page.context.new_cdp_session(page)
    scrolled = page.evaluate("scrollY")
    for step in range(11):  # across and up: a finger elsewhere would scroll the page
        touch = {"type": "touchMove" if step else "touchStart", "touchPoints": [{"x": x - 3 * step, "y": y - 6 * step}]}
        device.send("Input.dispatchTouchEvent", touch)
    device.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    state = page.evaluate("playground.state()")
    assert state["points"][0] == pytest.approx([1.2 - 30 / unit(page), 0.5 + 60 / unit(page)], abs=0.03)
    assert page.evaluate("scrollY") == scrolled
    assert_equals_snrlib(state, page.evaluate("playground.numbers()"))


@pytest.mark.browser
def test_arrow_keys_move_points(visit: Visit, file: Path) -> None:
    page = visit(file)
    point = page.get_by_role("slider", name="negative n₁")
    point.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowLeft", "Shift+ArrowDown"):
        page.keyboard.press(key)
    state = page.evaluate("playground.state()")
    assert state["points"][2] == [0.49, 1.59]
    assert point.get_attribute("aria-valuetext") == "u 0.49, v 1.59"
    assert page.evaluate("document.activeElement.id") == "point-2"
    assert_equals_snrlib(state, page.evaluate("playground.numbers()"))
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("playground.state().points[2][0]") == 2.9  # stays in the plane


@pytest.mark.browser
def test_draw_signals(visit: Visit, file: Path) -> None:
    page = visit(file)
    page.get_by_label("signals of 32 components").check()
    page.locator("#signal-1").scroll_into_view_if_needed()
    box = page.locator("#signal-1").bounding_box()
    page.mouse.move(box["x"] + 4.5 / 32 * box["width"], box["y"] + box["height"] / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + 12.5 / 32 * box["width"], box["y"] + 3 * box["height"] / 4)  # one jump over 8 components
    page.mouse.up()
    state = page.evaluate("playground.state()")
    drawn = np.array(state["signals"][1])
    top = 0.25 * 2.3 * 3
    np.testing.assert_allclose(drawn[4:13], np.linspace(top, -top, 9), atol=0.06)
    np.testing.assert_array_equal(np.delete(drawn, range(4, 13)), np.delete(_start()["signals"][1], range(4, 13)))
    assert state["signals"][0] == _start()["signals"][0]
    assert_equals_snrlib(state, page.evaluate("playground.numbers()"))
    page.get_by_role("slider", name="signal a", exact=True).focus()
    for key in ("End", "ArrowLeft", "ArrowUp", "Shift+ArrowDown"):
        page.keyboard.press(key)
    changed = page.evaluate("playground.state().signals[0]")
    assert changed[30] == pytest.approx(_start()["signals"][0][30] + 0.09, abs=1e-9)
    text = page.get_by_role("slider", name="signal a", exact=True).get_attribute("aria-valuetext")
    assert text == f"component 31 of 32: {changed[30]:.2f}"
    state = page.evaluate("playground.state()")
    assert cell(page, "snr 0 1") == pytest.approx(distances_of(state, "snr")[0, 1], rel=1e-9)


@pytest.mark.browser
def test_buttons_of_the_signals(visit: Visit, file: Path) -> None:
    page = visit(file)
    page.get_by_label("signals of 32 components").check()
    press = lambda name: page.get_by_role("button", name=name, exact=True).click()  # noqa: E731
    press("b = a")
    assert cell(page, "snr 0 1") == 0
    press("add offset 0.5 to b")
    assert cell(page, "snr 0 1") == pytest.approx(0, abs=1e-12)
    assert cell(page, "euclidean 0 1") == pytest.approx(0.5 * math.sqrt(32))
    press("scale b by 1.5")
    assert cell(page, "snr 0 1") == pytest.approx(0.25)
    press("scale both by 1.5")
    assert cell(page, "snr 0 1") == pytest.approx(0.25)
    press("add noise to b")
    first = page.evaluate("playground.state().signals[1]")
    assert cell(page, "snr 0 1") > 0.25
    assert_equals_snrlib(page.evaluate("playground.state()"), page.evaluate("playground.numbers()"))
    page.get_by_role("button", name="Start again").click()
    page.get_by_label("signals of 32 components").check()
    for name in ("b = a", "add offset 0.5 to b", "scale b by 1.5", "scale both by 1.5", "add noise to b"):
        press(name)
    assert page.evaluate("playground.state().signals[1]") == first  # noise from a seed
    for _ in range(8):
        press("scale both by 1.5")
    assert np.abs(page.evaluate("playground.state().signals")).max() <= 10  # refused
    expect(page.locator("#status")).to_contain_text("Not done")


def path_points(d: str) -> np.ndarray:
    """Plane coordinates of the places of an SVG path."""
    found = re.findall(r"(-?[\d.]+(?:e-?\d+)?)[ ,](-?[\d.]+(?:e-?\d+)?)", d)
    return np.array(found, dtype=float).reshape(-1, 2) / [100, -100]


@pytest.mark.browser
@pytest.mark.parametrize("normalized", [False, True])
def test_lines_of_equal_distance_and_arrows(visit: Visit, file: Path, normalized: bool) -> None:
    page = visit(file)
    for name in DISTANCES:
        for loss in LOSSES:
            page.evaluate(
                "changes => playground.set(changes)",
                {
                    "distance": name,
                    "loss": loss,
                    "offset": 0.4,
                    "anchor_offset": -0.2,
                    "normalize_embeddings": normalized,
                },
            )
            state = page.evaluate("playground.state()")
            points = np.array(state["points"])
            steps = (
                -np.array(page.evaluate("playground.numbers().gradient"))
                @ (np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])).T
            )
            rate = float(re.search(r"× ([\d.e−]+)", page.locator("#legend").inner_text())[1].replace("−", "-"))  # type: ignore[index]
            assert 0.3 < rate * np.linalg.norm(steps, axis=1).max() <= 0.9 + 1e-9
            tips = [
                path_points(d)[2]
                for d in page.locator("#plane .arrow").evaluate_all("all => all.map((one) => one.getAttribute('d'))")
            ]
            long = [i for i in range(4) if np.linalg.norm(rate * steps[i]) >= 0.03]
            np.testing.assert_allclose(tips, (points + rate * steps)[long], atol=1e-6)
        x = embeddings(state)
        for selector, anchor in ((".iso:not(.back)", "query"), (".iso.back", "ref")):
            line = path_points(page.locator(f"#plane {selector}").get_attribute("d") or "")
            if anchor == "ref" and name not in RELATIVE:
                assert len(line) == 0
                continue
            assert len(line) > 20
            distance = distance_of(state, name, anchor)
            places = [embeddings(state | {"points": [points[0], place, place, place]})[1] for place in line]
            d = distance(x[:1], torch.stack(places)).numpy()[0]
            np.testing.assert_allclose(d, distance(x[:1], x[1:2]).item(), rtol=0.02)
            assert np.linalg.norm(line - points[1], axis=1).min() < 0.12  # it passes through p


# --- Questions -------------------------------------------------------------------------------------


@pytest.mark.browser
def test_every_question_sets_what_it_asks_about(visit: Visit, file: Path) -> None:
    page = visit(file)
    for number, lesson in enumerate(LESSONS[1:], start=1):
        page.locator(f'[data-lesson="{lesson}"]:is(button)').click()
        assert page.locator("article:visible").count() == 1
        assert page.locator("article:visible").inner_text().startswith(f"Question {number}.")
        assert not page.locator("article:visible details > p").is_visible()
        page.locator("article:visible summary").click()
        assert len(page.locator("article:visible details > p").inner_text().split()) > 40
        holds, text = claim(page)
        assert holds, lesson
        assert text
        d = {name: [[cell(page, f"{name} 0 {j}") if j else 0 for j in range(4)]] for name in DISTANCES}
        if lesson == "asymmetry":
            assert d["snr"][0][1] / cell(page, "snr 1 0") == pytest.approx(4)
            assert d["euclidean"][0][1] == cell(page, "euclidean 1 0")
        elif lesson == "triangle":
            assert (d["snr"][0][1], cell(page, "pair 1 2"), d["snr"][0][2]) == pytest.approx((1, 0.25, 4))
        elif lesson == "offset":
            without = page.evaluate("playground.numbers({anchor_offset: 0, offset: 0}).distances")
            for name in DISTANCES:
                same = d[name][0][1] == pytest.approx(without[name][0][1], rel=1e-9)
                assert same == (name in ("snr", "centred_euclidean"))
        elif lesson == "signals":
            assert d["snr"][0][1] == pytest.approx(0, abs=1e-12)
            assert d["euclidean"][0][1] == pytest.approx(math.sqrt(32))
            page.get_by_role("button", name="scale b by 1.5").click()
            assert cell(page, "snr 0 1") == pytest.approx(0.25)
            assert cell(page, "fact correlation") == pytest.approx(1)
            assert claim(page)[0]
        elif lesson == "normalisation":
            page.evaluate("playground.set({stretch: 2})")
            all_pairs = page.evaluate("playground.numbers().distances")
            square = np.square(all_pairs["euclidean"])
            for name in ("snr", "relative_euclidean"):
                np.testing.assert_allclose(all_pairs[name], square, atol=1e-12)
            np.testing.assert_allclose(np.square(all_pairs["centred_euclidean"]), square, atol=1e-12)
            assert not np.allclose(np.square(all_pairs["mahalanobis"]), square)
            set_range(page, "stretch", 1)
            assert "All six agree" in claim(page)[1]
            set_range(page, "offset", 1)
            assert not claim(page)[0]
        elif lesson == "flees":
            state = page.evaluate("playground.state()")
            x, (value, gradient) = embeddings(state).numpy(), loss_of(state, "distance", "snr", "query")
            towards = -gradient[0] @ (x[1] - x[0])
            assert towards < 0
            assert towards == pytest.approx(2 * value * (x[0] @ x[1]) / (x[0] @ x[0]))  # what the explanation states
            page.get_by_role("combobox", name="Distance").select_option("centred_euclidean")
            assert not claim(page)[0]
        else:
            assert d["snr"][0][1] == pytest.approx(1.5**2 / 1e-12)
            assert [cell(page, f"gradient 0 {m}") for m in range(3)] == [0, 0, 0]
            assert page.locator("#legend .back").count() == 0  # every anchor is at 1 from a constant vector
            assert [cell(page, f"snr {i} 0") for i in (1, 2, 3)] == pytest.approx([1, 1, 1])
            page.locator("#point-0").focus()
            page.keyboard.press("Shift+ArrowRight")
            assert not claim(page)[0]
            assert 1e4 < cell(page, "snr 0 1") < 1e5
            assert cell(page, "gradient 0 length") > 1e5


@pytest.mark.browser
def test_address_opens_at_a_question(visit: Visit, file: Path) -> None:
    page = visit(f"{file.resolve().as_uri()}#triangle")
    assert page.locator("article:visible").inner_text().startswith("Question 2.")
    assert cell(page, "snr 0 1") == pytest.approx(1)


@pytest.mark.browser
def test_questions_of_the_sliders(visit: Visit, file: Path) -> None:
    page = visit(file)
    page.get_by_label("signals of 32 components").check()
    numbers = [int(n) for n in re.findall(r"question (\d+)", page.locator("#see").inner_html())]
    assert numbers == list(range(8, 13))
    page.locator("#see details:has(details) > summary").click()
    starts = [text.split(".")[0] for text in page.locator("#see details details summary").all_inner_texts()]
    assert starts == [str(n) for n in numbers]
    set_range(page, "stretch", 1)  # question 9
    assert cell(page, "mahalanobis 0 1") == pytest.approx(cell(page, "euclidean 0 1"))
    set_range(page, "stretch", 0)
    assert cell(page, "mahalanobis 0 1") == pytest.approx(cell(page, "centred_euclidean 0 1"))
    assert cell(page, "relative_mahalanobis 1 0") == pytest.approx(cell(page, "snr 1 0"))
    page.get_by_label("points in the plane").check()
    a, p = page.evaluate("playground.state().points.slice(0, 2)")
    set_range(page, "stretch", 2)
    nearest = min(
        range(-90, 95, 5),
        key=lambda angle: page.evaluate(  # question 10
            "angle => { playground.set({ angle }); return playground.numbers().distances.mahalanobis[0][1]; }", angle
        ),
    )
    towards = math.degrees(math.atan2(p[1] - a[1], p[0] - a[0]))
    assert abs((nearest - towards) % 180 - 90) <= 2.5  # the long axis, across the stretched one, points at p
    page.get_by_role("button", name="Start again").click()
    before = page.evaluate("playground.numbers().distances")
    set_range(page, "anchor_offset", 1)  # question 11
    for name in RELATIVE:
        changed = [abs(cell(page, f"{name} {i} {j}") - before[name][i][j]) > 1e-6 for i, j in ((0, 1), (1, 0))]
        assert changed == [name != "snr"] * 2
    for both in (1, 2):  # question 12
        before_both = cell(page, "relative_euclidean 0 1") if both == 2 else math.inf
        set_range(page, "anchor_offset", both)
        set_range(page, "offset", both)
        assert cell(page, "relative_euclidean 0 1") < before_both


@pytest.mark.browser
def test_claims_can_fail(visit: Visit, file: Path) -> None:
    page = visit(file)
    disturb = {
        "asymmetry": {"points": [[1, 0.5], [-1, 0.5], [0, 1], [0, 2]]},
        "triangle": {"points": [[1, 0.5], [-1, 1], [1, 0.6], [0, 2]]},
        "signals": {"signals": _start()["signals"]},
        "normalisation": {"normalize_embeddings": False},
        "flees": {"points": [[1, 0.5], [1, 2], [0, 1], [0, 2]]},
        "constant": {"points": [[1, 0.5], [1, 2], [0, 1], [0, 2]]},
    }
    for lesson, changes in disturb.items():
        page.evaluate("name => playground.choose(name)", lesson)
        assert claim(page)[0]
        page.evaluate("changes => playground.set(changes)", changes)
        assert not claim(page)[0], lesson


# --- The page --------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 375, 768, 1024, 1440])
def test_nothing_overflows_and_targets_are_large_enough(visit: Visit, file: Path, width: int) -> None:
    page = visit(file, width=width)
    for lesson in LESSONS:
        page.evaluate("name => playground.choose(name)", lesson)
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, lesson
        small = page.evaluate(
            """[...document.querySelectorAll('button, select, summary, input, .hit, textarea')]
              .filter((one) => one.checkVisibility())
              .map((one) => [one.outerHTML.slice(0, 60), one.getBoundingClientRect()])
              .filter(([, box]) => box.width < 24 || box.height < 24)"""
        )
        assert small == []
    if width == 1440:
        lefts = [page.locator(f"#{name}").bounding_box()["x"] for name in ("see", "numbers", "formulas")]
        assert lefts == sorted(set(lefts))  # three columns


@pytest.mark.browser
@pytest.mark.parametrize("mode", ["points", "signals"])
def test_keyboard_reaches_everything_and_everything_has_a_name(visit: Visit, file: Path, mode: str) -> None:
    page = visit(file)
    page.evaluate("mode => { playground.choose('asymmetry'); playground.set({ mode }); }", mode)
    page.evaluate("document.getElementById('python').open = true")
    focusable = 'button, select, input, textarea, summary, [tabindex="0"]'
    page.evaluate(
        """(focusable) => [...document.querySelectorAll(focusable)].filter((one) => one.checkVisibility()
          && !(one.type === 'radio' && !one.checked)).forEach((one, i) => { one.dataset.tab = i; })""",
        focusable,
    )
    waiting = page.locator("[data-tab]").count()
    assert waiting > 20
    for _ in range(waiting + 3):
        page.keyboard.press("Tab")
        page.evaluate("document.activeElement.dataset.visited = 'yes'")
    assert (
        page.locator('[data-tab]:not([data-visited="yes"])').evaluate_all("all => all.map((one) => one.outerHTML)")
        == []
    )
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    controls = [
        node
        for node in tree
        if not node["ignored"]
        and node["role"]["value"] != "RootWebArea"
        and any(one["name"] == "focusable" for one in node.get("properties", []))
    ]
    assert len(controls) >= waiting
    nameless = [node["role"]["value"] for node in controls if not node.get("name", {}).get("value", "").strip()]
    assert nameless == []
    names = [(node["role"]["value"], node["name"]["value"]) for node in controls if node["role"]["value"] == "slider"]
    assert len(names) == len(set(names))


@pytest.mark.browser
def test_focus_is_seen(visit: Visit, file: Path) -> None:
    page = visit(file)
    ring = "getComputedStyle(document.querySelector('#point-0 .hit')).stroke"
    assert page.evaluate(ring) == "none"
    page.locator('[name="mode"]:checked').focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "point-0"
    assert page.evaluate(ring) == "rgb(10, 74, 143)"


@pytest.mark.browser
def test_a_reader_hears_where_things_stand(visit: Visit, file: Path) -> None:
    page = visit(file)
    page.locator("#point-0").focus()
    page.keyboard.press("ArrowRight")
    value = distances_of(page.evaluate("playground.state()"), "snr")[0, 1]
    expect(page.locator("#status")).to_contain_text(f"{value:.4f}")
    assert page.locator("[aria-live], [role=status]").count() == 1


@pytest.mark.browser
def test_works_in_the_frame_of_a_notebook(visit: Visit, tmp_path: Path) -> None:
    around = tmp_path / "notebook.html"
    around.write_text(f"<!DOCTYPE html><title>A notebook</title>{playground()._repr_html_()}", encoding="utf-8")
    page = visit(around)
    frame = page.frame_locator("iframe")
    frame.locator("#point-0").focus()
    page.keyboard.press("ArrowLeft")
    inner = page.frames[1]
    state = inner.evaluate("playground.state()")
    assert state["points"][0] == [1.1, 0.5]
    assert_equals_snrlib(state, inner.evaluate("playground.numbers()"))
    frame.locator("#copy").click()
    expect(frame.locator("#copy")).not_to_have_text("Copy as Python")


@pytest.mark.browser
def test_formulas_are_drawn(visit: Visit, file: Path) -> None:
    page = visit(file)
    for box in page.locator(".formula-box").all():
        assert box.locator("math:visible").first.bounding_box()["width"] > 40
    assert page.locator(".formula-box.chosen h3").all_inner_texts() == ["snr", "triplet"]
    for distance in DISTANCES:
        page.get_by_role("combobox", name="Distance").select_option(distance)
        kind = "relative" if distance in RELATIVE else "absolute"
        shown = page.locator("[data-kind]:visible").evaluate_all(
            "all => [...new Set(all.map((one) => one.dataset.kind))]"
        )
        assert shown == [kind]


def test_start_is_plain_json() -> None:
    assert json.loads(json.dumps(_start())) == _start()
