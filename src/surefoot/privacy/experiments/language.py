"""A language model from scratch under DP-SGD, on real sentences, with byte strings as canaries.

A stand-in for the paper's fine-tuning of a large model (arXiv 2410.06186): one layer, one head,
25,760 parameters, 17-byte pieces of human-rated sentences. Canaries are bytes that no text uses.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from surefoot.record import Fact, Record

WIDTH = 32
CONTEXT = 16
PIECES = 400


class Bytes(nn.Module):
    """A causal transformer over bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(256, WIDTH)
        self.position = nn.Parameter(torch.zeros(CONTEXT, WIDTH))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 256)

    def forward(self, ids: Int[Tensor, "n 17"]) -> Float[Tensor, " n"]:
        """Mean loss of the 16 next bytes of each piece."""
        x = self.token(ids[:, :-1]) + self.position
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=2)
        mask = torch.full((CONTEXT, CONTEXT), float("-inf")).triu(1)
        weights = torch.softmax(q @ k.transpose(1, 2) / WIDTH**0.5 + mask, dim=2)
        x = x + self.proj(weights @ v)
        x = x + self.down(torch.nn.functional.gelu(self.up(self.norm2(x))))
        logits = self.head(self.norm3(x))
        flat = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        return flat.view(ids.shape[0], CONTEXT).mean(dim=1)


def initial(seed: int) -> dict[str, Tensor]:
    """Parameters of a fresh model; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Bytes()
    return {name: p.detach() for name, p in model.named_parameters()}


@functools.lru_cache(maxsize=1)
def pieces() -> Int[Tensor, "n 17"]:
    """400 pieces of 17 bytes, each from the beginning of another sentence of `sentiment4`."""
    from surefoot import data

    texts = [str(t).encode() for t in data.load("sentiment4")["text"]]
    # Sentences come in a fixed order; every 31st gives all four domains their share.
    starts = [t[: CONTEXT + 1] for t in texts[::31] if len(t) > CONTEXT and max(t) < 128]
    return torch.tensor([list(t) for t in starts[:PIECES]])


def canaries(m: int, seed: int) -> Int[Tensor, "m 17"]:
    """m strings of 17 random bytes from 128 to 255, which the pieces never use."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(128, 256, (m, CONTEXT + 1), generator=generator)


@dataclass(frozen=True)
class Training:
    """DP-SGD with per-example gradients by vmap; the divisor is q times the number of pieces."""

    noise_multiplier: float
    sample_rate: float = 0.1
    steps: int = 100
    lr: float = 4.0

    def facts(self) -> dict[str, Fact]:
        """What this loop does."""
        return {
            "noise_multiplier": self.noise_multiplier, "sample_rate": self.sample_rate,
            "steps": self.steps, "sampling": "poisson", "clipping": "per example",
            "clip_norm": 1.0, "optimizer": "SGD", "lr": self.lr, "momentum": 0.0,
            "weight_decay": 0.0,
        }  # fmt: skip

    def __call__(
        self, start: dict[str, Tensor], text: Tensor, extra: Tensor, seed: int
    ) -> dict[str, Tensor]:
        """The last iterate; `extra` are the included canaries."""
        generator = torch.Generator().manual_seed(seed)
        model = _shell()
        data = torch.cat([text, extra])
        parameters = {k: v.clone() for k, v in start.items()}

        def loss(p: dict[str, Tensor], ids: Tensor) -> Tensor:
            found: Tensor = functional_call(model, p, (ids[None],))
            return found[0]

        each = vmap(grad(loss), in_dims=(None, 0))
        size = self.lr / (self.sample_rate * len(text))
        for _ in range(self.steps):
            chosen = torch.rand(len(data), generator=generator) < self.sample_rate
            gradients = each(parameters, data[chosen])
            squares = [g.flatten(1).square().sum(dim=1) for g in gradients.values()]
            factor = 1 / torch.stack(squares).sum(dim=0).sqrt().clamp(min=1.0)
            for name, p in parameters.items():
                total = torch.einsum("n,n...->...", factor, gradients[name])
                noise = torch.randn(p.shape, generator=generator)
                p -= size * (total + self.noise_multiplier * noise)
        return parameters


@functools.lru_cache(maxsize=1)
def _shell() -> Bytes:
    with torch.random.fork_rng(devices=[]):
        return Bytes()


def scores(parameters: dict[str, Tensor], ids: Int[Tensor, "m 17"]) -> Float[Tensor, " m"]:
    """Minus the loss of each string."""
    with torch.no_grad():
        found: Tensor = functional_call(_shell(), parameters, (ids,))
    return -found


class Trainer:
    """What an audit calls: train with the included canaries, score them all by the last model."""

    def __init__(self, training: Training, start: dict[str, Tensor], ids: Tensor) -> None:
        self.training, self.start, self.ids = training, start, ids
        self.ends: list[dict[str, Tensor]] = []
        self.record = Record()
        self.record.note(**training.facts(), releases="last")

    def __call__(self, include: Bool[Tensor, " m"], seed: int) -> Float[Tensor, " m"]:
        """The score of every canary."""
        self.ends.append(self.training(self.start, pieces(), self.ids[include], seed))
        return scores(self.ends[-1], self.ids)
