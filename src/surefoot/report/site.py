"""Write the pages: an index of all runs, and one page a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from surefoot._run.files import read_json, write_text
from surefoot._run.folder import RunFolder
from surefoot.certificate import Certificate
from surefoot.errors import FileFormatError
from surefoot.guarantee import Verdict
from surefoot.report.chart import chart
from surefoot.report.drawing import sparkline
from surefoot.report.families import counted, verdicts
from surefoot.report.page import run_page, when
from surefoot.report.templating import templates, verdict_class

ASSETS, COMPARISONS = "_assets", "compare"
OWN_ASSETS = ("style.css", "plots.js", "index.js")


def write_assets(root: Path) -> None:
    """Write what all pages share beside them: the style, the scripts, and plotly's."""
    from plotly.offline import get_plotlyjs

    folder = root / ASSETS
    folder.mkdir(parents=True, exist_ok=True)
    loader = templates().loader
    assert loader is not None
    for name in OWN_ASSETS:
        write_text(folder / name, loader.get_source(templates(), name)[0])
    script = folder / "plotly.min.js"
    text = get_plotlyjs()
    if not script.exists() or script.stat().st_size != len(text.encode()):
        write_text(script, text)


def write_run_page(folder: RunFolder) -> Path:
    """Write `index.html` into a run folder, from what the folder holds.

    Raises
    ------
    FileFormatError
        A file that the page needs is missing or damaged.
    """
    write_assets(folder.path.parent.parent)
    path = folder.path / "index.html"
    with _naming(folder):
        text = run_page(folder, f"../../{ASSETS}")
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


@dataclass(frozen=True)
class Row:
    """One run in the index."""

    href: str
    study: str
    title: str
    time: str
    state: str
    size: str
    seeds: int
    outcomes: list[Sequence[Certificate]]
    verdicts: dict[Verdict, int]
    spark: Markup
    surprises: int
    changed: int
    words: str


@dataclass(frozen=True)
class Series:
    """The runs of one study, newest first."""

    study: str
    rows: tuple[Row, ...]

    @property
    def words(self) -> str:
        """What a search finds it by."""
        return " ".join(dict.fromkeys(" ".join(row.words for row in self.rows).lower().split()))

    @property
    def found(self) -> str:
        """The verdicts that a run of it has, and whether one of them is a surprise."""
        found = {str(v) for row in self.rows for v in row.verdicts}
        return " ".join(
            sorted(found | ({"surprise"} if any(r.surprises for r in self.rows) else set()))
        )


def _row(folder: RunFolder, root: Path) -> Row:
    certificates = [c.published() for c in folder.certificates()]
    config, parts = folder.config, folder.parts
    drawn = max(certificates, key=_telling, default=None)
    title = str(config.get("title", folder.study))
    return Row(
        href=f"{folder.path.relative_to(root).as_posix()}/index.html",
        study=folder.study,
        title=title,
        time=when(folder),
        state=str(folder.status.get("state", "unknown")),
        size=str(config.get("config", {}).get("size", "")),
        seeds=max((len(about["seeds"]) for about in parts.values()), default=0),
        outcomes=counted(certificates),
        verdicts=dict(verdicts(certificates)),
        spark=sparkline(drawn) if drawn is not None else Markup(""),
        surprises=sum(verdict_class(c) == "surprise" for c in certificates),
        changed=len(folder.changes or ()),
        words=" ".join(
            [
                folder.study,
                title,
                *(f"{p} {a['title']}" for p, a in parts.items()),
                *(c.name for c in certificates),
            ]
        ),
    )


def _telling(certificate: Certificate) -> tuple[bool, bool, bool]:
    """What makes a good picture of a run: a promise that was kept, along a line."""
    found = chart(certificate)
    return certificate.verdict is Verdict.KEPT, not found.words, not found.dots and not found.marked


def _series(rows: list[Row]) -> list[Series]:
    studies = dict.fromkeys(row.study for row in rows)
    return [Series(s, tuple(row for row in rows if row.study == s)) for s in studies]


def write_site(root: Path) -> Path:
    """Write `root/index.html`, which lists every run below `root`; damaged ones are named as such."""
    write_assets(root)
    rows: list[Row] = []
    damaged = []
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
    page = templates().get_template("index.html.j2")
    write_text(
        path,
        page.render(
            series=_series(rows), count=len(rows), damaged=damaged, assets=ASSETS,
            comparisons=list(_comparisons(root)),
        ),
    )  # fmt: skip
    return path


def _comparisons(root: Path) -> Iterator[tuple[str, str]]:
    """(title, link) of the pages that `surefoot compare` wrote, newest first."""
    for data in sorted((root / COMPARISONS).glob("*.json"), reverse=True):
        page = data.with_suffix(".html")
        try:
            found = read_json(data)
        except FileFormatError:
            continue
        if page.exists() and isinstance(found, dict):
            yield str(found.get("title", page.stem)), page.relative_to(root).as_posix()
