#!/usr/bin/env bash
# transformers 5.24.0: a Trainer that resumes from the checkpoint of its last step (max_steps was reached) trains one step
# more: global_step ends above max_steps and, at a constant rate, the weights are others, without a word.
# One would guess that there is nothing left to do and that resuming a finished run returns it as it was.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile torch==2.13.0 transformers==5.24.0 accelerate==1.15.0
cd "$place"
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - <<'PY'
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

rows = [{"input_ids": r, "labels": r} for r in torch.randint(0, 20, (40, 6), generator=torch.Generator().manual_seed(0))]


def trained(resume=None):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=6))
    arguments = TrainingArguments(
        output_dir="out", max_steps=4, save_steps=4, per_device_train_batch_size=2, report_to=[], use_cpu=True,
        disable_tqdm=True, logging_strategy="no", dataloader_pin_memory=False, lr_scheduler_type="constant",
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.state.global_step, torch.cat([p.detach().flatten() for p in model.parameters()])


first, one = trained()
again, two = trained("out/checkpoint-4")
seen = first, again, torch.equal(one, two)
print("global_step, global_step after resuming at the end, whether the weights are the same:", seen)
assert seen == (4, 5, False), "changed"
PY
