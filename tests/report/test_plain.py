"""Statements in plain text as mathematics: what a formula says is still said, and words stay words."""

import ast
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import surefoot
from surefoot.report.mathematics import NAMESPACE, TAGS, mathml
from surefoot.report.plain import latex_of, pieces_of

SOURCES = sorted(Path(surefoot.__path__[0]).rglob("*.py"))


def stated():
    """Every statement that stands in the package as a literal."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.keyword) or node.arg != "statement":
                continue
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                found.add(node.value.value)
    return sorted(found)


@pytest.mark.parametrize("statement", stated())
def test_every_statement_of_the_house_is_mathematics(statement):
    assert mathml(latex_of(statement)), latex_of(statement)


def test_there_are_statements_to_look_at():
    assert len(stated()) > 30


@pytest.mark.parametrize(
    ("statement", "latex"),
    [
        ("L_t <= (1 - eta lambda0/2)^t L_0", r"L_{t}\le(1-\eta\lambda_{0}/2)^{t}L_{0}"),
        ("sqrt(L_t) >= sqrt(F_t / 3)", r"\sqrt{L_{t}}\ge\sqrt{F_{t}/3}"),
        ("|w* - w_L'|_(A^-1) <= 1e-5", r"|w^{*}-w_{L'}|_{A^{-1}}\le10^{-5}"),
        ("2.5e-3 < x", r"2.5\cdot10^{-3}<x"),
        ("g^2 sigma2 lam_max", r"g^{2}\sigma^{2}\lambda_{\max}"),
        ("f(W~) - f* <= b_ij", r"f(\tilde{W})-f^{*}\leb_{ij}"),
    ],
)
def test_formulas(statement, latex):
    assert latex_of(statement).replace(" ", "") == latex


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("L with top labels <= L with actual labels, after as many steps",
         {"with top labels", "with actual labels, after as many steps"}),
        ("found = number, a number a step", {"found", "number, a number a step"}),
    ],
)  # fmt: skip
def test_words_stay_words(statement, words):
    root = ElementTree.fromstring(mathml(latex_of(statement)))
    said = {e.text.replace("\u00a0", " ").strip() for e in root.iter(f"{{{NAMESPACE}}}mtext")}
    assert said == words


@given(st.text(alphabet="abL eta_^(){}[]|<>=*'~&\\$%#,.0123-+/", max_size=30))
@settings(max_examples=200, deadline=None)
def test_whatever_is_stated_only_mathematics_comes_out(statement):
    text = mathml(latex_of(statement))
    if text is not None:
        assert {e.tag for e in ElementTree.fromstring(text).iter()} <= {
            f"{{{NAMESPACE}}}{t}" for t in TAGS
        }


def test_words_are_text_that_can_break_a_line():
    assert pieces_of("L with top labels <= 2 L_0") == [
        (True, "L"), (False, "with top labels"), (True, r"\le 2 L_{0}")
    ]  # fmt: skip
    assert pieces_of("x = 1, a pair a step: s") == [
        (True, "x = 1"), (False, ", a pair a step:"), (True, "s")
    ]  # fmt: skip


def test_no_space_inside_bars():
    root = ElementTree.fromstring(mathml(latex_of("|x| <= ||y||")))
    bars = [e for e in root.iter(f"{{{NAMESPACE}}}mo") if e.text in "|\u2016\u2225"]
    assert len(bars) == 4
    assert all(e.get("lspace") == e.get("rspace") == "0" for e in bars)
