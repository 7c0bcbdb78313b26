"""Two Poisson-subsampled Gaussian steps, all iterates published: no grid of losses and no transform.

delta(eps) = E delta_1(eps - L) over the loss L of the first step, with the second step's exact curve delta_1:
one integral by the trapezoid rule. Against `mpmath` (30 digits, 81 panels) 1e-9 relative.
"""

import numpy as np
from scipy.special import ndtr


def two_steps(sigma, q, eps, points=200_001, reach=14.0):
    """delta(eps), the larger of both directions."""
    mu = 1 / sigma
    y, width = np.linspace(-reach, reach + mu, points, retstep=True)
    plain = np.exp(-y * y / 2) / np.sqrt(2 * np.pi)
    loss = np.log1p(q * np.expm1(mu * y - mu * mu / 2))
    found = []
    for way in (1, -1):
        left = eps - way * loss
        odds = (np.expm1(way * left) + q) / q
        at = np.full(points, -np.inf)
        at[odds > 0] = mu / 2 + np.log(odds[odds > 0]) / mu
        # Accuse above the threshold (remove), or clear below it (add).
        out, moved = ndtr(-way * at), ndtr(-way * (at - mu))
        mixed = (1 - q) * out + q * moved
        first, second = (mixed, out) if way > 0 else (out, mixed)
        one = first - np.exp(np.minimum(left, 700.0)) * second
        density = plain * np.exp(loss) if way > 0 else plain
        found.append(float(density @ one) * width)
    return max(found)
