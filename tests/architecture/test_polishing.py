"""L-BFGS after a search: least squares, zeros kept, the best state kept; and helpers of the study."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from surefoot import Record, certify
from surefoot.architecture.experiments import embedding, identity, rediscovery, warm_start
from surefoot.architecture.polishing import polish_lbfgs


def data(n=60):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=g)
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3 + 0.1 * torch.randn(n, 1, generator=g)


def test_a_linear_network_ends_at_least_squares():
    x, y = data()
    net, values = polish_lbfgs(nn.Sequential(nn.Linear(3, 1)), x, y, outer=10)
    design = np.column_stack([x.double().numpy(), np.ones(len(x))])
    wanted, *_ = np.linalg.lstsq(design, y.double().numpy(), rcond=None)
    found = np.append(net[0].weight.detach().numpy(), net[0].bias.detach().numpy())
    np.testing.assert_allclose(found, wanted[:, 0], rtol=1e-4)
    assert values == sorted(values, reverse=True)
    assert net[0].weight.dtype == torch.float32


def test_zeros_stay_and_the_given_network_is_left_alone():
    x, y = data()
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    with torch.no_grad():
        module[0].weight[1] = 0
    before = [p.clone() for p in module.parameters()]
    net, values = polish_lbfgs(module, x, y, outer=3)
    assert all(map(torch.equal, before, module.parameters()))
    assert (net[0].weight[1] == 0).all()
    assert not torch.equal(net[0].weight, module[0].weight)
    assert values[-1] < values[0]


def test_the_best_state_is_kept_and_nan_ends_it():
    x, y = data()
    said = iter([5.0, 1.0, 3.0, math.nan, 0.0])
    module = nn.Sequential(nn.Linear(3, 1))
    net, values = polish_lbfgs(module, x, y, outer=4, inner=1, judge=lambda m: next(said))
    assert values[:3] == [5, 1, 3]
    assert math.isnan(values[3])
    assert len(values) == 4
    one, _ = polish_lbfgs(module, x, y, outer=1, inner=1)
    torch.testing.assert_close(net[0].weight, one[0].weight)
    for name in ("outer", "inner"):
        with pytest.raises(ValueError, match=name):
            polish_lbfgs(module, x, y, **{name: -1})


def test_hidden_networks_are_standardised_and_counted():
    target = rediscovery.hidden_target(2, seed=1)
    assert {k: len(v) for k, v in target.x.items()} == rediscovery.ROWS
    assert target.y["train"].mean().item() == pytest.approx(0, abs=1e-5)
    assert target.y["train"].std().item() == pytest.approx(1, abs=1e-5)
    assert target.size == (3 + 1) * 5 + (5 + 1) * 5 + (5 + 1)
    assert 0 < target.nonzero <= target.size
    # The mean has R2 0; so has what overshoots every deviation from it by as much.
    x, y = target.x["test"], target.y["test"]
    assert rediscovery.r2(lambda x: y.mean().expand(len(x), 1), x, y) == pytest.approx(0, abs=1e-5)
    assert rediscovery.r2(lambda x: y, x, y) == 1
    assert rediscovery.r2(lambda x: 2 * y - y.mean(), x, y) == pytest.approx(0, abs=1e-5)


@pytest.mark.acceptance
@pytest.mark.parametrize("part", [embedding, identity, warm_start, rediscovery])
def test_a_part_runs_and_is_shown(part):
    record, config = Record(), SimpleNamespace(size="quick")
    part.run(config, 0, record)
    assert all(len(t) for t in part.tables(config, record).values())
    for guarantee in getattr(part, "guarantees", lambda _: [])(config):
        certify(record, guarantee)
    assert all(c.summary() for c in getattr(part, "certificates", lambda *_: [])(config, record))
    assert all(f.data for f in getattr(part, "figures", lambda *_: {})(config, record).values())
