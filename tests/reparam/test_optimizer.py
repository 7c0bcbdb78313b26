import copy
import io
import pickle

import pytest
import torch
from tests.reparam.nets import batches, net, step
from torch import nn

from surefoot.reparam import RepAdamW, RepSGD, branch_scales, convert_to_plain, decay_groups, wrap


def oracle_step(p, g, m, buffer, *, lr, momentum, dampening, weight_decay, nesterov):
    """The update rule of the authors' code, one tensor, written out."""
    g = g * m + weight_decay * p
    if momentum:
        buffer = g.clone() if buffer is None else momentum * buffer + (1 - dampening) * g
        g = g + momentum * buffer if nesterov else buffer
    return p - lr * g, buffer


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"momentum": 0.5, "dampening": 0.4},
    ],
)
def test_update_rule_against_the_authors_rule_written_out(settings):
    g = torch.Generator().manual_seed(0)
    p = nn.Parameter(torch.randn(5, 3, generator=g, dtype=torch.float64))
    q = nn.Parameter(torch.randn(4, generator=g, dtype=torch.float64))
    m = torch.rand(5, 3, generator=g, dtype=torch.float64)
    optimizer = RepSGD([p, q], 0.1, grad_mults={p: m}, **settings)
    full = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, **settings}
    values, buffers = [p.detach().clone(), q.detach().clone()], [None, None]
    for _ in range(5):
        for i, (t, mult) in enumerate(((p, m), (q, 1.0))):
            t.grad = torch.randn(t.shape, generator=g, dtype=torch.float64)
            values[i], buffers[i] = oracle_step(values[i], t.grad, mult, buffers[i], lr=0.1, **full)
        kept = p.grad.clone()
        optimizer.step()
        assert torch.equal(p.grad, kept)
        torch.testing.assert_close(p.data, values[0], atol=1e-14, rtol=1e-14)
        torch.testing.assert_close(q.data, values[1], atol=1e-14, rtol=1e-14)


def test_without_multipliers_it_is_torch_sgd():
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2, "nesterov": True}
    one, _ = convert_to_plain(net(), seed=None)
    two = copy.deepcopy(one)
    ours = RepSGD(one.parameters(), **settings)
    theirs = torch.optim.SGD(two.parameters(), **settings)
    for batch in batches(5):
        step(one, ours, batch), step(two, theirs, batch)
    for x, y in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(x, y, atol=1e-14, rtol=1e-13)


def make(kind):
    csla = net("silu")
    scales = branch_scales(csla)
    plain, mults = convert_to_plain(csla, seed=None)
    return plain, optimizer_of(kind, plain, mults, scales)


def optimizer_of(kind, plain, mults, scales):
    if kind == "sgd":
        return RepSGD(
            decay_groups(plain, 1e-2), 0.05, grad_mults=mults, momentum=0.9, proximal_mu=0.1
        )
    if kind == "adamw":
        return RepAdamW(plain.named_parameters(), 1e-3, scales=scales, weight_decay=1e-2)
    return wrap(torch.optim.SGD(plain.named_parameters(), lr=0.05, momentum=0.9), mults)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "wrapped"])
@pytest.mark.parametrize("through", ["state_dict", "deepcopy", "pickle"])
def test_going_on_equals_never_having_stopped(kind, through):
    plain, optimizer = make(kind)
    all_batches = list(batches(20))
    for batch in all_batches[:10]:
        step(plain, optimizer, batch)
    if through == "state_dict":
        file = io.BytesIO()
        torch.save({"model": plain.state_dict(), "optimizer": optimizer.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        other, again = make(kind)
        other.load_state_dict(saved["model"])
        # a file with multipliers wins over those of construction
        key = "branch_scales" if kind == "adamw" else "grad_mult"
        for state in again.state.values():
            if key in state:
                state[key].fill_(7.0)
        again.load_state_dict(saved["optimizer"])
    elif through == "deepcopy":
        other, again = copy.deepcopy((plain, optimizer))
    else:
        other, again = pickle.loads(pickle.dumps((plain, optimizer)))
    for batch in all_batches[10:]:
        step(plain, optimizer, batch), step(other, again, batch)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize("kind", ["sgd", "wrapped"])
def test_a_state_without_multipliers_leaves_ours(kind):
    plain, optimizer = make(kind)
    before = {p: s["grad_mult"].clone() for p, s in optimizer.state.items() if "grad_mult" in s}
    bare = torch.optim.SGD(
        decay_groups(plain, 0) if kind == "sgd" else plain.parameters(), lr=0.1, momentum=0.9
    )
    optimizer.load_state_dict(bare.state_dict())
    assert before
    assert all(torch.equal(optimizer.state[p]["grad_mult"], m) for p, m in before.items())
    step(plain, optimizer, next(batches(1)))


def test_multipliers_follow_the_dtype():
    for kind in ("sgd", "adamw", "wrapped"):
        plain, optimizer = make(kind)
        step(plain, optimizer, next(batches(1)))
        plain.to(torch.float32)
        if kind == "adamw":
            for state in optimizer.state.values():
                state.update({k: v.float() for k, v in state.items() if k.startswith("exp")})
        if kind == "wrapped":
            for state in optimizer.state.values():
                state["momentum_buffer"] = state["momentum_buffer"].float()
        step(plain, optimizer, next(batches(1, dtype=torch.float32)))
        assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in plain.parameters())


def test_frozen_parameters_stay():
    plain, optimizer = make("sgd")
    frozen = plain[1].conv.weight
    frozen.requires_grad_(False)
    before = frozen.clone()
    step(plain, optimizer, next(batches(1)))
    assert torch.equal(frozen, before)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_not_a_number_is_raised_with_its_parameter(kind):
    plain, optimizer = make(kind)
    for p in plain.parameters():
        p.grad = torch.zeros_like(p)
    plain[2].conv.weight.grad[0, 0, 0, 0] = float("nan")
    before = [p.clone() for p in plain.parameters()]
    with pytest.raises(ArithmeticError, match=r"gradient of 2\.conv\.weight is nan at step 0"):
        optimizer.step()
    assert all(
        torch.equal(a, b)
        for (n, a), b in zip(plain.named_parameters(), before, strict=True)
        if n == "2.conv.weight"
    )


def test_a_large_finite_gradient_is_not_a_fault():
    p = nn.Parameter(torch.zeros(3))
    optimizer = RepSGD([p], 1e-30)
    p.grad = torch.full((3,), 3e38)
    optimizer.step()
    assert torch.isfinite(p).all()


def test_bad_settings():
    p = nn.Parameter(torch.zeros(2, 2))
    for bad in ({"lr": -1.0}, {"lr": 0.1, "weight_decay": -1.0}, {"lr": 0.1, "momentum": -0.1},
                {"lr": float("nan")}, {"lr": 0.1, "nesterov": True},
                {"lr": 0.1, "proximal_mu": -1.0}):  # fmt: skip
        with pytest.raises(ValueError):
            RepSGD([p], **bad)
    for bad in ({"lr": -1.0}, {"betas": (0.9, 1.0)}, {"eps": -1.0}, {"weight_decay": -1.0},
                {"variant": "mine"}):  # fmt: skip
        with pytest.raises(ValueError):
            RepAdamW([p], **bad)
    with pytest.raises(ValueError, match=r"shape \(2, 2\), got \(3,\)"):
        RepSGD([p], 0.1, grad_mults={p: torch.ones(3)})
    with pytest.raises(ValueError, match="at least 0"):
        RepSGD([p], 0.1, grad_mults={p: -torch.ones(2, 2)})
    with pytest.raises(ValueError, match="named_parameters"):
        RepSGD([p], 0.1, grad_mults={"w": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="'v'"):
        RepSGD([("w", p)], 0.1, grad_mults={"v": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="none of the given"):
        RepSGD([p], 0.1, grad_mults={nn.Parameter(torch.ones(1)): torch.ones(1)})
    with pytest.raises(ValueError, match="scales of"):
        RepAdamW([("w", p)], scales={"w": [torch.ones(3)]})


@pytest.mark.parametrize("kind", [RepSGD, RepAdamW])
def test_sparse_gradients_are_refused(kind):
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = kind(table.parameters(), 0.1)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse gradient"):
        optimizer.step()


def test_closure_and_several_groups():
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = RepSGD(
        [{"params": [p], "lr": 1.0}, {"params": q}], 0.5, grad_mults={p: torch.full((2,), 2.0)}
    )

    def closure():
        optimizer.zero_grad()
        loss = (p + q).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4
    assert p.tolist() == [-1, -1]
    assert q.tolist() == [0.5, 0.5]
