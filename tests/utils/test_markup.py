"""Text as HTML: formulas become MathML, tables and code survive, links lead to pages."""

import re
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup

from snrlib.utils.markup import Markup, mathml

FORMULAS = {  # and what of them is read
    r"\mathbf{x}_i^\top \mathbf M \mathbf{1}": "𝐱i⊤M1",
    r"\lVert L(b-a)\rVert_2^2": "‖L(b−a)‖22",
    r"\mathcal L_d(u) + L_r \ne \mathcal{P}": "ℒd(u)+Lr≠𝒫",
    r"\begin{pmatrix}1.5 & 0.4\\ 0 & 0.7\end{pmatrix}": "(1.50.400.7)",
    r"\begin{aligned}a &= b\\ &= c\end{aligned}": "a=b=c",
    r"\begin{cases}1 & x > 0\\ 0 & \text{else}\end{cases}": "{1x>00else",
    r"\bigl(\sum_i x_i\bigr) \qquad \left\lVert x \right\rVert": "(∑ixi)‖x‖",
    r"\underbrace{a + b}_{\text{noise}} \underset{j:\, d > 0}{\text{mean}}": "a+b⏟noisemeanj:d>0",
    r"\boxed{\,d = 1 + r^2\,} \tfrac12 \dfrac{\sqrt{x}}{|\Gamma|}": "d=1+r212x|Γ|",
    r"\max_{i \neq j} \lbrace x_i^+, h'_j \rbrace \in \mathbb{R}^{M}": "maxi≠j{xi+,hj′}∈ℝM",
    r"\frac{\mathrm{Var}(h_j - h_i)}{\mathrm{E}(h_i)}": "Var(hj−hi)E(hi)",
}


def _html(source: str, *pages: str) -> BeautifulSoup:
    return BeautifulSoup(Markup(pages).html(source), "html.parser")


@pytest.mark.parametrize(("tex", "text"), FORMULAS.items())
def test_formulas_are_whole_mathml(tex: str, text: str) -> None:
    for display in (False, True):
        tree = ElementTree.fromstring(f"<p>{mathml(tex, display)}</p>")
        (math,) = (node for node in tree.iter() if node.tag.endswith("}math"))
        assert math.get("display") == ("block" if display else "inline")
        assert re.sub(r"\s", "", "".join(math.itertext())) == text
        assert all(node.get("mathvariant") in (None, "normal") for node in math.iter()), "browsers know no other"


def test_words_tags_and_bars_are_as_browsers_need_them() -> None:
    assert "<mi>Var</mi>" in mathml(r"\mathrm{Var}(h)")
    assert "<mtext>E</mtext>" in mathml(r"\mathrm{E}(h)"), "upright"
    assert "(8)" in mathml(r"d = 1 \tag{8}", display=True)
    assert mathml(r"\lVert x\rVert^2 + \lVert x\rVert_2^2").count('stretchy="false"') == 4, "bars of one size"


@pytest.mark.parametrize("tex", [r"\unknown x", "x_", r"\left(", "a & b"])
def test_what_cannot_be_converted_stays_tex(tex: str) -> None:
    with pytest.raises(ValueError, match="cannot be converted"):
        mathml(tex)
    markup = Markup()
    assert '<code class="tex">' in markup.html(f"It is ${tex}$.")
    assert markup.unconverted == [tex]


def test_bars_in_formulas_do_not_split_cells() -> None:
    page = _html("| loss | formula |\n|---|---|\n| mean | $\\frac{1}{|P|} | x |$ |\n| code | `a $x$ b` |\n")
    assert [len(line.find_all(["th", "td"])) for line in page.select(".scroll > table tr")] == [2, 2, 2]
    assert len(page.find_all("math")) == 1
    assert page.select("code")[0].text == "a $x$ b"


def test_formulas_in_quotations_lists_and_over_lines() -> None:
    page = _html("> by\n> $$\n> a =\n> b \\tag{1}\n> $$\n\n- $b = a + $ noise, \\$5 and\n  $\\sigma\n  > 1$")
    assert [math.text for math in page.find_all("math")] == ["a=b", "b=a+", "σ>1"]
    assert len(page.select("blockquote math[display=block]")) == 1
    assert "$5 and" in page.text


def test_links_lead_to_pages_and_anchors() -> None:
    page = _html(
        "# Why?\n\n## Signal, noise and their ratio\n\n## Why?\n\n## Of $d_S$\n\n"
        "[a](03_correlation.ipynb#Signal,-noise-and-their-ratio) [b](#Why?) [c](../data/README.md) "
        "[d](https://example.org/x#y) [e](03_correlation.ipynb) [f](javascript:alert) [g](99_none.ipynb)\n\n"
        '<a id="E1-Here"></a>',
        "03_correlation",
    )
    assert [tag["id"] for tag in page.select("[id]")] == [
        *("why", "signal-noise-and-their-ratio", "why-2", "of-d_s"),
        "e1-here",
    ]
    assert {link.text: link["href"] for link in page.select("a[href]")} == {
        "a": "03_correlation.html#signal-noise-and-their-ratio",
        "b": "#why",
        "d": "https://example.org/x#y",
        "e": "03_correlation.html",
    }


def test_solutions_stay_folded_and_code_stays_code() -> None:
    page = _html("<details><summary>1</summary>\n\nIt is $x$.\n\n```python\na = '$1$' < 2\n```\n</details>")
    assert [code.text for code in page.select("details > summary ~ pre > code")] == ["a = '$1$' < 2\n"]
    assert len(page.select("details math")) == 1


def test_a_picture_in_the_text_is_its_words() -> None:
    page = _html("![a bird](https://example.org/bird.png)")
    assert not page.find_all("img")
    assert page.text.strip() == "a bird"
