#!/usr/bin/env bash
# Opacus 1.6.0: the loader that make_private makes for Poisson sampling draws int(1 / (1 / n)) batches a pass, where n is the
# number of batches of the loader that it was given. For n = 93 this is 92, by rounding. The sampler draws each example
# with probability 1/93, and the accountant writes down 1/92, once for each of 92 steps.
# One would guess n steps a pass at a rate of 1/n, as for n = 92 and 94. Who recomputes epsilon from the size of the data, the
# size of a batch and the epochs then has neither the steps nor the rate of the real run.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile torch==2.13.0 opacus==1.6.0
cd "$place"
"$place/venv/bin/python" -W ignore - <<'PY'
import opacus
import torch
from torch.utils.data import DataLoader, TensorDataset


def run(n):
    model = torch.nn.Linear(1, 1)
    engine = opacus.PrivacyEngine()
    net, optimizer, loader = engine.make_private(
        module=model, optimizer=torch.optim.SGD(model.parameters(), 0.1),
        data_loader=DataLoader(TensorDataset(torch.ones(n, 1)), 1),
        noise_multiplier=1.0, max_grad_norm=1.0,
    )
    for (x,) in loader:
        optimizer.zero_grad()
        net(x).sum().backward()
        optimizer.step()
    ((_, rate, steps),) = engine.accountant.history
    return steps, round(1 / rate, 9), round(1 / loader.batch_sampler.sample_rate, 9)


seen = {n: run(n) for n in (92, 93, 94)}
print("batches given: steps of a pass, 1 / rate of the accountant, 1 / rate of the sampler:", seen)
assert seen == {92: (92, 92.0, 92.0), 93: (92, 92.0, 93.0), 94: (94, 94.0, 94.0)}, "changed"
PY
