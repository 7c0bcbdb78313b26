"""f* is a claim: every anchor and every point of the run is held against it, down to rounding."""

import numpy as np
import pytest
import torch
from torch import nn

from surefoot.guarantee import Verdict
from surefoot.nesterov import NAG, Landscape, Ledger
from surefoot.nesterov._probe.projection import Projection, project

SCALE = torch.tensor([0.01, 1.0], dtype=torch.float64)
ONE = torch.ones(1, 1, dtype=torch.float64)


class Rows(nn.Module):
    """Residuals sqrt(scale) x, whose half squared sum is a quadratic with minimum 0 at the origin."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, _):
        return (SCALE.sqrt() * self.x).reshape(1, 2)


def half_sum(output, target):
    return 0.5 * ((output - target) ** 2).sum()


def quadratic(anchor="callable", steps=200, offset=0.0, shift=0.0, f_star=0.0):
    """mu = 0.01, L = 1, minimum `offset` at `shift`, under NAG with eta = 1."""
    model = Rows()
    zero = torch.zeros(1, 2, dtype=torch.float64)
    landscape = Landscape(model, half_sum, (ONE, zero))
    with torch.no_grad():
        model.x.add_(shift)

    def f():
        if anchor == "project":
            return half_sum(model(ONE), zero) + offset
        return 0.5 * (SCALE * (model.x - shift) ** 2).sum() + offset

    optimizer = NAG(model.parameters(), lr=1.0, momentum=0.9 / 1.1)
    minimiser = torch.full((2,), shift, dtype=torch.float64)
    chosen = {"callable": lambda y: minimiser.clone(), "tensor": minimiser}.get(anchor, anchor)
    ledger = Ledger(
        optimizer, f, mu=0.01, eta=1.0, f_star=f_star, anchor=chosen, landscape=landscape
    )
    for _ in range(steps):
        optimizer.zero_grad()
        f().backward()
        ledger.record()
        optimizer.step()
    return ledger.close()


@pytest.mark.parametrize("f_star", [1e-4, -1e-6])
@pytest.mark.parametrize(("anchor", "steps"), [("callable", 150), ("project", 60), ("final", 250)])
def test_a_wrong_f_star_is_unknown_and_named(anchor, steps, f_star):
    found = quadratic(anchor, steps, f_star=f_star)
    assert found.verdict is Verdict.UNDECIDED
    assert found.landscape.startswith("unknown")
    assert f"f* = {f_star:g}" in found.landscape


@pytest.mark.parametrize("f_star", [1e-4, -1e-4, 1.0])
def test_a_fixed_anchor_refuses_a_wrong_f_star_at_once(f_star):
    with pytest.raises(ValueError, match=f"f_star = {f_star:g}"):
        quadratic("tensor", f_star=f_star)


@pytest.mark.parametrize("anchor", ["callable", "tensor", "project", "final"])
def test_the_right_f_star_is_benign(anchor):
    steps = {"final": 300, "project": 60}.get(anchor, 200)
    found = quadratic(anchor, steps)
    assert found.verdict is Verdict.KEPT
    # The last iterate is no minimiser yet: aiming at it may fail by what it misses, and is paid for.
    assert found.landscape == "benign" or anchor == "final"
    assert found.failures["total"] == 0


def test_an_anchor_that_is_wrong_for_a_while_is_noticed():
    """Right at both ends; in between it lies far behind the minimiser, where y would seem to aim."""
    calls = 0

    def anchor(y):
        nonlocal calls
        calls += 1
        return -5.0 * y if 20 <= calls < 40 else torch.zeros_like(y)

    x = torch.ones(2, dtype=torch.float64, requires_grad=True)

    def f():
        return 0.5 * (SCALE * x**2).sum()

    optimizer = NAG([x], lr=1.0, momentum=0.9 / 1.1)
    ledger = Ledger(optimizer, f, mu=0.01, eta=1.0, anchor=anchor)
    for _ in range(100):
        optimizer.zero_grad()
        f().backward()
        ledger.record()
        optimizer.step()
    assert "the anchor is no minimiser" in ledger.close().landscape


@pytest.mark.parametrize("offset", [1.0, -5.0, 1000.0])
@pytest.mark.parametrize(("anchor", "steps"), [("callable", 200), ("tensor", 200), ("final", 400)])
@pytest.mark.acceptance
def test_rounding_of_f_is_no_news_about_the_landscape(anchor, steps, offset):
    """Shifted by a constant, f has the same landscape; its last digits end the judging early."""
    found = quadratic(anchor, steps, offset=offset, f_star=offset)
    assert found.landscape.startswith("benign")
    assert found.verdict is Verdict.KEPT
    assert found.judged < steps
    assert any("judging stopped at step" in note and "rounding" in note for note in found.notes)


@pytest.mark.parametrize("shift", [1.0, -300.0])
def test_rounding_of_the_parameters_is_no_news_about_the_landscape(shift):
    found = quadratic("final", 600, shift=shift)
    assert found.verdict is Verdict.KEPT
    assert found.failures["total"] == 0


def diverging(f_star):
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)

    def f():
        return 0.5 * (torch.tensor([1.0, 30.0], dtype=torch.float64) * x**2).sum() - 100.0

    optimizer = NAG([x], lr=1.0, momentum=0.9 / 1.1)
    ledger = Ledger(optimizer, f, mu=0.01, eta=1.0, f_star=f_star)
    for _ in range(6):
        optimizer.zero_grad()
        f().backward()
        ledger.record()
        optimizer.step()
    return ledger.close()


@pytest.mark.filterwarnings("ignore::surefoot.nesterov.SmoothnessWarning")
@pytest.mark.parametrize(
    ("f_star", "says"),
    [
        (-100.0, "not-benign(smoothness)"),
        (None, "unknown: f* is not known"),
        (0.0, "f* = 0 is not"),
    ],
)
def test_a_run_that_diverged_is_judged_against_a_known_f_star_only(f_star, says):
    assert says in diverging(f_star).landscape


def test_a_step_that_is_too_long_is_warned_of_without_f_star():
    with pytest.warns(UserWarning, match="too long for the smoothness"):
        diverging(None)


class Hyperbola(nn.Module):
    """(ab - 1)^2 / 2 with its minimisers ab = 1."""

    def __init__(self):
        super().__init__()
        self.ab = nn.Parameter(torch.tensor([0.3, 1.7], dtype=torch.float64))

    def forward(self, _):
        return (self.ab[0] * self.ab[1]).reshape(1, 1)


def hyperbola(steps, mu=0.5, eta=0.1, judge=None):
    model = Hyperbola()
    landscape = Landscape(model, half_sum, (ONE, ONE))
    s = (mu * eta) ** 0.5

    def f():
        return half_sum(model(ONE), ONE)

    optimizer = NAG(model.parameters(), lr=eta, momentum=(1 - s) / (1 + s))
    ledger = Ledger(optimizer, f, mu=mu, eta=eta, anchor="project", landscape=landscape)
    for _ in range(steps):
        optimizer.zero_grad()
        f().backward()
        ledger.record()
        optimizer.step()
    return ledger.close(judge=judge)


@pytest.mark.parametrize("steps", [40, 60, pytest.param(120, marks=pytest.mark.acceptance)])
def test_a_projected_run_that_has_converged_is_judged(steps):
    found = hyperbola(steps)
    assert (found.landscape, found.verdict) == ("benign", Verdict.KEPT)
    assert found.judged >= min(steps, 50)


def test_a_projection_that_fails_is_unknown_wherever_it_does(monkeypatch):
    def failing(self, y=None, tol=1e-8, *, max_residuals=3000):
        return Projection(y, 1.0, 0.5, 0.5, False, 1.0)

    monkeypatch.setattr(Landscape, "project", failing)
    found = hyperbola(5)
    assert found.verdict is Verdict.UNDECIDED
    assert "projection failed (residual 0.5, optimality 0.5) at step 0" in found.landscape


@pytest.mark.parametrize("exponent", range(-5, -17, -1))
def test_projection_next_to_the_minimisers_is_right_to_rounding(exponent):
    """A point of ab = 1, moved along its normal: the point itself is closest, at every distance."""
    generator = torch.Generator().manual_seed(-exponent)
    for _ in range(10):
        a = 0.3 + 1.5 * torch.rand((), dtype=torch.float64, generator=generator)
        on = torch.stack([a, 1 / a])
        normal = torch.stack([1 / a, a]) / torch.stack([1 / a, a]).norm()
        along = a * (1 + 10.0**exponent * torch.randn((), dtype=torch.float64, generator=generator))
        found = project(
            lambda t: (t[0] * t[1] - 1).reshape(1),
            on + 10.0**exponent * normal,
            torch.stack([along, 1 / along]),
        )
        assert found.ok
        np.testing.assert_allclose(found.point.numpy(), on.numpy(), rtol=0, atol=1e-14)


def test_an_anchor_that_is_nothing_is_refused_before_the_run():
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = NAG.from_constants([x], mu=0.01, L=1.0)
    with pytest.raises(ValueError, match="anchor must be .*'final', 'project'.*, got None"):
        Ledger(optimizer, lambda: x.square().sum(), mu=0.01, eta=1.0, anchor=None)
