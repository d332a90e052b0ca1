"""Text as HTML: every formula becomes MathML, tables and code survive, links lead to pages."""

import re
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

from snrlib.utils.markup import Markup, mathml, slug

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
FORMULAS = [
    r"\mathbf{x}_i^\top \mathbf M \mathbf{1}",
    r"\lVert L(b-a)\rVert_2^2",
    r"\begin{pmatrix}1.5 & 0.4\\ 0 & 0.7\end{pmatrix}",
    r"\begin{aligned}a &= b\\ &= c\end{aligned}",
    r"\begin{cases}1 & x > 0\\ 0 & \text{else}\end{cases}",
    r"\bigl(\sum_i x_i\bigr) \qquad \left\lVert x \right\rVert",
    r"\underbrace{a + b}_{\text{noise}} \underset{j:\, d > 0}{\text{mean}}",
    r"\boxed{\,d = 1 + r^2\,} \tfrac12 \dfrac{\sqrt{x}}{|\Gamma|}",
    r"\max_{i \neq j} \lbrace x_i^+, h'_j \rbrace \in \mathbb{R}^{M}",
]


@pytest.mark.parametrize("tex", FORMULAS)
def test_formulas_are_whole_mathml(tex: str) -> None:
    for display in (False, True):
        tree = ElementTree.fromstring(mathml(tex, display))
        (math,) = [tree] if tree.tag.endswith("}math") else [node for node in tree.iter() if node.tag.endswith("}math")]
        assert math.get("display") == ("block" if display else "inline")
        assert all(node.get("mathvariant") in (None, "normal") for node in math.iter()), "browsers know no other"
        text = "".join(math.itertext())
        assert "\\" not in text
        assert "&" not in text


def test_letters_and_numbers_of_a_formula_are_its_own() -> None:
    text = "".join(ElementTree.fromstring(mathml(r"\frac{\mathrm{Var}(h_j - h_i)}{\mathrm{E}(h_i)}")).itertext())
    assert text == "Var(hj−hi)E(hi)"
    assert "<mi>Var</mi>" in mathml(r"\mathrm{Var}(h)")
    assert "<mtext>E</mtext>" in mathml(r"\mathrm{E}(h)"), "upright"
    assert '<span class="tag">(8)</span>' in mathml(r"d = 1 \tag{8}", display=True)


@pytest.mark.parametrize("tex", [r"\unknown x", "x_", r"\left(", "a & b"])
def test_what_cannot_be_converted_stays_tex_and_is_counted(tex: str) -> None:
    with pytest.raises(ValueError, match="cannot be converted"):
        mathml(tex)
    markup = Markup()
    assert '<code class="tex">' in markup.html(f"It is ${tex}$.")
    assert markup.unconverted == [tex]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_of_the_notebooks_converts(path: Path) -> None:
    markup = Markup({other.stem for other in NOTEBOOKS})
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            html = markup.html(cell.source)
            text = re.sub(r"<(pre|code)\b.*?</\1>", "", html, flags=re.DOTALL)
            assert "$" not in text, text
            assert "\ue000" not in html
            dollars = re.sub(r"```.*?```|`[^`]+`", "", cell.source, flags=re.DOTALL).replace("$$", "$").count("$")
            assert html.count("<math ") == dollars / 2
    assert markup.unconverted == []


def test_bars_in_formulas_do_not_split_table_cells() -> None:
    html = Markup().html("| loss | formula |\n|---|---|\n| mean | $\\frac{1}{|P|} | x |$ |\n| code | `a $x$ b` |\n")
    assert re.findall(r"<t([hd])>", html) == ["h", "h", "d", "d", "d", "d"]
    assert html.count("<math ") == 1
    assert "<code>a $x$ b</code>" in html
    assert '<div class="scroll"><table>' in html


def test_formulas_in_quotations_lists_and_over_lines() -> None:
    html = Markup().html("> by\n> $$\n> a =\n> b \\tag{1}\n> $$\n\n- $b = a + $ noise, \\$5 and\n  $\\sigma\n  > 1$")
    assert html.count("<math ") == 3
    assert "<blockquote>" in html
    assert "$5 and" in html
    (math,) = re.findall(r'<math[^>]*display="block".*?</math>', html)
    assert "".join(ElementTree.fromstring(math).itertext()) == "a=b"


def test_links_lead_to_pages_and_to_anchors_as_headings_have_them() -> None:
    markup = Markup({"03_correlation"})
    html = markup.html(
        "# Why?\n\n## Signal, noise and their ratio\n\n## Why?\n\n## Of $d_S$\n\n"
        "[a](03_correlation.ipynb#Signal,-noise-and-their-ratio) [b](#Why?) [c](../data/README.md) "
        "[d](https://example.org/x#y) [e](03_correlation.ipynb) [f](javascript:alert) [g](99_none.ipynb)\n\n"
        '<a id="E1-Here"></a>'
    )
    assert [anchor for _, anchor, _ in markup.headings] == ["why", "signal-noise-and-their-ratio", "why-2", "of-d_s"]
    assert re.findall(r'<a href="([^"]+)"', html) == [
        "03_correlation.html#signal-noise-and-their-ratio",
        "#why",
        "https://example.org/x#y",
        "03_correlation.html",
    ]
    assert '<a id="e1-here">' in html
    assert slug("E1-Here") == "e1-here"


def test_solutions_stay_folded_and_their_code_stays_code() -> None:
    html = Markup().html(
        "<details><summary>Solution 1</summary>\n\nIt is $x$.\n\n```python\na = '$1$' < 2\n```\n</details>"
    )
    assert "<details><summary>Solution 1</summary>" in html
    assert "a = '$1$' &lt; 2" in html
    assert html.count("<math ") == 1
    assert html.rstrip().endswith("</details>")


def test_a_picture_in_the_text_is_its_words() -> None:
    assert "<img" not in Markup().html("![a bird](https://example.org/bird.png)")
    assert "a bird" in Markup().html("![a bird](https://example.org/bird.png)")
