"""The parts of the study that can be checked without running it whole."""

import numpy as np
import pytest
import torch

from surefoot import Record
from surefoot._problems.arms import least
from surefoot.kan import KAN2, tangent
from surefoot.kan.experiments import diabetes, labels, rates
from surefoot.kan.experiments.arms import mlp, rmse
from surefoot.kan.study import STUDY


def test_labels_lie_along_their_eigenvectors_and_are_as_long():
    table = diabetes.shuffled()
    rows = diabetes.Table(table.X[:20], table.y[:20])
    data = diabetes.scaled(rows, rows)
    X, y = data.X, data.y
    K = tangent(KAN2(10, 16, seed=0), X).K
    found = labels.directions(K, y, 0)
    size = float(y.norm())
    assert [float(v.norm()) for v in found.values()] == pytest.approx([size] * 4)
    top, bottom = found["top"], found["bottom"]
    values = torch.linalg.eigvalsh(K)
    assert torch.allclose(K @ top, values[-1] * top, atol=1e-8)
    assert float(bottom @ K @ bottom) / size**2 == pytest.approx(float(values[0]), abs=1e-8)
    assert torch.allclose(found["actual"], y)


def test_rows_are_split_without_overlap_and_scaled_by_those_of_training_alone(monkeypatch):
    table = diabetes.shuffled()
    parts = diabetes.split(3)
    assert [len(p.y) for p in parts] == [200, 100, 142]
    train = parts[0]
    assert float(train.X.abs().max()) == 1
    assert float(train.y.mean()) == pytest.approx(0, abs=1e-12)
    assert float(train.y.std()) == pytest.approx(1)
    together = torch.cat([p.y for p in parts])
    back = (together - together.min()) / (together.max() - together.min())
    raw = (table.y - table.y.min()) / (table.y.max() - table.y.min())
    torch.testing.assert_close(torch.sort(back).values, torch.sort(raw).values)
    # Other rows for testing change nothing of the training.
    order = torch.randperm(442, generator=torch.Generator().manual_seed(1003))
    spoilt = diabetes.Table(table.X.clone(), table.y.clone())
    spoilt.X[order[300:]] *= 50
    spoilt.y[order[300:]] += 1e4
    monkeypatch.setattr(diabetes, "shuffled", lambda: spoilt)
    assert torch.equal(diabetes.split(3)[0].X, train.X)
    assert torch.equal(diabetes.split(3)[0].y, train.y)
    monkeypatch.undo()
    assert not torch.equal(parts[0].X, diabetes.split(4)[0].X)


def test_the_mlp_is_as_wide_and_its_seed_its_own():
    before = torch.random.get_rng_state()
    one, same, other = mlp(3, 8, 0), mlp(3, 8, 0), mlp(3, 8, 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    assert one[0].weight.shape == (8, 3)
    X = torch.zeros(4, 3, dtype=torch.float64)
    assert rmse(one, X, one(X).detach().reshape(-1) + 2) == pytest.approx(2.0)


def test_the_better_one_is_named_whoever_it_is():
    assert least(KAN=2.0, MLP=1.0) == "MLP"
    assert least(KAN=1.0, MLP=2.0) == "KAN"


def test_what_is_announced_is_judged(monkeypatch):
    """The part with two kinds of labels, at a size of milliseconds."""
    monkeypatch.setitem(rates.CERTIFIED, "quick", (128, 6))
    config, record = STUDY.config(), Record()
    rates.run_certified(config, 0, record)
    names = {g.name for g in rates.certified_guarantees(config)}
    names |= {c.name for c in rates.certified_certificates(config, record)}
    assert set(rates.CERTIFIED_EXPECTS) <= names
    table = next(iter(rates.certified_tables(config, record).values()))
    assert table["violations"].tolist() == [0, 0]
    assert np.isfinite(table["MLP, L_T / L_0"][0])
