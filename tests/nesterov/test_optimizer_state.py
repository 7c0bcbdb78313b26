"""Which point is loaded, what survives a checkpoint, and what a change of constants or of dtype does."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn

from surefoot.nesterov import AGNES, NAG, DecreasingNAG, NAGSchedule
from surefoot.nesterov._optimizer.update import fused_works

MAKERS = {
    "AGNES": lambda p: AGNES(p, 0.02, 0.05, 0.9),
    "NAG": lambda p: NAG(p, 0.05, 0.9),
    "DecreasingNAG": lambda p: DecreasingNAG(p, 0.5, 9.0),
}
MODES = {
    "single": {"foreach": False, "fused": False},
    "foreach": {"foreach": True, "fused": False},
    "fused": {"fused": True},
}


def start(*shapes):
    generator = torch.Generator().manual_seed(0)
    options = {"dtype": torch.float64, "generator": generator}
    return [torch.randn(s, **options).requires_grad_() for s in shapes or [(4, 3), (5,)]]


def loss(params):
    return sum(((p - 0.3) ** 2).sum() + torch.sin(p).sum() for p in params)


def descend(params, optimizer, steps=5):
    for _ in range(steps):
        optimizer.zero_grad()
        loss(params).backward()
        optimizer.step()


def values(params):
    return [p.detach().clone() for p in params]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def far(a, b):
    return max(float((x - y).detach().abs().max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", MAKERS)
def test_iterate_inside_iterate_moves_nothing(name):
    params = start()
    optimizer = MAKERS[name](params)
    descend(params, optimizer)
    y = values(params)
    with optimizer.iterate():
        x = values(params)
        with optimizer.iterate():
            assert same(x, params)
        assert same(x, params)
        assert optimizer.holds_iterate
    assert same(y, params)
    assert not same(x, y)
    assert not optimizer.holds_iterate


@pytest.mark.parametrize("name", MAKERS)
def test_iterate_restores_after_an_error_and_refuses_a_step(name):
    params = start()
    optimizer = MAKERS[name](params)
    descend(params, optimizer)
    y = values(params)
    with pytest.raises(RuntimeError, match=r"step\(\) inside iterate"), optimizer.iterate():
        optimizer.step()
    assert same(y, params)
    descend(params, optimizer)


@pytest.mark.parametrize("name", MAKERS)
def test_finalize_leaves_the_iterate_from_inside_as_well(name):
    found = []
    for inside in (False, True):
        params = start()
        optimizer = MAKERS[name](params)
        descend(params, optimizer)
        with optimizer.iterate():
            x = values(params)
        if inside:
            optimizer._shift(1)
            optimizer._name("x")
        optimizer.finalize()
        assert same(x, params)
        descend(params, optimizer)
        found.append(values(params))
    assert same(*found)


@pytest.mark.parametrize("name", MAKERS)
def test_a_checkpoint_from_inside_iterate_says_so_and_resumes(name):
    params = start()
    optimizer = MAKERS[name](params)
    descend(params, optimizer)
    with optimizer.iterate():
        stored, x = copy.deepcopy(optimizer.state_dict()), values(params)
    assert all(group["point"] == "x" for group in stored["param_groups"])
    others = [p.clone().requires_grad_() for p in x]
    other = MAKERS[name](others)
    other.load_state_dict(stored)
    with pytest.raises(RuntimeError, match=r"call resume\(\)"):
        descend(others, other)
    assert same(x, others)
    with other.iterate():
        assert same(x, others)
    other.resume()
    other.resume()
    assert far(params, others) <= 1e-15
    descend(params, optimizer)
    descend(others, other)
    assert far(params, others) <= 1e-14


@pytest.mark.parametrize("name", MAKERS)
def test_a_checkpoint_on_disk_continues_bit_for_bit(name):
    params = start()
    optimizer = MAKERS[name](params)
    descend(params, optimizer)
    file = io.BytesIO()
    torch.save({"params": values(params), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    stored = torch.load(file, weights_only=True)
    others = [p.clone().requires_grad_() for p in stored["params"]]
    other = MAKERS[name](others)
    other.load_state_dict(stored["optimizer"])
    descend(params, optimizer)
    descend(others, other)
    assert same(params, others)


def test_a_parameter_without_gradient_keeps_its_velocity_when_constants_change():
    params = start()
    optimizer = AGNES(params, 0.02, 0.05, 0.9)
    descend(params, optimizer)
    kept = optimizer.velocity(params[1])
    params[1].grad = None
    optimizer.param_groups[0].update(lr=0.01, correction=0.03, momentum=0.8)
    optimizer.step()
    torch.testing.assert_close(optimizer.velocity(params[1]), kept, rtol=1e-14, atol=0)


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("name", ["AGNES", "NAG"])
def test_a_tensor_learning_rate_changed_in_place_is_followed(name, capturable):
    """Schedulers fill a tensor; the constants of the step before must not change with it."""
    found, iterates = [], []
    for rate in (0.02, torch.tensor(0.02, dtype=torch.float64)):
        params = start()
        optimizer = (
            AGNES(params, rate, 0.05, 0.9, capturable=capturable)
            if name == "AGNES"
            else NAG(params, rate, 0.9, capturable=capturable)
        )
        group = optimizer.param_groups[0]
        group["scheduled"] = True
        for factor in (0.5, 1.0, 3.0, 0.25):
            descend(params, optimizer, 3)
            if isinstance(rate, torch.Tensor):
                rate.mul_(factor)
            else:
                group["lr"] *= factor
            with optimizer.iterate():
                iterates.append(values(params))
        found.append(values(params))
    assert far(*found) <= 1e-14
    for plain, on_tensor in zip(iterates[:4], iterates[4:], strict=True):
        assert far(plain, on_tensor) <= 1e-14


def test_nag_under_a_schedule_of_lr_never_touches_its_buffer():
    """The buffer is -v/rho whatever the step size: no pass over memory is spent on a new one."""
    params = start()
    optimizer = NAG(params, 0.05, 0.9)
    descend(params, optimizer)
    before = values([optimizer.state[p]["momentum_buffer"] for p in params])
    group = optimizer.param_groups[0]
    group.update(lr=0.03, scheduled=True)
    for p in params:
        p.grad = None
    params[0].grad = torch.zeros_like(params[0])
    optimizer.step()
    assert same(before[1:], [optimizer.state[params[1]]["momentum_buffer"]])


@pytest.mark.parametrize("make", [lambda p: AGNES(p), lambda p: NAG(p, 0.1, 0.9)])
def test_one_warning_an_optimizer(make):
    params = start((2,), (3,), (4,))
    optimizer = make([{"params": [p]} for p in params])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(4):
            descend(params, optimizer, 1)
            scheduler.step()
    assert ["alpha moved without" in str(w.message) for w in caught] == [True]


def test_a_schedule_of_all_three_is_silent():
    params = start()
    optimizer = AGNES(params)
    schedule = NAGSchedule(optimizer, lambda n: (0.05, 0.02 / (n + 1), 0.9))
    for _ in range(3):
        descend(params, optimizer, 1)
        schedule.step()


@pytest.mark.parametrize("mode", MODES)
def test_amp_after_the_implementation_changed(mode):
    """Loading a state brings its mode along: the scale must be taken off whichever it is."""
    plain = torch.ones(3, requires_grad=True)
    other = AGNES([plain], 0.1, 0.1, 0.5, **MODES[mode])
    (plain**2).sum().backward()
    other.step()
    x = torch.ones(3, requires_grad=True)
    optimizer = AGNES([x], 0.1, 0.1, 0.5, fused=mode != "fused")
    optimizer.load_state_dict(AGNES([x], 0.1, 0.1, 0.5, **MODES[mode]).state_dict())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((x**2).sum()).backward()
    scaler.step(optimizer)
    torch.testing.assert_close(x, plain, rtol=0, atol=0)


def test_amp_with_a_second_group_in_another_mode():
    x, z = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = AGNES([{"params": [x], "fused": True}], 0.1, 0.1, 0.5)
    optimizer.add_param_group({"params": [z], "fused": False, "foreach": True})
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((x**2).sum() + (z**2).sum()).backward()
    scaler.step(optimizer)
    torch.testing.assert_close(x, z, rtol=0, atol=0)
    assert float(x[0].detach()) == pytest.approx(0.7)


@pytest.mark.parametrize("mode", MODES)
def test_parameters_of_several_dtypes_in_one_group(mode):
    """Also where a model changes its dtype after the optimizer was made."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = AGNES(model.parameters(), 0.02, 0.05, 0.9, **MODES[mode])
    model[1].double()
    complex_ = torch.tensor([1 + 2j], requires_grad=True)
    optimizer.add_param_group({"params": [complex_]})
    before = values([*model.parameters(), complex_])
    x = torch.ones(2, 3)
    (model[1](model[0](x).double()).square().sum() + complex_.abs().square().sum()).backward()
    expected = [
        b - 0.05 * p.grad - 0.02 * 0.9 * p.grad
        for b, p in zip(before, [*model.parameters(), complex_], strict=True)
    ]
    optimizer.step()
    assert far([*model.parameters(), complex_], expected) <= 1e-6


@pytest.mark.parametrize("fault", ["absent", "another formula"])
def test_without_the_kernel_a_fused_step_is_a_foreach_step(fault, monkeypatch):
    expected = start()
    descend(expected, AGNES(expected, 0.02, 0.05, 0.9, **MODES["foreach"]))
    if fault == "absent":
        monkeypatch.delattr(torch, "_fused_sgd_")
    else:
        kernel = torch._fused_sgd_
        monkeypatch.setattr(
            torch, "_fused_sgd_", lambda *a, **k: kernel(*a, **k | {"dampening": 0.0})
        )
    fused_works.cache_clear()
    try:
        params = start()
        descend(params, AGNES(params, 0.02, 0.05, 0.9, fused=True))
    finally:
        fused_works.cache_clear()
    assert same(params, expected)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"lr": torch.tensor(-0.1)}, "lr must be >= 0, got -0.1"),
        ({"lr": torch.ones(2)}, "lr must be a number or a one-element tensor"),
        ({"correction": torch.tensor(0.0)}, "correction must be > 0 where it is a tensor"),
    ],
)
def test_bad_tensors(arguments, says):
    with pytest.raises(ValueError, match=says):
        AGNES(start(), **arguments)


@pytest.mark.acceptance
@pytest.mark.filterwarnings("ignore")  # inductor and its dependencies warn in their own code
def test_step_compiled_to_machine_code():
    """The default backend of torch.compile; the rate is a tensor, so that a new one compiles nothing."""
    expected, params = start(), start()
    plain = AGNES(expected, 0.02, 0.05, 0.9, **MODES["single"])
    rate = torch.tensor(0.02, dtype=torch.float64)
    optimizer = AGNES(params, rate, 0.05, 0.9, capturable=True)
    step = torch.compile(optimizer.step)
    for group in plain.param_groups:
        group["scheduled"] = True
    for k in range(6):
        if k == 3:
            plain.param_groups[0]["lr"] = 0.01
            rate.fill_(0.01)
        descend(expected, plain, 1)
        optimizer.zero_grad()
        loss(params).backward()
        step()
    assert far(params, expected) <= 1e-13
