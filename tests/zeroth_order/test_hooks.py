"""Whatever reads a weight sees its perturbation: hooks, written copies, frozen and tied tensors."""

import copy
import warnings

import pytest
import torch
from tests.zeroth_order.nets import flat
from torch import nn

from surefoot.zeroth_order import LOZO, HookWarning


def test_frozen_parameters_and_embeddings_stay():
    model = nn.Sequential(nn.Embedding(11, 6), nn.Flatten(), nn.Linear(12, 5))
    model[2].bias.requires_grad_(False)
    ids = torch.randint(0, 11, (8, 2), generator=torch.Generator().manual_seed(0))
    before = copy.deepcopy(model.state_dict())
    optimizer = LOZO(model, 0.1, nu=3, freeze_embeddings=True)
    for _ in range(6):
        optimizer.step(lambda: model(ids).square().mean())
    optimizer.flush()
    assert torch.equal(model[0].weight, before["0.weight"])
    assert torch.equal(model[2].bias, before["2.bias"])
    assert not torch.equal(model[2].weight, before["2.weight"])


class Sneaky(nn.Module):
    """Reads a weight without calling its module, and another one twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 7), nn.Linear(6, 8)

    def forward(self, x):
        y = torch.tanh(self.a(x)) + torch.tanh(nn.functional.linear(x, self.c.weight))
        return (
            nn.functional.linear(y, self.b.weight).square().mean()
            + 0.1 * self.a.weight.square().sum()
        )


def test_weights_read_outside_their_module_are_found_and_served():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one = Sneaky().double()
    two = copy.deepcopy(one)
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = set()
    for seed in range(6):
        model = copy.deepcopy(one)
        optimizer = LOZO(model, 0.01, nu=4, seed=seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(9):
                optimizer.step(lambda model=model: model(x))
        found |= {str(w.message).split()[0] for w in caught if w.category is HookWarning}
        if seed == 0:
            assert {"b.weight", "c.weight"} <= found
    # a.weight is used by its module and outside: only the check of a chosen tensor can see it.
    assert "a.weight" in found
    good = LOZO(two, 0.01, nu=4, mode="inplace", seed=5)
    for _ in range(9):
        good.step(lambda: two(x))
    if all(s.storage == "written" for s in optimizer.tensors if not s.dense):
        optimizer.flush()
        torch.testing.assert_close(flat(model), flat(two), rtol=0, atol=1e-9)


def test_convolutions_and_attention():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(3, 8, 3, padding=1)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.out = nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))

        def forward(self, x):
            y = self.conv(x).transpose(1, 2)
            return self.out(self.attention(y, y, y, need_weights=False)[0]).square().mean()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one = Net().double()
    two = copy.deepcopy(one)
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = LOZO(one, 0.01, nu=4), LOZO(two, 0.01, nu=4, mode="inplace")
    with pytest.warns(
        HookWarning, match=r"attention.out_proj.weight cannot be perturbed by a hook"
    ):
        a.step(lambda: one(x))
    b.step(lambda: two(x))
    for _ in range(9):
        a.step(lambda: one(x))
        b.step(lambda: two(x))
    a.flush()
    torch.testing.assert_close(flat(one), flat(two), rtol=0, atol=1e-9)


def test_inputs_by_name():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 5)

        def forward(self, x):
            return self.a(input=x).square().mean()

    one = Net().double()
    two = copy.deepcopy(one)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = LOZO(one, 0.1, nu=2), LOZO(two, 0.1, nu=2, mode="inplace")
    for _ in range(4):
        a.step(lambda: one(x))
        b.step(lambda: two(x))
    torch.testing.assert_close(flat(one), flat(two), rtol=0, atol=1e-9)
