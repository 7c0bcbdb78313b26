"""What a fine-tuning is told."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import tyro

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.refusing import refuse
from surefoot.errors import ArgumentError

PROMPT = "{text}\nLabel:"
Method = Literal["lozo", "lozo-m", "mezo", "rac-lora", "lora", "cola", "full"]

PATIENCE = 5
METHODS: tuple[Method, ...] = get_args(Method)
FORWARD_ONLY = ("lozo", "lozo-m", "mezo")
"""Methods that need no gradients: the memory of inference."""
CHAINED = ("rac-lora", "cola")
"""Methods that train low-rank blocks one after the other."""
ON_BLOCKS = ("lozo", "lozo-m")
"""Methods that can train on a base that stays in the blocks of its GGUF file."""


@checked
@dataclass(frozen=True)
class FinetuneConfig:
    """A fine-tuning: the model, the file, and how.

    Raises
    ------
    ValueError
        An option is outside its range, or two of them exclude each other.
    """

    model: tyro.conf.Positional[str]
    """A folder as save_pretrained writes it, a GGUF file, or a packaged model: minilm, smollm2."""
    data: tyro.conf.Positional[str | Path]
    """CSV, JSONL or Parquet with a column of texts, and one of labels where classes are to be learned."""
    method: Method | None = None
    """By default steps of all are measured, and the choice is explained."""
    out: str | Path = "finetuned"
    """A new folder, or that of the same command, which then goes on."""
    text: str = "text"
    """The column of texts."""
    label: str | None = None
    """The column of labels; by default `label` if there is one, else texts alone are learned."""
    prompt: str = PROMPT
    """How a language model is asked for the label of {text}; the label follows after a space."""
    max_length: int | None = None
    """Tokens at which longer texts are cut; by default none is, and one that is too long is an error."""
    lr: float | None = None
    """Learning rate; by default several are tried on a part of the training texts."""
    steps: int | None = None
    """Steps at most; by default 10 passes over the training texts, or 60 for forward-only methods."""
    batch: int = 16
    """Texts in a step, over all processes."""
    rank: int | None = None
    """Of low-rank directions or adapters; by default 2 (LOZO) or 8 (LoRA)."""
    looks: int = 20
    """How often the validation texts are looked at, evenly over the steps."""
    patience: int = PATIENCE
    """Looks without a lower validation loss after which training stops."""
    validation: float = 0.15
    """Share of the texts that decides on stopping."""
    test: float = 0.15
    """Share of the texts that is looked at once, at the end; 0: none."""
    max_memory: float | None = None
    """GiB that a process may take; by default what this machine has free."""
    quantised: bool | None = None
    """Leave a GGUF file's weights in their 4 or 8 bits; by default where nothing else fits."""
    private: float | None = None
    """Epsilon of differential privacy for each training text; with lora, lozo, lozo-m or mezo."""
    delta: float | None = None
    """The delta beside it, well below 1 / (number of training texts)."""
    clip: float | None = None
    """Of a text's gradient norm (default 1), or of its |c| (default: found on made-up sentences)."""
    seed: int = 0
    """Of the split, the order of the texts, the directions and the adapters."""

    def __post_init__(self) -> None:
        if self.method is not None:
            check_choice("method", self.method, METHODS)
        for name in ("max_length", "steps", "rank"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), least=1, whole=True)
        for name in ("batch", "looks", "patience"):
            check_number(name, getattr(self, name), least=1, whole=True)
        check_number("seed", self.seed, least=0, whole=True)
        if self.rank is not None and self.method in ("full", "mezo"):
            refuse(ArgumentError("rank", f"has no use with method {self.method}: leave it out"))
        if self.lr is not None:
            check_number("lr", self.lr, above=0)
        if self.max_memory is not None:
            check_number("max_memory", self.max_memory, above=0)
        self._check_private()
        check_number("validation", self.validation, above=0, below=1)
        check_number("test", self.test, least=0, below=1)
        if self.validation + self.test >= 1:
            refuse(
                ArgumentError(
                    "test",
                    f"and validation must leave texts to train on, got {self.validation} and {self.test}",
                )
            )
        others = [p for p in re.findall(r"\{\w*\}?", self.prompt) if p != "{text}"]
        if self.prompt.count("{text}") > 1 or others:
            refuse(
                ArgumentError(
                    "prompt",
                    f"must hold {{text}} once and no other place to be filled in, got {self.prompt!r}",
                )
            )
        if "{text}" not in self.prompt:
            refuse(ArgumentError("prompt", f"must hold {{text}}, got {self.prompt!r}"))
        if self.quantised and self.method is not None and self.method not in ON_BLOCKS:
            refuse(
                ArgumentError(
                    "quantised",
                    f"needs method lozo or lozo-m, which do not write weights; got method {self.method}",
                )
            )

    def _check_private(self) -> None:
        if self.private is None:
            for name in ("delta", "clip"):
                if getattr(self, name) is not None:
                    refuse(ArgumentError(name, "has no use without private: leave it out"))
            return
        check_number("private", self.private, above=0)
        if self.patience != PATIENCE:
            refuse(
                ArgumentError(
                    "patience", "has no use with private, which keeps the last step: leave it out"
                )
            )
        if self.delta is None:
            refuse(
                ArgumentError(
                    "delta", "must be given with private, well below 1 / (number of training texts)"
                )
            )
        check_number("delta", self.delta, above=0, below=1)
        if self.clip is not None:
            check_number("clip", self.clip, above=0)

    @property
    def file(self) -> Path:
        """The data."""
        return Path(self.data)

    @property
    def folder(self) -> Path:
        """Where all is written."""
        return Path(self.out)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        found = dataclasses.asdict(self)
        return found | {"data": str(self.data), "out": str(self.out)}
