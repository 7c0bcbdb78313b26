"""Random networks: their distribution, the authors' edges, standard outputs, and bad arguments."""

import itertools

import pytest
import torch

from surefoot.architecture import MLPSpace

S3 = MLPSpace(3, 1, 7, 4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_same_generator_gives_the_same_networks():
    for space in (S3, MLPSpace.paper()):
        a, b = (space.sample(3, None, generator(5)) for _ in range(2))
        assert a.depth == b.depth
        assert all(
            torch.equal(s, t)
            for p, q in zip(a.parts, b.parts, strict=True)
            for s, t in zip(p, q, strict=True)
        )
        assert torch.equal(space.sample_inputs(4, generator()), space.sample_inputs(4, generator()))


def test_a_depth_is_drawn_uniformly_for_the_whole_batch():
    g = generator()
    counts = torch.bincount(torch.tensor([S3.sample(1, None, g).depth for _ in range(240)]))
    assert counts[0] == 0
    # 60 +- 4 standard deviations of 6.7.
    assert ((counts[1:] - 60).abs() < 27).all()


def test_outputs_have_mean_0_and_standard_deviation_1():
    space = MLPSpace(3, 2, 7, 3, weight_scale=1.0)
    nets = space.sample(60, 2, generator())
    y = nets(space.sample_inputs(5_000, generator(1)))
    # 128 points tell a mean to 1/sqrt(128) = .09 and a standard deviation to about .06.
    assert y.mean(1).abs().median() < 0.1
    assert (y.std(1) - 1).abs().median() < 0.1
    raw = MLPSpace(3, 2, 7, 3, weight_scale=10.0, standardise=False)
    assert raw.sample(200, 2, generator())(raw.sample_inputs(500, generator())).std(1).median() > 3


def test_a_network_that_is_nearly_constant_is_not_blown_up():
    space = MLPSpace(1, 1, 1, 1, weight_scale=1e-9, bias_scale=0.0, sparsity=(0.0,))
    nets = space.sample(5, 1, generator())
    assert nets.weights[-1].abs().max() <= 1e-9 / 1e-2 * 1.001


def test_weights_biases_rates_and_widths_are_as_said():
    space = MLPSpace(
        5, 1, 9, 2, weight_scale=2.0, bias_scale=0.5, sparsity=(0.0, 0.8), standardise=False
    )
    nets = space.sample(2000, 2, generator())
    w = nets.weights[1]
    assert w.abs().max() <= 2
    assert w[w != 0].var() == pytest.approx(4 / 3, rel=0.03)
    assert nets.biases[0].abs().max() <= 0.5
    zeros = (w == 0).float().mean((1, 2))
    assert ((zeros < 0.01) | ((zeros - 0.8).abs() < 0.2)).all()
    assert (zeros < 0.01).float().mean() == pytest.approx(0.5, abs=0.05)
    widths = nets.gates[0].sum(1)
    assert set(widths.tolist()) == {3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0}
    assert (nets.gates[0][:, :-1] >= nets.gates[0][:, 1:]).all()


def test_inputs_are_as_said():
    uniform = MLPSpace(2, 1, 3, 1, input_scale=1.73).sample_inputs(20_000, generator())
    assert uniform.abs().max() <= 1.73
    assert uniform.std() == pytest.approx(1.73 / 3**0.5, rel=0.02)
    normal = MLPSpace(2, 1, 3, 1, input_dist="normal", input_scale=2.0).sample_inputs(
        20_000, generator()
    )
    assert normal.std() == pytest.approx(2, rel=0.02)
    grid = MLPSpace(3, 1, 7, 4).grid()
    assert grid.shape == (1000, 3)
    assert grid[0].tolist() == [-1, -1, -1]
    assert MLPSpace(1, 1, 7, 4).grid(3).tolist() == [[-1], [0], [1]]


def test_the_authors_networks_are_connected_and_as_sparse_as_said():
    nets = MLPSpace.paper().sample(60, 3, generator())
    reached = torch.ones(60, 1, 3)
    for w in nets.weights:
        reached = ((reached @ (w != 0).float()) > 0).float()
    assert (reached > 0).all()
    for i in range(60):
        ends = [3, *nets.widths(i), 1]
        edges = [
            (w[i, :a, :b] != 0).sum() for w, a, b in zip(nets.weights, ends, ends[1:], strict=False)
        ]
        total = sum(a * b for a, b in itertools.pairwise(ends))
        wanted = {max(int(total * (1 - torch.tensor(s).item())), 6) for s in (0.5, 0.7, 0.8, 0.9)}
        assert int(sum(edges)) in wanted
    assert all((b == 0).all() for b in nets.biases)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("n_in", 0), ("n_out", 1.5), ("max_width", 0), ("max_depth", True), ("activations", ("silly",)),
        ("activations", ()), ("activations", "tanh"), ("activations", ("tanh", "tanh")), ("weight_scale", 0),
        ("weight_scale", float("nan")), ("bias_scale", -1), ("sparsity", (1.0,)), ("sparsity", ()),
        ("input_dist", "cauchy"), ("input_scale", 0), ("min_width", 0), ("standardise", 1), ("edges", "many"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_by_name(argument, value):
    good = {"n_in": 3, "n_out": 1, "max_width": 7, "max_depth": 4}
    with pytest.raises(ValueError, match=f"^{argument} must be"):
        MLPSpace(**{**good, argument: value})


@pytest.mark.parametrize(
    ("n", "depth", "name"), [(0, 1, "n"), (1, 5, "depth"), (1, 0, "depth"), (1, 1.5, "depth")]
)
def test_bad_samples_are_refused_by_name(n, depth, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        S3.sample(n, depth)
