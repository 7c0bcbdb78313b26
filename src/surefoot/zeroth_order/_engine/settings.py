"""What a zeroth-order optimizer was told and keeps to: everything but its parameter groups."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from surefoot._numerics.checks import check_choice, check_number
from surefoot.zeroth_order._engine import checks


@dataclass(frozen=True)
class Settings:
    """Settings of a run that do not change; their names and order are those of a log's header.

    Raises
    ------
    ValueError
        If a setting is out of its range, naming it.
    """

    seed: int = 0
    nu: int = 1
    scale: str = "paper"
    v_dist: str = "gaussian"
    mode: str = "auto"
    momentum: float = 0.0
    num_directions: int = 1
    one_sided: bool = False
    c_clip: float | None = None
    fold: bool = True
    leave_one_out: bool = False
    normalize: bool = False
    rank_cap: int | None = None

    def __post_init__(self) -> None:
        check_number("nu", self.nu, least=1, whole=True)
        check_choice("scale", self.scale, checks.SCALES)
        check_choice("v_dist", self.v_dist, checks.V_DISTRIBUTIONS)
        check_choice("mode", self.mode, checks.MODES)
        check_number("num_directions", self.num_directions, least=1, whole=True)
        if self.c_clip is not None:
            object.__setattr__(self, "c_clip", check_number("c_clip", self.c_clip, above=0))
        if self.rank_cap is not None:
            cap = check_number("rank_cap", self.rank_cap, least=1, whole=True)
            object.__setattr__(self, "rank_cap", cap)
            if self.fold:
                raise ValueError("rank_cap is for fold=False, which keeps factors apart")
        object.__setattr__(
            self, "momentum", check_number("momentum", self.momentum, least=0, below=1)
        )
        object.__setattr__(self, "seed", check_number("seed", self.seed, whole=True))
        for name in ("leave_one_out", "normalize"):
            if getattr(self, name) and self.num_directions < 2:
                raise ValueError(
                    f"{name} needs num_directions of at least 2, got {self.num_directions}"
                )
        if self.leave_one_out and self.one_sided:
            raise ValueError(
                "leave_one_out must not be combined with one_sided: both are baselines"
            )

    def resolved(self, has_model: bool, weight_decay: float) -> Settings:
        """With mode "auto" decided, and what does not go together refused."""
        mode = self.mode
        if mode == "auto":
            mode = "factored" if has_model else "inplace"
        if mode == "factored" and not has_model:
            raise ValueError("mode 'factored' needs the model: pass the module, or model=")
        if not self.fold and weight_decay:
            raise ValueError(
                f"weight_decay must be 0 with fold=False, which never writes weights, got {weight_decay}"
            )
        if not self.fold and mode != "factored":
            raise ValueError(
                "fold=False needs mode 'factored': in place, weights are written anyway"
            )
        return dataclasses.replace(self, mode=mode)

    def to_dict(self) -> dict[str, Any]:
        """As a log's header and a state hold them."""
        # As before there was a cap, so that states and logs of then are those of now.
        return {
            k: v for k, v in dataclasses.asdict(self).items() if k != "rank_cap" or v is not None
        }
