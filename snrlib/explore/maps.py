"""t-SNE maps under the study's distances, each with what it cannot show: the scores of the space it was made from.

t-SNE takes from a space only which neighbours each point has, and how far each is *in units of that point's own
surroundings*: with a bandwidth ``beta_i`` found for every point i so that its neighbours have the chosen perplexity,

    p(j | i) = exp(-beta_i d_ij^2) / sum_k exp(-beta_i d_ik^2)        (van der Maaten & Hinton 2008)

A relative distance with the query as anchor is ``||A(x_j - x_i)||^2 / ||A x_i||^2``; its unit is a constant of the row
i and vanishes in ``beta_i``. So its map **is** the map of the vectors ``A x``, for SNR of the centred ones. With the
reference as anchor the unit differs along a row and stays; ``space="symmetrised"`` shows the mean of the two sides. So
does the unit of both sides, and its map is always of the distance's own root.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from torch import Tensor
from tqdm import tqdm

from snrlib.distances import Distance, get_distance
from snrlib.evaluate.neighbours import knn
from snrlib.utils.cache import cached_array
from snrlib.utils.checks import check_choice, check_embeddings, check_labels, check_number, check_spread

__all__ = ["ENGINES", "SPACES", "Map", "tsne"]

SPACES: tuple[str, ...] = ("mapped", "symmetrised")
"""What a map shows: Euclid in the mapped space ``A x``, or the mean of the distance's two anchor sides."""
ENGINES: tuple[str, ...] = ("auto", "sklearn", "openTSNE")
_MANY = 5000  # points, beyond which openTSNE is faster and a trustworthiness of all takes gigabytes
_EARLY, _LATE, _REPORT = 250, 500, 10  # steps of openTSNE, as it chooses itself, and how often it tells of them


@dataclass(frozen=True, eq=False)
class Map:
    """Where every embedding lies on a map, and what the map leaves out.

    Attributes:
        points: (n, 2), without a unit: neither the axes nor the gaps between groups have a meaning.
        neighbours: (n, k), indices of the nearest others under the distance itself, nearest first.
        distances: (n, k), theirs.
        hits: (n, k), whether they are of the same class.
        distance: the distance of the neighbours, in a few words, anchor side included.
        space: what the map shows, in a few words.
        precision_at_1: R@1 of the embeddings under the distance; NaN if no class has two members.
        trustworthiness: 1 if the k nearest on the map are near under the distance as well, about 0.5 for a random map;
            of a sample of 5,000 embeddings where there are more.
        perplexity: of the map.
        start: of the map, in a few words.
        title: above it.
    """

    points: NDArray[np.float32]
    neighbours: NDArray[np.int64]
    distances: NDArray[np.float32]
    hits: NDArray[np.bool_]
    distance: str
    space: str
    precision_at_1: float
    trustworthiness: float
    perplexity: float
    start: str
    title: str

    @property
    def facts(self) -> str:
        """How it was made, in a line."""
        return f"t-SNE of {self.space}, perplexity {self.perplexity:g}, {self.start} start"

    @property
    def scores(self) -> str:
        """What the space itself is worth, in a line."""
        k = self.neighbours.shape[1]
        value = "of none" if np.isnan(self.precision_at_1) else f"{self.precision_at_1:.3f}"  # no class has two rows
        r = f"R@1 {value} under {self.distance}"
        return f"{r}; trustworthiness ({k} nearest) {self.trustworthiness:.3f}"

    def __repr__(self) -> str:
        return f"Map({self.title!r}: {len(self.points)} points, {self.facts}; {self.scores})"


def tsne(  # noqa: PLR0913  keywords, as those of TSNE in scikit-learn
    embeddings: Tensor,
    labels: Tensor,
    distance: Distance | None = None,
    *,
    space: str = "mapped",
    perplexity: float | None = None,
    start: str = "pca",
    seed: int = 0,
    k: int | None = None,
    title: str = "",
    engine: str = "auto",
    progress: bool = False,
) -> Map:
    """A map of embeddings under a member of the family.

    The neighbours that the map is made of are found exactly, by `snrlib.evaluate.knn`. Maps are kept in ``data/cache``,
    under a digest of all that decides them.

    Args:
        embeddings: (n, M).
        labels: (n,), integers.
        distance: the study's distance, anchor side included; None is Euclid.
        space: one of `SPACES`. "mapped" shows ``A x``, which for an absolute distance, and for a relative one with the
            query as anchor, is the map of the distance itself; in the unit of both sides it is the map
            of the distance's root. "symmetrised" shows the root of the mean of ``d(a, b)`` and ``d(b, a)`` of a
            distance with an anchor, so that each point counts in both roles.
        perplexity: about the number of neighbours that count, at least 1 and less than a third of n; None is 30, or
            what so few embeddings allow.
        start: "pca", the first two principal components of the mapped space, or "random".
        seed: of a random start; with "pca" nothing is random.
        k: neighbours that the map remembers, and over which its trustworthiness is taken; None is 10, or less than half
            of n.
        title: of the map; empty is the name of the distance.
        engine: "auto" is scikit-learn up to 5,000 points, and beyond them openTSNE where it is installed.
        progress: show bars of the search and of the map.

    Raises:
        TypeError, ValueError: embeddings, labels or options that are none; the message names them.
        ImportError: engine "openTSNE" without the package.
    """
    distance = get_distance("euclidean") if distance is None else distance
    x = check_embeddings(embeddings).detach().cpu()
    n = len(x)
    if x.shape[1] < 2:
        raise ValueError("a map in two dimensions needs embeddings of at least two components, got one")
    if n > 1:
        check_spread(x)
    check_labels(labels, n)
    check_choice(space, "space", SPACES)
    check_choice(start, "start", ("pca", "random"))
    usual = float(max(1, min(30, (n - 2) // 3)))
    perplexity = usual if perplexity is None else check_number(perplexity, "perplexity", at_least=1)
    k = max(1, min(10, (n - 1) // 2)) if k is None else k
    if n < 4 or 3 * perplexity + 1 > n - 1:
        raise ValueError(f"perplexity {perplexity:g} needs more than {3 * perplexity + 2:g} embeddings, got {n}")
    labels = labels.cpu()
    most = int(3 * perplexity + 1)  # neighbours that t-SNE looks at
    if distance.unit == "both" or (space == "symmetrised" and distance.anchored):
        distances, neighbours = knn(x, k, distance=distance, progress=progress)
        near, far = _symmetrised(x, distance, most)
        shown = "both anchor sides" if distance.anchored else "its root"  # the root of their mean
    else:
        far, near = knn(distance.embed(x), max(k, most), progress=progress)
        if distance.anchored and distance.anchor == "ref":
            distances, neighbours = knn(x, k, distance=distance, progress=progress)
        else:  # whose unit is the same along a row: one search is enough
            neighbours, distances = near[:, :k], _of_pairs(x, near[:, :k], distance)
        near, far = near[:, :most], far[:, :most]
        shown = _space_in_words(distance)
    first = _start(distance.embed(x), start, seed)
    points = _placed(
        near.numpy(), far.numpy(), first, perplexity, _engine(check_choice(engine, "engine", ENGINES), n), progress
    )
    hits = labels[neighbours] == labels[:, None]
    _, members, sizes = labels.unique(return_inverse=True, return_counts=True)
    return Map(
        points=points,
        neighbours=neighbours.numpy(),
        distances=distances.float().numpy(),
        hits=hits.numpy(),
        distance=_in_words(distance),
        space=shown,
        precision_at_1=float(hits[sizes[members] > 1, 0].double().mean()),
        trustworthiness=_trustworthiness(x, points, distance, k),
        perplexity=perplexity,
        start="PCA" if start == "pca" else f"random ({seed})",
        title=title or _in_words(distance),
    )


def _in_words(distance: Distance) -> str:
    """Its name, with its anchor side if it has one."""
    words = distance.name.replace("_", " ")
    for name, spelled in (("euclidean", "Euclid"), ("snr", "SNR"), ("mahalanobis", "Mahalanobis")):
        words = words.replace(name, spelled)
    if distance.anchored:
        words += f", anchor = {distance.anchor}"
    return f"{words}, length 1" if distance.normalize_embeddings else words


def _space_in_words(distance: Distance) -> str:
    x = "x / ||x||" if distance.normalize_embeddings else "x"
    space = {"Identity": x, "Centre": f"P {x}"}.get(type(distance.map).__name__, f"L {x}")
    if distance.normalize_mapped:
        space = f"{space} / ||{space}||"
    return f"{space}, anchors left out" if distance.anchored and distance.anchor == "ref" else space


def _of_pairs(x: Tensor, near: Tensor, distance: Distance) -> Tensor:
    """Distances (n, k) of every row to its neighbours."""
    distance = distance.between(x, x)
    return torch.stack([distance.pairwise_distance(x, x[column]) for column in near.T], dim=1)


def _symmetrised(x: Tensor, distance: Distance, k: int) -> tuple[Tensor, Tensor]:
    """The same under the root of ``(d(a, b) + d(b, a)) / 2``: t-SNE squares what it is given."""
    n = len(x)
    near, far = torch.empty(n, k, dtype=torch.int64), torch.empty(n, k)
    for rows in torch.arange(n).split(max(1, 2**24 // n)):
        d = (distance(x[rows], x) + distance(x, x[rows]).T) / 2
        d[torch.arange(len(rows)), rows] = torch.inf  # no point is its own neighbour
        found = d.topk(k, largest=False)
        near[rows], far[rows] = found.indices, found.values.sqrt()
    return near, far


def _start(z: Tensor, start: str, seed: int) -> NDArray[np.float32]:
    """Places (n, 2) to start from, with standard deviation 1e-4, as scikit-learn does it."""
    if start == "random":
        return np.random.default_rng(seed).normal(scale=1e-4, size=(len(z), 2)).astype(np.float32)
    principal = PCA(2, random_state=0).fit_transform(z.double().numpy())
    return (1e-4 * principal / max(principal[:, 0].std(), 1e-300)).astype(np.float32)


def _engine(engine: str, n: int) -> str:
    if engine == "auto" and n <= _MANY:
        return "sklearn"
    if engine != "sklearn":
        try:
            import openTSNE  # noqa: F401
        except ImportError as error:
            if engine == "openTSNE":
                raise ImportError("engine 'openTSNE' needs the package: pip install 'snrlib[tsne]'") from error
            return "sklearn"
        return "openTSNE"
    return engine


def _placed(
    near: NDArray, far: NDArray, first: NDArray, perplexity: float, engine: str, progress: bool
) -> NDArray[np.float32]:
    """The points of the map, from ``data/cache`` or computed and put there."""
    package = {"sklearn": "scikit-learn", "openTSNE": "opentsne"}[engine]
    digest = hashlib.sha256(Path(__file__).read_bytes())  # another way to make maps, another cache
    digest.update(f"{package} {version(package)} {perplexity!r} {near.shape}".encode())
    for array in (near, far, first):
        digest.update(np.ascontiguousarray(array).tobytes())
    name = f"tsne-{digest.hexdigest()[:16]}"
    place = _by_sklearn if engine == "sklearn" else partial(_by_open_tsne, progress=progress)
    return cached_array(name, first.shape, np.float32, lambda: place(near, far, first, perplexity), what="maps")


def _by_sklearn(near: NDArray, far: NDArray, first: NDArray, perplexity: float) -> NDArray[np.float32]:
    n, k = near.shape
    # Each row also holds its own point, at distance 0, which scikit-learn expects and leaves out.
    indices = np.hstack([np.arange(n)[:, None], near]).ravel()
    data = np.hstack([np.zeros((n, 1)), far]).ravel()
    graph = csr_array((data, indices, np.arange(0, n * (k + 1) + 1, k + 1)), shape=(n, n))
    model = TSNE(metric="precomputed", perplexity=perplexity, init=first.copy(), random_state=0)
    return model.fit_transform(graph).astype(np.float32)


def _by_open_tsne(
    near: NDArray, far: NDArray, first: NDArray, perplexity: float, progress: bool
) -> NDArray[np.float32]:
    import openTSNE
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    jobs = os.cpu_count() or 1
    index = PrecomputedNeighbors(near, far.astype(float))
    affinities = PerplexityBasedNN(perplexity=perplexity, knn_index=index, n_jobs=jobs)
    with tqdm(total=_EARLY + _LATE, desc="t-SNE", unit="step", disable=not progress) as bar:
        model = openTSNE.TSNE(
            perplexity=perplexity,
            initialization=first.astype(float),
            early_exaggeration_iter=_EARLY,
            n_iter=_LATE,
            callbacks=lambda *_: bar.update(_REPORT) and None,  # True would end it
            callbacks_every_iters=_REPORT,
            n_jobs=jobs,
            random_state=0,
        )
        return np.asarray(model.fit(affinities=affinities), dtype=np.float32)


def _trustworthiness(x: Tensor, points: NDArray, distance: Distance, k: int) -> float:
    """scikit-learn's, with the distance's own rows; of a sample of 5,000 where there are more, for its memory."""
    if len(x) > _MANY:
        chosen = np.random.default_rng(0).choice(len(x), _MANY, replace=False)
        x, points = x[chosen], points[chosen]
    return float(trustworthiness(distance(x).numpy(), points, n_neighbors=k, metric="precomputed"))
