"""The privacy loss of one Poisson-subsampled Gaussian step, in one direction: its law, exactly and on a grid.

With mu = 1/sigma, Q = N(0, 1) and P = (1 - q) N(0, 1) + q N(mu, 1), the loss is L = log(P/Q) under P
(remove) or -L under Q (add). On a grid every outcome is split between its two neighbours so that both of
its probabilities stay what they are: merging the two gives the outcome back, so the pair on the grid
dominates the true one (the "connect the dots" of arXiv 2207.04380, applied point by point
[derived here]).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_ndtr

from surefoot._numerics.hockey_stick.mills import EPS
from surefoot._numerics.hockey_stick.mixture import REMOVE, log_sum

Array = np.ndarray
NODES = 16
# Nodes for cells over which exponents vary by (least, most]: each within 1e-14 of the integral.
RULES = ((3, -1.0, 0.05), (6, 0.05, 0.5), (NODES, 0.5, math.inf))
SCALE = 700.0
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
# Beyond this only the hits count, and each of them tells everything.
LEAST_NOISE = 0.005


@dataclass(frozen=True)
class GridLaw:
    """Log masses at (first + i) h, i = 0, 1, ..., and the log of the mass at an infinite loss."""

    first: int
    log_mass: Float[Array, " n"]
    log_lost: float

    @property
    def index(self) -> Int[Array, " n"]:
        """The multiples of the grid."""
        return self.first + np.arange(len(self.log_mass))


@dataclass(frozen=True)
class StepLoss:
    """One step with noise sigma >= LEAST_NOISE and rate 0 < q <= 1.

    Attributes
    ----------
    sigma, q
        Noise multiplier and sampling rate.
    direction
        REMOVE or ADD.
    reach
        Gaussian standard deviations that are resolved; what lies beyond is counted pessimistically.
    """

    sigma: float
    q: float
    direction: int
    reach: float

    @property
    def mu(self) -> float:
        """Distance of the two means over the noise."""
        return 1 / self.sigma

    @functools.cached_property
    def floor(self) -> float:
        """Infimum of L: log(1 - q)."""
        return math.log1p(-self.q) if self.q < 1 else -math.inf

    @functools.cached_property
    def size(self) -> float:
        """A bound on E|L| - |E L|, half of it: how far a loss goes the other way."""
        return -self.floor if self.q < 1 else self.mu * (self.mu + self.reach)

    def log_ratio(self, y: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """L(y) = log(1 - q + q exp(mu y - mu^2/2)), to a few units in the last place of max(q, |L|)."""
        t = self.mu * (y - self.mu / 2)
        if self.q == 1:
            return np.asarray(t)
        near = np.log1p(self.q * np.expm1(np.minimum(t, 600.0)))
        return np.asarray(
            np.where(t < 600, near, np.logaddexp(math.log(self.q) + t, math.log1p(-self.q)))
        )

    def _inverse(self, loss: Float[Array, " n"]) -> Float[Array, " n"]:
        """y with L(y) = loss, -inf at and below the infimum: where to cut a quadrature, no more."""
        if self.q == 1:
            return np.asarray(self.mu / 2 + loss / self.mu)
        with np.errstate(divide="ignore", over="ignore"):
            odds = np.log1p(np.maximum(np.expm1(np.minimum(loss, 30.0)) / self.q, -1.0))
            return np.asarray(
                self.mu / 2 + np.where(loss < 30, odds, loss - math.log(self.q)) / self.mu
            )

    @functools.cached_property
    def _intervals(self) -> list[tuple[float, float]]:
        """Where the probabilities are; between two of them neither world has any that matters."""
        z, mu = self.reach, self.mu
        if self.direction != REMOVE:
            return [(-z, z)]
        return [(-z, mu + z)] if mu < 2 * z else [(-z, z), (mu - z, mu + z)]

    @functools.cached_property
    def _edges(self) -> Float[Array, " n"]:
        """Cells on which the density and the likelihood ratio are smooth; NaN separates intervals."""
        wide, fine = 0.5, min(0.5, 1 / self.mu)
        bend = -math.inf if self.q == 1 else self._bend - 40 / self.mu
        parts = []
        for lo, hi in self._intervals:
            middle = min(max(lo, bend), hi)
            flat = np.linspace(lo, middle, math.ceil((middle - lo) / wide) + 1)
            steep = np.linspace(middle, hi, math.ceil((hi - middle) / fine) + 1)
            parts += [flat, steep[1:], np.array([math.nan])]
        return np.concatenate(parts)[:-1]

    @functools.cached_property
    def _bend(self) -> float:
        return self.mu / 2 + (math.log1p(-self.q) - math.log(self.q)) / self.mu

    def _quadrature(
        self, edges: Float[Array, " n"], nodes: int
    ) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        """Points and log weights (with the density of Q) of Gauss-Legendre's rule on every cell."""
        x, w = np.polynomial.legendre.leggauss(nodes)
        lo, width = edges[:-1], np.diff(edges)
        kept = width > 0
        y = (lo[kept, None] + width[kept, None] * (x + 1) / 2).ravel()
        with np.errstate(divide="ignore"):
            log_w = (np.log(width[kept, None]) + np.log(w / 2)).ravel()
        return y, log_w - y * y / 2 - HALF_LOG_2PI

    @functools.cached_property
    def _rules(self) -> list[tuple[Float[Array, " m"], Float[Array, " m"]]]:
        """The loss at the points of two rules, and the log weight of each in the world that has it."""
        rules = []
        for nodes in (NODES, NODES // 2):
            y, log_w = self._quadrature(self._edges, nodes)
            ratio = self.log_ratio(y)
            rules.append((ratio, log_w + ratio) if self.direction == REMOVE else (-ratio, log_w))
        return rules

    @functools.cached_property
    def log_lost(self) -> float:
        """Log mass of an infinite loss, in whose place all is counted that is not resolved above."""
        return float(log_ndtr(-self.reach)) + math.log(4)

    def cumulant(self, theta: Float[Array, " t"]) -> Float[Array, " t"]:
        """log E exp(theta loss), the resolved part: theta times the Renyi divergence of order theta + 1.

        Where a rule with half the points says something else, larger by as much: at huge orders the largest
        loss lies between two points.
        """
        fine, coarse = (
            np.array([log_sum(log_w + t * loss) for t in np.ravel(theta)])
            for loss, log_w in self._rules
        )
        return np.asarray(fine + np.abs(fine - coarse))

    def tilted(self, theta: float) -> tuple[float, float]:
        """Mean and standard deviation of the loss under its law times exp(theta loss)."""
        loss, log_w = self._rules[0]
        w = np.exp(log_w + theta * loss - log_sum(log_w + theta * loss))
        mean = float(w @ loss)
        return mean, math.sqrt(max(0.0, float(w @ (loss - mean) ** 2)))

    def cells(self, h: float) -> float:
        """About how many multiples of h the resolved losses span."""
        ends = self.log_ratio(np.array([self._intervals[0][0], self._intervals[-1][1]]))
        return float(ends[1] - ends[0]) / h + 2

    def on_grid(self, h: float) -> GridLaw:
        """A law on the multiples of h that dominates this one."""
        y, log_w = (np.concatenate(each) for each in zip(*self._grid_points(h), strict=True))
        ratio = self.log_ratio(y)
        loss, log_p = (ratio, log_w + ratio) if self.direction == REMOVE else (-ratio, log_w)
        below = np.floor(loss / h)
        up = np.clip(np.expm1(below * h - loss) / math.expm1(-h), 0.0, 1.0)
        # What is not resolved below is counted where the resolved losses begin.
        low = self._intervals[0][0] if self.direction == REMOVE else self._intervals[-1][1]
        end = float(self.log_ratio(np.array([low]))[0])
        end = math.ceil((end if self.direction == REMOVE else -end) / h)
        first = min(int(below.min()), end)
        at = below.astype(np.int64) - first
        # From e^-1400 on: no mass of either world is smaller.
        scaled = np.exp(log_p + SCALE)
        mass = np.bincount(at, weights=scaled * (1 - up), minlength=int(at.max()) + 2)
        mass[1:] += np.bincount(at, weights=scaled * up, minlength=len(mass) - 1)[: len(mass) - 1]
        mass = np.append(mass, np.zeros(max(0, end - first + 1 - len(mass))))
        mass[end - first] += math.exp(float(log_ndtr(-self.reach)) + SCALE)
        with np.errstate(divide="ignore"):
            return GridLaw(first, np.log(mass) - SCALE, self.log_lost)

    def _grid_points(self, h: float) -> Iterator[tuple[Float[Array, " m"], Float[Array, " m"]]]:
        """Quadrature between the points at which the loss is a multiple of h, as many nodes as it needs."""
        for lo, hi in self._intervals:
            coarse = self._edges[(self._edges >= lo) & (self._edges <= hi)]
            ends = self.log_ratio(np.array([lo, hi]))
            cuts = self._inverse(np.arange(math.floor(ends[0] / h), math.ceil(ends[1] / h) + 1) * h)
            edges = np.unique(np.concatenate([coarse, cuts[(cuts > lo) & (cuts < hi)]]))
            rough = np.diff(edges) * np.maximum(np.abs(edges[1:]), max(1.0, self.mu))
            for nodes, least, most in RULES:
                chosen = (rough > least) & (rough <= most)
                if chosen.any():
                    pair = np.stack([edges[:-1][chosen], edges[1:][chosen]], axis=1)
                    apart = np.append(pair, np.full((len(pair), 1), math.nan), axis=1)
                    yield self._quadrature(apart.ravel(), nodes)


def edge_error(total: float, size: float, steps: float) -> float:
    """How much rounding of the grid's edges and splits can move the sum of the losses."""
    return 16 * EPS * (abs(total) + 2 * steps * size)
