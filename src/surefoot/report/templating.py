"""The templates of the pages, with the filters they use."""

from __future__ import annotations

import functools
import json
import math
from typing import Any, Protocol

import jinja2
from markupsafe import Markup, escape

from surefoot.guarantee import Assumption, Verdict
from surefoot.report.mathematics import mathml
from surefoot.report.plain import pieces_of

MEANING = {
    Verdict.KEPT: "within the bound wherever it was checked",
    Verdict.BROKEN: "the runs are evidence against the bound",
    Verdict.UNDECIDED: "neither kept nor broken yet",
    Verdict.VACUOUS: "the bound says less than something trivial",
    Verdict.NOT_PROMISED: "a condition of the theorem fails on this run",
}


@functools.cache
def templates() -> jinja2.Environment:
    """The environment that all pages are rendered in."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("surefoot.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number, "mathml": _mathml, "embedded": _embedded, "verdict_class": verdict_class,
        "plural": _plural, "identity": id, "condition": _condition,
    }  # fmt: skip
    environment.globals |= {"meaning": MEANING}
    return environment


def _number(value: Any) -> str:
    """A cell of a table: four digits for a float, yes or no, an empty cell for what is missing."""
    if is_missing(value):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e9 else f"{value:.4g}"
    said = str(value).replace("+-", "±")
    # A sign does not stand alone at the end of a line.
    return said.replace("<= ", "≤\u00a0").replace(">= ", "≥\u00a0")


def is_missing(value: Any) -> bool:
    """Whether a cell of a table has nothing in it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


class Judged(Protocol):
    """Of a certificate, its outcome."""

    @property
    def verdict(self) -> Verdict:
        """How promise and run compare."""

    @property
    def heuristic(self) -> bool:
        """Whether the claim has no proof."""

    @property
    def expected(self) -> Verdict | None:
        """What the study announced."""

    @property
    def surprise(self) -> bool:
        """Whether it came out otherwise, or is BROKEN unannounced."""


def verdict_class(certificate: Judged) -> str:
    """How a verdict is coloured: "surprise" is for what nobody announced of a proven claim, and for no other.

    Parameters
    ----------
    certificate
        Of a heuristic claim BROKEN is "refuted", as no theorem failed; announced it is "announced".
    """
    broken = certificate.verdict is Verdict.BROKEN
    if certificate.surprise:
        return "refuted" if broken and certificate.heuristic else "surprise"
    return "announced" if broken else str(certificate.verdict).lower()


def _condition(assumption: Assumption) -> tuple[str, Assumption]:
    return assumption.name, assumption


def _plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


class Stated(Protocol):
    """Of a certificate, its statement."""

    @property
    def statement(self) -> str:
        """As plain text."""

    @property
    def latex(self) -> str | None:
        """As mathematics."""


def _mathml(certificate: Stated) -> Markup:
    """The statement as MathML, from its LaTeX or read off its plain text; as it is where neither goes."""
    if certificate.latex is not None and (formula := mathml(certificate.latex)) is not None:
        return Markup(formula)
    made: list[Markup] = []
    for mathematics, text in pieces_of(certificate.statement):
        formula = mathml(text) if mathematics else None
        if mathematics and formula is None:
            return Markup("<code>{}</code>").format(certificate.statement)
        space = "" if text[0] in ",:;" or not made else " "
        made.append(Markup(formula) if formula else escape(f"{space}{text} "))
    return Markup("").join(made)


def _embedded(data: Any) -> Markup:
    """JSON that may stand inside a script element: nothing in it can close the element."""
    text = json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(text)
