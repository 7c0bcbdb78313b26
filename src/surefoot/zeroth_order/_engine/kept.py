"""Factors of past periods, side by side as one pair: hooks then add one product, however many there are."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(eq=False)
class KeptFactors:
    """B and V of the periods that were set aside, as columns of one pair.

    Attributes
    ----------
    joined
        (B, V) of all of them, (m, R) and (n, R); None: nothing was kept.
    periods
        (period, rank) of those that are as they were, in order; they are the last columns.
    was_cut
        How many columns, the first ones, are what was left of earlier periods.
    """

    joined: tuple[Tensor, Tensor] | None = None
    periods: list[tuple[int, int]] = field(default_factory=list)
    was_cut: int = 0

    @property
    def rank(self) -> int:
        """Columns of the pair."""
        return 0 if self.joined is None else self.joined[0].shape[1]

    def __bool__(self) -> bool:
        return self.joined is not None

    def add(self, period: int, b: Tensor, v: Tensor) -> None:
        """One more period."""
        if self.joined is None:
            self.joined = (b.clone(), v.clone())
        else:
            self.joined = (torch.cat([self.joined[0], b], 1), torch.cat([self.joined[1], v], 1))
        self.periods.append((period, b.shape[1]))

    def each(self) -> list[tuple[Tensor, Tensor]]:
        """The pairs one by one, what is left of those that were cut first."""
        if self.joined is None:
            return []
        sizes = [self.was_cut] * (self.was_cut > 0) + [rank for _, rank in self.periods]
        b, v = self.joined
        ends = list(itertools.accumulate(sizes, initial=0))
        return [(b[:, i:j], v[:, i:j]) for i, j in itertools.pairwise(ends)]

    def left(self) -> tuple[Tensor, Tensor] | None:
        """What was cut, whose V no seed gives back."""
        return self.each()[0] if self.was_cut else None

    def whole(self) -> list[tuple[int, Tensor]]:
        """(period, B) of those that are as they were."""
        pairs = self.each()[self.was_cut > 0 :]
        return [(period, b) for (period, _), (b, _) in zip(self.periods, pairs, strict=True)]

    def start(self, b: Tensor, v: Tensor) -> None:
        """What is left of periods that were cut, before any other is added."""
        self.joined, self.was_cut = (b, v), b.shape[1]

    def cut(self, cap: int) -> float:
        """The best pair of that rank in its place; returns the relative error in the Frobenius norm."""
        assert self.joined is not None
        b, v = (x.double() for x in self.joined)
        (qb, rb), (qv, rv) = torch.linalg.qr(b), torch.linalg.qr(v)
        u, s, w = torch.linalg.svd(rb @ rv.T)
        root = s[:cap].sqrt()
        kind = self.joined[0].dtype
        whole = float(s.square().sum())
        self.start((qb @ u[:, :cap] * root).to(kind), (qv @ w[:cap].T * root).to(kind))
        self.periods = []
        return (float(s[cap:].square().sum()) / whole) ** 0.5 if whole else 0.0
