"""One certificate as an HTML fragment."""

from __future__ import annotations

from markupsafe import Markup

from surefoot.report.chart import Drawn
from surefoot.report.drawing import drawing
from surefoot.report.templating import templates


def certificate_html(certificate: Drawn) -> str:
    """A certificate as an HTML fragment that needs no file beside it; its picture is an SVG."""
    style = templates().loader.get_source(templates(), "style.css")[0]  # type: ignore[union-attr]
    return (
        templates()
        .get_template("fragment.html.j2")
        .render(c=certificate, style=Markup(style), picture=drawing(certificate))
    )
