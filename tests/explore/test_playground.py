"""The playground: its numbers are snrlib's, everything can be reached and moved, and its claims hold."""

import contextlib
import io
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser_cases import Visit
from explore_cases import kept_open
from playwright.sync_api import expect

from snrlib.distances import DISTANCES, RELATIVE, Distance, get_distance
from snrlib.explore.playground import _start, playground
from snrlib.losses import get_loss

pytestmark = pytest.mark.browser
OPTIONS = {
    "contrastive": ("margin",),
    "triplet": ("margin",),
    "n_pair": ("scale",),
    "lifted": ("margin", "scale"),
    "multi_similarity": ("margin",),
    "nt_xent": ("scale",),
    "supcon": ("scale",),
}
"""The losses of the page, and what each takes of a state."""
LOSSES = (*OPTIONS, "distance")
ANCHORED = tuple(name for name in DISTANCES if name.startswith("relative") or name == "snr")
LABELS = torch.tensor([0, 0, 1, 1])
LESSONS = ("start", "asymmetry", "triangle", "offset", "signals", "normalisation", "flees", "constant", "unit")
CLOSE: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}  # asked for: 1e-6


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("playground") / "page.html"
    playground(save=path)
    return path


@pytest.fixture(scope="module")
def opened(browser: Any, file: Path) -> Iterator[Any]:
    with kept_open(browser, file) as page:
        yield page


@pytest.fixture
def page(opened: Any) -> Any:
    """As it begins."""
    opened.set_viewport_size({"width": 1440, "height": 900})
    opened.evaluate("""() => {
      playground.choose('start');
      document.querySelectorAll('details').forEach((one) => { one.open = false; });
      document.activeElement.blur();
    }""")
    return opened


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
        value = get_loss(name, d, **{key: state[key] for key in OPTIONS[name]})(x, LABELS)
    value.backward()
    assert x.grad is not None
    return value.item(), x.grad.numpy()


def assert_equals_snrlib(page: Any) -> dict[str, Any]:
    """What the page shows now; returns its state."""
    state, shown = page.evaluate("[playground.state(), playground.numbers()]")
    np.testing.assert_allclose(shown["embeddings"], embeddings(state).numpy(), **CLOSE)
    for name in DISTANCES:
        np.testing.assert_allclose(shown["distances"][name], distances_of(state, name), **CLOSE, err_msg=name)
    value, gradient = loss_of(state, state["loss"], state["distance"], state["anchor"])
    np.testing.assert_allclose(shown["gradient"], gradient, **CLOSE)
    np.testing.assert_allclose(shown["loss"], value, **CLOSE)
    return state


def random_state(random: np.random.Generator) -> dict[str, Any]:
    signals = random.normal(0, 1.5, (4, 32))
    signals[1] = random.choice([1, 0]) * signals[0] + random.normal(0, 0.5, 32)
    return _start() | {
        "mode": str(random.choice(["points", "signals"])),
        "points": random.uniform(-2.9, 2.9, (4, 2)).tolist(),
        "anchor_offset": float(random.choice([0, 1.3, -0.4])),
        "offset": float(random.choice([0, 0.6, -1.7])),
        "signals": signals.tolist(),
        "margin": float(random.integers(1, 80) / 20),
        "scale": float(random.choice([0.3, 1, 4])),
        "normalize_embeddings": bool(random.integers(2)),
        "stretch": float(random.choice([0, 1, 0.35, 2.6])),
        "angle": float(5 * random.integers(-18, 19)),
    }


def change(page: Any, **changes: Any) -> None:
    page.evaluate("changes => playground.set(changes)", changes)


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


# --- Numbers ---------------------------------------------------------------------------------------


def test_numbers_and_gradients_equal_snrlib(page: Any) -> None:
    assert page.evaluate("playground.lessons") == list(LESSONS)
    lessons = "names => names.map((name) => { playground.choose(name); return playground.state(); })"
    random = np.random.default_rng(0)
    states = [*page.evaluate(lessons, list(LESSONS)), *(random_state(random) for _ in range(12))]
    assert states[0] == _start()
    # Every combination in every third state.
    combinations = list(itertools.product(LOSSES, DISTANCES, ("query", "ref")))
    asked = [combinations[number % 3 :: 3] for number in range(len(states))]
    found = page.evaluate(
        """([states, asked]) => states.map((state, number) => [
          playground.numbers(state), asked[number].map(([loss, distance, anchor]) => {
            const found = playground.numbers({ ...state, loss, distance, anchor });
            return [found.loss, found.losses[distance][loss], found.gradient];
          })])""",
        [states, asked],
    )
    gradients = []
    for state, combined, (shown, each) in zip(states, asked, found, strict=True):
        np.testing.assert_allclose(shown["embeddings"], embeddings(state).numpy(), **CLOSE)
        for name in DISTANCES:
            np.testing.assert_allclose(shown["distances"][name], distances_of(state, name), **CLOSE, err_msg=name)
        for (loss, distance, anchor), one in zip(combined, each, strict=True):
            value, gradient = loss_of(state, loss, distance, anchor)
            where = f"{loss} {distance} {anchor} {state}"
            np.testing.assert_allclose(one[:2], [value, value], **CLOSE, err_msg=where)
            np.testing.assert_allclose(one[2], gradient, **CLOSE, err_msg=where)
            gradients.append(np.abs(gradient).max())
    assert np.median(gradients) > 1e-3, "most of them have a gradient to compare"


def test_tables_show_the_numbers(page: Any) -> None:
    state = _start() | {"anchor_offset": -0.4, "offset": 0.6}
    change(page, **state)
    x, (_, gradient) = embeddings(state).numpy(), loss_of(state, "triplet", "snr", "query")
    wanted = {f"gradient {i} {m}": gradient[i, m] for i, m in itertools.product(range(4), range(3))}
    for name in DISTANCES:
        d = distances_of(state, name)
        wanted |= {f"{name} {i} {j}": d[i, j] for one in (1, 2, 3) for i, j in ((0, one), (one, 0))}
        columns = [loss for loss in OPTIONS if loss != "supcon"]  # that of nt_xent
        wanted |= {f"{name} {loss}": loss_of(state, loss, name, "query")[0] for loss in columns}
    d = distances_of(state, "snr")
    wanted |= {f"pair {i} {j}": d[i, j] for i, j in itertools.product(range(4), repeat=2)}
    snr = x[0].var() / (x[1] - x[0]).var()
    wanted |= {
        "fact signal": x[0].var(),
        "fact compared": x[1].var(),
        "fact noise": (x[1] - x[0]).var(),
        "fact snr": snr,
        "fact decibel": 10 * math.log10(snr),
        "fact correlation": np.corrcoef(x[0], x[1])[0, 1],
        "fact formula": (1 + 1 / snr) ** -0.5,
    }
    for key, value in wanted.items():
        assert cell(page, key) == pytest.approx(value, rel=1e-9), key


@pytest.mark.parametrize("mode", ["points", "signals"])
def test_controls_change_the_numbers(page: Any, mode: str) -> None:
    page.get_by_label("signals of 32 components" if mode == "signals" else "points in the plane").check()
    for box, choice in (("Distance", "relative_mahalanobis"), ("Loss", "lifted")):
        page.get_by_role("combobox", name=box).select_option(choice)
    for label in ("reference j", "scale every embedding"):
        page.get_by_label(label).check()
    ranges = {"margin": 0.65, "scale": 2.3, "stretch": 2.6}
    if mode == "points":
        ranges |= {"angle": -40, "anchor_offset": 0.7, "offset": -1.2}
    for key, value in ranges.items():
        set_range(page, key, value)
    state = assert_equals_snrlib(page)
    chosen = {"distance": "relative_mahalanobis", "loss": "lifted", "anchor": "ref", "normalize_embeddings": True}
    assert state == _start() | ranges | chosen | {"mode": mode}
    page.get_by_role("button", name="Start again").click()
    assert page.evaluate("playground.state()") == _start()


def test_copied_python_computes_the_same(page: Any) -> None:
    for number, (mode, loss) in enumerate(itertools.product(("points", "signals"), LOSSES)):
        distance = ("mahalanobis", "snr", "symmetric_snr")[number % 3]
        change(page, mode=mode, loss=loss, distance=distance, anchor="ref", offset=0.3, scale=1.5)
        change(page, normalize_embeddings=loss == "lifted")
        shown = page.evaluate("playground.numbers()")
        space: dict[str, Any] = {}
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(page.locator("#snippet").input_value(), space)
        np.testing.assert_allclose(space["loss"].item(), shown["loss"], **CLOSE)
        np.testing.assert_allclose(space["x"].grad.numpy(), shown["gradient"], **CLOSE)
        d = np.array(shown["distances"][distance])  # the anchor is the row; in Python it is the ref, the column
        np.testing.assert_allclose(space["distance"](space["x"]).detach().numpy(), d.T, **CLOSE)
        assert f"{shown['loss']:.6f}"[:6] in printed.getvalue()


# --- Moving and drawing ----------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "finger"), [(1440, False), (375, True)])
def test_points_are_dragged(visit: Visit, file: Path, width: int, finger: bool) -> None:
    page = visit(file, width=width)
    page.locator("#point-1 .hit").scroll_into_view_if_needed()
    box, unit = page.locator("#point-1 .hit").bounding_box(), page.locator("#plane").bounding_box()["width"] / 6
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    scrolled = page.evaluate("scrollY")
    path = [(x - unit * step / 10, y - 0.5 * unit * step / 10) for step in range(11)]  # a finger elsewhere would scroll
    if finger:
        device = page.context.new_cdp_session(page)
        for step, (x, y) in enumerate(path):
            touch = {"type": "touchMove" if step else "touchStart", "touchPoints": [{"x": x, "y": y}]}
            device.send("Input.dispatchTouchEvent", touch)
        device.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    else:
        page.mouse.move(*path[0])
        page.mouse.down()
        for place in path[1:]:
            page.mouse.move(*place)
        page.mouse.up()
        page.mouse.move(path[-1][0] + 8, path[-1][1])  # over the point, which moves no more
    points, start = assert_equals_snrlib(page)["points"], _start()["points"]
    assert points.pop(1) == pytest.approx(np.add(start.pop(1), [-1, 0.5]), abs=0.03)
    assert points == start
    assert page.evaluate("scrollY") == scrolled


def test_arrow_keys_move_points_seen_and_heard(page: Any) -> None:
    ring = "getComputedStyle(document.querySelector('#point-0 .hit')).stroke"
    assert page.evaluate(ring) == "none"
    page.locator('[name="mode"]:checked').focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "point-0"
    assert page.evaluate(ring) == "rgb(10, 74, 143)"
    page.keyboard.press("ArrowRight")
    value = distances_of(page.evaluate("playground.state()"), "snr")[0, 1]
    expect(page.locator("#status")).to_contain_text(f"{value:.4f}")
    assert page.locator("[aria-live], [role=status]").count() == 1
    point = page.get_by_role("slider", name="negative n₁")
    point.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowLeft", "Shift+ArrowDown"):
        page.keyboard.press(key)
    assert assert_equals_snrlib(page)["points"][2] == [0.49, 1.59]
    assert point.get_attribute("aria-valuetext") == "u 0.49, v 1.59"
    assert page.evaluate("document.activeElement.id") == "point-2"
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("playground.state().points[2][0]") == 2.9, "it stays in the plane"


def test_signals_are_drawn_by_mouse_and_keys(page: Any) -> None:
    start = _start()["signals"]
    page.get_by_label("signals of 32 components").check()
    page.locator("#signal-1").scroll_into_view_if_needed()
    box = page.locator("#signal-1").bounding_box()
    page.mouse.move(box["x"] + 4.5 / 32 * box["width"], box["y"] + box["height"] / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + 12.5 / 32 * box["width"], box["y"] + 3 * box["height"] / 4)  # one jump over 8 components
    page.mouse.up()
    drawn = assert_equals_snrlib(page)["signals"]
    top = 0.25 * 2.3 * 3
    np.testing.assert_allclose(drawn[1][4:13], np.linspace(top, -top, 9), atol=0.06)
    np.testing.assert_array_equal(np.delete(drawn[1], range(4, 13)), np.delete(start[1], range(4, 13)))
    assert drawn[0] == start[0]
    signal = page.get_by_role("slider", name="signal a", exact=True)
    signal.focus()
    for key in ("End", "ArrowLeft", "ArrowUp", "Shift+ArrowDown"):
        page.keyboard.press(key)
    changed = page.evaluate("playground.state().signals[0][30]")
    assert changed == pytest.approx(start[0][30] + 0.09, abs=1e-9)
    assert signal.get_attribute("aria-valuetext") == f"component 31 of 32: {changed:.2f}"


def test_buttons_change_signals_repeatably_within_bounds(page: Any) -> None:
    noisy = []
    for _ in range(2):
        page.get_by_label("signals of 32 components").check()
        wanted = {"b = a": 0, "add offset 0.5 to b": 0, "scale b by 1.5": 0.25, "scale both by 1.5": 0.25}
        for button, d in wanted.items():
            page.get_by_role("button", name=button, exact=True).click()
            assert cell(page, "snr 0 1") == pytest.approx(d, abs=1e-12), button
            if button.startswith("add offset"):
                assert cell(page, "euclidean 0 1") == pytest.approx(0.5 * math.sqrt(32))
        page.get_by_role("button", name="add noise to b").click()
        noisy.append(assert_equals_snrlib(page)["signals"][1])
        assert cell(page, "snr 0 1") > 0.25
        if len(noisy) == 1:
            page.get_by_role("button", name="Start again").click()
    assert noisy[0] == noisy[1], "the noise is from a seed"
    for _ in range(8):
        page.get_by_role("button", name="scale both by 1.5", exact=True).click()
    assert np.abs(page.evaluate("playground.state().signals")).max() <= 10, "refused"
    expect(page.locator("#status")).to_contain_text("Not done")


def path_points(page: Any, selector: str) -> list[np.ndarray]:
    """Plane coordinates of the places of each SVG path."""
    paths = page.locator(f"#plane {selector}").evaluate_all("all => all.map((one) => one.getAttribute('d') || '')")
    places = [re.findall(r"(-?[\d.]+(?:e-?\d+)?)[ ,](-?[\d.]+(?:e-?\d+)?)", path) for path in paths]
    return [np.array(found, dtype=float).reshape(-1, 2) / [100, -100] for found in places]


@pytest.mark.parametrize("normalized", [False, True])
def test_lines_and_arrows_are_where_they_belong(page: Any, normalized: bool) -> None:
    change(page, offset=0.4, anchor_offset=-0.2, normalize_embeddings=normalized)
    plane = (np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])).T
    for name, loss in itertools.product(DISTANCES, LOSSES[-1:] if normalized else LOSSES):
        change(page, distance=name, loss=loss)
        state = page.evaluate("playground.state()")
        points = np.array(state["points"])
        steps = -np.array(page.evaluate("playground.numbers().gradient")) @ plane
        rate = float(re.search(r"× ([\d.e−]+)", page.locator("#legend").inner_text())[1].replace("−", "-"))  # type: ignore[index]
        assert 0.3 < rate * np.linalg.norm(steps, axis=1).max() <= 0.9 + 1e-9
        long = [i for i in range(4) if np.linalg.norm(rate * steps[i]) >= 0.03]
        tips = [places[2] for places in path_points(page, ".arrow")]
        np.testing.assert_allclose(tips, (points + rate * steps)[long], atol=1e-6)
        if loss != LOSSES[-1]:  # the lines are the same for every loss
            continue
        x = embeddings(state)
        for selector, anchor in ((".iso:not(.back)", "query"), (".iso.back", "ref")):
            (line,) = path_points(page, selector)
            if anchor == "ref" and name not in ANCHORED:
                assert len(line) == 0
                continue
            assert len(line) > 20
            distance = distance_of(state, name, anchor)
            level = distance(x[:1], x[1:2]).item()
            for place in line[::5]:
                # f = 0 is as far away as its value over its slope in the plane.
                there = torch.tensor(place, requires_grad=True)
                d = distance(x[:1], (there @ torch.from_numpy(plane.T) + state["offset"])[None])[0, 0]
                (slope,) = torch.autograd.grad(d, there)
                assert abs(d.item() - level) < 0.003 * slope.norm().item()
            assert np.linalg.norm(line - points[1], axis=1).min() < 0.12, "it passes through p"


# --- Questions -------------------------------------------------------------------------------------

FAR: dict[str, Any] = {"points": [[1, 0.5], [1, 2], [0, 1], [0, 2]]}
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "asymmetry": ("(a → p) / (p → a) = 4.0000, Var(p)", {"points": [[1, 0.5], [-1, 0.5], [0, 1], [0, 2]]}),
    "triangle": ("1.0000 + 0.2500 < 4.0000 = a → n₁", {"points": [[1, 0.5], [-1, 1], [1, 0.6], [0, 2]]}),
    "offset": ("SNR 0.8580 with these offsets, 0.8580 without; Euclid 2.8636", {}),
    "signals": ("SNR distance a → b = 0.0000, correlation 1.0000", {"signals": _start()["signals"]}),
    "normalisation": ("The first seven agree.", {"normalize_embeddings": False}),
    "flees": ("a flees its positive.", FAR),
    "constant": ("2.250e+12; length of the gradient at a: 0.0000, for it is undefined and held.", FAR),
    "unit": (
        "SNR 1.0000, 5.0000; symmetric SNR 0.7071, 1.7678; correlation 0.2929, 0.2929. Unchanged: correlation.",
        {"points": [[1.5, 0], [1, 0], [0, 1], [0, 2]]},  # SNR is smallest between p and 2p
    ),
}
"""What the page claims of its numbers at each question, and changes after which that does not hold."""


def test_questions_set_and_claim_what_they_ask(page: Any) -> None:
    for number, (lesson, (words, unlike)) in enumerate(QUESTIONS.items(), start=1):
        page.locator(f'[data-lesson="{lesson}"]:is(button)').click()
        article = page.locator("article:visible")
        assert article.count() == 1
        assert article.inner_text().startswith(f"Question {number}.")
        answer = article.locator("details > p")
        assert not answer.is_visible()
        article.locator("summary").click()
        assert len(answer.inner_text().split()) > 40
        holds, text = claim(page)
        assert holds, lesson
        assert words in text
        if unlike:
            change(page, **unlike)
            assert not claim(page)[0], lesson


def test_answers_to_the_questions_are_true(page: Any) -> None:
    def ask(lesson: str) -> None:
        page.evaluate("name => playground.choose(name)", lesson)

    ask("signals")
    page.get_by_role("button", name="scale b by 1.5").click()
    assert claim(page)[0]
    assert "with k = 1.5000: (1 − k)² = 0.2500, SNR distance a → b = 0.2500" in claim(page)[1]

    ask("normalisation")
    set_range(page, "stretch", 1)
    assert "All nine agree" in claim(page)[1]
    set_range(page, "offset", 1)
    assert not claim(page)[0]
    of_offset = {name: cell(page, f"{name} 0 1") for name in DISTANCES}
    assert of_offset["euclidean"] ** 2 == pytest.approx(of_offset["relative_euclidean"])
    assert of_offset["euclidean"] ** 2 == pytest.approx(2 * of_offset["cosine"])

    ask("flees")
    state = page.evaluate("playground.state()")
    x, (value, gradient) = embeddings(state).numpy(), loss_of(state, "distance", "snr", "query")
    towards = 2 * value * (x[0] @ x[1]) / (x[0] @ x[0])  # as the explanation states
    assert -gradient[0] @ (x[1] - x[0]) == pytest.approx(towards)
    page.get_by_role("combobox", name="Distance").select_option("centred_euclidean")
    assert not claim(page)[0]

    ask("constant")
    assert page.locator("#legend .back").count() == 0, "every anchor is at 1 from a constant vector"
    assert cell(page, "symmetric_snr 0 1") == cell(page, "symmetric_snr 1 0") > 1e5
    assert cell(page, "correlation 0 1") == pytest.approx(0.5)
    page.get_by_role("combobox", name="Distance").select_option("correlation")
    assert page.locator("#legend .swatch").count() == 0, "and all are in the same direction"
    page.get_by_role("combobox", name="Distance").select_option("snr")
    page.locator("#point-0").focus()
    page.keyboard.press("Shift+ArrowRight")
    assert not claim(page)[0]
    assert 1e4 < cell(page, "snr 0 1") < 1e5
    assert cell(page, "gradient 0 length") > 1e5

    ask("unit")
    a, ray = (1.0, 0.0), np.array([0.6, 0.8])  # the correlation is 0.6
    found = {}
    for r in (0.5, 0.6, 0.7, 0.9, 1.0, 1.1):
        change(page, points=[a, (r * ray).tolist(), *_start()["points"][2:]])
        found[r] = {name: cell(page, f"{name} 0 1") for name in DISTANCES}
        assert found[r]["snr"] == pytest.approx(1 + r**2 - 2 * r * 0.6)
        assert found[r]["symmetric_snr"] == pytest.approx(r + 1 / r - 2 * 0.6)
        assert found[r]["symmetric_snr"] ** 2 == pytest.approx(found[r]["snr"] * cell(page, "snr 1 0"))
        assert found[r]["correlation"] == pytest.approx(1 - 0.6)
    assert min(found, key=lambda r: found[r]["snr"]) == 0.6
    assert min(found, key=lambda r: found[r]["symmetric_snr"]) == 1
    assert found[1]["symmetric_snr"] == pytest.approx(2 * found[1]["correlation"])
    change(page, points=[[2 * u, 2 * v] for u, v in page.evaluate("playground.state().points")])
    assert cell(page, "snr 0 1") == pytest.approx(found[1.1]["snr"]), "a common scale"
    assert cell(page, "symmetric_snr 0 1") == pytest.approx(found[1.1]["symmetric_snr"])


def test_the_side_of_the_anchor_matters_as_said(page: Any) -> None:
    values = """anchor => playground.numbers({anchor, anchor_offset: 0.3}).losses"""
    query, ref = page.evaluate(values, "query"), page.evaluate(values, "ref")
    differ = {(name, loss) for name in DISTANCES for loss in LOSSES if abs(query[name][loss] - ref[name][loss]) > 1e-9}
    assert differ == set(itertools.product(ANCHORED, set(LOSSES) - {"contrastive"}))  # question 1
    for name in DISTANCES:
        page.get_by_role("combobox", name="Distance").select_option(name)
        said = page.locator("#legend, #matrix caption, #formulas [data-anchored]:visible").all_inner_texts()
        assert ("anchor" in " ".join(said)) == (name in ANCHORED)
        assert ("anchor" in page.locator("#snippet").input_value()) == (name in ANCHORED)


def test_answers_about_the_sliders_are_true(page: Any) -> None:
    page.get_by_label("signals of 32 components").check()
    numbers = re.findall(r"question (\d+)", page.locator("#see").inner_html())
    assert numbers == [str(number) for number in range(9, 15)]
    page.locator("#see details:has(details) > summary").click()
    asked = page.locator("#see details details summary").all_inner_texts()
    assert [text.split(".")[0] for text in asked] == numbers

    def d(**changes: float) -> dict[str, float]:
        """From a to p, and under "back" from p to a by the relative distances."""
        found = page.evaluate("changes => playground.numbers(changes).distances", changes)
        return {name: d[0][1] for name, d in found.items()} | {f"{name} back": found[name][1][0] for name in ANCHORED}

    e = distances_of(_start(), "snr")
    nearest_negative = np.r_[e[:2, 2:].min(axis=1), e[2:, :2].min(axis=1)]
    hardest = np.maximum(e[[0, 1, 2, 3], [1, 0, 3, 2]] - nearest_negative, 0).mean()
    nt_xent = "s => playground.numbers({mode: 'points', scale: s}).losses.snr.nt_xent / s"
    at = [page.evaluate(nt_xent, s) for s in (1, 3, 10, 1e4)]
    assert at == sorted(at, reverse=True)  # question 10
    assert at[-1] == pytest.approx(hardest, rel=1e-3)
    assert hardest > 0.1
    assert d(stretch=1)["mahalanobis"] == pytest.approx(d()["euclidean"])  # question 11
    assert d(stretch=0)["mahalanobis"] == pytest.approx(d()["centred_euclidean"])
    assert d(stretch=0)["relative_mahalanobis back"] == pytest.approx(d()["snr back"])
    page.get_by_role("button", name="Start again").click()
    nearest = min(range(-90, 95, 5), key=lambda angle: d(angle=angle)["mahalanobis"])  # question 12
    towards = math.degrees(math.atan2(*np.subtract(*page.evaluate("playground.state().points.slice(0, 2)"))[::-1]))
    assert abs((nearest - towards) % 180 - 90) <= 2.5, "the long axis, across the stretched one, points at p"
    changed = {name for name, value in d(anchor_offset=1).items() if abs(value - d()[name]) > 1e-6}  # question 13
    assert changed >= {f"{name}{side}" for name in ANCHORED if name != "snr" for side in ("", " back")}
    assert not changed & {"snr", "snr back"}
    by_offset = [d(anchor_offset=both, offset=both)["relative_euclidean"] for both in (2, 1, 0)]  # question 14
    assert by_offset == sorted(by_offset)


# --- The page --------------------------------------------------------------------------------------


def test_nothing_overflows_and_targets_are_large(page: Any) -> None:
    small = """[...document.querySelectorAll('button, select, summary, input, .hit, textarea')]
      .filter((one) => one.checkVisibility()).map((one) => [one.outerHTML.slice(0, 60), one.getBoundingClientRect()])
      .filter(([, box]) => box.width < 24 || box.height < 24)"""
    for width, lesson in [(320, lesson) for lesson in LESSONS] + [(width, "start") for width in (375, 768, 1024, 1440)]:
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("name => playground.choose(name)", lesson)
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, lesson
        assert page.evaluate(small) == []
    lefts = [page.locator(f"#{name}").bounding_box()["x"] for name in ("see", "numbers", "formulas")]
    assert lefts == sorted(set(lefts)), "three columns"


@pytest.mark.parametrize("mode", ["points", "signals"])
def test_keys_reach_every_control_and_each_has_name(visit: Visit, file: Path, mode: str) -> None:
    page = visit(f"{file.resolve().as_uri()}#asymmetry")
    assert page.locator("article:visible").inner_text().startswith("Question 1."), "the address says which"
    change(page, mode=mode)
    page.evaluate("document.getElementById('python').open = true")
    page.evaluate(
        """[...document.querySelectorAll('button, select, input, textarea, summary, [tabindex="0"]')]
          .filter((one) => one.checkVisibility() && !(one.type === 'radio' && !one.checked))
          .forEach((one, i) => { one.dataset.tab = i; })"""
    )
    waiting = page.locator("[data-tab]").count()
    assert waiting > 20
    for _ in range(waiting + 3):
        page.keyboard.press("Tab")
        page.evaluate("document.activeElement.dataset.visited = 'yes'")
    missed = page.locator('[data-tab]:not([data-visited="yes"])')
    assert missed.evaluate_all("all => all.map((one) => one.outerHTML)") == []
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    controls = [
        (node["role"]["value"], node.get("name", {}).get("value", "").strip())
        for node in tree
        if not node["ignored"] and any(one["name"] == "focusable" for one in node.get("properties", []))
    ]
    controls = [(role, name) for role, name in controls if role != "RootWebArea"]
    assert len(controls) >= waiting
    assert not [role for role, name in controls if not name]
    sliders = [name for role, name in controls if role == "slider"]
    assert len(sliders) == len(set(sliders))


@pytest.mark.parametrize("asked", ["<script>document.title='taken'</script>", "constructor", "__proto__", "%"])
def test_an_unknown_question_begins_at_the_start(visit: Visit, file: Path, asked: str) -> None:
    page = visit(f"{file.resolve().as_uri()}#{asked}")
    assert assert_equals_snrlib(page) == _start()
    assert page.title().startswith("Playground")
    assert page.locator("[data-lesson='start']:visible").count() == 2


def test_it_works_in_a_notebooks_frame(visit: Visit, tmp_path: Path) -> None:
    around = tmp_path / "notebook.html"
    around.write_text(f"<!DOCTYPE html><title>A notebook</title>{playground()._repr_html_()}", encoding="utf-8")
    page = visit(around)
    assert page.locator("iframe").get_attribute("title")
    frame = page.frame_locator("iframe")
    frame.locator("#point-0").focus()
    page.keyboard.press("ArrowLeft")
    assert assert_equals_snrlib(page.frames[1])["points"][0] == [1.1, 0.5]
    frame.locator("#copy").click()
    expect(frame.locator("#copy")).not_to_have_text("Copy as Python")
    assert frame.locator("#snippet").is_visible()


def test_formulas_are_drawn_and_follow_the_distance(page: Any, file: Path) -> None:
    html = file.read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert not re.search(r"\{\{|\\\[|\\\(", html), "no place is left unfilled, no formula unconverted"
    for number in range(1, 11):  # the equations of the report that it names
        assert f"({number})" in html or f"eq. {number}" in html, number
    assert page.locator("math").count() >= 20
    for box in page.locator(".formula-box").all():
        assert box.locator("math:visible").first.bounding_box()["width"] > 40
    page.get_by_role("combobox", name="Loss").select_option("lifted")
    for distance in DISTANCES:
        page.get_by_role("combobox", name="Distance").select_option(distance)
        assert page.locator(".formula-box.chosen h3").all_inner_texts() == [distance, "lifted"]
        kinds = page.locator("[data-kind]:visible").evaluate_all("all => all.map((one) => one.dataset.kind)")
        assert set(kinds) == {"relative" if distance in RELATIVE else "absolute"}
