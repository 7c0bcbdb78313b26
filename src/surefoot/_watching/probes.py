"""What `surefoot.watch` can look at by itself, and what an optimizer is set to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from surefoot._numerics.sizes import norm_of
from surefoot.record import Record

Probe = Callable[[nn.Module, torch.optim.Optimizer], float | Mapping[str, float]]


def gradient_norm(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """|grad|, of all parameters of the model together."""
    return norm_of([p.grad for p in model.parameters() if p.grad is not None])


def parameter_norm(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """|x|, of all parameters of the model together."""
    return norm_of([p.detach() for p in model.parameters()])


def learning_rate(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """That of the first group."""
    return float(optimizer.param_groups[0]["lr"])


# Wrappers that hand the step on as it is.
UNCHANGED = ("AcceleratedOptimizer", "LightningOptimizer")
PROBES: dict[str, Probe] = {
    "gradient_norm": gradient_norm,
    "parameter_norm": parameter_norm,
    "lr": learning_rate,
}


def note_settings(
    record: Record, seed: int, optimizer: torch.optim.Optimizer, around: tuple[str, ...] = ()
) -> None:
    """Note what an optimizer is set to as facts; its rates are a matter of steps: the probe "lr".

    Parameters
    ----------
    record, seed
        Where.
    optimizer
        The one that steps.
    around
        Names of the classes around it.
    """
    name = type(optimizer).__name__
    changed = [each for each in around if each not in UNCHANGED]
    # Opacus clips and adds noise: what steps is then no plain optimizer, and no theorem may take it for one.
    record.note(seed, optimizer=f"{name} inside {', '.join(changed)}" if changed else name)
    for each in around:
        record.note(seed, wrapped=each)
    for group in optimizer.param_groups:
        plain = {
            name: value
            for name, value in group.items()
            if name != "lr" and name.isidentifier() and isinstance(value, (str, bool, int, float))
        }
        record.note(seed, **plain)
