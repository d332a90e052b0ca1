"""What stands in ``data/reference``, measured by name: ``snr measure NAME``."""

from __future__ import annotations

from pathlib import Path

from snrlib.study.bird_features import measure_features
from snrlib.study.car_features import measure_car_features
from snrlib.study.embeddings import measure_embeddings
from snrlib.study.evidence import measure_profile
from snrlib.study.fitted_maps import measure_maps
from snrlib.study.hashing import measure_hashing
from snrlib.study.profiles import profiles
from snrlib.study.robustness import measure_robustness
from snrlib.study.untrained import measure_untrained
from snrlib.study.weights import measure_weights
from snrlib.study.which import measure_which

__all__ = ["OTHERS", "measure"]

OTHERS: tuple[str, ...] = (
    "maps",
    "cub_features",
    "cars_features",
    "robustness",
    "embeddings",
    "untrained",
    "hashing",
    "which",
    "weights",
)
"""What is measured beside the profiles of ``study.yaml``."""


def measure(name: str, jobs: int = 2, weights: str | Path | None = None, device: str | None = None) -> list[Path]:
    """Measure something and store it; what was finished before is not done again.

    A profile is tuned if it leaves anything open that was never tuned for it; its cells are run, and stored as one
    study per data set.

    Args:
        name: a profile of ``study.yaml``, or one of `OTHERS`.
        jobs: processes, one thread each.
        weights: file with SqueezeNet's ImageNet weights, for those of `OTHERS` that look at photographs; a profile says
            itself where its weights are from.
        device: that trains and judges the cells of a profile; None is CUDA where there is one, else the CPU.

    Returns:
        The paths of the first files.

    Raises:
        ValueError: an unknown name, or weights for a profile.
        FileNotFoundError: a data set or weights are not there.
        ChildProcessError: some steps or cells failed, the message says which and why; the others are kept.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be positive, got {jobs}")
    if name == "maps":
        return [measure_maps()]
    if name == "embeddings":
        return [measure_embeddings()]
    if name == "robustness":
        return [measure_robustness(jobs, weights)]
    if name == "hashing":
        return [measure_hashing(jobs)]
    if name == "weights":
        return [measure_weights()]
    if name == "untrained":
        return [measure_untrained(weights)]
    if name == "which":
        return [measure_which(weights)]
    if name == "cub_features":
        if weights is None:
            raise ValueError("cub_features needs --weights, the file of SqueezeNet's ImageNet weights")
        return [measure_features(weights)]
    if name == "cars_features":
        return [measure_car_features()]
    if name not in profiles():
        raise ValueError(f"unknown {name!r}; choose a profile, {', '.join(profiles())}, or {', '.join(OTHERS)}")
    if weights is not None:
        raise ValueError(f"--weights is not for a profile; study.yaml says where those of {name} are from")
    return measure_profile(name, jobs, device)
