"""A plain network that trains as its multi-branch original would: one convolution a block on the device.

Needs no extra. Under ten seconds on one core.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from surefoot.reparam import (
    RepSGD,
    Shadow,
    convert_to_csla,
    convert_to_plain,
    decay_groups,
    hyper_search,
    repopt_vgg,
)

digits = load_digits()
x = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
y = torch.tensor(digits.target)
train, test = torch.arange(1437), torch.arange(1437, 1797)


def network(mode):
    """Three stages of 3 x 3 + 1 x 1 + identity on 8 x 8 images."""
    return repopt_vgg((1, 1), (8, 16), in_channels=1, mode=mode, strides=(1, 1, 2))


def batches(epochs, size=64):
    """Shuffled batches, the same in every run."""
    g = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        yield from train[torch.randperm(len(train), generator=g)].split(size)


# Once, on the server: the scales of the branches (public data in earnest, and not what devices train on).
first = [(x[i], y[i]) for i in train[:500].split(64)]
scales = hyper_search(lambda: network("hs"), first, epochs=2)

# On the device: the plain network, and an optimizer that knows the branches by their multipliers.
model, mults = convert_to_plain(network("csla"), scales, seed=0)
optimizer = RepSGD(decay_groups(model, 1e-4), lr=0.1, momentum=0.9, grad_mults=mults)

# For a few steps beside it: the multi-branch network that it must follow.
branches = convert_to_csla(network("csla"), scales, seed=0)
follower = torch.optim.SGD(decay_groups(branches, 1e-4), lr=0.1, momentum=0.9)
shadow = Shadow(branches, follower, model, optimizer)

for step, batch in enumerate(batches(epochs=6)):

    def loss(net, batch=batch):
        """Of this batch."""
        return nn.functional.cross_entropy(net(x[batch]), y[batch])

    optimizer.zero_grad()
    loss(model).backward()
    optimizer.step()
    if step < 20:
        shadow.step(loss)

model.eval()
accuracy = float((model(x[test]).argmax(1) == y[test]).double().mean())
print(f"test accuracy {accuracy:.1%}, {sum(p.numel() for p in model.parameters())} parameters")
print(f"the branches have {sum(p.numel() for p in branches.parameters())}")
for certificate in optimizer.certificates():
    print(certificate.summary())
