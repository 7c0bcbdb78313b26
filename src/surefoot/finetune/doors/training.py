"""A model under the Trainer of its method: gradients, blocks of adapters, or forwards alone."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from surefoot._sealed import checkpoints
from surefoot.errors import need
from surefoot.finetune.doors.quiet import quiet
from surefoot.finetune.doors.tasks import Task
from surefoot.finetune.plan import MOMENTUM, PERIOD, Plan
from surefoot.finetune.processes import processes, rank

with need("transformers", extra="llm", part="surefoot.finetune"):
    import transformers
with need("peft", extra="llm", part="surefoot.finetune"):
    import peft

from surefoot.lora import ChainOfLora, RacCallback, RacConfig
from surefoot.record import Record
from surefoot.zeroth_order import LOZO, MeZO
from surefoot.zeroth_order.doors.transformers import ZOTrainer

LOG = "steps.zo"


class Sealing(transformers.TrainerCallback):
    """Checkpoints that a killed process left half-written are not resumed from."""

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Rename them."""
        with args.main_process_first(local=False):
            if args.process_index == 0:
                checkpoints.set_aside(args.output_dir)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the one that was written as whole."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            checkpoints.complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def on_device(model: Any) -> Any:
    """Where a Trainer would put it."""
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def adapted(model: Any, task: Task, plan: Plan) -> Any:
    """With an adapter of the plan's rank, whose start is of its seed."""
    kind = "SEQ_CLS" if task.classes and hasattr(model, "num_labels") else "CAUSAL_LM"
    if hasattr(model, "lm_head"):
        kind = "CAUSAL_LM"
    options: dict[str, Any] = {"r": plan.rank, "lora_alpha": plan.rank, "task_type": kind}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        try:
            return peft.get_peft_model(model, peft.LoraConfig(**options))
        except ValueError:
            # PEFT knows no usual places for this architecture.
            everywhere = peft.LoraConfig(**options, target_modules="all-linear")
            return peft.get_peft_model(model, everywhere)


def forward_only(plan: Plan, log: Path | None) -> tuple[Any, dict[str, Any]]:
    """The optimizer of a plan without gradients, and its options."""
    options: dict[str, Any] = {"seed": plan.seed}
    if log is not None and not plan.quantised:
        options["log"] = str(log)
    if plan.method == "mezo":
        return MeZO, options
    options |= {"rank": plan.rank, "nu": PERIOD, "scale": "unit", "fold": not plan.quantised}
    if plan.method == "lozo-m":
        options["momentum"] = MOMENTUM
    return LOZO, options


class _ByTask:
    """The loss is the task's."""

    task: Task

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over the labels; a step has one micro-batch, whose mean it is."""
        loss = self.task.loss(model, inputs)
        return (loss, {}) if return_outputs else loss


class _Plain(_ByTask, transformers.Trainer):
    """With gradients."""


class _ForwardOnly(_ByTask, ZOTrainer):
    """Without."""


class _Clock(transformers.TrainerCallback):
    """How long a step takes."""

    def __init__(self) -> None:
        self.seconds, self._began = 0.0, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds = time.monotonic() - self._began


class Training:
    """One training, from its first step or from its last checkpoint.

    Parameters
    ----------
    plan, lr
        What is trained, at which rate.
    model
        As it was opened; it is trained in place.
    task
        Its texts.
    folder
        For checkpoints.
    kept
        Whether there are any.
    log
        The log of steps that a forward-only method writes; None: none.
    callbacks
        Of the Trainer.
    rows
        What is trained on, if not the task's training texts.
    """

    def __init__(
        self,
        plan: Plan,
        lr: float,
        model: Any,
        task: Task,
        folder: Path,
        *,
        kept: bool = True,
        log: Path | None = None,
        callbacks: Sequence[Any] = (),
        rows: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        self.plan, self.task = plan, task
        self.chain: ChainOfLora | None = None
        self._folder, self._kept = folder, kept
        with quiet():
            if not plan.forward_only and plan.method != "full":
                model = adapted(model, task, plan)
            self.model = model
            every: list[Any] = [Sealing()] if kept else []
            if plan.chained:
                self.chain = ChainOfLora(model, self._blocks())
                every = [RacCallback(self.chain)]
            self.trainer = self._trainer(
                lr,
                [*every, *callbacks],
                list(task.examples["train"] if rows is None else rows),
                log,
            )
            self.trainer.remove_callback(transformers.PrinterCallback)

    def _blocks(self) -> RacConfig:
        method: Any = "rac_lora" if self.plan.method == "rac-lora" else "cola"
        return RacConfig(
            method=method, steps_per_block=self.plan.steps_per_block, seed=self.plan.seed,
            keep_original=False,
        )  # fmt: skip

    def _trainer(self, lr: float, callbacks: list[Any], rows: list[Any], log: Path | None) -> Any:
        plan = self.plan
        cuda = torch.cuda.is_available()
        arguments = transformers.TrainingArguments(
            output_dir=str(self._folder),
            max_steps=plan.steps, per_device_train_batch_size=plan.batch // processes(),
            learning_rate=lr, lr_scheduler_type=plan.schedule,
            warmup_steps=0 if plan.schedule == "constant" else max(1, plan.steps // 20),
            seed=plan.seed, data_seed=plan.seed, report_to="none", disable_tqdm=True,
            logging_strategy="steps", logging_steps=1, use_cpu=not cuda,
            save_strategy="steps" if self._kept else "no",
            save_steps=plan.every or plan.steps, save_total_limit=2,
            # What is not finite would be replaced by the mean of what was.
            logging_nan_inf_filter=False, dataloader_pin_memory=cuda, remove_unused_columns=False,
        )  # fmt: skip
        common: dict[str, Any] = {
            "model": self.model, "args": arguments, "train_dataset": rows,
            "data_collator": self.task.collate, "callbacks": callbacks,
        }  # fmt: skip
        if plan.forward_only:
            made: Any = _ForwardOnly(**common, optimizer_cls_and_kwargs=forward_only(plan, log))
        else:
            made = _Plain(**common)
        made.task = self.task
        return made

    def run(self) -> None:
        """Train to the end of the plan, or until a callback stops it."""
        found = self._kept and checkpoints.any_left(self._folder)
        with quiet():
            self.trainer.train(resume_from_checkpoint=True if found else None)

    def seconds_of_last_step(self) -> float:
        """Train, and say how long the last step took."""
        clock = _Clock()
        self.trainer.add_callback(clock)
        self.run()
        return clock.seconds

    @property
    def step(self) -> int:
        """That of the checkpoint from which `run` goes on; 0: there is none."""
        found = self._folder.glob("checkpoint-*")
        return max((checkpoints.step_of(folder) or 0 for folder in found), default=0)

    @property
    def losses(self) -> dict[int, tuple[float, float]]:
        """By step, the training loss and the rate, also of steps before a checkpoint."""
        state = self.trainer.state
        if not state.log_history and self.step:
            file = self._folder / f"checkpoint-{self.step}" / checkpoints.STATE
            logs = json.loads(file.read_text(encoding="utf-8"))["log_history"]
        else:
            logs = state.log_history
        return {
            int(each["step"]): (float(each["loss"]), float(each["learning_rate"]))
            for each in logs
            if "loss" in each
        }

    @property
    def record(self) -> Record | None:
        """What the method wrote down itself; None: it is one of torch's."""
        if self.chain is not None:
            return self.chain.record
        if self.plan.forward_only and self.trainer.optimizer is not None:
            found: Record = self.trainer.zeroth_order.record
            return found
        return None

    def save(self, folder: Path) -> None:
        """Plain weights, or an adapter of the base; every process calls this, and the first writes."""
        with quiet():
            if self.plan.forward_only:
                # All fold alike.
                self.trainer.save_model(str(folder))
                (folder / "training_args.bin").unlink(missing_ok=True)
            elif rank() == 0 and self.chain is not None:
                self.chain.export_adapter(folder)
            elif rank() == 0:
                self.model.save_pretrained(folder)
            if rank() == 0:
                self.task.tokenizer.save_pretrained(folder)
