"""The weights before the first block: kept on the CPU, and put back for the time being."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.lora.errors import ChainStateError


class OriginalWeights:
    """Copies of what a chain changes of the base model.

    The adapted weights are copied when the first block is merged into them; biases, norms and whatever else
    of the base trains beside them, and persistent buffers, as the chain is made.

    Parameters
    ----------
    keep
        Whether the adapted weights are copied at all.
    """

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.weights: dict[str, Tensor] = {}
        self.beside: list[tuple[Tensor, Tensor]] = []
        self.inside = False
        self._known = False

    def begin(self, model: Any, adapter: str, extras: Mapping[str, nn.Parameter]) -> None:
        """Copy what trains of the base beside the adapted weights, and the buffers that are saved.

        Parameters
        ----------
        model, adapter
            The PeftModel and its adapter: tensors of the adapter are not of the base.
        extras
            What trains beside the adapted weights, by name.
        """
        persistent = set(model.state_dict())
        found: dict[str, Tensor] = dict(extras)
        found |= {name: b for name, b in model.named_buffers() if name in persistent}
        own = {k: t for k, t in found.items() if f".{adapter}." not in f".{k}."}
        self.beside = [(t, t.detach().to("cpu", copy=True)) for t in own.values()]

    def before_merge(self, layer: AdaptedLayer) -> None:
        """Copy the weight of a layer that nothing was merged into yet."""
        if self.keep and layer.name not in self.weights:
            self.weights[layer.name] = layer.weight.data.to("cpu", copy=True)

    @contextmanager
    def in_place(
        self,
        layers: list[AdaptedLayer],
        given: Mapping[str, Float[Tensor, "m n"]] | None,
        verified: Callable[[], bool],
        without_adapters: Callable[[], AbstractContextManager[Any]],
    ) -> Iterator[None]:
        """Put the original tensors where the chain's are, which come back untouched.

        Parameters
        ----------
        layers
            Those whose weights have moved.
        given
            Their original weights as (out, in) by name, for what was not kept.
        verified
            Whether the weights in place are the original ones.
        without_adapters
            Switches adapters off.

        Raises
        ------
        ChainStateError
            A weight was not kept and is not given, or what there is is not the original.
        """
        pairs = [(x.weight, self._original(x, given)) for x in layers] + list(self.beside)
        swapped: list[tuple[Tensor, Tensor]] = []
        self.inside = True
        try:
            for tensor, original in pairs:
                swapped.append((tensor, tensor.data))
                # A copy: whatever is done to the model in there must not reach the one that is kept.
                tensor.data = original.to(tensor.device, copy=True)
            if (given or not self._known) and not verified():
                raise ChainStateError(
                    "the weights that stand for the original ones have another SHA-256 than those the "
                    "chain began with; give those of the model that the chain was made on"
                )
            self._known = self._known or not given
            with without_adapters():
                yield
        finally:
            self.inside = False
            for tensor, data in reversed(swapped):
                tensor.data = data

    def _original(self, layer: AdaptedLayer, given: Mapping[str, Tensor] | None) -> Tensor:
        if given is not None and layer.name in given:
            matrix = given[layer.name].to(layer.weight.dtype)
            return layer.like_weight(matrix).contiguous()
        if layer.name not in self.weights:
            raise ChainStateError(
                f"{layer.name}: keep_original=False kept no copy of the original weight; pass weights= "
                "with the original weights as (out, in) by layer name, or make the chain with "
                "keep_original=True"
            )
        return self.weights[layer.name]
