"""Audits end to end: scores, training functions, verdicts, certificates."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from surefoot import Verdict
from surefoot.privacy import audit, standard
from surefoot.privacy.experiments.one_run import FAULT, HONEST, MLP, SOFTMAX, Trainer


def channel(mu=1.0, m=1000, seed=0):
    rng = np.random.default_rng(seed)
    coins = rng.random(m) < 0.5
    return mu * coins + rng.standard_normal(m), coins


class TestScores:
    def test_counts(self):
        scores = np.arange(20.0)
        coins = np.arange(20) >= 10
        result = audit.from_scores(scores, coins, delta=1e-5, k=5)
        assert (result.guesses, result.correct, result.k) == (10, 10, 5)
        assert result.lower_bound == audit.epsilon_one_run(20, 10, 10, 1e-5) == result.ceiling
        coins = coins ^ (np.arange(20) == 19)
        assert audit.from_scores(scores, coins, delta=1e-5, k=5).correct == 9

    def test_ties_are_broken_by_lot(self):
        scores, coins = np.zeros(40), np.arange(40) % 2 == 0
        scores[:2] = [1.0, -1.0]
        found = {
            audit.from_scores(scores, coins, delta=1e-5, k=10, seed=s).correct for s in range(20)
        }
        assert len(found) > 1
        again = [audit.from_scores(scores, coins, delta=1e-5, k=10, seed=3) for _ in range(2)]
        assert again[0].correct == again[1].correct

    def test_all_tied_is_zero(self):
        # Coins in the order that a sort without lot would guess right.
        coins = np.arange(40) >= 20
        result = audit.from_scores(np.ones(40), coins, delta=1e-5, k=10)
        assert result.lower_bound == 0

    def test_several_k_share_the_confidence(self):
        scores, coins = channel()
        alone = audit.from_scores(scores, coins, delta=1e-5, k=50)
        both = audit.from_scores(scores, coins, delta=1e-5, k=[50, 50])
        assert both.lower_bound < alone.lower_bound
        best = max(
            audit.epsilon_one_run(
                1000, 2 * k, audit.from_scores(scores, coins, delta=1e-5, k=k).correct, 1e-5, 0.975
            )
            for k in (30, 80)
        )
        assert audit.from_scores(scores, coins, delta=1e-5, k=[30, 80]).lower_bound == best

    def test_reference_removes_a_common_drift(self):
        rng = np.random.default_rng(1)
        drift = 20 * rng.standard_normal(1000)
        scores, coins = channel(2.0)
        shadows = np.stack([drift + channel(2.0, seed=10 + i)[0] for i in range(8)])
        result = audit.from_scores(scores + drift, coins, delta=1e-5, k=80, reference=shadows)
        assert result.raw["one_run"] < 0.5 < 2 < result.lower_bound

    def test_many_runs_of_one_canary(self):
        scores, coins = channel(3.0, m=4000)
        fixed = audit.from_scores(scores, coins, method="clopper", delta=1e-5, threshold=1.5)
        tp, fp = int((scores[coins] > 1.5).sum()), int((scores[~coins] > 1.5).sum())
        inside, outside = int(coins.sum()), int((~coins).sum())
        limits = audit.clopper_pearson(tp, fp, 2000, 1e-5)
        # Sides differ a little in size; the limits of equal sides are near.
        assert fixed.lower_bound == pytest.approx(limits.epsilon, rel=0.1)
        assert abs(inside - outside) < 200
        chosen = audit.from_scores(
            scores, coins, method=("clopper", "gdp", "last_iterate"), delta=1e-5,
            claimed=(0.5, 0.1, 50),
        )  # fmt: skip
        assert "threshold chosen on one half" in chosen.notes[0]
        assert chosen.bounds["clopper"] < chosen.bounds["gdp"]
        assert chosen.lower_bound == chosen.bounds["clopper"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"scores": np.array([math.nan] + [0.0] * 19)}, "scores must be finite, got nan at 0"),
            ({"included": np.ones(20, dtype=bool)}, "included must hold both in and out, got all True"),
            ({"included": np.zeros(20, dtype=bool)}, "got all False"),
            ({"included": np.zeros(19, dtype=bool)}, "included must be 20 booleans"),
            ({"included": np.arange(20)}, "included must be 20 booleans"),
            ({"scores": np.zeros(9), "included": np.arange(9) % 2 == 0}, "at least 10 canaries, got 9"),
            ({"scores": np.zeros((4, 5))}, "one number per canary"),
            ({"k": 11}, "k must be a whole number between 1 and 10, got 11"),
            ({"k": 0}, "k must be .*got 0"),
            ({"k": []}, "k must hold at least one number"),
            ({"delta": 1.0}, "delta must be .*got 1.0"),
            ({"delta": -1.0}, "delta must be .*got -1.0"),
            ({"delta": math.nan}, "delta must be a number, got nan"),
            ({"confidence": 0.0}, "confidence must be"),
            ({"method": "best"}, "method must be one of .*got 'best'"),
            ({"method": ("one_run", "gdp")}, "for one run or for many"),
            ({"method": "gdp", "threshold": math.inf}, "threshold must be finite, got inf"),
            ({"method": "gdp", "reference": np.zeros((2, 20))}, "reference is for one run"),
            ({"method": "last_iterate"}, "claimed must give one sample rate"),
            ({"reference": np.zeros((2, 19))}, r"reference must have shape \(K, 20\)"),
            ({"reference": np.full((2, 20), math.nan)}, "reference must be finite"),
            ({"claimed": (1.0, 0.1)}, "claimed must be .noise_multiplier"),
        ],
    )  # fmt: skip
    def test_bad_arguments(self, changes, message, unchecked):
        arguments = {"scores": np.arange(20.0), "included": np.arange(20) % 2 == 0, "delta": 1e-5}
        with pytest.raises(ValueError, match=message):
            audit.from_scores(**(arguments | changes))


class TestOneRun:
    @pytest.mark.parametrize("arm", [MLP, SOFTMAX], ids=lambda a: a.name)
    def test_calibration_gains_and_stays_below_the_claims(self, arm):
        gains = []
        for seed in range(2):
            result = audit.one_run(
                Trainer(arm, seed), m=arm.m, k=arm.k, delta=1e-5, shadow=4, seed=seed,
                claimed=arm.claim,
            )  # fmt: skip
            assert result.finding == "consistent"
            assert result.bounds["one_run_fdp"] <= result.heuristic.value
            gains.append(result.bounds["one_run_fdp"] / result.raw["one_run_fdp"])
        assert min(gains) > 1

    @pytest.mark.filterwarnings("ignore::surefoot.privacy.audit.CalibrationWarning")
    def test_noise_that_is_too_small_is_convicted_by_calibrated_scores_only(self):
        result = audit.one_run(
            Trainer(FAULT, 0), m=FAULT.m, k=FAULT.k, delta=1e-5, shadow=4, seed=0,
            claimed=standard(*FAULT.claim),
        )  # fmt: skip
        assert result.raw["one_run"] < result.proven.value < result.lower_bound
        assert result.finding == "not DP as claimed"
        assert result.verdict is Verdict.BROKEN
        assert result.exit_code == 3
        assert "implementation is not DP as claimed" in str(result)
        proven, heuristic = result.certificates()
        assert proven.verdict is Verdict.BROKEN
        assert not proven.heuristic
        assert heuristic.verdict is Verdict.BROKEN
        assert heuristic.heuristic

    @pytest.mark.filterwarnings("ignore::surefoot.privacy.audit.CalibrationWarning")
    def test_honest_noise_is_not(self):
        result = audit.one_run(
            Trainer(HONEST, 0), m=HONEST.m, k=HONEST.k, delta=1e-5, shadow=4, seed=0,
            claimed=HONEST.claim,
        )  # fmt: skip
        assert result.finding == "consistent"
        assert result.exit_code == 0
        assert [c.verdict for c in result.certificates()] == [Verdict.KEPT, Verdict.KEPT]

    def test_every_call_has_its_own_seed_and_coins(self):
        seen = []

        def train(include, seed):
            seen.append((include.numpy().copy(), seed))
            return np.random.default_rng(seed).standard_normal(50)

        audit.one_run(train, m=50, k=5, delta=1e-5, shadow=1, seed=3)
        audit.one_run(train, m=50, k=5, delta=1e-5, shadow=1, seed=3)
        assert len(seen) == 4
        assert len({s for _, s in seen}) == 2
        assert (seen[0][0] == seen[2][0]).all()
        assert not (seen[0][0] == seen[1][0]).all()

    def test_shadows_that_share_nothing_are_told(self):
        def train(include, seed):
            return np.random.default_rng(seed).standard_normal(200)

        with pytest.warns(audit.CalibrationWarning, match="start from the same parameters"):
            audit.one_run(train, m=200, k=20, delta=1e-5, shadow=2, seed=0)

    def test_models_are_scored_on_gradient_canaries_inputs_or_by_a_function(self):
        m = 40
        vectors = torch.eye(m)

        def train(include, seed):
            model = nn.Linear(m, 1, bias=False)
            noise = torch.randn(m, generator=torch.Generator().manual_seed(seed))
            with torch.no_grad():
                model.weight.copy_(-(5.0 * include + noise)[None])
            return model

        for canaries in (vectors, lambda model: -model.weight[0]):
            result = audit.one_run(train, canaries, m=m, k=10, delta=1e-5, shadow=0, seed=0)
            assert result.correct == 20

        def classify(include, seed):
            model = nn.Linear(m, 2, bias=False)
            with torch.no_grad():
                model.weight.copy_(torch.stack([include * 3.0, include * -3.0]))
            return model

        inputs = torch.eye(m), torch.zeros(m, dtype=torch.long)
        result = audit.one_run(classify, inputs, m=m, k=10, delta=1e-5, shadow=0, seed=0)
        assert result.correct == 20

    @pytest.mark.parametrize(
        ("train", "changes", "message"),
        [
            (lambda include, seed: np.zeros(7), {}, r"a model or 50 scores, got shape \(7,\)"),
            (lambda include, seed: nn.Linear(1, 1), {}, "canaries must be given .*got None"),
            (lambda include, seed: np.full(50, np.nan), {}, "scores must be finite, got nan"),
            (lambda include, seed: np.zeros(50), {"m": 9}, "m must be .* at least 10, got 9"),
            (lambda include, seed: np.zeros(50), {"shadow": -1}, "shadow must be .*got -1"),
            (lambda include, seed: np.zeros(50), {"seed": -1}, "seed must be .*got -1"),
        ],
    )
    def test_bad_training_functions(self, train, changes, message):
        with pytest.raises(ValueError, match=message):
            audit.one_run(
                train, **({"m": 50, "k": 5, "delta": 1e-5, "shadow": 0, "seed": 0} | changes)
            )


class TestManyRuns:
    def test_a_gaussian_mechanism(self):
        def train(include, seed):
            return 4.0 * include + float(np.random.default_rng(seed).standard_normal())

        result = audit.many_runs(
            train, lambda x: x, 400, delta=1e-5, seed=0, claimed=(0.25, 1.0, 1)
        )
        assert set(result.bounds) == {"clopper", "gdp", "last_iterate"}
        assert result.finding == "consistent"
        # With q = 1 the last-iterate family is the Gaussian one.
        assert result.bounds["last_iterate"] == pytest.approx(result.bounds["gdp"], rel=1e-6)
        assert 1 < result.lower_bound < result.bounds["gdp"] < result.proven.value

    def test_noise_forgotten(self):
        result = audit.many_runs(
            lambda include, seed: float(include), lambda x: x, 500, delta=1e-5, seed=0,
            claimed=(4.0, 0.1, 100),
        )  # fmt: skip
        assert result.exit_code == 3


class TestResult:
    def result(self, **changes):
        scores, coins = channel()
        return audit.from_scores(scores, coins, delta=1e-5, k=40, **changes)

    def test_no_claim_no_verdict(self):
        result = self.result()
        assert result.verdict is None
        assert result.finding is None
        assert result.exit_code == 0
        with pytest.raises(ValueError, match="claimed must be given"):
            result.certificates()

    def test_one_line_in_order(self):
        line = str(self.result(claimed=(1.0, 0.1, 50))).splitlines()[0]
        at = [
            line.index(w) for w in ("audit lower bound", "heuristic (not a guarantee)", "standard")
        ]
        assert at == sorted(at)
        assert "ceiling" in line

    def test_a_family_bound_convicts_nobody(self):
        scores, coins = channel(8.0)
        result = audit.from_scores(
            scores, coins, method=("one_run", "one_run_fdp"), delta=1e-5, k=300,
            claimed=(0.6, 0.1, 100),
        )  # fmt: skip
        assert result.lower_bound < result.proven.value
        assert result.finding != "not DP as claimed"

    def test_claims_with_steps_that_differ(self):
        claim = standard([1.0] * 5 + [2.0] * 5, 0.1, 10)
        assert self.result(claimed=claim).proven.value == claim.epsilon(1e-5).value

    def test_json(self):
        found = json.loads(json.dumps(self.result(claimed=(1.0, 0.1, 50)).to_dict()))
        assert (found["verdict"], found["finding"]) == ("KEPT", "consistent")
        assert found["exit_code"] == 0
