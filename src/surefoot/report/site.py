"""Write the pages: an index of all runs, and one page a run."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from latex2mathml.converter import convert
from markupsafe import Markup

from surefoot._run.files import write_text
from surefoot._run.folder import RunFolder
from surefoot.certificate import Certificate
from surefoot.errors import FileFormatError
from surefoot.guarantee import Verdict
from surefoot.report.figures import certificate_figure, sparkline

ASSETS = "_assets"
MEANING = {
    Verdict.KEPT: "within the bound wherever it was checked",
    Verdict.BROKEN: "the runs are evidence against the bound",
    Verdict.UNDECIDED: "neither kept nor broken yet",
    Verdict.VACUOUS: "the bound says less than something trivial",
    Verdict.NOT_PROMISED: "a condition of the theorem fails on this run",
}


@functools.cache
def _templates() -> jinja2.Environment:
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


def _mathml(certificate: Certificate) -> Markup:
    """The statement as MathML, or as plain text where there is no LaTeX."""
    if certificate.latex is None:
        return Markup("<code>{}</code>").format(certificate.statement)
    return Markup(convert(certificate.latex, display="block"))


def _embedded(data: Any) -> Markup:
    """JSON that may stand inside a script element: nothing in it can close the element."""
    text = json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(text)


def _write_assets(root: Path) -> None:
    from plotly.offline import get_plotlyjs

    folder = root / ASSETS
    folder.mkdir(parents=True, exist_ok=True)
    loader = _templates().loader
    assert loader is not None
    for name in ("style.css", "plots.js"):
        write_text(folder / name, loader.get_source(_templates(), name)[0])
    script = folder / "plotly.min.js"
    text = get_plotlyjs()
    if not script.exists() or script.stat().st_size != len(text.encode()):
        write_text(script, text)


def _figure(certificate: Certificate) -> dict[str, Any]:
    return dict(json.loads(certificate_figure(certificate).to_json()))


def certificate_html(certificate: Certificate) -> str:
    """A certificate as an HTML fragment that needs no file beside it; its plot is an SVG sketch."""
    style = _templates().loader.get_source(_templates(), "style.css")[0]  # type: ignore[union-attr]
    return (
        _templates()
        .get_template("fragment.html.j2")
        .render(c=certificate, style=Markup(style), spark=Markup(sparkline(certificate, 480, 120)))
    )


def _table(table: pd.DataFrame) -> dict[str, Any]:
    return {"columns": list(table.columns), "rows": table.to_numpy(dtype=object).tolist()}


def write_run_page(folder: RunFolder) -> Path:
    """Write `index.html` into a run folder, from what the folder holds."""
    _write_assets(folder.path.parent.parent)
    certificates = folder.certificates()
    parts = []
    for name, about in folder.parts.items():
        parts.append(
            {
                "name": name,
                "title": about["title"],
                "seeds": about["seeds"],
                "seconds": folder.seconds(name),
                "certificates": [
                    {"c": c, "figure": _figure(c)} for c in certificates if c.part == name
                ],
                "tables": {n: _table(t) for n, t in folder.tables(name)},
                "figures": dict(folder.figures(name)),
            }
        )
    text = (
        _templates()
        .get_template("run.html.j2")
        .render(
            config=folder.config,
            status=folder.status,
            environment=folder.environment,
            parts=parts,
            counts=Counter(c.verdict for c in certificates),
            time=_when(folder),
            assets=f"../../{ASSETS}",
        )
    )
    path = folder.path / "index.html"
    write_text(path, text)
    return path


def _when(folder: RunFolder) -> str:
    """The time in the folder's name, as people write it."""
    day, _, clock = folder.path.name.partition("T")
    return f"{day} {':'.join(clock.split('-')[:3])}"


@dataclass(frozen=True)
class _Row:
    href: str
    study: str
    title: str
    time: str
    state: str
    size: str
    counts: Counter[Verdict]
    spark: Markup
    surprises: int


def _row(folder: RunFolder, root: Path) -> _Row:
    certificates = folder.certificates()
    config = folder.config
    shown = next((c for c in certificates if c.verdict is Verdict.KEPT), None)
    shown = shown or (certificates[0] if certificates else None)
    return _Row(
        href=f"{folder.path.relative_to(root).as_posix()}/index.html",
        study=folder.study,
        title=str(config.get("title", folder.study)),
        time=_when(folder),
        state=str(folder.status.get("state", "unknown")),
        size=str(config.get("config", {}).get("size", "")),
        counts=Counter(c.verdict for c in certificates),
        spark=Markup(sparkline(shown)) if shown is not None else Markup(""),
        surprises=sum(c.surprise for c in certificates),
    )


def write_site(root: Path) -> Path:
    """Write `root/index.html`, which lists every run below `root`; damaged ones are named as such."""
    _write_assets(root)
    rows, damaged = [], []
    for config in sorted(root.glob("*/*/config.json"), key=lambda p: p.parent.name, reverse=True):
        try:
            folder = RunFolder.open(config.parent)
            rows.append(_row(folder, root))
            if not (folder.path / "index.html").exists():
                write_run_page(folder)
        except (FileFormatError, KeyError, TypeError, ValueError) as error:
            damaged.append({"path": config.parent.relative_to(root).as_posix(), "why": str(error)})
    path = root / "index.html"
    write_text(
        path,
        _templates()
        .get_template("index.html.j2")
        .render(rows=rows, damaged=damaged, assets=ASSETS),
    )
    return path
