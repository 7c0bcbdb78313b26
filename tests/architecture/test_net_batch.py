"""Batches of networks against plain loops, their matrices, their plain networks, their sizes."""

import copy
import itertools
import json
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from surefoot.architecture import (
    ACTIVATIONS,
    MixedActivation,
    MLPSpace,
    NetBatch,
    Select,
    build_module,
    module_spec,
)

S3 = MLPSpace(3, 1, 7, 4)
MIXED = MLPSpace(2, 3, 7, 4, ("sigmoid", "tanh", "leaky_relu"))
SPACES = [S3, MIXED, MLPSpace(12, 9, 5, 2, ("relu", "identity")), MLPSpace.paper()]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def by_hand(nets, i, x):
    """h_i = m_i * act(h W + b), neuron by neuron, in float64."""
    h = x.double()
    for layer in range(nets.depth):
        pre = h @ nets.weights[layer][i].double() + nets.biases[layer][i].double()
        columns = []
        for j in range(nets.space.max_width):
            name = nets.space.activations[int(nets.acts[layer][i, j].argmax())]
            columns.append(ACTIVATIONS[name].function(pre[:, j]) * nets.gates[layer][i, j])
        h = torch.stack(columns, -1)
    return h @ nets.weights[-1][i].double() + nets.biases[-1][i].double()


@pytest.mark.parametrize("space", SPACES, ids=["S3", "mixed", "wide in and out", "paper"])
def test_forward_is_the_formula_neuron_by_neuron(space):
    for depth in range(1, space.max_depth + 1):
        nets = space.sample(4, depth, generator(depth)).to(torch.float64)
        x = space.sample_inputs(9, generator(1)).double()
        for i in range(4):
            torch.testing.assert_close(nets(x)[i], by_hand(nets, i, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize(("space", "n"), [(S3, 25), (MIXED, 8)], ids=["S3", "mixed"])
def test_plain_networks_compute_what_the_batch_computes(space, n, depth):
    """To rounding in float64; in float32 to 1e-5 but for small differences of large terms."""
    nets, x = space.sample(n, depth, generator(depth)), space.sample_inputs(64, generator(9))
    close = 0
    with torch.no_grad():
        for i in range(n):
            plain, double = nets.to_sequential(i), nets[i].to(torch.float64)
            f, f64 = nets[i](x)[0], double(x.double())[0]
            torch.testing.assert_close(
                double.to_sequential(0)(x.double()), f64, rtol=1e-12, atol=1e-12
            )
            size = f.abs().clamp(min=1)
            terms = (
                nets[i].hidden(x).abs()[0] @ nets.weights[-1][i].abs() + nets.biases[-1][i].abs()
            )
            deviation = (plain(x) - f).abs()
            # 16 roundings of the largest terms that an output is the sum of.
            assert (deviation <= 1e-5 * size + 16 * 2**-24 * terms).all()
            close += bool((deviation <= 1e-5 * size).all())
    assert close >= 0.9 * n or space is not S3


def test_of_raw_networks_no_plain_one_is_off_by_more_than_1e5():
    """Without the standardisation that divides by a small spread, whose rounding it would multiply."""
    space = MLPSpace(3, 1, 7, 3, standardise=False)
    for depth in (1, 2, 3):
        nets, x = space.sample(100, depth, generator(depth)), space.sample_inputs(64, generator(9))
        with torch.no_grad():
            f = nets(x)
            plain = torch.stack([nets.to_sequential(i)(x) for i in range(100)])
        assert ((plain - f).abs() / f.abs().clamp(min=1)).max() <= 1e-5


def test_the_neurons_that_are_off_do_not_leak():
    """sigmoid(0) = 1/2: a gate before the activation would let it through."""
    space = MLPSpace(1, 1, 2, 1, ("sigmoid",), standardise=False)
    nets = NetBatch(
        space, [torch.zeros(1, 1, 2), torch.ones(1, 2, 1)], [torch.zeros(1, 2), torch.zeros(1, 1)],
        [torch.tensor([[1.0, 0.0]])], [torch.ones(1, 2, 1)],
    )  # fmt: skip
    assert nets(torch.zeros(1, 1)).item() == 0.5
    assert nets.to_sequential(0)(torch.zeros(1, 1)).item() == 0.5


def test_61_parameters_with_5_of_8_neurons():
    nets = MLPSpace(10, 1, 8, 1).sample(1, 1, generator())
    nets.gates[0] = torch.tensor([[1.0, 0, 1, 1, 0, 1, 0, 1]])
    assert nets.size().item() == 61
    assert sum(p.numel() for p in nets.to_sequential(0).parameters()) == 61


@pytest.mark.parametrize("space", SPACES, ids=["S3", "mixed", "wide in and out", "paper"])
def test_the_size_is_the_number_of_parameters(space):
    for depth in range(1, space.max_depth + 1):
        nets = space.sample(10, depth, generator(depth))
        counted = [sum(p.numel() for p in nets.to_sequential(i).parameters()) for i in range(10)]
        assert nets.size().tolist() == counted
        widths = [[space.n_in, *nets.widths(i), space.n_out] for i in range(10)]
        assert counted == [sum((a + 1) * b for a, b in itertools.pairwise(w)) for w in widths]


@pytest.mark.parametrize("space", SPACES, ids=["S3", "mixed", "wide in and out", "paper"])
def test_matrices_hold_every_bit(space):
    layouts = ["full", "paper"] if space is SPACES[-1] else ["full"]
    for depth in range(1, space.max_depth + 1):
        nets = space.sample(5, depth, generator(depth))
        nets.biases = (
            nets.biases if space.bias_scale else [torch.zeros_like(b) for b in nets.biases]
        )
        for layout in layouts:
            again = NetBatch.from_matrix(nets.to_matrix(layout), space, depth, layout)
            for a, b in zip(nets.parts, again.parts, strict=True):
                assert all(torch.equal(s, t) for s, t in zip(a, b, strict=True))


def test_widths_of_the_authors_matrices():
    paper = MLPSpace.paper()
    widths = [paper.sample(1, d, generator()).to_matrix("paper").shape[1:] for d in (1, 2, 3, 4)]
    assert widths == [(7, 9), (7, 17), (7, 25), (7, 33)]
    follow_up = MLPSpace(2, 1, 7, 4, ("sigmoid", "tanh", "leaky_relu"))
    widths = [follow_up.sample(1, d, generator()).to_matrix().shape[1:] for d in (1, 2, 3, 4)]
    assert widths == [(7, 20), (7, 32), (7, 44), (7, 56)]


def test_the_first_matrix_is_in_the_middle_and_gates_are_last():
    nets = MLPSpace.paper().sample(1, 2, generator())
    matrix = nets.to_matrix("paper")[0]
    assert torch.equal(matrix[2:5, :7], nets.weights[0][0])
    assert (matrix[:2, :7] == 0).all()
    assert (matrix[5:, :7] == 0).all()
    assert torch.equal(matrix[:, 7:14], nets.weights[1][0])
    assert torch.equal(matrix[:, 14:15], nets.weights[2][0])
    assert torch.equal(matrix[:, 15], nets.gates[0][0])
    assert torch.equal(matrix[:, 16], nets.gates[1][0])


def test_the_paper_layout_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match="biases"):
        S3.sample(1, 1, generator()).to_matrix("paper")
    for call in (
        lambda: MIXED.sample(1, 1, generator()).to_matrix("paper"),
        lambda: NetBatch.from_matrix(torch.zeros(1, 7, 9), MIXED, 1, "paper"),
    ):
        with pytest.raises(ValueError, match='one activation.*use "full"'):
            call()
    with pytest.raises(ValueError, match=r"matrix must be \(B, 7, 18\)"):
        NetBatch.from_matrix(torch.zeros(1, 7, 9), S3, 1)
    with pytest.raises(ValueError, match="layout"):
        S3.sample(1, 1, generator()).to_matrix("other")


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_permuted_and_sorted_neurons_compute_the_same(seed, depth):
    nets, x = MIXED.sample(3, depth, generator(seed)).to(torch.float64), torch.randn(5, 2).double()
    for other in (nets.permuted(generator(seed + 1)), nets.canonical()):
        torch.testing.assert_close(other(x), nets(x), rtol=1e-9, atol=1e-9)
    gates = nets.permuted(generator(seed)).canonical().gates
    assert all((g[:, :-1] >= g[:, 1:]).all() for g in gates)


def test_a_permutation_moves_neurons():
    nets = S3.sample(50, 2, generator())
    moved = nets.permuted(generator(3))
    assert (
        sum(not torch.equal(a, b) for a, b in zip(moved.weights[0], nets.weights[0], strict=True))
        > 45
    )


@pytest.mark.parametrize("space", [S3, MIXED, SPACES[2]], ids=["S3", "mixed", "wide in and out"])
def test_from_sequential_undoes_to_sequential(space):
    for depth in range(1, space.max_depth + 1):
        nets, x = (
            space.sample(5, depth, generator()).to(torch.float64),
            torch.randn(6, space.n_in).double(),
        )
        for i in range(5):
            again = NetBatch.from_sequential(nets.to_sequential(i), space)
            torch.testing.assert_close(again(x)[0], nets(x)[i], rtol=1e-10, atol=1e-10)
            assert again.widths(0) == nets.widths(i)


def test_from_sequential_reads_through_select():
    space = MLPSpace(4, 2, 3, 1, ("tanh", "relu"))
    module = nn.Sequential(
        Select([2, 0], 4),
        nn.Linear(2, 3),
        MixedActivation((1, 2), ("relu", "tanh")),
        nn.Linear(3, 2),
    )
    x = torch.randn(6, 4)
    torch.testing.assert_close(NetBatch.from_sequential(module, space)(x)[0], module(x))


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (nn.Sequential(nn.Linear(3, 1)), "1 to 4 hidden layers"),
        (nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), "3 inputs"),
        (nn.Sequential(Select([3]), nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)), "3 inputs"),
        (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), "1 outputs"),
        (nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), "at most 7 wide"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), "activations"),
        (nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 1)), "Dropout"),
        (nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.3), nn.Linear(4, 1)), "LeakyReLU"),
        (nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 1)), "bias"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), "Linear, activation"),
        (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(5, 1)), "reads 5"),
        (nn.Tanh(), "Linear, activation"),
    ],
)
def test_modules_that_do_not_fit_are_refused(module, says):
    with pytest.raises(ValueError, match=says):
        NetBatch.from_sequential(module, S3)


def test_what_is_no_plain_network_is_not_written_as_one():
    nets = S3.sample(2, 2, generator())
    nets.gates[1] = torch.zeros(2, 7)
    with pytest.raises(ValueError, match="hidden layer 2 has no active neuron"):
        nets.to_sequential(0)
    nets.gates[1] = torch.full((2, 7), 0.7)
    with pytest.raises(ValueError, match="gates of hidden layer 2"):
        nets.to_sequential(0)
    mixed = MIXED.sample(1, 1, generator())
    mixed.acts[0] = torch.full((1, 7, 3), 1 / 3)
    with pytest.raises(ValueError, match="acts of hidden layer 1"):
        mixed.to_sequential(0)
    with pytest.raises(IndexError):
        nets.to_sequential(2)


@pytest.mark.parametrize("at", range(4))
def test_wrong_shapes_are_refused_by_name(at):
    parts = [list(p) for p in S3.sample(2, 2, generator()).parts]
    parts[at][0] = parts[at][0][:, :-1]
    name = ("weights", "biases", "gates", "acts")[at]
    with pytest.raises(ValueError, match=f"^{name} must have shapes"):
        NetBatch(S3, *parts)
    with pytest.raises(ValueError, match="max_depth = 4"):
        NetBatch(S3, [], [], [], [])
    with pytest.raises(ValueError, match="x must be"):
        S3.sample(2, 1, generator())(torch.zeros(5, 4))


def test_each_network_may_have_its_own_inputs():
    nets, x = S3.sample(3, 2, generator()), torch.randn(3, 5, 3)
    for i in range(3):
        torch.testing.assert_close(nets(x)[i], nets[i](x[i])[0])


def test_a_plain_network_survives_every_road(tmp_path):
    module = MIXED.sample(1, 2, generator()).to_sequential(0)
    x = torch.randn(4, MIXED.n_in)
    again = build_module(json.loads(json.dumps(module_spec(module))))
    again.load_state_dict(module.state_dict())
    torch.save(module, tmp_path / "net.pt")
    others = [
        again, copy.deepcopy(module), pickle.loads(pickle.dumps(module)),
        torch.load(tmp_path / "net.pt", weights_only=False),
        torch.export.export(module, (x,)).module(),
    ]  # fmt: skip
    for other in others:
        assert torch.equal(other(x), module(x))


def test_a_network_without_inputs_is_a_constant():
    """What a constant y is fitted by: one bias, and a Select of nothing."""
    spec = {"select": [], "n_features": 3, "widths": [0, 1], "activations": [], "dtype": "float64"}
    module = build_module(spec)
    assert module_spec(module) == spec
    with torch.no_grad():
        module[1].bias.fill_(2.5)
    assert module(torch.randn(4, 3).double()).tolist() == [[2.5]] * 4
    assert sum(p.numel() for p in module.parameters()) == 1
    with pytest.raises(ValueError, match="3 columns, got 4"):
        module(torch.zeros(4, 4).double())


GOOD = {"select": None, "n_features": None, "widths": [3, 2, 1], "activations": [[["tanh", 2]]],
        "dtype": "float32"}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dtype": "float16"}, "dtype"), ({"widths": [3, 2]}, "needs 3 widths"),
        ({"activations": [[["tanh", 3]]]}, "2 neurons and 3"),
        ({"activations": [[["silly", 2]]]}, "activations"),
        ({"select": [0]}, "select has 1"), ({"widths": "32"}, "widths must be a list"),
        ({"widths": [3, 2, 1.5]}, "widths"), ({"other": 1}, "entries"),
    ],
)  # fmt: skip
def test_a_specification_that_is_none_is_refused(change, says):
    assert isinstance(build_module(GOOD), nn.Sequential)
    with pytest.raises(ValueError, match=says):
        build_module({**GOOD, **change})


def test_select_and_mixed_refuse_by_name():
    for call in (lambda: Select([-1]), lambda: Select([3], 3)):
        with pytest.raises(ValueError, match="index"):
            call()
    with pytest.raises(ValueError, match="counts"):
        MixedActivation((0,), ("tanh",))
    with pytest.raises(ValueError, match="names"):
        MixedActivation((1,), ("silly",))
    with pytest.raises(ValueError, match="one entry a block"):
        MixedActivation((1, 2), ("tanh",))
