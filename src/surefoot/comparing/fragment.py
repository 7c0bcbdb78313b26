"""The tables of a comparison as HTML."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from surefoot.report.fragment import scoped_style
from surefoot.report.templating import templates

WIDTH, HEIGHT = 120, 18


def comparison_html(comparison: Any) -> str:
    """A comparison as an HTML fragment that needs no file beside it."""
    tables = tables_of(comparison, ["" for _ in comparison.folders])
    return str(
        Markup('<article class="surefoot"><style>{}</style>{}</article>').format(
            scoped_style(), tables
        )
    )


def tables_of(comparison: Any, links: list[str]) -> Markup:
    """The runs, then quantities and claims; `links` are the pages of the runs, empty where there are none."""
    intervals = [[_interval(d) for d in m.differences] for m in comparison.measured]
    page = templates().get_template("compared.html.j2")
    return Markup(page.render(c=comparison, links=links, intervals=intervals, name=setting))


def setting(value: object) -> str:
    """A setting in a cell."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _interval(difference: Any) -> Markup:
    """The interval and its mean beside 0, on a scale of its own; the numbers stand beside it."""
    ends = (difference.low, difference.mean, difference.high)
    if any(v != v for v in ends):
        return Markup("")
    most = max(abs(v) for v in ends) * 1.1
    if most == 0:
        return Markup("")
    low, mean, high = (round(WIDTH / 2 + v / most * (WIDTH / 2 - 4)) for v in ends)
    return Markup(
        f'<svg class="interval" aria-hidden="true" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'<path class="grid" d="M{WIDTH // 2} 0v{HEIGHT}"/><path class="measured" d="M{low} 9H{high}"/>'
        f'<circle class="measured" cx="{mean}" cy="9" r="3.5"/></svg>'
    )
