"""The promise and the run side by side: `certify` and the certificate it returns."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from surefoot import evidence
from surefoot.errors import FileFormatError
from surefoot.guarantee import Assumption, Guarantee, Verdict
from surefoot.record import Curves, Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from rich.table import Table

FORMAT = 1
PLOT_POINTS = 400


@dataclass(frozen=True)
class PlotCurve:
    """Measured (mean, lowest, highest seed) and promised values, thinned for drawing."""

    steps: list[int]
    mean: list[float]
    lowest: list[float]
    highest: list[float]
    promised: list[float]


@dataclass(frozen=True)
class Certificate:
    """What was promised, what happened, and the verdict.

    `tightness` is the worst ratio measured/promised over the checked steps (of the mean over seeds
    for an expectation, of the worst seed otherwise). `checked`, `ratio`, `low`, `high` are the
    checked steps with the mean ratio and its one-sided limits. `details` holds what a method adds.
    """

    name: str
    statement: str
    source: str
    quantity: str
    sense: str
    holds_in: str
    heuristic: bool
    verdict: Verdict
    reason: str
    confidence: float
    tightness: float
    seeds: list[int]
    checked: list[int]
    ratio: list[float]
    low: list[float]
    high: list[float]
    worst_step: int | None
    assumptions: tuple[Assumption, ...]
    curve: PlotCurve
    more_seeds: int | None = None
    notes: tuple[str, ...] = ()
    latex: str | None = None
    part: str = ""
    expected: Verdict | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def surprise(self) -> bool:
        """BROKEN without the study having announced it, or not what the study announced."""
        if self.expected is not None:
            return self.verdict is not self.expected
        return self.verdict is Verdict.BROKEN

    def summary(self) -> str:
        """The certificate in a few lines of plain text."""
        label = " (heuristic)" if self.heuristic else ""
        lines = [
            f"{self.verdict}{label}: {self.name}",
            f"  promised  {self.statement}  [{self.source}]",
            f"  measured  {self.quantity}, {len(self.seeds)} seed(s), worst ratio "
            f"{self.tightness:.4g}"
            + ("" if self.worst_step is None else f" at step {self.worst_step}"),
            f"  because   {self.reason}",
        ]
        for a in self.assumptions:
            state = {True: "holds", False: "FAILS", None: "not measurable here"}[a.holds]
            value = "" if a.measured is None else f", measured {a.measured:.6g}"
            lines.append(f"  assumes   {a.name}: {a.requires}{value} ({state}; {a.how})")
        lines += [f"  note      {note}" for note in self.notes]
        return "\n".join(lines)

    def table(self) -> Table:
        """The checked steps as a rich table."""
        from rich.table import Table

        table = Table(title=f"{self.name}: {self.verdict}")
        for name in ("step", "measured / promised", "lower limit", "upper limit"):
            table.add_column(name, justify="right")
        for row in zip(self.checked, self.ratio, self.low, self.high, strict=True):
            table.add_row(str(row[0]), *(f"{v:.4g}" for v in row[1:]))
        return table

    def plot(self) -> Figure:
        """Promised and measured curve with the band of the seeds."""
        from surefoot.report.figures import certificate_figure

        return certificate_figure(self)

    def html(self) -> str:
        """The certificate as a self-contained HTML fragment."""
        from surefoot.report.site import certificate_html

        return certificate_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings; infinities and NaN as strings, as JSON has none."""
        data = dataclasses.asdict(self)
        data["format"] = FORMAT
        return dict(_plain(data))

    def to_json(self) -> str:
        """The certificate as JSON; `from_json` gives an equal one back."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Certificate:
        """Rebuild a certificate; a foreign or newer dictionary is a FileFormatError."""
        if not isinstance(data, dict) or "format" not in data:
            raise FileFormatError("not a surefoot certificate: it names no format")
        if not isinstance(data["format"], int) or data["format"] > FORMAT:
            raise FileFormatError(
                f"certificate of format {data['format']}, this version reads up to {FORMAT}; "
                "upgrade surefoot"
            )
        known = {f.name for f in dataclasses.fields(Certificate)}
        try:
            values = {k: v for k, v in data.items() if k in known}
            values["verdict"] = Verdict(values["verdict"])
            if values.get("expected") is not None:
                values["expected"] = Verdict(values["expected"])
            values["assumptions"] = tuple(
                Assumption(**{**a, "measured": _number(a["measured"])})
                for a in values["assumptions"]
            )
            for name in ("ratio", "low", "high"):
                values[name] = [_number(v) for v in values[name]]
            for name in ("confidence", "tightness"):
                values[name] = _number(values[name])
            curve = values["curve"]
            values["curve"] = PlotCurve(
                curve["steps"],
                *(
                    [_number(v) for v in curve[k]]
                    for k in ("mean", "lowest", "highest", "promised")
                ),
            )
            values["notes"] = tuple(values.get("notes", ()))
            return Certificate(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"not a whole surefoot certificate: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> Certificate:
        """Read what `to_json` wrote."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise FileFormatError(f"not a readable certificate (truncated?): {error}") from None
        return cls.from_dict(data)


def certify(
    record: Record,
    guarantee: Guarantee,
    confidence: float = 0.99,
    *,
    steps: int | None = None,
    expected: Verdict | None = None,
) -> Certificate:
    """Compare a record with a guarantee.

    Parameters
    ----------
    record, guarantee
        What was measured and what was promised.
    confidence
        One minus the probability of calling a true bound on an expectation BROKEN, over all checked
        steps together.
    steps
        How many steps to check: log-spaced ones of the record. Default 16 for an expectation (each
        further noisy step costs power) and all of them for a claim on every run.
    expected
        The verdict that the study announced, if it did.

    Raises
    ------
    UnknownNameError
        The record has no such quantity.
    ValueError
        The bound has another shape than the record, is NaN, or is not positive although the claim is
        about an expectation.
    """
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence must be in [0.5, 1), got {confidence}")
    curves = record.curves(guarantee.quantity)
    if not len(curves.steps):
        raise ValueError(f"no step of {guarantee.quantity!r} was recorded by every seed")
    bound = _bound_curve(record, guarantee, curves)
    found = (_every_run if guarantee.holds_in == "every run" else _expectation)(
        curves, bound, guarantee, confidence, steps
    )
    assumptions = guarantee.assumptions(record)
    verdict, reason = found.verdict, found.reason
    if verdict is Verdict.KEPT and not curves.complete:
        verdict = Verdict.UNDECIDED
        reason = "some seed lacks a step that another one has; only the shared ones were checked"
    failing = [a for a in assumptions if a.holds is False]
    if failing:
        verdict = Verdict.NOT_PROMISED
        reason = "; ".join(
            f"{a.name} fails: requires {a.requires}"
            + ("" if a.measured is None else f", measured {a.measured:.6g}")
            for a in failing
        )
    elif verdict is not Verdict.BROKEN and _is_vacuous(record, guarantee, bound):
        verdict = Verdict.VACUOUS
        reason = "at no recorded step is the bound stronger than what holds trivially"
    return Certificate(
        name=guarantee.name, statement=guarantee.statement, source=guarantee.source,
        quantity=guarantee.quantity, sense=guarantee.sense, holds_in=guarantee.holds_in,
        heuristic=guarantee.heuristic, verdict=verdict, reason=reason, confidence=confidence,
        tightness=found.tightness, seeds=[int(s) for s in curves.seeds],
        checked=[int(s) for s in curves.steps[found.checked]], ratio=found.ratio.tolist(),
        low=found.low.tolist(), high=found.high.tolist(),
        worst_step=None if found.worst is None else int(curves.steps[found.worst]),
        assumptions=assumptions, curve=_thin(curves, bound), more_seeds=found.more_seeds,
        notes=found.notes, latex=guarantee.latex, expected=expected,
    )  # fmt: skip


@dataclass(frozen=True)
class _Finding:
    verdict: Verdict
    reason: str
    tightness: float
    checked: np.ndarray
    ratio: np.ndarray
    low: np.ndarray
    high: np.ndarray
    worst: int | None
    more_seeds: int | None = None
    notes: tuple[str, ...] = ()


def _bound_curve(
    record: Record, guarantee: Guarantee, curves: Curves
) -> Float[np.ndarray, "seeds steps"]:
    bound = np.asarray(guarantee.bound(record), dtype=np.float64)
    shape = curves.values.shape
    if bound.shape not in ((), shape[1:], shape):
        raise ValueError(
            f"the bound of {guarantee.name!r} has shape {bound.shape}; the record's "
            f"{guarantee.quantity!r} has {shape[0]} seeds and {shape[1]} steps"
        )
    if np.isnan(bound).any():
        raise ValueError(f"the bound of {guarantee.name!r} is NaN at some step")
    return np.broadcast_to(bound, shape)


def _expectation(
    curves: Curves,
    bound: Float[np.ndarray, "seeds steps"],
    guarantee: Guarantee,
    confidence: float,
    steps: int | None,
) -> _Finding:
    at = evidence.checked_steps(curves.steps.astype(float), steps or evidence.MAX_CHECKED_STEPS)
    if (bound[:, at] <= 0).any():
        raise ValueError(
            f"the bound of {guarantee.name!r} must be positive at every checked step, as its claim "
            "is about an expectation"
        )
    with np.errstate(invalid="ignore"):
        x = curves.values[:, at] / bound[:, at]
    top = None
    if guarantee.value_range is not None:
        top = guarantee.value_range[1] / bound[:, at].min(axis=0)
    found = evidence.judge(
        x, sense=guarantee.sense, confidence=confidence, tolerance=guarantee.tolerance, top=top
    )
    reason = found.reason
    if found.carrier is not None:
        reason += f" (seed {curves.seeds[found.carrier]})"
    return _Finding(
        found.verdict, reason, _tightness(found.mean, guarantee.sense), at, found.mean, found.low,
        found.high, int(at[found.worst]), found.more_seeds, found.notes,
    )  # fmt: skip


def _every_run(
    curves: Curves,
    bound: Float[np.ndarray, "seeds steps"],
    guarantee: Guarantee,
    confidence: float,
    steps: int | None,
) -> _Finding:
    total = len(curves.steps)
    at = (
        np.arange(total)
        if steps is None
        else evidence.checked_steps(curves.steps.astype(float), steps)
    )
    y, b = curves.values[:, at], bound[:, at]
    allowed = guarantee.tolerance * np.abs(b) + guarantee.atol
    with np.errstate(invalid="ignore"):
        excess = {"upper": y - b, "lower": b - y, "equal": np.abs(y - b)}[guarantee.sense]
        # inf against inf is no violation: a bound of infinity promises nothing.
        excess = np.where(np.isinf(b) & (y == b), 0.0, excess)
        ratio = np.where(b == 0, np.where(y == 0, 1.0, np.copysign(np.inf, y)), y / b)
    violated = excess > allowed
    collapse = {"upper": np.max, "lower": np.min, "equal": np.max}[guarantee.sense]
    by_step = collapse(ratio if guarantee.sense != "equal" else np.abs(ratio - 1) + 1, axis=0)
    notes = (f"{len(curves.seeds)} run(s) compared at {len(at)} steps, without statistics",)
    worst = _worst_step(by_step, guarantee.sense)
    if np.isnan(y).any():
        seed, step = np.argwhere(np.isnan(y))[0]
        verdict = Verdict.UNDECIDED
        reason = f"{guarantee.quantity} is NaN at step {curves.steps[at[step]]} of seed {curves.seeds[seed]}"
    else:
        verdict, reason = Verdict.KEPT, "within the bound in every run at every checked step"
    if violated.any():
        seed, step = np.argwhere(violated)[0]
        verdict, worst = Verdict.BROKEN, int(step)
        reason = (
            f"seed {curves.seeds[seed]} has {guarantee.quantity} = {y[seed, step]:.6g} at step "
            f"{curves.steps[at[step]]} where the bound is {b[seed, step]:.6g}"
            f" ({int(violated.sum())} of {violated.size} comparisons fail)"
        )
    # Without statistics all steps matter, but a certificate is read: it lists at most 16 of them.
    shown = evidence.checked_steps(curves.steps[at].astype(float))
    if worst not in shown:
        shown = np.sort(np.append(shown, worst))
    return _Finding(
        verdict, reason, _tightness(by_step, guarantee.sense), at[shown], by_step[shown],
        by_step[shown], by_step[shown], int(at[worst]), None, notes,
    )  # fmt: skip


def _worst_step(ratio: np.ndarray, sense: str) -> int:
    if np.isnan(ratio).all():
        return 0
    return int(np.nanargmin(ratio) if sense == "lower" else np.nanargmax(ratio))


def _tightness(ratio: np.ndarray, sense: str) -> float:
    if not len(ratio) or np.isnan(ratio).all():
        return math.nan
    if sense == "equal":
        return float(ratio[int(np.nanargmax(np.abs(ratio - 1)))])
    return float(np.nanmin(ratio) if sense == "lower" else np.nanmax(ratio))


def _is_vacuous(
    record: Record, guarantee: Guarantee, bound: Float[np.ndarray, "seeds steps"]
) -> bool:
    if guarantee.trivial is None or guarantee.sense == "equal":
        return False
    raw = guarantee.trivial(record) if callable(guarantee.trivial) else guarantee.trivial
    trivial = np.broadcast_to(np.asarray(raw, dtype=np.float64), bound.shape)
    weaker = bound >= trivial if guarantee.sense == "upper" else bound <= trivial
    return bool(weaker.all())


def _thin(curves: Curves, bound: Float[np.ndarray, "seeds steps"]) -> PlotCurve:
    at = np.unique(
        np.concatenate(
            [
                evidence.checked_steps(curves.steps.astype(float), PLOT_POINTS // 2),
                np.linspace(0, len(curves.steps) - 1, PLOT_POINTS // 2).astype(int),
            ]
        )
    )
    y = curves.values[:, at]
    return PlotCurve(
        [int(s) for s in curves.steps[at]],
        y.mean(axis=0).tolist(),
        y.min(axis=0).tolist(),
        y.max(axis=0).tolist(),
        bound[:, at].mean(axis=0).tolist(),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Verdict):
        return str(value)
    return value


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def write_certificates(certificates: list[Certificate], path: Path) -> None:
    """Write certificates as one JSON file, whole or not at all."""
    text = json.dumps(
        {"format": FORMAT, "certificates": [c.to_dict() for c in certificates]},
        indent=1,
        allow_nan=False,
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def read_certificates(path: Path) -> list[Certificate]:
    """Read what `write_certificates` wrote; anything else is a FileFormatError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError(f"{path} is not there; is its folder a run of surefoot?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not readable JSON (truncated?): {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise FileFormatError(f"{path} is not a file of certificates: it names no format")
    if data["format"] > FORMAT:
        raise FileFormatError(
            f"{path} has format {data['format']}, this version reads up to {FORMAT}; upgrade surefoot"
        )
    return [Certificate.from_dict(c) for c in data.get("certificates", [])]
