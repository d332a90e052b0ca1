"""The page to read and share: it asks for nothing, every link resolves, every number says where it is from."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from snrlib.study.reference import STUDIES

from snrlib.cli.main import main
from snrlib.notebooks import run as runs
from snrlib.notebooks.find import find_notebook
from snrlib.notebooks.parameters import parameters
from snrlib.report import index as report
from snrlib.report.html import cells
from snrlib.study import grid
from snrlib.study.tables import loss_table, stored
from snrlib.study.workflow import summarize
from snrlib.utils.markup import Markup

VOID = {"meta", "img", "br", "hr", "link", "input", "source", "wbr", "col", "area", "base", "embed", "track"}
BODY = """
from snrlib.notebooks.inside import record
if break_it:
    raise RuntimeError("broken <on purpose>")
record({"doubled": 2 * size, "share": 1 / 3, "name": "a < b"})
"""


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, anchors, text outside of code, cells of provenance."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.facts: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self._shown = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == [], f"{path.name}: not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        self._shown = ""
        if tag == "td" and (key := dict(attrs).get("data-key")):
            self.facts.append((key, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag and self.open[-1] in ("p", "li", "td", "th", "tr"):
            self.open.pop()  # which HTML lets end by themselves
        assert self.open, f"</{tag}> ends nothing"
        assert self.open.pop() == tag
        if tag == "td" and self.facts and not self.facts[-1][1]:
            self.facts[-1] = (self.facts[-1][0], self._shown)
        if tag in ("h1", "h2", "h3"):
            self.headings.append(self._shown)

    def handle_data(self, data: str) -> None:
        self._shown += data
        if not {"pre", "code", "style", "title"} & set(self.open):
            self.text += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    @property
    def anchors(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]


def _pages(index: Path) -> dict[str, Page]:
    return {path.name: Page(path) for path in sorted(index.parent.iterdir())}


EXPLORED = {"playground.html", "tsne.html"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    """The report of this study from its stored notebooks, without any run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNR_RUNS", str(tmp_path_factory.mktemp("study")))
        return _pages(report.build())


@pytest.fixture(scope="module")
def pages(built: dict[str, Page]) -> dict[str, Page]:
    """Those to read; the others have scripts and are tested in a browser."""
    return {name: page for name, page in built.items() if name not in EXPLORED}


def test_the_index_shows_and_leads_to_the_pages_to_explore(built: dict[str, Page]) -> None:
    assert set(built) >= EXPLORED
    links = [link["href"] for link in built["index.html"].all("a")]
    assert set(links) >= EXPLORED
    pictures = [image["alt"] or "" for image in built["index.html"].all("img")]
    assert [alt for alt in pictures if "t-SNE maps" in alt and "R@1" in alt]
    assert [alt for alt in pictures if "playground" in alt]


def test_there_is_a_page_for_every_notebook_and_one_to_begin_with(pages: dict[str, Page], repository: Path) -> None:
    stems = sorted(path.stem for path in (repository / "notebooks").glob("*.ipynb"))
    assert sorted(pages) == [*(f"{stem}.html" for stem in stems), "index.html"]
    assert pages["index.html"].headings[0] == "Does the SNR distance help, when, and why?"
    order = [*(f"{stem}.html" for stem in stems)]
    for number, name in enumerate(order):
        links = {str(link.get("rel")): link["href"] for link in pages[name].all("a") if "rel" in link}
        assert links.get("prev") == (order[number - 1] if number else None)
        assert links.get("next") == (order[number + 1] if number + 1 < len(order) else None)
        hrefs = [link["href"] for link in pages[name].all("a")]
        assert hrefs.count("index.html") == 2, "above and below the text"
        assert set(order) <= set(hrefs)


def test_no_page_asks_for_anything_from_elsewhere(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        for tag, attributes in page.elements:
            assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form", "video", "audio"), name
            for key, value in attributes.items():
                if key in ("src", "srcset", "data", "poster", "background", "action"):
                    assert (value or "").startswith("data:image/png;base64,"), f"{name}: {tag} {key}"
                assert not key.startswith("on"), f"{name}: {tag} {key}"
        policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
        assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    style = re.findall(r"<style>(.*?)</style>", report.page("", "", "", ""), re.DOTALL)[0]
    assert "url(" not in style
    assert "@import" not in style


def test_every_internal_link_resolves_and_anchors_are_unique(pages: dict[str, Page]) -> None:
    followed = 0
    for name, page in pages.items():
        assert len(set(page.anchors)) == len(page.anchors), name
        for link in page.all("a"):
            parts = urlsplit(link.get("href") or "")
            if parts.scheme in ("http", "https"):
                continue
            assert not parts.scheme, link
            if parts.path in EXPLORED:
                continue
            target = pages[parts.path or name]
            if parts.fragment:
                assert unquote(parts.fragment) in target.anchors, f"{name}: {link['href']}"
                followed += parts.path != ""
    assert followed > 30, "from page to page, to a heading"


def test_every_link_of_a_notebook_is_a_link_of_its_page(pages: dict[str, Page], repository: Path) -> None:
    for path in (repository / "notebooks").glob("*.ipynb"):
        source = [
            cell.source
            for cell in nbformat.read(path, as_version=4).cells
            if cell.cell_type == "markdown" and "navigation" not in cell.metadata.get("tags", [])
        ]
        asked = len(re.findall(r"\]\([^)\s]+\)", "\n".join(source)))
        own = [link for link in pages[f"{path.stem}.html"].all("a") if "href" in link]
        around = [link for link in own if link["href"] in ("#text", "index.html") or "rel" in link]
        notebooks = 2 * (len(pages) - 1)  # the list above and below
        contents = len([link for link in own if (link["href"] or "").startswith("#")]) - 1
        inside = len(re.findall(r"\]\(#", "\n".join(source)))
        assert len(own) == asked + len(around) + notebooks + contents - inside, path.stem


def test_formulas_are_mathml_and_no_dollar_is_left(pages: dict[str, Page], repository: Path) -> None:
    for name, page in pages.items():
        assert "$" not in page.text, name
        assert "\\" not in page.text, name
        assert not [code for code in page.all("code") if code.get("class") == "tex"], name
    assert len(pages["03_correlation.html"].all("math")) > 100


def test_every_image_has_words_and_every_figure_of_the_notebooks_is_there(
    pages: dict[str, Page], repository: Path
) -> None:
    for path in (repository / "notebooks").glob("*.ipynb"):
        outputs = [out for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", [])]
        alts = [out.metadata["image/png"]["alt"] for out in outputs if "image/png" in out.get("data", {})]
        images = pages[f"{path.stem}.html"].all("img")
        assert [image["alt"] for image in images] == alts
        assert all(image["width"] and image["height"] for image in images)
    pictures = pages["index.html"].all("img")
    assert len(pictures) == 1 + len(EXPLORED)
    assert all(picture["alt"] for picture in pictures)


def test_pages_can_be_read_by_anyone(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        (html,) = page.all("html")
        assert html["lang"] == "en"
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
        assert [level for level, _ in page.elements if level == "h1"] == ["h1"], name
        assert page.all("main")
        assert page.all("nav")
        assert len({nav["aria-label"] for nav in page.all("nav")}) == len(page.all("nav"))
        assert len(page.all("summary")) == len(page.all("details"))
        assert "run here" in page.text


def test_code_is_folded_except_in_exercises_and_checks(pages: dict[str, Page], repository: Path) -> None:
    for path in (repository / "notebooks").glob("*.ipynb"):
        code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        shown = [bool({"exercise", "check"} & set(cell.metadata.get("tags", []))) for cell in code]
        folds = [fold for fold in pages[f"{path.stem}.html"].all("details") if fold.get("class") == "code"]
        assert ["open" in fold for fold in folds] == shown


def test_the_reference_tables_hold_the_stored_numbers(pages: dict[str, Page]) -> None:
    text = pages["index.html"].text.replace("\N{NO-BREAK SPACE}", " ")
    for name, study in STUDIES.items():
        about = stored(name).about
        facts = pages["index.html"].facts
        assert ("command", about["command"]) in facts
        assert ("cpu", about["cpu"]) in facts
        assert ("git_commit", about["git_commit"]) in facts
        assert ("study.seeds", json.dumps(about["study"]["seeds"])) in facts
        assert f"{about['tuned_margins'][0]['margin']}" in text
        if len(study.losses) > 1:
            for value in loss_table(stored(name).runs).to_numpy().ravel():
                assert value in text


def _write(path: Path, question: str, *code: str) -> None:
    tags = [["parameters"], []]
    made = [new_code_cell(text.strip(), metadata={"tags": tag}) for text, tag in zip(code, tags, strict=False)]
    notebook = new_notebook(cells=[new_markdown_cell(f"# {question}"), *made])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)


PARAMETERS = "size: float = 1.5  # of it [0 to 10]\nbreak_it: bool = False  # raise\nseed: int = 7  # of the draws"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Path:
    """A study of two small notebooks, in a folder of its own."""
    _write(tmp_path / "notebooks" / "01_small.ipynb", "How small?", PARAMETERS, BODY)
    _write(tmp_path / "notebooks" / "02_other.ipynb", "What else?", "seed: int = 0  # of the draws", "print(seed)")
    shutil.copy(repository / "Snakefile", tmp_path)
    (tmp_path / "study.yaml").write_text("profiles: {quick: []}")
    monkeypatch.setenv("SNR_ROOT", str(tmp_path))
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "data" / "runs"))
    return tmp_path


def _flat(row: dict[str, Any]) -> list[tuple[str, str]]:
    flat = []
    for key, value in row.items():
        for inner, each in value.items() if isinstance(value, dict) and value else [(None, value)]:
            flat.append(
                (key if inner is None else f"{key}.{inner}", each if isinstance(each, str) else json.dumps(each))
            )
    return flat


def test_the_provenance_of_a_run_is_its_result_row(study: Path) -> None:
    output = Path(runs.run("01")["output"])
    row = json.loads((output.parent / "result.json").read_text())
    assert row["seed"] == 7
    pages = _pages(report.build())
    expected = _flat(row)
    assert {"seed", "git_commit", "wall_time_s", "parameters.size", "metrics.share", "versions.torch"} <= dict(
        expected
    ).keys()
    assert sorted(pages["01_small.html"].facts) == sorted(expected)
    assert sorted(pages["index.html"].facts) == sorted(expected), "of 01 alone: 02 was not run"
    assert "02 other: not run here" in pages["index.html"].text
    assert "outputs that are stored with the study" in pages["02_other.html"].text
    assert "note" not in [element.get("class") for element in pages["01_small.html"].all("p")]
    assert "glyphs is not stored here" in pages["index.html"].text


def test_a_study_without_gaps_says_so(study: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["study"]) == 0
    index = study / "data" / "runs" / "report" / "index.html"
    assert f"The page to read and share: {index}\n" in capsys.readouterr().out
    assert "All 2 notebooks were run here" in Page(index).text
    assert main(["report"]) == 0
    assert capsys.readouterr().out == f"{index}\n"


def test_a_failed_run_is_said_with_its_reason(study: Path, capsys: pytest.CaptureFixture) -> None:
    _write(study / "notebooks" / "01_small.ipynb", "How small?", PARAMETERS.replace("False", "True"), BODY)
    assert main(["study"]) == 1
    assert "The page to read and share" in capsys.readouterr().out
    text = Page(study / "data" / "runs" / "report" / "index.html").text
    assert "01 small: the last run failed, cell 2, RuntimeError: broken <on purpose>" in text
    assert "(partial copy: 01_small/default/01_small.failed.ipynb)" in text


def test_a_failure_after_a_good_run_shows_the_good_run_and_says_both(study: Path) -> None:
    runs.run("01")
    _write(study / "notebooks" / "01_small.ipynb", "How small?", PARAMETERS.replace("False", "True"), BODY)
    with pytest.raises(runs.NotebookError):
        runs.run("01")
    pages = _pages(report.build())
    text = pages["01_small.html"].text
    assert "the last run failed, cell 2, RuntimeError" in text
    assert "run by an earlier version of the notebook or the library" in text
    assert ("metrics.doubled", "3.0") in pages["01_small.html"].facts


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("result.json", None, "result.json is missing"),
        ("result.json", "{", "result.json is not JSON"),
        ("result.json", "[1]", "result.json is not the row of a run"),
        ("result.json", '{"notebook": "02_other"}', "result.json is not the row of a run"),
        ("02_other.ipynb", None, "02_other.ipynb is missing"),
        ("02_other.ipynb", '{"cells": [', "02_other.ipynb is damaged"),
        ("02_other.ipynb", '{"cells": [{"cell_type": "code"}], "nbformat": 4}', "02_other.ipynb is damaged"),
        ("02_other.ipynb", "\0\1", "02_other.ipynb is damaged"),
    ],
)
def test_a_damaged_run_is_said_and_the_stored_notebook_shown(
    study: Path, name: str, content: str | None, reason: str
) -> None:
    folder = study / "data" / "runs" / "02_other" / "default"
    folder.mkdir(parents=True)
    row = {
        "notebook": "02_other",
        "parameters": {},
        "metrics": {},
        "data": {},
        "versions": {},
        "finished": "2026-11-25",
    }
    (folder / "result.json").write_text(json.dumps(row | {"wall_time_s": 1.5, "source": "old"}))
    (folder / "02_other.ipynb").write_bytes((study / "notebooks" / "02_other.ipynb").read_bytes())
    assert "run of 2026-11-25, 2\N{NO-BREAK SPACE}s" in Page(report.build()).text
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    pages = _pages(report.build())
    for page in (pages["index.html"], pages["02_other.html"]):
        assert f"the run in 02_other/default cannot be used, {reason}" in page.text
    assert "stored with the study" in pages["02_other.html"].text


def test_a_damaged_notebook_is_refused_in_words_and_the_old_page_stays(
    study: Path, capsys: pytest.CaptureFixture
) -> None:
    index = report.build()
    before = index.read_bytes()
    (study / "notebooks" / "01_small.ipynb").write_text("{")
    assert main(["report"]) == 2
    error = capsys.readouterr().err
    assert "01_small.ipynb is damaged" in error
    assert "Traceback" not in error
    assert index.read_bytes() == before


def test_damaged_studies_are_said(study: Path, repository: Path) -> None:
    reference = study / "data" / "reference"
    reference.mkdir(parents=True)
    source = repository / "data" / "reference"
    for name in ("glyphs.csv", "glyphs.json"):
        (reference / name).write_bytes((source / name).read_bytes())
    (reference / "glyphs.csv").write_text("\n".join((source / "glyphs.csv").read_text().splitlines()[:-1]) + "\n")
    (reference / "omniglot.json").write_text("{")
    (reference / "omniglot.csv").write_text("")
    text = Page(report.build()).text
    assert re.search(r"glyphs is damaged: .*has 65 rows, glyphs.json speaks of 66", text)
    assert "omniglot is damaged" in text
    assert "omniglot: omniglot.json is damaged." in text


# --- the grid ---------------------------------------------------------------------------------------------------------

AXES: dict[str, Any] = {
    "data": ["digits"],
    "backbone": ["conv4"],
    "loss": ["triplet", "contrastive"],
    "seed": [0, 1, 2],
}


def _grid(study: Path, repository: Path, *blocks: dict[str, Any]) -> grid.Grid:
    """A profile of these cells, begun and not yet run."""
    shutil.copy(repository / "notebooks" / "05_train.ipynb", study / "notebooks")
    (study / "study.yaml").write_text(yaml.safe_dump({"profiles": {"<small>": list(blocks), "other": list(blocks)}}))
    found = grid.Grid("<small>")
    summarize(found)
    return found


def _finish(task: grid.Task, score: float, **changes: Any) -> None:
    task.output.parent.mkdir(parents=True, exist_ok=True)
    task.output.write_text("{}")
    chosen = {name: known.default for name, known in parameters("05").items()} | task.values
    metrics = {"training distance: precision_at_1": score, "setting margin": 1.5, "setting optimizer": "adam <w>"}
    row = {"notebook": "05_train", "parameters": chosen, "seed": task.values["seed"], "metrics": metrics}
    row |= {"data": {"digits, test": "0123abcd"}}
    row |= {"git_commit": "c0ffee", "versions": {"torch": "2.13.0"}, "wall_time_s": 30.25}
    row["finished"] = f"2026-11-25T01:00:0{task.values['seed']}+00:00"
    row["source"] = changes.get("source") or runs.source_fingerprint(find_notebook("05"))
    runs.result_path(task.output).write_text(json.dumps(row | changes))


def _section(index: Path) -> tuple[str, str]:
    """The grid's part of the page, and the list of what is missing above it."""
    text = index.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    above = text.partition("out of date</h2>")[2].partition("<h2")[0]
    return text.partition('<h2 id="grid">')[2].partition("<h2>")[0], above


def test_the_grid_has_its_scores_its_gaps_and_where_each_number_is_from(study: Path, repository: Path) -> None:
    done = _grid(study, repository, {**AXES, "distance": ["euclidean", "snr"]})
    scores = {}
    for number, task in enumerate(done.cells):
        if task.values["seed"] < 2:
            scores[task] = 0.5 + number / 100 + 0.2 * (task.values["distance"] == "snr")
            _finish(task, scores[task])
        elif task.values["distance"] == "snr":
            task.output.parent.mkdir()
            task.log.write_text("snr: 05_train failed: ValueError: a <b> & `more`\n")
    index = report.build()
    html, above = _section(index)
    page = Page(index)
    assert "Profile <small>: 8 of 12 cells done" in page.headings
    assert "digits with conv4: 8 of 12 cells, 2 seeds each" in html
    rows = [
        {**task.values, "precision_at_1": score, "judged_by": "training distance"} for task, score in scores.items()
    ]
    table = loss_table(pd.DataFrame(rows))
    for name, line in table.iterrows():
        assert f"<tr><td>{name}</td>{''.join(f'<td>{text}</td>' for text in line)}</tr>" in html
    assert "▲" in " ".join(map(str, table.loc["snr"]))
    assert '<a href="#grid">The grid</a>: 4 of 12 cells of profile &lt;small&gt; are missing.' in above
    assert "2 cells: 05_train failed: ValueError: a &lt;b&gt; &amp; <code>more</code>" in html
    assert "2 cells: it did not run to its end" in html
    assert html.count("<li><code>digits-conv4-") == 4
    assert {
        ("git_commit", "c0ffee"),
        ("versions.torch", "2.13.0"),
        ("data.digits, test", "0123abcd"),
        ("parameters.backbone", "conv4"),
        ("as_trained.margin", "1.5"),
        ("as_trained.optimizer", "adam <w>"),
    } <= set(page.facts)
    assert "parameters.loss" not in dict(page.facts), "it varies: a column"
    for task in scores:
        p = task.values
        cells = (p["distance"], p["loss"], p["seed"], f"2026-11-25T01:00:0{p['seed']}+00:00", "30.25")
        assert html.count("".join(f"<td>{cell}</td>" for cell in cells)) == 1
    assert "other" not in html, "it was not begun"
    _pages(index)


def test_a_large_grid_keeps_the_page_small(study: Path, repository: Path) -> None:
    block = {**AXES, "distance": ["euclidean", "snr"], "seed": list(range(75))}
    cells = _grid(study, repository, block).cells
    source = runs.source_fingerprint(find_notebook("05"))
    for task in cells:
        _finish(task, 0.5, source=source)
    html, above = _section(report.build())
    assert html.count("30.25</td></tr>") == 300
    assert len(html) < 60_000
    assert "grid" not in above


def test_a_grid_of_an_earlier_version_is_shown_and_said_to_be(study: Path, repository: Path) -> None:
    cells = _grid(study, repository, {**AXES, "distance": ["snr"]}).cells
    for task in cells[:2]:
        _finish(task, 0.5, source="of old")
    _finish(cells[2], 0.5, source="of old", versions=None)
    html, above = _section(report.build())
    assert "2 of 6 cells are there" in html
    assert (
        "run with other values, or by an earlier version of the notebook or the library; <code>snr study --profile"
        in html
    )
    assert "<td>snr</td><td>0.500 ± 0.000</td>" in html
    assert "all results of profile &lt;small&gt; are of an earlier version" in above
    assert "Missing, 4 of 6 cells" in html
    _finish(cells[3], 0.25)
    html, above = _section(report.build())
    assert "1 of 6 cells done" in html
    assert "<td>snr</td><td>0.250</td>" in html, "one seed has no interval; versions are not mixed"
    assert "3 cells: its result is of other values, or of an earlier notebook or library" in html
    assert "5 of 6 cells of profile &lt;small&gt; are missing" in above


def test_a_grid_that_cannot_be_read_is_said(study: Path, repository: Path) -> None:
    cells = _grid(study, repository, {**AXES, "distance": ["euclidean"]}).cells
    assert "0 of 6 cells done" in _section(report.build())[0]
    for task in cells[:4]:
        _finish(task, 0.5)
    html = _section(report.build())[0]
    assert "<td>euclidean</td><td>0.500 ± 0.000</td><td>0.500</td>" in html, "nothing to compare with"
    (study / "study.yaml").write_text("profiles: [")
    html, above = _section(report.build())
    assert "&lt;small&gt;: study.yaml: while parsing" in html
    assert "profile &lt;small&gt; cannot be read" in above
    (study / "study.yaml").write_text("profiles: {quick: []}")
    html, above = _section(report.build())
    assert html == ""
    assert "grid" not in above


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("when", "how"),
    [
        ("writing", signal.SIGKILL),
        pytest.param("writing", signal.SIGTERM, marks=SLOW),
        pytest.param("renaming", signal.SIGKILL, marks=SLOW),
        pytest.param("renaming", signal.SIGTERM, marks=SLOW),
    ],
)
def test_a_build_that_is_killed_leaves_the_old_page_whole(study: Path, when: str, how: signal.Signals) -> None:
    index = report.build()
    before = _tree(index.parent)
    _write(study / "notebooks" / "03_new.ipynb", "And this?", "seed: int = 0  # of the draws", "print(seed)")
    wait = "print('here', flush=True) or time.sleep(60)"
    slow = {
        "writing": f"report._page = lambda *_: {wait}",
        "renaming": "rename = Path.rename\n"
        f"Path.rename = lambda path, to: {wait} if '.partial-' in path.name else rename(path, to)",
    }[when]
    code = (
        f"import time\nfrom pathlib import Path\nfrom snrlib import report\nfrom snrlib.cli.main import main\n{slow}\n"
    )
    with subprocess.Popen([sys.executable, "-c", f"{code}main(['report'])"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"here\n"
        process.send_signal(how)
    old = index.parent
    if (when, how) == ("renaming", signal.SIGKILL):  # between two renames: whole, and the next build puts it back
        old = index.parent.with_name(".report.before")
    assert _tree(old) == before
    assert sorted(_tree(report.build().parent)) == [
        "01_small.html",
        "02_other.html",
        "03_new.html",
        "index.html",
        "playground.html",
    ]
    assert [path.name for path in (study / "data" / "runs").iterdir()] == ["report"], "nothing is left behind"


def test_an_error_while_building_leaves_the_old_page_whole(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = report.build()
    before = _tree(index.parent)
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name.startswith(".report.partial"):
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match=r"cannot write .*report: No space left on device\. SNR_RUNS=FOLDER"):
        report.build()
    assert _tree(index.parent) == before
    assert [path.name for path in index.parent.parent.iterdir()] == ["report"]


@SLOW
def test_two_builds_at_once_both_succeed(study: Path) -> None:
    command = [sys.executable, "-m", "snrlib", "report"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in both] == [f"{study}/data/runs/report/index.html\n"] * 2
    assert [path.name for path in (study / "data" / "runs").iterdir()] == ["report"]


def test_a_folder_that_is_no_report_is_not_replaced(study: Path, capsys: pytest.CaptureFixture) -> None:
    mine = study / "data" / "runs" / "report" / "thesis.tex"
    mine.parent.mkdir(parents=True)
    mine.write_text("a year of work")
    assert main(["report"]) == 2
    assert "holds something that is not a report; move it away" in capsys.readouterr().err
    assert mine.read_text() == "a year of work"


def test_no_notebooks_and_no_place_are_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SNR_RUNS", str(tmp_path / "file" / "runs"))
    assert main(["report"]) == 2
    assert "SNR_RUNS=FOLDER chooses another place" in capsys.readouterr().err
    monkeypatch.setenv("SNR_ROOT", str(tmp_path / "nothing"))
    assert main(["report"]) == 2
    assert "no notebooks in" in capsys.readouterr().err


def test_outputs_that_would_ask_for_something_are_shown_as_text() -> None:
    def shown(data: dict[str, str]) -> str:
        return cells(new_notebook(cells=[new_code_cell("1", outputs=[new_output("display_data", data)])]), Markup())

    for html in ("<script>x</script>", '<img src="https://example.org/x.png">', "<iframe></iframe>"):
        assert "the words" in shown({"text/html": html, "text/plain": "the words"})
        assert "<pre" in shown({"text/html": html, "text/plain": "the words"})
        assert html not in shown({"text/html": html, "text/plain": "the words"})
    assert "<table>" in shown({"text/html": "<style scoped>x {}</style><table></table>"})
    assert "scoped" not in shown({"text/html": "<style scoped>x {}</style><table></table>"})
    assert "<math" in shown({"text/markdown": "$x$"})
    assert "&lt;b&gt;" in shown({"text/plain": "<b>"})
    assert 'alt="A figure of a cell that was not run, which no words describe"' in shown({"image/png": "iVBORw0KGgo="})


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_write_permission_is_said_in_words(study: Path, capsys: pytest.CaptureFixture) -> None:
    (study / "data" / "runs").mkdir(parents=True, mode=0o500)
    assert main(["report"]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_run_that_is_going_on_or_was_cut_off_is_said(study: Path) -> None:
    folder = study / "data" / "runs" / "01_small" / "default"
    folder.mkdir(parents=True)
    (folder / ".01_small.partial-abc.ipynb").write_text("")
    started = time.monotonic()
    assert "01 small: a run was cut off, or is still going on." in Page(report.build()).text
    assert time.monotonic() - started < 30


def test_what_a_cell_prints_in_pieces_is_one_result() -> None:
    pieces = [new_output("stream", name="stdout", text=text) for text in ("one\n", "two\n")]
    other = new_output("display_data", {"text/plain": "three"})
    last = new_output("stream", name="stdout", text="four\n")
    html = cells(new_notebook(cells=[new_code_cell("1", outputs=[*pieces, other, last])]), Markup())
    assert re.findall(r'<pre class="result">(.*?)</pre>', html, re.DOTALL) == ["one\ntwo", "three", "four"]
