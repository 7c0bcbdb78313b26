"""The promise and the run side by side: `certify` and the certificate it returns."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._run.files import write_text
from surefoot._verdict.comparison import compare, on_steps
from surefoot._verdict.curve import PlotCurve, thinned
from surefoot.errors import FileFormatError, UnknownNameError
from surefoot.guarantee import Assumption, Guarantee, Verdict
from surefoot.record import Curves, Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from rich.table import Table

FORMAT = 1
WITHHELD = "withheld, as private columns decide it"


@checked(nan=True)
@dataclass(frozen=True, repr=False)
class Certificate:
    """What was promised, what happened, and the verdict.

    Made by `certify`, by `unmeasured` where the quantity was not recorded, or read from JSON.

    Attributes
    ----------
    name
        The guarantee's name.
    statement
        The theorem in one line of mathematics, plain text.
    source
        Where it stands.
    quantity
        The record's quantity that it speaks of.
    sense
        "upper", "lower" or "equal", as in `Guarantee`.
    holds_in
        "every run" or "expectation": whether each seed was compared or the mean over seeds.
    heuristic
        Whether the claim has no proof.
    verdict
        The outcome.
    reason
        Why, in one sentence: for NOT_PROMISED the conditions that fail.
    confidence
        One minus the probability of calling a true bound on an expectation BROKEN, over all checked steps
        together; without effect on a claim on every run. NaN where nothing was measured.
    tightness
        The worst ratio measured/promised after the first step, of the mean over seeds for an expectation,
        of the worst seed otherwise; for a lower bound promised/measured, so that at most 1 is always
        within the promise. The first step, where both sides are often the same number, counts only where
        nothing is worse than it and it is outside. NaN where nothing was measured.
    seeds
        The seeds that were compared.
    checked
        The steps that `ratio`, `low` and `high` are about. For an expectation those that were tested; for a
        claim on every run at most 18 of those that were compared, the worst one and the first violation
        among them.
    ratio
        Measured/promised at these steps, whatever the sense: of the mean over seeds, or of the seed that
        is furthest on the wrong side.
    low
        Student's lower one-sided confidence limits of that mean, each at the level of a single step; NaN
        with fewer than 5 seeds or a value that is not finite. `ratio` itself where every run was compared.
    high
        The upper ones.
    worst_step
        The step of `tightness`; None where nothing was measured.
    assumptions
        The theorem's conditions, as measured on this run.
    curve
        Measured and promised values for drawing, at most 400 steps.
    more_seeds
        How many more seeds to run before looking again at an UNDECIDED one, at most as many again; the reason
        says about how many would decide. None where that is not known or no matter of seeds.
    notes
        What else a reader has to know.
    latex
        The statement in LaTeX; None: it has none.
    part
        The part of a study that it belongs to; empty outside of one.
    expected
        The verdict that the study announced; None: it announced none.
    details
        What a method adds, in JSON's types: a tuple comes back from JSON as a list.
    final
        The ratio of `tightness` at the last checked step. NaN where nothing was measured, and in
        certificates that version 0.1.0 wrote.
    private
        The private columns of the record (`Record.private`) that were read for it: numbers and verdict are
        left out where it is published.
    private_conditions
        Those that were read for the assumptions.
    axis
        The quantity as an axis says it; None: the name of the column.
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
    final: float = math.nan
    private: tuple[str, ...] = ()
    private_conditions: tuple[str, ...] = ()
    axis: str | None = None

    @property
    def over(self) -> str:
        """What `final` and `tightness` are ratios of."""
        return "promised / measured" if self.sense == "lower" else "measured / promised"

    @property
    def surprise(self) -> bool:
        """BROKEN without the study having announced it, or not what the study announced."""
        if self.expected is not None:
            return self.verdict is not self.expected
        return self.verdict is Verdict.BROKEN

    @property
    def label(self) -> str:
        """The verdict, and whether it speaks of a theorem or of a heuristic."""
        return f"{self.verdict} (heuristic)" if self.heuristic else str(self.verdict)

    def summary(self) -> str:
        """The certificate in a few lines of plain text."""
        lines = [
            f"{self.label}: {self.name}",
            f"  promised  {self.statement}  [{self.source}]",
            f"  measured  {self.quantity}, {len(self.seeds)} seed(s)"
            + (
                ""
                if self.worst_step is None
                else f", {self.over} {self.final:.4g} at the end, at worst {self.tightness:.4g} "
                f"(step {self.worst_step})"
            ),
            f"  because   {self.reason}",
        ]
        for a in self.assumptions:
            state = {True: "holds", False: "FAILS", None: "not measurable here"}[a.holds]
            value = "" if a.measured is None else f", measured {a.measured:.6g}"
            lines.append(f"  assumes   {a.name}: {a.requires}{value} ({state}; {a.how})")
        lines += [f"  note      {note}" for note in self.notes]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        part = f" [{self.part}]" if self.part else ""
        return f"<{type(self).__name__} {self.label}: {self.name}{part}, {self.reason}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.html()

    def table(self) -> Table:
        """The checked steps as a rich table."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(f"{self.name}: {self.label}"))
        for name in ("step", "measured / promised", "lower limit", "upper limit"):
            table.add_column(name, justify="right")
        for row in zip(self.checked, self.ratio, self.low, self.high, strict=True):
            table.add_row(str(row[0]), *(f"{v:.4g}" for v in row[1:]))
        return table

    def plot(self) -> Figure:
        """Promised and measured curve with the band of the seeds."""
        from surefoot.report.figures import certificate_figure

        return certificate_figure(self)

    def html(self, *, publish_private: bool = False) -> str:
        """The certificate as a self-contained HTML fragment, as `published` leaves it."""
        from surefoot.report.fragment import certificate_html

        return certificate_html(self.published(publish_private))

    def published(self, publish_private: bool = False) -> Certificate:
        """The certificate as it may leave: itself where nothing private was read for it, or if asked.

        Else without anything that private columns decided: ratios, curve, notes, and the verdict, one bit of
        them at each look. What conditions decided that are no secret stays: NOT_PROMISED and its reason.
        """
        if publish_private or not self.private:
            return self
        secret = ", ".join(self.private)
        verdict, reason, assumptions = self.verdict, self.reason, self.assumptions
        if self.private_conditions:
            assumptions = tuple(
                dataclasses.replace(a, measured=None, holds=None, how=WITHHELD) for a in assumptions
            )
        if verdict is not Verdict.NOT_PROMISED or self.private_conditions:
            verdict, reason = Verdict.UNDECIDED, f"{WITHHELD}: it is read off {secret}"
        kept = {k: v for k, v in self.details.items() if k == "claim"}
        return dataclasses.replace(
            self, verdict=verdict, reason=reason, assumptions=assumptions, tightness=math.nan, final=math.nan,
            checked=[], ratio=[], low=[], high=[], worst_step=None, curve=PlotCurve([], [], [], [], []),
            more_seeds=None, notes=(), expected=None, details=kept,
        )  # fmt: skip

    def to_dict(self, *, publish_private: bool = False) -> dict[str, Any]:
        """Plain lists, numbers and strings; infinities and NaN as strings, as JSON has none.

        As `published` leaves it: no number of a private column is in it unless asked.
        """
        if not publish_private and self.private:
            return self.published().to_dict(publish_private=True)
        # The fields of a subclass are its own business: what is to be stored goes into `details`.
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(Certificate)}
        data["curve"] = dataclasses.asdict(self.curve)
        data["assumptions"] = [dataclasses.asdict(a) for a in self.assumptions]
        details = _plain(data.pop("details"), _tagged)
        return {"format": FORMAT, **_plain(data), "details": details}

    def to_json(self, *, publish_private: bool = False) -> str:
        """The certificate as JSON; `from_json` gives an equal one back, or what `published` leaves of it."""
        return json.dumps(self.to_dict(publish_private=publish_private), indent=1, allow_nan=False)

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
            curve = values["curve"]
            bands = ("mean", "lowest", "highest", "promised")
            values["curve"] = PlotCurve(curve["steps"], *(_numbers(curve[k]) for k in bands))
            values |= {name: _numbers(values[name]) for name in ("ratio", "low", "high")}
            values.setdefault("final", math.nan)  # not in a certificate of 0.1.0
            values |= {name: _number(values[name]) for name in ("confidence", "tightness", "final")}
            values["details"] = _untagged(values.get("details", {}))
            for name in ("notes", "private", "private_conditions"):
                values[name] = tuple(values.get(name, ()))
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


@checked
def certify(
    record: Record,
    guarantee: Guarantee,
    confidence: float = 0.99,
    *,
    steps: int | None = None,
    expected: Verdict | None = None,
    look: int | None = None,
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
    look
        Where seeds are added until it is decided: the how-manieth look this is. What holds only for a number
        of seeds fixed beforehand then gets its share of the error, 1 / (look (look + 1)). BROKEN, and KEPT
        within a known range, hold whenever one looks.

    Raises
    ------
    UnknownNameError
        The record has no such quantity.
    ValueError
        The bound has another shape than the record, is NaN, or is not positive although the claim is
        about an expectation.
    """
    with record.reading() as read:
        found, conditions = _certified(record, guarantee, confidence, steps, expected, look)
    return _marked(found, record, read, conditions)


def _marked(
    found: Certificate, record: Record, read: set[str], conditions: set[str]
) -> Certificate:
    """With the private columns that were read for it."""
    secret = set(record.private_quantities)
    if not secret & (read | conditions):
        return found
    return dataclasses.replace(
        found, private=tuple(sorted(secret & (read | conditions))),
        private_conditions=tuple(sorted(secret & conditions)),
    )  # fmt: skip


def _certified(
    record: Record,
    guarantee: Guarantee,
    confidence: float,
    steps: int | None,
    expected: Verdict | None,
    look: int | None,
) -> tuple[Certificate, set[str]]:
    """The certificate, and what its assumptions read of the record."""
    check_number("confidence", confidence, least=0.5, below=1)
    curves = record.curves(guarantee.quantity)
    if not len(curves.steps):
        raise ValueError(
            f"no step of {guarantee.quantity!r} was recorded by every seed: {_first_steps(record, guarantee)}"
        )
    if expected is not None and expected not in list(Verdict):
        raise UnknownNameError("expected verdict", str(expected), list(Verdict))
    if steps is not None:
        check_number("steps", steps, least=2, whole=True)
    bound = on_steps(guarantee.bound(record), "bound", guarantee, curves)
    if look is not None:
        check_number("look", look, least=1, whole=True)
    found = compare(record, curves, bound, guarantee, confidence, steps, look)
    with record.reading() as conditions:
        assumptions = tuple(guarantee.assumptions(record))
    verdict, reason = found.verdict, found.reason
    lacking = record.lacking(guarantee.quantity)
    on_mean = guarantee.holds_in == "expectation"
    if not curves.complete and not on_mean and verdict is not Verdict.BROKEN:
        worse = _broken_alone(record, guarantee, steps)
        verdict, reason = (Verdict.BROKEN, worse) if worse else (verdict, reason)
    # Which seeds and steps are there may depend on what would have been measured.
    if not curves.complete and (verdict is Verdict.KEPT or (on_mean and verdict is Verdict.BROKEN)):
        verdict = Verdict.UNDECIDED
        reason = (
            "some seed lacks a step that another one has; only the shared ones were checked: "
            + _first_steps(record, guarantee)
        )
    if lacking and on_mean and verdict in (Verdict.KEPT, Verdict.BROKEN):
        verdict = Verdict.UNDECIDED
        reason = f"seeds {', '.join(map(str, lacking))} did not record {guarantee.quantity}"
    failing = _failing(assumptions)
    if failing:
        verdict, reason = Verdict.NOT_PROMISED, failing
    elif verdict is not Verdict.BROKEN and _is_vacuous(record, guarantee, curves, bound):
        verdict = Verdict.VACUOUS
        reason = "at no recorded step is the bound stronger than what holds trivially"
    elif guarantee.sense == "upper" and np.isposinf(bound).all() and verdict is not Verdict.BROKEN:
        verdict, reason = Verdict.VACUOUS, "the bound is infinite at every recorded step"
    said = (f"seeds {', '.join(map(str, lacking))} did not record it",) if lacking else ()
    made = Certificate(
        name=guarantee.name, statement=guarantee.statement, source=guarantee.source,
        quantity=guarantee.quantity, sense=guarantee.sense, holds_in=guarantee.holds_in,
        heuristic=guarantee.heuristic, verdict=verdict, reason=reason, confidence=confidence,
        tightness=found.tightness, seeds=[int(s) for s in curves.seeds],
        checked=[int(s) for s in curves.steps[found.checked]], ratio=found.ratio.tolist(),
        low=found.low.tolist(), high=found.high.tolist(),
        worst_step=int(curves.steps[found.worst]),
        assumptions=assumptions, curve=thinned(curves, bound, guarantee.sense), more_seeds=found.more_seeds,
        notes=found.notes + said + (found.caveats if verdict is found.verdict else ()),
        latex=guarantee.latex, axis=guarantee.axis, expected=expected, final=found.final,
    )  # fmt: skip
    return made, conditions


def _broken_alone(record: Record, guarantee: Guarantee, steps: int | None) -> str:
    """Why one seed by itself breaks a claim on every run, at a step that others lack; else nothing."""
    for seed in record.curves(guarantee.quantity).seeds:
        alone = record.of_seed(int(seed))
        curves = alone.curves(guarantee.quantity)
        bound = on_steps(guarantee.bound(alone), "bound", guarantee, curves)
        found = compare(alone, curves, bound, guarantee, 0.99, steps, None)
        if found.verdict is Verdict.BROKEN:
            return found.reason
    return ""


def _first_steps(record: Record, guarantee: Guarantee) -> str:
    """Which seed has which steps, of the two that differ most."""
    counts = {
        int(s): len(record.of_seed(int(s)).curves(guarantee.quantity).steps)
        for s in record.curves(guarantee.quantity).seeds
    }
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return f"seed {least} has {counts[least]} steps, seed {most} has {counts[most]}"


def _failing(assumptions: Iterable[Assumption]) -> str:
    return "; ".join(
        f"{a.name} fails: requires {a.requires}"
        + (f" ({a.how})" if a.measured is None else f", measured {a.measured:.6g}")
        for a in assumptions
        if a.holds is False
    )


def unmeasured(record: Record, guarantee: Guarantee, todo: str) -> Certificate:
    """What a theorem says of a run that did not measure its quantity: its conditions, and no comparison.

    NOT_PROMISED where a condition fails, else UNDECIDED. It is what `certificates()` of something that ran
    gives for a theorem whose quantity costs more than the run itself.

    Parameters
    ----------
    record
        The run; it does not hold the guarantee's quantity.
    guarantee
        The theorem.
    todo
        How to measure it, for instance "record ||grad f||^2 at the start of each period".
    """
    with record.reading() as conditions:
        assumptions = tuple(guarantee.assumptions(record))
    failing = _failing(assumptions)
    made = Certificate(
        name=guarantee.name, statement=guarantee.statement, source=guarantee.source,
        quantity=guarantee.quantity, sense=guarantee.sense, holds_in=guarantee.holds_in,
        heuristic=guarantee.heuristic,
        verdict=Verdict.NOT_PROMISED if failing else Verdict.UNDECIDED,
        reason=failing or f"{guarantee.quantity} was not measured: {todo}",
        confidence=math.nan, tightness=math.nan, seeds=record.seeds, checked=[], ratio=[], low=[],
        high=[], worst_step=None, assumptions=assumptions, curve=PlotCurve([], [], [], [], []),
        latex=guarantee.latex, axis=guarantee.axis,
    )  # fmt: skip
    return _marked(made, record, set(), conditions)


def _is_vacuous(
    record: Record, guarantee: Guarantee, curves: Curves, bound: Float[np.ndarray, "seeds steps"]
) -> bool:
    if guarantee.trivial is None or guarantee.sense == "equal":
        return False
    raw = guarantee.trivial(record) if callable(guarantee.trivial) else guarantee.trivial
    trivial = on_steps(raw, "trivial bound", guarantee, curves)
    weaker = bound >= trivial if guarantee.sense == "upper" else bound <= trivial
    return bool(weaker.all())


def _plain(value: Any, non_finite: Callable[[float], Any] = str) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v, non_finite) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, non_finite) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist(), non_finite)
    if isinstance(value, float) and not math.isfinite(value):
        return non_finite(value)
    return str(value) if isinstance(value, Verdict) else value


def _tagged(value: float) -> dict[str, str]:
    # Where nobody knows which fields are numbers, a bare "nan" could as well be a word.
    return {"number": str(value)}


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_untagged(v) for v in value]
    if isinstance(value, dict):
        if value.keys() == {"number"} and value["number"] in ("nan", "inf", "-inf"):
            return float(value["number"])
        return {k: _untagged(v) for k, v in value.items()}
    return value


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def _numbers(values: list[Any]) -> list[Any]:
    return [_number(v) for v in values]


def write_certificates(
    certificates: list[Certificate], path: Path, *, publish_private: bool = False
) -> None:
    """Write certificates as one JSON file, whole or not at all, as `Certificate.published` leaves them.

    Parameters
    ----------
    certificates, path
        Which, and where to.
    publish_private
        Whether with numbers of private columns.
    """
    told = [c.to_dict(publish_private=publish_private) for c in certificates]
    text = json.dumps(
        {"format": FORMAT, "certificates": told},
        indent=1,
        allow_nan=False,
    )
    write_text(path, text)


def read_certificates(path: Path) -> list[Certificate]:
    """Read what `write_certificates` wrote; anything else is a FileFormatError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError(f"{path} is not there; is its folder a run of surefoot?") from None
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path} is not readable JSON (truncated?): {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("certificates"), list):
        raise FileFormatError(f"{path} is not a file of certificates")
    if not isinstance(data.get("format"), int) or data["format"] > FORMAT:
        raise FileFormatError(
            f"{path} has format {data.get('format')}, this version reads up to {FORMAT}; "
            "upgrade surefoot"
        )
    try:
        return [Certificate.from_dict(c) for c in data["certificates"]]
    except FileFormatError as error:
        raise FileFormatError(f"{path} holds {error}") from None
