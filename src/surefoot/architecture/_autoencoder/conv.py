"""The paper's convolutional encoder and decoder, an arm a depth around one embedding (authors' code)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.architecture._autoencoder.entries import Entries
from surefoot.architecture._autoencoder.layers import conv, conv_up, linear
from surefoot.architecture._nets import matrix
from surefoot.architecture._nets.family import Family
from surefoot.architecture._nets.matrix import Layout
from surefoot.architecture.net_batch import NetBatch

CHANNELS = 128
SLOPE = 0.01


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a skip, which is a 1 x 1 convolution where channels or stride change."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv(n_in, n_out, 3, stride, 1)
        self.second = conv(n_out, n_out, 3, 1, 1)
        same = n_in == n_out and stride == 1
        self.skip = nn.Identity() if same else conv(n_in, n_out, 1, stride)
        self.act = nn.LeakyReLU(SLOPE)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d i j"]:
        """The block."""
        return self.act(self.second(self.act(self.first(x))) + self.skip(x))  # type: ignore[no-any-return]


def _dense(*widths: int, after_last: bool) -> nn.Sequential:
    modules: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        modules += [linear(n_in, n_out), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*(modules if after_last else modules[:-1]))


def _xavier(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def _halved(n: int) -> int:
    return -(-n // 2)


def corners(space: Family, layout: Layout) -> list[tuple[int, int]]:
    """Height and width after two strides of 2, at each depth."""
    rows = matrix.rows_of(space)
    columns = [matrix.columns_of(space, d, layout) for d in range(1, space.max_depth + 1)]
    return [(_halved(_halved(rows)), _halved(_halved(c))) for c in columns]


class ConvEncoder(nn.Module):
    """The matrix of a network through its depth's arm; the other arms give zeros; 512 - 256 - z."""

    def __init__(self, space: Family, layout: Layout, z_dim: int) -> None:
        super().__init__()
        self.layout: Layout = layout
        self.sizes = [CHANNELS * h * w for h, w in corners(space, layout)]
        self.arms = nn.ModuleList(
            nn.Sequential(
                conv(1, 32, 3, 1, 1), nn.LeakyReLU(SLOPE), Residual(32, 64, 2), Residual(64, 128, 2),
                Residual(128, 128), nn.Flatten(),
            )
            for _ in self.sizes
        )  # fmt: skip
        self.shared = _dense(sum(self.sizes), 512, 256, z_dim, after_last=True)
        _xavier(self)

    def forward(self, nets: NetBatch) -> Float[Tensor, "B z"]:
        """The embeddings of a batch."""
        x = nets.to_matrix(self.layout)[:, None]
        own = self.arms[nets.depth - 1](x)
        start = sum(self.sizes[: nets.depth - 1])
        rest = sum(self.sizes) - start - own.shape[-1]
        return self.shared(torch.nn.functional.pad(own, (start, rest)))  # type: ignore[no-any-return]


class ConvDecoder(nn.Module):
    """z - 256 - 512 - all arms' corners; each arm up again to 512 - 256 - the matrix of a network."""

    def __init__(self, space: Family, layout: Layout, z_dim: int) -> None:
        super().__init__()
        self.space, self.layout = space, layout
        self.corners = corners(space, layout)
        self.sizes = [CHANNELS * h * w for h, w in self.corners]
        self.shared = _dense(z_dim, 256, 512, sum(self.sizes), after_last=True)
        self.rows = matrix.rows_of(space)
        self.columns: Sequence[int] = [
            matrix.columns_of(space, d, layout) for d in range(1, space.max_depth + 1)
        ]
        self.arms = nn.ModuleList(
            nn.Sequential(
                conv(CHANNELS, 64, 3, 1, 1), nn.LeakyReLU(SLOPE), Residual(64, 64),
                conv_up(64, 64, 4, 2, 1), nn.LeakyReLU(SLOPE), Residual(64, 32),
                conv_up(32, 32, 4, 2, 1), nn.LeakyReLU(SLOPE), Residual(32, 1), conv(1, 1, 1),
                nn.Flatten(), _dense(16 * h * w, 512, 256, self.rows * columns, after_last=False),
            )
            for (h, w), columns in zip(self.corners, self.columns, strict=True)
        )  # fmt: skip
        _xavier(self)

    def forward(self, z: Float[Tensor, "B z"], depth: int) -> Entries:
        """The entries of networks of one depth."""
        own = self.shared(z).split(self.sizes, -1)[depth - 1]
        corner = own.unflatten(-1, (CHANNELS, *self.corners[depth - 1]))
        flat = self.arms[depth - 1](corner)
        read = matrix.read(
            flat.unflatten(-1, (self.rows, self.columns[depth - 1])), self.space, depth, self.layout
        )
        return Entries(read.weights, read.biases, read.gates, read.acts)
