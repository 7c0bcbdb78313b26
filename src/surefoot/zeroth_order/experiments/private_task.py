"""What the private parts train: an adapter on frozen sentence embeddings, or softmax regression on digits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot._problems.real import real
from surefoot.zeroth_order.experiments.sentences import PROMPTS, Adapter

SPLITS = {
    "digits": {"train": 1200, "val": 297, "test": 300},
    "sentences": {"train": 8000, "val": 1000, "test": 1500},
}
LENGTH = 24


@dataclass(frozen=True)
class Task:
    """Features and labels of the three splits. Training rows are private; the other two are public."""

    name: str
    x: dict[str, Float[Tensor, "n d"]]
    y: dict[str, Int[Tensor, " n"]]
    fresh: Callable[[], nn.Module]

    @property
    def population(self) -> int:
        """N."""
        return len(self.y["train"])

    def model(self) -> nn.Module:
        """The start, made anew."""
        return self.fresh()

    def losses(self, model: nn.Module, rows: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Cross-entropy of each training row."""
        found: Tensor = nn.functional.cross_entropy(
            model(self.x["train"][rows]), self.y["train"][rows], reduction="none"
        )
        return found

    def accuracy(self, model: nn.Module, split: str) -> float:
        """On a public split."""
        with torch.no_grad():
            found = model(self.x[split]).argmax(dim=1)
        return float((found == self.y[split]).double().mean())


def task_of(config: Any) -> Task:
    """Digits at size quick, sentences at the larger ones: the same rows in every seed."""
    return digits() if config.size == "quick" else sentences(config.encoder, config.texts)


def split(name: str, x: Tensor, y: Tensor, fresh: Callable[[], nn.Module]) -> Task:
    """The three splits, in an order that no seed changes."""
    sizes = SPLITS[name]
    order = torch.as_tensor(np.random.default_rng(0).permutation(len(y)))
    edges = np.cumsum([0, *sizes.values()])
    parts = {k: order[a:b] for k, a, b in zip(sizes, edges, edges[1:], strict=False)}
    return Task(
        name, {k: x[r] for k, r in parts.items()}, {k: y[r] for k, r in parts.items()}, fresh
    )


@functools.lru_cache(maxsize=1)
def digits() -> Task:
    """Softmax regression from zero weights, in double."""
    x, y = real("digits")
    return split("digits", x, y, zeros)


def zeros() -> nn.Module:
    """Zero weights: the loss starts at ln 10."""
    made = nn.Linear(64, 10, dtype=torch.float64)
    nn.init.zeros_(made.weight)
    nn.init.zeros_(made.bias)
    return made


@functools.lru_cache(maxsize=1)
def sentences(encoder: Path | None = None, texts: Path | None = None) -> Task:
    """Embeddings of texts of all domains rated above .5 or below -.5, as many of each sign."""
    from surefoot import data
    from surefoot.zeroth_order.doors.encoders import open_encoder

    table = data.load("sentiment4", texts)
    table = table[table["rating"].abs() > 0.5]
    half, rng = sum(SPLITS["sentences"].values()) // 2, np.random.default_rng(0)
    sides = [
        rng.permutation(table.index[side])[:half]
        for side in (table["rating"] < 0, table["rating"] > 0)
    ]
    if min(map(len, sides)) < half:
        raise ValueError(
            f"the private parts need {half} texts of each sign, got {[len(s) for s in sides]}"
        )
    chosen = table.loc[np.concatenate(sides)]
    model, tokenizer = open_encoder(data.load("minilm", encoder))
    e = embedded(model, tokenizer, [str(t) for t in chosen["text"]])
    head = nn.functional.normalize(embedded(model, tokenizer, list(PROMPTS)), dim=1)
    head = nn.functional.normalize(head - head.mean(dim=0), dim=1) * 0.5
    y = torch.tensor((chosen["rating"] > 0).tolist()).long()
    return split("sentences", e, y, functools.partial(Adapter, head))


@torch.no_grad()
def embedded(model: Any, tokenizer: Any, texts: list[str]) -> Float[Tensor, "n d"]:
    """Means over the tokens of each text; texts of like length share a batch."""
    order = np.argsort([len(t) for t in texts], kind="stable")
    found: list[Tensor] = [torch.empty(0)] * len(texts)
    for at in np.array_split(order, -(-len(texts) // 64)):
        batch = tokenizer(
            [texts[i] for i in at], padding=True, truncation=True, max_length=LENGTH,
            return_tensors="pt",
        )  # fmt: skip
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][:, :, None].float()
        for i, row in zip(at, (hidden * mask).sum(dim=1) / mask.sum(dim=1), strict=True):
            found[int(i)] = row
    return torch.stack(found)
