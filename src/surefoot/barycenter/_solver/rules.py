"""The methods by name."""

from __future__ import annotations

from collections.abc import Callable

from surefoot._numerics.checks import check_number
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
FREE_OF_STEP = ("bb", "newton")
STEP, INNER_ITER = 1.0, 100
"""Defaults: what differs from them was meant."""


def rule_of(method: str, step: float, inner_iter: int) -> Rule:
    """The rule behind a name."""
    check_number("step", step, above=0)
    check_number("inner_iter", inner_iter, least=1, whole=True)
    if not isinstance(method, str):
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    if method in FREE_OF_STEP and step != STEP:
        with_step = ", ".join(m for m in METHODS if m not in FREE_OF_STEP)
        raise ValueError(
            f"step is for {with_step}; method={method!r} finds its own: leave step out, got {step}"
        )
    if method != "hybrid" and inner_iter != INNER_ITER:
        raise ValueError(
            f"inner_iter is for method='hybrid'; leave it out for {method!r}, got {inner_iter}"
        )
    return METHODS[method](step, inner_iter)
