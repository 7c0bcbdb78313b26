"""Valid calls of `surefoot` itself."""

import numpy as np
import torch
from torch import nn

import surefoot as S
from faults.valid.fields import fields_of


def record():
    made = S.Record()
    for t in range(4):
        made.append(0, t, q=0.5**t)
    return made


def promise(r):
    return 0.6 ** np.asarray(r.curves("q").steps, float)


def guarantee():
    return S.Guarantee("g", "s", "s", "q", "upper", "every run", promise)


def run(config, seed, r):
    for t in range(3):
        r.append(seed, t, q=0.5**t)


def part():
    return S.Part("a", "t", run, guarantees=lambda config: [guarantee()], deterministic=True)


def study():
    return S.Study("own", "t", "p", S.StudyConfig, (part(),))


def watched():
    model = nn.Linear(2, 1)
    return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}


def calls():
    return {
        "Assumption": lambda: fields_of(S.Assumption("a", "b", 1.0, True, "how")),
        "Certificate": lambda: fields_of(S.certify(record(), guarantee())),
        "Guarantee": lambda: {
            "name": "g",
            "statement": "s",
            "source": "s",
            "quantity": "q",
            "sense": "upper",
            "holds_in": "every run",
            "bound": promise,
            "heuristic": False,
        },
        "Part": lambda: {"name": "a", "title": "t", "run": run, "deterministic": True},
        "Study": lambda: {
            "name": "own",
            "title": "t",
            "paper": "p",
            "config": S.StudyConfig,
            "parts": (part(),),
            "module": None,
        },
        "StudyConfig": lambda: {"size": "quick", "part": (), "seed": 0, "seeds": 2},
        "Record": lambda: {"folder": None, "flush_every": 5.0},
        "certify": lambda: {
            "record": record(),
            "guarantee": guarantee(),
            "confidence": 0.99,
            "steps": None,
        },
        "run_study": lambda: {
            "study": study(),
            "config": S.StudyConfig(),
            "backend": "threading",
            "jobs": 1,
            "out": "runs",
            "confidence": 0.99,
            "until_decided": False,
        },
        "Watch": lambda: {
            **watched(),
            "probes": {},
            "every": 2,
            "seed": 0,
            "record": S.Record(),
            "checkpoint": None,
        },
        "watch": lambda: {**watched(), "probes": (), "every": 2, "seed": 0},
    }
