"""The rows of test_zeroth_order_paired.py and test_zeroth_order_quantised.py in bfloat16 on one GPU, as JSON.

    python benchmarks/gpu_zeroth_order.py                  # SmolLM2-135M; under four minutes
    python benchmarks/gpu_zeroth_order.py --tiny           # a random model of two blocks, on any machine

Each row is a ratio in one process: a step of two forwards over the other, medians of interleaved rounds, with
the device waited for. `c error` is rms(c - c of float32) / rms(c of float32) at the same weights. Rows that
the budget leaves no time for are null, and `left_out` names them.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surefoot.zeroth_order import LOZO

SHAPES = {32: (4, 8), 128: (4, 32), 256: (8, 32), 512: (8, 64)}
SETTINGS = {"scale": "unit", "nu": 1000, "self_check": False}
ROUNDS, DIRECTIONS = 7, 6


class Clock:
    """What is left of the budget, and how long a call takes on the device."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.end = device, time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def __call__(self, call: Callable[[], Any]) -> float:
        self.wait()
        begun = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - begun


def opened(arguments: argparse.Namespace) -> Any:
    """The model in float32."""
    if not arguments.tiny:
        from surefoot import data

        return data.load("smollm2", arguments.model).open()[0]
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def blocks_of(arguments: argparse.Namespace) -> Path | None:
    """The GGUF file of the quantised rows; None where there is none."""
    from surefoot import data

    if arguments.tiny and arguments.model is None:
        return None
    found = data.load("smollm2", arguments.model)
    return None if found.gguf_file is None else found.folder / found.gguf_file


def batch_of(vocabulary: int, tokens: int, device: torch.device) -> dict[str, torch.Tensor]:
    rows, length = SHAPES[tokens]
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, min(8000, vocabulary), (rows, length), generator=generator)
    return {"input_ids": ids.to(device), "y": (torch.arange(rows) % 2).to(device)}


def words(model: Any) -> Callable[[Any], torch.Tensor]:
    """The loss of two label words at the last position."""

    def closure(batch: Any) -> torch.Tensor:
        logits = model(input_ids=batch["input_ids"], use_cache=False, logits_to_keep=1).logits
        return torch.nn.functional.cross_entropy(logits[:, -1, :2].float(), batch["y"])

    return closure


def released(optimizer: LOZO) -> None:
    for tensor in optimizer.tensors:
        tensor.unhook()


def scalars(model: Any, batch: Any, paired: bool, **settings: Any) -> tuple[np.ndarray, str]:
    """c along the first directions of one seed, at the same weights, and how."""
    optimizer, found = LOZO(model, 0.0, **(SETTINGS | settings)), []
    for _ in range(DIRECTIONS):
        optimizer.step(words(model), batch, paired=paired)
        found.append(optimizer.last["c"])
    how = optimizer.last["how"]
    released(optimizer)
    return np.array(found), how


def error(c: np.ndarray, of: np.ndarray) -> float:
    return float(np.linalg.norm(c - of) / np.linalg.norm(of))


def peak(clock: Clock, call: Callable[[], Any]) -> float | None:
    """MB that a call takes at most on the GPU, everything there included."""
    if clock.device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(clock.device)
    clock(call)
    return torch.cuda.max_memory_allocated(clock.device) / 2**20


def compared(clock: Clock, arms: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Medians of interleaved rounds, in milliseconds."""
    for call in arms.values():
        call()
        call()
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(ROUNDS):
        for name, call in arms.items():
            taken[name].append(clock(call))
    return {name: 1e3 * statistics.median(each) for name, each in taken.items()}


def stepping(
    model: Any, batch: Any, paired: bool, **settings: Any
) -> tuple[LOZO, Callable[[], Any]]:
    optimizer = LOZO(model, 0.0, **(SETTINGS | settings))
    closure = words(model)
    return optimizer, lambda: optimizer.step(closure, batch, paired=paired)


def row(clock: Clock, tokens: int, whole: Any, half: Any, blocks: Any) -> dict[str, Any]:
    """One size: both forms of each model, against a float32 step of two forwards."""
    models = [m for m in (whole, blocks) if m is not None]
    vocabulary = min(m.config.vocab_size for m in models)
    batch = batch_of(vocabulary, tokens, clock.device)
    forms = {
        "float32, two forwards": (whole, False, {}),
        "float32, one forward": (whole, True, {"precision": "float32"}),
        "float32 weights, bfloat16 products": (whole, True, {"precision": "bfloat16"}),
        "bfloat16, two forwards": (half, False, {}),
        "bfloat16, one forward": (half, True, {}),
    }
    if blocks is not None:
        forms["blocks, one forward"] = (blocks, True, {"fold": False})
        forms["blocks, float32, one forward"] = (
            blocks,
            True,
            {"fold": False, "precision": "float32"},
        )
    found: dict[str, Any] = {}
    exact = {id(m): scalars(m, batch, False, fold=m is not blocks)[0] for m in models}
    for name, (model, paired, settings) in forms.items():
        c, how = scalars(model, batch, paired, **settings)
        found[name] = {"c error": error(c, exact.get(id(model), exact[id(whole)])), "how": how}
    # Hooks of several optimizers add up: one form of a model is there at a time, so times are taken in turns
    # of models, the reference beside each.
    for name, (model, paired, settings) in forms.items():
        if clock.over:
            found[name]["ratio"] = None
            continue
        base, before = stepping(whole, batch, False)
        if model is whole:
            # The same optimizer, both ways: what is added to the weights is the same.
            released(base)
            base, before = stepping(whole, batch, False, **settings)
            closure = words(whole)
            other, now = base, lambda b=base, f=closure, p=paired: b.step(f, batch, paired=p)
        else:
            other, now = stepping(model, batch, paired, **settings)
        taken = compared(clock, {"before": before, "now": now})
        found[name] |= {
            "ms": taken["now"], "ratio": taken["before"] / taken["now"], "peak MB": peak(clock, now),
        }  # fmt: skip
        released(base)
        if other is not base:
            released(other)
    return found


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Run, print and return it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a random model of two blocks")
    parser.add_argument(
        "--model", help="a GGUF file, in place of SmolLM2; with --tiny for its rows in blocks"
    )
    parser.add_argument("--seconds", type=float, default=200.0, help="the budget")
    parser.add_argument("--device", help="by default the GPU, and with --tiny whatever there is")
    arguments = parser.parse_args(given)
    there = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(arguments.device or there)
    if device.type == "cpu" and not arguments.tiny:
        parser.error("no GPU was found; --tiny runs on a CPU, and --device cpu insists")
    clock = Clock(device, arguments.seconds)
    whole = opened(arguments).to(device)
    half = copy.deepcopy(whole).to(torch.bfloat16)
    file, blocks = blocks_of(arguments), None
    if file is not None:
        from surefoot.zeroth_order.quantised import load_gguf

        blocks = load_gguf(file).to(device)
    rows: dict[str, Any] = {}
    for tokens in SHAPES:
        rows[str(tokens)] = None if clock.over else row(clock, tokens, whole, half, blocks)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    found = {
        "device": name, "torch": torch.__version__, "tiny": arguments.tiny, "rows": rows,
        "left_out": [k for k, v in rows.items() if v is None],
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
