"""The fast update against the formula as the paper writes it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.nesterov import AGNES, NAGSchedule
from surefoot.nesterov.decreasing_nag import DecreasingNAG
from surefoot.nesterov.parameters import decreasing_offset
from surefoot.nesterov.reference import ReferenceAGNES

MODES = {
    "single": {"foreach": False, "fused": False},
    "foreach": {"foreach": True, "fused": False},
    "fused": {"fused": True},
}


def start(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (5,), (3, 4, 2), ()]
    return [torch.randn(s, dtype=dtype, generator=generator).requires_grad_() for s in shapes]


def descend(params, optimizer, steps, after=lambda: None):
    for _ in range(steps):
        optimizer.zero_grad()
        sum(((p - 0.3) ** 2).sum() + torch.sin(p).sum() for p in params).backward()
        optimizer.step()
        after()
    return optimizer


def far(a, b):
    return max(float((x - y).detach().abs().max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("mode", MODES)
@given(
    alpha=st.floats(0.0, 0.2),
    eta=st.floats(1e-3, 0.2),
    rho=st.floats(0.0, 0.95),
    decay=st.sampled_from([0.0, 0.1]),
)
@settings(max_examples=20)
def test_every_mode_is_the_formula(mode, alpha, eta, rho, decay):
    ours, theirs = start(), start()
    optimizer = descend(ours, AGNES(ours, alpha, eta, rho, weight_decay=decay, **MODES[mode]), 20)
    reference = descend(theirs, ReferenceAGNES(theirs, alpha, eta, rho, decay), 20)
    assert far(ours, theirs) <= 1e-12
    with optimizer.iterate():
        assert far(ours, [reference.state[p]["x"] for p in theirs]) <= 1e-12
    # With alpha = 0 the velocity plays no part, and the buffer does not follow it.
    if alpha > 1e-6:
        v = [reference.state[p]["v"] for p in theirs]
        assert far([optimizer.velocity(p) for p in ours], v) <= 1e-9


@pytest.mark.parametrize("mode", MODES)
def test_heavy_ball_is_the_formula_with_no_correction(mode):
    ours, theirs = start(), start()
    descend(ours, AGNES(ours, 0.05, 0.0, 0.9, **MODES[mode]), 50)
    descend(theirs, ReferenceAGNES(theirs, 0.05, 0.0, 0.9), 50)
    assert far(ours, theirs) <= 1e-12


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 5e-6), (torch.bfloat16, 0.05), (torch.float16, 0.01)]
)
def test_low_precision_stays_near_the_formula(mode, dtype, most):
    """More elements than a vector register: torch's fused kernel is wrong there (issue 191763)."""
    ours, theirs = start(dtype), start(dtype)
    descend(ours, AGNES(ours, 0.02, 0.05, 0.9, **MODES[mode]), 50)
    descend(theirs, ReferenceAGNES(theirs, 0.02, 0.05, 0.9), 50)
    assert far(ours, theirs) <= most


def test_decreasing_step_is_agnes_under_a_schedule():
    """v = w / sqrt(eta): alpha_n = eta_{n+1}, as y_{n+1} looks ahead with the next step size."""
    mu, L = 0.5, 9.0
    n0 = decreasing_offset(mu, L)

    def rule(n):
        eta, following = (4 / (mu * (k + n0) ** 2) for k in (n, n + 1))
        rho = (1 - 2 / (n + n0)) / (1 + 2 / (n + 1 + n0))
        return eta, following, rho * (n + 1 + n0) / (n + n0)

    ours, theirs = start(), start()
    optimizer = AGNES(ours)
    # rho times the ratio of the step sizes is below 1 for every n: the rule is admissible.
    schedule = NAGSchedule(optimizer, rule)
    descend(ours, optimizer, 40, schedule.step)
    other = descend(theirs, DecreasingNAG(theirs, mu, L), 40)
    assert far(ours, theirs) <= 1e-12
    with optimizer.iterate(), other.iterate():
        assert far(ours, theirs) <= 1e-12
