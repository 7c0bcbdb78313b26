"""Proven, heuristic and audited, one under the other: `compare` and the report it returns."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice
from surefoot._showing import showing
from surefoot.privacy._checks import check_delta, check_rates, check_steps, real
from surefoot.privacy._weighing import Weighing, weigh
from surefoot.privacy.audit.result import BOUND, HEURISTIC, PROVEN
from surefoot.privacy.composition import REFUSED, as_history, epochs, standard
from surefoot.privacy.facts import CLAIMED, WEIGHT, distinct, merged, setting_facts
from surefoot.privacy.gaussian_mechanism import full_batch
from surefoot.privacy.heuristic import PerStep, Sampling, last_iterate
from surefoot.privacy.result import FORWARD_ONLY, HONESTY, PUBLIC_DIRECTIONS, Value
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from surefoot.certificate import Certificate
    from surefoot.privacy.audit.result import AuditResult
    from surefoot.privacy.linear_weights import LinearWeights

Array = np.ndarray
Releases = Literal["last", "all"]
RELEASED = "void: all intermediate models are released, and the heuristic assumes them hidden"
HIDDEN = (
    "the heuristic holds only if nothing but the final model leaves: no checkpoints, no averages of "
    "published models, no early stopping or search on private data"
)
SHUFFLED_WEIGHTS = (
    "no last-iterate value: steps count differently, "
    "and for shuffled batches only equal steps are known"
)
PLOT_POINTS = 60
EPOCHS = "E epochs"


@dataclass(frozen=True)
class Row:
    """One line of a report: a name, its value or None, and why there is none."""

    name: str
    value: Value | None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        if self.value is None:
            return {"name": self.name, "epsilon": None, "note": self.note}
        found = {"name": self.name, **self.value.to_dict()}
        return {**found, "note": self.note or self.value.note}


@showing
@checked(nan=True)
@dataclass(frozen=True, repr=False)
class Report:
    """What is proven, what is plausible, and what an audit saw, at one delta.

    Attributes
    ----------
    noise_multiplier
        Noise standard deviation over clip norm, as given to `compare`: one number, or one per step.
    sample_rate
        The probability that an example is in a batch: one number, or one per step.
    steps
        Number of updates.
    delta
        Failure probability of every epsilon here.
    sampling
        "poisson" or "shuffled".
    rows
        What the table shows, the proven values first.
    notes
        What is said below it.
    standard, heuristic, envelope, full_batch
        Values at delta, or None where there is none; `rows` then says why.
    audit
        The audit given to `compare`, if any.
    record
        The epsilon of every row, the weights of the steps where they differ, and facts: what was given to
        `compare` as claims, and what the audit or Opacus wrote down.
    """

    noise_multiplier: PerStep
    sample_rate: PerStep
    steps: int
    delta: float
    rows: tuple[Row, ...]
    audit: AuditResult | None = None
    notes: tuple[str, ...] = ()
    sampling: Sampling = "poisson"
    record: Record = field(default_factory=Record, compare=False)

    def _row(self, name: str) -> Value | None:
        return next((r.value for r in self.rows if r.name == name), None)

    @property
    def standard(self) -> Value | None:
        """Proven epsilon: the only guarantee here."""
        return self._row("standard")

    @property
    def heuristic(self) -> Value | None:
        """The last-iterate heuristic."""
        return self._row("heuristic")

    @property
    def envelope(self) -> Value | None:
        """The largest heuristic over shorter runs."""
        return self._row("envelope")

    @property
    def full_batch(self) -> Value | None:
        """The full-batch simplification."""
        return self._row("full batch")

    def certificates(self) -> list[Certificate]:
        """That the heuristic stays below what is proven; and both against the audit, where there is one."""
        from surefoot.certificate import certify
        from surefoot.privacy.guarantee import heuristic_claim, postprocessing_claim, proven_claim

        found = [
            certify(self.record, postprocessing_claim(HEURISTIC, proven))
            for proven in (PROVEN, EPOCHS)
            if proven in self.record and HEURISTIC in self.record
        ]
        if self.audit is not None:
            confidence = max(self.audit.confidence, 0.5)
            for claim in (proven_claim, heuristic_claim):
                found.append(certify(self.record, claim(BOUND), confidence))
        return found

    def __repr__(self) -> str:
        lines = [f"epsilon at delta {self.delta:g}, {_setting(self)}"]
        for row in self.rows:
            if row.value is None:
                lines.append(f"  {row.name:<11}{'-':>10}  {row.note}")
                continue
            words = "guarantee" if row.value.kind == "guarantee" else "heuristic, not a guarantee"
            note = row.note or row.value.note
            lines.append(
                f"  {row.name:<11}{row.value.value:>10.5g}  {words}{'; ' + note if note else ''}"
            )
        if self.audit is not None:
            lines.append(
                f"  {'audit':<11}{self.audit.lower_bound:>10.5g}  {_audit_words(self.audit)}"
            )
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)

    __str__ = __repr__

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON's types, the proven value first."""
        return {
            "delta": self.delta,
            "noise_multiplier": _plain(self.noise_multiplier),
            "sample_rate": _plain(self.sample_rate),
            "steps": self.steps,
            "sampling": self.sampling,
            "rows": [row.to_dict() for row in self.rows],
            "audit": None if self.audit is None else self.audit.to_dict(),
            "notes": list(self.notes),
        }

    def plot(self) -> Figure:
        """Epsilon against the number of steps: proven, heuristic, full batch, and the audit.

        Raises
        ------
        ValueError
            If the steps differ from each other: there is then no curve over T.
        """
        from surefoot.privacy.figures import steps_figure

        if np.ndim(self.noise_multiplier) or np.ndim(self.sample_rate):
            raise ValueError("plot needs equal steps: one noise_multiplier and one sample_rate")
        sigma, q = (
            real("noise_multiplier", self.noise_multiplier),
            real("sample_rate", self.sample_rate),
        )
        points = np.unique(np.geomspace(1, max(self.steps, 2), PLOT_POINTS).astype(int))
        audits = [] if self.audit is None else [(self.steps, self.audit.lower_bound)]
        return steps_figure(sigma, q, points, self.delta, audits)


def _setting(report: Report) -> str:
    sigma, q = (
        f"{given:g}" if np.ndim(given) == 0 else f"varying ({np.min(given):g} to {np.max(given):g})"
        for given in (report.noise_multiplier, report.sample_rate)
    )
    return f"sigma {sigma}, sample rate {q}, {report.steps} steps, {report.sampling} sampling"


def _plain(given: PerStep) -> float | list[float]:
    values = np.asarray(given, dtype=float)
    return float(values) if values.ndim == 0 else [float(x) for x in values]


def _audit_words(audit: AuditResult) -> str:
    return (
        f"lower bound at confidence {audit.confidence:g}: {audit.finding}; "
        "a low value proves no privacy"
    )


@checked(leave=("sampling",))
def compare(
    noise_multiplier: PerStep,
    sample_rate: PerStep,
    steps: int,
    delta: float,
    *,
    weights: Float[Array, " steps"] | list[float] | LinearWeights | None = None,
    sampling: Sampling = "poisson",
    releases: Releases = "last",
    audit: AuditResult | None = None,
    optimizer: Any = None,
    lr_history: Float[Array, " steps"] | list[float] | None = None,
    public_directions: bool = False,
) -> Report:
    """Epsilon at delta: standard (proven), last-iterate heuristic, envelope, full batch, and an audit.

    Parameters
    ----------
    noise_multiplier, sample_rate, steps, weights, sampling
        As in `last_iterate`.
    delta
        Failure probability of the statement.
    releases
        "last" if only the final model leaves; with "all" the heuristic is void and not shown.
    audit
        The result of an audit of this training, shown beside.
    optimizer
        What took the steps, where it was not plain SGD: momentum and weight decay enter the heuristic, which
        is refused for what it does not cover (Adam; optimisers that take forward passes only).
    lr_history
        Its learning rate at each step, where that changed.
    public_directions
        That every step moved along directions whose seed is known (zeroth-order training): the heuristic is
        then void and refused. An audit whose record says so needs no telling.

    Raises
    ------
    ValueError
        If an argument is outside its range, or the audit is of another training or delta.
    """
    delta = check_delta(delta)
    check_choice("releases", releases, get_args(Releases))
    if audit is not None:
        check_audit(audit, noise_multiplier, sample_rate, steps, delta)
    weighing = Weighing()
    if optimizer is not None:
        if weights is not None:
            raise ValueError("weights and optimizer exclude each other, got both")
        if lr_history is not None:
            check_rates(lr_history, check_steps(steps))
        weighing = weigh(optimizer, check_steps(steps), lr_history)
    elif lr_history is not None:
        raise ValueError("lr_history needs an optimizer; learning rates alone are weights")
    if public_directions or _noted(audit, "public_directions"):
        weighing = _void(weighing, PUBLIC_DIRECTIONS)
    elif (name := _forward_only(audit)) is not None:
        weighing = _void(weighing, FORWARD_ONLY.format(name=name))
    found = made_report(
        noise_multiplier, sample_rate, steps, delta, weighing,
        weights=weights, sampling=sampling, releases=releases, audit=audit,
    )  # fmt: skip
    if optimizer is not None:
        # Said by the caller, and never to look better: what the heuristic rests on.
        found.record.note(found.record.seeds[0], optimizer=weighing.name)
    if public_directions:
        found.record.note(found.record.seeds[0], public_directions=True)
    return dataclasses.replace(found, notes=(*found.notes, *weighing.notes))


def _void(weighing: Weighing, why: str) -> Weighing:
    return dataclasses.replace(weighing, weights=None, refused=why, void=True)


def _noted(audit: AuditResult | None, fact: str) -> bool:
    return audit is not None and True in audit.record.fact(fact).all


def _forward_only(audit: AuditResult | None) -> str | None:
    """The name of what trained, where the audit's record says that it took no gradients."""
    if audit is None or not _noted(audit, "forward_only"):
        return None
    return ", ".join(map(str, audit.record.fact("optimizer").all))


def made_report(
    noise_multiplier: PerStep,
    sample_rate: PerStep,
    steps: int,
    delta: float,
    weighing: Weighing,
    *,
    weights: Any = None,
    sampling: Sampling = "poisson",
    releases: Releases = "last",
    audit: AuditResult | None = None,
) -> Report:
    """The report of `compare` for an optimiser that was weighed already.

    Parameters
    ----------
    noise_multiplier, sample_rate, steps, delta, weights, sampling, releases, audit
        As in `compare`, and checked.
    weighing
        What the optimiser means for the heuristic.
    """
    weights = weighing.weights if weights is None else weights
    if sampling == "shuffled" and weights is not None and weighing.weights is not None:
        # Shuffled epochs have one closed form, for equal steps.
        weighing, weights = Weighing(refused=SHUFFLED_WEIGHTS), None
    mechanism = last_iterate(
        noise_multiplier, sample_rate, steps, weights=weights, sampling=sampling
    )
    rows = _proven_rows(noise_multiplier, sample_rate, steps, delta, sampling)
    void = RELEASED if releases == "all" else weighing.refused if weighing.void else ""
    notes = [HONESTY] if void else [HONESTY, HIDDEN]
    if void:
        rows += [Row(name, None, void) for name in ("heuristic", "envelope", "full batch")]
    elif weighing.refused:
        rows.append(Row("heuristic", None, weighing.refused))
    else:
        rows.append(Row("heuristic", mechanism.epsilon(delta)))
        plain = weights is None and np.ndim(noise_multiplier) == np.ndim(sample_rate) == 0
        if plain and sampling == "poisson":
            rows.append(Row("envelope", mechanism.envelope(delta)))
            sigma, q = real("noise_multiplier", noise_multiplier), real("sample_rate", sample_rate)
            rows.append(Row("full batch", full_batch(sigma, q, steps).epsilon(delta)))
    report = Report(
        noise_multiplier, sample_rate, int(steps), delta, tuple(rows), audit, tuple(notes), sampling,
        Record.concat([] if audit is None else [audit.record]),
    )  # fmt: skip
    _write(report, weights, "all" if void else releases)
    return report


def _write(report: Report, weights: Any, releases: Releases) -> None:
    """The rows and what `compare` was told into the report's record."""
    record = report.record
    seed = record.seeds[0] if record.seeds else 0
    columns = {"standard": PROVEN, "heuristic": HEURISTIC}
    for row in report.rows:
        if row.value is not None:
            record.update(seed, 0, {columns.get(row.name, row.name): row.value.value})
    if weights is not None:
        record.extend(seed, WEIGHT, [float(a) for a in getattr(weights, "values", weights)])
    history = as_history(report.noise_multiplier, report.sample_rate, report.steps)
    record.note(
        seed,
        delta=report.delta,
        claimed_sampling=report.sampling,
        **setting_facts(history, CLAIMED),
    )
    # Nobody would say these two to look better: they are taken as they are said.
    if report.sampling == "shuffled":
        record.note(seed, sampling="shuffled")
    if releases == "all":
        record.note(seed, releases="all")


def check_audit(
    audit: AuditResult, noise_multiplier: PerStep, sample_rate: PerStep, steps: int, delta: float
) -> None:
    """That an audit is of this training and at this delta.

    Parameters
    ----------
    audit, noise_multiplier, sample_rate, steps, delta
        As in `compare`.

    Raises
    ------
    ValueError
        If it is not.
    """
    if audit.delta != delta:
        raise ValueError(f"audit must be at the same delta, {delta:g}, got one at {audit.delta:g}")
    given = merged(as_history(noise_multiplier, sample_rate, steps))
    if audit.claimed is not None and len(distinct((given, as_history(*audit.claimed)))) > 1:
        raise ValueError(
            "audit must be of this training, got one of another (sigma, q, T): "
            f"{setting_facts(as_history(*audit.claimed), CLAIMED)}, not {setting_facts(given)}"
        )


def _proven_rows(
    noise_multiplier: PerStep, sample_rate: PerStep, steps: int, delta: float, sampling: Sampling
) -> list[Row]:
    if sampling == "poisson":
        value = standard(noise_multiplier, sample_rate, steps).epsilon(delta)
        if not math.isfinite(value.value):
            value = dataclasses.replace(value, note=value.note or "nothing is proven")
        return [Row("standard", value)]
    rounds = round(real("sample_rate", sample_rate) * int(steps))
    bound = epochs(real("noise_multiplier", noise_multiplier), rounds).epsilon(delta)
    return [Row("standard", None, REFUSED), Row(EPOCHS, bound)]
