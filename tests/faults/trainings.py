"""Tiny trainings under a Trainer that save often, and processes that are killed in them.

`python -m tests.faults.trainings KIND FOLDER SEED KILLS` kills KILLS processes at random moments, each of
which resumes without a hand's help, and prints as JSON what came of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import torch
import transformers
from transformers.trainer_utils import get_last_checkpoint

STEPS = 24
warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def rows(count: int = 32) -> list[dict[str, torch.Tensor]]:
    ids = torch.randint(0, 20, (count, 6), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row} for row in ids]


def gpt2() -> transformers.GPT2LMHeadModel:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def arguments(folder: Path, **more: object) -> transformers.TrainingArguments:
    given = {
        "max_steps": STEPS, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "report_to": [],
        "use_cpu": True, "disable_tqdm": True, "logging_strategy": "no", "save_strategy": "steps",
        "save_steps": 2, "dataloader_pin_memory": False, "seed": 5, "lr_scheduler_type": "cosine",
        "save_total_limit": 1,
    } | more  # fmt: skip
    return transformers.TrainingArguments(output_dir=str(folder), **given)


def zo(folder: Path, **more: object) -> transformers.Trainer:
    from surefoot.zeroth_order import LOZO
    from surefoot.zeroth_order.doors.transformers import ZOTrainer

    made = ZOTrainer(
        model=gpt2(), args=arguments(folder, **more), train_dataset=rows(),
        optimizer_cls_and_kwargs=(
            LOZO, {"nu": 5, "scale": "unit", "seed": 3, "momentum": 0.5, "log": str(folder / "run.zo")},
        ),
    )  # fmt: skip
    # Which way of evaluating is faster would differ from run to run.
    made.paired = False
    return made


def rac(folder: Path, **more: object) -> transformers.Trainer:
    from peft import LoraConfig, get_peft_model

    from surefoot.lora import ChainOfLora, RacCallback, RacConfig

    lora = LoraConfig(r=2, target_modules=["c_attn"], lora_dropout=0.1, fan_in_fan_out=True)
    model = get_peft_model(gpt2(), lora)
    chain = ChainOfLora(model, RacConfig(steps_per_block=5, seed=3))
    return transformers.Trainer(
        model=model,
        args=arguments(folder, **more),
        train_dataset=rows(),
        callbacks=[RacCallback(chain)],
    )


MAKE = {"zo": zo, "rac": rac}


def go_on(trainer: transformers.Trainer) -> None:
    """As a script does that is started again and again."""
    there = (
        get_last_checkpoint(trainer.args.output_dir)
        if os.path.isdir(trainer.args.output_dir)
        else None
    )
    trainer.train(resume_from_checkpoint=there is not None)


def ended(trainer: transformers.Trainer) -> str:
    """SHA-256 of all weights; of a chain they hold every merged block."""
    found = hashlib.sha256()
    for name, value in sorted(trainer.model.state_dict().items()):
        found.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def in_a_process(kind: str, folder: Path, patience: float | None) -> tuple[bool, str]:
    """Train in a process of its own; killed after `patience` seconds of training, if that is not None."""
    begun, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            # What it warns of (checkpoints set aside) is for people.
            warnings.simplefilter("ignore")
            trainer = MAKE[kind](folder, save_steps=1)
            os.write(tell, b"x")
            go_on(trainer)
            (folder / "end.part").write_text(ended(trainer))
            (folder / "end.part").rename(folder / "end")
            os._exit(0)
        except BaseException:
            import traceback

            (folder / "error").write_text(traceback.format_exc())
            os._exit(1)
    os.close(tell)
    os.read(begun, 1)
    os.close(begun)
    if patience is not None:
        time.sleep(patience)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    error = (folder / "error").read_text() if (folder / "error").exists() else ""
    return os.WIFSIGNALED(status), error


def kills(kind: str, root: Path, seed: int, count: int) -> dict[str, object]:
    """Kill `count` processes at random moments; whatever reaches its end must be the undisturbed end."""
    rng = random.Random(seed)
    whole = root / "whole"
    whole.mkdir(parents=True)
    # What is imported before a process is forked costs none of them.
    MAKE[kind](whole)
    started = time.monotonic()
    _, error = in_a_process(kind, whole, None)
    lasts = time.monotonic() - started
    wanted = error or (whole / "end").read_text()
    killed, half, ends, errors, run = 0, 0, [], [error] * bool(error), 0
    while (killed < count or not ends) and not errors:
        folder = root / f"run{run}"
        folder.mkdir(exist_ok=True)
        patience = rng.uniform(0, lasts / 2) if killed < count else None
        was_killed, error = in_a_process(kind, folder, patience)
        killed += was_killed
        half += sum(
            not (p / "surefoot.sums.json").exists()
            for p in folder.glob("checkpoint-*")
            if p.is_dir()
        )
        if error:
            errors.append(error)
        elif (folder / "end").exists():
            ends.append((folder / "end").read_text())
            run += 1
    same = sum(end == wanted for end in ends)
    return {
        "kind": kind, "killed": killed, "in a save": half, "ended": len(ends), "bit-identical": same,
        "errors": errors, "seconds of one": round(lasts, 2),
    }  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    kind, folder, seed, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    print(json.dumps(kills(kind, folder, seed, count)))
