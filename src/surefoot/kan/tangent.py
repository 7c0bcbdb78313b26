"""The tangent (Gram) matrix K = J J' of a model on its points, and the step sizes that it permits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from surefoot._numerics.checks import check_choice, check_number
from surefoot.errors import SurefootError
from surefoot.kan.problem import Normalisation, Problem, Residual, as_problem

if TYPE_CHECKING:
    from surefoot.kan.local_rate import LocalRate

SINGULAR = 1e-12
"""lambda0 / lambda_max at which float64 can no longer tell K from a singular matrix."""


@dataclass(frozen=True)
class Tangent:
    """K = J J' at the present parameters and its eigenvalues in rising order, all in float64.

    Attributes
    ----------
    K
        The matrix, a row and a column a residual.
    eigvals, eigvecs
        K = eigvecs diag(eigvals) eigvecs'.
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


def tangent_of(problem: Problem) -> Tangent:
    """That of a problem, at its present parameters."""
    return Tangent.of(problem.gram())


def step_size(
    tangent: Tangent,
    mode: Literal["gd", "certified", "sgd"] = "gd",
    *,
    certificate: LocalRate | None = None,
    batch: int | None = None,
) -> float:
    """The step size that K permits, for L = |r|^2 / 2.

    Parameters
    ----------
    tangent
        At the start.
    mode
        "gd": 1 / lambda_max, where the spectral forecast holds. "certified": T1's, from the certificate.
        "sgd": T3's, for a batch drawn with replacement.
    certificate
        What `certificate(model, X, y)` gave; for the last two.
    batch
        Rows drawn a step; for "sgd".

    Raises
    ------
    ValueError
        The mode is none, or needs an argument that is missing: which.
    """
    check_choice("mode", mode, ("gd", "certified", "sgd"))
    if mode == "gd":
        if not tangent.lambda_max > 0:
            raise ValueError("tangent must have a positive eigenvalue, got K = 0: nothing trains")
        return 1 / tangent.lambda_max
    if certificate is None:
        raise ValueError(
            f"certificate must be what certificate(model, X, y) returns for mode {mode!r}, got None"
        )
    if mode == "certified":
        return certificate.step
    if batch is None:
        raise ValueError("batch must be the rows drawn a step for mode 'sgd', got None")
    return certificate.stochastic(check_number("batch", batch, least=1, whole=True)).step
