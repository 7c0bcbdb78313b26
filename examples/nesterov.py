"""How fast must this regression converge, and did it? Diabetes data, accelerated descent, its certificate.

A few seconds on one core.
"""

import torch
from sklearn.datasets import load_diabetes

from surefoot.nesterov import NAG, Ledger, steps_to

# 442 patients, ten measurements: predict the progression of the disease after a year.
features, progression = load_diabetes(return_X_y=True, scaled=True)
X = torch.tensor(features * len(features) ** 0.5)
y = torch.tensor((progression - progression.mean()) / progression.std())
penalty = 1e-3


def loss(w):
    """Half the mean squared residual, and a small penalty."""
    return 0.5 * ((X @ w - y) ** 2).mean() + 0.5 * penalty * (w**2).sum()


# What the promise needs: the ends of the Hessian's spectrum, and the minimiser with its value.
hessian = X.T @ X / len(X) + penalty * torch.eye(10, dtype=torch.float64)
spectrum = torch.linalg.eigvalsh(hessian)
mu, L = float(spectrum[0]), float(spectrum[-1])
minimiser = torch.linalg.solve(hessian, X.T @ y / len(X))
f_star = float(loss(minimiser))

w = torch.zeros(10, dtype=torch.float64, requires_grad=True)
optimizer = NAG.from_constants([w], mu=mu, L=L)
ledger = Ledger(optimizer, lambda: loss(w), mu=mu, eta=1 / L, f_star=f_star, anchor=minimiser)
for _ in range(300):
    optimizer.zero_grad()
    loss(w).backward()
    ledger.observe()  # immediately before the step
    optimizer.step()
optimizer.finalize()  # leave the iterate x_n in w: the promise is about it

certificate = ledger.close()
print(certificate.summary())

start = float(certificate.measured[0])
promised = steps_to(
    1e-6 * start, (mu / L) ** 0.5, start, dist0_sq=float((minimiser**2).sum()), mu=mu
)
measured = int((certificate.measured <= 1e-6 * start).argmax())
print(
    f"\ncondition number {L / mu:.0f}; steps to a millionth: promised {promised}, took {measured}"
)
print(f"f(x_300) - f* = {loss(w).item() - f_star:.2e}")
