"""Contract of every optimizer: groups, what moves and what does not, and what it shows of itself."""

import re

import pytest
import torch
from tests.contract.members import MEMBERS
from tests.contract.problem import (
    alike,
    known_warnings,
    loss_of,
    network,
    refused,
    same,
    settle,
    train,
    values,
    without_multipliers,
)
from torch import nn

every = pytest.mark.parametrize("member", MEMBERS, ids=str)
on_gradients = pytest.mark.parametrize(
    "member", [m for m in MEMBERS if m.needs == "gradients"], ids=str
)
with_a_step_size = pytest.mark.parametrize(
    "member", [m for m in MEMBERS if m.still is not None], ids=str
)


def halves(model):
    """The parameters of the first layer and of the second."""
    return list(model[0].parameters()), list(model[2].parameters())


def started(member):
    model = network()
    return model, member.make(list(model.parameters()), model)


@every
def test_same_seed_same_bits(member):
    ends = []
    for _ in range(2):
        model, optimizer = started(member)
        losses = train(member, optimizer, loss_of(model), 7)
        settle(optimizer)
        ends.append([*values(model), torch.tensor(losses)])
    assert same(*ends)


@every
def test_it_descends(member):
    model, optimizer = started(member)
    first = loss_of(model)().detach()
    train(member, optimizer, loss_of(model), 60)
    settle(optimizer)
    assert loss_of(model)().detach() < 0.9 * first


@with_a_step_size
def test_a_group_stands_still_while_another_moves(member):
    model = network()
    moving, standing = halves(model)
    optimizer = member.make([{"params": moving}, {"params": standing, **member.still}], model)
    before = values(moving), values(standing)
    train(member, optimizer, loss_of(model), 4)
    settle(optimizer)
    alike(before[1], standing, member.drift)
    assert not any(torch.equal(a, b) for a, b in zip(before[0], moving, strict=True))


@on_gradients
def test_groups_are_as_many_optimizers(member):
    """Settings of a group, those that are derived from them too, are its own."""
    one, two = network(), network()
    optimizer = member.make(
        [{"params": g, **s} for g, s in zip(halves(one), ({}, member.other), strict=True)], one
    )
    apart = [
        member.make([{"params": g, **s}], two)
        for g, s in zip(halves(two), ({}, member.other), strict=True)
    ]
    for _ in range(5):
        train(member, optimizer, loss_of(one))
        two.zero_grad()
        loss_of(two)().backward()
        for each in apart:
            each.step()
    assert same(one, two)


@every
def test_added_groups_train(member):
    model = network()
    first, second = halves(model)
    optimizer = member.make(first, model)
    before = values(second)
    train(member, optimizer, loss_of(model), 2)
    if "add_param_group" in member.refuses:
        with refused(member, "add_param_group"):
            optimizer.add_param_group({"params": second})
        return
    assert same(before, second)
    optimizer.add_param_group({"params": second, **member.other})
    train(member, optimizer, loss_of(model), 4)
    settle(optimizer)
    assert not any(torch.equal(a, b) for a, b in zip(before, second, strict=True))
    if member.needs == "gradients":
        # From then on it is what it had been from the start, for whoever has no gradient before.
        again = network()
        first, second = halves(again)
        whole = member.make([{"params": first}], again)
        for _ in range(2):
            train(member, whole, loss_of(again))
        for p in second:
            p.grad = None
        late = member.make([{"params": second, **member.other}], again)
        without_multipliers(late)  # those are given at the start
        for _ in range(4):
            again.zero_grad()
            loss_of(again)().backward()
            late.step()
            whole.step()
        assert same(model, again)


@every
def test_a_parameter_may_not_be_given_twice(member):
    model = network()
    optimizer = member.make(list(model[0].parameters()), model)
    if "add_param_group" not in member.refuses:
        with pytest.raises(ValueError, match="more than one parameter group"):
            optimizer.add_param_group({"params": [model[0].weight]})


@pytest.mark.parametrize("member", [m for m in MEMBERS if "settings" not in m.torchs], ids=str)
@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_settings_out_of_range_are_refused_wherever_they_come_from(member, bad):
    name = next(iter(member.other))
    model = network()
    first, second = halves(model)
    with pytest.raises(ValueError, match=rf"{name}.*got"):
        member.make([{"params": first}, {"params": second, name: bad}], model)
    optimizer = member.make(first, model)
    if "add_param_group" not in member.refuses:
        with pytest.raises(ValueError, match=rf"{name}.*got"):
            optimizer.add_param_group({"params": second, name: bad})
        # A group that was refused is not there.
        assert len(optimizer.param_groups) == 1


@every
def test_a_learning_rate_set_between_steps_takes_effect(member):
    model, optimizer = started(member)
    train(member, optimizer, loss_of(model), 2)
    settle(optimizer)
    before = values(model)
    if "lr" in member.refuses:
        optimizer.param_groups[0]["lr"] = 0.0
        with refused(member, "lr"):
            train(member, optimizer, loss_of(model))
        assert same(before, model)
        return
    with known_warnings(member):
        kept = dict(optimizer.param_groups[0])
        optimizer.param_groups[0].update(member.still)
        train(member, optimizer, loss_of(model), 2)
        settle(optimizer)
        alike(before, model, member.drift)
        optimizer.param_groups[0].update({k: kept[k] for k in member.still})
        train(member, optimizer, loss_of(model), 2)
        settle(optimizer)
    assert not any(torch.equal(a, b) for a, b in zip(before, values(model), strict=True))


@pytest.mark.parametrize("member", [m for m in MEMBERS if "lr" in m.warns], ids=str)
def test_it_warns_of_a_learning_rate_set_alone(member):
    model, optimizer = started(member)
    train(member, optimizer, loss_of(model), 2)
    optimizer.param_groups[0]["lr"] *= 0.5
    with pytest.warns(UserWarning, match=member.warns["lr"]):
        train(member, optimizer, loss_of(model))


@every
def test_a_learning_rate_on_a_tensor(member):
    """The same step as from a number, or a sentence."""
    ends = []
    for kind in (float, lambda v: torch.tensor(v, dtype=torch.float64)):
        model, optimizer = started(member)
        train(member, optimizer, loss_of(model))
        for group in optimizer.param_groups:
            group["lr"] = kind(group.get("lr", 0.0) * 0.5)
        if kind is not float and "tensor lr" in member.refuses:
            with refused(member, "tensor lr"):
                train(member, optimizer, loss_of(model), 3)
            return
        if "tensor lr" not in member.refuses:
            with known_warnings(member):
                train(member, optimizer, loss_of(model), 3)
            settle(optimizer)
        ends.append(values(model))
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)


@every
def test_frozen_parameters_stay(member):
    model = network()
    model[0].weight.requires_grad_(False)
    optimizer = member.make(list(model.parameters()), model)
    before = values(model)
    train(member, optimizer, loss_of(model), 3)
    settle(optimizer)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert moved == [False, True, True, True]


@every
def test_parameters_that_are_frozen_on_the_way_stay(member):
    model, optimizer = started(member)
    train(member, optimizer, loss_of(model), 3)
    settle(optimizer)
    model[0].weight.requires_grad_(False)
    model[0].bias.requires_grad_(False)
    middle = values(model)
    train(member, optimizer, loss_of(model), 3)
    settle(optimizer)
    moved = [not torch.equal(a, b) for a, b in zip(middle, model.parameters(), strict=True)]
    assert moved == [False, False, True, True]


@on_gradients
def test_a_parameter_that_is_unfrozen_trains(member):
    model = network()
    model[0].weight.requires_grad_(False)
    optimizer = member.make(list(model.parameters()), model)
    train(member, optimizer, loss_of(model), 2)
    before = values(model)
    model[0].weight.requires_grad_(True)
    train(member, optimizer, loss_of(model), 2)
    assert not torch.equal(before[0], model[0].weight)


@on_gradients
def test_parameters_without_a_gradient_stay(member):
    model = network()
    spare = nn.Parameter(torch.ones(3, 2, dtype=torch.float64))
    optimizer = member.make([spare, *model.parameters()], model)
    alone, plain = started(member)
    train(member, optimizer, loss_of(model), 3)
    train(member, plain, loss_of(alone), 3)
    assert same(model, alone)
    assert torch.equal(spare, torch.ones_like(spare))
    spare.grad = torch.ones_like(spare)
    optimizer.step()
    assert bool((spare != 1).all())


@every
def test_parameters_of_size_0(member):
    model = network()
    model.register_parameter("nothing", nn.Parameter(torch.zeros(0, 3, dtype=torch.float64)))
    model.nothing.grad = torch.zeros(0, 3, dtype=torch.float64)
    optimizer = member.make([*model[0].parameters(), *model[2].parameters(), model.nothing], model)
    alone, plain = started(member)
    for _ in range(3):
        train(member, optimizer, loss_of(model))
        train(member, plain, loss_of(alone))
        model.nothing.grad = torch.zeros(0, 3, dtype=torch.float64)
    settle(optimizer)
    settle(plain)
    assert same(values(model)[1:], alone)


@on_gradients
def test_zero_grad(member):
    model, optimizer = started(member)
    loss_of(model)().backward()
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


@on_gradients
def test_gradients_are_left_as_they_were(member):
    """Whoever logs them after the step sees what backward gave."""
    model, optimizer = started(member)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(model)().backward()
        before = [p.grad.clone() for p in model.parameters()]
        optimizer.step()
        assert same(before, [p.grad for p in model.parameters()])


@on_gradients
def test_sparse_gradients(member):
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = member.make(list(table.parameters()), table)
    table(torch.tensor([1, 3])).square().sum().backward()
    before = values(table)
    with refused(member, "sparse"):
        optimizer.step()
    assert same(before, table)


@every
def test_repr_shows_the_class_and_the_settings(member):
    _, optimizer = started(member)
    shown = repr(optimizer)
    assert type(optimizer).__name__ in shown
    for word in member.shows:
        assert re.search(rf"\b{word}\b", shown), f"{word} is not in {shown}"


@every
def test_hooks_of_a_step_are_called_once(member):
    model, optimizer = started(member)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    train(member, optimizer, loss_of(model), 2)
    assert calls == ["before", "after"] * 2
