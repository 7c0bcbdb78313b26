"""From errors to a verdict, and how firmly the held-out prompts carry it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from surefoot._numerics.seeds import generator_for

Name = Literal["gd", "ols", "ridge", "untied", "zero", "not linear in the query", "not linear in y"]
THRESHOLD = 1e-3
"""Of both linearity errors, and of the held-out error."""
ROUNDINGS = 4.0
"""So many roundings of its own answers are no sign that a function is not linear."""
TIMES = 10.0
"""Errors within this factor of each other do not tell two candidates apart."""
ROUNDING = 1e-12
"""Errors below this are as good as none: the fits end between here and the rounding of their sums."""
RESAMPLES = 1000
LARGEST = 1e300


@dataclass(frozen=True)
class Sums:
    """What each held-out prompt adds to both sides of every ratio.

    Attributes
    ----------
    top
        Squared errors by name, (B,) each.
    bottom
        What they are relative to.
    loops
        The names of the fits of gradient descent, by number of steps.
    schedule
        How many steps "untied" has.
    linear
        Below which a function counts as linear.
    """

    top: Mapping[str, Float[Tensor, " B"]]
    bottom: Mapping[str, Float[Tensor, " B"]]
    loops: Mapping[int, str]
    schedule: int = 2
    linear: float = THRESHOLD

    def errors(self, weight: Float[Tensor, "R B"]) -> dict[str, Float64[np.ndarray, " R"]]:
        """The ratios, with prompt i counted weight[r, i] times; 0/0 is 0, and none is above `LARGEST`."""
        found = {}
        for name, top in self.top.items():
            above, below = weight @ top, weight @ self.bottom[name]
            ratio = torch.where(above == 0, 0.0, above / below)
            # Many steps of a fit that diverges elsewhere overflow.
            found[name] = ratio.nan_to_num(nan=LARGEST).clamp_max(LARGEST).numpy()
        return found


def linear_below(rounded: torch.dtype | None) -> float:
    """Below which error a function counts as linear whose answers are rounded to this dtype."""
    return (
        THRESHOLD if rounded is None else max(THRESHOLD, ROUNDINGS * torch.finfo(rounded).eps / 2)
    )


def choose_loops(errors: Mapping[int, float]) -> int:
    """The smallest number of steps whose error is within `TIMES` of the least: more steps fit as well."""
    least = max(min(errors.values()), ROUNDING)
    return min(k for k, e in errors.items() if max(e, ROUNDING) <= TIMES * least)


def best_competitor(competitors: Mapping[str, float]) -> str:
    """The one of the least error; least squares before ridge, which contains it, where both are alike."""
    best = min(competitors, key=lambda name: competitors[name])
    if best == "ridge" and max(competitors["ols"], ROUNDING) <= TIMES * max(
        competitors["ridge"], ROUNDING
    ):
        return "ols"
    return best


def alike(errors: Mapping[int, float], loops: int) -> list[int]:
    """The numbers of steps whose errors cannot be told from that of `loops` steps."""
    most = TIMES * max(errors[loops], ROUNDING)
    return [k for k, e in errors.items() if max(e, ROUNDING) <= most]


def decide(
    lin_q: float,
    lin_y: float,
    errors: Mapping[int, float],
    competitors: Mapping[str, float],
    schedule: int = 2,
    linear: float = THRESHOLD,
) -> tuple[Name, int]:
    """The verdict, and the number of steps that fits best.

    Gradient descent must be ten times better than least squares, ridge and nothing. Steps of different sizes
    contain equal ones, so that with A = b S^-1 they fit as well: they win where they are ten times better.
    One step is always one of equal sizes.

    Parameters
    ----------
    lin_q, lin_y
        Relative errors of linearity.
    errors
        Held-out errors of gradient descent by number of steps.
    competitors
        Those of "ols", "ridge", "untied" and "zero".
    schedule
        How many steps "untied" has.
    linear
        Below which a function counts as linear.
    """
    loops = choose_loops(errors)
    if not lin_q < linear:
        return "not linear in the query", loops
    if not lin_y < linear:
        return "not linear in y", loops
    best = best_competitor(competitors)
    if competitors["zero"] <= ROUNDING:
        return "zero", loops
    error = max(errors[loops], ROUNDING)
    others = max(min(e for name, e in competitors.items() if name != "untied"), ROUNDING)
    untied = max(competitors["untied"], ROUNDING)
    if error < THRESHOLD and error * TIMES <= others and error <= TIMES * untied:
        return "gd", loops
    if best == "untied" and schedule == 1 and 1 in alike(errors, loops) and errors[1] < THRESHOLD:
        return "gd", 1
    # `best` is one of the names that the keys above spell.
    return best, loops  # type: ignore[return-value]


@dataclass(frozen=True)
class Judged:
    """A verdict with the errors that it rests on.

    Attributes
    ----------
    verdict, loops
        As `decide` has them.
    errors
        All ratios by name; linearity errors are relative norms, the others squared ones.
    intervals
        Percentiles of the same over resampled prompts.
    agreement
        The share of resamples with this verdict, and for "gd" with this number of steps.
    """

    verdict: Name
    loops: int
    errors: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    agreement: float


def judge(sums: Sums, confidence: float, seed: int) -> Judged:
    """Decide on all held-out prompts, and again on each of `RESAMPLES` draws of them with replacement."""
    count = len(next(iter(sums.top.values())))
    whole = torch.ones(1, count, dtype=torch.float64)
    drawn = torch.randint(
        count, (RESAMPLES, count), generator=generator_for("in_context.probe", "bootstrap", seed)
    )
    weight = torch.zeros(RESAMPLES, count, dtype=torch.float64)
    weight.scatter_add_(1, drawn, torch.ones_like(weight))
    errors = _rooted(sums.errors(torch.cat([whole, weight])))
    verdicts = [_decided(sums, errors, r) for r in range(RESAMPLES + 1)]
    tail = 50 * (1 - confidence)
    return Judged(
        *verdicts[0],
        {name: float(e[0]) for name, e in errors.items()},
        {
            name: (float(low), float(high))
            for name, (low, high) in zip(
                errors, (np.percentile(e[1:], [tail, 100 - tail]) for e in errors.values()),
                strict=True,
            )
        },
        float(np.mean([_same(v, verdicts[0]) for v in verdicts[1:]])),
    )  # fmt: skip


def _decided(
    sums: Sums, errors: Mapping[str, Float64[np.ndarray, " R"]], r: int
) -> tuple[Name, int]:
    return decide(
        float(errors["lin_q"][r]), float(errors["lin_y"][r]),
        {k: float(errors[name][r]) for k, name in sums.loops.items()},
        {name: float(errors[name][r]) for name in ("ols", "ridge", "untied", "zero")},
        sums.schedule, sums.linear,
    )  # fmt: skip


def _same(one: tuple[Name, int], two: tuple[Name, int]) -> bool:
    return one == two if two[0] == "gd" else one[0] == two[0]


def _rooted(
    errors: dict[str, Float64[np.ndarray, " R"]], names: Iterable[str] = ("lin_q", "lin_y")
) -> dict[str, Float64[np.ndarray, " R"]]:
    return errors | {name: np.sqrt(errors[name]) for name in names}
