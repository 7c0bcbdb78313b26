"""More loops than in training: mean against median, contraction of each prompt, a shifted covariance."""

import math

import numpy as np
import pytest
import torch

from surefoot import Verdict
from surefoot.in_context import (
    GaussianPrompts,
    LoopedTransformer,
    loop_longer,
    optimal_model,
    population_loss,
)
from surefoot.in_context.guarantee import CONTRACTS, DIVERGES, MEAN, mean_over_loops

SIZES = {"max_loops": 6, "samples": 500}


def by_name(run):
    return {c.name: c.verdict for c in run.certificates()}


@pytest.fixture(scope="module")
def run():
    prompts = GaussianPrompts(4, 40, seed=0)
    return loop_longer(optimal_model(4, 40, 2), prompts, 3, 4000, repeats=16)


def test_what_must_hold_is_kept(run):
    assert by_name(run) == {
        CONTRACTS: Verdict.KEPT,
        MEAN: Verdict.KEPT,
        DIVERGES: Verdict.KEPT,
    }


def test_the_curve_is_the_exact_one(run):
    b = float(optimal_model(4, 40, 2).A.detach()[0, 0])
    for loops in range(1, 4):
        exact = population_loss(4, 40, loops, b).value
        assert float(run.mean[loops]) == pytest.approx(exact, rel=0.1)
    assert run.mean.shape == run.median.shape == (4,)
    assert float(run.mean[0]) == pytest.approx(4, rel=0.05)


def test_the_mean_diverges_where_the_median_falls():
    run = loop_longer(optimal_model(6, 12, 2), GaussianPrompts(6, 12, seed=1), 20, 1000)
    assert run.mean[-1] > 3 * run.mean.min()
    assert run.median[-1] < run.median[5]
    assert 0.5 < run.converging < 1


def test_few_examples_leave_a_part_that_no_loop_reaches():
    run = loop_longer(optimal_model(5, 3, 2), GaussianPrompts(5, 3, seed=1), **SIZES)
    assert run.converging == 0  # rho = 1
    assert by_name(run)[CONTRACTS] is Verdict.KEPT


class Overshooting(LoopedTransformer):
    """The planted fault: every other loop is applied with the wrong sign."""

    def layers(self, loops=None):
        return [A if t % 2 == 0 else -A for t, A in enumerate(super().layers(loops))]


def planted(kind, scale=1.0):
    model = kind(4, 2, dtype=torch.float64)
    with torch.no_grad():
        model.A.copy_(scale * optimal_model(4, 40, 2).A)
    return model


def test_a_wrong_sign_is_seen():
    run = loop_longer(planted(Overshooting), GaussianPrompts(4, 40, seed=0), **SIZES)
    assert by_name(run)[CONTRACTS] is Verdict.BROKEN
    assert by_name(run)[MEAN] is Verdict.BROKEN


def test_a_shifted_covariance_is_judged_as_what_it_is():
    model = optimal_model(4, 40, 2)
    near, far = (
        loop_longer(
            model, GaussianPrompts(4, 40, sigma=c * torch.eye(4), seed=0), 2, 200, repeats=16
        )
        for c in (1.05, 8.0)
    )
    assert by_name(near)[DIVERGES] is Verdict.KEPT
    assert near.converging > 0.98
    assert by_name(far)[DIVERGES] is Verdict.VACUOUS
    assert far.converging < 0.01


def test_more_prompts_that_diverge_than_promised_break_it():
    run = loop_longer(optimal_model(4, 40, 2), GaussianPrompts(4, 40, seed=0), repeats=40, **SIZES)
    for seed in range(40):
        run.record.append(seed, 0, diverging=0.6 + 0.001 * seed)
    assert by_name(run)[DIVERGES] is Verdict.BROKEN


@pytest.mark.parametrize(
    ("change", "void"),
    [
        ("u", {CONTRACTS, MEAN}), ("noise", {CONTRACTS, MEAN}),
        ("asymmetric", {CONTRACTS, MEAN, DIVERGES}), ("indefinite", {CONTRACTS, MEAN, DIVERGES}),
    ],
)  # fmt: skip
def test_what_the_run_was_decides_what_is_promised(change, void):
    model = LoopedTransformer(4, 2, train_u=True, dtype=torch.float64)
    with torch.no_grad():
        model.A.copy_(0.6 * torch.eye(4))
        if change == "u":
            model.u.fill_(0.1)
        if change == "asymmetric":
            model.A[0, 1] = 0.1
        if change == "indefinite":
            model.A[0, 0] = -0.1
    noise = 0.3 if change == "noise" else 0.0
    run = loop_longer(model, GaussianPrompts(4, 40, noise=noise, seed=0), 3, 100)
    verdicts = by_name(run)
    assert {k for k, v in verdicts.items() if v is Verdict.NOT_PROMISED} == void
    assert math.isnan(run.converging) == (change == "indefinite")


def test_single_precision_rounds_like_it():
    model = optimal_model(4, 40, 2).float()
    run = loop_longer(model, GaussianPrompts(4, 40, seed=0), 12, 200)
    assert by_name(run)[CONTRACTS] is Verdict.KEPT


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": LoopedTransformer(3, 2, tied=False)}, "^model must be"),
        ({"prompts": GaussianPrompts(2, 8)}, "^prompts must be"), ({"max_loops": 0}, "^max_loops must be"),
        ({"prompts": GaussianPrompts(3, 0)}, "^prompts must be"), ({"samples": 1}, "^samples must be"),
        ({"repeats": 0}, "^repeats must be"), ({"seed": -1}, "^seed must be"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(change, says, unchecked):
    good = {"model": LoopedTransformer(3, 2), "prompts": GaussianPrompts(3, 8, seed=0)}
    with pytest.raises(ValueError, match=says):
        loop_longer(**{**good, **change})


def test_the_mean_is_not_judged_where_rare_prompts_carry_it():
    """At 14 loops the exact mean is 18,000, that of samples some hundreds: claims between would pass."""
    model = optimal_model(10, 20, 2)
    run = loop_longer(model, GaussianPrompts(10, 20, seed=0), 14, 100, repeats=4)
    claim = next(c for c in run.certificates() if c.name == MEAN)
    bound = mean_over_loops().bound(run.record)
    assert np.isfinite(bound[:, :6]).all()
    assert np.isinf(bound[:, 6:]).all()
    assert claim.verdict in (Verdict.KEPT, Verdict.UNDECIDED)
