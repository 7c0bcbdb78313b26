"""Valid calls of `surefoot.in_context`."""

import numpy as np
import torch
from torch import nn

from faults.valid.fields import fields_of
from surefoot import in_context as I


def gd(X, y, xq):
    return 0.3 * torch.einsum("bdn,bn,bd->b", X, y, xq) / X.shape[-1]


class Net(nn.Module):
    def forward(self, X, y, xq):
        return gd(X, y, xq)


def answer(prompts):
    return ["1.0" for _ in prompts]


class Regressor:
    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.zeros(len(X))


def looped():
    return I.optimal_model(3, 6, 2)


def calls():
    prompts = I.GaussianPrompts(3, 6, seed=0)
    sigma = torch.eye(3, dtype=torch.float64)
    return {
        "GaussianPrompts": lambda: {"d": 3, "n": 6, "sigma": sigma, "noise": 0.1, "seed": 0},
        "LoopedTransformer": lambda: {
            "d": 3,
            "loops": 2,
            "tied": True,
            "train_u": False,
            "sigma": sigma,
            "form": "auto",
            "init_std": 0.1,
            "seed": 0,
        },
        "FullLinearAttention": lambda: {
            "d": 3,
            "loops": 2,
            "tied": False,
            "init_std": 0.1,
            "seed": 0,
        },
        "SoftmaxTransformer": lambda: {"d": 3, "loops": 2, "init_std": 0.1, "seed": 0},
        "GDPlusPlus": lambda: {"d": 3, "loops": 2},
        "TablePrompts": lambda: {
            "X": np.random.default_rng(0).normal(size=(30, 3)),
            "y": np.random.default_rng(1).normal(size=30),
            "n": 6,
            "components": 2,
            "whiten_with": "train",
            "seed": 0,
        },
        "TextPredictor": lambda: {"answer": answer, "digits": 4},
        "ModulePredictor": lambda: {"module": Net()},
        "RegressorPredictor": lambda: {"estimator": Regressor()},
        "Prompt": lambda: fields_of(prompts.sample(2)),
        "Value": lambda: fields_of(I.Value(1.0)),
        "Bound": lambda: fields_of(I.minimiser_bound(3, 6, 2)),
        "Schedule": lambda: fields_of(I.optimal_schedule(3, 6, 2)),
        "gradient_flow": lambda: {"d": 3, "n": 6, "loops": 2, "levels": 4, "seed": 0},
        "loop_longer": lambda: {
            "model": looped(),
            "prompts": prompts,
            "max_loops": 3,
            "samples": 20,
            "repeats": 2,
            "seed": 0,
        },
        "optimal_model": lambda: {"d": 3, "n": 6, "loops": 2, "tied": True, "sigma": sigma},
        "probe": lambda: {
            "fn": gd,
            "d": 3,
            "n": 6,
            "max_loops": 2,
            "seed": 0,
            "size": 64,
            "layerwise": False,
            "confidence": 0.99,
        },
        "train_looped": lambda: {
            "model": looped(),
            "prompts": prompts,
            "steps": 2,
            "lr": 0.02,
            "objective": "conditional",
            "batch": 8,
            "final_lr": 1e-4,
            "clip": "auto",
            "every": 1,
            "samples": 2000,
            "seed": 0,
        },
    }
