"""What an audit refuses, and that it does so before the first training; what its result is turned into."""

import json
import math

import numpy as np
import pytest

from surefoot import Verdict
from surefoot.privacy import audit, last_iterate, standard
from surefoot.privacy.audit.request import check_scores


class Training:
    """Counts its calls."""

    def __init__(self, m=50):
        self.calls, self.m = 0, m

    def __call__(self, include, seed):
        self.calls += 1
        return np.random.default_rng(seed).standard_normal(self.m)


CLAIMS = [
    ({"claimed": (1.0, 0.1, 2.5)}, "steps must be a whole number .*got 2.5"),
    ({"claimed": (1.0, 0.1, math.nan)}, "steps must be a number, got nan"),
    ({"claimed": (-1.0, 0.1, 5)}, "noise_multiplier must be .*got -1.0"),
    ({"claimed": (1.0, 1.5, 5)}, "sample_rate must be .*got 1.5"),
    ({"claimed": (1.0, 0.1)}, "claimed must be .noise_multiplier"),
    ({"claimed": (1.0, 0.1, 5), "delta": 0.0}, "delta must be positive where something is claimed"),
    ({"delta": 2.0}, "delta must be .*got 2.0"),
    ({"delta": math.nan}, "delta must be a number, got nan"),
    ({"confidence": 1.0}, "confidence must be .*got 1.0"),
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *CLAIMS,
        ({"k": 26}, "k must be .*between 1 and 25, got 26"),
        ({"k": [5, 0]}, "k must be .*got 0"),
    ],
)
def test_one_run_refuses_before_training(changes, message):
    train = Training()
    with pytest.raises(ValueError, match=message):
        audit.one_run(train, **({"m": 50, "k": 5, "delta": 1e-5, "seed": 0} | changes))
    assert train.calls == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *CLAIMS,
        ({"method": "one_run"}, "method must be of .* for many runs, got 'one_run'"),
        ({"method": "best"}, "method must be .*got 'best'"),
        ({"method": ("clopper", "gdp"), "delta": 0.0}, "delta must be positive for method 'gdp'"),
        ({"threshold": math.inf}, "threshold must be finite, got inf"),
        ({"threshold": math.nan}, "threshold must be a number, got nan"),
        ({"claimed": (1.0, [0.1, 0.2], 2)}, "claimed must give one sample rate"),
        ({"runs": 9}, "runs must be .* at least 10, got 9"),
    ],
)
def test_many_runs_refuse_before_training(changes, message):
    train = Training()
    arguments = {"runs": 20, "delta": 1e-5, "seed": 0} | changes
    with pytest.raises(ValueError, match=message):
        audit.many_runs(train, lambda x: x[0], **arguments)
    assert train.calls == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "gdp", "k": 5}, "k is for one run, got 5"),
        ({"threshold": 0.5}, "threshold is for many runs, got 0.5"),
        ({"method": ()}, "method must name at least one"),
        ({"seed": -1}, "seed must be .*got -1"),
        ({"method": ("clopper", "last_iterate")}, "claimed must give one sample rate"),
        ({"method": "one_run_fdp", "delta": 0.0}, "delta must be positive for method 'one_run_fdp'"),
    ],
)  # fmt: skip
def test_scores_with_arguments_of_the_other_kind(changes, message):
    arguments = {"scores": np.arange(20.0), "included": np.arange(20) % 2 == 0, "delta": 1e-5}
    with pytest.raises(ValueError, match=message):
        audit.from_scores(**(arguments | changes))


def scores(mu=2.0, m=1000):
    rng = np.random.default_rng(0)
    coins = rng.random(m) < 0.5
    return mu * coins + rng.standard_normal(m), coins


def test_every_bound_of_a_family_says_so():
    one = audit.from_scores(
        *scores(), method=("one_run", "one_run_fdp", "one_run_last_iterate"), delta=1e-5, k=100,
        claimed=(1.0, 0.1, 50),
    )  # fmt: skip
    many = audit.from_scores(
        *scores(), method=("clopper", "gdp", "last_iterate"), delta=1e-5, claimed=(1.0, 0.1, 50)
    )
    for result in (one, many):
        for line in str(result).splitlines():
            name = line.split()[0]
            if name in result.bounds:
                assert ("assumes" in line) == (name not in ("one_run", "clopper"))


def test_a_refuted_family_is_said_and_written():
    result = audit.from_scores(
        *scores(20.0), method=("clopper", "last_iterate"), delta=1e-5, claimed=(0.3, 0.01, 5)
    )
    assert result.bounds["last_iterate"] == math.inf
    assert "the family is refuted" in str(result)
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert found["bounds"]["last_iterate"] == "inf"
    assert result.lower_bound == result.bounds["clopper"] < math.inf


def test_a_claim_of_no_noise_is_never_broken():
    result = audit.from_scores(*scores(20.0), delta=1e-5, k=100, claimed=(0.0, 0.1, 50))
    assert result.finding == "consistent"
    # Without noise nothing is proven, and nothing broken by whatever an audit finds.
    assert result.verdict is Verdict.VACUOUS
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_record_holds_the_three_numbers():
    result = audit.from_scores(*scores(), delta=1e-5, k=100, claimed=(1.0, 0.1, 50), seed=3)
    record = result.record
    assert record.seeds == [3]
    assert record.quantities == sorted(
        ["audit lower bound", "heuristic (not a guarantee)", "proven"]
    )
    for name, value in (
        ("audit lower bound", result.lower_bound),
        ("heuristic (not a guarantee)", result.heuristic.value),
        ("proven", result.proven.value),
    ):
        assert record.constant(name).tolist() == [value]
    alone = audit.from_scores(*scores(), delta=1e-5, k=100)
    assert alone.record.quantities == ["audit lower bound"]


def test_only_the_heuristic_is_refuted_between_the_two_claims():
    """Counts whose bound lies above the heuristic and below the proven value."""
    claim = (0.3, 0.01, 16)
    lost = np.r_[np.ones(2000), np.zeros(2000)]
    seen = np.r_[np.ones(100), np.zeros(1900), np.zeros(2000)]
    result = audit.from_scores(
        seen, lost.astype(bool), method="clopper", delta=1e-3, threshold=0.5, claimed=claim
    )
    assert result.heuristic.value < result.lower_bound < result.proven.value
    assert (result.verdict, result.finding) == (Verdict.KEPT, "heuristic violated")
    assert result.exit_code == 0
    proven, heuristic = result.certificates()
    assert (proven.verdict, heuristic.verdict) == (Verdict.KEPT, Verdict.BROKEN)
    assert (proven.heuristic, heuristic.heuristic) == (False, True)


def test_a_family_bound_above_both_claims_decides_nothing():
    result = audit.from_scores(
        *scores(20.0), method=("one_run", "one_run_fdp"), delta=1e-5, k=100, claimed=(1.0, 0.1, 100)
    )
    assert result.lower_bound == result.bounds["one_run"] < result.heuristic.value
    assert result.bounds["one_run_fdp"] > result.proven.value
    assert (result.finding, result.exit_code) == ("consistent", 0)
    assert [c.verdict for c in result.certificates()] == [Verdict.KEPT, Verdict.KEPT]


COINS, NUMBERS = np.arange(20) % 2 == 0, np.linspace(-1, 1, 20)
WITHOUT_COMPLEX = {
    "scores": lambda z: audit.from_scores(z, COINS, delta=1e-5),
    "reference": lambda z: audit.from_scores(NUMBERS, COINS, delta=1e-5, reference=[z]),
    "what train_fn returns": lambda z: audit.one_run(
        lambda include, seed: z, m=20, delta=1e-5, seed=0
    ),
    "eps": lambda z: standard(1.0, 0.1, 5).profile(z),
    "fpr": lambda z: standard(1.0, 0.1, 5).tradeoff(z),
    "fpr of a heuristic": lambda z: last_iterate(1.0, 0.1, 5).tradeoff(z),
    "noise_multiplier": lambda z: standard(z[:5], 0.1, 5),
}


@pytest.mark.parametrize("name", WITHOUT_COMPLEX)
def test_an_imaginary_part_is_not_dropped(name, unchecked):
    z = np.linspace(0.1, 0.9, 20) + 0.5j
    with pytest.raises(ValueError, match=name.removesuffix(" of a heuristic")):
        WITHOUT_COMPLEX[name](z)


def test_a_mask_is_not_dropped():
    """NumPy hands over what it hides: the audit would be of scores that were taken out."""
    scores, coins = np.arange(20.0), np.arange(20) % 2 == 0
    hidden = np.arange(20) == 3
    for given in (
        (np.ma.masked_array(scores, hidden), coins),
        (scores, np.ma.masked_array(coins, hidden)),
    ):
        with pytest.raises(ValueError, match="a masked one that hides some"):
            check_scores(*given)
    seen = check_scores(np.ma.masked_array(scores, False), np.ma.masked_array(coins, False))
    np.testing.assert_array_equal(seen[0], scores)
    np.testing.assert_array_equal(seen[1], coins)
