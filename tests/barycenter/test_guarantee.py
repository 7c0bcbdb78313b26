"""G1 to G6: kept where they must hold, broken by planted faults, not promised where they are not."""

import math
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from surefoot.barycenter import (
    GuaranteeViolation,
    confinement_check,
    iterations_for,
    linear_rate,
    optimality_gap,
    reference,
    spectral_confinement,
    suot_barycenter,
)
from surefoot.barycenter import guarantee as g
from surefoot.barycenter._chord import descent as products
from surefoot.barycenter._solver import descent as descents
from surefoot.certificate import certify
from surefoot.guarantee import Verdict
from surefoot.record import Record


def spds(seed, n, d, low=0.1, high=1.0):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    A = (Q * rng.uniform(low, high, (n, d))[:, None]) @ Q.swapaxes(-1, -2)
    return (A + A.swapaxes(-1, -2)) / 2


def solved(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return suot_barycenter(*args, **options)


def by_name(result):
    return {c.name: c for c in result.certificates()}


@pytest.mark.parametrize("tau", [0.05, 1.0, 10.0, math.inf])
def test_all_are_kept_on_unit_steps(tau):
    found = by_name(suot_barycenter(spds(0, 8, 4), tau=tau, method="eggd", max_iter=3000))
    for name in (g.G1, g.G2, g.G3_ABOVE, g.G3_BELOW, g.G4, g.G5):
        assert found[name].verdict == Verdict.KEPT, found[name].summary()
    expected = Verdict.NOT_PROMISED if math.isinf(tau) else Verdict.KEPT
    assert found[g.G6_MAP].verdict == expected
    assert found[g.G6_WEIGHT].verdict == Verdict.NOT_PROMISED


def test_long_steps_promise_no_confinement_and_no_rate():
    covs = spds(1, 8, 4, 0.01, 1)
    found = by_name(suot_barycenter(covs, tau=0.01))
    assert found[g.G1].verdict == Verdict.KEPT
    for name in (g.G3_ABOVE, g.G3_BELOW, g.G4):
        assert found[name].verdict == Verdict.NOT_PROMISED
        assert "steps" in found[name].reason


def test_free_mass_promises_descent_and_influence_only():
    covs = spds(2, 8, 3)
    covs[0] *= 100
    found = by_name(suot_barycenter(covs, tau=0.5, mass="free", mass_tau="median", init="harmonic"))
    assert found[g.G1].verdict == Verdict.KEPT
    assert found[g.G6_WEIGHT].verdict == Verdict.KEPT
    assert found[g.G4].verdict == Verdict.NOT_PROMISED
    assert g.G5 not in found


def test_momentum_and_newton_are_not_promised_descent():
    covs = spds(3, 6, 3)
    for method in ("autograd_momentum", "newton"):
        found = by_name(solved(covs, tau=1.0, method=method, max_iter=50))
        assert found[g.G1].verdict == Verdict.NOT_PROMISED


def rewritten(record, **columns):
    """The record with columns put through functions, as a fault would leave it."""
    out = Record()
    for name in record.quantities:
        curves = record.curves(name)
        for seed, values in zip(curves.seeds, curves.values, strict=True):
            change = columns.get(name)
            out.extend(int(seed), name, change(values) if change else values, curves.steps)
    return out


def unit_record(tau=1.0):
    result = suot_barycenter(spds(4, 8, 4), tau=tau, method="eggd")
    return g.with_excess(result.record(0))


FAULTS = {
    "G1: no descent at all": (g.descent, {"reached": lambda F: np.full_like(F, F[0] * 1.1)}),
    "G2: gradients ten times too large": (
        g.stationarity, {"least_grad2": lambda v: np.full_like(v, 100 * v.max())},
    ),
    "G3: an eigenvalue above beta": (
        lambda: g.confinement()[0], {"lambda_max": lambda v: v + (np.arange(len(v)) > 0)},
    ),
    "G3: an eigenvalue below the floor": (
        lambda: g.confinement()[1], {"lambda_min": lambda v: np.where(np.arange(len(v)) > 0, v * 0.2, v)},
    ),
    "G4: a start that stays where it is": (g.rate, {"excess": lambda v: np.full_like(v, v[0])}),
    "G5: a gap a thousand times too small": (
        g.optimality, {"optimality_gap": lambda v: v * 1e-3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_broken(fault):
    claim, columns = FAULTS[fault]
    record = unit_record(tau=0.1)
    assert certify(record, claim()).verdict == Verdict.KEPT
    assert certify(rewritten(record, **columns), claim()).verdict == Verdict.BROKEN


def test_planted_faults_in_the_influence_are_broken():
    covs = spds(5, 6, 3)
    covs[0] *= 50
    free, fixed = g.influence()
    record = suot_barycenter(covs, tau=0.5, mass="free").influence_record()
    uniform = rewritten(record, weight=lambda v: np.full_like(v, 1 / 6))
    assert certify(record, free).verdict == Verdict.KEPT
    assert certify(uniform, free).verdict == Verdict.BROKEN
    record = suot_barycenter(covs, tau=0.5).influence_record()
    assert certify(record, fixed).verdict == Verdict.KEPT
    assert certify(rewritten(record, stretch=lambda v: 10 * v), fixed).verdict == Verdict.BROKEN


def test_a_wrong_update_stops_the_run_itself(monkeypatch):
    """A retraction with the sign of the gradient turned climbs: the run refuses to go on."""
    monkeypatch.setattr(
        descents, "moved", lambda B, G, eta: (B + eta * (G @ B + B @ G) + 0 * B).clone()
    )
    with pytest.raises(GuaranteeViolation, match="defect"):
        suot_barycenter(spds(6, 5, 3), tau=1.0, mass="free", mass_tau="median", method="eggd")


def test_a_wrong_update_in_the_coordinates_of_the_base_stops_the_run_too(monkeypatch):
    monkeypatch.setattr(products, "moved_by", lambda N, Z, eta: N + eta * (Z @ N + N @ Z.T))
    with pytest.raises(GuaranteeViolation, match="defect"):
        suot_barycenter(spds(6, 5, 3), tau=1.0)


def test_the_counterexample_to_alpha_as_a_floor():
    covs = np.array([np.eye(2), [[2.526363, 2.302614], [2.302614, 4.473637]]])
    r = solved(covs, tau=math.inf, method="eggd", init=np.diag([1.0, 4.0]), max_iter=1)
    check = confinement_check(r)
    assert np.linalg.eigvalsh(r.cov)[0] == pytest.approx(0.995317, abs=1e-6)
    assert check.lowest < check.alpha
    assert check.holds
    _, below = g.confinement("alpha")
    assert certify(r.record(), below).verdict == Verdict.BROKEN
    assert certify(r.record(), g.confinement()[1]).verdict == Verdict.KEPT


@pytest.mark.parametrize(
    ("beta", "tau", "floor"),
    [(10, 0.1, 0.995), (10, 1, 0.940), (10, 10, 0.729), (10, math.inf, 0.646),
     (100, 0.1, 0.994), (100, 1, 0.917), (100, 10, 0.388), (100, math.inf, 0.138)],
)  # fmt: skip
def test_proved_floors(beta, tau, floor):
    assert spectral_confinement(1.0, beta, tau) == (pytest.approx(floor, abs=5e-4), beta)


@pytest.mark.parametrize("d", [5, 20, 50])
@pytest.mark.parametrize(("tau", "steps"), [(0.1, 31), (1.0, 6), (10.0, 3)])
def test_rate_is_free_of_the_dimension(d, tau, steps, measured):
    count = dimension_steps(d, tau)
    measured(f"8.6 G4 kept, steps to 1e-6, d={d}, tau={tau:g}", f"about {steps}", count)
    assert abs(count - steps) <= max(1, steps // 6)


@pytest.mark.acceptance
@pytest.mark.parametrize("d", [100, 200])
@pytest.mark.parametrize(("tau", "steps"), [(0.1, 31), (1.0, 6), (10.0, 3)])
def test_rate_is_free_of_large_dimensions(d, tau, steps, measured):
    test_rate_is_free_of_the_dimension(d, tau, steps, measured)


def dimension_steps(d, tau):
    covs = spds(d, 10, d)
    best = suot_barycenter(covs, tau=tau, tol=1e-11, record=False)
    r = solved(covs, tau=tau, method="eggd", init=0.55 * np.eye(d), max_iter=40)
    found = by_name(r)
    assert found[g.G1].verdict == found[g.G4].verdict == found[g.G5].verdict == Verdict.KEPT
    gap = r.history["F"].to_numpy() - best.value
    assert (r.history["optimality_gap"].to_numpy() >= gap - 1e-13).all()
    # The rate against the true optimum, not against the end of the run.
    rho = linear_rate(covs_low(covs), covs_high(covs), tau)
    k = np.arange(len(gap))
    assert (gap <= (1 - rho) ** k * gap[0] + 1e-12).all()
    assert iterations_for(1e-6, rho) >= np.argmax(gap <= 1e-6 * gap[0])
    return int(np.argmax(gap <= 1e-6 * gap[0]))


def covs_low(covs):
    return float(np.linalg.eigvalsh(covs).min())


def covs_high(covs):
    return float(np.linalg.eigvalsh(covs).max())


def test_g1_holds_on_random_problems_of_every_kind():
    rng = np.random.default_rng(8)
    for seed in range(12):
        covs = spds(seed, 5, 3, 0.05, 2)
        for mass in ("fixed", "free"):
            tau = 10 ** rng.uniform(-2, 1)
            r = solved(covs, tau=tau, mass=mass, method="eggd", init="euclid", max_iter=5)
            assert by_name(r)[g.G1].verdict == Verdict.KEPT


def test_the_gap_judges_what_others_computed():
    covs = spds(9, 8, 4)
    best = suot_barycenter(covs, tau=math.inf, tol=1e-11)
    for B in (covs.mean(0), np.linalg.inv(np.linalg.inv(covs).mean(0)), np.eye(4)):
        gap = np.mean([reference.bures(A, B) for A in covs]) / 2 - best.value
        assert optimality_gap(B, covs, tau=math.inf) >= gap
    assert optimality_gap(best.cov, covs, tau=math.inf) < 1e-10
    with pytest.raises(ValueError, match="positive definite"):
        optimality_gap(np.zeros((4, 4)), covs, tau=1.0)


def published(tau=0.01):
    covs = np.array([[[2.4206, -0.0134], [-0.0134, 2.9056]], [[2.5, 0.5], [0.5, 1.5]]])
    return covs, tau


@pytest.mark.parametrize("method", ["eggd", "hybrid"])
def test_the_published_outlier_picture_is_an_unconverged_iterate(method, measured):
    covs, tau = published()
    early = solved(covs, tau=tau, method=method, init="identity", max_iter=100, tol=1e-12)
    true = suot_barycenter(covs, tau=tau, init="identity", tol=1e-10)
    np.testing.assert_allclose(early.cov, [[1.4737, 0.0695], [0.0695, 1.3669]], atol=1e-3)
    np.testing.assert_allclose(true.cov, [[2.4304, 0.3235], [0.3235, 1.9333]], atol=1e-3)
    measured(f"8.7 S2 after 100 steps of {method}", "1.4737", f"{early.cov[0, 0]:.4f}")
    measured("8.7 S2 at the optimum", "2.4304", f"{true.cov[0, 0]:.4f}")
    assert not early.converged
    assert "NOT converged" in early.summary()
    assert early.optimality_gap >= early.value - true.value


def test_unit_steps_need_more_than_fifty_times_as_many(measured):
    covs = spds(10, 20, 10, 0.01, 1)
    slow = solved(covs, tau=1e-3, method="eggd", max_iter=1000, record=False)
    fast = suot_barycenter(covs, tau=1e-3, record=False)
    assert not slow.converged
    measured("8.8 unit steps over bb, tau=1e-3", ">= 50", f"> {1000 / fast.n_iter:.0f}")
    assert 1000 / fast.n_iter >= 50
