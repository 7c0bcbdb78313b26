"""Laws of ratios with mean 1, as functions of a standard normal variable, and records of them.

Rows of seeds, columns of steps: a stationary Gaussian AR(1) over the steps, taken through the law's
quantile function, so that every law has the same correlation in ranks.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

BETA = 1.5, 0.15
JITTER = 1e-3


def normal(z):
    """Standard deviation .3, cut at 0 and 2 where one in 1,200 is: the mean stays and a range is there."""
    return np.clip(1 + 0.3 * z, 0.0, 2.0)


def exponential(z):
    return -special.log_ndtr(-z)


def chi_square(z):
    """One degree of freedom."""
    return special.ndtri(special.ndtr(-z) / 2) ** 2


def lognormal_1(z):
    return np.exp(z - 0.5)


def lognormal_2(z):
    return np.exp(2 * z - 2)


def _pareto(z, tail):
    return (tail - 1) / tail * special.ndtr(-z) ** (-1 / tail)


def pareto_25(z):
    return _pareto(z, 2.5)


def pareto_15(z):
    """Without a variance."""
    return _pareto(z, 1.5)


def two_point(z):
    """100 in one percent of the runs, else 0."""
    return np.where(special.ndtr(-z) < 0.01, 100.0, 0.0)


def uniform(z):
    return 2 * special.ndtr(z)


@lru_cache(1)
def _beta_table():
    a, b = BETA
    z = np.linspace(-9, 9, 100_001)
    # Above 0 by the complement: half of the mass lies within 1e-3 of the end.
    upper = 1 - special.betaincinv(b, a, special.ndtr(-z[z > 0]))
    return z, np.concatenate([special.betaincinv(a, b, special.ndtr(z[z <= 0])), upper]) * (
        a + b
    ) / a


def beta(z):
    """Bounded above, rarely far below: a skewness that no short record shows."""
    return np.interp(z, *_beta_table())


def _or_zero(z, share, law):
    """Zero in a share of the runs, else a law with mean 1, so scaled that all have mean 1."""
    u = special.ndtr(z)
    rank = np.clip((u - share) / (1 - share), 1e-16, 1 - 1e-16)
    return np.where(u < share, 0.0, law(rank) / (1 - share))


def _constant(rank):
    return 1 + JITTER * (2 * rank - 1)


def _normal(rank):
    return normal(special.ndtri(rank))


@dataclass(frozen=True)
class Law:
    """A law with mean 1; `top` is its largest value, if there is one."""

    name: str
    of: object
    top: float = np.inf

    def __call__(self, z):
        return self.of(z)


LAWS = {
    law.name: law
    for law in (
        Law("normal", normal, 2.0),
        Law("exponential", exponential),
        Law("chi-square 1", chi_square),
        Law("lognormal 1", lognormal_1),
        Law("lognormal 2", lognormal_2),
        Law("Pareto 2.5", pareto_25),
        Law("Pareto 1.5", pareto_15),
        Law("two-point", two_point, 100.0),
        Law("uniform", uniform, 2.0),
        Law("beta(1.5, .15)", beta, (BETA[0] + BETA[1]) / BETA[0]),
        *(
            Law(
                f"zero in {100 * p:g} %, else {name}",
                lambda z, p=p, of=of: _or_zero(z, p, of),
                top / (1 - p),
            )
            for p in (0.01, 0.05, 0.2)
            for name, of, top in (("constant", _constant, 1 + JITTER), ("normal", _normal, 2.0))
        ),
    )
}  # fmt: skip
BOUNDED = [name for name, law in LAWS.items() if law.top < np.inf]

AT_ONCE = 30_000
"""Values of one batch: what stays in a cache."""


def batches(law, n, steps, correlation, repetitions):
    """Ratios of n seeds, (seeds, steps, repetitions) at a time; the same ones whenever they are asked for."""
    rng = np.random.default_rng([list(LAWS).index(law), n, steps, round(100 * correlation)])
    fresh = np.sqrt(1 - correlation**2)
    most = max(1, AT_ONCE // (n * steps))
    for start in range(0, repetitions, most):
        z = rng.standard_normal((n, steps, min(most, repetitions - start)))
        if correlation:
            for t in range(1, steps):
                z[:, t] = correlation * z[:, t - 1] + fresh * z[:, t]
        yield LAWS[law](z)
