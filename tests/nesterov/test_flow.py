"""The continuous model on curved sets of minimisers, and what stops it."""

import numpy as np
import pytest
import torch

from surefoot.nesterov import heavy_ball_flow
from surefoot.nesterov.experiments.landscapes import curved_valley, sphere


@pytest.mark.parametrize("landscape", [sphere(), curved_valley()], ids=lambda s: s.name)
def test_the_energy_pays_the_promised_rate_at_every_moment(landscape):
    flow = heavy_ball_flow(
        landscape.f, landscape.start, mu=landscape.mu, time=30.0, closest=landscape.closest
    )
    decay = np.exp(-np.sqrt(landscape.mu) * np.diff(flow.t))
    assert (flow.energy[1:] <= flow.energy[:-1] * decay * (1 + 1e-6)).all()
    assert (flow.gap <= flow.promised * (1 + 1e-9)).all()
    # E(0) is at most twice the gap, as strong aiming bounds the distance.
    assert flow.energy[0] <= 2 * flow.gap[0] * (1 + 1e-12)
    # Falsifiable: twice the friction is not paid.
    assert not (flow.energy <= np.exp(-4 * np.sqrt(landscape.mu) * flow.t) * flow.energy[0]).all()


@pytest.mark.parametrize(
    ("start", "says"),
    [(2.0, "the gradient is not finite at time 0"), (3.0, "the flow stopped before time 50")],
)
def test_a_singular_gradient_stops_the_flow(start, says):
    with pytest.raises(ArithmeticError, match=says):
        heavy_ball_flow(
            lambda x: (x - 2).log().sum(), torch.full((1,), start), mu=1.0, time=50.0,
            closest=torch.zeros_like,
        )  # fmt: skip


def test_time_must_be_positive():
    with pytest.raises(ValueError, match="time must be positive and finite, got 0"):
        heavy_ball_flow(
            lambda x: (x**2).sum(), torch.ones(1), mu=1.0, time=0.0, closest=torch.zeros_like
        )
