"""G4: the linear rate of unit steps against integrals, exact cases and a search for the worst problem."""

import math
import warnings

import mpmath
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from surefoot.barycenter import bounds, linear_rate, suot_barycenter
from surefoot.barycenter import guarantee as g
from surefoot.certificate import certify
from surefoot.guarantee import Verdict

TAUS = [1e-6, 0.1, 1.0, 50.0, 1e6, math.inf]


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("ratio", [1.0, 1.0001, 3.0, 1e4, 1e12])
def test_the_share_is_its_integral(ratio, tau):
    b, alpha, beta = mpmath.mpf(2), mpmath.mpf(3), mpmath.mpf(2 * ratio)

    def integrand(t):
        x = (1 - t) * b + t * beta
        q = mpmath.sqrt(x / alpha if math.isinf(tau) else (x / tau) ** 2 + 2 * x / tau + x / alpha)
        return (1 - t) / (x * q)

    points = [0, *(mpmath.mpf(10) ** -k for k in range(13, 0, -1)), 1]
    wanted = 4 * b * mpmath.quad(integrand, points)
    assert bounds.gradient_share(2.0, 3.0, 2 * ratio, tau) == pytest.approx(float(wanted), rel=1e-9)


def test_no_pair_of_eigenvalues_is_worse_than_an_end():
    """The lemma of the proof, by quadrature: Lambda(b, b') >= min(Lambda(a), Lambda(beta))."""
    rng = np.random.default_rng(0)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    closest = math.inf
    for _ in range(100):
        beta, tau, alpha = (
            10 ** rng.uniform(0, 4),
            10 ** rng.uniform(-3, 4),
            10 ** rng.uniform(0, 1),
        )
        b, c = np.exp(rng.uniform(0, math.log(beta), 2))
        t = ((nodes + 1) / 2) ** 4  # close together at 0, where the integrand is steep
        dt = 2 * ((nodes + 1) / 2) ** 3 * weights
        x, y = (1 - t) * b + t * beta, (1 - t) * c + t * beta

        def q(x, tau=tau, alpha=alpha):
            return np.sqrt(x * x + 2 * tau * x + tau * tau * x / alpha)

        pair = 4 * tau * (b + c) * ((1 - t) / (x * q(y) + y * q(x)) * dt).sum()
        ends = min(bounds.gradient_share(e, alpha, beta, tau) for e in (1.0, beta))
        closest = min(closest, pair / ends)
    assert 1 - 1e-9 <= closest < 1.01


@pytest.mark.parametrize("tau", [0.01, 1.0, 100.0, math.inf])
def test_it_is_exact_where_all_inputs_are_equal(tau):
    """One scalar input a: linearised by hand, a step shrinks b - a by 1 - tau/(a + tau)."""
    a = 2.0
    wanted = 1.0 if math.isinf(tau) else 1 - (1 - tau / (a + tau)) ** 2
    assert linear_rate(a, a, tau) == pytest.approx(wanted, rel=2e-9)
    assert linear_rate(a, a, tau) <= wanted


def test_it_tends_to_twice_tau_over_beta():
    for beta in (1.0, 10.0, 1000.0):
        assert linear_rate(1.0, beta, 1e-7) == pytest.approx(2e-7 / beta, rel=1e-4)


def spd(rng, d, low, high):
    """Eigenvalues between two bounds, many at the ends."""
    Q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    e = np.exp(rng.uniform(math.log(low), math.log(high), d))
    ends = rng.random(d) < 0.6
    e[ends] = rng.choice([low, high], ends.sum())
    return (Q * e) @ Q.T


def run(covs, tau, start, steps, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return suot_barycenter(
            covs, tau=tau, method="eggd", init=start, max_iter=steps, tol=1e-15, **options
        )


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize(("beta", "tau"), [(1.1, 0.01), (10.0, 1.0), (30.0, 1e4)])
def test_no_problem_of_a_search_is_slower(d, beta, tau):
    """One unit step from extreme points: never below the rate, and near it where it is tight."""
    rng = np.random.default_rng(d)
    covs = np.array([[spd(rng, d, 1.0, beta) for _ in range(2)] for _ in range(30)])
    starts = np.array([spd(rng, d, 1.0, beta) for _ in covs])
    best = suot_barycenter(covs, tau=tau, tol=1e-11, max_iter=5000).value
    rho, worst = linear_rate(1.0, beta, tau), math.inf
    # A start at the optimum takes no step.
    F = run(covs, tau, starts, 1).record().frame()["F"].unstack("step").to_numpy()
    for (before, after), least in zip(F, best, strict=True):
        if before - least > 1e-6 * tau:
            worst = min(worst, 1 - (after - least) / (before - least))
    assert worst >= rho
    if beta == 1.1:
        # A claim that is a fifth faster is refuted: there is nothing more to give.
        assert worst < 1.2 * rho


def test_a_start_above_the_inputs_counts_in_the_bound_a_posteriori():
    covs, start, tau = np.array([[[1.0]], [[2.0]]]), np.array([[400.0]]), 0.05
    result = run(covs, tau, start, 40)
    record = g.with_excess(result.record(), suot_barycenter(covs, tau=tau, tol=1e-12).value)
    assert certify(record, g.rate("measured")).verdict is Verdict.KEPT
    # The a priori rate is that of starts among the inputs, and false here.
    assert certify(record, g.rate()).verdict is Verdict.NOT_PROMISED
    excess = record["excess"][0]
    claimed = linear_rate(1.0, 2.0, tau, floor=1.0)
    assert 1 - excess[1] / excess[0] < claimed
    assert 1 - excess[1] / excess[0] >= linear_rate(1.0, 2.0, tau, floor=1.0, top=400.0)
