"""The state of a chain in mid-run: everything that the next step depends on, and how to put it back."""

from __future__ import annotations

import dataclasses
import json
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from surefoot._numerics.digest import tensors_digest
from surefoot.lora._block.adapted_layer import other
from surefoot.lora._block.past_blocks import PastBlock
from surefoot.lora.config import Side
from surefoot.lora.errors import ChainStateError
from surefoot.lora.result import BlockReport

if TYPE_CHECKING:
    from surefoot.lora.chain import ChainOfLora

FORMAT = 1
MAY_DIFFER = ("blocks", "steps_per_block")
State = dict[str, Any]


def bits_hash(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and bits."""
    return tensors_digest(sorted(tensors.items()), "{name}|{dtype}|{shape}|").hex()


def base_hash(chain: ChainOfLora) -> str:
    """Fingerprint of the adapted base weights as they are now."""
    held: dict[str, Tensor] = {}
    for layer in chain.layers:
        weight = layer.module.get_base_layer().weight
        held[layer.name] = weight.data if isinstance(weight, Tensor) else torch.empty(0)
    return bits_hash(held)


def pack(chain: ChainOfLora) -> State:
    """`{"meta": JSON values, "tensors": name -> CPU tensor}`."""
    config = chain.config
    tensors: dict[str, Tensor] = {}
    for layer in chain.layers:
        for side, matrix in (("A", layer.A), ("B", layer.B)):
            tensors[f"open.{layer.name}.{side}"] = matrix
        if config.method == "fpft" or (
            config.keep_history == "none" and layer not in chain.companion
        ):
            tensors[f"weight.{layer.name}"] = layer.weight.data
        if layer.name in chain.residuals.held and config.keep_history == "none":
            tensors[f"residual.{layer.name}"] = chain.residuals.held[layer.name]
        if layer in chain.companion and config.keep_history == "none":
            for side, matrix in zip("BA", chain.companion.past[layer.name], strict=True):
                tensors[f"past.{layer.name}.{side}"] = matrix
    for past in chain.history:
        for (name, factor), matrix in past.factors.items():
            tensors[f"history.{past.block}.{name}.{factor}"] = matrix
    measured = chain._tap.norms() if chain.step_in_block else None
    meta = {
        "format": FORMAT,
        "config": config.to_dict(),
        "adapter_name": chain.adapter_name,
        "layers": {
            layer.name: [layer.m, layer.n, layer.r, layer.scaling] for layer in chain.layers
        },
        "original_base": chain.original_base,
        "merged_base": base_hash(chain),
        "block": chain.block,
        "step_in_block": chain.step_in_block,
        "total_steps": chain.total_steps,
        "steps_per_block": chain.steps_per_block,
        "finished": chain._finished,
        "gamma": chain.gamma,
        "gradient": list(measured) if measured else None,
        "companion_cut": chain.companion.cut,
        "steps_seen": chain._steps_seen.to_dict(),
        "history": [[past.block, past.trained] for past in chain.history],
        "reports": [dataclasses.asdict(report) for report in chain.reports],
    }
    return {
        "meta": meta,
        "tensors": {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()},
    }


def unpack(chain: ChainOfLora, state: State) -> None:
    """Bring a chain that stands at its start to a stored state, by the same merges in the same order.

    Raises
    ------
    ChainStateError
        Another format, configuration, set of layers or base model, or a chain that has moved.
    """
    meta, tensors = state["meta"], state["tensors"]
    _matches(chain, meta)
    chain.history.blocks = []
    for number, trained in meta["history"]:
        _replay(chain, int(number), trained, tensors)
    if chain.config.keep_history == "none":
        _put_dense(chain, tensors)
    elif chain.config.method == "fpft":
        for layer in chain.layers:
            layer.weight.data.copy_(tensors[f"weight.{layer.name}"])
    chain.companion.cut = dict(meta["companion_cut"])
    chain.block, chain.total_steps = meta["block"], meta["total_steps"]
    chain.reports = [BlockReport(**report) for report in meta["reports"]]
    if chain.steps_per_block is None:
        chain.steps_per_block = meta["steps_per_block"]
    chain._finished, chain.gamma = meta["finished"], meta["gamma"]
    chain._steps_seen.load(meta["steps_seen"])
    chain._open()
    chain.step_in_block = meta["step_in_block"]
    for layer in chain.layers:
        for side in ("A", "B"):
            layer.set_factor(side, tensors[f"open.{layer.name}.{side}"])
    chain._freeze()
    if chain.step_in_block:
        measured = meta["gradient"]
        chain._tap.open(chain.side, listen=False)
        chain._tap.restore((measured[0], measured[1]) if measured else None)
    if base_hash(chain) != meta["merged_base"]:
        warnings.warn(
            "the merges were repeated, but the weights differ in rounding from those of the run that "
            "was interrupted (another device or library version?); it goes on, not bit for bit",
            stacklevel=3,
        )


def _matches(chain: ChainOfLora, meta: dict[str, Any]) -> None:
    if meta.get("format") != FORMAT:
        raise ChainStateError(
            f"chain state of format {meta.get('format')}, this version reads {FORMAT}; use the "
            "version of surefoot that wrote it"
        )
    mine, theirs = chain.config.to_dict(), meta["config"]
    differ = [k for k in mine if k not in MAY_DIFFER and mine[k] != theirs.get(k)]
    if differ:
        raise ChainStateError(
            "the stored chain has another configuration: "
            + ", ".join(f"{k} is {theirs.get(k)!r} there and {mine[k]!r} here" for k in differ)
        )
    layers = {layer.name: [layer.m, layer.n, layer.r, layer.scaling] for layer in chain.layers}
    if layers != meta["layers"]:
        changed = sorted(
            {*layers, *meta["layers"]} - {k for k in layers if layers[k] == meta["layers"].get(k)}
        )
        raise ChainStateError(
            f"the stored chain has other adapted layers: {', '.join(changed[:5])}"
        )
    if chain.block or chain.total_steps:
        raise ChainStateError(
            "this chain has moved already; make a new one on the original base model to resume"
        )
    if chain.original_base != meta["original_base"]:
        raise ChainStateError(
            "the base model is not the one the stored chain began with (its adapted weights have "
            "another SHA-256); load the original base model, not a merged one"
        )


def _replay(
    chain: ChainOfLora, block: int, trained: Side | None, tensors: dict[str, Tensor]
) -> None:
    past = PastBlock(block, trained)
    for layer in chain.layers:
        for side in ("A", "B"):
            stored = tensors.get(f"history.{block}.{layer.name}.{side}")
            if stored is not None:
                past.factors[layer.name, side] = stored
            elif trained is not None and side == other(trained):
                stored = chain.sketch(layer, block, trained)
            else:
                raise ChainStateError(
                    f"the stored chain lacks lora_{side} of {layer.name}, block {block}"
                )
            layer.set_factor(side, stored)
        chain._merge(layer)
    chain.history.blocks.append(past)


def _put_dense(chain: ChainOfLora, tensors: dict[str, Tensor]) -> None:
    for layer in chain.layers:
        if layer in chain.companion:
            chain.companion.put(
                layer, tensors[f"past.{layer.name}.B"], tensors[f"past.{layer.name}.A"]
            )
            continue
        layer.weight.data.copy_(tensors[f"weight.{layer.name}"])
        held = tensors.get(f"residual.{layer.name}")
        if held is not None:
            chain.residuals.held[layer.name] = held.to(layer.weight.device)


def to_json(meta: dict[str, Any]) -> str:
    """The JSON part, readable."""
    return json.dumps(meta, indent=1)
