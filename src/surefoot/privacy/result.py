"""What the privacy functions return: numbers that cannot lose the words that belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice
from surefoot._showing import showing

Array = np.ndarray
Kind = Literal["heuristic", "guarantee"]
HONESTY = "heuristic: assumes linear losses and hidden intermediate models; not a DP guarantee"
FORWARD_ONLY = (
    "{name} takes forward passes only: every step releases one number along a direction that the seed gives "
    "away, and the final weights give all of these numbers back, so no intermediate release is hidden and "
    "only the proven value says anything"
)

PUBLIC_DIRECTIONS = (
    "the directions of the steps are public: while there are at most as many releases as trained numbers the "
    "final weights give all of them back, so no intermediate release is hidden and only the proven value "
    "says anything"
)


def _refuse(what: str) -> TypeError:
    return TypeError(
        f"{what} is a heuristic, not a DP guarantee, and does not turn into a bare number; "
        "write .value where that is what you mean"
    )


def words(kind: Kind, note: str) -> str:
    """What must be said with a value of this kind, a line each."""
    lines = ([HONESTY] if kind == "heuristic" else []) + ([note] if note else [])
    return "".join(f"\n  {line}" for line in lines)


@showing
@checked(nan=True)
@dataclass(frozen=True, repr=False)
class Value:
    """One epsilon or delta with its bounds, and whether it is proven.

    Attributes
    ----------
    value
        The number.
    lower
        The exact value of the formula is at least this. How well the formula describes a training is
        another question, which `kind` and `note` speak of.
    upper
        The exact value of the formula is at most this.
    kind
        "guarantee" for a proven value, "heuristic" for one that a training may violate.
    remove
        The value in the direction that takes the example away; `value` is the larger of both. None where they
        are not told apart.
    add
        The value in the direction that adds it; None likewise.
    quantity
        "epsilon" or "delta".
    note
        What else a reader has to know.

    A heuristic Value does not convert to float: `float(x)` raises TypeError; write `x.value`.
    """

    value: float
    lower: float
    upper: float
    kind: Kind
    remove: float | None = None
    add: float | None = None
    quantity: str = "epsilon"
    note: str = ""

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("heuristic", "guarantee"))
        if not self.lower <= self.value <= self.upper:
            raise ValueError(
                f"lower <= value <= upper must hold, got {self.lower}, {self.value}, {self.upper}"
            )

    @property
    def direction(self) -> str | None:
        """The direction that decides, "remove" or "add"; None where they are not told apart."""
        if self.remove is None or self.add is None:
            return None
        return "remove" if self.remove >= self.add else "add"

    def __float__(self) -> float:
        if self.kind == "heuristic":
            raise _refuse(f"this {self.quantity}")
        return self.value

    def to_dict(self) -> dict[str, Any]:
        """The same in JSON's types, its kind first."""
        return {
            "kind": self.kind, self.quantity: self.value, "lower": self.lower, "upper": self.upper,
            "direction": self.direction, "note": self.note,
        }  # fmt: skip

    def __repr__(self) -> str:
        sides = ""
        if self.remove is not None and self.add is not None:
            sides = f", remove {self.remove:.6g}, add {self.add:.6g}"
        return (
            f"{self.quantity} {self.value:.6g} ({self.kind}; "
            f"in [{self.lower:.6g}, {self.upper:.6g}]{sides}){words(self.kind, self.note)}"
        )


@showing
@checked(nan=True)
@dataclass(frozen=True, repr=False, eq=False)
class Curve:
    """A privacy curve at several points: `value` against `at`, with bounds, and whether it is proven.

    Attributes
    ----------
    at
        Where: epsilon for delta(epsilon), the false positive rate for a trade-off.
    value
        The curve, of the shape of `at`.
    lower
        A bound from below on the exact curve of the formula.
    upper
        A bound from above.
    kind
        "guarantee" or "heuristic". A heuristic Curve does not convert to an array: write `.value`.
    quantity
        For instance "delta" or "false negative rate".
    note
        What else a reader has to know.
    """

    at: Float[Array, "*points"]
    value: Float[Array, "*points"]
    lower: Float[Array, "*points"]
    upper: Float[Array, "*points"]
    kind: Kind
    quantity: str
    note: str = ""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.kind == "heuristic":
            raise _refuse(f"this curve of {self.quantity}")
        return np.array(self.value, dtype=dtype)

    def __repr__(self) -> str:
        return f"{self.quantity} at {np.size(self.at)} points ({self.kind}){words(self.kind, self.note)}"
