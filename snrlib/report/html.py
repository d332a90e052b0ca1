"""Pieces of HTML: parts that open, tables, figures, where numbers are from."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from snrlib.utils.files import without_private

__all__ = ["code", "details", "figure", "provenance_tables", "table"]


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


def provenance_tables(row: Mapping[str, Any], leave_out: Sequence[str] = (), name: str = "") -> str:
    """What a JSON file says, as tables: its plain values, then a table for each object or list of objects in it."""
    plain = {key: value for key, value in row.items() if not _is_nested(value)}
    html = _facts(plain) if plain else ""
    for key, value in row.items():
        if key in leave_out or key in plain:
            continue
        heading = f"{name}, {key}" if name else key.replace("_", " ")
        html += f"<h4>{escape(heading)}</h4>\n"
        if isinstance(value, Mapping):
            html += provenance_tables(value, leave_out, heading)
        else:
            columns = list(dict.fromkeys(column for entry in value for column in entry))
            html += table(columns, [[_value(entry.get(column)) for column in columns] for entry in value])
    return html


def _is_nested(value: Any) -> bool:
    """Whether this is an object or a list of objects, and not an empty one."""
    entries = value if isinstance(value, list) else [value]
    return bool(value) and all(isinstance(entry, Mapping) for entry in entries)


def _facts(values: Mapping[str, Any]) -> str:
    lines = [f'<tr><th scope="row">{escape(key)}</th><td>{_value(value)}</td></tr>' for key, value in values.items()]
    return f'<div class="scroll"><table class="facts"><tbody>{"".join(lines)}</tbody></table></div>\n'


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return escape(without_private(text, [text]) if Path(text).is_absolute() else text)  # the page does the rest


def figure(png: str, alt: str, caption: str = "") -> str:
    """A figure that is part of the page: ``png`` in base64, ``alt`` and ``caption`` plain text.

    A wide one stays readable on a narrow screen: it scrolls and hardly shrinks.
    """
    try:
        width, height = (int.from_bytes(base64.b64decode(png[:32])[at : at + 4], "big") for at in (16, 20))
    except ValueError:
        width = height = 0
    wide = ' class="wide"' if width > 528 else ""  # 33rem
    size = f' width="{width}" height="{height}"' if width and height else ""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    source = f"data:image/png;base64,{escape(''.join(png.split()))}"
    return f'<figure><img{wide} src="{source}" alt="{escape(alt)}"{size}>{below}</figure>\n'
