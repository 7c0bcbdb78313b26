#!/usr/bin/env bash
# transformers 5.24.0: Trainer.evaluate() of a GPT2LMHeadModel says an eval_loss that is the mean loss times (n - 1) / n for rows of n
# labels, as the sum is divided by all labels, also by the first of a row, which has no prediction. A LlamaForCausalLM has the mean, as
# the Trainer leaves the first labels out where the class's loss_type says ForCausalLM; that of GPT2LMHeadModel is None.
# One would guess that eval_loss is the loss that the model itself says of the same rows, of every causal model.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile torch==2.13.0 transformers==5.24.0 accelerate==1.15.0
cd "$place"
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - <<'PY'
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

ids = torch.randint(0, 20, (4, 8), generator=torch.Generator().manual_seed(0))
arguments = TrainingArguments(output_dir="out", report_to=[], use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False)


def ratio(model):
    """What the Trainer says, over what the model says."""
    trainer = Trainer(model=model, args=arguments, eval_dataset=[{"input_ids": row, "labels": row} for row in ids])
    with torch.no_grad():
        return round(trainer.evaluate()["eval_loss"] / float(model.eval()(input_ids=ids, labels=ids).loss), 4)


torch.manual_seed(0)
small = dict(num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, hidden_size=8, intermediate_size=8)
seen = {
    "GPT2LMHeadModel": ratio(GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8))),
    "LlamaForCausalLM": ratio(LlamaForCausalLM(LlamaConfig(vocab_size=20, max_position_embeddings=8, **small))),
}
print("eval_loss over the model's own loss, rows of 8 labels:", seen)
assert seen == {"GPT2LMHeadModel": 0.875, "LlamaForCausalLM": 1.0}, "changed"
PY
