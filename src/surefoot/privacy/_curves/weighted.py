"""The heuristic when steps count differently: P = sum_t a_t Bernoulli(q_t) + N(0, s^2), Q = N(0, s^2).

For linear losses and a linear optimiser m_T - m_0 = -sum_t a_t (gradient_t + noise_t), so
s^2 = sum_t a_t^2 sigma_t^2 and only ratios of the a_t matter [derived here, in the setting of
arXiv 2410.06186]. The a_t are rounded up to a grid for an upper bound and down for a lower one: by a
monotone coupling larger shifts only raise both divergences. s always uses the exact a_t.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from surefoot._numerics.hockey_stick.mixture import Bounded
from surefoot.privacy._checks import SMALLEST_DELTA
from surefoot.privacy._curves.dominating_pairs import NoiselessPair
from surefoot.privacy._curves.lattice import LatticePair
from surefoot.privacy._curves.resolved import binomial_shift
from surefoot.privacy.gaussian_mechanism import gaussian_pair
from surefoot.privacy.mechanism import Directed

Array = np.ndarray
COARSE = 1000
FINEST = 1 << 20
HAIR = 1e-14
WORK = 6e7
# Grids of sums of larger shifts would take minutes, and soon more memory than there is.
MOST_SHIFT = 1000.0
MIXED = (
    "weights of both signs: their absolute values give an upper bound, which is shown; "
    "the lower bound is 0"
)
UNREACHED = "the grid of weights was not refined further: the bounds are wider than asked for"


@dataclass(eq=False)
class WeightedPair:
    """The privacy curve of unequal steps, bounded from both sides; shifts are |a_t| / s.

    `mixed`: the a_t have both signs, and only the upper bound holds.
    """

    shifts: Float[Array, " steps"]
    rates: Float[Array, " steps"]
    tolerance: float
    mixed: bool

    def __post_init__(self) -> None:
        self._rounded: dict[tuple[int, bool], LatticePair | None] = {}
        self._cells = max(16, math.ceil(COARSE * float(self.shifts.max())))

    def rounded(self, cells: int, up: bool) -> LatticePair | None:
        """The pair of rounded weights, the largest being `cells` steps of the grid; None where all are 0."""
        key = (cells, up)
        if key not in self._rounded:
            spacing = float(self.shifts.max()) / cells
            # A hair of slack, so that the largest weight stays on the grid and the bound a bound.
            sign = 1 if up else -1
            n = self.shifts / spacing * (1 - sign * HAIR)
            n = np.ceil(n) if up else np.floor(n)
            self._rounded[key] = _grouped(
                n.astype(np.int64), self.rates, spacing * (1 + 2 * sign * HAIR)
            )
        return self._rounded[key]

    def delta(self, eps: float, direction: int) -> Bounded:
        """The divergence at eps."""
        return self._refined(lambda pair: pair.delta(eps, direction), relative=True)

    def epsilon(self, delta: float, direction: int) -> Bounded:
        """The eps at which the divergence is delta."""
        return self._refined(lambda pair: pair.epsilon(delta, direction), relative=False)

    def false_negative_rate(self, false_positive_rate: float) -> float:
        """The smallest second error; from weights rounded up, so never above the exact one."""
        pair = self.rounded(min(8 * self._cells, self._most_cells), True)
        assert pair is not None
        return pair.false_negative_rate(false_positive_rate)

    def _refined(self, ask: Callable[[Directed], Bounded], relative: bool) -> Bounded:
        cells, best = self._cells, Bounded(0.0, 0.0, math.inf)
        while True:
            upper = ask(_there(self.rounded(cells, True))).upper
            down = None if self.mixed else self.rounded(cells, False)
            lower = 0.0 if down is None else ask(down).lower
            best = Bounded(0.0, max(lower, best.lower), min(upper, best.upper))
            gap = best.upper - best.lower
            wanted = self.wanted(best.upper, relative)
            if gap <= wanted or (relative and best.upper < SMALLEST_DELTA):
                break
            # Rounding costs in proportion to the spacing: one jump should do.
            factor = 8.0 if self.mixed else min(max(1.2 * gap / wanted, 1.5), 64.0)
            finer = min(math.ceil(cells * factor), self._most_cells)
            if finer <= cells or (self.mixed and cells > self._cells):
                break
            cells = finer
        if not self.mixed:
            self._cells = cells
        middle = best.upper if self.mixed else (best.lower + best.upper) / 2
        return Bounded(middle, best.lower, best.upper)

    def wanted(self, size: float, relative: bool) -> float:
        """The distance of bounds that is good enough."""
        return self.tolerance * (size if relative else max(1.0, size / 10))

    @functools.cached_property
    def _most_cells(self) -> int:
        """The finest grid whose transform costs at most WORK multiplications, roughly."""
        cells = self._cells
        while cells < FINEST:
            n = np.ceil(self.shifts / self.shifts.max() * 2 * cells)
            groups = len(np.unique(np.stack([n, self.rates]), axis=1).T)
            width = 20 * (math.sqrt(float((n * n) @ (self.rates * (1 - self.rates)))) + n.max())
            if min(width, n.sum()) * groups > WORK:
                break
            cells *= 2
        return cells


def _there(pair: LatticePair | None) -> LatticePair:
    assert pair is not None
    return pair


def _grouped(n: Array, rates: Float[Array, " steps"], spacing: float) -> LatticePair | None:
    used = n > 0
    if not used.any():
        return None
    pairs, counts = np.unique(
        np.stack([n[used].astype(float), rates[used]]), axis=1, return_counts=True
    )
    return LatticePair(pairs[0].astype(np.int64), pairs[1], counts, spacing)


def weighted_pair(
    weights: Float[Array, " steps"],
    sigmas: Float[Array, " steps"],
    rates: Float[Array, " steps"],
    tolerance: float,
) -> WeightedPair | Directed:
    """The pair of unequal steps: exact where it is binomial, Gaussian or noiseless, else bounded."""
    a = np.abs(weights)
    seen = (a > 0) & (rates > 0)
    if not seen.any():
        if len(a) and not a.any():
            raise ValueError("weights must not all be 0: nothing then reaches the final model")
        return NoiselessPair(0.0)
    a = a / a.max()
    top = float(sigmas.max())
    s = top * math.sqrt(float((a**2) @ ((sigmas / top) ** 2))) if top > 0 else 0.0
    a, rates, positive = a[seen], rates[seen], weights[seen] > 0
    certain = bool((rates == 1).all())
    if s == 0:
        hidden = -math.inf if (rates == 1).any() else float(np.log1p(-rates).sum())
        return NoiselessPair(-math.expm1(hidden))
    if certain:
        return gaussian_pair(abs(float(np.where(positive, a, -a).sum())) / s)
    mixed = bool(positive.any() and not positive.all())
    if mixed or not (a == a[0]).all():
        if not float(a.max()) / s <= MOST_SHIFT:
            raise ValueError(
                "noise_multiplier must be larger where weights or sample_rate differ by step: one "
                f"gradient may be at most {MOST_SHIFT:g} times all noise that reaches the final model, "
                f"got {float(a.max()) / s:.3g} times; equal steps may have any noise"
            )
        return WeightedPair(a / s, rates, tolerance, mixed)
    if (rates == rates[0]).all():
        return binomial_shift(len(a), float(rates[0]), float(a[0]) / s)
    exact = _grouped(np.ones(len(a), dtype=np.int64), rates, float(a[0]) / s)
    assert exact is not None
    return exact
