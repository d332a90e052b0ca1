"""The numbered notebooks: find them, and keep their navigation, stored outputs and metadata in order."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

from snrlib.utils.files import data_folder, study_root, write_atomically

__all__ = [
    "KERNEL_CONFIG",
    "figures",
    "find_notebook",
    "navigation",
    "notebooks",
    "refresh",
    "refresh_pictures",
    "title",
]

# Encrypt what passes between a run and its kernel; without it every kernel warns, and any local user can listen.
KERNEL_CONFIG = Config({"KernelManager": {"transport_encryption": "auto"}})

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


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
    """Store the README's pictures: retrieval, the last figure of notebook 00, and the scoreboard, the first of 09."""
    pictures = []
    for name, notebook, number in (("retrieval", "00", -1), ("scoreboard", "09", 0)):
        png = figures(find_notebook(notebook))[number]
        pictures.append(data_folder("reference") / f"{name}.png")
        write_atomically(pictures[-1], lambda temporary, png=png: temporary.write_bytes(png))  # type: ignore[misc]
    return pictures


def _navigation_cell(path: Path, place: str) -> NotebookNode:
    cell = nbformat.v4.new_markdown_cell(navigation(path), metadata={"tags": ["navigation"]})
    cell["id"] = f"navigation-{place}"
    return cell
