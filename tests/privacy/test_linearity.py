"""The assumption meter: exact on linear recursions, and its verdicts on four real trainings."""

import math

import numpy as np
import pytest
import torch

from surefoot.privacy import LinearityMeter, LinearWeights
from surefoot.privacy.experiments.linear import CASES, measured
from surefoot.privacy.probe import gradient_drift, judge


def recursion(decay=0.0, momentum=0.0, steps=20, size=6):
    """SGD on noise alone, linear in every gradient."""

    def run(injections, seed):
        generator = torch.Generator().manual_seed(seed)
        parameter = torch.nn.Parameter(torch.zeros(size, dtype=torch.float64))
        optimizer = torch.optim.SGD([parameter], lr=0.5, momentum=momentum, weight_decay=decay)
        for t in range(steps):
            gradient = torch.randn(size, generator=generator, dtype=torch.float64)
            parameter.grad = gradient + injections.get(t, 0)
            optimizer.step()
        return parameter

    return run, steps


@pytest.mark.parametrize(("decay", "momentum"), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.9)])
def test_linear_recursions_are_read_exactly(decay, momentum):
    run, steps = recursion(decay, momentum)
    found = LinearityMeter(run, steps, scale=0.5, probes=steps).measure()
    optimizer = torch.optim.SGD(
        [torch.nn.Parameter(torch.zeros(1))], lr=0.5, momentum=momentum, weight_decay=decay
    )
    expected = LinearWeights.from_optimizer(optimizer, steps).values / 0.5
    np.testing.assert_allclose(found.weights, expected, rtol=1e-9)
    np.testing.assert_allclose(np.abs(found.weights), found.norms, rtol=1e-9)
    np.testing.assert_allclose(np.abs(found.cosines), 1, rtol=1e-9)
    assert (found.steps == np.arange(steps)).all()


def test_plain_sgd_is_ok():
    run, steps = recursion()
    assert LinearityMeter(run, steps, scale=0.5).measure().finding == "OK"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_four_trainings(case):
    """MLP with lr 8 is violated at two of three seeds, by the norm of its answer at the first step."""
    findings = [measured(case, seed, 6).finding for seed in range(3)]
    assert case.expected in findings
    if case.name != "MLP, lr 8":
        assert set(findings) == {case.expected}
    else:
        assert "OK" not in findings


def test_weight_decay_is_recovered():
    decay = next(c for c in CASES if "decay" in c.name)
    found = measured(decay, 0, 20)
    late = found.steps >= 36
    expected = 0.9 ** (59 - found.steps[late])
    np.testing.assert_allclose(found.weights[late], expected, rtol=0.1)


@pytest.mark.parametrize(
    ("weights", "norms", "finding"),
    [
        ([1.0, 1.0], [1.0, 1.0], "OK"),
        ([1.0, 0.6], [1.0, 0.6], "strained"),
        ([1.0, 1.4], [1.0, 1.6], "strained"),
        ([1.0, 0.8], [1.0, 1.0], "strained"),
        ([1.0, 0.1], [1.0, 0.1], "violated"),
        ([1.0, 1.0], [1.0, 6.0], "violated"),
        ([1.0, -0.5], [1.0, 0.5], "violated"),
        ([1.0, math.nan], [1.0, 1.0], "violated"),
    ],
)
def test_findings(weights, norms, finding):
    assert judge(np.array(weights), np.array(norms)) == finding


def test_gradient_drift():
    gradients = torch.tensor([[3.0, 4.0], [0.3, 0.4], [-4.0, 3.0]], dtype=torch.float64)
    found = gradient_drift(gradients)
    np.testing.assert_allclose(found.cosines, [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(found.norms, [1, 0.5, 1], atol=1e-12)
    with pytest.raises(ValueError, match="start with one that is not 0"):
        gradient_drift(torch.zeros(2, 3))


def test_bad_runs():
    counter = iter(range(100))
    with pytest.raises(ValueError, match="run must be repeatable"):
        LinearityMeter(lambda i, s: torch.full((3,), float(next(counter))), 4).measure()
    with pytest.raises(ValueError, match="finite parameters"):
        LinearityMeter(lambda i, s: torch.full((3,), math.nan), 4).measure()
    with pytest.raises(ValueError, match="steps must be .*got 0"):
        LinearityMeter(lambda i, s: torch.zeros(3), 0)
    with pytest.raises(ValueError, match="scale and size must be positive"):
        LinearityMeter(lambda i, s: torch.zeros(3), 4, scale=0.0)
