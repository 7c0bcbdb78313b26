"""The barycenter of Gaussians in POT's calling convention."""

from __future__ import annotations

from typing import Any

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import called
from surefoot.barycenter.barycenter import suot_barycenter


@checked
def suot_bures_barycenter(
    m: Any, C: Any, weights: Any = None, tau: Any = "auto", mass: str = "fixed", mass_tau: Any = None,
    num_iter: int = 1000, eps: float = 1e-8, log: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    """Mean mb (d,) and covariance Cb (d, d) for means m (n, d) and covariances C (n, d, d), as in POT.

    The signature of `ot.gaussian.bures_wasserstein_barycenter`.

    Parameters
    ----------
    m, C
        Means and covariances.
    weights
        lam_i (n,), not negative; equal by default.
    tau, mass, mass_tau
        As in `suot_barycenter`.
    num_iter, eps
        Its `max_iter` and `tol`, under their names in POT.
    log
        Return also a dictionary: `cost`, `n_iter`, `converged`, `optimality_gap`, `outlier_score`,
        `weights`.

    Raises
    ------
    ValueError
        As `suot_barycenter` does.
    """
    with called(covs="C", means="m", max_iter="num_iter", tol="eps"):
        result = suot_barycenter(
            C, means=m, weights=weights, tau=tau, mass=mass, mass_tau=mass_tau, max_iter=num_iter,
            tol=eps, record=False,
        )  # fmt: skip
    if not log:
        return result.mean, result.cov
    about = {
        "cost": 2 * result.value, "n_iter": result.n_iter, "converged": result.converged,
        "optimality_gap": result.optimality_gap, "outlier_score": result.outlier_score,
        "weights": result.weights_, "certificate": result.optimality_gap,
    }  # fmt: skip
    return result.mean, result.cov, about
