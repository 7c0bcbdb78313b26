"""What a run shows on a terminal: a progress bar, or plain lines where there is no terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Table

from surefoot._run.folder import RunFolder
from surefoot._run.seed import SeedResult
from surefoot._run.verify import Verified
from surefoot.certificate import Certificate
from surefoot.guarantee import Verdict

COLOURS = {
    Verdict.KEPT: "green",
    Verdict.BROKEN: "bold red",
    Verdict.UNDECIDED: "yellow",
    Verdict.VACUOUS: "magenta",
    Verdict.NOT_PROMISED: "cyan",
}


class Progress:
    """Counts the seeds of a run as they end, with the rate and the time left."""

    def __init__(self, study: str, folder: RunFolder) -> None:
        self._folder, self._study = folder, study
        self._total, self._count = self._missing(), 0
        self._started = time.monotonic()
        self._console = Console(stderr=True)
        self._bar: Bar | None = None
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
                console=self._console, transient=True,
            )  # fmt: skip

    def _missing(self) -> int:
        """How many seeds are still to run; more are planned where a claim is undecided."""
        return sum(
            not self._folder.is_done(part, seed)
            for part, about in self._folder.parts.items()
            for seed in about["seeds"]
        )

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._study, total=self._total, rate="")
        return self

    def done(self, result: SeedResult) -> None:
        """One seed has ended."""
        self._count += 1
        if self._count > self._total:
            self._total = self._count + self._missing()
        elapsed = time.monotonic() - self._started
        rate = self._count / elapsed if elapsed > 0 else 0.0
        if self._bar is not None:
            self._bar.update(self._task, advance=1, total=self._total, rate=f"{rate:.2f} runs/s")
        elif elapsed > 2 or result.error:
            left = (self._total - self._count) / rate if rate else 0.0
            state = f"failed ({result.error})" if result.error else f"{result.seconds:.1f} s"
            print(
                f"{self._study} {result.part} seed {result.seed}: {state}; "
                f"{self._count}/{self._total} done, about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def print_certificates(folders: Sequence[RunFolder]) -> None:
    """The table at the end: method, promise, verdict, measured over promised, seconds.

    The two ratios read so that at most 1 is within the promise.
    """
    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table()
    table.add_column("method", no_wrap=True)
    table.add_column("promise", overflow="fold", ratio=2)
    table.add_column("verdict", overflow="fold", ratio=1)
    table.add_column("at end", justify="right", no_wrap=True)
    table.add_column("worst", justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("because", overflow="fold", ratio=3)
    for folder in folders:
        certificates = folder.certificates()
        for part in folder.parts:
            seconds = f"{folder.seconds(part):.1f}"
            name = f"{folder.study} {part}" if part != folder.study else part
            mine = [c for c in certificates if c.part == part]
            if not mine:
                table.add_row(escape(name), escape(_nothing(folder, part)), "", "", "", seconds, "")
            for c in mine:
                # What was kept needs no reason here; the report has it.
                reason = "" if c.verdict is Verdict.KEPT else c.reason
                table.add_row(
                    escape(name), escape(c.name), _verdict(c), _ratio(c.final), _ratio(c.tightness),
                    seconds, escape(reason),
                )  # fmt: skip
                name = seconds = ""
        for part, extras in folder.skipped.items():
            extra = ", ".join(extras)
            table.add_row(
                escape(f"{folder.study} {part}"),
                escape(f"skipped; run: pip install 'surefoot[{extra}]'"), "", "", "", "", "",
            )  # fmt: skip
        table.add_section()
    console.print(table)


def print_verified(path: Path, found: Verified) -> None:
    """What `verify` found: each certificate beside the one reached anew, each file that was changed."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table()
    for column in ("part", "promise", "in the run", "from the record"):
        table.add_column(column, overflow="fold")
    for c in found.certificates:
        again = "the same" if c.same else (c.again or "none")
        if c.differs:
            again += f", differs in {', '.join(c.differs)}"
        table.add_row(escape(c.part), escape(c.name), c.stored or "none", escape(again))
    if found.certificates:
        console.print(table)
    for change in found.changes:
        console.print(f"changed: {change}", markup=False, highlight=False, soft_wrap=True)
    for line in found.unchecked:
        console.print(f"not checked: {line}", markup=False, highlight=False, soft_wrap=True)
    files = "as the run left it" if found.holds else "not as the run left it"
    console.print(f"{path} is {files}", markup=False, highlight=False, soft_wrap=True)


def _nothing(folder: RunFolder, part: str) -> str:
    """Why a part has no certificate."""
    status = folder.status
    if part in status.get("problems", {}):
        return f"not concluded: {status['problems'][part]}"
    errors = [f["error"] for f in status["failed"] if f["part"] == part]
    if errors and len(errors) == len(folder.parts[part]["seeds"]):
        return f"{'all seeds' if len(errors) > 1 else 'its seed'} crashed: {errors[0]}"
    if any(not folder.is_done(part, seed) for seed in folder.parts[part]["seeds"]):
        return "not run to the end"
    return "nothing promised here: see the report"


def _ratio(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _verdict(c: Certificate) -> str:
    text = f"[{COLOURS[c.verdict]}]{c.verdict}[/]"
    if c.heuristic:
        text += " (heuristic)"
    if c.expected is not None:
        text += " (announced)" if not c.surprise else f" (announced: {c.expected})"
    return text
