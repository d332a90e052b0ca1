"""Maps ``L`` for the Mahalanobis distances ``||L(b - a)||`` and ``||L(b - a)||^2 / ||L a||^2``.

Three ways to come by one: `Whitening` and `LMNN` are fitted to given vectors, as scikit-learn estimators;
`RunningWhitening` follows a network while it trains; a ``torch.nn.Parameter`` as ``components`` of
`snrlib.distances.get_distance` is trained with it (`snrlib.losses.LogDetRegularizer` keeps it regular).

What to do with one: `whitened_search` searches finished embeddings, `usual_ways` lists it among others for
`snrlib.evaluate.compare`, and `EnergyClassifier` classifies by LMNN's objective.
"""

from snrlib.mahalanobis.base import FittedMap
from snrlib.mahalanobis.energy import EnergyClassifier
from snrlib.mahalanobis.lmnn import LMNN
from snrlib.mahalanobis.running import RunningWhitening
from snrlib.mahalanobis.search import whitened_search
from snrlib.mahalanobis.ways import LMNN_BOUND, SteadyLMNN, usual_ways
from snrlib.mahalanobis.whitening import Whitening

__all__ = [
    "LMNN",
    "LMNN_BOUND",
    "EnergyClassifier",
    "FittedMap",
    "RunningWhitening",
    "SteadyLMNN",
    "Whitening",
    "usual_ways",
    "whitened_search",
]
