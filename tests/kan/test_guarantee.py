"""Guarantees on records of several seeds: each seed's own constants, what one seed lacks, planted faults."""

import copy

import numpy as np
import pytest
from tests.kan.problems import certified

from surefoot import Record, Verdict, certify
from surefoot._problems.arms import keep, of_arm
from surefoot.kan import KAN2, fit_gd, fit_sgd
from surefoot.kan import guarantee as kan


@pytest.fixture(scope="module")
def two_seeds():
    """Two certified runs whose starts, and so whose constants, differ."""
    record = Record()
    _, X, y = certified(scale=0.001)
    for seed, m in ((0, 64), (1, 128)):
        model = KAN2(1, m, symmetric=True, seed=seed)
        fit_gd(model, X, y, 20, mode="certified", every=10, seed=seed, record=record)
    return record


def changed(record, *, facts=None, columns=None, without=()):
    """A copy of a record with other facts or columns of seed 1."""
    found = Record()
    for quantity in record.quantities:
        curves = record.curves(quantity)
        for seed, values in zip(curves.seeds, curves.values, strict=True):
            if (quantity, int(seed)) in without:
                continue
            other = (columns or {}).get(quantity) if seed == 1 else None
            found.extend(
                int(seed), quantity, values if other is None else other(values), curves.steps
            )
    for name, known in record.facts.items():
        for seed, values in known.values.items():
            if (name, int(seed)) not in without:
                value = (facts or {}).get(name, values[0]) if seed == 1 else values[0]
                found.note(int(seed), **{name: value})
    return found


def test_each_seed_is_held_to_its_own_constants(two_seeds):
    assert {c.verdict for c in kan.run_certificates(two_seeds)} == {Verdict.KEPT}
    bound = kan.confinement().bound(two_seeds)
    assert bound.shape == (2, 1)
    assert bound[0, 0] != bound[1, 0]
    # The step that one start permits is too long for the other: the worst seed decides.
    steps = [two_seeds.fact("eta").values[s][0] for s in (0, 1)]
    least = int(np.argmin(steps))
    long = changed(two_seeds, facts={"eta": 1.5 * max(steps)})
    step = {a.name: a for a in kan.linear_rate().assumptions(long)}["step size"]
    assert step.holds is False
    assert step.measured == 1.5 * max(steps)
    assert least in (0, 1)


@pytest.mark.parametrize(
    ("missing", "condition"),
    [
        ("method", "gradient descent"), ("dtype", "float64"), ("eta", "step size"), ("eta", "positive step"),
        ("spline_order", "Lipschitz Jacobian"), ("pde_order", "Lipschitz Jacobian"),
        ("lambda0", "positive definite K"), ("lambda_max", "step size"), ("Lambda", "wide enough"),
        ("r0", "wide enough"),
    ],
)  # fmt: skip
def test_what_one_seed_lacks_is_not_assumed(two_seeds, missing, condition):
    record = changed(two_seeds, without={(missing, 1)})
    for claim in (kan.linear_rate(), kan.contraction(), kan.confinement(), kan.conditioning()):
        state = {a.name: a.holds for a in claim.assumptions(record)}
        assert state[condition] is None
        certify(record, claim)  # and the bound is a number all the same


def test_a_seed_that_fails_is_not_hidden_by_one_that_says_nothing(two_seeds):
    record = changed(two_seeds, facts={"eta": 10.0}, without={("eta", 0)})
    state = {a.name: a.holds for a in kan.linear_rate().assumptions(record)}
    assert state["step size"] is False


def test_a_promise_without_eta_is_no_promise(two_seeds):
    """Where eta is not recorded the bound is L_0: nothing is said to have been promised."""
    record = changed(two_seeds, without={("eta", 0), ("eta", 1)})
    assert (kan.linear_rate().bound(record) >= record["loss"][:, :1]).all()


def test_one_seed_out_of_its_ball_breaks_the_confinement(two_seeds):
    record = changed(two_seeds, columns={"moved": lambda v: 10 * v})
    found = certify(record, kan.confinement())
    assert found.verdict is Verdict.BROKEN
    assert "seed 1" in found.reason


def test_a_run_that_lies_about_its_step_breaks_the_ball():
    """A planted fault: a step far beyond the one that is noted. Most seeds leave, and p said few would."""
    model, X, y = certified(m=32, scale=1e-5, n=4)
    honest = fit_sgd(copy.deepcopy(model), X, y, 1, 2, seed=0)
    assert honest.local_rate.stochastic(2).p < 0.5
    record = Record()
    for seed in range(12):
        # One seed is honest: where all agree, no seed is evidence.
        eta, scale = (honest.eta, 1.0) if seed == 0 else (1.0, 1e5)
        run = fit_sgd(copy.deepcopy(model), X, scale * y, 2, 2, eta=eta, seed=seed)
        own = run.record
        assert own["left"][0, -1] == (seed > 0)
        truth = honest.record
        for name in ("lambda0", "lambda_max", "largest_row", "rho", "Lambda_rho", "r0"):
            record.append(seed, 0, **{name: float(truth[name][0, 0])})
        record.extend(seed, "left", own["left"][0], range(3))
        for name, known in truth.facts.items():
            record.note(seed, **{name: known.all[0]})
    assert certify(record, kan.stays_in_ball()).verdict is Verdict.BROKEN


def test_an_arm_comes_back_as_it_was(two_seeds):
    record = Record()
    for seed in (0, 1):
        keep(record, seed, "m = 64, eta = .1", two_seeds.of_seed(seed))
    back = of_arm(record, "m = 64, eta = .1")
    assert back.quantities == two_seeds.quantities
    for quantity in back.quantities:
        assert (back[quantity] == two_seeds[quantity]).all()
    assert {n: k.values for n, k in back.facts.items()} == {
        n: k.values for n, k in two_seeds.facts.items()
    }
    verdicts = [[c.verdict for c in kan.run_certificates(r)] for r in (back, two_seeds)]
    assert verdicts[0] == verdicts[1]
