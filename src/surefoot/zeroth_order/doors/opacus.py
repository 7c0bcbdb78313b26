"""Opacus' DP-SGD with Poisson sampling, as a peer of private forward-only training."""

from __future__ import annotations

import secrets
import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot._numerics.secret import is_secret, secret_generator
from surefoot.errors import need
from surefoot.record import Record

with need("opacus", extra="privacy", part="the DP-SGD arm of surefoot.zeroth_order"):
    import opacus

SUBSAMPLED = "poisson-subsampled gaussian"


def dp_sgd(
    model: nn.Module,
    x: Float[Tensor, "n ..."] | Int[Tensor, "n ..."],
    y: Int[Tensor, " n"],
    *,
    noise_multiplier: float,
    clip: float,
    lr: float,
    batches: int,
    steps: int,
    record: Record,
    seed: int,
    ghost: bool = True,
) -> nn.Module:
    """Train in place, and note what an accountant asks; noise and coins are the operating system's.

    Parameters
    ----------
    model
        Logits of the classes.
    x, y
        All examples.
    noise_multiplier, clip, lr
        sigma; C on the L2 norm of an example's gradient; the rate.
    batches, steps
        q = 1 / batches; T.
    record, seed
        Where facts go.
    ghost
        Whether norms are computed without per-example gradients (Opacus' ghost clipping): the same
        algorithm in less time and memory.
    """
    coins, noise = secret_generator(), secret_generator()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, y), batch_size=-(-len(y) // batches),
        generator=coins,
    )  # fmt: skip
    criterion: Any = nn.CrossEntropyLoss()
    with warnings.catch_warnings():
        # It speaks of its secure mode, and of hooks on inputs that need no gradient.
        warnings.simplefilter("ignore")
        made: Any = opacus.PrivacyEngine(accountant="rdp").make_private(
            module=model.train(), optimizer=torch.optim.SGD(model.parameters(), lr=lr),
            data_loader=loader, noise_multiplier=noise_multiplier, max_grad_norm=clip,
            noise_generator=noise, criterion=criterion,
            grad_sample_mode="ghost" if ghost else "hooks",
        )  # fmt: skip
        net, optimizer, *middle, drawn = made
        criterion = middle[0] if middle else criterion
        done = 0
        while done < steps:
            for a, b in drawn:
                optimizer.zero_grad()
                criterion(net(a), b).backward()
                optimizer.step()
                done += 1
                if done == steps:
                    break
    record.note(
        seed, private_run=secrets.token_hex(8), mechanism=SUBSAMPLED,
        # Opacus' own: of numbers that do not divide it is another than 1 / batches.
        noise_multiplier=noise_multiplier, sample_rate=1 / len(loader),
        steps=done, sampling="poisson", clipping="per example", clip_norm=clip, adjacency="add/remove",
        divisor="constant", secret_noise=is_secret(noise), secret_sampling=is_secret(coins),
        population_public=True, released="noised gradients, weights, settings",
        optimizer="SGD", lr=lr, momentum=0, weight_decay=0, releases="last", forward_only=False,
        trained_numbers=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )  # fmt: skip
    net.remove_hooks() if hasattr(net, "remove_hooks") else None
    return model.eval()


def whole_batches(model: nn.Module, x: Tensor, y: Tensor, *, steps: int, ghost: bool) -> None:
    """Some steps of DP-SGD on one batch: for what they take, which no random size of a batch disturbs.

    Parameters
    ----------
    model, x, y
        As in `dp_sgd`; what is frozen stays so.
    steps
        How many.
    ghost
        As there.
    """
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=len(y))
    criterion: Any = nn.CrossEntropyLoss()
    trained = [p for p in model.parameters() if p.requires_grad]
    made: Any = opacus.PrivacyEngine(accountant="rdp").make_private(
        module=model.train(), optimizer=torch.optim.SGD(trained, lr=1e-6), data_loader=loader,
        noise_multiplier=1.0, max_grad_norm=1.0, poisson_sampling=False, criterion=criterion,
        grad_sample_mode="ghost" if ghost else "hooks",
    )  # fmt: skip
    net, optimizer, *middle, _ = made
    criterion = middle[0] if middle else criterion
    for _ in range(steps):
        optimizer.zero_grad()
        criterion(net(x), y).backward()
        optimizer.step()
