"""T1 to T3 as Guarantees on the record of `fit_gd`, `fit_sgd` and `monitor`; T4 is the same for a PDE.

Columns, at the start: lambda0, lambda_max, Lambda, r0, rounding_floor, and for mini-batches largest_row, rho,
Lambda_rho; at every step: loss, moved, forecast, or stopped_loss, left, mean_forecast; at checkpoints:
lambda_min, drift, reanchored. Facts: method, eta, dtype, spline_order, pde_order; batch, n, sampling.

Which theorem of arXiv 2410.08041 each of them instantiates is named; its text was not available, and the
constants are derived here.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Float

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Guarantee
from surefoot.kan import bounds
from surefoot.kan._guarantee.conditions import (
    SGD,
    Column,
    constant,
    each,
    of_descent,
    of_forecast,
    of_mean_forecast,
    of_mini_batches,
    of_seeds,
    stochastic_rates,
)
from surefoot.record import Record

T1 = "derived in surefoot; instantiates the gradient-descent result of arXiv 2410.08041"
T2 = "heuristic: exact where K stays what it was (linearised model)"
T3 = "derived in surefoot; instantiates the stochastic result of arXiv 2410.08041"
RATE, CONTRACTION = "T1 linear rate", "T1 every step"
CONFINED, CONDITIONED = "T1 confinement", "T1 tangent matrix stays regular"
ABOVE, BELOW = "T2 forecast from above", "T2 forecast from below"
ANCHORED_ABOVE, ANCHORED_BELOW = f"{ABOVE}, re-anchored", f"{BELOW}, re-anchored"
STOPPED, STAYS, MEAN = "T3 stopped mean rate", "T3 stays in the ball", "T3 forecast of the mean"
Curve = Float[np.ndarray, "seeds steps"]


def _slack(loss: Curve, record: Record) -> Curve:
    """What rounding may add to a loss whose terms cancel: 1e-9 L + 100 (sqrt(L F) + F)."""
    F = np.nan_to_num(constant(record, "rounding_floor", "loss"), nan=0.0)
    found: Curve = 1e-9 * loss + 100 * (np.sqrt(loss * F) + F)
    return found


def _shrink(record: Record, quantity: str) -> Column:
    """1 - eta lambda0 / 2; 1 where either is not known, which promises nothing."""
    eta = of_seeds(record, "eta", quantity, min)
    factor = 1 - eta * np.maximum(constant(record, "lambda0", quantity), 0) / 2
    return np.asarray(np.where(np.isnan(factor), 1.0, np.clip(factor, 0, 1)))


def linear_rate() -> Guarantee:
    """T1: L_t <= (1 - eta lambda0 / 2)^t L_0, `bounds.contraction_factor`."""

    def bound(record: Record) -> Curve:
        loss, t = record["loss"], record.curves("loss").steps
        promised = _shrink(record, "loss") ** (t - t[0]) * loss[:, :1]
        return np.asarray(promised + _slack(promised, record))

    return Guarantee(
        name=RATE, statement="L_t <= (1 - eta lambda0/2)^t L_0",
        latex=r"L_t \le (1 - \eta \lambda_0 / 2)^t L_0",
        source=T1, quantity="loss", sense="upper", holds_in="every run", bound=bound,
        assumptions=of_descent("loss"), tolerance=0.0,
    )  # fmt: skip


def contraction() -> Guarantee:
    """T1 step by step: L_{t+1} <= (1 - eta lambda0 / 2) L_t, with the rounding of a sum that cancels."""

    def bound(record: Record) -> Curve:
        loss, t = record["loss"], record.curves("loss").steps
        promised = _shrink(record, "loss") ** np.diff(t) * loss[:, :-1]
        return np.hstack([loss[:, :1], promised + _slack(loss[:, :-1], record)])

    return Guarantee(
        name=CONTRACTION, statement="L_{t+1} <= (1 - eta lambda0/2) L_t",
        latex=r"L_{t+1} \le (1 - \eta \lambda_0 / 2) L_t",
        source=T1, quantity="loss", sense="upper", holds_in="every run", bound=bound,
        assumptions=of_descent("loss"), tolerance=0.0,
    )  # fmt: skip


def confinement() -> Guarantee:
    """T1: |theta_t - theta_0| <= R, `bounds.radius`."""

    def bound(record: Record) -> Column:
        R = each(bounds.radius, *(constant(record, n, "moved") for n in ("r0", "lambda0")))
        return np.asarray(np.nan_to_num(R, nan=math.inf, posinf=math.inf))

    return Guarantee(
        name=CONFINED, statement="|theta_t - theta_0| <= 2 sqrt2 |r_0| / sqrt(lambda0)",
        latex=r"\|\theta_t - \theta_0\| \le 2\sqrt2\,\|r_0\| / \sqrt{\lambda_0}",
        source=T1, quantity="moved", axis="distance from the start",
        sense="upper", holds_in="every run", bound=bound,
        assumptions=of_descent("moved"),
    )  # fmt: skip


def conditioning() -> Guarantee:
    """T1: lambda_min(K_t) >= lambda0 / 2."""
    return Guarantee(
        name=CONDITIONED, statement="lambda_min(K_t) >= lambda0 / 2",
        latex=r"\lambda_{\min}(K_t) \ge \lambda_0 / 2",
        source=T1, quantity="lambda_min", axis="least eigenvalue of the tangent matrix",
        sense="lower", holds_in="every run",
        bound=lambda record: np.nan_to_num(constant(record, "lambda0", "lambda_min") / 2, nan=-math.inf),
        assumptions=of_descent("lambda_min"),
        # An eigenvalue rounds like the largest one.
        size=lambda record: np.nan_to_num(constant(record, "lambda_max", "lambda_min"), nan=0.0),
    )  # fmt: skip


def spectral_forecast(
    factor: float = 3.0, anchor: Literal["start", "checkpoint"] = "start"
) -> tuple[Guarantee, Guarantee]:
    """T2: L_t is within a factor of F_t = 1/2 sum_i (1 - eta lambda_i)^(2t) (v_i' r_0)^2; a heuristic.

    From the start, what K has drifted relative to its norm adds to |r_t| at most as much of |r_0|: the
    forecast says nothing of a loss far below that. From each checkpoint to the next it needs no such help.

    Parameters
    ----------
    factor
        Of the loss, on either side.
    anchor
        Whether t counts from the start or from the last checkpoint, whose K and r the forecast has.
    """
    column = "forecast" if anchor == "start" else "reanchored"
    above, below = (ABOVE, BELOW) if anchor == "start" else (ANCHORED_ABOVE, ANCHORED_BELOW)

    def lost(record: Record) -> Column:
        first = np.sqrt(record["loss"][:, :1])
        if anchor == "checkpoint" or "drift" not in record:
            return np.zeros_like(first)
        return np.asarray(record["drift"].max(axis=1, keepdims=True) * first)

    def most(record: Record) -> Curve:
        # Of a step that is far too long the forecast overflows, and says nothing.
        ahead = np.nan_to_num(record[column], nan=math.inf, posinf=math.inf)
        return np.asarray((np.sqrt(factor * ahead) + lost(record)) ** 2 + _slack(ahead, record))

    def least(record: Record) -> Curve:
        ahead = np.where(np.isfinite(record[column]), record[column], 0.0)
        found = np.maximum(np.sqrt(ahead / factor) - lost(record), 0) ** 2
        return np.asarray(np.maximum(found - _slack(ahead, record), 0))

    from_start = anchor == "start"
    drift = " + drift sqrt(L_0)", " - drift sqrt(L_0)"
    return (
        Guarantee(
            name=above, statement=f"sqrt(L_t) <= sqrt({factor:g} F_t){drift[0] * from_start}",
            source=T2, quantity="loss", sense="upper", holds_in="every run", heuristic=True,
            bound=most, assumptions=of_forecast("loss", from_start),
        ),
        Guarantee(
            name=below, statement=f"sqrt(L_t) >= sqrt(F_t / {factor:g}){drift[1] * from_start}",
            source=T2, quantity="loss", sense="lower", holds_in="every run", heuristic=True,
            bound=least, assumptions=of_forecast("loss", from_start),
        ),
    )  # fmt: skip


def stochastic_linear_rate() -> Guarantee:
    """T3: E[L_t; not left the ball of radius rho by t] <= (1 - eta mu / 2)^t L_0, mu = lambda0 / 2."""

    def bound(record: Record) -> Curve:
        curves = record.curves("stopped_loss")
        eta = of_seeds(record, "eta", "stopped_loss", min)[:, 0]
        first = curves.values[:, :1]
        shrink = np.ones_like(first)
        for i, rate in enumerate(stochastic_rates(record, "stopped_loss")):
            if rate is not None and not math.isnan(eta[i]):
                shrink[i] = min(max(rate.factor(float(eta[i])), 0.0), 1.0)
        return np.asarray(np.maximum(shrink ** (curves.steps - curves.steps[0]) * first, 1e-300))

    return Guarantee(
        name=STOPPED, statement="E[L_t; in the ball of radius rho until t] <= (1 - eta mu/2)^t L_0",
        latex=r"E[L_t\,1(\text{in the ball until } t)] \le (1 - \eta \mu / 2)^t L_0",
        source=T3, quantity="stopped_loss", axis="loss while in the ball",
        sense="upper", holds_in="expectation", bound=bound,
        assumptions=of_mini_batches("stopped_loss"),
    )  # fmt: skip


def stays_in_ball() -> Guarantee:
    """T3: P(ever leaves the ball of radius rho) <= 4 |r0| sqrt(beta^2 + n Gmax/B) / (mu rho)."""

    def bound(record: Record) -> Column:
        rates = stochastic_rates(record, "left")
        return np.array([[1.0 if r is None else max(min(r.p, 1.0), 1e-300)] for r in rates])

    return Guarantee(
        name=STAYS, statement="P(leaves the ball of radius rho) <= 4 |r0| sqrt(beta^2 + n Gmax/B)/(mu rho)",
        latex=r"P(\text{leaves}) \le 4\|r_0\|\sqrt{\beta^2 + nG/B}/(\mu\rho)",
        source=T3, quantity="left", axis="share of runs that left the ball",
        sense="upper", holds_in="expectation", bound=bound,
        assumptions=of_mini_batches("left"), value_range=(0.0, 1.0), trivial=1.0,
    )  # fmt: skip


def mean_forecast(factor: float = 3.0) -> Guarantee:
    """T3-forecast: E L_t is at most a factor times tr M_t / 2, by `forecast(..., batch=B)`; a heuristic.

    Parameters
    ----------
    factor
        Of the loss.
    """

    def bound(record: Record) -> Curve:
        ahead = record["mean_forecast"]
        return np.asarray(np.maximum(factor * ahead, 1e-300))

    return Guarantee(
        name=MEAN, statement=f"E L_t <= {factor:g} tr(M_t)/2, M_t the second moments of the linearised model",
        source=T2, quantity="loss", sense="upper", holds_in="expectation", heuristic=True, bound=bound,
        assumptions=of_mean_forecast("loss"),
    )  # fmt: skip


def run_certificates(record: Record) -> list[Certificate]:
    """T1 and T2 on a run, or T3 where it was stochastic."""
    if SGD in record.fact("method").all:
        claims: tuple[Guarantee, ...] = (stochastic_linear_rate(), stays_in_ball(), mean_forecast())
    else:
        claims = (
            linear_rate(), contraction(), confinement(), conditioning(), *spectral_forecast(),
            *spectral_forecast(anchor="checkpoint"),
        )  # fmt: skip
    return [
        certify(record, c) if _measured(record, c) else unmeasured(record, c, _todo(c))
        for c in claims
    ]


def _measured(record: Record, claim: Guarantee) -> bool:
    ahead = {ABOVE: "forecast", BELOW: "forecast", MEAN: "mean_forecast"}
    ahead |= {ANCHORED_ABOVE: "reanchored", ANCHORED_BELOW: "reanchored"}
    return claim.quantity in record and ahead.get(claim.name, claim.quantity) in record


def _todo(claim: Guarantee) -> str:
    if claim.name == MEAN:
        return "the recursion of second moments is run for at most 256 rows"
    return "monitor the run from its start, and give eta"
