"""What the search descends in: an embedding and adapters around a frozen decoder, or the entries."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.architecture._autoencoder.entries import Entries, Gate, to_nets
from surefoot.architecture._nets.family import shapes
from surefoot.architecture.autoencoder import NetworkAutoencoder
from surefoot.architecture.net_batch import NetBatch
from surefoot.architecture.space import MLPSpace

PCA_ABOVE, PCA_ROWS = 512, 1000


@runtime_checkable
class Variables(Protocol):
    """R restarts of one depth."""

    @property
    def space(self) -> MLPSpace:
        """The space of the networks that are found."""
        ...

    def tensors(self) -> list[Tensor]:
        """What is descended in."""
        ...

    def nets(self, temperature: float, hard: bool = False) -> NetBatch:
        """The networks at these variables, adapters folded in."""
        ...


def _normal(shape: tuple[int, ...], scale: float, generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float32) * scale


def _as_variables(*groups: list[Tensor]) -> list[Tensor]:
    return [t.detach().clone().requires_grad_() for group in groups for t in group]


class Direct:
    """The identity decoder: weights N(0, 1/fan_in), biases 0, gate logits 1, small activation logits."""

    def __init__(
        self, space: MLPSpace, depth: int, restarts: int, generator: torch.Generator | None
    ) -> None:
        self.space, self.depth = space, depth
        sides = shapes(space, depth)
        hidden = [(restarts, s[1]) for s in sides[:-1]]
        self._tensors = _as_variables(
            [_normal((restarts, *s), s[0] ** -0.5, generator) for s in sides],
            [torch.zeros(restarts, s[1], dtype=torch.float32) for s in sides],
            [torch.ones(h, dtype=torch.float32) for h in hidden],
            [_normal((*h, len(space.activations)), 0.1, generator) for h in hidden],
        )

    def tensors(self) -> list[Tensor]:
        """Weights, biases, gate logits, activation logits."""
        return self._tensors

    def nets(self, temperature: float, hard: bool = False) -> NetBatch:
        """The networks of these entries."""
        t, d = self._tensors, self.depth + 1
        entries = Entries(t[:d], t[d : 2 * d], t[2 * d : 3 * d - 1], t[3 * d - 1 :])
        return to_nets(
            entries, self.space, gate="ste", temperature=temperature, hard=hard, keep_one=False
        )  # fmt: skip


class Latent:
    """z, offsets of the gate logits, and adapters that fold away: A before W_1, a readout for W_{l+1}.

    Without adapters the decoder's own first and last layers are kept: the paper's search.
    """

    def __init__(
        self,
        model: NetworkAutoencoder,
        z: Float[Tensor, "R z"],
        depth: int,
        x: Float[Tensor, "n features"],
        n_out: int,
        adapters: bool,
        generator: torch.Generator | None,
    ) -> None:
        self.model, self.depth, self.adapters = model, depth, adapters
        self.gate: Gate = model.gate
        space, features, R = model.space, x.shape[1], len(z)
        self.space = dataclasses.replace(space, n_in=features, n_out=n_out)
        offsets = [torch.zeros(R, space.max_width, dtype=torch.float32) for _ in range(depth)]
        around: list[Tensor] = []
        if adapters:
            around = [*_first(x, space.n_in, R, generator), *self._last(z, n_out, generator)]
        self._tensors = _as_variables([z], offsets, around)

    def _last(self, z: Tensor, n_out: int, generator: torch.Generator | None) -> list[Tensor]:
        W = self.model.space.max_width
        if n_out == self.model.space.n_out:
            with torch.no_grad():
                decoded = self.model.entries(z, self.depth)
            return [decoded.weights[-1], decoded.biases[-1]]
        return [
            _normal((len(z), W, n_out), W**-0.5, generator),
            torch.zeros(len(z), n_out, dtype=torch.float32),
        ]

    def tensors(self) -> list[Tensor]:
        """The embedding, the offsets and the adapters."""
        return self._tensors

    def nets(self, temperature: float, hard: bool = False) -> NetBatch:
        """The decoded networks, with the adapters in their first and last layer."""
        z, rest = self._tensors[0], self._tensors[1:]
        offsets, around = rest[: self.depth], rest[self.depth :]
        raw = self.model.entries(z, self.depth)
        logits = [g + o for g, o in zip(raw.gate_logits, offsets, strict=True)]
        weights, biases = list(raw.weights), list(raw.biases)
        if self.adapters:
            weights[0], weights[-1], biases[-1] = around[0] @ weights[0], around[1], around[2]
        return to_nets(
            Entries(weights, biases, logits, raw.act_logits), self.space, gate=self.gate,
            temperature=temperature, hard=hard, keep_one=False,
        )  # fmt: skip


def _first(
    x: Float[Tensor, "n features"], D: int, R: int, generator: torch.Generator | None
) -> list[Tensor]:
    """A of every restart: the identity where it fits, else random; of many features principal components."""
    features = x.shape[1]
    if features == D:
        return [torch.eye(D, dtype=torch.float32).repeat(R, 1, 1)]
    if features <= PCA_ABOVE:
        return [_normal((R, features, D), features**-0.5, generator)]
    rows = x[torch.randperm(len(x), generator=generator)[:PCA_ROWS]].double()
    rows = rows - rows.mean(0)
    k = min(D, len(rows) - 1)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    values, vectors = values[-k:].clamp(min=1e-12), vectors[:, -k:]
    # Columns of unit variance on the rows.
    components = rows.T @ vectors / values * math.sqrt(len(rows))
    rotations = torch.linalg.qr(_normal((R, D, D), 1.0, generator))[0][:, :k]
    return [(components.float() @ rotations)]


def embedding_scale(
    model: NetworkAutoencoder, generator: torch.Generator | None, networks: int = 100
) -> float:
    """s_z: the standard deviation of the embeddings of 100 random networks a depth.

    Parameters
    ----------
    model : NetworkAutoencoder
        Whose embeddings.
    generator : torch.Generator, optional
        Draws the networks.
    networks : int
        How many a depth.
    """
    drawn = [
        model.space.sample(networks, d, generator) for d in range(1, model.space.max_depth + 1)
    ]
    return float(torch.cat([model.encode(nets) for nets in drawn]).std())
