"""How long a step may be, of the sketches that were drawn and of their law."""

from __future__ import annotations

import dataclasses
import math

from surefoot.guarantee import Assumption
from surefoot.lora._theorem.conditions import SLACK
from surefoot.lora._theorem.settings import extreme
from surefoot.lora.bounds import RateLaw, largest_step
from surefoot.lora.config import PROJECTIONS
from surefoot.record import Record


def of_draws(record: Record, of: str, law: RateLaw, L: float) -> Assumption:
    """Gamma times the largest eigenvalue of the sketches that were drawn is small enough.

    That is all that a single run needs; an expectation needs it of the law, see `by_law`.

    Parameters
    ----------
    record, of
        The run.
    law
        The theorem.
    L
        Smoothness.
    """
    gamma, high = (
        extreme(record, "gamma_max", of, "largest"),
        extreme(record, "sketch_high", of, "largest"),
    )
    if gamma is None:
        gamma = extreme(record, "gamma", of, "largest")
    steps = extreme(record, "steps", of, "largest") if law in ("rr", "fed") else 1.0
    name = "1/L" if law in ("gd", "sgd") else "1/(2 L N)"
    if gamma is None or high is None or steps is None:
        return Assumption("step size", f"gamma <= {name}", None, None, "recorded: no step size")
    most = largest_step(law, L, int(steps))
    return Assumption(
        "step size", f"gamma <= {name} = {most:.6g}", gamma * high, gamma * high <= most * SLACK,
        "recorded: learning rates of every step",
    )  # fmt: skip


UNBOUNDED = (
    "Gaussian entries are unbounded: a block of several steps descends for some draws only; take one step a "
    "block, precondition=True or another law"
)
LAW_UNKNOWN = (
    "it holds for the sketches that were drawn; their law, of which it is asked, is not known"
)


def by_law(record: Record, of: str, law: RateLaw, L: float) -> Assumption:
    """Gamma times what the law of the sketches stretches is small enough, whatever was drawn.

    With one step a block the stretch in the mean counts, E[S^2] <= k E[S]; with more, the essential
    supremum of the largest eigenvalue, which Gaussian entries do not have.

    Parameters
    ----------
    record, of, law, L
        As in `of_draws`.
    """
    drawn = of_draws(record, of, law, L)
    modes, laws = record.fact("precondition", of), record.fact("sketch", of)
    made = bool(modes.all) and not modes.missing and all(modes.all)
    if made or (laws.all and not laws.missing and all(v in PROJECTIONS for v in laws.all)):
        return drawn
    steps = extreme(record, "steps", of, "largest")
    if drawn.holds is None or steps is None:
        return drawn
    single = law in ("gd", "sgd") and steps <= 1
    which = "sketch_mean" if single else "sketch_sup"
    stretch = extreme(record, which, of, "largest")
    if stretch is None:
        return dataclasses.replace(drawn, holds=None, how=LAW_UNKNOWN) if drawn.holds else drawn
    if math.isinf(stretch):
        return Assumption("bounded sketches", drawn.requires, stretch, False, UNBOUNDED)
    gamma = extreme(record, "gamma_max", of, "largest") or extreme(record, "gamma", of, "largest")
    assert gamma is not None
    most = largest_step(law, L, int(steps) if law in ("rr", "fed") else 1)
    return dataclasses.replace(
        drawn, measured=gamma * stretch, holds=gamma * stretch <= most * SLACK,
        how=f"recorded: learning rates of every step; the law stretches by {stretch:.6g} "
        + ("in the mean" if single else "at most"),
    )  # fmt: skip
