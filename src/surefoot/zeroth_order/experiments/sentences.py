"""Movie snippets with a real sentence encoder: a prompt head and a residual adapter (parts adapter and rank).

The pooled embedding e of MiniLM is computed once. What is trained: logits = 20 head(normalize(P e)), P from
the identity, the head from the embeddings of two prompts: training starts from a zero-shot classifier.
"""

from __future__ import annotations

import copy
import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from surefoot._problems.tuning import EqualTuning, remarks
from surefoot.record import Record
from surefoot.zeroth_order.lozo import LOZO
from surefoot.zeroth_order.mezo import MeZO, ZOAdam

PROMPTS = ("It was terrible, a bad movie.", "It was great, a good movie.")
SPLITS = {"train": 1024, "val": 512, "test": 1000}
BATCH = 64
LOOKS = 40
GRID = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
TUNE_STEPS = {"quick": 300, "standard": 1000, "paper": 5000}
STEPS = {"quick": 600, "standard": 6000, "paper": 20000}
RANK, PERIOD = 2, 50
FIRST_ORDER = ("SGD", "AdamW", "LoRA")
# nu = 1 draws V anew at every step; with V frozen the whole run stays in one subspace.
PERIODS = {"LOZO, nu 1": 1, "LOZO, V frozen": 10**9}
METHODS = ("LOZO", "LOZO-M", *PERIODS, "MeZO", "MeZO-M", "ZO-Adam", *FIRST_ORDER)


@dataclass(frozen=True)
class Snippets:
    """Pooled embeddings and labels of the three splits, and the prompt head."""

    e: dict[str, Tensor]
    y: dict[str, Tensor]
    head: Tensor


def chosen_texts(texts: Path | None) -> pd.DataFrame:
    """Movie snippets (or, of other texts, all) rated above .5 or below -.5."""
    from surefoot import data

    table = data.load("sentiment4", texts)
    movies = table[table["domain"] == "movies"]
    table = movies if len(movies) else table
    return table[table["rating"].abs() > 0.5]


def balanced(texts: Path | None, count: int, seed: int) -> tuple[list[str], Tensor]:
    """As many texts of each sign, in turn and in an order of the seed's; their labels, 1 for positive."""
    chosen = chosen_texts(texts)
    rng = np.random.default_rng(seed)
    sides = [
        rng.permutation(chosen.index[side])[: count // 2]
        for side in (chosen["rating"] > 0, chosen["rating"] < 0)
    ]
    rows = chosen.loc[np.stack(sides, axis=1).ravel()]
    return [str(t) for t in rows["text"]], torch.tensor((rows["rating"] > 0).tolist()).long()


@functools.lru_cache(maxsize=1)
def snippets(encoder: Path | None = None, texts: Path | None = None, seed: int = 0) -> Snippets:
    """Balanced snippets, encoded by the real MiniLM or another encoder."""
    from surefoot import data
    from surefoot.zeroth_order.doors.encoders import open_encoder

    model, tokenizer = open_encoder(data.load("minilm", encoder))

    def encode(texts: list[str]) -> Tensor:
        parts = []
        for at in range(0, len(texts), 64):
            batch = tokenizer(
                texts[at : at + 64],
                padding=True,
                truncation=True,
                max_length=24,
                return_tensors="pt",
            )
            with torch.no_grad():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][:, :, None].float()
            parts.append((hidden * mask).sum(dim=1) / mask.sum(dim=1))
        return torch.cat(parts)

    words, labels = balanced(texts, sum(SPLITS.values()), seed)
    embedded = encode(words)
    edges = np.cumsum([0, *SPLITS.values()])
    parts = {k: slice(a, b) for k, a, b in zip(SPLITS, edges, edges[1:], strict=False)}
    head = nn.functional.normalize(encode(list(PROMPTS)), dim=1)
    head = nn.functional.normalize(head - head.mean(dim=0), dim=1) * 0.5
    return Snippets(
        {k: embedded[s] for k, s in parts.items()}, {k: labels[s] for k, s in parts.items()}, head
    )


class Adapter(nn.Module):
    """logits = 20 head(normalize(P e))."""

    def __init__(self, head: Tensor) -> None:
        super().__init__()
        width = head.shape[1]
        self.p = nn.Linear(width, width)
        self.head = nn.Linear(width, 2)
        with torch.no_grad():
            self.p.weight.copy_(torch.eye(width))
            self.p.bias.zero_()
            self.head.weight.copy_(head)
            self.head.bias.zero_()

    def forward(self, e: Tensor) -> Tensor:
        """Logits of both classes."""
        logits: Tensor = 20 * self.head(nn.functional.normalize(self.p(e), dim=1))
        return logits


def model_for(method: str, head: Tensor, seed: int) -> nn.Module:
    """The adapter, for LoRA inside PEFT's: rank as the low-rank directions, the head trained whole."""
    model = Adapter(head)
    if method != "LoRA":
        return model
    from surefoot.zeroth_order.doors.peft import with_lora

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted: nn.Module = with_lora(
            model, r=RANK, lora_alpha=RANK, target_modules=["p"], modules_to_save=["head"]
        )
        return adapted


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the adapter's weights, with a low-rank change added to them."""
    model = copy.deepcopy(model)
    if not isinstance(model, Adapter):
        model = model.merge_and_unload()  # type: ignore[operator]
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def optimizer_for(method: str, model: nn.Module, lr: float, seed: int) -> torch.optim.Optimizer:
    """Every zeroth-order arm perturbs entries with the same variance: unit scale."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if method == "SGD":
        return torch.optim.SGD(trained, lr=lr)
    if method in FIRST_ORDER:
        return torch.optim.AdamW(trained, lr=lr)
    if method.startswith("LOZO"):
        momentum = 0.9 if method == "LOZO-M" else 0.0
        nu = PERIODS.get(method, PERIOD)
        return LOZO(model, lr, rank=RANK, nu=nu, scale="unit", momentum=momentum, seed=seed)
    if method == "ZO-Adam":
        return ZOAdam(model, lr, seed=seed)
    return MeZO(model, lr, momentum=0.9 if method == "MeZO-M" else 0.0, seed=seed)


def evaluate(model: nn.Module, data: Snippets, split: str) -> tuple[float, float]:
    """Loss and accuracy."""
    with torch.no_grad():
        logits = model(data.e[split])
        loss = float(nn.functional.cross_entropy(logits, data.y[split]))
        return loss, float((logits.argmax(dim=1) == data.y[split]).double().mean())


def train(
    method: str, lr: float, seed: int, forwards: int, data: Snippets
) -> tuple[nn.Module, float]:
    """The adapter at its best validation loss within so many forwards, and the seconds of training.

    All arms are looked at equally often: a first-order method overfits where the others have just begun.
    """
    model = model_for(method, data.head, seed)
    optimizer: Any = optimizer_for(method, model, lr, seed)
    generator = torch.Generator().manual_seed(seed)
    # A first-order step costs about three forwards; a zeroth-order one two.
    steps = forwards // (3 if method in FIRST_ORDER else 2)
    seconds, best, kept = 0.0, np.inf, weights(model)
    started = time.process_time()
    for step in range(1, steps + 1):
        rows = torch.randint(0, len(data.y["train"]), (BATCH,), generator=generator)
        e, y = data.e["train"][rows], data.y["train"][rows]
        if method in FIRST_ORDER:
            optimizer.zero_grad()
            loss: Any = nn.functional.cross_entropy(model(e), y)
            loss.backward()
            optimizer.step()
        else:
            optimizer.step(lambda e=e, y=y: nn.functional.cross_entropy(model(e), y))
        if step % max(1, steps // LOOKS) == 0:
            if method not in FIRST_ORDER:
                optimizer.flush()
            seconds += time.process_time() - started
            loss_now = evaluate(model, data, "val")[0]
            if loss_now < best:
                best, kept = loss_now, weights(model)
            started = time.process_time()
    final = Adapter(data.head)
    final.load_state_dict(kept)
    return final, seconds


def run(config: Any, seed: int, record: Record) -> None:
    """Rate and stopping point by validation loss, the same grid and budget for all; tested once."""
    data = snippets(config.encoder, config.texts)
    start = Adapter(data.head)
    loss, accuracy = evaluate(start, data, "test")
    record.append(seed, 0, **{"zero-shot, test accuracy": accuracy, "zero-shot, test loss": loss})
    tuning = EqualTuning("lower")
    for method in METHODS:

        def attempt(lr: float, method: str = method) -> tuple[float, None]:
            model, _ = train(method, lr, seed, 2 * TUNE_STEPS[config.size], data)
            return evaluate(model, data, "val")[0], None

        chosen = tuning.choose(method, GRID, attempt)
        chosen.note(record, method, seed)
        best = chosen.value
        model, seconds = train(method, best, seed, 2 * STEPS[config.size], data)
        loss, accuracy = evaluate(model, data, "test")
        record.update(
            seed,
            0,
            {
                f"{method}, lr": best,
                f"{method}, test accuracy": accuracy,
                f"{method}, test loss": loss,
                f"{method}, train loss": evaluate(model, data, "train")[0],
                f"{method}, seconds": seconds,
            },
        )


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Mean and spread over seeds; equal forwards, equal tuning."""
    rows = [
        {"method": "zero-shot", "test accuracy": record.constant("zero-shot, test accuracy").mean()}
    ]
    for method in METHODS:
        accuracy = record.constant(f"{method}, test accuracy")
        rows.append(
            {
                "method": method,
                "test accuracy": accuracy.mean(),
                "sd": accuracy.std(ddof=1) if len(accuracy) > 1 else float("nan"),
                "test loss": record.constant(f"{method}, test loss").mean(),
                "train loss": record.constant(f"{method}, train loss").mean(),
                "lr, chosen": ", ".join(f"{v:g}" for v in record.constant(f"{method}, lr")),
                "tuning": remarks(record, method),
                "CPU seconds": record.constant(f"{method}, seconds").mean(),
            }
        )
    return {"movie snippets": pd.DataFrame(rows)}
