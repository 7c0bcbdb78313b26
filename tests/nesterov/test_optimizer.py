"""AGNES and NAG against torch, an independent optimizer, the formula, and the habits of torch.optim."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_optimizer import QHM
from torch import nn

from surefoot.nesterov import AGNES, NAG, agnes_parameters, exact_quadratic_expectation
from surefoot.nesterov._optimizer.update import fused_works

MODES = {
    "single": {"foreach": False, "fused": False},
    "foreach": {"foreach": True, "fused": False},
    "fused": {"fused": True},
}


def tensors(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(7, 5), (5,), (3, 4, 2), (1,), (6,)]
    return [torch.randn(s, dtype=dtype, generator=generator).requires_grad_() for s in shapes]


def loss_of(params):
    return sum(((p - 0.3) ** 2).sum() + torch.sin(p).sum() for p in params)


def run(make, steps=50, dtype=torch.float64, params=None):
    params = tensors(dtype) if params is None else params
    optimizer = make(params)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(params).backward()
        optimizer.step()
    return [p.detach().clone() for p in params], optimizer


def distance(a, b):
    return max(float((x - y).detach().abs().max()) for x, y in zip(a, b, strict=True))


def groups(params, **constants):
    """Three groups with constants of their own."""
    return [
        {"params": params[:2], **constants},
        {"params": params[2:3], **constants, "lr": constants["lr"] / 2},
        {"params": params[3:], **constants, "momentum": 0.5},
    ]


@pytest.mark.parametrize("mode", MODES)
def test_nag_is_torch_sgd_with_nesterov(mode):
    constants = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
    ours, _ = run(lambda p: NAG(groups(p, **constants), 0.05, 0.9, **MODES[mode]), 200)
    theirs, _ = run(
        lambda p: torch.optim.SGD(groups(p, **constants), 0.05, 0.9, nesterov=True), 200
    )
    assert distance(ours, theirs) <= 1e-12


@pytest.mark.parametrize("mode", ["foreach", "fused"])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.08])
def test_modes_agree(mode, dtype, most, alpha):
    def make(p, mode):
        return AGNES(p, lr=alpha, correction=0.05, momentum=0.9, weight_decay=0.01, **MODES[mode])

    ours, _ = run(lambda p: make(p, mode), 200, dtype)
    loop, _ = run(lambda p: make(p, "single"), 200, dtype)
    assert distance(ours, loop) <= most


def two_step_form(alpha, eta, rho, steps, decay=0.0):
    """arXiv 2302.05515 as it stands: x, y, v, one line each."""
    x = [p.detach().clone() for p in tensors()]
    v = [torch.zeros_like(p) for p in x]
    for _ in range(steps):
        y = [(a + alpha * b).requires_grad_() for a, b in zip(x, v, strict=True)]
        g = torch.autograd.grad(loss_of(y), y)
        g = [a + decay * b.detach() for a, b in zip(g, y, strict=True)]
        x = [a.detach() - eta * b for a, b in zip(y, g, strict=True)]
        v = [rho * (a - b) for a, b in zip(v, g, strict=True)]
    return x, [a + alpha * b for a, b in zip(x, v, strict=True)], v


@pytest.mark.parametrize("mode", MODES)
@given(
    alpha=st.floats(1e-4, 0.2), eta=st.floats(1e-4, 0.2), rho=st.floats(0.0, 0.95),
    decay=st.sampled_from([0.0, 0.1]),
)  # fmt: skip
@settings(max_examples=15)
def test_agnes_is_the_two_step_form(mode, alpha, eta, rho, decay):
    x, y, v = two_step_form(alpha, eta, rho, 20, decay)
    params = tensors()
    _, optimizer = run(
        lambda p: AGNES(p, alpha, eta, rho, weight_decay=decay, **MODES[mode]), 20, params=params
    )
    assert distance(params, y) <= 1e-11
    with optimizer.iterate():
        assert distance(params, x) <= 1e-11
    if rho > 0:
        assert distance([optimizer.velocity(p) for p in params], v) <= 1e-9


def test_special_cases():
    ours, _ = run(lambda p: AGNES(p, lr=0.0, correction=0.05, momentum=0.9))
    sgd, _ = run(lambda p: torch.optim.SGD(p, lr=0.05))
    assert distance(ours, sgd) <= 1e-13
    _, y, _ = two_step_form(0.05, 0.0, 0.9, 50)
    ours, _ = run(lambda p: AGNES(p, lr=0.05, correction=0.0, momentum=0.9))
    assert distance(ours, y) <= 1e-12


def test_agnes_is_quasi_hyperbolic_momentum():
    alpha, eta, rho = 0.01, 0.04, 0.9
    lam = torch.linspace(0.1, 5, 50, dtype=torch.float64)

    def quadratic(make):
        x = torch.ones(50, dtype=torch.float64, requires_grad=True)
        optimizer = make([x])
        for _ in range(200):
            optimizer.zero_grad()
            (0.5 * (lam * x**2).sum()).backward()
            optimizer.step()
        return x.detach()

    rate = eta + alpha * rho / (1 - rho)
    ours = quadratic(lambda p: AGNES(p, alpha, eta, rho))
    theirs = quadratic(lambda p: QHM(p, lr=rate, momentum=rho, nu=(alpha * rho / (1 - rho)) / rate))
    assert float((ours - theirs).abs().max()) <= 1e-12


def test_one_buffer_a_parameter():
    params, optimizer = tensors(), None
    _, optimizer = run(lambda p: AGNES(p), 3, params=params)
    held = sum(t.numel() for s in optimizer.state.values() for t in s.values())
    assert held == sum(p.numel() for p in params)


def test_iterate_restores_bit_for_bit_and_refuses_steps():
    params = tensors()
    _, optimizer = run(lambda p: AGNES(p), 7, params=params)
    before = [p.detach().clone() for p in params]
    with optimizer.iterate():
        assert not torch.equal(params[0], before[0])
        assert optimizer.state_dict()["param_groups"][0]["point"] == "x"
        with pytest.raises(RuntimeError, match="step\\(\\) inside iterate"):
            optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    assert optimizer.state_dict()["param_groups"][0]["point"] == "y"
    with optimizer.iterate():
        x = [p.detach().clone() for p in params]
    optimizer.finalize()
    assert distance(params, x) == 0
    # From rest: x and y are now the same point.
    with optimizer.iterate():
        assert distance(params, x) == 0


@pytest.mark.parametrize("before", MODES)
@pytest.mark.parametrize("after", MODES)
def test_state_dict_round_trip_is_bit_exact(before, after):
    params = tensors()
    optimizer = AGNES(params, 0.02, 0.05, 0.9, **MODES[before])

    def steps(ps, o, n):
        for _ in range(n):
            o.zero_grad()
            loss_of(ps).backward()
            o.step()

    steps(params, optimizer, 10)
    other = [p.detach().clone().requires_grad_() for p in params]
    stored = pickle.loads(pickle.dumps(optimizer.state_dict()))
    again = AGNES(other, **MODES[after])
    for group in stored["param_groups"]:
        group |= {"foreach": None, "fused": None} | MODES[after]
    again.load_state_dict(stored)
    for group in optimizer.param_groups:
        group |= {"foreach": None, "fused": None} | MODES[after]
    steps(params, optimizer, 10)
    steps(other, again, 10)
    assert all(torch.equal(a, b) for a, b in zip(params, other, strict=True))


def test_deepcopy_and_pickle_continue_bit_identically():
    model = nn.Linear(4, 3, dtype=torch.float64)
    optimizer = NAG(model.parameters(), 0.05, 0.9)
    x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def steps(m, o, n):
        for _ in range(n):
            o.zero_grad()
            (m(x) ** 2).sum().backward()
            o.step()

    steps(model, optimizer, 5)
    copies = [
        copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))
    ]  # fmt: skip
    steps(model, optimizer, 5)
    for other_model, other in copies:
        steps(other_model, other, 5)
        assert torch.equal(model.weight, other_model.weight)


def test_missing_gradients_are_skipped_and_keep_their_velocity():
    params = tensors()
    optimizer = AGNES(params)
    loss_of(params).backward()
    optimizer.step()
    kept, velocity = params[1].detach().clone(), optimizer.velocity(params[1])
    params[1].grad = None
    optimizer.step()
    assert torch.equal(params[1], kept)
    assert torch.equal(optimizer.velocity(params[1]), velocity)


def test_gradients_are_never_changed():
    for mode in MODES.values():
        params = tensors()
        optimizer = AGNES(params, weight_decay=0.1, maximize=True, **mode)
        loss_of(params).backward()
        before = [p.grad.clone() for p in params]
        optimizer.step()
        assert all(torch.equal(p.grad, b) for p, b in zip(params, before, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_maximize_and_complex(mode):
    up, _ = run(lambda p: AGNES(p, 0.01, 0.02, 0.5, maximize=True, **MODES[mode]), 5)
    start = tensors()
    for p in start:
        p.grad = None
    optimizer = AGNES(start, 0.01, 0.02, 0.5, **MODES[mode])
    for _ in range(5):
        optimizer.zero_grad()
        (-loss_of(start)).backward()
        optimizer.step()
    assert distance(up, start) <= 1e-13
    z = torch.tensor([1 + 2j, -0.5j], requires_grad=True, dtype=torch.complex128)
    pair = torch.view_as_real(z.detach()).clone().requires_grad_()
    for p, f in ((z, lambda: (z.abs() ** 2).sum()), (pair, lambda: (pair**2).sum())):
        optimizer = AGNES([p], 0.01, 0.02, 0.5, **MODES[mode])
        for _ in range(5):
            optimizer.zero_grad()
            f().backward()
            optimizer.step()
    assert float((torch.view_as_real(z.detach()) - pair.detach()).abs().max()) <= 1e-15


def test_sparse_gradients_are_named():
    embedding = nn.Embedding(4, 2, sparse=True)
    optimizer = AGNES(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="parameter 0 has a sparse gradient"):
        optimizer.step()


def test_closure_runs_with_gradients():
    x = torch.ones(2, requires_grad=True)
    optimizer = NAG([x], 0.1, 0.5)

    def closure():
        optimizer.zero_grad()
        loss = (x**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert float(optimizer.step(closure).detach()) == 2.0
    assert float(x[0].detach()) < 1


def test_amp_scaler_skips_infinite_gradients_and_unscales():
    for mode in MODES.values():
        x = torch.ones(3, requires_grad=True)
        optimizer = NAG([x], 0.1, 0.5, **mode)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        scaler.scale((x**2).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        twin = torch.ones(3, requires_grad=True)
        other = NAG([twin], 0.1, 0.5, **mode)
        (twin**2).sum().backward()
        other.step()
        torch.testing.assert_close(x, twin)
        before = x.detach().clone()
        optimizer.zero_grad()
        scaler.scale((x * float("inf")).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(x, before)


@pytest.mark.filterwarnings("ignore")  # inductor and its dependencies warn in their own code
def test_compiled_step():
    ours, _ = run(lambda p: AGNES(p, 0.02, 0.05, 0.9), 4)
    params = tensors()
    optimizer = AGNES(params, 0.02, 0.05, 0.9)
    step = torch.compile(optimizer.step, backend="eager")
    for _ in range(4):
        optimizer.zero_grad()
        loss_of(params).backward()
        step()
    assert distance(params, ours) <= 1e-12


def test_tensor_learning_rate():
    rate = torch.tensor(0.05, dtype=torch.float64)
    ours, _ = run(lambda p: NAG(p, rate, 0.9, capturable=True))
    plain, _ = run(lambda p: NAG(p, 0.05, 0.9))
    assert distance(ours, plain) <= 1e-12


def test_velocity_survives_changed_constants():
    """v is continuous when the three constants move: the reference keeps v itself."""
    rates = [(0.05, 0.02, 0.9), (0.04, 0.03, 0.8), (0.02, 0.02, 0.0), (0.03, 0.01, 0.95)] * 3
    x = [p.detach().clone() for p in tensors()]
    v = [torch.zeros_like(p) for p in x]
    y = [p.clone() for p in x]
    params = tensors()
    optimizer = AGNES(params, *rates[0])
    for group in optimizer.param_groups:
        group["scheduled"] = True
    for alpha, eta, rho in rates:
        leaves = [p.clone().requires_grad_() for p in y]
        g = torch.autograd.grad(loss_of(leaves), leaves)
        x = [a - eta * b for a, b in zip(y, g, strict=True)]
        v = [rho * (a - b) for a, b in zip(v, g, strict=True)]
        y = [a + alpha * b for a, b in zip(x, v, strict=True)]
        for group in optimizer.param_groups:
            group |= {"lr": alpha, "correction": eta, "momentum": rho}
        optimizer.zero_grad()
        loss_of(params).backward()
        optimizer.step()
    assert distance(params, y) <= 1e-12


@pytest.mark.parametrize("make", [lambda p: AGNES(p), lambda p: NAG(p, 0.1, 0.9)])
def test_a_scheduler_of_lr_alone_is_warned_about_once(make):
    params = tensors()
    optimizer = make(params)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(4):
            optimizer.zero_grad()
            loss_of(params).backward()
            optimizer.step()
            scheduler.step()
    assert ["alpha moved without" in str(w.message) for w in caught] == [True]


def test_fused_kernel_is_there():
    assert fused_works("cpu")
    assert not fused_works("meta")


def test_many_seeds_agree_with_the_oracle():
    """20,000 runs in one tensor against the exact expectation, within four standard errors."""
    lam = torch.tensor([1.0, 20.0], dtype=torch.float64)
    params = agnes_parameters(1.0, 20.0, 1.0)
    steps = 50
    exact = exact_quadratic_expectation((1.0, 20.0), (1.0, 1.0), params, 1.0, 0.0, steps)[-1]
    assert exact == pytest.approx(9.307637e-4, rel=1e-6)
    generator = torch.Generator().manual_seed(0)
    x = torch.ones(20_000, 2, dtype=torch.float64, requires_grad=True)
    optimizer = AGNES.from_constants([x], mu=1.0, L=20.0, sigma_mult=1.0)
    for _ in range(steps):
        gradient = lam * x.detach()
        noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        size = (gradient**2).sum(dim=1, keepdim=True) / 2
        x.grad = gradient + size.sqrt() * noise
        optimizer.step()
    with optimizer.iterate(), torch.no_grad():
        values = 0.5 * (lam * x**2).sum(dim=1).numpy()
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - exact) <= 4 * error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"lr": -0.1}, "lr must be >= 0, got -0.1"),
        ({"lr": float("nan")}, "lr must be .*, got nan"),
        ({"correction": -1.0}, "correction must be >= 0, got -1.0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": -0.1}, r"momentum must be in \[0, 1\), got -0.1"),
        ({"weight_decay": -0.1}, "weight_decay must be >= 0, got -0.1"),
        ({"foreach": True, "fused": True}, "foreach and fused cannot both be True"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        AGNES(tensors(), **arguments)
    with pytest.raises(ValueError, match=says):
        AGNES([{"params": tensors(), **arguments}])


LAYOUTS = {
    "as usual": (lambda t: t.clone(), lambda t: t.clone()),
    "gradient crosswise": (lambda t: t.clone(), lambda t: t.t().contiguous().t()),
    "parameter crosswise": (lambda t: t.t().contiguous().t(), lambda t: t.clone()),
    "both crosswise": (lambda t: t.t().contiguous().t(),) * 2,
    "parameter with gaps": (lambda t: spread(t), lambda t: t.clone()),
    "both with gaps": (lambda t: spread(t),) * 2,
    "gradient of one row, expanded": (lambda t: t.clone(), lambda t: t[:1].expand_as(t)),
}


def spread(t):
    """Every second column of a wider matrix."""
    found = torch.full((t.shape[0], 2 * t.shape[1]), 7.0, dtype=t.dtype)[:, ::2]
    return found.copy_(t)


@pytest.mark.parametrize(
    ("layout", "scaled"),
    # torch's own scaler cannot take a scale off numbers that share their memory.
    [(k, s) for k in LAYOUTS for s in (False, True) if not (s and "expanded" in k)],
)
@pytest.mark.parametrize("mode", MODES)
def test_where_numbers_lie_in_memory_changes_nothing(mode, layout, scaled):
    """The fused kernel of torch walks through memory, whatever the strides of a gradient say."""
    lay, lay_gradient = LAYOUTS[layout]
    start = torch.arange(12.0, dtype=torch.float64).reshape(3, 4)
    p = nn.Parameter(lay(start))
    around = p.detach().as_strided((p.untyped_storage().nbytes() // 8,), (1,), 0).clone()
    optimizer = AGNES([p], lr=0.1, correction=0.05, momentum=0.9, **MODES[mode])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=scaled)
    x, v = start.clone(), torch.zeros_like(start)
    rows = [start.sin(), start.cos(), -start]
    gradients = [lay_gradient(g) for g in rows]
    for g in gradients:
        p.grad = (lay_gradient(4 * g) if scaled else g).detach()
        scaler.scale(torch.zeros(()))  # the scaler counts as used only then
        scaler.step(optimizer)
        scaler.update()
        # The iterates of arXiv 2302.05515; p is where the gradient is taken: x + alpha v.
        y = x + 0.1 * v
        x = y - 0.05 * g
        v = 0.9 * (v - g)
    torch.testing.assert_close(p.detach(), x + 0.1 * v, rtol=1e-12, atol=1e-12)
    if "gaps" in layout:
        after = p.detach().as_strided(around.shape, (1,), 0)
        assert torch.equal(after[1::2], around[1::2])
