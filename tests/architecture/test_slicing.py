"""Physically small: what computes nothing goes, constants go into biases, to a fixed point, exactly."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.architecture.tables import plain, pruned_copy
from torch import nn

from surefoot.architecture import Select, compact
from surefoot.architecture.compaction import count_parameters, network_of

X = torch.from_numpy(np.random.default_rng(0).standard_normal((40, 5)))


def nothing_survives_that_does_nothing(module):
    network = network_of(module)
    for i, w in enumerate(network.weights):
        if i < network.depth:
            assert (w != 0).any(axis=1).all()  # every neuron reads something
        assert (w != 0).any(axis=0).all()  # and everything is read


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=0, max_size=3),
    st.floats(0.0, 1.0),
    st.integers(0, 10**6),
    st.sampled_from(["tanh", "relu", "sigmoid"]),
)
def test_the_same_function_and_nothing_idle(widths, share, seed, activation):
    module = pruned_copy(plain([5, *widths, 2], activation, seed), share, seed)
    small = compact(module)
    with torch.no_grad():
        assert torch.allclose(small(X), module(X), rtol=1e-12, atol=1e-12)
    nothing_survives_that_does_nothing(small)
    assert count_parameters(small)[0] <= count_parameters(module)[0]
    assert small[-1].out_features == 2


def test_five_of_eight_neurons_are_61_parameters():
    module = plain([10, 8, 1])
    with torch.no_grad():
        module[2].weight[:, 5:] = 0
    assert count_parameters(compact(module)) == (61, 61)


def test_constants_cascade():
    """Neuron 0 of the first layer is a constant, which alone feeds neuron 0 of the second."""
    module = plain([5, 3, 2, 1], "sigmoid", 1)
    with torch.no_grad():
        module[0].weight[0] = 0
        module[2].weight[0, 1:] = 0
    small = compact(module)
    assert [p.out_features for p in small if isinstance(p, nn.Linear)] == [2, 1, 1]
    with torch.no_grad():
        assert torch.allclose(small(X), module(X), atol=1e-14)


def test_dead_neurons_cascade_backwards_to_the_inputs():
    module = plain([5, 3, 2, 1], seed=2)
    with torch.no_grad():
        module[4].weight[0, 0] = 0  # so that neuron 0 of layer 2 is dead,
        module[2].weight[1, :2] = 0  # then neurons 0, 1 of layer 1,
        module[0].weight[2, 3:] = 0  # then inputs 3 and 4
    small = compact(module)
    assert isinstance(small[0], Select)
    assert small[0].index.tolist() == [0, 1, 2]
    with torch.no_grad():
        assert torch.allclose(small(X), module(X), atol=1e-14)


def test_a_network_that_reads_nothing_is_its_bias():
    module = plain([5, 3, 2], seed=3)
    with torch.no_grad():
        module[0].weight.zero_()
    small = compact(module)
    assert count_parameters(small)[0] == 2
    assert [type(p) for p in small] == [Select, nn.Linear]
    with torch.no_grad():
        assert torch.allclose(small(X), module(X), atol=1e-14)
    assert small(X[:0]).shape == (0, 2)
    assert compact(small)(X).shape == (40, 2)


def test_selected_inputs_stay_those_of_the_whole_row():
    first = compact(pruned_columns(plain([5, 3, 1], seed=4), [0, 2]))
    again = compact(pruned_columns(first, [1]))
    assert again[0].index.tolist() == [1, 4]
    assert again(X).shape == (40, 1)


def pruned_columns(module, columns):
    with torch.no_grad():
        linear = next(p for p in module if isinstance(p, nn.Linear))
        linear.weight[:, columns] = 0
    return module
