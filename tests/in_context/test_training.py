"""Training reaches the exact optimum; what it records, and what is promised of it."""

import pytest
import torch

from surefoot import Record, Verdict, certify
from surefoot.errors import NonFiniteError
from surefoot.in_context import (
    GaussianPrompts,
    LoopedTransformer,
    optimal_step,
    train_looped,
)
from surefoot.in_context._sampling import left
from surefoot.in_context.guarantee import BIAS, DOMINATED, MINIMISER, OPTIMUM, TIME

S = torch.tensor([[2.0, 0.5, 0.0], [0.5, 0.3, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
FAST = {"every": 50, "samples": 4000}


def trained(d, n, loops, *, steps=600, sigma=None, prompts=1, options=None, **model_options):
    model = LoopedTransformer(d, loops, dtype=torch.float64, **model_options)
    law = GaussianPrompts(d, n, sigma=sigma, seed=prompts)
    return train_looped(model, law, steps, **(options or {}))


def by_name(run):
    return {c.name: c for c in run.certificates()}


@pytest.mark.acceptance
@pytest.mark.parametrize("std", [0.0, 0.1])
@pytest.mark.parametrize(("d", "n", "loops"), [(10, 20, 2), (5, 20, 3)])
def test_training_reaches_the_exact_optimum(d, n, loops, std, measured):
    run = trained(d, n, loops, init_std=std)
    ratio = float(run.record["loss_ratio"][0, -1])
    measured(f"loss over exact optimum, d {d}, n {n}, L {loops}, init {std}", "<= 1.01", ratio)
    assert ratio <= 1.01
    assert by_name(run)[OPTIMUM].verdict is Verdict.KEPT


@pytest.fixture(scope="module")
def run():
    return trained(3, 12, 2, steps=150, options=FAST, train_u=True)


def test_a_short_training_is_at_the_optimum(run):
    assert run.record["loss_ratio"][0, -1] <= 1.01
    # Against b*, never against 1.
    b = optimal_step(3, 12, 2)
    assert b < 0.75
    assert float(run.model.A.detach().trace()) / 3 == pytest.approx(b, rel=0.05)
    assert run.record["distance"][0, -1] < 0.1
    assert run.history.index.get_level_values("step").tolist() == [0, 50, 100, 150]


def test_its_certificates(run):
    found = by_name(run)
    assert {n: c.verdict for n, c in found.items()} == {
        MINIMISER: Verdict.VACUOUS,
        BIAS: Verdict.KEPT,
        DOMINATED: Verdict.KEPT,
        TIME: Verdict.NOT_PROMISED,  # Adam is no gradient flow
        OPTIMUM: Verdict.KEPT,
    }
    beside = found[MINIMISER].details
    assert beside["vacuous"]
    assert beside["exact_distance"] == pytest.approx(1 - optimal_step(3, 12, 2))
    assert any("exact |b* - 1|" in note for note in found[MINIMISER].notes)


def test_a_covariance_is_trained_away():
    run = trained(3, 12, 2, steps=400, sigma=S, options={**FAST, "lr": 0.05})
    found = run.model.A.detach() @ S
    assert run.record["loss_ratio"][0, -1] <= 1.01
    assert torch.allclose(found, optimal_step(3, 12, 2) * torch.eye(3).double(), atol=0.12)
    assert by_name(run)[DOMINATED].verdict is Verdict.NOT_PROMISED  # S is not the identity


def test_both_objectives_have_one_mean():
    model = LoopedTransformer(3, 2, train_u=True, dtype=torch.float64, init_std=0.3)
    with torch.no_grad():
        model.u.fill_(0.4)
    from surefoot.in_context._sampling import conditional_loss

    prompts = GaussianPrompts(3, 6, noise=0.5, seed=4)
    p = prompts.sample(40_000)
    with torch.no_grad():
        sampled = (model(p.X, p.y, p.xq) - p.target).square()
        integrated = conditional_loss(model.layers(), model.u, p.X @ p.X.mT / 6, 0.5, 6)
    gap = sampled - integrated
    assert integrated.std() < sampled.std() / 2
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / 200
    for objective in ("conditional", "sampled"):
        run = trained(3, 12, 2, steps=150, options={**FAST, "objective": objective})
        assert run.record["loss_ratio"][0, -1] < 1.1


def test_layers_of_their_own_beat_loops():
    run = trained(3, 12, 2, steps=400, tied=False, options=FAST)
    assert run.record["loss_ratio"][0, -1] < 1.05  # of the best polynomial
    assert by_name(run)[MINIMISER].verdict is Verdict.NOT_PROMISED


def test_equal_layers_would_stay_equal():
    model = LoopedTransformer(3, 2, tied=False, init_std=0.0)
    with pytest.raises(ValueError, match="start from layers that differ"):
        train_looped(model, GaussianPrompts(3, 8, seed=0), 1)


def test_an_unfinished_training_breaks_the_claim():
    run = trained(3, 12, 2, steps=3, options={"samples": 2000})
    assert by_name(run)[OPTIMUM].verdict is Verdict.BROKEN
    # And G1 speaks of minimisers only.
    assert by_name(run)[MINIMISER].verdict is Verdict.NOT_PROMISED


def test_noise_voids_what_is_exact_without():
    model = LoopedTransformer(3, 2, dtype=torch.float64)
    run = train_looped(model, GaussianPrompts(3, 12, noise=0.5, seed=0), 3, samples=2000)
    assert by_name(run)[OPTIMUM].verdict is Verdict.NOT_PROMISED


class TwiceTheBias(LoopedTransformer):
    """The planted fault: u counts twice in the prediction."""

    def forward(self, X, y, xq, *, loops=None):
        with torch.no_grad():
            u = self.u.clone()
            self.u.mul_(2)
        found = super().forward(X, y, xq, loops=loops).detach()
        with torch.no_grad():
            self.u.copy_(u)
        return found


def test_a_wrong_use_of_u_is_seen():
    for kind, verdict in ((LoopedTransformer, Verdict.KEPT), (TwiceTheBias, Verdict.BROKEN)):
        model = kind(3, 2, train_u=True, dtype=torch.float64, init_std=0.2)
        with torch.no_grad():
            model.u.fill_(1.0)
        run = train_looped(model, GaussianPrompts(3, 12, seed=0), 2, samples=10_000)
        assert by_name(run)[BIAS].verdict is verdict


def test_a_promise_that_is_not_vacuous_is_kept():
    """d = 1, n = 10^6, one loop: c = .7155, drawn by Bartlett's decomposition."""
    run = trained(1, 10**6, 1, steps=300, options={"samples": 2000, "every": 100})
    found = by_name(run)[MINIMISER]
    assert found.verdict is Verdict.KEPT
    assert found.details["c"] == pytest.approx(0.7155, abs=1e-4)
    away = Record()
    away.append(0, 1, minimiser_distance=0.8, loss_ratio=1.0)
    for name, known in run.record.facts.items():
        away.note(0, **{name: known.all[0]})
    from surefoot.in_context.guarantee import minimiser_near_inverse

    assert certify(away, minimiser_near_inverse()).verdict is Verdict.BROKEN


def test_single_precision_and_long_loops_train():
    model = LoopedTransformer(3, 6, dtype=torch.float32)
    run = train_looped(model, GaussianPrompts(3, 20, seed=0), 60, samples=2000)
    assert run.record.fact("clip").all == (10.0,)
    assert run.record.fact("model_dtype").all == ("float32",)
    assert run.record["loss"][0, -1] < 0.1 * run.record["loss"][0, 0]


def test_one_seed_is_one_run():
    a, b = (trained(3, 12, 2, steps=20, options={"samples": 2000}) for _ in range(2))
    assert torch.equal(a.model.A, b.model.A)
    assert (a.record["loss"] == b.record["loss"]).all()


def test_a_loss_that_explodes_says_where():
    with pytest.raises(NonFiniteError) as error:
        trained(3, 4, 2, steps=5, options={"lr": 1e120, "clip": None, "samples": 2000})
    assert error.value.quantity == "loss"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "^steps must be"), ({"lr": 0}, "^lr must be"), ({"final_lr": 1}, "^final_lr must be"),
        ({"objective": "mean"}, "^objective must be one of"), ({"batch": 0}, "^batch must be"),
        ({"clip": 0}, "^clip must be"), ({"clip": "never"}, "^clip must be a number or 'auto'"),
        ({"every": 0}, "^every must be"), ({"samples": 10}, "^samples must be"), ({"seed": -1}, "^seed must"),
        ({"prompts": GaussianPrompts(4, 8)}, "^prompts must have the model's d"),
        ({"prompts": 3}, "^prompts must be a GaussianPrompts"),
        ({"prompts": GaussianPrompts(3, 0)}, "^n and loops must be at least 1"),
        ({"model": torch.nn.Linear(3, 3)}, "^model must be a LoopedTransformer"),
        ({"model": LoopedTransformer(3, 0)}, "^n and loops must be at least 1"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(change, says, unchecked):
    good = {"model": LoopedTransformer(3, 2), "prompts": GaussianPrompts(3, 8, seed=0), "steps": 1}
    with pytest.raises(ValueError, match=says):
        train_looped(**{**good, **change})


def test_a_model_in_16_bits_is_not_trained():
    model = LoopedTransformer(3, 2, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="float32 or float64"):
        train_looped(model, GaussianPrompts(3, 5, seed=0), steps=1)


@pytest.mark.acceptance
def test_an_asymmetric_preconditioner_beats_the_best_scalar_one(measured):
    """For several loops b* S^-1 is the optimum of its kind, not of all A; on the same fresh prompts."""
    d, n, loops = 10, 20, 5
    model = LoopedTransformer(d, loops, dtype=torch.float64, init_std=0.1, seed=1)
    train_looped(model, GaussianPrompts(d, n, seed=1), steps=600, every=600, samples=2000, seed=1)
    scalar = optimal_step(d, n, loops) * torch.eye(d, dtype=torch.float64)
    prompts, gained = GaussianPrompts(d, n, seed=99), []
    for _ in range(10):
        moments = prompts.whitened_moments(20_000)
        with torch.no_grad():
            ours, best = (
                left([A] * loops, moments).square().sum((1, 2)) for A in (model.A, scalar)
            )
        gained.append(ours - best)
    gain = torch.cat(gained)
    error = float(gain.std()) / len(gain) ** 0.5
    measured("asymmetric A over b* S^-1", "below 0", f"{float(gain.mean()):.4f} +- {error:.4f}")
    assert float(gain.mean()) < -5 * error
