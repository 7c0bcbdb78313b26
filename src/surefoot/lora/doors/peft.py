"""Find the adapted layers of a PeftModel, and refuse those for which a chain is not defined."""

from __future__ import annotations

import importlib.util
from collections import Counter
from typing import Any

from torch import Tensor, nn

from surefoot.errors import MissingExtraError
from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.lora.config import RacConfig, Side
from surefoot.lora.errors import ChainStateError, UnsupportedLayerError

KINDS = ("Linear", "Embedding", "Conv1d", "Conv2d", "Conv3d")


def need(package: str, part: str = "surefoot.lora") -> None:
    """Raise one sentence with the install command where a package of the extra is missing."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(part, package, "llm")


def adapted_layers(model: Any, config: RacConfig, adapter: str) -> list[AdaptedLayer]:
    """The LoRA modules of the base model that carry the adapter, in the order of the model.

    Raises
    ------
    ValueError
        There is none, or a rank exceeds the sampled dimension; the message names the module.
    ChainStateError
        The adapter is merged already, several are active, or it is not at zero.
    UnsupportedLayerError
        A module for which a chain is not defined; the message names it.
    """
    need("peft")
    from peft.tuners.lora import LoraLayer

    base = model.get_base_model()
    found = []
    for name, module in base.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        kind = type(module).__name__
        # ParamWrapper and MultiheadAttention hold no factors under the usual names.
        names = {*module.lora_A, *module.lora_embedding_A, *getattr(module, "r", {})}
        if adapter in names:
            _supported(name, kind, module, adapter, config)
            embedding = kind == "Embedding"
            transposed = embedding or bool(getattr(module, "fan_in_fan_out", False))
            found.append(AdaptedLayer(name, module, adapter, transposed, embedding))
    if not found:
        raise ValueError(
            f"the model has no LoRA layer with adapter {adapter!r}; make one with "
            "peft.get_peft_model(model, LoraConfig(...)), or name the adapter with adapter_name="
        )
    if getattr(model.peft_config[adapter], "layer_replication", None):
        raise UnsupportedLayerError(
            f"{found[0].name}: layer_replication shares base weights between layers, so a merge of "
            "one would change the others; use an adapter without it"
        )
    _not_tied(base, found)
    for layer in found:
        _fresh(layer)
        _rank_fits(layer, config)
    return found


def is_quantized(layer: AdaptedLayer) -> bool:
    """Whether the base weight is held on a grid, so that a merge would round every block to it."""
    base = layer.module.get_base_layer()
    weight = getattr(base, "weight", None)
    return (
        not isinstance(weight, Tensor)
        or not weight.dtype.is_floating_point
        or weight.dtype.itemsize == 1
        or getattr(weight, "quant_state", None) is not None
        or type(weight).__module__.split(".")[0] in ("bitsandbytes", "torchao", "hqq")
    )


def _supported(name: str, kind: str, module: Any, adapter: str, config: RacConfig) -> None:
    def refuse(why: str) -> None:
        raise UnsupportedLayerError(f"{name} ({kind}): {why}")

    if adapter in getattr(module, "lora_variant", {}) or module.use_dora.get(adapter, False):
        refuse(
            "DoRA and other LoRA variants are not linear in B, so no theorem holds; use plain LoRA"
        )
    if kind in ("MultiheadAttention", "ParamWrapper"):
        refuse("this wrapper cannot be restarted in place; target the linear layers inside it")
    if module.lora_bias.get(adapter, False):
        refuse("lora_bias=True adds a term that is not s B A; set it to False")
    layer = AdaptedLayer(name, module, adapter, False)
    if is_quantized(layer):
        if config.on_quantized == "error":
            refuse(
                "the base is quantised, so that each merge would round a block to the grid; "
                "pass on_quantized='accumulate' to keep past blocks in a companion adapter"
            )
        if config.method == "fpft":
            refuse("a quantised weight cannot be trained itself; choose another method")
        if not hasattr(module, "in_features"):
            refuse("only linear layers can be accumulated")
    elif kind not in KINDS:
        refuse(f"only LoRA layers of the kinds {', '.join(KINDS)} can be chained")
    if kind.startswith("Conv") and module.get_base_layer().groups > 1:
        refuse("PEFT cannot merge convolutions with groups > 1")
    weight = getattr(module.get_base_layer(), "weight", None)
    if type(weight).__name__ == "DTensor" or hasattr(weight, "ds_id"):
        raise NotImplementedError(
            f"{name}: its weight is sharded (FSDP, tensor parallel or ZeRO-3), and a merge needs it "
            "whole; use DDP"
        )


def _not_tied(base: nn.Module, layers: list[AdaptedLayer]) -> None:
    owners = Counter(
        id(p) for module in base.modules() for p in module._parameters.values() if p is not None
    )
    for layer in layers:
        weight = getattr(layer.module.get_base_layer(), "weight", None)
        if weight is not None and owners[id(weight)] > 1:
            raise UnsupportedLayerError(
                f"{layer.name}: its weight is tied to that of another module, which a merge would "
                "change too; untie them or leave it out of target_modules"
            )


def _fresh(layer: AdaptedLayer) -> None:
    active = list(layer.module.active_adapters)
    if layer.module.merged:
        raise ChainStateError(
            f"{layer.name}: adapter {', '.join(layer.module.merged_adapters)!r} is merged already; "
            "unmerge it before the chain is made"
        )
    if active != [layer.adapter]:
        raise ChainStateError(
            f"{layer.name}: exactly the adapter {layer.adapter!r} must be active, active are "
            f"{active}; call set_adapter({layer.adapter!r})"
        )
    if layer.delta_norm2() > 0:
        raise ChainStateError(
            f"{layer.name}: the adapter is not at zero and a chain would overwrite it; merge it into "
            "the base first, or make a new adapter with init_lora_weights=True"
        )


def _rank_fits(layer: AdaptedLayer, config: RacConfig) -> None:
    if config.method == "fpft":
        return
    sides: tuple[Side, ...] = (
        ("A", "B")
        if config.train not in ("A", "B")
        else (("A",) if config.train == "A" else ("B",))
    )
    bound = min(layer.sampled_dim(side) for side in sides)
    if layer.r > bound:
        which = {"A": "m", "B": "n"}[sides[0]] if len(sides) == 1 else "min(m, n)"
        raise ValueError(
            f"{layer.name}: rank must be between 1 and {which} = {bound} for train={config.train!r}, "
            f"got {layer.r}"
        )
