"""DP-SGD on small networks, fast enough to be repeated: exact per-example clipping from layer products.

For a linear layer the gradient of one example is an outer product delta a^T, so its norm is |delta||a| and
the clipped sum is delta^T diag(c) a: no per-example gradient is stored (ghost clipping, arXiv 2205.10683).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surefoot.record import Fact


@dataclass(frozen=True)
class Network:
    """A tanh network with a softmax cross-entropy; one size pair per layer, its parameters in one vector."""

    sizes: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """How many numbers a model is."""
        return sum((a + 1) * b for a, b in zip(self.sizes, self.sizes[1:], strict=False))

    def initial(self, seed: int) -> Float[Tensor, " P"]:
        """Weights N(0, 1 / fan-in), biases 0; a single layer starts at 0, where its loss is known."""
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for a, b in zip(self.sizes, self.sizes[1:], strict=False):
            scale = 0.0 if len(self.sizes) == 2 else a**-0.5
            weight = scale * torch.randn(b, a, generator=generator)
            parts.append(torch.cat([weight, torch.zeros(b, 1)], dim=1).flatten())
        return torch.cat(parts)

    def layers(self, flat: Float[Tensor, " P"]) -> list[Float[Tensor, "out in1"]]:
        """Each layer's weights, the bias as last column."""
        found, at = [], 0
        for a, b in zip(self.sizes, self.sizes[1:], strict=False):
            found.append(flat[at : at + (a + 1) * b].view(b, a + 1))
            at += (a + 1) * b
        return found

    def forward(
        self, flat: Float[Tensor, " P"], x: Float[Tensor, "n d"]
    ) -> tuple[Float[Tensor, "n c"], list[Float[Tensor, "n in1"]]]:
        """Logits, and the input of each layer with a 1 appended."""
        inputs = []
        ones = x.new_ones(len(x), 1)
        layers = self.layers(flat)
        for i, weight in enumerate(layers):
            inputs.append(torch.cat([x, ones], dim=1))
            x = inputs[-1] @ weight.T
            if i < len(layers) - 1:
                x = x.tanh()
        return x, inputs

    def losses(
        self, flat: Float[Tensor, " P"], x: Float[Tensor, "n d"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Cross-entropy of each example."""
        return torch.nn.functional.cross_entropy(self.forward(flat, x)[0], y, reduction="none")

    def accuracy(
        self, flat: Float[Tensor, " P"], x: Float[Tensor, "n d"], y: Int[Tensor, " n"]
    ) -> float:
        """Fraction of examples whose largest logit is their label's."""
        return float((self.forward(flat, x)[0].argmax(dim=1) == y).double().mean())

    def clipped_sum(
        self, flat: Float[Tensor, " P"], x: Float[Tensor, "n d"], y: Int[Tensor, " n"], clip: float
    ) -> Float[Tensor, " P"]:
        """Sum over examples of the gradient, each scaled down to norm at most clip."""
        logits, inputs = self.forward(flat, x)
        delta = logits.softmax(dim=1)
        delta[torch.arange(len(y)), y] -= 1
        deltas = [delta]
        for weight, a in zip(self.layers(flat)[:0:-1], inputs[:0:-1], strict=True):
            hidden = a[:, :-1]
            delta = (delta @ weight[:, :-1]) * (1 - hidden * hidden)
            deltas.append(delta)
        deltas.reverse()
        squares = [
            d.square().sum(dim=1) * a.square().sum(dim=1)
            for d, a in zip(deltas, inputs, strict=True)
        ]
        norms = torch.stack(squares).sum(dim=0).sqrt()
        factor = (clip / norms.clamp(min=1e-30)).clamp(max=1.0)
        return torch.cat(
            [((d * factor[:, None]).T @ a).flatten() for d, a in zip(deltas, inputs, strict=True)]
        )


@dataclass(frozen=True)
class DPSGD:
    """The settings of a training; the divisor of the update is q n, whatever a batch happens to hold."""

    noise_multiplier: float
    sample_rate: float
    steps: int
    lr: float = 1.0
    clip: float = 1.0
    weight_decay: float = 0.0
    real_noise: float | None = None
    """Noise actually added, where it differs from the claim: a planted fault."""

    def facts(self) -> dict[str, Fact]:
        """What this loop does, as it would be accounted for; a planted fault is said apart."""
        found: dict[str, Fact] = {
            "noise_multiplier": self.noise_multiplier, "sample_rate": self.sample_rate,
            "steps": self.steps, "sampling": "poisson", "clipping": "per example",
            "clip_norm": self.clip, "optimizer": "SGD", "lr": self.lr, "momentum": 0.0,
            "weight_decay": self.weight_decay,
        }  # fmt: skip
        if self.real_noise is not None:
            found["planted_fault"] = f"noise {self.real_noise:g} is added"
        return found

    def train(
        self,
        network: Network,
        start: Float[Tensor, " P"],
        x: Float[Tensor, "n d"],
        y: Int[Tensor, " n"],
        *,
        seed: int,
        canaries: Canaries | None = None,
        injections: Mapping[int, Float[Tensor, " P"]] | None = None,
        extra: tuple[Tensor, Tensor] | None = None,
    ) -> Float[Tensor, " P"]:
        """The last iterate. The seed drives sampling and noise only.

        `canaries` join in gradient space, `extra` are further examples (x, y) that do not change the
        divisor, `injections` are added to the summed gradient of their step.
        """
        generator = torch.Generator().manual_seed(seed)
        size = self.lr / (self.sample_rate * len(x))
        if extra is not None:
            x, y = torch.cat([x, extra[0]]), torch.cat([y, extra[1]])
        flat = start.clone()
        sigma = self.noise_multiplier if self.real_noise is None else self.real_noise
        for step in range(self.steps):
            chosen = torch.rand(len(x), generator=generator) < self.sample_rate
            total = network.clipped_sum(flat, x[chosen], y[chosen], self.clip)
            noise = torch.randn(len(flat), generator=generator)
            total += sigma * self.clip * noise
            if canaries is not None:
                canaries.add(total, self.sample_rate, self.clip, generator)
            if injections is not None and step in injections:
                total += injections[step]
            if self.weight_decay:
                flat *= 1 - self.lr * self.weight_decay
            flat -= size * total
        return flat


@dataclass(frozen=True)
class Canaries:
    """Dirac canaries in gradient space: an included one, when drawn, adds clip to its own coordinate."""

    coordinates: Int[Tensor, " m"]
    included: Bool[Tensor, " m"]
    _at: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_at", self.coordinates[self.included])

    def add(self, total: Tensor, rate: float, clip: float, generator: torch.Generator) -> None:
        """Draw the included canaries and add the drawn ones."""
        drawn = torch.rand(len(self._at), generator=generator) < rate
        total[self._at[drawn]] += clip

    def scores(self, start: Tensor, end: Tensor) -> Float[np.ndarray, " m"]:
        """<m_T - m_0, -canary> for each canary."""
        return (start - end)[self.coordinates].double().numpy()


def digits(train: int = 1437) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Real digits in [0, 1], shuffled once: training images and labels, test images and labels."""
    from surefoot import data

    table = data.load("digits")
    order = torch.randperm(len(table.y), generator=torch.Generator().manual_seed(0))
    x = torch.as_tensor(np.asarray(table.x), dtype=torch.float32)[order] / 16
    y = torch.as_tensor(np.asarray(table.y))[order].long()
    return x[:train], y[:train], x[1437:], y[1437:]
