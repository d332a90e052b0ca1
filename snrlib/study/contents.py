"""``data/reference/README.md``: what each file of stored numbers holds, and the numbers in tables; all is generated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from snrlib.study.discussion import discussion
from snrlib.study.scoreboard import BOARD, SCORES, SHOWN, scoreboard
from snrlib.study.stored import Results, read, read_about, studies
from snrlib.study.tables import differences, label, loss_table, summary, under_training_distance
from snrlib.study.untrained import untrained_scores
from snrlib.study.words import answers, figure_alt
from snrlib.utils.files import data_folder, study_root, write_text

__all__ = [
    "contents",
    "loss_tables",
    "markdown_table",
    "reference_table",
    "tables",
    "untrained_table",
    "with_answers",
    "write_contents",
]

_SHOWN = ("precision_at_1", "mean_average_precision_at_r", "EER")
_OTHERS = {  # files that are no studies: what they hold, and the command that makes them where none is stored
    "cub_features": ("the data set of that name: pooled features of photographs of CUB", "snr measure cub_features"),
    "hashing": ("codes of bits: eight methods by mAP over Hamming distance; what each radius finds", ""),
    "embeddings": ("embeddings of test characters before and after training", "snr measure embeddings"),
    "maps": ("fitted maps (whitening, LMNN, NCA) on fixed vectors: errors over splits; unseen classes", ""),
    "robustness": ("R@1 on spoiled images, and after training on spoiled images or wrong labels", ""),
    "pretrained": ("classifiers of Tiny ImageNet to start from: how they were trained, their top-1", "snr pretrain"),
    "which": ("ways to search embeddings that nobody trained here, compared; random vectors", ""),
    "untrained": ("each study's networks before training, under cosine, Euclid and SNR", ""),
    "gallery_comparison": ("picture of the main README: the page of a comparison", "snr compare FILE"),
    "gallery_comparison_phone": ("the same on a phone", "snr compare FILE"),
    "gallery_inspector": ("picture of the main README: the t-SNE inspector", "snr inspect"),
    "gallery_inspector_phone": ("the same on a phone", "snr inspect"),
    "gallery_playground": ("picture of the main README: the playground", "snr playground"),
    "gallery_playground_phone": ("the same on a phone", "snr playground"),
    "retrieval": ("picture of the main README: last figure of notebook 00", "snr refresh 00"),
    "scoreboard": ("picture of the main README: first figure of notebook 12", "snr refresh 12"),
}
_BESIDE = {"maps_unseen": "maps", "hashing_curves": "hashing", "which_differences": "which"}  # second tables
_PREFIX = "tuned_"
_INTRO = """# Stored numbers

This page is generated from the files beside it (`snrlib.study.contents`). `NAME.csv` has the numbers, `NAME.json` says
where they are from: command, settings, what was tuned, seeds, versions, commit, processor, minutes, fingerprints of the
images. `snrlib.study.stored` reads and writes all of them. A study, `read("omniglot")`, is a table with a row per run
and judge: `data`, `backbone`, `loss`, `distance`, `map`, `variant` (what else decides the training), `margin`, `seed`;
`judge` ("training" is the distance that it was trained under) and `anchor`; the scores; what it costs. Files of earlier
editions have other columns and are translated as they are read. [weights](weights/README.md) has a small trained
network, with its card.
"""
_READING = """All scores are on classes that no training saw, but those of *report_cifar10_published*, a closed set;
they are under the training distance, its query the anchor: means over the seeds, with half of their 95 % t-interval.
They depend on the gallery; its classes and images stand beside them, and what the same network gives untrained under
cosine (with given weights or features: before the random head). A range is over losses."""
_TUNED = """The margin was tuned for each distance with equal trials on validation classes, in the distance's own
unit; in the studies that begin with *acts* the learning rate, too. The last column compares with Euclid, paired by
seed."""
_ARROWS = """R@1. ▲ and ▼: higher or lower than Euclid under the same loss, paired by seed, also with Holm's
correction for all cells of that study (relative Euclid, a near-copy of SNR, aside); △ and ▽: only by itself. Both
take differences between seeds for normal, which a handful cannot show. A number without ± is of one seed. Margin and
learning rate were tuned, in *cub_features_losses* the margin alone; in *boards*, *cars* and *report* the scale of the
losses that have one, too. What *report* tuned, it tuned on Tiny ImageNet."""


def contents() -> str:
    """The page.

    Raises:
        ValueError: a damaged file.
    """
    found = {name: read(name) for name in studies()}
    return "\n".join([_INTRO, "## Files\n", _files(found), "\n## The studies\n", tables(list(found))]) + "\n"


def tables(names: Sequence[str]) -> str:
    """Stored studies in Markdown: what training made of the untrained networks, and every loss and distance.

    Args:
        names: of the studies, at least one.
    """
    own = {name: under_training_distance(read(name).runs) for name in names}
    by_losses = [name for name in names if own[name].loss.nunique() > 1]
    one_loss = [name for name in names if name not in by_losses]
    parts = [
        "### Before training, and after it\n",
        _READING,
        "",
        untrained_table([one for one in names if _has_euclid(own[one])]),
    ]
    if one_loss:
        parts += ["\n### One loss\n", _TUNED, "", reference_table(one_loss)]
    if by_losses:
        parts += ["\n### All losses\n", _ARROWS, "", loss_tables(by_losses)]
    return "\n".join(parts)


def with_answers(readme: str) -> str:
    """The study's own README with its generated parts renewed: the answer, what doing nothing gives, the picture.

    The parts stand between lines ``<!-- answers: begin -->`` and ``<!-- answers: end -->``, and so with "untrained".

    Raises:
        ValueError: a part is not there.
    """
    parts = {
        "answers": _answers(),
        "untrained": untrained_table(BOARD),
    }
    for name, text in parts.items():
        before, begin, rest = readme.partition(f"<!-- {name}: begin -->\n")
        _, end, after = rest.partition(f"<!-- {name}: end -->")
        if not end:
            raise ValueError(f"the README has no part {name}")
        readme = f"{before}{begin}{text}\n{end}{after}"
    alt = figure_alt(scoreboard(BOARD), SHOWN)
    picture = re.compile(r"!\[.*\]\((?=data/reference/scoreboard\.png)")
    return picture.sub(lambda _: f"![{alt}](", readme)


def _answers() -> str:
    """Plain sentences, and folded away below them what they stand on."""
    plain = re.sub(r"\]\((?=\w+\.ipynb)", "](notebooks/", discussion())
    counts = "\n".join(f"- **{question}** {text}" for question, text in answers().items())
    return f"{plain}\n\n<details><summary>The counts and means behind it</summary>\n\n{counts}\n\n</details>"


def write_contents() -> list[Path]:
    """Write ``data/reference/README.md``, and the generated parts of the study's own README, if it has one."""
    path, readme = data_folder("reference") / "README.md", study_root() / "README.md"
    texts = {path: contents()}
    if readme.exists():
        texts[readme] = with_answers(readme.read_text(encoding="utf-8"))
    for place, text in texts.items():
        write_text(place, text)
    return list(texts)


def _files(found: dict[str, Results]) -> str:
    files: dict[str, list[str]] = {}
    for path in sorted(data_folder("reference").iterdir()):
        if path.suffix in (".csv", ".json", ".npz", ".png") and not path.name.startswith("."):
            name = _BESIDE.get(path.stem, path.stem)
            files.setdefault(name, []).append(path.name)
    rows = []
    for name, names in files.items():
        what, command = _OTHERS.get(name, ("", ""))
        if name.startswith(_PREFIX):
            what = (
                f"margins, scales and learning rates tuned for the profile *{name.removeprefix(_PREFIX)}*, all trials"
            )
        if name in found:
            what = _study(found[name].runs)
        if f"{name}.json" in names:
            command = str(read_about(name).get("command", command))
        command = command.replace("snr reference", "snr measure")  # the word of earlier editions
        rows.append([", ".join(f"`{one}`" for one in names), what, f"`{command}`" if command else ""])
    return markdown_table(["file", "what it holds", "made by"], rows)


def _study(runs: pd.DataFrame) -> str:
    own = under_training_distance(runs)
    distances = len(own[["distance", "map", "variant"]].drop_duplicates())
    n_losses = own.loss.nunique()
    losses = str(own.loss.iloc[0]) if n_losses == 1 else f"{n_losses} losses"
    n_seeds = own.seed.nunique()
    return (
        f"study: {', '.join(own.data.unique())} with {', '.join(own.backbone.unique())}, {losses}, {distances} "
        f"distances and maps, {n_seeds} seed{'s' if n_seeds > 1 else ''}"
    )


def untrained_table(names: Sequence[str]) -> str:
    """Stored studies as a Markdown table: gallery, R@1 of the untrained network, and what training made of it.

    Args:
        names: of studies; a row per network, and a range over the losses for each distance.
    """
    board = pd.concat([scoreboard([name]) for name in names])
    board = board[board["map"].isin(["", "running"])]
    shown = list(dict.fromkeys(board.distance))
    rows = []
    for (study, backbone), part in board.groupby(["study", "backbone"], sort=False):
        ranges = [_range(part[part.distance == distance]["mean"]) for distance in shown]
        first = part.iloc[0]
        before = ["", ""]
        if pd.notna(first.untrained):
            before = [f"{first.classes:,.0f} classes, {first.images:,.0f} images", f"{first.untrained:.3f}"]
        rows.append([str(study), str(backbone), *before, *ranges])
    return markdown_table(["study", "network", "gallery", "untrained, cosine", *shown], rows)


def _has_euclid(own: pd.DataFrame) -> bool:
    """Whether the runs of a study have what its arms are compared with."""
    return bool(((own.distance == "euclidean") & (own.variant == "")).any())


def _range(values: pd.Series) -> str:
    if values.empty:
        return ""
    ends = dict.fromkeys([f"{values.min():.3f}", f"{values.max():.3f}"])
    return " to ".join(ends)


def reference_table(names: Sequence[str]) -> str:
    """Stored studies of one loss as a Markdown table: R@1, MAP@R and EER by the training distance, query as anchor.

    Args:
        names: of the studies.

    Raises:
        FileNotFoundError: one was not measured.
    """
    rows = []
    for name in names:
        own = under_training_distance(read(name).runs)
        against = differences(own, "distance", "euclidean").reset_index() if _has_euclid(own) else own.head(0)
        before = {score: untrained_scores(name, score)["mean"] for score in _SHOWN}
        first = iter([f"{name}, {', '.join(own.loss.unique())}"])  # in its first row alone
        for backbone, network in own.groupby("backbone", sort=False):
            if backbone in before["precision_at_1"]:
                scores = [f"{before[score][backbone]:.3f}" for score in _SHOWN]
                rows.append([next(first, ""), str(backbone), "untrained, cosine", "", *scores, "", ""])
            for arm, part in network.groupby(["distance", "map", "variant"], sort=False):
                means = [summary(part, score).iloc[0] for score in _SHOWN]
                scores = [f"{one['mean']:.3f} ± {one.half_width:.3f}" for one in means]
                same = (against.backbone == backbone) & (against[["distance", "map", "variant"]] == list(arm)).all(
                    axis=1
                )
                said = [f"{one.verdict} ({one.mean:+.3f} ± {one.half_width:.3f})" for one in against[same].itertuples()]
                seen = [label(*map(str, arm)), f"{part.margin.iloc[0]:g}", *scores, str(part.seed.nunique())]
                rows.append([next(first, ""), str(backbone), *seen, "".join(said)])
    titles = ["study", "network", "distance", "margin", *(SCORES.get(score, score) for score in _SHOWN)]
    return markdown_table([*titles, "seeds", "R@1 against Euclid"], rows)


def loss_tables(names: Sequence[str]) -> str:
    """`snrlib.study.tables.loss_table` of each network of stored studies as one Markdown table, untrained ones first.

    Raises:
        FileNotFoundError: one was not measured.
    """
    tables = {
        (name, str(backbone)): loss_table(runs)
        for name in names
        for backbone, runs in read(name).runs.groupby("backbone", sort=False)
    }
    losses = list(dict.fromkeys(loss for table in tables.values() for loss in table.columns))
    rows = []
    for (name, backbone), table in tables.items():
        study = f"{name}, {backbone}"
        before = untrained_scores(name)
        for row in before[before.index == backbone].itertuples():
            gallery = f"{study}: {row.classes:,.0f} classes, {row.images:,.0f} images"
            rows.append(
                [gallery, "untrained, cosine", *[f"{row.mean:.3f}" if loss in table else "" for loss in losses]]
            )
            study = ""
        for distance, texts in table.reindex(columns=losses).astype(object).fillna("").iterrows():
            rows.append([study, str(distance), *texts])
            study = ""
    return markdown_table(["study", "distance", *losses], rows)


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; cells are texts."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
