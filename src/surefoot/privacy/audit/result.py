"""What an audit found, beside what is claimed; three numbers on one line, never merged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from surefoot._numerics.arguments import checked
from surefoot._showing import showing
from surefoot.privacy._checks import check_steps
from surefoot.privacy.audit.error_rates import Limits
from surefoot.privacy.composition import Standard, as_history, standard
from surefoot.privacy.facts import BOUND as BOUND
from surefoot.privacy.facts import CLAIMED, as_arguments, copy_facts, record_of, setting_facts
from surefoot.privacy.heuristic import last_iterate
from surefoot.privacy.result import HONESTY, Value
from surefoot.record import Record

if TYPE_CHECKING:
    from surefoot.certificate import Certificate
    from surefoot.guarantee import Verdict
    from surefoot.privacy.probe import Linearity
    from surefoot.record import Fact

Finding = Literal["consistent", "heuristic violated", "not DP as claimed"]
Claimed = tuple[Any, Any, int] | Standard
FAMILY = {
    "one_run_fdp": "assumes a Gaussian-shaped privacy loss",
    "one_run_last_iterate": "assumes the last-iterate family",
    "gdp": "assumes a Gaussian-shaped privacy loss",
    "last_iterate": "assumes the last-iterate family",
}
HEURISTIC = "heuristic (not a guarantee)"
PROVEN = "proven"
REFUTED = "; no member of it leaks so much: the family is refuted"


def claim_of(claimed: Claimed | None) -> tuple[Any, Any, int] | None:
    """(sigma, q, T); one number per step where the claim's steps differ.

    Raises
    ------
    ValueError
        If it is neither such a triple nor what `standard` returns, or a member is outside its range.
    """
    if claimed is None:
        return None
    if isinstance(claimed, Standard):
        return as_arguments(claimed.history)
    if not isinstance(claimed, (tuple, list)) or len(claimed) != 3:
        raise ValueError(
            "claimed must be (noise_multiplier, sample_rate, steps) or standard(...), "
            f"got {claimed!r}"
        )
    steps = check_steps(claimed[2])
    as_history(claimed[0], claimed[1], steps)
    return claimed[0], claimed[1], steps


@showing
@checked(nan=True)
@dataclass(frozen=True, repr=False)
class AuditResult:
    """Lower bounds on epsilon at a confidence, and what they say of what was claimed.

    Attributes
    ----------
    bounds
        By statistic: "one_run" and "clopper" assume nothing; "one_run_fdp", "gdp" and "last_iterate"
        assume the shape of the privacy loss. Infinite where a family as a whole is refuted.
    lower_bound
        The distribution-free one; findings rest on it alone. A low value proves no privacy.
    finding
        "consistent", "heuristic violated" or "not DP as claimed"; None without a claim.
    verdict
        Of the proven epsilon, as in its certificate; None without a claim.
    delta
        The failure probability of the claim.
    confidence
        That of the bounds.
    claimed
        (noise multiplier, sample rate, steps), the promise under audit; None without one.
    guesses
        Guesses made in a one-run audit, 2 k; 0 where there were many runs.
    correct
        How many of them were right.
    k
        Guesses on each side, of several the k that gave `lower_bound`; None where there were many runs.
    ceiling
        What `lower_bound` would be if every guess had been right.
    raw
        The bounds without calibration of the scores, where there was one.
    proven
        The claim's proven epsilon at delta; None without a claim.
    heuristic
        The claim's last-iterate heuristic at delta, no guarantee; None without a claim.
    limits
        Of the two error rates, where there were many runs.
    notes
        What else a reader has to know.
    record
        The bound, the two values, and the facts of the audit and of what it trained, under the audit's
        seed: `Record.concat` of several audits is what a certificate over seeds takes.
    """

    bounds: dict[str, float]
    delta: float
    confidence: float
    ceiling: float
    guesses: int = 0
    correct: int = 0
    k: int | None = None
    raw: dict[str, float] = field(default_factory=dict)
    claimed: tuple[Any, Any, int] | None = None
    proven: Value | None = None
    heuristic: Value | None = None
    limits: Limits | None = None
    notes: tuple[str, ...] = ()
    record: Record = field(default_factory=Record, compare=False)

    @property
    def lower_bound(self) -> float:
        """The bound that assumes nothing; 0 where only families were asked for."""
        return next((self.bounds[n] for n in ("one_run", "clopper") if n in self.bounds), 0.0)

    @property
    def finding(self) -> Finding | None:
        """What the distribution-free bound says of the claim; None without one."""
        if self.proven is None or self.heuristic is None:
            return None
        if self.lower_bound > self.proven.upper:
            return "not DP as claimed"
        return "heuristic violated" if self.lower_bound > self.heuristic.upper else "consistent"

    @property
    def verdict(self) -> Verdict | None:
        """The proven epsilon's verdict, that of the first of `certificates`; None without a claim."""
        return None if self.claimed is None else self._certificate("proven", None).verdict

    @property
    def exit_code(self) -> int:
        """3 if the implementation is not DP as claimed, else 0."""
        return 3 if self.finding == "not DP as claimed" else 0

    def __repr__(self) -> str:
        line = f"{BOUND} {self.lower_bound:.4g} (ceiling {self.ceiling:.4g})"
        if self.heuristic is not None and self.proven is not None:
            signs = ["<=" if self.lower_bound <= self.heuristic.upper else ">"]
            signs.append("<=" if self.heuristic.lower <= self.proven.upper else ">")
            line += f" {signs[0]} heuristic (not a guarantee) {self.heuristic.value:.4g}"
            line += f" {signs[1]} standard (proven) {self.proven.value:.4g}"
        lines = [
            line,
            f"  delta {self.delta:g}, confidence {self.confidence:g}; a low bound proves no privacy",
        ]
        if self.guesses:
            lines.append(f"  {self.correct} of {self.guesses} guesses right")
        lines += [
            f"  {name} {value:.4g}" + _assumed(name, value) for name, value in self.bounds.items()
        ]
        if self.raw:
            each = ", ".join(f"{n} {v:.4g}" for n, v in self.raw.items())
            lines.append(f"  without calibration: {each}")
        if self.finding is not None:
            implementation = self.finding == "not DP as claimed"
            words = f"{'implementation is ' * implementation}{self.finding}"
            lines.append(f"  verdict: {words} (the proven epsilon is {self.verdict})")
        lines += [f"  {note}" for note in self._said()]
        return "\n".join(lines)

    __str__ = __repr__

    def to_dict(self) -> dict[str, Any]:
        """The same in JSON's types, which have no infinity: that one is "inf"."""
        return {
            "lower_bound": _finite(self.lower_bound),
            "bounds": {name: _finite(value) for name, value in self.bounds.items()},
            "raw": {name: _finite(value) for name, value in self.raw.items()},
            "ceiling": self.ceiling,
            "delta": self.delta,
            "confidence": self.confidence,
            "guesses": self.guesses,
            "correct": self.correct,
            "k": self.k,
            "rows": self._rows(),
            "heuristic": None if self.heuristic is None else _finite(self.heuristic.value),
            "proven": None if self.proven is None else _finite(self.proven.value),
            "verdict": None if self.verdict is None else str(self.verdict),
            "finding": self.finding,
            "exit_code": self.exit_code,
            "notes": list(self._said()),
        }

    def _said(self) -> tuple[str, ...]:
        return self.notes if self.heuristic is None else (*self.notes, HONESTY)

    def _rows(self) -> list[dict[str, Any]]:
        """The three numbers with their kinds, as a report has them."""
        low = "a low value proves no privacy"
        rows = [
            {"name": name, **value.to_dict()}
            for name, value in (("standard", self.proven), ("heuristic", self.heuristic))
            if value is not None
        ]
        audit = {"name": "audit", "kind": "lower bound", "epsilon": self.lower_bound, "note": low}
        return [{k: _finite(v) for k, v in row.items()} for row in (*rows, audit)]

    def certificates(self, linearity: Linearity | None = None) -> list[Certificate]:
        """The bound against the proven claim and against the heuristic one.

        Parameters
        ----------
        linearity
            What `LinearityMeter` read of the training: the heuristic promises nothing where it is violated.

        Raises
        ------
        ValueError
            Without a claim.
        """
        if self.claimed is None:
            raise ValueError(
                "claimed must be given to the audit: there is nothing to hold it against"
            )
        return [self._certificate(which, linearity) for which in ("proven", "heuristic")]

    def _certificate(
        self, which: Literal["proven", "heuristic"], linearity: Linearity | None
    ) -> Certificate:
        from surefoot.certificate import certify
        from surefoot.privacy.guarantee import heuristic_claim, proven_claim

        record = self.record
        if linearity is not None:
            # What was read of the training is true of this audit, whichever seed the meter had.
            record = Record.concat([self.record])
            for seed in record.seeds:
                copy_facts(linearity.record, record, seed)
        claim = proven_claim if which == "proven" else heuristic_claim
        # A certificate states no confidence below one half.
        return certify(record, claim(BOUND), max(self.confidence, 0.5))


def _assumed(name: str, value: float) -> str:
    if name not in FAMILY:
        return ""
    return f" ({FAMILY[name]}{REFUTED if value == math.inf else ''})"


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def check_claim(claimed: Claimed | None, delta: float) -> tuple[Any, Any, int] | None:
    """The claim as a triple, and a delta at which it says something.

    Raises
    ------
    ValueError
        If the claim or one of its members is not as it must be, or delta is 0.
    """
    claim = claim_of(claimed)
    if claim is not None and delta == 0:
        raise ValueError("delta must be positive where something is claimed, got 0")
    return claim


def conclude(
    bounds: dict[str, float],
    delta: float,
    confidence: float,
    claimed: Claimed | None,
    *,
    seed: int,
    ran: Any = None,
    facts: Mapping[str, Fact] | None = None,
    **found: Any,
) -> AuditResult:
    """Put the claim's two values beside the bounds; without a delta there is no claim to compare.

    Parameters
    ----------
    bounds, delta, confidence, claimed
        As in `AuditResult`.
    seed
        Of the audit, under which its record is kept.
    ran
        What was trained: the facts of its record, if it has one, become facts of the audit.
    facts
        What the audit itself knows of the training.
    found
        Further fields of the result.
    """
    claim = check_claim(claimed, delta)
    result = AuditResult(bounds, delta, confidence, claimed=claim, **found)
    record = result.record
    record.update(seed, 0, {BOUND: result.lower_bound})
    record.note(
        seed, delta=delta, confidence=confidence, adjacency="add/remove",
        statistic=next(iter(bounds)), **(facts or {}),
    )  # fmt: skip
    if (trained := record_of(ran)) is not None:
        copy_facts(trained, record, seed)
    if claim is None:
        return result
    record.note(seed, **setting_facts(as_history(*claim), CLAIMED))
    proven, heuristic = standard(*claim).epsilon(delta), last_iterate(*claim).epsilon(delta)
    record.update(seed, 0, {PROVEN: proven.value, HEURISTIC: heuristic.value})
    return dataclasses.replace(result, proven=proven, heuristic=heuristic)
