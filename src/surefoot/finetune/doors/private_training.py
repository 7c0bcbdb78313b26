"""A private training: forwards that release one noised number a step, or Opacus' noised gradients."""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surefoot._numerics.secret import is_secret, secret_generator
from surefoot._sealed.writing import writing
from surefoot.errors import need
from surefoot.finetune.doors.quiet import quiet
from surefoot.finetune.doors.tasks import Task
from surefoot.finetune.doors.training import adapted, forward_only
from surefoot.finetune.plan import Plan
from surefoot.finetune.private import Mechanism
from surefoot.record import Record
from surefoot.zeroth_order import Privacy

STATE = "private.pt"
# A step's progress is told at most so often.
TELL = 10.0


class PrivateTraining:
    """One private training, from its first step or from where it was interrupted.

    Nothing of the training texts is looked at but through the mechanism: no loss, no rate tried, no best
    look. What a killed process had done since its last state was released to nobody, and is done again.

    Parameters
    ----------
    plan, mechanism, lr
        What is trained, through what, at which rate.
    model
        As it was opened; it is trained in place.
    task
        Its texts.
    folder
        For its state.
    log
        The log of steps that a forward-only method writes; None: none.
    say
        Told how far it is.
    """

    def __init__(
        self, plan: Plan, mechanism: Mechanism, lr: float, model: Any, task: Task, folder: Path, *,
        log: Path | None = None, say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.plan, self.mechanism, self.task, self.say = plan, mechanism, task, say
        self.file, self.t = folder / STATE, 0
        self.rows = task.examples["train"]
        privacy = Privacy(mechanism.sigma, mechanism.clip, mechanism.rate, mechanism.population)
        self.sampler = privacy.sampler(len(self.rows))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.steps: Any
        if plan.forward_only:
            self.model = model.to(device).eval()
            kind, options = forward_only(plan, log)
            self.steps = _Forwards(
                kind(self.model, lr, privacy=privacy, mode="factored", **options)
            )
        else:
            with quiet():
                self.model = adapted(model, task, plan).to(device)
            self.steps = _Gradients(self.model, lr, mechanism, privacy, plan.seed)
        if self.file.exists():
            self._go_on()

    def run(self) -> None:
        """Train to the end of the plan."""
        began = told = time.monotonic()
        first = self.t
        while self.t < self.plan.steps:
            chosen = self.sampler.draw()
            batch = self._batch([self.rows[i] for i in chosen]) if chosen else None
            self.steps.step(self.task, self.model, batch)
            self.t += 1
            if self.plan.every and self.t % self.plan.every == 0:
                self._keep()
            if time.monotonic() - told > TELL:
                told = time.monotonic()
                left = (told - began) / (self.t - first) * (self.plan.steps - self.t)
                self.say(f"step {self.t} of {self.plan.steps}, about {left:.0f} s left")
        self.steps.end()

    def _batch(self, rows: list[Any]) -> dict[str, Tensor]:
        device = next(self.model.parameters()).device
        return {k: v.to(device) for k, v in self.task.collate(rows).items()}

    def _keep(self) -> None:
        with writing(self.file) as file:
            torch.save({"t": self.t, **self.steps.state()}, file)

    def _go_on(self) -> None:
        kept = torch.load(self.file, weights_only=True)
        self.t = int(kept.pop("t"))
        self.steps.go_on(kept)
        self.say(f"going on after step {self.t}")

    @property
    def record(self) -> Record:
        """What the mechanism noted of itself: facts, rates, and what it released."""
        found: Record = self.steps.record
        return found

    def save(self, folder: Path) -> None:
        """Plain weights, or an adapter of the base."""
        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            self.steps.save(self.model, folder)
            self.task.tokenizer.save_pretrained(folder)


class _Forwards:
    """LOZO or MeZO with a private scalar."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def step(self, task: Task, model: nn.Module, batch: dict[str, Tensor] | None) -> None:
        self.optimizer.step(lambda given: task.losses(model, given), [] if batch is None else batch)

    def state(self) -> dict[str, Any]:
        found = {"optimizer": self.optimizer.state_dict()}
        if self.optimizer.settings.fold:
            found["model"] = self.optimizer.model.state_dict()
        return found

    def go_on(self, kept: dict[str, Any]) -> None:
        if "model" in kept:
            self.optimizer.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])

    def end(self) -> None:
        # Not `flush`, which refuses where weights stay quantised: there is then nothing to fold.
        with torch.no_grad():
            self.optimizer.engine.flush()

    @property
    def record(self) -> Record:
        found: Record = self.optimizer.record
        return found

    def save(self, model: Any, folder: Path) -> None:
        if self.optimizer.settings.fold:
            model.save_pretrained(folder)
            return
        from surefoot.zeroth_order.doors.adapter import export_adapter

        export_adapter(self.optimizer, folder)


class _Gradients:
    """AdamW on Opacus' sums of per-example gradients, clipped and noised."""

    def __init__(
        self, model: nn.Module, lr: float, mechanism: Mechanism, privacy: Privacy, seed: int
    ) -> None:
        with need("opacus", extra="privacy", part="surefoot finetune --private"):
            from opacus import GradSampleModule
            from opacus.optimizers import DPOptimizer
        self.privacy, self.record, self.seed, self.t = privacy, Record(), seed, 0
        # Dropout would draw from torch's global generator, whose seed is often set and known; it is left out.
        self.module = GradSampleModule(_without_dropout(model.train()), loss_reduction="sum")
        # Opacus hangs each example's gradient on its parameter.
        self.trained: list[Any] = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = DPOptimizer(
            torch.optim.AdamW(self.trained, lr=lr), noise_multiplier=mechanism.sigma,
            max_grad_norm=mechanism.clip, expected_batch_size=mechanism.rate * mechanism.population,
            loss_reduction="mean",
            # By default noise comes from torch's global generator, of which a seed uses 32 bits.
            generator=secret_generator(),
        )  # fmt: skip
        self.record.note(
            private_run=secrets.token_hex(8), optimizer="AdamW", lr=lr,
            mechanism="poisson-subsampled gaussian",
            noise_multiplier=float(self.optimizer.noise_multiplier), sample_rate=privacy.sample_rate,
            clip_norm=float(self.optimizer.max_grad_norm),
            clipping="per example", adjacency="add/remove", divisor="constant", non_finite="zero",
            secret_noise=is_secret(self.optimizer.generator),
            population=mechanism.population, population_public=True, releases="last",
            released="noised gradients, weights, settings",
        )  # fmt: skip

    def step(self, task: Task, model: nn.Module, batch: dict[str, Tensor] | None) -> None:
        self.optimizer.zero_grad()
        if batch is None:
            for p in self.trained:
                p.grad_sample = p.new_zeros((0, *p.shape))
        else:
            with warnings.catch_warnings():
                # Of the first adapter, whose input nothing trained has made: its own gradients are there.
                warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
                summed: Any = task.losses(self.module, batch).sum()
                summed.backward()
            _drop_not_finite(self.trained)
        self.optimizer.step()
        sizes = self.privacy.draws.sizes
        drawn = sizes.popleft() if sizes else None
        used = 0 if batch is None else len(batch["labels"])
        as_drawn = (
            "poisson" if drawn == used else "unknown (a step had other texts than were drawn)"
        )
        self.record.note(sampling=as_drawn, secret_sampling=self.privacy.draws.secret)
        self.record.append(self.seed, self.t, released_steps=self.t + 1)
        self.t += 1

    def state(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.original_optimizer.state_dict(), "steps": self.t,
            "trained": [p.detach() for p in self.trained],
        }  # fmt: skip

    def go_on(self, kept: dict[str, Any]) -> None:
        self.optimizer.original_optimizer.load_state_dict(kept["optimizer"])
        self.t = int(kept["steps"])
        with torch.no_grad():
            for p, value in zip(self.trained, kept["trained"], strict=True):
                p.copy_(value)

    def end(self) -> None:
        self.module.remove_hooks()

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)


def _without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return model


def _drop_not_finite(trained: list[Any]) -> None:
    """0 in place of the gradient of an example that is not finite somewhere: one could undo the sum."""
    each = [p.grad_sample.flatten(1).isfinite().all(dim=1) for p in trained]
    whole = torch.stack(each).all(dim=0)
    for p in trained:
        p.grad_sample[~whole] = 0
