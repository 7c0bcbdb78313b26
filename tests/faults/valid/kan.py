"""Valid calls of `surefoot.kan`."""

import torch

from faults.valid.fields import fields_of
from surefoot import kan as K


def data(n=6, d=2):
    g = torch.Generator().manual_seed(0)
    X = torch.rand(n, d, generator=g, dtype=torch.float64) * 1.6 - 0.8
    return X, X.sum(1).sin()


def net():
    return K.KAN2(2, 4, grid_size=3, seed=0)


def fitted(**more):
    X, y = data()
    return {"model": net(), "X": X, "y": y, **more}


def problem():
    X, y = data()
    return K.Regression(net(), X, y)


def layer():
    torch.manual_seed(0)
    return K.KANLinear(2, 2, grid_size=3, dtype=torch.float64)


def points():
    return (
        torch.rand(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.6
        - 0.8
    )


def calls():
    X, y = data()
    tangent = K.tangent(net(), X)
    r0 = net()(X).detach().reshape(-1) - y
    certificate = K.certificate(net(), X, y)
    pde = K.PDEResidual.poisson(1.0)
    return {
        "Grid": lambda: {"lo": -1.0, "hi": 1.0, "size": 5, "order": 3},
        "KAN": lambda: {"widths": [2, 3, 1]},
        "KAN2": lambda: {
            "d": 2,
            "m": 4,
            "grid_size": 3,
            "spline_order": 3,
            "grid_range": (-1.0, 1.0),
            "seed": 0,
        },
        "KANLinear": lambda: {
            "in_features": 2,
            "out_features": 2,
            "grid_size": 3,
            "spline_order": 3,
            "base_activation": "silu",
            "basis": "bspline",
            "bias": False,
            "out_of_grid": "zero",
            "kernel": "auto",
        },
        "PDEResidual": lambda: {"name": "own", "e": 0.0, "a": [1.0, 1.0], "f": 0.0},
        "PIKAN": lambda: {
            "model": net(),
            "pde": pde,
            "interior": X,
            "boundary": X,
            "g": 0.0,
            "weights": (1.0, 100.0),
        },
        "Regression": lambda: {"model": net(), "X": X, "y": y, "normalisation": "sum"},
        "ConvergenceMonitor": lambda: {"problem": problem(), "eta": 0.01, "every": 2, "seed": 0},
        "monitor": lambda: fitted(eta=0.01, every=2, seed=0, normalisation="sum"),
        "certificate": lambda: fitted(normalisation="sum"),
        "fit_gd": lambda: fitted(
            steps=3, eta="auto", mode="gd", every=2, seed=0, normalisation="sum"
        ),
        "fit_sgd": lambda: fitted(
            steps=3, batch=2, eta="auto", seed=0, every=2, normalisation="sum"
        ),
        "fit_lbfgs": lambda: {
            "problem": problem(),
            "iterations": 3,
            "every": 2,
            "history": 5,
            "seed": 0,
        },
        "tangent": lambda: {"model": net(), "X": X, "normalisation": "sum"},
        "forecast": lambda: {"tangent": tangent, "r0": r0, "eta": 0.01, "steps": [1, 2]},
        "stability_limit": lambda: {"tangent": tangent, "batch": 2},
        "step_size": lambda: {"tangent": tangent, "mode": "gd"},
        "steps_to": lambda: {"tangent": tangent, "r0": r0, "eta": 0.01, "eps": 0.5},
        "curve_norms": lambda: {"layer": layer(), "x": points()},
        "formula": lambda: {
            "layer": layer(),
            "out_feature": 0,
            "in_feature": 1,
            "x": points(),
            "least_R2": 0.9,
        },
        "prune": lambda: {
            "model": K.KAN([2, 3, 1], dtype=torch.float64),
            "x": points(),
            "keep": 0.9,
        },
        "LocalRate": lambda: fields_of(certificate),
        "PaperWidth": lambda: fields_of(K.paper_width(10, 5, 2, 0.1)),
        "Tangent": lambda: fields_of(tangent),
    }
