"""Thousands of DP-SGD trainings of softmax regression at once, with and without one canary."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surefoot.record import Fact

CANARIES = ("constant", "dirac", "random", "blank", "mislabeled")
CHUNK = 500


@dataclass(frozen=True)
class Batched:
    """Softmax regression from zero on fixed examples: sigma, q, T, learning rate and clip norm 1."""

    x: Float[Tensor, "n d1"]
    """Inputs with a 1 appended."""
    y: Int[Tensor, " n"]
    noise_multiplier: float
    sample_rate: float
    steps: int
    lr: float = 1.0
    classes: int = 10

    def facts(self) -> dict[str, Fact]:
        """What this loop does, and that only the last models are scored."""
        return {
            "noise_multiplier": self.noise_multiplier, "sample_rate": self.sample_rate,
            "steps": self.steps, "sampling": "poisson", "clipping": "per example",
            "clip_norm": 1.0, "optimizer": "SGD", "lr": self.lr, "momentum": 0.0,
            "weight_decay": 0.0, "releases": "last",
        }  # fmt: skip

    def train(
        self, canary: Canary, included: Bool[Tensor, " runs"], seed: int
    ) -> Float[np.ndarray, " runs"]:
        """The canary's score in each run, higher for "in"."""
        generator = torch.Generator().manual_seed(seed)
        parts = [
            canary.scores(self._chunk(canary, part, generator))
            for part in torch.split(included, CHUNK)
        ]
        return torch.cat(parts).double().numpy()

    def _chunk(
        self, canary: Canary, included: Tensor, generator: torch.Generator
    ) -> Float[Tensor, "runs c d1"]:
        runs, (n, d) = len(included), self.x.shape
        weights = torch.zeros(runs, self.classes, d)
        target = torch.nn.functional.one_hot(self.y, self.classes).to(weights)
        norms = self.x.norm(dim=1)
        size = self.lr / (self.sample_rate * n)
        for _ in range(self.steps):
            delta = torch.softmax(torch.einsum("rcd,nd->rnc", weights, self.x), dim=2) - target
            factor = 1 / (delta.norm(dim=2) * norms).clamp(min=1.0)
            drawn = torch.rand(runs, n, generator=generator) < self.sample_rate
            delta *= (factor * drawn)[:, :, None]
            total = torch.einsum("rnc,nd->rcd", delta, self.x)
            total += self.noise_multiplier * torch.randn(total.shape, generator=generator)
            drawn = (torch.rand(runs, generator=generator) < self.sample_rate) & included
            total += canary.gradient(weights) * drawn[:, None, None]
            weights -= size * total
        return weights


@dataclass(frozen=True)
class Canary:
    """One record to be noticed: a fixed gradient of norm 1, or an input with a label."""

    vector: Float[Tensor, "c d1"] | None = None
    x: Float[Tensor, " d1"] | None = None
    label: int = 0

    def gradient(self, weights: Float[Tensor, "runs c d1"]) -> Float[Tensor, "#runs c d1"]:
        """Its clipped gradient in each run."""
        if self.vector is not None:
            return self.vector[None]
        assert self.x is not None
        delta = torch.softmax(weights @ self.x, dim=1)
        delta[:, self.label] -= 1
        factor = 1 / (delta.norm(dim=1) * self.x.norm()).clamp(min=1.0)
        return torch.einsum("rc,d->rcd", delta * factor[:, None], self.x)

    def scores(self, weights: Float[Tensor, "runs c d1"]) -> Float[Tensor, " runs"]:
        """<m_T - m_0, -gradient> in gradient space, minus the loss in input space."""
        if self.vector is not None:
            return -(weights * self.vector).sum(dim=(1, 2))
        assert self.x is not None
        return torch.log_softmax(weights @ self.x, dim=1)[:, self.label]


def make_canary(
    name: str, x: Float[Tensor, "n d1"], y: Int[Tensor, " n"], classes: int = 10
) -> Canary:
    """One of `CANARIES` for these examples."""
    d = x.shape[1]
    if name == "constant":
        return Canary(torch.full((classes, d), 1 / math.sqrt(classes * d)))
    if name == "dirac":
        # A pixel that is dark everywhere: no example moves its weight.
        dead = int((x.abs().sum(dim=0) == 0).nonzero()[0])
        vector = torch.zeros(classes, d)
        vector[0, dead] = 1
        return Canary(vector)
    if name == "random":
        vector = torch.randn(classes, d, generator=torch.Generator().manual_seed(7))
        return Canary(vector / vector.norm())
    if name == "blank":
        blank = torch.zeros(d)
        blank[-1] = 1
        return Canary(x=blank, label=3)
    if name == "mislabeled":
        return Canary(x=x[0], label=(int(y[0]) + 5) % classes)
    raise ValueError(f"canary must be one of {CANARIES}, got {name!r}")
