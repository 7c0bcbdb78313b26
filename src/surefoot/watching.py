"""Record a training loop that is not ours: the loss at every step, probes now and then."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.loss_scale import held_scale, is_skipped
from surefoot._sealed.writing import writing
from surefoot._showing import showing
from surefoot._watching.measures import MEASURES, Measures
from surefoot._watching.probes import PROBES, gradient_norm, learning_rate, note_settings
from surefoot._watching.probes import Probe as Probe
from surefoot._watching.schedule import Schedule
from surefoot._watching.theorems import Offer as Offer
from surefoot._watching.theorems import derived, offers
from surefoot._watching.wrapped import innermost
from surefoot.certificate import Certificate, certify
from surefoot.errors import ArgumentError, NonFiniteError, SurefootError, UnknownNameError
from surefoot.guarantee import Guarantee
from surefoot.record import Record


def _read(found: list[float | torch.Tensor]) -> list[float]:
    """The values; those on an accelerator all at once, so that it is waited for once."""
    tensors = [v for v in found if isinstance(v, torch.Tensor)]
    if len(tensors) == len(found) and tensors and tensors[0].is_cuda:
        return list(torch.stack([t.reshape(()) for t in tensors]).double().tolist())
    return [float(v) for v in found]


def _averaged(steps: list[int], values: list[float]) -> tuple[list[int], list[float]]:
    sums: dict[int, tuple[float, int]] = {}
    for step, value in zip(steps, values, strict=True):
        total, count = sums.get(step, (0.0, 0))
        sums[step] = (total + value, count + 1)
    return list(sums), [total / count for total, count in sums.values()]


LATE = (
    "{name} was logged after optimizer.step() and before the next forward: it is recorded at step {step}, "
    "the one just taken. Log between backward() and step(), or say which step: log(step=..., {name}=...)"
)


class _Forwards:
    """Counts forwards that a step may follow; a copy of the model has a counter of its own."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *_: Any) -> None:
        # Validation is no part of a step.
        if torch.is_grad_enabled():
            self.count += 1


@showing
@checked
class Watch:
    """Records a loop; made by `watch`.

    Use it as a context manager, or call `close` at the end: the last values are checked there. `record` holds
    what was recorded, `step` counts the optimizer's steps, and `seed` is what all is filed under.

    Parameters
    ----------
    model, optimizer
        What is being trained; a hook before each of the optimizer's steps counts them.
    probes
        By name, callables `probe(model, optimizer) -> float or {name: float}`.
    every
        Steps between two calls of the probes; logged values are read and checked as often.
    seed
        The seed under which the values are filed.
    record
        Where they go.
    checkpoint
        A file for the model and optimizer as of the last step found finite; None: none is kept.
    measures
        Those of `surefoot._watching.measures`; None: none are taken.
    overhead
        Seconds that they may take, over those of the training without them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        probes: Mapping[str, Probe],
        every: int,
        seed: int,
        record: Record,
        checkpoint: Path | None,
        measures: Measures | None = None,
        overhead: float = 0.05,
    ) -> None:
        check_number("every", every, least=1, whole=True)
        check_number("overhead", overhead, least=0, finite=False)
        self.record, self.seed = record, seed
        self.step = 0
        self._model, self._optimizer = model, innermost(optimizer)
        self._around = () if self._optimizer is optimizer else (type(optimizer).__name__,)
        self._probes, self._every = probes, every
        self._checkpoint = checkpoint
        self._good: str | None = None
        self._pending: dict[str, tuple[list[int], list[float | torch.Tensor]]] = {}
        self._inside = self._by_closure = self._told = False
        self._last: dict[str, int] = {}
        self._forwards = _Forwards()
        if measures is not None and hasattr(optimizer, "noise_multiplier"):
            raise ArgumentError(
                "probes",
                f"{', '.join(measures.names)} cannot be measured inside Opacus: its hooks would take the "
                "measure's gradients for those of the batch; leave them out",
            )
        self._measures = measures
        self._schedule = Schedule(overhead, time.perf_counter)
        if measures is not None and measures.f_star is not None:
            record.note(seed, f_star=measures.f_star)
        self._began = time.perf_counter()
        # Forwards and the first gradient as the last step left them.
        self._left: tuple[int, torch.Tensor | None, int] = (-1, None, 0)
        self._hooks = [
            self._optimizer.register_step_pre_hook(self._before_step),
            self._optimizer.register_step_post_hook(self._after_step),
            model.register_forward_pre_hook(self._forwards),
        ]

    def log(self, step: int | None = None, **values: float | torch.Tensor) -> None:
        """Note quantities of the current step; call it between `backward` and `step`.

        Tensors are read later, so that logging never waits for an accelerator. Several values of
        one quantity at one step (gradient accumulation) are averaged.

        A value that comes right after a step is that step's, as where `step(closure)` returns the loss; where
        it could have been logged before, a warning says so once. Give `step` for a quantity of the new
        parameters.
        """
        pending = self._pending
        for name, value in values.items():
            at = self._step_of(name) if step is None else step
            self._last[name] = at
            if name not in pending:
                pending[name] = ([], [])
            steps, found = pending[name]
            steps.append(at)
            found.append(value.detach() if isinstance(value, torch.Tensor) else value)

    def _step_of(self, name: str) -> int:
        """Which step a value belongs to that is logged now."""
        taken = self.step - 1
        if self._inside:
            return taken
        if self._last.get(name, -1) >= taken or self._is_under_way():
            return self.step
        if not self._by_closure and not self._told:
            self._told = True
            warnings.warn(LATE.format(name=name, step=taken), stacklevel=3)
        return taken

    def _is_under_way(self) -> bool:
        """Whether a forward or a gradient has come since the last step: what is logged is the next one's."""
        count, before, version = self._left
        gradient = self._first_gradient()
        new = gradient is not None and (gradient is not before or gradient._version != version)
        return count != self._forwards.count or new

    def _first_gradient(self) -> torch.Tensor | None:
        each = (p.grad for group in self._optimizer.param_groups for p in group["params"])
        return next((g for g in each if g is not None), None)

    def _after_step(self, *_: Any) -> None:
        gradient = self._first_gradient()
        version = 0 if gradient is None else gradient._version
        self._left = (self._forwards.count, gradient, version)
        self._inside = False

    def _before_step(
        self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if is_skipped(optimizer):
            return None
        given = (*args[1:], *kwargs.values())
        closure = next((each for each in given if callable(each)), None)
        self._inside, self._by_closure = True, closure is not None
        due = self.step % self._every == 0
        self.step += 1
        if not due:
            return None
        if closure is None:
            self._look(optimizer, kwargs)
            return None

        seen = False

        def looked_at(*words: Any, **more: Any) -> Any:
            # Its gradients are there when it has run, and the parameters not yet moved.
            nonlocal seen
            found = closure(*words, **more)
            if not seen:
                seen = True
                self._look(optimizer, kwargs)
            return found

        changed = tuple(looked_at if each is closure else each for each in args)
        return changed, {k: looked_at if v is closure else v for k, v in kwargs.items()}

    def _look(self, optimizer: Any, kwargs: dict[str, Any]) -> None:
        """Ask the probes, with the gradients of the step that is being taken."""
        step = self.step - 1
        self._settle()
        note_settings(self.record, self.seed, self._optimizer, self._around)
        found: dict[str, float] = {}
        for name, probe in self._probes.items():
            value = probe(self._model, self._optimizer)
            values = dict(value) if isinstance(value, Mapping) else {name: float(value)}
            if probe is gradient_norm:
                values[name] /= held_scale(optimizer, kwargs)
            found |= values
        if self._measures is not None and self._schedule.due():
            # Statistics of the batches belong to the training, and a forward in its mode changes them.
            buffers = [(b, b.detach().clone()) for b in self._model.buffers()]
            with self._schedule.measuring():
                trained = [
                    p for g in self._optimizer.param_groups for p in g["params"] if p.requires_grad
                ]
                found |= self._measures(trained, held_scale(optimizer, kwargs))
            with torch.no_grad():
                for buffer, was in buffers:
                    buffer.copy_(was)
            # The theorems are of one rate for all parameters.
            if len({float(group["lr"]) for group in self._optimizer.param_groups}) == 1:
                found["lr"] = learning_rate(self._model, self._optimizer)
        for name, number in found.items():
            self._check(name, step, number)
        self.record.update(self.seed, step, found)
        self._save(step)

    def _check(self, name: str, step: int, value: float) -> None:
        if not isfinite(value):
            self.record.update(self.seed, step, {name: value})
            self.record.flush()
            raise NonFiniteError(name, step, value, self._good)

    def _settle(self, *, whole: bool = False) -> None:
        """Check all values, and write those of steps to which no more can come; `whole`: of every step."""
        pending, self._pending = self._pending, {}
        for name, (steps, found) in pending.items():
            values = _read(found)
            for step, value in zip(steps, values, strict=True):
                if not isfinite(value):
                    self._check(name, step, value)
            # A part of an accumulated batch may be logged after the step that it belongs to.
            late = [] if whole else [i for i, step in enumerate(steps) if step >= self.step - 1]
            if late:
                self._pending[name] = ([steps[i] for i in late], [values[i] for i in late])
                done = [i for i in range(len(steps)) if i not in set(late)]
                steps, values = [steps[i] for i in done], [values[i] for i in done]
            if len(set(steps)) < len(steps):
                steps, values = _averaged(steps, values)
            self.record.extend(self.seed, name, values, steps)

    def _save(self, step: int) -> None:
        if self._checkpoint is None:
            return
        state = {
            "step": step,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        with writing(self._checkpoint) as file:
            torch.save(state, file)
        self._good = f"{self._checkpoint} (step {step})"

    def certify(self, guarantee: Guarantee, confidence: float = 0.99) -> Certificate:
        """Compare what was recorded so far with a guarantee."""
        self._settle(whole=True)
        return certify(self.record, guarantee, confidence)

    @property
    def overhead(self) -> float:
        """Seconds that the measures took so far, over those of the training without them."""
        return self._schedule.overhead

    def offered(self) -> list[Offer]:
        """Every guarantee of gradient descent, offered where its assumptions were measured; else why not."""
        self._settle(whole=True)
        return offers(derived(self.record))

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """What was recorded so far against each guarantee that is offered."""
        from surefoot._watching.page import certificates

        self._settle(whole=True)
        return certificates(derived(self.record), {}, confidence)

    def write_page(self, folder: str | Path = "runs", confidence: float = 0.99) -> Path:
        """Write the training as a run below a folder of runs, with its page; return the page.

        `surefoot report` and the index of the folder have it among the studies.

        Parameters
        ----------
        folder
            The folder that holds all runs.
        confidence
            Of the certificates.

        Raises
        ------
        SurefootError
            Nothing was recorded.
        """
        from surefoot._watching.page import write_watched

        self._settle(whole=True)
        if not len(self.record):
            raise SurefootError("nothing was recorded yet: log a loss, or name probes")
        settings = {
            "model": type(self._model).__name__, "optimizer": type(self._optimizer).__name__,
            "steps": self.step, "every": self._every, "measures": self._schedule.taken,
            "measures skipped": self._schedule.skipped, "overhead": f"{self.overhead:.3g}",
        }  # fmt: skip
        seconds = time.perf_counter() - self._began
        return write_watched(
            Path(folder), derived(self.record), self.certificates(confidence), self.offered(), settings,
            confidence, seconds,
        )  # fmt: skip

    def close(self) -> None:
        """Check and flush the last values, and stop watching."""
        self._unhook()
        self._settle(whole=True)
        self.record.flush()

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        self._unhook()
        self.record.flush()


def probes_of(probes: Mapping[str, Probe] | tuple[str, ...]) -> Mapping[str, Probe]:
    """Probes by name, built-in ones where only names are given; measures of an objective are left out.

    Raises
    ------
    UnknownNameError
        No built-in probe has that name.
    """
    if isinstance(probes, Mapping):
        return probes
    for name in probes:
        if name not in PROBES and name not in MEASURES:
            raise UnknownNameError("probe", name, [*PROBES, *MEASURES])
    return {name: PROBES[name] for name in probes if name in PROBES}


def measures_of(
    probes: Mapping[str, Probe] | tuple[str, ...],
    objective: Callable[[], torch.Tensor] | None,
    f_star: float | None,
    anchor: torch.Tensor | None,
) -> Measures | None:
    """The measures of an objective among the names of probes; None: there are none.

    Raises
    ------
    ArgumentError
        There are, and no objective; or there are none, and what only they could use.
    """
    names = () if isinstance(probes, Mapping) else tuple(n for n in probes if n in MEASURES)
    if f_star is not None:
        check_number("f_star", f_star)
    if names:
        return Measures(names, objective, f_star, anchor)
    given = {"objective": objective, "f_star": f_star, "anchor": anchor}
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(
                name,
                f"has no use without one of the probes {', '.join(MEASURES)}; add it to probes",
            )
    return None


@checked
def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    probes: Mapping[str, Probe] | tuple[str, ...] = (),
    every: int = 50,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    checkpoint: str | Path | None = None,
    objective: Callable[[], torch.Tensor] | None = None,
    f_star: float | None = None,
    anchor: torch.Tensor | None = None,
    overhead: float = 0.05,
) -> Watch:
    """Record a user's own training loop: what it logs, and as facts what its optimizer is set to.

    ```
    with watch(model, optimizer, probes=("gradient_norm",), every=50) as w:
        for x, y in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            w.log(loss=loss)
            optimizer.step()
    w.certify(my_guarantee)
    ```

    Parameters
    ----------
    model, optimizer
        What is being trained; steps are counted by the optimizer's own hooks. One that Accelerate, Opacus or
        Lightning has wrapped is watched inside: what the wrapper leaves out is no step, and gradients are
        those that it hands on (clipped and noised ones of Opacus').
    probes
        Names of built-in probes ("gradient_norm", "parameter_norm", "lr") and of measures of the objective
        ("smoothness", "noise", "aiming", "stationarity"), or your own callables
        `probe(model, optimizer) -> float or {name: float}`, called before a step, when gradients
        are there.
    every
        Steps between two calls of the probes; logged losses are read and checked as often.
    seed
        The seed under which the values are filed.
    folder
        Where the record is flushed, so that it outlives a killed process; None: memory only.
    checkpoint
        A file that holds the model and optimizer as of the last step found finite.
    objective
        For the measures: the loss over all data (or a part of it that stands for them), with its graph, at
        whatever the parameters hold, as in evaluation.
    f_star
        Its infimum, which aiming needs; None: not known.
    anchor
        A minimiser, flat: aiming is then toward it, and gradient domination without it.
    overhead
        Seconds that the measures may take, over those of the training without them; kept by skipping.
        They are looked for every `every` steps, and always at the first: 0 is that one alone, infinity all.

    Raises
    ------
    NonFiniteError
        A logged or probed quantity is NaN or infinite: names the step and the last good checkpoint.
    UnknownNameError
        No built-in probe has that name.
    surefoot.errors.WriteError
        From the optimizer's step: the checkpoint could not be written; the one before is as it was.
    """
    return Watch(
        model, optimizer, probes_of(probes), every, seed, Record(folder),
        Path(checkpoint) if checkpoint is not None else None,
        measures_of(probes, objective, f_star, anchor), overhead,
    )  # fmt: skip
