"""The replication article: its numbers are those of the tables, its verdicts follow them, and it stands alone."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from scipy import stats

from snrlib.cli.main import main
from snrlib.notebooks.find import find_notebook
from snrlib.notebooks.parameters import parameters
from snrlib.report import article as writing
from snrlib.report import claims as judging
from snrlib.report import index
from snrlib.report.article import article, article_page
from snrlib.report.claims import NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, Evidence, claims, holds
from snrlib.study import stored
from snrlib.study.measure import OTHERS
from snrlib.study.profiles import cells
from snrlib.study.scoreboard import BOARD, scoreboard
from snrlib.study.words import answers

HERE = Path(judging.__file__).parent
NAMES = r"CARS196|CUB200-2011|CIFAR10|cifar10\w*|ResNet-18|squeezenet1_1|R@1|MAP@R"
NUMBERED = r"(?:section|figure|equation)s? [\d.]+(?: to \d+)?(?: and figure \d+)?|notebook 13"


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    return answers()


@pytest.fixture(scope="module")
def board() -> pd.DataFrame:
    return scoreboard(BOARD)


@pytest.fixture(scope="module")
def text(said: dict[str, str]) -> str:
    return article(said)


def test_no_number_is_typed() -> None:
    template = (HERE / "article.md.j2").read_text().partition("## References")[0]
    prose = re.sub(r"\{[{%#].*?[}%#]\}|`[^`]*`|\[[^\]]*\]\([^)]*\)", "", template, flags=re.DOTALL)
    entries = yaml.safe_load((HERE / "claims.yaml").read_text())
    prose += "\n".join(entry[key] for entry in entries for key in ("source", "title", "says", "differs"))
    left = re.sub(rf"{NAMES}|{NUMBERED}|`[^`]*`", "", prose)
    assert not re.findall(r".{0,30}\d.{0,30}", left)


def test_each_answer_stands_there_once(text: str, said: dict[str, str]) -> None:
    assert {question: text.count(answer) for question, answer in said.items()} == dict.fromkeys(said, 1)


def test_numbers_are_those_of_the_tables(text: str, repository: Path) -> None:
    reference = repository / "data" / "reference"
    cars = pd.read_csv(reference / "cars.csv")
    cars = cars[(cars.judge == "training") & (cars.loss == "contrastive") & (cars.anchor != "ref")]
    wide = cars.pivot(index="seed", columns=["distance", "map"], values="precision_at_1").droplevel(1, axis=1)
    less = (wide.snr - wide.euclidean).to_numpy()
    half = stats.t.ppf(0.975, len(less) - 1) * less.std(ddof=1) / len(less) ** 0.5
    assert f"| {less.mean():+.3f} ± {half:.3f} |" in text
    runs = [
        runs[(runs.judge == "training") & (runs.anchor != "ref")] for runs in (stored.read(one).runs for one in BOARD)
    ]
    assert f"{sum((own.loss != 'untrained').sum() for own in runs):,} networks" in text
    files = [json.loads(path.read_text()) for path in reference.glob("*.json")]
    minutes = [value for about in files for key, value in about.items() if re.match(r"(core_)?minutes", key)]
    assert f"{sum(minutes) / 60:.0f} hours of cores" in text
    numbers = re.findall(r"(?:### |\| )(E\d+) ", find_notebook("13").read_text())
    assert f"\n{len(set(numbers))} errata" in text


@pytest.mark.parametrize(
    ("claim", "verdicts", "wanted"),
    [
        ("losses", ["higher"] * 10, REPRODUCED),
        ("losses", ["higher", "lower"] * 5, NOT_REPRODUCED),
        ("losses", ["lower"] * 10, NOT_REPRODUCED),
        ("closer", ["lower"] * 10, REPRODUCED),
        ("closer", ["higher"] * 10, NOT_REPRODUCED),
        ("superiority", ["higher"] * 10, REPRODUCED),
        ("superiority", ["no difference shown"] * 10, NOT_REPRODUCED),
    ],
)
def test_verdicts_follow_the_tables(
    claim: str,
    verdicts: list[str],
    wanted: str,
    said: dict[str, str],
    board: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = board[(board.distance == "snr") & (board.verdict != "")].head(10).assign(verdict=verdicts)
    monkeypatch.setattr(judging, "scoreboard", lambda *_, **__: made)
    assert judging._FINDERS[claim](Evidence(said, made))[0] == wanted


@pytest.mark.parametrize(("worst", "wanted"), [("higher", REPRODUCED), ("no difference shown", NOT_REPRODUCED)])
def test_robust_means_by_every_measure(
    worst: str, wanted: str, said: dict[str, str], board: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drops(table: pd.DataFrame, level: float, measure: str) -> pd.DataFrame:
        index = pd.MultiIndex.from_product(
            [["test", "training"], range(10), ["snr"]], names=["when", "kind", "distance"]
        )
        return pd.DataFrame({"verdict": worst if measure == "change" else "higher"}, index)

    monkeypatch.setattr(judging, "compare_drops", drops)
    assert judging._FINDERS["robust"](Evidence(said, board))[0] == wanted


def test_algebra_has_its_verdicts(said: dict[str, str], board: pd.DataFrame) -> None:
    found = {claim.title: claim for claim in claims(Evidence(said, board))}
    assert {claim.verdict for claim in found.values()} <= {REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE}
    assert found["SNR is a relative Euclidean distance"].verdict == REPRODUCED
    assert found["A small distance is a high correlation"].verdict == NOT_REPRODUCED
    assert found["Everything is pushed from the centre, whatever the loss"].verdict == NOT_REPRODUCED


def test_a_sentence_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], board: pd.DataFrame
) -> None:
    assert holds("It rises.", True) == "It rises."
    with pytest.raises(ValueError, match=r"no longer do: 'It rises\.'"):
        holds("It rises.", False)
    apart = pd.DataFrame({"mean": [1.0, 2.0], "low": [0.9, 1.9], "high": [1.1, 2.1]}, pd.Index([1, 2], name="variance"))
    monkeypatch.setattr(judging.algebra, "figure_3", lambda: apart)
    with pytest.raises(ValueError, match="the ranges of neighbouring variances overlap"):
        claims(Evidence(said, board))


def test_every_command_exists(text: str) -> None:
    runs = re.findall(r"`snr run (\d\d)(?: -p (\w+)=(\w+))?`", text)
    for number, name, value in runs:
        assert find_notebook(number)
        if name:
            parameters(number)[name].check(value)
    profiles = set(re.findall(r"`snr (?:measure|tune --profile|study --profile) (\w+)", text))
    beside = set(OTHERS)
    assert len(profiles - beside) > 5
    assert all(cells(profile, tuned_values=False) for profile in profiles - beside - {"NAME"})


def test_the_page_stands_alone(text: str) -> None:
    page = BeautifulSoup(article_page(text), "html.parser")
    assert not page.find_all(["script", "link", "iframe", "object", "form"])
    assert all(str(image["src"]).startswith("data:image/png") for image in page.find_all("img"))
    assert [tag["href"] for tag in page.select("a[href]") if not str(tag["href"]).startswith("#")] == []
    levels = [int(str(heading.name)[1]) for heading in page.select("h1, h2, h3")]
    assert levels.count(1) == 1
    anchors = {str(tag["id"]) for tag in page.select("[id]")}
    assert {str(tag["href"])[1:] for tag in page.select("a[href]")} <= anchors
    assert page.find("math")
    assert not re.search(r"[$|]|\{\{|\bnan\b", page.get_text())
    linked = BeautifulSoup(article_page(text, home="index.html"), "html.parser")
    assert {str(tag["href"]).partition("#")[0] for tag in linked.select("main a[href]")} == {
        "13_errata_and_glossary.html"
    }


def test_the_command_replaces_only_articles(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(writing, "article", lambda: text)
    page, notes = tmp_path / "a.html", tmp_path / "a.md"
    command: list[Any] = ["article", "-o", str(page), "--markdown", str(notes)]
    for _ in range(2):
        assert main(command) == 0
    assert notes.read_text().startswith("# [Re] ")
    assert ".ipynb" not in notes.read_text()
    notes.write_text("mine")
    before = page.read_bytes()
    assert main(command) == 2
    assert "is no article of this study; move it away" in capsys.readouterr().err
    assert (notes.read_text(), page.read_bytes()) == ("mine", before)
    assert main(["article", "-o", str(tmp_path / "a.pdf")]) == 2


def test_a_page_without_its_article_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(said: dict[str, str]) -> str:
        return holds("It <rises>.", False)

    monkeypatch.setattr(index, "article", refuse)
    assert "cannot be written: the article says what the stored tables no longer do: &#x27;It &lt;rises&gt;.&#x27;" in (
        index._article(tmp_path, {})
    )
    assert not list(tmp_path.iterdir())
