"""The private training of the command itself under audit: one text alone, with a planted leak and without."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import surefoot
from surefoot import Verdict
from surefoot.finetune.config import PROMPT
from surefoot.finetune.doors import private_training
from surefoot.finetune.doors.opening import Opener, task_for
from surefoot.finetune.models import find_model
from surefoot.finetune.plan import Plan
from surefoot.finetune.private import Mechanism
from surefoot.finetune.texts import read_texts
from surefoot.privacy import audit
from surefoot.zeroth_order import Privacy

pytestmark = [
    pytest.mark.filterwarnings("ignore:mtime may not be reliable"),
    pytest.mark.usefixtures("unchecked"),
]
pytest.importorskip("opacus", reason="needs the privacy extra")
pytest.importorskip("dp_accounting", reason="needs the privacy extra")

SIGMA, CLIP, STEPS, DELTA = 5.0, 1e-3, 5, 1e-5
CLAIMED = (SIGMA, 1.0, STEPS)
METHODS = ["lozo", pytest.param("lora", marks=pytest.mark.acceptance)]
MECHANISM = Mechanism(0.0, DELTA, SIGMA, CLIP, 1.0, 100)


class OneText:
    """Trains as the command does, on one text or on none, and sees what is released of it.

    At rate 0 the weights stay, so that the text adds the same in every run.
    """

    def __init__(self, method, model, reviews, folder):
        source = find_model(str(model))
        parts = read_texts(reviews, "text", "label").split(0.2, 0.2, 0)
        self.task = task_for(source, parts, PROMPT, None)
        self.opened = Opener(source, self.task, 0, fitted=False).open(quantised=False)
        self.canary = self.task.examples["train"][:1]
        self.plan = Plan(method, STEPS, 1, 0, 2, quantised=False, every=0)
        self.folder, self.record = folder, None
        exact = (
            replace(MECHANISM, sigma=0.0) if method == "lora" else replace(MECHANISM, sigma=1e-9)
        )
        self.direction = None
        self.adds = self.released(exact, include=True)
        if method == "lora":
            flat = self.adds.mean(axis=0)
            self.direction = flat / np.linalg.norm(flat)
            self.adds = self.adds @ self.direction

    def released(self, mechanism, *, include):
        task = copy.copy(self.task)
        task.examples = {"train": self.canary if include else []}
        training = private_training.PrivateTraining(
            self.plan,
            mechanism,
            0.0,
            copy.deepcopy(self.opened),
            task,
            self.folder,
            say=lambda line: None,
        )
        inner, seen, b = training.steps.optimizer, [], mechanism.rate * mechanism.population
        if self.plan.method == "lora":
            applied = inner.original_optimizer.step

            def step(*given):
                grads = [p.grad.flatten().double() for p in training.steps.trained]
                seen.append(b * torch.cat(grads).numpy())
                return applied(*given)

            inner.original_optimizer.step = step
        else:
            stepped = inner.step

            def step(*given):
                loss = stepped(*given)
                seen.append(b * float(inner.last["c"]))
                return loss

            inner.step = step
        training.run()
        self.record = training.record
        found = np.array(seen)
        return found if self.direction is None else found @ self.direction

    def __call__(self, include, seed):
        return self.released(MECHANISM, include=include), self.adds


def found(method, encoder, reviews, folder):
    one = OneText(method, encoder, reviews, folder)
    # An everyday text adds all that is allowed.
    assert np.abs(one.adds) == pytest.approx(CLIP, rel=1e-3)
    result = audit.mechanism(one, 60, delta=DELTA, seed=0, claimed=CLAIMED)
    return result, surefoot.certificates(one.record, delta=DELTA, audit=result)[0]


@pytest.mark.parametrize("method", METHODS)
def test_what_the_command_releases_is_consistent_with_its_epsilon(
    encoder, reviews, tmp_path, method
):
    result, promise = found(method, encoder, reviews, tmp_path)
    assert result.finding == "consistent"
    assert result.ceiling > result.proven.upper
    assert promise.verdict is Verdict.KEPT


@pytest.mark.parametrize("method", METHODS)
def test_a_training_whose_noise_is_not_what_it_says_is_convicted(
    encoder, reviews, tmp_path, method, monkeypatch
):
    if method == "lora":
        from opacus import optimizers

        class Quiet(optimizers.DPOptimizer):
            def add_noise(self):
                noise, self.noise_multiplier = self.noise_multiplier, self.noise_multiplier / 20
                super().add_noise()
                self.noise_multiplier = noise

        monkeypatch.setattr(optimizers, "DPOptimizer", Quiet)
    else:
        noise = Privacy.noise
        monkeypatch.setattr(Privacy, "noise", lambda self, count: noise(self, count) / 20)
    result, promise = found(method, encoder, reviews, tmp_path)
    assert result.finding == "not DP as claimed"
    assert promise.verdict is Verdict.BROKEN
