"""Normal numbers and orders from the operating system's entropy: nobody who knows a seed can subtract them.

A seeded or an ordinary generator will not do. The server knows the run's seed; and who knows most records
sees most of the noise, from which the state of an ordinary generator can be computed. Here each number
comes from 64 bits of its own of the system's cryptographic generator. Floats have gaps: the guarantee is
that of real numbers, up to the rounding of float64, as in other libraries.
"""

from __future__ import annotations

import math
import secrets

import numpy as np
from jaxtyping import Float64, Int64
from scipy.special import ndtri


def system_normal(*shape: int) -> Float64[np.ndarray, "..."]:
    """Independent standard normals."""
    count = math.prod(shape)
    bits = np.frombuffer(secrets.token_bytes(8 * count), dtype=np.uint64)
    # 63 bits choose a probability in (0, 1/2), where floats are finest, and one bit the sign.
    tail = ((bits >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64
    sign = np.where(bits & np.uint64(1), 1.0, -1.0)
    drawn: Float64[np.ndarray, ...] = (sign * ndtri(np.minimum(tail, 0.5))).reshape(shape)
    return drawn


def system_order(count: int) -> Int64[np.ndarray, " count"]:
    """A random order of 0 ... count - 1, each equally likely."""
    order = list(range(count))
    secrets.SystemRandom().shuffle(order)
    return np.array(order, dtype=np.int64)
