"""`RacCallback`: a chain under `transformers.Trainer`, with checkpoints that resume in mid-chain."""

from __future__ import annotations

import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._sealed import checkpoints
from surefoot.errors import need, warn
from surefoot.lora._block.state_files import (
    META,
    TENSORS,
    damaged_unless_sealed,
    read_state,
    write_state,
)  # fmt: skip
from surefoot.lora.chain import ChainOfLora
from surefoot.lora.errors import ChainStateError

with need("transformers", extra="llm", part="surefoot.lora.RacCallback"):
    from transformers import (
        AutoModel,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        PrinterCallback,
        RobertaConfig,
        RobertaModel,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )


@checked
class RacCallback(TrainerCallback):
    """Drives a chain from a Trainer's events and puts its state into every checkpoint.

    ```python
    chain = ChainOfLora(peft_model, RacConfig(blocks=50))
    Trainer(model=peft_model, ..., callbacks=[RacCallback(chain)])
    ```

    Parameters
    ----------
    chain
        On the PeftModel that the Trainer trains. To resume, make both anew on the original base
        and call `trainer.train(resume_from_checkpoint=...)`.
    resume_dir
        The checkpoint to take the chain's state from, where it is not
        `output_dir/checkpoint-<global step>`: the Trainer does not tell its callbacks.

    Raises
    ------
    ChainStateError
        The Trainer resumes and the checkpoint holds no chain state, or another model's.
    """

    def __init__(self, chain: ChainOfLora, resume_dir: str | Path | None = None) -> None:
        self.chain = chain
        self.resume_dir = None if resume_dir is None else Path(resume_dir)
        # Resumed at its end: a Trainer takes one more step, which must change nothing.
        self._over = False
        self._buffers: dict[str, Tensor] = {}

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Rename what a killed process left half-written: a Trainer that resumes then finds the whole."""
        with args.main_process_first(local=False):
            left = checkpoints.set_aside(args.output_dir) if args.process_index == 0 else []
        found = [checkpoints.fault(folder) for folder in left[:1]]
        # Of the chain's own files resuming itself speaks.
        if found and found[0] and not found[0].what.startswith((TENSORS, META)):
            warn(
                f"{left[0]} is damaged: {found[0].what}; no other checkpoint is whole", UserWarning
            )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Resume where the Trainer does, meet the optimizer, fix the blocks' length."""
        chain = self.chain
        if getattr(args, "load_best_model_at_end", False):
            raise ValueError(
                "load_best_model_at_end=True loads the best adapter onto weights that later blocks "
                "have changed; set it to False and rebuild the best checkpoint by resuming from it"
            )
        if state.global_step > 0 and self._calls() != state.global_step:
            folder = self.resume_dir or Path(args.output_dir) / f"checkpoint-{state.global_step}"
            stored = read_state(folder)
            found = checkpoints.fault(folder) if checkpoints.step_of(folder) is not None else None
            if found is not None:
                raise ChainStateError(
                    f"{folder} is {found.kind}, {found.what}: resume from another checkpoint"
                )
            with damaged_unless_sealed(folder, stored):
                chain.load_state_dict(stored)
            if self._calls() != state.global_step:
                raise ChainStateError(
                    f"the Trainer resumes at step {state.global_step}, the chain state in {folder} is "
                    f"of step {self._calls()}; pass resume_dir= to RacCallback"
                )
        config = chain.config
        if config.chained and chain.steps_per_block is None:
            if config.blocks is None:
                raise ValueError("RacConfig needs steps_per_block or blocks under a Trainer")
            chain.state.steps_per_block = math.ceil(state.max_steps / config.blocks)
        # Trainer clips at 1 by default.
        norm = float(getattr(args, "max_grad_norm", 0) or 0)
        chain.record.note(chain.config.seed, max_grad_norm=norm)
        optimizer = kwargs.get("optimizer")
        if optimizer is not None:
            chain.attach(optimizer)
        chain.saves.checkpointing = True
        self._over = state.global_step >= state.max_steps > 0

    def _calls(self) -> int:
        """Steps as a Trainer counts them: those that a scaler skipped are among them."""
        return self.chain.total_steps + self.chain.state.skipped_steps

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what a forward changes, where the training is over."""
        if self._over:
            self._buffers = {k: b.clone() for k, b in self.chain.model.named_buffers()}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the optimizer nothing to do, where the training is over."""
        if self._over:
            for parameter in self.chain.model.parameters():
                parameter.grad = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the optimizer step; merge and restart at the end of a block."""
        if not self._over:
            self.chain.step(kwargs["optimizer"])
            return
        with torch.no_grad():
            for name, buffer in self.chain.model.named_buffers():
                buffer.copy_(self._buffers[name])
        state.global_step -= 1
        control.should_training_stop, control.should_save = True, False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the block where blocks are epochs."""
        if self.chain.steps_per_block == "epoch" and self.chain.step_in_block:
            self.chain.end_block(kwargs.get("optimizer"))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as whole; the chain's state is in it, without which it could not be resumed."""
        saves = self.chain.saves
        folder, saves.checkpoint = saves.checkpoint, None
        if folder is None or checkpoints.step_of(folder) != state.global_step:
            # A Trainer that does not save by `save_pretrained`.
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if state.is_world_process_zero:
                write_state(self.chain.state, folder)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Each process writes the state of its own generators.
            torch.distributed.barrier()
        if state.is_world_process_zero:
            checkpoints.complete(folder)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From now on `save_pretrained` means the user's own."""
        self.chain.saves.checkpointing = False


def fit(chain: ChainOfLora, rows: Any, *, steps: int, lr: float, seed: int, **more: Any) -> None:
    """Train a chain to its end under a Trainer that prints, logs and saves nothing.

    Parameters
    ----------
    chain
        Before its first step.
    rows
        A torch dataset of dictionaries.
    steps
        Optimizer steps.
    lr
        Learning rate of AdamW.
    seed
        Of the order of the rows and of dropout.
    more
        Further fields of `transformers.TrainingArguments`.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=steps, learning_rate=lr, seed=seed, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True, **more,
        )  # fmt: skip
        trainer = Trainer(
            model=chain.model, args=arguments, train_dataset=rows, callbacks=[RacCallback(chain)]
        )
        trainer.remove_callback(PrinterCallback)
        with warnings.catch_warnings():
            # PEFT asks transformers for an attribute that transformers has renamed.
            warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
            trainer.train()
    chain.finish()


def encoder(folder: str | Path) -> Any:
    """A pretrained encoder from a model directory."""
    return AutoModel.from_pretrained(folder, trust_remote_code=False)


def tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a model directory."""
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def classifier(folder: str | Path, classes: int) -> Any:
    """A pretrained encoder from a model directory with a new head for so many classes."""
    return AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=classes, trust_remote_code=False
    )


def roberta(**sizes: Any) -> Any:
    """An encoder in the shape of RoBERTa with random weights, without pooler."""
    return RobertaModel(RobertaConfig(**sizes), add_pooling_layer=False)
