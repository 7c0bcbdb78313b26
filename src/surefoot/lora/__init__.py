"""Low-rank adaptation that provably gets there: RAC-LoRA chains on PEFT (arXiv 2410.08305)."""

from typing import Any

from surefoot.lora.bounds import RacBound, blocks_to, rac_bound
from surefoot.lora.chain import ChainOfLora, chain_param_groups, theory_lr
from surefoot.lora.config import RacConfig
from surefoot.lora.errors import ChainStateError, GuaranteeError, UnsupportedLayerError
from surefoot.lora.export import ExportReport
from surefoot.lora.probe import local_smoothness
from surefoot.lora.reports import BlockReport
from surefoot.lora.sketch import lambda_min, shared_sketch

__all__ = [
    "BlockReport",
    "ChainOfLora",
    "ChainStateError",
    "ExportReport",
    "GuaranteeError",
    "RacBound",
    "RacCallback",
    "RacConfig",
    "UnsupportedLayerError",
    "blocks_to",
    "chain_param_groups",
    "lambda_min",
    "local_smoothness",
    "rac_bound",
    "shared_sketch",
    "theory_lr",
]


def __getattr__(name: str) -> Any:
    # transformers takes seconds to import, and only a Trainer needs the callback.
    if name == "RacCallback":
        from surefoot.lora.trainer import RacCallback

        return RacCallback
    raise AttributeError(f"module 'surefoot.lora' has no attribute {name!r}")
