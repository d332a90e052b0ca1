"""See it: t-SNE maps, the inspector that links them, the playground, and the page of a comparison.

`maps` computes, `inspector` and `playground` make pages that live in a notebook and in a file that needs no network.
"""

from snrlib.explore.atlas import atlas_names, export_atlas
from snrlib.explore.comparison import comparison_page
from snrlib.explore.figure import map_figure
from snrlib.explore.inspector import inspect
from snrlib.explore.items import Items, items_of, thumbnails
from snrlib.explore.maps import Map, tsne
from snrlib.explore.page import ExplorePage
from snrlib.explore.playground import FIGURE_ALT, playground, playground_figure

__all__ = [
    "FIGURE_ALT",
    "ExplorePage",
    "Items",
    "Map",
    "atlas_names",
    "comparison_page",
    "export_atlas",
    "inspect",
    "items_of",
    "map_figure",
    "playground",
    "playground_figure",
    "thumbnails",
    "tsne",
]
