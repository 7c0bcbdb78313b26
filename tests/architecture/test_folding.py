"""3.3: the exported module is the network on standardised rows, float32 only where that is so."""

import numpy as np
import pytest
import torch
from tests.architecture.tables import CLASSES, NUMBERS, table

from surefoot.architecture._fit.network import Network
from surefoot.architecture._fit.starts import random_network
from surefoot.architecture.folding import fold, folded_module, run_module, standardisation


def fitted_like(name, x, y):
    """A random network on the standardised rows of a table, and the standardisation."""
    number = name in NUMBERS
    outputs = 1 if number else len(np.unique(y))
    weight = np.full(len(x), 1 / len(x))
    by = standardisation(x, y[:, None] if number else None, outputs, weight)
    rng = np.random.default_rng(0)
    return random_network(np.flatnonzero(by.varies), outputs, (8,), "tanh", rng), by


@pytest.mark.parametrize("name", [*CLASSES, *NUMBERS])
def test_tables_within_1e_5(name):
    x, _, y, _ = table(name)
    network, by = fitted_like(name, x, y)
    module, off = folded_module(network, by, x)
    assert off <= 1e-5
    expected = network.forward((x - by.mean) / by.scale) * by.y_scale + by.y_mean
    size = np.maximum(1, np.abs((expected - by.y_mean) / by.y_scale)) * by.y_scale
    assert (np.abs(run_module(module, x) - expected) <= 1e-5 * size).all()


@pytest.mark.parametrize(
    ("scale", "shift", "dtype"),
    [(1.0, 0.0, torch.float32), (1e-3, 1e3, torch.float64), (1e4, 1e3, torch.float32)],
)
def test_float64_where_float32_is_not_enough(scale, shift, dtype):
    x, _, y, _ = table("friedman1")
    network, by = fitted_like("friedman1", x, y)
    _, moved = fitted_like("friedman1", scale * x + shift, y)
    module, off = folded_module(network, moved, scale * x + shift)
    assert module[-1].weight.dtype == dtype
    assert off <= 1e-5
    plain = network.forward(by.inputs(x))
    found = by.outputs(run_module(module, scale * x + shift))
    assert np.abs(found - plain).max() < 1e-4


def test_a_wrong_fold_is_seen():
    x, _, y, _ = table("friedman1")
    network, by = fitted_like("friedman1", x, y)
    other = standardisation(x[:100], y[:100, None], 1, np.full(100, 0.01))
    from surefoot.architecture.compaction import module_of
    from surefoot.architecture.folding import folding_deviation

    module = module_of(fold(network, other), 10)
    assert folding_deviation(module, network, by, x) > 1e-3


def test_means_and_scales_against_numpy_in_higher_precision():
    rng = np.random.default_rng(0)
    for mean, std in ((0.0, 1.0), (1e6, 1e-2), (-3e200, 1e200), (5.0, 1e-200)):
        x = mean + std * rng.standard_normal((500, 1))
        by = standardisation(x, None, 1, np.full(500, 1 / 500))
        exact = x.astype(np.longdouble)
        assert abs(by.mean[0] - float(exact.mean())) <= 1e-15 * abs(mean) + 1e-12 * std
        # 5 + 1e-200 noise is a constant in float64.
        if mean != 5.0:
            wanted = float(exact.std())
            assert by.scale[0] == pytest.approx(wanted, rel=1e-6)
            assert by.varies[0]
        else:
            assert not by.varies[0]
            assert by.scale[0] == 1


def test_columns_that_float64_cannot_standardise_are_named():
    weight = np.full(3, 1 / 3)
    good = np.arange(3.0)[:, None]
    wide, narrow = np.array([-1.7e308, 0, 1.7e308])[:, None], 1e-300 * good
    for x, y, words in (
        (np.hstack([good, wide]), good, "X must be at most 4e.307, got 1.7e.308 in column 1"),
        (good, wide, "y must be at most"),
        (np.hstack([good, narrow]), good, "column 1 of X must vary by at least 1e-290"),
        (good, narrow, "column 0 of y must vary by at least 1e-290"),
    ):
        with pytest.raises(ValueError, match=words):
            standardisation(x, y, 1, weight)


def test_rows_in_any_order_of_memory():
    x, _, y, _ = table("friedman1")
    network, by = fitted_like("friedman1", x, y)
    module, _ = folded_module(network, by, x)
    wanted = run_module(module, x)
    # A product of matrices rounds by where a row lies.
    assert np.allclose(run_module(module, x[::-1])[::-1], wanted, rtol=1e-5)
    fixed = np.asfortranarray(x)
    fixed.flags.writeable = False
    assert np.array_equal(run_module(module, fixed), wanted)


def test_constant_columns_and_weights():
    x = np.array([[1.0, 7.0, 0.1], [3.0, 7.0, 0.1], [100.0, 7.0, 0.1]])
    by = standardisation(x, None, 1, np.array([0.5, 0.5, 0.0]))
    assert by.varies.tolist() == [True, False, False]
    assert by.mean[0] == 2
    assert by.scale[0] == pytest.approx(1)
    assert (by.inputs(x)[:, 1:] == 0).all()


def test_a_network_without_inputs_folds():
    network = Network(np.zeros(0, np.int64), (np.zeros((1, 0)),), (np.array([0.5]),), ())
    by = standardisation(np.ones((4, 2)), np.arange(4.0)[:, None], 1, np.full(4, 0.25))
    module, off = folded_module(network, by, np.ones((4, 2)))
    assert off <= 1e-5
    assert run_module(module, np.ones((1, 2)))[0, 0] == pytest.approx(1.5 + 0.5 * by.y_scale[0])
