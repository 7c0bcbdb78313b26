"""A comparison as a page of the report, and on a terminal."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from surefoot._run.files import write_json, write_text
from surefoot.comparing.comparison import Comparison, Difference
from surefoot.report.chart import shown
from surefoot.report.fragment import scoped_style
from surefoot.report.site import ASSETS, COMPARISONS, write_assets, write_site
from surefoot.report.templating import templates

WIDTH, HEIGHT = 120, 18


def write_comparison(comparison: Comparison) -> Path:
    """Write the page below the folder that holds the first run, with its numbers as JSON beside it.

    Returns
    -------
    The page: `compare/NAME.html`; the index lists it.
    """
    root = comparison.folders[0].path.resolve().parent.parent
    write_assets(root)
    folder = root / COMPARISONS
    folder.mkdir(exist_ok=True)
    name = "_".join(f"{f.study}-{f.path.name}" for f in comparison.folders)[:200]
    links = [
        Path(os.path.relpath(f.path.resolve() / "index.html", folder)).as_posix()
        for f in comparison.folders
    ]
    path = folder / f"{name}.html"
    page = templates().get_template("compare.html.j2")
    write_json(path.with_suffix(".json"), {"title": _title(comparison), **comparison.to_dict()})
    write_text(
        path,
        page.render(body=_body(comparison, links), title=_title(comparison), assets=f"../{ASSETS}"),
    )
    write_site(root)
    return path


def comparison_html(comparison: Comparison) -> str:
    """A comparison as an HTML fragment that needs no file beside it."""
    body = _body(comparison, ["" for _ in comparison.folders])
    return str(
        Markup('<article class="surefoot"><style>{}</style>{}</article>').format(
            scoped_style(), body
        )
    )


def _title(comparison: Comparison) -> str:
    studies = dict.fromkeys(f.study for f in comparison.folders)
    return f"{' and '.join(studies)}: {len(comparison.folders)} runs"


def _body(comparison: Comparison, links: list[str]) -> Markup:
    intervals = [[_interval(d) for d in m.differences] for m in comparison.measured]
    page = templates().get_template("compared.html.j2")
    return Markup(page.render(c=comparison, links=links, intervals=intervals, name=_setting))


def _setting(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _interval(difference: Difference) -> Markup:
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


def print_comparison(comparison: Comparison) -> None:
    """The table on a terminal."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table()
    table.add_column("quantity or claim", overflow="fold", ratio=2)
    for letter in comparison.letters:
        table.add_column(letter, justify="right", overflow="fold")
    for letter in comparison.letters[1:]:
        table.add_column(f"{letter} - A", justify="right", overflow="fold")
    table.add_column("shared seeds", justify="right")
    for m in comparison.measured:
        table.add_row(
            escape(f"{m.part}: {m.quantity}"), *map(shown, m.values), *map(_said, m.differences),
            str(len(m.seeds)),
        )  # fmt: skip
    for claim in comparison.claimed:
        said = ["" if c is None else f"{c.verdict} {shown(c.final)}" for c in claim.certificates]
        table.add_row(
            escape(f"{claim.part}: {claim.name}"), *said, *("" for _ in comparison.names[1:]), ""
        )
    console.print(table)
    console.print(
        f"means of what the shared seeds ended with; paired differences, each with its "
        f"{comparison.confidence:g} interval",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    runs = zip(comparison.letters, comparison.folders, comparison.settings, strict=True)
    for letter, folder, settings in runs:
        own = ", ".join(f"{k} = {_setting(v)}" for k, v in settings.items())
        said = f"{letter}: {folder.path}{'; ' if own else ''}{own}"
        console.print(said, markup=False, highlight=False, soft_wrap=True)


def _said(difference: Difference) -> str:
    if difference.mean != difference.mean:
        return "not finite"
    if difference.low != difference.low:
        return f"{shown(difference.mean)} (1 seed: no interval)"
    return f"{shown(difference.mean)} ({shown(difference.low)} to {shown(difference.high)})"


def show(comparison: Comparison, runs: list[dict[str, Any]] | None = None) -> None:
    """Print the table and write the page; or print JSON, the new run's with the comparison in it.

    Parameters
    ----------
    comparison
        Of the baseline and a new run.
    runs
        What the new run says as JSON; None: people read it.
    """
    if runs is None:
        print_comparison(comparison)
        print(f"compared: {write_comparison(comparison)}")
    else:
        write_comparison(comparison)
        print(json.dumps([r | {"against": comparison.to_dict()} for r in runs], indent=1))
