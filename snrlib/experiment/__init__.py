"""One experiment: a network is trained with a loss over a distance on some classes, and judged on others."""

from snrlib.experiment.running import (
    BUDGETS,
    MAPS,
    Experiment,
    Fitted,
    default_settings,
    distance_of,
    experiment,
    fit,
    from_parameters,
    images_of,
    initial_scale,
    tuned,
    tuned_parameters,
    untrained,
)

__all__ = [
    "BUDGETS",
    "MAPS",
    "Experiment",
    "Fitted",
    "default_settings",
    "distance_of",
    "experiment",
    "fit",
    "from_parameters",
    "images_of",
    "initial_scale",
    "tuned",
    "tuned_parameters",
    "untrained",
]
