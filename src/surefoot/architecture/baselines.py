"""What a trained embedding is compared with: the same decoder untrained, and random features of the space."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.architecture._search.found import FoundNets
from surefoot.architecture._search.tasks import Data, Task, table, task_losses
from surefoot.architecture._search.variables import Direct
from surefoot.architecture.autoencoder import NetworkAutoencoder
from surefoot.architecture.space import MLPSpace

RIDGE = 1e-3
KEPT = 8


@checked
def random_decoder(space: MLPSpace, seed: int = 0) -> NetworkAutoencoder:
    """An autoencoder that has learnt nothing: searched in, it tells a learnt space from a reparameterisation.

    Parameters
    ----------
    space : MLPSpace
        The networks.
    seed : int
        Of its parameters.
    """
    return NetworkAutoencoder(space, seed=seed).requires_grad_(False)


@checked
@torch.no_grad()
def random_features(
    space: MLPSpace,
    X: Any,
    y: Any,
    *,
    task: Task,
    depth: int,
    networks: int = 256,
    seed: int = 0,
) -> FoundNets:
    """The best of many random networks, each with its readout fitted by ridge regression.

    Widths are random and hidden weights N(0, 1/fan_in); for classes the readout is fitted to one-hot targets
    (to +1 and -1 where there are two), as logits of which the loss is taken.

    Parameters
    ----------
    space : MLPSpace
        Widths and activations; features and outputs are the table's.
    X : (n, features) array or tensor
        Standardised columns.
    y : (n,) or (n, outputs) array or tensor
        Standardised numbers, or classes 0..C-1.
    task : "regression" or "classification"
        What y is.
    depth : int
        Hidden layers.
    networks : int
        How many are drawn.
    seed : int
        Of the networks.

    Returns
    -------
    FoundNets
        The 8 of least loss, best first.

    Raises
    ------
    ValueError
        An argument is not allowed; the message names it.
    """
    data = table(X, y, task)
    depth = check_number("depth", depth, least=1, most=space.max_depth, whole=True)
    networks = check_number("networks", networks, least=1, whole=True)
    generator = torch.Generator().manual_seed(check_number("seed", seed, least=0, whole=True))
    own = _of_table(space, data)
    nets = Direct(own, depth, networks, generator).nets(0.05, hard=True)
    nets.biases[:-1] = [
        torch.randn(b.shape, generator=generator, dtype=torch.float32) for b in nets.biases[:-1]
    ]
    widths = torch.randint(1, own.max_width + 1, (depth, networks), generator=generator)
    nets.gates = [(torch.arange(own.max_width) < w[:, None]).float() for w in widths]
    h = torch.nn.functional.pad(nets.hidden(data.x), (0, 1), value=1.0)
    readout = _ridge(h, _targets(data))
    nets.weights[-1], nets.biases[-1] = readout[:, :-1], readout[:, -1]
    loss = task_losses(nets(data.x), data.y, task)
    kept = nets[loss.argsort()[:KEPT]]
    found = FoundNets(own, *kept.parts)
    found.losses, found.collapsed, found.iterations = (
        loss.sort().values[:KEPT].double(),
        0,
        networks,
    )
    return found


def _of_table(space: MLPSpace, data: Data) -> MLPSpace:
    return dataclasses.replace(space, n_in=data.x.shape[1], n_out=data.n_out)


def _targets(data: Data) -> Float[Tensor, "n K"]:
    if data.task == "regression":
        return data.y
    if data.n_out == 1:
        return 2.0 * data.y[:, None] - 1
    return torch.nn.functional.one_hot(data.y, data.n_out).float()


def _ridge(h: Float[Tensor, "B n W"], y: Float[Tensor, "n K"]) -> Float[Tensor, "B W K"]:
    gram = h.mT @ h + RIDGE * len(y) * torch.eye(h.shape[-1], dtype=torch.float32)
    found: Tensor = torch.linalg.solve(gram, h.mT @ y)
    return found
