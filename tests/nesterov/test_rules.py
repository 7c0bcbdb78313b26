"""Constants, bounds, the expectation oracle, schedules and the flow: closed forms first."""

import warnings
from math import exp, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.certificate import certify
from surefoot.guarantee import Verdict
from surefoot.nesterov import (
    AGNES,
    NAG,
    DecreasingNAG,
    NAGSchedule,
    NoiseWarning,
    agnes_bound,
    agnes_parameters,
    decreasing_bound,
    exact_quadratic_expectation,
    heavy_ball_flow,
    nag_bound,
    nag_parameters,
    steps_to,
)
from surefoot.nesterov.bounds import agnes_floor
from surefoot.nesterov.experiments import noise_sweep
from surefoot.nesterov.experiments.landscapes import (
    curved_valley,
    oscillating_parabola,
    sphere,
)
from surefoot.nesterov.oracle import critical_noise, moment_decay
from surefoot.nesterov.parameters import AgnesParams, convex_steps, nag_admissible_noise
from surefoot.record import Record


@given(
    L=st.floats(1e-3, 1e5), ratio=st.floats(1e-6, 0.99), sm2=st.floats(0, 1e4)
)  # fmt: skip
@settings(max_examples=1000)
def test_agnes_equals_the_notebook(L, ratio, sm2):
    """The closed form at eta_max, from the authors' notebook, as spelled in arXiv 2302.05515."""
    mu = ratio * L
    sm2 = sqrt(sm2) ** 2
    p = agnes_parameters(mu, L, sqrt(sm2))
    q = sqrt(mu / L)
    assert p.eta == pytest.approx(1 / (L * (1 + sm2)), rel=1e-12)
    assert p.alpha == pytest.approx(p.eta * (1 - q) / (1 - q + sm2), rel=1e-12)
    rho = (sqrt(L) * (1 + sm2) - sqrt(mu)) / (sqrt(L) * (1 + sm2) + sqrt(mu))
    assert p.rho == pytest.approx(rho, rel=1e-12)
    assert p.s == pytest.approx(q / (1 + sm2), rel=1e-12)


@given(L=st.floats(1e-3, 1e5), ratio=st.floats(1e-6, 1.0))
def test_without_noise_agnes_is_nag_exactly(L, ratio):
    mu = min(L, ratio * L)
    p = agnes_parameters(mu, L)
    assert p.alpha == p.eta
    assert p.rho == (1 - p.s) / (1 + p.s)
    assert p == nag_parameters(mu, L)


def test_smaller_steps_and_the_curvature_allowance():
    assert agnes_parameters(1.0, 10.0, eps=20.0).eta == pytest.approx(1 / 400)
    assert agnes_parameters(1.0, 10.0, 1.0, eps=20.0).eta == pytest.approx(2 / 400)
    with pytest.raises(ValueError, match="mu / eps"):
        agnes_parameters(1.0, 10.0, eta=0.05, eps=20.0)
    assert nag_parameters(1.0, 10.0, 0.5).eta == pytest.approx(0.75 / 12.5)


def test_critical_noise_of_one_curvature_in_closed_form():
    """SGD with step eta on lam x^2 / 2: E x^2 is multiplied by (1 - eta lam)^2 + (eta lam sigma)^2."""
    lam, eta = 2.0, 0.3
    found = critical_noise((lam,), AgnesParams(eta, 0.0, 0.0, 0.0, 0.0, 0.0), "colinear", tol=1e-9)
    assert found == pytest.approx(np.sqrt(1 - (1 - eta * lam) ** 2) / (eta * lam), abs=1e-8)
    with pytest.raises(ValueError, match="must decay without noise"):
        critical_noise((lam,), AgnesParams(1.2, 0.0, 0.0, 0.0, 0.0, 0.0))


def test_critical_noise_of_nag_and_its_warning():
    isotropic = critical_noise((1.0, 500.0), nag_parameters(1.0, 500.0), "isotropic")
    colinear = critical_noise((1.0, 500.0), nag_parameters(1.0, 500.0), "colinear")
    assert isotropic == pytest.approx(0.666, abs=0.005)
    assert colinear == pytest.approx(0.471, abs=0.005)
    for sm, eta in ((1.0, None), (2.0, None), (0.5, 1 / 500)):
        agnes = agnes_parameters(1.0, 500.0, sm)
        with pytest.warns(NoiseWarning, match=f"correction = {agnes.eta:.6g}"):
            nag_parameters(1.0, 500.0, sm, eta)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sm in (0.0, 0.3, 0.7, 0.95):
            nag_parameters(1.0, 500.0, sm)
    with pytest.warns(NoiseWarning):
        NAG.from_constants([torch.zeros(1, requires_grad=True)], mu=1.0, L=2.0, sigma_mult=1.5)


def test_the_bound_holds_for_every_noise_by_the_oracle():
    record = Record()
    noise_sweep.run_oracle(None, 0, record)
    for g in noise_sweep.oracle_guarantees(None):
        c = certify(record, g)
        if g.name == noise_sweep.NAG_DIVERGES:
            assert c.verdict is Verdict.NOT_PROMISED
            assert "short enough for L and the noise" in c.reason
        else:
            assert c.verdict is Verdict.KEPT
            # Met at the start, which is no news; what comes after lies below.
            assert c.ratio[0] == pytest.approx(250.5 / 251.5, rel=1e-12)
            assert c.tightness < c.ratio[0]


def test_nag_with_its_reduced_step_obeys_its_bound():
    lam, steps = (1.0, 500.0), 2000
    for sm in (0.3, 0.7, 0.95):
        p = nag_parameters(1.0, 500.0, sm)
        for noise in ("isotropic", "colinear"):
            exact = exact_quadratic_expectation(lam, (1.0, 1.0), p, sm, 0.0, steps, noise=noise)
            bound = nag_bound(np.arange(steps + 1), 250.5, 2.0, 1.0, p.eta, L=500.0)
            assert (exact <= bound * (1 + 1e-9)).all()


def test_the_table_of_the_noises_says_what_the_certificates_say():
    record = Record()
    noise_sweep.run_oracle(None, 0, record)
    (table,) = noise_sweep.oracle_tables(None, record).values()
    for row, g in zip(table.to_dict("records"), noise_sweep.oracle_guarantees(None), strict=True):
        assert row["noise"] == g.name
        assert row["last E f"] / row["last bound"] == pytest.approx(
            certify(record, g).final, rel=1e-12
        )


def test_a_wrong_rate_is_broken():
    """Planted fault: AGNES promised without its factor 1 + sigma_m^2."""
    record = Record()
    p = agnes_parameters(1.0, 500.0, 3.0)
    record.extend(0, "f", exact_quadratic_expectation((1.0, 500.0), (1.0, 1.0), p, 3.0, 0.0, 2000))
    noise_sweep._note_oracle(record, 0, "f", agnes_parameters(1.0, 500.0), 0.0, 0.0, "isotropic")
    g = noise_sweep._quadratic_guarantee("f", (1.0, 500.0), every_run=True)
    assert certify(record, g).verdict is Verdict.BROKEN
    honest = Record()
    honest.extend(0, "f", record["f"][0])
    noise_sweep._note_oracle(honest, 0, "f", p, 3.0, 0.0, "isotropic")
    assert certify(honest, g).verdict is Verdict.KEPT


@pytest.mark.parametrize(
    ("sm", "exact", "theory"),
    [(0.0, 3.3605e-3, 4.4721e-2), (0.5, 3.548e-3, 3.578e-2), (3.0, 6.177e-4, 4.472e-3)],
)
def test_additive_floors(sm, exact, theory):
    p = agnes_parameters(1.0, 500.0, sm)
    values = exact_quadratic_expectation((1.0, 500.0), (1.0, 1.0), p, sm, 1.0, 6000)
    assert values[-1] == pytest.approx(exact, rel=2e-4)
    assert agnes_floor(p, 500.0, 1.0) == pytest.approx(theory, rel=2e-4)


def test_decay_of_the_moments_against_the_promised_rate():
    measured = [0.08744, 0.03747, 0.00719, 0.00071]
    for sm, decay in zip((0.0, 1.0, 3.0, 10.0), measured, strict=True):
        p = agnes_parameters(1.0, 500.0, sm)
        found = moment_decay((1.0, 500.0), p, sm, "isotropic")
        assert found == pytest.approx(decay, abs=1e-5)
        assert found >= p.s


def decreasing_expectation(lam, x0, mu, L, sigma_add, steps):
    """Independent of the oracle: second moments of (x, w) with the schedule of section 2.6."""
    n0 = max(2 * sqrt(L / mu), 3)
    M = [np.diag([x0**2, 0.0]) for _ in lam]
    out = [0.5 * sum(a * m[0, 0] for a, m in zip(lam, M, strict=True))]
    for n in range(steps):
        eta = 4 / (mu * (n + n0) ** 2)
        rho = (1 - 2 / (n + n0)) / (1 + 2 / (n + 1 + n0))
        r = sqrt(eta)
        for i, a in enumerate(lam):
            T = np.array([[1 - eta * a, r * (1 - eta * a)], [-rho * r * a, rho * (1 - eta * a)]])
            c = np.array([-eta, -rho * r])
            M[i] = T @ M[i] @ T.T + sigma_add**2 / len(lam) * np.outer(c, c)
        out.append(0.5 * sum(a * m[0, 0] for a, m in zip(lam, M, strict=True)))
    return np.array(out)


def test_decreasing_step_values_and_bound():
    exact = decreasing_expectation((1.0, 500.0), 1.0, 1.0, 500.0, 1.0, 10_000)
    for n, value in ((100, 4.858e-2), (1000, 4.523e-4), (10_000, 4.471e-5)):
        assert exact[n] == pytest.approx(value, rel=2e-4)
    bound = decreasing_bound(np.arange(10_001), 250.5, 2.0, 1.0, 500.0, 1.0)
    assert (exact <= bound * (1 + 1e-12)).all()
    for n, value in ((100, 22.9), (1000, 0.435), (10_000, 5.05e-3)):
        assert bound[n] == pytest.approx(value, rel=5e-3)


def test_decreasing_optimizer_follows_its_formula():
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    lam = torch.tensor([1.0, 5.0, 20.0], dtype=torch.float64)
    optimizer = DecreasingNAG([x], mu=1.0, L=20.0)
    n0 = max(2 * sqrt(20), 3)
    a, w = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for n in range(30):
        eta = 4 / (n + n0) ** 2
        y = a + sqrt(eta) * w
        g = lam * y
        a = y - eta * g
        w = (1 - 2 / (n + n0)) / (1 + 2 / (n + 1 + n0)) * (w - sqrt(eta) * g)
        optimizer.zero_grad()
        (0.5 * (lam * x**2).sum()).backward()
        optimizer.step()
        with optimizer.iterate():
            torch.testing.assert_close(x.detach(), a, rtol=1e-12, atol=1e-14)
    optimizer.finalize()
    torch.testing.assert_close(x.detach(), a, rtol=1e-12, atol=1e-14)


def test_bounds_take_numbers_arrays_and_tensors():
    p = agnes_parameters(1.0, 10.0, 1.0)
    n = np.arange(5)
    curve = agnes_bound(n, p, 2.0, 1.0, 1.0, 10.0, 0.5)
    assert agnes_bound(3, p, 2.0, 1.0, 1.0, 10.0, 0.5) == pytest.approx(curve[3], rel=1e-15)
    tensor = agnes_bound(torch.arange(5), p, 2.0, 1.0, 1.0, 10.0, 0.5)
    np.testing.assert_allclose(tensor.numpy(), curve, rtol=1e-15)
    assert curve[0] == pytest.approx(2.5)
    assert steps_to(1e-4, 0.1, 1.0) == int(np.ceil(np.log(2e4) / -np.log(0.9)))
    assert steps_to(1e-4, 0.1, 1.0, 2.0, 0.5) == int(np.ceil(np.log(1.5e4) / -np.log(0.9)))
    assert steps_to(3.0, 0.1, 1.0) == 0


@pytest.mark.parametrize("make", [NAG, AGNES])
def test_convex_schedule(make):
    eta, alpha = convex_steps(4.0, agnes=make is AGNES)
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = make([x], eta, 0.0) if make is NAG else make([x], alpha, eta, 0.0)
    schedule = NAGSchedule(optimizer, "convex")
    a, v = 1.0, 0.0
    for n in range(25):
        y = a + alpha * v
        g = 4 * y
        a = y - eta * g
        v = n / (n + (3 if make is NAG else 5)) * (v - g)
        optimizer.zero_grad()
        (2 * x**2).sum().backward()
        optimizer.step()
        schedule.step()
        with optimizer.iterate():
            assert float(x.detach()) == pytest.approx(a, rel=1e-10, abs=1e-13)
    again = NAGSchedule(optimizer, "convex")
    again.load_state_dict(schedule.state_dict())
    assert optimizer.param_groups[0]["momentum"] == schedule.n / (
        schedule.n + (3 if make is NAG else 5)
    )


def test_convex_rate_is_at_least_quadratic():
    """O(1/n^2) on a smooth convex function without strong convexity; only the slope is claimed."""
    x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = NAG([x], 1 / 12, 0.0)
    schedule = NAGSchedule(optimizer, "convex")
    values = []
    for _ in range(2000):
        optimizer.zero_grad()
        loss = (x**4).sum()
        values.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        schedule.step()
    best = np.minimum.accumulate(values)
    n = np.arange(100, 2000)
    assert np.polyfit(np.log(n), np.log(best[n]), 1)[0] <= -2


def test_schedule_by_function_and_bad_rules():
    x = torch.ones(1, requires_grad=True)
    optimizer = AGNES([x])
    NAGSchedule(optimizer, lambda n: (0.1 / (n + 1), 0.01 / (n + 1), 0.5))
    group = optimizer.param_groups[0]
    assert (group["correction"], group["lr"], group["momentum"]) == (0.1, 0.01, 0.5)
    with pytest.raises(ValueError, match="NAG needs alpha = eta"):
        NAGSchedule(NAG([x], 0.1, 0.5), lambda n: (0.1, 0.2, 0.5))
    with pytest.raises(ValueError, match=r"rho must be in \[0, 1\)"):
        NAGSchedule(optimizer, lambda n: (0.1, 0.1, 1.5))
    with pytest.raises(ValueError, match="rule must be 'convex' or callable"):
        NAGSchedule(optimizer, "cosine")
    with pytest.raises(TypeError, match="must be AGNES or NAG, got SGD"):
        NAGSchedule(torch.optim.SGD([x], 0.1), "convex")


def test_flow_of_a_quadratic_against_its_solution():
    """x'' + 2 sqrt(mu) x' + mu x = 0 is critically damped: x = (1 + sqrt(mu) t) exp(-sqrt(mu) t)."""
    mu = 0.25
    flow = heavy_ball_flow(
        lambda x: 0.5 * mu * (x**2).sum(), torch.ones(1, dtype=torch.float64), mu=mu, time=20.0,
        closest=torch.zeros_like,
    )  # fmt: skip
    t = flow.t
    x = (1 + 0.5 * t) * np.exp(-0.5 * t)
    np.testing.assert_allclose(flow.gap, 0.5 * mu * x**2, rtol=1e-5, atol=1e-12)
    assert (flow.gap <= flow.promised * (1 + 1e-9)).all()
    assert flow.promised[-1] == pytest.approx(flow.energy[0] * exp(-10))


def test_constants_of_the_benign_landscapes():
    """Second derivatives and strong aiming, on a grid, against the constants that are claimed."""
    parabola = oscillating_parabola()
    x = torch.logspace(-3, 0, 2000, dtype=torch.float64)[:, None]
    curvature = torch.stack([torch.func.jacrev(torch.func.jacrev(parabola.f))(p)[0, 0] for p in x])
    assert float(curvature.max()) == pytest.approx(parabola.L, rel=1e-3)
    assert float(curvature.min()) == pytest.approx(parabola.lambda_min, rel=1e-3)
    generator = torch.Generator().manual_seed(0)
    for landscape in (parabola, sphere(), curved_valley()):
        P = len(landscape.start)
        y = landscape.start + 0.5 * torch.randn(300, P, dtype=torch.float64, generator=generator)
        for point in y:
            if P == 1 and float(point.abs()) < 1e-3:
                continue
            p = landscape.closest(point)
            g = torch.func.grad(landscape.f)(point)
            d = point - p
            aiming = float(g @ d - landscape.f(point) - landscape.mu / 2 * (d @ d))
            assert aiming >= -1e-12, landscape.name


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: agnes_parameters(0.0, 1.0), "mu must be positive and finite, got 0.0"),
        (lambda: agnes_parameters(2.0, 1.0), r"mu must be in \(0, L\] = \(0, 1.0\], got 2.0"),
        (lambda: agnes_parameters(1.0, float("nan")), "L must be a number, got nan"),
        (
            lambda: agnes_parameters(1.0, 2.0, -1.0),
            "sigma_mult must be at least 0 and finite, got -1.0",
        ),
        (
            lambda: agnes_parameters(1.0, 2.0, eps=-1.0),
            "eps must be at least 0 and finite, got -1.0",
        ),
        (lambda: agnes_parameters(1.0, 2.0, eta=0.6), r"eta must be in \(0, 0.5\]"),
        (lambda: nag_bound(-1, 1.0, 1.0, 1.0, 0.5), "n must be at least 0 and finite, got -1"),
        (
            lambda: nag_bound(1, -1.0, 1.0, 1.0, 0.5),
            "f0_gap must be at least 0 and finite, got -1.0",
        ),
        (lambda: nag_bound(1, 1.0, 1.0, 4.0, 0.5), "mu \\* eta <= 1"),
        (lambda: nag_bound(1, 1.0, 1.0, 1.0, 0.5, L=4.0), "eta must be at most 1/L = 0.25"),
        (lambda: steps_to(0.0, 0.1, 1.0), "tol must be positive and finite, got 0.0"),
        (lambda: steps_to(1.0, 2.0, 1.0), r"s must be in \(0, 1\], got 2.0"),
        (
            lambda: heavy_ball_flow(sum, torch.ones(1), mu=0.0, time=1.0, closest=sum),
            "mu must be positive and finite",
        ),
        (lambda: DecreasingNAG([torch.ones(1, requires_grad=True)], 2.0, 1.0), "mu must be in"),
    ],
)
def test_bad_arguments(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_admissible_noise():
    assert nag_admissible_noise(10.0, 0.1) == 0
    assert nag_admissible_noise(10.0, 0.05) == pytest.approx(1 / 3)
    assert isinstance(agnes_parameters(1.0, 2.0), AgnesParams)
