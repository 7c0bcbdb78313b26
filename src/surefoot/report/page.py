"""The page of one run: a table of all claims, then the parts, then each claim by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from surefoot._run.folder import RunFolder, file_name
from surefoot.certificate import Certificate
from surefoot.report.chart import chart
from surefoot.report.drawing import drawing, sparkline
from surefoot.report.embedding import caption_of, coinciding, embedded_figure
from surefoot.report.families import Family, counted, families
from surefoot.report.templating import is_missing, templates

# The page with its table, which is never cut, and as many details of claims as there is room for.
PAGE_BYTES = 285_000
FIGURE_BYTES = 70_000
TABLE_ROWS = 60
# A number as a study writes it, perhaps with a half-width.
NUMBER = re.compile(r"[+-]?(inf|\d[\d,]*(\.\d+)?(e[+-]?\d+)?)( \+- \d+(\.\d+)?(e[+-]?\d+)?)?")
# A row's name of more characters gets room on a phone, and goes on in a second line.
LONG = 14
# Pictures of claims that open a part.
PICTURES = 2


def run_page(folder: RunFolder, assets: str) -> str:
    """The HTML of a run's page, from what its folder holds."""
    certificates = [c.published() for c in folder.certificates()]
    found = families(certificates)
    titles = {name: about["title"] for name, about in folder.parts.items()}
    template = templates().get_template("run.html.j2")
    values = {
        "config": folder.config,
        "status": folder.status,
        "environment": folder.environment,
        "families": found,
        "titles": titles,
        "sparklines": {f.key: sparkline(f.worst) for f in found},
        "parts": _parts(folder, found),
        "counts": counted(certificates),
        "time": when(folder),
        "assets": assets,
        "changes": folder.changes,
    }
    bare = template.render(values, details={}, left_out=len(certificates))
    details = _details(found, PAGE_BYTES - len(bare.encode()))
    return template.render(values, details=details, left_out=len(certificates) - len(details))


def when(folder: RunFolder) -> str:
    """The time in the folder's name, as people write it."""
    day, _, clock = folder.path.name.partition("T")
    return f"{day} {':'.join(clock.split('-')[:3])}"


def _parts(folder: RunFolder, found: Sequence[Family]) -> list[dict[str, Any]]:
    parts, room = [], FIGURE_BYTES
    for name, about in folder.parts.items():
        figures = []
        for title, figure in folder.figures(name):
            shown = embedded_figure(figure)
            size = len(str(shown))
            fits = size <= room
            room -= size if fits else 0
            file = f"figures/{file_name(name, title)}"
            caption = f"{caption_of(title, figure)}. {coinciding(shown)}".removesuffix(". ")
            figures.append((caption, shown if fits else None, file))
        parts.append(
            {
                "name": name,
                "title": about["title"],
                "seeds": about["seeds"],
                "seconds": folder.seconds(name),
                "claims": [f for f in found if any(c.part == name for c in f.members)],
                "pictures": _pictures(name, found),
                "tables": {n: _table(t) for n, t in folder.tables(name)},
                "figures": figures,
            }
        )
    return parts


def _pictures(part: str, found: Sequence[Family]) -> list[tuple[Certificate, Markup]]:
    """The claims that a part opens with: of each family the most urgent one that has a curve."""
    shown = []
    for family in found:
        own = Family(family.key, tuple(c for c in family.members if c.part == part))
        if own.members and not chart(own.worst).words:
            shown.append(own.worst)
    shown.sort(key=lambda c: not c.surprise)
    return [(c, drawing(c)) for c in shown[:PICTURES]]


def _table(table: pd.DataFrame) -> dict[str, Any]:
    """Rows and columns as they are shown: a column in which nothing stands is named, not drawn."""
    shown = table.head(TABLE_ROWS)
    cells = {i: shown.iloc[:, i].tolist() for i in range(len(table.columns))}
    names = list(map(str, table.columns))
    empty = [i for i, column in cells.items() if i and all(map(is_missing, column))]
    kept = [i for i in cells if i not in empty or not len(shown)]
    return {
        "columns": [names[i] for i in kept],
        "rows": [list(row) for row in zip(*(cells[i] for i in kept), strict=True)],
        # The first column names the row.
        "numeric": [i > 0 and _numeric(cells[i]) for i in kept],
        "long": any(len(str(cell)) > LONG for cell in cells.get(0, [])),
        "more": len(table) if len(table) > TABLE_ROWS else None,
        "empty": [names[i] for i in empty] if len(shown) else [],
    }


def _numeric(column: Sequence[Any]) -> bool:
    """Whether all that stands in a column is a number, also one that is written with its half-width."""
    there = [cell for cell in column if not is_missing(cell)]
    return bool(there) and all(_number(cell) for cell in there)


def _number(cell: Any) -> bool:
    if isinstance(cell, str):
        return NUMBER.fullmatch(cell) is not None
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)


def _details(found: Sequence[Family], room: int) -> dict[int, Markup]:
    """Claim by claim, by the identity of its certificate, the HTML of what there is to say of it.

    Where a run has more than a page can hold, surprises come first, then the most urgent of each family, and
    the page says of how many the details stand in certificate.json alone.
    """
    worst = {id(c): f.worst for f in found for c in f.members}
    order = [f.worst for f in found]
    order += [c for f in found for c in f.members if c is not f.worst]
    template = templates().get_template("details.html.j2")
    made: dict[int, Markup] = {}
    for certificate in sorted(order, key=lambda c: not c.surprise):
        # What its family's first says of the same condition is not said again.
        first = worst[id(certificate)]
        like = first if first is not certificate and id(first) in made else None
        text = template.render(c=certificate, picture=drawing(certificate), like=like)
        # The summary that folds it weighs too.
        size = len(text.encode()) + 400
        if size > room:
            break
        room -= size
        made[id(certificate)] = Markup(text)
    return made
