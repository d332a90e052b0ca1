"""Keep the committed notebooks in order: navigation, stored outputs at default parameters, clean metadata."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from snrlib.files import write_atomically
from snrlib.runs import notebooks

__all__ = ["navigation", "refresh"]

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


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


def refresh(path: Path, timeout: float = 600) -> None:
    """Renew a notebook's navigation, execute it at its default parameters and store it in place, whole or not at all.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; the file is as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if "navigation" not in cell.metadata.get("tags", [])]
    notebook.cells = [_navigation_cell(path, "top"), *cells, _navigation_cell(path, "bottom")]
    for number, cell in enumerate(notebook.cells):
        if "navigation" not in cell.metadata.get("tags", []):
            cell["id"] = f"{path.stem[:2]}-{number:03d}"
    NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    notebook.metadata = NotebookNode(_METADATA)
    for cell in notebook.cells:
        cell.metadata = NotebookNode({"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {})
    write_atomically(path, lambda temporary: nbformat.write(notebook, temporary))


def _navigation_cell(path: Path, place: str) -> NotebookNode:
    cell = nbformat.v4.new_markdown_cell(navigation(path), metadata={"tags": ["navigation"]})
    cell["id"] = f"navigation-{place}"
    return cell
