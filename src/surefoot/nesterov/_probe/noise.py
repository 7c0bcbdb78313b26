"""Gradient noise: how it is measured at a point, and which constants may enter a guarantee."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number, check_numbers
from surefoot._numerics.sizes import wide

ROUNDING = 8 * float(np.finfo(np.float64).eps)


@checked(nan=True)
@dataclass(frozen=True)
class NoiseSample:
    """Noise of the batch gradient at one point.

    Attributes
    ----------
    V
        Its trace variance E|g - grad f|^2.
    grad_sq
        |grad f|^2; an estimate that may be negative where it comes from batches: the gradient is then
        below the noise.
    V1
        The trace variance of one example's gradient, NaN where it was not measured.
    batch_size
        Of the batch that V is about.
    """

    V: float
    grad_sq: float
    V1: float
    batch_size: int


@checked(nan=True)
@dataclass(frozen=True)
class NoiseFit:
    """Constants with V <= sigma_add^2 + sigma_mult^2 |grad f|^2, exactly or in the mean.

    Attributes
    ----------
    sigma_mult
        sigma_m: the noise that grows with the gradient, without a unit.
    sigma_add
        sigma_a: the noise that is there at a minimum too, in the unit of a gradient.
    r2
        The weighted coefficient of determination.
    n
        The number of checkpoints.
    kind
        "envelope" or "least_squares"; `certifying` says whether the constants may enter a guarantee.
    """

    sigma_mult: float
    sigma_add: float
    r2: float
    n: int
    kind: str = "envelope"

    @property
    def certifying(self) -> bool:
        """An envelope over at least five checkpoints."""
        return self.kind == "envelope" and self.n >= 5


def batch_variance(V1: float, batch_size: int, examples: int, *, replacement: bool) -> float:
    """Trace variance of a mean of `batch_size` gradients drawn from `examples` ones.

    V1/B with replacement, V1 (N-B)/(B(N-1)) without.
    """
    check_number("batch_size", batch_size, least=1, whole=True)
    if replacement:
        return V1 / batch_size
    if batch_size > examples:
        raise ValueError(
            f"batch_size must be at most the number of examples = {examples} without replacement, "
            f"got {batch_size}"
        )
    if examples == 1:
        return 0.0
    return V1 * (examples - batch_size) / (batch_size * (examples - 1))


def noise_from_batches(gradients: Float[Tensor, "K P"], batch_size: int) -> NoiseSample:
    """Noise from the gradients of K >= 8 independent batches at one point.

    V = sum |g_k - mean|^2 / (K - 1), and |mean|^2 - V / K, which may be negative, for |grad f|^2.

    Raises
    ------
    ValueError
        Fewer than 8 batches.
    RuntimeError
        A gradient that is not finite.
    """
    K = len(gradients)
    if K < 8:
        raise ValueError(f"at least 8 batch gradients are needed, got {K}")
    if not bool(gradients.isfinite().all()):
        raise RuntimeError("a batch gradient is not finite")
    gradients = wide(gradients)
    mean = gradients.mean(dim=0)
    V = float(((gradients - mean) ** 2).sum()) / (K - 1)
    return NoiseSample(V, float(mean @ mean) - V / K, float("nan"), batch_size)


@checked(nan=True)
def fit_noise(
    samples: Sequence[NoiseSample | tuple[float, float]],
    kind: Literal["envelope", "least_squares"] = "envelope",
) -> NoiseFit:
    """Fit V <= sigma_a^2 + sigma_m^2 G over checkpoints, given as samples or (V, G) pairs.

    "envelope" is the smallest upper envelope, a linear program: it alone may enter a guarantee.
    "least_squares" is descriptive: non-negative, weighted with 1/V^2.

    Raises
    ------
    ValueError
        No sample, a negative V, a value that is not finite, or an unknown kind.

    Notes
    -----
    Source: the noise model of arXiv 2302.05515; the two fits are derived here.
    """
    check_choice("kind", kind, ("envelope", "least_squares"))
    given: Any = samples
    if isinstance(given, str | bytes) or not np.iterable(given):
        raise ValueError(f"samples must be NoiseSamples or (V, G) pairs, got {given!r}")
    pairs = [(s.V, s.grad_sq) if isinstance(s, NoiseSample) else s for s in samples]
    if not pairs:
        raise ValueError("samples of fit_noise must be at least one sample, got none")
    found = check_numbers("samples", pairs, ndim=2, finite=False)
    if found.shape[1] != 2:
        raise ValueError(f"samples must be (V, G) pairs, got shape {found.shape}")
    V, G = found.T
    if not np.isfinite([V, G]).all() or (V < 0).any():
        raise ValueError(
            "samples: every sample needs a finite V >= 0 and a finite squared gradient"
        )
    # An estimate below zero means that nothing is left of the gradient: all is additive there.
    G = np.maximum(G, 0.0)
    noisy = V > 0
    if not noisy.any():
        return NoiseFit(0.0, 0.0, 1.0, len(V), kind)
    V_, G_ = V[noisy], G[noisy]
    if kind == "envelope":
        sa2, sm2 = _envelope(V_, G_)
    else:
        design = np.stack([1 / V_, G_ / V_], axis=1)
        (sa2, sm2), _ = nnls(design, np.ones(len(V_)))
    weight = 1 / V_**2
    centre = (weight * V_).sum() / weight.sum()
    spread = (weight * (V_ - centre) ** 2).sum()
    left = (weight * (V_ - sa2 - sm2 * G_) ** 2).sum()
    r2 = 1 - left / spread if spread > 0 else (1.0 if left < 1e-12 else 0.0)
    return NoiseFit(sqrt(sm2), sqrt(sa2), float(r2), len(V), kind)


def _envelope(V: Float[np.ndarray, " n"], G: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Minimise sum (a + m G_t)/V_t subject to a + m G_t >= V_t, a, m >= 0: a linear program in two
    unknowns, whose solution is an edge of the upper hull of the points (G, V) or lies on an axis.
    Exact where a solver's tolerance would not do: V and G may span ten orders of magnitude.
    """
    hull: list[tuple[float, float]] = []
    for g, v in sorted(zip(G.tolist(), V.tolist(), strict=True)):
        while len(hull) > 1:
            (g1, v1), (g2, v2) = hull[-2:]
            if (v2 - v1) * (g - g2) > (v - v2) * (g2 - g1):
                break
            hull.pop()
        hull.append((g, v))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(hull) if b[0] > a[0]]
    if (G > 0).all():
        slopes.append(max(v / g for v, g in zip(V.tolist(), G.tolist(), strict=True)))
    usable = [m for m in [0.0, *slopes] if 0 <= m < float("inf")]

    def cover(m: float) -> float:
        left = V - m * G
        # A rounding error of the largest V may exceed the smallest V a millionfold.
        return float(left[left > ROUNDING * V].max(initial=0.0))

    with np.errstate(over="ignore"):
        # The slope to a gradient next to zero is next to infinity: it loses to the horizontal line.
        a, m = min(
            ((cover(m), m) for m in usable), key=lambda c: float(((c[0] + c[1] * G) / V).sum())
        )
    short = max(1.0, float((V / (a + m * G)).max())) * (1 + ROUNDING)
    return a * short, m * short


def a_priori_noise(L_max: float, mu: float, batch_size: int) -> float:
    """sigma_m^2 <= (L_max/mu - 1)/B where every example's loss is L_max-smooth and interpolated.

    mu is the PL constant. Loose in practice; derived here.
    """
    if not (mu > 0 and L_max >= mu and batch_size >= 1):
        raise ValueError(
            f"needs 0 < mu <= L_max and batch_size >= 1, got mu = {mu}, L_max = {L_max}, "
            f"batch_size = {batch_size}"
        )
    return (L_max / mu - 1) / batch_size
