"""Every deterministic first-order promise against its exact worst case, by performance estimation (PEPit).

The worst function of a class is the solution of a semidefinite program, so that no run has to find it: a
promise below it is false. Each case prints worst / promised: 1 is tight, above 1 is refuted. A new bound
joins by one entry of CASES. `pytest -s -p no:xdist benchmarks/test_worst_case.py` takes about a minute.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
import pytest
from PEPit import PEP
from PEPit.functions import SmoothFunction, SmoothStronglyConvexFunction

from surefoot.lora import rac_bound
from surefoot.nesterov import (
    agnes_bound,
    agnes_parameters,
    decreasing_bound,
    nag_bound,
    strongly_convex_bound,
    strongly_convex_factor,
)
from surefoot.nesterov.parameters import decreasing_offset

SOLVER = 1e-5
LATE = 60


@dataclass(frozen=True)
class Case:
    """`worst` solves for the largest value and `promised` is the bound on it."""

    name: str
    setting: str
    worst: Callable[[], float]
    promised: float


def solve(problem: PEP) -> float:
    return float(problem.solve(wrapper="cvxpy", solver="CLARABEL", verbose=0))


def convex(kappa: float):
    """A problem over functions with L = 1 and mu = 1/kappa, its minimiser and its start."""
    problem = PEP()
    f = problem.declare_function(SmoothStronglyConvexFunction, mu=1 / kappa, L=1.0)
    minimiser = f.stationary_point()
    return problem, f, minimiser, problem.set_initial_point()


def smooth():
    """A problem over L-smooth functions, L = 1, that need not be convex."""
    problem = PEP()
    return problem, problem.declare_function(SmoothFunction, L=1.0), problem.set_initial_point()


# -- accelerated descent -----------------------------------------------------------------------


def weights(bound: Callable[[float, float], float]) -> tuple[float, float]:
    """A bound that is linear in f(x_0) - f* and |x_0 - x*|^2, as its two coefficients."""
    return bound(1.0, 0.0), bound(0.0, 1.0)


def accelerated(
    kappa: float, n: int, eta: float, alpha: float, rho: float, value: float, distance: float
):
    """Largest f(x_n) - f* where value (f(x_0) - f*) + distance |x_0 - x*|^2 is at most value."""
    problem, f, minimiser, x = convex(kappa)
    least = f(minimiser)
    share = distance / value
    problem.set_initial_condition(f(x) - least + share * (x - minimiser) ** 2 <= 1)
    v = 0 * x
    for _ in range(n):
        y = x + alpha * v
        g = f.gradient(y)
        x, v = y - eta * g, rho * (v - g)
    problem.set_performance_metric(f(x) - least)
    return solve(problem)


def nag(kappa: float, n: int, kind: str) -> Case:
    s = sqrt(1 / kappa)

    def bound(f0: float, d2: float) -> float:
        if kind == "strong aiming":
            return float(nag_bound(n, f0, d2, 1 / kappa, 1.0))
        # Its own part, which is the smaller one at late steps; the first kind is the other part.
        late = strongly_convex_bound(LATE, f0, d2, 1 / kappa, 1.0)
        return float(late / strongly_convex_factor(s) ** (LATE - n))

    value, distance = weights(bound)
    rho = (1 - s) / (1 + s)
    return Case(
        f"NAG, {kind}", f"kappa {kappa:g}, n {n}",
        lambda: accelerated(kappa, n, 1.0, 1.0, rho, value, distance), value,
    )  # fmt: skip


def agnes(kappa: float, n: int, sigma: float) -> Case:
    p = agnes_parameters(1 / kappa, 1.0, sigma)
    value, distance = weights(lambda f0, d2: float(agnes_bound(n, p, f0, d2, 1 / kappa, 1.0)))
    return Case(
        "AGNES, full gradients", f"kappa {kappa:g}, sigma_m {sigma:g}, n {n}",
        lambda: accelerated(kappa, n, p.eta, p.alpha, p.rho, value, distance), value,
    )  # fmt: skip


def decreasing(kappa: float, n: int) -> Case:
    mu = 1 / kappa
    value, distance = weights(lambda f0, d2: float(decreasing_bound(n, f0, d2, mu, 1.0)))

    def worst() -> float:
        problem, f, minimiser, x = convex(kappa)
        least = f(minimiser)
        problem.set_initial_condition(f(x) - least + distance / value * (x - minimiser) ** 2 <= 1)
        n0, w = decreasing_offset(mu, 1.0), 0 * x
        for k in range(n):
            eta = 4 / (mu * (k + n0) ** 2)
            y = x + sqrt(eta) * w
            g = f.gradient(y)
            rho = (1 - 2 / (k + n0)) / (1 + 2 / (k + 1 + n0))
            x, w = y - eta * g, rho * (w - sqrt(eta) * g)
        problem.set_performance_metric(f(x) - least)
        return solve(problem)

    return Case("DecreasingNAG, full gradients", f"kappa {kappa:g}, n {n}", worst, value)


# -- gradient descent: the blocks of lora with a full sketch, the steps of reparam in its metric ----


def descent(gamma: float) -> Case:
    def worst() -> float:
        problem, f, x = smooth()
        g = f.gradient(x)
        problem.set_initial_condition(g**2 == 1)
        problem.set_performance_metric(f(x - gamma * g) - f(x) + gamma)
        return solve(problem)

    # The promised loss of a step is moved by gamma, to be positive on both sides.
    return Case("descent of a block or step (lora G1, reparam G4)", f"gamma L {gamma:g}", worst,
                gamma - gamma * (1 - gamma / 2))  # fmt: skip


def stationarity(gamma: float, T: int) -> Case:
    def worst() -> float:
        problem, f, x = smooth()
        start, squares = f(x), []
        for _ in range(T):
            g = f.gradient(x)
            squares.append(g**2)
            x = x - gamma * g
        # f* is at most f at the end, less what one more step would gain.
        problem.set_initial_condition(start - f(x) + f.gradient(x) ** 2 / 2 <= 1)
        problem.set_performance_metric(sum(squares[1:], squares[0]) / T)
        return solve(problem)

    promised = rac_bound(T, "gd", L=1.0, gamma=gamma, lam=1.0, gap0=1.0).grad_norm2
    return Case(
        "mean squared gradient (lora G2)", f"gamma L {gamma:g}, T {T}", worst, float(promised)
    )


def least_gradient(steps: tuple[float, ...]) -> Case:
    def worst() -> float:
        problem, f, x = smooth()
        start = f(x)
        for lr in steps:
            g = f.gradient(x)
            problem.set_performance_metric(g**2)  # the smallest of all metrics
            x = x - lr * g
        problem.set_initial_condition(start - f(x) + f.gradient(x) ** 2 / 2 <= 1)
        return solve(problem)

    return Case("least squared gradient (reparam G4)", f"lr L {steps}", worst, 2 / sum(steps))


def linear(kappa: float, gamma: float, T: int) -> Case:
    def worst() -> float:
        problem, f, minimiser, x = convex(kappa)
        problem.set_initial_condition(f(x) - f(minimiser) <= 1)
        for _ in range(T):
            x = x - gamma * f.gradient(x)
        problem.set_performance_metric(f(x) - f(minimiser))
        return solve(problem)

    promised = rac_bound(T, "gd", L=1.0, gamma=gamma, lam=1.0, gap0=1.0, mu=1 / kappa).gap
    return Case("linear rate (lora G3), strongly convex", f"kappa {kappa:g}, gamma L {gamma:g}, T {T}",
                worst, float(promised))  # fmt: skip


def federated(N: int, T: int, gap: float, zeta2: float) -> Case:
    """Two clients with N full local steps a round, full sketches; sigma = 0."""
    gamma = 1 / (2 * N)

    def worst() -> float:
        problem = PEP()
        clients = [problem.declare_function(SmoothFunction, L=1.0) for _ in range(2)]
        W, squares = problem.set_initial_point(), []
        start = (clients[0](W) + clients[1](W)) / 2
        for _ in range(T):
            first = [f.gradient(W) for f in clients]
            mean = (first[0] + first[1]) / 2
            squares.append(mean**2)
            problem.add_constraint(((first[0] - mean) ** 2 + (first[1] - mean) ** 2) / 2 <= zeta2)
            ends = []
            for f, g in zip(clients, first, strict=True):
                own = W - gamma * g
                for _ in range(N - 1):
                    own = own - gamma * f.gradient(own)
                ends.append(own)
            W = (ends[0] + ends[1]) / 2
        problem.set_initial_condition(start - (clients[0](W) + clients[1](W)) / 2 <= gap)
        problem.set_performance_metric(sum(squares[1:], squares[0]) / T)
        return solve(problem)

    promised = rac_bound(
        T, "fed", L=1.0, gamma=gamma, lam=1.0, gap0=gap, zeta2=zeta2, local_steps=N
    ).grad_norm2
    return Case("federated clients (lora G6)", f"N {N}, T {T}, D0 {gap:g}, zeta2 {zeta2:g}", worst,
                float(promised))  # fmt: skip


CASES = [
    *(nag(k, n, kind) for kind in ("strong aiming", "strong convexity")
      for k, n in ((2, 1), (2, 4), (10, 3), (10, 9), (100, 5), (100, 15))),
    agnes(10, 6, 0.0), agnes(10, 6, 1.0), agnes(50, 8, 3.0),
    decreasing(4, 4), decreasing(25, 8),
    descent(0.3), descent(1.0), descent(1.7),
    stationarity(1.0, 1), stationarity(0.5, 4), stationarity(1.0, 6),
    least_gradient((1.0, 0.5, 0.25)), least_gradient((0.4,) * 5),
    linear(10, 1.0, 3), linear(10, 0.4, 5), linear(100, 1.0, 8),
    federated(2, 2, 1.0, 0.0), federated(2, 2, 1.0, 1.0), federated(3, 2, 0.1, 1.0),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}: {c.setting}")
def test_no_promise_lies_below_the_worst_case(case):
    worst = case.worst()
    print(f"\n{case.name:48} | {case.setting:28} | {worst:.6g} | {case.promised:.6g} | "
          f"{worst / case.promised:.4f}")  # fmt: skip
    assert np.isfinite(worst)
    assert worst <= case.promised * (1 + SOLVER) + 1e-7


def test_a_promise_that_is_false_is_refuted():
    """The rate of quadratics, (1-s)^(2n) with a generous constant, claimed of strongly convex functions."""
    kappa, n = 4.0, 8
    s = sqrt(1 / kappa)
    claim = 4 * (1 - s) ** (2 * n)
    worst = accelerated(kappa, n, 1.0, 1.0, (1 - s) / (1 + s), 1.0, 0.5 / kappa)
    print(f"\nthe rate of quadratics, false | {worst:.6g} | {claim:.6g} | {worst / claim:.4f}")
    assert worst > claim
