"""The one interface of every privacy curve here: delta, epsilon, trade-off, profile."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_real
from surefoot._numerics.hockey_stick.mixture import ADD, REMOVE, Bounded
from surefoot.privacy._checks import check_delta, check_epsilon, check_rate
from surefoot.privacy.result import Curve, Kind, Value, words

Array = np.ndarray


@runtime_checkable
class Directed(Protocol):
    """Both hockey-stick divergences of a pair of distributions, as `mixture.Pair` gives them."""

    def delta(self, eps: float, direction: int) -> Bounded:
        """The divergence at eps."""

    def epsilon(self, delta: float, direction: int) -> Bounded:
        """The eps at which the divergence is delta."""

    def false_negative_rate(self, false_positive_rate: float) -> float:
        """The smallest second error of a test of "out" against "in" with this first error."""


@checked
class Mechanism:
    """A privacy curve, and whether it is proven.

    Attributes
    ----------
    pair
        Both hockey-stick divergences, by direction.
    kind
        "guarantee" or "heuristic".
    note
        What a reader of its values has to know.
    """

    def __init__(self, pair: Directed, kind: Kind, note: str = "") -> None:
        self.pair, self.kind, self.note = pair, kind, note

    def delta(self, eps: float) -> Value:
        """Smallest delta at eps >= 0, the larger of both directions.

        Raises
        ------
        ValueError
            If eps is negative or not finite.
        """
        eps = check_epsilon(eps)
        return self._value("delta", self.pair.delta(eps, REMOVE), self.pair.delta(eps, ADD))

    def epsilon(self, delta: float) -> Value:
        """Smallest eps >= 0 at delta, the larger of both directions.

        Raises
        ------
        ValueError
            If delta is not strictly between 0 and 1, or below 1e-300.
        """
        delta = check_delta(delta)
        return self._value(
            "epsilon", self.pair.epsilon(delta, REMOVE), self.pair.epsilon(delta, ADD)
        )

    def profile(self, eps: Float[Array, "*points"]) -> Curve:
        """delta at each of several eps >= 0."""
        check_real("eps", eps)
        at: Array = np.asarray(eps, dtype=float)
        values = [self.delta(e) for e in at.ravel()]
        rows = np.array([(v.value, v.lower, v.upper) for v in values]).reshape(-1, 3).T
        value, lower, upper = (row.reshape(at.shape) for row in rows)
        return Curve(at, value, lower, upper, self.kind, "delta", self.note)

    def tradeoff(self, fpr: float | Float[Array, "*points"]) -> Curve:
        """Smallest false negative rate of a membership test with false positive rate fpr.

        A positive says "the example was in"; the false positive rate is taken over trainings
        without it. The opposite roles give the same curve mirrored.
        """
        check_real("fpr", fpr)
        at: Array = np.asarray(fpr, dtype=float)
        rates = [self.pair.false_negative_rate(check_rate(f, "fpr")) for f in at.ravel()]
        fnr = np.array(rates).reshape(at.shape)
        return Curve(at, fnr, fnr, fnr, self.kind, "false negative rate", self.note)

    def __repr__(self) -> str:
        return f"{self._shown()} ({self.kind}){words(self.kind, self.note)}"

    def _shown(self) -> str:
        return type(self).__name__

    def _value(self, quantity: str, remove: Bounded, add: Bounded) -> Value:
        return Value(
            value=max(remove.value, add.value),
            lower=max(remove.lower, add.lower),
            upper=max(remove.upper, add.upper),
            kind=self.kind,
            remove=remove.value,
            add=add.value,
            quantity=quantity,
            note=self.note,
        )
