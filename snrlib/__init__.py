"""Learn, test and reproduce deep metric learning with the SNR distance.

Behind each notebook stand these modules of ``snrlib``, beside `plots`, which draws for all of them:

    00 start here               data, backbones, losses.triplet, sampling, train, evaluate
    01 signal and noise         distances
    02 SNR and Euclid           distances, evaluate, explore.playground
    03 correlation              distances
    04 losses                   losses, sampling
    05 forces                   losses, train
    06 fair comparison          losses, train, evaluate, stats
    07 train                    experiment, train, evaluate
    08 AlexNet and ResNet       backbones, study.tables
    09 relative Mahalanobis     mahalanobis, study.fitted_maps
    10 t-SNE                    explore.maps, explore.inspector, study.embeddings
    11 which distance           evaluate, mahalanobis, study.which_words
    12 scoreboard               study.scoreboard, study.robustness, stats
    13 errata and glossary      distances, losses.triplet
    14 hashing                  hashing, study.hashing

`notebooks` runs them as programs, `study` runs many and keeps what they found, `report` makes the pages out of it,
`teach` the copies and slides of a course, and `cli` is the command ``snr`` that asks for all this. Imports run one way;
pyproject.toml states which.
"""

from importlib.metadata import version

__version__ = version("snrlib")
