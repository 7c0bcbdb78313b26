"""`ChainState`: the one value that the next step of a chain depends on, beside optimizer and extras."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.digest import tensors_digest
from surefoot.lora._block import recording
from surefoot.lora._block.adapted_layer import AdaptedLayer, other
from surefoot.lora._block.companion import Companion
from surefoot.lora._block.frozen_factor import FrozenGuard
from surefoot.lora._block.gradient_tap import GradientTap
from surefoot.lora._block.merge import Residuals
from surefoot.lora._block.original_weights import OriginalWeights
from surefoot.lora._block.past_blocks import History
from surefoot.lora._block.steps_seen import StepsSeen
from surefoot.lora.config import BOTH_TRAINED, PROJECTIONS, RacConfig, Side
from surefoot.lora.errors import ChainStateError
from surefoot.lora.result import BlockReport
from surefoot.lora.sketch import draw_side, shared_sketch
from surefoot.record import Record


@dataclass(eq=False, repr=False)
class ChainState:
    """A PeftModel in mid-chain: where it stands, what its layers hold, what was seen of its steps.

    Everything that trains, exports or stores a chain takes this value. The optimizer and the parameters
    beside the adapted weights have states of their own.

    Attributes
    ----------
    model, adapter, config, layers
        The PeftModel, its chained adapter, the settings, the adapted layers.
    original_base
        SHA-256 of the adapted base weights before the chain.
    original_weights
        Those weights themselves as (m, n), where nothing else tells by how much they moved ("fpft").
    block, step_in_block, total_steps, steps_per_block
        Where the chain stands, counted from 0, and how long its blocks are.
    skipped_steps
        How often the optimizer left a step out, which is in none of these counts.
    side
        The factor that the open block trains.
    finished
        Whether `finish` merged the last block.
    gamma
        The step size that parameter groups were made for.
    companion, residuals, history
        Past blocks: on quantised weights, below the rounding of 16-bit ones, and their factors.
    originals
        Copies of what the chain changes of the base.
    gradient, steps, guard
        What was seen of the open block: its first gradient, the optimizer's steps, the frozen factor.
    reports
        One a block that has ended.
    record
        What the chain wrote down of itself; its one seed is that of the sketches.
    settle
        Lets an optimizer that keeps an iterate of its own put it into the parameters.
    """

    model: Any
    adapter: str
    config: RacConfig
    layers: list[AdaptedLayer]
    companion: Companion
    residuals: Residuals
    history: History
    gradient: GradientTap
    originals: OriginalWeights
    original_base: str
    original_weights: dict[str, Float[Tensor, "m n"]]
    steps_per_block: int | Literal["epoch"] | None
    block: int = 0
    step_in_block: int = 0
    total_steps: int = 0
    skipped_steps: int = 0
    side: Side = "B"
    finished: bool = False
    gamma: float | None = None
    reports: list[BlockReport] = field(default_factory=list)
    steps: StepsSeen = field(default_factory=StepsSeen)
    guard: FrozenGuard = field(default_factory=FrozenGuard)
    record: Record = field(default_factory=Record)
    settle: Callable[[], None] = field(default=lambda: None)

    @classmethod
    def begin(
        cls, model: Any, adapter: str, config: RacConfig, layers: list[AdaptedLayer]
    ) -> ChainState:
        """Before the first block; a quantised base gets its companion adapter.

        Parameters
        ----------
        model, adapter
            The PeftModel and the name of its adapter.
        config
            The settings.
        layers
            What `surefoot.lora.doors.peft.adapted_layers` found.
        """
        full = config.method == "fpft"
        companion = Companion(model, layers, adapter, config.companion_rank)
        state = cls(
            model, adapter, config, layers, companion, Residuals(config.merge_dtype),
            History(config.keep_history),
            GradientTap(layers, config.precondition, config.sketch in PROJECTIONS),
            OriginalWeights(config.keep_original), base_hash(layers),
            {x.name: x.as_matrix(x.weight.detach()).to("cpu", copy=True) for x in layers if full},
            config.steps_per_block,
        )  # fmt: skip
        extras = state.extras()
        state.originals.begin(model, adapter, extras)
        recording.note_settings(state.record, config, layers, bool(companion.layers), bool(extras))
        return state

    # -- what trains ---------------------------------------------------------------------------

    @property
    def trained(self) -> Side | None:
        """The one factor that the open block trains, or None where both or the weights are."""
        return self.side if self.config.method in ("rac_lora", "asymm_lora") else None

    @property
    def trained_sides(self) -> tuple[Side, ...]:
        """The factors of a layer that some block trains."""
        return ("A", "B") if self.config.switches else (self.side,)

    def factors(self) -> dict[str, nn.Parameter]:
        """Every tensor that some block trains in place of the adapted weights, by name."""
        if self.config.method == "fpft":
            return {f"{layer.name}.weight": layer.weight for layer in self.layers}
        return {
            f"{layer.name}.lora_{side}": layer.parameter(side)
            for layer in self.layers
            for side in self.trained_sides
        }

    def extras(self) -> dict[str, nn.Parameter]:
        """What trains beside the adapted weights, for instance a head of modules_to_save."""
        sides: tuple[Side, ...] = ("A", "B")
        mine = {id(layer.parameter(s)) for layer in self.layers for s in sides}
        mine |= {id(layer.weight) for layer in self.layers}
        return {
            name: p
            for name, p in self.model.named_parameters()
            if p.requires_grad and id(p) not in mine
        }

    # -- one block -----------------------------------------------------------------------------

    def open_block(self) -> None:
        """Draw the block's side and sketches, write the factors in place, freeze what is frozen."""
        config = self.config
        self.side = draw_side(config.train, config.seed, self.block, config.left_probability)
        frozen = other(self.side)
        seen = []
        for layer in self.layers:
            layer.parameter(self.side).data.zero_()
            layer.set_factor(frozen, self.sketch(layer, self.block, self.side))
            if not self.projects:
                seen.append(layer.tall(self.side))
        self._see_sketches(seen)
        self.steps.open_block()
        self.freeze()
        self.gradient.open(self.side)

    @property
    def projects(self) -> bool:
        """Whether the sketches act as projections: they are orthonormal, or gradients preconditioned."""
        config = self.config
        return config.precondition or config.method == "fpft" or config.sketch in PROJECTIONS

    def _see_sketches(self, seen: list[Tensor]) -> None:
        # Tall factors in float64; layers differ in size.
        low, high = (1.0, 1.0) if self.projects else (math.inf, 0.0)
        for tall in seen:
            values = torch.linalg.eigvalsh(tall.T @ tall)
            low, high = min(low, float(values[0])), max(high, float(values[-1]))
        self.record.append(self.config.seed, self.block, sketch_low=low, sketch_high=high)

    def redraw(self, blocks: int) -> None:
        """Draw the sketches of past blocks again, for what their eigenvalues were."""
        config = self.config
        for block in range(blocks if not self.projects else 0):
            side = draw_side(config.train, config.seed, block, config.left_probability)
            seen = []
            for layer in self.layers:
                factor = self.sketch(layer, block, side).double()
                seen.append(factor if factor.shape[0] > factor.shape[1] else factor.T)
            at, self.block = self.block, block
            self._see_sketches(seen)
            self.block = at

    def sketch(self, layer: AdaptedLayer, block: int, side: Side) -> Float[Tensor, "rows columns"]:
        """The sampled factor of a layer in a block that trains `side`.

        Parameters
        ----------
        layer
            Its name and sizes matter.
        block
            From 0.
        side
            The factor that is trained; the other one is returned.
        """
        return shared_sketch(
            self.config.seed, block, layer.name, layer.shape(other(side)), self.config.sketch,
            layer.A.dtype if layer.A.dtype == torch.float64 else torch.float32,
            self.config.sketch_std,
        )  # fmt: skip

    @property
    def sketch_range(self) -> tuple[float, float]:
        """Smallest and largest eigenvalue of S^T S over the blocks; (1, 1) where they project."""
        return float(self.record["sketch_low"].min()), float(self.record["sketch_high"].max())

    def freeze(self) -> None:
        """Let the open block's factors train and nothing else of the adapted layers."""
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
        self.guard.watch(self.layers, None if both else other(self.side))
        self.guard.refreeze()

    def refreeze(self) -> None:
        """Switch off the gradients of the frozen factors: set_adapter and others switch them on."""
        self.guard.refreeze()
        self.companion.refreeze()

    def verify(self) -> None:
        """Raise a ChainStateError where somebody merged, disabled or changed what a block relies on."""
        self.outside()
        for layer in self.layers:
            if layer.module.merged or layer.module.disable_adapters:
                raise ChainStateError(
                    f"{layer.name}: the adapter is {'merged' if layer.module.merged else 'disabled'}; "
                    "the block got no gradient. Undo it before the next step"
                )
            if self.adapter not in layer.module.active_adapters:
                raise ChainStateError(
                    f"{layer.name}: the adapter {self.adapter!r} is not active; "
                    f"call set_adapter({self.adapter!r})"
                )
        self.companion.verify()
        self.guard.verify()
        self.refreeze()

    @property
    def is_there(self) -> bool:
        """Whether every layer still has the chain's adapter."""
        return all(layer.is_there for layer in self.layers)

    @property
    def is_open(self) -> bool:
        """Whether the open block holds anything that a merge would move the weights by."""
        return self.step_in_block > 0 or any(layer.delta_norm2() > 0 for layer in self.layers)

    def merge(self, layer: AdaptedLayer) -> None:
        """Add the open block to the weight, or to the companion of a quantised one."""
        if layer not in self.companion:
            self.originals.before_merge(layer)
        (self.companion if layer in self.companion else self.residuals).merge(layer)

    # -- the weights ---------------------------------------------------------------------------

    @property
    def base_has_moved(self) -> bool:
        """Whether the base weights, or the companion of a quantised base, hold trained blocks."""
        if self.config.method == "fpft":
            return self.total_steps > 0
        return any(report.update_norm > 0 for report in self.reports)

    @property
    def base_moved_in_place(self) -> bool:
        """Whether the base weights themselves hold trained blocks."""
        return self.base_has_moved and len(self.companion.layers) < len(self.layers)

    @contextmanager
    def original(
        self,
        given: Mapping[str, Float[Tensor, "m n"]] | None,
        without_adapters: Callable[[], AbstractContextManager[None]],
    ) -> Iterator[Any]:
        """As `ChainOfLora.original`.

        Parameters
        ----------
        given
            Original weights that were not kept.
        without_adapters
            Switches adapters off.
        """
        if self.originals.inside:
            yield self.model
            return
        self.outside()
        self.settle()
        flags = [(p, p.requires_grad) for p in self.model.parameters()]
        in_place = [x for x in self.layers if x not in self.companion]
        moved = in_place if self.base_has_moved else []
        copies = dict(given or {})
        if self.config.method == "fpft":
            copies = self.original_weights | copies
        try:
            with self.originals.in_place(
                moved,
                copies,
                lambda: base_hash(self.layers) == self.original_base,
                without_adapters,
            ):
                yield self.model
        finally:
            # PEFT lets every factor train when it switches adapters on.
            for parameter, flag in flags:
                parameter.requires_grad_(flag)

    def outside(self) -> None:
        """Raise a ChainStateError within `original`, where the weights are not the chain's."""
        if self.originals.inside:
            raise ChainStateError(
                "within chain.original() the weights are not the chain's; leave it first"
            )
        for layer in self.layers:
            layer.parameter(self.side)  # which says that its adapter is gone

    def layer(self, name: str) -> AdaptedLayer:
        """The adapted layer of that name; a ValueError lists the names there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self.layers)
        raise ValueError(f"no adapted layer {name!r}; there are: {names}")

    def weight(self, name: str) -> Float[Tensor, "m n"]:
        """The effective weight of a base module: merged, residual and open block, at least float32."""
        self.outside()
        self.settle()
        layer = self.layer(name)
        total = (self.companion if layer in self.companion else self.residuals).total(layer)
        return total + layer.delta(total.dtype)


def bits_hash(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and bits."""
    return tensors_digest(sorted(tensors.items()), "{name}|{dtype}|{shape}|").hex()


def base_hash(layers: list[AdaptedLayer]) -> str:
    """Fingerprint of the adapted base weights as they are now."""
    held: dict[str, Tensor] = {}
    for layer in layers:
        weight = layer.module.get_base_layer().weight
        held[layer.name] = weight.data if isinstance(weight, Tensor) else torch.empty(0)
    return bits_hash(held)
