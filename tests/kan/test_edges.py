"""Norms, pictures and pruning of edges against closed forms and what the network itself computes."""

import copy
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from surefoot.kan import KAN, OutOfGridWarning, curve_norms, prune


def made(widths, seed=0, **how):
    torch.manual_seed(seed)
    return KAN(widths, **{"kernel": "torch", "dtype": torch.float64, **how})


@pytest.fixture
def x():
    return (
        2 * torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1
    )


def test_the_norm_of_a_straight_line_and_of_a_constant():
    layer = made([2, 2], grid_range=(-2, 4), base_activation=None)[0]
    # Greville's points: a spline with these coefficients is the identity.
    h = 6 / 5
    greville = -2 + h * (torch.arange(8, dtype=torch.float64) - 1)
    with torch.no_grad():
        layer.spline_weight[0, 0] = 3 * greville
        layer.spline_weight[1, 0] = 5.0
        layer.spline_weight[0, 1] = -greville
    norms = curve_norms(layer)
    assert norms[0, 0] == pytest.approx(3 * 6 / 12**0.5, rel=1e-12)
    assert norms[0, 1] == pytest.approx(6 / 12**0.5, rel=1e-12)
    assert norms[1, 0] == pytest.approx(0, abs=1e-12)
    at = torch.tensor([[0.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(curve_norms(layer, at)[0], torch.tensor([3.0, 0.0], dtype=torch.float64))


KINDS = ({}, {"basis": "rbf"}, {"basis": "chebyshev"}, {"base_activation": torch.tanh})


@pytest.mark.parametrize("how", KINDS)
def test_norms_over_data_are_those_of_what_the_layer_computes(x, how):
    layer = made([3, 2], **how)[0]
    for i in range(3):
        # All else fixed, of what one input adds.
        one = copy.deepcopy(layer)
        one.mask = torch.zeros(2, 3, dtype=torch.bool)
        one.mask[:, i] = True
        wanted = one(x).std(0, correction=0)
        assert torch.allclose(curve_norms(layer, x)[:, i], wanted.detach(), rtol=1e-10)


def test_norms_over_the_grid_are_those_over_many_points():
    layer = made([2, 3], grid_range=(-3, 1))[0]
    many = torch.linspace(-3, 1, 40001, dtype=torch.float64)[:, None].expand(-1, 2)
    assert torch.allclose(curve_norms(layer), curve_norms(layer, many), rtol=1e-4)


def test_norms_of_edges_without_a_grid_ask_for_data(x):
    for how in ({"basis": "chebyshev"}, {"basis": "rbf"}):
        with pytest.raises(ValueError, match="x must be given"):
            curve_norms(made([3, 2], **how)[0])
    for wrong in (x[:, :2], x[:0]):
        with pytest.raises(ValueError, match="rows of 3 columns"):
            curve_norms(made([3, 2])[0], wrong)
    with pytest.raises(ValueError, match="finite"):
        curve_norms(made([3, 2])[0], x * torch.nan)


# A mask.


@pytest.mark.parametrize(
    "how", [*KINDS, {"bias": True}, {"dtype": torch.float32, "kernel": "auto"}]
)
def test_a_masked_edge_is_the_layer_with_zero_weights(x, how):
    layer = made([3, 4], **how)[0]
    x = x.to(layer.weight.dtype)
    mask = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    zeroed = copy.deepcopy(layer)
    with torch.no_grad():
        zeroed.spline_weight.mul_(mask[..., None])
        zeroed.base_weight.mul_(mask)
    layer.mask = mask
    assert torch.equal(layer(x), zeroed(x))
    layer(x).sum().backward()
    lines = layer.weight.grad[: 3 * layer.rule.bases].view(3, -1, 4).permute(2, 0, 1)
    assert not lines[~mask].any()
    assert lines[mask].any()


def test_a_mask_survives_what_a_layer_goes_through(x):
    layer = made([3, 2])[0]
    layer.mask = torch.tensor([[True, False, True], [False, True, True]])
    at = x[:, 1]
    for changed in (
        copy.deepcopy(layer).fit_grid(2 * x), copy.deepcopy(layer).refine(10),
        copy.deepcopy(layer).float().double(),
    ):  # fmt: skip
        assert not changed.curve(0, 1)(at).any()
        with torch.no_grad():
            changed.weight.normal_()  # whatever an optimizer does
        assert not changed.curve(0, 1)(at).any()
        assert torch.equal(changed.mask, layer.mask)
        moved = x.clone()
        moved[:, 1] += 0.3
        assert torch.equal(changed(x)[:, 0], changed(moved)[:, 0])
    assert layer.regularization(1.0, 0.0) == (layer.spline_weight.abs().mean(-1) * layer.mask).sum()


# Pruning.


def planted(x):
    """One of three inputs does nothing, one of four hidden units is not read, one is constant."""
    model = made([3, 4, 2])
    with torch.no_grad():
        for part in (model[0].spline_weight, model[0].base_weight):
            part[:, 2] = 0
            part[3] = 0
        for part in (model[1].spline_weight, model[1].base_weight):
            part[:, 1] = 0
    return model


def test_what_does_nothing_goes_without_a_trace(x):
    model = planted(x)
    before = model(x)
    result = prune(model, x, threshold=1e-9)
    assert result.widths == (3, 2, 2)
    assert (result.edges, result.edges_left) == (20, 2 * 2 + 2 * 2)
    assert result.share == 8 / 20
    assert result.max_error <= 1e-12
    assert torch.allclose(result.model(x), before, atol=1e-12)
    assert result.parameters == sum(p.numel() for p in model.parameters())
    assert result.parameters_left == sum(p.numel() for p in result.model.parameters())
    assert result.parameters_left == 3 * 9 * 2 + 2 + 2 * 9 * 2 + 2
    assert "KAN 3-2-2: 8 of 20 edges left (40 %)" in str(result)
    assert torch.equal(model(x), before)  # the given one is as it was
    assert model[0].mask is None


def test_the_error_is_the_difference_of_the_two_networks(x):
    model = made([3, 6, 2])
    result = prune(model, x, keep=0.5)
    difference = (result.model(x) - model(x)).detach()
    assert result.max_error == pytest.approx(float(difference.abs().max()), rel=1e-12)
    assert result.rms_error == pytest.approx(float(difference.square().mean().sqrt()), rel=1e-12)
    assert result.max_error > result.rms_error > 0
    assert result.edges_left <= 15


def test_a_removed_edge_leaves_its_mean():
    """Of one layer the error is then at most the norms of what went, in root mean square."""
    layer = made([3, 1])
    g = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(500, 3, dtype=torch.float64, generator=g) - 1
    with torch.no_grad():
        layer[0].spline_weight[0, 1] = 7 + 0.001 * torch.randn(8, generator=g, dtype=torch.float64)
        layer[0].base_weight[0, 1] = 0
    result = prune(layer, x, threshold=0.1)
    norm = float(curve_norms(layer[0], x)[0, 1])
    assert result.edges_left == 2
    assert result.rms_error == pytest.approx(norm, rel=1e-10)
    assert result.rms_error < 2e-3


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.01),
    ],
)
def test_removed_edges_stay_removed_in_training(x, optimizer):
    model = prune(made([3, 5, 2], dtype=torch.float32, kernel="auto"), x.float(), keep=0.4).model
    masks = [layer.mask.clone() for layer in model.layers]
    steps = optimizer(model.parameters())
    for _ in range(5):
        steps.zero_grad()
        (model(x.float()) - 1).square().mean().backward()
        steps.step()
    for layer, mask in zip(model.layers, masks, strict=True):
        assert torch.equal(layer.mask, mask)
        assert not layer.spline_weight[~mask].any()
        assert not layer.base_weight[~mask].any()
        assert layer.spline_weight[mask].any()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    assert float(curve_norms(model[0], x.float())[~masks[0]].abs().sum()) == 0


@given(
    widths=st.lists(st.integers(1, 4), min_size=2, max_size=5), keep=st.floats(0.01, 1),
    seed=st.integers(0, 99), bias=st.booleans(),
)  # fmt: skip
@settings(max_examples=10)
def test_any_shape(widths, keep, seed, bias):
    model = made(widths, seed, bias=bias, out_of_grid="linear")
    g = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(30, widths[0], generator=g, dtype=torch.float64) - 1
    result = prune(model, x, keep=keep)
    layers = result.model.layers
    assert result.widths[0] == widths[0]
    assert result.widths[-1] == widths[-1]
    assert all(a <= b for a, b in zip(result.widths, widths, strict=True))
    assert result.edges_left <= max(len(layers), round(keep * result.edges))
    difference = (result.model(x) - model(x)).detach().abs().max()
    assert float(difference) == pytest.approx(result.max_error, abs=1e-12)
    for first, second in pairwise(layers):
        for unit in range(first.out_features):
            useful = first.mask[unit].any() and second.mask[:, unit].any()
            # A layer must have one input, even if nothing of it is left.
            assert useful or first.out_features == 1
    # Without what is removed already, again: nothing changes.
    again = prune(result.model, x, threshold=0)
    assert again.widths == result.widths
    assert again.max_error <= 1e-12


def test_all_is_kept_where_all_is_asked(x):
    model = made([3, 4, 2])
    for result in (prune(model, x, keep=1.0), prune(model, x, threshold=0)):
        assert result.share == 1
        assert result.max_error == 0
    assert prune(model, x, threshold=0.999).edges_left <= 2


def test_units_that_are_normalised_together_stay(x):
    model = made([3, 4, 2], basis="rbf")
    result = prune(model, x, keep=0.3)
    assert result.widths == (3, 4, 2)
    assert torch.allclose(result.model(x), result.model(x))
    difference = (result.model(x) - model(x)).detach().abs().max()
    assert result.max_error == pytest.approx(float(difference), rel=1e-12)


def test_a_pruned_network_is_saved_and_loaded(x):
    result = prune(made([3, 6, 2]), x, keep=0.5)
    fresh = made(result.widths, seed=9, bias=True)
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(fresh(x), result.model(x))
    with pytest.raises(RuntimeError, match="mask"):
        result.model.load_state_dict(made(result.widths, bias=True).state_dict())


def test_bad_pruning(x):
    model = made([3, 4, 2])
    for how in ({}, {"keep": 0.5, "threshold": 0.1}):
        with pytest.raises(ValueError, match="exactly one of threshold and keep"):
            prune(model, x, **how)
    for name, value in (("keep", 0), ("keep", 1.5), ("threshold", -1), ("threshold", 1)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            prune(model, x, **{name: value})
    with pytest.raises(ValueError, match="model must be a KAN, got KANLinear"):
        prune(model[0], x, keep=0.5)
    with pytest.raises(ValueError, match="no layers but KANLinear, got Softmax"):
        prune(made([3, 2]).append(nn.Softmax(-1)), x, keep=0.5)
    with pytest.raises(ValueError, match="rows of 3 columns"):
        prune(model, x[:, :2], keep=0.5)


def test_pruning_and_pictures_leave_counters_and_warnings_alone(x):
    model = made([3, 4, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutOfGridWarning)
        prune(model, 5 * x, keep=0.5)
        model.plot(5 * x)
    assert model[0].out_of_grid_fraction == 0


# Pictures.


def test_a_picture_has_every_curve(x):
    model = made([3, 4, 2])
    figure = model.plot(x)
    assert len(figure.data) == 20
    assert "KAN 3-4-2: all 20 curves" in figure.layout.title.text
    assert "the range of the inputs" in figure.layout.title.text
    for trace in figure.data:
        words = trace.name.split()  # "layer n: i → o"
        n, i, o = int(words[1][:-1]), int(words[2]), int(words[4])
        at = torch.tensor(trace.x, dtype=torch.float64)
        assert np.allclose(trace.y, model[n].curve(o, i)(at).numpy(), atol=1e-12)
    shades = [(s.x0, s.x1) for s in figure.layout.shapes]
    assert len(shades) == 20
    assert shades[0] == (float(x[:, 0].min()), float(x[:, 0].max()))
    hidden = model[0](x).detach()
    assert shades[-1][0] == pytest.approx(float(hidden[:, 3].min()))
    figure.to_json()


def test_a_large_network_shows_the_edges_with_the_largest_norm(x):
    model = made([3, 10, 4])
    with torch.no_grad():
        model[1].spline_weight[2, 7] = torch.randn(8) * 50
    figure = model.plot(x, most=5)
    assert len(figure.data) == 5
    assert "the 5 of 70 curves with the largest norm" in figure.layout.title.text
    assert "layer 1: 7 → 2" in [t.name for t in figure.data]
    relative = [curve_norms(model[0], x), curve_norms(model[1], model[0](x).detach())]
    ranked = sorted((float(v / r.max()) for r in relative for v in r.flatten()), reverse=True)
    shown = []
    for trace in figure.data:
        words = trace.name.split()
        r = relative[int(words[1][:-1])]
        shown.append(float(r[int(words[4]), int(words[2])] / r.max()))
    assert sorted(shown, reverse=True) == pytest.approx(ranked[:5])


def test_a_picture_without_data_shades_the_grids_and_leaves_removed_edges_out(x):
    model = made([3, 4, 2], grid_range=(-2, 3))
    pruned = prune(model, x, keep=0.5)
    figure = pruned.model.plot()
    assert len(figure.data) == pruned.edges_left
    assert {(s.x0, s.x1) for s in figure.layout.shapes} == {(-2.0, 3.0)}
    assert "the range of the grid" in figure.layout.title.text


@pytest.mark.parametrize("how", [{"basis": "rbf"}, {"basis": "chebyshev"}])
def test_pictures_of_other_bases(x, how):
    model = made([3, 2], **how)
    assert len(model.plot(x).data) == len(model.plot().data) == 6


def test_bad_pictures(x):
    with pytest.raises(ValueError, match="most must be"):
        made([3, 2]).plot(x, most=0)
    with pytest.raises(ValueError, match="rows of 3 columns"):
        made([3, 2]).plot(x[:, :1])
