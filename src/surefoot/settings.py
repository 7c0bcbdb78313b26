"""What every study can be told: apart from `surefoot.study`, which needs pandas, for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number

Size = Literal["quick", "standard", "paper"]


@checked
@dataclass(frozen=True)
class StudyConfig:
    """What every study can be told; a study adds fields of its own, each of them a flag.

    Parameters
    ----------
    size
        quick: seconds; standard: minutes; paper: the paper's own setting.
    part
        The parts to run, all of them by default.
    seed
        The first seed; a part with n seeds uses seed, seed + 1, ..., seed + n - 1.
    seeds
        How many seeds a random part runs; by default the part's own number for the size.

    Raises
    ------
    ValueError
        No such size, a seed that is no whole number, or fewer than one seed.
    """

    size: Size = "quick"
    """quick: seconds; standard: minutes; paper: the paper's own setting."""
    part: tuple[str, ...] = ()
    """The parts to run, all of them by default."""
    seed: int = 0
    """The first seed; a part with n seeds uses seed, seed + 1, ..., seed + n - 1."""
    seeds: int | None = None
    """How many seeds a random part runs; by default the part's own number for the size."""

    def __post_init__(self) -> None:
        check_choice("size", self.size, get_args(Size))
        check_number("seed", self.seed, whole=True)
        if self.seeds is not None:
            check_number("seeds", self.seeds, least=1, whole=True)
