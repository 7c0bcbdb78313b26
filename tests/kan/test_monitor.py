"""The monitor: what it writes, how it tells gradient descent from what is none, and what it refuses."""

import importlib
import json
import math
from itertools import pairwise

import pytest
import torch
from tests.kan.problems import Hidden, certified, line, linear

from surefoot import Verdict
from surefoot.errors import NonFiniteError
from surefoot.kan import KAN2, fit_gd, forecast, monitor, tangent
from surefoot.kan import guarantee as kan

OF_T1 = (kan.RATE, kan.CONTRACTION, kan.CONFINED, kan.CONDITIONED)


def loop(model, X, y, optimizer, *, eta, steps=12, every=5, rows=None, tell=True, **options):
    """A loop of a user's own."""
    with monitor(model, X, y, eta=eta, every=every, **options) as m:
        for _ in range(steps):
            loss = 0.5 * ((model(X) - y) ** 2).sum()
            used = loss if rows is None else 0.5 * ((model(X) - y)[rows] ** 2).sum()
            optimizer.zero_grad()
            used.backward()
            m.step(loss.detach() if tell else None)
            optimizer.step()
    return m


def found(m):
    return {c.name: c for c in m.certificates()}


def test_a_user_s_loop_is_the_run_of_fit_gd():
    model, X, y = certified(m=64, scale=0.001)
    other, *_ = certified(m=64)
    run = fit_gd(model, X, y, 12, mode="certified", every=5)
    assert run.local_rate.certified
    m = loop(other, X, y, torch.optim.SGD(other.parameters(), lr=run.eta), eta=run.eta)
    assert [row.step for row in m.rows] == [0, 5, 10, 12]
    for mine, theirs in zip(m.rows, run.monitor.rows, strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-9)
        assert mine.drift == pytest.approx(theirs.drift, abs=1e-12)
    assert {c.verdict for c in m.certificates()} == {Verdict.KEPT}
    assert m.record.fact("method").all == ("gradient descent",)
    assert m.record.fact("steps_compared").all == (4,)  # 0, 1, 5 and 10


@pytest.mark.parametrize(
    "make",
    [
        lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
        lambda p, lr: torch.optim.SGD(p, lr=lr, weight_decay=0.1),
        lambda p, lr: torch.optim.SGD(p, lr=1.01 * lr),
        lambda p, lr: torch.optim.Adam(p, lr=lr),
    ],
)
def test_another_method_is_not_promised(make):
    """Found by comparing steps with -eta grad L: nobody had to say it."""
    model, X, y = certified(m=64, scale=0.001)
    eta = 0.1
    m = loop(model, X, y, make(model.parameters(), eta), eta=eta, tell=False)
    for name, c in found(m).items():
        assert c.verdict is Verdict.NOT_PROMISED, name
        assert "method = other: steps are off -eta grad L" in c.reason
    assert "not covered" in m.report()


def test_mini_batches_are_not_promised():
    model, X, y = certified(m=64, scale=0.001)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    m = loop(model, X, y, optimizer, eta=0.1, rows=[0, 2])
    assert found(m)[kan.RATE].verdict is Verdict.NOT_PROMISED


def test_momentum_that_sets_in_late_is_seen_at_a_checkpoint():
    model, X, y = certified(m=64, scale=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with monitor(model, X, y, eta=0.05, every=4) as m:
        for t in range(10):
            optimizer.zero_grad()
            (0.5 * ((model(X) - y) ** 2).sum()).backward()
            m.step()
            if t == 3:
                optimizer.param_groups[0]["momentum"] = 0.9
            optimizer.step()
    assert found(m)[kan.RATE].verdict is Verdict.NOT_PROMISED


def test_without_eta_nothing_is_promised_and_nothing_held_true():
    model, X, y = certified(m=64, scale=0.001)
    m = loop(model, X, y, torch.optim.SGD(model.parameters(), lr=0.1), eta=None)
    rate = found(m)[kan.RATE]
    state = {a.name: a.holds for a in rate.assumptions}
    assert state["step size"] is None
    assert state["gradient descent"] is None
    assert "forecast" not in m.record
    assert found(m)[kan.ABOVE].verdict is Verdict.UNDECIDED
    assert m.rows[0].lambda_min == pytest.approx(m.local_rate.lambda0)
    assert "step size: not known" in m.report()
    assert all(math.isnan(row.promised) for row in m.rows)


def test_of_another_model_width_is_not_assumed():
    """Everything else holds, and the certificate says what nobody can measure."""
    model, X, y = certified(m=64, scale=0.001)
    hidden = Hidden(model)
    m = loop(hidden, X, y, torch.optim.SGD(hidden.parameters(), lr=0.05), eta=0.05)
    rate = found(m)[kan.RATE]
    assert {a.name for a in rate.assumptions if a.holds is None} == {
        "Lipschitz Jacobian", "wide enough", "step size",
    }  # fmt: skip


def test_the_forecast_is_that_of_the_spectrum_and_re_anchored():
    model, X, y = certified(m=16, scale=1.0)
    t, r0 = tangent(model, X), (model(X) - y).detach()
    run = fit_gd(model, X, y, 20, every=10)
    m = run.monitor
    assert m.record["forecast"][0].tolist() == pytest.approx(
        forecast(t, r0, run.eta, 20).tolist(), rel=1e-9
    )
    again, *_ = certified(m=16)
    fit_gd(again, X, y, 10, eta=run.eta)
    r = (again(X) - y).detach()
    ahead = forecast(tangent(again, X), r, run.eta, 10).tolist()
    assert m.record["reanchored"][0, 11:].tolist() == pytest.approx(ahead[1:], rel=1e-9)
    assert m.rows[2].reanchored == pytest.approx(ahead[10], rel=1e-9)
    # K drifts here, and the anchor helps.
    last = m.rows[-1]
    assert abs(math.log(last.reanchored / last.loss)) < abs(math.log(last.forecast / last.loss))


def test_rows_are_what_they_say():
    model, X, y = certified(m=16, scale=1.0)
    start, K0 = [p.detach().clone() for p in model.parameters()], tangent(model, X)
    run = fit_gd(model, X, y, 7, every=50)
    last, K = run.monitor.rows[-1], tangent(model, X)
    after = [p.detach() for p in model.parameters()]
    moved = math.sqrt(sum(float(((p - s) ** 2).sum()) for p, s in zip(after, start, strict=True)))
    assert (last.step, last.moved) == (7, pytest.approx(moved))
    assert last.lambda_min == pytest.approx(K.lambda_min)
    assert last.drift == pytest.approx(float((K.K - K0.K).norm() / K0.K.norm()))
    assert last.promised == pytest.approx(
        float(run.losses[0]) * (1 - run.eta * K0.lambda_min / 2) ** 7
    )
    assert run.moved == last.moved


def test_violations_are_counted_beyond_rounding():
    model, X, y = certified(m=32, scale=0.5)
    with monitor(model, X, y, eta=0.05) as m:
        for value in (1.0, 0.5, 0.6, 0.6, 0.2):  # 0.6 after 0.5, and no fall after it
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(value)
            m.step()
    losses = m.record["loss"][0]
    factor = 1 - 0.05 * m.local_rate.lambda0 / 2
    assert m.violations == sum(b > factor * a for a, b in pairwise(losses)) > 0
    # At the floor of rounding a symmetric net of tiny labels rises and falls: no violation.
    tiny, X, y = certified(m=128, scale=1e-7)
    assert fit_gd(tiny, X, y, 120, mode="certified", every=120).violations == 0


def test_the_dead_are_counted():
    X = line(5, width=1.3)
    model = KAN2(1, 32, seed=0)
    run = fit_gd(model, X, X[:, 0], 2, eta=1e-3)
    assert run.monitor.rows[0].dead == pytest.approx(0.4)
    assert run.record["dead"][0, 0] == pytest.approx(0.4)


def test_many_rows_take_lanczos(monkeypatch):
    model, X, y = certified(m=16, scale=0.5)
    plain = fit_gd(model, X, y, 4, eta=0.02, every=2).monitor.rows
    monkeypatch.setattr(importlib.import_module("surefoot.kan.monitoring"), "LARGEST", 3)
    again, *_ = certified(m=16)
    long = fit_gd(again, X, y, 4, eta=0.02, every=2).monitor.rows
    for a, b in zip(plain, long, strict=True):
        assert b.lambda_min == pytest.approx(a.lambda_min, rel=1e-6)
        assert b.drift == pytest.approx(a.drift, rel=1e-9)


def test_a_loss_of_other_parameters_is_refused():
    model, X, y = certified(m=16, scale=0.5)
    m = monitor(model, X, y, eta=0.1)
    with pytest.raises(ValueError, match="loss must be .* normalisation='mean' divides it by n"):
        m.step(((model(X) - y) ** 2).mean().detach())
    mean = monitor(model, X, y, eta=0.1, normalisation="mean")
    mean.step((0.5 * (model(X) - y) ** 2).mean().detach())


def test_a_loss_that_is_nan_stops_the_loop():
    model, X, y = certified(m=16, scale=0.5)
    with pytest.raises(NonFiniteError, match="loss is nan at step 1"), monitor(model, X, y) as m:
        m.step()
        with torch.no_grad():
            model.c[0, 3] = math.nan
        m.step()
    # What was recorded until then stays.
    assert m.record["loss"].shape[1] == 2
    with pytest.raises(ValueError, match="before the monitor is closed"):
        m.step()


def test_a_loop_that_fails_is_not_called_gradient_descent():
    model, X, y = certified(m=16, scale=0.5)
    with pytest.raises(RuntimeError, match="a bug"), monitor(model, X, y, eta=0.1) as m:
        m.step()
        raise RuntimeError("a bug")
    assert not m.record.fact("method").all


def test_float32_is_trained_and_not_promised():
    X, y = line(5).float(), (0.001 * line(5)[:, 0]).float()
    model = KAN2(1, 64, symmetric=True, seed=0, dtype=torch.float32)
    m = loop(model, X, y, torch.optim.SGD(model.parameters(), lr=0.05), eta=0.05, tell=False)
    rate = found(m)[kan.RATE]
    assert rate.verdict is Verdict.NOT_PROMISED
    assert "float64 fails" in rate.reason
    assert m.record.fact("method").all == ("gradient descent",)


def test_what_a_monitor_is_as_plain_numbers():
    run = fit_gd(linear(), None, None, 3, mode="certified")
    plain = run.monitor.to_dict()
    assert json.loads(json.dumps(plain))["rows"][0]["step"] == 0
    assert plain["violations"] == 0
    assert plain["start"]["lambda0"] == run.local_rate.lambda0


def test_the_report_names_each_number():
    model, X, y = certified(m=16, scale=1.0)
    text = fit_gd(model, X, y, 6, every=3).monitor.report()
    for words in (
        "lambda0",
        "FAILS: wide enough",
        "1/lambda_max =",
        "violations of T1's rate: 0 of 6 steps",
    ):
        assert words in text
    assert "reanchored" in text.splitlines()[-4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eta": 0.0}, "eta must be positive"),
        ({"every": 0}, "every must be a whole number of at least 1"),
        ({"X": None}, "X must be the points"),
    ],
)
def test_what_a_monitor_refuses(change, message):
    model, X, y = certified(m=16)
    with pytest.raises(ValueError, match=message):
        monitor(**{"model": model, "X": X, "y": y, **change})


def test_a_step_noted_after_the_parameters_changed_is_refused():
    """The residual of the start would stand beside the loss of other parameters."""
    model, X, y = certified(m=64)
    with monitor(model, X, y, eta=0.01) as m:
        with torch.no_grad():
            model.c.add_(1e-3)
        with pytest.raises(ValueError, match="before the parameters change"):
            m.step()


def test_nothing_is_certified_before_the_first_step():
    m = monitor(*certified(m=64), eta=0.01)
    with pytest.raises(ValueError, match="no step was noted"):
        m.certificates()
    with pytest.raises(ValueError, match="no step was noted"):
        m.report()


def test_a_step_that_is_far_too_long_is_not_promised_though_its_forecast_overflows():
    model, X, y = certified(m=64)
    run = fit_gd(model, X, y, 120, eta=1e4 / tangent(model, X).lambda_max)
    assert {str(c.verdict) for c in run.certificates()} == {"NOT_PROMISED"}


@pytest.mark.parametrize("before_backward", [False, True])
def test_another_optimizer_between_two_checkpoints(before_backward):
    """Seen where the loop's gradients are at hand; one that has those of the step before stays right."""
    verdicts = {}
    for sneaky in (False, True):
        model, X, y = certified(m=64, scale=0.5)
        eta = 0.5 / tangent(model, X).lambda_max
        plain = torch.optim.SGD(model.parameters(), lr=eta)
        other = torch.optim.Adam(model.parameters(), lr=1e-3)
        with monitor(model, X, y, eta=eta, every=50) as m:
            for t in range(12):
                loss = 0.5 * ((model(X) - y) ** 2).sum()
                if before_backward:
                    m.step(loss.detach())
                plain.zero_grad()
                loss.backward()
                if not before_backward:
                    m.step(loss.detach())
                (other if sneaky and 4 <= t < 8 else plain).step()
        verdicts[sneaky] = found(m)[kan.ABOVE].assumptions[0].holds
    assert verdicts[False] is True
    assert verdicts[True] is before_backward
