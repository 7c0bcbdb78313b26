"""Hyper-search: train the scales once, on the server, on public data (arXiv 2205.15242, section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sized

import torch
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.errors import NonFiniteError
from surefoot.reparam._optimizer.parameters import decay_groups
from surefoot.reparam.merging import blocks, linear_blocks
from surefoot.reparam.scales import Scales

Loader = Iterable[tuple[Tensor, Tensor]]


@checked
def hyper_search(
    model_fn: Callable[[], nn.Module],
    loader: Loader,
    epochs: int,
    lr: float = 0.1,
    *,
    momentum: float = 0.9,
    weight_decay: float = 4e-5,
    label_smoothing: float = 0.1,
    max_norm: float | None = 5.0,
    warmup_epochs: int = 0,
) -> Scales:
    """Train a network in mode "hs" and keep only its scales.

    SGD with momentum, cosine schedule, the authors' settings by default.

    Parameters
    ----------
    model_fn
        model_fn() -> a new network in mode "hs".
    loader
        Batches of (inputs, targets), gone through once an epoch; a batch of one example is left out, since
        BatchNorm has no variance there.
    epochs, warmup_epochs
        How many; over the first `warmup_epochs` the rate rises linearly.
    lr, momentum, weight_decay
        Of SGD, lr at its highest. Scales are not decayed, identity scales are.
    label_smoothing
        Of the cross-entropy.
    max_norm
        The largest gradient norm; None: no clipping.

    Returns
    -------
    Scales
        {module path: {branch: tensor of length Co}}.

    Raises
    ------
    TypeError
        The model is not in mode "hs".
    NonFiniteError
        The loss stopped being a number; the step is named.
    """
    model = model_fn()
    for name, block in blocks(model):
        if block.mode != "hs":
            raise TypeError(f"block {name or 'itself'} must be in mode 'hs', got {block.mode!r}")
    linear_blocks(model)
    check_number("epochs", epochs, least=0, whole=True)
    if isinstance(loader, Sized) and not len(loader):
        raise ValueError("loader must hold at least one batch, got none")
    check_number("lr", lr, above=0)
    check_number("momentum", momentum, least=0, below=1)
    check_number("label_smoothing", label_smoothing, least=0, most=1)
    if max_norm is not None:
        check_number("max_norm", max_norm, above=0, finite=False)
    check_number("warmup_epochs", warmup_epochs, least=0, whole=True)
    optimizer = torch.optim.SGD(decay_groups(model, weight_decay), lr=lr, momentum=momentum)
    model.train()
    step = 0
    for epoch in range(epochs):
        for x, y in loader:
            if len(x) < 2:
                continue
            factor = (
                (epoch + 1) / (warmup_epochs + 1)
                if epoch < warmup_epochs
                else 0.5 * (1 + math.cos(math.pi * epoch / epochs))
            )
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y, label_smoothing=label_smoothing)
            if not math.isfinite(float(loss.detach())):
                raise NonFiniteError("the loss of the hyper-search", step, float(loss.detach()))
            loss.backward()  # type: ignore[no-untyped-call]
            if max_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            step += 1
    return scales_of(model)


def scales_of(model: nn.Module) -> Scales:
    """The scales that a model in mode "hs" or "csla" has now."""
    return Scales({name: block.scales() for name, block in linear_blocks(model)})
