"""What a fit promises: kept on an honest one, broken by a planted fault, not promised where it says so."""

import numpy as np
import pytest

from surefoot import Verdict
from surefoot.architecture import CompactMLPClassifier, CompactMLPRegressor

RNG = np.random.default_rng(0)
SETTINGS = {"steps": 120, "random_state": 0, "strategy": "dense", "certify_fraction": 0.3}


def blobs(n, seed):
    g = np.random.default_rng(seed)
    y = g.integers(2, size=n)
    return g.standard_normal((n, 3)) + 1.5 * y[:, None], y


@pytest.fixture(scope="module")
def classifier():
    return CompactMLPClassifier(**SETTINGS, max_width=2, max_depth=1).fit(*blobs(900, 0))


def verdicts(model, *rows):
    return {c.name[:3]: c.verdict for c in model.certificates(*rows)}


def test_kept_on_an_honest_fit(classifier):
    found = verdicts(classifier, *blobs(2000, 1))
    assert found["3.3"] is found["3.5"] is Verdict.KEPT
    assert found["3.6"] is Verdict.KEPT
    assert found["3.4"] is not Verdict.BROKEN
    assert found["3.7"] is Verdict.NOT_PROMISED  # steps have no clock
    assert all(p.cert_bound < 1 for p in classifier.pareto_[1:])


def test_without_fresh_rows_nothing_is_claimed_of_them(classifier):
    found = verdicts(classifier)
    assert found["3.5"] is found["3.6"] is Verdict.UNDECIDED
    with pytest.raises(ValueError, match="both X and y"):
        classifier.certificates(np.ones((3, 3)))
    with pytest.raises(ValueError, match="classes_"):
        classifier.certificates(np.ones((3, 3)), np.array([0, 1, 5]))


def test_broken_where_the_rows_are_of_another_law(classifier):
    X, y = blobs(2000, 1)
    found = verdicts(classifier, X, 1 - y)
    assert found["3.5"] is found["3.6"] is Verdict.BROKEN


def test_limits_cover_new_rows_over_many_draws(classifier):
    """A front fitted once; certification rows drawn 400 times: all points at once in at least 95% - 2%."""
    from surefoot.architecture.folding import run_module
    from surefoot.architecture.intervals import clopper_pearson_upper

    X, y = blobs(20_000, 2)
    wrong = np.stack([(run_module(p.module, X)[:, 0] > 0) != y for p in classifier.pareto_])
    rates, level = wrong.mean(axis=1), 1 - 0.05 / len(wrong)
    limit = np.array([clopper_pearson_upper(k, 250, level) for k in range(251)])
    draws = [RNG.integers(len(y), size=250) for _ in range(400)]
    held = [(limit[wrong[:, rows].sum(axis=1)] >= rates).all() for rows in draws]
    assert np.mean(held) >= 0.93


def test_regression_has_two_claims_a_point():
    X = RNG.standard_normal((400, 3))
    y = X[:, 0] + 0.3 * RNG.standard_normal(400)
    model = CompactMLPRegressor(**SETTINGS).fit(X[:300], y[:300])
    point = model.chosen_
    assert point.cert_median < point.cert_bound < np.inf
    # |N(0, 0.3)|: median 0.202, 90% quantile 0.493.
    assert point.cert_median > 0.19
    assert point.cert_bound > 0.45
    fresh = RNG.standard_normal((1000, 3))
    noise = 0.3 * RNG.standard_normal(1000)
    found = [c for c in model.certificates(fresh, fresh[:, 0] + noise) if c.name[:3] == "3.5"]
    assert [c.verdict for c in found] == [Verdict.KEPT] * 2
    broken = [c for c in model.certificates(fresh, fresh[:, 0] + 9) if c.name[:3] == "3.5"]
    assert [c.verdict for c in broken] == [Verdict.BROKEN] * 2


def test_too_few_certification_rows_are_said():
    X = RNG.standard_normal((60, 2))
    model = CompactMLPRegressor(**SETTINGS | {"certify_fraction": 0.1}).fit(X, X[:, 0])
    assert model.chosen_.cert_bound == np.inf
    assert any("not certifiable with n=6" in note for note in model.certificate_["notes"])
    found = [c.verdict for c in model.certificates(X, X[:, 0]) if c.name[:3] == "3.5"]
    assert found == [Verdict.VACUOUS] * 2


def test_broken_by_a_slicing_that_forgets_constants(monkeypatch):
    import surefoot.architecture._fit.slicing as place

    monkeypatch.setattr(place, "_constants", lambda bias, names: np.zeros_like(bias))
    from surefoot.architecture._estimator.recording import slicing_deviation
    from surefoot.architecture._fit.starts import random_network

    network = random_network(np.arange(3), 1, (4,), "tanh", np.random.default_rng(0))
    first = network.weights[0].copy()
    first[1] = 0
    gated = network.with_parts([first, network.weights[1]], network.biases)
    x = RNG.standard_normal((20, 3))
    assert slicing_deviation(gated, place.sliced(gated), x) > 1e-5
    monkeypatch.undo()
    assert slicing_deviation(gated, place.sliced(gated), x) <= 1e-5


def test_broken_by_a_fold_that_forgets_the_mean(monkeypatch):
    import surefoot.architecture.folding as place

    right = place.fold
    X = RNG.standard_normal((80, 2)) + 1

    def wrong(network, by):
        from dataclasses import replace

        return right(network, replace(by, mean=0 * by.mean))

    monkeypatch.setattr(place, "fold", wrong)
    with pytest.warns(UserWarning, match="module_ is off by"):
        model = CompactMLPRegressor(steps=40, random_state=0, strategy="dense").fit(X, X[:, 0])
    found = {c.name: c.verdict for c in model.certificates()}
    assert found["3.3: folding the standardisation changes nothing"] is Verdict.BROKEN


def test_a_clock_that_is_overrun_is_broken(monkeypatch):
    import surefoot.architecture._estimator.base as place

    X = RNG.standard_normal((40, 2))
    model = CompactMLPRegressor(time_budget=0.3, random_state=0, strategy="dense").fit(X, X[:, 0])
    assert verdicts(model)["3.7"] in (Verdict.KEPT, Verdict.BROKEN)  # by how busy this machine is
    times = iter([0.0] * 1 + [10.0] * 10_000)
    import surefoot.architecture._fit.budget as clock

    monkeypatch.setattr(clock, "now", lambda: next(times))
    assert place.Budget is clock.Budget
    late = CompactMLPRegressor(time_budget=0.3, random_state=0, strategy="dense").fit(X, X[:, 0])
    assert verdicts(late)["3.7"] is Verdict.BROKEN
