"""How much the gradient of each step moves the final model, measured on the optimiser itself.

A linear optimiser sends a unit impulse at step t, all other gradients 0, to -a_t. The impulses of all
steps run side by side, one coordinate each, through the real torch optimiser and scheduler; no formula is
guessed (torch adds weight decay before the momentum buffer, takes the first buffer undamped, ...).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.guarantee import Guarantee
from surefoot.privacy._checks import check_rate, check_steps, per_step
from surefoot.privacy.facts import WEIGHT
from surefoot.record import Record

if TYPE_CHECKING:
    from surefoot.certificate import Certificate

Array = np.ndarray
DEPARTURE = "departure from additivity"
ADDITIVE = 1e-9
SETTINGS = ("momentum", "weight_decay", "dampening", "nesterov")
UNWEIGHTED = (
    "call last_iterate without weights for the plain heuristic, "
    "which then rests on one more assumption: that the optimiser is close to linear"
)


@dataclass(frozen=True, eq=False)
class LinearWeights:
    """What each step counts in the final model, relative to the noise of the same step.

    Attributes
    ----------
    values
        a_t, in any unit: only ratios matter.
    origin
        Where they come from.
    record
        The weights by step, how far the optimiser is from additive, and its settings as facts.
    """

    values: Float[Array, " steps"]
    origin: str = "given"
    record: Record = field(default_factory=Record, repr=False)

    def __post_init__(self) -> None:
        given = np.asarray(self.values)
        if given.dtype.kind not in "iuf":
            raise ValueError(f"weights must be real numbers, got {self.values!r}")
        values = given.astype(float)
        object.__setattr__(self, "values", per_step("weights", values, values.size))
        if WEIGHT not in self.record:
            self.record.extend(0, WEIGHT, self.values.tolist())

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.values, dtype=dtype)

    def certificates(self) -> list[Certificate]:
        """That the optimiser is additive in the gradients, as the weighted form needs."""
        from surefoot.certificate import certify, unmeasured

        if DEPARTURE not in self.record:
            todo = "make the weights with LinearWeights.from_optimizer"
            return [unmeasured(self.record, additivity_claim(), todo)]
        return [certify(self.record, additivity_claim())]

    def scaled(self, factors: Sequence[float] | Float[Array, " steps"]) -> LinearWeights:
        """Each weight times its factor, for instance a clip norm that changes along the run."""
        return LinearWeights(
            self.values * per_step("factors", factors, len(self)), f"{self.origin}, scaled"
        )

    @classmethod
    def from_optimizer(
        cls,
        torch_optimizer: torch.optim.Optimizer,
        steps: int,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        *,
        every: int = 1,
        average: float | None = None,
        lr_history: Sequence[float] | Float[Array, " steps"] | None = None,
        used: bool = False,
    ) -> LinearWeights:
        """The weights of an optimiser over `steps` steps; neither it nor the scheduler is touched.

        Costs steps^2 elementary operations.

        Parameters
        ----------
        torch_optimizer
            Before its first step, all parameter groups with equal settings. An Opacus
            DPOptimizer is unwrapped.
        steps
            T.
        scheduler
            Its scheduler.
        every
            Steps between two of the scheduler's.
        average
            Decay of an exponential moving average of the weights, if that is what is shipped.
        lr_history
            The learning rate of each step, instead of a scheduler.
        used
            Take the settings of an optimiser that has stepped already, as if it were fresh.

        Raises
        ------
        ValueError
            If the optimiser is not linear (Adam, Adagrad, RMSprop), has stepped already or has groups
            that differ, or if the scheduler follows a metric.
        """
        steps, every = check_steps(steps), check_steps(every, "every")
        if every == 0:
            raise ValueError("every must be at least 1, got 0")
        if average is not None:
            average = check_rate(average, "average")
        # Opacus wraps the optimiser that moves the parameters.
        optimizer = getattr(torch_optimizer, "original_optimizer", torch_optimizer)
        departure = _check_linear(optimizer)
        _check(optimizer, scheduler, used)
        if lr_history is not None:
            if scheduler is not None:
                raise ValueError("lr_history and scheduler exclude each other, got both")
            lr_history = per_step("lr_history", lr_history, steps)
        name = type(optimizer).__name__
        theta = torch.zeros(steps, dtype=torch.float64)
        twin = _twin(optimizer, theta)
        clock = None
        if scheduler is not None:
            # A copy that drives the twin: deepcopy takes the twin wherever it meets the original.
            memo = {id(torch_optimizer): twin, id(optimizer): twin}
            clock = copy.deepcopy(scheduler, memo)
        mean = torch.zeros_like(theta)
        for t in range(steps):
            theta.grad = torch.zeros_like(theta)
            theta.grad[t] = 1.0
            if lr_history is not None:
                twin.param_groups[0]["lr"] = float(lr_history[t])
            twin.step()
            if average is not None:
                mean.lerp_(theta.detach(), 1 - average)
            if clock is not None and (t + 1) % every == 0:
                with warnings.catch_warnings():
                    # The twin's step is not the one the scheduler counts.
                    warnings.simplefilter("ignore", UserWarning)
                    clock.step()
        moved = theta.detach() if average is None else mean
        values = moved.numpy() if optimizer.param_groups[0].get("maximize") else -moved.numpy()
        record = Record()
        record.append(0, 0, **{DEPARTURE: departure})
        rates = [float(optimizer.param_groups[0]["lr"])] if lr_history is None else lr_history
        for rate in (min(rates), max(rates)):
            record.note(0, lr=float(rate))
        if scheduler is not None:
            record.note(0, scheduler=type(scheduler).__name__)
        settings = _settings(optimizer.param_groups[0])
        known = {k: settings[k] for k in SETTINGS if isinstance(settings.get(k), (int, float))}
        record.note(0, optimizer=name, weighted_steps=steps, **known)
        return cls(values, f"{name}, {steps} steps", record)


def additivity_claim(quantity: str = DEPARTURE, *, name: str | None = None) -> Guarantee:
    """An optimiser answers the sum of two gradient sequences by the sum of its answers.

    Parameters
    ----------
    quantity
        The record column with the relative departure.
    name
        Of the guarantee.
    """
    return Guarantee(
        name=name or "the optimiser is additive in the gradients",
        statement="|answer(g + 2h) - answer(g) - 2 answer(h)| <= 1e-9 of the answers",
        source="derived here: what the weighted form of arXiv 2410.06186's setting needs",
        quantity=quantity,
        sense="upper",
        holds_in="every run",
        bound=lambda record: ADDITIVE,
    )


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in group.items() if k not in ("params", "param_names")}


def _twin(optimizer: torch.optim.Optimizer, theta: Tensor, **changes: Any) -> torch.optim.Optimizer:
    """The same optimiser, fresh, for other parameters."""
    settings = _settings(copy.deepcopy({**optimizer.param_groups[0], "params": []}))
    # These choose an implementation, not a recursion, and may demand a device.
    for switch in ("foreach", "fused", "capturable"):
        if switch in settings:
            settings[switch] = False
    kind: Any = type(optimizer)
    twin: torch.optim.Optimizer = kind([{"params": [theta], **settings, **changes}])
    return twin


def _check(optimizer: torch.optim.Optimizer, scheduler: Any, used: bool) -> None:
    if not used and any(optimizer.state.values()):
        raise ValueError(
            f"torch_optimizer must be fresh, got {type(optimizer).__name__} with state; "
            "make one with the same settings, or say used=True"
        )
    first, *others = (_settings(g) for g in optimizer.param_groups)
    for other in others:
        wrong = sorted(k for k in first.keys() | other.keys() if first.get(k) != other.get(k))
        if wrong:
            raise ValueError(
                "all parameter groups of torch_optimizer must have the same settings, got different "
                f"{', '.join(wrong)}; the weights would depend on where the example's gradient lies"
            )
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise ValueError(
            "scheduler must be a fixed schedule, got ReduceLROnPlateau, which follows the data; "
            "pass weights yourself once its rates are known"
        )


def _check_linear(optimizer: torch.optim.Optimizer) -> float:
    """Responses to g, h and g + 2h, run apart, must add up; how far they are from it."""
    g = torch.tensor([1.0, 0.3, -2.0, 0.8], dtype=torch.float64)
    h = torch.tensor([-0.4, 1.1, 0.2, -0.5], dtype=torch.float64)
    ends, farthest = [], 0.0
    for gradients in (g, h, g + 2 * h):
        theta = torch.zeros(1, dtype=torch.float64)
        # A schedule may start at rate 0, where everything is linear.
        twin = _twin(optimizer, theta, lr=0.1)
        for gradient in gradients:
            theta.grad = gradient.reshape(1)
            twin.step()
            farthest = max(farthest, abs(float(theta)))
        ends.append(theta.detach().clone())
    a, b, both = ends
    # Relative to the way and not to the ends, which may lie at 0.
    departure = float((a + 2 * b - both).abs()) / farthest
    if not departure <= ADDITIVE:
        raise ValueError(
            f"torch_optimizer must be linear in the gradients, got {type(optimizer).__name__}, "
            f"whose step is not; {UNWEIGHTED}"
        )
    return departure
