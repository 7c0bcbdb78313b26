"""Verdicts that overflow, a training cut short or a second run under one seed must not make."""

import pytest
import torch

from surefoot import Record, Verdict, certify
from surefoot.in_context import (
    GaussianPrompts,
    LoopedTransformer,
    gradient_flow,
    loop_longer,
    optimal_model,
    train_looped,
)
from surefoot.in_context.guarantee import OPTIMUM, prompts_contract


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_prompts_that_overflow_do_not_break_the_contraction(dtype):
    model = optimal_model(2, 6, 2).to(dtype)
    wide = GaussianPrompts(2, 6, 1e5 * torch.eye(2, dtype=torch.float64), seed=0)
    run = loop_longer(model, wide, 65, 20, repeats=2)
    assert not run.mean.isfinite().all()
    found = certify(run.record, prompts_contract())
    assert found.verdict in (Verdict.KEPT, Verdict.UNDECIDED)
    assert found.tightness <= 1 + 1e-3


def test_a_training_that_stops_early_is_told_from_a_theorem_that_fails():
    model = LoopedTransformer(2, 1, dtype=torch.float64)
    run = train_looped(model, GaussianPrompts(2, 8, seed=0), 2, samples=2000)
    found = {c.name: c for c in run.certificates()}[OPTIMUM]
    assert found.verdict == Verdict.BROKEN
    assert any("this training has not reached it. More steps" in note for note in found.notes)


def train(record, seed):
    model = LoopedTransformer(2, 1, dtype=torch.float64)
    train_looped(model, GaussianPrompts(2, 8, seed=0), 2, samples=2000, record=record, seed=seed)


def flow(record, seed):
    gradient_flow(2, 8, 1, 3, record=record, seed=seed)


def loop(record, seed):
    prompts = GaussianPrompts(2, 8, seed=0)
    loop_longer(optimal_model(2, 8, 1), prompts, 2, 20, repeats=2, record=record, seed=seed)


@pytest.mark.parametrize("run", [train, flow, loop])
def test_a_second_run_under_one_seed_is_refused(run):
    record = Record()
    run(record, 0)
    before = len(record)
    with pytest.raises(
        ValueError, match="^record has a run of seed . already; give each run a seed"
    ):
        run(record, 0 if run is not loop else 1)
    assert len(record) == before
    run(record, 2)
