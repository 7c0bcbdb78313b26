"""What a checkpoint of a zeroth-order run holds, and going on from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surefoot.zeroth_order._engine.directions import Directions
from surefoot.zeroth_order._engine.self_check import SelfCheck
from surefoot.zeroth_order._engine.tensors import Slot, exact
from surefoot.zeroth_order.log import StepLog


class Keeping(Directions):
    """`state_dict` and its way back: factors, dense copies and momenta, without V and without weights."""

    method: str
    mode: str
    momentum: float
    c_clip: float | None
    one_sided: bool
    leave_one_out: bool
    normalize: bool
    fold: bool
    log: StepLog | None
    _decay: list[float]
    _self_check: SelfCheck | None

    def state_dict(self) -> dict[str, Any]:
        """t, factors, dense copies and momenta; V is not in it, nor are weights.

        Save the model's state_dict beside it: in factored mode that is the weights of the period's start.
        """
        if self._sums is not None:
            raise ValueError("state_dict must not come between estimate() and apply()")
        groups = [
            {k: v for k, v in g.items() if k != "params"} | {"count": len(g["params"])}
            for g in self.param_groups
        ]
        return {
            "method": self.method,
            "settings": self._settings(),
            "t": self.t,
            "decay": list(self._decay),
            "param_groups": groups,
            "state": {s.index: self._slot_state(s) for s in self.slots},
            "log": None if self.log is None or not self.log.header else self.log.to_bytes(),
        }

    def _settings(self) -> dict[str, Any]:
        return {
            "seed": self.streams.seed, "nu": self.nu, "scale": self.scale, "v_dist": self.v_dist,
            "mode": self.mode, "momentum": self.momentum, "num_directions": self.num_directions,
            "one_sided": self.one_sided, "c_clip": self.c_clip, "fold": self.fold,
            "leave_one_out": self.leave_one_out, "normalize": self.normalize,
        }  # fmt: skip

    def _slot_state(self, slot: Slot) -> dict[str, Any]:
        kept: dict[str, Any] = {"storage": slot.storage, "rank": slot.rank}
        if slot.b is not None:
            kept["b"] = slot.b.clone()
        if slot.base is not None:
            kept["base"] = slot.base.clone()
        if slot.kept:
            kept["kept"] = [(k, b.clone()) for k, b in slot.kept]
        return kept | {k: v.clone() for k, v in slot.momentum.items()}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a state was taken; the model must hold the weights saved beside it.

        Raises
        ------
        ValueError
            If the state is of another method, other settings or other parameters.
        """
        if state_dict.get("method") != self.method:
            raise ValueError(
                f"state is of method {state_dict.get('method')!r}, not {self.method!r}"
            )
        mine, theirs = self._settings(), state_dict["settings"]
        wrong = [k for k in mine if mine[k] != theirs.get(k)]
        if wrong:
            each = ", ".join(f"{k} {theirs.get(k)!r} instead of {mine[k]!r}" for k in wrong)
            raise ValueError(f"state was taken with other settings: {each}")
        counts = [g["count"] for g in state_dict["param_groups"]]
        if counts != [len(g["params"]) for g in self.param_groups]:
            raise ValueError(
                f"state has parameter groups of sizes {counts}, not of this optimiser's"
            )
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            if group["rank"] != saved["rank"]:
                raise ValueError(f"state has rank {saved['rank']}, this optimiser {group['rank']}")
            group.update({k: v for k, v in saved.items() if k not in ("count", "params")})
        self._clear()
        self.t, self._decay = state_dict["t"], list(state_dict["decay"])
        for slot in self.slots:
            self._restore(slot, state_dict["state"][slot.index])
        if state_dict["log"] is not None and self.log is not None:
            self.log.resume(state_dict["log"], self)
        if self.t:
            # The run that saved has looked already; accelerate hands a fresh state back and forth.
            self._self_check = None

    def _restore(self, slot: Slot, saved: dict[str, Any]) -> None:
        saved = dict(saved)
        if saved.pop("storage") != slot.storage and slot.storage == "hooked":
            # The self-check of the run that saved had found this tensor read outside its module.
            slot.unhook()
            slot.storage = "written"
        rank = saved.pop("rank")
        device = slot.param.device
        base = saved.pop("base", None)
        slot.base = None if base is None else base.to(device, copy=True)
        b = saved.pop("b", None)
        if self.t:
            # At a period's end the old V is still needed: the momentum is projected from it.
            slot.period = (self.t - (self.t % self.nu == 0)) // self.nu
            slot.begin(self._draw_v(slot, slot.period, rank), rank)
        if b is not None:
            assert slot.b is not None
            slot.b.copy_(b)
        slot.kept = [(k, each.to(device, copy=True)) for k, each in saved.pop("kept", [])]
        kind = exact(slot.param.dtype)
        drawn = [self._draw_v(slot, k, rank) for k, _ in slot.kept]
        slot.kept_v = [v.to(device, kind) for v in drawn if v is not None]
        slot.momentum = {k: m.to(device, copy=True) for k, m in saved.items()}
        slot.position, slot.low = 0.0, slot.b
        if slot.storage == "written" and slot.base is not None:
            if slot.dense:
                slot.param.data.copy_(slot.base)
            elif slot.v is not None:
                slot._write(None, 0.0, 1.0)

    def adapter(self) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """The (B, V) pairs of a fold=False run by parameter name: W + sum B V^T is the trained weight."""
        return {
            s.name: [(b.clone(), v.clone()) for b, v in s.factors()]
            for s in self.slots
            if not s.dense
        }
