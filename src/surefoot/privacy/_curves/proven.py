"""The smallest of all bounds that are proven for Poisson-subsampled Gaussian steps, and which one it was."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float
from scipy.special import erf

from surefoot._numerics.hockey_stick.mixture import ADD, REMOVE
from surefoot.privacy._curves.composed import Composition, Order
from surefoot.privacy._curves.hits import Hits
from surefoot.privacy._curves.resolved import binomial_shift, gaussian_shift
from surefoot.privacy._curves.step_loss import LEAST_NOISE, StepLoss
from surefoot.privacy.facts import History

Array = np.ndarray
MOST_RUNS = 64
BISECTIONS = 200
WIDE = 40.0
ANCHORS = 6


@dataclass(frozen=True)
class Proven:
    """A proven value, and what proves it."""

    value: float
    by: str


def merged(history: History) -> History:
    """Equal steps put together, for the order of steps changes nothing; too many kinds made fewer.

    Of steps that are put together although they differ each gets the least noise and the largest rate.
    """
    counts: dict[tuple[float, float], int] = {}
    for sigma, q, steps in history:
        counts[sigma, q] = counts.get((sigma, q), 0) + steps
    runs = sorted((sigma, q, steps) for (sigma, q), steps in counts.items())
    if len(runs) <= MOST_RUNS:
        return tuple(runs)
    size = -(-len(runs) // MOST_RUNS)
    parts = [[r for _, r in part] for _, part in groupby(enumerate(runs), lambda x: x[0] // size)]
    return tuple(
        (min(s for s, _, _ in p), max(q for _, q, _ in p), sum(n for _, _, n in p)) for p in parts
    )


class Bounds:
    """Every bound for one history of steps with sigma > 0 and 0 < q <= 1.

    Attributes
    ----------
    history
        Runs of equal steps (sigma, q, count), count > 0.
    """

    def __init__(self, history: History) -> None:
        self.history = merged(history)
        self.steps = sum(steps for _, _, steps in self.history)
        self._alike = len(self.history) == 1

    @functools.cached_property
    def total_variation(self) -> float:
        """Of all steps together, from above: delta(0), the largest delta there is."""
        stays = sum(
            steps * math.log1p(-min(q * float(erf(math.sqrt(0.125) / sigma)), 1 - 1e-16))
            for sigma, q, steps in self.history
        )
        return min(1.0, -math.expm1(stays) * (1 + 1e-12))

    @functools.cached_property
    def _mu(self) -> float:
        """Of the Gaussian mechanism in which every step draws the example."""
        return math.hypot(*(math.sqrt(steps) / sigma for sigma, _, steps in self.history))

    @property
    def _full(self) -> bool:
        return all(q == 1 for _, q, _ in self.history)

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def _compositions(self, reach: float) -> list[Composition]:
        if min(sigma for sigma, _, _ in self.history) < LEAST_NOISE:
            return []
        return [
            Composition(tuple((StepLoss(s, q, way, reach), n) for s, q, n in self.history))
            for way in (REMOVE, ADD)
        ]

    def _reach(self, log_delta: float) -> float:
        """Standard deviations beyond which lies less than 1e-9 of delta, in all steps together."""
        return math.sqrt(2 * (math.log(self.steps) + 21 - min(log_delta, 0.0)))

    def epsilon(self, delta: float, *, renyi: bool = False) -> Proven:
        """The smallest proven epsilon at delta; only Renyi's where asked for."""
        found = self._renyi_epsilons(delta) if renyi else self._epsilons(delta)
        return min(found, key=lambda x: x.value, default=Proven(math.inf, "nothing"))

    def _epsilons(self, delta: float) -> Iterator[Proven]:
        if self.total_variation <= delta:
            yield Proven(0.0, f"total variation {self.total_variation:.3g} <= delta")
            return
        if 0 < self._mu < math.inf:
            pair = gaussian_shift(self._mu)
            exact = max(pair.epsilon(delta, way).upper for way in (REMOVE, ADD))
            yield Proven(exact, "Gaussian mechanism" + (", exact" if self._full else " (q = 1)"))
            if self._full:
                return
        if self._alike:
            sigma, q, steps = self.history[0]
            if steps == 1:
                one = binomial_shift(1, q, 1 / sigma)
                exact = max(one.epsilon(delta, way).upper for way in (REMOVE, ADD))
                yield Proven(exact, "a single step, exact")
                return
            hits = Hits(sigma, q, steps)
            yield Proven(_solve(hits.log_delta, math.log(delta)), "mixture over draws")
        yield from self._composed_epsilons(delta)

    def _composed_epsilons(self, delta: float) -> Iterator[Proven]:
        """The larger direction, each by the smaller of two bounds."""
        log_delta = math.log(delta)
        sides = [
            (c.renyi_epsilon(log_delta), c) for c in self._compositions(self._reach(log_delta))
        ]
        worst: Proven | None = None
        for order, composition in sorted(sides, key=lambda side: -side[0].bound):
            if worst is not None and order.bound <= worst.value:
                # Already proven to be the smaller direction.
                continue
            best = Proven(max(order.bound, 0.0), _renyi(order))
            if best.value > 0:
                scale = max(order.bound, worst.value if worst is not None else 0.0)
                found = composition.epsilon(log_delta, order, scale)
                if found is not None and found[0] <= best.value:
                    best = Proven(found[0], _distribution(found[1]))
            worst = best if worst is None or best.value > worst.value else worst
        if worst is not None:
            yield worst

    def _renyi_epsilons(self, delta: float) -> Iterator[Proven]:
        log_delta = math.log(delta)
        # So far that no order leaves what is resolved: the plain bound, for comparison.
        reach = self._reach(log_delta) + WIDE
        orders = [c.renyi_epsilon(log_delta) for c in self._compositions(reach)]
        if orders:
            worst = max(orders, key=lambda x: x.bound)
            yield Proven(max(0.0, worst.bound), _renyi(worst))

    def delta(self, eps: float, *, renyi: bool = False) -> Proven:
        """The smallest proven delta at eps; only Renyi's where asked for."""
        found = self._renyi_deltas(eps) if renyi else self._deltas(eps)
        best = min(found, key=lambda x: x.value, default=Proven(1.0, "nothing"))
        return Proven(min(1.0, best.value), best.by)

    def _deltas(self, eps: float) -> Iterator[Proven]:
        yield Proven(self.total_variation, "total variation")
        if 0 < self._mu < math.inf:
            pair = gaussian_shift(self._mu)
            exact = max(pair.delta(eps, way).upper for way in (REMOVE, ADD))
            yield Proven(exact, "Gaussian mechanism" + (", exact" if self._full else " (q = 1)"))
            if self._full:
                return
        if self._alike:
            sigma, q, steps = self.history[0]
            if steps == 1:
                one = binomial_shift(1, q, 1 / sigma)
                exact = max(one.delta(eps, way).upper for way in (REMOVE, ADD))
                yield Proven(exact, "a single step, exact")
                return
            log_delta = Hits(sigma, q, steps).log_delta(eps)
            yield Proven(_positive(log_delta), "mixture over draws")
        yield from self._composed_deltas(eps)

    def _composed_deltas(self, eps: float) -> Iterator[Proven]:
        sides = [(c.renyi_log_delta(eps), c) for c in self._resolved_for(eps)]
        worst: Proven | None = None
        for order, composition in sorted(sides, key=lambda side: -side[0].bound):
            if worst is not None and _positive(order.bound) <= worst.value:
                continue
            best = Proven(_positive(order.bound), _renyi(order))
            law = composition.law(order, eps)
            if law is not None and law.log_delta(eps) <= order.bound:
                best = Proven(_positive(law.log_delta(eps)), _distribution(law.h))
            worst = best if worst is None or best.value > worst.value else worst
        if worst is not None:
            yield worst

    def _resolved_for(self, eps: float) -> list[Composition]:
        """Steps resolved as far as the delta that they will have needs."""
        reach = self._reach(math.log(1e-300))
        rough = [c.renyi_log_delta(eps).bound for c in self._compositions(reach)]
        return self._compositions(self._reach(max([*rough, -690.0]) - 5)) if rough else []

    def profile(self, eps: Float[Array, " n"]) -> Float[Array, " n"]:
        """Proven deltas at many eps: a few tilts, each of which bounds all of the curve.

        Near the eps that a tilt is made for it is as good as `delta`, elsewhere larger.
        """
        best: Array = np.full(len(eps), self.total_variation)
        if 0 < self._mu < math.inf:
            pair = gaussian_shift(self._mu)
            exact = [max(pair.delta(e, way).upper for way in (REMOVE, ADD)) for e in eps]
            best = np.minimum(best, exact)
        if self._full or not len(eps):
            return best
        sides = []
        anchors = np.quantile(eps, np.linspace(0, 1, ANCHORS))
        for composition in self._compositions(self._reach(math.log(1e-12))):
            side: Array = np.zeros(len(eps))
            for anchor in anchors:
                law = composition.law(composition.renyi_log_delta(float(anchor)), float(anchor))
                if law is not None:
                    side = np.minimum(side, [law.log_delta(float(e)) for e in eps])
            sides.append(side)
        return np.minimum(best, np.exp(np.max(sides, axis=0))) if sides else best

    def _renyi_deltas(self, eps: float) -> Iterator[Proven]:
        compositions = self._compositions(self._reach(math.log(1e-300)) + WIDE)
        orders = [c.renyi_log_delta(eps) for c in compositions]
        if orders:
            worst = max(orders, key=lambda x: x.bound)
            yield Proven(_positive(worst.bound), _renyi(worst))


def _renyi(order: Order) -> str:
    return f"Renyi accounting, order {order.theta + 1:.4g}"


def _distribution(grid: float) -> str:
    return f"PLD on a grid of {grid:.2g}"


def _positive(log_delta: float) -> float:
    """exp, never rounded to the 0 that it is not."""
    return max(math.exp(min(log_delta, 0.0)), 5e-324)


@functools.lru_cache(maxsize=1024)
def proven_epsilon(history: History, delta: float, *, renyi: bool = False) -> Proven:
    """`Bounds.epsilon`, remembered."""
    return Bounds(history).epsilon(delta, renyi=renyi)


def _solve(log_delta: Callable[[float], float], target: float) -> float:
    """The least eps that bisection proves to have log delta at most `target`; infinite where none has."""
    if log_delta(0.0) <= target:
        return 0.0
    low, high = 0.0, 1.0
    while log_delta(high) > target:
        low, high = high, 4 * high
        if high > 1e300:
            return math.inf
    for _ in range(BISECTIONS):
        middle = math.sqrt(low) * math.sqrt(high) if low > 0 else high / 16
        if not low < middle < high or high - low <= 1e-7 * high:
            break
        low, high = (low, middle) if log_delta(middle) <= target else (middle, high)
    return high
