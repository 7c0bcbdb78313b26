"""What an audit is held against, as core guarantees: the proven epsilon, and the heuristic one.

Noise, rate, steps, delta and everything that the two values rest on are facts of the record
(`surefoot.privacy.facts`); nobody tells them a second time. Where an audit notes what was claimed and what
trained notes what it did, the two must agree.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Guarantee, Verdict, assume_fact
from surefoot.listing import lettered
from surefoot.privacy._checks import check_delta
from surefoot.privacy._recorded import (
    assume_alike,
    assume_directions,
    assume_linear,
    assume_mechanism,
    assume_sampled,
    assume_setting,
    plausible_value,
    promised,
    proven_value,
    values_of,
)
from surefoot.privacy.composition import as_history
from surefoot.privacy.facts import (
    BOUND,
    CLAIMED,
    SETTING,
    History,
    copy_facts,
    distinct,
    merged,
    recorded_histories,
    setting_facts,
)
from surefoot.record import Record

# An epsilon above this distinguishes nothing that matters: e^20 is half a billion.
USELESS = 20.0
# The two are computed apart, and at T = 1 they are the same curve.
GRID_ERROR = 2e-4
OF_STEPS = ("steps", "history", *(CLAIMED + name for name in (*SETTING, "history")))
UNAUDITED = "not audited; give the result of an audit of this mechanism as audit="


def proven_claim(quantity: str, *, of: str = "", name: str | None = None) -> Guarantee:
    """No audit may exceed the proven epsilon: one that does convicts the implementation.

    A correct implementation exceeds it with probability at most 1 - confidence in each seed, the
    confidence being the audit's. A record without noise, rate, steps or delta promises nothing.

    Parameters
    ----------
    quantity
        The record column with audited lower bounds on epsilon.
    of
        Whose facts, where the record holds several trainings.
    name
        Of the guarantee; by default "<quantity> <= proven".
    """
    return Guarantee(
        name=name or f"{quantity} <= proven",
        statement="epsilon_audit <= epsilon_standard(delta) of the recorded noise, rate and steps, "
        "each seed at the confidence of its audit",
        latex=r"\hat\varepsilon \le \varepsilon_{\mathrm{std}}(\delta)",
        source="standard composition of Poisson-subsampled Gaussians",
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: promised(record, quantity, of, proven_value),
        assumptions=lambda record: (
            assume_setting(record, of, proven_value),
            *assume_sampled(record, of),
        ),
        trivial=USELESS,
    )


def released_claim(quantity: str, *, of: str = "", name: str | None = None) -> Guarantee:
    """All that left a run is (epsilon, delta)-differentially private, with nothing assumed of the mechanism.

    As `proven_claim`, which leaves to its reader what is asked here: that the mechanism is the one of the
    proof, that noise and coins are secret, divisor and population public constants, and that nothing left but
    what the noise covers.

    Parameters
    ----------
    quantity, of
        As in `proven_claim`.
    name
        By default "privacy of all that left".
    """
    claim = proven_claim(quantity, of=of)
    return dataclasses.replace(
        claim,
        name=name or "privacy of all that left",
        statement="everything released together is (epsilon, delta)-differentially private with the epsilon "
        "of the recorded noise, rate and steps",
        assumptions=lambda record: (*claim.assumptions(record), *assume_mechanism(record, of)),
    )


def heuristic_claim(quantity: str, *, of: str = "", name: str | None = None) -> Guarantee:
    """The last-iterate heuristic as a claim on audits: it can be refuted and never proven.

    Steps that count differently enter where the record has the column "weight of the step"
    (`LinearWeights.record`). Losses that `LinearityMeter` found violated void the claim.

    Parameters
    ----------
    quantity, of
        As in `proven_claim`.
    name
        By default "<quantity> <= heuristic".
    """
    return Guarantee(
        name=name or f"{quantity} <= heuristic",
        statement="epsilon_audit <= epsilon_H(delta) of the recorded noise, rate and steps, "
        "each seed at the confidence of its audit",
        latex=r"\hat\varepsilon \le \varepsilon_H(\delta)",
        source="arXiv 2410.06186, the last-iterate heuristic",
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: promised(record, quantity, of, plausible_value),
        assumptions=lambda record: (
            assume_setting(record, of, plausible_value),
            *assume_sampled(record, of),
            assume_fact(
                record, "releases", "hidden iterates", "only the last iterate is seen",
                lambda v: v == "last", of=of,
            ),
            *assume_directions(record, of),
            assume_alike(record, of),
            assume_linear(record, of),
        ),
        heuristic=True,
        trivial=USELESS,
    )  # fmt: skip


def postprocessing_claim(quantity: str, proven: str, *, name: str | None = None) -> Guarantee:
    """Publishing the last iterate only is post-processing of publishing all: it cannot leak more.

    Parameters
    ----------
    quantity, proven
        The record columns of the heuristic and of the standard value.
    name
        Of the guarantee.
    """
    return Guarantee(
        name=name or "linear losses leak no more than composition",
        statement="epsilon_H(delta) <= epsilon_standard(delta)",
        latex=r"\varepsilon_H(\delta) \le \varepsilon_{\mathrm{std}}(\delta)",
        source="arXiv 2410.06186 (linear losses) and post-processing; checked here",
        quantity=quantity,
        axis="epsilon of the heuristic",
        sense="upper",
        holds_in="every run",
        bound=lambda record: record.curves(proven).values,
        atol=GRID_ERROR,
        trivial=USELESS,
    )


class Audit(Protocol):
    """What is asked of the result of an audit."""

    delta: float
    confidence: float
    claimed: tuple[Any, Any, int] | None
    record: Record

    @property
    def lower_bound(self) -> float:
        """The distribution-free one."""


@checked(leave=("audit",))
def certificates(
    record: Record,
    audit: Audit | None = None,
    *,
    delta: float | None = None,
    of: str = "",
    confidence: float = 0.95,
) -> list[Certificate]:
    """Of a run that released noised sums: that all that left is private; that the last iterate leaks less.

    Both are read off the facts of the record (`surefoot.privacy.facts`); `details["epsilon"]` of the first is
    the exact value of `standard`. KEPT only beside an audit that came out below it, else UNDECIDED;
    NOT_PROMISED where a fact fails, for instance where something left without noise.

    Parameters
    ----------
    record
        Of what ran.
    audit
        The result of an audit of the same mechanism, for instance of `surefoot.privacy.audit.mechanism`; one
        of fewer steps is held against what is proven of these.
    delta
        The failure probability; by default the fact of that name, or the audit's.
    of
        Whose facts, where the record holds several trainings.
    confidence
        That an audit must have at least.

    Raises
    ------
    ValueError
        If the record or the audit is at another delta, the audit of another (sigma, q, T), or at less than
        the confidence.
    """
    record = Record.concat([record])
    # Without a row there is no seed to certify.
    for seed in record.seeds or _told(record):
        record.update(seed, 0, {"certified": 1.0})
    if delta is None and audit is not None and not record.fact("delta", of).all:
        delta = audit.delta
    if delta is not None:
        _note_delta(record, check_delta(delta), of)
    claims = [
        released_claim(BOUND, of=of),
        heuristic_claim(BOUND, of=of, name="the last iterate leaks less"),
    ]
    if audit is not None:
        least = check_number("confidence", confidence, above=0, below=1)
        fewer = _note_audit(record, audit, of, least)
        confidence = audit.confidence
        claims = [_of_fewer_steps(c, fewer, audit.delta) for c in claims] if fewer else claims
    return [_judged(record, claim, confidence, of) for claim in claims]


def _told(record: Record) -> list[int]:
    return sorted({seed for known in record.facts.values() for seed in known.values}) or [0]


def _note_delta(record: Record, delta: float, of: str) -> None:
    for noted in record.fact("delta", of).all:
        if noted != delta:
            raise ValueError(f"delta must be the recorded one, {noted:g}, got {delta:g}")
    for seed in record.seeds:
        record.note(seed, of, delta=delta)


def _note_audit(record: Record, audit: Audit, of: str, confidence: float) -> History:
    """One audit speaks of every seed of a run, if it is of this run; its history, if of fewer steps."""
    if audit.confidence < confidence:
        raise ValueError(
            f"audit must be at a confidence of at least {confidence:g}, got one at {audit.confidence:g}"
        )
    for delta in record.fact("delta", of).all:
        if audit.delta != delta:
            raise ValueError(
                f"audit must be at the same delta, {delta:g}, got one at {audit.delta:g}"
            )
    ran = {h for found in recorded_histories(record, of).values() for h in found}
    fewer: History = ()
    if audit.claimed is not None:
        claimed = merged(as_history(*audit.claimed))
        if ran and all(_begins(h, claimed) for h in ran):
            fewer = claimed
        elif ran and len(distinct((*ran, claimed))) > 1:
            raise ValueError(
                "audit must be of this run, got one of another (sigma, q, T): "
                f"{setting_facts(claimed, CLAIMED)}, not {[setting_facts(h) for h in ran]}"
            )
    for seed in record.seeds:
        record.update(seed, 0, {BOUND: audit.lower_bound})
        copy_facts(audit.record, record, seed, of, without=OF_STEPS if fewer else ())
    return fewer


def _begins(whole: History, part: History) -> bool:
    """Whether equal steps are the first of others, and not all of them."""
    if len(whole) != 1 or len(part) != 1:
        return False
    (sigma, q, steps), all_steps = part[0], whole[0][2]
    return len(distinct((whole, ((sigma, q, all_steps),)))) == 1 and steps < all_steps


def _of_fewer_steps(claim: Guarantee, history: History, delta: float) -> Guarantee:
    """The claim as an audit of the first steps can break it: by what is promised of these alone."""
    value = plausible_value if claim.heuristic else proven_value
    return dataclasses.replace(
        claim,
        bound=lambda record: value(history, delta).upper,
        statement=f"{claim.statement}; audited over its first {history[0][2]} steps",
    )


def _judged(record: Record, claim: Guarantee, confidence: float, of: str) -> Certificate:
    """What a claim says of the run: beside an audit if there was one, and with its epsilon."""
    if BOUND in record:
        found = certify(record, claim, max(confidence, 0.5))
    else:
        found = unmeasured(record, claim, UNAUDITED)
    unknown = [a.name for a in found.assumptions if a.holds is None]
    if found.verdict is Verdict.KEPT and unknown and not claim.heuristic:
        # An audit sees what leaks, not how batches were drawn: of privacy nothing is taken for granted.
        found = dataclasses.replace(
            found, verdict=Verdict.UNDECIDED, reason=f"not recorded: {', '.join(unknown)}"
        )
    hidden = assume_directions(record, of) if claim.heuristic else ()
    if hidden:
        # Of all that fails, what cannot be mended.
        found = dataclasses.replace(found, reason=hidden[0].how)
    letter = "H" if claim.heuristic else "P"
    value = plausible_value if claim.heuristic else proven_value
    each = [v for v in values_of(record, of, value).values() if v is not None]
    if not each or found.verdict is Verdict.NOT_PROMISED:
        return lettered(found, letter)
    worst = max(each, key=lambda v: v.upper)
    delta = float(record.fact("delta", of).all[0])
    note = f"epsilon {worst.value:.6g} at delta {delta:g}"
    if len(each) > 1:
        # Basic composition, whatever they are: nothing is known of how the runs hang together.
        note += (
            f" of each of {len(each)} runs alone; of whoever sees all of them, where they are of the same "
            f"data, at most epsilon {sum(v.upper for v in each):.6g} at delta {len(each) * delta:g}"
        )
    vacuous = found.verdict is Verdict.UNDECIDED and worst.upper > USELESS
    found = dataclasses.replace(
        found,
        verdict=Verdict.VACUOUS if vacuous else found.verdict,
        reason=f"epsilon {worst.value:.4g} distinguishes nothing" if vacuous else found.reason,
        details={"epsilon": worst.value, "at most": worst.upper, "delta": delta},
        notes=(*found.notes, f"{note}; {worst.note}" if worst.note else note),
    )
    return lettered(found, letter)


def of_record(record: Record, **asked: Any) -> list[Certificate]:
    """What the facts of private trainings say of them (`surefoot.certificates`)."""
    trained = record.arms("mechanism", "noise_multiplier", "history")
    found = []
    for of in trained:
        made = certificates(record, asked.get("audit"), delta=asked.get("delta"), of=of)
        found += [dataclasses.replace(c, name=f"{of}: {c.name}") if of else c for c in made]
    return found
