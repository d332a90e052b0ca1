"""The text of notebooks as HTML that needs nothing from elsewhere: formulas as MathML, headings with anchors."""

from __future__ import annotations

import re
from collections.abc import Collection
from html import escape, unescape
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import mistune
from latex2mathml.converter import convert

__all__ = ["Markup", "mathml", "slug"]

# Code first, so that no formula is seen in it; then a formula as JupyterLab finds it: not across an empty line.
_FORMULA = re.compile(
    r"(?P<code>```.*?```|~~~.*?~~~|``.+?``|`(?:[^`\n]|\n(?!\s*\n))+`|\\\$)"
    r"|\$\$(?P<display>.+?)\$\$|\$(?P<inline>(?:\\.|[^$\\\n]|\n(?!\s*\n))+?)\$",
    re.DOTALL,
)
_STAND_IN = re.compile("\ue000(\\d+)\ue001")  # no character of any text: what Markdown sees in place of a formula
_WORD = re.compile(r'(?:<mi mathvariant="normal">\w</mi>){2,}')
_BOLD = ' mathvariant="normal" style="font-weight: bold"'


def slug(text: str) -> str:
    """The name under which a heading is linked to.

    >>> slug("Signal, noise and their ratio")
    'signal-noise-and-their-ratio'
    """
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def mathml(tex: str, display: bool = False) -> str:
    r"""A formula as MathML; the number of a ``\tag`` is put beside it.

    Raises:
        ValueError: it cannot be converted.
    """
    body, tag = re.sub(r"\\tag\{([^}]*)\}", "", tex), re.search(r"\\tag\{([^}]*)\}", tex)
    body = re.sub(r"(\\(?:begin|end)\{)aligned\}", r"\1split}", body)
    body = re.sub(r"\\mathrm\{(\w)\}", r"\\text{\1}", body)  # else one letter comes out italic
    body = re.sub(r"\\mathcal (\w)", r"\\mathcal{\1}", body)  # else it is a variant that browsers do not know
    try:
        markup = convert(body, display="block" if display else "inline")
        ElementTree.fromstring(markup)
    except Exception as error:  # its parser raises errors of many kinds
        raise ValueError(f"the formula {tex!r} cannot be converted: {type(error).__name__}") from error
    if "\\" in markup:  # a command that it does not know comes out as it went in
        raise ValueError(f"the formula {tex!r} cannot be converted: unknown command")
    # What browsers need: they know no bold variant, read a word better as one, and stretch a bar for its exponent.
    markup = _WORD.sub(lambda match: f"<mi>{''.join(re.findall(r'>(.)<', match[0]))}</mi>", markup)
    markup = markup.replace(' mathvariant="bold"', _BOLD)
    markup = re.sub("<mo>(?=&#x(?:02016|0007C);)", '<mo stretchy="false">', markup)
    if not display:
        return f'<span class="long">{markup}</span>' if len(tex) > 40 else markup  # scrolls on a narrow screen
    number = f'<span class="tag">({escape(tag[1])})</span>' if tag else ""
    return f'<span class="formula">{markup}{number}</span>'


class Markup(mistune.HTMLRenderer):
    """Turns the Markdown cells of one page into HTML.

    Args:
        pages: stems of the notebooks that have a page: links to them lead there, other local links become plain text.

    Attributes:
        headings: level, anchor and HTML of each, in order.
        unconverted: formulas that stay TeX.
    """

    def __init__(self, pages: Collection[str] = ()) -> None:
        super().__init__(escape=False)
        self.pages = pages
        self.headings: list[tuple[int, str, str]] = []
        self.unconverted: list[str] = []
        self._formulas: list[tuple[str, str]] = []  # TeX and HTML
        self._markdown = mistune.create_markdown(renderer=self, plugins=["table", "strikethrough"])

    def html(self, source: str) -> str:
        """The HTML of a cell."""
        html = str(self._markdown(_FORMULA.sub(self._keep, source)))
        html = re.sub(r'<a id="([^"]+)"', lambda match: f'<a id="{slug(match[1])}"', html)
        return self._fill(html)

    def _keep(self, match: re.Match[str]) -> str:
        if match["code"]:
            return match[0]
        tex = match["display"] or match["inline"]
        if match.string[: match.start()].rpartition("\n")[2].lstrip().startswith(">"):  # a quotation: so do its lines
            tex = re.sub(r"\n\s*>", "\n", tex)
        tex = tex.strip()
        try:
            html = mathml(tex, display=match["display"] is not None)
        except ValueError:
            self.unconverted.append(tex)
            html = f'<code class="tex">{escape(tex)}</code>'
        self._formulas.append((tex, html))
        return f"\ue000{len(self._formulas) - 1}\ue001"

    def _fill(self, html: str) -> str:
        return _STAND_IN.sub(lambda match: self._formulas[int(match[1])][1], html)

    def heading(self, text: str, level: int, **attrs: object) -> str:
        """A heading with an anchor: its words, and a number where another has the same."""
        words = _STAND_IN.sub(lambda match: self._formulas[int(match[1])][0], unescape(re.sub(r"<[^>]+>", "", text)))
        taken = {anchor for _, anchor, _ in self.headings}
        first = anchor = slug(words) or "heading"
        number = 1
        while anchor in taken:
            number += 1
            anchor = f"{first}-{number}"
        self.headings.append((level, anchor, self._fill(text)))
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A link to a page of the report, or out of it; a local one to anything else is its text alone."""
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "mailto"):
            return super().link(text, url, title)
        stem = parts.path.removesuffix(".ipynb")
        if parts.scheme or (parts.path and stem not in self.pages):
            return text
        anchor = f"#{slug(unquote(parts.fragment))}" if parts.fragment else ""
        return f'<a href="{f"{stem}.html" if parts.path else ""}{anchor}">{text}</a>'

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """Its description: a page asks for no file beside it. Figures of code cells are part of the page."""
        return f"<em>{escape(unescape(text))}</em>"

    def table(self, text: str) -> str:
        """A table that scrolls inside its box where it is wider than the page."""
        return f'<div class="scroll"><table>\n{text}</table></div>\n'
