"""A `transformers.Trainer` whose steps are forward passes only."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.errors import need

with need("transformers", extra="llm", part="surefoot.zeroth_order.ZOTrainer"):
    import transformers

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
        if self.args.max_grad_norm not in (0, None, USUAL_GRAD_NORM):
            warnings.warn(
                f"max_grad_norm = {self.args.max_grad_norm} has no effect: "
                "there are no gradients; use c_clip",
                stacklevel=2,
            )
        kind, options = self.optimizer_cls_and_kwargs or (LOZO, {})
        if not (isinstance(kind, type) and issubclass(kind, ZerothOrder)):
            raise ValueError(f"the optimizer must be LOZO, MeZO or ZOAdam, got {kind!r}")
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
        """Two forwards of one micro-batch; the update comes with `optimizer.step()`."""
        # A dropout mask of its own in each evaluation would drown their difference.
        model.eval()
        inputs = self._prepare_inputs(inputs)
        # Without the count every model returns the mean of its micro-batch, whether or not it knows of
        # counts (BERT's classifier takes one and ignores it); weights then give the mean of the whole batch.
        weight = None
        if num_items_in_batch is not None and isinstance(inputs.get("labels"), Tensor):
            weight = float((inputs["labels"] != -100).sum()) or None

        def closure() -> Tensor:
            with self.compute_loss_context_manager():
                loss: Any = self.compute_loss(model, inputs)
                found: Tensor = loss.detach().float()
                return found

        optimizer = self.zeroth_order
        optimizer.estimate(closure, weight=weight)
        mean = (optimizer.last["loss_plus"] + optimizer.last["loss_minus"]) / 2
        parts = getattr(
            self, "current_gradient_accumulation_steps", self.args.gradient_accumulation_steps
        )
        return torch.tensor(mean / parts, device=self.args.device)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """|c| where a gradient norm would stand."""
        if "grad_norm" in logs:
            logs.pop("grad_norm")
            logs["c"] = abs(float(self.zeroth_order.last.get("c", float("nan"))))
        super().log(logs, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Fold first: whoever loads the folder has no hooks."""
        self._fold()
        super().save_model(output_dir, _internal_call)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and leave plain weights."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self._fold()

    def _load_best_model(self) -> None:
        # Else the last period's factors would be added to the best weights.
        self._fold()
        super()._load_best_model()

    def _fold(self) -> None:
        if self.optimizer is not None:
            self.zeroth_order.flush()
