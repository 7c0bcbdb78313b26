"""The problem of `apps/zofed`: softmax regression on digits, cut into partitions by label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot._numerics.checks import check_number
from surefoot._problems.real import real
from surefoot.federated.apps import strategy_settings
from surefoot.federated.partition import lda_partition
from surefoot.federated.run_config import FLOOR, number, refuse_unknown, whole
from surefoot.federated.task import Visit
from surefoot.zeroth_order.doors.flower import ScalarStrategy, ScalarTask
from surefoot.zeroth_order.federated import Agreement, ScalarProblem
from surefoot.zeroth_order.private import Privacy

# Of a run's configuration: the setting of LOZO, and its default.
DIRECTIONS = {
    "lr": ("lr", 0.02), "rank": ("rank", 2), "nu": ("nu", 50), "eps": ("eps", 1e-3),
    "directions": ("num_directions", 1),
}  # fmt: skip
KEYS = frozenset(
    {"alpha", *DIRECTIONS, "noise-multiplier", "clip", "sample-rate", "trust", "secret-draw"}
)
TEST = 297
POPULATION = 1500
# What the mechanism alone reads, and what each is where it is not given.
OF_PRIVACY = {"trust": "server", "sample-rate": 1.0}


@dataclass
class DigitsScalars:
    """Softmax regression from zero weights, float64: 1,500 digits on the sites, 297 on the server."""

    features: Float[Tensor, "n 64"]
    labels: Int[Tensor, " n"]
    parts: list[Int[np.ndarray, " _"]]

    def model(self) -> nn.Module:
        """Zero weights."""
        made = nn.Linear(64, 10, dtype=torch.float64)
        nn.init.zeros_(made.weight)
        nn.init.zeros_(made.bias)
        return made

    def losses(self, model: nn.Module, rows: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Cross-entropy of each digit."""
        found: Tensor = nn.functional.cross_entropy(
            model(self.features[rows]), self.labels[rows], reduction="none"
        )
        return found

    def rows(self, visit: Visit) -> Int[Tensor, " n"]:
        """All of a site's."""
        return torch.as_tensor(self.parts[visit.partition])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Of the server's own digits."""
        with torch.no_grad():
            logits = model(self.features[-TEST:])
        wanted = self.labels[-TEST:]
        return {
            "accuracy": float((logits.argmax(1) == wanted).double().mean()),
            "loss": float(nn.functional.cross_entropy(logits, wanted)),
        }


def digits_scalars(config: Mapping[str, Any]) -> DigitsScalars:
    """From a run's configuration: num-partitions, alpha, seed; ValueError for a key that nobody reads."""
    refuse_unknown(config, FLOOR | KEYS)
    features, labels = real("digits")
    # The same digits on the server whatever the seed: nobody trains on them.
    order = torch.as_tensor(np.random.default_rng(0).permutation(len(labels)))
    features, labels = features[order].double(), labels[order]
    parts = lda_partition(
        labels[:-TEST].numpy(), whole(config, "num-partitions", 2, 1),
        number(config, "alpha", 0.1, above=0), whole(config, "seed", 0),
    )  # fmt: skip
    return DigitsScalars(features, labels, parts)


def agreement_of(config: Mapping[str, Any], population: int) -> Agreement:
    """LOZO's settings and the mechanism of a run's configuration; clip above 0 makes it private.

    Raises
    ------
    ValueError
        A value out of range, noise-multiplier without clip, or trust or sample-rate without both.
    """
    found: dict[str, Any] = {"scale": "unit", "seed": whole(config, "seed", 0)}
    for key, (name, default) in DIRECTIONS.items():
        if isinstance(default, int):
            found[name] = whole(config, key, default, 1)
        else:
            found[name] = number(config, key, default, above=0)
    sigma, clip = (number(config, k, 0.0, least=0) for k in ("noise-multiplier", "clip"))
    rate = check_number("sample-rate", config.get("sample-rate", 1.0), above=0, most=1)
    if sigma and not clip:
        raise ValueError(f"noise-multiplier = {sigma} needs clip, the size that it is in units of")
    asked = [
        f"{key} = {config[key]!r}"
        for key, default in OF_PRIVACY.items()
        if config.get(key, default) != default
    ]
    if asked and not (clip and sigma):
        raise ValueError(
            f"{' and '.join(asked)} {'need' if len(asked) > 1 else 'needs'} clip and noise-multiplier above "
            "0: without them nothing is private"
        )
    if not clip:
        return Agreement(found)
    return Agreement(found, Privacy(sigma, clip, rate, population), config.get("trust", "server"))


def check_keys(config: Mapping[str, Any]) -> None:
    """Refuse what the app would refuse, before anything is started.

    Raises
    ------
    ValueError
        A value out of range, or keys that do not go together.
    """
    number(config, "alpha", 0.1, above=0)
    agreed = agreement_of(config, POPULATION)
    ScalarStrategy(
        **strategy_settings(config), problem=cast(ScalarProblem, None), directions=agreed.directions,
        privacy=agreed.privacy, trust=agreed.trust,
    )  # fmt: skip


def digits_task(config: Mapping[str, Any]) -> ScalarTask:
    """The server's task: N is public, and the same for every partition."""
    problem = digits_scalars(config)
    return ScalarTask(problem, agreement_of(config, len(problem.labels) - TEST))
