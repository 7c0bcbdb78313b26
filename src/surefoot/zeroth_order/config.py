"""The study's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surefoot._numerics.checks import check_choice, check_number
from surefoot.settings import StudyConfig
from surefoot.zeroth_order.experiments.prompts import PROMPTS


@dataclass(frozen=True)
class ZerothOrderConfig(StudyConfig):
    """The study of zeroth-order fine-tuning."""

    encoder: Path | None = None
    """A model directory for parts adapter, rank and private; by default MiniLM comes from a package."""
    language_model: Path | None = None
    """A model directory or GGUF file for part language, or a GGUF file for part quantised; else SmolLM2."""
    texts: Path | None = None
    """Rated texts for all parts of text; by default sentiment4, of which private takes all, others movies."""
    masked_model: Path | None = None
    """A masked language model's directory for part few-shot, for instance RoBERTa-large."""
    labelled: Path | None = None
    """A folder of labelled texts with train and validation files for part few-shot, for instance SST-2."""
    task: str = "sst2"
    """The prompt of part few-shot: sst2, sst5, snli, mnli, rte or trec."""
    shots: int = 16
    """Examples a class in part few-shot."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("task", self.task, PROMPTS)
        check_number("shots", self.shots, least=1, whole=True)
