"""What an audit is held against, as core guarantees: the proven epsilon, and the heuristic one."""

from __future__ import annotations

from collections.abc import Sequence

from surefoot.guarantee import Assumption, Guarantee
from surefoot.privacy.composition import standard
from surefoot.privacy.heuristic import PerStep, last_iterate


def _latex(delta: float) -> str:
    mantissa, _, exponent = f"{delta:.6g}".partition("e")
    if not exponent:
        return mantissa
    power = f"10^{{{int(exponent)}}}"
    return power if mantissa == "1" else rf"{mantissa} \cdot {power}"


# An epsilon above this distinguishes nothing that matters: e^20 is half a billion.
USELESS = 20.0
LINEAR = "the losses and the regulariser are linear in the parameters"


def proven_claim(
    quantity: str,
    claimed: tuple[PerStep, PerStep, int],
    delta: float,
    confidence: float,
    *,
    name: str | None = None,
) -> Guarantee:
    """No audit may exceed the proven epsilon: one that does convicts the implementation.

    Parameters
    ----------
    quantity
        The record column with audited lower bounds on epsilon.
    claimed
        (noise multiplier, sample rate, steps) of the training.
    delta, confidence
        Of the audit: a correct implementation exceeds the bound with probability at most 1 - confidence
        in each seed.
    """
    value = standard(*claimed).epsilon(delta).value
    return Guarantee(
        name=name or f"{quantity} <= proven",
        statement=f"epsilon_audit <= epsilon_standard({delta:g}) = {value:.4g}, "
        f"each seed at confidence {confidence:g}",
        latex=rf"\hat\varepsilon \le \varepsilon_{{\mathrm{{std}}}}({_latex(delta)}) = {value:.4g}",
        source="standard composition of Poisson-subsampled Gaussians (dp-accounting)",
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: value,
        trivial=USELESS,
    )


def heuristic_claim(
    quantity: str,
    claimed: tuple[PerStep, PerStep, int],
    delta: float,
    confidence: float,
    *,
    assumptions: Sequence[Assumption] = (),
    name: str | None = None,
) -> Guarantee:
    """The last-iterate heuristic as a claim on audits: it can be refuted and never proven.

    Parameters as in `proven_claim`; `assumptions` replaces the two that nobody measured here.
    """
    value = last_iterate(*claimed).epsilon(delta).value
    given = tuple(assumptions) or (
        Assumption("linear losses", LINEAR, None, None, "LinearityMeter measures it"),
        Assumption("hidden iterates", "only the last iterate is seen", None, True, "by the set-up"),
    )
    return Guarantee(
        name=name or f"{quantity} <= heuristic",
        statement=f"epsilon_audit <= epsilon_H({delta:g}) = {value:.4g}, "
        f"each seed at confidence {confidence:g}",
        latex=rf"\hat\varepsilon \le \varepsilon_H({_latex(delta)}) = {value:.4g}",
        source="arXiv 2410.06186, the last-iterate heuristic",
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: value,
        assumptions=lambda record: given,
        heuristic=True,
        trivial=USELESS,
    )
