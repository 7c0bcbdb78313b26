"""Adapter, head, embeddings, adaptation, accuracies."""

import hashlib
import math

import numpy as np
import pytest
import torch
from tests.prototypes.clients import CLASSES, D, clients, head

from surefoot.prototypes import (
    ResidualAdapter,
    ZeroShotHead,
    accuracy_matrix,
    adapt_locally,
    distillation_loss,
    embed,
    from_open_clip,
    from_sentence_transformers,
    from_timm,
)


def test_adapter_by_hand_and_its_size():
    a = ResidualAdapter(8, seed=0)
    z = torch.randn(3, 8)
    expected = z + torch.relu(torch.relu(z @ a.down.weight.T) @ a.up.weight.T)
    torch.testing.assert_close(a(z), expected)
    assert sum(p.numel() for p in ResidualAdapter(512).parameters()) == 512**2 // 2
    assert a.down.weight.abs().max() <= 8**-0.5
    before = torch.get_rng_state()
    assert torch.equal(ResidualAdapter(8, seed=0).up.weight, a.up.weight)
    assert not torch.equal(ResidualAdapter(8, seed=1).up.weight, a.up.weight)
    assert len(before) == len(torch.get_rng_state())


def test_head_by_hand():
    rows = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    u = torch.tensor([[5.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(ZeroShotHead(rows, 10)(u), torch.tensor([[6.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(
        ZeroShotHead(rows, 10, normalize=False)(u[:1]), torch.tensor([[30.0, 0.0]])
    )
    templates = torch.tensor([[[2.0, 0.0], [0.0, 5.0]]])
    torch.testing.assert_close(
        ZeroShotHead(templates, 1).weight, torch.full((1, 2), math.sqrt(0.5))
    )
    assert not list(ZeroShotHead(rows).parameters())


@pytest.mark.parametrize(
    ("rows", "what"),
    [(np.zeros((2, 3)), "norm 0"), (np.ones(3), "classes, d"), ([[np.nan, 1]], "finite")],
)
def test_rows_that_make_no_head(rows, what):
    with pytest.raises(ValueError, match=what):
        ZeroShotHead(rows)
    with pytest.raises(ValueError, match="scale must be"):
        ZeroShotHead(np.eye(2), scale=0)


def encoder():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Dropout(0.5)
    )


def digest(model):
    return hashlib.sha256(
        b"".join(v.numpy().tobytes() for v in model.state_dict().values())
    ).digest()


@pytest.mark.parametrize("mode", [True, False])
def test_the_encoder_is_left_as_it_was(mode):
    model = encoder().train(mode)
    model[2].eval()
    before, modes = digest(model), [m.training for m in model.modules()]
    x = torch.randn(10, 3)
    found = embed(model, x, batch_size=4)
    assert digest(model) == before
    assert [m.training for m in model.modules()] == modes
    assert not found.requires_grad
    torch.testing.assert_close(found, model.eval()(x).detach())
    with pytest.raises(RuntimeError):
        embed(model.train(mode), torch.randn(10, 7))
    assert model.training is mode


def test_encoders_that_are_refused():
    class Stubborn(torch.nn.Linear):
        def eval(self):
            return self

    with pytest.raises(ValueError, match="evaluation mode"):
        embed(Stubborn(3, 2), torch.ones(2, 3))

    class Function:
        eval = 3

        def __call__(self, batch):
            return batch

    with pytest.raises(TypeError, match=r"must have eval\(\)"):
        embed(Function(), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"\(batch, d\)"):
        embed(torch.nn.Flatten(0), torch.ones(2, 3))
    with pytest.raises(ValueError, match="records 2 to 3"):
        embed(torch.nn.Identity(), torch.tensor([[1.0], [1.0], [math.nan], [1.0]]), batch_size=2)
    with pytest.raises(ValueError, match="at least one record"):
        embed(torch.nn.Identity(), torch.ones(0, 3))


class Foreign(torch.nn.Module):
    """The calls of three libraries, as their documents have them."""

    def encode(self, texts, convert_to_tensor, show_progress_bar):
        assert convert_to_tensor
        assert not show_progress_bar
        assert not self.training
        return torch.tensor([[float(len(t)), 1.0] for t in texts])

    def encode_image(self, x):
        return x.flatten(1)

    def forward_features(self, x):
        return x * 2

    def forward_head(self, x, pre_logits=False):
        assert pre_logits
        return x.flatten(1)


def test_wrapped_encoders():
    model = Foreign()
    found = embed(from_sentence_transformers(model), ["a", "bcd"])
    assert found.tolist() == [[1, 1], [3, 1]]
    assert model.training
    x = torch.ones(2, 1, 2)
    assert embed(from_open_clip(model), x).tolist() == [[1, 1], [1, 1]]
    assert embed(from_timm(model), x).tolist() == [[2, 2], [2, 2]]


def test_distillation_is_kl_from_the_global_model():
    g = torch.Generator().manual_seed(0)
    local, target = (torch.randn(5, 7, generator=g, dtype=torch.float64) for _ in range(2))
    p, q = target.softmax(1), local.softmax(1)
    expected = float((p * (p / q).log()).sum())
    assert float(distillation_loss(local, target)) == pytest.approx(expected / 5)
    assert float(distillation_loss(local, target, "mean")) == pytest.approx(expected / 35)
    assert float(distillation_loss(target, target)) == pytest.approx(0, abs=1e-15)
    unchecked = distillation_loss.__wrapped__  # the tests' own check of shapes would come first
    with pytest.raises(ValueError, match="one shape"):
        unchecked(local, target[:3])
    with pytest.raises(ValueError, match="reduction must be"):
        unchecked(local, target, "sum")


def test_adaptation_keeps_the_global_adapter_and_distillation_holds_it():
    z, y = clients(1)[0]
    start = ResidualAdapter(D, seed=0)
    before = [p.detach().clone() for p in start.parameters()]

    def away(**options):
        local = adapt_locally(start, z, y, head(), epochs=15, lr=1e-2, **options)
        with torch.no_grad():
            return float(distillation_loss(head()(local(z)), head()(start(z))))

    free, held = away(kd_weight=0), away(kd_weight=100)
    assert free > 10 * held > 0
    # In the authors' units the same weight holds K times less.
    assert held < away(kd_weight=100, reduction="mean") < free
    assert away(kd_weight=0, shots=1) != free
    assert all(torch.equal(a, b) for a, b in zip(before, start.parameters(), strict=True))


def test_shots_are_the_first_records_of_each_class():
    z, y = clients(1)[0]
    first = torch.cat([torch.nonzero(y == c).flatten()[:2] for c in range(CLASSES)]).sort().values
    options = {"kd_weight": 1.0, "epochs": 2}
    a = adapt_locally(ResidualAdapter(D, seed=0), z, y, head(), shots=2, **options)
    b = adapt_locally(ResidualAdapter(D, seed=0), z[first], y[first], head(), **options)
    assert torch.equal(a.up.weight, b.up.weight)


def test_accuracy_matrix_by_hand():
    two = ZeroShotHead(np.eye(2), 1)
    tests = [(np.eye(2), [0, 1]), (np.eye(2), [0, 0])]

    class Swap(torch.nn.Module):
        def forward(self, z):
            return z.flip(1)

    M = accuracy_matrix([torch.nn.Identity(), Swap()], tests, two)
    assert M.values.tolist() == [[1, 0.5], [0, 0.5]]
    assert (M.ind, M.ood, M.worst) == (0.75, 0.25, 0.5)
    shared = accuracy_matrix(torch.nn.Identity(), tests, two)
    assert shared.ind == shared.ood == 0.75
    with pytest.raises(ValueError, match="one a domain"):
        accuracy_matrix([Swap()], tests, two)
