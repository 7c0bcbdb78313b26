"""What is known of gradient descent, with and without noise, as guarantees of a watched training.

All are folklore; proofs are one line each. With g = grad f(x), a step x - lr g of an f that is L-smooth
between the two points has f(x - lr g) <= f(x) - lr (1 - L lr / 2) |g|^2, at most f(x) - lr/2 |g|^2 where
lr <= 1/L. Summed over the steps, those that nobody looked at may be left out of the sum, as none of them is
negative. Under gradient domination, |g|^2 >= 2 mu (f - f*), a step leaves at most (1 - lr mu)(f - f*). Aiming
at p, <g, x - p> >= f - f* + mu/2 |x - p|^2, is gradient domination with the same mu, as a + b >= 2 sqrt(a b).
With an unbiased g of variance s^2 the mean of the decrease is at least lr/2 |grad f|^2 - L lr^2 s^2 / 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from surefoot.guarantee import Assumption, Guarantee, assume_fact
from surefoot.record import Record

SOURCE = "descent lemma (Nesterov 2004, Theorem 2.1.5)"
DECREASE, RATE, MEAN = "sufficient decrease", "linear rate", "sufficient decrease in the mean"
SUM, GAP = "decrease owed", "objective gap"
NOISE = 1e-12
"""|g - grad f|^2 over |grad f|^2 up to which a gradient is that of the objective."""


@dataclass(frozen=True)
class Offer:
    """A guarantee that a watched training may be held against, or why not.

    Parameters
    ----------
    name
        The guarantee's.
    guarantee
        None: it is not offered.
    why_not
        What is missing, or what else ran, in one sentence; empty where it is offered.
    """

    name: str
    guarantee: Guarantee | None
    why_not: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.why_not or 'offered'}"


def derived(record: Record) -> Record:
    """The record with the quantities that the guarantees speak of, where the measures for them are there.

    Parameters
    ----------
    record
        Of a watched training; it is left as it is.
    """
    whole = Record.concat([record])
    for seed in record.seeds:
        found = _measured(record.of_seed(seed), "objective", "stationarity", "lr")
        if found is None:
            continue
        steps, f, square, lr = found
        owed = np.concatenate([[0.0], np.cumsum(0.5 * lr * square)[:-1]])
        whole.extend(seed, SUM, owed, steps)
        f_star = record.fact("f_star").values.get(seed, ())
        if f_star:
            whole.extend(seed, GAP, f - float(f_star[0]), steps)
    return whole


def offers(record: Record) -> list[Offer]:
    """Every guarantee of this module, offered where its assumptions can be measured.

    Parameters
    ----------
    record
        As `derived` returns it.
    """
    stochastic = _is_noisy(record)
    return [
        _offer(DECREASE, record, ("smoothness", "noise"), _decrease, "" if not stochastic else NOISY),
        _offer(RATE, record, ("smoothness", "noise", "aiming"), _rate, "" if not stochastic else NOISY),
        _offer(
            MEAN, record, ("smoothness", "noise"), _mean,
            "its gradients are those of the objective: see the sufficient decrease" if not stochastic else "",
        ),
    ]  # fmt: skip


NOISY = "its gradients are not those of the objective: it promises nothing of single noisy runs"


def _offer(
    name: str, record: Record, needs: tuple[str, ...], make: Callable[[], Guarantee], why_not: str
) -> Offer:
    lacking = [n for n in ("objective", *needs) if n not in record]
    if "aiming" in lacking and "f_star" not in record.facts:
        return Offer(
            name, None, "aiming was not measured: pass f_star=, the infimum of the objective"
        )
    if lacking:
        return Offer(name, None, f"not measured: {', '.join(lacking)}; name them as probes")
    if SUM not in record:
        return Offer(
            name, None, "the optimizer has no one rate: its groups have rates of their own"
        )
    if len(record.curves("objective").steps) < 2:
        return Offer(name, None, "measured at one step only: it takes two")
    if why_not:
        return Offer(name, None, why_not)
    if name == MEAN and "f_star" not in record.facts:
        return Offer(name, None, "the mean of the decrease is held against f*: pass f_star=")
    other = [a for a in _method(record) if a.holds is False]
    if other:
        told = "; ".join(f"{a.name} fails: {a.how}" for a in other)
        return Offer(name, None, f"the theorem is of plain gradient descent, and {told}")
    return Offer(name, make())


def _is_noisy(record: Record) -> bool:
    if "noise" not in record or "stationarity" not in record:
        return False
    noise, square = record["noise"], record["stationarity"]
    count = min(noise.shape[1], square.shape[1])
    return bool((noise[:, :count] > NOISE * square[:, :count]).any())


def _measured(record: Record, *names: str) -> tuple[np.ndarray, ...] | None:
    """The steps at which all of them were recorded, and their values there; of one seed."""
    if any(name not in record for name in names):
        return None
    curves = [record.curves(name) for name in names]
    steps = curves[0].steps
    for curve in curves[1:]:
        steps = np.intersect1d(steps, curve.steps)
    return steps, *(c.values[0][np.isin(c.steps, steps)] for c in curves)


def _method(record: Record) -> tuple[Assumption, ...]:
    def zero(fact: str, name: str) -> Assumption:
        return assume_fact(record, fact, name, "0", lambda v: v == 0)

    return (
        assume_fact(record, "optimizer", "plain gradient descent", "SGD", lambda v: v == "SGD"),
        zero("momentum", "no momentum"),
        zero("weight_decay", "no weight decay"),
        assume_fact(record, "maximize", "a descent", "maximize=False", lambda v: v is False),
    )


def _smooth(record: Record) -> Assumption:
    """The step size against the largest curvature that was met where it was measured."""
    if "smoothness" not in record or "lr" not in record:
        return Assumption("L-smooth along the path", "lr <= 1 / L", None, None, "not measured")
    at = record.curves("smoothness")
    largest, lr = float(at.values.max()), float(record["lr"].max())
    how = (
        f"Lanczos on the Hessian of the objective at {len(at.steps)} of the points: L = {largest:.4g}; "
        "between them nobody looked"
    )
    # What was measured can refute it; that nothing worse lies in between no measure of points can say.
    holds = None if lr * largest <= 1 + 1e-6 else False
    return Assumption("L-smooth along the path", "lr <= 1 / L", lr * largest, holds, how)


def _decrease() -> Guarantee:
    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        f = _at(record, "objective", SUM)
        return np.asarray(np.maximum(f[:, :1] - f, 0.0))

    return Guarantee(
        name=DECREASE,
        statement="sum over measured k < n of lr/2 |grad f(x_k)|^2 <= f(x_0) - f(x_n)",
        latex=r"\sum_{k<n} \tfrac{\eta}{2} |\nabla f(x_k)|^2 \le f(x_0) - f(x_n)",
        source=SOURCE,
        quantity=SUM,
        sense="upper",
        holds_in="every run",
        bound=bound,
        assumptions=lambda r: (*_method(r), _smooth(r)),
        size=lambda r: np.abs(_at(r, "objective", SUM)).max(axis=1, keepdims=True),
    )


def _rate() -> Guarantee:
    def constants(record: Record) -> tuple[float, float]:
        return float(record["lr"].min()), max(float(record["aiming"].min()), 0.0)

    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        curve = record.curves(GAP)
        lr, mu = constants(record)
        steps = curve.steps - curve.steps[0]
        return np.asarray(curve.values[:, :1] * np.clip(1 - lr * mu, 0.0, 1.0) ** steps)

    def aiming(record: Record) -> Assumption:
        curve = record.curves("aiming")
        mu = float(curve.values.min())
        how = f"the least of {len(curve.steps)} measured steps; of the others nobody knows"
        holds = None if mu > 0 else False
        return Assumption("aiming, or gradient domination", "mu > 0", mu, holds, how)

    return Guarantee(
        name=RATE,
        statement="f(x_n) - f* <= (1 - lr mu)^n (f(x_0) - f*)",
        latex=r"f(x_n) - f^* \le (1 - \eta \mu)^n (f(x_0) - f^*)",
        source=f"{SOURCE} with gradient domination (Polyak 1963)",
        quantity=GAP,
        sense="upper",
        holds_in="every run",
        bound=bound,
        assumptions=lambda r: (*_method(r), _smooth(r), aiming(r)),
        trivial=lambda r: r[GAP][:, :1],
        size=lambda r: np.abs(_at(r, "objective", GAP)).max(axis=1, keepdims=True),
    )


def _mean() -> Guarantee:
    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        start = _at(record, "objective", SUM)[:, :1]
        f_star = float(record.fact("f_star").all[0])
        lr, largest = float(record["lr"].max()), float(record["smoothness"].max())
        variance, steps = float(record["noise"].mean()), record.curves(SUM).steps
        return np.asarray(start - f_star + 0.5 * largest * lr**2 * variance * (steps - steps[0]))

    def variance(record: Record) -> Assumption:
        curve = record.curves("noise")
        return Assumption(
            "bounded variance of the gradient", "E |g - grad f|^2 <= s^2", float(curve.values.mean()), None,
            f"its mean over {curve.values.size} measured gradients, which bounds no other",
        )  # fmt: skip

    return Guarantee(
        name=MEAN,
        statement="E sum over measured k < n of lr/2 |grad f(x_k)|^2 <= f(x_0) - f* + n L lr^2 s^2 / 2",
        latex=r"\mathbb{E} \sum_{k<n} \tfrac{\eta}{2} |\nabla f(x_k)|^2 \le f(x_0) - f^* + "
        r"\tfrac{n L \eta^2 \sigma^2}{2}",
        source=f"{SOURCE} with unbiased noise (Ghadimi and Lan 2013)",
        quantity=SUM,
        sense="upper",
        holds_in="expectation",
        bound=bound,
        assumptions=lambda r: (*_method(r), _smooth(r), variance(r)),
    )


def _at(record: Record, name: str, of: str) -> Float[np.ndarray, "seeds steps"]:
    """A quantity at the steps at which another one was derived."""
    curve, steps = record.curves(name), record.curves(of).steps
    return curve.values[:, np.isin(curve.steps, steps)]
