"""The pages of the stored notebooks: they ask for nothing, every link resolves, figures and formulas are there."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from report_cases import pages, rows, stored_report, words

from snrlib.notebooks.find import notebooks
from snrlib.study.contents import loss_tables

STEMS = [path.stem for path in notebooks()]
each_page = pytest.mark.parametrize("name", [*STEMS, "index"])
Pages = dict[str, BeautifulSoup]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """All pages; those to explore have scripts, and are tested in a browser."""
    return pages(stored_report(tmp_path_factory))


def _cells(path: Path, kind: str) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def _all(page: BeautifulSoup, selector: str, attribute: str) -> list[str]:
    return [str(tag[attribute]) for tag in page.select(selector)]


def test_every_notebook_has_a_page_between_its_neighbours(built: Pages) -> None:
    assert set(built) == {*STEMS, "index", "article", "playground", "tsne"}
    for before, stem, after in zip(["", *STEMS], STEMS, [*STEMS[1:], ""], strict=False):
        for rel, other in (("prev", before), ("next", after)):
            assert _all(built[stem], f"nav a[rel={rel}]", "href") == ([f"{other}.html"] * 2 if other else [])
        assert _all(built[stem], "nav ol a", "href") == [f"{other}.html" for other in STEMS] * 2, "above and below"
        assert _all(built[stem], "nav a[aria-current=page]", "href") == [f"{stem}.html"] * 2


@each_page
def test_no_page_asks_for_anything_from_elsewhere(built: Pages, name: str) -> None:
    page = built[name]
    assert not page.find_all(["script", "link", "iframe", "object", "embed", "base", "form", "video", "audio"])
    attributes = [(key, str(value)) for tag in page.find_all(True) for key, value in tag.attrs.items()]
    assert not [key for key, _ in attributes if key.startswith("on")]
    sources = [text for key, text in attributes if key in ("src", "srcset", "data", "poster", "background", "action")]
    assert all(text.startswith("data:image/png;base64,") for text in sources)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert _all(page, "meta[http-equiv=Content-Security-Policy]", "content") == [policy]
    assert not re.search(r"url\(|@import", page.select("style")[0].text)


@each_page
def test_a_page_is_whole_and_readable_by_anyone(built: Pages, name: str) -> None:
    page = built[name]
    assert page.select("html[lang=en] > head > meta[name=viewport]")
    levels = [int(str(heading.name)[1]) for heading in page.select("h1, h2, h3, h4, h5, h6")]
    assert levels[0] == levels.count(1) == len(page.select("html > body > main")) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), "the outline skips no level"
    assert page.select("html > body > :is(footer, main)")[-1] == page.select("body > *")[-1], "all before is closed"
    assert len(set(_all(page, "nav", "aria-label"))) == len(page.find_all("nav")) > 0
    assert all(fold.select(":scope > summary") for fold in page.find_all("details"))
    assert "run here" in words(page)


@each_page
def test_every_internal_link_resolves_to_one_anchor(built: Pages, name: str) -> None:
    for parts in map(urlsplit, _all(built[name], "a[href]", "href")):
        if parts.scheme not in ("http", "https"):
            assert not parts.scheme
            target = built[parts.path.removesuffix(".html") or name]
            assert not parts.fragment or len(target.find_all(id=unquote(parts.fragment))) == 1, parts


@pytest.mark.parametrize("path", notebooks(), ids=STEMS)
def test_a_page_keeps_links_figures_and_formulas(built: Pages, path: Path) -> None:
    page = built[path.stem]
    own = [cell.source for cell in _cells(path, "markdown") if "navigation" not in cell.metadata.get("tags", [])]
    contents = page.select("main > details > ol a")  # "On this page"
    assert len(contents) == len(page.find_all("h2"))
    assert len(page.select("main a[href]")) - len(contents) == len(re.findall(r"\]\([^)\s]+\)", "\n".join(own)))
    outputs = [output for cell in _cells(path, "code") for output in cell.outputs]
    alts = [output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})]
    assert _all(page, "img[width][height]", "alt") == _all(page, "img", "alt") == alts
    text = re.sub(r"```.*?```|`[^`]+`", "", "\n\n".join(own), flags=re.DOTALL)
    assert len(page.find_all("math")) >= text.replace("$$", "$").count("$") / 2
    read = page.select("body")[0].find_all(string=True)
    told = [part for part in read if not part.find_parent(["pre", "code", "td"])]  # a class may be called $
    assert not page.select("code.tex")
    assert not re.search(r"[$\\]", "".join(told))


def test_the_index_holds_stored_numbers_and_leads_on(built: Pages, repository: Path) -> None:
    assert {"article.html", "playground.html", "tsne.html"} <= set(_all(built["index"], "main a", "href"))
    assert re.search("t-SNE maps.*R@1.*playground", " ".join(_all(built["index"], "img", "alt")))
    text, facts = words(built["index"]), rows(built["index"], "facts")
    assert all(number in text for number in re.findall(r"\d\.\d{3}", loss_tables(["boards_glyphs"])))
    for path in (repository / "data" / "reference").glob("*.json"):
        about = json.loads(path.read_text())
        for key in {"command", "cpu", "git_commit"} & set(about):
            value = about[key] if isinstance(about[key], str) else json.dumps(about[key])
            assert [key, value] in facts, path.name
