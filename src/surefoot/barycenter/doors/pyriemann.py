"""The robust mean of covariances in pyRiemann's calling convention."""

from __future__ import annotations

from functools import partial
from typing import Any

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import called
from surefoot.barycenter._solver.checks import normalised
from surefoot.barycenter.barycenter import suot_barycenter
from surefoot.errors import need


@checked
def mean_suot(
    X: Any = None, *, sample_weight: Any = None, tau: Any = "auto", mass: str = "fixed",
    mass_tau: Any = None, init: Any = None, tol: float = 1e-8, maxiter: int = 1000,
) -> Any:  # fmt: skip
    """The robust mean of covariances in pyRiemann's calling convention.

    Parameters
    ----------
    X
        Covariances (..., n, d, d). Without them the mean is returned as a callable of these settings, for
        classes that take one: `MDM(metric={"mean": mean_suot(tau=1.0), "distance": "riemann"})`.
    sample_weight
        One weight an input, not negative; they need not sum to 1.
    tau, mass, mass_tau, init, tol
        As in `suot_barycenter`.
    maxiter
        Its `max_iter`, under its name in pyRiemann.

    Raises
    ------
    ValueError
        As `suot_barycenter` does.
    """
    if X is None:
        return partial(
            mean_suot, tau=tau, mass=mass, mass_tau=mass_tau, init=init, tol=tol, maxiter=maxiter
        )
    with called(covs="X", weights="sample_weight", max_iter="maxiter"):
        return suot_barycenter(
            X, weights=normalised(sample_weight), tau=tau, mass=mass, mass_tau=mass_tau, init=init,
            tol=tol, max_iter=maxiter, optimality_gap=False, record=False,
        ).cov  # fmt: skip


def nearest_mean(mean: Any) -> Any:
    """pyRiemann's classifier by the nearest class mean, in the affine-invariant distance.

    `mean` is a callable, such as `mean_suot(tau=1.0)`, or one of pyRiemann's means by its name. Raises
    MissingExtraError without pyRiemann.
    """
    with need("pyriemann", extra="bench", part="the nearest class mean"):
        from pyriemann.classification import MDM
    return MDM(metric={"mean": mean, "distance": "riemann"})
