"""The part of the report to point at and to drag: its pages, and each with its picture on the index."""

from __future__ import annotations

import base64
from html import escape

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from snrlib.explore import FIGURE_ALT, ExplorePage, inspect, map_figure, playground, playground_figure
from snrlib.plots import png, use_style
from snrlib.report.html import figure
from snrlib.study.embeddings import stored_embeddings

__all__ = ["explore_section"]


def explore_section() -> tuple[dict[str, ExplorePage], str]:
    """The pages by the names of their files without ending, and the section of the index that leads to them.

    Their scripts are part of them; they ask for nothing from elsewhere, as all pages of the report.
    """
    pages = {"playground": playground()}
    html = "<h2>See it</h2>\n"
    with plt.rc_context():
        use_style()
        try:
            stored = stored_embeddings()
        except (OSError, ValueError, KeyError) as error:
            html += f"<p>The inspector is missing: {escape(str(error))}</p>\n"
        else:
            labels = stored.images.labels
            maps = stored.maps()
            pages["tsne"] = inspect(maps, stored.images)
            scores = "; ".join(f"{one.title}, R@1 {one.precision_at_1:.3f}" for one in maps)
            alt = f"t-SNE maps of the same {len(labels)} images of characters: {scores}."
            html += _view(
                "tsne",
                "t-SNE inspector",
                "point at a dot, follow an image from map to map",
                map_figure(maps, labels, columns=2),
                alt,
            )
        html += _view(
            "playground",
            "Playground",
            "drag points, draw signals, watch distances and losses",
            playground_figure(),
            FIGURE_ALT,
        )
    return pages, html


def _view(name: str, title: str, what: str, picture: Figure, alt: str) -> str:
    link = f'<p><a href="{name}.html"><b>{escape(title)}</b></a>: {escape(what)}.</p>\n'
    return link + figure(base64.b64encode(png(picture)).decode(), alt, alt)
