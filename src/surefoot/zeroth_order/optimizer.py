"""What all zeroth-order optimisers share: directions, two evaluations, one scalar, an update, a log."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surefoot._numerics.checks import check_choice, check_number
from surefoot.zeroth_order._engine import checks, hooks
from surefoot.zeroth_order._engine.distributed import Reducer
from surefoot.zeroth_order._engine.draws import Streams
from surefoot.zeroth_order._engine.evaluation import Closure, Evaluation
from surefoot.zeroth_order._engine.self_check import SelfCheck
from surefoot.zeroth_order._engine.tensors import Slot
from surefoot.zeroth_order.log import StepLog


class ZerothOrder(Evaluation):
    """Base of LOZO, MeZO and ZOAdam: a `torch.optim.Optimizer` that needs forward passes only.

    `step(closure)` evaluates the loss at the iterate plus and minus eps times a random direction and
    moves along it. `estimate(closure)` and `apply()` are its two halves, for gradient accumulation.
    """

    method = "zo"

    def __init__(
        self,
        params_or_model: nn.Module | Iterable[Any],
        lr: float,
        *,
        rank: int = 0,
        nu: int = 1,
        eps: float = 1e-3,
        momentum: float = 0.0,
        scale: str = "paper",
        v_dist: str = "gaussian",
        mode: str = "auto",
        seed: int = 0,
        num_directions: int = 1,
        c_clip: float | None = None,
        weight_decay: float = 0.0,
        one_sided: bool = False,
        leave_one_out: bool = False,
        normalize: bool = False,
        freeze_embeddings: bool = False,
        self_check: bool = True,
        fold: bool = True,
        process_group: Any = None,
        log: StepLog | str | bool | None = None,
        allow_drift: bool = False,
        model: nn.Module | None = None,
    ) -> None:
        self.nu = check_number("nu", nu, least=1, whole=True)
        self.scale = check_choice("scale", scale, checks.SCALES)
        self.v_dist = check_choice("v_dist", v_dist, checks.V_DISTRIBUTIONS)
        self.num_directions = check_number("num_directions", num_directions, least=1, whole=True)
        self.c_clip = None if c_clip is None else check_number("c_clip", c_clip, above=0)
        self.momentum = check_number("momentum", momentum, least=0, below=1)
        self.one_sided, self.fold = one_sided, fold
        self.leave_one_out, self.normalize = leave_one_out, normalize
        self._check_options()
        self.streams = Streams(check_number("seed", seed, whole=True))
        if isinstance(params_or_model, nn.Module):
            if model is not None and model is not params_or_model:
                raise ValueError("model must not be given twice")
            model = params_or_model
        self.model = model
        frozen = _embeddings(model) if freeze_embeddings else set()
        names = {} if model is None else {id(p): n for n, p in model.named_parameters()}
        self._names = names
        self.mode = check_choice("mode", mode, checks.MODES)
        if self.mode == "auto":
            self.mode = "inplace" if model is None else "factored"
        if self.mode == "factored" and model is None:
            raise ValueError("mode 'factored' needs the model: pass the module, or model=")
        if not fold and weight_decay:
            raise ValueError(
                f"weight_decay must be 0 with fold=False, which never writes weights, got {weight_decay}"
            )
        if not fold and self.mode != "factored":
            raise ValueError(
                "fold=False needs mode 'factored': in place, weights are written anyway"
            )
        self.allow_drift = allow_drift
        self.t = 0
        self.last: dict[str, Any] = {}
        self.slots: list[Slot] = []
        self._clear()
        self._flat, self._probed = 0, 0
        self._needs_grad = self._told = False
        defaults = {
            "lr": check_number("lr", lr, least=0),
            "rank": rank,
            "eps": check_number("eps", eps, above=0),
            "weight_decay": check_number("weight_decay", weight_decay, least=0),
        }
        super().__init__(_trainable(params_or_model, frozen), defaults)
        if self.mode == "factored":
            assert model is not None
            hooks.install(model, self.slots)
            for slot in self.slots:
                if slot.storage == "inplace":
                    slot.storage = "written"
        self._check_drift()
        self._self_check = (
            SelfCheck(self.streams.seed) if self_check and model is not None else None
        )
        self._reducer = Reducer(process_group)
        self.log = StepLog.open(log)
        self._decay = [1.0] * len(self.param_groups)

    @classmethod
    def from_settings(cls, groups: Any, settings: dict[str, Any], model: nn.Module) -> ZerothOrder:
        """As a log's header describes it, for a replay."""
        return cls(groups, 0.0, model=model, allow_drift=True, self_check=False, **settings)

    def _check_options(self) -> None:
        for name in ("leave_one_out", "normalize"):
            if getattr(self, name) and self.num_directions < 2:
                raise ValueError(
                    f"{name} needs num_directions of at least 2, got {self.num_directions}"
                )
        if self.leave_one_out and self.one_sided:
            raise ValueError(
                "leave_one_out must not be combined with one_sided: both are baselines"
            )

    # -- groups -------------------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; rank 0 makes them dense.

        Raises
        ------
        TypeError
            For a parameter that is integer, complex, quantised or sharded.
        ValueError
            For a setting out of range, or in factored mode after the first parameters.
        """
        if self.slots and self.mode == "factored" and hasattr(self, "log"):
            raise ValueError(
                "add_param_group in mode 'factored' must come with the model: build anew"
            )
        given = param_group["params"]
        listed = [given] if isinstance(given, Tensor) else list(given)
        param_group = {
            **param_group,
            "params": [p for p in listed if p.requires_grad and p.numel()],
        }
        if not param_group["params"]:
            raise ValueError("params must hold at least one trainable tensor, got none")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name in ("lr", "weight_decay"):
            group[name] = check_number(name, group[name], least=0)
        group["eps"] = check_number("eps", group["eps"], above=0)
        group["rank"] = check_number("rank", group["rank"], least=0, whole=True)
        at = len(self.param_groups) - 1
        for p in group["params"]:
            index = len(self.slots)
            name = self._names.get(id(p), str(index))
            checks.check_parameter(name, p)
            if not p.is_contiguous():
                raise ValueError(f"{name} must be contiguous, got strides {p.stride()}")
            slot = Slot(index, name, p, at)
            slot.rank = slot.full_rank_for(group["rank"])
            self.slots.append(slot)
        if hasattr(self, "_decay"):
            self._decay.append(1.0)

    def _check_drift(self) -> None:
        low = [s for s in self.slots if s.storage == "inplace" and s.param.element_size() < 4]
        if low and not self.allow_drift:
            raise ValueError(
                f"{low[0].name} is {low[0].param.dtype} and would be perturbed in place, which destroys "
                "16-bit weights by rounding even at lr 0 (12 % of the norm in 1,000 steps of bfloat16); "
                "pass the model for mode 'factored', or allow_drift=True"
            )

    # -- the public halves --------------------------------------------------------------------------------

    @torch.no_grad()
    def estimate(self, closure: Closure, *, weight: float | None = None) -> float:
        """Add c of one micro-batch to the running mean of this step, all along the same direction.

        Parameters
        ----------
        closure
            Returns the loss of the micro-batch, a tensor of one number or a float; it may be any function of
            the model, differentiable or not, and must give the same value for the same weights.
        weight
            Samples in the micro-batch, where they differ; given for all or for none.

        Raises
        ------
        ValueError
            If the closure does not return one number.
        """
        return self._estimate(closure, weight, restore=True)

    @torch.no_grad()
    def apply(self) -> None:
        """Average c over processes, update, and go on to the next step.

        Raises
        ------
        ValueError
            Without an estimate before it.
        """
        if self._sums is None:
            raise ValueError(
                "apply needs an estimate before it: call estimate(closure) or step(closure)"
            )
        c = self._reducer.mean(self._sums, self._total, self._weight is not None)
        # What is used is what the log can hold; else a replay would not be exact.
        scalars = c.astype(np.float32)
        if self.c_clip is not None:
            scalars = np.clip(scalars, -self.c_clip, self.c_clip).astype(np.float32)
        fused = self._micro == 1 and self._at != 0
        lrs = [float(np.float32(g["lr"])) for g in self.param_groups]
        if self.log is not None:
            self.log.add(scalars, lrs, (self._micro, fused, self._probed), self._group_settings())
        self._advance(scalars, lrs)

    @torch.no_grad()
    def step(self, closure: Closure | None = None, *, weight: float | None = None) -> Any:
        """One step: two forwards (per direction), one scalar, one update. Returns the mean of F+ and F-.

        Without a closure it applies what `estimate` has gathered.

        Raises
        ------
        ValueError
            Without a closure and without an estimate, or if the closure does not return one number.
        """
        if closure is None:
            if self._sums is None:
                raise ValueError(
                    "step needs a closure that returns the loss, or estimate() before it"
                )
            self.apply()
            return None
        self._estimate(closure, weight, restore=False)
        mean = (self.last["loss_plus"] + self.last["loss_minus"]) / 2
        self.apply()
        return torch.tensor(mean, dtype=torch.float64)

    @torch.no_grad()
    def fd_error(self, closure: Closure) -> float:
        """|c(eps) - c(eps/2)| / |c(eps)| at the direction of the coming step: two pairs of forwards.

        Guarantees need it far below 1: the loss is then linear over the perturbation.
        """
        if self._sums is not None:
            raise ValueError("fd_error must not come between estimate() and apply()")
        self._begin_period()
        self._first()
        self._probed += 1
        whole = self._pair(closure, 0, None)[2]
        eps = self.param_groups[0]["eps"]
        self._place(0, 0.5)
        plus = self._evaluate(closure)
        self._place(0, -0.5)
        half = (plus - self._evaluate(closure)) / eps
        self._release()
        error = abs(whole - half) / abs(whole) if whole else math.inf
        self.last["fd_error"] = error
        return error

    @torch.no_grad()
    def flush(self) -> None:
        """Fold what is factored into the weights: at the end, before an export, never for a checkpoint.

        Off the end of a period this changes the rounding, so the log notes it.
        """
        self._release()
        moved = [s for s in self.slots if s.b is not None and bool(s.b.any())]
        if not self.fold or not moved:
            if self.log is not None:
                self.log.write()
            return
        for slot in moved:
            slot.fold()
        if self.log is not None:
            self.log.folded(self.t)
            self.log.write()

    # -- moving on ----------------------------------------------------------------------------------------

    def _group_settings(self) -> list[list[float]]:
        return [[g["rank"], g["weight_decay"]] for g in self.param_groups]

    def _advance(self, scalars: np.ndarray, lrs: list[float]) -> None:
        """Use the scalars of this step: shared with the replay of a log."""
        skipped = not np.isfinite(scalars).all()
        self.last |= {"c": float(scalars.mean()), "skipped": skipped}
        if skipped:
            self._release()
        else:
            self._update_all(scalars, lrs)
        for i, group in enumerate(self.param_groups):
            self._decay[i] *= 1 - lrs[i] * group["weight_decay"]
        self.t += 1
        self._probed = 0
        self._clear()
        if self.t % self.nu == 0:
            self._end_period()

    def _update_all(self, scalars: np.ndarray, lrs: list[float]) -> None:
        single = len(scalars) == 1
        for slot in self.slots:
            held = self._held.get(slot.index) if single else None
            if single:
                direction = self._direction(slot, 0) if held is None else held
            if self._plain(slot):
                if not single:
                    direction, c = self._combined(slot, scalars), 1.0
                else:
                    c = float(scalars[0])
                # Restoring and updating are one pass over the weights.
                self._fused(slot, direction, -lrs[slot.group] * c)
                continue
            if slot.position:
                slot.place(direction, 0.0, self._factor(slot)[0])
            mean = self._combined(slot, scalars) if not single else direction * float(scalars[0])
            change = self._step_of(slot, mean)
            slot.update(change, -lrs[slot.group], self._factor(slot)[1])
            slot.position = 0.0
        self._held, self._held_for, self._at = {}, -1, 0.0

    def _combined(self, slot: Slot, scalars: np.ndarray) -> Tensor:
        """mean_i c_i U_i."""
        total: Tensor | None = None
        for i, c in enumerate(scalars):
            part = self._direction(slot, i) * (float(c) / len(scalars))
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def _fused(self, slot: Slot, direction: Tensor, amount: float) -> None:
        perturb, update = self._factor(slot)
        if slot.storage == "inplace" and slot.position:
            if slot.dense:
                slot.param.data.add_(direction, alpha=amount - slot.position)
            else:
                assert slot.v_cast is not None
                alpha = amount * update - slot.position * perturb
                slot.matrix().addmm_(direction, slot.v_cast.T, alpha=alpha)
        else:
            slot.update(direction, amount, update)
        slot.position = 0.0

    def _plain(self, slot: Slot) -> bool:
        """Whether the method moves along c U itself, without a state."""
        return True

    def _step_of(self, slot: Slot, mean: Tensor) -> Tensor:
        """The step, in the factors of U (dense: of z), from the mean of c U."""
        return mean

    def _end_period(self) -> None:
        period = self.t // self.nu - 1
        for slot in self.slots:
            if slot.storage != "inplace" and not slot.dense and slot.b is not None:
                if self.fold:
                    slot.fold()
                else:
                    slot.keep(period)
            slot.decay(self._decay[slot.group])
        self._decay = [1.0] * len(self.param_groups)


def _embeddings(model: nn.Module | None) -> set[int]:
    if model is None:
        raise ValueError("freeze_embeddings needs the model: pass the module, or model=")
    return {id(m.weight) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))}


def _trainable(given: nn.Module | Iterable[Any], frozen: set[int]) -> list[Any]:
    """Parameter groups without what is frozen, tied tensors once."""
    listed: list[Any] = list(given.parameters() if isinstance(given, nn.Module) else given)
    if not listed:
        raise ValueError("params must hold at least one trainable tensor, got none")
    if isinstance(listed[0], dict):
        groups = []
        for g in listed:
            members = [g["params"]] if isinstance(g["params"], Tensor) else list(g["params"])
            groups.append(g | {"params": [p for p in members if id(p) not in frozen]})
        return groups
    return [{"params": [p for p in listed if id(p) not in frozen]}]
