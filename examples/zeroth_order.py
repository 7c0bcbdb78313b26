"""Fine-tune with forward passes only: no gradient, the memory of inference, and a log that is the training.

A network that knows the digits is shown them upside down, and learns these by LOZO. Then a convex problem,
where the gradient theorem says something: its certificate. About ten seconds on one core.
"""

import copy
import functools

import torch
from sklearn.datasets import load_digits
from torch import nn

from surefoot import Record
from surefoot.zeroth_order import LOZO, lozo_bound, replay

digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
train, test = slice(0, 1400), slice(1400, None)
flipped = x.flip(dims=[1])

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
adam = torch.optim.Adam(net.parameters(), lr=1e-2)
for _ in range(100):  # the base model, by back-propagation
    adam.zero_grad()
    nn.functional.cross_entropy(net(x[train]), y[train]).backward()
    adam.step()
adam.zero_grad()
base = copy.deepcopy(net)


@torch.no_grad()
def accuracy(inputs):
    """Of the test rows."""
    return float((net(inputs[test]).argmax(dim=1) == y[test]).double().mean())


print(f"base model: {accuracy(x):.3f}, upside down {accuracy(flipped):.3f}")
optimizer = LOZO(net, lr=4e-3, rank=2, nu=50, scale="unit", log=True)
rows = torch.Generator().manual_seed(0)
for _ in range(1500):
    batch = torch.randint(0, 1400, (512,), generator=rows)
    optimizer.step(lambda batch=batch: nn.functional.cross_entropy(net(flipped[batch]), y[batch]))
optimizer.flush()
print(f"after 1,500 steps of LOZO: upside down {accuracy(flipped):.3f}")

again = replay(base, optimizer.log)
same = all(torch.equal(p, q) for p, q in zip(net.parameters(), again.parameters(), strict=True))
print(f"the same weights from a log of {optimizer.log.bytes / 1000:.1f} kB: {same}\n")

# For a network of this kind nothing is promised: V is Gaussian here, and L is not known.
print(optimizer.certificates()[0].summary(), "\n")

# Softmax regression with a ridge: L is known, and so are f's values. The rate is the bound's own.
ones = torch.cat([x[train], torch.ones(1400, 1)], dim=1).double()
L = float(torch.linalg.eigvalsh(ones.T @ ones)[-1]) / 2800 + 0.1
record, known = Record(), {"L": L, "sigma2": 0.0, "delta0": torch.log(torch.tensor(10.0)).item()}
rate = lozo_bound([(10, ones.shape[1])], 2, nu=5, T=200, **known).alpha


def loss(w):
    """Mean cross-entropy with a ridge."""
    return nn.functional.cross_entropy(ones @ w.T, y[train]) + 0.05 * w.square().sum()


for seed in range(6):
    w = nn.Parameter(torch.zeros(10, ones.shape[1], dtype=torch.float64))
    f = functools.partial(loss, w)
    optimizer = LOZO([w], rate, rank=2, nu=5, v_dist="orthogonal", seed=seed, record=record)
    for t in range(200):
        if t % 5 == 0:
            optimizer.measure_gradient(f)
        optimizer.step(f)
    optimizer.fd_error(f)
print(optimizer.certificates(**known, how="from the data, f* >= 0")[0].summary())
