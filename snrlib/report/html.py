"""Pages of HTML: the frame with its style, tables of provenance, and the cells of an executed notebook."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from nbformat import NotebookNode

from snrlib.utils.markup import Markup

__all__ = ["cells", "code", "details", "figure", "page", "provenance_tables", "table"]

_STYLE = """
:root { color-scheme: light; --line: #c9ced6; --soft: #f3f5f8; --link: #0a4a8f; --text: #1b1f24; --paper: #fff; }
* { box-sizing: border-box; }
html { scroll-behavior: auto; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--text); overflow-wrap: break-word;
  font: 1.0625rem/1.6 system-ui, "Segoe UI", "Noto Sans", sans-serif; }
main, header, footer { max-width: 72rem; margin: 0 auto; padding: 0 1rem; }
main > p, main > ul, main > ol, main > dl, main > blockquote, main > details:not(.code) { max-width: 46rem; }
main > p:has(> .formula:only-child) { max-width: none; }
dt { font-weight: 600; margin-top: .6em; } dd { margin-left: 1.25rem; }
h1, h2, h3, h4 { line-height: 1.25; margin: 2em 0 .6em; text-wrap: balance; }
h1 { font-size: 1.9rem; margin-top: 1em; }
h2 { font-size: 1.4rem; border-top: 1px solid var(--line); padding-top: .8em; }
h3 { font-size: 1.15rem; }
a { color: var(--link); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; } .skip:focus { position: static; }
nav ul.steps { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; margin: 0; padding: .6rem 0; }
nav ol { margin: .25rem 0; padding-left: 1.5rem; }
nav a { padding: .2rem 0; } nav li { padding: .1rem 0; }
header { border-bottom: 1px solid var(--line); } footer { border-top: 1px solid var(--line); margin-top: 3rem; }
blockquote { margin: 1em 0; padding: .1em 1em; border-left: 4px solid var(--line); background: var(--paper);
  --paper: var(--soft); }
summary { cursor: pointer; padding: .2rem 0; width: fit-content; } details { margin: .5em 0; }
details.code > summary { color: #4a525c; font-size: .875rem; }
pre, code { font: .875rem/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
:not(pre) > code { background: var(--soft); padding: .1em .25em; border-radius: 3px; }
pre { overflow-x: auto; margin: .5em 0; padding: .6em .8em; border: 1px solid var(--line); border-radius: 4px; }
pre.code { background: var(--soft); } pre.result { border-left: 4px solid #6b7480; }
pre.result:not(.columns) { white-space: pre-wrap; }
/* a shadow where more is to be seen */
.scroll { overflow-x: auto; margin: 1em 0; }
.scroll, .formula { background-repeat: no-repeat;
  background-size: 2rem 100%, 2rem 100%, 1rem 100%, 1rem 100%;
  background-attachment: local, local, scroll, scroll; background-position: 0 0, 100% 0, 0 0, 100% 0;
  background-image: linear-gradient(90deg, var(--paper) 40%, #fff0), linear-gradient(270deg, var(--paper) 40%, #fff0),
    linear-gradient(90deg, #0004, #0000), linear-gradient(270deg, #0004, #0000); }
table { border-collapse: collapse; font-size: .9375rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .7em; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
table.dataframe th, table.dataframe td { text-align: right; white-space: nowrap; }
table.cells td { white-space: nowrap; }
@media (min-width: 46rem) { table.notebooks td:last-child { white-space: nowrap; } }
table.facts th { font-weight: 600; width: 14rem; min-width: 9rem; } table.facts td { overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid #6b7480; vertical-align: bottom; }
figure { margin: 1em 0; overflow-x: auto; } figure img { display: block; max-width: 100%; height: auto; }
figcaption { font-size: .9375rem; max-width: 46rem; }
.note { border: 1px solid #6b7480; border-left-width: 6px; padding: .5em 1em; margin: 1em 0; }
.formula { display: block; overflow-x: auto; overflow-y: hidden; padding: .5em 0; text-align: center;
  width: fit-content; min-width: min(46rem, 100%); max-width: 100%; }
.formula math { display: inline math; math-style: normal; } .formula .tag { margin-left: 2em; }
math { font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", "TeX Gyre DejaVu Math", math, serif;
  font-size: 1.05em; }
menclose[notation="box"] { border: 1px solid; padding: .3em; }
mtd[columnalign="left"] { text-align: left; } mtd[columnalign="right"] { text-align: right; }
@media (max-width: 46rem) {
  h1 { font-size: 1.5rem; } figure img.wide { max-width: 50rem; }
  .long { display: inline-block; max-width: 100%; overflow-x: auto; overflow-y: hidden; vertical-align: middle; }
}
@page { margin: 16mm; }
@media print {
  body { font-size: 10.5pt; } nav, .skip, details.code:not([open]) { display: none; } main, header { max-width: none; }
  h1, h2, h3, summary { break-after: avoid; } figure, table, .formula, pre { break-inside: avoid; }
  figure, .scroll, .formula, pre { overflow: visible; background-image: none; } pre { white-space: pre-wrap; }
  figure img.wide { max-width: 100%; width: auto; } table { font-size: 8.5pt; } table.facts { break-inside: auto; }
  table.dataframe th, table.dataframe td { white-space: normal; } th, td { padding: .2em .4em; }
  main a[href^="http"]::after { content: " (" attr(href) ")"; overflow-wrap: anywhere; }
}
"""
# A page asks for nothing: no script runs in it, and pictures are part of it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LABELS = {
    "injected-parameters": "Parameters of this run",
    **{tag: tag.capitalize() for tag in ("parameters", "setup", "prediction", "exercise", "check")},
}
_OPEN = {"exercise", "check"}
_TERMINAL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # colours
_ASKS = re.compile(r"<(script|iframe|object|embed|link|base|form)\b|\b(src|srcset|poster)\s*=\s*[\"']?(?!data:)", re.I)


def page(title: str, head: str, body: str, foot: str) -> str:
    """A whole page.

    Args:
        title: plain text.
        head: HTML above the text: the navigation.
        body: HTML.
        foot: HTML below the text.
    """
    below = f"<footer>{foot}</footer>\n" if foot else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<a class="skip" href="#text">Skip to the text</a>
<header>{head}</header>
<main id="text">
{body}
</main>
{below}</body>
</html>
"""


def details(summary: str, body: str, kind: str = "", shown: bool = False) -> str:
    """A part that opens on demand; ``summary`` is plain text, ``body`` HTML."""
    given = (f' class="{kind}"' if kind else "") + (" open" if shown else "")
    return f"<details{given}><summary>{escape(summary)}</summary>\n{body}\n</details>\n"


def code(text: str) -> str:
    """Plain text in which `commands` are set as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of HTML cells that scrolls inside its box."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    given = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{given}><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'


def provenance_tables(row: Mapping[str, Any], leave_out: Sequence[str] = ()) -> str:
    """What a JSON file says, as tables: its plain values, then a table for each object or list of objects in it."""
    plain = {key: value for key, value in row.items() if not _nested(value)}
    html = _facts("", plain)
    for key, value in row.items():
        heading = f"<h4>{escape(key.replace('_', ' '))}</h4>\n"
        if key in leave_out or not _nested(value):
            continue
        if isinstance(value, Mapping):
            html += heading + _facts(key, value)
        else:
            columns = list(value[0])
            html += heading + table(columns, [[_value(entry.get(column)) for column in columns] for entry in value])
    return html


def _nested(value: Any) -> bool:
    of_objects = isinstance(value, list) and bool(value) and all(isinstance(entry, Mapping) for entry in value)
    return of_objects or (isinstance(value, Mapping) and bool(value))


def _facts(name: str, values: Mapping[str, Any]) -> str:
    lines = [
        f'<tr><th scope="row">{escape(str(key))}</th><td data-key="{escape(f"{name}.{key}" if name else str(key))}">'
        f"{_value(value)}</td></tr>"
        for key, value in values.items()
    ]
    body = "\n".join(lines)
    return f'<div class="scroll"><table class="facts"><tbody>{body}</tbody></table></div>\n'


def _value(value: Any) -> str:
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def figure(png: str, alt: str, caption: str = "") -> str:
    """A figure that is part of the page; a wide one stays readable on a narrow screen: it scrolls and hardly shrinks.

    Args:
        png: in base64.
        alt: what it shows, in words.
        caption: plain text below it.
    """
    try:
        width, height = (int.from_bytes(base64.b64decode(png[:32])[at : at + 4], "big") for at in (16, 20))
    except ValueError:
        width = height = 0
    wide = ' class="wide"' if width > 528 else ""  # 33rem
    size = f' width="{width}" height="{height}"' if width and height else ""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    source = f"data:image/png;base64,{''.join(png.split())}"
    return f'<figure><img{wide} src="{source}" alt="{escape(alt)}"{size}>{below}</figure>\n'


def cells(notebook: NotebookNode, markup: Markup) -> str:
    """The cells of a notebook without its own navigation: text, code that opens on demand, outputs."""
    html = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown" and "navigation" not in tags:
            html.append(markup.html(cell.source))
        elif cell.cell_type == "code" and cell.source:
            label = next((_LABELS[tag] for tag in tags if tag in _LABELS), "Code")
            number = f"cell {cell.execution_count}" if cell.execution_count else "a cell that was not run"
            code = f'<pre class="code"><code>{escape(cell.source)}</code></pre>'
            html.append(details(f"{label} ({number})", code, "code", shown=bool(_OPEN & set(tags))))
            html += [_output(output, markup, number) for output in _joined(cell.outputs)]
    return "\n".join(html)


def _joined(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """What a cell printed, which may come in pieces, as one output."""
    for stream, pieces in groupby(outputs, key=lambda output: output.get("name")):  # other outputs have no name
        if stream:
            yield NotebookNode(output_type="stream", name=stream, text="".join(piece.text for piece in pieces))
        else:
            yield from pieces


def _output(output: NotebookNode, markup: Markup, number: str) -> str:
    if output.output_type == "stream":
        return _result(output.text)
    if output.output_type == "error":
        return _result("\n".join(output.traceback) or f"{output.ename}: {output.evalue}")
    data = output.get("data", {})
    if png := data.get("image/png"):
        alt = output.metadata.get("image/png", {}).get("alt") or f"A figure of {number}, which no words describe"
        return figure(png, alt)
    if (html := data.get("text/html")) and not _ASKS.search(html):
        html = re.sub(r"<style scoped>.*?</style>", "", html, flags=re.DOTALL).replace(' border="1"', "")
        return f'<div class="scroll">{html}</div>\n'
    if text := data.get("text/markdown") or data.get("text/latex"):
        return markup.html(text)
    return _result(data.get("text/plain", ""))


def _result(text: str) -> str:
    text = _TERMINAL.sub("", text).rstrip()
    columns = " columns" if re.search(r"\S {2,}\S", text) else ""  # words may go on in the next line
    return f'<pre class="result{columns}">{escape(text)}</pre>\n' if text else ""
