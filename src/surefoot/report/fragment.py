"""A certificate, or a result with its certificates, as an HTML fragment that needs no file beside it."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from surefoot.report.chart import Drawn
from surefoot.report.drawing import drawing, sparkline
from surefoot.report.templating import templates


@functools.cache
def scoped_style() -> Markup:
    """The style of the pages, for what stands inside the fragment and for nothing around it."""
    # The environment is made with a loader.
    text = templates().loader.get_source(templates(), "style.css")[0]  # type: ignore[union-attr]
    text = re.sub(r"\bhtml \{|:root \{", "& {", text[: text.index("@media print")])
    return Markup(".surefoot {" + re.sub(r"\bbody \{[^}]*\}", "", text) + "}")


def certificate_html(certificate: Drawn) -> str:
    """A certificate as an HTML fragment; its picture is an SVG."""
    return (
        templates()
        .get_template("fragment.html.j2")
        .render(c=certificate, style=scoped_style(), picture=drawing(certificate))
    )


def result_html(
    name: str,
    text: str,
    entries: Sequence[tuple[str, str]],
    certificates: Sequence[Any],
    why: str = "",
) -> str:
    """What a run left, as an HTML fragment.

    Parameters
    ----------
    name
        What it is.
    text
        What it says of itself; empty: the entries are listed.
    entries
        Names and values.
    certificates
        What was promised of it; each a row.
    why
        Why there are none.
    """
    # Some results have rows of their own kind.
    shown = [c.published() if hasattr(c, "published") else c for c in certificates]
    return (
        templates()
        .get_template("result.html.j2")
        .render(
            name=name, text=text, entries=entries, why=why, style=scoped_style(),
            rows=[(c, sparkline(c)) for c in shown],
        )
    )  # fmt: skip
