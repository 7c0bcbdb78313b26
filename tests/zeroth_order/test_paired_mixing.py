"""What copies of a batch must not share, and what a model's own tensors look like beside them."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from tests.zeroth_order.nets import flat, problem
from torch import nn

from surefoot.zeroth_order import LOZO, PairedWarning

# The losses tell of a large term, and of a small one that they move with another copy.
LOST = "moves with the weights of another|mixes the rows"


class Watched(nn.Module):
    """A network that remembers its hidden layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(9, 12), nn.Linear(12, 1)

    def forward(self, x):
        self.hidden = torch.tanh(self.first(x))
        return self.last(self.hidden)


class Queries(nn.Module):
    """Scores against four vectors of its own, which are no rows of the batch."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("own", torch.randn(4, 9, generator=generator))
        self.keys, self.read = nn.Linear(9, 9), nn.Linear(9, 9)

    def forward(self, x):
        return (self.read(x).unsqueeze(1) * self.keys(self.own)).mean(-1)


def made(kind, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [1e-2, 1e-3, 3e-4])
def test_a_small_term_over_all_rows_is_not_lost(share, dtype):
    """As an auxiliary loss of experts: too small for the losses themselves to tell."""

    def closure(model):
        return lambda b: F.mse_loss(model(b[0]), b[1]) + share * model.hidden.square().mean()

    model, batch = made(Watched, dtype), problem(dtype)
    with pytest.raises(ValueError, match=LOST):
        LOZO(model, 0.01).step(closure(model), batch, paired=True)
    apart, auto = made(Watched, dtype), made(Watched, dtype)
    LOZO(apart, 0.01).step(closure(apart), batch, paired=False)
    with pytest.warns(PairedWarning, match=LOST):
        LOZO(auto, 0.01).step(closure(auto), batch)
    assert torch.equal(flat(apart), flat(auto))


def test_the_same_term_a_row_is_split():
    def closure(model):
        def loss(b):
            rows = (model(b[0]) - b[1]).square().mean(1)
            return rows + 0.01 * model.hidden.square().mean(1)

        return loss

    found = {}
    for how in (False, True):
        model = made(Watched)
        LOZO(model, 0.01).step(closure(model), problem(), paired=how)
        found[how] = flat(model)
    torch.testing.assert_close(found[True], found[False], rtol=0, atol=1e-12)


def test_a_penalty_on_weights_is_not_lost():
    def closure(model):
        def loss(b):
            penalty = sum(p.square().sum() for p in model.parameters())
            return F.mse_loss(model(b[0]), b[1]) + 0.01 * penalty

        return loss

    found = []
    for how in (False, "auto"):
        model = made(Watched)
        optimizer = LOZO(model, 0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that weights are read outside their modules
            optimizer.step(closure(model), problem(), paired=how)
        found.append(flat(model))
    assert torch.equal(*found)
    assert "read outside its module" in optimizer.last["how"]


def test_vectors_of_the_models_own_are_no_rows_whatever_the_size_of_the_batch():
    """With 2 rows a copy, 4 vectors are as many as the rows of two copies."""
    x, _ = problem()
    labels = torch.arange(30) % 4
    found = {}
    for how in (False, "auto"):
        model = made(Queries)
        optimizer = LOZO(model, 0.01)
        told = []
        for rows in (8, 2, 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PairedWarning)
                optimizer.step(
                    lambda b, model=model: F.cross_entropy(model(b[0]), b[1]),
                    (x[:rows], labels[:rows]),
                    paired=True if how and rows == 8 else how,
                )
            told.append((optimizer.last["how"], optimizer.last["c"]))
        found[how] = told
    assert found["auto"][0][0].startswith("one forward")
    for (_, one), (_, two) in zip(found[False], found["auto"], strict=True):
        assert two == pytest.approx(one, rel=1e-9)  # losses in double, over 2 eps
