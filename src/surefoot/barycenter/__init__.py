"""Robust averages of Gaussians and covariance matrices by semi-unbalanced optimal transport.

Paper: arXiv 2410.08117.
"""

from surefoot.barycenter.barycenter import bures_barycenter, suot_barycenter
from surefoot.barycenter.bounds import GuaranteeViolation
from surefoot.barycenter.gaussian import SuotResult, suot_dual_gap, suot_gaussian
from surefoot.barycenter.result import BarycenterResult

__all__ = [
    "BarycenterResult",
    "GuaranteeViolation",
    "SuotResult",
    "bures_barycenter",
    "suot_barycenter",
    "suot_dual_gap",
    "suot_gaussian",
]
