"""The whole SmolLM2-135M trained in two forms, from the same start, batches and directions (part quantised).

The old: unpacked weights, two forwards a step. The new: weights on the blocks of their file, both copies in
one forward, factors kept apart. Each runs in a process of its own, on one thread, so that time is its own and
the peak is the kernel's count (it needs Linux). The prompts are tokenised before, elsewhere.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from surefoot.record import Record
from surefoot.zeroth_order.experiments import memory
from surefoot.zeroth_order.experiments.sentences import balanced
from surefoot.zeroth_order.lozo import LOZO

ARMS = {
    "unpacked, two forwards": {"quantised": False, "paired": False},
    "blocks, one forward": {"quantised": True, "paired": True},
}
TEMPLATE, WORDS = "Movie review: {text}\nThe movie was", (" terrible", " great")
LENGTH, BATCH, LOOKS = 24, 4, 3
SPLITS = {
    "quick": {"train": 32, "validation": 16},
    "standard": {"train": 256, "validation": 64},
    "paper": {"train": 1000, "validation": 400},
}
STEPS = {"quick": 4, "standard": 60, "paper": 2000}
RATE, PERIOD = 3e-5, 20
"""The rate is not tuned: it lowered the old form's loss in one trial, with a seed of no study."""
COLUMNS = ("validation loss", "validation accuracy")


def prompts(
    size: str, seed: int, language_model: Path | None, texts: Path | None
) -> dict[str, Any]:
    """Balanced snippets whose whole prompt fits, padded on the left; the words' numbers last.

    Parameters
    ----------
    size
        How many.
    seed
        Of the snippets.
    language_model, texts
        Of the study's settings.
    """
    from surefoot import data
    from surefoot.data.doors.transformers import open_tokenizer

    found = data.load("smollm2", language_model)
    if found.gguf_file is None:
        raise ValueError(f"part quantised needs a GGUF file, {found.folder} holds ordinary weights")
    tokenizer = open_tokenizer(found.folder, found.gguf_file)
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    wanted = SPLITS[size]
    half = sum(wanted.values()) // 2
    lines, labels = balanced(texts, 20 * half, seed)
    encoded = tokenizer([TEMPLATE.format(text=t) for t in lines])["input_ids"]
    short = [i for i, ids in enumerate(encoded) if len(ids) <= LENGTH]
    sides = [[i for i in short if int(labels[i]) == side][:half] for side in (0, 1)]
    if min(map(len, sides)) < half:
        raise ValueError(
            f"part quantised needs {half} texts of each sign whose prompt has at most {LENGTH} tokens, "
            f"there are {min(map(len, sides))}"
        )
    rows = [i for pair in zip(*sides, strict=True) for i in pair]
    batch = tokenizer.pad(
        {"input_ids": [encoded[i] for i in rows]}, padding="max_length", max_length=LENGTH,
        return_tensors="np",
    )  # fmt: skip
    return {
        "ids": batch["input_ids"],
        "mask": batch["attention_mask"],
        "y": labels[rows].numpy(),
        "words": np.array([tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in WORDS]),
    }


def run(config: Any, seed: int, record: Record) -> None:
    """Both forms, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.npz"
        np.savez(file, **prompts(config.size, seed, config.language_model, config.texts))
        for arm in ARMS:
            found = measured(arm, config.size, seed, file, config.language_model)
            for step, values in found.pop("looks"):
                record.update(seed, step, {f"{arm}, {k}": v for k, v in values.items()})
            record.update(seed, STEPS[config.size], {f"{arm}, {k}": v for k, v in found.items()})


def measured(
    arm: str, size: str, seed: int, prompts: Path, language_model: Path | None = None
) -> dict[str, Any]:
    """What one form gives, in a process of its own.

    Parameters
    ----------
    arm
        A key of ARMS.
    size, seed
        As in the study.
    prompts
        The file of the prompts.
    language_model
        A model's folder or file, in place of SmolLM2.

    Returns
    -------
    "looks", a list of (step, losses); "seconds a step" (CPU, median), "seconds" of all steps together; "peak
    MB of loading" and "peak MB of training" above what the imports take (2^20 bytes; NaN off Linux).

    Raises
    ------
    RuntimeError
        If the process fails, with what it said.
    """
    given = [arm, size, str(seed), str(prompts), *([str(language_model)] if language_model else [])]
    done = subprocess.run(
        [sys.executable, "-m", __name__, *given], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"training {arm} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


class Prompted(nn.Module):
    """Scores of the two words after the prompt."""

    def __init__(self, model: nn.Module, words: Tensor) -> None:
        super().__init__()
        self.model, self.words = model, words

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Of each row."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False,
            logits_to_keep=1,
        ).logits  # fmt: skip
        scores: Tensor = logits[:, -1, self.words].float()
        return scores


def train(arm: str, size: str, seed: int, model: Any, given: dict[str, Tensor]) -> dict[str, Any]:
    """The steps of one form, and what they took.

    Parameters
    ----------
    arm
        A key of ARMS.
    size, seed
        As in the study.
    model
        The language model, in the form that the arm asks for.
    given
        The prompts.
    """
    form, steps = ARMS[arm], STEPS[size]
    scores = Prompted(model, given["words"])
    optimizer = LOZO(
        scores, RATE, rank=2, nu=PERIOD, scale="unit", seed=seed, fold=not form["quantised"]
    )
    rows = SPLITS[size]["train"]
    generator = torch.Generator().manual_seed(seed)
    looks, taken = [(0, look(scores, given, rows))], []

    def loss(batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(scores(batch["ids"], batch["mask"]), batch["y"])

    for step in range(1, steps + 1):
        at = torch.randint(0, rows, (BATCH,), generator=generator)
        batch = {k: given[k][at] for k in ("ids", "mask", "y")}
        begun = time.thread_time()
        optimizer.step(loss, batch, paired=form["paired"])
        taken.append(time.thread_time() - begun)
        if step % max(1, steps // LOOKS) == 0:
            looks.append((step, look(scores, given, rows)))
    return {"looks": looks, "seconds a step": float(np.median(taken)), "seconds": sum(taken)}


@torch.no_grad()
def look(scores: nn.Module, given: dict[str, Tensor], first: int) -> dict[str, float]:
    """Loss and accuracy of the rows from `first` on."""
    parts = range(first, len(given["y"]), BATCH)
    logits = torch.cat(
        [scores(given["ids"][at : at + BATCH], given["mask"][at : at + BATCH]) for at in parts]
    )
    y = given["y"][first:]
    right = float((logits.argmax(1) == y).double().mean())
    return dict(zip(COLUMNS, (float(nn.functional.cross_entropy(logits, y)), right), strict=True))


def _measure(arm: str, size: str, seed: str, file: str, language_model: str | None = None) -> Any:
    from surefoot import data
    from surefoot.data.doors.transformers import open_language_model

    torch.set_num_threads(1)
    found = data.load("smollm2", language_model)
    given = {k: torch.from_numpy(v) for k, v in np.load(file, allow_pickle=False).items()}
    if ARMS[arm]["quantised"]:
        from surefoot.zeroth_order.quantised import load_gguf

        load: Any = functools.partial(load_gguf, found.folder / str(found.gguf_file))
    else:
        load = functools.partial(_unpacked, open_language_model, found)
    imports = memory.restart()
    model = load()
    loading = memory.highest() - imports
    memory.restart()
    taken = train(arm, size, int(seed), model, given)
    peaks = {"peak MB of loading": loading, "peak MB of training": memory.highest() - imports}
    return taken | peaks


def _unpacked(opened: Any, found: Any) -> Any:
    return opened(found.folder, found.gguf_file, None)[0]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Both forms side by side: mean and standard deviation over the seeds."""
    rows = []
    for arm in ARMS:
        start = record.curves(f"{arm}, {COLUMNS[0]}").values[:, 0]
        row: dict[str, Any] = {"form": arm, "loss at the start": float(start.mean())}
        for name in (
            *COLUMNS,
            "seconds a step",
            "seconds",
            "peak MB of loading",
            "peak MB of training",
        ):
            values = record.constant(f"{arm}, {name}")
            row[name] = float(values.mean())
            if name in COLUMNS:
                row[f"{name}, sd"] = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        rows.append(row)
    ends = [record.constant(f"{arm}, {COLUMNS[0]}") for arm in ARMS]
    gap = ends[1] - ends[0]
    seeds = record.curves(f"{next(iter(ARMS))}, {COLUMNS[0]}").seeds
    apart = pd.DataFrame({"seed": seeds, **dict(zip(ARMS, ends, strict=True)), "difference": gap})
    return {
        f"SmolLM2-135M, all layers, {STEPS[config.size]} steps": pd.DataFrame(rows),
        "validation loss at the end, by seed": apart,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
