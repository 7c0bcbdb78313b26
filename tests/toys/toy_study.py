"""Noisy gradient descent on a parabola: a study small enough for tests of the house itself."""

import os
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from surefoot.guarantee import Assumption, Guarantee, Verdict
from surefoot.study import Part, Study, StudyConfig


@dataclass(frozen=True)
class ToyConfig(StudyConfig):
    """Its flags."""

    lr: float = 0.5
    """Step size; the promise needs lr <= 1."""
    noise: float = 0.1
    """Standard deviation of the gradient noise."""


def run(config, seed, record):
    rng = np.random.default_rng(seed)
    x = 1.0
    for step in range(30):
        record.append(seed, step, gap=0.5 * x * x)
        x -= config.lr * (x + config.noise * rng.standard_normal())


def crash(config, seed, record):
    record.append(seed, 0, gap=0.5)
    if seed == 1 and not os.path.exists(os.environ.get("TOY_MENDED", "")):
        raise RuntimeError("the toy breaks at seed 1")
    for step in range(1, 20):
        record.append(seed, step, gap=0.5 * 0.25**step * (1 + 0.01 * seed))


def guarantee(config):
    """E f(x_n) = (1-lr)^{2n} f(x_0) + a floor that is at most lr^2 noise^2 / (2 (1 - (1-lr)^2))."""
    n = np.arange(30)
    shrink = (1 - config.lr) ** 2
    floor = 0.5 * (config.lr * config.noise) ** 2 / (1 - shrink)
    return Guarantee(
        name="noisy descent",
        statement="E f(x_n) <= 2 (1-lr)^(2n) f(x_0) + 10 floors",
        latex=r"\mathbb{E} f(x_n) \le 2 (1-\eta)^{2n} f(x_0) + c",
        source="closed form",
        quantity="gap",
        sense="upper",
        holds_in="expectation",
        bound=lambda record: shrink**n + 10 * floor,
        assumptions=lambda record: (
            Assumption("step size", "lr <= 1", config.lr, config.lr <= 1, "given"),
        ),
    )


def too_good(config):
    """A quarter of the bound, below the start: must come out BROKEN."""
    good = guarantee(config)
    return Guarantee(
        name="too good",
        statement="a quarter of the bound",
        source="planted",
        quantity="gap",
        sense="upper",
        holds_in="every run",
        bound=lambda record: good.bound(record) / 4,
    )


def crash_guarantee(config):
    return Guarantee(
        name="geometric",
        statement="f(x_n) <= 0.6 4^-n",
        source="closed form",
        quantity="gap",
        sense="upper",
        holds_in="every run",
        bound=lambda record: 0.6 * 0.25 ** record.curves("gap").steps,
    )


STUDY = Study(
    name="toy",
    title="Noisy descent on a parabola",
    paper="none",
    config=ToyConfig,
    module="toy_study",
    parts=(
        Part(
            "noisy",
            "Noise",
            run,
            lambda config: [guarantee(config)],
            tables=lambda config, record: {
                "last": pd.DataFrame({"mean gap": [record["gap"][:, -1].mean()]})
            },
            figures=lambda config, record: {"gap": go.Figure(go.Scatter(y=record["gap"][0]))},
            seeds={"quick": 8, "standard": 12, "paper": 30},
        ),
        Part(
            "planted",
            "A planted fault",
            run,
            lambda config: [too_good(config)],
            expects={"too good": Verdict.BROKEN},
            deterministic=True,
        ),
        Part(
            "crash",
            "A seed that crashes",
            crash,
            lambda config: [crash_guarantee(config)],
            seeds={"quick": 3, "standard": 3, "paper": 3},
        ),
    ),
)
