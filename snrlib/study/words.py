"""What the tables say in words: every number and every adjective follows from the stored numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pandas as pd

from snrlib.stats import sign_test
from snrlib.study import stored
from snrlib.study.contrasts import EQUAL, contrasts
from snrlib.study.robustness import MEASURES, compare_drops
from snrlib.study.scoreboard import BOARD, SCORES, by_search_and_training, mean_differences, scoreboard, tally

__all__ = ["answers", "effect", "effect_of", "figure_alt", "p_value", "sentence"]

_NONE = "no consistent effect"
_NOTHING = "no difference shown"
_WORSE = ("EER",)  # scores of which less is better
_LESS = ", of which less is better,"
_CALLED = {
    "mahalanobis": "Mahalanobis, a whitening of the spread within classes that follows the training",
    "relative_mahalanobis": "The same made relative",
    "relative_euclidean": "Relative Euclid, the near-copy of SNR",
}
_BESIDE = ("mean_average_precision_at_r", "EER")  # scores that stand beside the one that is asked for


def effect(up: int, down: int, level: float = 0.95) -> str:
    """What counts of "higher" and "lower" show, by the exact sign test (`snrlib.stats.sign_test`).

    >>> effect(5, 6), effect(10, 0)
    ('no consistent effect', 'more often higher than lower')
    """
    if sign_test(up, down) >= 1 - level:
        return _NONE
    return "more often higher than lower" if up > down else "more often lower than higher"


def sentence(
    board: pd.DataFrame, distance: str, score: str = "R@1", level: float = 0.95, corrected: bool = True
) -> str:
    """What the scoreboard says of a distance, in words that follow its numbers.

    Args:
        board: of `snrlib.study.scoreboard.scoreboard`.
        distance: the one spoken of.
        score: how the compared score is called.
        level: of confidence.
        corrected: whether the counts with Holm's correction are told.

    Raises:
        ValueError: the distance is not compared there.
    """
    part = _part(board, distance)
    counts = tally(part, level=level).iloc[0]
    ordered = part.sort_values("difference").iloc[[0, -1]]
    ends = [f"{row.difference:+.3f} ({row.study}, {row.backbone}, {row.loss})" for row in ordered.itertuples()]
    return (
        f"{distance} against Euclid, {score}: {effect(counts.higher, counts.lower, level)}; "
        f"{_counts(part, level, corrected)}. From {' to '.join(ends)}."
    )


def figure_alt(board: pd.DataFrame, distances: Sequence[str], score: str = "R@1", level: float = 0.95) -> str:
    """What `snrlib.plots.scoreboard_plot` shows, for those who cannot see it."""
    said = [f"{name}: {_counts(_part(board, name), level, corrected=False)}" for name in distances]
    return (
        f"Differences of {score} to Euclid with intervals, a row for each network and loss, a panel for each distance. "
        + ". ".join(said)
        + "."
    )


def answers(studies: Sequence[str] = BOARD, score: str = "precision_at_1", level: float = 0.95) -> dict[str, str]:
    """The study's question, answered from its tables: what may be concluded, then the counts and means that say so.

    Args:
        studies: as for `snrlib.study.scoreboard.scoreboard`.
        score: the column that is compared.
        level: of confidence.

    Returns:
        Questions to answers.

    Raises:
        FileNotFoundError: a study, or the table of robustness, is not stored.
    """
    boards = {one: scoreboard(studies, one, level) for one in dict.fromkeys((score, *_BESIDE))}
    said = {
        "What may be concluded?": _conclusion(boards, studies, score, level),
        "Where does training help at all?": _helped(boards[score]),
        "Does the SNR distance help?": _help(boards, score, level),
        "And against the cosine?": _cosine(studies, score, level),
        "When?": _when(studies, score, level),
        "Why?": " ".join([_what_acts(level), _why(studies, level)]),
        "Is it robust?": _robust(level),
        "What helps more?": " ".join([_others(boards, studies, score, level), _whitened(studies, score, level)]),
    }
    return {question: answer.strip() for question, answer in said.items() if answer.strip()}


def _conclusion(boards: dict[str, pd.DataFrame], studies: Sequence[str], score: str, level: float) -> str:
    name, said = _name(score), effect_of(_part(boards[score], "snr"), level)
    text = f"Against Euclid the SNR distance has {_NONE} on {name}: it goes up or down with data and loss."
    if said != _NONE:
        text = f"{name} under the SNR distance is {said} than under Euclid."
    by_loss = mean_differences(studies, score, ("distance", "loss"), level).loc["snr"].reset_index()
    parts = {word: list(by_loss.loss[by_loss.verdict_seeds == word]) for word in ("higher", "lower")}
    if shown := [f"{word} under {', '.join(losses)}" for word, losses in parts.items() if losses]:
        text += f" On these data its mean difference is {'; '.join(shown)}."
    elsewhere = [f"{_name(one)} {_elsewhere(studies, one, level)}" for one in dict.fromkeys((score, _BESIDE[0]))]
    text += f" It is shown to hold for other data sets, each loss taken alone: {'; '.join(elsewhere)}."
    to_cosine = mean_differences(studies, score, ("distance",), level, "cosine")
    if {"snr", "euclidean"} <= set(to_cosine.index):
        text += (
            f" The cosine, which divides by both lengths, has {-to_cosine['mean']['euclidean']:+.3f} against Euclid, "
            f"and the SNR distance {to_cosine['mean']['snr']:+.3f} against the cosine."
        )
    if score != "EER":
        threshold = effect_of(_part(boards["EER"], "snr"), level)
        verb = "shows" if threshold == _NONE else "is"
        text += f" The error of one threshold for all queries, EER{_LESS} {verb} {threshold}."
    return text


def _elsewhere(studies: Sequence[str], score: str, level: float) -> str:
    """The losses under which the interval over data sets leaves 0 out."""
    by_loss = mean_differences(studies, score, ("distance", "loss"), level).loc["snr"]
    sure = [f"{word} under {loss}" for loss, word in by_loss.verdict.items() if word != _NOTHING]
    return ", ".join(sure) or "under no loss"


def _help(boards: dict[str, pd.DataFrame], score: str, level: float) -> str:
    lead = effect_of(_part(boards[score], "snr"), level)
    said = [
        f"{_name(one)}{_LESS if one in _WORSE else ''} is {_counts(_part(board, 'snr'), level, one == score)}"
        for one, board in boards.items()
    ]
    return (
        f"{lead[0].upper()}{lead[1:]}. Against Euclid under the same loss {'; '.join(said)}. Holm's correction is for "
        f"one family, the {boards[score].p_holm.notna().sum()} comparisons of {_name(score)} with Euclid; relative "
        "Euclid, a near-copy of SNR, is not in it."
    )


def _when(studies: Sequence[str], score: str, level: float) -> str:
    said = []
    for one in dict.fromkeys((score, _BESIDE[0])):
        by_loss = mean_differences(studies, one, level=level).xs("snr", level="distance").reset_index()
        everything = mean_differences(studies, one, ("distance",), level).loc["snr"]
        means = [f"{row['loss']} {_mean(row)}" for _, row in by_loss.iterrows()]
        said.append(f"{_name(one)}: {', '.join(means)}, all losses {_mean(everything)}")
    return (
        f"Mean difference to Euclid by loss, each data set counted once, ± half its {100 * level:g} % t-interval over "
        f"data sets (in brackets over seeds, for these data alone). {'. '.join(said)}."
    )


def _helped(board: pd.DataFrame) -> str:
    """What counts, and what does not: by data, network and loss."""
    groups = board.groupby(["data", "backbone", "loss"], sort=False).helped.first()
    not_helped = [", ".join(key) for key, helped in groups.items() if not helped]  # type: ignore[arg-type]
    return (
        f"In {groups.sum()} of {len(groups)} combinations of data, network and loss the best arm beats the same "
        "network untrained under cosine, by its MAP@R. The others count in no comparison: "
        f"{'; '.join(not_helped) or 'none'}."
    )


def _cosine(studies: Sequence[str], score: str, level: float) -> str:
    scores = dict.fromkeys((score, _BESIDE[0]))
    tables = {one: mean_differences(studies, one, ("distance",), level, "cosine") for one in scores}
    if "snr" not in tables[score].index:
        return ""
    said = []
    for one, table in tables.items():
        by_loss = mean_differences(studies, one, ("distance", "loss"), level, "cosine").loc["snr"]
        means = [f"{loss} {_mean(part)}" for loss, part in by_loss.iterrows()]
        row = table.loc["snr"]
        said.append(f"{_name(one)}: {', '.join(means)}, all losses {_mean(row)}, {row['verdict']}")
    return (
        f"SNR minus cosine under the same loss, in {row['comparisons']} comparisons on {row['data_sets']} data sets "
        f"that have both, intervals as below. {'. '.join(said)}."
    )


def _what_acts(level: float) -> str:
    """The four contrasts, of every stored study that has them."""
    said = []
    for study in ("acts_glyphs", "acts_birds"):
        try:
            table = contrasts(stored.read(study).runs, level=level)
        except FileNotFoundError:
            continue
        parts = []
        for name, row in table.iterrows():
            equal = f", equal within {EQUAL:g}" if row.p_equal < 1 - level else ""
            parts.append(f"{name} {row['mean']:+.3f} ± {row.half_width:.3f}{equal}")
        told = f"{study} ({table.seeds.iloc[0]} divisions of the classes): {'; '.join(parts)}"
        said.append(told + _at_one_setting(study, level))
    if not said:
        return ""
    return (
        "Four things divide SNR from Euclid; each alone, MAP@R under triplet loss: rows centred against not; the "
        "anchor's own unit against the batch's; a gradient through the unit against none; the square against the root. "
        f"{'. '.join(said)}."
    )


def _at_one_setting(study: str, level: float) -> str:
    """The same contrasts where all arms have one margin and one learning rate, in each study of it that is stored."""
    tables = {}
    for setting in ("near", "far"):
        with suppress(FileNotFoundError):
            runs = stored.read(f"{study}_{setting}").runs
            tables[f"margin {runs.margin.max():g}"] = contrasts(runs, level=level)
    if not tables:
        return ""
    parts = []
    for name in next(iter(tables.values())).index:
        rows = [one.loc[name] for one in tables.values()]
        parts.append(f"{name} " + " and ".join(f"{row['mean']:+.3f} ± {row.half_width:.3f}" for row in rows))
    return f"; untuned, all arms at one margin and one learning rate, {' and '.join(tables)}: {'; '.join(parts)}"


def _whitened(studies: Sequence[str], score: str, level: float) -> str:
    """What a whitened search adds to networks that Euclid trained."""
    said = []
    for study in studies:
        runs = stored.read(study).runs
        own = runs[(runs.distance == "euclidean") & (runs.variant == "") & runs.judge.isin(["training", "whitened"])]
        if not (own.judge == "whitened").any():
            continue
        wide = own.pivot(index=["loss", "seed"], columns="judge", values=score)
        gain = (wide.whitened - wide.training).groupby("loss", sort=False).mean()
        said.append(f"{study} {', '.join(f'{loss} {value:+.3f}' for loss, value in gain.items())}")
    if not said:
        return ""
    return (
        f"And a whitened search (centred, whitened within classes, length 1) of the very networks that Euclid trained "
        f"changes their {_name(score)} by: {'; '.join(said)}."
    )


def _why(studies: Sequence[str], level: float) -> str:
    parts = {name: _mean(table.loc["snr"]) for name, table in by_search_and_training(studies, "EER", level).items()}
    return (
        "R@1 cannot tell search from training: with the query as anchor the SNR distance ranks as centred Euclid does, "
        f"by algebra. EER can: of its mean difference, {parts['difference']}, the search under SNR makes "
        f"{parts['search']} and the training under it {parts['training']}."
    )


def _robust(level: float) -> str:
    table, said = stored.read_table("robustness"), []
    for when, spoiled in (("test", "spoiled queries"), ("training", "spoiled training images or wrong labels")):
        counted = []
        for measure, called in MEASURES.items():
            falls = compare_drops(table, level, measure).xs("snr", level="distance").reset_index()
            part = falls[falls.when == when]
            counted.append(f"{called}: {effect_of(part, level)}, {_counts(part, level, corrected=False)}")
        said.append(f"With {spoiled}, SNR against Euclid by {'; by '.join(counted)}.")
    return (
        f"{' '.join(said)} Margins were chosen on clean and, apart from that, on spoiled training images; both count."
    )


def _others(boards: dict[str, pd.DataFrame], studies: Sequence[str], score: str, level: float) -> str:
    compared = set(boards[score][boards[score].verdict != ""].distance)
    means = mean_differences(studies, score, ("distance",), level)
    said = []
    for distance, called in _CALLED.items():
        if distance not in compared:
            continue
        part, threshold = _part(boards[score], distance), _part(boards["EER"], distance)
        said.append(
            f"{called}: {effect_of(part, level)}; {_name(score)} {_counts(part, level, corrected=True)}, mean "
            f"difference {_mean(means.loc[distance])}; EER {_counts(threshold, level, corrected=False)}."
        )
    return " ".join(said)


def _name(score: str) -> str:
    return SCORES.get(score, score)


def _part(board: pd.DataFrame, distance: str) -> pd.DataFrame:
    part = board[(board.distance == distance) & (board.verdict != "")]
    if part.empty:
        others = board[board.verdict != ""].distance.unique()
        raise ValueError(f"{distance!r} is not compared; there are {', '.join(others)}")
    return part


def _counts(part: pd.DataFrame, level: float, corrected: bool) -> str:
    """Of a board, or of a table of robustness."""
    up, down = ((part.verdict == word).sum() for word in ("higher", "lower"))
    said = f"sign test p = {p_value(sign_test(up, down))}"
    if corrected and part.p_holm.notna().any():
        sure = part[part.p_holm < 1 - level].verdict
        said += f"; with Holm's correction {(sure == 'higher').sum()} higher, {(sure == 'lower').sum()} lower"
    return f"higher in {up} of {len(part)} comparisons, lower in {down} ({said})"


def effect_of(part: pd.DataFrame, level: float) -> str:
    """`effect` of the verdicts of a table."""
    return effect(int((part.verdict == "higher").sum()), int((part.verdict == "lower").sum()), level)


def _mean(row: Any) -> str:
    """A row of `mean_differences`, with its two intervals."""
    few = {1: "on one data set", 2: "on two data sets"}
    over_data = few.get(row["data_sets"], f"± {row['half_width']:.3f}")
    return f"{row['mean']:+.3f} {over_data} (± {row['half_width_seeds']:.3f})"


def p_value(p: float) -> str:
    """In as many digits as tell."""
    return f"{p:.2f}" if p >= 0.095 else f"{p:.1g}"
