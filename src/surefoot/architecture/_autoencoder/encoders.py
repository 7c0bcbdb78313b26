"""Networks to embeddings: by what they compute at fixed inputs, or by what their entries are."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.architecture._autoencoder.entries import entry_shapes
from surefoot.architecture._autoencoder.layers import linear
from surefoot.architecture._nets.family import Family
from surefoot.architecture.net_batch import NetBatch

HIDDEN = 512
# A constant function has a spread of 0, and is embedded too.
LEAST_STD = 1e-6


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    modules: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        modules += [linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


class ProbeEncoder(nn.Module):
    """(standardised outputs at P fixed inputs, asinh(mean), log std) through an MLP.

    Functions that are equal have one embedding: permuted neurons, dead ones and rescalings vanish.
    """

    probes: Tensor

    def __init__(self, probes: Float[Tensor, "P D"], n_out: int, z_dim: int) -> None:
        super().__init__()
        self.register_buffer("probes", probes)
        self.net = mlp((len(probes) + 2) * n_out, HIDDEN, HIDDEN, z_dim)

    def of_outputs(self, y: Float[Tensor, "B P K"]) -> Float[Tensor, "B z"]:
        """The embeddings of functions with these outputs at the probes."""
        mean, std = y.mean(1), y.std(1, correction=0).clamp(min=LEAST_STD)
        shape = ((y - mean[:, None]) / std[:, None]).flatten(1)
        features = torch.cat([shape, torch.asinh(mean), torch.log(std)], -1)
        return self.net(features.to(self.probes.dtype))  # type: ignore[no-any-return]

    def forward(self, nets: NetBatch) -> Float[Tensor, "B z"]:
        """The embeddings of a batch."""
        return self.of_outputs(nets(self.probes.to(nets.biases[0].dtype)))


class MatrixEncoder(nn.Module):
    """Per depth an MLP on weights / scale, biases / scale, gates and activations."""

    def __init__(self, space: Family, scale: tuple[float, float], z_dim: int) -> None:
        super().__init__()
        self.scale = scale
        totals = [
            sum(torch.Size(s).numel() for s in entry_shapes(space, d))
            for d in range(1, space.max_depth + 1)
        ]
        self.nets = nn.ModuleList(mlp(n, HIDDEN, HIDDEN, z_dim) for n in totals)

    def forward(self, nets: NetBatch) -> Float[Tensor, "B z"]:
        """The embeddings of a batch."""
        w, b = self.scale
        parts = [
            *(x / w for x in nets.weights), *(x / b for x in nets.biases), *nets.gates, *nets.acts
        ]  # fmt: skip
        flat = torch.cat([p.flatten(1) for p in parts], -1)
        return self.nets[nets.depth - 1](flat)  # type: ignore[no-any-return]
