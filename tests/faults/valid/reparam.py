"""Valid calls of `surefoot.reparam`."""

import numpy as np
import torch
from torch import nn

from surefoot import reparam as R

IMAGES = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 4


def csla():
    return R.repopt_vgg((1,), (4,), num_classes=4, seed=0)


def plain():
    return R.convert_to_plain(csla())[0]


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def loss(model):
    return nn.functional.cross_entropy(model(IMAGES), LABELS)


def pair():
    model = csla()
    other, mults = R.convert_to_plain(model, seed=None)
    return {
        "plain": other,
        "plain_optimizer": R.RepSGD(other.named_parameters(), 0.1, grad_mults=mults),
        "csla": model,
        "csla_optimizer": sgd(model),
    }


def clipped():
    model = csla()
    loss(model).backward()
    return {"optimizer": sgd(model), "max_norm": 1.0}


def monitored():
    model = plain()
    return {
        "model": model,
        "optimizer": sgd(model),
        "closure": loss,
        "curvature": 2.0,
        "every": 1,
        "seed": 0,
    }


def task():
    return {
        "build": lambda mode: R.repopt_vgg((1,), (4,), num_classes=4, mode=mode),
        "images": IMAGES,
        "labels": LABELS,
        "parts": [np.arange(4), np.arange(4, 8)],
        "arm": "fedrepopt",
        "epochs": 1,
        "batch_size": 4,
        "lr": 0.05,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
    }


def calls():
    return {
        "ReparamConv2d": lambda: {
            "in_ch": 4,
            "out_ch": 4,
            "kernel_size": 3,
            "stride": 1,
            "groups": 1,
            "branches": ("kxk", "1x1"),
            "mode": "csla",
            "index": 0,
            "bias": False,
            "norm": "bn",
            "activation": "relu",
        },
        "RepSGD": lambda: {
            "params": plain().parameters(),
            "lr": 0.1,
            "momentum": 0.5,
            "weight_decay": 0.0,
            "nesterov": False,
            "dampening": 0.0,
            "proximal_mu": 0.0,
            "seed": 0,
        },
        "RepAdamW": lambda: {
            "params": plain().parameters(),
            "lr": 0.1,
            "betas": (0.9, 0.999),
            "eps": 1e-8,
            "weight_decay": 0.0,
            "variant": "exact",
            "seed": 0,
        },
        "Scales": lambda: {"values": {"a": {"kxk": torch.ones(3)}}},
        "RepOptTask": task,
        "Shadow": lambda: {**pair(), "seed": 0, "of": ""},
        "DescentMonitor": monitored,
        "branch_scales": lambda: {"model": csla()},
        "clip_csla_norm_": clipped,
        "convert_to_csla": lambda: {"model": csla(), "seed": 0},
        "convert_to_plain": lambda: {"model": csla(), "seed": 0},
        "cost_report": lambda: {
            "models": {"a": (m := plain(), sgd(m))},
            "loss": loss,
            "rounds": 2,
            "seed": 0,
        },
        "decay_groups": lambda: {"model": plain(), "weight_decay": 0.1},
        "equivalence_gap": lambda: {
            "plain": (m := csla()) and R.convert_to_plain(m, seed=None)[0],
            "csla": m,
        },
        "grad_mults": lambda: {"model": csla()},
        "hyper_search": lambda: {
            "model_fn": lambda: R.repopt_vgg((1,), (4,), num_classes=4, mode="hs"),
            "loader": [(IMAGES, LABELS)],
            "epochs": 1,
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "label_smoothing": 0.1,
            "max_norm": 5.0,
            "warmup_epochs": 0,
        },
        "merge_state": lambda: {"csla_model": csla()},
        "one_step_defect": lambda: {**pair(), "closure": loss, "seed": 0},
        "federate_beside": lambda: {
            "task": R.RepOptTask(**task()),
            "rounds": 1,
            "num_partitions": 2,
            "seed": 0,
            "fraction": 1.0,
        },
        "repopt_client_app": lambda: {"make_task": lambda config: R.RepOptTask(**task())},
        "repopt_ghost": lambda: {"width": 0.25, "num_classes": 4, "in_channels": 3, "mode": "csla"},
        "repopt_vgg": lambda: {
            "depths": (1,),
            "widths": (4,),
            "num_classes": 4,
            "in_channels": 3,
            "mode": "csla",
            "norm": "bn",
            "activation": "relu",
            "seed": 0,
        },
    }
