"""A page that explores something: the same file lives on disk and in a notebook, and asks no other machine."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from snrlib.utils.files import check_page, write_text

__all__ = ["ExplorePage"]


class ExplorePage:
    """A whole page of HTML, with its scripts, data and pictures.

    As the last line of a notebook's cell it is shown in a frame of its own; `save` writes it to a file that any browser
    opens from disk.

    Args:
        html: of the page.
        height: of the frame, in pixels.
        name: what it is, in a few words.
        notes: what is missing in it and why, in sentences.
    """

    def __init__(self, html: str, height: int, name: str, notes: Sequence[str] = ()):
        self.html = html
        self.height = height
        self.name = name
        self.notes = tuple(notes)

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all.

        Args:
            path: of the file, which ends in ``.html``.

        Raises:
            ValueError: another ending.
            FileExistsError: something stands there that is no page of this study.
            OSError: it cannot be written; what was there before is as it was.
        """
        path = Path(path)
        check_page(path)
        write_text(path, self.html)
        return path

    def _repr_html_(self) -> str:
        # A frame keeps the notebook's styles out, and shows what the saved file shows.
        style = f"width: 100%; height: {self.height}px; border: 1px solid #c9ced6"
        return f'<iframe title="{escape(self.name)}" style="{style}" srcdoc="{escape(self.html)}"></iframe>'

    def __repr__(self) -> str:
        return f"{self.name}, {len(self.html.encode()) / 2**20:.1f} MiB; .save('page.html') writes it to a file"
