"""The problem of `apps/raclora`: softmax regression on digits, cut into partitions by label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from surefoot._numerics.checks import check_choice
from surefoot._problems.convex import Problem
from surefoot._problems.real import real
from surefoot._problems.softmax import softmax_on
from surefoot.federated.apps import strategy_settings
from surefoot.federated.partition import lda_partition
from surefoot.federated.run_config import FLOOR, number, refuse_unknown, whole
from surefoot.federated.task import State, Visit
from surefoot.lora.doors.flower import ClientPrivacy, RacSettings, RacStrategy

L2 = 0.05
KEYS = frozenset(
    {
        "alpha",
        "rank",
        "gamma",
        "local-steps",
        "train",
        "eta",
        "noise-multiplier",
        "clip-norm",
        "secret-draw",
    }
)


@dataclass
class DigitsProblem:
    """Cross-entropy plus (0.05/2) |W|^2 on 10 x 64 weights, float64, full gradients."""

    problem: Problem
    labels: Int[Tensor, " n"]
    parts: list[Int[np.ndarray, " _"]]

    def initial(self, seed: int) -> State:
        """W = 0."""
        return {"linear.weight": torch.zeros(10, 64, dtype=torch.float64)}

    def loss(self, weights: State, visit: Visit, step: int) -> Tensor:
        """Of one client, all of its examples."""
        visit.record.note(gradients="clients")
        return self.problem.f(
            weights["linear.weight"], torch.as_tensor(self.parts[visit.partition])
        )

    def examples(self, visit: Visit) -> int:
        """Of one client."""
        return len(self.parts[visit.partition])

    def evaluate(self, weights: State) -> dict[str, float]:
        """Accuracy on all digits and the mean loss: a convex fit, not a test of generalisation."""
        logits = self.problem.features @ weights["linear.weight"].T
        return {
            "accuracy": float((logits.argmax(1) == self.labels).double().mean()),
            "loss": float(self.problem.part(logits, None)),
        }


def digits_problem(config: Mapping[str, Any]) -> DigitsProblem:
    """From a run's configuration: num-partitions, alpha, seed; ValueError for a key that nobody reads."""
    refuse_unknown(config, FLOOR | KEYS)
    _, labels = real("digits")
    parts = lda_partition(
        labels.numpy(), whole(config, "num-partitions", 2, 1), number(config, "alpha", 0.1, above=0),
        whole(config, "seed", 0),
    )  # fmt: skip
    return DigitsProblem(softmax_on("digits", L2, solve=False), labels, parts)


def rac_strategy(config: Mapping[str, Any], problem: Any) -> RacStrategy:
    """From a run's configuration: rank, gamma, local-steps, train, eta, and the floor's keys.

    With clip-norm above 0 it is private: noise-multiplier, and secret-draw for a fraction below 1.

    Raises
    ------
    ValueError
        A value out of range, noise-multiplier without clip-norm, or a public draw of some clients with it.
    """
    sigma, clip = (number(config, k, 0.0, least=0) for k in ("noise-multiplier", "clip-norm"))
    if sigma and not clip:
        raise ValueError(
            f"noise-multiplier = {sigma} needs clip-norm, the size that it is in units of"
        )
    shared = strategy_settings(config)
    drawn = check_choice("secret-draw", config.get("secret-draw", False), (True, False))
    if clip and shared["fraction"] < 1 and not drawn:
        raise ValueError(
            f"fraction = {shared['fraction']} needs secret-draw = true with clip-norm: a draw that follows "
            "from the seed amplifies nothing, as every client is told it"
        )
    settings = RacSettings(
        whole(config, "rank", 4, 1), number(config, "gamma", 0.1, above=0),
        whole(config, "local-steps", 5, 1), config.get("train", "B"), number(config, "eta", 1.0, above=0),
    )  # fmt: skip
    return RacStrategy(
        settings=settings, privacy=ClientPrivacy(sigma, clip) if clip else None,
        secret_draw=drawn, **shared,
    )  # fmt: skip


def check_keys(config: Mapping[str, Any]) -> None:
    """Refuse what the app would refuse, before anything is started.

    Raises
    ------
    ValueError
        A value out of range, or keys that do not go together.
    """
    number(config, "alpha", 0.1, above=0)
    rac_strategy(config, None)
