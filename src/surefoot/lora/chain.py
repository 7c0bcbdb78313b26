"""`ChainOfLora`: a chain of LoRA blocks on an ordinary PeftModel (arXiv 2410.08305, Algorithm 1)."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.shown import shown
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.errors import ArgumentError
from surefoot.lora._block import optimizer_state, recording, state_files
from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.lora._block.companion import Companion
from surefoot.lora._block.gradient_changes import PRIVATE
from surefoot.lora._block.merge import Residuals, check_finite
from surefoot.lora._block.packing import pack, unpack
from surefoot.lora._block.past_blocks import History, bytes_per_block
from surefoot.lora._block.save_guard import SaveGuard
from surefoot.lora._block.sketch_constants import sketch_constants
from surefoot.lora._block.step_watch import StepWatch
from surefoot.lora.config import RacConfig, Side
from surefoot.lora.doors.base_guard import BaseGuard
from surefoot.lora.doors.peft import adapted_layers, without_adapters
from surefoot.lora.errors import ChainStateError
from surefoot.lora.export import ExportReport, export_adapter, export_merged
from surefoot.lora.guarantee import Constants, add_losses, certificates
from surefoot.lora.result import BlockReport, ChainGuarantee
from surefoot.lora.state import ChainState
from surefoot.record import Record


@showing
@checked
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
        layers = adapted_layers(peft_model, self.config, adapter_name)
        self.state = ChainState.begin(peft_model, adapter_name, self.config, layers)
        self._optimizer: Any = None
        self._warmup: optimizer_state.BlockWarmup | None = None
        self.resumed_from: Path | None = None
        self.guard = BaseGuard(self.state)
        self.saves = SaveGuard(self.state, self.guard)
        self._steps = StepWatch(layers, self._before_step)
        self._hooks = [
            module.register_forward_pre_hook(self._before_forward, with_kwargs=True)
            for module in (peft_model, peft_model.get_base_model())
        ]
        self.state.open_block()
        self._show_both_sides()

    # -- where it stands -----------------------------------------------------------------------

    @property
    def layers(self) -> list[AdaptedLayer]:
        """The adapted layers, in the order of the model."""
        return self.state.layers

    @property
    def block(self) -> int:
        """The number of the open block, from 0."""
        return self.state.block

    @property
    def step_in_block(self) -> int:
        """Optimizer steps of the open block so far."""
        return self.state.step_in_block

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all blocks so far."""
        return self.state.total_steps

    @property
    def steps_per_block(self) -> int | Literal["epoch"] | None:
        """How long a block is; under a Trainer it is known when training begins."""
        return self.state.steps_per_block

    @property
    def gamma(self) -> float | None:
        """The step size that `param_groups` was asked for."""
        return self.state.gamma

    @property
    def side(self) -> Side:
        """The factor that the open block trains where only one is."""
        return self.state.side

    @property
    def trained(self) -> Side | None:
        """The one factor that the open block trains, or None where both or the weights are."""
        return self.state.trained

    @property
    def reports(self) -> list[BlockReport]:
        """One a block that has ended."""
        return self.state.reports

    @property
    def history(self) -> History:
        """The factors of past blocks."""
        return self.state.history

    @property
    def residuals(self) -> Residuals:
        """What merges into 16-bit weights would have rounded away."""
        return self.state.residuals

    @property
    def companion(self) -> Companion:
        """The past blocks of a quantised base."""
        return self.state.companion

    @property
    def record(self) -> Record:
        """What the chain wrote down of itself, numbers of each block and facts; its seed is `config.seed`.

        The records of several chains of different seeds add up with `Record.concat`.
        """
        return self.state.record

    def observe(self, *, loss: float | None = None, grad_norm2: float | None = None) -> None:
        """Write down what the theorems speak of, measured at the present weights W^t.

        Call it where a block begins, before its first step, and after the last block.

        Parameters
        ----------
        loss
            f(W^t): the full loss that the guarantee is about, not that of a batch.
        grad_norm2
            ||grad f(W^t)||_F^2 over the adapted weights, likewise; `surefoot.lora.probe` can measure it.

        Raises
        ------
        ChainStateError
            The open block has had a step: these are not the weights at its start any more.
        """
        if self.step_in_block:
            raise ChainStateError(
                f"block {self.block} has had {self.step_in_block} steps, and the theorems speak of the "
                "weights where a block begins; observe before the first step or after the last one"
            )
        values = {"loss": loss, "grad_norm2": grad_norm2}
        found = {name: float(value) for name, value in values.items() if value is not None}
        self.record.update(self.config.seed, self.block, found)

    # -- what trains ---------------------------------------------------------------------------

    def factors(self) -> dict[str, nn.Parameter]:
        """Every tensor that some block trains in place of the adapted weights, by name."""
        return self.state.factors()

    def extras(self) -> dict[str, nn.Parameter]:
        """What trains beside the adapted weights, for instance a head of modules_to_save."""
        return self.state.extras()

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
        self.state.refreeze()

    def _before_forward(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if not self.state.is_there:
            return  # a model whose adapter was deleted is as any other
        self._steps.stale()
        self._refuse_private_sides()
        if "adapter_names" in kwargs:
            self.guard.asked("adapter_names", kwargs["adapter_names"])
        self.refreeze()
        self.state.gradient.follow()

    def _show_both_sides(self) -> None:
        # DistributedDataParallel averages the gradients of those tensors only that require one while it
        # looks; the first forward pass freezes the open block's again.
        if self.config.switches and self.trained is not None:
            for factor in self.factors().values():
                factor.requires_grad_(True)

    def _refuse_private_sides(self) -> None:
        switches = self.config.switches and self.trained is not None
        if switches and optimizer_state.in_private_model(self.factors().values()):
            raise ValueError(
                f"train={self.config.train!r} changes the trained factor, and Opacus takes per-sample "
                "gradients of one and the same set of tensors; use train='A' or train='B'"
            )

    def _before_step(self, held: float) -> None:
        trained = (p for p in self.factors().values() if p.requires_grad)
        if any(getattr(p, "summed_grad", None) is not None for p in trained):
            self.state.gradient.refuse(PRIVATE)
            self.object(PRIVATE)
        else:
            self.state.gradient.before_step(held)

    # -- blocks --------------------------------------------------------------------------------

    def step(self, optimizer: Any) -> BlockReport | None:
        """Count one optimizer step; at the end of a block merge and restart.

        Call it after `optimizer.step()`. Returns the report of a block that ended. A step that the
        optimizer did not take counts as none: a scaler leaves one out where a gradient overflows, and
        Opacus where a batch goes on.

        Raises
        ------
        ChainStateError
            The frozen factor changed, the adapter was merged or switched off by somebody else, or
            a factor is not finite.
        ValueError
            The optimizer does not hold a trained factor, or there is no steps_per_block.
        """
        state, config = self.state, self.config
        if self._optimizer is not optimizer:
            self.attach(optimizer, late=True)
        if state.finished and not config.chained:
            raise ChainStateError(f"{config.method} has one block, and finish() merged it")
        if config.chained and state.steps_per_block is None:
            raise ValueError(
                "steps_per_block must be given in a bare training loop: "
                "RacConfig(steps_per_block=20, ...), or 'epoch' and end_block() after each epoch"
            )
        state.verify()
        if config.blocks is not None and state.block == config.blocks and not state.step_in_block:
            warnings.warn(
                f"the plan was {config.blocks} blocks and the run goes on; further blocks open",
                stacklevel=2,
            )
        full = config.method == "fpft"
        if not self._steps.was_taken(state.side, full):
            state.skipped_steps += 1
            state.gradient.step_skipped()
            return None
        plain = full or config.precondition
        state.steps.look(optimizer, state.layers, plain, self._warm_factor())
        if state.steps.changed:
            recording.write_steps(state.record, config.seed, state.block, state.steps)
        if state.step_in_block == 0:
            state.gradient.first_step_done()
            if state.gradient.changed is not None:
                self.object(state.gradient.changed)
        state.step_in_block += 1
        state.total_steps += 1
        if config.chained and state.step_in_block == state.steps_per_block:
            return self._end_block(optimizer)
        return None

    def end_block(self, optimizer: Any = None) -> BlockReport:
        """Merge the open block and open the next one, at once."""
        self.state.verify()
        return self._end_block(optimizer)

    def _end_block(self, optimizer: Any) -> BlockReport:
        optimizer = optimizer if optimizer is not None else self._optimizer
        trained = list(self.state.factors().values())
        with optimizer_state.rewriting(optimizer, trained, forget=self.config.reset_optimizer):
            report = self._merge_and_open()
        if optimizer is not None and self.config.method != "fpft":
            self._restart_optimizer(optimizer, trained)
        return report

    def _merge_and_open(self) -> BlockReport:
        state = self.state
        moved = check_finite(state.layers)
        projected, full = state.gradient.norms() or (None, None)
        report = BlockReport(
            state.block, state.step_in_block, state.trained, projected, full, moved
        )
        if self.config.method != "fpft":
            state.history.add(state.block, state.trained, state.layers)
            for layer in state.layers:
                state.merge(layer)
        state.reports.append(report)
        recording.write_block(state.record, self.config.seed, report, state.companion)
        state.block += 1
        state.step_in_block = 0
        state.open_block()
        self._steps.restarted()
        return report

    def finish(self) -> BlockReport | None:
        """Merge the open block, if it has had a step; calling it twice changes nothing."""
        report = self.end_block() if self.state.is_open else None
        self.state.finished = True
        return report

    # -- the optimizer -------------------------------------------------------------------------

    def attach(self, optimizer: Any, *, late: bool = False, scaler: Any = None) -> None:
        """Meet the optimizer: needed before the first step only where blocks warm up.

        Parameters
        ----------
        optimizer
            It holds every factor that some block trains.
        late
            Whether it has stepped already.
        scaler
            The `torch.amp.GradScaler`, whose scale the gradients carry in backward. A power of two is
            seen without it, and accelerate's optimizer has its own.

        Raises
        ------
        ValueError
            The optimizer does not hold a trained factor, or the trained factor changes under Opacus.
        """
        absent = optimizer_state.missing(optimizer, self.factors())
        if absent:
            raise ValueError(
                f"the optimizer does not hold {', '.join(absent[:3])}"
                f"{' and others' if len(absent) > 3 else ''}; build it from "
                "chain.trainable_parameters() or chain.param_groups(gamma)"
            )
        self._refuse_private_sides()
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
        self.state.settle = functools.partial(optimizer_state.settle, optimizer)
        told = scaler if scaler is not None else optimizer_state.scaler_of(optimizer)
        self.state.gradient.scaler = told

    def _warm_factor(self) -> float:
        warm = self.config.warmup_steps_per_block
        return min(1.0, (self.state.step_in_block + 1) / (warm + 1)) if warm else 1.0

    def _restart_optimizer(self, optimizer: Any, factors: list[nn.Parameter]) -> None:
        for factor in factors:
            factor.grad = None
            optimizer_state.forget_samples(factor)
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
        return pack(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring a new chain on the original base to a stored state, bit for bit.

        Raises a ChainStateError where configuration, layers or base differ, or this chain has moved.
        """
        unpack(self.state, state)
        self._show_both_sides()

    def save(self, folder: str | Path, optimizer: Any = None) -> None:
        """Write all that `resume` needs: state, extras, the optimizer if given, torch's generators."""
        state_files.write_all(self.state, Path(folder), optimizer or self._optimizer)

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

        Build the optimizer as before, then call `restore_optimizer`.

        Parameters
        ----------
        folder
            Where `save` wrote.
        base_model
            The original base model, without an adapter.
        config
            Needed again by a chain with a callable sketch; it must be the stored one.
        restore_rng
            Put back the state of torch's default generators, which dropout draws from.

        Raises
        ------
        ChainStateError
            A file is missing or torn, or the base model is not the original one.
        """
        stored = state_files.StoredChain.read(Path(folder))
        with stored.damaged():
            config = config or stored.config()
            chain = cls(stored.model(base_model), config, stored.adapter)
            chain.load_state_dict(stored.packed)
            stored.put_back(chain.state, restore_rng)
        chain.resumed_from = stored.folder
        return chain

    def restore_optimizer(self, optimizer: Any) -> None:
        """Load the optimizer state that `save` wrote, after `resume`."""
        state_files.read_optimizer(self.resumed_from, self.total_steps, optimizer)

    # -- export --------------------------------------------------------------------------------

    def base_has_moved(self) -> bool:
        """Whether the base weights, or the companion of a quantised base, hold trained blocks."""
        return self.state.base_has_moved

    def export_adapter(
        self,
        folder: str | Path,
        max_rank: int | None = None,
        dtype: torch.dtype | str | None = None,
        original: dict[str, Float[Tensor, "m n"]] | None = None,
    ) -> ExportReport:
        """Write all blocks, the open one included, as one plain adapter of the original base.

        Parameters
        ----------
        folder
            For `adapter_model.safetensors` and `adapter_config.json`.
        max_rank
            Above this rank, and at min(m, n), the sum of the blocks is recompressed.
        dtype
            Of the factors, or its name; their own by default.
        original
            The original weights as (out, in) by layer, needed where no factors were kept.
        """
        with self.guard.own():
            return export_adapter(self.state, folder, max_rank, dtype, original)

    def original(
        self, weights: Mapping[str, Float[Tensor, "m n"]] | None = None
    ) -> AbstractContextManager[Any]:
        """A context in which the model is the original one, bit for bit; it gives the PeftModel.

        Preference training takes its reference model so. Afterwards, an exception included, the chain is as
        it was. The original weights lie on the CPU from the first merge on (`keep_original`); within the
        context they are on the model's device beside the merged ones.

        ```py
        with chain.original() as reference, torch.no_grad():
            logits = reference(**batch).logits
        ```

        Parameters
        ----------
        weights
            The original weights as (out, in) by layer, where `keep_original=False` kept none.

        Raises
        ------
        ChainStateError
            No original weights were kept or given, or those given are not the chain's.
        """
        return self.state.original(weights, self._without_adapters)

    @contextmanager
    def _without_adapters(self) -> Iterator[None]:
        with self.guard.own(), without_adapters(self.model):
            yield

    def export_merged(self, folder: str | Path, dtype: torch.dtype | str | None = None) -> Path:
        """Write the merged model, which loads with its plain class; float32 for 16-bit bases.

        Heads of modules_to_save, trained tokens and other wrappers end up as PEFT's own merge has them.
        """
        return export_merged(self.state, folder, dtype)

    def object(self, reason: str) -> None:
        """Say why no theorem covers this run; the guarantee's status will give the reason."""
        self.state.steps.object(reason)
        self.record.note(self.config.seed, objection=reason)

    # -- what came out -------------------------------------------------------------------------

    def weight(self, name: str) -> Float[Tensor, "m n"]:
        """The effective weight of a base module: merged, residual and open block, (out, in).

        In float32, or float64 for float64 weights. Raises a ValueError for an unknown name.
        """
        return self.state.weight(name)

    def layer(self, name: str) -> AdaptedLayer:
        """The adapted layer of that name; a ValueError lists the names there are."""
        return self.state.layer(name)

    def sketch(self, layer: AdaptedLayer, block: int, side: Side) -> Float[Tensor, "rows columns"]:
        """The sampled factor of a layer in a block that trains `side`.

        Parameters
        ----------
        layer
            One of `layers`.
        block
            From 0.
        side
            The factor that is trained; the other one is returned.
        """
        return self.state.sketch(layer, block, side)

    def grad_norm2_estimate(self) -> float:
        """Unbiased estimate of ||grad f||_F^2 over the adapted weights at the block's start (G7).

        From the first gradient of the open block, or of the last one where none was seen yet.

        Raises
        ------
        ChainStateError
            No gradient was seen at all, or the last one was not the loss's: clipped, noised, or scaled by a
            factor that nobody told.
        """
        gradient = self.state.gradient
        norms = gradient.norms()
        if norms is not None:
            return norms[1]
        if gradient.unknown is not None:
            raise ChainStateError(f"the last gradient is not known: {gradient.unknown}")
        if self.config.method == "fpft":
            raise ChainStateError(
                "full fine-tuning has no sketch to estimate from; surefoot.lora.probe measures the gradient"
            )
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
        return sketch_constants(self.config, self.layers)[0]

    @property
    def sketch_range(self) -> tuple[float, float]:
        """Smallest and largest eigenvalue of S^T S over the blocks; (1, 1) where preconditioned."""
        return self.state.sketch_range

    def certificates(
        self,
        L: float,
        mu: float | None = None,
        f_star: float | None = None,
        f0: float | None = None,
        sigma2: float = 0.0,
        losses: Sequence[float] | None = None,
        how: str = "exact",
    ) -> list[Certificate]:
        """The promises beside the run, as far as it measured what they speak of.

        What ran is read off `record`. One run decides only what holds in every run; for claims on a mean
        over sketches hand the records of five chains or more to `surefoot.lora.guarantee.certificates`.

        Parameters
        ----------
        L, mu
            Smoothness in the adapted weights jointly, and the PL constant if there is one.
        f_star, f0
            A lower limit of the loss (its minimum for a rate), and the loss at the start where neither
            `observe` nor `losses` gives it.
        sigma2
            Variance of the gradient; 0 where it is exact.
        losses
            The full loss at W^0, W^1, ..., W^T, where `observe` was not told.
        how
            How L, mu and sigma2 are known: "exact", or the name of an estimate.

        Raises
        ------
        ValueError
            There are more losses than blocks, plus one.
        """
        known = Constants(L, mu, sigma2, how_L=how, how_mu=how, how_sigma2=how)
        return certificates(self._promised_record(losses, f0), known, f_star)

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

        The step size is what the optimizer was seen to use, or that of `param_groups`.

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

        Raises
        ------
        GuaranteeError
            The step size is above 1/L, or not known.
        """
        known = Constants(L, mu, sigma2, how_L=how, how_mu=how, how_sigma2=how)
        record = self._promised_record(None, None)
        return ChainGuarantee.of(record, known, f_star, f0, self.gamma, self.block)

    def _promised_record(self, losses: Sequence[float] | None, f0: float | None) -> Record:
        seed, extras = self.config.seed, bool(self.extras())
        recording.note_sketch_constants(self.record, self.config, self.layers, extras)
        record = Record.concat([self.record])
        if f0 is not None and "loss" not in record:
            record.append(seed, 0, loss=f0)
        if losses is not None:
            add_losses(record, seed, losses, self.block)
        return record

    def __repr__(self) -> str:
        return (
            f"ChainOfLora({self.config.method}, {len(self.layers)} layers, block {self.block}, "
            f"step {self.step_in_block} of {self.steps_per_block})"
        )


@checked
def theory_lr(gamma: float, layer: Any, adapter_name: str = "default") -> float:
    """gamma / s^2: the SGD learning rate of a LoRA layer whose block is one step of size gamma.

    Parameters
    ----------
    gamma
        The theorem's step size.
    layer
        A LoRA module of PEFT, or a chain's layer.
    adapter_name
        Which adapter of the module.

    Raises
    ------
    ValueError
        gamma is not positive and finite.
    """
    gamma = check_number("gamma", gamma, above=0)
    if not hasattr(layer, "scaling"):
        raise ArgumentError("layer", f"must be a layer with a LoRA adapter, got {shown(layer)}")
    if not isinstance(layer, AdaptedLayer) and adapter_name not in layer.scaling:
        there = ", ".join(map(repr, layer.scaling)) or "none"
        raise ArgumentError("adapter_name", f"must be one of {there}, got {adapter_name!r}")
    s = layer.scaling if isinstance(layer, AdaptedLayer) else layer.scaling[adapter_name]
    return gamma / float(s) ** 2


@checked
def chain_param_groups(chain: ChainOfLora, gamma: float) -> list[dict[str, Any]]:
    """One group a layer with its own learning rate; see `ChainOfLora.param_groups`."""
    check_number("gamma", gamma, above=0)
    chain.state.gamma = gamma
    full = chain.config.method == "fpft"
    sides = chain.state.trained_sides
    groups: list[dict[str, Any]] = []
    for layer in chain.layers:
        params = [layer.weight] if full else [layer.parameter(s) for s in sides]
        plain = full or chain.config.precondition
        lr = gamma if plain else theory_lr(gamma, layer)
        groups.append({"params": params, "lr": lr, "name": layer.name})
    extras = list(chain.extras().values())
    if extras:
        groups.append({"params": extras, "lr": gamma, "name": "extras"})
    return groups
