"""Many networks of one depth in one tensor program, and the plain networks they stand for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.architecture._nets import matrix as matrices
from surefoot.architecture._nets.family import Family, shapes
from surefoot.architecture._nets.matrix import LAYOUTS, Layout, Parts
from surefoot.architecture._nets.plain import read_plain, write_plain
from surefoot.architecture.activations import ACTIVATIONS


@checked(nan=True)
class NetBatch:
    """B networks of one depth l: h_i = m_i * act_i(h_{i-1} W_i + b_i), f(x) = h_l W_{l+1} + b_{l+1}.

    Rows are examples (x @ W), so an nn.Linear holds W transposed. Gates multiply after the activation, as
    sigmoid(0) = 1/2 would leak. Any of the tensors may carry gradients.

    Parameters
    ----------
    space : MLPSpace
        D inputs, K outputs, width W, activations A.
    weights : sequence of (B, D, W), (B, W, W), ..., (B, W, K) tensors
        One a layer.
    biases : sequence of (B, W), ..., (B, K) tensors
        One a layer.
    gates : sequence of (B, W) tensors
        One a hidden layer, in {0, 1}; between them while a search goes on.
    acts : sequence of (B, W, |A|) tensors
        One a hidden layer, one-hot in the order of `space.activations`; mixtures while a search goes on.

    Attributes
    ----------
    depth
        Hidden layers l.

    Raises
    ------
    ValueError
        A tensor has another shape, or there are more hidden layers than the space allows.
    """

    def __init__(
        self,
        space: Family,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        gates: Sequence[Tensor],
        acts: Sequence[Tensor],
    ) -> None:
        self.space = space
        self.weights, self.biases = list(weights), list(biases)
        self.gates, self.acts = list(gates), list(acts)
        self.depth = len(self.gates)
        if not 1 <= self.depth <= space.max_depth:
            raise ValueError(
                f"gates must have between 1 and max_depth = {space.max_depth} layers, got {self.depth}"
            )
        B, sides = len(self.gates[0]), shapes(space, self.depth)
        hidden = sides[:-1]
        for name, found, wanted in (
            ("weights", self.weights, [(B, *s) for s in sides]),
            ("biases", self.biases, [(B, s[1]) for s in sides]),
            ("gates", self.gates, [(B, s[1]) for s in hidden]),
            ("acts", self.acts, [(B, s[1], len(space.activations)) for s in hidden]),
        ):
            if [tuple(t.shape) for t in found] != wanted:
                raise ValueError(
                    f"{name} must have shapes {wanted}, got {[tuple(t.shape) for t in found]}"
                )

    def __len__(self) -> int:
        return len(self.gates[0])

    def __getitem__(self, chosen: int | slice | Sequence[int] | Tensor) -> NetBatch:
        """Some of the networks, as a batch."""
        if isinstance(chosen, int):
            chosen = [range(len(self))[chosen]]
        return NetBatch(self.space, *([t[chosen] for t in part] for part in self.parts))

    @property
    def parts(self) -> Parts:
        """Weights, biases, gates and activations."""
        return Parts(self.weights, self.biases, self.gates, self.acts)

    def forward(self, x: Float[Tensor, "*B P D"]) -> Float[Tensor, "B P K"]:
        """The outputs of every network at the same inputs, or at its own: x may be (B, P, D).

        Parameters
        ----------
        x : (P, D) or (B, P, D) tensor
            Inputs.

        Raises
        ------
        ValueError
            x has another shape.
        """
        return torch.baddbmm(self.biases[-1][:, None], self.hidden(x), self.weights[-1])

    __call__ = forward

    def hidden(self, x: Float[Tensor, "*B P D"]) -> Float[Tensor, "B P W"]:
        """What the last hidden layer gives, which times the last weights plus the last biases is the output.

        Parameters
        ----------
        x : (P, D) or (B, P, D) tensor
            Inputs.

        Raises
        ------
        ValueError
            x has another shape.
        """
        if (
            x.shape[-1] != self.space.n_in
            or x.ndim not in (2, 3)
            or (x.ndim == 3 and len(x) != len(self))
        ):
            raise ValueError(
                f"x must be (P, {self.space.n_in}) or ({len(self)}, P, {self.space.n_in}), "
                f"got {tuple(x.shape)}"
            )
        h = x.expand(len(self), *x.shape[-2:])
        functions = [ACTIVATIONS[a].function for a in self.space.activations]
        for w, b, gate, acts in zip(self.weights, self.biases, self.gates, self.acts, strict=False):
            h = torch.baddbmm(b[:, None], h, w)
            if len(functions) == 1:
                h = functions[0](h) * (gate * acts[..., 0])[:, None]
            else:
                kept = (gate[..., None] * acts)[:, None].unbind(-1)
                h = sum((f(h) * k for f, k in zip(functions, kept, strict=True)), h.new_zeros(()))
        return h

    def size(self) -> Float[Tensor, " B"]:
        """Parameters of each network without inactive neurons: sum_i (k_{i-1} + 1) k_i.

        Differentiable in the gates. k_i counts active neurons, k_0 inputs, k_{l+1} outputs.
        """
        widths = [gate.sum(-1) for gate in self.gates]
        before: Sequence[Tensor | int] = [self.space.n_in, *widths]
        after: Sequence[Tensor | int] = [*widths, self.space.n_out]
        total = self.gates[0].new_zeros(len(self))
        for k, n in zip(before, after, strict=True):
            total = total + (k + 1) * n
        return total

    def widths(self, i: int) -> list[int]:
        """Active neurons of each hidden layer of network i."""
        return [int((gate[i] > 0.5).sum()) for gate in self.gates]

    def to_sequential(self, i: int) -> nn.Sequential:
        """Network i as a plain network of its active neurons only; weights are kept even where they are 0.

        Neurons of a layer with several activations are sorted by activation, each block in its old order.

        Parameters
        ----------
        i : int
            Which network; negative counts from the end.

        Returns
        -------
        Sequential
            Linear, activation, ..., Linear, in the dtype of the weights, with tensors of its own.

        Raises
        ------
        ValueError
            Gates are not 0 or 1, activations not one-hot, or a layer has no active neuron.
        """
        i = range(len(self))[i]
        return write_plain(Parts(*([t[i].detach() for t in p] for p in self.parts)), self.space)

    @classmethod
    def from_sequential(cls, module: nn.Module, space: Family) -> NetBatch:
        """A plain network as a batch of one; what it does not use of the space is 0 and gated off.

        Parameters
        ----------
        module : Module
            nn.Sequential of [Select,] Linear, activation, ..., Linear, with 1 to max_depth hidden layers.
        space : MLPSpace
            Must have its inputs, outputs and activations, and at least its widths.

        Raises
        ------
        ValueError
            It is no such network, or does not fit.
        """
        return cls(space, *read_plain(module, space))

    def to_matrix(self, layout: Layout = "full") -> Float[Tensor, "B rows columns"]:
        """The networks as matrices of max(D, W) rows, without loss.

        Parameters
        ----------
        layout : "full" or "paper"
            "full" holds everything (arXiv 2506.08270); "paper" is that of arXiv 2410.08339, of width
            W l + K + l, without biases and with one activation.

        Raises
        ------
        ValueError
            "paper" for networks with biases or a space of several activations.
        """
        check_choice("layout", layout, LAYOUTS)
        if layout == "paper":
            self._check_paper(self.space)
            if any(bool((b != 0).any()) for b in self.biases):
                raise ValueError('layout "paper" holds no biases, and these networks have some')
            if any(bool((a != 1).any()) for a in self.acts):
                raise ValueError('layout "paper" holds one whole activation, not a part of it')
        return matrices.write(self.parts, self.space, layout)

    @classmethod
    def from_matrix(
        cls,
        matrix: Float[Tensor, "B rows columns"],
        space: Family,
        depth: int,
        layout: Layout = "full",
    ) -> NetBatch:
        """The networks that `to_matrix` wrote, bit for bit.

        Parameters
        ----------
        matrix : (B, rows, columns) tensor
            Matrices of networks of one depth.
        space : MLPSpace
            The space they are of.
        depth : int
            Their hidden layers.
        layout : "full" or "paper"
            As in `to_matrix`.

        Raises
        ------
        ValueError
            The shape is not that of the layout, or "paper" for a space of several activations.
        """
        check_choice("layout", layout, LAYOUTS)
        depth = check_number("depth", depth, least=1, most=space.max_depth, whole=True)
        if layout == "paper":
            cls._check_paper(space)
        wanted = (matrices.rows_of(space), matrices.columns_of(space, depth, layout))
        if matrix.ndim != 3 or tuple(matrix.shape[1:]) != wanted:
            raise ValueError(
                f"matrix must be (B, {wanted[0]}, {wanted[1]}), got {tuple(matrix.shape)}"
            )
        return cls(space, *matrices.read(matrix, space, depth, layout))

    @staticmethod
    def _check_paper(space: Family) -> None:
        if len(space.activations) > 1:
            raise ValueError(
                f'layout "paper" holds one activation, the space has {len(space.activations)}; use "full"'
            )

    def to(self, dtype: torch.dtype) -> NetBatch:
        """The same networks in another dtype."""
        return NetBatch(self.space, *([t.to(dtype) for t in part] for part in self.parts))

    def canonical(self) -> NetBatch:
        """The same functions, every hidden layer sorted: active neurons first, by falling outgoing norm."""
        norms = [w.detach().norm(dim=2) for w in self.weights[1:]]
        keys = [n + g.detach() * (n.max() + 1) for n, g in zip(norms, self.gates, strict=True)]
        return self._reordered([k.argsort(dim=-1, descending=True, stable=True) for k in keys])

    def permuted(self, generator: torch.Generator | None = None) -> NetBatch:
        """The same functions with the neurons of every hidden layer in another order, each network its own.

        Parameters
        ----------
        generator : torch.Generator, optional
            Draws the orders, uniformly.
        """
        return self._reordered(
            [
                torch.rand(g.shape, generator=generator, dtype=torch.float32)
                .argsort(-1)
                .to(g.device)
                for g in self.gates
            ]
        )

    def _reordered(self, orders: Sequence[Int[Tensor, "B W"]]) -> NetBatch:
        weights, biases = list(self.weights), list(self.biases)
        gates, acts = list(self.gates), list(self.acts)
        for i, order in enumerate(orders):
            gates[i], biases[i] = gates[i].gather(1, order), biases[i].gather(1, order)
            acts[i] = acts[i].gather(1, order[..., None].expand_as(acts[i]))
            weights[i] = weights[i].gather(2, order[:, None].expand_as(weights[i]))
            weights[i + 1] = weights[i + 1].gather(1, order[..., None].expand_as(weights[i + 1]))
        return NetBatch(self.space, weights, biases, gates, acts)
