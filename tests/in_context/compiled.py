"""A looped model under torch.compile, whole, in a process without the tests' checks of shapes."""

import sys

import torch

from surefoot.in_context import GaussianPrompts, LoopedTransformer

model = LoopedTransformer(4, 3, train_u=True, init_std=0.3, dtype=torch.float64)
compiled = torch.compile(model, fullgraph=True, backend=sys.argv[1])
for n in (6, 3):
    p = GaussianPrompts(4, n, seed=6).sample(7)
    model.zero_grad()
    compiled(p.X, p.y, p.xq).square().sum().backward()
    found = model.A.grad.clone()
    model.zero_grad()
    plain = model(p.X, p.y, p.xq)
    plain.square().sum().backward()
    assert torch.allclose(compiled(p.X, p.y, p.xq), plain, rtol=1e-10, atol=1e-14)
    assert torch.allclose(found, model.A.grad, rtol=1e-10, atol=1e-14)
    assert found.abs().max() > 0
