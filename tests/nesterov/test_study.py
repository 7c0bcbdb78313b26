"""The long checks of the study."""

from types import SimpleNamespace

import pytest
import torch

from surefoot.nesterov.experiments import small_batches, three_or_eight
from surefoot.nesterov.optimizer import NAG
from surefoot.nesterov.probe import Landscape
from surefoot.record import Record


@pytest.mark.acceptance
def test_agnes_beats_the_best_nag_at_batch_4(monkeypatch):
    """S5 over five seeds; everything else about S5 is reported, not asserted."""
    monkeypatch.setitem(small_batches.BATCHES, "standard", (4,))
    record = Record()
    for seed in range(5):
        small_batches.run(SimpleNamespace(size="standard"), seed, record)
    mean = {
        name: record.constant(f"{name}, batch 4: train loss").mean()
        for name in small_batches.arms()
    }
    print(mean)
    assert mean["AGNES"] < min(mean["NAG 0.9"], mean["NAG 0.99"])


class _Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = torch.nn.ParameterList(
            torch.nn.Parameter(p.detach()) for p in three_or_eight.network()
        )

    def forward(self, x):
        return three_or_eight.output(list(self.parts), x)


@pytest.mark.acceptance
def test_the_final_anchor_measures_aiming_like_the_closest_minimiser():
    """S6 with mu = 5e-3: mu_aim by projection and by the final anchor agree within 10 %."""
    images, labels = three_or_eight.data()
    model = _Net()
    landscape = Landscape(model, lambda o, t: ((o - t) ** 2).mean() / 2, (images, labels))
    s = (5e-3 / three_or_eight.L) ** 0.5
    optimizer = NAG(model.parameters(), lr=1 / three_or_eight.L, momentum=(1 - s) / (1 + s))
    path = {}
    for n in range(1500):
        optimizer.zero_grad()
        loss = ((model(images) - labels) ** 2).mean() / 2
        loss.backward()
        if n in (30, 60, 100, 150, 250):
            y = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
            g = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
            path[n] = (y, g, float(loss.detach()))
        optimizer.step()
    optimizer.finalize()
    final = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    for n, (y, g, f) in path.items():
        found = landscape.project(y)
        assert found.ok
        by = [float(2 * (g @ (y - p) - f) / ((y - p) ** 2).sum()) for p in (found.point, final)]
        print(n, by)
        assert by[0] == pytest.approx(by[1], rel=0.1)
