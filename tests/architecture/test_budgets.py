"""Long checks: accuracy at fixed sizes in 20 seconds, a clock that is kept, large tables."""

import time
import tracemalloc

import numpy as np
import pytest
from tests.architecture.tables import CLASSES, NUMBERS, table

from surefoot.architecture import CompactMLPClassifier, CompactMLPRegressor

pytestmark = pytest.mark.acceptance


def kind(name):
    return CompactMLPClassifier if name in CLASSES else CompactMLPRegressor


@pytest.mark.parametrize(
    ("name", "caps"),
    [("friedman1", {45: 0.98, 30: 0.95}), ("digits", {320: 0.95, 200: 0.94})],
)
def test_accuracy_at_fixed_sizes_in_20_cpu_seconds(name, caps):
    found = {cap: [] for cap in caps}
    for seed in (0, 1, 2):
        X, Xt, y, yt = table(name, seed)
        model = kind(name)(time_budget=20.0, random_state=seed)
        model._clock = time.process_time
        model.fit(X, y)
        assert model.record_.fact("measure", of="budget").all == ("CPU seconds",)
        for cap in caps:
            found[cap].append(model.at(max_nonzero=cap).score(Xt, yt))
    print(name, found)
    for cap, floor in caps.items():
        assert np.mean(found[cap]) >= floor
        assert min(found[cap]) >= floor - 0.02


@pytest.mark.parametrize("name", [*CLASSES, *NUMBERS])
def test_half_a_second_is_enough_to_fit_and_predict(name):
    X, Xt, y, yt = table(name)
    model = kind(name)(time_budget=0.5, random_state=0).fit(X, y)
    assert model.predict(Xt).shape == yt.shape
    assert model.certificate_["folding_deviation"] <= 1e-5
    assert model.certificate_["slicing_deviation"] <= 1e-5


def test_columns_far_from_their_mean_fit_as_well():
    X, Xt, y, yt = table("friedman1")
    model = CompactMLPRegressor(steps=1500, random_state=0)
    plain = model.fit(X, y).score(Xt, yt)
    for scale, shift in ((1e-3, 1e3), (1e4, 1e3)):
        moved = model.fit(scale * X + shift, y)
        assert abs(moved.score(scale * Xt + shift, yt) - plain) < 0.01


def test_a_table_of_100000_rows_fits_in_its_budget_and_memory():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100_000, 50))
    y = np.tanh(X[:, 0]) + X[:, 1] * X[:, 2] + 0.1 * rng.standard_normal(100_000)
    tracemalloc.start()
    start = time.perf_counter()
    model = CompactMLPRegressor(time_budget=20.0, random_state=0).fit(X, y)
    seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(seconds, peak / 1e9, model.score(X[:2000], y[:2000]))
    assert seconds <= 1.15 * 20 + 1
    assert peak < 1.5e9
    assert model.score(X[:2000], y[:2000]) > 0.9
