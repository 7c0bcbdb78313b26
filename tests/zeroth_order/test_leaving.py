"""What leaves a model in mid-period, and weights that somebody else writes."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from surefoot.zeroth_order import LOZO, ZOAdam

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6))


def stepped(model, steps=3, kind=LOZO, **about):
    about = {"rank": 2, "nu": 10} | about if kind is LOZO else about
    optimizer = kind(model, 1e-2, **about)
    for _ in range(steps):
        optimizer.step(lambda: model(X).square().mean())
    return optimizer


SAYS = r"state_dict in mid-period lacks what 0.weight and 1 others? moved by"


def test_a_state_taken_in_mid_period_warns_by_name_and_once():
    model = net()
    optimizer = stepped(model)
    with pytest.warns(UserWarning, match=SAYS):
        taken = model.state_dict()
    assert torch.equal(taken["0.weight"], net()[0].weight)
    model.state_dict()
    optimizer.flush()
    plain = net()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain(X), model(X))


WAYS = {
    "submodule": lambda model: model[2], "parent": nn.Sequential, "copy": copy.deepcopy,
}  # fmt: skip


@pytest.mark.parametrize("part", WAYS)
def test_however_it_leaves(part):
    model = net()
    stepped(model)
    leaving = WAYS[part](model)
    with pytest.warns(UserWarning, match="state_dict in mid-period lacks what"):
        leaving.state_dict()


def test_an_adapters_state_warns_too():
    model = get_peft_model(net(), LoraConfig(r=4, target_modules=["0"]))
    stepped(model)
    with pytest.warns(UserWarning, match="lora_"):
        model.state_dict()


def test_where_nothing_is_pending_nothing_is_said():
    model = net()
    stepped(model, 0)
    model.state_dict()
    stepped(net(), 10)  # the end of a period
    written = net()
    stepped(written, rank=8)  # matrices no larger than the rank are written
    written.state_dict()
    in_place = net()
    stepped(in_place, mode="inplace")
    in_place.state_dict()


def test_factors_that_are_kept_apart_are_named():
    model = net()
    stepped(model, 12, fold=False)
    with pytest.warns(UserWarning, match=r"optimizer\.adapter\(\)"):
        model.state_dict()


@pytest.mark.parametrize(
    ("kind", "about"),
    [(LOZO, {}), (LOZO, {"momentum": 0.9}), (LOZO, {"rank": 8}), (LOZO, {"mode": "inplace"}), (ZOAdam, {})],
)  # fmt: skip
def test_what_somebody_writes_is_the_iterate_from_then_on(kind, about):
    model = net()
    optimizer = stepped(model, kind=kind, **about)
    before = model(X)
    seen = []
    with optimizer.rewriting(model.parameters()):
        seen = [p.detach().clone() for p in model.parameters()]
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
    plain = net()
    with torch.no_grad():
        for p, value in zip(plain.parameters(), seen, strict=True):
            p.copy_(value)
    torch.testing.assert_close(plain(X), before)
    assert float(model(X).detach().abs().max()) == 0
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step(lambda: model(X).square().mean())
    optimizer.flush()
    assert float(model(X).detach().abs().max()) < 1e-7  # nothing old has come back


@pytest.mark.parametrize(
    ("about", "says"), [({"fold": False}, "fold=False keeps factors apart"), ({"log": True}, "without log=")]
)  # fmt: skip
def test_what_cannot_be_rewritten_is_refused(about, says):
    model = net()
    optimizer = stepped(model, **about)
    with pytest.raises(ValueError, match=says), optimizer.rewriting(model.parameters()):
        raise AssertionError("the body must not run")
