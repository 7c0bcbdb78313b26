"""Per prompt, how fast looping converges: rho = max |1 - eig(A^{1/2} Sh A^{1/2})| for A positive definite.

In the norm of A^-1 the error of a prompt shrinks by rho a loop: |w* - w_L| <= rho^L |w*|, where u = 0 and the
labels have no noise. In the plain norm it may grow by up to sqrt(cond A) first. Source: derived in surefoot.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot.in_context._covariance import covariance, powers


@checked
def prompt_contraction(
    X: Float[Tensor, "batch d n"], A: Float[Tensor, "d d"] | Float[np.ndarray, "d d"]
) -> Float64[Tensor, " batch"]:
    """rho of each prompt; at most 1 exactly where all eigenvalues lie in [0, 2], and 1 where n < d.

    Parameters
    ----------
    X
        (batch, d, n): the examples.
    A
        (d, d), symmetric and positive definite.

    Raises
    ------
    ValueError
        A is not, or the shapes do not fit.
    """
    if not isinstance(X, Tensor) or X.ndim != 3 or not X.shape[2]:
        raise ValueError(
            f"X must have shape (batch, d, n) with n >= 1, got {getattr(X, 'shape', X)}"
        )
    if not bool(X.isfinite().all()):
        raise ValueError("X must be finite, got NaN or infinity")
    (root,) = powers(covariance("A", A, X.shape[1]), 0.5)
    values = eigenvalues(X.detach().double(), root)
    return (1 - values).abs().amax(-1)


def eigenvalues(
    X: Float64[Tensor, "batch d n"], root: Float64[Tensor, "d d"]
) -> Float64[Tensor, "batch d"]:
    """Those of A^{1/2} (XX'/n) A^{1/2}, ascending; `root` is A^{1/2}."""
    rows = root @ X
    found: Tensor = torch.linalg.eigvalsh(rows @ rows.mT / X.shape[-1])
    return found
