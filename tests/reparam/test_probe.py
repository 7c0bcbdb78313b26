"""G4, G5 and scale: descent, the safe step size, costs."""

import math
import time

import pytest
import torch
from tests.reparam.nets import scales_for
from torch import nn

from surefoot import Record, certify
from surefoot.errors import UnknownNameError
from surefoot.reparam import (
    DescentMonitor,
    ReparamConv2d,
    RepSGD,
    convert_to_plain,
    cost_report,
    grad_mults,
    repopt_vgg,
    safe_lr,
)
from surefoot.reparam.cost import saved_bytes, state_bytes
from surefoot.reparam.guarantee import costs_of_plain, decreasing, descent, rate
from surefoot.reparam.probe import preconditioned_curvature, untrained


def quadratic(seed=0):
    """Least squares on a linear plain convolution: (model, mults, batch, loss, H, D)."""
    g = torch.Generator().manual_seed(seed)
    csla = ReparamConv2d(2, 2, 3, scales=scales_for(2, ("kxk", "1x1", "identity"), g), generator=g,
                         dtype=torch.float64, norm="none", activation="none")  # fmt: skip
    model, mults = convert_to_plain(csla, seed=None)
    x = torch.randn(20, 2, 5, 5, generator=g, dtype=torch.float64)
    y = torch.randn(20, 2, 5, 5, generator=g, dtype=torch.float64)

    def of_weight(w):
        return nn.functional.mse_loss(nn.functional.conv2d(x, w.view(2, 2, 3, 3), padding=1), y)

    hessian = torch.autograd.functional.hessian(of_weight, model.conv.weight.detach().flatten())
    return model, mults, (x, y), hessian, mults["conv.weight"].flatten(), of_weight


@pytest.mark.parametrize("seed", range(3))
def test_safe_lr_on_a_quadratic(seed, measured):
    model, mults, batch, hessian, d, _ = quadratic(seed)
    dense = float(torch.linalg.eigvalsh(d.sqrt()[:, None] * hessian * d.sqrt())[-1])
    found = safe_lr(model, batch, mults, loss_fn=nn.functional.mse_loss)
    measured(
        "8.10 safe_lr against dense", "within 1 %", f"seed {seed}: {found * dense / 2 - 1:+.1e}"
    )
    assert found == pytest.approx(2 / dense, rel=0.01)
    plain = safe_lr(model, batch, loss_fn=nn.functional.mse_loss)
    assert plain == pytest.approx(2 / float(torch.linalg.eigvalsh(hessian)[-1]), rel=0.01)


def monitored(model, mults, batch, lr, curvature, **given):
    """A monitor of full-batch RepSGD steps on the quadratic."""
    x, y = batch
    optimizer = RepSGD(model.named_parameters(), lr, grad_mults=mults)
    return DescentMonitor(
        model, optimizer, lambda m: nn.functional.mse_loss(m(x), y), curvature, **given
    )


def by_name(certificates):
    return {c.name: c for c in certificates}


def minimiser_of(hessian, of_weight):
    zero = torch.zeros(36, dtype=torch.float64)
    return -torch.linalg.solve(hessian, torch.autograd.functional.vjp(of_weight, zero)[1])


def test_descent_just_below_and_rise_just_above(measured):
    """One step from the minimiser moved along the top eigenvector, just below and above 2 / lambda."""
    model, mults, batch, hessian, d, of_weight = quadratic()
    safe = safe_lr(model, batch, mults, loss_fn=nn.functional.mse_loss)
    _, top = preconditioned_curvature(
        model, lambda m: nn.functional.mse_loss(m(batch[0]), batch[1]), mults
    )
    start = minimiser_of(hessian, of_weight) + top["conv.weight"].flatten()

    def verdict(lr, curvature):
        with torch.no_grad():
            model.conv.weight.copy_(start.view(2, 2, 3, 3))
        monitor = monitored(model, mults, batch, lr, curvature, exact=True, how="Lanczos")
        monitor.step()
        found = by_name(monitor.certificates())["safe step size (G4)"]
        return found.verdict, float(monitor.record["rise"][0, 0])

    below, fall = verdict(0.99 * safe, 2 / safe)
    above, rise = verdict(1.05 * safe, 2 / safe)
    assert (below, above) == ("KEPT", "NOT_PROMISED")
    # the planted fault: a step size that ignores the multipliers
    wrong = safe_lr(model, batch, loss_fn=nn.functional.mse_loss) * float(d.max())
    assert verdict(0.99 * wrong, 2 / wrong)[0] == "BROKEN"
    measured("8.10 descent at 0.99 / rise at 1.05", "< 0 / > 0", f"{fall:.1e} / {rise:.1e}")
    assert fall < 0 < rise


@pytest.mark.parametrize("fault", [False, True])
def test_descent_bound_and_rate(fault):
    model, mults, batch, hessian, d, of_weight = quadratic(1)
    curvature = float(torch.linalg.eigvalsh(d.sqrt()[:, None] * hessian * d.sqrt())[-1])
    smooth = float(torch.linalg.eigvalsh(hessian)[-1])
    lr = 1 / (smooth * float(d.max()))
    least = of_weight(minimiser_of(hessian, of_weight))
    gap0 = float(of_weight(model.conv.weight.detach().flatten()) - least)
    given = {n: 4 * m for n, m in mults.items()} if fault else mults
    monitor = monitored(model, given, batch, lr, curvature, exact=True, how="dense")
    for _ in range(50):
        monitor.step()
    found = by_name(monitor.certificates(smooth, gap0, how="dense"))
    assert set(found) == {"descent (G4)", "safe step size (G4)", "rate (G4)"}
    assert found["descent (G4)"].verdict == ("BROKEN" if fault else "KEPT")
    assert (monitor.violations > 0) == fault
    # The fault is in the multipliers, which the record has: with those, the steps were too long.
    assert found["rate (G4)"].verdict == ("NOT_PROMISED" if fault else "KEPT")
    if not fault:
        assert all(a.holds for c in found.values() for a in c.assumptions)
        squares = torch.tensor(monitor.record["squared step"][0]).cummin(0).values
        curves = monitor.record.curves("least squared step")
        assert curves.steps.tolist() == list(range(1, 51))
        assert curves.values[0].tolist() == squares.tolist()
        bound = rate(smooth, gap0).bound(monitor.record)[0]
        assert bound == pytest.approx([2 * gap0 / (lr * t) for t in range(1, 51)])
        assert certify(monitor.record, rate(smooth, gap0 * 1e-3)).verdict == "BROKEN"


def test_the_rate_takes_the_step_sizes_that_were():
    """A schedule: 2 gap / (lr_0 + ... + lr_{T-1}); and a longer step at any time is no short step."""
    model, mults, batch, hessian, d, _ = quadratic(1)
    smooth = float(torch.linalg.eigvalsh(hessian)[-1])
    lr = 1 / (smooth * float(d.max()))
    monitor = monitored(model, mults, batch, lr, 1.0)
    schedule = torch.optim.lr_scheduler.StepLR(monitor.optimizer, 2, 0.5)
    for _ in range(4):
        monitor.step()
        schedule.step()
    promise = rate(smooth, 1.0)
    assert promise.bound(monitor.record)[0] == pytest.approx([2 / (lr * s) for s in (1, 2, 2.5, 3)])
    states = {a.name: a.holds for a in promise.assumptions(monitor.record)}
    assert states == {"gradient steps": True, "short steps": True, "one step size": True}
    monitor.optimizer.param_groups[0]["lr"] = 3 * lr
    monitor.step()
    assert certify(monitor.record, promise).verdict == "NOT_PROMISED"


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (lambda o: o.param_groups[0].update(momentum=0.9), "gradient steps"),
        (lambda o: o.param_groups[0].update(weight_decay=0.1), "gradient steps"),
        (lambda o: o.param_groups[0].update(proximal_mu=0.1), "gradient steps"),
    ],
)
def test_steps_of_another_kind_between_the_checked_ones_are_seen(change, failing):
    model, mults, batch, *_ = quadratic()
    monitor = monitored(model, mults, batch, 1e-3, 1.0, every=2)
    monitor.step()
    before = {g: monitor.optimizer.param_groups[0][g] for g in ("momentum", "weight_decay")}
    monitor.optimizer.state[model.conv.weight]["anchor"] = model.conv.weight.detach().clone()
    change(monitor.optimizer)
    monitor.step()
    monitor.optimizer.param_groups[0].update(before)
    for certificate in monitor.certificates():
        assert certificate.verdict == "NOT_PROMISED"
        assert failing in certificate.reason


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop])
def test_another_optimizer_under_the_monitor_is_not_promised(kind):
    model, _, (x, y), *_ = quadratic()
    monitor = DescentMonitor(
        model, kind(model.parameters(), lr=1e-2), lambda m: nn.functional.mse_loss(m(x), y), 1.0
    )
    monitor.step()
    assert {c.verdict for c in monitor.certificates()} == {"NOT_PROMISED"}


def test_what_a_record_does_not_say_does_not_hold():
    record = Record()
    record.update(0, 0, {"excess over descent bound": -1.0, "rise": -1.0})
    record.update(0, 1, {"least squared step": 1.0})
    for promise in (descent(), decreasing(), rate(1.0, 1.0)):
        assert {a.holds for a in promise.assumptions(record)} == {None}
    with pytest.raises(UnknownNameError, match="step size"):
        rate(1.0, 1.0).bound(record)
    monitor = monitored(*quadratic()[:3], 1e-3, 1.0)
    monitor.step()
    states = {a.name: a.holds for a in descent().assumptions(monitor.record)}
    assert states == {"gradient steps": True, "curvature": None}


def test_a_monitor_of_some_steps_claims_no_minimum_over_all():
    monitor = monitored(*quadratic()[:3], 1e-3, 1.0, every=2)
    for _ in range(4):
        monitor.step()
    assert "least squared step" not in monitor.record
    assert monitor.record.curves("step size").steps.tolist() == [0, 1, 2, 3]


def test_the_descent_bound_refuses_momentum():
    model, mults, (x, y), *_ = quadratic()
    optimizer = RepSGD(model.named_parameters(), 0.1, grad_mults=mults, momentum=0.9)
    with pytest.raises(ValueError, match="without momentum"):
        DescentMonitor(model, optimizer, lambda m: nn.functional.mse_loss(m(x), y), 1.0).step()


def test_entries_without_a_multiplier_are_listed():
    scales = {"kxk": torch.tensor([0.0, 1.0]), "identity": torch.ones(2)}
    block = ReparamConv2d(2, 2, branches=("kxk", "identity"), scales=scales)
    assert untrained(grad_mults(block)) == {"conv.weight": 2 * 9 - 1}


def test_costs_of_a_device_are_the_plain_networks(measured):
    x, y = torch.randn(8, 1, 16, 16), torch.randint(0, 10, (8,))

    def loss(model):
        return nn.functional.cross_entropy(model(x), y)

    def make(mode):
        return repopt_vgg((2, 2), (8, 16), in_channels=1, mode=mode, strides=(1, 2, 2))

    csla = make("csla")
    rep, mults = convert_to_plain(csla)
    models = {"fedrepopt": rep, "csla": csla, "rep": make("rep"), "plain": make("plain")}
    optimizers = {
        m: RepSGD(v.named_parameters(), 0.01, grad_mults=mults if m == "fedrepopt" else {})
        for m, v in models.items()
    }
    record = Record()
    costs = {
        c.mode: c
        for c in cost_report(
            {m: (models[m], optimizers[m]) for m in models}, loss, rounds=1, record=record
        )
    }
    ours, plain = costs["fedrepopt"], costs["plain"]
    measured(
        "8.7 saved activations RepOpt / plain", "equal", f"{ours.saved_bytes} / {plain.saved_bytes}"
    )
    assert (ours.parameters, ours.bytes_per_round, ours.saved_bytes) == (
        plain.parameters, plain.bytes_per_round, plain.saved_bytes,
    )  # fmt: skip
    assert costs["csla"].parameters > plain.parameters
    assert costs["rep"].saved_bytes > costs["csla"].saved_bytes >= plain.saved_bytes
    columns = record.constant("bytes: fedrepopt")[0], record.constant("parameters: csla")[0]
    assert columns == (ours.bytes_per_round, costs["csla"].parameters)

    def verdict(device, reference):
        promise = costs_of_plain(f"bytes: {device}", f"bytes: {reference}", unit="bytes")
        return certify(record, promise)

    kept = verdict("fedrepopt", "plain")
    assert kept.verdict == "KEPT"
    assert [a.holds for a in kept.assumptions] == [True, True]
    # What carries branches is not promised to be cheap, nor is what stands beside them.
    assert verdict("csla", "plain").verdict == "NOT_PROMISED"
    assert verdict("fedrepopt", "csla").verdict == "NOT_PROMISED"


def test_a_device_that_sends_more_than_the_plain_network_is_broken():
    record = Record()
    record.update(0, 0, {"bytes: ours": 101.0, "bytes: plain": 100.0})
    promise = costs_of_plain("bytes: ours", "bytes: plain", unit="bytes")
    found = certify(record, promise)
    assert found.verdict == "BROKEN"
    assert [a.holds for a in found.assumptions] == [None, None]
    record.note(None, "ours", blocks="plain")
    record.note(None, "plain", blocks="plain")
    assert certify(record, promise).verdict == "BROKEN"


def test_saved_bytes_by_hand():
    """One linear layer saves its input; the squared mean saves its input too."""
    model = nn.Linear(4, 4, bias=False)
    x = torch.randn(8, 4)
    assert saved_bytes(model, lambda m: m(x).square().sum()) == 2 * 8 * 4 * 4
    assert state_bytes(model) == 64


def test_cost_grows_linearly_and_many_tensors_build_fast(measured):
    works = []
    for width in (64, 128, 256):
        csla = ReparamConv2d(width, width)
        plain, mults = convert_to_plain(csla)
        optimizer = RepSGD(plain.named_parameters(), 1e-3, grad_mults=mults, momentum=0.9)
        plain.conv.weight.grad = torch.randn_like(plain.conv.weight)
        works.append((lambda c=csla: grad_mults(c), optimizer.step))
    times = [[math.inf, math.inf] for _ in works]
    # One after the other, and often: what else a machine does then falls on all alike.
    for _ in range(60):
        for best, pair in zip(times, works, strict=True):
            for k, work in enumerate(pair):
                started = time.thread_time()
                work()
                best[k] = min(best[k], time.thread_time() - started)
    growth = [times[2][k] / times[1][k] for k in (0, 1)]
    measured("8.13 cost at twice the width: mults, step", "~4", f"{growth[0]:.1f}, {growth[1]:.1f}")
    # 4 where it is linear, 16 where it is quadratic; caches make small sizes cheaper.
    assert all(g < 9 for g in growth)
    started = time.process_time()
    parameters = [(f"p{i}", nn.Parameter(torch.zeros(4))) for i in range(10_000)]
    optimizer = RepSGD(parameters, 0.1, grad_mults={n: torch.ones(4) for n, _ in parameters})
    for _, p in parameters:
        p.grad = torch.ones(4)
    optimizer.step()
    spent = time.process_time() - started
    measured("8.13 10,000 tensors", "< 5 s", f"{spent:.1f} s")
    assert spent < 5
