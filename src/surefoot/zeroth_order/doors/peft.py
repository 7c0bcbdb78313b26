"""LoRA as a peer: a model with PEFT's adapter on it."""

from __future__ import annotations

from typing import Any

from torch import nn

from surefoot.errors import need

with need("peft", extra="llm", part="the LoRA arm of surefoot.zeroth_order"):
    import peft


def with_lora(model: nn.Module, **settings: Any) -> Any:
    """The model with a LoRA adapter; `settings` are those of `peft.LoraConfig`."""
    return peft.get_peft_model(model, peft.LoraConfig(**settings))
