"""Write the pages: an index of all runs, and one page a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from surefoot._run.files import write_text
from surefoot._run.folder import RunFolder
from surefoot.certificate import Certificate
from surefoot.errors import FileFormatError
from surefoot.guarantee import Verdict
from surefoot.report.figures import certificate_figure, sparkline
from surefoot.report.templating import templates

ASSETS = "_assets"


def _write_assets(root: Path) -> None:
    from plotly.offline import get_plotlyjs

    folder = root / ASSETS
    folder.mkdir(parents=True, exist_ok=True)
    loader = templates().loader
    assert loader is not None
    for name in ("style.css", "plots.js"):
        write_text(folder / name, loader.get_source(templates(), name)[0])
    script = folder / "plotly.min.js"
    text = get_plotlyjs()
    if not script.exists() or script.stat().st_size != len(text.encode()):
        write_text(script, text)


def _figure(certificate: Certificate) -> dict[str, Any]:
    return dict(json.loads(certificate_figure(certificate).to_json()))


def _table(table: pd.DataFrame) -> dict[str, Any]:
    return {"columns": list(table.columns), "rows": table.to_numpy(dtype=object).tolist()}


def write_run_page(folder: RunFolder) -> Path:
    """Write `index.html` into a run folder, from what the folder holds.

    Raises
    ------
    FileFormatError
        A file that the page needs is missing or damaged.
    """
    _write_assets(folder.path.parent.parent)
    path = folder.path / "index.html"
    with _naming(folder):
        text = _run_page(folder)
    write_text(path, text)
    return path


@contextmanager
def _naming(folder: RunFolder) -> Iterator[None]:
    """A damaged run is an error with its name: whatever its files make the code that reads them raise."""
    try:
        yield
    except (FileFormatError, OSError):
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise FileFormatError(f"{folder.path} is damaged: {why}") from error


def _run_page(folder: RunFolder) -> str:
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
    return (
        templates()
        .get_template("run.html.j2")
        .render(
            config=folder.config,
            status=folder.status,
            environment=folder.environment,
            parts=parts,
            counts=Counter(c.verdict for c in certificates),
            time=_when(folder),
            assets=f"../../{ASSETS}",
            changes=folder.changes,
        )
    )


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
    changed: int


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
        changed=len(folder.changes or ()),
    )


def write_site(root: Path) -> Path:
    """Write `root/index.html`, which lists every run below `root`; damaged ones are named as such."""
    _write_assets(root)
    rows, damaged = [], []
    for run in RunFolder.paths(root):
        inside = run.relative_to(root).as_posix()
        try:
            folder = RunFolder.open(run)
            with _naming(folder):
                rows.append(_row(folder, root))
            if not (folder.path / "index.html").exists():
                write_run_page(folder)
        except (FileFormatError, OSError) as error:
            rows = [row for row in rows if row.href != f"{inside}/index.html"]
            damaged.append({"path": inside, "why": str(error)})
    path = root / "index.html"
    write_text(
        path,
        templates().get_template("index.html.j2").render(rows=rows, damaged=damaged, assets=ASSETS),
    )
    return path
