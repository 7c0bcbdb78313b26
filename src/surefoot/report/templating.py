"""The templates of the pages, with the filters they use."""

from __future__ import annotations

import functools
import json
import math
from typing import Any, Protocol

import jinja2
from markupsafe import Markup

from surefoot.guarantee import Verdict
from surefoot.report.mathematics import mathml

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
    environment.filters |= {"number": _number, "mathml": _mathml, "embedded": _embedded}
    environment.globals |= {"meaning": MEANING}
    return environment


def _number(value: Any) -> str:
    """A cell of a table: four digits for a float, an empty cell for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
    return str(value)


class Stated(Protocol):
    """Of a certificate, its statement."""

    @property
    def statement(self) -> str:
        """As plain text."""

    @property
    def latex(self) -> str | None:
        """As mathematics."""


def _mathml(certificate: Stated) -> Markup:
    """The statement as MathML, or as plain text where there is no LaTeX, or more than mathematics in it."""
    formula = None if certificate.latex is None else mathml(certificate.latex)
    if formula is None:
        return Markup("<code>{}</code>").format(certificate.statement)
    return Markup(formula)


def _embedded(data: Any) -> Markup:
    """JSON that may stand inside a script element: nothing in it can close the element."""
    text = json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(text)
