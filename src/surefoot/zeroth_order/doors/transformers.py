"""A `transformers.Trainer` whose steps are forward passes only."""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from surefoot._sealed import checkpoints
from surefoot._sealed.writing import of_system, write_error
from surefoot.errors import FileFormatError, WriteError, need

with need("transformers", extra="llm", part="surefoot.zeroth_order.ZOTrainer"):
    import transformers

from surefoot.zeroth_order.doors.targets import Targets, reads_first_label
from surefoot.zeroth_order.lozo import LOZO
from surefoot.zeroth_order.optimizer import ZerothOrder

# What transformers sets where the user says nothing.
USUAL_GRAD_NORM = 1.0


class ZOTrainer(transformers.Trainer):
    """Fine-tuning without gradients behind the arguments of a `transformers.Trainer`.

    The method and its options come through the Trainer's own `optimizer_cls_and_kwargs`, for instance
    `(LOZO, {"rank": 2, "nu": 50, "seed": 0})`; by default it is LOZO. The learning rate, its schedule and the
    weight decay are those of the TrainingArguments. Gradient accumulation averages estimates along one
    direction; logs carry |c| in place of a gradient norm. Saving and the end of training fold the factors
    into the weights.

    Under torchrun every process holds the whole model and one number travels per step.

    Raises
    ------
    ValueError
        With DeepSpeed, FSDP or nn.DataParallel, which shard or replicate what must be whole.
    """

    # Targets of the micro-batches that were collected; whether a user's loss divides by their number.
    _whole: float | None = None
    _scaled: bool | None = None
    # The checkpoint that is being written.
    _saving: Path | None = None
    paired: bool | Literal["auto"] = "auto"
    """Whether the forwards of a micro-batch are one, as in `LOZO.step`; to be set before training.

    "auto" has two in mode "inplace" and with label_smoothing_factor, whose loss is one number for all rows.
    """

    def create_accelerator_and_postprocess(self) -> None:
        """No gradients: nothing to synchronise, nothing to scale."""
        super().create_accelerator_and_postprocess()
        # DistributedDataParallel would allocate buckets for gradients that never come.
        self.accelerator.prepare_model = functools.partial(
            self.accelerator.prepare_model, evaluation_mode=True
        )
        self.accelerator.scaler = None

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The zeroth-order optimiser on the whole model."""
        if self.optimizer is not None:
            return self.optimizer
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError(
                "zeroth-order steps need whole parameters: run one full model per process with torchrun "
                "instead of DeepSpeed or FSDP"
            )
        if self.args.n_gpu > 1:
            raise ValueError(
                f"one process sees {self.args.n_gpu} GPUs and would replicate the model: "
                "start one process per GPU with torchrun, or set CUDA_VISIBLE_DEVICES"
            )
        if (
            self.args.load_best_model_at_end
            and (self.optimizer_cls_and_kwargs or (None, {}))[1].get("fold", True) is False
        ):
            raise ValueError(
                "load_best_model_at_end puts weights back, which a run with fold=False does not write: leave "
                "it out, and attach the best checkpoint's adapter to the base"
            )
        if self.args.max_grad_norm not in (0, None, USUAL_GRAD_NORM):
            warnings.warn(
                f"max_grad_norm = {self.args.max_grad_norm} has no effect: "
                "there are no gradients; use c_clip",
                stacklevel=2,
            )
        kind, options = self.optimizer_cls_and_kwargs or (LOZO, {})
        if not (isinstance(kind, type) and issubclass(kind, ZerothOrder)):
            raise ValueError(f"the optimizer must be LOZO, MeZO or ZOAdam, got {kind!r}")
        if options.get("privacy") is not None:
            raise ValueError(
                "privacy cannot be used in ZOTrainer: it shuffles its texts, where each must be drawn by a "
                "coin of its own, and tells their loss; use `surefoot finetune --private`, or a loop over "
                "privacy.sampler()"
            )
        given = {"lr": self.args.learning_rate, "weight_decay": self.args.weight_decay, **options}
        whole: Any = self.model if model is None else model
        self.optimizer = kind(whole, **given)
        return self.optimizer

    @property
    def zeroth_order(self) -> ZerothOrder:
        """The optimiser itself, without accelerate's wrapping."""
        found = getattr(self.optimizer, "optimizer", self.optimizer)
        assert isinstance(found, ZerothOrder)
        return found

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The forwards of one micro-batch, or one for both copies; the update comes with `optimizer.step()`.

        Micro-batches weigh as many targets as their losses average over, so that together they are the batch;
        one without any is left out. Returns its share of the batch's loss.
        """
        # A dropout mask of its own in each evaluation would drown their difference.
        model.eval()
        inputs = self._prepare_inputs(inputs)
        whole = self._whole if self._whole is not None else self._weigh([inputs])
        scaled = self._is_scaled(model, inputs, num_items_in_batch)
        parts = getattr(
            self, "current_gradient_accumulation_steps", self.args.gradient_accumulation_steps
        )
        weight = 1.0 if scaled else self.targets.count(inputs, self.targets.shifts)

        def closure(given: dict[str, Any] = inputs) -> Tensor:
            # A loss over the whole batch is one of `parts` summands; means are weighted by their targets.
            if scaled:
                return self._loss(model, given, num_items_in_batch) * parts
            return self._loss(model, given)

        optimizer = self.zeroth_order
        # The Trainer's own label smoothing makes one number of all rows: there is no use in trying.
        possible = optimizer.mode == "factored" and self.label_smoother is None
        together = possible and self.paired is not False
        batch = inputs if together or self.paired is True else None
        optimizer.estimate(closure, batch, weight=weight, paired=self.paired)
        if not weight:
            return torch.tensor(0.0 if whole else math.nan, device=self.args.device)
        mean = (optimizer.last["loss_plus"] + optimizer.last["loss_minus"]) / 2
        share = 1 / parts if scaled else weight / whole
        return torch.tensor(mean * share, device=self.args.device)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, and what their micro-batches weigh together."""
        if self.state.global_step >= self.state.max_steps > 0:
            # Resumed at its end, a Trainer would take one more step.
            self.control.should_training_stop = True
            return [], None
        found = super().get_batch_samples(*args, **kwargs)
        self._whole = self._weigh(found[0])
        asked = next((b for b in found[0] if self.targets.count(b, self.targets.shifts)), None)
        if asked is not None:
            self._is_scaled(self.model_wrapped.eval(), self._prepare_inputs(asked), found[1])
        return found

    def _weigh(self, batches: list[Any]) -> float:
        """The targets of some micro-batches together."""
        if self.targets.shifts is None and (
            self.args.world_size > 1 or self.targets.matters(batches)
        ):
            asked = next((b for b in batches if self.targets.both(b)[0]), None)
            if asked is not None and _has_positions(asked):
                self.targets.shifts = not self._reads_first_label(self._prepare_inputs(asked))
        return sum(self.targets.count(each, self.targets.shifts) for each in batches)

    def _reads_first_label(self, inputs: dict[str, Any]) -> bool:
        model = self.model_wrapped.eval()
        with torch.no_grad():
            return reads_first_label(
                lambda given: self._loss(model, given, self._asked_with),
                inputs,
                self.targets.ignored,
            )

    @property
    def _asked_with(self) -> int | None:
        """A count for losses that cannot do without one."""
        return None if self.compute_loss_func is None else 1

    @functools.cached_property
    def targets(self) -> Targets:
        """Counts the targets of this model's loss."""
        plain = self.accelerator.unwrap_model(self.model)
        inner = plain.get_base_model() if hasattr(plain, "get_base_model") else plain
        found = Targets(getattr(plain, "config", None), type(inner).__name__)
        if self.label_smoother is not None:
            found.ignored, found.everything = self.label_smoother.ignore_index, False
        return found

    def _loss(self, model: nn.Module, inputs: dict[str, Any], count: Any = None) -> Tensor:
        # A copy: the Trainer takes the labels out for a loss of its own, and there is a second forward.
        with self.compute_loss_context_manager():
            more = {} if count is None else {"num_items_in_batch": count}
            loss: Any = self.compute_loss(model, dict(inputs), **more)
            found: Tensor = loss.detach().float()
            return found

    def _is_scaled(self, model: nn.Module, inputs: dict[str, Any], count: Any) -> bool:
        """Whether the loss divides by the targets of the whole batch, as users' losses should."""
        if count is None:
            return False
        said = getattr(self, "loss_is_scaled_for_ga", None)
        if said is not None or self.compute_loss_func is None:
            return bool(said)
        if self._scaled is None and self.targets.count(inputs, self.targets.shifts):
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                one, two = (float(self._loss(model, inputs, count * k)) for k in (1, 2))
            if math.isfinite(one) and one:
                # Some take the count and return a mean all the same.
                self._scaled = abs(one - 2 * two) <= 1e-3 * abs(one)
        return bool(self._scaled)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """|c| where a gradient norm would stand."""
        if "grad_norm" in logs:
            logs.pop("grad_norm")
            logs["c"] = abs(float(self.zeroth_order.last.get("c", float("nan"))))
            if self.zeroth_order.skipped:
                logs["skipped_steps"] = self.zeroth_order.skipped
        super().log(logs, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Fold first: whoever loads the folder has no hooks. With fold=False write a PEFT adapter."""
        self._fold()
        if _internal_call and output_dir and checkpoints.step_of(output_dir) is not None:
            # The first that a Trainer writes of a checkpoint.
            self._saving = Path(output_dir)
            if self.args.should_save:
                checkpoints.begin(self._saving)
        if not self._keeps_apart or not self.zeroth_order.t:
            super().save_model(output_dir, _internal_call)
            return
        from surefoot.zeroth_order.doors.adapter import export_adapter

        if self.args.should_save:
            folder = output_dir or str(self.args.output_dir)
            export_adapter(self.zeroth_order, folder)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(folder)

    @property
    def _keeps_apart(self) -> bool:
        return self.optimizer is not None and not self.zeroth_order.settings.fold

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # With fold=False the base is as it was, and what was learned comes back with the optimizer's state.
        if not (Path(resume_from_checkpoint) / "adapter_config.json").is_file() or hasattr(
            self.model, "peft_config"
        ):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """The Trainer's, with the SHA-256 of every file at the end; what cannot be written leaves nothing.

        Raises
        ------
        surefoot.errors.WriteError
            A full disk, a quota, a folder that may not be written to.
        """
        self._saving = None
        try:
            super()._save_checkpoint(*args, **kwargs)
            self._complete()
        except Exception as error:
            said = of_system(error)
            if said is None:
                raise
            folder = self._given_up()
            if isinstance(error, WriteError):
                raise
            raise write_error(folder, said) from error

    def _complete(self) -> None:
        if self._saving is None:
            return
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Each process writes the state of its own generators.
            torch.distributed.barrier()
        if self.args.should_save:
            checkpoints.complete(self._saving)

    def _given_up(self) -> Path:
        if self._saving is None:
            return Path(str(self.args.output_dir))
        checkpoints.give_up(self._saving)
        return self._saving

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Train, and leave plain weights.

        Parameters
        ----------
        resume_from_checkpoint
            As a Trainer takes it. True is the newest one that is whole: what a killed process left
            half-written is renamed, with a warning; where nothing else is left, training begins anew.
        args, kwargs
            The Trainer's own.

        Raises
        ------
        surefoot.errors.FileFormatError
            The checkpoint is half-written or damaged; the file is named.
        """
        resume = self._whole_checkpoint(resume_from_checkpoint)
        try:
            found = super().train(resume, *args, **kwargs)
        except BaseException:
            # A log that cannot be written either is not what ended the training.
            with contextlib.suppress(WriteError):
                self._fold()
            raise
        self._fold()
        return found

    def _whole_checkpoint(self, asked: str | bool | None) -> str | bool | None:
        if not asked:
            return None
        given, damaged = None if asked is True else Path(str(asked)), list[Path]()
        if given is None:
            output_dir = str(self.args.output_dir)
            with self.args.main_process_first(local=False):
                if self.args.process_index == 0:
                    damaged = checkpoints.set_aside(output_dir)
            if not checkpoints.any_left(output_dir) and checkpoints.any_aside(output_dir):
                return None
            given = damaged[0] if damaged else None
        found = checkpoints.fault(given) if given is not None and given.is_dir() else None
        if found is not None:
            raise FileFormatError(
                f"{given} is {found.kind}, {found.what}: resume from another checkpoint"
            )
        return asked

    def _load_best_model(self) -> None:
        # Else the last period's factors would be added to the best weights.
        self._fold()
        super()._load_best_model()

    def _fold(self) -> None:
        if self.optimizer is not None:
            # Not `flush`, which refuses where weights stay quantised: there is then nothing to fold.
            with torch.no_grad():
                self.zeroth_order.engine.flush()


def _has_positions(inputs: dict[str, Any]) -> bool:
    labels = inputs.get("labels")
    return isinstance(labels, Tensor) and labels.ndim == 2
