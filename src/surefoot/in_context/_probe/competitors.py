"""What else might have made the implied weights: least squares, ridge, steps of different sizes, nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from surefoot.in_context._forms.feature import moments
from surefoot.in_context._probe.asking import Examples

REAL = 1e-3
"""A root whose imaginary part is below this share of it is real: multiple roots split by rounding."""


def fit_ridge(examples: Examples, W: Float[Tensor, "B d"]) -> float:
    """The penalty with the least squared error: a grid of powers of ten, then Brent's method."""
    X, y, _ = examples
    scale, vectors = torch.linalg.eigh(X @ X.mT)
    rotated = (vectors.mT @ X @ y[..., None])[..., 0]
    target = (vectors.mT @ W[..., None])[..., 0]
    unit = float(scale.mean())

    def loss(exponent: float) -> float:
        alpha = unit * 10.0**exponent
        return float((rotated / (scale.clamp_min(0) + alpha) - target).square().sum())

    grid = [float(e) for e in range(-10, 11)]
    best = min(grid, key=loss)
    found = minimize_scalar(
        loss, bounds=(best - 1, best + 1), method="bounded", options={"xatol": 1e-11}
    )
    exponent = float(found.x) if float(found.fun) <= loss(best) else best
    return float(unit * 10.0**exponent)


GRID = (-10.0, 10.0, 401)
"""Sizes of equal steps that are looked at: powers of ten from the first to the second, so many."""


@dataclass(frozen=True)
class Untied:
    """Steps b_1, ..., b_L of different sizes along S^-1 times the gradient: a polynomial of S^-1 Sh.

    All polynomials of that degree are fitted, which is linear; where the best has complex roots, no schedule
    of real steps is as good.

    Attributes
    ----------
    coefficients
        (L,) of w = sum_k c_k (S^-1 Sh)^k S^-1 g.
    inverse
        S^-1.
    steps
        The steps, ascending, or None where they are not all real.
    """

    coefficients: Float[Tensor, " L"]
    inverse: Float[Tensor, "d d"]
    steps: tuple[float, ...] | None = field(default=None)

    def weights(self, examples: Examples) -> Float[Tensor, "B d"]:
        """Its weights on prompts."""
        return _powers(examples, self.inverse, len(self.coefficients)) @ self.coefficients


def fit_untied(
    examples: Examples, W: Float[Tensor, "B d"], loops: int, inverse: Float[Tensor, "d d"]
) -> Untied:
    """The best schedule of so many steps.

    Parameters
    ----------
    examples
        Prompts.
    W
        Implied weights.
    loops
        Steps.
    inverse
        S^-1.
    """
    basis = _powers(examples, inverse, loops).reshape(-1, loops)
    size = basis.norm(dim=0).clamp_min(torch.finfo(basis.dtype).tiny)
    found = torch.linalg.lstsq(basis / size, W.reshape(-1, 1), driver="gelsd").solution[:, 0] / size
    # prod_t (1 - b_t x) = 1 - x p(x), with x = 1/b.
    roots = np.roots(np.concatenate([[1.0], -found.numpy()]))
    steps = None
    if (np.abs(roots.imag) <= REAL * np.abs(roots)).all():
        steps = tuple(sorted(map(float, roots.real)))
    return Untied(found, inverse, steps)


def best_step(
    examples: Examples, W: Float[Tensor, "B d"], loops: int, inverse: Float[Tensor, "d d"]
) -> float:
    """The b of the least squared error of `loops` equal steps b S^-1: a grid, then Brent's method.

    Parameters
    ----------
    examples
        Prompts.
    W
        Implied weights.
    loops
        Steps.
    inverse
        S^-1.
    """
    basis = _powers(examples, inverse, loops).reshape(-1, loops).numpy()
    target = W.reshape(-1).numpy()
    # (1 - (1 - b x)^L) / x, by powers of x.
    binomial = np.array([-math.comb(loops, k) * (-1.0) ** k for k in range(1, loops + 1)])
    upper, orthonormal = (part for part in reversed(np.linalg.qr(basis)))
    along = orthonormal.T @ target

    def loss(step: float) -> float:
        with np.errstate(all="ignore"):
            c = binomial * float(step) ** np.arange(1, loops + 1)
            found = float(np.square(upper @ c - along).sum())
        return found if math.isfinite(found) else math.inf

    sizes = np.logspace(*GRID)
    grid = [0.0, *sizes, *-sizes]
    best = min(grid, key=loss)
    if not best:
        return 0.0
    factor = float(sizes[1] / sizes[0])
    ends = min(best / factor, best * factor), max(best / factor, best * factor)
    found = minimize_scalar(
        loss, bounds=ends, method="bounded", options={"xatol": 1e-14 * abs(best)}
    )
    return float(found.x) if float(found.fun) <= loss(best) else best


def _powers(examples: Examples, inverse: Tensor, loops: int) -> Float[Tensor, "B d L"]:
    Sh, g = moments(examples.X, examples.y)
    columns = [g @ inverse]
    for _ in range(loops - 1):
        columns.append((Sh @ columns[-1][..., None])[..., 0] @ inverse)
    return torch.stack(columns, -1)
