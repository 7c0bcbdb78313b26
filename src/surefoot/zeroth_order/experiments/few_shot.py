"""The paper's own setting: a masked language model, a prompt, k examples a class (part few-shot).

RoBERTa-large on SST-2, SST-5, SNLI, MNLI, RTE and TREC with 16 or 512 examples a class in the paper. Model
and data come from folders of the user's; nothing here is fetched. The whole model is trained, in evaluation
mode. Prompts and label words are those of LM-BFF (arXiv 2012.15723, Table 1).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from surefoot._problems.tuning import EqualTuning, remarks
from surefoot.record import Record
from surefoot.zeroth_order.experiments.fitting import fit
from surefoot.zeroth_order.experiments.prompts import PROMPTS, Prompt
from surefoot.zeroth_order.lozo import LOZO
from surefoot.zeroth_order.mezo import MeZO, ZOAdam

STEPS = {"quick": 20, "standard": 1000, "paper": 100_000}
LOOKS, BATCH, LENGTH, TEST = 100, 64, 128, 1000
RANK, PERIOD = 4, 50
GRID = (1e-7, 1e-6, 1e-5)
FULL_GRID = (1e-5, 3e-5, 1e-4)
METHODS = ("LOZO", "LOZO-M", "MeZO", "MeZO-M", "ZO-Adam", "AdamW")


@dataclass(frozen=True)
class Task:
    """Token ids, attention masks, position of the mask token and label of every row of a split."""

    rows: dict[str, dict[str, Tensor]]
    words: Tensor


class Prompted(nn.Module):
    """Logits of the label words at the mask token."""

    def __init__(self, model: nn.Module, words: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("words", words)

    def forward(self, ids: Tensor, attention: Tensor, at: Tensor) -> Tensor:
        """(batch, classes) logits."""
        scores = self.model(input_ids=ids, attention_mask=attention).logits
        logits: Tensor = scores[torch.arange(len(at)), at][:, self.words]
        return logits


def prepare(config: Any, tokenizer: Any, seed: int) -> Task:
    """k rows a class for training, k for validation, at most 1,000 of the validation split to test."""
    from surefoot.data.labelled import labelled

    frame, prompt = labelled(config.labelled), PROMPTS[config.task]
    rng = np.random.default_rng(seed)
    train, val = [], []
    for label in range(len(prompt.words)):
        there = frame.index[(frame["split"] == "train") & (frame["label"] == label)]
        if len(there) < 2 * config.shots:
            raise ValueError(
                f"{config.labelled} holds {len(there)} training rows of class {label}; "
                f"shots = {config.shots} needs {2 * config.shots}"
            )
        drawn = rng.permutation(there)
        train += list(drawn[: config.shots])
        val += list(drawn[config.shots : 2 * config.shots])
    held = frame.index[frame["split"] == "validation"]
    # The rows that are tested must not depend on the seed of the training.
    test = np.random.default_rng(0).permutation(held)[:TEST]
    chosen = {"train": train, "val": val, "test": list(test)}
    rows = {k: _encode(frame.loc[index], prompt, tokenizer) for k, index in chosen.items()}
    words = []
    for word in prompt.words:
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        words.append(ids[0])
    if len(set(words)) < len(words):
        raise ValueError(
            f"the tokenizer gives two of the label words {prompt.words} the same first token"
        )
    return Task(rows, torch.tensor(words))


def _encode(frame: pd.DataFrame, prompt: Prompt, tokenizer: Any) -> dict[str, Tensor]:
    mask = tokenizer.mask_token
    if mask is None:
        raise ValueError(
            "the model's tokenizer has no mask token: a masked language model is needed"
        )
    texts = []
    for text, second in zip(frame["text"], frame["second"], strict=True):
        # The template's own words and the mask must survive truncation, so the texts are cut first.
        first, other = (_cut(t, tokenizer, LENGTH // 3) for t in (text, second))
        texts.append(prompt.template.format(text=first, second=other, mask=mask))
    found = tokenizer(
        texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    ids = found["input_ids"]
    at = (ids == tokenizer.mask_token_id).int()
    if not bool((at.sum(1) == 1).all()):
        raise ValueError(
            "every row must hold the mask token once; a text contains it, or is too long"
        )
    return {
        "ids": ids, "attention": found["attention_mask"], "at": at.argmax(1),
        "y": torch.tensor(frame["label"].to_numpy()),
    }  # fmt: skip


def _cut(text: str, tokenizer: Any, tokens: int) -> str:
    ids = tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
    return text.strip() if len(ids) <= tokens else str(tokenizer.decode(ids[:tokens]))


@torch.no_grad()
def evaluate(model: nn.Module, task: Task, split: str) -> tuple[float, float]:
    """Loss and accuracy."""
    rows = task.rows[split]
    logits = torch.cat(
        [
            model(*(rows[k][at : at + BATCH] for k in ("ids", "attention", "at")))
            for at in range(0, len(rows["y"]), BATCH)
        ]
    ).float()
    loss = float(nn.functional.cross_entropy(logits, rows["y"]))
    return loss, float((logits.argmax(1) == rows["y"]).double().mean())


def optimizer_for(method: str, model: nn.Module, lr: float, seed: int) -> torch.optim.Optimizer:
    """Unit scale, so that one grid serves all zeroth-order arms."""
    if method == "AdamW":
        return torch.optim.AdamW(model.parameters(), lr=lr)
    momentum = 0.9 if method.endswith("-M") else 0.0
    if method.startswith("LOZO"):
        return LOZO(model, lr, rank=RANK, nu=PERIOD, scale="unit", momentum=momentum, seed=seed)
    if method == "ZO-Adam":
        return ZOAdam(model, lr, seed=seed)
    return MeZO(model, lr, momentum=momentum, seed=seed)


def train(
    method: str, lr: float, steps: int, seed: int, start: nn.Module, task: Task
) -> tuple[nn.Module, float]:
    """The model where its validation loss was lowest, and that loss; AdamW gets two thirds of the steps."""
    model = copy.deepcopy(start)
    split = task.rows["train"]

    def loss_of(rows: Tensor) -> Tensor:
        batch = (split[k][rows] for k in ("ids", "attention", "at"))
        return nn.functional.cross_entropy(model(*batch).float(), split["y"][rows])

    best = fit(
        model, optimizer_for(method, model, lr, seed), steps, LOOKS, loss_of, len(split["y"]), BATCH,
        lambda: evaluate(model, task, "val")[0], seed,
    )  # fmt: skip
    # An optimiser's hooks must not outlive its training.
    final = copy.deepcopy(start)
    final.load_state_dict(model.state_dict())
    return final, best


def run(config: Any, seed: int, record: Record) -> None:
    """A tenth of the steps for each rate of a grid, then the chosen rate; tested once."""
    from surefoot.zeroth_order.doors.encoders import open_masked_model

    for name, what in (("masked_model", "a masked language model's folder"),
                       ("labelled", "a folder of labelled texts")):  # fmt: skip
        if getattr(config, name) is None:
            raise ValueError(f"part few-shot needs --{name.replace('_', '-')} with {what}")
    folder = Path(config.masked_model).expanduser()
    model, tokenizer = open_masked_model(folder)
    task = prepare(config, tokenizer, seed)
    start = Prompted(model, task.words)
    zero = evaluate(start, task, "test")
    record.append(seed, 0, **{"zero-shot, test loss": zero[0], "zero-shot, test accuracy": zero[1]})
    steps = STEPS[config.size]
    tuning = EqualTuning("lower")
    for method in METHODS:

        def attempt(lr: float, method: str = method) -> tuple[float, None]:
            return train(method, lr, max(1, steps // 10), seed, start, task)[1], None

        chosen = tuning.choose(method, FULL_GRID if method == "AdamW" else GRID, attempt)
        chosen.note(record, method, seed)
        best = chosen.value
        found, _ = train(method, best, steps, seed, start, task)
        loss, accuracy = evaluate(found, task, "test")
        record.update(
            seed, 0,
            {f"{method}, test loss": loss, f"{method}, test accuracy": accuracy, f"{method}, lr": best},
        )  # fmt: skip


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Mean and spread over the seeds."""
    rows = []
    for method in ("zero-shot", *METHODS):
        accuracy = record.constant(f"{method}, test accuracy")
        row = {
            "method": method,
            "test accuracy": float(accuracy.mean()),
            "sd": float(accuracy.std(ddof=1)) if len(accuracy) > 1 else float("nan"),
            "test loss": float(record.constant(f"{method}, test loss").mean()),
        }
        if method != "zero-shot":
            row["lr, chosen"] = ", ".join(f"{v:g}" for v in record.constant(f"{method}, lr"))
            row["tuning"] = remarks(record, method)
        rows.append(row)
    return {f"{config.task}, {config.shots} examples a class": pd.DataFrame(rows)}
