"""The formulas of arXiv 2410.06186 as they stand, in 60-digit arithmetic: what the fast code is held to.

P = Binomial(T, q) + N(0, sigma^2 T), Q = N(0, sigma^2 T); every sum over all T + 1 counts, the threshold by
bisection, and the divergences as plain differences of two probabilities.
"""

from mpmath import mp, mpf


class Reference:
    """Both divergences for small T (cost O(T) per evaluation, all digits)."""

    def __init__(self, sigma, q, steps, digits=60):
        mp.dps = digits
        self.s = mpf(sigma) * mp.sqrt(steps)
        q = mpf(q)
        self.k = range(steps + 1)
        self.w = [mp.binomial(steps, k) * q**k * (1 - q) ** (steps - k) for k in self.k]

    def log_ratio(self, y):
        s2 = self.s**2
        terms = (
            w * mp.exp((k * y - mpf(k) ** 2 / 2) / s2) for k, w in zip(self.k, self.w, strict=True)
        )
        return mp.log(mp.fsum(terms))

    def threshold(self, target):
        lo, hi = mpf(-1), mpf(1)
        while self.log_ratio(lo) > target:
            lo *= 2
        while self.log_ratio(hi) < target:
            hi *= 2
        for _ in range(12):
            middle = (lo + hi) / 2
            lo, hi = (middle, hi) if self.log_ratio(middle) < target else (lo, middle)
        # Newton from the right end converges: L is convex and increasing.
        for _ in range(60):
            slope = (self.log_ratio(hi + mpf(10) ** -20) - self.log_ratio(hi)) * mpf(10) ** 20
            step = (self.log_ratio(hi) - target) / slope
            hi -= step
            if abs(step) < mpf(10) ** (8 - mp.dps) * (1 + abs(hi)):
                return hi
        raise ArithmeticError("no threshold")

    def remove(self, eps):
        eps = mpf(eps)
        y = self.threshold(eps)
        a = mp.fsum(w * mp.ncdf((k - y) / self.s) for k, w in zip(self.k, self.w, strict=True))
        return a - mp.exp(eps) * mp.ncdf(-y / self.s)

    def add(self, eps):
        eps = mpf(eps)
        if eps >= -mp.log(self.w[0]):
            return mpf(0)
        y = self.threshold(-eps)
        b = mp.fsum(w * mp.ncdf((y - k) / self.s) for k, w in zip(self.k, self.w, strict=True))
        return mp.ncdf(y / self.s) - mp.exp(eps) * b
