"""All evaluations of an estimate are one forward: the same random numbers, and statistics that count once."""

import functools
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from surefoot.zeroth_order import LOZO, MeZO, ZOAdam
from surefoot.zeroth_order._engine.same_draws import SMALL, SameDraws, global_generators
from surefoot.zeroth_order._engine.self_check import NoisyLossWarning

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(5))
HELD = torch.Generator().manual_seed(3)


class Noise(nn.Module):
    """Adds what `draw(shape)` gives, and keeps what it gave."""

    def __init__(self, draw):
        super().__init__()
        self.draw, self.seen = draw, []

    def forward(self, x):
        noise = self.draw(x.shape)
        self.seen.append(noise.clone())
        return x + noise


class OwnGenerator(Noise):
    def __init__(self):
        super().__init__(None)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        self.draw = lambda shape: torch.randn(shape, generator=self.generator)
        return super().forward(x)


class OwnNumpy(OwnGenerator):
    def __init__(self):
        super().__init__()
        self.generator = np.random.default_rng(0)

    def forward(self, x):
        self.draw = lambda shape: torch.from_numpy(self.generator.random(shape, np.float32))
        return Noise.forward(self, x)


class Dropped(Noise):
    def __init__(self):
        super().__init__(None)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        y = self.dropout(torch.ones_like(x))
        self.seen.append(y.clone())
        return x * y


NOISES = {
    "dropout": Dropped,
    "torch": lambda: Noise(torch.randn),
    "numpy": lambda: Noise(lambda shape: torch.from_numpy(np.random.random(shape)).float()),  # noqa: NPY002
    "python": lambda: Noise(lambda shape: torch.full(shape, random.random())),
    "a generator of the module": OwnGenerator,
    "numpy's, of the module": OwnNumpy,
}  # fmt: skip


def network(noise):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), noise, nn.Tanh(), nn.Linear(8, 1)).train()


def alike(given):
    return all(torch.equal(given[0], each) for each in given)


MAKERS = {
    "LOZO, factored": lambda m, **k: LOZO(m, 1e-3, nu=3, **k),
    "LOZO, in place": lambda m, **k: LOZO(list(m.parameters()), 1e-3, nu=3, **k),
    "MeZO": lambda m, **k: MeZO(m, 1e-3, **k),
    "ZOAdam": lambda m, **k: ZOAdam(m, 1e-3, **k),
    "one-sided": lambda m, **k: LOZO(m, 1e-3, one_sided=True, num_directions=2, **k),
    "two directions": lambda m, **k: LOZO(m, 1e-3, num_directions=2, **k),
    "leave one out": lambda m, **k: LOZO(m, 1e-3, num_directions=3, leave_one_out=True, **k),
}  # fmt: skip


@pytest.mark.parametrize("name", NOISES)
def test_every_evaluation_draws_the_same_and_every_step_anew(name):
    noise = NOISES[name]()
    model = network(noise)
    optimizer = LOZO(model, 1e-3, nu=3)
    masks = []
    for _ in range(3):
        noise.seen.clear()
        optimizer.step(lambda: model(X).square().mean())
        assert len(noise.seen) >= 2
        assert alike(noise.seen)
        masks.append(noise.seen[0])
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[2])


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_every_way_to_evaluate(make):
    noise = Dropped()
    model = network(noise)
    optimizer = make(model)
    for _ in range(2):
        noise.seen.clear()
        optimizer.step(lambda: model(X).square().mean())
        assert alike(noise.seen)
    noise.seen.clear()
    optimizer.estimate(lambda: model(X).square().mean())
    first = noise.seen[0]
    assert alike(noise.seen)
    noise.seen.clear()
    optimizer.estimate(lambda: model(X).square().mean())
    assert alike(noise.seen)
    assert not torch.equal(noise.seen[0], first)
    optimizer.apply()


def test_c_is_that_of_one_mask():
    """Against the derivative along the direction, with the mask held by hand."""
    noise = Dropped()
    model = network(noise)
    optimizer = MeZO(model, 0.0, eps=1e-3, seed=4)
    optimizer.step(lambda: model(X).square().mean())
    mask = noise.seen[-1]
    fixed = nn.Sequential(model[0], Noise(lambda shape: 0), model[2], model[3])
    fixed[1].forward = lambda x: x * mask
    other = MeZO(fixed, 0.0, eps=1e-3, seed=4)
    other.step(lambda: fixed(X).square().mean())
    # Of float32 losses near 1: half an eps of each over 2 eps of the perturbation is 6e-5.
    assert optimizer.last["c"] == pytest.approx(other.last["c"], abs=6e-5)


def test_draws_from_what_the_closure_holds():
    seen = []
    model = network(nn.Identity())
    own = np.random.default_rng(1)

    def noisy(scale, generator):
        noise = torch.randn(16, 6, generator=HELD) + torch.randn(16, 6, generator=generator)
        seen.append(noise + float(own.random()))
        return scale * model(X + seen[-1]).square().mean()

    generator = torch.Generator().manual_seed(8)
    for closure in (lambda: noisy(1.0, generator), functools.partial(noisy, 2.0, generator)):
        optimizer = LOZO(list(model.parameters()), 1e-3)
        seen.clear()
        optimizer.step(closure)
        assert alike(seen)


def test_a_step_consumes_what_one_forward_does():
    model = network(Dropped())
    torch.manual_seed(1)
    with torch.no_grad():
        model(X)
    expected = torch.get_rng_state()
    torch.manual_seed(1)
    optimizer = LOZO(model, 1e-3)
    optimizer.step(lambda: model(X).square().mean())
    assert torch.equal(torch.get_rng_state(), expected)
    optimizer.fd_error(lambda: model(X).square().mean())
    assert torch.equal(torch.get_rng_state(), expected)


def normalised(kind=nn.BatchNorm1d, width=6):
    """Statistics of the data alone: they do not depend on the weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(kind(width, affine=False), nn.Linear(width, 1)).train()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("backward", [False, True])
def test_running_statistics_count_one_forward_a_step(make, backward):
    model, plain = normalised(), normalised()
    optimizer = make(model)

    def closure():
        loss = model(X).square().mean()
        if backward:
            loss.backward()
        return loss

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the closure calls backward")
        for _ in range(3):
            optimizer.step(closure)
            plain(X)
    for a, b in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    assert int(model[0].num_batches_tracked) == 3
    if not backward:
        optimizer.fd_error(closure)
        assert int(model[0].num_batches_tracked) == 3


def test_micro_batches_are_a_forward_each():
    model = normalised()
    optimizer = LOZO(model, 1e-3)
    for half in (X[:8], X[8:]):
        optimizer.estimate(lambda half=half: model(half).square().mean())
    optimizer.apply()
    assert int(model[0].num_batches_tracked) == 2


def test_statistics_in_evaluation_mode_stand_still():
    model = normalised().eval()
    before = [b.clone() for b in model.buffers()]
    LOZO(model, 1e-3).step(lambda: model(X).square().mean())
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))


class Table(nn.Module):
    """A large buffer, which is replaced, and a small one, which is written."""

    def __init__(self):
        super().__init__()
        self.register_buffer("large", torch.zeros(SMALL + 1))
        self.register_buffer("small", torch.zeros(1))

    def forward(self, x):
        self.large = self.large + 1
        self.small += 1
        return x


def test_other_buffers_count_once_too():
    model = nn.Sequential(Table(), nn.Linear(6, 1)).train()
    optimizer = LOZO(model, 1e-3)
    for step in range(1, 4):
        optimizer.step(lambda: model(X).square().mean())
        assert float(model[0].small) == step
        assert float(model[0].large[0]) == step


def test_spectral_norm_takes_one_power_iteration():
    def made():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4))).train()

    model, plain = made(), made()
    optimizer = MeZO(model, 0.0, self_check=False, eps=1e-9)
    optimizer.step(lambda: model(X).square().mean())
    plain(X)
    for a, b in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_compiled_models_draw_the_same():
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(
                nn.BatchNorm1d(6, affine=False), nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 1)
            ).train()
        compiled = torch.compile(model, backend="aot_eager")
        optimizer = LOZO(model, 1e-3)
        for _ in range(3):
            optimizer.step(lambda: compiled(X).square().mean())
        # Masks that differed would move the loss by tenths over a distance of 1e-3.
        assert abs(optimizer.last["c"]) < 20
        assert int(model[0].num_batches_tracked) == 3
    torch._dynamo.reset()


def test_draws_that_cannot_be_repeated_are_told_by_name():
    counter = iter(range(1000))
    noise = Noise(lambda shape: torch.full(shape, float(next(counter))))
    model = network(noise)
    optimizer = LOZO(model, 1e-3)
    with pytest.warns(NoisyLossWarning, match=r"dropout or noise .*call model.eval\(\)"):
        optimizer.step(lambda: model(X).square().mean())
    # Once: warnings are errors here.
    optimizer.step(lambda: model(X).square().mean())
    assert all(x.storage == "hooked" for x in optimizer.tensors if not x.dense)


def test_a_failing_closure_leaves_one_forward_of_the_next():
    model = normalised()
    optimizer = LOZO(model, 1e-3, self_check=False)

    def fails():
        model(X)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        optimizer.step(fails)
    optimizer.step(lambda: model(X).square().mean())
    assert int(model[0].num_batches_tracked) == 2


def test_devices_that_are_not_in_use_are_not_woken():
    assert torch.default_generator in global_generators()
    assert len(global_generators()) == 3 or torch.cuda.is_initialized()


@pytest.mark.parametrize("device", ["cuda", "xpu"])
def test_generators_of_every_device_in_use_are_repeated(monkeypatch, device):
    """Stand-ins for those of two devices: there are none here."""
    two = (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2))
    monkeypatch.setattr(getattr(torch, device), "is_initialized", lambda: True)
    monkeypatch.setattr(getattr(torch, device), "default_generators", two, raising=False)
    draws = [lambda shape, g=g: torch.randn(shape, generator=g) for g in two]
    # What the lambdas hold is not looked through: only the devices' own list can tell.
    noise = Noise(lambda shape: sum(draw(shape) for draw in iter(draws)))
    model = network(noise)
    optimizer = MeZO(model, 1e-3, self_check=False)
    optimizer.step(lambda: model(X).square().mean())
    assert len(noise.seen) == 2
    assert alike(noise.seen)


def test_a_module_in_two_places_is_noted_once():
    model = normalised()
    together = SameDraws(model, lambda: model(X))
    for _ in range(3):
        together(lambda: model(X))
    assert int(model[0].num_batches_tracked) == 1
    together.undo()
    assert int(model[0].num_batches_tracked) == 0
