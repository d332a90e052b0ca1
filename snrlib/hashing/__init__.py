"""Hashing, the extension that the paper announces: codes of bits, learned with a distance and searched by counting.

One file holds one idea: `codes` (signs, packed; the Hamming distance), `search`, `scores` (ties averaged), `networks`
(a last layer with relaxed codes), `regularizers` (near -1 and +1, as many of each), `dsh` and `dtsh` (two published
losses), `methods` (what is compared, margins in one unit), `protocols` (who is searched for, and who is searched). The
paper's own hashing objective could not be read: SNR losses over relaxed codes with these regularizers are our reading.
"""

from snrlib.hashing.codes import hamming, pack, unpack
from snrlib.hashing.dsh import DSHLoss
from snrlib.hashing.dtsh import DTSHLoss
from snrlib.hashing.methods import METHODS, Method, code_distance, get_method
from snrlib.hashing.networks import RelaxedHead, hasher
from snrlib.hashing.protocols import PROTOCOLS, Gallery, HashingSets, Protocol, Split, hashing_sets, split
from snrlib.hashing.regularizers import CodeRegularizer
from snrlib.hashing.scores import TieGroups, average_precision, relaxed_map, score_codes, tie_groups
from snrlib.hashing.search import nearest_codes

__all__ = [
    "METHODS",
    "PROTOCOLS",
    "CodeRegularizer",
    "DSHLoss",
    "DTSHLoss",
    "Gallery",
    "HashingSets",
    "Method",
    "Protocol",
    "RelaxedHead",
    "Split",
    "TieGroups",
    "average_precision",
    "code_distance",
    "get_method",
    "hamming",
    "hasher",
    "hashing_sets",
    "nearest_codes",
    "pack",
    "relaxed_map",
    "score_codes",
    "split",
    "tie_groups",
    "unpack",
]
