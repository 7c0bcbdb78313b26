"""Pretrained encoders and masked language models, from a folder as `save_pretrained` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from surefoot.errors import need

with need("transformers", extra="llm", part="the text models of surefoot.zeroth_order"):
    import transformers


def open_encoder(folder: Path) -> tuple[Any, Any]:
    """An encoder in evaluation mode, and its tokenizer."""
    model: Any = transformers.AutoModel.from_pretrained(folder, trust_remote_code=False)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def open_masked_model(folder: Path) -> tuple[Any, Any]:
    """A masked language model in evaluation mode, and its tokenizer."""
    model: Any = transformers.AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=False)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
