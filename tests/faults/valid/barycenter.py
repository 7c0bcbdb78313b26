"""Valid calls of `surefoot.barycenter`."""

import numpy as np
from contract.pure import COVS

from faults.valid.fields import fields_of
from surefoot import barycenter as B


def calls():
    result = B.suot_barycenter(COVS, tau=1.0)
    return {
        "SUOTBarycenterLayer": lambda: {
            "tau": 1.0,
            "learn_tau": False,
            "tol": 1e-10,
            "max_iter": 100,
        },
        "suot_barycenter": lambda: {
            "covs": COVS,
            "means": COVS[:, 0],
            "weights": np.full(3, 1 / 3),
            "tau": 1.0,
            "mass": "fixed",
            "method": "bb",
            "step": 1.0,
            "max_iter": 50,
            "tol": 1e-8,
            "init": np.eye(2),
        },
        "bures_barycenter": lambda: {"covs": COVS},
        "breakdown": lambda: {"result": result, "problem": 0},
        "confinement_check": lambda: {"result": result, "problem": 0},
        "BarycenterResult": lambda: fields_of(result),
        "Breakdown": lambda: fields_of(B.breakdown(result)),
        "SuotResult": lambda: fields_of(B.suot_gaussian(COVS[0], COVS[1], 1.0)),
        "TauPath": lambda: fields_of(B.tau_path(COVS, [0.5, 1.0])),
    }
