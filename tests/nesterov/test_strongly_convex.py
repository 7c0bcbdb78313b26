"""The tighter rate of NAG for strongly convex functions: proof, search for a counterexample, certificates."""

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.guarantee import Verdict
from surefoot.nesterov import (
    AGNES,
    NAG,
    DecreasingNAG,
    nag_bound,
    steps_to,
    strongly_convex_bound,
    strongly_convex_factor,
    strongly_convex_steps_to,
)

CONDITIONS = [1.05, 2.0, 10.0, 100.0, 1e4, 1e8]


def lyapunov(s):
    """(m, beta, r, p, c, b) of the proof, with r from the public function."""
    m, beta, r = 1 - s * s, (1 - s) / (1 + s), strongly_convex_factor(s)
    return m, beta, r, 1 / m - beta / (2 * r), -(1 + r / m) / 4, beta / 2


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_step_of_the_proof(condition):
    """V_{n+1} - r V_n as a form in z_{n+1}, z_n, z_{n-1}: built from the two inequalities, it is -|.|^2."""
    m, beta, r, p, c, b = lyapunov(sqrt(1 / condition))
    new, now, old = np.eye(3)

    def times(u, v):
        return (np.outer(u, v) + np.outer(v, u)) / 2

    e = m * ((1 + beta) * now - beta * old) - new
    form = (
        p * times(new, new) + 2 * c * times(new, now) + b * times(now, now)
        - r * (p * times(now, now) + 2 * c * times(now, old) + b * times(old, old))
        + times(e, new - r * now) / m
    )  # fmt: skip
    D = beta / (2 * r)
    square = sqrt(D) * new - (1 + 2 * beta + r / m) / (4 * sqrt(D)) * now + r * sqrt(D) * old
    assert form == pytest.approx(-np.outer(square, square), abs=1e-13 * np.abs(form).max())


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_start_and_the_end_of_the_proof(condition):
    s = sqrt(1 / condition)
    m, _, r, p, c, b = lyapunov(s)
    mu = s * s
    end = mu / (2 * m) / (p - c * c / b)
    assert 2 < end < 9
    # What remains of V_1 once q_0 >= 0 and the inequality to x* are used; |e_0|^2 has a negative weight.
    assert r < m
    value = 1 - 2 * (p * m + c)
    distance = (-mu / 2 + p * m * m + 2 * c * m + b + mu * (p * m + c)) / (mu / 2)
    got = [
        strongly_convex_bound(np.array([400.0]), f0, d2, 1.0, mu)[0]
        for f0, d2 in ((1.0, 0.0), (0.0, 2.0))
    ]
    slow = nag_bound(400.0, 1.0, 0.0, 1.0, mu)
    wanted = [min(slow, end * x * r**399) for x in (value, distance)]
    # The closed forms in t do not cancel, those of the proof do: mu of 1e-8 leaves eight digits.
    assert got == pytest.approx(wanted, rel=1e-15 * condition + 1e-9)


def test_the_numbers_that_independent_tools_found():
    """Exact worst-case rates at condition numbers 2, 10 and 100, by performance estimation."""
    found = [strongly_convex_factor(sqrt(1 / k)) for k in (2, 10, 100)]
    assert found == pytest.approx([0.134, 0.565, 0.861], abs=6e-4)
    ours = [1 - sqrt(1 / k) for k in (2, 10, 100)]
    fewer = np.log(found) / np.log(ours)
    assert (fewer > 1.4).all()
    assert (fewer < 1.65).all()


def test_the_factor_at_its_ends():
    assert strongly_convex_factor(1.0) == 0.0
    small = 1e-6
    assert (1 - strongly_convex_factor(small)) / small == pytest.approx(4 / 3, rel=2e-3)


class Bent:
    """Convex, of one variable, f(0) = f'(0) = 0; f'' is piecewise constant in [1, L]."""

    def __init__(self, knots, slopes):
        self.sides = []
        for sign in (1.0, -1.0):
            x = np.sort(sign * np.asarray(knots, dtype=float))
            # Slopes belong to the intervals between knots, from the left.
            of = np.asarray(slopes, dtype=float)[:: int(sign)]
            x, of = x[x > 0], of[(x <= 0).sum() :]
            x = np.concatenate([[0.0], x])
            d = np.concatenate([[0.0], np.cumsum(of[:-1] * np.diff(x))])
            area = np.concatenate([[0.0], np.cumsum((d[1:] + d[:-1]) / 2 * np.diff(x))])
            self.sides.append((x, of, d, area))

    def _at(self, x):
        knots, slope, d, area = self.sides[0 if x >= 0 else 1]
        i = int(np.searchsorted(knots, abs(x), side="right")) - 1
        h = abs(x) - knots[i]
        return area[i] + d[i] * h + slope[i] * h * h / 2, d[i] + slope[i] * h

    def gap(self, x):
        return float(self._at(x)[0])

    def grad(self, x):
        return float(np.copysign(self._at(x)[1], x))


def gaps(f, L, x0, steps):
    """f(x_n) - f* under NAG with eta = 1/L."""
    s = sqrt(1 / L)
    beta = (1 - s) / (1 + s)
    x = y = x0
    found = [f.gap(x)]
    for _ in range(steps):
        new = y - f.grad(y) / L
        x, y = new, new + beta * (new - x)
        found.append(f.gap(x))
    return np.array(found)


@settings(max_examples=150, deadline=None)
@given(
    st.floats(1.2, 400.0),
    st.lists(st.tuples(st.floats(-3.0, 3.0), st.booleans()), min_size=1, max_size=6),
    st.booleans(),
    st.floats(0.1, 3.0),
)
def test_no_bent_function_breaks_it(L, bends, first, x0):
    slopes = [L if first else 1.0, *(L if steep else 1.0 for _, steep in bends)]
    found = gaps(Bent([k for k, _ in bends], slopes), L, x0, 25)
    promised = strongly_convex_bound(np.arange(26), found[0], x0 * x0, 1.0, 1 / L)
    assert (found <= promised * (1 + 1e-9)).all()


def worst_found(L, steps, promised):
    """The largest f(x_n) - f* over its promise that a random search with refinement finds."""
    rng = np.random.default_rng(0)
    worst, best = 0.0, None
    for i in range(800):
        if best is None or i < 400:
            knots, slopes = (
                rng.normal(size=5) * rng.choice([0.03, 0.3, 1.0]),
                rng.choice([1.0, L], 6),
            )
            x0 = rng.uniform(0.2, 3.0)
        else:
            knots, slopes, x0 = best
            knots = knots * np.exp(rng.normal(size=5) * rng.choice([0.01, 0.1, 0.5]))
        found = gaps(Bent(knots, slopes), L, x0, steps)
        ratio = found[-1] / promised(found[0], x0)
        if ratio > worst:
            worst, best = ratio, (knots, slopes, x0)
    return worst


def test_a_search_for_the_worst_function_stays_below_and_refutes_more():
    L, steps = 4.0, 16
    s = sqrt(1 / L)
    worst = worst_found(
        L, steps, lambda f0, x0: strongly_convex_bound(steps, f0, x0 * x0, 1.0, 1 / L)
    )
    assert 0.1 < worst <= 1
    # What holds for quadratics, (1-s)^2 a step and six times L_0, is false here.
    claim = 6 * (1 - s) ** (2 * steps)
    assert worst_found(L, steps, lambda f0, x0: claim * (f0 + x0 * x0 / 2)) > 1


@pytest.mark.parametrize("L", [2.0, 10.0, 100.0])
def test_it_is_never_weaker_and_later_stronger(L):
    n = np.arange(300)
    new = strongly_convex_bound(n, 1.0, 1.0, 1.0, 1 / L)
    old = nag_bound(n, 1.0, 1.0, 1.0, 1 / L)
    assert (new <= old).all()
    assert new[0] == old[0]
    assert new[100] < 0.5 * old[100]
    as_tensor = strongly_convex_bound(torch.arange(300), 1.0, 1.0, 1.0, 1 / L)
    assert as_tensor.numpy() == pytest.approx(new, rel=1e-12)
    assert strongly_convex_bound(7, 1.0, 1.0, 1.0, 1 / L) == pytest.approx(new[7], rel=1e-12)


@pytest.mark.parametrize("L", [1.0, 2.0, 10.0, 1000.0])
@pytest.mark.parametrize("tol", [2.0, 0.3, 1e-3, 1e-9])
def test_steps_are_the_first_at_which_the_bound_is_small_enough(L, tol):
    s = sqrt(1 / L)
    steps = strongly_convex_steps_to(tol, s, 1.0, 0.5, 1.0)
    bound = strongly_convex_bound(np.arange(steps + 2), 1.0, 0.5, 1.0, 1 / L)
    assert bound[steps] <= tol * (1 + 1e-12)
    assert steps == 0 or bound[steps - 1] > tol * (1 - 1e-12)
    assert steps <= steps_to(tol, s, 1.0, 0.5, 1.0)
    # Without the distance the start is the largest that strong convexity allows.
    assert strongly_convex_steps_to(tol, s, 1.0) >= steps


def test_bad_arguments():
    with pytest.raises(ValueError, match="s must be in"):
        strongly_convex_factor(0.0)
    with pytest.raises(ValueError, match="n must be at least 0"):
        strongly_convex_bound(-1, 1.0, 1.0, 1.0, 0.5)
    with pytest.raises(ValueError, match="mu and eta"):
        strongly_convex_bound(1, 1.0, 1.0, 4.0, 0.5)
    with pytest.raises(ValueError, match="tol must be"):
        strongly_convex_steps_to(0.0, 0.5, 1.0)


# -- certificates ------------------------------------------------------------------------------

MU, L = 1.0, 20.0
SCALE = torch.tensor([MU, L], dtype=torch.float64)
KNOWN = {
    "mu": MU, "L": L, "f_star": 0.0, "dist0_sq": 2.0, "sigma_mult": 0.0, "sigma_add": 0.0,
    "how": "exact", "strongly_convex": True,
}  # fmt: skip


def certificate(make, fault=1.0, **told):
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = make([x])
    for _ in range(60):
        optimizer.measure(lambda: 0.5 * (SCALE * x**2).sum())
        x.grad = SCALE * x.detach()
        optimizer.step()
        x.data.mul_(fault)
    first, second = optimizer.certificates(**{**KNOWN, **told})
    assert first.name != second.name
    return second


def nag(p):
    return NAG.from_constants(p, mu=MU, L=L)


def test_kept_broken_and_not_promised():
    kept = certificate(nag)
    assert kept.verdict is Verdict.KEPT
    assert all(a.holds for a in kept.assumptions)
    assert certificate(nag, fault=1.2).verdict is Verdict.BROKEN
    # It breaks where the rate of strong aiming is still kept: the promise is the sharper one.
    late = certificate(nag, fault=1.04)
    assert late.tightness > certificate(nag).tightness
    assert certificate(lambda p: AGNES.from_constants(p, mu=MU, L=L)).verdict is Verdict.KEPT
    other = certificate(lambda p: AGNES.from_constants(p, mu=MU, L=L, sigma_mult=0.5))
    assert other.verdict is Verdict.NOT_PROMISED
    assert "Nesterov's step" in other.reason
    assert "step is short enough" in certificate(nag, L=2 * L).reason
    assert "strongly convex" in certificate(nag, mu=MU / 2).reason
    assert "no additive noise" in certificate(nag, sigma_add=1.0).reason
    assert "no multiplicative noise" in certificate(nag, sigma_mult=0.1).reason
    assert "the method" in certificate(lambda p: DecreasingNAG(p, MU, L)).reason


def test_what_nobody_said_is_not_assumed():
    bare = certificate(nag, sigma_mult=None, sigma_add=None, how=None)
    unsaid = {a.name for a in bare.assumptions if a.holds is None}
    assert unsaid >= {
        "f is mu-strongly convex", "no additive noise", "no multiplicative noise", "f* is the infimum",
    }  # fmt: skip
