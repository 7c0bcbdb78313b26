"""One adapted module of a PeftModel, seen as the matrices of the paper: W (m, n), B (m, r), A (r, n)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.lora.config import Side
from surefoot.lora.errors import ChainStateError


@dataclass(frozen=True)
class AdaptedLayer:
    """A LoRA module with its adapter: names, sizes and matrix views, whatever the layer's type.

    `transposed` modules (Conv1D of transformers, embeddings) store W as (n, m); convolutions
    store it as (m, in, k, ...) and are flattened to (m, in k ...).
    """

    name: str
    module: Any
    adapter: str
    transposed: bool
    embedding: bool = False

    def parameter(self, side: Side) -> nn.Parameter:
        """The tensor that holds a factor, in PEFT's own shape.

        Raises
        ------
        ChainStateError
            The adapter was deleted.
        """
        # Straight from the dictionaries of torch: a restart asks dozens of times a layer.
        owners = self.module._modules
        try:
            if self.embedding:
                found = owners[f"lora_embedding_{side}"]._parameters[self.adapter]
            else:
                found = owners[f"lora_{side}"]._modules[self.adapter]._parameters["weight"]
        except KeyError:
            raise self._deleted() from None
        assert isinstance(found, nn.Parameter)
        return found

    def _deleted(self) -> ChainStateError:
        return ChainStateError(
            f"{self.name}: the adapter {self.adapter!r} was deleted, and the chain with it; make a new "
            "adapter and a new ChainOfLora, or go back to the last checkpoint"
        )

    @property
    def is_there(self) -> bool:
        """Whether the module still has the adapter."""
        owners = self.module._modules
        if self.embedding:
            return self.adapter in owners["lora_embedding_A"]._parameters
        return self.adapter in owners["lora_A"]._modules

    @property
    def A(self) -> Float[Tensor, "r n"]:
        """The factor A as a matrix, sharing memory."""
        return self.parameter("A").data.flatten(1)

    @property
    def B(self) -> Float[Tensor, "m r"]:
        """The factor B as a matrix, sharing memory."""
        return self.parameter("B").data.flatten(1)

    @property
    def scaling(self) -> float:
        """s = alpha / r, or alpha / sqrt(r) with rsLoRA."""
        if self.adapter not in self.module.scaling:
            raise self._deleted()
        return float(self.module.scaling[self.adapter])

    @property
    def r(self) -> int:
        """The rank."""
        return int(self.module.r[self.adapter])

    @property
    def m(self) -> int:
        """Rows of W: output features."""
        return self.B.shape[0]

    @property
    def n(self) -> int:
        """Columns of W: input features, times the kernel of a convolution."""
        return self.A.shape[1]

    def sampled_dim(self, train: Side) -> int:
        """The dimension that the sketch samples: n where B is trained, m where A is."""
        return self.n if train == "B" else self.m

    @property
    def weight(self) -> nn.Parameter:
        """The base weight, in its own layout."""
        found = self.weight_or_none
        assert isinstance(found, nn.Parameter)
        return found

    @property
    def weight_or_none(self) -> nn.Parameter | None:
        """The base weight; None where a quantised base holds none that torch knows."""
        base = self.module
        while "base_layer" in base._modules:
            base = base._modules["base_layer"]
        found = getattr(base, "weight", None)
        return found if isinstance(found, nn.Parameter) else None

    def as_matrix(self, weight: Tensor) -> Float[Tensor, "m n"]:
        """A tensor in the weight's layout as (m, n)."""
        return weight.T if self.transposed else weight.flatten(1)

    def like_weight(self, matrix: Float[Tensor, "m n"]) -> Tensor:
        """An (m, n) matrix in the weight's layout."""
        return matrix.T if self.transposed else matrix.reshape(self.weight.shape)

    def delta(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "m n"]:
        """S B A in the given precision."""
        return (self.B.to(dtype) @ self.A.to(dtype)) * self.scaling

    def delta_norm2(self) -> float:
        """||s B A||_F^2 from two r x r matrices, in float64."""
        b, a = self.B.double(), self.A.double()
        return self.scaling**2 * float(((b.T @ b) * (a @ a.T)).sum())

    def tall(self, train: Side) -> Float[Tensor, "d r"]:
        """The frozen factor with its sampled dimension first, in float64."""
        return self.A.double().T if train == "B" else self.B.double()

    def shape(self, side: Side) -> tuple[int, int]:
        """Shape of a factor as a matrix."""
        return (self.r, self.n) if side == "A" else (self.m, self.r)

    def set_factor(self, side: Side, matrix: Float[Tensor, "rows columns"]) -> None:
        """Write a factor in place: optimizers, DDP buckets and tied storage keep their references."""
        parameter = self.parameter(side)
        with torch.no_grad():
            parameter.copy_(matrix.reshape(parameter.shape))


def other(side: Side) -> Side:
    """The other factor."""
    return "A" if side == "B" else "B"
