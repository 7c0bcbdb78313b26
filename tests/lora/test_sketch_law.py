"""Conditions on the law of the sketches, not on the draws: moments, suprema, and what they promise."""

import itertools
import math

import numpy as np
import pytest
import torch

from surefoot.certificate import certify
from surefoot.guarantee import Verdict
from surefoot.lora import RacConfig, shared_sketch
from surefoot.lora._block.sketch_constants import sketch_stretch, smallest_share
from surefoot.lora._theorem.settings import Settings
from surefoot.lora.experiments.problems import ridge
from surefoot.lora.experiments.runs import chain_on, descend
from surefoot.lora.guarantee import Constants, certificates, linear_rate, stationarity
from surefoot.record import Record


class Layer:
    """What the constants of a law need to know of a layer of d columns."""

    def __init__(self, d, r, m=50):
        self.d, self.r, self.m = d, r, m

    def sampled_dim(self, side):
        return self.d if side == "B" else self.m


def stretch(sketch, d, r, **config):
    return sketch_stretch(RacConfig(sketch=sketch, **config), [Layer(d, r)])


RAW = [("gaussian", 1.0), ("gaussian", None), ("kaiming_uniform", 1.0), ("rademacher", 1.0)]


@pytest.mark.parametrize(("sketch", "std"), RAW)
@pytest.mark.parametrize(("d", "r"), [(7, 1), (7, 3)])
def test_the_mean_stretch_is_that_of_the_moments(sketch, std, d, r):
    mean, most = stretch(sketch, d, r, sketch_std=std)
    draws = torch.stack(
        [shared_sketch(0, i, "x", (r, d), sketch, torch.float64, std) for i in range(600)]
    )
    S = draws.mT @ draws
    first, second = S.mean(0).trace() / d, (S @ S).diagonal(dim1=1, dim2=2).sum(1) / d
    error = 4 * float(second.std()) / math.sqrt(len(S)) / float(first)
    found = float(second.mean() / first)
    # Rademacher's redrawn law stretches a little less than its bound, the others exactly as much.
    assert found <= mean + error
    assert sketch == "rademacher" or found >= mean - error
    assert float(torch.linalg.eigvalsh(S).max()) <= most * (1 + 1e-9)
    assert math.isinf(most) is (sketch == "gaussian")


@pytest.mark.parametrize(("d", "r"), [(2, 2), (3, 2), (4, 3), (3, 3)])
def test_rademacher_by_enumeration(d, r):
    """All sign matrices of full rank, not a sample of them."""
    mean, most = stretch("rademacher", d, r)
    full = [
        a for signs in itertools.product((-1.0, 1.0), repeat=r * d)
        if np.linalg.matrix_rank(a := np.array(signs).reshape(r, d)) == r
    ]  # fmt: skip
    S = np.array([a.T @ a for a in full])
    square = (S @ S).mean(0)
    assert square == pytest.approx(np.eye(d) * square[0, 0], abs=1e-9)
    assert square[0, 0] <= mean * r * (1 + 1e-12)
    assert np.linalg.eigvalsh(S).max() <= most * (1 + 1e-9)


def test_what_projects_stretches_by_one_and_a_callable_is_unknown():
    assert stretch("orthonormal", 9, 2) == (1.0, 1.0)
    assert stretch("coordinate", 9, 2) == (1.0, 1.0)
    assert stretch("gaussian", 9, 2, precondition=True) == (1.0, 1.0)
    assert stretch(lambda shape, generator: torch.ones(shape), 9, 2) is None
    both = sketch_stretch(RacConfig(sketch="kaiming_uniform", train="alternate"), [Layer(9, 2, 90)])
    assert both == (max((9 + 1.8) / 27, (90 + 1.8) / 270), 2.0)
    assert smallest_share(RacConfig(train="bernoulli(0.5)"), [Layer(9, 2, 90)]) == 2 / 90
    assert smallest_share(RacConfig(), [Layer(9, 2, 90)]) == 2 / 9


def blocks(n, T, d, r, gamma, rng, spectrum):
    """Raw Gaussian sketches on w -> w.H.w/2, one step a block: the gaps of n chains."""
    w = np.ones((n, d))
    gaps = [(w * w * spectrum).sum(1) / 2]
    for _ in range(T):
        A = rng.standard_normal((n, r, d))
        w = w - gamma * np.einsum("nrd,nr->nd", A, np.einsum("nrd,nd->nr", A, w * spectrum))
        gaps.append((w * w * spectrum).sum(1) / 2)
    return np.array(gaps).T


def record_of(gaps, d, r, gamma, **facts):
    record = Record()
    noted = {
        "optimizer": "SGD", "momentum": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False,
        "max_grad_norm": 0.0, "method": "rac_lora", "dropout": 0.0, "dtype": "float64", "quantised": False,
        "gradients": "exact", "gamma": gamma, "sketch": "gaussian", "precondition": False, "steps": 1,
        # One draw stretches farther than the step allows: that is no objection to the expectation.
        "sketch_low": 0.1, "sketch_high": 3.0 * d, "sketch_mean": d + r + 1.0, "sketch_sup": math.inf,
        "lam": float(r), "lam_max": float(r), "how_lam": "exact: symmetric exchangeable entries",
    } | facts  # fmt: skip
    for seed, row in enumerate(gaps):
        record.extend(seed, "gap", row)
        record.note(seed, **{k: v for k, v in noted.items() if v is not None})
    return record


def test_gaussian_sketches_are_promised_their_rate_in_the_mean_and_no_more():
    d, r, T = 6, 2, 12
    spectrum = np.linspace(0.5, 1.0, d)
    gamma = 1 / (d + r + 1)
    rng = np.random.default_rng(0)
    gaps = blocks(4000, T, d, r, gamma, rng, spectrum)
    promised = (1 - gamma * 0.5 * r) ** np.arange(T + 1) * gaps[0, 0]
    assert (gaps.mean(0) <= promised).all()
    # Single blocks do rise: G1's condition is not met by every draw, and need not be.
    assert (np.diff(gaps, axis=1) > 0).any()
    constants = Constants(L=1.0, mu=0.5)
    found = certify(record_of(gaps[:200], d, r, gamma), linear_rate(constants))
    assert found.verdict is Verdict.KEPT
    assert all(a.holds for a in found.assumptions)
    # Four times the admissible step: by the exact second moment the mean grows.
    late = blocks(4000, T, d, r, 4 * gamma, rng, spectrum)
    assert late[:, -1].mean() > late[:, 0].mean()


@pytest.mark.parametrize(
    ("facts", "holds", "says"),
    [
        ({}, True, "in the mean"),
        ({"steps": 2}, False, "unbounded"),
        ({"gamma": 0.2}, False, "in the mean"),
        # As long as no single draw stretches too far one could believe that it is allowed.
        ({"gamma": 0.2, "sketch_high": 1.0}, False, "in the mean"),
        ({"sketch_mean": None, "sketch_sup": None, "sketch": "callable:mine"}, False, "learning rates"),
        (
            {"sketch_mean": None, "sketch_sup": None, "sketch": "callable:mine", "sketch_high": 1.0},
            None, "not known",
        ),
        ({"sketch": "kaiming_uniform", "sketch_mean": 0.5, "sketch_sup": 2.0, "steps": 4}, True, "at most"),
        (
            {"sketch": "kaiming_uniform", "sketch_mean": 0.5, "sketch_sup": 20.0, "sketch_high": 1.0,
             "steps": 4},
            False, "at most",
        ),
    ],
)  # fmt: skip
def test_the_condition_is_on_the_law(facts, holds, says):
    d, r = 6, 2
    facts = {"gamma": 1 / (d + r + 1)} | facts
    record = record_of([[1.0, 0.5]] * 5, d, r, **facts)
    for make in (linear_rate, stationarity):
        of_step = [
            a for a in make(Constants(L=1.0, mu=0.5)).assumptions(record)
            if a.name in ("step size", "bounded sketches")
        ]  # fmt: skip
        assert [a.holds for a in of_step] == [holds]
        assert says in of_step[0].how


def test_noise_meets_the_law_and_not_the_draws():
    raw = Settings(0.1, 0.1, 2.0, 2.0, 0.1, 50.0, 1, 9.0, math.inf)
    assert raw.noise_share(single=True) == 18.0
    bounded = Settings(0.1, 0.1, 2.0, 2.0, 0.1, 5.0, 4, 3.0, 6.0)
    # Several steps: the drift of an epoch is stretched twice.
    assert bounded.noise_share(single=False) == 2.0 * 36
    assert Settings(0.1, 0.1, 0.5, 0.5).noise_share(single=False) == 0.5


def test_a_variance_that_was_measured_on_the_way_is_no_bound_on_it():
    record = record_of([[1.0, 0.5]] * 5, 6, 2, 0.1, gradients="drawn")
    for seed in range(5):
        record.append(seed, 0, variance=1.0)
    for sigma2, holds in ((1.0, True), (None, None)):
        found = linear_rate(Constants(L=1.0, mu=0.5, sigma2=sigma2), "sgd").assumptions(record)
        assert [a.holds for a in found if a.name == "noise"] == [holds]


@pytest.mark.parametrize("sketch", ["gaussian", "rademacher"])
def test_a_step_far_too_long_for_a_raw_sketch_is_not_promised_and_no_error(sketch):
    """E[S] is r, so that a step of 1/L leaves no rate at all: a condition fails, the curve does not raise."""
    problem, record = ridge(), Record()
    for seed in range(5):
        chain = chain_on(problem, 2, RacConfig(steps_per_block=1, sketch=sketch, seed=seed))
        descend(problem, chain, 1 / problem.L, 3, seed=seed).into(record, seed, problem.f_star)
    made = certificates(record, Constants(problem.L, problem.mu), problem.f_star)
    found = {c.name: c for c in made if "free" not in c.name}
    assert {c.verdict for c in found.values()} == {Verdict.NOT_PROMISED}
    assert all("step size fails" in c.reason for c in found.values())
