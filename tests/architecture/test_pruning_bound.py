"""3.4: the bound is never violated, and pruning stays within it."""

import copy
import math

import numpy as np
import pytest
import torch
from tests.architecture.tables import plain, pruned_copy
from torch import nn

from surefoot import Verdict
from surefoot.architecture import MixedActivation, prune_with_bound, pruning_bound
from surefoot.architecture._fit.starts import random_network
from surefoot.architecture.pruning import network_bound

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 6))


def outputs(module, x):
    with torch.no_grad():
        return module(torch.as_tensor(x, dtype=torch.float64)).numpy()


def change(module, other, x):
    return np.linalg.norm(outputs(module, x) - outputs(other, x), axis=1)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_never_violated_on_200_networks(activation):
    worst, rng = 0.0, np.random.default_rng(1)
    h0 = np.ascontiguousarray(X.T)
    for seed in range(200):
        start = random_network(np.arange(6), 1, (8, 8), activation, rng)
        network = start.with_parts(
            [(0.3, 1.5, 5.0)[seed % 3] * w for w in start.weights], start.biases
        )
        share = 0.1 + 0.8 * (seed % 7) / 7
        biases = list(start.biases)
        if seed % 2:  # biases too
            biases[0] = np.where(rng.random(8) < 0.2, 0.0, biases[0])
        pruned = network.with_parts(
            [np.where(rng.random(w.shape) < share, 0.0, w) for w in network.weights], biases
        )
        h = network.layers(h0)
        bound, found = network_bound(network, pruned, h), np.abs(pruned.layers(h0)[-1] - h[-1])[0]
        assert (found <= bound * (1 + 1e-12) + 1e-12).all()
        worst = max(worst, float((found / np.maximum(bound, 1e-300)).max()))
    module = plain([6, 8, 8, 1], activation, 0, scale=1.5)
    pruned = pruned_copy(module, 0.3, 0)
    assert (change(module, pruned, X) <= pruning_bound(module, pruned, X) + 1e-12).all()
    assert worst > 0.01  # it is a bound, not infinity


def test_layers_of_several_activations_and_depth_0():
    module = plain([6, 4, 4, 2], seed=1)
    module[1] = MixedActivation([1, 3], ["sigmoid", "relu"])
    pruned = pruned_copy(module, 0.4)
    assert (change(module, pruned, X) <= pruning_bound(module, pruned, X) + 1e-12).all()
    linear = plain([6, 2], seed=2)
    less = pruned_copy(linear, 0.5)
    # Of one Linear the bound is the change itself.
    assert np.allclose(pruning_bound(linear, less, X), change(linear, less, X), rtol=1e-12)


def test_by_hand_on_one_hidden_neuron():
    module, pruned = plain([1, 1, 1], "tanh"), None
    with torch.no_grad():
        for part, (w, b) in zip(module[::2], [(2.0, 0.5), (3.0, 0.0)], strict=True):
            part.weight.fill_(w), part.bias.fill_(b)
    pruned = copy.deepcopy(module)
    with torch.no_grad():
        pruned[0].weight.zero_()
    x = np.array([[1.0], [-2.0]])
    assert np.allclose(pruning_bound(module, pruned, x), 3 * 2 * np.abs(x[:, 0]))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        pruning_bound(plain([6, 4, 1]), plain([6, 5, 1]), X)
    with pytest.raises(ValueError, match="X must have 6 columns"):
        pruning_bound(plain([6, 4, 1]), plain([6, 4, 1]), X[:, :5])
    with pytest.raises(ValueError, match="Sequential"):
        pruning_bound(nn.GRU(6, 2), plain([6, 4, 1]), X)


def test_a_linear_alone_and_numbers_that_are_not_finite():
    linear = nn.Linear(6, 1, dtype=torch.float64)
    pruned, report = prune_with_bound(linear, X, 0.3)
    assert isinstance(pruned, nn.Sequential)
    assert report.max_bound == pytest.approx(change(linear, pruned, X).max())
    wrong = plain([6, 4, 1])
    with torch.no_grad():
        wrong[0].weight[0, 0] = math.nan
    for call, name in (
        (lambda: pruning_bound(wrong, plain([6, 4, 1]), X), "module"),
        (lambda: pruning_bound(plain([6, 4, 1]), wrong, X), "pruned"),
        (lambda: prune_with_bound(wrong, X, 0.1), "module"),
    ):
        with pytest.raises(ValueError, match=f"{name} must have finite weights"):
            call()


@pytest.mark.parametrize("bound", ["mean", "max", "measured"])
def test_prunes_the_largest_set_within_tol(bound):
    module = plain([6, 8, 1], seed=3, scale=0.5)
    pruned, report = prune_with_bound(module, X, 0.8, bound)
    found = change(module, pruned, X)
    assert report.n_pruned > 0
    assert report.mean_change == pytest.approx(found.mean())
    assert report.max_change == pytest.approx(found.max())
    bounds = pruning_bound(module, pruned, X)
    kept = {"mean": bounds.mean(), "max": bounds.max(), "measured": found.mean()}[bound]
    assert kept <= 0.8
    assert [type(p) for p in pruned] == [type(p) for p in module]
    # No larger threshold would have stayed within it.
    sizes = np.unique(np.concatenate([p.weight.detach().abs().ravel() for p in module[::2]]))
    for size in sizes[sizes > report.threshold]:
        more = copy.deepcopy(module)
        with torch.no_grad():
            for p in more[::2]:
                p.weight[p.weight.abs() <= size] = 0
        bounds, found = pruning_bound(module, more, X), change(module, more, X)
        assert {"mean": bounds.mean(), "max": bounds.max(), "measured": found.mean()}[bound] > 0.8


def test_tol_0_prunes_nothing_and_the_input_is_not_touched():
    module = plain([6, 8, 1], seed=3)
    before = copy.deepcopy(module.state_dict())
    pruned, report = prune_with_bound(module, X, 0.0)
    assert report.n_pruned == 0
    assert report.max_bound == 0
    prune_with_bound(module, X, 1e9)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(value, pruned.state_dict()[name])


def test_certificate_kept_and_broken_by_a_wrong_lipschitz_constant(monkeypatch):
    module = plain([6, 8, 8, 1], "relu", seed=4, scale=0.4)
    kept = prune_with_bound(module, X, 0.01, "measured")[1].certificates()
    assert [c.verdict for c in kept] == [Verdict.KEPT]
    import surefoot.architecture.pruning as place

    relu = place.ACTIVATIONS["relu"]
    wrong = type(relu)("relu", relu.function, relu.module, 0.0)
    monkeypatch.setitem(place.ACTIVATIONS, "relu", wrong)
    # Then the bound sees the last layer alone, where nothing was pruned.
    with torch.no_grad():
        module[-1].weight += 10 * module[-1].weight.sign()
    report = prune_with_bound(module, X, 0.5, "measured")[1]
    assert report.n_pruned
    assert [c.verdict for c in report.certificates()] == [Verdict.BROKEN]


@pytest.mark.parametrize(
    ("kw", "name"), [({"tol": -1.0}, "tol"), ({"tol": math.nan}, "tol"), ({"tol": math.inf}, "tol")]
)
def test_bad_arguments_are_named(kw, name):
    with pytest.raises(ValueError, match=name):
        prune_with_bound(plain([6, 8, 1]), X, **kw)
