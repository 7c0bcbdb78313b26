"""Frozen first blocks run once an estimate where each copy has a forward too: the same losses, to the bit."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from surefoot.zeroth_order import LOZO

IDS = torch.randint(0, 11, (5, 3), generator=torch.Generator().manual_seed(0))
GOALS = torch.randint(0, 4, (5,), generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    """A residual block that counts its calls; the second may write into what it is given."""

    def __init__(self, dropout=0.0, in_place=False):
        super().__init__()
        self.linear, self.dropout = nn.Linear(6, 6), nn.Dropout(dropout)
        self.in_place, self.calls = in_place, 0

    def forward(self, x):
        self.calls += 1
        y = self.dropout(torch.tanh(self.linear(x)))
        return x.add_(y) if self.in_place else x + y


class Model(nn.Module):
    """An embedding, four blocks and a head."""

    def __init__(self, dropout=0.0, in_place=False):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 4)
        self.blocks = nn.ModuleList(Block(dropout if i == 3 else 0.0, in_place) for i in range(4))

    def forward(self, ids, states=False):
        x = self.embed(ids)
        seen = [x]
        for block in self.blocks:
            x = block(x)
            seen.append(x)
        y = self.head(x.mean(1))
        return (y, seen) if states else y


def made(frozen=2, embed=False, **how):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Model(**how)
    model.embed.weight.requires_grad_(embed)
    for block in model.blocks[:frozen]:
        block.requires_grad_(False)
    return model


def plain(model):
    return lambda: F.cross_entropy(model(IDS), GOALS)


def steps(model, closure, skip=True, count=3, batch=None, **settings):
    """(losses and c of each step, calls of every block in the last one)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        optimizer = LOZO(model, 1e-2, **({"nu": 2, "seed": 1} | settings))
        optimizer._engine.losses.prefix.refused = not skip
        found = []
        for _ in range(count):
            for block in model.blocks:
                block.calls = 0
            more = {} if batch is None else {"batch": batch, "paired": False}
            optimizer.step(closure(model), **more)
            last = optimizer.last
            found.append((last["loss_plus"], last["loss_minus"], last["c"]))
    return found, [b.calls for b in model.blocks]


@pytest.mark.parametrize(
    ("settings", "evaluations"),
    [
        ({}, 2),
        ({"num_directions": 3}, 6),
        ({"num_directions": 2, "one_sided": True}, 3),
        ({"num_directions": 3, "leave_one_out": True}, 3),
        ({"mode": "inplace"}, 2),
        ({"fold": False}, 2),
    ],
)
def test_the_same_losses_with_one_run_of_the_frozen_blocks(settings, evaluations):
    found, calls = steps(made(), plain, **settings)
    whole, all_calls = steps(made(), plain, skip=False, **settings)
    assert found == whole
    # Now and then one evaluation is repeated with all blocks.
    again = calls[0] - 1
    assert again in (0, 1)
    assert calls == [1 + again] * 2 + [evaluations + again] * 2
    assert all_calls == [evaluations] * 4


def test_a_batch_whose_copies_have_a_forward_each():
    def closure(model):
        return lambda batch: F.cross_entropy(model(batch["ids"]), batch["goals"])

    batch = {"ids": IDS, "goals": GOALS}
    found, calls = steps(made(), closure, batch=batch)
    assert found == steps(made(), closure, skip=False, batch=batch)[0]
    assert calls == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "how",
    [{"embed": True}, {"frozen": 0}, {"dropout": 0.5}, {"in_place": True}],
    ids=str,
)
def test_nothing_is_left_out_where_it_would_be_another_loss(how):
    found, calls = steps(made(**how), plain)
    whole, all_calls = steps(made(**how), plain, skip=False)
    assert found == whole
    assert calls == all_calls


def test_a_model_that_is_called_twice_in_a_loss():
    def closure(model):
        return lambda: F.cross_entropy(model(IDS), GOALS) + model(IDS.flip(0)).square().mean()

    found, calls = steps(made(), closure)
    assert found == steps(made(), closure, skip=False)[0]
    assert calls == [2, 2, 4, 4]


def test_a_loss_that_reads_the_frozen_states():
    def closure(model):
        def loss():
            y, states = model(IDS, states=True)
            return F.cross_entropy(y, GOALS) + (states[1] * states[-1]).mean()

        return loss

    found, calls = steps(made(), closure)
    assert found == steps(made(), closure, skip=False)[0]
    assert calls == [2, 2, 2, 2]


def test_a_loss_that_reads_the_frozen_states_later_is_found_out():
    """It is looked at again as often as its uses double."""
    model, late = made(), False
    optimizer = LOZO(model, 1e-2, nu=50, seed=1)

    def loss():
        y, states = model(IDS, states=True)
        return F.cross_entropy(y, GOALS) + (states[1] * states[-1]).mean() * late

    for _ in range(5):
        optimizer.step(loss)
    prefix = optimizer._engine.losses.prefix
    assert not prefix.refused
    late = True
    for _ in range(prefix._used + 1):
        optimizer.step(loss)
    assert prefix.refused


class Growing:
    """A loss that calls its model once more at some of its evaluations."""

    def __init__(self, model, more):
        self.model, self.more, self.times = model, more, 0

    def __call__(self):
        self.times += 1
        rows = [IDS, IDS.flip(0)] if self.times in self.more else [IDS]
        return sum(F.cross_entropy(self.model(r), GOALS) for r in rows)


@pytest.mark.parametrize("more", [4, 7], ids=["untried", "trusted"])
def test_a_loss_that_calls_its_blocks_more_often_the_second_time(more):
    """It is evaluated anew, and nothing is left out from then on.

    Two evaluations look; then come F+, F- without the frozen blocks and F- with them; then F+ and F-.
    """
    growing = None

    def once(model):
        nonlocal growing
        growing = growing or Growing(model, {more})
        return growing

    found, calls = steps(made(), once, self_check=False)
    assert found == steps(made(), plain, skip=False, self_check=False)[0]
    assert calls == [2, 2, 2, 2]
    assert growing.times > more


def test_what_is_frozen_later_is_left_out_from_then_on():
    model = made()
    optimizer = LOZO(model, 1e-2, nu=1, seed=1)
    for _ in range(2):
        optimizer.step(plain(model))
    model.blocks[2].requires_grad_(False)
    for _ in range(2):
        for block in model.blocks:
            block.calls = 0
        optimizer.step(plain(model))
    assert [b.calls for b in model.blocks] == [1, 1, 1, 2]


def test_a_copy_of_the_optimizer_finds_its_own_blocks():
    model = made()
    optimizer = LOZO(model, 1e-2, nu=2, seed=1)
    optimizer.step(plain(model))
    other, again = copy.deepcopy((model, optimizer))
    a = optimizer.step(plain(model))
    assert a == again.step(plain(other))
    assert again._engine.losses.prefix.blocks == list(other.blocks[:2])


@pytest.mark.parametrize("has_run", [False, pytest.param(True, marks=pytest.mark.acceptance)])
def test_compiled_models_are_left_as_they_are(has_run):
    torch.compiler.reset()
    model = made()
    compiled = torch.compile(model, backend="eager")
    if has_run:
        with torch.no_grad():
            compiled(IDS)
    optimizer = LOZO(compiled, 1e-2, nu=2, seed=1)
    whole, _ = steps(made(), plain, skip=False)
    for each in whole:
        optimizer.step(plain(compiled))
        assert optimizer.last["loss_plus"] == each[0]
    assert optimizer._engine.losses.prefix.refused
    torch.compiler.reset()
