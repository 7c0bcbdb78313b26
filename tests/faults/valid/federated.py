"""Valid calls of `surefoot.federated`."""

import torch

from faults.valid.fields import fields_of
from surefoot import federated as F


class Problem:
    def initial(self, seed):
        return {"w": torch.zeros(2)}

    def train(self, state, visit):
        return {"w": state["w"] + 1}, 10, {}

    def evaluate(self, state):
        return {"size": float(state["w"].sum())}


def make_task(config):
    return Problem()


STATE = {"w": torch.ones(2)}


def calls():
    return {
        "DeterministicFedAvg": lambda: {
            "num_partitions": 3,
            "seed": 0,
            "fraction": 1.0,
            "rule": F.ServerRule(),
            "min_nodes": 1,
            "node_timeout": 1.0,
            "round_timeout": 2.0,
            "robust": None,
            "max_examples": 1e9,
        },
        "FederatedState": lambda: {
            "state": STATE,
            "history": F.FederationHistory(),
            "theorems": (),
        },
        "FederationHistory": lambda: fields_of(F.FederationHistory()),
        "ServerRule": lambda: {
            "rule": "fedadam",
            "lr": 1.0,
            "momentum": 0.9,
            "betas": (0.9, 0.99),
            "tau": 1e-3,
            "statistics": ("running_mean",),
        },
        "Visit": lambda: {
            "partition": 0,
            "num_partitions": 2,
            "server_round": 1,
            "seed": 0,
            "memory": {},
            "extra": {},
        },
        "federate": lambda: {
            "task": Problem(),
            "rounds": 2,
            "num_partitions": 2,
            "seed": 0,
            "fraction": 1.0,
            "rule": F.ServerRule(),
            "after": lambda *found: None,
            "robust": None,
            "max_examples": 1e9,
        },
        "from_arrays": lambda: {"record": F.to_arrays(STATE), "like": STATE},
        "to_arrays": lambda: {"state_dict": STATE},
        "wire_bytes": lambda: {"record": F.to_arrays(STATE)},
        "make_client_app": lambda: {"make_task": make_task, "settings": {"a": 1}, "mods": ()},
        "make_server_app": lambda: {
            "make_task": make_task,
            "make_strategy": None,
            "settings": {"a": 1},
            "done": lambda *found: None,
        },
        "weighted_mean": lambda: {"replies": {0: (STATE, 1.0), 1: (STATE, 2.0)}},
    }
