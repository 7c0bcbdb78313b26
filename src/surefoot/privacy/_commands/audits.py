"""`surefoot privacy audit`, `audit-train`, `counterexample`: what really leaks."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from surefoot._numerics.checks import check_number
from surefoot.errors import FileFormatError, SurefootError
from surefoot.privacy._checks import check_delta
from surefoot.privacy._commands.output import show
from surefoot.privacy._commands.training import Claim


@dataclass(frozen=True)
class Audit:
    """Audit scores computed elsewhere: a file with columns score and included (0 or 1)."""

    scores: tyro.conf.Positional[Path]
    """A CSV file."""
    claim: tyro.conf.OmitArgPrefixes[Claim]
    delta: float = 1e-5
    """Failure probability of the claim."""
    method: Literal["one_run", "one_run_fdp", "clopper", "gdp"] = "one_run"
    """one_run: no assumption; one_run_fdp: Gaussian-shaped loss; clopper, gdp: one canary, many runs."""
    k: int | None = None
    """Guesses on each side (one run)."""
    threshold: float | None = None
    """Accuse above this score (many runs)."""
    confidence: float = 0.95
    """Confidence of the lower bound."""
    seed: int = 0
    """Breaks ties between scores."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check_delta(self.delta)
        if self.k is not None:
            check_number("k", self.k, least=1, whole=True)
        check_number("confidence", self.confidence, above=0, below=1)
        check_number("seed", self.seed, least=0, whole=True)
        if self.threshold is not None:
            check_number("threshold", self.threshold, finite=False)

    def __call__(self) -> int:
        from surefoot.privacy import audit

        scores, included = _read_scores(self.scores)
        result = audit.from_scores(
            scores,
            included,
            method=self.method,
            delta=self.delta,
            k=self.k,
            threshold=self.threshold,
            confidence=self.confidence,
            seed=self.seed,
            claimed=self.claim.claimed(),
        )
        return show(result, self.json)


def _read_scores(path: Path) -> tuple[Any, Any]:
    import pandas as pd

    if not path.is_file():
        raise FileFormatError(f"{path} is no file; give a CSV with the columns score and included")
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is no CSV file: {error}") from error
    missing = {"score", "included"} - set(table.columns)
    if missing:
        raise FileFormatError(
            f"{path} must have the columns score and included, got {list(table.columns)}"
        )
    included = table["included"].to_numpy()
    if not set(included.tolist()) <= {0, 1}:
        raise FileFormatError(f"{path}: included must be 0 or 1 everywhere")
    return table["score"].to_numpy(dtype=float), included.astype(bool)


@dataclass(frozen=True)
class AuditTrain:
    """Audit your own training function in one run: MODULE:FUNCTION(include, seed) -> scores."""

    function: tyro.conf.Positional[str]
    """Takes a boolean tensor (canary i is in) and a seed, trains, and returns one score per canary."""
    m: int
    """How many canaries it takes."""
    claim: tyro.conf.OmitArgPrefixes[Claim]
    delta: float = 1e-5
    """Failure probability of the claim."""
    k: int | None = None
    """Guesses on each side; fixed before looking."""
    shadow: int = 8
    """Further trainings that calibrate the scores."""
    confidence: float = 0.95
    """Confidence of the lower bound."""
    seed: int = 0
    """Draws the canaries' coins and the seeds of the trainings."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check_delta(self.delta)
        if self.k is not None:
            check_number("k", self.k, least=1, whole=True)
        check_number("confidence", self.confidence, above=0, below=1)
        check_number("seed", self.seed, least=0, whole=True)
        check_number("m", self.m, least=1, whole=True)
        check_number("shadow", self.shadow, least=0, whole=True)

    def __call__(self) -> int:
        from surefoot.privacy import audit

        result = audit.one_run(
            _imported(self.function),
            m=self.m,
            k=self.k,
            delta=self.delta,
            confidence=self.confidence,
            shadow=self.shadow,
            seed=self.seed,
            claimed=self.claim.claimed(),
        )
        return show(result, self.json)


def _imported(words: str) -> Any:
    import sys

    module, _, name = words.partition(":")
    if not module or not name:
        raise SurefootError(f"the training function must be MODULE:FUNCTION, got {words!r}")
    # As `python -m` does: a script beside the user is importable.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SurefootError(f"cannot import {words}: {error}") from error
    if not callable(function):
        raise SurefootError(f"{words} must be callable, got {type(function).__name__}")
    return function


@dataclass(frozen=True)
class Counterexample:
    """A training that leaks more than the heuristic says, audited before your eyes."""

    name: tyro.conf.Positional[Literal["forgetting", "malicious-data", "encoding"]]
    """forgetting: a regulariser keeps only late steps; malicious-data: other examples store the first
    step; encoding: a regulariser stores all steps in the digits of the model."""
    runs: int | None = None
    """Trainings with and trainings without the canary."""
    seed: int = 0
    """Of the simulation."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if self.runs is not None:
            check_number("runs", self.runs, least=10, whole=True)
        check_number("seed", self.seed, least=0, whole=True)

    def __call__(self) -> int:
        from surefoot.privacy.counterexamples import PRESETS

        make = PRESETS[self.name.replace("-", "_")]
        chosen = {} if self.runs is None else {"runs": self.runs}
        return show(make(seed=self.seed, **chosen).run(), self.json)
