"""What each method keeps in memory on a RoBERTa-like encoder: saved activations, numbers, moments."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from surefoot.lora.chain import ChainOfLora
from surefoot.lora.config import Method, RacConfig, Side
from surefoot.lora.doors.peft import with_lora
from surefoot.record import Record

TARGETS = ["query", "key", "value", "dense"]
SHAPE = (16, 64)
RANK = 8
ARMS: dict[str, tuple[Method, Side]] = {
    "full fine-tuning": ("fpft", "B"), "LoRA": ("lora", "B"),
    "RAC-LoRA, train A": ("rac_lora", "A"), "RAC-LoRA, train B": ("rac_lora", "B"),
}  # fmt: skip


def encoder() -> Any:
    """Four layers, width 128, in the shape of RoBERTa, with random weights."""
    from surefoot.lora.doors.transformers import roberta

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return roberta(
            vocab_size=1000, hidden_size=128, num_hidden_layers=4, num_attention_heads=4,
            intermediate_size=512, max_position_embeddings=80,
        )  # fmt: skip


def saved_bytes(model: nn.Module, loss: Any) -> tuple[int, Tensor]:
    """Bytes that autograd keeps for the backward pass, each storage once, parameters not counted."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss()
    return sum(held.values()), value


def measure(method: Method, train: Side) -> dict[str, float]:
    """Saved activations, trained numbers and Adam's moments in bytes, after one step."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PEFT asks transformers for an attribute that transformers has renamed.
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
        torch.manual_seed(0)
        model = with_lora(encoder(), RANK, TARGETS, alpha=RANK)
        tokens = torch.randint(3, 1000, SHAPE)
    chain = ChainOfLora(model, RacConfig(method=method, train=train, steps_per_block=1000))
    model.train()
    optimizer = torch.optim.AdamW(chain.trainable_parameters(), lr=1e-4)
    with torch.random.fork_rng(devices=[]):
        activations, value = saved_bytes(
            model, lambda: model(input_ids=tokens).last_hidden_state.square().mean()
        )
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    chain.step(optimizer)
    moments = sum(
        t.numel() * t.element_size()
        for state in optimizer.state.values() for t in state.values() if t.ndim
    )  # fmt: skip
    numbers = sum(p.numel() for p in chain.trainable_parameters())
    return {"activations": float(activations), "numbers": float(numbers), "moments": float(moments)}


def run(config: Any, seed: int, record: Record) -> None:
    """Every arm once."""
    for arm, (method, train) in ARMS.items():
        found = measure(method, train)
        record.update(seed, 0, {f"{arm}: {name}": value for name, value in found.items()})


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """In megabytes, and as a share of LoRA's."""
    lora = record.constant("LoRA: activations")[0]
    rows = []
    for arm in ARMS:
        values = {
            k: record.constant(f"{arm}: {k}")[0] for k in ("activations", "numbers", "moments")
        }
        rows.append(
            {
                "method": arm, "saved activations, MB": values["activations"] / 1e6,
                "of LoRA's": values["activations"] / lora,
                "trained numbers": int(values["numbers"]), "Adam's moments, MB": values["moments"] / 1e6,
            }
        )  # fmt: skip
    return {
        "memory on a RoBERTa-like encoder (4 layers, width 128, batch 16 x 64, r = 8)": pd.DataFrame(
            rows
        )
    }
