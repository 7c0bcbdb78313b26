"""Formulas of a stranger: mathematics comes through, nothing else does."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.report.mathematics import ATTRIBUTES, NAMESPACE, TAGS, mathml


def elements(text):
    return list(ElementTree.fromstring(text).iter())


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\text{a<b}", "a<b"),
        (r"\mbox{p > q & r}", "p\u00a0>\u00a0q\u00a0&\u00a0r"),
        (r"\text{<script>alert(1)</script>}", "<script>alert(1)</script>"),
        (r"\text{<![CDATA[<b>]]>}", "<![CDATA[<b>]]>"),
        (r"\text{<!-- x -->}", "<!--\u00a0x\u00a0-->"),
    ],
)
def test_what_stands_in_text_is_text(latex, text):
    found = elements(mathml(latex))
    assert {e.text for e in found if e.tag.endswith("mtext")} == {text}
    assert "<script" not in mathml(latex)
    assert "<!" not in mathml(latex)


def test_angles_and_alignment_stay():
    operators = [e.text for e in elements(mathml(r"\left< x, y \right>")) if e.tag.endswith("}mo")]
    assert operators == ["\u27e8", ",", "\u27e9"]
    assert mathml(r"\begin{cases} a & x < 1 \\ b & x > 1 \end{cases}").count("<mtd") == 4


def test_a_relation_beside_text_is_an_operator():
    found = elements(mathml(r"x < \text{a<b}"))
    assert [e.text for e in found if e.tag.endswith("}mo")] == ["<"]


@pytest.mark.parametrize(
    "latex",
    [
        r"\href{javascript:alert(1)}{x}",
        r"\style{background:url(javascript:alert(1))}{x}",
        r"\class{evil}{x}",
        r"\cssId{evil}{x}",
        r"\url{javascript:alert(1)}",
        r"\includegraphics{http://x/y.png}",
        r"\color{red;background:url(x)}{x}",
    ],
)
def test_no_link_and_no_style_comes_through(latex):
    text = mathml(latex) or ""
    for name in ("href", "style", "class", "id", "src", "onclick"):
        assert f" {name}=" not in text
    assert not re.search(r"<(a|img|script|annotation-xml|maction)\b", text)


@pytest.mark.parametrize("latex", ["x^{", r"\frac{a", r"\begin{matrix} a", "^", r"\left("])
def test_what_is_no_latex_is_none_or_mathematics(latex):
    text = mathml(latex)
    assert text is None or {e.tag for e in elements(text)} <= {f"{{{NAMESPACE}}}{t}" for t in TAGS}


PIECES = st.sampled_from(
    [r"\text{", r"\href{", r"\style{", "}", "{", "<", ">", "&", "a", "^", "_", r"\frac", "javascript:", "<b>",
     "onload=", '"', "'", r"\mbox{", r"\left<", "\ue000", "</math>", "<mtext>", r"\\", "]]>", "<?x?>"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=14).map("".join))
@settings(max_examples=300, deadline=None)
def test_whatever_is_given_only_mathematics_comes_out(latex):
    text = mathml(latex)
    if text is None:
        return
    for element in elements(text):
        assert element.tag in {f"{{{NAMESPACE}}}{tag}" for tag in TAGS}
        assert set(element.attrib) <= ATTRIBUTES
