"""Gradient flow on the population loss from A = 0 with S = I: it stays at b(t) I, and db/dt = -L'(b)/d.

By rotation invariance; so a trajectory is a quadrature, without any sampling. Source: derived in surefoot.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float64

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number, check_numbers
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.in_context._guarantee.conditions import refuse_second_run
from surefoot.in_context._polynomial import residual
from surefoot.in_context.dominance import dominance_ratio
from surefoot.in_context.population import optimal_step, population_loss
from surefoot.in_context.prompts import LAW
from surefoot.in_context.wishart import wishart_moments
from surefoot.record import Record

NODES = 16
POINTS, WEIGHTS = np.polynomial.legendre.leggauss(NODES)


@showing
@checked(nan=True)
@dataclass(frozen=True)
class Flow:
    """An exact gradient flow.

    Attributes
    ----------
    steps
        b at each recorded level.
    times
        When it is there.
    losses
        The loss there.
    record
        The core record: `loss`, `flow_time` and `dominance_ratio` at levels 0, 1, ...
    """

    steps: Float64[np.ndarray, " levels"]
    times: Float64[np.ndarray, " levels"]
    losses: Float64[np.ndarray, " levels"]
    record: Record

    def certificates(self) -> list[Certificate]:
        """Dominance on the path, and the time that follows from it."""
        from surefoot.in_context.guarantee import flow_certificates

        return flow_certificates(self.record)


@checked
def gradient_flow(
    d: int, n: int, loops: int, levels: int = 40, *, record: Record | None = None, seed: int = 0
) -> Flow:
    """The exact gradient flow from A = 0, S = I, at `levels` values of b from 0 towards b*.

    Parameters
    ----------
    d, n, loops
        Features, examples, loops (1 to 20).
    levels
        How many points of the path; the last has gone 1 - 2^-20 of the way.
    record, seed
        Where the numbers are filed; nothing here is random.

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    levels = check_number("levels", levels, least=2, whole=True)
    best = optimal_step(d, n, loops)
    path = best * (1 - np.logspace(0, -20, levels, base=2))
    path[0] = 0.0
    times = flow_times(d, n, loops, path)
    losses = np.array([population_loss(d, n, loops, b).value for b in path])
    record = Record() if record is None else record
    refuse_second_run(record, seed, "loss")
    where = range(levels)
    record.extend(seed, "b", path.tolist(), where)
    record.extend(seed, "loss", losses.tolist(), where)
    record.extend(seed, "flow_time", times.tolist(), where)
    ratios = [dominance_ratio(d, n, loops, b).value for b in path]
    record.extend(seed, "dominance_ratio", ratios, where)
    record.extend(seed, "asymmetry", [0.0] * levels, where)
    least = population_loss(d, n, loops, best).value
    record.append(seed, 0, least_loss=least, best_step=best)
    record.note(
        seed, method="gradient flow", start="A = 0", path="b I", d=d, n=n, loops=loops, sigma="identity",
        dtype="float64", noise=0.0, tied=True, law=LAW,
    )  # fmt: skip
    return Flow(path, times, losses, record)


@checked
def flow_times(
    d: int, n: int, loops: int, b: Float64[np.ndarray, " levels"]
) -> Float64[np.ndarray, " levels"]:
    """When the flow from b = 0 is at each of ascending steps below b*: the integral of -d/L'(b).

    Parameters
    ----------
    d, n, loops
        Features, examples, loops (1 to 20).
    b
        Ascending, from 0 to below b*.

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    path = check_numbers("b", b, ndim=1, nonnegative=True)
    best = optimal_step(d, n, loops)
    d, n, loops = (
        check_number(k, v, whole=True) for k, v in (("d", d), ("n", n), ("loops", loops))
    )
    if (np.diff(path) < 0).any() or path[-1] >= best:
        raise ValueError(f"b must ascend and stay below b* = {best:.6g}, got up to {path[-1]:.6g}")
    terms = _slope_terms(d, n, loops)
    total, before, times = 0.0, 0.0, []
    for end in path:
        # In x = -log(1 - b/b*) the integrand is smooth up to b*, where L' has a simple zero.
        low, high = -np.log1p(-before / best), -np.log1p(-end / best)
        x = (high - low) / 2 * POINTS + (high + low) / 2
        left = best * np.exp(-x)  # b* - b
        falls = np.array([_falls(terms, best - v) for v in left])
        total += float((high - low) / 2 * (WEIGHTS * left / falls).sum()) * d
        times.append(total)
        before = float(end)
    return np.array(times)


def _slope_terms(d: int, n: int, loops: int) -> list[Fraction]:
    """The coefficients of -L'(b), lowest power first."""
    moments = wishart_moments(d, n, 2 * loops)
    whole = residual([Fraction(1)] * (2 * loops - 1))
    return [2 * loops * a * m for a, m in zip(whole, moments[1:], strict=True)]


def _falls(terms: list[Fraction], b: float) -> float:
    step, found = Fraction(b), Fraction(0)
    for a in reversed(terms):
        found = found * step + a
    return float(found)
