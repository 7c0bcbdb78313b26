"""PEFT: put an adapter on a model, read it, and find the layers on which a chain can run."""

from __future__ import annotations

import contextlib
import copy
import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from surefoot._numerics.shown import shown
from surefoot.errors import ArgumentError, need
from surefoot.lora._block.adapted_layer import AdaptedLayer
from surefoot.lora.config import RacConfig, Side
from surefoot.lora.errors import ChainStateError, UnsupportedLayerError

KINDS = ("Linear", "Embedding", "Conv1d", "Conv2d", "Conv3d")


ADAPTER = "adapter_config.json"


def with_lora(
    model: nn.Module,
    r: int,
    targets: Sequence[str] | None,
    *,
    alpha: int | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> Any:
    """The PeftModel of a model with one LoRA adapter at zero.

    Parameters
    ----------
    model
        The base model; PEFT puts its layers into it in place.
    r
        The rank.
    targets
        Names of the modules to adapt, or how they end; None leaves the choice to PEFT.
    alpha
        lora_alpha; r by default, that is a scaling of 1.
    dropout
        lora_dropout.
    more
        Further fields of `peft.LoraConfig`.
    """
    with need("peft", extra="llm", part="surefoot.lora"):
        from peft import LoraConfig, get_peft_model
    lora = LoraConfig(
        r=r, lora_alpha=r if alpha is None else alpha, lora_dropout=dropout,
        target_modules=None if targets is None else list(targets), **more,
    )  # fmt: skip
    return get_peft_model(model, lora)


def adapter_config(model: Any, adapter: str) -> str:
    """The adapter's configuration as PEFT writes it, JSON."""
    return config_text(model.peft_config[adapter])


def config_text(config: Any) -> str:
    """A configuration as PEFT writes it, JSON."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return (Path(folder) / ADAPTER).read_text(encoding="utf-8")


def with_stored_lora(model: nn.Module, folder: Path, adapter: str) -> Any:
    """The PeftModel of a model with a fresh adapter of a stored configuration.

    Parameters
    ----------
    model
        The base model.
    folder
        Holds `adapter_config.json`.
    adapter
        The name of the new adapter.
    """
    with need("peft", extra="llm", part="surefoot.lora"):
        from peft import LoraConfig, get_peft_model
    lora = LoraConfig.from_pretrained(str(folder), trust_remote_code=False)
    lora.inference_mode = False
    return get_peft_model(model, lora, adapter_name=adapter)


def adapter_state(model: Any, adapter: str) -> dict[str, Tensor]:
    """What PEFT would save of an adapter, under its own names."""
    with need("peft", extra="llm", part="surefoot.lora"):
        from peft import get_peft_model_state_dict
    found: dict[str, Tensor] = get_peft_model_state_dict(
        model, adapter_name=adapter, save_embedding_layers=False
    )
    return found


def resized_config(
    model: Any, adapter: str, ranks: Mapping[str, int], scaling: Mapping[str, float]
) -> Any:
    """The adapter's configuration for other ranks under which every layer keeps its scaling.

    Parameters
    ----------
    model, adapter
        The PeftModel and its adapter.
    ranks, scaling
        By layer name, in the order in which PEFT is to match them.
    """
    config = copy.deepcopy(model.peft_config[adapter])
    config.r = max(ranks.values())
    config.rank_pattern = dict(ranks)
    config.alpha_pattern = {
        name: scaling[name] * (math.sqrt(rank) if config.use_rslora else rank)
        for name, rank in ranks.items()
    }
    config.inference_mode, config.init_lora_weights = True, True
    return config


@contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """PEFT's own `disable_adapter`, without what stands in for it on a chained model.

    PEFT warns that trained biases stay; whoever calls this has put the original ones back.
    """
    with contextlib.ExitStack() as stack:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Careful, disabling adapter layers with bias")
            stack.enter_context(type(model).disable_adapter(model))
        yield


def add_rank_one(model: Any, adapter: str, targets: Sequence[str]) -> None:
    """Add a further adapter of rank 1 to the named modules.

    Parameters
    ----------
    model
        A PeftModel.
    adapter
        The new adapter's name.
    targets
        Names of the modules.
    """
    with need("peft", extra="llm", part="surefoot.lora"):
        from peft import LoraConfig
    model.add_adapter(adapter, LoraConfig(r=1, lora_alpha=1, target_modules=list(targets)))


def adapted_layers(model: Any, config: RacConfig, adapter: str) -> list[AdaptedLayer]:
    """The LoRA modules of the base model that carry the adapter, in the order of the model.

    Parameters
    ----------
    model
        A PeftModel.
    config
        A chain's settings: which ranks fit depends on the side, a quantised base on `on_quantized`.
    adapter
        The adapter's name.

    Raises
    ------
    ValueError
        There is none, or a rank exceeds the sampled dimension; the message names the module.
    ChainStateError
        The adapter is merged already, several are active, or it is not at zero.
    UnsupportedLayerError
        A module for which a chain is not defined; the message names it.
    """
    with need("peft", extra="llm", part="surefoot.lora"):
        from peft.tuners.lora import LoraLayer
    if not hasattr(model, "get_base_model"):
        raise ArgumentError("peft_model", f"must be a PeftModel, got {shown(model)}")

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
