"""The methods by name."""

from __future__ import annotations

import math
from collections.abc import Callable

from surefoot.barycenter._solver.descent import BarzilaiBorwein, Eggd, Rule
from surefoot.barycenter._solver.hybrid import Hybrid
from surefoot.barycenter._solver.newton import Newton
from surefoot.barycenter.baselines import MOMENTUM, Adaptive, Autograd
from surefoot.errors import UnknownNameError

METHODS: dict[str, Callable[[float, int], Rule]] = {
    "bb": lambda step, inner: BarzilaiBorwein(),
    "eggd": lambda step, inner: Eggd(step),
    "hybrid": Hybrid,
    "newton": lambda step, inner: Newton(),
    "eggd_adaptive": lambda step, inner: Adaptive(step),
    "autograd": lambda step, inner: Autograd(step),
    "autograd_momentum": lambda step, inner: Autograd(step, MOMENTUM),
    "autograd_cyclic": lambda step, inner: Autograd(step, cyclic=True),
    "autograd_momentum_cyclic": lambda step, inner: Autograd(step, MOMENTUM, cyclic=True),
}


def rule_of(method: str, step: float, inner_iter: int) -> Rule:
    """The rule behind a name."""
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"step must be positive and finite, got {step}")
    if inner_iter < 1:
        raise ValueError(f"inner_iter must be at least 1, got {inner_iter}")
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    return METHODS[method](step, inner_iter)
