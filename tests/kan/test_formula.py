"""Planted functions are found again, and what is none is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.kan import Formula, KANLinear, formula

SIMPLE = {
    "x": lambda u: u,
    "x^2": lambda u: u**2,
    "x^3": lambda u: u**3,
    "x^4": lambda u: u**4,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "1/x": lambda u: 1 / u,
    "abs": np.abs,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "arctan": np.arctan,
    "gaussian": lambda u: np.exp(-(u**2)),
}


def planted(function, lo=-1.0, hi=1.0, size=40, n_in=1, base=None):
    """A layer whose last edge is the function, by least squares over many points."""
    layer = KANLinear(
        n_in,
        1,
        grid_size=size,
        grid_range=(lo, hi),
        base_activation=base,
        kernel="torch",
        dtype=torch.float64,
    )
    at = torch.linspace(lo, hi, 20 * size, dtype=torch.float64)
    bases = layer.rule(at[:, None], layer.grid_lo[:1], layer.grid_hi[:1])[:, 0]
    with torch.no_grad():
        layer.spline_weight[0, -1] = torch.linalg.lstsq(
            bases, torch.from_numpy(function(at.numpy()))
        ).solution
        if layer.base_weight is not None:
            layer.base_weight.zero_()
    return layer


def agrees(found, function, lo, hi, within):
    at = np.linspace(lo, hi, 501)
    y = function(at)
    return np.abs(found(at) - y).max() <= within * np.ptp(y)


PLANTED = {
    "x": (2.0, 1.0, -0.3, (-1, 1)),
    "x^2": (3.0, 1.0, 0.4, (-1, 2)),
    "x^3": (1.0, 1.5, -0.2, (-1, 1)),
    "x^4": (-2.0, 1.0, 0.1, (-1, 1)),
    "exp": (0.5, 1.3, 0.0, (-2, 1)),
    "log": (2.0, 1.5, 2.0, (-1, 3)),
    "sqrt": (1.0, -1.0, 2.5, (-1, 2)),
    "1/x": (1.0, 1.0, 1.7, (-1, 1)),
    "abs": (1.0, 2.0, 0.4, (-1, 1)),
    "sin": (1.5, 4.0, 0.5, (-1, 1)),
    "cos": (1.5, 3.0, 0.2, (-2, 2)),
    "tanh": (1.0, 3.0, 0.6, (-1, 1)),
    "arctan": (1.0, 4.0, 0.5, (-2, 2)),
    "gaussian": (2.0, 2.0, 0.4, (-1, 1)),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_each_function_is_told_by_its_name(name):
    a, b, c, (lo, hi) = PLANTED[name]

    def function(x):
        return a * SIMPLE[name](b * x + c) + 0.7

    found = formula(planted(function, lo, hi), 0, 0)
    assert found.name == name, str(found)
    assert found.R2 > 0.9999
    # The kink of |x| is no spline: it is rounded off over one cell.
    assert agrees(found, function, lo, hi, 2e-2 if name == "abs" else 1e-4)
    assert found.candidates[name] == found.R2
    # A simpler one is told only for hardly anything.
    assert 1 - found.R2 <= 2 * (1 - max(found.candidates.values())) + 1e-6
    assert list(found.candidates.values()) == sorted(found.candidates.values(), reverse=True)
    assert found.interval == (lo, hi)


@given(
    name=st.sampled_from(sorted(SIMPLE)), a=st.floats(0.2, 5), b=st.floats(0.4, 4), c=st.floats(-1.5, 1.5),
    d=st.floats(-5, 5), signs=st.tuples(st.sampled_from([-1, 1]), st.sampled_from([-1, 1])),
)  # fmt: skip
@settings(max_examples=25, derandomize=True)
def test_values_are_recovered(name, a, b, c, d, signs):
    """Up to symmetry of the parameters: the values count, within what the spline itself is off."""
    a, b = a * signs[0], b * signs[1]
    if name in ("log", "sqrt", "1/x"):
        c = abs(b) + 0.3 + abs(c)
    if name == "abs":
        c = 0.5 * b * c / 1.5

    def function(x):
        return a * SIMPLE[name](b * x + c) + d

    layer = planted(function)
    found = formula(layer, 0, 0, library=[name])
    at = torch.linspace(-1, 1, 501, dtype=torch.float64)
    y = layer.curve(0, 0)(at).numpy()
    spline_error = np.abs(y - function(at.numpy())).max()
    assert np.abs(found(at.numpy()) - y).max() <= 1e-4 * np.ptp(y) + 3 * spline_error


def test_a_base_is_part_of_the_edge():
    layer = planted(lambda x: np.sin(3 * x), base="silu")
    with torch.no_grad():
        layer.base_weight.fill_(2.0)

    def whole(x):
        return np.sin(3 * x) + 2 * x / (1 + np.exp(-x))

    found = formula(layer, 0, 0, least_R2=0.5)
    assert agrees(found, whole, -1, 1, 0.3)
    assert not agrees(found, lambda x: np.sin(3 * x), -1, 1, 0.3)


def test_which_edge():
    layer = planted(lambda x: x**2, n_in=3)
    assert formula(layer, 0, 2).name == "x^2"
    with pytest.raises(ValueError, match="in_feature"):
        formula(layer, 0, 3)


def test_what_is_none_of_them_is_refused_with_the_best():
    layer = planted(lambda x: np.sin(20 * x) + np.sign(x) * x**2)
    words = r"edge 0 -> 0 is none of x, x\^2.*the best is .* with R2 = 0\.\d+, and least_R2 is 0.99"
    with pytest.raises(ValueError, match=words):
        formula(layer, 0, 0)
    assert formula(layer, 0, 0, least_R2=0.1).R2 < 0.99
    with pytest.raises(ValueError, match=r"none of x, exp: the best is"):
        formula(planted(lambda x: np.abs(x)), 0, 0, library=["x", "exp"])


def test_R2_is_that_of_the_values():
    layer = planted(lambda x: np.exp(x) + 0.1 * np.sin(15 * x))
    found = formula(layer, 0, 0, least_R2=0.5)
    at = torch.linspace(-1, 1, 40 * 40 + 1, dtype=torch.float64)[::2]
    y = layer.curve(0, 0)(at).numpy()
    r2 = 1 - ((y - found(at.numpy())) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert found.R2 == pytest.approx(r2, abs=1e-3)


def test_a_straight_line_is_a_straight_line_even_with_noise():
    rng = np.random.default_rng(0)
    layer = planted(lambda x: 3 * x - 1 + 0.01 * rng.normal(size=x.shape), size=10)
    found = formula(layer, 0, 0)
    assert found.name == "x"
    assert agrees(found, lambda x: 3 * x - 1, -1, 1, 0.01)


def test_a_constant_edge():
    found = formula(planted(lambda x: 0 * x + 2.5), 0, 0)
    assert (found.name, found.R2) == ("constant", 1.0)
    assert str(found) == "2.5"
    np.testing.assert_allclose(found(np.array([1.0, np.inf])), [2.5, 2.5], rtol=1e-12)
    layer = planted(np.sin)
    layer.mask = torch.zeros(1, 1, dtype=torch.bool)
    assert str(formula(layer, 0, 0)) == "0"


def test_only_where_the_data_are():
    layer = planted(lambda x: np.where(x < 0, x**2, np.sin(9 * x)), size=80)
    x = torch.linspace(-1, -0.1, 50, dtype=torch.float64)[:, None]
    found = formula(layer, 0, 0, x=x)
    assert found.name == "x^2"
    assert found.interval == (-1.0, pytest.approx(-0.1))
    with pytest.raises(ValueError, match="x must vary in column 0"):
        formula(layer, 0, 0, x=torch.zeros(3, 1))
    with pytest.raises(ValueError, match="rows of 1 columns"):
        formula(layer, 0, 0, x=torch.zeros(3, 2))


def test_the_same_twice_and_no_generator():
    layer = planted(lambda x: np.tanh(2 * x) + 0.05 * np.sin(9 * x))
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    assert formula(layer, 0, 0, least_R2=0.5) == formula(layer, 0, 0, least_R2=0.5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_words():
    def told(name, a, b, c, d):
        return str(Formula(name, a, b, c, d, 1.0, (-1.0, 1.0)))

    assert told("sin", 1.5, 2, 0.25, -1) == "1.5*sin(2*x + 0.25) - 1"
    assert told("x", 2, 1, 1, -1) == "2*x + 1"
    assert told("x^2", -1, 1, 0, 0) == "-x^2"
    assert told("x^2", 1, 1, -0.5, 3) == "(x - 0.5)^2 + 3"
    assert told("1/x", 1, 1, 0, 0) == "1/x"
    assert told("gaussian", 1, 2, 0, 0) == "exp(-(2*x)^2)"
    assert told("abs", 1, -1, 2, 0) == "|-x + 2|"


def test_called_with_tensors_arrays_and_numbers():
    found = Formula("tanh", 2.0, 3.0, 0.5, -1.0, 1.0, (-1.0, 1.0))
    at = torch.tensor([0.1, 0.2], requires_grad=True)
    y = found(at)
    y.sum().backward()
    assert torch.allclose(at.grad, 6 / torch.cosh(3 * at.detach() + 0.5) ** 2)
    assert found(np.array([0.1, 0.2])) == pytest.approx(y.detach().numpy(), rel=1e-6)
    assert float(found(0.1)) == pytest.approx(2 * np.tanh(0.8) - 1)


def test_other_bases_and_bad_arguments():
    torch.manual_seed(0)
    layer = KANLinear(
        2, 1, basis="chebyshev", base_activation=None, kernel="torch", dtype=torch.float64
    )
    with torch.no_grad():
        layer.spline_weight.zero_()
        layer.spline_weight[0, 0, 1] = 1.0  # T_1(tanh x)
    with pytest.raises(ValueError, match="x must be given"):
        formula(layer, 0, 0)
    x = torch.linspace(-2, 2, 40, dtype=torch.float64).view(20, 2)
    assert formula(layer, 0, 0, x=x).name == "tanh"
    layer = planted(np.sin)
    with pytest.raises(ValueError, match="library must be one of 'x'"):
        formula(layer, 0, 0, library=["bessel"])
    with pytest.raises(ValueError, match="library must name at least one"):
        formula(layer, 0, 0, library=[])
    with pytest.raises(ValueError, match="least_R2 must be"):
        formula(layer, 0, 0, least_R2=1.5)
