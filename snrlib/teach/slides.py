"""Slides out of a notebook: a slide for each section, prediction, figure and exercise, the whole text as its notes.

No notebook is marked up for it. A section's slide holds its heading, its first sentences of ours and its first
displayed formula; a figure's slide the figure and its finding, which is the alternative text. reveal.js, style and
figures are part of the page, which asks for nothing. (nbconvert's own exporter of slides loads reveal.js, RequireJS,
jQuery, MathJax and mermaid from other machines.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from nbformat import NotebookNode

from snrlib.utils.markup import Markup

__all__ = ["Slide", "slides", "slides_page"]

_ASSETS = Path(__file__).parent / "assets"
_DETAILS = re.compile(r"<details>.*?</details>\s*", re.DOTALL)
_DISPLAYED = re.compile(r"\$\$.+?\$\$", re.DOTALL)
_WORDS = 60


@dataclass
class Slide:
    """One slide: heading and body in HTML; ``notes``, HTML too, are for the speaker."""

    heading: str
    body: str
    notes: str = ""
    kind: str = ""


def slides(notebook: NotebookNode) -> list[Slide]:
    """The slides of a notebook, in its order."""
    found: list[Slide] = []
    markup = Markup()
    section, before = "", ""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "navigation" in tags or "no-slide" in tags:
            continue
        if cell.cell_type == "markdown":
            before = _DETAILS.sub("", cell.source)
            for part in re.split(r"^(?=#{1,3} |\*\*Exercise \d)", cell.source, flags=re.MULTILINE):
                heading = re.match(r"#{1,3} (.+)|\*\*(Exercise \d+)[^*]*\*\*", part)
                if heading:
                    level = len(part) - len(part.lstrip("#"))
                    text = heading[1] or heading[2]
                    section = text
                    rest = part[heading.end() :] if heading[1] else part
                    kind = "title" if level == 1 else "exercise" if heading[2] else ""
                    notes = markup.html(part[heading.end() :])
                    found.append(Slide(_inline(markup, text), markup.html(_gist(rest)), notes, kind))
                elif found and part.strip():
                    found[-1].notes += markup.html(part)
        elif "prediction" in tags:
            question = before.strip().split("\n\n")[-1]
            options = "" if "- **" in question else f"\n\n`{cell.source.partition('# ')[2]}`"
            found.append(Slide("Predict", markup.html(question + options), kind="prediction"))
        else:
            for output in cell.get("outputs", []):
                if png := output.get("data", {}).get("image/png"):
                    alt = escape(output.metadata.get("image/png", {}).get("alt", ""))
                    image = f'<img src="data:image/png;base64,{"".join(png.split())}" alt="{alt}">'
                    body = f"{image}<p>{alt}</p>"
                    found.append(Slide(_inline(markup, section), body, kind="figure"))
    return [slide for slide in found if slide.body.strip()]


def slides_page(title: str, parts: Sequence[tuple[int, str]], shown: Sequence[Slide]) -> str:
    """One page that holds all it needs.

    Args:
        title: plain text.
        parts: minutes and what is done in them, for the first slide.
        shown: the slides after it.
    """
    environment = Environment(loader=FileSystemLoader(_ASSETS), autoescape=False)
    assets = {name: (_ASSETS / f"{name}").read_text(encoding="utf-8") for name in ("reveal.js", "reveal.css")}
    template = environment.get_template("slides.html.j2")
    return template.render(
        title=title, parts=parts, slides=shown, script=assets["reveal.js"], style=assets["reveal.css"]
    )


def _inline(markup: Markup, text: str) -> str:
    return re.sub(r"^<p>|</p>\s*$", "", markup.html(text))


def _gist(text: str) -> str:
    """The list if there is one, else the first sentences of ours, and the first displayed formula."""
    ours = [
        block
        for block in re.split(r"\n\s*\n", _DETAILS.sub("", text).strip())
        if block.strip() and not re.match(r"\s*(>|\$\$|```|#|\|)", block)
    ]
    formulas = _DISPLAYED.findall(re.sub(r"^>.*$", "", text, flags=re.MULTILINE))
    listed = [block for block in ours if re.match(r"\s*(- |1\. )", block)]
    gist = listed[0] if listed and len(listed[0].split()) <= 2 * _WORDS else _first_sentences(ours[0]) if ours else ""
    return "\n\n".join([gist, *formulas[:1]])


def _first_sentences(text: str) -> str:
    """As many whole sentences as fit; the first in any case."""
    sentences = re.split(r"(?<=[.?!:])\s+(?=[A-Z*`$\[(])", " ".join(text.split()))
    taken = sentences[:1]
    for sentence in sentences[1:]:
        if len(" ".join([*taken, sentence]).split()) > _WORDS:
            break
        taken.append(sentence)
    return " ".join(taken)
