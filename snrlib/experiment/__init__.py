"""One experiment: a network is trained with a loss over a distance on some classes, and judged on others.

`settings` holds every choice, `parts` makes of them what they name, `running` trains and judges, `result` is what comes
out. Notebook 07 runs one, notebook 08 compares several, ``snr train`` runs one without a notebook.
"""

from snrlib.experiment.parts import distance_of, images_of
from snrlib.experiment.result import FILES, Experiment, Run, read_run
from snrlib.experiment.running import Fitted, device_name, experiment, fit, initial_scale, untrained, usual_device
from snrlib.experiment.settings import BUDGETS, MAPS, Settings, default_settings

__all__ = [
    "BUDGETS",
    "FILES",
    "MAPS",
    "Experiment",
    "Fitted",
    "Run",
    "Settings",
    "default_settings",
    "device_name",
    "distance_of",
    "experiment",
    "fit",
    "images_of",
    "initial_scale",
    "read_run",
    "untrained",
    "usual_device",
]
