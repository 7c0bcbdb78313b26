"""A sentence encoder from a folder in the format of sentence-transformers, without that package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.errors import FileFormatError, need

with need("transformers", extra="llm", part="surefoot.prototypes.sentence_encoder"):
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as transformers_logging

logging: Any = transformers_logging


class SentenceEncoder(nn.Module):
    """Texts to the mean of their tokens' last hidden states, of norm 1 where the folder says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.model: Any = _model(folder).eval()
        self.longest = int(_read(folder / "sentence_bert_config.json").get("max_seq_length", 512))
        modules = folder / "modules.json"
        steps = [str(m["type"]).rsplit(".", 1)[-1] for m in json.loads(modules.read_text())]
        pooling = _read(folder / "1_Pooling" / "config.json")
        ways = [k for k, v in pooling.items() if k.startswith("pooling_mode_") and v is True]
        if ways != ["pooling_mode_mean_tokens"] or set(steps) - {
            "Transformer",
            "Pooling",
            "Normalize",
        }:
            raise FileFormatError(
                f"{folder} must pool by the mean of tokens, got {ways} in the modules {steps}; load it "
                "with sentence-transformers and pass it through from_sentence_transformers"
            )
        self.normalised = "Normalize" in steps

    def forward(self, batch: Sequence[str]) -> Float[Tensor, "B d"]:
        """The embeddings of some texts."""
        tokens = self.tokenizer(
            [str(t) for t in batch], padding=True, truncation=True, max_length=self.longest,
            return_tensors="pt",
        )  # fmt: skip
        hidden = self.model(**tokens).last_hidden_state
        weight = tokens["attention_mask"][:, :, None].to(hidden)
        z: Tensor = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(z, dim=1) if self.normalised else z


def _model(folder: Path) -> Any:
    """The weights, without the bar that transformers draws for a tenth of a second."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    finally:
        if shown:
            logging.enable_progress_bar()


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{file} is not of a sentence encoder: {error}") from error
    return found
