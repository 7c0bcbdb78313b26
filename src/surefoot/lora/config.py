"""What a chain is told: the method, the side, the sketch, the blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number

Method = Literal["rac_lora", "lora", "asymm_lora", "cola", "relora", "fpft"]
Side = Literal["A", "B"]
"""The factor that is trained: B with A sampled (right sketch), or A with B sampled (left sketch)."""
Law = Literal["orthonormal", "gaussian", "kaiming_uniform", "rademacher", "coordinate"]
Sketch = Law | Callable[[tuple[int, int], torch.Generator], Tensor]
MergeDtype = Literal["auto", "float32", "residual"]
KeepHistory = Literal["factors", "seeds", "none"]
OnQuantized = Literal["error", "accumulate"]

PROJECTIONS: tuple[Law, ...] = ("orthonormal", "coordinate")
"""The laws whose draws have orthonormal rows or columns."""
BERNOULLI = re.compile(r"bernoulli\((?P<p>[^)]+)\)")
CHAINED: tuple[Method, ...] = ("rac_lora", "cola", "relora")
BOTH_TRAINED: tuple[Method, ...] = ("lora", "cola", "relora")


@checked
@dataclass(frozen=True)
class RacConfig:
    """How a chain of LoRA blocks runs (arXiv 2410.08305, Algorithm 1).

    Parameters
    ----------
    method
        "rac_lora": one factor drawn anew each block and frozen, the other trained from zero.
        "asymm_lora": the same with one block for the whole run. "lora": one block, both trained.
        "cola": blocks, both trained. "relora": cola that keeps the largest part of Adam's moments.
        "fpft": the adapted weights themselves are trained.
    train
        "B" (A is sampled), "A" (B is sampled), "alternate" (even blocks train B, odd ones A) or
        "bernoulli(p)": train A with probability p, one draw a block for all layers.
    sketch
        The law of the sampled factor, or a callable (shape, generator) -> tensor of that shape.
    steps_per_block
        Optimizer steps of a block; "epoch" where `end_block` is called once an epoch. None takes
        ceil(max_steps / blocks) under a Trainer and is an error in a bare loop.
    blocks
        The plan. Steps beyond it open further blocks, with one warning.
    precondition
        Multiply the trained factor's gradient by (A A^T)^+ / s^2, so that any sketch realises the
        projection of the theorem.
    seed
        Of the sketches; a layer's sketch depends on (seed, block, layer name) and nothing else.
    reset_optimizer
        Forget the optimizer state of the restarted factors.
    merge_dtype
        "residual" keeps what the merged weight rounds away in the weight's own dtype, "float32" in
        float32: the weight's memory once more, or twice for 16 bits in float32. "auto" is "residual"
        for 16-bit weights and nothing for others.
    keep_history
        "factors" keeps both factors of every block, "seeds" the trained one, "none" neither; only
        the first two allow `export_adapter` without the original weights.
    warmup_steps_per_block
        Steps over which each block's learning rate rises, as a factor on the scheduler's.
    on_quantized
        "error", or "accumulate": never merge, hold the past in a frozen companion adapter.
    sketch_std
        Standard deviation of "gaussian" entries; None means 1/sqrt(d), d the sampled dimension.
    companion_rank
        Largest rank of the companion adapter of "accumulate"; None means min(m, n).
    keep_original
        Copy the adapted weights to the CPU before the first merge, for `ChainOfLora.original`: once their
        size.
    prune
        Fraction of Adam's moments that "relora" sets to zero at a restart, smallest first.
    """

    method: Method = "rac_lora"
    train: str = "B"
    sketch: Sketch = "orthonormal"
    steps_per_block: int | Literal["epoch"] | None = None
    blocks: int | None = None
    precondition: bool = False
    seed: int = 0
    reset_optimizer: bool = True
    merge_dtype: MergeDtype = "auto"
    keep_history: KeepHistory = "factors"
    warmup_steps_per_block: int = 0
    on_quantized: OnQuantized = "error"
    sketch_std: float | None = 1.0
    companion_rank: int | None = None
    prune: float = 0.9
    keep_original: bool = True

    def __post_init__(self) -> None:
        check_choice("method", self.method, get_args(Method))
        check_choice("merge_dtype", self.merge_dtype, get_args(MergeDtype))
        check_choice("keep_history", self.keep_history, get_args(KeepHistory))
        check_choice("on_quantized", self.on_quantized, get_args(OnQuantized))
        if not callable(self.sketch):
            check_choice("sketch", self.sketch, get_args(Law))
        if self.train not in ("A", "B", "alternate"):
            self._left_probability()
        steps = self.steps_per_block
        if steps is not None and steps != "epoch" and (not isinstance(steps, int) or steps < 1):
            raise ValueError(f"steps_per_block must be at least 1 or 'epoch', got {steps!r}")
        for name in ("blocks", "companion_rank"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, least=1, whole=True)
        check_number("warmup_steps_per_block", self.warmup_steps_per_block, least=0, whole=True)
        check_number("prune", self.prune, least=0, most=1)
        if self.sketch_std is not None:
            check_number("sketch_std", self.sketch_std, above=0)
        if self.method == "asymm_lora" and self.train not in ("A", "B"):
            raise ValueError(
                f"asymm_lora keeps one side: train must be 'A' or 'B', got {self.train!r}"
            )
        if self.precondition and self.method not in ("rac_lora", "asymm_lora"):
            raise ValueError(
                f"precondition needs one frozen factor: method must be 'rac_lora' or 'asymm_lora', "
                f"got {self.method!r}"
            )

    def _left_probability(self) -> float:
        found = BERNOULLI.fullmatch(self.train)
        try:
            p = float(found["p"]) if found else math.nan
        except ValueError:
            p = math.nan
        if not 0 <= p <= 1:
            raise ValueError(
                "train must be 'A', 'B', 'alternate' or 'bernoulli(p)' with p between 0 and 1, "
                f"got {self.train!r}"
            )
        return p

    @property
    def left_probability(self) -> float:
        """Probability of the left sketch (A trained); an alternating chain has one half."""
        fixed = {"A": 1.0, "B": 0.0, "alternate": 0.5}
        return fixed[self.train] if self.train in fixed else self._left_probability()

    @property
    def switches(self) -> bool:
        """Whether both factors of a layer are trained at some time."""
        return self.train not in ("A", "B") or self.method in BOTH_TRAINED

    @property
    def chained(self) -> bool:
        """Whether there is more than one block."""
        return self.method in CHAINED

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a callable sketch becomes its qualified name, which cannot be called again."""
        data = asdict(self)
        if callable(self.sketch):
            name = getattr(self.sketch, "__qualname__", type(self.sketch).__qualname__)
            data["sketch"] = f"callable:{name}"
        return data
