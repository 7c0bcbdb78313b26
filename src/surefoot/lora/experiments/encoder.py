"""Sentences with a real encoder, MiniLM, under transformers' Trainer: every method, equal steps.

Positive or negative, in the four domains of `sentiment4`. The upper layers of MiniLM are adapted (query
and value, rank 1, the classifier trained whole); what the lower ones give is computed once, as they are
frozen for every method. Each arm picks its learning rate on the validation split, out of equally many.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import Dataset

from surefoot._problems.tuning import EqualTuning
from surefoot.lora.chain import ChainOfLora
from surefoot.lora.config import Method, RacConfig
from surefoot.lora.doors.peft import with_lora
from surefoot.lora.experiments.nets import Outcome
from surefoot.lora.experiments.tuning import compare, tune
from surefoot.record import Record

SPLITS = {"train": 1024, "val": 512, "test": 1000}
LENGTH, BATCH, BLOCKS = 32, 16, 6
LAYERS = {"quick": 1, "standard": 2, "paper": 6}
STEPS = {"quick": 30, "standard": 120, "paper": 600}
ADAPTER_RATES = {"quick": (3e-3,), "standard": (3e-3, 1e-2), "paper": (1e-3, 3e-3, 1e-2)}
FULL_RATES = {"quick": (3e-4,), "standard": (3e-4, 1e-3), "paper": (1e-4, 3e-4, 1e-3)}
# Name, method, rank. LoRA at rank 1 trains as many numbers as a frozen factor at rank 2.
ARMS: tuple[tuple[str, Method, int], ...] = (
    ("full fine-tuning", "fpft", 1),
    ("LoRA", "lora", 1),
    ("COLA", "cola", 1),
    ("AsymmLoRA", "asymm_lora", 1),
    ("RAC-LoRA", "rac_lora", 1),
    ("AsymmLoRA, r = 2", "asymm_lora", 2),
    ("RAC-LoRA, r = 2", "rac_lora", 2),
)


class Upper(nn.Module):
    """The upper layers of a BERT encoder, a mean over the tokens, a linear classifier."""

    def __init__(self, layers: nn.ModuleList, width: int, seed: int) -> None:
        super().__init__()
        self.layers = layers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.classifier = nn.Linear(width, 2)

    def forward(
        self,
        hidden: Float[Tensor, "b t d"],
        mask: Int[Tensor, "b t"],
        labels: Int[Tensor, " b"] | None = None,
    ) -> dict[str, Tensor]:
        """Logits, and the loss where labels are given."""
        blocked = (1.0 - mask[:, None, None, :].to(hidden)) * torch.finfo(hidden.dtype).min
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=blocked)
        weight = mask[:, :, None].to(hidden)
        logits = self.classifier((hidden * weight).sum(1) / weight.sum(1))
        found = {"logits": logits}
        if labels is not None:
            found = {"loss": nn.functional.cross_entropy(logits, labels), **found}
        return found


@dataclass(frozen=True)
class Sentences(Dataset[dict[str, Tensor]]):
    """What the lower layers give, with mask and label."""

    hidden: Float[Tensor, "N t d"]
    mask: Int[Tensor, "N t"]
    labels: Int[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"hidden": self.hidden[i], "mask": self.mask[i], "labels": self.labels[i]}


def sample(texts: Path | None) -> tuple[list[str], list[int]]:
    """Sentences rated beyond one half in size, as many of each sign and domain, in a fixed order."""
    from surefoot import data

    table = data.load("sentiment4", texts)
    table = table[table["rating"].abs() > 0.5]
    rng = np.random.default_rng(0)
    domains = sorted(table["domain"].unique())
    each = -(-sum(SPLITS.values()) // (2 * len(domains)))
    columns = []
    for domain in domains:
        for sign in (1, -1):
            rows = table.index[(table["domain"] == domain) & (sign * table["rating"] > 0)]
            columns.append(rng.permutation(rows)[:each])
    order = np.stack(columns, axis=1).ravel()
    chosen = table.loc[order]
    return [str(t) for t in chosen["text"]], (chosen["rating"] > 0).astype(int).tolist()


@lru_cache(maxsize=1)
def prepared(
    model: Path | None, texts: Path | None, layers: int
) -> tuple[nn.ModuleList, dict[str, Sentences]]:
    """The upper layers as pretrained, and the three splits behind the lower ones."""
    from surefoot import data
    from surefoot.lora.doors import transformers

    folder = data.load("minilm", model)
    whole = transformers.encoder(folder).eval()
    tokenizer = transformers.tokenizer(folder)
    upper = whole.encoder.layer[-layers:]
    whole.encoder.layer = whole.encoder.layer[:-layers]
    sentences, labels = sample(texts)
    hidden, masks = [], []
    for at in range(0, len(sentences), 64):
        batch = tokenizer(
            sentences[at : at + 64], padding="max_length", truncation=True, max_length=LENGTH,
            return_tensors="pt",
        )  # fmt: skip
        with torch.no_grad():
            hidden.append(whole(**batch).last_hidden_state)
        masks.append(batch["attention_mask"])
    h, m, y = torch.cat(hidden), torch.cat(masks), torch.tensor(labels)
    edges = np.cumsum([0, *SPLITS.values()])
    splits = {
        name: Sentences(h[a:b], m[a:b], y[a:b])
        for name, a, b in zip(SPLITS, edges, edges[1:], strict=False)
    }
    return upper, splits


def accuracy(model: nn.Module, split: Sentences) -> tuple[float, float]:
    """Accuracy and mean loss in evaluation mode."""
    model.eval()
    right = loss = 0.0
    with torch.no_grad():
        for at in range(0, len(split), 128):
            rows = slice(at, at + 128)
            logits = model(split.hidden[rows], split.mask[rows])["logits"]
            right += float((logits.argmax(1) == split.labels[rows]).sum())
            loss += float(nn.functional.cross_entropy(logits, split.labels[rows], reduction="sum"))
    return right / len(split), loss / len(split)


def finetune(
    upper: nn.ModuleList, splits: dict[str, Sentences], method: Method, r: int, lr: float,
    steps: int, seed: int,
) -> Outcome:  # fmt: skip
    """One training through Trainer with AdamW at a constant rate."""
    from surefoot.lora.doors.transformers import fit

    width = splits["train"].hidden.shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = with_lora(
            Upper(copy.deepcopy(upper), width, seed), r, ["query", "value"],
            modules_to_save=["classifier"],
        )  # fmt: skip
        chain = ChainOfLora(
            model, RacConfig(method=method, blocks=BLOCKS, seed=seed, keep_history="none")
        )
        fit(
            chain, splits["train"], steps=steps, lr=lr, seed=seed, per_device_train_batch_size=BATCH,
            lr_scheduler_type="constant", weight_decay=0.0, use_cpu=True,
            remove_unused_columns=False, label_names=["labels"],
        )  # fmt: skip
        numbers = sum(p.numel() for p in chain.trainable_parameters())
    val, _ = accuracy(model, splits["val"])
    test, _ = accuracy(model, splits["test"])
    _, train_loss = accuracy(model, splits["train"])
    return Outcome(val, test, train_loss, numbers)


def run(config: Any, seed: int, record: Record) -> None:
    """Every arm at every learning rate."""
    upper, splits = prepared(config.encoder, config.texts, LAYERS[config.size])
    tuning = EqualTuning("higher")
    for name, method, r in ARMS:

        def train(lr: float, method: Method = method, r: int = r) -> Outcome:
            return finetune(upper, splits, method, r, lr, STEPS[config.size], seed)

        rates = (FULL_RATES if method == "fpft" else ADAPTER_RATES)[config.size]
        tune(record, seed, tuning, name, rates, train)


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """What the validation split chose."""
    size = config.size
    title = (
        f"MiniLM on sentiment4: upper {LAYERS[size]} layers, {STEPS[size]} steps, {BLOCKS} blocks"
    )
    return {title: compare(record)}
