"""Runs side by side: what each ended with, and what differs on the seeds that all of them ran."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._run.folder import RunFolder
from surefoot._verdict import student
from surefoot.certificate import Certificate
from surefoot.errors import ArgumentError, SurefootError, UnknownNameError

# So few pairs have no interval.
PAIRS = 2


@checked(nan=True)
@dataclass(frozen=True)
class Difference:
    """A run minus the first one, pair by pair, and the interval of its mean.

    Attributes
    ----------
    mean
        Over the shared seeds; NaN where a value is not finite.
    low
        The lower end of the interval; NaN with fewer than 2 shared seeds.
    high
        The upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether the interval leaves out 0: the runs differ, at this confidence."""
        return self.low > 0 or self.high < 0


@checked(nan=True)
@dataclass(frozen=True)
class Measured:
    """One quantity in all runs.

    Attributes
    ----------
    part
        The part of the study.
    quantity
        Its name in the records.
    values
        For each run the mean over the shared seeds of what the seed ended with, its last recorded value.
    steps
        For each run the step of these values, the latest of all seeds.
    differences
        For each run after the first, it minus the first.
    seeds
        Those that all runs ran.
    """

    part: str
    quantity: str
    values: tuple[float, ...]
    steps: tuple[int, ...]
    differences: tuple[Difference, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Claimed:
    """One claim in all runs: for each its certificate, None where a run has none of this name.

    Attributes
    ----------
    part
        The part of the study.
    name
        That of the certificates.
    certificates
        One for each run.
    """

    part: str
    name: str
    certificates: tuple[Certificate | None, ...]


@dataclass(frozen=True, repr=False)
class Comparison:
    """Runs side by side; made by `compare`.

    Attributes
    ----------
    folders
        The runs; the first is what the others are compared with.
    settings
        For each run the settings that are not the same in all of them.
    titles
        The parts in words.
    measured
        Quantities.
    claimed
        Claims that more than one run has.
    confidence
        Of each interval by itself.
    """

    folders: tuple[RunFolder, ...]
    settings: tuple[dict[str, Any], ...]
    titles: Mapping[str, str]
    measured: tuple[Measured, ...]
    claimed: tuple[Claimed, ...]
    confidence: float

    @property
    def names(self) -> list[str]:
        """How the runs are called: their times, with the study where these differ."""
        several = len({f.study for f in self.folders}) > 1
        return [f"{f.study} {f.path.name}" if several else f.path.name for f in self.folders]

    @property
    def letters(self) -> list[str]:
        """How a table calls the runs: A, B, ... and R27 after Z."""
        return [chr(65 + i) if i < 26 else f"R{i + 1}" for i in range(len(self.folders))]

    def to_dict(self) -> dict[str, Any]:
        """Numbers and words as JSON has them; what is not a number is None."""
        return {
            "runs": [str(f.path) for f in self.folders],
            "settings": [{k: _word(v) for k, v in s.items()} for s in self.settings],
            "confidence": self.confidence,
            "quantities": [_plain(dataclasses.asdict(m)) for m in self.measured],
            "claims": [
                {"part": c.part, "name": c.name, "runs": [_outcome(one) for one in c.certificates]}
                for c in self.claimed
            ],
        }

    def __repr__(self) -> str:
        seeds = sorted({s for m in self.measured for s in m.seeds})
        return (
            f"<Comparison of {', '.join(self.names)}: {len(self.measured)} quantities, {len(self.claimed)} "
            f"claims, {len(seeds)} shared seed{'' if len(seeds) == 1 else 's'}>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from surefoot.comparing.fragment import comparison_html

        return comparison_html(self)


@checked
def compare(
    runs: Sequence[str | Path | RunFolder],
    *,
    quantities: Sequence[str] = (),
    confidence: float = 0.99,
) -> Comparison:
    """Put runs side by side: seeds are paired by their number, so that what is common to them cancels.

    Parameters
    ----------
    runs
        At least two run folders; the others are compared with the first.
    quantities
        Which ones, of those that are not private; by default those that a certificate of a run speaks of and
        that all runs recorded, or all that all of them recorded where there are none.
    confidence
        Of the interval of each mean difference, by itself: Student's, lengthened where the differences are
        skewed.

    Raises
    ------
    ArgumentError
        Fewer than two runs, or one of them twice.
    SurefootError
        The runs share no quantity, or no seed.
    FileFormatError
        A folder is no run, or is damaged.
    """
    check_number("confidence", confidence, least=0.5, below=1)
    folders = tuple(r if isinstance(r, RunFolder) else RunFolder.open(r) for r in runs)
    paths = [f.path.resolve() for f in folders]
    if len(folders) < 2:
        raise ArgumentError("runs", f"must be at least two run folders, got {len(folders)}")
    if twice := next((p for p in paths if paths.count(p) > 1), None):
        raise ArgumentError("runs", f"must be different run folders, got {twice} more than once")
    certificates = [[c.published() for c in f.certificates()] for f in folders]
    ends = [_ends(f) for f in folders]
    shared = [c for c in ends[0] if all(c in other for other in ends[1:])]
    if not shared:
        raise SurefootError(
            f"{folders[0].path} and {folders[-1].path} share no quantity: one recorded {_listed(ends[0])}, "
            f"the other {_listed(ends[-1])}"
        )
    chosen = _chosen(shared, certificates, quantities)
    measured = [m for column in chosen if (m := _measured(column, ends, confidence)) is not None]
    if not measured:
        seeds = [sorted({s for c in chosen for s in e[c]}) for e in ends]
        raise SurefootError(
            f"{folders[0].path} and {folders[-1].path} share no seed: one ran {_span(seeds[0])}, the other "
            f"{_span(seeds[-1])}; seeds are paired by their number"
        )
    return Comparison(
        folders, _settings(folders), {p: a["title"] for f in folders for p, a in f.parts.items()},
        tuple(measured), _claimed(certificates), confidence,
    )  # fmt: skip


Column = tuple[str, str]
Ends = dict[Column, dict[int, tuple[int, float]]]


def _ends(folder: RunFolder) -> Ends:
    """(part, quantity) -> seed -> (last step, value there)."""
    found: Ends = {}
    for part in folder.parts:
        record = folder.record(part)
        for quantity in sorted({*record.quantities} - {*record.private_quantities}):
            found[part, quantity] = record.last(quantity)
    return found


def _chosen(
    shared: list[Column], certificates: list[list[Certificate]], asked: Sequence[str]
) -> list[Column]:
    for name in asked:
        if name not in (q for _, q in shared):
            raise UnknownNameError("quantity of all runs", name, sorted({q for _, q in shared}))
    if asked:
        return [c for c in shared if c[1] in asked]
    spoken = {(c.part, c.quantity) for found in certificates for c in found}
    return [c for c in shared if c in spoken] or shared


def _measured(column: Column, ends: list[Ends], confidence: float) -> Measured | None:
    """None where no seed is shared."""
    seeds = sorted(set.intersection(*(set(e[column]) for e in ends)))
    if not seeds:
        return None
    values = np.array([[e[column][s][1] for s in seeds] for e in ends])
    with np.errstate(invalid="ignore", over="ignore"):
        means = values.mean(axis=1)
        differences = tuple(_difference(v - values[0], confidence) for v in values[1:])
    steps = tuple(max(e[column][s][0] for s in seeds) for e in ends)
    return Measured(*column, tuple(means.tolist()), steps, differences, tuple(seeds))


def _difference(pairs: Float[np.ndarray, " seeds"], confidence: float) -> Difference:
    if not np.isfinite(pairs).all():
        return Difference(math.nan, math.nan, math.nan)
    if len(pairs) < PAIRS:
        return Difference(float(pairs.mean()), math.nan, math.nan)
    low, high = (float(student.limit(pairs, (1 - confidence) / 2, side)) for side in (-1, 1))
    return Difference(float(pairs.mean()), low, high)


def _claimed(certificates: list[list[Certificate]]) -> tuple[Claimed, ...]:
    by_name = [{(c.part, c.name): c for c in found} for found in certificates]
    names = dict.fromkeys(key for found in by_name for key in found)
    rows = [Claimed(*key, tuple(found.get(key) for found in by_name)) for key in names]
    return tuple(row for row in rows if sum(c is not None for c in row.certificates) > 1)


def _settings(folders: Sequence[RunFolder]) -> tuple[dict[str, Any], ...]:
    each = [{"study": f.study, **f.config.get("config", {})} for f in folders]
    names = dict.fromkeys(name for one in each for name in one)
    other = [n for n in names if any(one.get(n) != each[0].get(n) for one in each)]
    return tuple({n: one.get(n) for n in other} for one in each)


def _listed(columns: Ends) -> str:
    names = [f"{part}: {quantity}" for part, quantity in columns]
    return (
        ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        or "nothing"
    )


def _span(seeds: list[int]) -> str:
    if not seeds:
        return "none"
    whole = len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"seeds {seeds[0]} to {seeds[-1]}" if whole else f"seed {', '.join(map(str, seeds))}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _outcome(certificate: Certificate | None) -> dict[str, Any] | None:
    if certificate is None:
        return None
    ratios = {"final": _finite(certificate.final), "tightness": _finite(certificate.tightness)}
    return {"verdict": str(certificate.verdict), **ratios}


def _word(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, list, type(None))) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return _finite(value) if isinstance(value, float) else value
