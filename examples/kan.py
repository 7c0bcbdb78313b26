"""How long will this network train, and with which step? Ask its tangent matrix before the first step."""

import math

import torch

from surefoot.kan import KAN2, certificate, fit_gd, monitor, step_size, steps_to, tangent

# Forty measurements of an unknown surface, features already inside the grid [-1, 1].
generator = torch.Generator().manual_seed(0)
X = 2 * torch.rand(40, 2, generator=generator, dtype=torch.float64) - 1
y = torch.sin(math.pi * X[:, 0]) * X[:, 1]

model = KAN2(2, 256, seed=0)
start = certificate(model, X, y)
print(start)

t, r0 = tangent(model, X), (model(X) - y).detach()
eta = step_size(t)
for loss in (1e-1, 1e-2):
    print(f"a loss of {loss:g} is forecast after {steps_to(t, r0, eta, loss)} steps of {eta:.3g}")

run = fit_gd(model, X, y, 60, eta=eta, every=20)
print(run.monitor.report())

# The same loop with momentum: the monitor sees that the theorem's method does not run.
other = KAN2(2, 64, seed=0)
optimizer = torch.optim.SGD(other.parameters(), lr=eta / 10, momentum=0.9)
with monitor(other, X, y, eta=eta / 10, every=20) as m:
    for _ in range(40):
        optimizer.zero_grad()
        loss = 0.5 * ((other(X) - y) ** 2).sum()
        loss.backward()
        m.step(loss.detach())
        optimizer.step()
print(m.certificates()[0].summary())
