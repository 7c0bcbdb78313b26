#!/usr/bin/env bash
# transformers 5.24.0: a causal language model takes `logits_to_keep=k` (logits of the last k positions alone, which is what saves memory) and
# `labels` (the loss), but not both: the labels are not cut as the logits are, and with any k below the length it is a ValueError on
# sizes, also where every label before the last k is -100. Llama, Qwen2 and GPT-2 alike.
# One would guess that the loss of labels that stand in the last k positions can be had from the logits of the last k positions.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile torch==2.13.0 transformers==5.24.0
cd "$place"
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - <<'PY'
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

ids = torch.randint(0, 20, (2, 8), generator=torch.Generator().manual_seed(0))
labels = ids.clone()
labels[:, :6] = -100
small = dict(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=8)
models = [
    LlamaForCausalLM(LlamaConfig(**small)),
    Qwen2ForCausalLM(Qwen2Config(**small)),
    GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8)),
]


@torch.no_grad()
def tried(model, keep):
    try:
        return round(float(model.eval()(input_ids=ids, labels=labels, logits_to_keep=keep).loss), 4)
    except ValueError as error:
        return f"ValueError: {error}"


for model in models:
    seen = {keep: tried(model, keep) for keep in (3, 8)}
    print(type(model).__name__, seen)
    assert str(seen[3]).startswith("ValueError") and isinstance(seen[8], float), "changed"
PY
