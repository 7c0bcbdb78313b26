"""`ChainOfLora`: a chain of LoRA blocks on an ordinary PeftModel (arXiv 2410.08305, Algorithm 1)."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.checks import check_number
from surefoot.lora._block import optimizer_state
from surefoot.lora._block import state_files as folders
from surefoot.lora._block.adapted_layer import AdaptedLayer, other
from surefoot.lora._block.companion import Companion
from surefoot.lora._block.frozen_factor import FrozenGuard
from surefoot.lora._block.gradient_tap import GradientTap
from surefoot.lora._block.merge import Residuals, check_finite
from surefoot.lora._block.past_blocks import History, bytes_per_block
from surefoot.lora._block.save_guard import SaveGuard
from surefoot.lora._block.sketch_constants import PROJECTIONS, sketch_constants
from surefoot.lora._block.steps_seen import StepsSeen
from surefoot.lora.chain_guarantee import ChainGuarantee, guarantee_of
from surefoot.lora.config import BOTH_TRAINED, RacConfig, Side
from surefoot.lora.doors.peft import adapted_layers
from surefoot.lora.errors import ChainStateError
from surefoot.lora.export import ExportReport, export_adapter, export_merged
from surefoot.lora.result import BlockReport
from surefoot.lora.sketch import draw_side, shared_sketch
from surefoot.lora.state import base_hash, pack, unpack


class ChainOfLora:
    """Train a PeftModel in blocks: sample one factor, train the other, merge, repeat.

    ```python
    chain = ChainOfLora(peft_model, RacConfig(steps_per_block=20, blocks=50))
    optimizer = torch.optim.SGD(chain.param_groups(gamma=1 / L), lr=1.0)
    for batch in loader:
        loss_of(peft_model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        chain.step(optimizer)
    chain.finish()
    ```

    Parameters
    ----------
    peft_model
        What `peft.get_peft_model` returns, its adapter still at zero.
    config
        The method and its blocks.
    adapter_name
        The adapter to chain; it must be the only active one.

    Raises
    ------
    ValueError
        No LoRA layer, or a rank above the sampled dimension.
    ChainStateError
        The adapter is merged, not at zero, or not the only active one.
    UnsupportedLayerError
        DoRA, a quantised base, tied weights and other layers for which a chain is not defined.
    """

    def __init__(
        self, peft_model: Any, config: RacConfig | None = None, adapter_name: str = "default"
    ) -> None:
        self.config = config or RacConfig()
        self.model = peft_model
        self.adapter_name = adapter_name
        self.layers = adapted_layers(peft_model, self.config, adapter_name)
        self.steps_per_block = self.config.steps_per_block
        self.companion = Companion(
            peft_model, self.layers, adapter_name, self.config.companion_rank
        )
        self.original_base = base_hash(self)
        self.block = 0
        self.step_in_block = 0
        self.total_steps = 0
        self.reports: list[BlockReport] = []
        self.history = History(self.config.keep_history)
        self.residuals = Residuals(self.config.merge_dtype)
        self.gamma: float | None = None
        self.side: Side = "B"
        self._guard = FrozenGuard()
        self._orthonormal = self.config.sketch in PROJECTIONS
        self._tap = GradientTap(self.layers, self.config.precondition, self._orthonormal)
        self._steps_seen = StepsSeen()
        self._sketch_range = (math.inf, 0.0)
        self._optimizer: Any = None
        self._warmup: optimizer_state.BlockWarmup | None = None
        self._finished = False
        self.resumed_from: Path | None = None
        self.original_weights: dict[str, Tensor] = {}
        if self.config.method == "fpft":
            # Nothing else tells afterwards by how much the weights were moved.
            self.original_weights = {
                layer.name: layer.as_matrix(layer.weight.detach()).to("cpu", copy=True)
                for layer in self.layers
            }
        self.saves = SaveGuard(self)
        self._hooks = [
            module.register_forward_pre_hook(self._before_forward)
            for module in (peft_model, peft_model.get_base_model())
        ]
        self._open()

    # -- what trains ---------------------------------------------------------------------------

    @property
    def trained(self) -> Side | None:
        """The one factor that the open block trains, or None where both or the weights are."""
        return self.side if self.config.method in ("rac_lora", "asymm_lora") else None

    def factors(self) -> dict[str, nn.Parameter]:
        """Every tensor that some block trains in place of the adapted weights, by name."""
        if self.config.method == "fpft":
            return {f"{layer.name}.weight": layer.weight for layer in self.layers}
        both = self.config.switches
        return {
            f"{layer.name}.lora_{side}": layer.parameter(side)
            for layer in self.layers
            for side in _sides(both, self.side)
        }

    def extras(self) -> dict[str, nn.Parameter]:
        """What trains beside the adapted weights, for instance a head of modules_to_save."""
        mine = {id(layer.parameter(s)) for layer in self.layers for s in _sides(True, "A")}
        mine |= {id(layer.weight) for layer in self.layers}
        return {
            name: p
            for name, p in self.model.named_parameters()
            if p.requires_grad and id(p) not in mine
        }

    def trainable_parameters(self) -> list[nn.Parameter]:
        """What an optimizer must hold: the factors that some block trains, and the extras."""
        return [*self.factors().values(), *self.extras().values()]

    def param_groups(self, gamma: float) -> list[dict[str, Any]]:
        """Parameter groups with which plain SGD realises the theorem's step size gamma.

        The learning rate of a layer is gamma / s^2, or gamma where gradients are preconditioned, and
        gamma for the extras and for full fine-tuning (derived here: dL/dB = s G A^T).
        """
        return chain_param_groups(self, gamma)

    def refreeze(self) -> None:
        """Switch off the gradients of the frozen factors; each forward pass does it too."""
        self._guard.refreeze()
        self.companion.refreeze()

    def _before_forward(self, *_: Any) -> None:
        self.refreeze()

    # -- blocks --------------------------------------------------------------------------------

    def step(self, optimizer: Any) -> BlockReport | None:
        """Count one optimizer step; at the end of a block merge and restart.

        Call it after `optimizer.step()`. Returns the report of a block that ended.

        Raises
        ------
        ChainStateError
            The frozen factor changed, the adapter was merged or switched off by somebody else, or
            a factor is not finite.
        ValueError
            The optimizer does not hold a trained factor, or there is no steps_per_block.
        """
        if self._optimizer is not optimizer:
            self.attach(optimizer, late=True)
        if self._finished and not self.config.chained:
            raise ChainStateError(f"{self.config.method} has one block, and finish() merged it")
        if self.config.chained and self.steps_per_block is None:
            raise ValueError(
                "steps_per_block must be given in a bare training loop: "
                "RacConfig(steps_per_block=20, ...), or 'epoch' and end_block() after each epoch"
            )
        self._verify()
        if (
            self.config.blocks is not None
            and self.block == self.config.blocks
            and not self.step_in_block
        ):
            warnings.warn(
                f"the plan was {self.config.blocks} blocks and the run goes on; further blocks open",
                stacklevel=2,
            )
        plain = self.config.method == "fpft" or self.config.precondition
        self._steps_seen.look(optimizer, self.layers, plain, self._warm_factor())
        if self.step_in_block == 0:
            self._tap.first_step_done()
        self.step_in_block += 1
        self.total_steps += 1
        if self.config.chained and self.step_in_block == self.steps_per_block:
            return self._end_block(optimizer)
        return None

    def end_block(self, optimizer: Any = None) -> BlockReport:
        """Merge the open block and open the next one, at once."""
        self._verify()
        return self._end_block(optimizer)

    def _end_block(self, optimizer: Any) -> BlockReport:
        moved = check_finite(self.layers)
        projected, full = self._tap.norms() or (None, None)
        report = BlockReport(self.block, self.step_in_block, self.trained, projected, full, moved)
        self._put_away()
        self.reports.append(report)
        self.block += 1
        self.step_in_block = 0
        restarted = list(self.factors().values()) if self.config.method != "fpft" else []
        self._open()
        optimizer = optimizer if optimizer is not None else self._optimizer
        if optimizer is not None:
            self._restart_optimizer(optimizer, restarted)
        return report

    def finish(self) -> BlockReport | None:
        """Merge the open block, if it has had a step; calling it twice changes nothing."""
        report = self.end_block() if self._is_open() else None
        self._finished = True
        return report

    def _is_open(self) -> bool:
        return self.step_in_block > 0 or any(layer.delta_norm2() > 0 for layer in self.layers)

    def _put_away(self) -> None:
        if self.config.method == "fpft":
            return
        self.history.add(self.block, self.trained, self.layers)
        for layer in self.layers:
            self._merge(layer)

    def _merge(self, layer: AdaptedLayer) -> None:
        (self.companion if layer in self.companion else self.residuals).merge(layer)

    def _open(self) -> None:
        """Draw the block's side and sketches, write the factors in place, freeze what is frozen."""
        config = self.config
        self.side = draw_side(config.train, config.seed, self.block, config.left_probability)
        frozen = other(self.side)
        for layer in self.layers:
            layer.parameter(self.side).data.zero_()
            layer.set_factor(frozen, self.sketch(layer, self.block, self.side))
            self._note_sketch(layer)
        self._freeze()
        self._tap.open(self.side)

    def _note_sketch(self, layer: AdaptedLayer) -> None:
        if self._orthonormal:  # S^T S = I but for the rounding to the factor's dtype
            self._sketch_range = (1.0, 1.0)
            return
        tall = layer.tall(self.side)
        values = torch.linalg.eigvalsh(tall.T @ tall)
        low, high = self._sketch_range
        self._sketch_range = (min(low, float(values[0])), max(high, float(values[-1])))

    def _freeze(self) -> None:
        full = self.config.method == "fpft"
        both = self.config.method in BOTH_TRAINED
        self.companion.refreeze()
        for layer in self.layers:
            if layer not in self.companion:
                layer.weight.requires_grad_(full)
            layer.parameter(self.side).requires_grad_(not full)
            layer.parameter(other(self.side)).requires_grad_(both)
            if full:
                layer.parameter(self.side).grad = None
        self._guard.watch(self.layers, None if both else other(self.side))
        self._guard.refreeze()

    def sketch(self, layer: AdaptedLayer, block: int, side: Side) -> Float[Tensor, "rows columns"]:
        """The sampled factor of a layer in a block that trains `side`."""
        return shared_sketch(
            self.config.seed, block, layer.name, layer.shape(other(side)), self.config.sketch,
            layer.A.dtype if layer.A.dtype == torch.float64 else torch.float32,
            self.config.sketch_std,
        )  # fmt: skip

    def _verify(self) -> None:
        for layer in self.layers:
            if layer.module.merged or layer.module.disable_adapters:
                raise ChainStateError(
                    f"{layer.name}: the adapter is {'merged' if layer.module.merged else 'disabled'}; "
                    "the block got no gradient. Undo it before the next step"
                )
            if self.adapter_name not in layer.module.active_adapters:
                raise ChainStateError(
                    f"{layer.name}: the adapter {self.adapter_name!r} is not active; "
                    f"call set_adapter({self.adapter_name!r})"
                )
        self.companion.verify()
        self._guard.verify()
        self.refreeze()

    # -- the optimizer -------------------------------------------------------------------------

    def attach(self, optimizer: Any, *, late: bool = False) -> None:
        """Meet the optimizer: needed before the first step only where blocks warm up.

        Raises a ValueError where it does not hold a trained factor.
        """
        absent = optimizer_state.missing(optimizer, self.factors())
        if absent:
            raise ValueError(
                f"the optimizer does not hold {', '.join(absent[:3])}"
                f"{' and others' if len(absent) > 3 else ''}; build it from "
                "chain.trainable_parameters() or chain.param_groups(gamma)"
            )
        warm = self.config.warmup_steps_per_block
        if warm and late:
            raise ValueError(
                "call chain.attach(optimizer) before the first step: "
                f"warmup_steps_per_block={warm} lowers its learning rate"
            )
        if self._warmup is not None:
            self._warmup.remove()
        if warm:
            factors = list(self.factors().values())
            self._warmup = optimizer_state.BlockWarmup(optimizer, factors, self._warm_factor)
        self._optimizer = optimizer

    def _warm_factor(self) -> float:
        warm = self.config.warmup_steps_per_block
        return min(1.0, (self.step_in_block + 1) / (warm + 1)) if warm else 1.0

    def _restart_optimizer(self, optimizer: Any, factors: list[nn.Parameter]) -> None:
        for factor in factors:
            factor.grad = None
        if self.config.method == "relora":
            optimizer_state.prune(optimizer, factors, self.config.prune)
        elif self.config.reset_optimizer:
            optimizer_state.forget(optimizer, factors)

    # -- state ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Block, step, factors, history and what else the next step depends on.

        `{"meta": JSON values, "tensors": name -> CPU tensor}`. The optimizer and the extras have
        state dicts of their own; `save` writes them all.
        """
        return pack(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring a new chain on the original base to a stored state, bit for bit.

        Raises a ChainStateError where configuration, layers or base differ, or this chain has moved.
        """
        unpack(self, state)

    def save(self, folder: str | Path, optimizer: Any = None) -> None:
        """Write all that `resume` needs: state, extras, the optimizer if given, torch's generators."""
        folders.write_all(self, Path(folder), optimizer or self._optimizer)

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        base_model: nn.Module,
        config: RacConfig | None = None,
        *,
        restore_rng: bool = True,
    ) -> ChainOfLora:
        """Rebuild a saved chain on the original base model, in mid-block too.

        Build the optimizer as before, then call `restore_optimizer`. A chain with a callable sketch
        needs its `config` again. `restore_rng` puts back the state of torch's default generators,
        which dropout draws from.

        Raises
        ------
        ChainStateError
            A file is missing or torn, or the base model is not the original one.
        """
        chain = folders.read_all(cls, Path(folder), base_model, config, restore_rng)
        assert isinstance(chain, cls)
        return chain

    def restore_optimizer(self, optimizer: Any) -> None:
        """Load the optimizer state that `save` wrote, after `resume`."""
        folders.read_optimizer(self, optimizer)

    # -- export --------------------------------------------------------------------------------

    def base_has_moved(self) -> bool:
        """Whether the base weights, or the companion of a quantised base, hold trained blocks."""
        if self.config.method == "fpft":
            return self.total_steps > 0
        return any(report.update_norm > 0 for report in self.reports)

    def export_adapter(
        self,
        folder: str | Path,
        max_rank: int | None = None,
        dtype: torch.dtype | None = None,
        original: dict[str, Float[Tensor, "m n"]] | None = None,
    ) -> ExportReport:
        """Write all blocks, the open one included, as one plain adapter of the original base.

        See `surefoot.lora.export.export_adapter`.
        """
        return export_adapter(self, folder, max_rank, dtype, original)

    def export_merged(self, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
        """Write the merged model, which loads with its plain class; float32 for 16-bit bases."""
        return export_merged(self, folder, dtype)

    def object(self, reason: str) -> None:
        """Say why no theorem covers this run; the guarantee's status will give the reason."""
        self._steps_seen.object(reason)

    # -- what came out -------------------------------------------------------------------------

    def weight(self, name: str) -> Float[Tensor, "m n"]:
        """The effective weight of a base module: merged, residual and open block, (out, in).

        In float32, or float64 for float64 weights. Raises a ValueError for an unknown name.
        """
        layer = self.layer(name)
        total = (self.companion if layer in self.companion else self.residuals).total(layer)
        return total + layer.delta(total.dtype)

    def layer(self, name: str) -> AdaptedLayer:
        """The adapted layer of that name; a ValueError lists the names there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self.layers)
        raise ValueError(f"no adapted layer {name!r}; there are: {names}")

    def grad_norm2_estimate(self) -> float:
        """Unbiased estimate of ||grad f||_F^2 over the adapted weights at the block's start (G7).

        From the first gradient of the open block, or of the last one where none was seen yet.

        Raises
        ------
        ChainStateError
            No gradient was seen at all.
        """
        norms = self._tap.norms()
        if norms is not None:
            return norms[1]
        seen = [r.grad_norm2 for r in self.reports if r.grad_norm2 is not None]
        if not seen:
            raise ChainStateError("no gradient was seen yet; call backward() first")
        return seen[-1]

    def history_bytes(self, blocks: int | None = None) -> int:
        """Memory of the history after so many blocks (those of the plan by default), in bytes."""
        count = blocks if blocks is not None else (self.config.blocks or 1)
        return count * bytes_per_block(self.layers, self.config.keep_history, self.trained)

    def lambda_min(self) -> float:
        """Smallest eigenvalue of E[H] over the layers: min r/d, or its mixture over random sides.

        An alternating chain counts with the worse of its two sides. Sketches that are neither
        projections nor preconditioned count with E[A^T A] in place of E[H].
        """
        return sketch_constants(self)[0]

    @property
    def sketch_range(self) -> tuple[float, float]:
        """Smallest and largest eigenvalue of S^T S over the blocks; (1, 1) where preconditioned."""
        projects = self.config.precondition or self.config.method == "fpft"
        return (1.0, 1.0) if projects else self._sketch_range

    def guarantee(
        self,
        L: float,
        mu: float | None = None,
        f_star: float | None = None,
        f0: float | None = None,
        sigma2: float = 0.0,
        how: str = "exact",
    ) -> ChainGuarantee:
        """What the theorems promise of this chain, or why they do not cover it.

        Parameters
        ----------
        L, mu
            Smoothness in the adapted weights jointly, and the PL constant.
        f_star, f0
            A lower limit of the loss (its minimum for a rate), and the loss at the start.
        sigma2
            Variance of the gradient; 0 where it is exact.
        how
            How L, mu and sigma2 are known: "exact", or the name of an estimate.

        The step size is what the optimizer was seen to use, or that of `param_groups`.

        Raises
        ------
        GuaranteeError
            The step size is above 1/L, or not known.
        """
        return guarantee_of(self, L, mu, f_star, f0, sigma2, how)

    def __repr__(self) -> str:
        return (
            f"ChainOfLora({self.config.method}, {len(self.layers)} layers, block {self.block}, "
            f"step {self.step_in_block} of {self.steps_per_block})"
        )


def _sides(both: bool, side: Side) -> tuple[Side, ...]:
    return ("A", "B") if both else (side,)


def theory_lr(gamma: float, layer: Any, adapter_name: str = "default") -> float:
    """gamma / s^2: the SGD learning rate of a LoRA layer whose block is one step of size gamma."""
    s = layer.scaling if isinstance(layer, AdaptedLayer) else layer.scaling[adapter_name]
    return gamma / float(s) ** 2


def chain_param_groups(chain: ChainOfLora, gamma: float) -> list[dict[str, Any]]:
    """One group a layer with its own learning rate; see `ChainOfLora.param_groups`."""
    check_number("gamma", gamma, above=0)
    chain.gamma = gamma
    full, both = chain.config.method == "fpft", chain.config.switches
    groups: list[dict[str, Any]] = []
    for layer in chain.layers:
        params = [layer.weight] if full else [layer.parameter(s) for s in _sides(both, chain.side)]
        plain = full or chain.config.precondition
        lr = gamma if plain else theory_lr(gamma, layer)
        groups.append({"params": params, "lr": lr, "name": layer.name})
    extras = list(chain.extras().values())
    if extras:
        groups.append({"params": extras, "lr": gamma, "name": "extras"})
    return groups
