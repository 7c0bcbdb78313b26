"""How large a quantity may get in any run, by the theorem's own conditions: `Guarantee.value_range`.

With exact gradients no block of gamma <= 1/L lets f rise, whatever its sketch: the gap stays below its
start D0, and |grad f|^2 <= 2 L (f - f*) below 2 L D0. Over a reshuffled epoch of N parts the noise sums
to zero, so that a partial sum of i of them is at most i (N - i) sigma^2 in square in any order, and
f(W^{t+1}) <= f(W^t) + .4 gamma^3 L^2 N^3 sigma^2 (gamma <= 1/(2LN)). Clients without noise of their own
add 4/3 gamma^3 L^2 N^3 zeta^2 in place of it. Of independent draws only the variance is known: one of them
may lift f without limit, and there is no range. Derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from surefoot.lora._theorem.rates import Constants, measured
from surefoot.lora._theorem.settings import Settings, by_seed, column, settings_of
from surefoot.lora.bounds import RateLaw, largest_step
from surefoot.record import Record

Range = Callable[[Record], Float[np.ndarray, "seeds steps"]]


def gap_range(c: Constants, law: RateLaw, of: str) -> Range:
    """The largest f(W^t) - f* of any run at each block; inf where the law leaves it open."""

    def found(record: Record) -> Float[np.ndarray, "seeds steps"]:
        gaps = record.curves(column("gap", of))
        seeds = [int(s) for s in gaps.seeds]
        rise = np.array([_rise(c, law, record, of, s) for s in settings_of(record, of, seeds)])
        return np.asarray(gaps.values[:, :1] + _after(rise, gaps.steps))

    return found


def gradient_range(c: Constants, law: RateLaw, of: str) -> Range:
    """The same for the mean of |grad f|^2 over W^0 ... W^{T-1}, at T = 1, 2, ..."""

    def found(record: Record) -> Float[np.ndarray, "seeds steps"]:
        means, gaps = record.curves(column("mean_grad_norm2", of)), record.curves(column("gap", of))
        start = {int(s): float(row[0]) for s, row in zip(gaps.seeds, gaps.values, strict=True)}
        seeds = [int(s) for s in means.seeds]
        first = np.array([start.get(s, math.inf) for s in seeds])
        rise = np.array([_rise(c, law, record, of, s) for s in settings_of(record, of, seeds)])
        # A mean over blocks is at most the last one's.
        return np.asarray(2 * c.L * (first[:, None] + _after(rise, means.steps - 1)))

    return found


def _after(
    rise: Float[np.ndarray, " seeds"], blocks: np.ndarray
) -> Float[np.ndarray, "seeds steps"]:
    # 0 blocks of a rise without limit are no rise.
    return np.asarray(np.where(blocks > 0, rise[:, None], 0.0) * np.maximum(blocks, 1))


def _rise(c: Constants, law: RateLaw, record: Record, of: str, s: Settings) -> float:
    """By how much a block may lift f."""
    # A sketch that may stretch a step beyond 1/L may lift f: the law's mean says nothing of one draw.
    longest = s.gamma_max * (math.inf if s.sketch_sup is None else s.sketch_sup)
    if longest > largest_step(law, c.L, s.steps) * (1 + 1e-9):
        return math.inf
    if law == "gd":
        return 0.0
    if s.sketch_sup != 1:
        return math.inf
    sigma2 = measured(c.sigma2, record, "variance", of)
    cubed = s.gamma_max**3 * c.L**2 * s.steps**3
    if law == "rr":
        return 0.4 * cubed * sigma2
    if law == "fed" and sigma2 == 0:
        return 4 / 3 * cubed * measured(c.zeta2, record, "zeta2", of)
    return math.inf


def estimate_range(of: str) -> Range:
    """The largest free estimate of |grad f|^2: H is a projection, so that d/r |G H|^2 <= d/r |G|^2."""

    def found(record: Record) -> Float[np.ndarray, "seeds steps"]:
        curves = record.curves(column("grad_norm2", of))
        share = by_seed(record, "share", of, "smallest")
        least = np.array([share.get(int(s), 0.0) for s in curves.seeds])[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(least > 0, curves.values / least, math.inf))

    return found


def loss_size(of: str) -> Callable[[Record], float]:
    """What a gap rounds like: the losses that it is a difference of."""

    def found(record: Record) -> float:
        losses = column("loss", of)
        return float(np.abs(record[losses]).max(initial=0.0)) if losses in record else 0.0

    return found
