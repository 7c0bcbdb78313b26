"""The parts of a step, each by itself: settings, directions, evaluations, running mean, rules, the check."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from tests.zeroth_order.nets import flat, loss_of, network
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from surefoot.zeroth_order import LOZO, MeZO, ZOAdam
from surefoot.zeroth_order._engine import evaluation, hooks, rules
from surefoot.zeroth_order._engine.directions import Directions
from surefoot.zeroth_order._engine.parameters import trained_tensor
from surefoot.zeroth_order._engine.recording import read_shapes, shapes_text
from surefoot.zeroth_order._engine.scalars import RunningMean
from surefoot.zeroth_order._engine.self_check import SET_ASIDE, SelfCheck
from surefoot.zeroth_order._engine.settings import Settings


def matrix(m=6, n=5, rank=2, storage="inplace"):
    tensor = trained_tensor(0, "w", nn.Parameter(torch.zeros(m, n, dtype=torch.float64)), 0, rank)
    tensor.storage = storage
    return tensor


def directions_of(tensor, **settings):
    found = Directions([tensor], [{"rank": tensor.rank, "eps": 0.5}], Settings(**settings))
    found.begin_period()
    return found


class TestDirections:
    @pytest.mark.parametrize("storage", ["inplace", "written"])
    def test_the_model_sees_the_iterate_and_a_multiple_of_u_v(self, storage):
        tensor = matrix(storage=storage)
        found = directions_of(tensor, scale="unit")
        expected = 0.5 * found.draw(tensor, 0) @ tensor.v.T / math.sqrt(2)
        for s in (1.0, -1.0, 0.25):
            found.place(0, s)
            torch.testing.assert_close(tensor.param.detach(), s * expected)
        found.release()
        assert tensor.param.detach().abs().max() < 1e-15

    def test_v_stays_for_a_period_and_is_told_when_it_changes(self):
        tensor, told = matrix(), []
        found = Directions([tensor], [{"rank": 2, "eps": 0.5}], Settings(nu=3))
        seen = []
        for t in range(7):
            found.t = t
            found.begin_period(lambda x, old: told.append(old))
            seen.append(tensor.v.clone())
        assert torch.equal(seen[0], seen[2])
        assert not torch.equal(seen[2], seen[3])
        assert [old is None for old in told] == [True, False, False]
        assert torch.equal(told[1], seen[0])


class TestEvaluations:
    """On f(X) = <G, X> + 7 every difference is <G, D>, D the direction as it is placed."""

    def found(self, how, q):
        tensor = matrix()
        g = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        directions = directions_of(tensor, num_directions=q)
        exact = [float((g * (directions.draw(tensor, i) @ tensor.v.T)).sum()) for i in range(q)]
        calls = []

        def loss():
            calls.append(1)
            return float((g * tensor.param.detach()).sum()) + 7

        return how(loss, directions), exact, len(calls)

    @pytest.mark.parametrize(
        ("how", "calls"), [(evaluation.two_sided, 6), (evaluation.one_sided, 4)]
    )
    def test_differences(self, how, calls):
        found, exact, called = self.found(how, 3)
        assert called == calls
        assert [f.c for f in found] == pytest.approx(exact, rel=1e-9)

    def test_leave_one_out(self):
        found, exact, called = self.found(evaluation.leave_one_out, 3)
        assert called == 3
        expected = [e - (sum(exact) - e) / 2 for e in exact]
        assert [f.c for f in found] == pytest.approx(expected, rel=1e-9)

    def test_another_evaluation_takes_their_place(self):
        """The seam for both signs in one forward: a function of (loss, directions)."""
        model = network()
        optimizer = LOZO(model, 0.1, nu=2)
        given = [evaluation.Difference(2.0, 1.0, 0.5)]
        c = optimizer.engine.estimate(
            loss_of(model), None, restore=True, evaluation=lambda loss, directions: given
        )
        assert c == 0.5
        assert optimizer.last["loss_plus"] == 2.0

    def test_an_error_puts_the_iterate_back(self):
        undone = []
        losses = evaluation.Losses(lambda: undone.append(1))
        with pytest.raises(KeyError):
            losses(lambda: {}["no such batch"])
        assert undone == [1]
        assert losses(lambda: torch.tensor(2.0)) == 2.0


def test_the_running_mean_weighs():
    mean = RunningMean()
    assert mean.add([1.0, 3.0], 2.0) == 2.0
    mean.check(1.0)
    assert mean.add([4.0, 0.0], 1.0) == 2.0
    np.testing.assert_allclose(mean.sums / mean.total, [2.0, 2.0])
    with pytest.raises(ValueError, match="for all micro-batches of a step, or for none"):
        mean.check(None)
    mean.clear()
    mean.check(None)


def test_adam_is_torchs():
    tensor, rule = matrix(), rules.Adam((0.9, 0.999), 1e-8)
    p = nn.Parameter(torch.zeros(6, 5, dtype=torch.float64))
    reference, moved = torch.optim.Adam([p], lr=0.1), torch.zeros(6, 5, dtype=torch.float64)
    for seed in range(5):
        p.grad = torch.randn(6, 5, generator=torch.Generator().manual_seed(seed)).double()
        moved -= 0.1 * rule.step(tensor, p.grad)
        reference.step()
    torch.testing.assert_close(moved, p.detach(), rtol=1e-12, atol=1e-14)


def test_shapes_as_a_word_and_back():
    tensors = [matrix(), matrix(), matrix(9, 7, 3), matrix(3, 3, 0)]
    text = shapes_text(tensors)
    assert text == "6x5 r2 x2, 9x7 r3 x1"
    assert read_shapes(text) == [(6, 5, 2), (6, 5, 2), (9, 7, 3)]
    assert read_shapes(shapes_text(tensors[3:])) == []


class Largest(TorchDispatchMode):
    """The largest result that is no view."""

    def __init__(self, *known):
        super().__init__()
        self.known = {p.untyped_storage().data_ptr() for p in known}
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for each in found if isinstance(found, (list, tuple)) else [found]:
            if (
                isinstance(each, torch.Tensor)
                and each.untyped_storage().data_ptr() not in self.known
            ):
                self.numbers = max(self.numbers, each.untyped_storage().nbytes() // 4)
        return found


class Reader(nn.Module):
    """Reads its weight where no count sees it, if it is told to."""

    def __init__(self, hidden):
        super().__init__()
        self.words, self.out, self.hidden = nn.Embedding(6000, 200), nn.Linear(200, 3), hidden

    def forward(self, ids):
        y = self.out(self.words(ids))
        if self.hidden:
            # Some rows of the weight, past every count: as compiled code may read them.
            y = y + torch.as_tensor(self.words.weight.detach().numpy()[:40]).square().sum()
        return y.square().mean()


@pytest.mark.parametrize("hidden", [False, True])
def test_the_check_sets_aside_a_part_and_finds_what_it_found(hidden):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Reader(hidden)
    ids = torch.arange(50)
    tensor = trained_tensor(0, "words", model.words.weight, 0, 2)
    hooks.install(model, [tensor])
    tensor.begin(directions_of(matrix(6000, 200)).tensors[0].v.float(), 2)
    before = model.words.weight.detach().clone()
    with torch.no_grad(), Largest(model.words.weight) as seen:
        agrees = SelfCheck(20).agrees(tensor, lambda: float(model(ids)))
    assert agrees is not hidden
    assert seen.numbers <= SET_ASIDE < model.words.weight.numel() / 4
    assert torch.equal(model.words.weight, before)
    assert tensor.shown is tensor.b


@pytest.mark.parametrize("good", [0, 1])
def test_a_closure_that_fails_in_the_check_leaves_weight_and_direction(good):
    model = Reader(hidden=False)
    tensor = trained_tensor(0, "words", model.words.weight, 0, 2)
    hooks.install(model, [tensor])
    tensor.begin(directions_of(matrix(6000, 200)).tensors[0].v.float(), 2)
    before, v = model.words.weight.detach().clone(), tensor.v
    losses = [1.0] * good

    def loss():
        if not losses:
            raise RuntimeError("out of memory")
        return losses.pop()

    with torch.no_grad(), pytest.raises(RuntimeError, match="out of memory"):
        SelfCheck(20).agrees(tensor, loss)
    assert torch.equal(model.words.weight, before)
    assert tensor.v is v
    assert tensor.shown is tensor.b


@pytest.mark.filterwarnings("ignore:state_dict in mid-period")
@pytest.mark.parametrize("make", [LOZO, MeZO, ZOAdam])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_goes_its_own_way(make, how):
    model = network()
    optimizer = make(model, 1e-2, momentum=0.9) if make is not ZOAdam else make(model, 1e-2)
    for _ in range(3):
        optimizer.step(loss_of(model))
    twin, copied = how((model, optimizer))
    held = copy.deepcopy(twin.state_dict())
    for _ in range(4):
        optimizer.step(loss_of(model))
    optimizer.flush()
    assert all(torch.equal(held[k], v) for k, v in twin.state_dict().items())
    for _ in range(4):
        copied.step(loss_of(twin))
    copied.flush()
    assert torch.equal(flat(model), flat(twin))
    assert copied.record.fact("method") == optimizer.record.fact("method")


def test_it_shows_its_settings():
    shown = repr(LOZO(network(), 1e-2, nu=7, v_dist="orthogonal"))
    for each in ("LOZO", "lr: 0.01", "rank: 2", "nu: 7", "v_dist: orthogonal", "reproject: paper"):
        assert each in shown
