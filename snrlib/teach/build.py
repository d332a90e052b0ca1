"""Everything that a course hands out, made of the notebooks as they are: copies and slides in one folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml

from snrlib.notebooks.find import find_notebook, notebooks, title
from snrlib.teach.copies import instructor_copy, student_copy
from snrlib.teach.slides import slides, slides_page
from snrlib.utils.files import study_root, without_private, write_text

__all__ = ["Session", "build", "sessions"]

_MINUTES = 90


@dataclass(frozen=True)
class Session:
    """One of the course.

    Attributes:
        title: in words.
        notebooks: their files, in order.
        parts: minutes and what is done in them.
    """

    title: str
    notebooks: list[Path]
    parts: list[tuple[int, str]]


def sessions() -> list[Session]:
    """Those of ``notebooks/teach/sessions.yaml``.

    Raises:
        ValueError: it names no notebook of the study, or a session's minutes are not 90.
        OSError: it is not there.
    """
    path = study_root() / "notebooks" / "teach" / "sessions.yaml"
    found = []
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        parts = [(int(minutes), str(what)) for minutes, what in entry["parts"]]
        if (minutes := sum(length for length, _ in parts)) != _MINUTES:
            raise ValueError(f"session {entry['title']!r} lasts {minutes} minutes, not {_MINUTES}")
        found.append(Session(entry["title"], [find_notebook(name) for name in entry["notebooks"]], parts))
    return found


def build(folder: Path) -> Iterator[Path]:
    """Write the copies of all notebooks and the slides of all sessions, and give the path of each file written.

    Args:
        folder: gets ``student/``, ``instructor/`` and ``slides/``; files of the same name are replaced.

    Raises:
        ValueError: a mark of a notebook has no end, or the sessions are not right.
        OSError: the folder cannot be written.
    """
    course = sessions()
    for source in notebooks():
        notebook = nbformat.read(source, as_version=4)
        for kind, make in (("student", student_copy), ("instructor", instructor_copy)):
            made = make(notebook, f"{source.stem[:2]}: {title(source)}")
            yield _write(folder / kind / source.name, nbformat.writes(made))
    for number, session in enumerate(course, 1):
        shown = [slide for path in session.notebooks for slide in slides(nbformat.read(path, as_version=4))]
        page = slides_page(f"Session {number}. {session.title}", session.parts, shown)
        yield _write(folder / "slides" / f"session_{number}.html", page)


def _write(path: Path, text: str) -> Path:
    write_text(path, without_private(text))
    return path
