"""Moments of Wishart matrices: closed forms, the spec's table, Monte Carlo."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.in_context import wishart_moments
from surefoot.in_context._sampling import second_moments


def test_the_table_for_ten_features_and_twenty_examples():
    found = wishart_moments(10, 20, 8)
    assert found[:5] == [10, 10, Fraction(31, 2), Fraction(597, 20), Fraction(1041, 16)]
    expected = [10, 10, 15.5, 29.85, 65.0625, 153.903, 386.60265, 1018.508085, 2792.49325425]
    assert [float(v) for v in found] == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30))
def test_the_first_moments_are_known(d, n):
    zero, one, two, three = wishart_moments(d, n, 3)
    assert (zero, one, two) == (d, d, Fraction(d * (n + d + 1), n))
    # E tr W^3 = n d (n^2 + d^2 + 3nd + 3n + 3d + 4), Muirhead 1982.
    assert three == Fraction(d * (n**2 + d**2 + 3 * n * d + 3 * n + 3 * d + 4), n**2)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_one_feature_is_a_chi_square(n):
    expected = Fraction(1)
    for k, moment in enumerate(wishart_moments(1, n, 12)):
        assert moment == expected
        expected *= Fraction(n + 2 * k, n)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 7))
def test_both_sides_of_a_matrix_have_one_spectrum(d, n, k):
    """tr (XX')^k = tr (X'X)^k: d and n change places."""
    assert wishart_moments(d, n, k)[k] * n**k == wishart_moments(n, d, k)[k] * d**k


@pytest.mark.parametrize(("d", "n"), [(3, 8), (5, 2)])
def test_drawn_matrices_have_these_moments(d, n):
    S = second_moments(d, n, 40_000, np.random.default_rng(0)).numpy()
    values = np.linalg.eigvalsh(S)
    for k, moment in enumerate(wishart_moments(d, n, 4)[1:], 1):
        found = (values**k).sum(1)
        assert abs(found.mean() - float(moment)) < 4 * found.std() / 200


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ((0, 5, 2), "d"),
        ((3, 0, 2), "n"),
        ((3, 5, -1), "k_max"),
        ((3, 5, 41), "k_max"),
        ((2.5, 5, 1), "d"),
    ],
)
def test_bad_sizes_are_named(args, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        wishart_moments(*args)
