"""The numbered notebooks: find them, their questions, and the links from one to the next."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from snrlib.utils.files import study_root

__all__ = [
    "find_notebook",
    "navigation",
    "notebooks",
    "title",
]


def notebooks() -> list[Path]:
    """The numbered notebooks, in order.

    Raises:
        FileNotFoundError: there are none where the study should be.
    """
    folder = study_root() / "notebooks"
    if found := sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        return found
    raise FileNotFoundError(f"no notebooks in {folder}; run this in a checkout of the study, or set SNR_ROOT to one")


def find_notebook(name: str) -> Path:
    """The notebook called ``03``, ``03_correlation`` or ``03_correlation.ipynb``, with or without its folder.

    Raises:
        ValueError: there is none of this name; the message lists those there are.
    """
    stem = Path(name).name.removesuffix(".ipynb")
    elsewhere = Path(name).name != name and Path(name).resolve().parent != study_root() / "notebooks"
    for path in notebooks():
        if stem in (path.stem, path.stem[:2]) and not elsewhere:
            return path
    raise ValueError(f"no notebook {name!r}; there are: {', '.join(path.stem for path in notebooks())}")


def title(path: Path) -> str:
    """The question that is the notebook's H1."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and (match := re.search(r"^# (.+)$", cell.source, re.MULTILINE)):
            return match[1]
    raise ValueError(f"{path.name} has no H1")


def navigation(path: Path) -> str:
    """The line at the head and foot of a notebook: previous, here, next."""
    paths = notebooks()
    here = paths.index(path)
    parts = [f"**{_label(path)}**"]
    if here > 0:
        parts.insert(0, f"[← {_label(paths[here - 1])}]({paths[here - 1].name})")
    if here < len(paths) - 1:
        parts.append(f"[{_label(paths[here + 1])} →]({paths[here + 1].name})")
    return " · ".join(parts)


def _label(path: Path) -> str:
    return path.stem.replace("_", " ")
