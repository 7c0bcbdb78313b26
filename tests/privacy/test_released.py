"""Certificates of what left a run, from its facts: P, that all of it is private; H, of the last iterate."""

import itertools

import numpy as np
import pytest

from surefoot import Record, Verdict
from surefoot.privacy import audit, compare, standard
from surefoot.privacy.guarantee import certificates

SIGMA, Q, T = 2.56, 0.032, 3000
RAN = {
    "mechanism": "poisson-subsampled gaussian", "noise_multiplier": SIGMA, "sample_rate": Q, "steps": T,
    "clip_norm": 24.0, "clipping": "per example", "non_finite": "zero", "sampling": "poisson",
    "adjacency": "add/remove", "divisor": "constant", "secret_noise": True, "secret_sampling": True,
    "population": 8000, "population_public": True, "released": "noised scalars, weights, step log",
    "optimizer": "LOZO", "forward_only": True, "public_directions": True, "directions": 1,
    "trained_numbers": 148_610, "releases": "all", "private_run": "a",
}  # fmt: skip
FAILS = {
    "mechanism": "laplace", "clipping": "per batch", "sampling": "shuffled", "adjacency": "replace-one",
    "non_finite": "skipped", "divisor": "batch size", "secret_noise": False, "secret_sampling": False,
    "population_public": False, "released": "loss", "clip_norm": float("inf"),
}  # fmt: skip


def record(without=(), **instead):
    made = Record()
    made.note(**{k: v for k, v in {**RAN, **instead}.items() if k not in without})
    return made


def audited(separation, claimed=(SIGMA, Q, T), delta=1e-5, confidence=0.95):
    """An audit of 300 + 300 scores, apart by so many standard deviations."""
    rng = np.random.default_rng(0)
    inside = np.arange(600) % 2 == 0
    scores = rng.standard_normal(600) + separation * inside
    return audit.from_scores(
        scores, inside, method="clopper", delta=delta, confidence=confidence, seed=0, claimed=claimed
    )  # fmt: skip


def test_a_whole_record_is_undecided_until_it_is_audited():
    private, hidden = certificates(record(), delta=1e-5)
    assert private.verdict is Verdict.UNDECIDED
    assert "not audited" in private.reason
    assert {a.holds for a in private.assumptions} == {True}
    assert private.details["claim"] == "P"
    assert private.details["epsilon"] == standard(SIGMA, Q, T).epsilon(1e-5).value
    assert hidden.details == {"claim": "H"}


@pytest.mark.parametrize(("fact", "value"), FAILS.items())
def test_one_fact_that_fails_is_named(fact, value):
    private, _ = certificates(record(**{fact: value}), delta=1e-5)
    assert private.verdict is Verdict.NOT_PROMISED
    (failing,) = (a for a in private.assumptions if a.holds is False)
    assert f"{fact} = {value}" in failing.how
    assert private.reason.startswith(f"{failing.name} fails: requires {failing.requires}")
    assert "epsilon" not in private.details
    # Nothing that was once so can be unsaid, and neither does an audit speak for it.
    both = record()
    both.note(**{fact: value})
    assert certificates(both, audited(0.0), delta=1e-5)[0].verdict is Verdict.NOT_PROMISED


@pytest.mark.parametrize("fact", FAILS)
def test_what_was_not_recorded_is_unknown_and_never_assumed(fact):
    private, _ = certificates(record(without=[fact]), delta=1e-5)
    assert private.verdict is Verdict.UNDECIDED
    assert [a.holds for a in private.assumptions if f"{fact} = not recorded" in a.how] == [None]
    assert [a.holds for a in private.assumptions].count(None) == 1


def test_known_in_one_seed_alone_is_unknown():
    several = Record()
    for seed in (0, 1):
        several.append(seed, 0, loss=1.0)
        several.note(seed, **{k: v for k, v in RAN.items() if seed or k != "secret_noise"})
    (unknown,) = (a for a in certificates(several, delta=1e-5)[0].assumptions if a.holds is None)
    assert unknown.name == "secret noise"


@pytest.mark.parametrize(
    "left", ["loss", "noised scalars, fd_error", "metrics", "counts", "a word"]
)
def test_a_thing_that_left_without_noise_is_named(left):
    private, _ = certificates(record(released=left), delta=1e-5)
    assert private.verdict is Verdict.NOT_PROMISED
    assert f"without noise: {left.rpartition(', ')[2]}" in private.reason


def test_an_audit_keeps_or_breaks_it():
    kept, _ = certificates(record(), audited(0.5))
    assert kept.verdict is Verdict.KEPT
    assert kept.details["epsilon"] == standard(SIGMA, Q, T).epsilon(1e-5).value
    # Planted: scores so far apart that no noise of that size can be behind them.
    broken, _ = certificates(record(), audited(8.0))
    assert broken.verdict is Verdict.BROKEN
    assert broken.confidence == 0.95


def test_an_audit_of_the_first_steps_speaks_of_these():
    """Breaking what is proven of 40 steps convicts the mechanism, though 3,000 steps may leak as much."""
    proven = [standard(SIGMA, Q, t).epsilon(1e-5).value for t in (40, T)]
    short = audited(8.0, claimed=(SIGMA, Q, 40))
    assert proven[0] < short.lower_bound
    broken, _ = certificates(record(), short)
    assert broken.verdict is Verdict.BROKEN
    assert "first 40 steps" in broken.statement
    assert broken.details["epsilon"] == proven[1]
    kept, _ = certificates(record(), audited(0.1, claimed=(SIGMA, Q, 40)))
    assert kept.verdict is Verdict.KEPT
    assert {a.holds for a in kept.assumptions} == {True}
    for claimed in ((SIGMA, Q, T + 1), (SIGMA + 1, Q, 40), (SIGMA, Q / 2, 40)):
        with pytest.raises(ValueError, match="another"):
            certificates(record(), audited(0.1, claimed=claimed))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"audit": audited(0.0, claimed=(1.0, Q, T))}, "another"),
        ({"audit": audited(0.0, delta=1e-6), "delta": 1e-5}, "same delta"),
        ({"audit": audited(0.0, confidence=0.9)}, "at least 0.95"),
        ({"delta": 2.0}, "delta"),
    ],
)
def test_what_contradicts_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        certificates(record(), **given)
    with pytest.raises(ValueError, match="recorded one"):
        certificates(record(delta=1e-6), delta=1e-5)


def test_a_recorded_delta_needs_no_telling():
    (private, _), (told, _) = certificates(record(delta=1e-6)), certificates(record(), delta=1e-6)
    assert private.details == told.details


@pytest.mark.parametrize("absent", ["noise_multiplier", "sample_rate", "steps"])
def test_without_a_setting_there_is_no_epsilon(absent):
    private, _ = certificates(record(without=[absent]), delta=1e-5)
    assert private.verdict is Verdict.UNDECIDED
    assert "epsilon" not in private.details


def test_an_epsilon_that_distinguishes_nothing_is_vacuous():
    assert certificates(record(noise_multiplier=0.3), delta=1e-5)[0].verdict is Verdict.VACUOUS


@pytest.mark.parametrize(("q", "steps"), [(1.0, 7), (0.2, 1)])
def test_closed_forms_of_a_full_batch_and_of_one_step(q, steps):
    from scipy.stats import norm

    private, _ = certificates(record(sample_rate=q, steps=steps, noise_multiplier=2.0), delta=1e-5)
    eps = private.details["epsilon"]
    # Balle and Wang's exact Gaussian mechanism, mu = sqrt(T) / sigma; one sample: log(1 + (e^eps - 1) / q).
    mu, at = np.sqrt(steps) / 2.0, eps if q == 1 else np.log1p(np.expm1(eps) / q)
    delta = norm.cdf(mu / 2 - at / mu) - np.exp(at) * norm.cdf(-mu / 2 - at / mu)
    assert q * delta == pytest.approx(1e-5, rel=1e-6)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "directions are public, T K = 3000 <= 148610 trained numbers"),
        ({"directions": 4}, "directions are public, T K = 12000 <= 148610 trained numbers"),
        ({"trained_numbers": 2000}, "directions are public, T K = 3000 > 2000 trained numbers"),
        ({"public_directions": False}, "directions of a secret seed"),
    ],
)
def test_the_last_iterate_of_steps_along_directions_promises_nothing(facts, words):
    _, hidden = certificates(record(**facts), delta=1e-5)
    assert hidden.verdict is Verdict.NOT_PROMISED
    assert hidden.heuristic
    assert hidden.reason.startswith(words)
    # The number of the heuristic is nowhere, be it as a promise or in passing.
    assert "2.88" not in hidden.to_json()


def test_forward_passes_alone_say_so_too():
    _, hidden = certificates(record(without=["public_directions", "directions"]), delta=1e-5)
    assert hidden.verdict is Verdict.NOT_PROMISED
    assert hidden.reason.startswith("directions are public")


def test_gradients_keep_their_heuristic():
    sgd = {"optimizer": "SGD", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "releases": "last"}
    gone = ("forward_only", "public_directions", "directions")
    _, hidden = certificates(record(gone, **sgd), delta=1e-5)
    assert hidden.verdict is Verdict.UNDECIDED
    assert hidden.details["epsilon"] < standard(SIGMA, Q, T).epsilon(1e-5).value


def test_arms_have_facts_of_their_own():
    arms = Record()
    for name, sigma in (("weak", 1.0), ("strong", 4.0)):
        arms.note(None, name, **{**RAN, "noise_multiplier": sigma})
    for name, sigma in (("weak", 1.0), ("strong", 4.0)):
        private, _ = certificates(arms, delta=1e-5, of=name)
        assert private.details["epsilon"] == standard(sigma, Q, T).epsilon(1e-5).value


def test_the_record_is_left_as_it_was():
    given = record()
    before = {k: v.all for k, v in given.facts.items()}
    certificates(given, audited(0.0), delta=1e-5)
    assert {k: v.all for k, v in given.facts.items()} == before
    assert not len(given)


def test_compare_refuses_the_heuristic_of_public_directions():
    plain, refused = (compare(SIGMA, Q, T, 1e-5, public_directions=p) for p in (False, True))
    assert plain.heuristic is not None
    assert (refused.heuristic, refused.envelope, refused.full_batch) == (None, None, None)
    assert refused.standard == plain.standard
    assert "directions of the steps are public" in str(refused)
    assert refused.record.fact("public_directions").all == (True,)


def test_final_weights_of_public_directions_give_every_release_back():
    """Why H is void: float32 weights of 2,410 numbers, 500 steps, and least squares."""
    rng, steps, trained = np.random.default_rng(0), 500, 2410
    directions = rng.standard_normal((steps, trained)).astype(np.float32)
    released = rng.standard_normal(steps).astype(np.float32)
    weights = np.zeros(trained, dtype=np.float32)
    for c, z in zip(released, directions, strict=True):
        weights -= np.float32(1e-2) * c * z
    found = np.linalg.lstsq(-1e-2 * directions.T.astype(float), weights.astype(float), rcond=None)[
        0
    ]
    assert np.corrcoef(found, released)[0, 1] > 1 - 1e-9


def test_of_several_seeds_it_says_what_all_of_them_tell():
    """Whoever gets five runs of the same data has five times the sums: their own curve is below that."""
    several = Record()
    for seed in range(5):
        several.note(seed, **RAN | {"steps": 100, "private_run": str(seed)})
    private, _ = certificates(several, delta=1e-6)
    one = standard(SIGMA, Q, 100).epsilon(1e-6)
    assert private.details["epsilon"] == one.value
    (note,) = [n for n in private.notes if "of each of 5 runs alone" in n]
    together = float(note.split("at most epsilon ")[1].split(" ")[0])
    assert together == pytest.approx(5 * one.upper, rel=1e-5)
    assert together > standard(SIGMA, Q, 500).epsilon(5e-6).upper
    assert not any("alone" in n for n in certificates(record(), delta=1e-5)[0].notes)


def test_it_speaks_of_several_settings_at_once():
    for one, other in itertools.combinations(
        [{"steps": 10}, {"steps": 20}, {"sample_rate": 0.5}], 2
    ):
        both = record(**one)
        both.note(**other)
        private, _ = certificates(both, delta=1e-5)
        assert private.verdict is Verdict.NOT_PROMISED
        assert "noise, rate and steps" in private.reason
