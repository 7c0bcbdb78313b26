"""The claims read what ran off the record: kept, broken by a fault, not promised by a fact, or unknown."""

import functools
import math
import pickle

import numpy as np
import pytest
import torch

from surefoot import Record, Verdict, certify
from surefoot.privacy import (
    LinearityMeter,
    LinearWeights,
    audit,
    compare,
    counterexamples,
    from_opacus,
    last_iterate,
    standard,
)
from surefoot.privacy.facts import copy_facts, merged, recorded_histories, setting_facts
from surefoot.privacy.guarantee import heuristic_claim, postprocessing_claim, proven_claim
from surefoot.privacy.linear_weights import additivity_claim
from surefoot.privacy.probe import UNEVEN, linearity_claim

SETTING = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 50}
AUDIT = {"delta": 1e-5, "confidence": 0.95, "adjacency": "add/remove", "releases": "last"}
CLAIMED = {f"claimed_{name}": value for name, value in SETTING.items()}
TRAINING = {
    **SETTING, "sampling": "poisson", "clipping": "per example", "optimizer": "SGD", "lr": 0.1,
    "momentum": 0.0, "weight_decay": 0.0, "linearity": "OK",
}  # fmt: skip
# Heuristic 4.15, proven 4.91 for this training at delta 1e-5.
LOW, BETWEEN, HIGH = 1.0, 4.55, 9.0


def audited(value, *facts, without=(), seed=0):
    record = Record()
    record.append(seed, 0, bound=value)
    for several in facts:
        record.note(seed, **{k: v for k, v in several.items() if k not in without})
    return record


def states(record, claim):
    return {a.name: a.holds for a in claim("bound").assumptions(record)}


@pytest.mark.parametrize(
    ("value", "proven", "heuristic"),
    [
        (LOW, Verdict.KEPT, Verdict.KEPT),
        (BETWEEN, Verdict.KEPT, Verdict.BROKEN),
        (HIGH, Verdict.BROKEN, Verdict.BROKEN),
    ],
)
def test_claims_of_what_is_recorded(value, proven, heuristic):
    record = audited(value, TRAINING, CLAIMED, AUDIT)
    found = certify(record, proven_claim("bound"))
    assert found.verdict is proven
    assert not found.heuristic
    assert {a.holds for a in found.assumptions} == {True}
    assert found.curve.promised == [standard(1.0, 0.1, 50).epsilon(1e-5).upper]
    found = certify(record, heuristic_claim("bound"))
    assert found.verdict is heuristic
    assert found.heuristic
    assert {a.holds for a in found.assumptions} == {True}
    assert found.curve.promised == [last_iterate(1.0, 0.1, 50).epsilon(1e-5).upper]


BOTH, ONLY = (proven_claim, heuristic_claim), (heuristic_claim,)


@pytest.mark.parametrize(
    ("fact", "name", "claims"),
    [
        ({"noise_multiplier": 4.0}, "noise, rate and steps", BOTH),
        ({"sample_rate": 0.2}, "noise, rate and steps", BOTH),
        ({"steps": 100}, "noise, rate and steps", BOTH),
        ({"sampling": "shuffled"}, "Poisson sampling", BOTH),
        ({"clipping": "per batch"}, "clipped gradients", BOTH),
        ({"adjacency": "replace-one"}, "adjacency", BOTH),
        ({"releases": "all"}, "hidden iterates", ONLY),
        ({"linearity": "violated"}, "linear losses", ONLY),
        ({"optimizer": "Adam"}, "weights of the steps", ONLY),
        ({"momentum": 0.9}, "weights of the steps", ONLY),
        ({"weight_decay": 0.1}, "weights of the steps", ONLY),
        ({"lr": 0.05}, "weights of the steps", ONLY),
    ],
)  # fmt: skip
def test_one_recorded_fact_voids_the_promise(fact, name, claims):
    """The fact is noted beside the good one: nothing that was once true can be unsaid."""
    record = audited(LOW, TRAINING, CLAIMED, AUDIT, fact)
    for claim in claims:
        found = certify(record, claim("bound"))
        assert found.verdict is Verdict.NOT_PROMISED
        assert name in found.reason
        assert states(record, claim)[name] is False
    for claim in set(BOTH) - set(claims):
        assert certify(record, claim("bound")).verdict is Verdict.KEPT


@pytest.mark.parametrize(
    ("absent", "name"),
    [
        ("noise_multiplier", "noise, rate and steps"),
        ("sampling", "Poisson sampling"),
        ("clipping", "clipped gradients"),
        ("adjacency", "adjacency"),
        ("releases", "hidden iterates"),
        ("linearity", "linear losses"),
        ("optimizer", "weights of the steps"),
        ("lr", "weights of the steps"),
        ("momentum", "weights of the steps"),
        ("weight_decay", "weights of the steps"),
    ],
)
def test_what_was_not_recorded_is_unknown(absent, name):
    record = audited(LOW, TRAINING, CLAIMED, AUDIT, without=(absent,))
    assert states(record, heuristic_claim)[name] is None
    # Unknown in one of two seeds is unknown.
    both = Record.concat([record, audited(LOW, TRAINING, CLAIMED, AUDIT, seed=1)])
    assert states(both, heuristic_claim)[name] is None


@pytest.mark.parametrize("absent", ["noise_multiplier", "sample_rate", "steps", "delta"])
@pytest.mark.parametrize("claim", BOTH)
def test_without_noise_rate_steps_or_delta_nothing_is_promised(claim, absent):
    record = audited(HIGH, TRAINING, AUDIT, without=(absent,))
    assert claim("bound").bound(record).tolist() == [[math.inf]]
    assert certify(record, claim("bound")).verdict is Verdict.VACUOUS


def test_a_strained_training_decides_nothing():
    record = audited(LOW, {**TRAINING, "linearity": "strained"}, AUDIT)
    assert states(record, heuristic_claim)["linear losses"] is None


def test_a_claim_alone_is_the_promise_under_audit():
    record = audited(HIGH, CLAIMED, AUDIT)
    assert states(record, proven_claim)["noise, rate and steps"] is None
    assert certify(record, proven_claim("bound")).verdict is Verdict.BROKEN


def test_seeds_with_other_settings_have_other_promises():
    weak = {**SETTING, "noise_multiplier": 4.0}
    record = Record.concat([audited(LOW, SETTING, AUDIT), audited(LOW, weak, AUDIT, seed=1)])
    promised = proven_claim("bound").bound(record)
    expected = [standard(s, 0.1, 50).epsilon(1e-5).upper for s in (1.0, 4.0)]
    assert promised.ravel().tolist() == expected


def test_arms_of_one_record_are_told_apart():
    record = Record()
    record.update(0, 0, {"a": LOW, "b": LOW})
    record.note(0, "a", **TRAINING, **AUDIT)
    record.note(0, "b", **TRAINING | {"sampling": "shuffled"}, **AUDIT)
    assert certify(record, proven_claim("a", of="a")).verdict is Verdict.KEPT
    assert certify(record, proven_claim("b", of="b")).verdict is Verdict.NOT_PROMISED
    assert certify(record, proven_claim("a", of="c")).verdict is Verdict.VACUOUS


def test_steps_that_differ_are_one_history():
    record = Record()
    record.append(0, 0, bound=LOW)
    history = ((1.0, 0.1, 20), (2.0, 0.1, 30))
    record.note(0, **setting_facts(history), **AUDIT)
    assert recorded_histories(record) == {0: (history,)}
    sigmas = [1.0] * 20 + [2.0] * 30
    assert (
        proven_claim("bound").bound(record)[0, 0] == standard(sigmas, 0.1, 50).epsilon(1e-5).upper
    )
    assert merged([(1.0, 0.1, 20), (1, 0.1, 30)]) == ((1.0, 0.1, 50),)


def test_rounding_of_a_rate_is_no_contradiction():
    record = audited(LOW, {**TRAINING, "sample_rate": 0.1 * (1 + 1e-12)}, CLAIMED, AUDIT)
    assert states(record, proven_claim)["noise, rate and steps"] is True


def test_recorded_weights_enter_the_heuristic():
    momentum = {"momentum": 0.9}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    weights = LinearWeights.from_optimizer(optimizer, 50)
    record = Record.concat(
        [audited(LOW, {**TRAINING, **momentum}, AUDIT), weights.record]
    )  # fmt: skip
    found = certify(record, heuristic_claim("bound"))
    assert found.verdict is Verdict.KEPT
    expected = last_iterate(1.0, 0.1, 50, weights=weights).epsilon(1e-5).upper
    assert found.curve.promised == [pytest.approx(expected, rel=1e-12)]
    assert states(record, heuristic_claim)["weights of the steps"] is True


def test_an_epsilon_above_twenty_is_vacuous():
    loud = {**SETTING, "noise_multiplier": 0.4, "steps": 100}
    found = certify(audited(LOW, loud, AUDIT), proven_claim("bound"))
    assert found.verdict is Verdict.VACUOUS


class TestAudit:
    """The facts that an audit writes, and takes over from what it trains."""

    class Training:
        def __init__(self, **facts):
            self.record = Record()
            self.record.note(**facts)

        def __call__(self, include, seed):
            noise = np.random.default_rng(seed).standard_normal(len(include))
            return include.numpy() + noise

    def run(self, training, **changes):
        arguments = {"m": 100, "k": 10, "delta": 1e-5, "shadow": 0, "seed": 4}
        return audit.one_run(training, **arguments | {"claimed": (1.0, 0.1, 50)} | changes)

    def test_of_a_black_box_only_the_claim_is_known(self):
        result = self.run(lambda include, seed: include.numpy() * 1.0)
        facts = {name: known.all[0] for name, known in result.record.facts.items()}
        assert facts == {
            **CLAIMED, "delta": 1e-5, "confidence": 0.95, "adjacency": "add/remove",
            "statistic": "one_run",
        }  # fmt: skip
        assert result.record.seeds == [4]

    def test_what_trained_speaks_for_itself(self):
        result = self.run(self.Training(**TRAINING, releases="last"))
        proven, heuristic = result.certificates()
        assert {a.holds for c in (proven, heuristic) for a in c.assumptions} == {True}
        assert (proven.verdict, proven.confidence) == (Verdict.KEPT, 0.95)

    def test_a_claim_of_another_training_is_not_promised(self):
        result = self.run(self.Training(**TRAINING | {"noise_multiplier": 2.0}))
        assert result.verdict is Verdict.NOT_PROMISED
        assert result.finding == "consistent"

    def test_a_model_that_is_returned_is_all_that_is_seen(self):
        def train(include, seed):
            return torch.nn.Linear(1, 1)

        scored = functools.partial(lambda m, model: torch.arange(m), 100)
        result = self.run(train, canaries=scored)
        assert result.record.fact("releases").all == ("last",)
        assert self.run(lambda include, seed: np.arange(100.0)).record.fact("releases").all == ()

    def test_the_meters_reading_voids_the_heuristic_alone(self):
        def run(injections, seed):
            # Squared: the answer to a unit vector is far too long.
            return sum((v * 100 for v in injections.values()), torch.zeros(5))

        reading = LinearityMeter(run, 3, probes=3).measure()
        assert reading.finding == "violated"
        result = self.run(self.Training(**TRAINING | {"linearity": "OK"}, releases="last"))
        proven, heuristic = result.certificates(reading)
        assert (proven.verdict, heuristic.verdict) == (Verdict.KEPT, Verdict.NOT_PROMISED)
        # Another seed of the meter's, and the audit's own record is left as it was.
        assert result.certificates()[1].verdict is Verdict.KEPT

    def test_audits_over_seeds_are_one_certificate(self):
        results = [self.run(self.Training(**TRAINING), seed=s) for s in range(3)]
        record = Record.concat([r.record for r in results])
        found = certify(record, proven_claim("audit lower bound"))
        assert (found.verdict, found.seeds) == (Verdict.KEPT, [0, 1, 2])

    def test_a_result_can_be_pickled(self):
        result = self.run(self.Training(**TRAINING))
        again = pickle.loads(pickle.dumps(result))
        assert again == result
        assert again.record.facts == result.record.facts

    def test_a_counterexample_knows_what_it_simulates(self):
        made = counterexamples.forgetting(0.3, 0.01, 16, 1e-3, threshold=0.95, runs=2000)
        facts = made.run().record.facts
        assert facts["regulariser"].all == ("quadratic, alpha 1",)
        assert facts["noise_multiplier"].all == facts["claimed_noise_multiplier"].all == (0.3,)


class TestReport:
    def test_post_processing(self):
        (found,) = compare(1.0, 0.1, 50, 1e-5).certificates()
        assert found.verdict is Verdict.KEPT
        record = Record()
        # Planted fault: the columns changed places.
        record.append(0, 0, heuristic=4.9, proven=4.1)
        claim = postprocessing_claim("heuristic", "proven")
        assert certify(record, claim).verdict is Verdict.BROKEN
        record = Record()
        record.append(0, 0, heuristic=4.9, proven=42.0)
        assert certify(record, claim).verdict is Verdict.VACUOUS

    def test_what_a_caller_says_of_the_sampling_is_a_claim(self):
        record = compare(1.0, 0.1, 50, 1e-5).record
        assert record.fact("claimed_sampling").all == ("poisson",)
        assert record.fact("sampling").all == ()
        shuffled = compare(1.0, 0.1, 50, 1e-5, sampling="shuffled")
        assert shuffled.record.fact("sampling").all == ("shuffled",)
        # The epochs' composition is what is proven then.
        assert [c.verdict for c in shuffled.certificates()] == [Verdict.KEPT]
        assert compare(1.0, 0.1, 50, 1e-5, releases="all").certificates() == []

    def test_an_audit_is_held_against_a_history(self):
        rng = np.random.default_rng(0)
        coins = rng.random(400) < 0.5
        seen = audit.from_scores(8.0 * coins + rng.standard_normal(400), coins, delta=1e-5, k=100)
        state = {"history": [(4.0, 0.1, 100)], "mechanism": "prv"}
        report = from_opacus(state, 1e-5, audit=seen)
        post, proven, heuristic = report.certificates()
        assert post.verdict is Verdict.KEPT
        assert proven.verdict is heuristic.verdict is Verdict.BROKEN
        assert report.record.fact("noise_multiplier").all == (4.0,)
        assert report.record.fact("accountant").all == ("prv",)

    def test_an_audit_of_another_training_is_refused(self):
        coins = np.arange(40) % 2 == 0
        seen = audit.from_scores(
            np.arange(40.0), coins, delta=1e-5, k=10, claimed=(2.0, 0.1, 50)
        )  # fmt: skip
        with pytest.raises(ValueError, match="audit must be of this training"):
            compare(1.0, 0.1, 50, 1e-5, audit=seen)
        with pytest.raises(ValueError, match="audit must be at the same delta, 1e-06"):
            compare(2.0, 0.1, 50, 1e-6, audit=seen)
        assert len(compare(2.0, 0.1, 50, 1e-5, audit=seen).certificates()) == 3


class TestLinearity:
    @pytest.mark.parametrize(
        ("lengths", "finding", "verdict"),
        [
            ([1.0, 1.0, 1.0], "OK", Verdict.KEPT),
            ([1.6, 1.0, 1.0], "strained", Verdict.UNDECIDED),
            ([8.0, 1.0, 1.0], "violated", Verdict.BROKEN),
        ],
    )
    def test_readings(self, lengths, finding, verdict):
        def run(injections, seed):
            return sum((-lengths[t] * v for t, v in injections.items()), torch.zeros(5))

        reading = LinearityMeter(run, 3, probes=3, seed=7).measure()
        assert (reading.finding, reading.verdict) == (finding, verdict)
        (found,) = reading.certificates()
        assert found.verdict is verdict
        assert found.heuristic
        assert reading.record.fact("linearity").values == {7: (finding,)}
        assert reading.record[UNEVEN].max() == pytest.approx(max(lengths), rel=1e-5)

    def test_steps_between_the_probed_ones_are_unknown(self):
        record = Record()
        record.append(0, 0, **{UNEVEN: 1.0})
        found = certify(record, linearity_claim())
        assert [a.holds for a in found.assumptions] == [None]


class TestWeights:
    def test_an_optimizer_that_adds_up(self):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
        weights = LinearWeights.from_optimizer(optimizer, 5)
        (found,) = weights.certificates()
        assert found.verdict is Verdict.KEPT
        facts = {name: known.all[0] for name, known in weights.record.facts.items()}
        assert facts == {
            "optimizer": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "dampening": 0.0,
            "nesterov": False, "weighted_steps": 5,
        }  # fmt: skip

    def test_one_that_does_not_is_broken(self):
        record = Record()
        # What Adam gives: of the order of its steps.
        record.append(0, 0, **{"departure from additivity": 0.1})
        assert certify(record, additivity_claim()).verdict is Verdict.BROKEN

    def test_weights_that_were_given_are_undecided(self):
        (found,) = LinearWeights(np.array([1.0, 0.5])).certificates()
        assert found.verdict is Verdict.UNDECIDED
        assert "from_optimizer" in found.reason


def test_facts_are_copied_for_one_seed_and_arm():
    source, target = Record(), Record()
    source.note(3, sampling="poisson")
    source.note(lr=0.1)
    copy_facts(source, target, 0, "arm")
    assert target.fact("sampling", "arm").values == {0: ("poisson",)}
    assert target.fact("lr", "arm").values == {0: (0.1,)}
