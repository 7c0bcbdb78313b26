"""The parts with theorems, end to end: what they record carries every condition of their certificates."""

import pytest
import torch

from surefoot import Record, certify
from surefoot.reparam.experiments import costs, exactness
from surefoot.reparam.study import STUDY, ReparamConfig


@pytest.mark.parametrize("part", [p for p in STUDY.parts if p.name in ("exactness", "costs")],
                         ids=lambda p: p.name)  # fmt: skip
def test_every_condition_was_recorded_and_every_promise_kept(part, monkeypatch):
    monkeypatch.setitem(exactness.STEPS, "quick", 2)
    monkeypatch.setitem(costs.SIDE, "quick", 8)
    record, config = Record(), ReparamConfig()
    part.run(config, 0, record)
    found = [certify(record, promise) for promise in part.guarantees(config)]
    assert len(found) == {"exactness": 9, "costs": 2}[part.name]
    assert {c.verdict for c in found} == {"KEPT"}
    assert {a.holds for c in found for a in c.assumptions} == {True}
    (table,) = part.tables(config, record).values()
    assert len(table) == {"exactness": 8, "costs": 4}[part.name]


def test_an_arm_under_another_optimizer_is_not_promised(monkeypatch):
    monkeypatch.setitem(exactness.STEPS, "quick", 2)

    def adam(csla, settings):
        plain, _ = exactness.convert_to_plain(csla, seed=None)
        return (plain, *(torch.optim.Adam(m.parameters(), lr=1e-3) for m in (plain, csla)))

    monkeypatch.setattr(exactness, "_pair", adam)
    record = Record()
    exactness._one(ReparamConfig(), 0, record, "sgd, float64", torch.float64, {})
    promise = exactness.guarantees(ReparamConfig())[0]
    assert certify(record, promise).verdict == "NOT_PROMISED"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_network_is_its_seeds_whatever_was_drawn_before(dtype):
    from surefoot.reparam.experiments.exactness import network

    torch.manual_seed(1)
    first = network(0, dtype).state_dict()
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    second = network(0, dtype).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(network(1, dtype)[-1].weight, second["5.weight"])
