"""What the paper and the report claim (``claims.yaml``), and what came of it here: a verdict by one rule for all.

A claim about training is reproduced if the exact sign test over its comparisons shows the effect that it claims; one
that is algebra if the numbers of `snrlib.report.algebra` agree with it. Every result is computed, or is a sentence of
`snrlib.study.words.answers`, which stands nowhere else. What states a direction in other words goes through `holds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from snrlib.report import algebra
from snrlib.study import hashing, stored
from snrlib.study.contents import markdown_table
from snrlib.study.robustness import MEASURES, compare_drops
from snrlib.study.scoreboard import BOARD, scoreboard
from snrlib.study.tables import under_training_distance
from snrlib.study.words import effect, effect_of, sentence

__all__ = ["BENCHMARKS", "NOT_REPRODUCED", "NOT_TESTABLE", "REPRODUCED", "Claim", "Evidence", "claims", "holds"]

REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE = "reproduced", "not reproduced", "not testable here"
BENCHMARKS: tuple[str, ...] = ("cars", "cub200", "full_cub200", "report_cifar10_published", "report_cifar10")
"""Studies on the images of the paper's benchmarks."""
_ROUNDING = 1e-12
_CLOSE = 0.01  # of a correlation
_HIGHER, _LOWER = effect(99, 0), effect(0, 99)
Found = tuple[str, str]
"""A verdict, and what came out, in Markdown."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was computed before.

    Attributes:
        said: of `snrlib.study.words.answers`.
        board: of `snrlib.study.scoreboard.scoreboard`, of all studies on it, by R@1.
        level: of confidence.
    """

    said: Mapping[str, str]
    board: pd.DataFrame
    level: float = 0.95


@dataclass(frozen=True)
class Claim:
    """One claim, as ``claims.yaml`` states it, and what came of it.

    Attributes:
        number: P1, P2, ... of the paper, R1, R2, ... of the report.
        source: where it stands.
        title: in a few words.
        says: the claim.
        differs: what is not the same here, or why it comes out otherwise.
        repeat: commands that measure and show it.
        verdict: "reproduced", "not reproduced", or "not testable here".
        result: what came out, in Markdown.
    """

    number: str
    source: str
    title: str
    says: str
    differs: str
    repeat: tuple[str, ...]
    verdict: str
    result: str


def claims(given: Evidence) -> list[Claim]:
    """All claims, in the order of the file.

    Raises:
        FileNotFoundError: a study that is not stored.
        ValueError: a sentence that the tables no longer bear out; it is named.
    """
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    found, counts = [], {"P": 0, "R": 0}
    for entry in yaml.safe_load(text):
        name, letter = entry.pop("id"), entry["source"][0].upper()
        counts[letter] += 1
        verdict, result = _FINDERS[name](given)
        entry["repeat"] = tuple(entry["repeat"])
        found.append(Claim(f"{letter}{counts[letter]}", **entry, verdict=verdict, result=result))
    return found


def holds(text: str, condition: bool) -> str:
    """The sentence, if the tables bear it out.

    Raises:
        ValueError: they do not.
    """
    if not condition:
        raise ValueError(f"the article says what the stored tables no longer do: {text!r}")
    return text


def _by(condition: bool) -> str:
    return REPRODUCED if condition else NOT_REPRODUCED


def _effect(board: pd.DataFrame, level: float) -> str:
    """Of SNR against Euclid, on a scoreboard or a table of robustness."""
    own: Any = board.xs("snr", level="distance") if "distance" in board.index.names else board[board.distance == "snr"]
    return effect_of(own, level)


def _at_most(number: float) -> str:
    """A deviation in words that are the same on every machine, as long as it is rounding."""
    return f"less than {_ROUNDING:.0e} (rounding)" if number < _ROUNDING else f"up to {number:.2g}"


def _robust(given: Evidence) -> Found:
    table = stored.read_table("robustness")
    drops = [compare_drops(table, given.level, measure) for measure in MEASURES]
    effects = {_effect(part, given.level) for drop in drops for _, part in drop.groupby("when")}
    return _by(effects == {_HIGHER}), given.said["Is it robust?"]


def _losses(given: Evidence) -> Found:
    result = f"{given.said['Does the SNR distance help?']}\n\n{given.said['When?']}"
    return _by(_effect(given.board, given.level) == _HIGHER), result


def _closer(given: Evidence) -> Found:
    board = scoreboard(BOARD, "EER", given.level)
    found = sentence(board, "snr", "EER", given.level, corrected=False)
    return _by(_effect(board, given.level) == _LOWER), found


def _benchmarks(given: Evidence) -> Found:
    board = scoreboard(BENCHMARKS, level=given.level)
    key = ["study", "data", "backbone", "loss"]
    euclid = board[board.distance == "euclidean"].set_index(key)["mean"].rename("euclid")
    rows = [_benchmark(row) for row in board[board.distance == "snr"].join(euclid, on=key).itertuples()]
    titles = ["study", "network", "loss", "seeds", "untrained, cosine", "Euclid", "SNR", "SNR minus Euclid"]
    explained = (
        "R@1 under the training distance, its query the anchor. Behind ± is half the t-interval over seeds; of one "
        "seed, the interval in brackets is over its queries alone."
    )
    return NOT_TESTABLE, f"{explained}\n\n{markdown_table([*titles, 'training helps'], rows)}"


def _benchmark(row: Any) -> list[str]:
    less = f"{row.mean - row.euclid:+.3f}"
    if pd.notna(row.difference_half_width):
        less += f" ± {row.difference_half_width:.3f}"
    elif pd.notna(row.low):
        less += f" ({row.low:+.3f} to {row.high:+.3f})"
    before = f"{row.untrained:.3f}" if pd.notna(row.untrained) else ""
    helps = ("yes" if row.helped else "no") if row.seeds > 1 else "one seed"
    named = [row.study, row.backbone, row.loss, str(row.seeds)]
    return [*named, before, f"{row.euclid:.3f}", f"{row.mean:.3f}", less, helps]


def _similarity(given: Evidence) -> Found:
    return NOT_TESTABLE, "Its argument could not be read, and no number stands for it."


def _hashing(given: Evidence) -> Found:
    rows = stored.read_table("hashing")
    told = hashing.answers(rows)
    kept = ["Does SNR train better codes than Euclid?", "Than the published methods?", "Which is highest?"]
    result = "Mean average precision over Hamming distance. " + " ".join(f"{one} {told[one]}." for one in kept)
    if "cifar10" not in set(rows.data):
        return NOT_TESTABLE, result
    pairs = [hashing.against(rows, f"snr_{form}", f"euclidean_{form}", ("data",)) for form in ("pair", "triplet")]
    return _by(all(pair.verdict["cifar10"] == "higher" for pair in pairs)), result


def _nus_wide(given: Evidence) -> Found:
    return NOT_TESTABLE, "Nothing was measured."


def _figure_3(given: Evidence) -> Found:
    table = algebra.figure_3()
    rows = [[f"{row.Index:g}", f"{row.mean:.3f}", f"{row.low:.2f} to {row.high:.2f}"] for row in table.itertuples()]
    overlap = bool((table.high.iloc[:-1].to_numpy() > table.low.iloc[1:].to_numpy()).all())
    text = holds(
        "It is so on average; the ranges of neighbouring variances overlap, so a single draw may differ.", overlap
    )
    titles = ["variance of the noise", "mean of the SNR distance", "range of nine in ten draws"]
    return _by(table["mean"].is_monotonic_increasing), f"{text}\n\n{markdown_table(titles, rows)}"


def _equation_10(given: Evidence) -> Found:
    most = algebra.relative_to_euclid()
    result = (
        f"On {algebra.PAIRS} random pairs of mean zero the two, squared, differ by {_at_most(most)} of their value."
    )
    return _by(most < _ROUNDING), result


def _superiority(given: Evidence) -> Found:
    board = scoreboard(BOARD, "AUC", given.level)
    result = (
        "With the anchor fixed the SNR distance puts the others in the order of centred Euclid: so for "
        f"{algebra.order()} of {algebra.PAIRS} random anchors. One threshold for the pairs of all anchors: "
        f"{sentence(board, 'snr', 'AUC', given.level, corrected=False)}"
    )
    return _by(_effect(board, given.level) == _HIGHER), result


def _forces(given: Evidence) -> Found:
    most = algebra.moved_length()
    result = (
        f"Of {algebra.PAIRS} random pairs, a small step changes the squared length of both vectors together by "
        f"{_at_most(most)} of the squared length that it moves from one to the other."
    )
    return _by(most > _ROUNDING), result


def _correlation(given: Evidence) -> Found:
    table = algebra.correlations()
    right = (table.correlation - table.equation_14).abs() < _CLOSE
    rows = [[str(pair), *(f"{value + 0:.2f}" for value in row)] for pair, row in table.round(6).iterrows()]
    text = f"Equation 14 is right in {right.sum()} of {len(table)} kinds of pairs."
    titles = ["pair", "SNR distance", "correlation", "equation 14"]
    return _by(bool(right.all())), f"{text}\n\n{markdown_table(titles, rows)}"


def _networks(given: Evidence) -> Found:
    studies = [name for name in stored.studies() if name.startswith("report_")]
    runs = under_training_distance(pd.concat([stored.read(name).runs.assign(study=name) for name in studies]))
    runs = runs[(runs.loss != "untrained") & (runs.anchor != "ref")]
    key = ["study", "loss", "distance", "map", "variant", "seed"]
    wide = runs.pivot(index=key, columns="backbone", values="precision_at_1").dropna(subset=["alexnet", "resnet18"])
    less = wide.resnet18 - wide.alexnet
    one = holds("Each is of one seed, so there is no interval.", runs.seed.nunique() == 1)
    result = (
        f"ResNet-18 has the higher R@1 in {(less > 0).sum()} of {len(less)} pairs that share data, loss and distance, "
        f"by {less.mean():+.3f} on average ({less.min():+.3f} to {less.max():+.3f}). {one}"
    )
    return NOT_TESTABLE, result


def _relative_mahalanobis(given: Evidence) -> Found:
    return NOT_TESTABLE, given.said["What helps more?"]


_FINDERS: dict[str, Callable[[Evidence], Found]] = {
    "robust": _robust,
    "losses": _losses,
    "closer": _closer,
    "benchmarks": _benchmarks,
    "similarity": _similarity,
    "hashing": _hashing,
    "nus_wide": _nus_wide,
    "figure_3": _figure_3,
    "equation_10": _equation_10,
    "superiority": _superiority,
    "forces": _forces,
    "correlation": _correlation,
    "networks": _networks,
    "relative_mahalanobis": _relative_mahalanobis,
}
