"""A comparison as a page of the report, and on a terminal."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from surefoot._run.files import write_json, write_text
from surefoot.comparing.comparison import Comparison, Difference
from surefoot.comparing.fragment import setting, tables_of
from surefoot.report.chart import shown
from surefoot.report.site import ASSETS, COMPARISONS, write_assets, write_site
from surefoot.report.templating import templates

# Of a file's name, so that no file system minds.
LONGEST = 150


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
    name = "_".join(f"{f.study}-{f.path.name}" for f in comparison.folders)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    links = [
        Path(os.path.relpath(f.path.resolve() / "index.html", folder)).as_posix()
        for f in comparison.folders
    ]
    path = folder / f"{name}.html"
    page = templates().get_template("compare.html.j2")
    write_json(path.with_suffix(".json"), {"title": _title(comparison), **comparison.to_dict()})
    write_text(
        path,
        page.render(
            body=tables_of(comparison, links), title=_title(comparison), assets=f"../{ASSETS}"
        ),
    )
    write_site(root)
    return path


def _title(comparison: Comparison) -> str:
    studies = dict.fromkeys(f.study for f in comparison.folders)
    return f"{' and '.join(studies)}: {len(comparison.folders)} runs"


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
        own = ", ".join(f"{k} = {setting(v)}" for k, v in settings.items())
        line = f"{letter}: {folder.path}{'; ' if own else ''}{own}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


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
