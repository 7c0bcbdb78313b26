"""What a run says that it did, and that its guarantees believe nothing else."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from surefoot import barycenter
from surefoot.barycenter import confinement_check, suot_barycenter
from surefoot.barycenter import guarantee as g
from surefoot.barycenter.experiments import convergence, picture
from surefoot.barycenter.experiments.speed import random_covs
from surefoot.barycenter.study import BarycenterConfig
from surefoot.certificate import certify
from surefoot.guarantee import Verdict
from surefoot.record import Record

COVS = random_covs(0, 6, 3, 0.2, 2.0)
G6_FREE, G6_FIXED = 0, 1


def solved(covs=COVS, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return suot_barycenter(covs, **{"tau": 0.5, "method": "eggd", **options})


def path(**options):
    return g.with_excess(solved(**options).record(0))


def inputs(**options):
    return solved(**options).influence_record()


# Of each factory: a run that is promised it, and one that is not, by what its record says it did.
FACTORIES = {
    "G1": (g.descent, path, {}, {"method": "newton"}, "descends = False"),
    "G2": (g.stationarity, path, {}, {"method": "autograd_momentum", "max_iter": 9}, "descends"),
    "G3 above": (lambda: g.confinement()[0], path, {}, {"method": "hybrid"}, "geodesic = False"),
    "G3 below": (lambda: g.confinement()[1], path, {}, {"method": "hybrid"}, "geodesic = False"),
    "G4": (g.rate, path, {}, {"mass": "free", "init": "euclid"}, "mass = free"),
    "G4 measured": (
        lambda: g.rate("measured"), path, {}, {"mass": "free", "init": "euclid"}, "mass = free",
    ),
    "G6 weight": (lambda: g.influence()[G6_FREE], inputs, {"mass": "free"}, {}, "mass = fixed"),
    "G6 map": (lambda: g.influence()[G6_FIXED], inputs, {}, {"tau": math.inf}, "finite tau"),
}  # fmt: skip


@pytest.mark.parametrize("name", FACTORIES)
def test_a_fact_decides_what_was_promised(name):
    factory, record, promised, other, why = FACTORIES[name]
    assert certify(record(**promised), factory()).verdict == Verdict.KEPT
    found = certify(record(**other), factory())
    assert found.verdict == Verdict.NOT_PROMISED
    assert why in found.reason


def test_the_optimality_gap_is_not_promised_of_free_mass():
    """No gap is computed for free mass; here one is, of a run that says it was free after all."""
    record = path()
    assert certify(record, g.optimality()).verdict == Verdict.KEPT
    record.note(0, mass="free")
    assert certify(record, g.optimality()).verdict == Verdict.NOT_PROMISED


def without_facts(record):
    out = Record()
    for name in record.quantities:
        curves = record.curves(name)
        out.extend(0, name, curves.values[0], curves.steps)
    return out


@pytest.mark.parametrize("name", [*FACTORIES, "G5"])
def test_what_is_not_recorded_is_not_assumed(name):
    factory, record, promised, *_ = FACTORIES.get(name, (g.optimality, path, {}))
    whole = {a.name: a.holds for a in factory().assumptions(record(**promised))}
    bare = {a.name: a.holds for a in factory().assumptions(without_facts(record(**promised)))}
    nothing = [a.holds for a in factory().assumptions(Record())]
    assert set(whole.values()) == {True}
    assert None in bare.values()
    assert set(nothing) == {None}


@pytest.mark.parametrize("eta", [0.5, 1.5])
def test_other_steps_are_read_off_the_run(eta):
    record = path(step=eta)
    verdicts = {c.name: certify(record, c).verdict for c in (*g.confinement(), g.rate())}
    assert verdicts[g.G4] == Verdict.NOT_PROMISED
    expected = Verdict.KEPT if eta < 1 else Verdict.NOT_PROMISED
    assert verdicts[g.G3_ABOVE] == verdicts[g.G3_BELOW] == expected


def test_the_facts_are_those_of_what_ran():
    r = suot_barycenter(
        COVS.astype(np.float32), tau=0.5, tol=1e-7, sqrt="newton-schulz", debias="trace"
    )
    facts = {name: known.all for name, known in r.record().facts.items()}
    assert facts == {
        "method": ("bb",), "descends": (True,), "geodesic": (True,), "tau": (0.5,),
        "mass": ("fixed",), "mass_tau": (math.inf,), "initial": ("euclid",), "tol": (1e-7,),
        "max_iter": (1000,), "sqrt": ("newton-schulz",), "steps": (r.n_iter,), "converged": (True,),
        "rank_deficient": (False,), "dtype": ("float32",), "debias": ("trace",),
    }  # fmt: skip
    assert {n: k.all for n, k in r.influence_record().facts.items()} == facts


def test_what_was_asked_for_and_did_not_run_is_not_recorded():
    singular = np.stack([np.diag([1.0, 0.0]), np.eye(2)])
    with pytest.warns(UserWarning, match="eigh is used instead"):
        r = suot_barycenter(singular, tau=1.0, sqrt="newton-schulz")
    assert r.record().fact("sqrt").all == ("eigh",)
    assert r.record().fact("rank_deficient").all == (True,)
    # Mass that is free at an infinite temperature is fixed, and tau = 0 takes no step of any method.
    r = suot_barycenter(COVS, tau=1.0, mass="free", mass_tau=math.inf)
    assert r.record().fact("mass").all == ("fixed",)
    r = suot_barycenter(COVS, tau=0.0, method="newton")
    assert r.record().fact("method").all == ("covariance intersection",)


def test_each_problem_of_a_batch_says_where_it_began():
    covs = random_covs(13, 20, 4, 0.1, 1)
    vanishing, bursting = covs.copy(), covs.copy()
    vanishing[:6] *= 1e-3
    bursting[:6] *= 1e3
    both = np.stack([vanishing, bursting])
    record = suot_barycenter(both, tau=0.1, mass="free").record()
    alone = [
        min(
            ("euclid", "harmonic", "medoid"),
            key=lambda s: suot_barycenter(x, tau=0.1, mass="free", init=s).value,
        )
        for x in both
    ]
    assert [record.fact("initial").values[i][0] for i in range(2)] == alone
    assert solved(init=COVS[0]).record().fact("initial").all == ("array",)
    # Problems that are solved one by one keep their own facts.
    mixed = np.stack([COVS, COVS])
    mixed[1, :, 2] = mixed[1, :, :, 2] = 0
    record = suot_barycenter(mixed, tau=1.0).record()
    assert record.fact("rank_deficient").values == {0: (False,), 1: (True,)}


@pytest.mark.parametrize("tau", [1.0, math.inf])
def test_certificates_of_singular_inputs_do_not_raise(tau):
    nearly, jointly, one = (
        {c.name: c for c in suot_barycenter(np.stack(covs), tau=tau).certificates()}
        for covs in (
            [np.diag([1, 1e-8]), np.diag([4, 4e-8])],
            [np.diag([1.0, 0.0]), np.diag([4.0, 0.0])],
            [np.diag([1.0, 0.0, 2.0]), np.eye(3)],
        )
    )
    for found in (nearly, jointly, one):
        assert found[g.G1].verdict == Verdict.KEPT
    # What is singular jointly is solved on the range that is left, where nothing is singular.
    assert "regular inputs" not in jointly[g.G4].reason
    for name in (g.G3_BELOW, g.G4):
        assert one[name].verdict == Verdict.NOT_PROMISED
        assert "regular inputs" in one[name].reason


def test_a_singular_barycenter_bounds_no_map():
    record = inputs()
    record.append(0, 0, lambda_min=0.0)
    found = certify(record, g.influence()[G6_FIXED])
    assert found.verdict == Verdict.NOT_PROMISED
    assert "regular barycenter" in found.reason


def test_without_a_history_there_is_no_comparison_and_no_error():
    found = {c.name: c for c in solved(record=False).certificates()}
    for name in (g.G1, g.G2, g.G3_ABOVE, g.G3_BELOW, g.G4, g.G5):
        assert found[name].verdict == Verdict.UNDECIDED
        assert "record=True" in found[name].reason
    assert found[g.G6_MAP].verdict == Verdict.KEPT
    for name in (g.G1, g.G3_ABOVE, g.G4):
        intersected = {c.name: c for c in solved(tau=0.0).certificates()}
        assert intersected[name].verdict == Verdict.NOT_PROMISED
    with pytest.raises(ValueError, match="record=True"):
        confinement_check(solved(record=False))


def test_a_run_that_is_over_at_its_start_has_certificates():
    found = {c.name: c for c in solved(COVS[:1]).certificates()}
    assert found[g.G1].verdict == Verdict.UNDECIDED
    assert "took no step" in found[g.G1].reason
    assert found[g.G3_ABOVE].verdict == found[g.G4].verdict == Verdict.KEPT


def test_a_run_writes_itself_into_a_record_under_any_seed():
    r, record = solved(np.stack([COVS, 2 * COVS])), Record()
    r.write(record, seed=7, problem=1)
    own = r.record(1)
    assert record.seeds == [7]
    for name in own.quantities:
        np.testing.assert_array_equal(record[name], own[name])
    assert record.fact("method").values == {7: ("eggd",)}


def test_the_parts_of_the_study_carry_the_facts(monkeypatch):
    for name, value in {"N": 5, "D": 3, "POINTS": (0, 5)}.items():
        monkeypatch.setattr(convergence, name, value)
    for part in (convergence, picture):
        record = Record()
        part.run(BarycenterConfig(), 3, record)
        assert record.fact("method").values == {3: ("eggd",)}
        assert record.fact("descends").all == (True,)


def test_an_option_that_a_method_does_not_use_is_refused():
    with pytest.raises(ValueError, match=r"step is for .*eggd.*; method='bb' finds its own"):
        suot_barycenter(COVS, tau=1.0, step=0.5)
    with pytest.raises(ValueError, match="inner_iter is for method='hybrid'"):
        suot_barycenter(COVS, tau=1.0, method="eggd", inner_iter=3)


def test_names_of_the_first_version_are_the_same_objects():
    assert barycenter.certificate is barycenter.optimality_gap
    r = solved()
    assert r.certificate == r.optimality_gap
    assert r.report() == r.summary()
    assert (r.history["certificate"] == r.history["optimality_gap"]).all()
    quiet = solved(certify=False)
    assert math.isnan(quiet.optimality_gap)
    _, _, log = barycenter.suot_bures_barycenter(torch.zeros(6, 3), torch.tensor(COVS), log=True)
    assert log["certificate"] == log["optimality_gap"]
