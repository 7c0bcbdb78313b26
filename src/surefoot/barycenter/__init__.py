"""Robust averages of Gaussians and covariance matrices by semi-unbalanced optimal transport.

Paper: arXiv 2410.08117.
"""

from surefoot.barycenter.barycenter import bures_barycenter, suot_barycenter
from surefoot.barycenter.bounds import (
    GuaranteeViolation,
    descent_bound,
    influence_bound,
    iterations_for,
    linear_rate,
    spectral_confinement,
    stationarity_bound,
)
from surefoot.barycenter.doors import (
    SUOTMean,
    TauPath,
    fuse_gaussians,
    mean_suot,
    suot_bures_barycenter,
    tau_path,
)
from surefoot.barycenter.gaussian import SuotResult, suot_dual_gap, suot_gaussian
from surefoot.barycenter.implicit import SUOTBarycenterLayer
from surefoot.barycenter.influence import Breakdown, breakdown, map_limit
from surefoot.barycenter.optimality import certificate, confinement_check
from surefoot.barycenter.result import BarycenterResult

__all__ = [
    "BarycenterResult",
    "Breakdown",
    "GuaranteeViolation",
    "SUOTBarycenterLayer",
    "SUOTMean",
    "SuotResult",
    "TauPath",
    "breakdown",
    "bures_barycenter",
    "certificate",
    "confinement_check",
    "descent_bound",
    "fuse_gaussians",
    "influence_bound",
    "iterations_for",
    "linear_rate",
    "map_limit",
    "mean_suot",
    "spectral_confinement",
    "stationarity_bound",
    "suot_barycenter",
    "suot_bures_barycenter",
    "suot_dual_gap",
    "suot_gaussian",
    "tau_path",
]
