"""Accelerated descent with a measured certificate: NAG, AGNES, probes of the landscape, the ledger.

Papers: Gupta and Wojtowytsch, arXiv 2410.08395; Gupta, Siegel and Wojtowytsch, arXiv 2302.05515.
"""

from surefoot.nesterov.bounds import agnes_bound, decreasing_bound, nag_bound, steps_to
from surefoot.nesterov.decreasing import DecreasingNAG
from surefoot.nesterov.flow import heavy_ball_flow
from surefoot.nesterov.lanczos import Interval
from surefoot.nesterov.landscape import Landscape
from surefoot.nesterov.ledger import Ledger, SmoothnessWarning
from surefoot.nesterov.ledger_certificate import LedgerCertificate
from surefoot.nesterov.noise import NoiseFit, NoiseSample, fit_noise
from surefoot.nesterov.optimizer import AGNES, NAG
from surefoot.nesterov.oracle import exact_quadratic_expectation
from surefoot.nesterov.parameters import (
    AgnesParams,
    NoiseWarning,
    agnes_parameters,
    nag_parameters,
)
from surefoot.nesterov.path_measures import certified_aiming, growth_constant
from surefoot.nesterov.projection import Projection
from surefoot.nesterov.schedule import NAGSchedule

__all__ = [
    "AGNES",
    "NAG",
    "AgnesParams",
    "DecreasingNAG",
    "Interval",
    "Landscape",
    "Ledger",
    "LedgerCertificate",
    "NAGSchedule",
    "NoiseFit",
    "NoiseSample",
    "NoiseWarning",
    "Projection",
    "SmoothnessWarning",
    "agnes_bound",
    "agnes_parameters",
    "certified_aiming",
    "decreasing_bound",
    "exact_quadratic_expectation",
    "fit_noise",
    "growth_constant",
    "heavy_ball_flow",
    "nag_bound",
    "nag_parameters",
    "steps_to",
]
