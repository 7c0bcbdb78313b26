"""From a ledger's terms to a certificate: the promise, the always-valid bound, the verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Assumption, Guarantee, Verdict
from surefoot.nesterov._ledger.advice import next_step
from surefoot.nesterov._ledger.landscape import (
    ROUNDING,
    Circumstances,
    LandscapeVerdict,
    judge_landscape,
)
from surefoot.record import Record

SOURCE = "in the setting of arXiv 2410.08395; constants derived here"
IDENTITY = 1e-4
COLUMNS = (
    "f_x", "f_y", "f_p", "L", "A", "C", "D", "K", "T", "total", "rounding", "mu_aim", "L_needed", "eps"
)  # fmt: skip


@checked(nan=True)
@dataclass(frozen=True, repr=False)
class LedgerCertificate(Certificate):
    """The core's certificate with the ledger it rests on.

    The fields that are not named here are those of `surefoot.Certificate`.

    Attributes
    ----------
    landscape
        "benign", "benign-by-ledger", "benign-on[a,b]", "not-benign(term)", "vacuous" or
        "unknown: why".
    terms
        The ledger, one entry a recorded step.
    failures
        For each hypothesis and for the total, the number of judged steps at which it failed.
    judged
        How many steps were judged.
    promised
        (1-s)^n L_0, one entry a recorded step, as are all curves here.
    measured
        f(x_n) - f*, or f(x_n) itself where f* is not known.
    posterior_bound
        The bound on it that is valid whatever the landscape is; NaN where not every step was recorded.
    mu_path
        The aiming constant met at each step; NaN at the anchor itself.
    L_path
        The smoothness met along each gradient step; NaN where the gradient vanishes.
    eps_path
        The non-convexity met along each velocity step; NaN where the velocity vanishes or alpha is 0.
    first_benign_step
        From here to the end of the judged steps the total never failed; None: it failed at the end.
    window
        The longest stretch without total failure that is long enough to mean something.
    unchecked
        What this certificate says nothing about.
    """

    landscape: str = ""
    terms: Mapping[str, Float[np.ndarray, " N"]] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    judged: int = 0
    promised: Float[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0))
    measured: Float[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0))
    posterior_bound: Float[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0))
    mu_path: Float[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0))
    L_path: Float[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0))
    eps_path: Float[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0))
    first_benign_step: int | None = None
    window: tuple[int, int] | None = None
    unchecked: str = ""

    def summary(self) -> str:
        """The certificate in a few lines of plain text."""
        counts = ", ".join(f"{h} {n}" for h, n in self.failures.items())
        return (
            f"{super().summary()}\n"
            f"  landscape {self.landscape}; failures in {self.judged} judged steps: {counts}\n"
            f"  unchecked {self.unchecked}"
        )


def posterior_bound(total: Float[np.ndarray, " N"], L0: float, s: float) -> Float[np.ndarray, " N"]:
    """B_0 = L_0, B_{n+1} = (1-s) B_n + max(0, total_n): f(x_n) - f* <= B_n for every run."""
    bound = np.empty(len(total))
    value = L0
    for n, extra in enumerate(total):
        bound[n] = value
        value = (1 - s) * value + max(0.0, float(extra))
    return bound


def ledger_certificate(
    steps: np.ndarray,
    terms: Mapping[str, Float[np.ndarray, " N"]],
    about: Circumstances,
    *,
    name: str = "accelerated descent",
    settings: tuple[Assumption, ...] = (),
) -> LedgerCertificate:
    """Judge the recorded terms of a run.

    Parameters
    ----------
    steps
        The step numbers of the entries; the always-valid bound needs consecutive ones.
    terms
        The ledger, keys as in `COLUMNS`.
    about
        What the terms do not tell.
    name
        The certificate's.
    settings
        What the theorem asks of the method, as recorded; one that fails makes it NOT_PROMISED.
    """
    terms = {k: np.asarray(v, dtype=np.float64) for k, v in terms.items()}
    gap = terms["f_x"] - (about.f_star or 0.0)
    found = judge_landscape({**terms, "gap": gap}, about)
    s = about.s
    L0 = float(terms["L"][0]) if len(gap) else float("nan")
    promised = (1 - s) ** steps.astype(float) * L0
    consecutive = len(steps) > 0 and bool((steps == np.arange(len(steps))).all())
    posterior = posterior_bound(terms["total"], L0, s) if consecutive else np.full(len(gap), np.nan)
    keep = slice(0, found.judged if found.judged else len(gap))
    record = Record()
    record.extend(0, "f(x_n) - f*", gap[keep], steps[keep])
    promise = Guarantee(
        name=name,
        statement="f(x_n) - f* <= (1 - s)^n L_0, s = " + f"{s:.4g}",
        latex=r"f(x_n) - f^* \le (1-s)^n \left(f(x_0) - f^* + \tfrac{\mu}{2}|x_0 - p_0|^2\right)",
        source=SOURCE,
        quantity="f(x_n) - f*",
        sense="upper",
        holds_in="every run",
        bound=lambda r: promised[keep],
        assumptions=lambda r: (*settings, _ledger_holds(found, terms)),
        # A promise of less than a factor ten over the whole run is no news.
        trivial=0.1 * L0 if np.isfinite(L0) else None,
        atol=ROUNDING * max(L0, 0.0) if np.isfinite(L0) else 0.0,
    )
    core = (
        certify(record, promise)
        if len(gap) and not np.isnan(promised).any()
        else unmeasured(record, promise, found.landscape.removeprefix("unknown: "))
    )
    verdict, reason = _core_verdict(found)
    if (then := next_step(found, terms, about)) is not None:
        reason = f"{reason}; {then}"
    other = [a for a in settings if a.holds is False]
    if other:
        verdict = Verdict.NOT_PROMISED
        reason = "; ".join(f"{a.name} fails: requires {a.requires}, {a.how}" for a in other)
    said = [a.name for a in settings if a.holds is None]
    if verdict is Verdict.KEPT and said:
        verdict, reason = Verdict.UNDECIDED, f"the record does not say: {', '.join(said)}"
    n = _identity_fault(terms, s) if consecutive and not other else None
    if n is not None:
        verdict = Verdict.BROKEN
        reason = (
            f"the exact identity of the ledger fails at n = {n}, which no landscape can cause: the "
            "update, eta or rho is wrong"
        )
    anchored = not found.landscape.startswith("unknown") and about.unknown is None
    if n is None and not other and anchored and consecutive and not about.diverged:
        rounding = posterior_bound(terms["rounding"], float(terms["rounding"][0]), s)
        allowed = posterior[keep] * (1 + 1e-9) + ROUNDING * L0 + rounding[keep]
        beyond = np.flatnonzero(gap[keep] > allowed)
        if len(beyond):
            n = int(beyond[0])
            verdict = Verdict.BROKEN
            reason = (
                f"f(x_n) - f* = {gap[n]:.6g} exceeds the bound {posterior[n]:.6g} at n = {n}, which "
                "no landscape can cause: f*, the update, eta, rho or the gradient is wrong"
            )
    notes = [*core.notes]
    for h, count in found.failures.items():
        if h != "total" and count and not found.failures["total"]:
            notes.append(
                f"{h} alone failed at {count} steps, where slack of other terms paid for it"
            )
    if found.window is not None and found.failures["total"]:
        notes.append(f"no total failure in steps {found.window[0]} to {found.window[1]}")
    if found.stopped is not None:
        notes.append(found.stopped)
    values = {f.name: getattr(core, f.name) for f in dataclasses.fields(Certificate)}
    values |= {"verdict": verdict, "reason": reason, "notes": tuple(notes)}
    values["details"] = {
        "landscape": found.landscape,
        "judged": found.judged,
        "failures": found.failures,
        "s": s,
    }
    return LedgerCertificate(
        **values,
        landscape=found.landscape,
        terms=terms,
        failures=found.failures,
        judged=found.judged,
        promised=promised,
        measured=gap,
        posterior_bound=posterior,
        mu_path=terms["mu_aim"],
        L_path=terms["L_needed"],
        eps_path=terms["eps"],
        first_benign_step=found.first_benign_step,
        window=found.window,
        unchecked="points off the path, and steps after the judged ones",
    )


def _identity_fault(terms: Mapping[str, Float[np.ndarray, " N"]], s: float) -> int | None:
    """The first step whose terms do not account for L_{n+1}, far beyond what rounding explains."""
    L = terms["L"]
    if len(L) < 2:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        defect = np.abs(L[1:] - (1 - s) * L[:-1] - terms["total"][:-1])
        # Below 1e-16 L_0 the difference y - p has lost the digits that the identity needs.
        resolved = np.isfinite(defect) & (L[:-1] > 1e-16 * L[0])
        known = IDENTITY * (np.abs(L[1:]) + np.abs(L[:-1])) + 8 * terms["rounding"][:-1]
        bad = np.flatnonzero(resolved & (defect > known))
    return int(bad[0]) if len(bad) else None


def _ledger_holds(
    found: LandscapeVerdict, terms: Mapping[str, Float[np.ndarray, " N"]]
) -> Assumption:
    judged = slice(0, found.judged)
    worst = float(np.max(terms["total"][judged] / terms["L"][judged])) if found.judged else None
    unknown = found.landscape.startswith("unknown")
    return Assumption(
        name="the ledger's total is never positive",
        requires="((1-s)C + sA + D + K + T) / L <= 1e-10 at every judged step",
        measured=worst,
        holds=None if unknown else found.failures["total"] == 0 and found.term is None,
        how=f"exact ledger with full gradients, {found.judged} judged steps",
    )


def _core_verdict(found: LandscapeVerdict) -> tuple[Verdict, str]:
    word = found.landscape
    if word in ("benign", "benign-by-ledger"):
        return Verdict.KEPT, f"{word}: the ledger's total never failed in {found.judged} steps"
    if word == "vacuous":
        return Verdict.VACUOUS, f"(1-s)^N > 0.1 after {found.judged} judged steps"
    if word.startswith("unknown"):
        return Verdict.UNDECIDED, word
    count = found.failures["total"] or found.failures.get(found.term or "", 0)
    return Verdict.NOT_PROMISED, f"{word}: {found.term} fails ({count} of {found.judged} steps)"
