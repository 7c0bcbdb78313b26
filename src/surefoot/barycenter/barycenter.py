"""The one entry point: robust averages of covariance matrices and Gaussians."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.barycenter._chord.hermitian import check_options, is_complex
from surefoot.barycenter._solver.intersection import intersect
from surefoot.barycenter._solver.request import read_request
from surefoot.barycenter._solver.rules import INNER_ITER, STEP, rule_of
from surefoot.barycenter._solver.settings import Settings
from surefoot.barycenter._solver.solve import SQRTS, solve
from surefoot.barycenter.result import BarycenterResult


@checked
def suot_barycenter(
    covs: Any, *, means: Any = None, weights: Any = None, tau: Any = "auto", mass: str = "fixed",
    mass_tau: Any = None, method: str = "bb", step: float = STEP, inner_iter: int = INNER_ITER,
    init: Any = None, max_iter: int = 1000, tol: float = 1e-8, optimality_gap: bool = True,
    record: bool = True, debias: str | None = None, sqrt: str = "eigh", certify: bool | None = None,
) -> BarycenterResult:  # fmt: skip
    """The semi-unbalanced barycenter: the Gaussian that is nearest to inputs which may deform.

    It minimises F(B) = 1/2 sum_i lam_i Upsilon_tau(A_i, B). tau moves it from covariance
    intersection (tau = 0) to the Wasserstein barycenter (tau = inf).

    Parameters
    ----------
    covs
        Covariances (..., n, d, d), positive semidefinite; leading dimensions are a batch of problems.
        NumPy or torch; the result is of the same kind. All is computed in float64, of float32 inputs
        too, whose result is then rounded to float32: a float32 eigendecomposition would lose 3e-5 of
        Upsilon at a condition number of 1e4 and could not reach `tol`. Complex Hermitian covariances
        (complex128, of full rank, fixed mass) give a complex result, and are worth what half their real
        form [[Re, -Im], [Im, Re]] is.
    means
        Means (..., n, d), or None for centred Gaussians.
    weights
        lam_i (..., n), not negative; equal by default. A weight is a repetition: 3 is three copies, in all
        that is chosen from the inputs too (tau, the temperature of the mass, starts).
    tau
        Price of deforming an input, in the unit of a variance; a number, one a problem, or "auto": the
        weighted mean of tr(A_i) / d.
    mass
        "fixed", or "free": each input also chooses how much of it takes part, and outliers of any kind
        lose their weight. Not convex: solved from several starts.
    mass_tau
        Temperature of the free mass: a number, "median" (of Upsilon, refreshed for ten steps), or
        None for tau.
    method
        "bb" (default), "eggd", "hybrid", "newton", or a baseline: "eggd_adaptive", "autograd",
        "autograd_momentum", "autograd_cyclic", "autograd_momentum_cyclic".
    step
        eta of all methods but "bb" and "newton", which find their own; 1 is the step of the theory.
    inner_iter
        Inner steps of "hybrid" at most, 100 by default; of no other method.
    init
        "euclid", "identity", "harmonic", "medoid" or an array. None is "euclid" for fixed mass; for
        free mass the best of euclid, harmonic and medoid.
    max_iter, tol
        Stop after so many steps, or when ||G||_B <= tol sqrt(tr B), G = I - sum lam_i S_i. B is then
        good to about tol/tau relative for small tau.
    optimality_gap
        Prove how far F may be above its minimum: the result's `optimality_gap` and `rate_bound`.
    record
        Keep the history, which most of the result's `certificates()` speak of.
    debias
        "trace" multiplies the result by the one number `scale` for which tr(scale B) is the mean trace
        of the inputs, sum_i p_i tr(A_i) with the effective weights p. The barycenter lies below the
        arithmetic mean of noisy covariances; this undoes it in total variance, not in shape. A
        deviation from the paper: the result no longer minimises F, and everything beside `cov` speaks
        of cov / scale. With fixed mass p are the weights given: a huge input then counts in full again.
    sqrt
        "eigh": one eigendecomposition an input and step. "newton-schulz": matrix products instead (and an
        inverse and a Cholesky factor), for GPUs, whose batched eigendecompositions are slow; on a CPU it
        is slower. Singular inputs, and points with a condition number above some 5e6, fall back to eigh
        with a UserWarning.
    certify
        The name of `optimality_gap` in version 0.1.0.

    Raises
    ------
    ValueError
        For inputs that are no covariances, weights that are negative or all 0, tau < 0, a singular
        start; each names what is wrong.
    SurefootError
        Where "newton" or a baseline comes to a point that is not positive definite any more.
    GuaranteeViolation
        Where a step does not descend as it must: a defect.

    Warns
    -----
    UserWarning
        For float32 inputs with a condition number above 1e5, whose small eigenvalues float32 has
        rounded; those below d 2^-23 of the largest are taken for 0. For weights that do not sum to 1.
    ConvergenceWarning
        Where max_iter ends the run, or rounding does (newton); it states the optimality gap.

    Source: arXiv 2410.08117. The closed forms and all bounds are derived here.
    """
    with torch.no_grad():
        if is_complex(covs):
            check_options(method, init, means, mass, sqrt)
        request = read_request(covs, means, weights, tau, mass, mass_tau)
        max_iter = check_number("max_iter", max_iter, least=0, whole=True)
        if debias not in (None, "trace"):
            raise ValueError(f'debias must be None or "trace", got {debias!r}')
        check_choice("sqrt", sqrt, SQRTS)
        how = Settings(
            method, rule_of(method, step, inner_iter), init, max_iter,
            check_number("tol", tol, above=0), sqrt, record,
            optimality_gap if certify is None else certify,
        )  # fmt: skip
        if 0.0 not in request.tau.tolist():
            solution = solve(request, how)
        elif request.covs.is_complex():
            raise ValueError(
                "tau must be positive where covs are complex; for tau = 0 give the real form "
                "[[A.real, -A.imag], [A.imag, A.real]]"
            )
        else:
            solution = intersect(request.symmetrised())
    result = BarycenterResult.of(solution, request, method, debias=debias)
    if result.converged is not True and not bool(np.all(result.converged)):
        _warn(result, int(max_iter))
    return result


@checked
def bures_barycenter(covs: Any, **options: Any) -> BarycenterResult:
    """The Wasserstein barycenter of Gaussians, accelerated and certified: `suot_barycenter` at tau = inf."""
    if "tau" in options:
        raise ValueError(
            f"tau is inf for bures_barycenter, got {options['tau']!r}: use suot_barycenter for any other"
        )
    return suot_barycenter(covs, tau=math.inf, **options)


@checked
def fuse_gaussians(
    means: Any, covs: Any, weights: Any = None, tau: Any = "auto", **options: Any
) -> BarycenterResult:
    """One estimate of several, means (n, d) with covariances (n, d, d), whose errors may be correlated.

    tau = 0 is covariance intersection in closed form; larger tau trusts confident inputs less. The
    mean and covariance of the result are the fused estimate, `outlier_score` says who disagrees.

    Parameters
    ----------
    means
        The estimates (n, d).
    covs
        Their covariances (n, d, d), in squared units of the means.
    weights
        How much each counts (n,), not negative; equal by default.
    tau
        As in `suot_barycenter`.
    options
        All others of `suot_barycenter`.

    Raises
    ------
    ValueError
        As `suot_barycenter` does; at tau = 0 also for singular covariances.
    """
    return suot_barycenter(covs, means=means, weights=weights, tau=tau, **options)


def _warn(result: BarycenterResult, max_iter: int) -> None:
    worst = float(np.max(np.asarray(result.optimality_gap)))
    known = (
        "how far F is above its minimum is not known"
        if math.isnan(worst)
        else f"F is proved to be at most {worst:.3g} above its minimum"
    )
    steps = int(np.max(np.asarray(result.n_iter)))
    why = f"after max_iter = {max_iter} steps"
    if steps < max_iter:
        why = (
            f"after {steps} steps, as no step of {result.method} leads further down by what rounding would "
            "not hide,"
        )
    warnings.warn(
        f"stopped {why} with ||G||_B = "
        f"{float(np.max(result.grad_norm)):.3g} sqrt(tr B); {known}; raise max_iter or tol",
        ConvergenceWarning,
        stacklevel=3,
    )
