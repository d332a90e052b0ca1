"""Margins, scales and learning rates that were tuned before, for whoever leaves them open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snrlib.distances import MAPPED
from snrlib.experiment.settings import BUDGETS, Settings, default_settings, variant_of
from snrlib.study.stored import tuned_rows

__all__ = ["from_parameters", "tuned", "tuned_parameters"]

_OPEN = ("margin", "scale", "learning_rate")
_SAME_UNITS = ("anchor ref", "energy confusion")  # variants that margins and rates of the usual one suit


def from_parameters(parameters: Mapping[str, Any]) -> Settings:
    """The settings that the parameters of notebook 07 name; None leaves the choice to us.

    Margin, scale and learning rate are then the `tuned` ones, if there are any for this data set, network, loss and
    distance.

    Raises:
        ValueError: two choices that do not go together.
    """
    chosen = dict(parameters) | tuned_parameters(parameters)
    steps = BUDGETS[chosen.pop("budget")]
    if chosen["steps"] is None:
        chosen["steps"] = steps
    chosen["map"] = _map_of(parameters)
    return default_settings(**chosen)


def tuned_parameters(parameters: Mapping[str, Any], profile: str | None = None) -> dict[str, float]:
    """What is tuned of the margin, the scale and the learning rate that the parameters of notebook 07 leave open.

    Nothing with embeddings of length 1, which have another unit than those that were tuned.

    Args:
        parameters: all of notebook 07.
        profile: of ``study.yaml``, whose own tuning comes first.
    """
    p = parameters
    if p["normalize_embeddings"]:
        return {}
    key = {name: p[name] for name in ("data", "backbone", "loss", "distance")} | {"map": _map_of(p)}
    key["variant"] = variant_of(p)
    found = tuned(**key, embedding_size=p["embedding_size"], pretrained=p["weights"] is not None, profile=profile)
    return {name: value for name, value in found.items() if p[name] is None}


def tuned(  # noqa: PLR0913  what a network is called, each part by its name
    data: str,
    backbone: str,
    loss: str,
    distance: str,
    map: str | None,
    variant: str = "",
    *,
    embedding_size: int,
    pretrained: bool = False,
    profile: str | None = None,
) -> dict[str, float]:
    """What was found best on validation classes, from ``data/reference``: any of margin, scale, learning_rate.

    The same embedding size comes before another, the profile's own tuning before others, and what was tuned together
    with a learning rate before a margin alone.

    Args:
        data: name of the data set.
        backbone: of the network.
        loss: its name.
        distance: its name.
        map: of a Mahalanobis distance, else None.
        variant: what else decides the training, `snrlib.experiment.Settings.variant`.
        embedding_size: that is wanted.
        pretrained: whether the network starts with given weights; what was found for the others does not count.
        profile: of ``study.yaml``, or None.
    """
    wanted = (data, backbone, loss, distance, map or "", pretrained)
    keys = ("data", "backbone", "loss", "distance", "map", "pretrained")
    variants = (variant, "") if variant in _SAME_UNITS else (variant,)
    found = [row for row in tuned_rows() if tuple(row[key] for key in keys) == wanted and row["variant"] in variants]

    def rank(row: dict[str, Any]) -> tuple[bool, ...]:
        own = profile is not None and row["profile"] == profile
        return row["variant"] == variant, row["embedding_size"] == embedding_size, own, "learning_rate" in row

    best: dict[str, Any] = max(found, key=rank, default={})  # the first of equals
    return {name: float(best[name]) for name in _OPEN if name in best}


def _map_of(parameters: Mapping[str, Any]) -> str | None:
    """The map of a Mahalanobis distance; the parameter has a value under the others, too."""
    return parameters["map"] if parameters["distance"] in MAPPED else None
