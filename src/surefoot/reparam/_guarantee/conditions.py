"""Conditions of the theorems as a run's record says them; what it does not say is None."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float

from surefoot.guarantee import Assumption, assume_fact
from surefoot.record import Record
from surefoot.reparam._guarantee.columns import STEP_SIZE, column
from surefoot.reparam._guarantee.rules import judge

NAMES = {
    "server": ("linear server", "the new global state is linear in the clients' states"),
    "client": ("linear client", "steps linear in the gradients of every branch"),
    "clip": ("clipping", "none, or by the multi-branch norm"),
    "norm": ("norm after the sum", "no norm inside a branch"),
}


def state_of(found: Iterable[bool | None]) -> bool | None:
    """False if one is False, else None if one is None or there is none, else True."""
    states = list(found)
    if False in states:
        return False
    return True if states and None not in states else None


def rule(record: Record, kind: str, of: str = "") -> Assumption:
    """Whether the rule of that kind, as recorded, keeps the equivalence."""
    known = record.fact(kind, of)
    judged = [judge(kind, value) for value in known.all]
    holds = state_of([state for state, _ in judged] + [None for _ in known.missing])
    reasons = [reason for _, reason in judged if reason]
    name, requires = NAMES[kind]
    return Assumption(name, requires, None, holds, "; ".join([f"recorded: {known}", *reasons]))


def precision(record: Record, of: str = "") -> Assumption:
    """One floating-point type a run, since the bound is in its epsilons."""
    known = record.fact("dtype", of)
    holds: bool | None = all(len(v) == 1 for v in known.values.values())
    if holds and (known.missing or not known.values):
        holds = None
    return Assumption(
        "one precision", "one dtype of the kernels", None, holds, f"recorded: {known}"
    )


def epsilons(record: Record, quantity: str, of: str = "") -> Float[np.ndarray, "seeds 1"]:
    """The finest machine epsilon that each seed recorded, float64's where it recorded none."""
    known = record.fact("dtype", of)
    rows = []
    for seed in record.curves(quantity).seeds:
        names = known.values.get(int(seed), ())
        found = [torch.finfo(getattr(torch, str(n))).eps for n in names if _is_float(str(n))]
        rows.append([min(found, default=torch.finfo(torch.float64).eps)])
    return np.array(rows, dtype=float)


def both_losses(record: Record, of: str = "") -> Float[np.ndarray, "seeds steps"] | float:
    """What a difference of two losses rounds like: both of them."""
    losses = column("loss", of)
    return 2 * np.abs(record[losses]) if losses in record else 0.0


def _is_float(name: str) -> bool:
    kind = getattr(torch, name, None)
    return isinstance(kind, torch.dtype) and kind.is_floating_point


def plain_steps(record: Record, of: str = "") -> Assumption:
    """W+ = W - lr M g and nothing else: what the descent lemma speaks of."""
    found = [
        assume_fact(record, "client", "", "", lambda v: v == "sgd", of=of),
        assume_fact(record, "momentum", "", "", lambda v: v == 0, of=of),
        assume_fact(record, "weight_decay", "", "", lambda v: v == 0, of=of),
        assume_fact(record, "proximal_mu", "", "", lambda v: v == 0, of=of),
        assume_fact(record, "maximize", "", "", lambda v: v is False, of=of),
    ]
    # A class that nobody knows may do anything: it neither holds nor fails.
    unknown = any(judge("client", v)[0] is None for v in record.fact("client", of).all)
    states = [None if unknown and i == 0 else a.holds for i, a in enumerate(found)]
    how = "recorded: " + ", ".join(a.how.removeprefix("recorded: ") for a in found)
    return Assumption(
        "gradient steps",
        "SGD without momentum, decay and proximal term",
        None,
        state_of(states),
        how,
    )


def largest_step_size(record: Record, of: str = "") -> float | None:
    """The largest step size of all seeds and steps, or None where none was recorded."""
    name = column(STEP_SIZE, of)
    return float(np.nanmax(record.frame(name)[name])) if name in record else None


def largest_multiplier(record: Record, of: str = "") -> float | None:
    """max M over all seeds, or None where one did not record it."""
    known = record.fact("largest_multiplier", of)
    if known.missing or not known.all:
        return None
    return max((float(v) for v in known.all if isinstance(v, int | float)), default=None)


def curvatures(record: Record, of: str = "") -> tuple[float | None, bool | None, str]:
    """(lambda, whether it bounds the curvature on the whole way, how it was found), as recorded."""
    known = record.fact("curvature", of)
    numbers = [float(v) for v in known.all if isinstance(v, int | float)]
    exact = assume_fact(record, "curvature_exact", "", "", lambda v: v is True, of=of).holds
    how = ", ".join(str(v) for v in record.fact("curvature_how", of).all) or "not recorded"
    # An estimate that may be too small cannot be said to fail.
    return (max(numbers) if numbers and not known.missing else None), exact or None, how
