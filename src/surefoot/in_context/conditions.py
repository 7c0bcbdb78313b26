"""Are a user's prompts of the law that the theorems speak of: Gaussian x, isotropic weights, no noise?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from scipy.stats import norm
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number, check_numbers
from surefoot.guarantee import Assumption
from surefoot.in_context._covariance import covariance, powers
from surefoot.in_context._estimators import least_squares

MEAN, KURTOSIS, NORM, ISOTROPY, NOISE = 0.1, 0.5, 0.1, 0.5, 1e-3


@checked
def prompt_assumptions(
    X: Any, y: Any, w: Any = None, *, confidence: float = 0.99
) -> tuple[Assumption, ...]:
    """Measure what the theorems ask of prompts: x ~ N(0, S), w* ~ N(0, S^-1) up to scale, y = w*'x.

    S is the mean of xx' over all examples of all prompts, z = S^-1/2 x. A condition holds if the number is
    below its threshold by the sampling error at this confidence, and fails if it is above by that: between
    these, and where a prompt has no more examples than features, nothing can be told (`holds=None`).

    Parameters
    ----------
    X, y
        (B, d, n) and (B, n): the examples of the prompts.
    w
        (B, d): the prompts' weights where they are known; by default least squares finds them if n > d.
    confidence
        Of each verdict.

    Returns
    -------
    tuple of Assumption
        Mean: max_j |mean z_j| <= 0.1. Tails: max_j |kurtosis of z_j - 3| <= 0.5. Norms: Mardia's kurtosis
        |mean |z|^4 / d(d+2) - 1| <= 0.1. Weights: ||C / (tr C / d) - I||_2 <= 0.5 for C the mean of vv',
        v = S^1/2 w. Noise: residual variance of least squares <= 0.001 mean y^2.

    Raises
    ------
    ValueError
        The arrays do not fit, are not finite, or the features are linearly dependent.
    """
    Xs = torch.from_numpy(check_numbers("X", X, ndim=3))
    B, d, n = Xs.shape
    ys = torch.from_numpy(check_numbers("y", y, ndim=2))
    if ys.shape != (B, n):
        raise ValueError(f"y must have shape ({B}, {n}) as X has, got {tuple(ys.shape)}")
    if B < 2:
        raise ValueError(f"X must hold at least 2 prompts, got {B}")
    confidence = check_number("confidence", confidence, above=0, below=1)
    known = None if w is None else torch.from_numpy(check_numbers("w", w, ndim=2))
    if known is not None and known.shape != (B, d):
        raise ValueError(f"w must have shape ({B}, {d}), got {tuple(known.shape)}")
    S = covariance("the mean of xx' over X", (Xs @ Xs.mT).mean(0) / n, d)
    root, inverse = powers(S, 0.5, -0.5)
    z = inverse @ Xs
    found = least_squares(Xs, ys) if n > d else None
    residual = None if found is None else ys - (Xs.mT @ found[..., None])[..., 0]
    return (
        *_gaussian(z, confidence),
        _isotropy(found if known is None else known, root, known is not None),
        _noise(ys, residual, d, confidence),
    )


def _state(value: float, error: float, most: float) -> bool | None:
    if value + error <= most:
        return True
    return False if value - error > most else None


def _gaussian(z: Float64[Tensor, "B d n"], confidence: float) -> tuple[Assumption, ...]:
    B, d, n = z.shape
    # All d coordinates at once.
    width = float(norm.isf((1 - confidence) / (2 * d)))
    how = f"{B * n} examples, standard errors over {B} prompts"
    mean, second, fourth = (z**p for p in (1, 2, 4))
    kurtosis = fourth.mean((0, 2)) / second.mean((0, 2)) ** 2
    # The influence of an example on it, the variance being estimated too.
    moved = fourth - kurtosis[:, None] - 2 * kurtosis[:, None] * (second - 1)
    size = z.square().sum(1).square() / (d * (d + 2))
    return (
        _largest("x has mean 0", f"max_j |mean of z_j| <= {MEAN}", mean, mean.mean((0, 2)), MEAN, width, how),
        _largest(
            "x Gaussian: kurtosis", f"max_j |kurtosis of z_j - 3| <= {KURTOSIS}", moved, kurtosis - 3,
            KURTOSIS, width, how,
        ),
        _largest(
            "x Gaussian: norms", f"|mean |z|^4 / d(d+2) - 1| <= {NORM}", size[:, None],
            size.mean()[None] - 1, NORM, float(norm.isf((1 - confidence) / 2)), how,
        ),
    )  # fmt: skip


def _largest(
    name: str, requires: str, terms: Tensor, values: Tensor, most: float, width: float, how: str
) -> Assumption:
    """The condition that all |values| are at most so much; terms (B, k, n) are what each is a mean of."""
    error = width * terms.mean(2).std(0) / math.sqrt(len(terms))
    states = [_state(abs(float(v)), float(e), most) for v, e in zip(values, error, strict=True)]
    holds = False if False in states else None if None in states else True
    return Assumption(name, requires, float(values.abs().max()), holds, how)


def _isotropy(
    w: Float64[Tensor, "B d"] | None, root: Float64[Tensor, "d d"], known: bool
) -> Assumption:
    name = "weights isotropic"
    requires = f"||C / (tr C / d) - I|| <= {ISOTROPY}"
    if w is None:
        return Assumption(name, requires, None, None, "needs more examples than features")
    B, d = w.shape
    v = w @ root
    C = v.mT @ v / B
    scale = float(C.trace()) / d
    if scale == 0:
        return Assumption(name, requires, None, None, "all weights are 0")
    measured = float(torch.linalg.matrix_norm(C / scale - torch.eye(d, dtype=C.dtype), 2))
    # The largest eigenvalue of as many white Gaussian vectors lies so far above 1.
    spread = (1 + math.sqrt(d / B)) ** 2 - 1
    holds: bool | None = None
    if measured - spread > ISOTROPY:
        holds = False
    elif measured <= ISOTROPY and spread <= ISOTROPY:
        holds = True
    source = "the prompts' weights" if known else "weights by least squares"
    return Assumption(name, requires, measured, holds, f"{source}, {B} prompts")


def _noise(
    y: Float64[Tensor, "B n"], residual: Float64[Tensor, "B n"] | None, d: int, confidence: float
) -> Assumption:
    name, requires = "y without noise", f"residual variance <= {NOISE} mean y^2"
    if residual is None:
        return Assumption(name, requires, None, None, "needs more examples than features")
    B, n = y.shape
    rest, whole = (residual.square().sum(1) / (n - d)).numpy(), y.square().mean(1).numpy()
    if not whole.any():
        return Assumption(name, requires, 0.0, True, "all labels are 0")
    share = float(rest.mean() / whole.mean())
    error = float(np.std(rest - share * whole, ddof=1) / math.sqrt(B) / whole.mean())
    width = float(norm.isf((1 - confidence) / 2))
    holds = _state(share, width * error, NOISE)
    return Assumption(name, requires, share, holds, f"least squares on each of {B} prompts")
