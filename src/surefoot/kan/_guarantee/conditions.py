"""The conditions of T1 to T3, as a record has them; a number that some seed lacks is nobody's favour."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from surefoot.guarantee import Assumption, assume_fact
from surefoot.kan import bounds
from surefoot.kan.tangent import SINGULAR
from surefoot.record import Record

GD, SGD = "gradient descent", "stochastic gradient descent"
REPLACED = "with replacement"
LITTLE = 0.1
"""The most that K may have drifted, relative to itself, where a forecast from the start is claimed."""
Column = Float[np.ndarray, "seeds 1"]
Conditions = Callable[[Record], tuple[Assumption, ...]]


def constant(record: Record, name: str, quantity: str) -> Column:
    """A constant of each seed that has the quantity, in its order; NaN where it was not recorded."""
    seeds = [int(s) for s in record.curves(quantity).seeds]
    if name not in record:
        return np.full((len(seeds), 1), math.nan)
    there = dict(zip(record.curves(name).seeds.tolist(), record.constant(name), strict=True))
    return np.array([[float(there.get(s, math.nan))] for s in seeds])


def of_seeds(
    record: Record, fact: str, quantity: str, pick: Callable[[list[float]], float]
) -> Column:
    """A number that each seed noted; NaN where it noted none."""
    known = record.fact(fact).values
    rows = []
    for s in record.curves(quantity).seeds:
        numbers = [float(v) for v in known.get(int(s), ()) if isinstance(v, (int, float))]
        rows.append([pick(numbers) if numbers else math.nan])
    return np.array(rows)


def each(formula: Callable[..., float], *columns: Column) -> Column:
    """The formula of each seed's numbers; NaN where one of them is not known."""
    rows = [[float(v[0]) for v in own] for own in zip(*columns, strict=True)]
    return np.array([[math.nan if any(map(math.isnan, own)) else formula(*own)] for own in rows])


def _assume(
    name: str,
    requires: str,
    value: Column,
    limit: Column | float,
    how: str,
    *,
    at_least: bool = False,
) -> Assumption:
    """value <= limit in every seed; None where one of them is not known, unless another one fails."""
    sides = np.broadcast_to(limit, value.shape)
    gap = sides - value if at_least else value - sides
    worst = int(np.nanargmax(gap[:, 0])) if not np.isnan(gap).all() else 0
    known = not np.isnan(gap).any()
    failing = bool((gap[~np.isnan(gap)] > 0).any())
    shown = float(value[worst, 0])
    state = False if failing else True if known else None
    if not known and not failing:
        how = f"not recorded in every seed; {how}"
    told = requires.format(limit=f"{float(sides[worst, 0]):.4g}")
    return Assumption(name, told, None if math.isnan(shown) else shown, state, how)


def ran(record: Record, wanted: str) -> Assumption:
    """The steps are of one method."""
    return assume_fact(
        record, "method", wanted, f"the steps are {wanted} on this loss", lambda v: v == wanted
    )


def _double(record: Record) -> Assumption:
    return assume_fact(
        record,
        "dtype",
        "float64",
        "computed in float64",
        lambda v: v in ("float64", "torch.float64"),
    )


def _smooth(record: Record, quantity: str) -> Assumption:
    degree = of_seeds(record, "spline_order", quantity, min)
    order = of_seeds(record, "pde_order", quantity, max)
    return _assume(
        "Lipschitz Jacobian", "spline degree >= order of the equation + 2 = {limit}", degree, order + 2,
        f"recorded: {record.fact('spline_order')}, {record.fact('pde_order')}", at_least=True,
    )  # fmt: skip


def _regular(record: Record, quantity: str) -> Assumption:
    ends = (constant(record, name, quantity) for name in ("lambda0", "lambda_max"))
    ratio = each(lambda low, top: low / top if top > 0 else 0.0, *ends)
    return _assume(
        "positive definite K", f"lambda0 > {SINGULAR:g} lambda_max", ratio, np.nextafter(SINGULAR, 1),
        "lambda0 / lambda_max at the start", at_least=True,
    )  # fmt: skip


def _wide(record: Record, quantity: str) -> Assumption:
    lambda0, r0 = (constant(record, name, quantity) for name in ("lambda0", "r0"))
    limit = each(bounds.threshold, r0, lambda0)
    return _assume(
        "wide enough", "Lambda <= .10355 lambda0 / |r0| = {limit}",
        constant(record, "Lambda", quantity), limit, "bound of Lambda on the ball of T1",
    )  # fmt: skip


def step_at_most(record: Record, quantity: str, limit: Column, rule: str) -> Assumption:
    """eta is at most what a rule permits."""
    eta = of_seeds(record, "eta", quantity, max)
    return _assume(
        "step size", f"eta <= {rule} = {{limit}}", eta, limit, f"recorded: {record.fact('eta')}"
    )


def positive_step(record: Record, quantity: str) -> Assumption:
    """eta is above 0."""
    eta = of_seeds(record, "eta", quantity, min)
    return _assume(
        "positive step", "eta > 0", eta, np.nextafter(0, 1), f"recorded: {record.fact('eta')}",
        at_least=True,
    )  # fmt: skip


def _largest_step(lambda0: float, lambda_max: float, Lambda: float, r0: float) -> float:
    R = bounds.radius(r0, lambda0)
    beta = math.sqrt(max(lambda_max, 0.0)) + (Lambda * R if R else 0.0)
    return bounds.certified_step(beta, Lambda, r0)


def of_descent(quantity: str) -> Conditions:
    """T1."""

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        names = ("lambda0", "lambda_max", "Lambda", "r0")
        limit = each(_largest_step, *(constant(record, n, quantity) for n in names))
        return (
            ran(record, GD), _double(record), _smooth(record, quantity),
            _regular(record, quantity), _wide(record, quantity),
            step_at_most(record, quantity, limit, "1/(beta^2 + Lambda |r0|)"),
            positive_step(record, quantity),
        )  # fmt: skip

    return assumptions


def little_drift(record: Record, quantity: str) -> Assumption:
    """K stays close to its start."""
    requires = "|K_t - K_0| <= {limit} |K_0|"
    if "drift" not in record:
        told = requires.format(limit=LITTLE)
        return Assumption("little drift", told, None, None, "not recorded: drift")
    curves = record.curves("drift")
    most = dict(zip(curves.seeds.tolist(), curves.values.max(axis=1), strict=True))
    seeds = record.curves(quantity).seeds.tolist()
    value = np.array([[float(most.get(s, math.nan))] for s in seeds])
    return _assume("little drift", requires, value, LITTLE, "Frobenius, worst checkpoint")


def of_forecast(quantity: str, from_start: bool) -> Conditions:
    """T2, from the start or from a checkpoint."""

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        top = constant(record, "lambda_max", quantity)
        limit = each(lambda v: 1 / v if v > 0 else math.inf, top)
        common = (
            ran(record, GD), step_at_most(record, quantity, limit, "1/lambda_max(K_0)"),
            positive_step(record, quantity),
        )  # fmt: skip
        return (*common, little_drift(record, quantity)) if from_start else common

    return assumptions


def stochastic_rates(record: Record, quantity: str) -> list[bounds.StochasticRate | None]:
    """T3's constants of each seed, from what it recorded; None where something was not."""
    names = ("lambda0", "lambda_max", "largest_row", "r0", "rho", "Lambda_rho")
    columns = [constant(record, n, quantity)[:, 0] for n in names]
    n = of_seeds(record, "n", quantity, max)[:, 0]
    batch = of_seeds(record, "batch", quantity, min)[:, 0]
    found: list[bounds.StochasticRate | None] = []
    for *own, rows, drawn in zip(*columns, n, batch, strict=True):
        if any(math.isnan(v) for v in (*own, rows, drawn)):
            found.append(None)
            continue
        v, top, row, r0, rho, lip = (float(x) for x in own)
        v = v if v > SINGULAR * top else 0.0
        found.append(bounds.stochastic_rate(v, top, row, r0, int(rows), int(drawn), rho, lip))
    return found


def of_mini_batches(quantity: str) -> Conditions:
    """T3."""

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        rates = stochastic_rates(record, quantity)
        limit = np.array([[math.nan if r is None else r.step] for r in rates])
        return (
            ran(record, SGD),
            _uniform(record),
            _double(record), _smooth(record, quantity), _regular(record, quantity),
            step_at_most(record, quantity, limit, "min(1/bL, mu B/(2 bL n Gmax))"),
            positive_step(record, quantity),
        )  # fmt: skip

    return assumptions


def _uniform(record: Record) -> Assumption:
    return assume_fact(
        record,
        "sampling",
        "uniform sampling",
        "rows drawn with replacement",
        lambda v: v == REPLACED,
    )


def of_mean_forecast(quantity: str) -> Conditions:
    """The forecast of the mean: its noise does not feed itself, and K is what it was."""

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        return (
            ran(record, SGD), _uniform(record), positive_step(record, quantity),
            _falls(record, "mean_forecast"), little_drift(record, quantity),
        )  # fmt: skip

    return assumptions


def _falls(record: Record, quantity: str) -> Assumption:
    """A step that is too long makes noise faster than it decays; `forecast.stability_limit` is where."""
    name, requires = "forecast that falls", "it never exceeds its start"
    if quantity not in record:
        return Assumption(name, requires, None, None, f"not recorded: {quantity}")
    ahead = record[quantity]
    worst = float((ahead.max(axis=1) / np.maximum(ahead[:, 0], 1e-300)).max())
    return Assumption(name, requires, worst, worst <= 1, "the largest over the first")
