"""Gradient dominance |grad_A L|^2 / L^{(2L-1)/L}, exact at A = b S^-1 and by Monte Carlo elsewhere."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.in_context._covariance import covariance, powers
from surefoot.in_context._sampling import left, second_moments
from surefoot.in_context.population import Method, population_loss, setting, slope
from surefoot.in_context.value import Value

GROUPS = 20


@checked
def dominance_ratio(
    d: int,
    n: int,
    loops: int,
    b: float | None = None,
    A: Float[np.ndarray, "d d"] | Float[Tensor, "d d"] | None = None,
    sigma: Float[np.ndarray, "d d"] | Float[Tensor, "d d"] | None = None,
    method: Method = "exact",
    samples: int = 100_000,
    seed: int = 0,
) -> Value:
    """|grad_A L(A, 0)|_F^2 / L(A, 0)^{(2L-1)/L}; at least 1/16 by arXiv 2410.08292, Theorem 3.4 [notes].

    That is for S = I, symmetric A and a loss above a floor, whose form is not known here.
    At A = b S^-1 the gradient is (L'(b)/d) S, exactly.

    Parameters
    ----------
    d, n, loops
        Features, examples, loops (at least 1).
    b, A, sigma
        As in `population_loss`, of tied layers.
    method
        "exact" for A = b S^-1; "mc" for any A: the product of the gradients of two halves of the samples, so
        that their noise does not add to the square.
    samples, seed
        Of "mc".

    Returns
    -------
    Value
        The ratio and its standard error.

    Raises
    ------
    ValueError
        An argument is out of range, or "exact" cannot do it.
    """
    loops = check_number("loops", loops, least=1, whole=True)
    if np.ndim(b if b is not None else 0) or (A is not None and np.ndim(A) != 2):
        raise ValueError(
            "b must be one number, or A one matrix: dominance is stated for tied layers"
        )
    where = setting(d, n, loops, b, A, sigma, method, samples, seed)
    power = (2 * loops - 1) / loops
    if method == "mc":
        samples = check_number("samples", samples, least=2 * GROUPS, whole=True)
        rng = np.random.default_rng(int(seed))
        return estimated(
            where.layers[0], second_moments(where.d, where.n, samples, rng), loops, where.root
        )
    steps: list[Fraction] = where.exact("ratio")
    size = where.d if where.root is None else float((where.root @ where.root).square().sum())
    found = float(slope(where.d, where.n, loops, steps[0])) / where.d
    loss = population_loss(where.d, where.n, loops, b=[float(s) for s in steps]).value
    return Value(found**2 * size / loss**power)


def estimated(
    B: Float64[Tensor, "d d"],
    moments: Float64[Tensor, "count d d"],
    loops: int,
    root: Float64[Tensor, "d d"] | None,
) -> Value:
    """The ratio over drawn second moments of whitened features, B = S^{1/2} A S^{1/2}.

    Its standard error is the jackknife's over groups of prompts.
    """
    power = (2 * loops - 1) / loops
    losses, slopes = [], []
    for part in moments.chunk(GROUPS):
        own = B.detach().clone().requires_grad_()
        loss = left([own] * loops, part).square().sum((1, 2)).mean()
        (found,) = torch.autograd.grad(loss, own)
        losses.append(float(loss.detach()))
        slopes.append(found if root is None else root @ found @ root)
    L, g = np.array(losses), torch.stack(slopes).flatten(1)

    def ratio(keep: list[int]) -> float:
        # The mean of the products of two different groups: |sum|^2 without the squares of each.
        some = g[keep]
        count = len(keep)
        squares = float(some.sum(0).square().sum() - some.square().sum()) / (count * (count - 1))
        return float(squares / float(L[keep].mean()) ** power)

    everything = list(range(len(L)))
    without = np.array([ratio([j for j in everything if j != i]) for i in everything])
    spread = math.sqrt((len(L) - 1) * without.var())
    return Value(ratio(everything), spread)


def whitened(
    A: Float64[Tensor, "*loops d d"], sigma: Float64[Tensor, "d d"] | None
) -> tuple[Float64[Tensor, "*loops d d"], Float64[Tensor, "d d"] | None]:
    """S^{1/2} A S^{1/2} and S^{1/2}; A itself and None for S = I."""
    if sigma is None:
        return A, None
    (root,) = powers(covariance("sigma", sigma, A.shape[-1]), 0.5)
    return root @ A @ root, root
