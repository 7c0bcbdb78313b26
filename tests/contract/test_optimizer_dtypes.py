"""Contract of every optimizer: complex and 16-bit parameters, and scaled gradients, or a sentence."""

import copy
import io

import pytest
import torch
from tests.contract.members import MEMBERS
from tests.contract.problem import (
    alike,
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
on_losses = pytest.mark.parametrize("member", [m for m in MEMBERS if m.needs == "losses"], ids=str)


@every
def test_complex_parameters_are_pairs_of_real_ones(member):
    """The convention of torch's own optimizers; the gradients are given."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
    holder = nn.Module()
    holder.z = nn.Parameter(torch.view_as_complex(start.clone()))
    if "complex" in member.refuses:
        with refused(member, "complex"):
            member.make([holder.z], holder)
        return
    pair = nn.Parameter(start.clone())
    one, two = member.make([holder.z], holder), member.make([pair], holder)
    for each in (one, two):
        without_multipliers(each)  # they differ between entries, and two entries are one number
    for _ in range(4):
        gradient = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
        holder.z.grad, pair.grad = torch.view_as_complex(gradient.clone()), gradient
        one.step()
        two.step()
    alike([torch.view_as_real(holder.z.detach())], [pair], 1e-13)
    assert not torch.equal(pair, start)


LOW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize(
    ("member", "kind"),
    [
        pytest.param(m, kind, id=f"{m}-{kind}")
        for m in MEMBERS
        for kind in LOW
        if m.needs == "gradients" and kind not in m.torchs
    ],
)
@pytest.mark.parametrize("size", [1.0, 1e-4], ids=["gradients of 1", "gradients of 1e-4"])
def test_16_bits_round_and_do_nothing_worse(member, kind, size):
    """Ten steps end within ten roundings of those that float64 takes on the same gradients."""
    dtype = LOW[kind]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(20, 40, generator=generator, dtype=torch.float64).to(dtype)
    low, high = nn.Parameter(start.clone()), nn.Parameter(start.double())
    if kind in member.refuses:
        with refused(member, kind):
            member.make([low], nn.Module())
        return
    one, two = member.make([low], nn.Module()), member.make([high], nn.Module())
    direction = torch.randn(20, 40, generator=generator, dtype=torch.float64)
    for _ in range(10):
        noise = torch.randn(20, 40, generator=generator, dtype=torch.float64)
        low.grad = ((direction + 0.3 * noise) * size).to(dtype)
        high.grad = low.grad.double()
        one.step()
        two.step()
    most = 10 * torch.finfo(dtype).eps * float(start.abs().max())
    alike([low.double()], [high], most)
    assert bool(torch.isfinite(low).all())


@on_gradients
@pytest.mark.parametrize("kind", LOW)
def test_16_bits_through_a_file(member, kind):
    """What is kept in more bits than the parameters must come back in them."""
    if kind in member.refuses:
        return  # the test above sees the refusal
    ends = []
    for stop in (False, True):
        p = nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4).to(LOW[kind]))
        optimizer = member.make([p], nn.Module())
        for at in range(8):
            if stop and at == 4:
                file = io.BytesIO()
                torch.save(optimizer.state_dict(), file)
                file.seek(0)
                optimizer = member.make([p], nn.Module())
                optimizer.load_state_dict(torch.load(file, weights_only=True))
            p.grad = torch.linspace(1, 2, 12).view(3, 4).to(LOW[kind]) * 1e-2
            optimizer.step()
        ends.append([p])
    assert same(*ends)


@on_losses
@pytest.mark.parametrize("kind", LOW)
def test_16_bits_do_not_drift(member, kind):
    """Perturbing and coming back leaves no trace where the step is 0."""
    dtype = LOW[kind]
    model = network(dtype)
    given = [{"params": list(model.parameters()), **member.still}]
    if kind in member.refuses:
        with refused(member, kind):
            member.make(given, model)
        return
    optimizer = member.make(given, model)
    before = values(model)
    train(member, optimizer, loss_of(model, dtype=dtype), 9)
    settle(optimizer)
    assert same(before, model)


def bad_first_step(optimizer, model, scaler):
    """A first backward whose gradient is infinite, so that the scaler skips the step."""
    optimizer.zero_grad()
    scaler.scale(loss_of(model, dtype=torch.float32)()).backward()
    next(iter(model.parameters())).grad[0] = float("inf")
    scaler.step(optimizer)
    scaler.update()


@every
def test_a_skipped_first_step_neither_moves_nor_counts(member):
    model, plain = network(torch.float32), network(torch.float32)
    optimizer = member.make(list(model.parameters()), model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    if "GradScaler" in member.refuses:
        scaler.scale(torch.ones(()))
        with refused(member, "GradScaler"):
            scaler.step(optimizer, loss_of(model, dtype=torch.float32))
        assert same(model, plain)
        return
    before = copy.deepcopy(optimizer.state_dict()["param_groups"])
    bad_first_step(optimizer, model, scaler)
    assert same(model, plain)
    for group, old in zip(optimizer.param_groups, before, strict=True):
        assert {k: group[k] for k in old if k != "params"} == {
            k: v for k, v in old.items() if k != "params"
        }
    assert scaler.get_scale() == 2.0**9
    reference = member.make(list(plain.parameters()), plain)
    for _ in range(4):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, dtype=torch.float32)()).backward()
        scaler.step(optimizer)
        scaler.update()
        train(member, reference, loss_of(plain, dtype=torch.float32))
    # The scale is a power of 2, so that taking it off is exact.
    assert same(model, plain)


@on_gradients
def test_a_skipped_later_step_neither_moves_nor_counts(member):
    model, plain = network(torch.float32), network(torch.float32)
    optimizer = member.make(list(model.parameters()), model)
    reference = member.make(list(plain.parameters()), plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for at in range(5):
        if at == 2:
            bad_first_step(optimizer, model, scaler)
        optimizer.zero_grad()
        scaler.scale(loss_of(model, dtype=torch.float32)()).backward()
        scaler.step(optimizer)
        scaler.update()
        train(member, reference, loss_of(plain, dtype=torch.float32))
    assert same(model, plain)
