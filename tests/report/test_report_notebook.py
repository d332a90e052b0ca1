"""Pages of notebooks through nbconvert: cells and outputs of every kind, and none that asks for anything."""

from pathlib import Path

import pytest
from bs4 import BeautifulSoup, Tag
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from report_cases import words

from snrlib.report.chapters import Chapter
from snrlib.report.notebook import page as page_of

ASKING = ["<script>x</script>", "<img src='//x.org/y.png'>", "<iframe></iframe>", "<meta content=0>", "<form></form>"]


def _shown(*cells: NotebookNode, question: str = "", note: str = "") -> Tag:
    one = Chapter(Path("00_x.ipynb"), question, new_notebook(cells=list(cells)), row=None, notes=(note,))
    return BeautifulSoup(page_of([one], 0), "html.parser")


def _outputs(*outputs: NotebookNode | dict[str, str]) -> Tag:
    made = [new_output("display_data", one) if "output_type" not in one else one for one in outputs]
    return _shown(new_code_cell("1", outputs=made, execution_count=3))


@pytest.mark.parametrize("asks", ASKING)
@pytest.mark.parametrize("kind", ["text/html", "text/markdown"])
def test_outputs_that_would_ask_become_text(asks: str, kind: str) -> None:
    page = _outputs({kind: f"<p>{asks}</p>", "text/plain": "the words"})
    assert [words(result) for result in page.select("pre.result")] == ["the words"]
    assert not page.select("main :is(script, img, iframe, meta, form)")


SWALLOWING = ("<!--", "<textarea>", "<plaintext>", "<xmp>", "<title>", "<!--<script>", "<style>", "<svg><desc>")


@pytest.mark.parametrize("kind", ["text/html", "text/markdown", "text/latex", "text/plain"])
def test_no_output_swallows_what_follows(kind: str) -> None:
    for opening in SWALLOWING:
        cells = [new_code_cell("1", outputs=[new_output("display_data", {kind: f"before {opening} within"})])]
        page = _shown(*cells, new_markdown_cell("what follows"), question=opening)
        assert "what follows" in words(page.select("main")[0])
        assert not page.select("main textarea, main plaintext, main xmp, main style, main svg")


def test_html_of_outputs_keeps_only_tables() -> None:
    html = '<style>td { color: red }</style><svg onload="x()"><b>1</b></svg><table border="1" class="dataframe">'
    html += '<tr style="color: red"><th colspan="2">a &lt; b</th></tr><tr><td id="x"><a href="javascript:y">2</a></td>'
    (box,) = _outputs({"text/html": html + "</tr></table>"}).select(".output")
    assert {tag.name for tag in box.find_all(True)} <= {"b", "table", "tbody", "tr", "th", "td"}
    assert [key for tag in box.find_all(True) for key in tag.attrs] == ["class", "colspan"]
    assert words(box) == "1a < b2"


def test_outputs_of_each_kind_are_shown() -> None:
    streams = [new_output("stream", name="stdout", text=text) for text in ("one\n", "a  b <c>\n", "one")]
    error = new_output("error", ename="ValueError", evalue="no", traceback=["\x1b[31mValueError\x1b[0m: no"])
    outputs = [*streams[:2], {"text/plain": "two"}, streams[2], error, {"text/markdown": "$x$"}, {"text/latex": "$y$"}]
    page = _outputs(*outputs)
    results = page.select("pre.result")
    assert [words(one) for one in results] == ["one\na  b <c>", "two", "one", "ValueError: no"]
    assert ["columns" in one["class"] for one in results] == [True, False, False, False], "words wrap, columns do not"
    assert [words(math) for math in page.find_all("math")] == ["x", "y"]


def test_figures_have_words_and_ask_nothing() -> None:
    png = {"image/png": "iVBORw0KGgo=\n", "text/plain": "<Figure>"}
    told = new_output("display_data", png, metadata={"image/png": {"alt": 'It "falls" < 0'}})
    images = _outputs(told, png).select("figure img")
    assert [image["alt"] for image in images] == ['It "falls" < 0', "A figure of cell 3, which no words describe"]
    assert {image["src"] for image in images} == {"data:image/png;base64,iVBORw0KGgo="}


def test_code_is_folded_except_what_readers_need() -> None:
    tags = [["injected-parameters"], ["nbval-check-output", "setup"], [], ["exercise"], ["check"], ["prediction"]]
    tags.append(["shown"])
    folds = _shown(*(new_code_cell("a < b", metadata={"tags": tag}) for tag in tags)).select("details.code")
    labels = [words(fold.find_all("summary")[0]).removesuffix(" (a cell that was not run)") for fold in folds]
    assert labels == ["Parameters of this run", "Setup", "Code", "Exercise", "Check", "Prediction", "Code"]
    assert ["open" in fold.attrs for fold in folds] == [False, False, False, True, False, True, True]
    assert {words(fold.select("pre")[0]) for fold in folds} == {"a < b"}


def test_solutions_are_folded_and_empty_verdicts_left_out() -> None:
    def cell(code: str, tag: str, verdict: str = "") -> NotebookNode:
        shown = [new_output("execute_result", {"text/plain": verdict}, execution_count=1)] if verdict else []
        return new_code_cell(code, outputs=shown, metadata={"tags": [tag]})

    page = _shown(
        cell("def f(x):\n    ### BEGIN SOLUTION\n    return 2 < x\n    ### END SOLUTION", "exercise"),
        cell("### BEGIN HIDDEN TESTS\nsecret\n### END HIDDEN TESTS\ncheck(f(1), 2)", "check", "Right."),
        cell("answer_2 = 7  # of a reader", "exercise"),
        cell("check(answer_2, 7)", "check", "Right."),
        cell("check(prediction, 1)", "claim", "Not attempted yet: replace None by your answer."),
    )
    folds = {words(one.select("pre")[0]): "open" in one.attrs for one in page.select("details.code")}
    assert list(folds.values()) == [True, False, False, True, False, False]
    assert list(folds)[:3] == [
        'def f(x):\n    raise NotImplementedError("write your answer in place of this line")',
        "return 2 < x",
        "check(f(1), 2)",
    ]
    assert [words(one) for one in page.select("pre.result")] == ["Right."], "what a reader answered is judged"


def test_text_is_no_template_and_no_html() -> None:
    sly = "{{ 6 * 7 }} {% raw %} <b>"
    cell = new_code_cell(sly, outputs=[new_output("display_data", {"text/plain": sly})])
    page = _shown(new_markdown_cell(f"# Why\n\n`{sly}`"), cell, question=f"{sly} </title>", note=f"{sly} `snr study`")
    assert words(page).count(sly) == 7, "title, note, three cells, two lists of all notebooks"
    assert [words(code) for code in page.select(".note code")] == ["snr study"]
    assert not page.find_all("b")


def test_the_notebooks_own_navigation_is_left_out() -> None:
    page = _shown(new_markdown_cell("[onward](x)", metadata={"tags": ["navigation"]}), new_markdown_cell("stays"))
    assert "onward" not in words(page)
    assert "stays" in words(page)
