"""Gradient descent and mini-batches with their record: T1, T2 and T3 on real runs, and on broken ones."""

import copy
import math

import numpy as np
import pytest
import torch
from tests.kan.problems import Linear, certified, line, linear

from surefoot import Record, Verdict, certify
from surefoot.errors import NonFiniteError
from surefoot.kan import KAN2, certificate, fit_gd, fit_sgd, tangent
from surefoot.kan import guarantee as kan

KEPT, BROKEN, NOT_PROMISED = Verdict.KEPT, Verdict.BROKEN, Verdict.NOT_PROMISED


def verdicts(run):
    return {c.name: c.verdict for c in run.certificates()}


@pytest.fixture(scope="module")
def certain():
    model, X, y = certified()
    return fit_gd(model, X, y, 120, mode="certified", every=60)


def test_a_certified_run_keeps_all_of_t1(certain):
    assert set(verdicts(certain).values()) == {KEPT}
    assert certain.verdict is KEPT
    assert certain.violations == 0
    assert 0 < certain.moved <= certain.local_rate.R
    assert certain.eta == certain.local_rate.step
    assert len(certain.losses) == 121
    # T1's rate is a bound, and far from vacuous here.
    promised = (1 - certain.eta * certain.local_rate.lambda0 / 2) ** 120
    assert float(certain.losses[-1] / certain.losses[0]) <= promised < 1e-5


def test_losses_are_those_of_plain_gradient_descent():
    model, X, y = certified(m=16, scale=0.5)
    mine = copy.deepcopy(model)
    eta = 0.5 / tangent(model, X).lambda_max
    run = fit_gd(model, X, y, 5, eta=eta)
    for t in range(6):
        loss = 0.5 * ((mine(X) - y) ** 2).sum()
        assert float(run.losses[t]) == pytest.approx(float(loss.detach()), rel=1e-12)
        grads = torch.autograd.grad(loss, list(mine.parameters()))
        with torch.no_grad():
            for p, g in zip(mine.parameters(), grads, strict=True):
                p -= eta * g


def test_large_labels_are_not_promised_though_nothing_is_violated():
    """The spec's case s = 1, at half its width: not certified, no violation, and the forecast holds."""
    model, X, y = certified(scale=1.0, n=6)
    run = fit_gd(model, X, y, 60, every=30)
    found = verdicts(run)
    assert run.violations == 0
    assert {found[n] for n in (kan.RATE, kan.CONTRACTION, kan.CONFINED, kan.CONDITIONED)} == {
        NOT_PROMISED
    }
    assert run.verdict is found[kan.ABOVE] is KEPT
    assert "width" in str(run.local_rate)


@pytest.mark.parametrize("frozen", ["a", "c"])
def test_a_frozen_layer_is_no_way_around_the_width(frozen):
    """The bound on curvature is one of the trained layer too: T1 is as little promised as with both."""
    model, X, y = certified(m=64, scale=0.5)
    getattr(model, frozen).requires_grad_(False)
    run = fit_gd(model, X, y, 5)
    assert run.local_rate.Lambda < math.inf
    for name in (kan.RATE, kan.CONFINED):
        assert verdicts(run)[name] is NOT_PROMISED


def test_a_wrong_step_is_named_whatever_the_loss_does():
    X, y = line(6), torch.sin(3 * line(6)[:, 0])
    for seed in range(3):
        model = KAN2(1, 64, seed=seed)
        top = tangent(model, X).lambda_max
        run = fit_gd(model, X, y, 30, eta=2.5 / top)
        assert run.verdict is NOT_PROMISED
        reason = run.certificate.reason
        assert f"eta <= 1/lambda_max(K_0) = {1 / top:.4g}" in reason
        assert f"measured {2.5 / top:.6g}" in reason
        assert f"{1 / top:.4g}" in run.monitor.report()


def test_certified_mode_refuses_a_longer_step():
    model, X, y = certified()
    step = certificate(model, X, y).step
    with pytest.raises(ValueError, match="eta must be at most T1's step"):
        fit_gd(model, X, y, 5, eta=1.01 * step, mode="certified")
    assert fit_gd(model, X, y, 5, eta=step, mode="certified").verdict is KEPT


def test_no_step_where_the_matrix_is_singular():
    model, X, y = certified(m=16)
    X[1] = X[0]
    with pytest.raises(
        ValueError, match="eta must be a number: 'auto' has no step in mode 'certified'"
    ):
        fit_gd(model, X, y, 5, mode="certified")
    with pytest.raises(ValueError, match="eta must be a number: 'auto' has no step in mode 'sgd'"):
        fit_sgd(model, X, y, 5)
    # Descent itself still runs, and T1 says which condition fails.
    run = fit_gd(model, X, y, 5)
    rate = next(c for c in run.certificates() if c.name == kan.RATE)
    assert rate.verdict is NOT_PROMISED
    assert "positive definite K fails" in rate.reason


def test_a_run_that_diverges_stops_with_its_step():
    problem = linear()
    with pytest.raises(NonFiniteError, match="loss is inf at step") as stop:
        fit_gd(problem, None, None, 10_000, eta=1e3 / tangent(problem).lambda_max)
    assert stop.value.quantity == "loss"
    assert 0 < stop.value.step < 10_000


def test_a_residual_that_is_nan_stops_at_once():
    problem = linear()
    problem.b[0] = math.nan
    with pytest.raises(NonFiniteError, match="loss is nan at step 0"):
        fit_gd(problem, None, None, 10, eta=0.1)


def test_a_linear_problem_is_promised_and_kept_in_both_ways():
    run = fit_gd(linear(), None, None, 50, mode="certified", every=25)
    assert set(verdicts(run).values()) == {KEPT}


def test_the_loss_divided_by_n():
    model, X, y = certified(m=32, scale=0.5)
    other = copy.deepcopy(model)
    run, mean = fit_gd(model, X, y, 20), fit_gd(other, X, y, 20, normalisation="mean")
    assert torch.allclose(mean.losses * 5, run.losses, rtol=1e-9)
    assert mean.eta == pytest.approx(5 * run.eta)


# Planted faults: what ran is not what the record says, and the numbers show it.


def faulty(change):
    """A certified run whose record was made by a descent with a fault."""
    model, X, y = certified()
    run = fit_gd(model, X, y, 40, mode="certified", every=20)
    record = Record()
    for name in run.record.quantities:
        curves = run.record.curves(name)
        record.extend(0, name, change(name, curves.values[0].copy()), curves.steps)
    for name, known in run.record.facts.items():
        record.note(0, **{name: known.all[0]})
    return record


@pytest.mark.parametrize(
    ("make", "quantity", "fault"),
    [
        (kan.linear_rate, "loss", lambda v: np.maximum(v, 0.9 * v[0])),
        (kan.contraction, "loss", lambda v: np.where(np.arange(len(v)) == 30, v[28], v)),
        (kan.confinement, "moved", lambda v: 50 * v),
        (kan.conditioning, "lambda_min", lambda v: np.where(np.arange(len(v)) > 0, 0.4 * v, v)),
        (lambda: kan.spectral_forecast()[0], "forecast", lambda v: v / 1e4),
        (lambda: kan.spectral_forecast()[1], "forecast", lambda v: v * 20),
    ],
)
def test_a_planted_fault_breaks_each_claim(make, quantity, fault):
    claim = make()
    assert certify(faulty(lambda name, v: v), claim).verdict is KEPT
    broken = certify(faulty(lambda name, v: fault(v) if name == quantity else v), claim)
    assert broken.verdict is BROKEN, broken.summary()


def test_a_wrong_lambda0_is_found_out():
    """A bug that claims ten times the smallest eigenvalue promises a rate that no run keeps."""
    record = faulty(lambda name, v: 10 * v if name == "lambda0" else v)
    assert certify(record, kan.linear_rate()).verdict is BROKEN
    assert certify(record, kan.conditioning()).verdict is BROKEN


# Mini-batches.


@pytest.fixture(scope="module")
def drawn():
    """Eight seeds of a small problem, one record."""
    model, X, y = certified(m=64, scale=1e-4, n=4)
    record = Record()
    for seed in range(8):
        run = fit_sgd(copy.deepcopy(model), X, y, 40, 2, seed=seed, every=40, record=record)
    return run, record


def test_the_mean_is_below_the_promise_and_near_the_forecast(drawn):
    run, record = drawn
    rate = run.local_rate.stochastic(2)
    assert run.eta == rate.step
    assert rate.p < 1
    t = record.curves("loss").steps
    mean = record["stopped_loss"].mean(axis=0)
    assert not record["left"].any()
    assert (mean <= rate.factor(run.eta) ** t * mean[0]).all()
    ahead = record["mean_forecast"][0]
    assert (mean <= 3 * ahead).all()
    assert (mean >= ahead / 3).all()


def test_eight_seeds_are_promised_and_none_breaks(drawn):
    _, record = drawn
    found = {c.name: c for c in kan.run_certificates(record)}
    assert {c.verdict for c in found.values()} <= {KEPT, Verdict.UNDECIDED}
    assert found[kan.MEAN].verdict is KEPT
    assert all(a.holds for c in found.values() for a in c.assumptions)


def test_a_step_a_hundred_times_too_long_is_not_promised():
    model, X, y = certified(m=64, scale=0.05, n=5)
    eta = 100 * certificate(model, X, y).stochastic(2).step
    run = fit_sgd(model, X, y, 20, 2, eta=eta, seed=0)
    assert run.verdict is NOT_PROMISED
    assert "step size fails" in run.certificate.reason
    assert run.moved > run.local_rate.rho
    assert run.record["left"][0, -1] == 1
    assert run.record["stopped_loss"][0, -1] == 0


def test_what_has_left_stays_out():
    """The stopped loss of a run that comes back into the ball is 0 for ever."""
    model, X, y = certified(m=64, scale=1e-4, n=5)
    run = fit_sgd(model, X, y, 3, 2, seed=0)
    run.monitor._closed = False
    for scale in (1e3, 0.0):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(scale)
        run.monitor.step()
        assert run.record["stopped_loss"][0, -1] == 0
        with torch.no_grad():
            for p in model.parameters():
                p.sub_(scale)


def test_the_same_seed_draws_the_same_rows():
    model, X, y = certified(m=16, scale=0.1)
    runs = [fit_sgd(copy.deepcopy(model), X, y, 10, 2, eta=0.01, seed=s) for s in (3, 3, 4)]
    assert torch.equal(runs[0].losses, runs[1].losses)
    assert not torch.equal(runs[0].losses, runs[2].losses)
    assert runs[2].record.seeds == [4]


@pytest.mark.acceptance
def test_the_draws_are_unbiased():
    """On a linear problem the mean over many seeds is the forecast of the mean, which is exact there."""
    A = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
    record = Record()
    for seed in range(100):
        fit_sgd(
            Linear(A, torch.ones(2, dtype=torch.float64)),
            None,
            None,
            5,
            1,
            eta=0.1,
            seed=seed,
            record=record,
        )
    losses, ahead = record["loss"], record["mean_forecast"][0]
    spread = losses.std(axis=0) / math.sqrt(100)
    assert (abs(losses.mean(axis=0) - ahead) <= 4 * spread + 1e-12).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps must be a whole number of at least 0"),
        ({"eta": -0.1}, "eta must be positive"),
        ({"eta": "fast"}, "eta must be .*'auto'"),
        ({"mode": "adam"}, "mode must be one of 'gd', 'certified'"),
        ({"every": 0}, "every must be a whole number of at least 1"),
    ],
)
def test_what_fit_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        fit_gd(linear(), None, None, **{"steps": 3, **change})


def test_batches_that_are_none():
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1"):
        fit_sgd(linear(), None, None, 3, 0)


# Longer: the spec's own cases.


@pytest.mark.acceptance
def test_the_spec_s_certified_case():
    for scale, sure in ((0.01, True), (1.0, False)):
        model, X, y = certified(m=512, scale=scale, n=6)
        run = fit_gd(model, X, y, 400, mode="certified" if sure else "gd", every=100)
        assert run.local_rate.certified is sure
        assert run.violations == 0


@pytest.mark.acceptance
def test_the_spec_s_stochastic_case():
    """d = 1, m = 512, n = 8, B = 2, y = .05 sin 3x: the mean of eight seeds at three checkpoints."""
    model, X, y = certified(m=512, scale=0.05, n=8)
    record = Record()
    for seed in range(8):
        run = fit_sgd(copy.deepcopy(model), X, y, 700, 2, seed=seed, every=350, record=record)
    rate, ahead = run.local_rate.stochastic(2), record["mean_forecast"][0]
    mean = record["stopped_loss"].mean(axis=0)
    for t in (100, 350, 700):
        assert mean[t] <= rate.factor(run.eta) ** t * mean[0]
        assert 1 / 3 <= mean[t] / ahead[t] <= 3


@pytest.mark.acceptance
def test_forecasts_over_five_seeds():
    g = torch.Generator().manual_seed(0)
    X = 2 * torch.rand(40, 2, generator=g, dtype=torch.float64) - 1
    y = torch.sin(math.pi * X[:, 0]) * X[:, 1]
    factors = []
    for seed in range(5):
        run = fit_gd(KAN2(2, 256, seed=seed), X, y, 1999, every=500)
        ahead, loss = run.record["forecast"][0], run.losses.numpy()
        ratio = np.maximum(ahead / loss, loss / ahead)
        assert ratio[10] <= 1.3
        assert ratio[100] <= 1.5
        assert ratio[500] <= 2
        factors.append(ratio[1999])
    assert np.median(factors) <= 1.5


@pytest.mark.acceptance
def test_random_certified_nets_are_never_violated():
    """Labels at the edge of the certificate, degrees 2 to 5: T1 could not be broken."""
    g = torch.Generator().manual_seed(1)
    checked = 0
    for i in range(24):
        d, order = 1 + i % 3, 2 + i % 4
        X = 2 * torch.rand(5, d, generator=g, dtype=torch.float64) - 1
        model = KAN2(d, 256, spline_order=order, symmetric=True, seed=i)
        y = torch.randn(5, generator=g, dtype=torch.float64)
        scale = 1.0
        while not certificate(model, X, scale * y).certified and scale > 1e-9:
            scale /= 1.5
        run = fit_gd(model, X, scale * y, 120, mode="certified", every=120)
        assert run.local_rate.certified
        assert set(verdicts(run).values()) == {KEPT}
        assert run.moved <= 0.5 * run.local_rate.R
        checked += 1
    assert checked == 24
