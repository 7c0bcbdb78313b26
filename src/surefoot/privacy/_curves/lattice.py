"""P = sum_t n_t spacing Bernoulli(q_t) + N(0, 1) against Q = N(0, 1), for whole n_t >= 0: weights by FFT.

A transform errs by about 1e-16 of its largest weight, while the weights that decide may be far smaller (most
so in the "add" direction). The law is therefore tilted by e^(theta n) to where the threshold looks, which
turns each Bernoulli(q_t) into another one, transformed there, and tilted back in logs [derived here].
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from scipy.fft import irfft, next_fast_len
from scipy.optimize import brentq
from scipy.special import expit

from surefoot._numerics.hockey_stick.mills import EPS, mills_slope
from surefoot._numerics.hockey_stick.mixture import Pair, Support

Array = np.ndarray
LOST = 42.0
NEAR = 1.0


@dataclass(frozen=True)
class TiltedLaw:
    """log P(N = n) over a window of n, from the law tilted by theta; noise bounds its error."""

    theta: float
    std: float
    first: int
    log_weights: Float[Array, " n"]
    log_noise: Float[Array, " n"]


@dataclass(frozen=True, eq=False)
class LatticePair(Pair):
    """The pair of whole shifts n_j, each with rate q_j in (0, 1] and used count_j times."""

    shifts: Int[Array, " groups"]
    rates: Float[Array, " groups"]
    counts: Int[Array, " groups"]
    spacing: float
    laws: list[TiltedLaw] = field(default_factory=list, repr=False)

    @functools.cached_property
    def mean(self) -> float:
        """sum n q spacing."""
        return float((self.counts * self.shifts) @ self.rates) * self.spacing

    @functools.cached_property
    def variance(self) -> float:
        """sum n^2 q (1 - q) spacing^2."""
        squares = self.counts * self.shifts.astype(float) ** 2
        return float(squares @ (self.rates * (1 - self.rates))) * self.spacing**2

    @property
    def most(self) -> float:
        """All steps together."""
        return float(self.counts @ self.shifts) * self.spacing

    @functools.cached_property
    def floor(self) -> float:
        """sum log(1 - q)."""
        if (self.rates == 1).any():
            return -math.inf
        return float(self.counts @ np.log1p(-self.rates))

    def bracket(self, target: float) -> tuple[float, float]:
        """Jensen above; below, (sum n_t B_t)^2 >= sum n_t^2 B_t makes exp L at most a product over steps."""
        high = (target + (self.mean**2 + self.variance) / 2) / self.mean
        a = self.shifts * self.spacing

        def above(u: float) -> float:
            return self._log_mgf(u * a - a * a / 2) - target

        step = 1.0
        low = high
        while above(low) > 0:
            low, step = low - step, 2 * step
        return (
            (float(brentq(above, low, low + step, xtol=1e-6)), high) if low < high else (low, high)
        )

    def _log_mgf(self, exponents: Float[Array, " groups"]) -> float:
        with np.errstate(divide="ignore"):
            terms = np.logaddexp(np.log1p(-self.rates), np.log(self.rates) + exponents)
        return float(self.counts @ terms)

    def _tilted(self, theta: float) -> Float[Array, " groups"]:
        """Success probabilities after the tilt."""
        with np.errstate(divide="ignore"):
            logit = np.log(self.rates) - np.log1p(-self.rates)
        return np.asarray(expit(logit + theta * self.shifts))

    def _tilt_at(self, u: float, side: int) -> float:
        """theta whose tilted mean is the mode of w_n phi(u - a_n), w_n Phi(a_n - u) or w_n Phi(u - a_n)."""
        d = self.spacing
        total = self.counts * self.shifts

        def pull(m: float) -> float:
            """Slope in n of the log of the factor beside w_n."""
            x = u - d * m
            return d * (x if side == 0 else side * (mills_slope(side * x) + side * x))

        low, high = pull(float(total.sum())), pull(0.0)
        slack = 1e-9 + 1e-9 * abs(high)
        return float(
            brentq(
                lambda theta: theta - pull(float(total @ self._tilted(theta))),
                min(low, high) - slack,
                max(low, high) + slack,
                xtol=1e-12,
            )
        )

    def _window(self, theta: float, std: float) -> tuple[int, int]:
        """n outside of which the tilted law has probability below e^-LOST, by Chernoff's bound."""
        here = self._log_mgf(theta * self.shifts)
        scale = min(9 / std, 9.0)
        upper, lower = math.inf, -math.inf
        for t in scale * np.geomspace(0.02, 4, 24):
            upper = min(upper, (self._log_mgf((theta + t) * self.shifts) - here + LOST) / t)
            lower = max(lower, -(self._log_mgf((theta - t) * self.shifts) - here + LOST) / t)
        certain = int((self.counts * self.shifts) @ (self.rates == 1))
        most = int(self.counts @ self.shifts)
        return max(math.floor(lower), certain), min(math.ceil(upper), most)

    def _transform(self, theta: float) -> TiltedLaw:
        q = self._tilted(theta)
        squares = self.counts * self.shifts.astype(float) ** 2
        std = max(math.sqrt(float(squares @ (q * (1 - q)))), 1e-6)
        first, last = self._window(theta, std)
        size = next_fast_len(max(last - first + 1, 2), real=True)
        # Roots of unity from a table with the index reduced modulo the size: exact phases.
        roots = np.exp(-2j * np.pi * np.arange(size) / size)
        frequency = np.arange(size // 2 + 1)
        phi = roots[(frequency * (-first % size)) % size]
        for n, rate, count in zip(self.shifts, q, self.counts, strict=True):
            factor = (1 - rate) + rate * roots[(frequency * int(n % size)) % size]
            power = int(count)
            while power:
                if power & 1:
                    phi *= factor
                power >>= 1
                if power:
                    factor = factor * factor
        p = irfft(phi, size)[: last - first + 1]
        rounding = 8 + math.log2(size) + 4 * len(self.shifts) + 4 * float(self.counts @ q)
        noise = EPS * rounding * float(np.abs(phi).mean()) + math.exp(-LOST)
        n = np.arange(first, last + 1, dtype=float)
        back = self._log_mgf(theta * self.shifts) - theta * n
        with np.errstate(divide="ignore"):
            log_w = np.log(np.maximum(p, 0.0)) + back
        return TiltedLaw(theta, std, first, log_w, math.log(noise) + back)

    def support(self, u: float, side: int = 0) -> Support:
        """The window of sums that matter at u, from a law whose tilt is near enough."""
        theta = self._tilt_at(u, side)
        law = min(self.laws, key=lambda x: abs(x.theta - theta), default=None)
        if law is None or abs(law.theta - theta) * law.std > NEAR:
            law = self._transform(theta)
            del self.laws[:-7]
            self.laws.append(law)
        shifts = (law.first + np.arange(len(law.log_weights))) * self.spacing
        return Support(shifts, law.log_weights, log_noise=law.log_noise)
