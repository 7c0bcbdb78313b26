"""Valid calls of `surefoot.lora`."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from faults.valid.fields import fields_of
from surefoot import lora as L


def wrapped():
    torch.manual_seed(0)
    return get_peft_model(nn.Sequential(nn.Linear(8, 6)), LoraConfig(r=2, target_modules=["0"]))


def chain():
    return L.ChainOfLora(wrapped(), L.RacConfig(steps_per_block=4))


def smooth():
    made = chain()
    return {
        "chain": made,
        "closure": lambda: made.model(torch.ones(2, 8)).square().mean(),
        "iters": 5,
    }


def calls():
    layer = chain().layers[0].module
    return {
        "ChainOfLora": lambda: {
            "peft_model": wrapped(),
            "config": L.RacConfig(steps_per_block=4),
            "adapter_name": "default",
        },
        "RacConfig": lambda: {
            "method": "rac_lora",
            "train": "B",
            "sketch": "orthonormal",
            "steps_per_block": 4,
            "blocks": 3,
            "seed": 0,
        },
        "RacCallback": lambda: {"chain": chain(), "resume_dir": None},
        "chain_param_groups": lambda: {"chain": chain(), "gamma": 0.1},
        "local_smoothness": smooth,
        "theory_lr": lambda: {"gamma": 0.1, "layer": layer, "adapter_name": "default"},
        "BlockReport": lambda: fields_of(L.BlockReport(0, 4, "B", 1.0, 2.0, 0.1)),
        "RacBound": lambda: fields_of(L.rac_bound(3, L=1.0, gamma=0.1, lam=0.5, gap0=1.0)),
    }
