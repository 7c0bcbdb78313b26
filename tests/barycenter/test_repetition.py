"""A weight is a repetition: three copies of an input are that input with weight 3."""

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from surefoot.barycenter import fuse_gaussians, suot_barycenter
from surefoot.barycenter._solver.initial import MEDOID_INPUTS, harmonic, medoid
from surefoot.barycenter._solver.means import weighted_median
from surefoot.barycenter.doors.pot import suot_bures_barycenter
from surefoot.barycenter.doors.pyriemann import mean_suot
from surefoot.barycenter.doors.sklearn import SUOTMean
from surefoot.barycenter.probe import optimality_gap

FEW = settings(deadline=None, max_examples=2, phases=(Phase.explicit, Phase.generate))
FAST = {"optimality_gap": False, "record": False}
weights = st.lists(st.integers(0, 3), min_size=2, max_size=4).filter(lambda w: sum(w) > 1)


def inputs(n, seed, d=2):
    g = np.random.default_rng(seed)
    X = g.standard_normal((n, d, d + 2)) * np.exp(g.standard_normal((n, 1, 1)))
    return X @ X.transpose(0, 2, 1), g.standard_normal((n, d))


def normal(w):
    return np.asarray(w) / np.sum(w)


def near(one, two):
    """To the tolerance of a solve; ignoring the weights was 6 percent off."""
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6 * np.abs(two).max())


AUTOMATIC = {
    "tau": {}, "free mass": {"mass": "free"}, "its temperature": {"mass": "free", "mass_tau": "median"},
    "medoid": {"init": "medoid", "max_iter": 3}, "harmonic": {"init": "harmonic", "max_iter": 3},
    "debias": {"debias": "trace"}, "method": {"method": "newton"},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", AUTOMATIC)
@given(weights, st.integers(0, 10**6), st.booleans())
@FEW
def test_a_weight_is_so_many_copies(name, w, seed, centred):
    covs, means = inputs(len(w), seed)
    how = {**FAST, **AUTOMATIC[name]}
    m, far = (None, None) if centred else (means, np.repeat(means, w, 0))
    one = suot_barycenter(covs, means=m, weights=normal(w), **how)
    many = suot_barycenter(np.repeat(covs, w, 0), means=far, **how)
    assert one.tau == pytest.approx(many.tau, rel=1e-12)
    near(one.cov, many.cov)


@given(weights, st.integers(0, 10**6))
@FEW
def test_at_every_door(w, seed):
    covs, means = inputs(len(w), seed)
    many, far = np.repeat(covs, w, 0), np.repeat(means, w, 0)
    near(SUOTMean().fit(covs, sample_weight=w).covariance_, SUOTMean().fit(many).covariance_)
    near(mean_suot(covs, sample_weight=w), mean_suot(many))
    batch = mean_suot(np.stack([covs, covs]), sample_weight=np.stack([w, np.ones(len(w))]))
    near(batch, np.stack([mean_suot(many), mean_suot(covs)]))
    near(fuse_gaussians(means, covs, normal(w)).mean, fuse_gaussians(far, many).mean)
    near(suot_bures_barycenter(means, covs, normal(w))[1], suot_bures_barycenter(far, many)[1])
    gaps = optimality_gap(covs[0], covs, normal(w)), optimality_gap(covs[0], many)
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_median_is_that_of_the_copies(pairs):
    values, counts = (np.array(x) for x in zip(*pairs, strict=True))
    if not counts.sum():
        return
    found = weighted_median(torch.tensor(values), torch.tensor(counts / counts.sum()))
    assert float(found) == np.median(np.repeat(values, counts))


def test_by_hand():
    """Issue's own: tr/d are 1 and 5, so tau is 2 with weights 3 to 1, whoever writes the copies down."""
    covs = np.stack([np.eye(2), 5 * np.eye(2)])
    assert suot_barycenter(covs, weights=[0.75, 0.25]).tau == 2
    assert suot_barycenter(covs[[0, 0, 0, 1]]).tau == 2
    assert SUOTMean().fit(covs, sample_weight=[3, 1]).result_.tau == 2


def test_starts_of_many_inputs_and_of_those_that_are_not_there():
    covs, _ = inputs(40, 0)
    A, w = torch.tensor(covs), np.r_[[5] * 10, [1] * 30]
    many = torch.tensor(np.repeat(covs, w, 0))
    assert len(many) > MEDOID_INPUTS > len(A)
    tau, even = torch.tensor([1.0], dtype=torch.float64), torch.full((1, len(many)), 1 / len(many))
    one = medoid(A[None], torch.tensor(normal(w))[None], tau)
    assert torch.equal(one, medoid(many[None], even.double(), tau))
    # The order of the copies is nobody's choice.
    mixed = many[torch.randperm(len(many), generator=torch.Generator().manual_seed(0))]
    assert torch.equal(one, medoid(mixed[None], even.double(), tau))
    # A singular input of weight 0 lifts nobody.
    here, gone = A[None, :3], torch.cat([A[:3], torch.zeros(1, 2, 2).double()])[None]
    third = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    padded = torch.cat([third, torch.zeros(1, 1).double()], 1)
    assert torch.equal(harmonic(here, third), harmonic(gone, padded))
