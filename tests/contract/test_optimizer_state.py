"""Contract of every optimizer: to stop and go on equals never having stopped."""

import copy
import io
import pickle

import pytest
import torch
from tests.contract.members import MEMBERS
from tests.contract.problem import known_warnings, loss_of, network, refused, same, settle, train
from torch.optim.lr_scheduler import StepLR

every = pytest.mark.parametrize("member", MEMBERS, ids=str)


def started(member):
    model = network()
    return model, member.make(list(model.parameters()), model)


def stored(**parts):
    """Through a file that is read without unpickling code."""
    file = io.BytesIO()
    torch.save({name: part.state_dict() for name, part in parts.items()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def equal_ends(member, one, two):
    for model, optimizer in (one, two):
        train(member, optimizer, loss_of(model), 5)
        settle(optimizer)
    assert same(one[0], two[0])


@every
@pytest.mark.parametrize("at", [0, 3, 4], ids=lambda n: f"after {n} steps")
def test_through_a_file(member, at):
    model, optimizer = started(member)
    train(member, optimizer, loss_of(model), at)
    saved = stored(optimizer=optimizer, model=model)
    other, again = started(member)
    train(member, again, loss_of(other), 2)  # what it holds already must not matter
    other.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    equal_ends(member, (model, optimizer), (other, again))


ORDERS = {
    "scheduler first, optimizer loaded first": ("schedule", "optimizer", "scheduler"),
    "scheduler first, scheduler loaded first": ("schedule", "scheduler", "optimizer"),
    "optimizer loaded, then the scheduler": ("optimizer", "schedule", "scheduler"),
}


def schedule_of(optimizer):
    return StepLR(optimizer, 2, 0.5)


def scheduled(member, model, optimizer, scheduler, steps):
    with known_warnings(member):
        for _ in range(steps):
            train(member, optimizer, loss_of(model))
            scheduler.step()
    return optimizer.param_groups[0]["lr"]


@every
@pytest.mark.parametrize("order", ORDERS)
def test_with_a_scheduler_in_any_order(member, order):
    model, optimizer = started(member)
    scheduler = schedule_of(optimizer)
    if "lr" in member.refuses:
        with refused(member, "lr"):
            scheduled(member, model, optimizer, scheduler, 5)
        return
    start = optimizer.param_groups[0]["lr"]
    assert scheduled(member, model, optimizer, scheduler, 5) == pytest.approx(start / 4)
    saved = stored(optimizer=optimizer, model=model, scheduler=scheduler)
    other, again = started(member)
    other.load_state_dict(saved["model"])
    for act in ORDERS[order]:
        if act == "schedule":
            new = schedule_of(again)
        elif act == "optimizer":
            again.load_state_dict(saved["optimizer"])
        else:
            new.load_state_dict(saved["scheduler"])
    rates = [
        scheduled(member, m, o, s, 4)
        for m, o, s in ((model, optimizer, scheduler), (other, again, new))
    ]
    assert rates[0] == rates[1] == pytest.approx(start / 16)
    settle(optimizer)
    settle(again)
    assert same(model, other)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda pair: pickle.loads(pickle.dumps(pair)),
}


@every
@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("at", [0, 4], ids=lambda n: f"after {n} steps")
def test_a_copy_goes_on_by_itself(member, how, at):
    """A copy of a model and its optimizer: the same steps, and neither moves the other."""
    pair = started(member)
    train(member, pair[1], loss_of(pair[0]), at)
    twin = COPIES[how](pair)
    assert type(twin[1]) is type(pair[1])
    with known_warnings(member):
        held = copy.deepcopy(twin[0].state_dict())
    train(member, pair[1], loss_of(pair[0]), 5)
    settle(pair[1])
    assert all(torch.equal(held[name], value) for name, value in twin[0].state_dict().items())
    train(member, twin[1], loss_of(twin[0]), 5)
    settle(twin[1])
    assert same(pair[0], twin[0])


@every
def test_a_copy_keeps_its_scheduler(member):
    """Schedulers replace `step` on the optimizer: a copy of all three must still count its own steps."""
    if "lr" in member.refuses:
        model, optimizer = started(member)
        with refused(member, "lr"):
            scheduled(member, model, optimizer, schedule_of(optimizer), 5)
        return
    model, optimizer = started(member)
    trio = (model, optimizer, schedule_of(optimizer))
    scheduled(member, *trio, 3)
    twin = copy.deepcopy(trio)
    rates = [scheduled(member, *each, 3) for each in (trio, twin)]
    assert rates[0] == rates[1]
    settle(trio[1])
    settle(twin[1])
    assert same(trio[0], twin[0])


@every
def test_a_state_of_another_shape_is_refused(member):
    _, optimizer = started(member)
    model = network()
    other = member.make(list(model[0].parameters()), model)
    with pytest.raises(ValueError, match="group"):
        other.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("member", [m for m in MEMBERS if "model's state" in m.warns], ids=str)
def test_a_models_state_that_lacks_something_says_so(member):
    model, optimizer = started(member)
    model.state_dict()
    train(member, optimizer, loss_of(model), 1)
    optimizer.state_dict()  # a checkpoint: what is lacking there is here
    model.state_dict()
    train(member, optimizer, loss_of(model), 1)
    with pytest.warns(UserWarning, match=member.warns["model's state"]):
        model.state_dict()
    model.state_dict()  # once
    settle(optimizer)
    model.state_dict()
