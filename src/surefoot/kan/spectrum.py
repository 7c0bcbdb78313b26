"""The tangent (Gram) matrix K = J J' of a model on its points, and its spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot.errors import SurefootError
from surefoot.kan.problem import Normalisation, Problem, Residual, as_problem

SINGULAR = 1e-12
"""lambda0 / lambda_max at which float64 can no longer tell K from a singular matrix."""


@checked(nan=True)
@dataclass(frozen=True)
class Tangent:
    """K = J J' at the present parameters and its eigenvalues in rising order, all in float64.

    Attributes
    ----------
    K
        The matrix, a row and a column a residual.
    eigvals
        The eigenvalues, rising.
    eigvecs
        The eigenvectors as columns: K = eigvecs diag(eigvals) eigvecs'.
    """

    K: Float64[Tensor, "n n"]
    eigvals: Float64[Tensor, " n"]
    eigvecs: Float64[Tensor, "n n"]

    @classmethod
    def of(cls, K: Float[Tensor, "n n"]) -> Tangent:
        """From the matrix alone.

        Raises
        ------
        SurefootError
            The matrix is not finite.
        """
        K = K.detach().double().cpu()
        K = (K + K.T) / 2
        if not bool(K.isfinite().all()):
            raise SurefootError(
                "the tangent matrix is not finite: the model's parameters or its derivatives at these "
                "points are not"
            )
        eigvals, eigvecs = torch.linalg.eigh(K)
        return cls(K, eigvals, eigvecs)

    @property
    def lambda_min(self) -> float:
        """lambda0, the number on which all promised rates hang; rounding may leave it below 0."""
        return float(self.eigvals[0])

    @property
    def lambda_max(self) -> float:
        """The largest eigenvalue: gradient descent needs eta < 2 / lambda_max."""
        return float(self.eigvals[-1])

    @property
    def singular(self) -> bool:
        """Whether lambda0 is at most 1e-12 lambda_max, which is rounding."""
        return self.lambda_min <= SINGULAR * self.lambda_max

    @property
    def cond(self) -> float:
        """lambda_max / lambda0, infinite where K is singular."""
        return float("inf") if self.singular else self.lambda_max / self.lambda_min

    def drift(self, other: Tangent) -> float:
        """|K - K_other| / |K_other|, Frobenius."""
        return float((self.K - other.K).norm() / other.K.norm())


@checked(leave=("residual",))
def tangent(
    model: Any,
    X: Any = None,
    residual: Residual | None = None,
    normalisation: Normalisation = "sum",
) -> Tangent:
    """K = J J' of a model's outputs at X, in closed form where the model has one.

    Parameters
    ----------
    model
        Any torch module, or a problem with points of its own (`PIKAN`).
    X
        Points (n, d); of a problem None.
    residual
        Another residual r(f, X), of f: points -> outputs, in place of f(X); targets do not matter.
    normalisation
        "sum": of L = sum r_i^2 / 2; "mean": of that divided by n, so K / n.

    Returns
    -------
    Tangent
        The matrix in float64, whatever the model's dtype: in float32 eigenvalues below 1e-5
        lambda_max are rounding.

    Raises
    ------
    ValueError
        X is missing or of another shape, or the model has no parameters.
    SurefootError
        K is not finite.
    """
    return tangent_of(as_problem(model, X, None, normalisation, residual))


def check_tangent(given: Any) -> Tangent:
    """What `tangent` returns, and nothing else."""
    if not isinstance(given, Tangent):
        raise ValueError(
            f"tangent must be what tangent(model, X) returns, got {type(given).__name__}"
        )
    return given


def tangent_of(problem: Problem) -> Tangent:
    """That of a problem, at its present parameters."""
    return Tangent.of(problem.gram())
