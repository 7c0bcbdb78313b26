"""Embeddings to the entries of networks: an MLP a depth, or one MLP for blocks of any width."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.architecture._autoencoder.encoders import HIDDEN, mlp
from surefoot.architecture._autoencoder.entries import Entries, entry_shapes, split
from surefoot.architecture._autoencoder.layers import linear
from surefoot.architecture._nets.family import Family, shapes

BLOCK = 16
PLACE = 32


def scaled(raw: Entries, weight_scale: float, bias_scale: float) -> Entries:
    """weights * scale, biases * scale, gate logits 2u + 1, activation logits 3u."""
    return Entries(
        [w * weight_scale for w in raw.weights],
        [b * bias_scale for b in raw.biases],
        [2 * g + 1 for g in raw.gate_logits],
        [3 * a for a in raw.act_logits],
    )


class MLPDecoder(nn.Module):
    """Per depth an MLP from z to all entries."""

    def __init__(self, space: Family, scale: tuple[float, float], z_dim: int) -> None:
        super().__init__()
        self.space, self.scale = space, scale
        totals = [
            sum(torch.Size(s).numel() for s in entry_shapes(space, d))
            for d in range(1, space.max_depth + 1)
        ]
        self.nets = nn.ModuleList(mlp(z_dim, HIDDEN, HIDDEN, n) for n in totals)

    def forward(self, z: Float[Tensor, "B z"], depth: int) -> Entries:
        """The entries of networks of one depth."""
        return scaled(split(self.nets[depth - 1](z), self.space, depth), *self.scale)


class ChunkedDecoder(nn.Module):
    """One MLP g(z, layer, row block, column block) -> a block of c x c weights: it does not grow as W^2.

    Biases, gates and activations of c neurons come from a second head at (layer, column block). An extension
    of the paper's system that no prototype has tried: ask `certificate` before relying on one.
    """

    def __init__(self, space: Family, scale: tuple[float, float], z_dim: int) -> None:
        super().__init__()
        self.space, self.scale = space, scale
        self.block = min(BLOCK, max(space.max_width, 1))
        L, widest = space.max_depth, max(space.n_in, space.n_out, space.max_width)
        blocks = -(-widest // self.block)
        self.layers = nn.Parameter(torch.randn(L, L + 1, PLACE, dtype=torch.float32))
        self.rows = nn.Parameter(torch.randn(blocks, PLACE, dtype=torch.float32))
        self.columns = nn.Parameter(torch.randn(blocks, PLACE, dtype=torch.float32))
        self.of_z = linear(z_dim, HIDDEN)
        self.of_place = linear(PLACE, HIDDEN, bias=False)
        self.trunk = nn.Sequential(nn.ReLU(), linear(HIDDEN, HIDDEN), nn.ReLU())
        self.weights = linear(HIDDEN, self.block**2)
        self.neurons = linear(HIDDEN, self.block * (2 + len(space.activations)))

    def forward(self, z: Float[Tensor, "B z"], depth: int) -> Entries:
        """The entries of networks of one depth."""
        raw, c, start = Entries([], [], [], []), self.block, self.of_z(z)[:, None]
        for i, (n_in, n_out) in enumerate(shapes(self.space, depth)):
            here, high, wide = self.layers[depth - 1, i], -(-n_in // c), -(-n_out // c)
            columns = here + self.columns[:wide]
            places = (self.rows[:high, None] + columns).flatten(0, 1)
            blocks = self.weights(self.trunk(start + self.of_place(places)))
            tiles = blocks.unflatten(1, (high, wide)).unflatten(-1, (c, c)).transpose(2, 3)
            raw.weights.append(tiles.reshape(len(z), high * c, wide * c)[:, :n_in, :n_out])
            neurons = self.neurons(self.trunk(start + self.of_place(columns)))
            each = neurons.unflatten(-1, (c, -1)).flatten(1, 2)[:, :n_out]
            raw.biases.append(each[..., 0])
            if i < depth:
                raw.gate_logits.append(each[..., 1])
                raw.act_logits.append(each[..., 2:])
        return scaled(raw, *self.scale)
