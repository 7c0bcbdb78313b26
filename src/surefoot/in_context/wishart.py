"""Moments of S = XX'/n for x_i ~ N(0, I), as exact fractions."""

from __future__ import annotations

import functools
from fractions import Fraction

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number

MOST = 40
"""The largest power whose moment is computed: the partitions of 40 take a second or two."""


@checked
def wishart_moments(d: int, n: int, k_max: int) -> list[Fraction]:
    """E tr S^k for k = 0, ..., k_max, S = XX'/n with n columns x_i ~ N(0, I_d).

    Gaussian integration by parts on products of power sums of W = XX':
    E[p_k p_mu] = (n+k-1) E[p_{k-1} p_mu] + sum_{0<j<k} E[p_j p_{k-1-j} p_mu]
    + sum_{m in mu} 2m E[p_{k+m-1} p_{mu without m}], p_0 = d.

    Source: derived in surefoot.

    Parameters
    ----------
    d, n
        Features and examples.
    k_max
        The largest power, at most 40.

    Returns
    -------
    list of Fraction
        The first is d.

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    d = check_number("d", d, least=1, whole=True)
    n = check_number("n", n, least=1, whole=True)
    k_max = check_number("k_max", k_max, least=0, most=MOST, whole=True)
    sums = _power_sums(d, n)
    return [Fraction(sums.mean((), k), n**k) for k in range(k_max + 1)]


@functools.lru_cache(maxsize=4)  # a table of 40 has 2e5 entries
def _power_sums(d: int, n: int) -> _PowerSums:
    return _PowerSums(d, n)


class _PowerSums:
    """E of products of power sums p_k(W) = tr W^k, remembered by the partition of their powers."""

    def __init__(self, d: int, n: int) -> None:
        self._d, self._n = d, n
        self._known: dict[tuple[int, ...], int] = {(): 1}

    def mean(self, rest: tuple[int, ...], *more: int) -> int:
        """E of the p_k of all these powers."""
        parts = tuple(sorted((*rest, *(m for m in more if m)), reverse=True))
        found = self._known.get(parts)
        if found is None:
            found = self._expanded(parts[0], parts[1:])
            self._known[parts] = found
        return int(self._d ** more.count(0)) * found

    def _expanded(self, k: int, rest: tuple[int, ...]) -> int:
        # The term j = k - 1 is d p_{k-1}; of the others j and k - 1 - j are equal.
        found = (self._n + k - 1 + (self._d if k > 1 else 0)) * self.mean(rest, k - 1)
        for j in range(1, k // 2):
            found += 2 * self.mean(rest, j, k - 1 - j)
        if k > 2 and k % 2:
            found += self.mean(rest, k // 2, k // 2)
        for i, m in enumerate(rest):
            found += 2 * m * self.mean(rest[:i] + rest[i + 1 :], k + m - 1)
        return found
