"""Equal tuning: every arm the same number of candidates and the same budget; the validation split chooses.

One rule for all comparisons. The first of equal scores wins, so that a choice does not depend on how
a candidate came to be tried last; ties, and choices at an end of the grid, where a better value may lie
outside, are noted in the record and said in the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from surefoot._numerics.checks import check_choice
from surefoot.record import Record

T = TypeVar("T")
Better = Literal["lower", "higher"]
EDGE, TIES = "tuning_edge", "tuning_ties"


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """What the validation split chose for an arm.

    Attributes
    ----------
    value : float
        The candidate.
    score : float
        Its score on the validation split; NaN or infinite where every candidate diverged.
    found
        What came of its attempt.
    scores : dict of float to float
        Of all candidates, in the order in which they were tried.
    """

    value: float
    score: float
    found: T
    scores: dict[float, float]

    @property
    def tied(self) -> tuple[float, ...]:
        """The other candidates of exactly the same score."""
        if not math.isfinite(self.score):
            return ()
        return tuple(v for v, s in self.scores.items() if s == self.score and v != self.value)

    @property
    def edge(self) -> Literal["", "lowest", "highest", "only", "diverged"]:
        """Whether the choice says where to look further: it lies at an end of the grid."""
        if not math.isfinite(self.score):
            return "diverged"
        if len(self.scores) == 1:
            return "only"
        ends = min(self.scores), max(self.scores)
        return "lowest" if self.value == ends[0] else "highest" if self.value == ends[1] else ""

    def note(self, record: Record, arm: str, seed: int | None = None) -> None:
        """Write into the record what a table has to say of the choice."""
        record.note(seed, arm, **{EDGE: self.edge, TIES: len(self.tied)})


class EqualTuning:
    """The tuning of one comparison, for one seed.

    Parameters
    ----------
    better
        Whether a lower score (a loss) or a higher one (an accuracy) is better.
    """

    def __init__(self, better: Better) -> None:
        self._better = check_choice("better", better, ("lower", "higher"))
        self._grids: dict[str, int] = {}

    def choose(
        self, arm: str, grid: Sequence[float], attempt: Callable[[float], tuple[float, T]]
    ) -> Chosen[T]:
        """Try every candidate and keep the best.

        Parameters
        ----------
        arm
            The name of the arm.
        grid
            Its candidates; as many as every other arm has.
        attempt
            Trains with a candidate on the budget of all arms, and returns its score on the validation
            split (NaN or infinite: it diverged) with whatever the caller wants back of the best one.

        Raises
        ------
        ValueError
            The grid is empty, names a candidate twice, or is of another size than the other arms'.
        """
        if not grid or len(set(grid)) < len(grid):
            raise ValueError(f"the grid of {arm!r} must hold different candidates, got {grid}")
        size = len(grid)
        for other, theirs in self._grids.items():
            if theirs != size:
                raise ValueError(
                    f"every arm must try equally many candidates: {other!r} had {theirs}, {arm!r} "
                    f"has {size}"
                )
        self._grids[arm] = size
        scores: dict[float, float] = {}
        kept: tuple[float, float, T] | None = None
        for value in grid:
            score, found = attempt(value)
            scores[value] = float(score)
            if kept is None or self._beats(float(score), kept[1]):
                kept = value, float(score), found
        assert kept is not None
        return Chosen(*kept, scores)

    def _beats(self, score: float, best: float) -> bool:
        if not math.isfinite(score):
            return False
        if not math.isfinite(best):
            return True
        return score < best if self._better == "lower" else score > best


def remarks(record: Record, arm: str) -> str:
    """What a table says of how an arm was tuned: edges of the grid and ties, over the seeds."""
    edges = [v for values in record.fact(EDGE, arm).values.values() for v in values]
    ties = [v for values in record.fact(TIES, arm).values.values() for v in values]
    if not edges:
        return "not recorded"
    if set(edges) == {"only"}:
        return "one candidate"
    said = [
        f"{edges.count(edge)} of {len(edges)} {words}"
        for edge, words in (
            ("lowest", "at the lowest of the grid"),
            ("highest", "at the highest of the grid"),
            ("diverged", "diverged at every candidate"),
        )
        if edge in edges
    ]
    tied = sum(bool(t) for t in ties)
    said += [f"{tied} of {len(edges)} tied"] if tied else []
    return ", ".join(said) or "inside the grid"
