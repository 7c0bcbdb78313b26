"""A toy of images: handwritten digits and altered ones, behind a small encoder that other digits trained.

The encoder has seen nothing but 599 digits of 8 x 8 pixels, so that the other domains are as foreign to it as
a drawing is to an encoder of photographs. It is no substitute for one that was trained on the web.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot import data
from surefoot._numerics.seeds import generator_for, seed_for
from surefoot.prototypes.embedding import embed
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.splits import Domain, split_domains

SIDE, D, SCALE, STEPS = 8, 64, 30.0, 150
Change = Callable[[Tensor], Tensor]


def inverted(x: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Dark on light."""
    return 1 - x


def rotated(x: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """By a quarter of a turn."""
    return torch.rot90(x, 1, (1, 2))


def blurred(x: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """The mean of 3 x 3 pixels."""
    return nn.functional.avg_pool2d(x[:, None], 3, 1, 1)[:, 0]


def plain(x: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """As they are."""
    return x


QUICK: tuple[tuple[str, str, Change], ...] = (
    ("digits", "digits", plain), ("inverted digits", "digits", inverted),
    ("rotated digits", "digits", rotated), ("blurred digits", "digits", blurred),
)  # fmt: skip
STANDARD: tuple[tuple[str, str, Change], ...] = (
    ("digits", "digits", plain), ("inverted digits", "digits", inverted), ("MNIST", "mnist5k", plain),
    ("rotated MNIST", "mnist5k", rotated), ("blurred MNIST", "mnist5k", blurred),
)  # fmt: skip
PER_DOMAIN = {"quick": 299, "standard": 599, "paper": 599}


@dataclass(frozen=True, eq=False)
class Toy:
    """Domains as embeddings, and the pixels behind them.

    Attributes
    ----------
    domains, head
        What every method sees; the head's rows are class means of the public embeddings.
    pixels
        (n, 64) of each domain's training records, in their order.
    public
        Pixels and embeddings of the digits that trained the encoder.
    public_labels
        Their classes.
    """

    domains: list[Domain]
    head: ZeroShotHead
    pixels: list[Float[Tensor, "_ pixels"]]
    public: tuple[Float[Tensor, "n pixels"], Float[Tensor, "n d"]]
    public_labels: Int[Tensor, " n"]


class ToyEncoder(nn.Module):
    """8 x 8 pixels to 64 numbers of norm 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.ReLU(), nn.Flatten(), nn.Linear(24 * (SIDE // 2) ** 2, D),
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "B h w"]) -> Float[Tensor, "B d"]:
        """The embeddings."""
        found: Tensor = nn.functional.normalize(self.layers(x[:, None]), dim=1)
        return found


def toy(size: str, seed: int) -> Toy:
    """The domains of a size, each of records of its own; the split of the seed."""
    encoder, public, labels = _pretrained()
    pools = _pools(size)
    found, y, at = [], [], []
    domains = QUICK if size == "quick" else STANDARD
    taken = dict.fromkeys(pools, 0)
    for i, (_, source, change) in enumerate(domains):
        x, classes = pools[source]
        rows = slice(taken[source], taken[source] + PER_DOMAIN[size])
        taken[source] = rows.stop
        found.append(change(x[rows]))
        y.append(classes[rows])
        at.append(np.full(len(found[-1]), i))
    x = torch.cat(found)
    both = torch.cat([embed(encoder, x), x.flatten(1)], dim=1)
    split = split_domains(
        both, np.concatenate(y), np.concatenate(at), [name for name, _, _ in domains], seed
    )
    seen = embed(encoder, public)
    means = torch.stack([seen[labels == c].mean(0) for c in range(10)])
    return Toy(
        [Domain(s.name, *((z[:, :D], c) for z, c in (s.train, s.val, s.test))) for s in split],
        ZeroShotHead(means, SCALE),
        [s.train[0][:, D:] for s in split],
        (public.flatten(1), seen),
        labels,
    )


def _digits() -> tuple[Tensor, Int[np.ndarray, " n"]]:
    table = data.load("digits")
    order = np.random.default_rng(seed_for("toy digits", 0)).permutation(len(table.x))
    x = torch.as_tensor(np.asarray(table.x)[order], dtype=torch.float32).reshape(-1, SIDE, SIDE)
    return x / x.max(), np.asarray(table.y)[order].astype(np.int64)


def _pools(size: str) -> dict[str, tuple[Tensor, Int[np.ndarray, " n"]]]:
    """What is left of the digits, and MNIST on as few pixels."""
    x, y = _digits()
    pools = {"digits": (x[PRETRAINING:], y[PRETRAINING:])}
    if size != "quick":
        images = data.load("mnist5k")
        order = np.random.default_rng(seed_for("toy mnist", 0)).permutation(len(images.x_train))
        # MNIST leaves a margin that the other set does not have.
        small = torch.as_tensor(images.x_train[order])[:, 2:26, 2:26]
        pools["mnist5k"] = nn.functional.avg_pool2d(small[:, None], 3)[:, 0], images.y_train[order]
    return pools


PRETRAINING = 599


@lru_cache(maxsize=1)
def _pretrained() -> tuple[ToyEncoder, Float[Tensor, "n h w"], Int[Tensor, " n"]]:
    """One encoder for all seeds, and what it was trained on."""
    x, y = _digits()
    x, labels = x[:PRETRAINING], torch.as_tensor(y[:PRETRAINING])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("toy encoder", 0) % 2**31)
        encoder, rows = ToyEncoder(), nn.Linear(D, 10, bias=False)
    optimizer = torch.optim.Adam([*encoder.parameters(), *rows.parameters()], lr=3e-3)
    generator = generator_for("toy batches", 0)
    for _ in range(STEPS):
        batch = torch.randint(PRETRAINING, (48,), generator=generator)
        logits = 10 * rows(encoder(x[batch])) / rows.weight.norm(dim=1)
        loss = nn.functional.cross_entropy(logits, labels[batch])
        optimizer.zero_grad()
        # torch gives `backward` no types.
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return encoder.requires_grad_(False), x, labels
