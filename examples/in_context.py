"""Is this attention stack doing gradient descent? Probe it, and hold it against the exact optimum."""

import torch

from surefoot.in_context import (
    GaussianPrompts,
    LoopedTransformer,
    SoftmaxTransformer,
    optimal_schedule,
    optimal_step,
    population_loss,
    probe,
    safe_loops,
    train_looped,
)

d, n, loops = 5, 20, 2

# What is possible: exact numbers, no prompt is drawn.
b = optimal_step(d, n, loops)
print(
    f"one layer looped {loops} times: {float(population_loss(d, n, loops, b)):.6f} at b = {b:.4f}"
)
print(f"{loops} layers of their own: {optimal_schedule(d, n, loops).loss:.6f}")
print(f"safe at test time: {safe_loops(d, n, b)} loops")

# What training reaches, and what the theorems say of it.
model = LoopedTransformer(d, loops, dtype=torch.float64)
run = train_looped(model, GaussianPrompts(d, n, seed=0), steps=300, samples=4000)
for certificate in run.certificates():
    print(f"{certificate.verdict}: {certificate.name}")

# What a stranger would find out about it, by asking for predictions alone; and about one that is none.
print(probe(model, d=d, n=n, size=64, max_loops=4))
print(probe(SoftmaxTransformer(d, 1, dtype=torch.float64), d=d, n=n, size=64, max_loops=4).verdict)
