"""What doing nothing gives: every stored study's networks before training, judged on the same images.

``snr measure untrained`` measures; ``data/reference/untrained.csv`` and ``untrained.json`` hold what came out. A
network that training does not lift above this says little about the distance that trained it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor
from torch.nn import functional as F

from snrlib.distances import Distance, get_distance
from snrlib.evaluate import evaluate, verification
from snrlib.experiment import Experiment, default_settings, untrained
from snrlib.study import stored
from snrlib.utils.files import identified
from snrlib.utils.provenance import provenance

__all__ = ["judge_untrained", "measure_untrained", "untrained_runs", "untrained_scores"]

_JUDGES: tuple[tuple[str, str], ...] = (("cosine", ""), ("euclidean", ""), ("snr", "query"), ("snr", "ref"))
_SHARED = ("image_size", "embedding_size")  # what an untrained network and its images depend on


def measure_untrained(weights: str | Path | None = None, studies: Sequence[str] | None = None) -> Path:
    """Judge the untrained networks of the stored studies by `judge_untrained`; minutes.

    Random first weights are those of each of a study's seeds. Where a pretrained network starts, or features are given,
    there is no seed, and what is judged are the features before the random head (`snrlib.experiment.untrained`).

    Args:
        weights: file with the ImageNet weights of SqueezeNet 1.1, which the studies of photographs start from.
        studies: names; None is all that are stored and have no such rows of their own.

    Returns:
        The path of ``untrained.csv``: a row per ``study``, network, seed, judge and anchor, with the columns of
        `snrlib.study.stored.Results.runs`, and ``classes`` and ``images`` of the gallery.

    Raises:
        FileNotFoundError: a data set, or the weights that a study needs.
        ValueError: other images than those that a study was judged on, or other weights.
    """
    started = time.perf_counter()
    _, sha = identified(weights)
    rows: list[dict[str, Any]] = []
    prints: dict[str, str] = {}
    if studies is None:
        studies = [study for study in stored.studies() if _own_rows(study).empty]
    for study in studies:
        about = stored.read_about(study)
        if sha is not None and about.get("weights_sha256") not in (None, sha):
            raise ValueError(f"{study} started from other weights, {about['weights_sha256'][:16]}, got {sha[:16]}")
        for network, done in _networks(study, weights):
            test = done.test
            if about["data"].get(test.name) != test.fingerprint:
                raise ValueError(f"{study} was judged on other images than {test.name} has here")
            prints |= {test.name: test.fingerprint}
            gallery = {"classes": len(test.classes), "images": len(test)}
            rows += [{**network, **row, **gallery} for row in judge_untrained(done.embeddings, test.labels)]
        print(f"untrained: {study}, {time.perf_counter() - started:.0f} s", flush=True)
    about = {"command": "snr measure untrained" + ("" if weights is None else " --weights FILE")}
    about |= {"weights_sha256": sha, "data": prints}
    about |= {"core_minutes": round((time.perf_counter() - started) / 60, 1), **provenance()}
    return stored.write_tables("untrained", {"": pd.DataFrame(rows)}, about)


def _networks(study: str, weights: str | Path | None) -> Iterator[tuple[dict[str, Any], Experiment]]:
    """The untrained networks of a study, one per backbone and seed, and the columns that name each."""
    found = stored.read(study)
    settings = found.about["settings"]
    for (data, backbone), own in found.runs.groupby(["data", "backbone"], sort=False):
        changes: dict[str, Any] = {name: settings[name] for name in _SHARED if settings.get(name)}
        pretrained = _is_pretrained(found.about, str(backbone))
        if pretrained and weights is None:
            raise FileNotFoundError(f"{study} starts from ImageNet weights: --weights names their file")
        if pretrained:
            changes["weights"] = str(weights)
        seeds = sorted(own.seed.unique())
        for seed in seeds[:1] if pretrained or backbone == "linear" else seeds:
            changes |= {"distance": "snr", "seed": int(seed)}
            network = {
                "study": study,
                "data": data,
                "backbone": backbone,
                "loss": "untrained",
                "distance": "",
                "map": "",
                "variant": "",
            }
            yield network | {"seed": seed}, untrained(default_settings(str(data), str(backbone), **changes))


def _is_pretrained(about: dict[str, Any], backbone: str) -> bool:
    earlier = about.get("study", {}).get("backbones", {}).get(backbone, {})  # where earlier editions said so
    return bool(about["settings"].get("weights") or earlier.get("weights"))


def judge_untrained(embeddings: Tensor, labels: Tensor) -> Iterator[dict[str, Any]]:
    """Scores under cosine, Euclid, and SNR from both sides.

    Cosine ranks as Euclid does on rows of length 1, and that is how it is computed.

    Args:
        embeddings: (n, M).
        labels: (n,), integers.

    Returns:
        A row per judge: ``judge``, ``anchor``, the scores of `snrlib.evaluate.evaluate` without clustering, ``AUC``,
        ``EER``.
    """
    for judge, anchor in _JUDGES:
        x = F.normalize(embeddings) if judge == "cosine" else embeddings
        distance: Distance = get_distance("euclidean" if judge == "cosine" else judge)
        if anchor:
            distance.anchor = anchor
        pairs = verification(x, labels, distance)
        yield {
            "judge": judge,
            "anchor": anchor,
            **evaluate(x, labels, distance, cluster=False),
            "AUC": pairs.AUC,
            "EER": pairs.EER,
        }


def _own_rows(study: str, judge: str = "cosine") -> pd.DataFrame:
    """The untrained networks in a study's own table; none, where that names no gallery or lacks the judge."""
    table = stored.read_table(study).assign(study=study)
    own = table[(table.loss == "untrained") & (table.variant == "")]
    return own if "classes" in own and (own.judge == judge).any() else own[:0]


def untrained_runs(study: str, judge: str = "cosine") -> pd.DataFrame:
    """The networks of a study before training, from its own rows, or as `measure_untrained` found them.

    Args:
        study: its name.
        judge: as for `untrained_scores`.

    Returns:
        A row per backbone and seed; empty where it was not measured.
    """
    table = _own_rows(study, judge)
    if table.empty:
        try:
            table = stored.read_table("untrained")
        except FileNotFoundError:
            return table[:0]
    return table[(table.study == study) & (table.judge == judge) & (table.anchor != "ref")]


def untrained_scores(study: str, score: str = "precision_at_1", judge: str = "cosine") -> pd.DataFrame:
    """What a study's networks give before training: from its own rows, or as `measure_untrained` found it.

    Args:
        study: its name.
        score: the column; NaN if it was not measured.
        judge: "cosine", "euclidean" or "snr", which is asked with the query as anchor.

    Returns:
        By backbone: ``mean`` over the seeds, ``seeds``, ``classes`` and ``images`` of the gallery; empty where it was
        not measured.
    """
    own = untrained_runs(study, judge)
    if own.empty:
        return pd.DataFrame(columns=["mean", "seeds", "classes", "images"], dtype=float)
    groups = own.groupby("backbone", sort=False)
    found = pd.DataFrame({"seeds": groups.seed.nunique()})
    found.insert(0, "mean", groups[score].mean() if score in own else float("nan"))
    return found.join(groups[["classes", "images"]].first())
