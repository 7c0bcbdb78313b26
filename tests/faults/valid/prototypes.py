"""Valid calls of `surefoot.prototypes`."""

import numpy as np
import torch
from torch import nn

from faults.valid.fields import fields_of
from surefoot import prototypes as P

D, K, N = 6, 3, 24


def rows(seed=0):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(N, D, generator=g)
    return z / z.norm(dim=1, keepdim=True), torch.arange(N) % K


def head():
    return P.ZeroShotHead(torch.randn(K, D, generator=torch.Generator().manual_seed(5)), scale=5.0)


def protos(seed=0):
    return P.extract_prototypes(*rows(seed), method="mean")


def released():
    return P.GaussianRelease(1.0, 1e-5)


def client_task(config):
    raise NotImplementedError


def calls():
    z, y = rows()
    adapter = P.ResidualAdapter(D, seed=0)
    texts = P.DomainTexts(
        ("a", "b", "c", "d"),
        np.array([0, 1, 0, 1]),
        np.array([0, 0, 1, 1]),
        ("x", "y"),
        ("m", "n"),
        (("x",), ("y",)),
    )
    sets = [protos(0), protos(1)]
    return {
        "AccuracyMatrix": lambda: fields_of(P.accuracy_matrix(adapter, [(z, y)], head())),
        "Coverage": lambda: fields_of(P.coverage(z, y, protos())),
        "Domain": lambda: {"name": "a", "train": (z, y), "val": (z, y), "test": (z, y)},
        "DomainTexts": lambda: dict(fields_of(texts)),
        "GaussianRelease": lambda: {"epsilon": 1.0, "delta": 1e-5, "clip": 1.0},
        "Ledger": lambda: {"max_epsilon": 2.0, "delta": 1e-5, "mu_squared": 0.0},
        "MPFTStrategy": lambda: {
            "head": head(),
            "num_clients": 2,
            "min_clients": 1,
            "node_timeout": 1.0,
            "epochs": 1,
            "seed": 0,
            "method": "mean",
            "ratio": 0.1,
            "min_cluster": 2,
            "lr": 1e-3,
            "batch_size": 10,
        },
        "Mixture": lambda: {
            "means": torch.ones(2, D),
            "variances": torch.ones(2, D),
            "weights": torch.full((2,), 0.5),
            "count": 4,
        },
        "PrototypeSet": lambda: {
            k: v for k, v in fields_of(protos()).items() if k not in ("record",)
        },
        "ResidualAdapter": lambda: {"d": D, "hidden": 4, "seed": 0},
        "ZeroShotHead": lambda: {"rows": torch.ones(K, D), "scale": 5.0, "normalize": True},
        "accuracy_matrix": lambda: {"models": adapter, "tests": [(z, y)], "head": head()},
        "adapt_locally": lambda: {
            "adapter": adapter,
            "feats": z,
            "y": y,
            "head": head(),
            "kd_weight": 1.0,
            "epochs": 1,
            "shots": None,
            "lr": 1e-3,
            "batch_size": 8,
            "reduction": "batchmean",
            "seed": 0,
        },
        "additive_model": lambda: {
            "sets": [P.extract_prototypes(*rows(i), method="mean") for i in range(2)]
        },
        "audit_membership": lambda: {
            "protos": protos(),
            "members": z,
            "y": y,
            "others": rows(9)[0],
            "y_others": y,
        },
        "compare_with_pooled": lambda: {"sets": sets, "feats": z, "y": y, "head": head()},
        "coverage": lambda: {"feats": z, "y": y, "protos": protos()},
        "embed": lambda: {"encoder": nn.Identity(), "x": z, "batch_size": 8},
        "extract_prototypes": lambda: {
            "feats": z,
            "y": y,
            "method": "mean",
            "ratio": 0.5,
            "min_cluster": 2,
            "seed": 0,
            "encoder_id": "",
        },
        "federate": lambda: {
            "method": "fedavg",
            "clients": [rows(0), rows(1)],
            "head": head(),
            "rounds": 1,
            "lr": 1e-3,
            "local_epochs": 1,
            "mu": 1.0,
            "tau": 0.5,
            "momentum": 0.1,
            "batch_size": 8,
            "seed": 0,
        },
        "inspect_upload": lambda: {
            "protos": protos(),
            "feats": z,
            "y": y,
            "others": rows(9)[0],
            "y_others": y,
        },
        "make_client_app": lambda: {"task": client_task, "settings": {}, "mods": ()},
        "measure_advantage": lambda: {
            "release": released(),
            "n": 2,
            "trials": 100,
            "method": "mean",
            "confidence": 0.99,
            "seed": 0,
        },
        "sample_mixtures": lambda: {"uploads": [P.fedpft(z, y)], "per_record": 2, "seed": 0},
        "split_domains": lambda: {
            "z": torch.cat([rows(i)[0] for i in range(4)]),
            "labels": np.tile(y.numpy(), 4),
            "domains": np.repeat([0, 1], 2 * N),
            "names": ("a", "b"),
            "seed": 0,
        },
        "train_global_adapter": lambda: {
            "sets": sets,
            "head": head(),
            "lr": 1e-3,
            "epochs": 1,
            "batch_size": 4,
            "solver": "adamw",
            "seed": 0,
            "early_stop": True,
            "residual": True,
        },
        "train_pooled": lambda: {
            "feats": z,
            "y": y,
            "head": head(),
            "lr": 1e-3,
            "steps": (2,),
            "batch_size": 4,
            "seed": 0,
        },
    }
