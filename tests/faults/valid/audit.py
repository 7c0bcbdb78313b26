"""Valid calls of `surefoot.privacy.audit`."""

import numpy as np
import torch

from faults.valid.fields import fields_of
from surefoot.privacy import audit


def scored(include, seed):
    generator = torch.Generator().manual_seed(seed)
    return include.double() * 3 + torch.randn(
        len(include), generator=generator, dtype=torch.float64
    )


def calls():
    many = {
        "train_fn": lambda there, seed: 2.0 * there + np.random.default_rng(seed).normal(),
        "score_fn": float,
        "runs": 20,
        "delta": 1e-5,
        "method": "clopper",
        "threshold": 1.0,
        "confidence": 0.95,
        "seed": 0,
    }
    result = audit.many_runs(**many)
    return {
        "one_run": lambda: {
            "train_fn": scored,
            "m": 20,
            "k": 5,
            "delta": 1e-5,
            "confidence": 0.95,
            "shadow": 2,
            "seed": 0,
        },
        "many_runs": lambda: dict(many),
        "from_scores": lambda: {
            "scores": np.linspace(3.0, 0.2, 12),
            "included": np.arange(12) < 6,
            "method": "one_run",
            "delta": 1e-5,
            "k": 3,
            "confidence": 0.95,
            "seed": 0,
        },
        "AuditResult": lambda: fields_of(result),
    }
