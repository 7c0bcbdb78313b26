"""Valid calls of `surefoot.architecture`."""

import numpy as np
import torch
from torch import nn

from surefoot import architecture as A

g = np.random.default_rng(0)
X = g.normal(size=(40, 2))
Y = X[:, 0] - X[:, 1]


def space():
    return A.MLPSpace(2, 1, 4, 2, ("tanh", "relu"))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def decoder():
    return A.random_decoder(space())


def calls():
    return {
        "Activation": lambda: {
            "name": "own",
            "function": torch.tanh,
            "module": nn.Tanh,
            "lipschitz": 1.0,
        },
        "MLPSpace": lambda: {
            "n_in": 2,
            "n_out": 1,
            "max_width": 4,
            "max_depth": 2,
            "activations": ("tanh",),
            "weight_scale": 3.0,
            "bias_scale": 1.0,
            "sparsity": (0.0, 0.3),
            "input_dist": "uniform",
            "input_scale": 1.0,
            "min_width": 3,
            "standardise": True,
            "edges": "independent",
        },
        "MixedActivation": lambda: {"counts": [1, 2], "names": ["tanh", "relu"]},
        "NetworkAutoencoder": lambda: {
            "space": space(),
            "z_dim": 8,
            "encoder": "probe",
            "decoder": "mlp",
            "gate": "ste",
            "winner_weight": 1.0,
            "all_weight": 0.25,
            "loss": "normalised",
            "seed": 0,
        },
        "Select": lambda: {"index": [0, 1], "n_features": 3},
        "compact": lambda: {"module": net()},
        "module_spec": lambda: {"module": net()},
        "prune_with_bound": lambda: {"module": net(), "X": X, "tol": 0.1, "bound": "mean"},
        "pruning_bound": lambda: {"module": net(), "pruned": net(), "X": X},
        "random_decoder": lambda: {"space": space(), "seed": 0},
        "random_features": lambda: {
            "space": space(),
            "X": X,
            "y": Y,
            "task": "regression",
            "depth": 1,
            "networks": 4,
            "seed": 0,
        },
        "search": lambda: {
            "decoder": space(),
            "X": X,
            "y": Y,
            "task": "regression",
            "depth": 1,
            "restarts": 2,
            "size_penalty": 0.03,
            "steps": 2,
            "lr": 0.02,
            "batch_size": 16,
        },
        "pretrained_path": lambda: {"space": space(), "steps": 2, "seed": 0, "folder": "here"},
    }
