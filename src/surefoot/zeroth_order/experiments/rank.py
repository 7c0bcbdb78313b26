"""Why low rank: singular values of first-order gradients in a real encoder's last layer (part rank)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from surefoot.record import Record
from surefoot.zeroth_order.experiments.sentences import PROMPTS, chosen_texts

ROWS = {"quick": 32, "standard": 64, "paper": 256}
MATRICES = (
    "attention.self.query", "attention.self.key", "attention.self.value",
    "attention.output.dense", "intermediate.dense", "output.dense",
)  # fmt: skip


def run(config: Any, seed: int, record: Record) -> None:
    """Energy of the leading singular directions of each matrix's gradient on a batch of snippets."""
    from surefoot import data
    from surefoot.zeroth_order.doors.encoders import open_encoder

    model, tokenizer = open_encoder(data.load("minilm", config.encoder))
    chosen = chosen_texts(config.texts).sample(ROWS[config.size], random_state=seed)
    labels = torch.tensor((chosen["rating"] > 0).tolist()).long()

    def encode(texts: list[str]) -> torch.Tensor:
        batch = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
        mask = batch["attention_mask"][:, :, None].float()
        hidden = model(**batch).last_hidden_state
        pooled: torch.Tensor = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        return nn.functional.normalize(pooled, dim=1)

    with torch.no_grad():
        head = encode(list(PROMPTS))
        head = 0.5 * nn.functional.normalize(head - head.mean(dim=0), dim=1)
    loss = nn.functional.cross_entropy(
        20 * encode([str(t) for t in chosen["text"]]) @ head.T, labels
    )
    last = model.encoder.layer[-1]
    weights = [last.get_submodule(name).weight for name in MATRICES]
    for name, gradient in zip(MATRICES, torch.autograd.grad(loss, weights), strict=True):
        energy = torch.linalg.svdvals(gradient).square()
        share = (energy.cumsum(dim=0) / energy.sum()).tolist()
        for rank in (1, 2, 4, 8):
            record.append(seed, rank, **{name: share[rank - 1]})


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Mean share of the gradient's energy by rank."""
    rows = []
    for name in MATRICES:
        curves = record.curves(name)
        means = np.asarray(curves.values).mean(axis=0)
        rows.append(
            {"matrix": name} | {f"rank {r}": v for r, v in zip(curves.steps, means, strict=True)}
        )
    return {"share of the gradient's energy": pd.DataFrame(rows)}
