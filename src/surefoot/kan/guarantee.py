"""T1 to T3 as Guarantees on the record that `fit_gd`, `fit_sgd` and `monitor` write; T4 is the same for a PDE.

Columns, at the start: lambda0, lambda_max, Lambda, r0, rounding_floor, and for mini-batches largest_row, rho,
Lambda_rho; at every step: loss, moved, forecast, or stopped_loss, left, mean_forecast; at checkpoints:
lambda_min, drift, reanchored. Facts: method, eta, dtype, spline_order, pde_order; batch, n, sampling.

Which theorem of arXiv 2410.08041 each of them instantiates is named; its text was not available, and the
constants are derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Assumption, Guarantee, assume_fact
from surefoot.kan import bounds
from surefoot.kan.tangent import SINGULAR
from surefoot.record import Record

GD, SGD = "gradient descent", "stochastic gradient descent"
REPLACED = "with replacement"
T1 = "derived in surefoot; instantiates the gradient-descent result of arXiv 2410.08041"
T2 = "heuristic: exact where K stays what it was (linearised model)"
T3 = "derived in surefoot; instantiates the stochastic result of arXiv 2410.08041"
RATE, CONTRACTION = "T1 linear rate", "T1 every step"
CONFINED, CONDITIONED = "T1 confinement", "T1 tangent matrix stays regular"
ABOVE, BELOW, ANCHORED = "T2 forecast from above", "T2 forecast from below", "T2 forecast re-anchored"
STOPPED, STAYS, MEAN = "T3 stopped mean rate", "T3 stays in the ball", "T3 forecast of the mean"
MOST_DRIFT = 0.1
Curve = Float[np.ndarray, "seeds steps"]
Column = Float[np.ndarray, "seeds 1"]


def _constant(record: Record, name: str, quantity: str) -> Column:
    """A constant of each seed that has the quantity, in its order; NaN where it was not recorded."""
    seeds = [int(s) for s in record.curves(quantity).seeds]
    if name not in record:
        return np.full((len(seeds), 1), math.nan)
    there = dict(zip(record.curves(name).seeds.tolist(), record.constant(name), strict=True))
    return np.array([[float(there.get(s, math.nan))] for s in seeds])


def _of_seeds(record: Record, fact: str, quantity: str, pick: Callable[[list[float]], float]) -> Column:
    """A number that each seed noted; NaN where it noted none."""
    known = record.fact(fact).values
    rows = []
    for s in record.curves(quantity).seeds:
        numbers = [float(v) for v in known.get(int(s), ()) if isinstance(v, (int, float))]
        rows.append([pick(numbers) if numbers else math.nan])
    return np.array(rows)


def _each(formula: Callable[..., float], *columns: Column) -> Column:
    """The formula of each seed's numbers; NaN where one of them is not known."""
    rows = [[float(v[0]) for v in own] for own in zip(*columns, strict=True)]
    return np.array([[math.nan if any(map(math.isnan, own)) else formula(*own)] for own in rows])


def _assume(
    name: str, requires: str, value: Column, limit: Column | float, how: str, *, at_least: bool = False
) -> Assumption:
    """value <= limit in every seed; None where one of them is not known, unless another one fails."""
    gap = (limit - value if at_least else value - limit) + 0 * value
    worst = int(np.nanargmax(gap[:, 0])) if not np.isnan(gap).all() else 0
    known = not np.isnan(gap).any()
    failing = bool((gap[~np.isnan(gap)] > 0).any())
    shown = float(value[worst, 0])
    state = False if failing else True if known else None
    if not known and not failing:
        how = f"not recorded in every seed; {how}"
    top = np.broadcast_to(limit, value.shape)[worst, 0]
    told = requires.format(limit=f"{float(top):.4g}")
    return Assumption(name, told, None if math.isnan(shown) else shown, state, how)


def _method(record: Record, wanted: str) -> Assumption:
    return assume_fact(
        record, "method", wanted, f"the steps are {wanted} on this loss", lambda v: v == wanted
    )


def _double(record: Record) -> Assumption:
    return assume_fact(
        record, "dtype", "float64", "computed in float64", lambda v: v in ("float64", "torch.float64")
    )


def _smooth(record: Record, quantity: str) -> Assumption:
    degree = _of_seeds(record, "spline_order", quantity, min)
    order = _of_seeds(record, "pde_order", quantity, max)
    return _assume(
        "Lipschitz Jacobian", "spline degree >= order of the equation + 2 = {limit}", degree, order + 2,
        f"recorded: {record.fact('spline_order')}, {record.fact('pde_order')}", at_least=True,
    )  # fmt: skip


def _regular(record: Record, quantity: str) -> Assumption:
    ratio = _constant(record, "lambda0", quantity) / _constant(record, "lambda_max", quantity)
    return _assume(
        "positive definite K", f"lambda0 > {SINGULAR:g} lambda_max", ratio, np.nextafter(SINGULAR, 1),
        "lambda0 / lambda_max at the start", at_least=True,
    )  # fmt: skip


def _wide(record: Record, quantity: str) -> Assumption:
    lambda0, r0 = (_constant(record, name, quantity) for name in ("lambda0", "r0"))
    limit = _each(bounds.threshold, r0, lambda0)
    return _assume(
        "wide enough", "Lambda <= .10355 lambda0 / |r0| = {limit}",
        _constant(record, "Lambda", quantity), limit, "bound of Lambda on the ball of T1",
    )  # fmt: skip


def _step(record: Record, quantity: str, limit: Column, rule: str) -> Assumption:
    eta = _of_seeds(record, "eta", quantity, max)
    return _assume("step size", f"eta <= {rule} = {{limit}}", eta, limit, f"recorded: {record.fact('eta')}")


def _positive_step(record: Record, quantity: str) -> Assumption:
    eta = _of_seeds(record, "eta", quantity, min)
    return _assume(
        "positive step", "eta > 0", eta, np.nextafter(0, 1), f"recorded: {record.fact('eta')}",
        at_least=True,
    )  # fmt: skip


def _largest_step(lambda0: float, lambda_max: float, Lambda: float, r0: float) -> float:
    R = bounds.radius(r0, lambda0)
    beta = math.sqrt(max(lambda_max, 0.0)) + (Lambda * R if R else 0.0)
    return bounds.certified_step(beta, Lambda, r0)


def _t1(quantity: str) -> Callable[[Record], tuple[Assumption, ...]]:
    def assumptions(record: Record) -> tuple[Assumption, ...]:
        names = ("lambda0", "lambda_max", "Lambda", "r0")
        limit = _each(_largest_step, *(_constant(record, n, quantity) for n in names))
        return (
            _method(record, GD), _double(record), _smooth(record, quantity),
            _regular(record, quantity), _wide(record, quantity),
            _step(record, quantity, limit, "1/(beta^2 + Lambda |r0|)"),
            _positive_step(record, quantity),
        )  # fmt: skip

    return assumptions


def _slack(loss: Curve, record: Record) -> Curve:
    """What rounding may add to a loss whose terms cancel: 1e-9 L + 100 (sqrt(L F) + F)."""
    F = np.nan_to_num(_constant(record, "rounding_floor", "loss"), nan=0.0)
    found: Curve = 1e-9 * loss + 100 * (np.sqrt(loss * F) + F)
    return found


def _shrink(record: Record, quantity: str) -> Column:
    """1 - eta lambda0 / 2; 1 where either is not known, which promises nothing."""
    eta = _of_seeds(record, "eta", quantity, min)
    factor = 1 - eta * np.maximum(_constant(record, "lambda0", quantity), 0) / 2
    return np.where(np.isnan(factor), 1.0, np.clip(factor, 0, 1))


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
        assumptions=_t1("loss"), tolerance=0.0,
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
        assumptions=_t1("loss"), tolerance=0.0,
    )  # fmt: skip


def confinement() -> Guarantee:
    """T1: |theta_t - theta_0| <= R, `bounds.radius`."""

    def bound(record: Record) -> Column:
        R = _each(bounds.radius, *(_constant(record, n, "moved") for n in ("r0", "lambda0")))
        return np.nan_to_num(R, nan=math.inf, posinf=math.inf)

    return Guarantee(
        name=CONFINED, statement="|theta_t - theta_0| <= 2 sqrt2 |r_0| / sqrt(lambda0)",
        latex=r"\|\theta_t - \theta_0\| \le 2\sqrt2\,\|r_0\| / \sqrt{\lambda_0}",
        source=T1, quantity="moved", sense="upper", holds_in="every run", bound=bound,
        assumptions=_t1("moved"),
    )  # fmt: skip


def conditioning() -> Guarantee:
    """T1: lambda_min(K_t) >= lambda0 / 2."""
    return Guarantee(
        name=CONDITIONED, statement="lambda_min(K_t) >= lambda0 / 2",
        latex=r"\lambda_{\min}(K_t) \ge \lambda_0 / 2",
        source=T1, quantity="lambda_min", sense="lower", holds_in="every run",
        bound=lambda record: np.nan_to_num(_constant(record, "lambda0", "lambda_min") / 2, nan=-math.inf),
        assumptions=_t1("lambda_min"),
        # An eigenvalue rounds like the largest one.
        size=lambda record: np.nan_to_num(_constant(record, "lambda_max", "lambda_min"), nan=0.0),
    )  # fmt: skip


def _little_drift(record: Record, quantity: str) -> Assumption:
    requires = "|K_t - K_0| <= {limit} |K_0|"
    if "drift" not in record:
        return Assumption("little drift", requires.format(limit=MOST_DRIFT), None, None, "not recorded: drift")
    curves = record.curves("drift")
    most = dict(zip(curves.seeds.tolist(), curves.values.max(axis=1), strict=True))
    seeds = record.curves(quantity).seeds.tolist()
    value = np.array([[float(most.get(s, math.nan))] for s in seeds])
    return _assume("little drift", requires, value, MOST_DRIFT, "Frobenius, worst checkpoint")


def _t2(quantity: str) -> Callable[[Record], tuple[Assumption, ...]]:
    def assumptions(record: Record) -> tuple[Assumption, ...]:
        top = _constant(record, "lambda_max", quantity)
        return (
            _method(record, GD), _step(record, quantity, 1 / top, "1/lambda_max(K_0)"),
            _positive_step(record, quantity), _little_drift(record, quantity),
        )  # fmt: skip

    return assumptions


def spectral_forecast(factor: float = 3.0) -> tuple[Guarantee, Guarantee]:
    """T2: L_t is within a factor of 1/2 sum_i (1 - eta lambda_i)^(2t) (v_i' r_0)^2; a heuristic, two-sided.

    What K has drifted, relative to its start, adds to |r_t| at most as much of |r_0|: the forecast says
    nothing of a loss far below that.

    Parameters
    ----------
    factor
        Of the loss, on either side.
    """

    def bound(record: Record, sign: int) -> Curve:
        ahead, loss = record["forecast"], record["loss"]
        drift = np.zeros((len(ahead), 1))
        if "drift" in record:
            drift = record["drift"].max(axis=1, keepdims=True)
        lost = drift * np.sqrt(loss[:, :1])
        if sign > 0:
            return np.asarray((np.sqrt(factor * ahead) + lost) ** 2 + _slack(ahead, record))
        least = np.maximum(np.sqrt(ahead / factor) - lost, 0) ** 2
        return np.asarray(np.maximum(least - _slack(ahead, record), 0))

    above, below = (
        Guarantee(
            name=name, statement=f"sqrt(L_t) {sign} sqrt({word}) {more} drift sqrt(L_0), "
            "F_t = 1/2 sum_i (1 - eta lambda_i)^(2t) (v_i' r_0)^2",
            source=T2, quantity="loss", sense=sense, holds_in="every run", heuristic=True,
            bound=lambda record, s=number: bound(record, s), assumptions=_t2("loss"),
        )
        for name, sign, word, more, sense, number in (
            (ABOVE, "<=", f"{factor:g} F_t", "+", "upper", 1),
            (BELOW, ">=", f"F_t / {factor:g}", "-", "lower", -1),
        )
    )  # fmt: skip
    return above, below


def _rates(record: Record, quantity: str) -> list[bounds.StochasticRate | None]:
    """T3's constants of each seed, from what it recorded; None where something was not."""
    names = ("lambda0", "lambda_max", "largest_row", "r0", "rho", "Lambda_rho")
    columns = [_constant(record, n, quantity)[:, 0] for n in names]
    n = _of_seeds(record, "n", quantity, max)[:, 0]
    batch = _of_seeds(record, "batch", quantity, min)[:, 0]
    found: list[bounds.StochasticRate | None] = []
    for *own, rows, drawn in zip(*columns, n, batch, strict=True):
        if any(math.isnan(v) for v in (*own, rows, drawn)):
            found.append(None)
            continue
        v, top, row, r0, rho, lip = (float(x) for x in own)
        v = v if v > SINGULAR * top else 0.0
        found.append(bounds.stochastic_rate(v, top, row, r0, int(rows), int(drawn), rho, lip))
    return found


def _t3(quantity: str) -> Callable[[Record], tuple[Assumption, ...]]:
    def assumptions(record: Record) -> tuple[Assumption, ...]:
        rates = _rates(record, quantity)
        limit = np.array([[math.nan if r is None else r.step] for r in rates])
        return (
            _method(record, SGD),
            assume_fact(
                record, "sampling", "uniform sampling", "rows drawn with replacement",
                lambda v: v == REPLACED,
            ),
            _double(record), _smooth(record, quantity), _regular(record, quantity),
            _step(record, quantity, limit, "min(1/bL, mu B/(2 bL n Gmax))"),
            _positive_step(record, quantity),
        )  # fmt: skip

    return assumptions


def stochastic_linear_rate() -> Guarantee:
    """T3: E[L_t; not left the ball of radius rho by t] <= (1 - eta mu / 2)^t L_0, mu = lambda0 / 2."""

    def bound(record: Record) -> Curve:
        curves = record.curves("stopped_loss")
        eta = _of_seeds(record, "eta", "stopped_loss", min)[:, 0]
        first = curves.values[:, :1]
        shrink = np.ones_like(first)
        for i, rate in enumerate(_rates(record, "stopped_loss")):
            if rate is not None and not math.isnan(eta[i]):
                shrink[i] = min(max(rate.factor(float(eta[i])), 0.0), 1.0)
        return np.asarray(np.maximum(shrink ** (curves.steps - curves.steps[0]) * first, 1e-300))

    def most(record: Record) -> Column:
        """In the ball |r| <= |r0| + beta rho."""
        names = ("lambda0", "lambda_max", "r0", "rho")
        v, top, r0, rho = (_constant(record, n, "stopped_loss") for n in names)
        beta = np.sqrt(np.maximum(top, 0)) + bounds.SHARE * np.sqrt(np.maximum(v, 0))
        return np.nan_to_num((r0 + beta * rho) ** 2 / 2, nan=math.inf)

    return Guarantee(
        name=STOPPED, statement="E[L_t; in the ball of radius rho until t] <= (1 - eta mu/2)^t L_0",
        latex=r"E[L_t\,1(\text{in the ball until } t)] \le (1 - \eta \mu / 2)^t L_0",
        source=T3, quantity="stopped_loss", sense="upper", holds_in="expectation", bound=bound,
        assumptions=_t3("stopped_loss"), value_range=most,
    )  # fmt: skip


def stays_in_ball() -> Guarantee:
    """T3: P(ever leaves the ball of radius rho) <= 4 |r0| sqrt(beta^2 + n Gmax/B) / (mu rho)."""

    def bound(record: Record) -> Column:
        rates = _rates(record, "left")
        return np.array([[1.0 if r is None else max(min(r.p, 1.0), 1e-300)] for r in rates])

    return Guarantee(
        name=STAYS, statement="P(leaves the ball of radius rho) <= 4 |r0| sqrt(beta^2 + n Gmax/B)/(mu rho)",
        latex=r"P(\text{leaves}) \le 4\|r_0\|\sqrt{\beta^2 + nG/B}/(\mu\rho)",
        source=T3, quantity="left", sense="upper", holds_in="expectation", bound=bound,
        assumptions=_t3("left"), value_range=(0.0, 1.0), trivial=1.0,
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
        found: Curve = np.maximum(factor * ahead, 1e-300)
        return found

    def assumptions(record: Record) -> tuple[Assumption, ...]:
        limit = _constant(record, "stability_limit", "loss")
        known = assume_fact(
            record, "sampling", "uniform sampling", "rows drawn with replacement", lambda v: v == REPLACED
        )
        return (
            _method(record, SGD), known, _step(record, "loss", limit / 2, "half the mean-square stability limit"),
            _positive_step(record, "loss"), _little_drift(record, "loss"),
        )  # fmt: skip

    return Guarantee(
        name=MEAN, statement=f"E L_t <= {factor:g} tr(M_t)/2, M_t the second moments of the linearised model",
        source=T2, quantity="loss", sense="upper", holds_in="expectation", heuristic=True, bound=bound,
        assumptions=assumptions,
    )  # fmt: skip


def run_certificates(record: Record) -> list[Certificate]:
    """T1 and T2 on a run, or T3 where it was stochastic."""
    drawn = SGD in record.fact("method").all
    claims = (
        (stochastic_linear_rate(), stays_in_ball(), mean_forecast())
        if drawn
        else (linear_rate(), contraction(), confinement(), conditioning(), *spectral_forecast())
    )
    needs = {ABOVE: "forecast", BELOW: "forecast", MEAN: "mean_forecast"}
    found = []
    for claim in claims:
        there = claim.quantity in record and needs.get(claim.name, claim.quantity) in record
        found.append(certify(record, claim) if there else unmeasured(record, claim, _todo(claim)))
    return found


def _todo(claim: Guarantee) -> str:
    if claim.name == MEAN:
        return "the recursion of second moments is run for at most 256 rows"
    return "monitor the run from its start, and give eta"


