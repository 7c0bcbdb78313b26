"""The paper's language tasks: a whole pretrained encoder on labelled texts of the user's, under Trainer.

In the paper RoBERTa-base on MRPC, CoLA and RTE at rank 2: one LoRA for 100 epochs against chains of 10
blocks of 10. Model and data come from folders; nothing here is fetched. A tenth of the training rows
chooses the learning rate, the validation rows are tested once.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from surefoot._problems.tuning import EqualTuning
from surefoot.lora.chain import ChainOfLora
from surefoot.lora.config import Method, RacConfig
from surefoot.lora.doors.peft import with_lora
from surefoot.lora.experiments.nets import METHODS, Outcome
from surefoot.lora.experiments.tuning import compare, tune
from surefoot.record import Record

RANK, ALPHA, BLOCKS, BATCH, LENGTH = 2, 2, 10, 32, 128
EPOCHS = {"quick": 2, "standard": 10, "paper": 100}
ADAPTER_RATES = {"quick": (1e-2,), "standard": (4e-4, 1e-3), "paper": (2e-4, 4e-4, 1e-3)}
FULL_RATES = {"quick": (1e-3,), "standard": (1e-5, 3e-5), "paper": (1e-5, 2e-5, 5e-5)}


class Rows(Dataset[dict[str, Tensor]]):
    """Tokenised texts with their class."""

    def __init__(self, frame: pd.DataFrame, tokenizer: Any) -> None:
        texts = [frame["text"].tolist()]
        if (frame["second"] != "").any():
            texts.append(frame["second"].tolist())
        self.fields = dict(
            tokenizer(
                *texts, padding="max_length", truncation=True, max_length=LENGTH,
                return_tensors="pt",
            )
        )  # fmt: skip
        self.labels = torch.tensor(frame["label"].to_numpy())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {k: v[i] for k, v in self.fields.items()} | {"labels": self.labels[i]}


def splits(config: Any, tokenizer: Any) -> dict[str, Rows]:
    """Nine tenths of the training rows, the last tenth, and the validation split."""
    from surefoot.data.labelled import labelled

    frame = labelled(config.labelled)
    order = np.random.default_rng(0).permutation(frame.index[frame["split"] == "train"])
    cut = len(order) - max(1, len(order) // 10)
    chosen = {
        "train": list(order[:cut]),
        "val": list(order[cut:]),
        "test": list(frame.index[frame["split"] == "validation"]),
    }
    return {name: Rows(frame.loc[index], tokenizer) for name, index in chosen.items()}


def accuracy(model: Any, rows: Rows) -> tuple[float, float]:
    """Accuracy and mean loss in evaluation mode."""
    model.eval()
    right = loss = 0.0
    with torch.no_grad():
        for at in range(0, len(rows), 128):
            batch = {k: v[at : at + 128] for k, v in rows.fields.items()}
            y = rows.labels[at : at + 128]
            logits = model(**batch).logits
            right += float((logits.argmax(1) == y).sum())
            loss += float(torch.nn.functional.cross_entropy(logits, y, reduction="sum"))
    return right / len(rows), loss / len(rows)


def finetune(
    folder: Path, data: dict[str, Rows], method: Method, lr: float, epochs: int, seed: int
) -> Outcome:
    """One training with AdamW; LoRA and AsymmLoRA are one block by themselves."""
    from surefoot.lora.doors.transformers import classifier, fit

    classes = 1 + max(int(rows.labels.max()) for rows in data.values())
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PEFT asks transformers for an attribute that transformers has renamed.
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
        torch.manual_seed(seed)
        model = with_lora(
            classifier(folder, classes), RANK, ["query", "value"], alpha=ALPHA, task_type="SEQ_CLS"
        )
        chain = ChainOfLora(
            model, RacConfig(method=method, blocks=BLOCKS, seed=seed, keep_history="none")
        )
        fit(
            chain, data["train"], steps=epochs * math.ceil(len(data["train"]) / BATCH), lr=lr,
            seed=seed, per_device_train_batch_size=BATCH,
            dataloader_pin_memory=torch.cuda.is_available(),
        )  # fmt: skip
        model = chain.model.cpu()
    found = {name: accuracy(model, rows) for name, rows in data.items()}
    numbers = sum(p.numel() for p in chain.trainable_parameters())
    return Outcome(found["val"][0], found["test"][0], found["train"][1], numbers)


def run(config: Any, seed: int, record: Record) -> None:
    """Every method at every rate, equally many."""
    from surefoot.lora.doors.transformers import tokenizer

    for name, what in (("encoder", "an encoder's folder"),
                       ("labelled", "a folder of labelled texts")):  # fmt: skip
        if getattr(config, name) is None:
            raise ValueError(f"part glue needs --{name} with {what}")
    folder = Path(config.encoder).expanduser()
    data = splits(config, tokenizer(folder))
    tuning = EqualTuning("higher")
    for method in METHODS:

        def train(lr: float, method: Method = method) -> Outcome:
            return finetune(folder, data, method, lr, EPOCHS[config.size], seed)

        rates = (FULL_RATES if method == "fpft" else ADAPTER_RATES)[config.size]
        tune(record, seed, tuning, method, rates, train)


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """What the held-out tenth chose."""
    return {f"{Path(config.labelled).name}, {EPOCHS[config.size]} epochs": compare(record)}
