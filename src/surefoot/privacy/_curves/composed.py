"""The sum of many privacy losses: a transform of the law tilted to where the answer lies, and its errors.

delta(eps) = E (1 - e^(eps - L))_+ needs probabilities of 1e-12 beside ones of order 1, and a plain
transform errs by 1e-15 to 1e-13 of the largest. Tilted by e^(theta L), theta the best order of Renyi's
bound, the mean of the sum is where the answer is. With K the cumulant and any measure t off the tilted law
by eta in total,

    delta(eps) <= e^(K - theta eps) (sum t e^(-theta (L - eps)) (1 - e^(eps - L))_+ + c(theta) eta),
    c(theta) = theta^theta / (1 + theta)^(1 + theta),

the largest value of the function summed: so all errors together cost eta times Renyi's own bound on delta,
c(theta) e^(K - theta eps) (arXiv 2004.00010, Proposition 12) [derived here].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.fft import irfft, next_fast_len, rfft
from scipy.optimize import brentq, minimize_scalar

from surefoot._numerics.hockey_stick.mills import EPS
from surefoot._numerics.hockey_stick.mixture import log_sum
from surefoot.privacy._curves.step_loss import GridLaw, StepLoss, edge_error

Array = np.ndarray
# What the grid may cost before it is as fine as it need be: of epsilon, and absolutely.
SETTLED = 1e-4
# A quarter of the grid that lowers log delta by less is fine enough; and how far below Renyi's bound
# delta may be before what a grid costs is looked for in delta itself.
REFINED = 1e-3
LOOSE = math.log(30)
MOST_POINTS = 2**21
MOST_CELLS = 2**18
OUTSIDE = 24.0
# Exponents from which on terms are bounded together instead of summed.
FAR = 50.0
# Relative error of a mass on the grid and of a quadrature, observed 2e-14.
MASS_ERROR = 1e-13
ORDERS = np.geomspace(1e-8, 1e15, 93)
Steps = tuple[tuple[StepLoss, int], ...]


def log_share(theta: float) -> float:
    """log c(theta)."""
    if theta == 0:
        return 0.0
    return -theta * math.log1p(1 / theta) - math.log1p(theta)


@dataclass(frozen=True)
class Order:
    """A tilt, and Renyi's bound there: epsilon at a given log delta, or log delta at a given epsilon."""

    theta: float
    bound: float


@dataclass(frozen=True)
class TiltedSum:
    """The law of the sum on multiples of h, tilted by theta, up to a total error eta."""

    theta: float
    h: float
    first: int
    mass: Float[Array, " n"]
    cumulant: float
    eta: float
    lost: float
    shift: float

    def log_delta(self, eps: float) -> float:
        """An upper bound on log delta(eps), for eps at least at the window's lower end."""
        eps = eps - self.shift
        place = math.floor(min(eps / self.h, float(self.first + len(self.mass))))
        start = max(place + 1 - self.first, 0)
        reach = len(self.mass) if self.theta == 0 else math.ceil(FAR / (self.theta * self.h)) + 2
        mass = self.mass[start : start + reach]
        above = (self.first + start + np.arange(len(mass))) * self.h - eps
        total = float(mass @ (np.exp(-self.theta * above) * -np.expm1(-above)))
        total += math.exp(log_share(self.theta)) * self.eta + math.exp(-FAR)
        log_total = math.log(total) + self.cumulant - self.theta * eps
        return float(np.logaddexp(log_total, math.log(self.lost) if self.lost > 0 else -math.inf))


@dataclass(frozen=True)
class Composition:
    """Steps in one direction, each with how often it is taken."""

    steps: Steps

    @functools.cached_property
    def number(self) -> int:
        """Of all steps."""
        return sum(count for _, count in self.steps)

    def _cumulants(self, theta: Float[Array, " t"]) -> Float[Array, " t"]:
        return np.asarray(
            np.sum([count * step.cumulant(theta) for step, count in self.steps], axis=0)
        )

    def _cumulant(self, theta: float) -> float:
        return float(self._cumulants(np.array([theta]))[0])

    @functools.cached_property
    def _scan(self) -> Float[Array, " t"]:
        return self._cumulants(ORDERS)

    def _minimum(self, value: Callable[[float, float], float]) -> Order:
        """Of a function of theta and the cumulant: over a list of orders, then near the best of them."""
        values = [value(float(t), float(k)) for t, k in zip(ORDERS, self._scan, strict=True)]
        best = int(np.argmin(values))
        lo, hi = ORDERS[max(best - 1, 0)], ORDERS[min(best + 1, len(ORDERS) - 1)]
        found = minimize_scalar(
            lambda x: value(math.exp(x), self._cumulant(math.exp(x))),
            bounds=(math.log(lo), math.log(hi)), method="bounded", options={"xatol": 1e-5},
        )  # fmt: skip
        if found.fun < values[best]:
            return Order(math.exp(found.x), float(found.fun))
        return Order(float(ORDERS[best]), float(values[best]))

    @property
    def _allowance(self) -> float:
        """Of the cumulant: rounding of the quadrature, and the steps that are not resolved."""
        return self.number * MASS_ERROR + 1e-8

    def renyi_epsilon(self, log_delta: float) -> Order:
        """The best order's epsilon; nonpositive where the privacy curve starts below delta."""
        room = self._allowance - log_delta
        return self._minimum(lambda t, k: (k + log_share(t) + room) / t)

    def renyi_log_delta(self, eps: float) -> Order:
        """The best order's log delta."""
        return self._minimum(lambda t, k: k + log_share(t) - t * eps + self._allowance)

    @functools.lru_cache(maxsize=8)  # noqa: B019
    def _grid(self, h: float) -> list[GridLaw]:
        return [step.on_grid(h) for step, _ in self.steps]

    def _grid_cumulant(self, laws: list[GridLaw], h: float, theta: float) -> float:
        return sum(
            count * log_sum(law.log_mass + theta * h * law.index)
            for law, (_, count) in zip(laws, self.steps, strict=True)
        )

    def _spread(self, theta: float) -> float:
        return math.sqrt(sum(count * step.tilted(theta)[1] ** 2 for step, count in self.steps))

    def _too_fine(self, h: float, spread: float) -> bool:
        cells = max(step.cells(h) for step, _ in self.steps)
        return cells > MOST_CELLS or 12 * spread / h > MOST_POINTS

    def settle(self, theta: float, scale: float) -> float | None:
        """A grid whose cost in epsilon is below SETTLED, absolute and times `scale`; or the finest there is.

        The cost is what the grid adds to the cumulant, over theta. None where none is affordable.
        """
        spread = self._spread(theta)
        h = max(spread / 2, abs(scale) / 8)
        if not 0 < h < math.inf or self._too_fine(h, spread):
            return None
        exact, wanted = self._cumulant(theta), SETTLED * min(scale, 1.0)
        finest = h
        while not self._too_fine(finest / 2, spread):
            finest /= 2
        while h > finest:
            cost = (self._grid_cumulant(self._grid(h), h, theta) - exact) / theta
            # The cost goes with the first to the second power of h.
            factor = 0.95 * math.sqrt(wanted / max(cost, 1e-300))
            if factor >= 0.95:
                # As coarse as it may be: a cost that does not jump from one setting to the next.
                return h * min(factor, 4.0)
            h = max(h * max(1 / 64, factor), finest)
        return h

    def transform(self, theta: float, h: float) -> TiltedSum:
        """The tilted law of the sum, by a transform on a window that holds all but e^-OUTSIDE of it."""
        laws = self._grid(h)
        tilted = []
        mean, variance, cumulant = 0.0, 0.0, 0.0
        for law, (_, count) in zip(laws, self.steps, strict=True):
            log_mass = law.log_mass + theta * h * law.index
            k = log_sum(log_mass)
            p = np.exp(log_mass - k)
            middle = float(p @ law.index)
            tilted.append((p, middle))
            mean += count * middle
            variance += count * float(p @ (law.index - middle) ** 2)
            cumulant += count * k
        low, high = self._window(laws, h, theta, mean, max(variance, 1e-12))
        size = int(next_fast_len(high - low + 1, real=True))
        # Everything is counted from the rounded mean of each step: small phases, exact whole offsets.
        log_size, angle = np.zeros((2, size // 2 + 1))
        offset, loss_of_digits = 0, 0.0
        for (p, middle), law, (_, count) in zip(tilted, laws, self.steps, strict=True):
            centre = round(middle)
            folded = np.bincount((law.index - centre) % size, weights=p, minlength=size)
            phi = rfft(folded)
            with np.errstate(divide="ignore"):
                log_size += count * np.log(np.abs(phi))
            angle += count * np.angle(phi)
            offset += count * centre
            loss_of_digits += count
        phi = np.exp(log_size) * np.exp(1j * np.remainder(angle, 2 * math.pi))
        weight = float(np.exp(log_size).sum()) * 2 + 1
        mass = np.maximum(irfft(phi, size), 0.0)
        first = low
        mass = np.roll(mass, -((first - offset) % size))
        levels = 8 * (math.log2(size) + 4)
        # Rounding of the transform is spread over all places; an error relative to each mass stays one.
        eta = weight * EPS * levels * (1 + loss_of_digits)
        eta += MASS_ERROR * loss_of_digits + 2 * math.exp(-OUTSIDE)
        ratio = (abs(mean) + (high - low)) * h
        size_of = sum(count * step.size for step, count in self.steps) / self.number
        lost = sum(
            count * math.exp(law.log_lost) for law, (_, count) in zip(laws, self.steps, strict=True)
        )
        return TiltedSum(
            theta, h, first, mass, cumulant + self.number * 1e-15, eta, lost,
            edge_error(ratio, size_of, self.number),
        )  # fmt: skip

    def _window(
        self, laws: list[GridLaw], h: float, theta: float, mean: float, variance: float
    ) -> tuple[int, int]:
        """Places outside of which the tilted law has no more than e^-OUTSIDE on either side (Chernoff)."""
        here = self._grid_cumulant(laws, h, theta)
        std = math.sqrt(variance)
        low, high = -math.inf, math.inf
        for t in np.geomspace(0.3, 6.0, 12) / std:
            up = self._grid_cumulant(laws, h, theta + t / h) - here
            down = self._grid_cumulant(laws, h, theta - t / h) - here
            high = min(high, (up + OUTSIDE) / t)
            low = max(low, -(down + OUTSIDE) / t)
        least = sum(count * law.first for law, (_, count) in zip(laws, self.steps, strict=True))
        most = sum(
            count * int(law.index[-1]) for law, (_, count) in zip(laws, self.steps, strict=True)
        )
        return max(math.floor(low), least), min(math.ceil(high), most)

    def epsilon(self, log_delta: float, order: Order, scale: float) -> tuple[float, float] | None:
        """A proven epsilon and its grid, or None where no grid is affordable or the errors eat delta.

        The grid is settled to what matters beside `scale`, an epsilon.
        """
        h = self.settle(order.theta, scale)
        if h is None:
            return None
        best = _crossing(self.transform(order.theta, h), log_delta)
        while (h := self._finer(order.theta, h)) is not None:
            there = scale if best is None else best[0]
            if best is not None and (best[0] == 0 or not self._loose(order, there, log_delta)):
                break
            found = _crossing(self.transform(order.theta, h), log_delta)
            before, best = best, min(filter(None, (best, found)), default=None)
            if before is not None and best is not None and best[0] >= before[0] * (1 - SETTLED):
                break
        return best

    def law(self, order: Order, eps: float) -> TiltedSum | None:
        """The sum, tilted for an order, on a grid settled for delta(eps); None where none is affordable."""
        h = self.settle(order.theta, 10 / order.theta)
        if h is None:
            return None
        best = self.transform(order.theta, h)
        while (h := self._finer(order.theta, h)) is not None:
            before = best.log_delta(eps)
            if not self._loose(order, eps, before):
                break
            finer = self.transform(order.theta, h)
            best = min(best, finer, key=lambda law: law.log_delta(eps))
            if finer.log_delta(eps) > before - REFINED:
                break
        return best

    def _loose(self, order: Order, eps: float, log_delta: float) -> bool:
        """Whether Renyi's bound is too far above delta for what the grid costs of it to matter.

        Where few steps rarely draw the example the cumulant is made by losses near 0, delta by its tail.
        """
        bound = self._cumulant(order.theta) + log_share(order.theta) - order.theta * eps
        return bound - log_delta > LOOSE

    def _finer(self, theta: float, h: float) -> float | None:
        cells = sum(step.cells(h / 4) for step, _ in self.steps)
        return None if cells > MOST_CELLS or self._too_fine(h / 4, self._spread(theta)) else h / 4


def _crossing(law: TiltedSum, log_delta: float) -> tuple[float, float] | None:
    """The least eps that a law proves for delta, and its grid; None where its errors eat delta."""
    low = max(0.0, law.first * law.h)
    high = (law.first + len(law.mass)) * law.h
    if law.log_delta(low) <= log_delta:
        return low, law.h
    if high <= low or law.log_delta(high) > log_delta:
        return None
    root = float(brentq(lambda e: law.log_delta(e) - log_delta, low, high, xtol=1e-300, rtol=1e-8))
    while law.log_delta(root) > log_delta:
        root = root * (1 + 1e-8) + 1e-300
    return root, law.h
