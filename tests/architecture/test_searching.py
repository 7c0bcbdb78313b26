"""Search: what it finds and folds, restarts that do not interact, repetition, collapse, bad arguments."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from surefoot.architecture import MLPSpace, NetworkAutoencoder, search
from surefoot.architecture._search.tasks import table, task_losses
from surefoot.architecture.searching import full_size, penalised

SMALL = MLPSpace(3, 1, 6, 2, ("tanh", "relu"))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model():
    return NetworkAutoencoder(SMALL, 16)


@pytest.fixture(scope="module")
def data():
    x = torch.randn(200, 3, generator=generator())
    y = torch.tanh(2 * x[:, 0]) + 0.5 * x[:, 1]
    return x, (y - y.mean()) / y.std()


def test_direct_search_fits_and_exports_what_it_found(data):
    x, y = data
    found = search(
        SMALL, x, y, task="regression", depth=[1, 2], restarts=2, steps=120, generator=generator()
    )
    for depth, nets in zip((1, 2), found, strict=True):
        assert nets.depth == depth
        assert nets.iterations == 120
        assert nets.losses[0] < 0.3
        for i in range(len(nets)):
            plain = nets.to_sequential(i)
            assert ((plain(x)[:, 0] - y) ** 2).mean().item() == pytest.approx(
                nets.losses[i].item(), rel=1e-4
            )


def test_the_penalty_is_paid_in_parameters(data):
    x, y = data
    sizes = [
        search(
            SMALL, x, y, task="regression", depth=1, restarts=3, size_penalty=c, steps=100,
            generator=generator(),
        ).size()[0].item()
        for c in (0.0, 0.5)
    ]  # fmt: skip
    assert sizes[1] < sizes[0]


def test_a_decoder_of_another_shape_is_adapted_and_folded(model):
    """10 features, 3 classes, from a decoder of 3 inputs and 1 output."""
    x = torch.randn(150, 10, generator=generator())
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    found = search(
        model, x, y, task="classification", depth=2, restarts=2, steps=40, generator=generator()
    )
    assert (found.space.n_in, found.space.n_out) == (10, 3)
    plain = found.to_sequential(0)
    assert plain(x).shape == (150, 3)
    loss = nn.functional.cross_entropy(plain(x), y).item()
    assert loss == pytest.approx(found.losses[0].item(), rel=1e-4)
    assert loss < math.log(3)


def test_the_frozen_decoder_stays_as_it_was(model, data):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    search(model, *data, task="regression", depth=1, restarts=2, steps=5, generator=generator())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_without_adapters_the_networks_are_the_decoders_own(model, data):
    from surefoot.architecture._search.variables import Latent

    z = torch.randn(2, 16, generator=generator())
    own = Latent(model, z, 2, data[0], 1, False, None).nets(0.05, hard=True)
    decoded = model.decode(z, 2, hard=True)
    for a, b in zip(own.parts, decoded.parts, strict=True):
        assert all(map(torch.equal, a, b))


def test_adapters_start_at_the_decoders_own_network_where_shapes_agree(model, data):
    from surefoot.architecture._search.variables import Latent

    z = torch.randn(2, 16, generator=generator())
    own = Latent(model, z, 2, data[0], 1, True, None).nets(0.05, hard=True)
    torch.testing.assert_close(own(data[0]), model.decode(z, 2, hard=True)(data[0]))


def test_many_features_start_from_principal_components(model):
    from surefoot.architecture._search.variables import Latent

    x = torch.randn(300, 3, generator=generator()) @ torch.randn(3, 600, generator=generator(1)) * 5
    a = Latent(model, torch.zeros(2, 16), 1, x, 1, True, generator()).tensors()[2]
    assert a.shape == (2, 600, 3)
    spread = ((x - x.mean(0)) @ a[0].detach()).std(0)
    torch.testing.assert_close(spread, torch.ones(3), rtol=0.02, atol=0)


def test_steps_repeat_bit_for_bit(data):
    runs = [
        search(
            SMALL, *data, task="regression", depth=1, restarts=2, steps=30, batch_size=64,
            generator=generator(4),
        )
        for _ in range(2)
    ]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(runs[0].weights, runs[1].weights, strict=True))
    other = search(
        SMALL, *data, task="regression", depth=1, restarts=2, steps=30, generator=generator(5)
    )
    assert not torch.equal(other.weights[0], runs[0].weights[0])


def test_restarts_do_not_interact(data):
    """The gradient of the sum is each restart's own: one that diverges spoils no other."""
    from surefoot.architecture._search.variables import Direct

    rows = table(*data, "regression")
    both = Direct(SMALL, 1, 2, generator())
    with torch.no_grad():
        both.tensors()[0][1] = math.nan
    penalised(both.nets(1.0), rows, 0.1).sum().backward()
    alone = Direct(SMALL, 1, 2, generator())
    penalised(alone.nets(1.0), rows, 0.1)[0].backward()
    for a, b in zip(both.tensors(), alone.tensors(), strict=True):
        torch.testing.assert_close(a.grad[0], b.grad[0], rtol=1e-4, atol=1e-6)
        assert a.grad[0].isfinite().all()


def test_the_objective_is_the_formula(data):
    nets = SMALL.sample(4, 2, generator())
    rows = table(*data, "regression")
    found = penalised(nets, rows, 0.3)
    for i in range(4):
        plain = nets.to_sequential(i)
        size = sum(p.numel() for p in plain.parameters())
        full = (3 + 1) * 6 + (6 + 1) * 6 + (6 + 1) * 1
        assert full == full_size(SMALL, 2)
        task = ((plain(rows.x) - rows.y) ** 2).mean().item()
        weights = sum(w[i].abs().mean().item() for w in nets.weights)
        assert found[i].item() == pytest.approx(task + 0.3 * size / full + 1e-3 * weights, rel=1e-4)


def test_losses_of_classes_are_torchs():
    y = torch.tensor([0, 1, 2, 1])
    f = torch.randn(2, 4, 3, generator=generator())
    wanted = [nn.functional.cross_entropy(f[i], y).item() for i in range(2)]
    assert task_losses(f, y, "classification").tolist() == pytest.approx(wanted)
    two = torch.tensor([0, 1, 1, 0])
    wanted = [
        nn.functional.binary_cross_entropy_with_logits(f[i, :, 0], two.float()).item()
        for i in range(2)
    ]
    assert task_losses(f[..., :1], two, "classification").tolist() == pytest.approx(wanted)
    assert table(np.eye(4), two.numpy(), "classification").n_out == 1
    assert table(np.eye(4), y.numpy(), "classification").n_out == 3


@pytest.mark.parametrize("adapters", [True, False])
@pytest.mark.parametrize("decoder", ["direct", "decoder"])
def test_the_kept_loss_is_that_of_the_kept_network(decoder, adapters, model, data):
    """Where one look was the best, what later steps wrote must not come back under its loss."""
    from surefoot.architecture._search.variables import Direct, Latent
    from surefoot.architecture.searching import Budget, _descend

    rows = table(*data, "regression")
    z = torch.randn(2, 16, generator=generator())
    v = Direct(SMALL, 1, 2, generator()) if decoder == "direct" else Latent(
        model, z, 1, rows.x, 1, adapters, generator()
    )  # fmt: skip
    # A rate at which the loss goes up and down.
    (best,) = _descend([v], rows, Budget(120, None), 0.1, 0.5, 256, generator())
    torch.testing.assert_close(penalised(best.nets, rows, 0.1), best.loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decoder", ["direct", "decoder"])
def test_a_penalty_beyond_all_measure_leaves_no_network(decoder, model, data):
    """Never an empty layer, never NaN: who searched takes the linear model."""
    found = search(
        SMALL if decoder == "direct" else model, *data, task="regression", depth=2, restarts=3,
        size_penalty=1e6, steps=90, generator=generator(),
    )  # fmt: skip
    assert len(found) == 0
    assert found.collapsed == 3
    assert found.losses.shape == (0,)


def test_the_best_of_the_run_is_kept_not_the_last(data):
    from surefoot.architecture._search.found import Best

    best = Best()
    good, bad = SMALL.sample(2, 1, generator()), SMALL.sample(2, 1, generator(1))
    wanted = good.weights[0].clone()
    best.see(good, torch.tensor([1.0, 5.0]))
    # What an optimizer writes into the same tensors afterwards is no part of what was seen.
    good.weights[0].add_(1.0)
    best.see(bad, torch.tensor([2.0, math.nan]))
    best.see(bad, torch.tensor([3.0, 4.0]))
    assert best.loss.tolist() == [1, 4]
    assert torch.equal(best.nets.weights[0][0], wanted[0])
    assert torch.equal(best.nets.weights[0][1], bad.weights[0][1])


def test_a_warm_start_starts_at_the_decoded_function(model, data):
    x = data[0]
    plain = SMALL.sample(1, 2, generator()).to_sequential(0)
    found = search(
        model, x, plain(x).detach()[:, 0], task="regression", depth=2, restarts=1, steps=1, lr=1e-12,
        size_penalty=0.0, warm_start=plain, generator=generator(),
    )  # fmt: skip
    decoded = model.decode(model.encode(plain), 2, hard=True)
    torch.testing.assert_close(found(x), decoded(x), rtol=1e-3, atol=1e-3)


def test_seconds_bound_the_search(data):
    """By a clock that ticks a second a look."""
    ticks = iter(range(1000))
    found = search(
        SMALL, *data, task="regression", depth=1, restarts=1, seconds=20.0, generator=generator(),
        clock=lambda: next(ticks),
    )  # fmt: skip
    assert found.iterations == 19


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": "ranking"}, "task"), ({"depth": 3}, "depth"), ({"depth": []}, "depth"),
        ({"restarts": 0}, "restarts"),
        ({"size_penalty": -1.0}, "size_penalty"), ({"lr": 0.0}, "lr"), ({"batch_size": 0}, "batch_size"),
        ({"steps": None}, "steps or seconds"), ({"seconds": 1.0}, "steps or seconds"),
        ({"X": np.full((200, 3), np.nan)}, "X must be finite"), ({"X": np.ones(200)}, "X must have 2"),
        ({"X": np.full((200, 3), 1e300)}, "float32"), ({"y": np.ones(3)}, "y must be"),
        ({"y": np.full(200, np.inf)}, "y must be finite"),
        ({"warm_start": nn.Linear(3, 1)}, "warm_start needs"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_by_name(data, change, says):
    X, y = (t.numpy() for t in data)
    good = {"X": X, "y": y, "task": "regression", "depth": 1, "restarts": 1, "steps": 1}
    with pytest.raises(ValueError, match=says):
        search(SMALL, **{**good, **change})


def test_what_a_decoder_cannot_do_is_refused(model):
    X, y = np.ones((5, 4)), np.arange(5.0)
    for change in ({"adapters": False}, {"warm_start": lambda x: x[:, 0]}):
        with pytest.raises(ValueError, match="needs the decoder's own 3 features"):
            search(model, X, y, task="regression", depth=1, steps=1, **change)
    for classes in (np.array([0.5, 1, 0, 1, 0]), np.array([-1, 0, 1, 0, 1])):
        with pytest.raises(ValueError, match="classes"):
            search(SMALL, X, classes, task="classification", depth=1, steps=1)
