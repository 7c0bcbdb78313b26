"""What an optimiser does with gradients, measured on a twin: is it linear, and what does each step count?

A twin is made from the optimiser's class and the arguments of its constructor that stand in a group, so
labels, counters and buffers of the original stay out. Multipliers of single coordinates stay out as well:
they scale a coordinate's answer to every step alike.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.sizes import norm_of

ADDITIVE = 1e-9
UNWEIGHTED = (
    "call last_iterate without weights for the plain heuristic, "
    "which then rests on one more assumption: that the optimiser is close to linear"
)
# These choose an implementation, not a recursion, and may demand a device.
SWITCHES = ("foreach", "fused", "capturable")
Plain = bool | int | float | str | None


@dataclass(frozen=True)
class Recipe:
    """A class of optimisers and what its constructor was given, without parameters.

    Attributes
    ----------
    kind
        The class.
    settings
        Arguments by name, as one group has them.
    inner
        Arguments that are optimisers themselves.
    """

    kind: type[torch.optim.Optimizer]
    settings: Mapping[str, Any]
    inner: Mapping[str, Recipe] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the class."""
        return self.kind.__name__

    def takes(self, name: str) -> bool:
        """Whether a setting of this name is its own."""
        return name in self.settings or any(r.takes(name) for r in self.inner.values())

    def names(self) -> frozenset[str]:
        """What its constructor takes, and those inside."""
        own = {a.name for a in _arguments(self.kind)}
        return frozenset(own.union(*(r.names() for r in self.inner.values())))

    def changed(self, **settings: Any) -> Recipe:
        """The same with other settings, those that it does not have left out."""
        own = {k: v for k, v in settings.items() if k in self.settings}
        inner = {k: r.changed(**settings) for k, r in self.inner.items()}
        return Recipe(self.kind, {**self.settings, **own}, inner)

    def with_settings(self, settings: Mapping[str, Any]) -> Recipe:
        """The same class with these settings, those of its constructor; an inner one gets them instead."""
        if self.inner:
            inner = {k: r.with_settings(settings) for k, r in self.inner.items()}
            return Recipe(self.kind, self.settings, inner)
        known = {a.name for a in _arguments(self.kind)}
        return Recipe(
            self.kind, {**self.settings, **{k: v for k, v in settings.items() if k in known}}
        )

    def twin(self, theta: Tensor) -> torch.optim.Optimizer:
        """A fresh optimiser of this kind for other parameters.

        Raises
        ------
        ValueError
            If the class cannot be built from its settings.
        """
        made: Any = self.kind
        try:
            if self.inner:
                return _made(made, {k: r.twin(theta) for k, r in self.inner.items()}, self.settings)
            return _made(made, {_first(made): [theta]}, self.settings)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(
                f"torch_optimizer must be one that can be built from its settings, got {self.name}: "
                f"{error}; pass weights yourself"
            ) from error


def _made(kind: Any, first: dict[str, Any], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = kind(**first, **settings)
    return made


def _arguments(kind: type) -> list[inspect.Parameter]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p for p in inspect.signature(kind).parameters.values() if p.kind in named]


def _first(kind: type) -> str:
    return _arguments(kind)[0].name


def unwrapped(optimizer: Any) -> Any:
    """What moves the parameters, inside what Opacus and accelerate put around it."""
    inner = getattr(optimizer, "original_optimizer", optimizer)
    if type(inner).__name__ == "AcceleratedOptimizer":
        inner = inner.optimizer
    return inner


def recipe_of(optimizer: torch.optim.Optimizer, group: int = 0) -> Recipe:
    """How to make this optimiser anew for other parameters, as one of its groups is set."""
    kind = type(optimizer)
    here = optimizer.param_groups[group]
    settings: dict[str, Any] = {}
    inner: dict[str, Recipe] = {}
    for argument in _arguments(kind):
        name = argument.name
        held = getattr(optimizer, name, None)
        if isinstance(held, torch.optim.Optimizer):
            inner[name] = recipe_of(held, group)
        elif name in here and name != "params":
            settings[name] = False if name in SWITCHES else here[name]
        elif isinstance(held, (bool, int, float, str)):
            # Kept on the optimiser and not in its groups.
            settings[name] = held
    if inner:
        settings = {k: v for k, v in settings.items() if k not in here}
    return Recipe(kind, settings, inner)


def is_forward_only(optimizer: Any) -> bool:
    """Whether it steps by differences of losses and takes no gradients."""
    return bool(getattr(optimizer, "forward_only", False))


def departure(recipe: Recipe) -> float:
    """Responses to g, h and g + 2h, run apart, must add up; how far they are from it.

    Raises
    ------
    ValueError
        If they do not, or if the optimiser does not step on gradients alone.
    """
    g = torch.tensor([1.0, 0.3, -2.0, 0.8], dtype=torch.float64)
    h = torch.tensor([-0.4, 1.1, 0.2, -0.5], dtype=torch.float64)
    ends, farthest = [], 0.0
    for gradients in (g, h, g + 2 * h):
        theta = torch.zeros(1, dtype=torch.float64)
        # A schedule may start at rate 0, where everything is linear.
        twin = recipe.changed(lr=0.1).twin(theta)
        for gradient in gradients:
            theta.grad = gradient.reshape(1)
            _step(twin, recipe)
            farthest = max(farthest, abs(float(theta)))
        ends.append(theta.detach().clone())
    a, b, both = ends
    # Relative to the way and not to the ends, which may lie at 0.
    found = float((a + 2 * b - both).abs()) / farthest if farthest else 0.0
    if not found <= ADDITIVE:
        raise ValueError(
            f"torch_optimizer must be linear in the gradients, got {recipe.name}, "
            f"whose step is not; {UNWEIGHTED}"
        )
    return found


def _step(twin: torch.optim.Optimizer, recipe: Recipe) -> None:
    try:
        twin.step()
    except TypeError as error:
        raise ValueError(
            f"torch_optimizer must step on gradients alone, got {recipe.name}: {error}"
        ) from error


def answers(
    recipe: Recipe,
    steps: int,
    *,
    settings: Callable[[int], Mapping[str, Any]] | None = None,
    around: Callable[[torch.optim.Optimizer], Callable[[int], None]] | None = None,
    average: float | None = None,
) -> Float[Tensor, " steps"]:
    """Where a unit gradient at each step, and 0 at all others, leaves its coordinate: -a_t.

    All impulses run side by side, one coordinate each. Costs steps^2 elementary operations.

    Parameters
    ----------
    recipe
        The optimiser.
    steps
        T.
    settings
        What its group is set to at step t, where that changes.
    around
        Takes the twin and returns what to call after each step, for instance a scheduler.
    average
        Decay of an exponential moving average, if that is what is looked at.
    """
    theta = torch.zeros(steps, dtype=torch.float64)
    twin = recipe.twin(theta)
    after = None if around is None else around(twin)
    mean = torch.zeros_like(theta)
    for t in range(steps):
        theta.grad = torch.zeros_like(theta)
        theta.grad[t] = 1.0
        if settings is not None:
            twin.param_groups[0].update(settings(t))
        _step(twin, recipe)
        if average is not None:
            mean.lerp_(theta.detach(), 1 - average)
        if after is not None:
            with warnings.catch_warnings():
                # The twin's step is not the one the scheduler counts.
                warnings.simplefilter("ignore", UserWarning)
                after(t)
    return theta.detach() if average is None else mean


def proportional(one: Float[Tensor, " steps"], two: Float[Tensor, " steps"]) -> bool:
    """Whether one is a multiple of the other: what each step counts is then the same."""
    # Steps are counted in float64.
    a, b = one.double(), two.double()
    a, b = a / max(norm_of([a]), 1e-300), b / max(norm_of([b]), 1e-300)
    return bool((a - b).abs().max() <= ADDITIVE or not bool(one.any()) or not bool(two.any()))
