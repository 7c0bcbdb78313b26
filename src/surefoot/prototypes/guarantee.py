"""G1 to G6 as core guarantees, each read off the record of what ran."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from surefoot.guarantee import Assumption, Guarantee, assume_fact
from surefoot.prototypes.accounting import noise_multiplier
from surefoot.prototypes.gaussian_release import PRIVATE
from surefoot.record import Fact, Record

DIFFERING = "weights that differ"
NOISE = "noise multiplier"
ADVANTAGE = "advantage, lower limit"
LEAST_GRADIENT = "least gradient norm squared"
LOSS, SQUARED, STEP = "loss", "gradient norm squared", "step size"
RISK_GAP, COVERAGE_BOUND, TRIVIAL_GAP = "risk gap", "coverage bound", "trivial gap"
RISK_RECORDS = "risk on the records"
OF_COVERAGE = (RISK_GAP, COVERAGE_BOUND, TRIVIAL_GAP, RISK_RECORDS)
BYTES_UP, WIRE_UP = "bytes up", "wire bytes up"
HEADER = 128
"""Bytes before the numbers of an array of at most two dimensions in NumPy's format."""
SYSTEM = "operating system"
DERIVED = "derived for surefoot.prototypes"
Rows = Float[np.ndarray, "seeds steps"]


def _all(record: Record, wanted: dict[str, tuple[str, Fact]]) -> tuple[Assumption, ...]:
    """{name of the assumption: (fact, the value that it must have)}."""

    def one(name: str, fact: str, value: Fact) -> Assumption:
        return assume_fact(
            record, fact, name, f"{fact.replace('_', ' ')}: {value}", lambda v: v == value
        )

    return tuple(one(name, fact, value) for name, (fact, value) in wanted.items())


def pooled_identity() -> Guarantee:
    """G1: all records uploaded in their order are trained on exactly as if they had been pooled."""
    return Guarantee(
        name="G1: training on all records is pooled training",
        statement="method random, ratio 1, no noise: no weight of the adapter differs from pooled training",
        source=f"by construction; {DERIVED}",
        quantity=DIFFERING,
        sense="upper",
        holds_in="every run",
        bound=lambda record: 0.0,
        assumptions=lambda record: _all(
            record,
            {
                "all records": ("ratio", 1.0),
                "records themselves": ("method", "random"),
                "no noise": ("private", False),
                "no drawn features": ("sampler", "none"),
            },
        ),
    )


def _promised_nu(epsilon: Fact, delta: Fact) -> float:
    if not (_real(epsilon) > 0 and 0 < _real(delta) < 1):
        return 0.0  # promises nothing; the assumptions say so
    return 0.0 if epsilon == math.inf else noise_multiplier(float(epsilon), float(delta))


def _nus(record: Record, quantity: str, missing: float) -> Float[np.ndarray, "seeds 1"]:
    """The noise that each seed's promise needs, the largest if it noted several; else `missing`."""
    epsilon, delta = record.fact("epsilon").values, record.fact("delta").values
    rows = []
    for seed in record.curves(quantity).seeds:
        found = [
            _promised_nu(e, d) for e in epsilon.get(int(seed), ()) for d in delta.get(int(seed), ())
        ]
        rows.append([max(found, default=missing)])
    return np.array(rows)


def _release(record: Record) -> tuple[Assumption, ...]:
    return (
        assume_fact(record, "epsilon", "promised epsilon", "epsilon > 0", lambda v: _real(v) > 0),
        assume_fact(
            record, "delta", "promised delta", "0 < delta < 1", lambda v: 0 < _real(v) < 1
        ),
        assume_fact(
            record, "method", "finite sensitivity", f"one of {', '.join(PRIVATE)}",
            lambda v: v in PRIVATE,
        ),
        *_all(
            record,
            {
                "clipped records": ("clipped_to_clip", True),
                "secret noise": ("noise_source", SYSTEM),
                "nothing beside it": ("beside", "class sizes"),
            },
        ),
    )  # fmt: skip


def _real(value: Fact) -> float:
    try:
        return math.nan if isinstance(value, (str, bool)) else float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.nan


def private_upload() -> Guarantee:
    """G2: every class has the noise that its (epsilon, delta) needs on the exact Gaussian curve.

    Of neighbours that differ in one record of one class; class sizes are public.
    """
    return Guarantee(
        name="G2: the upload is (epsilon, delta) private",
        statement="sigma / sensitivity >= nu(epsilon, delta) in every class",
        latex=r"\sigma_c / \Delta_c \ge \nu(\varepsilon, \delta)",
        source=f"arXiv 1805.06530, Theorem 8; sensitivities: {DERIVED}",
        quantity=NOISE,
        sense="lower",
        holds_in="every run",
        bound=lambda record: _nus(record, NOISE, 0.0),
        assumptions=_release,
        trivial=0.0,
    )


def distinguishing_advantage() -> Guarantee:
    """G3: no attack's true positive rate exceeds its false one by more than 2 Phi(1/(2 nu)) - 1.

    A correct release exceeds it with probability at most 1 - confidence in each seed, the confidence being
    that of the measured lower limit.
    """

    def bound(record: Record) -> Float[np.ndarray, "seeds 1"]:
        nu = _nus(record, ADVANTAGE, 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(2 * ndtr(1 / (2 * nu)) - 1)

    return Guarantee(
        name="G3: distinguishing advantage",
        statement="TPR - FPR <= 2 Phi(1/(2 nu)) - 1, each seed at the confidence of its attack",
        latex=r"\mathrm{TPR} - \mathrm{FPR} \le 2\Phi(1/(2\nu)) - 1",
        source=f"Neyman and Pearson's test of two Gaussians; {DERIVED}",
        quantity=ADVANTAGE,
        sense="upper",
        holds_in="every run",
        bound=bound,
        assumptions=_release,
        trivial=1.0,
    )


def _certified(record: Record) -> tuple[Assumption, ...]:
    return _all(
        record,
        {
            "back-tracking": ("solver", "certified"),
            "one loss": ("batch", "all rows"),
            "computed in float64": ("dtype", "float64"),
        },
    )


def _by_step(record: Record, quantity: str, value: Any) -> Rows:
    """value({column: {step: number}}, step) of each seed at the steps of a quantity."""
    curves = record.curves(quantity)
    rows = []
    for seed in curves.seeds:
        alone = record.of_seed(int(seed))
        columns = {
            name: dict(zip(c.steps.tolist(), c.values[0].tolist(), strict=True))
            for name in (LOSS, SQUARED, STEP)
            if name in alone
            for c in [alone.curves(name)]
        }
        rows.append([value(columns, int(t)) for t in curves.steps])
    return np.array(rows)


def armijo_descent() -> Guarantee:
    """G4 at each accepted step: f_(t+1) <= f_t - (eta_t / 2) |grad f_t|^2."""

    def value(columns: dict[str, dict[int, float]], t: int) -> float:
        try:
            before = (columns[name][t - 1] for name in (LOSS, STEP, SQUARED))
            loss, eta, squared = before
        except KeyError:
            return math.inf
        return loss - eta / 2 * squared

    return Guarantee(
        name="G4: descent at every step",
        statement="f_(t+1) <= f_t - (eta_t / 2) |grad f_t|^2",
        latex=r"f_{t+1} \le f_t - \frac{\eta_t}{2}\|\nabla f_t\|^2",
        source="Armijo's rule with c = 1/2",
        quantity=LOSS,
        sense="upper",
        holds_in="every run",
        bound=lambda record: _by_step(record, LOSS, value),
        assumptions=_certified,
        tolerance=0.0,
    )


def stationary_point() -> Guarantee:
    """G4 of the run: min_t |grad f_t|^2 <= 2 (f_0 - f_T) / sum_t eta_t, without any smoothness constant."""

    def value(columns: dict[str, dict[int, float]], t: int) -> float:
        loss, eta = columns.get(LOSS, {}), columns.get(STEP, {})
        if 0 not in loss or t not in loss or any(s not in eta for s in range(t)):
            return math.inf
        return 2 * (loss[0] - loss[t]) / math.fsum(eta[s] for s in range(t))

    def size(record: Record) -> Rows:
        def scaled(columns: dict[str, dict[int, float]], t: int) -> float:
            eta = columns.get(STEP, {})
            total = math.fsum(eta.get(s, 0.0) for s in range(t))
            return 2 * columns.get(LOSS, {}).get(0, 0.0) / total if total else 0.0

        return _by_step(record, LEAST_GRADIENT, scaled)

    return Guarantee(
        name="G4: a point with a small gradient",
        statement="min_(s<t) |grad f_s|^2 <= 2 (f_0 - f_t) / sum_(s<t) eta_s",
        latex=r"\min_{s<t}\|\nabla f_s\|^2 \le 2 (f_0 - f_t) / \sum_{s<t} \eta_s",
        source=f"the sum of Armijo's inequalities; {DERIVED}",
        quantity=LEAST_GRADIENT,
        sense="upper",
        holds_in="every run",
        bound=lambda record: _by_step(record, LEAST_GRADIENT, value),
        assumptions=_certified,
        size=size,
    )


def coverage_bound() -> Guarantee:
    """G5: what the prototypes of a client lose against its records, of any adapter."""
    return Guarantee(
        name="G5: coverage",
        statement="|R_records(A) - R_prototypes(A)| <= Lambda mean_i |z_i - z_pi(i)|",
        latex=r"|R(A) - R_w(A)| \le \Lambda \,\frac1n\sum_i \|z_i - z_{\pi(i)}\|",
        source=f"Lipschitz constants and Dunkl and Williams' inequality; {DERIVED}",
        quantity=RISK_GAP,
        sense="upper",
        holds_in="every run",
        bound=lambda record: record.curves(COVERAGE_BOUND).values,
        assumptions=lambda record: _all(
            record,
            {
                "assignment": ("assignment", "nearest of class and client"),
                "weights": ("weights", "assigned shares"),
                "loss": ("loss", "cross-entropy"),
            },
        ),
        trivial=lambda record: record.curves(TRIVIAL_GAP).values,
        # Both risks round like what they are, not like their difference.
        size=lambda record: record.curves(RISK_RECORDS).values if RISK_RECORDS in record else 0.0,
    )


def communication() -> Guarantee:
    """G6: the bytes of all uploads are those of the closed form."""
    return Guarantee(
        name="G6: bytes up",
        statement="bytes up = sum_k M_k (4d + 8), with class sizes, weights and variances beside them",
        source=f"by the format of PrototypeSet; {DERIVED}",
        quantity=BYTES_UP,
        sense="equal",
        holds_in="every run",
        bound=lambda record: record.curves(f"promised {BYTES_UP}").values,
        assumptions=lambda record: _all(record, {"rows of four bytes": ("dtype", "float32")}),
    )


def wire_communication() -> Guarantee:
    """G6 on a wire: what was counted of the arrays that travelled."""
    return Guarantee(
        name="G6: bytes up on the wire",
        statement="bytes up = sum_k M_k (4d + 8), with class sizes, weights, variances, and 128 an array",
        source=f"by the format of PrototypeSet and NumPy's headers; {DERIVED}",
        quantity=WIRE_UP,
        sense="equal",
        holds_in="every run",
        bound=lambda record: record.curves(f"promised {WIRE_UP}").values,
        assumptions=lambda record: _all(record, {"rows of four bytes": ("dtype", "float32")}),
    )
