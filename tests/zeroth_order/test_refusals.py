"""Bad input to the optimisers, and what they say of a loss or a model that cannot work."""

import warnings

import pytest
import torch
from tests.zeroth_order.nets import flat, loss_of, network
from torch import nn

from surefoot.zeroth_order import LOZO


def test_a_closure_that_calls_backward_is_told_once():
    model = network()
    optimizer = LOZO(model, 0.01, mode="inplace")

    def closure():
        loss = loss_of(model)()
        loss.backward()
        return loss

    with pytest.warns(UserWarning, match="uses? no gradients"):
        optimizer.step(closure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(closure)
    assert optimizer.t == 2


def test_a_loss_without_resolution_is_told():
    model = network()
    optimizer = LOZO(model, 0.01, eps=1e-9)
    for _ in range(19):
        optimizer.step(lambda: loss_of(model)().bfloat16())
    with pytest.warns(UserWarning, match="below the resolution of the loss"):
        optimizer.step(lambda: loss_of(model)().bfloat16())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nu": 0}, "nu must be a whole number of at least 1, got 0"),
        ({"rank": 0}, "rank must be a whole number of at least 1, got 0"),
        ({"rank": 1.5}, "rank must be .*got 1.5"),
        ({"eps": 0.0}, "eps must be positive and finite, got 0.0"),
        ({"lr": -1.0}, "lr must be at least 0 and finite, got -1.0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"scale": "huge"}, "scale must be one of 'paper', 'unit', got 'huge'"),
        ({"v_dist": "cauchy"}, "v_dist must be one of"),
        ({"reproject": "none"}, "reproject must be one of 'paper', 'lstsq', 'reset'"),
        ({"mode": "magic"}, "mode must be one of"),
        ({"num_directions": 0}, "num_directions must be .*got 0"),
        ({"c_clip": -1.0}, "c_clip must be positive"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"mode": "inplace", "fold": False}, "fold=False needs mode 'factored'"),
    ],
)
def test_bad_settings(settings, message):
    settings = {"lr": 0.1} | settings
    with pytest.raises(ValueError, match=message):
        LOZO(network(), **settings)


@pytest.mark.parametrize("name", ["momentum", "nu", "v_dist", "seed"])
def test_a_group_cannot_have_what_all_share(name):
    """It would be ignored, and a certificate would speak of what the optimizer has."""
    x = nn.Parameter(torch.zeros(3, 3))
    with pytest.raises(ValueError, match=f"a group cannot have {name} of its own, only lr, rank"):
        LOZO([{"params": [x], name: 1}], 0.1)


def test_bad_parameters():
    with pytest.raises(
        TypeError, match="0 must be of a real floating-point dtype, got torch.complex64"
    ):
        LOZO([nn.Parameter(torch.zeros(3, 3, dtype=torch.complex64))], 0.1)
    with pytest.raises(ValueError, match="at least one trainable tensor"):
        LOZO([], 0.1)
    with pytest.raises(ValueError, match="at least one trainable tensor"):
        LOZO([nn.Parameter(torch.zeros(3, 0))], 0.1)
    with pytest.raises(ValueError, match="mode 'factored' needs the model"):
        LOZO([nn.Parameter(torch.zeros(3, 3))], 0.1, mode="factored")
    with pytest.raises(ValueError, match="contiguous"):
        LOZO([nn.Parameter(torch.zeros(4, 3).T)], 0.1)


def test_bad_closures():
    model = network()
    optimizer = LOZO(model, 0.1)
    with pytest.raises(ValueError, match="step needs a closure"):
        optimizer.step()
    with pytest.raises(ValueError, match="apply needs an estimate before it"):
        optimizer.apply()
    with pytest.raises(ValueError, match=r"must return one number, got a tensor of shape \(2,\)"):
        optimizer.step(lambda: torch.zeros(2))
    with pytest.raises(ValueError, match="must return one number, got str"):
        LOZO(model, 0.1, self_check=False).step(lambda: "low")
    with pytest.raises(ValueError, match="weight must be .*at least 0"):
        LOZO(model, 0.1).estimate(lambda: 0.0, weight=-1.0)


def test_an_error_in_the_closure_leaves_the_iterate():
    model = network()
    before, calls = flat(model).clone(), []
    optimizer = LOZO(model, 0.01, mode="inplace")

    def closure():
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("data")
        return loss_of(model)()

    with pytest.raises(KeyError):
        optimizer.step(closure)
    torch.testing.assert_close(flat(model), before, rtol=0, atol=1e-15)
    optimizer.step(loss_of(model))
    assert optimizer.t == 1


def test_decay_needs_folds():
    with pytest.raises(ValueError, match="weight_decay must be 0 with fold=False"):
        LOZO(network(), 0.1, fold=False, weight_decay=0.1)


def test_normalisation_weights_in_sixteen_bits_are_named():
    model = nn.Sequential(nn.Linear(9, 12), nn.LayerNorm(12)).bfloat16()
    # At 0 numbers lie close: the other vectors are not lost, whatever the first layer was drawn as.
    nn.init.zeros_(model[0].bias)
    x = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    optimizer = LOZO(model, 0.1)
    with pytest.warns(
        UserWarning, match=r"in most entries of 1.weight: their perturbations round away"
    ):
        optimizer.step(lambda: model(x).float().square().mean())


def test_freezing_on_the_way_stops_a_tensor_and_cannot_be_logged():
    model = network()
    optimizer = LOZO(model, 0.1, nu=3)
    for _ in range(4):
        optimizer.step(loss_of(model))
    optimizer.flush()
    before = model[0].weight.detach().clone()
    model[0].weight.requires_grad_(False)
    for _ in range(4):
        optimizer.step(loss_of(model))
    optimizer.flush()
    assert torch.equal(model[0].weight, before)
    assert len(optimizer.record.fact("low_rank_shapes").all) == 2
    logged = LOZO(network(), 0.1, log=True)
    logged.tensors[0].param.requires_grad_(False)
    with pytest.raises(ValueError, match="0.weight was frozen after the optimizer was made"):
        logged.step(loss_of(logged.model))
