"""How much the gradient of each step moves the final model, measured on the optimiser itself.

A linear optimiser sends a unit impulse at step t, all other gradients 0, to -a_t. The impulses of all
steps run side by side, one coordinate each, through the real torch optimiser and scheduler; no formula is
guessed (torch adds weight decay before the momentum buffer, takes the first buffer undamped, ...).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.shown import shown
from surefoot._showing import showing
from surefoot.guarantee import Guarantee
from surefoot.privacy._checks import check_rate, check_steps, per_step
from surefoot.privacy._impulses import (
    ADDITIVE,
    answers,
    departure,
    is_forward_only,
    proportional,
    recipe_of,
    unwrapped,
)
from surefoot.privacy.facts import WEIGHT
from surefoot.privacy.result import FORWARD_ONLY, HONESTY
from surefoot.record import Record

if TYPE_CHECKING:
    from surefoot.certificate import Certificate

Array = np.ndarray
DEPARTURE = "departure from additivity"
SETTINGS = ("momentum", "weight_decay", "dampening", "nesterov")


@showing
@checked
@dataclass(frozen=True, eq=False, repr=False)
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
            raise ValueError(f"values must be real numbers, got {shown(self.values)}")
        values = given.astype(float)
        object.__setattr__(self, "values", per_step("values", values, values.size))
        if WEIGHT not in self.record:
            self.record.extend(0, WEIGHT, self.values.tolist())

    def __repr__(self) -> str:
        ends = f", from {self.values[0]:.4g} to {self.values[-1]:.4g}" if len(self) else ""
        return f"LinearWeights of {len(self)} steps{ends} ({self.origin})\n  {HONESTY}"

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
            Before its first step. Groups may differ where every step counts the same in each up to a factor
            (constant rates without decay); what Opacus and accelerate put around it is taken off.
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
            If the optimiser is not linear (Adam, Adagrad, RMSprop), takes no gradients, has stepped already
            or has groups in which steps count differently, or if the scheduler follows a metric.
        """
        steps, every = check_steps(steps), check_steps(every, "every")
        if every == 0:
            raise ValueError("every must be at least 1, got 0")
        if average is not None:
            average = check_rate(average, "average")
        optimizer = unwrapped(torch_optimizer)
        if is_forward_only(optimizer):
            raise ValueError(
                "torch_optimizer must take gradients: "
                + FORWARD_ONLY.format(name=type(optimizer).__name__)
            )
        recipes = [recipe_of(optimizer, i) for i in range(len(optimizer.param_groups))]
        distinct = [r for i, r in enumerate(recipes) if r not in recipes[:i]]
        departed = max(departure(recipe) for recipe in distinct)
        _check(optimizer, scheduler, used)
        if lr_history is not None:
            if scheduler is not None:
                raise ValueError("lr_history and scheduler exclude each other, got both")
            lr_history = per_step("lr_history", lr_history, steps)
        if len(distinct) > 1 and (lr_history is not None or scheduler is not None):
            raise ValueError(_unequal(optimizer))
        name = type(optimizer).__name__

        def rate(t: int) -> dict[str, float]:
            assert lr_history is not None
            return {"lr": float(lr_history[t])}

        def clocked(twin: torch.optim.Optimizer) -> Callable[[int], None]:
            # A copy that drives the twin: deepcopy takes the twin wherever it meets the original.
            memo: dict[int, Any] = {id(torch_optimizer): twin, id(optimizer): twin}
            clock: Any = copy.deepcopy(scheduler, memo)
            return lambda t: clock.step() if (t + 1) % every == 0 else None

        moved, *others = (
            answers(
                recipe,
                steps,
                settings=rate if lr_history is not None and recipe.takes("lr") else None,
                around=None if scheduler is None else clocked,
                average=average,
            )
            for recipe in distinct
        )
        if not all(proportional(moved, other) for other in others):
            raise ValueError(_unequal(optimizer))
        values = moved.numpy() if optimizer.param_groups[0].get("maximize") else -moved.numpy()
        record = Record()
        record.append(0, 0, **{DEPARTURE: departed})
        rates = (
            lr_history if lr_history is not None else [g.get("lr") for g in optimizer.param_groups]
        )
        known_rates = [float(r) for r in rates if r is not None]
        for end in (min(known_rates), max(known_rates)) if known_rates else ():
            record.note(0, lr=end)
        if scheduler is not None:
            record.note(0, scheduler=type(scheduler).__name__)
        settings = optimizer.param_groups[0]
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


def _check(optimizer: torch.optim.Optimizer, scheduler: Any, used: bool) -> None:
    if not used and any(optimizer.state.values()):
        raise ValueError(
            f"torch_optimizer must be fresh, got {type(optimizer).__name__} with state; "
            "make one with the same settings, or say used=True"
        )
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise ValueError(
            "scheduler must be a fixed schedule, got ReduceLROnPlateau, which follows the data; "
            "pass weights yourself once its rates are known"
        )


def _unequal(optimizer: torch.optim.Optimizer) -> str:
    """Why these groups have no weights in common."""
    first, *others = (recipe_of(optimizer, i).settings for i in range(len(optimizer.param_groups)))
    wrong = sorted({k for other in others for k in first if first[k] != other[k]})
    return (
        "all parameter groups of torch_optimizer must have the same settings, got different "
        f"{', '.join(wrong)}; the weights would depend on where the example's gradient lies"
    )
