"""G4, G5 and scale: descent, the safe step size, costs."""

import time

import pytest
import torch
from tests.reparam.nets import scales_for
from torch import nn

from surefoot import Record, certify
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


def rises(model, mults, batch, lr, direction):
    """One full-batch step from the minimiser moved along the top eigenvector: f(W+) - f(W)."""
    x, y = batch
    with torch.no_grad():
        model.conv.weight.copy_(direction)
    optimizer = RepSGD(model.named_parameters(), lr, grad_mults=mults)
    before = nn.functional.mse_loss(model(x), y)
    before.backward()
    optimizer.step()
    with torch.no_grad():
        return float(nn.functional.mse_loss(model(x), y) - before)


def test_descent_just_below_and_rise_just_above(measured):
    model, mults, batch, hessian, d, of_weight = quadratic()
    safe = safe_lr(model, batch, mults, loss_fn=nn.functional.mse_loss)
    zero = torch.zeros(36, dtype=torch.float64)
    minimiser = -torch.linalg.solve(hessian, torch.autograd.functional.vjp(of_weight, zero)[1])
    _, top = preconditioned_curvature(
        model, lambda m: nn.functional.mse_loss(m(batch[0]), batch[1]), mults
    )
    start = (minimiser + top["conv.weight"].flatten()).view(2, 2, 3, 3)
    found = {}
    for factor in (0.99, 1.05):
        record = Record()
        record.update(0, 0, {"rise": rises(model, mults, batch, factor * safe, start)})
        found[factor] = float(record["rise"][0, 0])
        verdict = certify(record, decreasing(factor * safe, safe)).verdict
        assert verdict == ("KEPT" if factor < 1 else "NOT_PROMISED")
    # the planted fault: a step size that ignores the multipliers
    wrong = safe_lr(model, batch, loss_fn=nn.functional.mse_loss) * float(d.max())
    record = Record()
    record.update(0, 0, {"rise": rises(model, mults, batch, 0.99 * wrong, start)})
    assert certify(record, decreasing(0.99 * wrong, wrong)).verdict == "BROKEN"
    measured(
        "8.10 descent at 0.99 / rise at 1.05", "< 0 / > 0", f"{found[0.99]:.1e} / {found[1.05]:.1e}"
    )
    assert found[0.99] < 0 < found[1.05]


@pytest.mark.parametrize("fault", [False, True])
def test_descent_bound_and_rate(fault):
    model, mults, (x, y), hessian, d, of_weight = quadratic(1)
    curvature = float(torch.linalg.eigvalsh(d.sqrt()[:, None] * hessian * d.sqrt())[-1])
    smooth = float(torch.linalg.eigvalsh(hessian)[-1])
    lr = 1 / (smooth * float(d.max()))
    zero = torch.zeros(36, dtype=torch.float64)
    minimiser = -torch.linalg.solve(hessian, torch.autograd.functional.vjp(of_weight, zero)[1])
    gap0 = float(of_weight(model.conv.weight.detach().flatten()) - of_weight(minimiser))
    record = Record()
    given = {n: 4 * m for n, m in mults.items()} if fault else mults
    optimizer = RepSGD(model.named_parameters(), lr, grad_mults=given)
    monitor = DescentMonitor(
        model, optimizer, lambda m: nn.functional.mse_loss(m(x), y), curvature, record=record
    )
    for _ in range(50):
        monitor.step()
    squares = torch.tensor(record["squared step"][0]).cummin(0).values
    record.extend(0, "least squared step", squares.tolist(), range(1, 51))
    verdict = certify(record, descent(lr, curvature, exact=True, how="dense")).verdict
    assert verdict == ("BROKEN" if fault else "KEPT")
    assert (monitor.violations > 0) == fault
    if not fault:
        assert certify(record, rate(lr, smooth, float(d.max()), gap0)).verdict == "KEPT"
        assert certify(record, rate(lr, smooth, float(d.max()), gap0 * 1e-3)).verdict == "BROKEN"
        assert certify(record, rate(3 * lr, smooth, float(d.max()), gap0)).verdict == "NOT_PROMISED"


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
    costs = {
        c.mode: c
        for c in cost_report({m: (models[m], optimizers[m]) for m in models}, loss, rounds=1)
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
    record = Record()
    record.update(0, 0, {"bytes": ours.bytes_per_round})
    promise = costs_of_plain(plain.bytes_per_round, quantity="bytes", unit="bytes per round")
    assert certify(record, promise).verdict == "KEPT"
    record = Record()
    record.update(0, 0, {"bytes": costs["csla"].bytes_per_round})
    assert certify(record, promise).verdict == "BROKEN"


def test_saved_bytes_by_hand():
    """One linear layer saves its input; the squared mean saves its input too."""
    model = nn.Linear(4, 4, bias=False)
    x = torch.randn(8, 4)
    assert saved_bytes(model, lambda m: m(x).square().sum()) == 2 * 8 * 4 * 4
    assert state_bytes(model) == 64


def test_cost_grows_linearly_and_many_tensors_build_fast(measured):
    times = []
    for width in (64, 128, 256):
        csla = ReparamConv2d(width, width)
        plain, mults = convert_to_plain(csla)
        optimizer = RepSGD(plain.named_parameters(), 1e-3, grad_mults=mults, momentum=0.9)
        plain.conv.weight.grad = torch.randn_like(plain.conv.weight)
        best = []
        for work in (lambda c=csla: grad_mults(c), optimizer.step):
            spent = []
            for _ in range(7):
                started = time.thread_time()
                work()
                spent.append(time.thread_time() - started)
            best.append(min(spent))
        times.append(best)
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
