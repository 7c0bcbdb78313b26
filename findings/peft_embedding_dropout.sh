#!/usr/bin/env bash
# PEFT 0.21.2: LoraConfig(lora_dropout=p) makes a Dropout module for an adapted nn.Embedding, and its forward pass never
# uses it: two training forwards are equal bit for bit at p = 0.9. The same setting on an nn.Linear drops.
# One would guess that the dropout is applied to every adapted layer, as the module that is made for it suggests. A
# check that reads "lora_dropout" off such a layer (to say that the loss is random) is wrong for embeddings.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile torch==2.13.0 peft==0.21.2
cd "$place"
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - <<'PY'
import torch
from peft import LoraConfig, get_peft_model
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(10, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(self.embedding(x))


def repeats(target):
    torch.manual_seed(0)
    model = get_peft_model(Net(), LoraConfig(r=2, target_modules=[target], lora_dropout=0.9)).train()
    for name, parameter in model.named_parameters():
        if "lora" in name:
            nn.init.normal_(parameter)
    made = [d for m in model.modules() if hasattr(m, "lora_dropout") for d in m.lora_dropout.values()]
    x = torch.arange(10)
    return type(made[0]).__name__, torch.equal(model(x), model(x))


seen = {target: repeats(target) for target in ("embedding", "linear")}
print("module made, and whether two training forwards are equal:", seen)
assert seen == {"embedding": ("Dropout", True), "linear": ("Dropout", False)}, "changed"
PY
