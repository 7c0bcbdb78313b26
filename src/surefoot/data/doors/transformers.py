"""Open a language model's folder with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from surefoot.errors import need

with need("transformers", extra="llm", part="a language model"):
    import transformers


def open_language_model(
    folder: Path, gguf_file: str | None, dtype: torch.dtype | None
) -> tuple[Any, Any]:
    """The model in evaluation mode, float32 unless `dtype` says otherwise, and its tokenizer."""
    options: dict[str, Any] = {"gguf_file": gguf_file}
    if gguf_file is not None and hasattr(transformers, "GgufConfig"):
        # Without it the unpacked model stays marked as quantised, and no Trainer takes it.
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype or torch.float32, trust_remote_code=False, **options
    )
    return model.eval(), open_tokenizer(folder, gguf_file)


def open_tokenizer(folder: Path, gguf_file: str | None) -> Any:
    """The tokenizer alone."""
    return transformers.AutoTokenizer.from_pretrained(
        folder, gguf_file=gguf_file, trust_remote_code=False
    )
