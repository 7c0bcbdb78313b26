"""The rates read what ran off its record: kept, broken by a fault, not promised by a fact, unsaid."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch

from surefoot.certificate import certify
from surefoot.guarantee import Verdict
from surefoot.nesterov import (
    AGNES,
    NAG,
    AgnesParams,
    DecreasingNAG,
    Ledger,
    NAGSchedule,
    agnes_parameters,
)
from surefoot.nesterov._ledger.measured import ledger_certificates
from surefoot.nesterov.guarantee import GAP, accelerated_rate, curved_rate, decreasing_rate
from surefoot.nesterov.oracle import exact_quadratic_expectation
from surefoot.record import Record

MU, L = 1.0, 20.0
SCALE = torch.tensor([MU, L], dtype=torch.float64)
KNOWN = {"mu": MU, "L": L, "f_star": 0.0, "dist0_sq": 2.0, "how": "exact"}
FULL = {"sigma_mult": 0.0, "sigma_add": 0.0}
MAKERS = {
    "NAG": lambda p: NAG.from_constants(p, mu=MU, L=L),
    "AGNES": lambda p: AGNES.from_constants(p, mu=MU, L=L, sigma_mult=0.5),
    "DecreasingNAG": lambda p: DecreasingNAG(p, MU, L),
}


def descend(make, steps=60, fault=None):
    """Full gradients on a quadratic; `fault(optimizer, n)` acts after step n."""
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = make([x])
    for n in range(steps):
        optimizer.measure(lambda: 0.5 * (SCALE * x**2).sum())
        x.grad = SCALE * x.detach()
        optimizer.step()
        if fault is not None:
            fault(optimizer, n)
    return optimizer


def verdict(optimizer, **constants):
    (found,) = optimizer.certificates(**(KNOWN | FULL | constants))
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_kept(name):
    found = verdict(descend(MAKERS[name]))
    assert found.verdict is Verdict.KEPT
    assert all(a.holds for a in found.assumptions)


def turn_back(optimizer, n):
    """A planted fault: what the step did to the parameters is done twice the other way."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.data.mul_(1.2)


@pytest.mark.parametrize("name", MAKERS)
def test_a_planted_fault_is_broken(name):
    assert verdict(descend(MAKERS[name], fault=turn_back)).verdict is Verdict.BROKEN


CHANGES = {
    "another momentum": (lambda p: NAG(p, lr=1 / L, momentum=0.1), "mu-strong aiming"),
    "a step that is too long": (lambda p: NAG(p, lr=1.1 / L, momentum=0.7), "the step is short enough"),
    "weight decay": (lambda p: NAG(p, 1 / L, 0.9, weight_decay=0.1), "no weight decay"),
    "ascent": (lambda p: NAG(p, 1e-9, 0.99999, maximize=True), "a descent"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_recorded_setting_is_believed_and_not_the_caller(change):
    make, says = CHANGES[change]
    found = verdict(descend(make, steps=20))
    assert found.verdict is Verdict.NOT_PROMISED
    assert f"{says}" in found.reason


def test_a_momentum_of_a_smaller_mu_is_promised_for_that_mu():
    found = verdict(descend(lambda p: NAG.from_constants(p, mu=MU / 4, L=L)))
    assert found.verdict is Verdict.KEPT
    aiming = next(a for a in found.assumptions if a.name == "mu-strong aiming")
    assert aiming.measured == pytest.approx(MU / 4)


def lowered(optimizer, n):
    if n == 10:
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
            group["momentum"] *= 0.9


def test_hyperparameters_that_changed_are_on_record_and_void_the_promise():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        optimizer = descend(MAKERS["NAG"], fault=lowered)
    found = verdict(optimizer)
    assert found.verdict is Verdict.NOT_PROMISED
    assert "the same hyperparameters at every step" in found.reason
    curves = optimizer.record.curves("eta")
    assert curves.steps.tolist() == [11]
    assert curves.values[0, 0] == pytest.approx(0.9 / L)


def test_a_schedule_is_on_record_and_promised_nothing():
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = NAG([x], lr=1 / L, momentum=0.0)
    schedule = NAGSchedule(optimizer, "convex")
    for _ in range(5):
        optimizer.measure(lambda: 0.5 * (SCALE * x**2).sum())
        x.grad = SCALE * x.detach()
        optimizer.step()
        schedule.step()
    assert schedule.record is optimizer.record
    assert schedule.record.fact("schedule").all == ("convex",)
    (found,) = schedule.certificates(**KNOWN, **FULL)
    assert found.verdict is Verdict.NOT_PROMISED


def test_missing_gradients_are_on_record():
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    other = torch.ones(1, dtype=torch.float64, requires_grad=True)
    for make in MAKERS.values():
        optimizer = make([x, other])
        optimizer.measure(lambda: 0.5 * (SCALE * x**2).sum())
        x.grad = SCALE * x.detach()
        optimizer.step()
        found = verdict(optimizer)
        assert found.verdict is Verdict.NOT_PROMISED
        assert "every parameter stepped" in found.reason


@pytest.mark.parametrize("name", MAKERS)
def test_a_resumed_run_does_not_begin_at_rest(name):
    first = descend(MAKERS[name], steps=5)
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    second = MAKERS[name]([x])
    second.load_state_dict(first.state_dict())
    second.measure(lambda: 0.5 * (SCALE * x**2).sum())
    x.grad = SCALE * x.detach()
    second.step()
    assert second.record.fact("start").all == ("resumed",)
    assert "from rest" in verdict(second).reason
    first.finalize()
    x.grad = None
    first.param_groups[0]["params"][0].grad = torch.ones(2, dtype=torch.float64)
    first.step()
    assert "from rest" in verdict(first).reason


def test_what_nobody_said_is_not_assumed():
    optimizer = descend(MAKERS["NAG"])
    (bare,) = optimizer.certificates()
    assert bare.verdict is Verdict.UNDECIDED
    assert "pass f_star" in bare.reason
    unsaid = {a.name for a in bare.assumptions if a.holds is None}
    assert {"mu-strong aiming", "noise within its law", "f* is the infimum"} <= unsaid
    (silent,) = NAG([torch.ones(1, requires_grad=True)], 0.1, 0.9).certificates(**KNOWN)
    assert silent.verdict is Verdict.UNDECIDED
    assert "call optimizer.measure" in silent.reason
    assert not any(a.holds for a in silent.assumptions)


def test_an_f_star_above_the_run_is_not_believed():
    found = verdict(descend(MAKERS["NAG"]), f_star=1.0)
    assert found.verdict is Verdict.NOT_PROMISED
    assert "f* is the infimum" in found.reason


def test_noise_that_was_recorded_overrules_what_is_told():
    optimizer = descend(MAKERS["NAG"])
    optimizer.record.note(sigma_mult=1.0, sigma_add=0.0)
    assert "noise within its law" in verdict(optimizer).reason
    optimizer = descend(MAKERS["DecreasingNAG"])
    optimizer.record.note(sigma_mult=1.0, sigma_add=0.0)
    assert "no multiplicative noise" in verdict(optimizer).reason
    assert (
        "no multiplicative noise" in verdict(descend(MAKERS["DecreasingNAG"]), sigma_mult=1).reason
    )


@pytest.mark.parametrize("name", MAKERS)
def test_the_record_survives_copies(name):
    optimizer = descend(MAKERS[name], steps=5)
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert twin.record is not optimizer.record
        assert verdict(twin).to_json() == verdict(optimizer).to_json()
    optimizer.record.note(momentum="later")
    assert not twin.record.fact("momentum").all


@pytest.mark.parametrize("sigma", [0.0, 0.5, 3.0])
def test_constants_are_recovered_from_hyperparameters(sigma):
    wanted = agnes_parameters(0.3, 7.0, sigma)
    found = AgnesParams.of(wanted.eta, wanted.alpha, wanted.rho)
    for name in ("eta", "alpha", "rho", "s", "gamma", "beta"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-12)
    assert found.mu == pytest.approx(0.3, rel=1e-12)
    assert found.noise_excess(7.0, sigma) == pytest.approx(0, abs=1e-15)
    assert found.noise_excess(7.1, sigma) > 0
    assert AgnesParams.of(0.0, 0.0, 0.5).mu == float("inf")


def moments(sigma=1.0, **facts):
    """The exact expectation on the quadratic, noted as a run of AGNES."""
    own = agnes_parameters(MU, L, 1.0)
    record = Record()
    values = exact_quadratic_expectation((MU, L), (1.0, 1.0), own, sigma, 0.0, 200)
    record.extend(0, GAP, values)
    noted = {
        "optimizer": "AGNES", "start": "rest", "hyperparameters_changed": False, "weight_decay": 0.0,
        "maximize": False, "all_parameters": True, "eta": own.eta, "alpha": own.alpha,
        "rho": own.rho, "sigma_mult": sigma, "sigma_add": 0.0,
    } | facts  # fmt: skip
    record.note(**{name: value for name, value in noted.items() if value is not None})
    return record


RATE = accelerated_rate(mu=MU, L=L, dist0_sq=2.0, how="exact", every_run=True)


def test_accelerated_rate_on_moments():
    assert certify(moments(), RATE).verdict is Verdict.KEPT
    # Planted: noise of another size than what the record says.
    record = moments(sigma=4.0)
    faulty = Record()
    faulty.extend(0, GAP, record[GAP][0])
    for name, known in moments().facts.items():
        faulty.note(**{name: known.all[0]})
    assert certify(faulty, RATE).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    "fact",
    [
        {"optimizer": "SGD"}, {"start": "resumed"}, {"hyperparameters_changed": True},
        {"weight_decay": 0.1}, {"maximize": True}, {"all_parameters": False}, {"rho": 0.1},
        {"may_skip_steps": True}, {"sigma_mult": 4.0},
    ],
)  # fmt: skip
def test_accelerated_rate_is_not_promised_by_a_fact(fact):
    assert certify(moments(**fact), RATE).verdict is Verdict.NOT_PROMISED


@pytest.mark.parametrize(
    "fact",
    ["optimizer", "start", "hyperparameters_changed", "weight_decay", "maximize", "all_parameters"],
)
def test_an_absent_fact_holds_for_nobody(fact):
    found = RATE.assumptions(moments(**{fact: None}))
    assert sum(a.holds is None for a in found) == 1


@pytest.mark.parametrize("fact", ["eta", "alpha", "rho", "sigma_add"])
def test_an_absent_number_is_named(fact):
    with pytest.raises(ValueError, match=f"{fact} was not recorded for seed 0"):
        certify(moments(**{fact: None}), RATE)
    assert any(a.holds is None for a in RATE.assumptions(moments(**{fact: None})))


def test_two_values_of_a_number_promise_nothing():
    record = moments()
    record.note(rho=0.5)
    assert np.isinf(np.asarray(RATE.bound(record))).all()


def test_curved_rate_is_a_heuristic_that_can_break():
    rate = curved_rate(dist0_sq=2.0)
    good, bad = Record(), Record()
    for seed in range(8):
        for record, sigma in ((good, 1.0), (bad, 6.0)):
            record.extend(seed, GAP, moments(sigma=sigma)[GAP][0] * (1 + 1e-3 * seed))
    for record in (good, bad):
        for name, known in moments().facts.items():
            record.note(**{name: known.all[0]})
    assert certify(good, rate).label == "KEPT (heuristic)"
    assert certify(bad, rate).verdict is Verdict.BROKEN
    good.note(optimizer="Adam")
    assert certify(good, rate).verdict is Verdict.NOT_PROMISED
    assert all(a.holds is None for a in rate.assumptions(Record()))


def test_decreasing_rate_reads_its_mu():
    optimizer = descend(lambda p: DecreasingNAG(p, 4 * MU, L))
    assert "mu-strong aiming" in verdict(optimizer).reason
    assert "L-smooth" in verdict(descend(lambda p: DecreasingNAG(p, MU, L / 2))).reason
    absent = decreasing_rate(mu=MU, L=L, how="exact").assumptions(Record())
    assert not any(a.holds for a in absent)


def ledger(steps=80, schedule=None):
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = NAG.from_constants([x], mu=MU, L=L)

    def f():
        return 0.5 * (SCALE * x**2).sum()

    found = Ledger(optimizer, f, mu=MU, eta=1 / L, anchor=torch.zeros(2, dtype=torch.float64))
    for n in range(steps):
        optimizer.zero_grad()
        f().backward()
        found.observe()
        optimizer.step()
        if schedule is not None:
            schedule(optimizer, n)
    return found


def test_a_ledger_writes_itself_into_its_record(tmp_path):
    one = ledger()
    assert isinstance(one.record, Record)
    assert one.record.fact("anchor").all == ("fixed",)
    (found,) = one.certificates()
    assert found.verdict is Verdict.KEPT
    one.record.write(tmp_path / "ledger.parquet")
    for again in (Record.read(tmp_path / "ledger.parquet"), pickle.loads(pickle.dumps(one.record))):
        assert ledger_certificates(again)[0].to_json() == found.to_json()
    short = one.certificates(judge=40)[0]
    assert short.judged <= 40
    assert len(one.record.curves("L").steps) == 40


def test_a_ledger_of_changed_hyperparameters_is_not_promised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        (found,) = ledger(schedule=lowered).certificates()
    assert found.verdict is Verdict.NOT_PROMISED
    assert "the same hyperparameters at every step" in found.reason


@pytest.mark.parametrize(
    ("fact", "value"),
    [("method", "Adam"), ("weight_decay", 0.1), ("maximize", True), ("rho", 0.1)],
)
def test_a_ledger_with_another_fact_is_not_promised(fact, value):
    one = ledger()
    one.close()
    one.record.note(**{fact: value})
    assert ledger_certificates(one.record)[0].verdict is Verdict.NOT_PROMISED


@pytest.mark.parametrize("fact", ["s", "f0", "lowest_f", "missing", "f_star", "method", "maximize"])
def test_a_ledger_without_a_fact_is_undecided(fact):
    one = ledger()
    one.close()
    record = Record()
    for name in one.record.quantities:
        curves = one.record.curves(name)
        record.extend(0, name, curves.values[0], curves.steps)
    for name, known in one.record.facts.items():
        if name != fact:
            record.note(**{name: known.all[0]})
    assert ledger_certificates(record)[0].verdict is Verdict.UNDECIDED


def test_a_replay_is_not_recorded_as_a_run():
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = NAG.from_constants([x], mu=MU, L=L)

    def f():
        return 0.5 * (SCALE * x**2).sum()

    found = Ledger(optimizer, f, mu=MU, eta=1 / L)
    for _ in range(20):
        optimizer.zero_grad()
        f().backward()
        found.record()  # the record can be called, too
        optimizer.step()
    found.close()
    assert optimizer.record.fact("start").all == ("rest",)


def test_a_run_that_measured_nothing_still_says_what_it_was():
    x = torch.ones(2, requires_grad=True)
    optimizer = NAG([x], 0.05, 0.1, weight_decay=0.3)
    x.square().sum().backward()
    optimizer.step()
    (found,) = optimizer.certificates(mu=1.0, L=2.0, f_star=0.0, sigma_mult=0.0, sigma_add=0.0)
    assert found.verdict is Verdict.NOT_PROMISED
    assert "no weight decay" in found.reason
