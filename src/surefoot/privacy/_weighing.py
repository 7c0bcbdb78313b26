"""Whether the last-iterate heuristic covers an optimiser, and what each step then counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from surefoot.privacy.result import FORWARD_ONLY

if TYPE_CHECKING:
    from surefoot.privacy.linear_weights import LinearWeights

Array = np.ndarray
APART = (
    "the learning rates of the parameter groups differ by constant factors: "
    "every step counts the same in each"
)
REFUSED = "no last-iterate value: {why}"


@dataclass(frozen=True)
class Weighing:
    """What an optimiser means for the heuristic.

    Attributes
    ----------
    weights
        What each step counts; None where all count the same, or where there is no value.
    refused
        Why there is no value; empty where there is one.
    notes
        What a reader has to know.
    void
        Whether nothing is hidden, so that no heuristic about hidden steps has a meaning.
    name
        Of the optimiser.
    """

    weights: LinearWeights | None = None
    refused: str = ""
    notes: tuple[str, ...] = ()
    void: bool = False
    name: str = ""


def weigh(
    optimizer: Any,
    steps: int,
    lr_history: Sequence[float] | Float[Array, " steps"] | None = None,
) -> Weighing:
    """The weights of an optimiser, or the reason why its final weights are not covered.

    Parameters
    ----------
    optimizer
        Any; its settings are taken as they are now.
    steps
        T.
    lr_history
        The learning rate of each step, where it changed.
    """
    from surefoot.privacy._impulses import is_forward_only, unwrapped
    from surefoot.privacy.linear_weights import LinearWeights

    plain = unwrapped(optimizer)
    name = type(plain).__name__
    if is_forward_only(plain):
        return Weighing(refused=FORWARD_ONLY.format(name=name), void=True, name=name)
    if not hasattr(plain, "param_groups"):
        raise ValueError(f"optimizer must be a torch optimizer, got {name}")
    try:
        weights = LinearWeights.from_optimizer(plain, steps, lr_history=lr_history, used=True)
    except ValueError as error:
        return Weighing(refused=REFUSED.format(why=error), name=name)
    notes = []
    moved = [g for g in plain.param_groups if g.get("initial_lr", g.get("lr")) != g.get("lr")]
    if moved and lr_history is None:
        notes.append(
            f"the learning rate has moved from {float(moved[0]['initial_lr']):g} to "
            f"{float(moved[0]['lr']):g}: the last one is taken for all steps; pass lr_history"
        )
    if len({float(g.get("lr", 1.0)) for g in plain.param_groups}) > 1:
        notes.append(APART)
    if even(weights.values):
        return Weighing(notes=tuple(notes), name=name)
    notes.append(f"steps count as {name} makes them count{settings_text(plain.param_groups[0])}")
    return Weighing(weights, notes=tuple(notes), name=name)


def even(values: Float[Array, " steps"]) -> bool:
    """Whether all steps count the same."""
    return bool(values.size == 0 or np.ptp(values) <= 1e-12 * np.abs(values).max())


def settings_text(group: Any) -> str:
    """The settings that make steps differ, in words."""
    names = ("momentum", "dampening", "nesterov", "weight_decay", "proximal_mu")
    shown = [f"{k} {float(group[k]):g}" for k in names if group.get(k)]
    return f" ({', '.join(shown)})" if shown else ""
