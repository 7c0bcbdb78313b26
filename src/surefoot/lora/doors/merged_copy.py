"""The merged model beside the chained one: PEFT's own merge, on modules of its own that share tensors."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.lora.errors import UnsupportedLayerError

CONTAINERS = (list, dict, set)


def merged_copy(
    model: Any, adapter: str, totals: Mapping[str, Tensor], dtype: torch.dtype
) -> nn.Module:
    """What `merge_and_unload` makes of a PeftModel, which itself stays as it is.

    Modules are copied, tensors only where their values change. Chained layers give way to their base layer
    with the merged weight; then PEFT takes its other wrappers away, so that heads of modules_to_save,
    trained token rows and whatever else it knows end up as its own merge has them.

    Parameters
    ----------
    model, adapter
        The PeftModel and the adapter that is merged.
    totals
        The merged weights of chained layers, in their own layout, by layer name.
    dtype
        Of every floating-point tensor.

    Raises
    ------
    UnsupportedLayerError
        Trained token rows of a weight that is tied to a module without them.
    """
    base = model.get_base_model()
    _tokens_fit(base)
    chained = {id(base.get_submodule(name)): total for name, total in totals.items()}
    tuner = model.base_model
    shell = _Shells(chained, dtype).of(tuner)
    # Of the class: what stands in for a method of the chained model would act on that.
    merged: nn.Module = type(tuner).merge_and_unload(shell, adapter_names=[adapter])
    return merged


def _tokens_fit(base: nn.Module) -> None:
    """Tied modules have one weight, and so the same trained rows or none: PEFT's merge drops others."""
    owners: dict[int, list[str]] = {}
    for name, module in base.named_modules():
        if module._parameters.get("weight") is not None:
            owners.setdefault(id(module._parameters["weight"]), []).append(name)
    trained: dict[int, list[tuple[str, int]]] = {}
    for name, module in base.named_modules():
        tokens: Any = module._modules.get("token_adapter")
        if tokens is not None:
            root = getattr(tokens, "tied_adapter", None) or tokens
            weight = tokens.get_base_layer()._parameters.get("weight")
            trained.setdefault(id(weight), []).append((name, id(root)))
    for weight_id, found in trained.items():
        if len(owners.get(weight_id, ())) > len(found) or len({root for _, root in found}) > 1:
            # A module lies deeper in its wrapper: the shortest names tell the modules.
            names = [
                n.split(".token_adapter")[0].split(".original_module")[0] for n in owners[weight_id]
            ]
            raise UnsupportedLayerError(
                f"{found[0][0]}: its tokens cannot be merged: {', '.join(dict.fromkeys(names))} "
                "share one weight and not the trained rows; untie them (tie_word_embeddings=False), name the "
                "embedding alone in trainable_token_indices, or use export_adapter"
            )


class _Shells:
    """Modules without their tensors; what two modules share, their shells share."""

    def __init__(self, chained: Mapping[int, Tensor], dtype: torch.dtype) -> None:
        self.chained, self.dtype = chained, dtype
        self.modules: dict[int, nn.Module] = {}
        self.tensors: dict[int, Tensor] = {}

    def of(self, module: nn.Module) -> nn.Module:
        found = self.modules.get(id(module))
        if found is None:
            found = self.modules[id(module)] = self._made(module)
        return found

    def _made(self, module: nn.Module) -> nn.Module:
        if id(module) in self.chained:
            base: Any = module
            base = base.get_base_layer()
            exact = self.chained[id(module)].to(self.dtype).contiguous()
            self.tensors[id(base.weight)] = nn.Parameter(exact, requires_grad=False)
            return self.of(base)
        shell: nn.Module = object.__new__(type(module))
        # Hooks and settings are shared, but what PEFT writes down while it merges is not.
        held = {k: copy.copy(v) if type(v) in CONTAINERS else v for k, v in vars(module).items()}
        for name in ("config", "generation_config"):
            if name in held:
                held[name] = copy.deepcopy(held[name])
        held["_parameters"] = {k: self._tensor(p) for k, p in module._parameters.items()}
        held["_buffers"] = {k: self._tensor(b) for k, b in module._buffers.items()}
        held["_modules"] = {
            k: None if child is None else self.of(child) for k, child in module._modules.items()
        }
        shell.__dict__ = held
        return shell

    def _tensor(self, tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        found = self.tensors.get(id(tensor))
        if found is None:
            # float8 comes with scales of its own.
            whole = tensor.is_floating_point() and tensor.dtype.itemsize > 1
            found = tensor.detach().to(self.dtype) if whole else tensor.detach()
            if isinstance(tensor, nn.Parameter):
                # A Parameter of its own: PEFT's merge puts new data into it.
                found = nn.Parameter(found, requires_grad=False)
            self.tensors[id(tensor)] = found
        return found
