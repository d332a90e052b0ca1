"""Renew what a notebook stores: its navigation, outputs and metadata, and the README's pictures taken out of it."""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from snrlib.notebooks.find import find_notebook, navigation
from snrlib.notebooks.run import KERNEL_CONFIG
from snrlib.utils.files import data_folder, write_atomically

__all__ = ["figures", "refresh", "refresh_pictures"]

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


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
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
        config=KERNEL_CONFIG,
    ).execute()
    notebook.metadata = NotebookNode(_METADATA)
    for cell in notebook.cells:
        cell.metadata = NotebookNode({"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {})
    write_atomically(path, lambda temporary: nbformat.write(notebook, temporary))


def figures(path: Path) -> list[bytes]:
    """The stored PNG figures of a notebook, in order."""
    cells = nbformat.read(path, as_version=4).cells
    shown = [output.data for cell in cells for output in cell.get("outputs", []) if "data" in output]
    return [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]


def refresh_pictures() -> list[Path]:
    """Store the README's pictures: retrieval, the last figure of notebook 00, and the scoreboard, the first of 12."""
    pictures = []
    for name, notebook, number in (("retrieval", "00", -1), ("scoreboard", "12", 0)):
        png = figures(find_notebook(notebook))[number]
        pictures.append(data_folder("reference") / f"{name}.png")
        write_atomically(pictures[-1], lambda temporary, png=png: temporary.write_bytes(png))  # type: ignore[misc]
    return pictures


def _navigation_cell(path: Path, place: str) -> NotebookNode:
    cell = nbformat.v4.new_markdown_cell(navigation(path), metadata={"tags": ["navigation"]})
    cell["id"] = f"navigation-{place}"
    return cell
