"""The real SmolLM2-135M as a prompted classifier, its last layers fine-tuned by forwards (part language).

Hidden states after layer 26 are computed once; layers 27 to 30 and the last norm are trained. The loss is
that of the two label words at the last position, in two templates. Raw accuracy can rise by moving a
threshold alone, so accuracy with the threshold at the median score, and the area under the curve, stand
beside it. What each arm adds to the memory of the loaded model is measured on the whole model.
"""

from __future__ import annotations

import copy
import functools
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from surefoot._problems.tuning import EqualTuning, remarks
from surefoot.record import Record
from surefoot.zeroth_order.experiments import memory
from surefoot.zeroth_order.experiments.fitting import fit
from surefoot.zeroth_order.experiments.sentences import balanced
from surefoot.zeroth_order.lozo import LOZO
from surefoot.zeroth_order.mezo import MeZO

TEMPLATES = {
    "The movie was": ("Movie review: {text}\nThe movie was", (" terrible", " great")),
    "Sentiment:": ("Review: {text}\nSentiment:", (" negative", " positive")),
}
CUT, LENGTH, BATCH = 26, 64, 8
SPLITS = {"quick": (64, 32, 32), "standard": (256, 128, 256), "paper": (1000, 200, 1000)}
STEPS = {"quick": 10, "standard": 200, "paper": 1000}
TUNE = {"quick": 5, "standard": 60, "paper": 200}
LOOKS = 5
GRID = (3e-5, 1e-4, 3e-4)
METHODS = ("LOZO", "MeZO", "AdamW")
MEASURES = ("raw accuracy", "centred accuracy", "AUC", "loss")


@dataclass(frozen=True)
class Task:
    """Cached states, the trainable tail, and the rows of the label words."""

    states: dict[str, Tensor]
    masks: dict[str, Tensor]
    y: dict[str, Tensor]
    tail: nn.Module


class Tail(nn.Module):
    """The last layers on cached hidden states: the score of each label word at the last position."""

    def __init__(self, model: Any, words: list[int]) -> None:
        super().__init__()
        self.layers = copy.deepcopy(model.model.layers[CUT:])
        self.norm = copy.deepcopy(model.model.norm)
        self.rotary = copy.deepcopy(model.model.rotary_emb)
        self.register_buffer("rows", model.lm_head.weight.detach()[words].clone())

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Logits of both words; texts are padded on the left."""
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        rotary = self.rotary(states, positions)
        n = states.shape[1]
        causal = torch.full((n, n), torch.finfo(states.dtype).min).triu(1)
        allowed = (
            causal[None, None] + (1 - mask[:, None, None].float()) * torch.finfo(states.dtype).min
        )
        allowed = allowed.clamp(min=torch.finfo(states.dtype).min)
        for layer in self.layers:
            found = layer(
                states, attention_mask=allowed, position_ids=positions, position_embeddings=rotary
            )
            states = found[0] if isinstance(found, tuple) else found
        logits: Tensor = self.norm(states[:, -1]) @ self.rows.T
        return logits


@functools.lru_cache(maxsize=2)
def task(size: str, template: str, language_model: Path | None, texts: Path | None) -> Task:
    """Balanced snippets through the first layers of the real model."""
    from surefoot import data

    model, tokenizer = data.load("smollm2", language_model).open()
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    prompt, labels_as = TEMPLATES[template]
    words = [tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in labels_as]
    chosen, labels = balanced(texts, sum(SPLITS[size]), 0)
    lines = [prompt.format(text=t) for t in chosen]
    tail = Tail(model, words)
    states, masks = [], []
    for at in range(0, len(lines), 16):
        batch = tokenizer(
            lines[at : at + 16], padding="max_length", truncation=True, max_length=LENGTH,
            return_tensors="pt",
        )  # fmt: skip
        with torch.no_grad():
            hidden = model.model(**batch, output_hidden_states=True).hidden_states[CUT]
        states.append(hidden)
        masks.append(batch["attention_mask"])
    edges = np.cumsum([0, *SPLITS[size]])
    parts = dict(zip(("train", "val", "test"), itertools.pairwise(edges), strict=True))
    h, m = torch.cat(states), torch.cat(masks)
    return Task(
        {k: h[a:b] for k, (a, b) in parts.items()},
        {k: m[a:b] for k, (a, b) in parts.items()},
        {k: labels[a:b] for k, (a, b) in parts.items()},
        tail,
    )


@torch.no_grad()
def evaluate(tail: nn.Module, found: Task, split: str) -> dict[str, float]:
    """The four measures on one split."""
    parts = [
        tail(h, m)
        for h, m in zip(
            torch.split(found.states[split], 32), torch.split(found.masks[split], 32), strict=True
        )
    ]
    logits = torch.cat(parts)
    y = found.y[split]
    score = (logits[:, 1] - logits[:, 0]).numpy()
    truth = y.numpy().astype(bool)
    return {
        "raw accuracy": float(((score > 0) == truth).mean()),
        "centred accuracy": float(((score > np.median(score)) == truth).mean()),
        "AUC": float(roc_auc_score(truth, score)),
        "loss": float(nn.functional.cross_entropy(logits, y)),
    }


def train(method: str, lr: float, steps: int, seed: int, found: Task) -> tuple[nn.Module, float]:
    """The tail where its validation loss was lowest, and that loss; AdamW gets two thirds of the steps.

    All arms are looked at equally often: one forward and backward costs about three forwards.
    """
    tail = copy.deepcopy(found.tail)
    for p in tail.parameters():
        p.requires_grad_(True)
    optimizer: Any
    if method == "AdamW":
        optimizer = torch.optim.AdamW(tail.parameters(), lr=lr)
    elif method == "LOZO":
        optimizer = LOZO(tail, lr, rank=2, nu=50, scale="unit", seed=seed)
    else:
        optimizer = MeZO(tail, lr, seed=seed)

    def loss_of(rows: Tensor) -> Tensor:
        h, m, y = (x["train"][rows] for x in (found.states, found.masks, found.y))
        return nn.functional.cross_entropy(tail(h, m), y)

    best = fit(
        tail, optimizer, steps, LOOKS, loss_of, len(found.y["train"]), BATCH,
        lambda: evaluate(tail, found, "val")["loss"], seed,
    )  # fmt: skip
    final = copy.deepcopy(found.tail)
    final.load_state_dict(tail.state_dict())
    return final, best


def run(config: Any, seed: int, record: Record) -> None:
    """The same grid, budget and choice by validation loss for every arm; tested once."""
    for template in TEMPLATES:
        found = task(config.size, template, config.language_model, config.texts)
        start = evaluate(found.tail, found, "test")
        record.update(seed, 0, {f"{template} start, {k}": v for k, v in start.items()})
        tuning = EqualTuning("lower")
        for method in METHODS:

            def attempt(lr: float, method: str = method, found: Task = found) -> tuple[float, None]:
                return train(method, lr, TUNE[config.size], seed, found)[1], None

            chosen = tuning.choose(method, GRID, attempt)
            chosen.note(record, f"{template} {method}", seed)
            best = chosen.value
            tail, _ = train(method, best, STEPS[config.size], seed, found)
            values = evaluate(tail, found, "test") | {"lr": best}
            record.update(seed, 0, {f"{template} {method}, {k}": v for k, v in values.items()})
    if seed == config.seed:
        for arm in memory.ARMS:
            record.update(seed, 0, {f"{arm}, peak MB": memory.peak(arm, config.language_model)})


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Every measure beside the start: what moved a threshold only shows as raw accuracy alone."""
    found = {}
    for template in TEMPLATES:
        rows = []
        for method in ("start", *METHODS):
            row: dict[str, Any] = {"method": method}
            for measure in MEASURES:
                values = record.constant(f"{template} {method}, {measure}")
                row[measure] = float(values.mean())
            if method != "start":
                row["lr, chosen"] = float(record.constant(f"{template} {method}, lr")[0])
                row["tuning"] = remarks(record, f"{template} {method}")
                row["MB above the loaded model"] = float(
                    np.nanmax(record.constant(f"{method}, peak MB"))
                )
            rows.append(row)
        found[f"SmolLM2-135M, {template!r}"] = pd.DataFrame(rows)
    found["memory of one step of the whole model"] = pd.DataFrame(
        [
            {"arm": arm, "MB above the loaded model": np.nanmax(record.constant(f"{arm}, peak MB"))}
            for arm in memory.ARMS
        ]
    )
    return found
