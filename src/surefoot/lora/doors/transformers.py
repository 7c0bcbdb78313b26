"""`RacCallback`: a chain under `transformers.Trainer`, with checkpoints that resume in mid-chain."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from surefoot.lora._block import state_files as folders
from surefoot.lora.chain import ChainOfLora
from surefoot.lora.doors.peft import need
from surefoot.lora.errors import ChainStateError

need("transformers", "surefoot.lora.RacCallback")

from transformers import TrainerCallback  # noqa: E402


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

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Resume where the Trainer does, meet the optimizer, fix the blocks' length."""
        chain = self.chain
        if getattr(args, "load_best_model_at_end", False):
            raise ValueError(
                "load_best_model_at_end=True loads the best adapter onto weights that later blocks "
                "have changed; set it to False and rebuild the best checkpoint by resuming from it"
            )
        if state.global_step > 0 and chain.total_steps != state.global_step:
            folder = self.resume_dir or Path(args.output_dir) / f"checkpoint-{state.global_step}"
            chain.load_state_dict(folders.read_state(folder))
            if chain.total_steps != state.global_step:
                raise ChainStateError(
                    f"the Trainer resumes at step {state.global_step}, the chain state in {folder} is "
                    f"of step {chain.total_steps}; pass resume_dir= to RacCallback"
                )
        config = chain.config
        if config.chained and chain.steps_per_block is None:
            if config.blocks is None:
                raise ValueError("RacConfig needs steps_per_block or blocks under a Trainer")
            chain.steps_per_block = math.ceil(state.max_steps / config.blocks)
        if getattr(args, "max_grad_norm", 0):
            chain.object(
                f"gradients are clipped at max_grad_norm={args.max_grad_norm}, which Trainer does by "
                "default; set it to 0"
            )
        optimizer = kwargs.get("optimizer")
        if optimizer is not None:
            chain.attach(optimizer)
        chain.saves.checkpointing = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the optimizer step; merge and restart at the end of a block."""
        self.chain.step(kwargs["optimizer"])

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the block where blocks are epochs."""
        if self.chain.steps_per_block == "epoch" and self.chain.step_in_block:
            self.chain.end_block(kwargs.get("optimizer"))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the chain's state into the checkpoint, which without it could not be resumed."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            folders.write_state(self.chain, folder)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From now on `save_pretrained` means the user's own."""
        self.chain.saves.checkpointing = False


__all__ = ["RacCallback"]
