"""Contract of every guarantee: kept, broken, voided; and nothing is assumed that was not recorded."""

import pytest
from tests.contract.guarantees import PROMISES

from surefoot import Verdict, certify

every = pytest.mark.parametrize("promise", PROMISES, ids=str)
WITH_FACTS = [p for p in PROMISES if p.facts]


def states(promise, record):
    return {a.name: a.holds for a in promise.make().assumptions(record)}


def unknown(promise, record):
    """What is not known of this record beyond what never is."""
    open_ = {name for name, state in states(promise, record).items() if state is None}
    return open_ - set(promise.unmeasured)


@every
def test_kept_where_it_must_hold(promise):
    record = promise.record()
    found = certify(record, promise.make())
    assert found.verdict is Verdict.KEPT, found.summary()
    open_ = {name for name, state in states(promise, record).items() if state is None}
    assert open_ == set(promise.unmeasured), found.summary()


@every
def test_broken_by_a_planted_fault(promise):
    found = certify(promise.record(promise.fault), promise.make())
    assert found.verdict is Verdict.BROKEN, found.summary()


@pytest.mark.parametrize(
    ("promise", "fact"),
    [pytest.param(p, fact, id=f"{p}-{fact}") for p in WITH_FACTS for fact in p.spoils],
)
def test_not_promised_where_a_fact_says_so(promise, fact):
    """Whether the numbers are good or bad, and if it was so in one seed alone."""
    for columns in ({}, promise.fault):
        found = certify(promise.record(columns, instead=fact), promise.make())
        assert found.verdict is Verdict.NOT_PROMISED, found.summary()
        assert found.reason
    one = promise.record()
    for key, value in fact.items():
        of, _, name = key.rpartition(".")
        one.note(0, of, **{name: value})
    assert certify(one, promise.make()).verdict is Verdict.NOT_PROMISED


@pytest.mark.parametrize(
    ("promise", "name"),
    [pytest.param(p, name, id=f"{p}-{name}") for p in WITH_FACTS for name in p.facts],
)
def test_a_fact_that_was_not_recorded_is_not_assumed(promise, name):
    """In no seed, or in one seed only."""
    assert unknown(promise, promise.record(without=[name]))
    if promise.seeds > 1:
        partly = promise.record(without=[name])
        of, _, fact = name.rpartition(".")
        partly.note(0, of, **{fact: promise.facts[name]})
        assert unknown(promise, partly)


@pytest.mark.parametrize("promise", WITH_FACTS, ids=str)
def test_nothing_is_assumed_of_a_run_without_facts(promise):
    record = promise.record(without=[*promise.facts, *promise.others])
    holding = {name for name, state in states(promise, record).items() if state is True}
    assert holding == set(promise.numbers)


@every
def test_it_says_what_and_whence(promise):
    guarantee = promise.make()
    assert guarantee.statement
    assert guarantee.source
    assert promise.facts or promise.why, "say why no fact can void it"
    assert bool(promise.facts) == bool(promise.spoils)
    assumed = {a.name for a in guarantee.assumptions(promise.record())}
    assert bool(assumed - set(promise.unmeasured)) == bool(promise.facts)
