"""Polynomials with rational coefficients, lowest power first, and their means under given moments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

Poly = list[Fraction]
BITS = 120
"""Binary digits after the point of a root: some 36 decimal ones."""


def product(p: Sequence[Fraction], q: Sequence[Fraction]) -> Poly:
    """p times q."""
    found = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            found[i + j] += a * b
    return found


def residual(steps: Sequence[Fraction]) -> Poly:
    """prod_t (1 - b_t s): what is left of an error along an eigenvector of S of value s."""
    found = [Fraction(1)]
    for b in steps:
        found = product(found, [Fraction(1), -b])
    return found


def mean(p: Sequence[Fraction], moments: Sequence[Fraction]) -> Fraction:
    """E tr p(S)."""
    return sum((a * m for a, m in zip(p, moments, strict=False)), Fraction(0))


def solve(matrix: Sequence[Sequence[Fraction]], right: Sequence[Fraction]) -> Poly:
    """The solution of a positive definite system, exactly (Gauss, without a choice of pivots)."""
    rows = [[*row, b] for row, b in zip(matrix, right, strict=True)]
    size = len(rows)
    for i in range(size):
        pivot = rows[i][i]
        rows[i] = [a / pivot for a in rows[i]]
        for k in range(size):
            factor = rows[k][i]
            if k != i and factor:
                rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[-1] for row in rows]


def positive_roots(p: Sequence[Fraction]) -> list[Fraction]:
    """The roots of a polynomial all of whose roots are real, simple and positive, to `BITS` digits.

    Those of its derivative lie between them, and so on down: each is bisected between two of the next.
    """
    if len(p) < 2:
        return []
    whole = math.lcm(*(a.denominator for a in p))
    top = _cauchy(p)
    # The smallest root is at least 1 / the bound of the reversed polynomial: it gets its digits too.
    scale = BITS + max(0, _exponent(_cauchy(p[::-1])))
    tower = [[int(a * whole) for a in p]]
    while len(tower[-1]) > 2:
        tower.append([i * a for i, a in enumerate(tower[-1])][1:])
    found: list[int] = []
    for q in reversed(tower):
        ends = [0, *found, math.ceil(top) << scale]
        found = [_bisect(q, low, high, scale) for low, high in itertools.pairwise(ends)]
    return [Fraction(m, 1 << scale) for m in found]


def _cauchy(p: Sequence[Fraction]) -> Fraction:
    """Above every root."""
    return max(abs(a / p[-1]) for a in p[:-1]) + 1


def _exponent(value: Fraction) -> int:
    return value.numerator.bit_length() - value.denominator.bit_length()


def _sign(q: Sequence[int], m: int, scale: int) -> int:
    """The sign of q at m / 2^scale."""
    found = 0
    for i, a in enumerate(reversed(q)):
        found = found * m + (a << (scale * i))
    return (found > 0) - (found < 0)


def _bisect(q: Sequence[int], low: int, high: int, scale: int) -> int:
    below = _sign(q, low, scale)
    while high - low > 1:
        middle = (low + high) // 2
        if _sign(q, middle, scale) == below:
            low = middle
        else:
            high = middle
    return high
