"""The mechanism under audit, with the canary alone: a model of it in NumPy, and DP-LOZO itself."""

import numpy as np
import pytest
import torch
from torch import nn

import surefoot
from surefoot import Record, Verdict
from surefoot.privacy import audit, standard

SIGMA, Q, T, CLIP, DELTA = 2.0, 0.2, 40, 0.25, 1e-5
CLAIMED = (SIGMA, Q, T)


def model(noise="secret", scale=1.0, others=0, clip=CLIP, directions=1, fresh=0):
    """Sums of clipped numbers with Gaussian noise: what is released, and what the canary would add."""
    secret = np.random.default_rng([fresh, 99])

    def step(include, seed):
        public = np.random.default_rng(seed)
        c = public.standard_normal((T, directions)) * 3
        added = c * np.minimum(1, clip / np.linalg.norm(c, axis=1, keepdims=True))
        source = public if noise == "public" else secret
        drawn = secret.random(T) < Q
        released = (include & drawn)[:, None] * added
        released = released + scale * SIGMA * CLIP * source.standard_normal((T, directions))
        for _ in range(others):
            their = np.clip(public.standard_normal((T, directions)) * 3, -clip, clip)
            released = released + (secret.random(T) < Q)[:, None] * their
        return released, added

    return step


def found(step, seed=0, runs=300):
    return audit.mechanism(step, runs, delta=DELTA, seed=seed, claimed=CLAIMED)


def test_an_honest_mechanism_is_consistent_in_twenty_seeds():
    proven = standard(*CLAIMED).epsilon(DELTA).value
    for seed in range(20):
        result = found(model(fresh=seed), seed)
        assert result.finding == "consistent"
        assert result.verdict is not Verdict.BROKEN
        assert result.lower_bound < proven
        # Whatever is assumed of the shape, no bound passes what is proven.
        assert max(result.bounds.values()) < proven


@pytest.mark.parametrize(
    "fault", [{"scale": 0.1}, {"noise": "public"}, {"scale": 0.0}], ids=["tenth", "public", "none"]
)
@pytest.mark.parametrize("directions", [1, 4])
def test_noise_that_is_too_small_or_public_is_convicted_at_300_runs(fault, directions):
    result = found(model(**fault, directions=directions))
    assert result.finding == "not DP as claimed"
    assert result.exit_code == 3
    assert result.lower_bound > result.proven.upper
    assert result.verdict is Verdict.BROKEN


def test_among_others_the_same_fault_goes_unseen():
    """Why the canary must be alone: 99 others' coins are noise enough."""
    assert found(model(scale=0.1, others=99)).finding == "consistent"


def test_an_honest_seed_that_tells_nothing_is_not_taken_for_one_that_does():
    from surefoot.privacy.audit.canary_alone import _Attacker

    for noise, tells in (("secret", False), ("public", True)):
        attacker = _Attacker(model(noise), np.full(T, Q), T)
        attacker.learn(range(10))
        assert attacker.seed_tells is tells


def test_the_score_is_the_logarithm_of_the_likelihood_ratio():
    from scipy.stats import norm

    from surefoot.privacy.audit.canary_alone import _Attacker

    rng = np.random.default_rng(0)
    released, added = rng.standard_normal((2, T, 3))
    attacker = _Attacker(lambda include, seed: (released, added), np.full(T, Q), T)
    attacker.deviation = 0.7
    out, into = (norm.logpdf(released, loc, 0.7).sum(axis=1) for loc in (0.0, added))
    ratio = np.log((1 - Q) * np.exp(out) + Q * np.exp(into)) - out
    assert attacker.score(True, 0) == pytest.approx(ratio.sum(), rel=1e-10)


def test_releases_alone_are_of_a_canary_that_adds_the_same_each_time():
    secret = np.random.default_rng(3)

    def step(include, seed):
        drawn = include & (secret.random(T) < Q)
        return drawn + 0.2 * secret.standard_normal(T)

    assert found(step).finding == "not DP as claimed"


def test_it_keeps_and_breaks_the_promise_of_a_run_with_the_facts_of_what_ran():
    ran = Record()
    ran.note(
        mechanism="poisson-subsampled gaussian", noise_multiplier=SIGMA, sample_rate=Q, steps=T,
        clip_norm=CLIP, clipping="per example", non_finite="zero", sampling="poisson", adjacency="add/remove",
        divisor="constant", secret_noise=True, secret_sampling=True, population_public=True,
        released="noised scalars", private_run="a",
    )  # fmt: skip
    verdicts = [
        surefoot.certificates(ran, audit=found(model(**fault)))[0].verdict
        for fault in ({}, {"scale": 0.1})
    ]
    assert verdicts == [Verdict.KEPT, Verdict.BROKEN]
    # Whoever says that the noise came of a seed promises nothing, and needs no audit for that.
    step = model("public")
    step.record = Record()
    step.record.note(secret_noise=False)
    said = surefoot.certificates(ran, audit=found(step))[0]
    assert said.verdict is Verdict.NOT_PROMISED
    assert "secret noise" in said.reason


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda include, seed: np.zeros(T - 1), "40 steps"),
        (lambda include, seed: np.full(T, np.nan), "finite"),
        (lambda include, seed: (np.ones(T), np.ones(3)), "40 steps"),
    ],
)
def test_what_is_no_release_is_refused(step, words):
    with pytest.raises(ValueError, match=words):
        found(step)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"runs": 3}, "runs"),
        ({"method": "one_run"}, "method"),
        ({"claimed": None}, "claimed"),
        ({"delta": 0.0}, "delta"),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(given, words):
    def step(include, seed):
        raise AssertionError("it ran")

    request = {"runs": 20, "delta": DELTA, "seed": 0, "claimed": CLAIMED, **given}
    with pytest.raises(ValueError, match=words):
        audit.mechanism(step, request.pop("runs"), **request)


def softmax_on_digits(sigma, q, steps, noise="secret", scale=1.0):
    """DP-LOZO of a softmax regression; the canary is one everyday image with a wrong label."""
    from sklearn.datasets import load_digits

    from surefoot.zeroth_order import LOZO, Privacy

    x, y = load_digits(return_X_y=True)
    image, label = torch.tensor(x[:1] / 16, dtype=torch.float32), torch.tensor((y[:1] + 1) % 10)
    drawn = torch.Generator().manual_seed(5)
    eps = 1e-3

    def step(include, seed):
        model = nn.Linear(64, 10)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        source = torch.Generator().manual_seed(seed) if noise == "public" else drawn
        privacy = Privacy(sigma * scale, CLIP, q, 100, secret=source)
        optimizer = LOZO(model, 1e-2, privacy=privacy, scale="unit", seed=seed, eps=eps, nu=10)
        released, added = [], []
        for _ in range(steps):
            there = include and bool(torch.rand((), generator=drawn) < q)
            seen = []

            def losses(there=there, seen=seen):
                loss = nn.functional.cross_entropy(model(image), label, reduction="none")
                seen.append(float(loss))
                return loss if there else loss[:0]

            optimizer.step(losses)
            released.append(optimizer.last["c"] * privacy.divisor)
            # The attacker knows the weights and the directions, and so what its canary would add.
            added.append(np.clip((seen[0] - seen[-1]) / (2 * eps), -CLIP, CLIP))
        return np.array(released), np.array(added)

    return step


FAULTS = {"honest": {}, "tenth": {"scale": 0.1}, "public": {"noise": "public"}}


FEW = (5.0, 1.0, 5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("scale", "finding"), [(1.0, "consistent"), (0.05, "not DP as claimed")])
def test_dp_lozo_of_few_whole_batches(scale, finding):
    step = softmax_on_digits(*FEW, scale=scale)
    assert audit.mechanism(step, 60, delta=DELTA, seed=0, claimed=FEW).finding == finding


# Thousands of runs, as users make them: without a check of every shape in every step.
@pytest.mark.acceptance
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("fault", FAULTS)
def test_dp_lozo_at_300_runs(fault):
    result = found(softmax_on_digits(*CLAIMED, **FAULTS[fault]))
    assert result.finding == ("consistent" if fault == "honest" else "not DP as claimed")


@pytest.mark.acceptance
@pytest.mark.usefixtures("unchecked")
def test_honest_dp_lozo_is_consistent_in_twenty_seeds():
    """Of a mechanism that as many runs could convict: the ceiling is above what is proven."""
    for seed in range(20):
        step = softmax_on_digits(*FEW)
        result = audit.mechanism(step, 60, delta=DELTA, seed=seed, claimed=FEW)
        assert result.ceiling > result.proven.upper
        assert result.finding == "consistent"
