"""3.1, 3.5, 3.6: the values of the derivation, coverage by simulation, and what is refused."""

import math

import numpy as np
import pytest
from scipy.stats import beta, binom

from surefoot.architecture import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    occam_bound,
    quantile_upper_bound,
)


@pytest.mark.parametrize(
    ("n", "q", "k"), [(100, 0.5, 59), (400, 0.5, 217), (400, 0.9, 371), (1000, 0.5, 527)]
)
def test_order_statistic_is_the_one_of_the_derivation(n, q, k):
    values = np.random.default_rng(0).permutation(np.arange(1, n + 1))
    assert quantile_upper_bound(values, q, 0.95) == k


def test_too_few_values_give_no_bound():
    assert quantile_upper_bound(np.arange(50), 0.95, 0.95) == math.inf
    assert quantile_upper_bound([], 0.5, 0.95) == math.inf
    assert quantile_upper_bound([1.0, math.inf] * 50, 0.5, 0.95) == math.inf


@pytest.mark.parametrize(
    ("k", "n", "confidence", "value"),
    [
        (0, 100, 0.95, 0.02951305),
        (20, 450, 0.95, 0.06392896),
        (20, 450, 0.99, 0.07249146),
        (7, 7, 0.95, 1.0),
    ],
)
def test_clopper_pearson_is_the_one_of_the_derivation(k, n, confidence, value):
    found = clopper_pearson_upper(k, n, confidence)
    assert abs(found - value) < 1e-5
    if k < n:  # what the limit means: k errors or fewer have the rest of the probability
        assert abs(binom.cdf(k, n, found) - (1 - confidence)) < 1e-9


def test_lower_limit_is_the_other_tail():
    found = clopper_pearson_lower(20, 450, 0.95)
    assert abs(binom.sf(19, 450, found) - 0.05) < 1e-9
    assert clopper_pearson_lower(0, 10, 0.95) == 0
    assert clopper_pearson_upper(0, 0, 0.95) == 1


def test_coverage_of_the_quantile_bound_by_simulation():
    rng = np.random.default_rng(1)
    draws = np.sort(rng.random((20_000, 100)), axis=1)
    k = int(quantile_upper_bound(np.arange(1, 101), 0.5, 0.95))
    assert (draws[:, k - 1] >= 0.5).mean() >= 0.95 - 0.01


@pytest.mark.parametrize("p", [0.01, 0.05, 0.3])
def test_coverage_of_clopper_pearson_by_simulation(p):
    counts = np.random.default_rng(2).binomial(200, p, size=20_000)
    limit = np.array([clopper_pearson_upper(int(k), 200, 0.95) for k in range(201)])
    assert np.allclose(limit[:-1], beta.ppf(0.95, np.arange(1, 201), 200 - np.arange(200)))
    assert (limit[counts] >= p).mean() >= 0.95 - 0.01


def test_occam_pays_for_the_choice_of_how_many():
    # Every subset of P places with 2^b values: the weights of all networks sum to (1 + 1/P)^P <= e.
    P, b = 12, 3
    total = sum(
        math.comb(P, s) * 2 ** (b * s) * 2.0 ** (-s * (b + math.log2(P))) for s in range(P + 1)
    )
    assert total == pytest.approx((1 + 1 / P) ** P)
    assert 1 < total <= math.e
    n, s, B, d = 1000, 5, 4.0, 0.05
    nats = (s * (16 + math.log2(50)) + B) * math.log(2)
    expected = 0.1 + math.sqrt((nats + 1 + math.log(1 / d)) / (2 * n))
    assert occam_bound(0.1, s, 16, n, 50, 1 - d, B) == pytest.approx(expected, rel=1e-12)
    assert occam_bound(0.0, 300, 32, 100, 500, 0.95) == 1.0


def test_occam_holds_for_classifiers_chosen_from_the_data():
    """The best of all single-entry rules on labels of pure chance: no bound may fall below the true 1/2."""
    rng, n, P = np.random.default_rng(3), 60, 20
    broken = 0
    for _ in range(150):
        x, y = rng.random((n, P)) < 0.5, rng.random(n) < 0.5
        errors = [(x[:, j] != y).mean() for j in range(P)] + [
            (x[:, j] == y).mean() for j in range(P)
        ]
        broken += occam_bound(min(errors), 1, 1, n, P, 0.95) < 0.5
    assert broken / 150 <= 0.05


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: quantile_upper_bound([1.0, math.nan], 0.5, 0.95), "values"),
        (lambda: quantile_upper_bound([1.0], 1.0, 0.95), "q"),
        (lambda: quantile_upper_bound([1.0], 0.5, 1.0), "confidence"),
        (lambda: clopper_pearson_upper(3, 2, 0.95), "k"),
        (lambda: clopper_pearson_upper(1.5, 2, 0.95), "k"),
        (lambda: clopper_pearson_upper(1, 2, 0.0), "confidence"),
        (lambda: occam_bound(1.5, 1, 16, 10, 10, 0.95), "train_error"),
        (lambda: occam_bound(0.5, 11, 16, 10, 10, 0.95), "n_params"),
        (lambda: occam_bound(0.5, 1, 0, 10, 10, 0.95), "bits"),
    ],
)
def test_what_is_refused_is_named(call, name):
    with pytest.raises(ValueError, match=name):
        call()
