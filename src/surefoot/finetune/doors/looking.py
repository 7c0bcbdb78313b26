"""Looks at the validation texts while a Trainer trains: keeps the best weights, stops in time."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from surefoot.errors import NonFiniteError, need
from surefoot.finetune.doors.tasks import Task
from surefoot.finetune.looks import Looks
from surefoot.finetune.processes import rank

with need("transformers", extra="llm", part="surefoot.finetune"):
    import transformers

Say = Callable[[str], None]


class Looking(transformers.TrainerCallback):
    """Measures the model every so many steps and at the end.

    Parameters
    ----------
    task, looks
        What is measured, and where it is kept.
    before
        The loss before training.
    every
        Steps between two looks.
    batch
        Texts in a forward.
    best
        The folder of `best-STEP`; None: nothing is saved.
    save
        Writes the model as it stands into a folder.
    say
        Told a line a look.
    """

    def __init__(
        self, task: Task, looks: Looks, before: float, every: int, batch: int, best: Path | None,
        save: Callable[[Path], None], say: Say,
    ) -> None:  # fmt: skip
        self.task, self.looks, self.every, self.batch = task, looks, every, batch
        self.before = before
        self.best, self.save, self.say = best, save, say
        self._losses: list[float] = []
        self._rate = math.nan
        self._began, self._first = time.monotonic(), 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From here time is counted."""
        self._began, self._first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """The loss of a step."""
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise NonFiniteError(
                "the training loss", state.global_step, float(loss), advice="try a lower --lr"
            )
        self._losses.append(float(loss))
        self._rate = float(logs.get("learning_rate", math.nan))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look, where it is time."""
        step = state.global_step
        if step % self.every and step < state.max_steps:
            return
        found = self.task.measure(kwargs["model"], "validation", self.batch)
        if not math.isfinite(found["loss"]):
            raise NonFiniteError(
                "the validation loss", step, found["loss"], advice="try a lower --lr"
            )
        is_best = self.looks.add(step, **found)
        if is_best and self.best is not None:
            self._keep(step)
        self.say(self._line(state, found, is_best))
        if self.looks.enough:
            control.should_training_stop = True

    def _keep(self, step: int) -> None:
        assert self.best is not None
        new = self.best / f".best-{step}.new"
        if rank() == 0:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
        self.save(new)
        if rank() > 0:
            return
        to = self.best / f"best-{step}"
        shutil.rmtree(to, ignore_errors=True)
        os.replace(new, to)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Of the best weights, those that a training that goes on from here could need."""
        best = self.looks.best
        if self.best is None or best is None or not state.is_world_process_zero:
            return
        for folder in self.best.glob("best-*"):
            if folder.name != f"best-{best['step']}":
                shutil.rmtree(folder, ignore_errors=True)

    def _line(self, state: Any, found: dict[str, float], is_best: bool) -> str:
        losses, self._losses = self._losses, []
        loss = f"loss {sum(losses) / len(losses):.4f}, " if losses else ""
        done = state.global_step - self._first
        left = (
            (time.monotonic() - self._began) / max(1, done) * (state.max_steps - state.global_step)
        )
        rate = f", rate {self._rate:.2g}" if math.isfinite(self._rate) else ""
        more = ", ".join(f"{k} {v:.4f}" for k, v in found.items() if k != "loss")
        return (
            f"step {state.global_step} of {state.max_steps}: {loss}validation {found['loss']:.4f}"
            f"{f' ({more})' if more else ''}{self._judged(found['loss'], is_best)}"
            f"{rate}, about {_spoken(left)} left at most"
        )

    def _judged(self, loss: float, is_best: bool) -> str:
        if not is_best:
            return ""
        return ", best so far" if loss < self.before else ", not below that before training"


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
