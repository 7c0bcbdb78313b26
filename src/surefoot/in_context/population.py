"""The exact loss of a looped model over Gaussian prompts, and its exact optimum, in rational arithmetic.

S^{1/2} A S^{1/2} = B takes the covariance S out of the loss, so that all is computed for S = I. For B = bI
the loss is E tr (I - b S)^{2L}, a polynomial in b whose coefficients are Wishart moments: in floating point
its terms cancel to nothing from 2L = 16 on, so that numbers are rounded last. The mean over prompts is meant:
w* ~ N(0, S^-1), x_q ~ N(0, S), no noise, u = 0.

Source: derived in surefoot, for the setting of arXiv 2410.08292.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number, check_numbers
from surefoot.in_context import _polynomial
from surefoot.in_context._covariance import covariance, powers, square
from surefoot.in_context._sampling import left, second_moments
from surefoot.in_context.value import Value
from surefoot.in_context.wishart import MOST, wishart_moments

Method = Literal["exact", "mc"]
SCALAR = 1e-10
"""How far, relatively, S^{1/2} A S^{1/2} may be from a multiple of the identity and count as one."""
CHUNK = 20_000


class LoopsCapWarning(UserWarning):
    """The loss still falls at the largest number of loops that was looked at."""


@checked(nan=True)
@dataclass(frozen=True)
class Schedule:
    """The best L different scalar steps.

    Attributes
    ----------
    steps
        b_1 <= ... <= b_L; their order does not change the loss.
    loss
        What they reach.
    """

    steps: tuple[float, ...]
    loss: float


@dataclass(frozen=True)
class Setting:
    """d, n and the layers B_t = S^{1/2} A_t S^{1/2}, with the steps b_t where each B_t is b_t I."""

    d: int
    n: int
    layers: list[Float64[Tensor, "d d"]]
    steps: list[Fraction] | None
    off: float
    root: Float64[Tensor, "d d"] | None

    def exact(self, what: str) -> list[Fraction]:
        """The steps; a ValueError that says why there are none."""
        if self.steps is None:
            raise ValueError(
                f"A must satisfy S^(1/2) A S^(1/2) = b I to {SCALAR:g} for the exact {what}, it is off by "
                f"{self.off:.3g} of its norm; method='mc' takes any A"
            )
        if 2 * len(self.steps) > MOST:
            raise ValueError(
                f"loops must be at most {MOST // 2} for the exact {what}, got {len(self.steps)}; "
                "method='mc' takes any number"
            )
        return self.steps


def setting(
    d: Any, n: Any, loops: Any, b: Any, A: Any, sigma: Any, method: Any, samples: Any, seed: Any
) -> Setting:
    """Checked arguments of a population quantity; exactly one of b and A is given."""
    d = check_number("d", d, least=1, whole=True)
    n = check_number("n", n, least=1, whole=True)
    loops = check_number("loops", loops, least=0, whole=True)
    check_choice("method", method, ("exact", "mc"))
    # Also where they do nothing: what cannot be meant is never passed over.
    check_number("samples", samples, least=2, whole=True)
    check_number("seed", seed, least=0, whole=True)
    root = None if sigma is None else powers(covariance("sigma", sigma, d), 0.5)[0]
    if (b is None) == (A is None):
        raise ValueError(
            f"give b or A, one of them: got b={b!r} and A={'None' if A is None else '...'}"
        )
    unit = torch.eye(d, dtype=torch.float64)
    if b is not None:
        given = check_numbers("b", b)
        if given.ndim > 1 or (given.ndim == 1 and len(given) != loops):
            raise ValueError(
                f"b must be one number or one a loop ({loops}), got shape {given.shape}"
            )
        each = [float(v) for v in np.broadcast_to(given, (loops,))]
        return Setting(d, n, [v * unit for v in each], [Fraction(v) for v in each], 0.0, root)
    whole = check_numbers("A", A)
    if whole.ndim == 3 and whole.shape[0] != loops:
        raise ValueError(f"A must have one layer a loop ({loops}), got shape {whole.shape}")
    layers = [square("A", a, d) for a in (whole if whole.ndim == 3 else [whole] * loops)]
    if root is not None:
        layers = [root @ a @ root for a in layers]
    numbers = [float(B.diagonal().mean()) for B in layers]
    gaps = [
        float((B - v * unit).norm() / B.norm()) if float(B.norm()) else 0.0
        for B, v in zip(layers, numbers, strict=True)
    ]
    off = max(gaps, default=0.0)
    steps = [Fraction(v) for v in numbers] if off <= SCALAR else None
    return Setting(d, n, layers, steps, off, root)


def averaged(
    where: Setting,
    each: Callable[[Float64[Tensor, "count d d"]], Float64[Tensor, " count"]],
    samples: int,
    seed: int,
) -> Value:
    """The mean of a function of S over fresh prompts, and its standard error."""
    samples = int(samples)
    rng = np.random.default_rng(int(seed))
    found = []
    with torch.no_grad():
        for start in range(0, samples, CHUNK):
            count = min(CHUNK, samples - start)
            found.append(each(second_moments(where.d, where.n, count, rng)))
    values = torch.cat(found)
    return Value(float(values.mean()), float(values.std()) / math.sqrt(samples))


@checked
def population_loss(
    d: int,
    n: int,
    loops: int,
    b: float | Sequence[float] | None = None,
    A: Float[np.ndarray, "*loops d d"] | Float[Tensor, "*loops d d"] | None = None,
    sigma: Float[np.ndarray, "d d"] | Float[Tensor, "d d"] | None = None,
    method: Method = "exact",
    samples: int = 100_000,
    seed: int = 0,
) -> Value:
    """E (TF_L - w*'x_q)^2, in squared units of y.

    Parameters
    ----------
    d, n, loops
        Features, examples, loops.
    b
        A = b S^-1: one step for all loops, or one a loop.
    A
        Any matrix, or one a loop, in place of b.
    sigma
        S; it matters only beside A, and None is the identity.
    method
        "exact": rational, for A = b S^-1 and up to 20 loops. "mc": the mean over `samples` draws of XX', with
        w* and x_q integrated out.
    samples, seed
        Of "mc".

    Returns
    -------
    Value
        The loss and its standard error.

    Raises
    ------
    ValueError
        An argument is out of range, or "exact" cannot do it.
    """
    where = setting(d, n, loops, b, A, sigma, method, samples, seed)
    if method == "mc":
        return averaged(where, lambda S: left(where.layers, S).square().sum((1, 2)), samples, seed)
    q = _polynomial.residual(where.exact("loss"))
    return Value(_mean(where, _polynomial.product(q, q)))


@checked
def bias_excess(
    u: Float[np.ndarray, " d"] | Float[Tensor, " d"],
    d: int,
    n: int,
    loops: int,
    b: float | Sequence[float] | None = None,
    A: Float[np.ndarray, "*loops d d"] | Float[Tensor, "*loops d d"] | None = None,
    sigma: Float[np.ndarray, "d d"] | Float[Tensor, "d d"] | None = None,
    method: Method = "exact",
    samples: int = 100_000,
    seed: int = 0,
) -> Value:
    """L(A, u) - L(A, 0) = u' E[(I - H)' S (I - H)] u, H = (I - A' XX'/n)^L: never below 0.

    Parameters
    ----------
    u
        The trained part of P.
    d, n, loops, b, A, sigma, method, samples, seed
        As in `population_loss`.

    Returns
    -------
    Value
        The excess and its standard error.

    Raises
    ------
    ValueError
        As `population_loss`.
    """
    where = setting(d, n, loops, b, A, sigma, method, samples, seed)
    vector = torch.from_numpy(check_numbers("u", u, ndim=1))
    if vector.shape != (where.d,):
        raise ValueError(f"u must have {where.d} numbers, got shape {tuple(vector.shape)}")
    v = vector if where.root is None else where.root @ vector
    if method == "mc":
        return averaged(
            where, lambda S: (v - left(where.layers, S) @ v).square().sum(1), samples, seed
        )
    moved = [-a for a in _polynomial.residual(where.exact("excess"))]
    moved[0] += 1
    return Value(_mean(where, _polynomial.product(moved, moved)) / where.d * float(v @ v))


def _mean(where: Setting, p: Sequence[Fraction]) -> float:
    return float(_polynomial.mean(p, wishart_moments(where.d, where.n, len(p) - 1)))


def slope(d: int, n: int, loops: int, b: Fraction) -> Fraction:
    """L'(b) = -2L E tr S (I - bS)^{2L-1} of the tied scalar step."""
    left_over = _polynomial.residual([b] * (2 * loops - 1))
    moments = wishart_moments(d, n, 2 * loops)
    return -2 * loops * _polynomial.mean(left_over, moments[1:])


def _sizes(d: Any, n: Any, loops: Any) -> tuple[int, int, int]:
    return (
        check_number("d", d, least=1, whole=True),
        check_number("n", n, least=1, whole=True),
        _loops(loops),
    )


def _loops(loops: Any) -> int:
    count = check_number("loops", loops, least=1, whole=True)
    if 2 * count > MOST:
        raise ValueError(
            f"loops must be at most {MOST // 2} for an exact optimum, got {count}; for a given step "
            "population_loss(..., method='mc') takes any number"
        )
    return count


@checked
def optimal_step(d: int, n: int, loops: int) -> float:
    """The b* that minimises the loss of A = b S^-1; n/(n+d+1) for one loop.

    The loss is convex in b, so that its slope is bisected, in rationals.

    Parameters
    ----------
    d, n, loops
        Features, examples, loops (1 to 20).

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    d, n, loops = _sizes(d, n, loops)
    low, high = Fraction(0), Fraction(2)
    while slope(d, n, loops, high) <= 0:
        low, high = high, 2 * high
    for _ in range(64):
        middle = (low + high) / 2
        if slope(d, n, loops, middle) < 0:
            low = middle
        else:
            high = middle
    return float((low + high) / 2)


@checked
def optimal_schedule(d: int, n: int, loops: int) -> Schedule:
    """The best L different steps A_t = b_t S^-1: what layers of their own gain over loops of one.

    The polynomial q of degree L with q(0) = 1 and least E tr q(S)^2 solves a Hankel system of moments; the
    b_t are the reciprocals of its roots.

    Parameters
    ----------
    d, n, loops
        As in `optimal_step`.

    Returns
    -------
    Schedule
        Steps in ascending order, and the loss.

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    d, n, loops = _sizes(d, n, loops)
    moments = wishart_moments(d, n, 2 * loops)
    size = loops + 1
    hankel = [[moments[i + j] for j in range(size)] for i in range(size)]
    column = _polynomial.solve(hankel, [Fraction(i == 0) for i in range(size)])
    roots = _polynomial.positive_roots([a / column[0] for a in column])
    return Schedule(tuple(sorted(float(1 / r) for r in roots)), float(1 / column[0]))


@checked
def safe_loops(d: int, n: int, b: float, max_loops: int = 20) -> int:
    """How often to loop at test time: where the mean loss E tr (I - bS)^{2L'} is least.

    It falls, and then diverges through rare prompts with an eigenvalue of bS above 2. It is log-convex in L',
    so that the first rise ends the search. 0: not at all.

    Parameters
    ----------
    d, n
        Features and examples.
    b
        The step: A = b S^-1.
    max_loops
        The largest number to look at, at most 20.

    Raises
    ------
    ValueError
        An argument is out of range.

    Warns
    -----
    LoopsCapWarning
        The loss still falls at `max_loops`: more loops may be better.
    """
    d = check_number("d", d, least=1, whole=True)
    n = check_number("n", n, least=1, whole=True)
    step = Fraction(check_number("b", b))
    most = check_number("max_loops", max_loops, least=1, most=MOST // 2, whole=True)
    before = Fraction(d)
    for count in range(1, most + 1):
        now = _polynomial.mean(
            _polynomial.residual([step] * 2 * count), wishart_moments(d, n, 2 * count)
        )
        if now >= before:
            return count - 1
        before = now
    warnings.warn(
        f"the loss still falls at {most} loops, the most that were looked at (max_loops)",
        LoopsCapWarning,
        stacklevel=2,
    )
    return most


def exact_optimum(d: int, n: int, loops: int, tied: bool) -> tuple[tuple[float, ...], float] | None:
    """The best scalar steps (one where tied) and their loss; None above the loops that are exact."""
    if 2 * loops > MOST:
        return None
    if not tied:
        found = optimal_schedule(d, n, loops)
        return found.steps, found.loss
    best = optimal_step(d, n, loops)
    return (best,), population_loss(d, n, loops, best).value
