"""G6: what one input can do, with fixed mass, with free mass, large and vanishing."""

import math

import numpy as np
import pytest

from surefoot.barycenter import (
    breakdown,
    influence_bound,
    map_limit,
    suot_barycenter,
    suot_gaussian,
)
from surefoot.barycenter import guarantee as g
from surefoot.barycenter.experiments.speed import random_covs
from surefoot.certificate import certify
from surefoot.guarantee import Verdict


def test_the_map_from_a_growing_input_has_the_limit():
    A, B = random_covs(0, 2, 4, 0.3, 2.0)
    for tau in (0.1, 1.0, 10.0):
        limit = map_limit(B, tau)
        off = [np.abs(suot_gaussian(s * A, B, tau).map - limit).max() for s in (1e3, 1e5, 1e7)]
        assert off[0] > off[1] > off[2]
        # The distance falls like 1/s: two more digits each time.
        assert off[2] == pytest.approx(off[1] / 100, rel=0.05)
        # It is the least bound: approached from below.
        below = limit - suot_gaussian(1e7 * A, B, tau).map
        assert np.linalg.eigvalsh(below)[0] > 0
    np.testing.assert_allclose(map_limit(B, 0.0), np.eye(4), atol=1e-15)


def test_the_map_of_a_vanishing_input_vanishes():
    A, B = random_covs(1, 2, 3, 0.3, 2.0)
    assert np.abs(suot_gaussian(1e-10 * A, B, 1.0).map).max() < 1e-4


@pytest.mark.parametrize(("tau", "bounded"), [(1.0, True), (math.inf, False)])
def test_a_growing_input_moves_the_average_only_so_far(tau, bounded):
    covs = random_covs(2, 8, 3, 0.5, 1.5)
    clean = suot_barycenter(covs, tau=tau).cov
    moves = []
    for scale in (1e2, 1e4, 1e6):
        spoilt = covs.copy()
        spoilt[0] *= scale
        r = suot_barycenter(spoilt, tau=tau)
        assert breakdown(r).holds
        moves.append(np.linalg.norm(r.cov - clean) / np.linalg.norm(clean))
    if bounded:
        assert moves[2] < 1
        assert moves[2] == pytest.approx(moves[1], rel=1e-3)
    else:
        assert breakdown(r).stretch_bound == math.inf
        assert moves[2] > 10 * moves[1] > 100 * moves[0] > 0


@pytest.mark.parametrize("scale", [1e3, 1e-3])
def test_free_mass_forgets_an_input_of_either_kind(scale):
    covs = random_covs(3, 9, 3, 0.5, 1.5)
    covs[4] *= scale
    r = suot_barycenter(covs, tau=1.0, mass="free", mass_tau="median")
    found = breakdown(r)
    assert found.holds
    assert found.weight[4] <= found.weight_bound[4] < 1 / 20
    np.testing.assert_allclose(
        found.weight_bound, influence_bound(r.outlier_score, np.full(9, 1 / 9), r.mass_tau)
    )
    free, _ = g.influence()
    assert certify(r.influence_record(), free).verdict == Verdict.KEPT


def test_a_temperature_ten_times_too_high_is_broken():
    """Weights from a softmax of the wrong temperature do not fall as fast as was promised."""
    covs = random_covs(4, 6, 3, 0.5, 1.5)
    covs[0] *= 50
    r = suot_barycenter(covs, tau=1.0, mass="free")
    wrong = np.exp(-r.outlier_score / (10 * r.mass_tau))
    record = r.influence_record()
    for i, weight in enumerate(wrong / wrong.sum()):
        record.append(0, i, weight=float(weight))
    free, _ = g.influence()
    assert certify(record, free).verdict == Verdict.BROKEN


def test_bad_input():
    with pytest.raises(ValueError, match="positive definite"):
        map_limit(np.diag([1.0, 0.0]), 1.0)
    with pytest.raises(ValueError, match="one positive definite matrix"):
        map_limit(np.stack([np.eye(2)] * 3), 1.0)
    with pytest.raises(ValueError, match="tau must be finite"):
        map_limit(np.eye(2), math.inf)
    with pytest.raises(ValueError, match="tau must be at least 0"):
        map_limit(np.eye(2), -1.0)


def test_free_mass_needs_its_several_starts():
    """Pitfall: it seeks a mode, and a harmonic start begins among vanishing inputs and stays there."""
    covs = random_covs(13, 20, 4, 0.1, 1)
    clean = suot_barycenter(covs, tau=0.1, mass="free").cov
    covs[:6] *= 1e-3
    lost = suot_barycenter(covs, tau=0.1, mass="free", init="harmonic")
    found = suot_barycenter(covs, tau=0.1, mass="free")
    assert lost.weights_[:6].sum() > 0.9
    assert lost.value > found.value
    assert found.weights_[:6].sum() < 1e-5
    assert np.linalg.norm(found.cov - clean) < 0.2 * np.linalg.norm(clean)
