"""Contract of every optimizer: what an Opacus accountant makes of it, or the reason why it makes nothing."""

import warnings

import numpy as np
import pytest
import torch
from tests.contract.members import MEMBERS, SGD
from tests.contract.problem import loss_of, network, train
from torch import nn

from surefoot.privacy import LinearWeights, compare, from_opacus, last_iterate

pytest.importorskip("opacus", reason="needs the privacy extra")

STEPS, DELTA = 12, 1e-5
HISTORY = {"history": [(1.0, 0.1, STEPS)], "mechanism": "prv"}
ADAPTIVE = ("RepAdamW", "wrap(AdamW)")

every = pytest.mark.parametrize("member", MEMBERS, ids=str)


def used(member):
    """One that has taken a step, as those have that a training is over with."""
    model = network()
    optimizer = member.make(list(model.parameters()), model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(member, optimizer, loss_of(model), 2)
    return optimizer


def reason(report):
    return next(row.note for row in report.rows if row.name == "heuristic")


@every
def test_from_opacus_takes_it(member):
    optimizer = used(member)
    before = repr(optimizer.state_dict())
    report = from_opacus(HISTORY, DELTA, optimizer=optimizer)
    assert repr(optimizer.state_dict()) == before
    assert report.standard.kind == "guarantee"
    if member.needs == "losses":
        name = type(optimizer).__name__
        assert report.heuristic is report.envelope is report.full_batch is None
        assert reason(report).startswith(f"{name} takes forward passes only")
        assert report.record.fact("releases").all == ("all",)
    elif member.name in ADAPTIVE:
        assert report.heuristic is None
        assert "must be linear in the gradients" in reason(report)
    else:
        assert report.heuristic.value < last_iterate(1.0, 0.1, STEPS).epsilon(DELTA).value
        assert any("steps count as" in note for note in report.notes)


@every
def test_compare_and_linear_weights_say_the_same(member):
    optimizer = used(member)
    report = compare(1.0, 0.1, STEPS, DELTA, optimizer=optimizer)
    other = from_opacus(HISTORY, DELTA, optimizer=optimizer)
    if report.heuristic is None:
        assert reason(report) == reason(other)
        words = "must take gradients: " if member.needs == "losses" else "must be linear"
        with pytest.raises(ValueError, match=f"torch_optimizer {words}"):
            LinearWeights.from_optimizer(optimizer, STEPS, used=True)
    else:
        assert report.heuristic == other.heuristic


def trained(make):
    """A real Opacus training, through the accountant that sees every step."""
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    from surefoot.privacy import register_opacus

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = network()
        x, y = torch.randn(60, 4, dtype=torch.float64), torch.randn(60, 3, dtype=torch.float64)
        loader = DataLoader(TensorDataset(x, y), batch_size=10)
        engine = PrivacyEngine(accountant=register_opacus())
        net, optimizer, data = engine.make_private(
            module=model, optimizer=make(list(model.parameters()), model), data_loader=loader,
            noise_multiplier=1.0, max_grad_norm=1.0,
        )  # fmt: skip
        for a, b in (batch for _ in range(2) for batch in data):
            optimizer.zero_grad()
            (net(a) - b).square().mean().backward()
            optimizer.step()
    return engine.accountant, optimizer


@pytest.mark.parametrize("member", [m for m in MEMBERS if m.needs == "gradients"], ids=str)
def test_the_accountant_sees_it(member):
    accountant, optimizer = trained(member.make)
    assert accountant.history == [(1.0, 1 / 6, 12)]
    shown = from_opacus({"history": accountant.history}, DELTA, optimizer=optimizer)
    if member.name in ADAPTIVE:
        with pytest.raises(ValueError, match="no last-iterate value: .* must be linear"):
            accountant.heuristic(DELTA)
        assert "linear" in reason(from_opacus(accountant, DELTA))
        return
    assert accountant.heuristic(DELTA).value == pytest.approx(shown.heuristic.value, rel=1e-12)
    assert any("as the accountant saw" in note for note in from_opacus(accountant, DELTA).notes)


def test_groups_of_a_chain_have_names():
    """And rates of their own, by constant factors: every step counts the same in each."""
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    groups = [{"params": [a], "lr": 0.1, "name": "a"}, {"params": [b], "lr": 0.1, "name": "b"}]
    report = from_opacus(HISTORY, DELTA, optimizer=SGD(groups, momentum=0.9))
    plain = from_opacus(HISTORY, DELTA, optimizer=SGD([a], lr=0.1, momentum=0.9))
    assert report.heuristic == plain.heuristic
    groups[1]["lr"] = 0.4
    apart = from_opacus(HISTORY, DELTA, optimizer=SGD(groups, momentum=0.9))
    assert apart.heuristic == plain.heuristic
    assert any("differ by constant factors" in note for note in apart.notes)


def test_weights_of_a_decreasing_step_are_its_own_recursion():
    from surefoot.nesterov import DecreasingNAG

    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    got = LinearWeights.from_optimizer(DecreasingNAG([parameter], 0.5, 9.0), 6).values
    ends = []
    for t in range(6):
        x = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = DecreasingNAG([x], 0.5, 9.0)
        for u in range(6):
            x.grad = torch.full_like(x, float(u == t))
            optimizer.step()
        ends.append(-float(x.detach()))
    np.testing.assert_allclose(got, ends, rtol=1e-12)
