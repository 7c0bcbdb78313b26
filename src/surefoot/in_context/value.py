"""A number and how far it may be off."""

from __future__ import annotations

from dataclasses import dataclass

from surefoot._numerics.arguments import checked


@checked(nan=True)
@dataclass(frozen=True)
class Value:
    """A computed number; `float` of it is the number.

    Attributes
    ----------
    value
        The number.
    stderr
        Standard error of a Monte Carlo estimate; 0 where it is exact but for the last rounding.
    """

    value: float
    stderr: float = 0.0

    def __float__(self) -> float:
        return self.value
