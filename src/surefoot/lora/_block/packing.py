"""The state of a chain as JSON values and CPU tensors, and back by the same merges in the same order."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from surefoot.errors import warn
from surefoot.lora._block import recording, rounding
from surefoot.lora._block.adapted_layer import other
from surefoot.lora._block.past_blocks import PastBlock
from surefoot.lora.config import Side
from surefoot.lora.errors import ChainStateError
from surefoot.lora.result import BlockReport
from surefoot.lora.state import ChainState, base_hash

FORMAT = 1
MAY_DIFFER = ("blocks", "steps_per_block", "keep_original")
Packed = dict[str, Any]


def pack(state: ChainState) -> Packed:
    """`{"meta": JSON values, "tensors": name -> CPU tensor}`."""
    state.outside()
    config = state.config
    tensors: dict[str, Tensor] = {}
    for layer in state.layers:
        for side, matrix in (("A", layer.A), ("B", layer.B)):
            tensors[f"open.{layer.name}.{side}"] = matrix
        if config.method == "fpft" or (
            config.keep_history == "none" and layer not in state.companion
        ):
            tensors[f"weight.{layer.name}"] = layer.weight.data
        residual = state.residuals.stored(layer) if config.keep_history == "none" else None
        if residual is not None:
            tensors[f"residual.{layer.name}"] = residual
        if layer in state.companion and config.keep_history == "none":
            for side, matrix in zip("BA", state.companion.past[layer.name], strict=True):
                tensors[f"past.{layer.name}.{side}"] = matrix
    for past in state.history:
        for (name, factor), matrix in past.factors.items():
            tensors[f"history.{past.block}.{name}.{factor}"] = matrix
    measured = state.gradient.norms() if state.step_in_block else None
    meta = {
        "format": FORMAT,
        "config": config.to_dict(),
        "adapter_name": state.adapter,
        "layers": {
            layer.name: [layer.m, layer.n, layer.r, layer.scaling] for layer in state.layers
        },
        "original_base": state.original_base,
        "merged_base": base_hash(state.layers),
        "merged_marks": rounding.marks(state.layers),
        "block": state.block,
        "step_in_block": state.step_in_block,
        "total_steps": state.total_steps,
        "skipped_steps": state.skipped_steps,
        "steps_per_block": state.steps_per_block,
        "finished": state.finished,
        "gamma": state.gamma,
        "gradient": list(measured) if measured else None,
        "companion_cut": state.companion.cut,
        "steps_seen": state.steps.to_dict(),
        "history": [[past.block, past.trained] for past in state.history],
        "reports": [dataclasses.asdict(report) for report in state.reports],
        "record": recording.dump(state.record, config.seed),
    }
    return {
        "meta": meta,
        "tensors": {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()},
    }


def unpack(state: ChainState, packed: Packed) -> None:
    """Bring a chain that stands at its start to a stored state, by the same merges in the same order.

    Raises
    ------
    ChainStateError
        Another format, configuration, set of layers or base model, or a chain that has moved.
    """
    meta, tensors = packed["meta"], packed["tensors"]
    _matches(state, meta)
    state.history.blocks = []
    for number, trained in meta["history"]:
        _replay(state, int(number), trained, tensors)
    if state.config.keep_history == "none":
        _put_dense(state, tensors)
    elif state.config.method == "fpft":
        for layer in state.layers:
            layer.weight.data.copy_(tensors[f"weight.{layer.name}"])
    state.companion.cut = dict(meta["companion_cut"])
    state.block, state.total_steps = meta["block"], meta["total_steps"]
    state.skipped_steps = meta.get("skipped_steps", 0)
    state.reports = [BlockReport(**report) for report in meta["reports"]]
    if state.steps_per_block is None:
        state.steps_per_block = meta["steps_per_block"]
    state.finished, state.gamma = meta["finished"], meta["gamma"]
    state.steps.load(meta["steps_seen"])
    state.open_block()
    state.step_in_block = meta["step_in_block"]
    _restore_record(state, meta.get("record"))
    for layer in state.layers:
        for side in ("A", "B"):
            layer.set_factor(side, tensors[f"open.{layer.name}.{side}"])
    state.freeze()
    if state.step_in_block:
        measured = meta["gradient"]
        state.gradient.open(state.side, listen=False)
        state.gradient.restore((measured[0], measured[1]) if measured else None)
    if base_hash(state.layers) != meta["merged_base"]:
        _differs(state, meta.get("merged_marks"))


def _differs(state: ChainState, marks: dict[str, rounding.Mark] | None) -> None:
    """The merges were repeated and gave other bits: rounding may be told, anything else must not pass."""
    if marks is None:
        warn(
            "the merges were repeated, but the weights are not bit for bit those of the run that was "
            "interrupted: they differ in rounding (another device or library version?), or the state, which "
            "an older version wrote, is damaged",
        )
        return
    other = rounding.beyond(state.layers, marks)
    if other:
        raise ChainStateError(
            f"the merges were repeated, but {other} differ from those of the run that was interrupted by "
            "more than rounding: a library merges otherwise than the one that wrote the state, or the state "
            "was changed; use the versions it was written with"
        )
    warn(
        "the merges were repeated, but the weights differ in rounding from those of the run that "
        "was interrupted (another device or library version?); it goes on, not bit for bit",
    )


def _restore_record(state: ChainState, stored: dict[str, Any] | None) -> None:
    record, seed, steps = state.record, state.config.seed, state.steps
    if stored is None:
        state.redraw(state.block)
        recording.rebuild(record, seed, state.reports, steps, state.companion)
        if state.step_in_block and steps.largest:
            steps.block = (steps.smallest, steps.largest)
    else:
        recording.load(record, seed, stored)
        steps.block = recording.steps_of(record, state.block)
    recording.write_steps(record, seed, state.block, steps)


def _matches(state: ChainState, meta: dict[str, Any]) -> None:
    if meta.get("format") != FORMAT:
        raise ChainStateError(
            f"chain state of format {meta.get('format')}, this version reads {FORMAT}; use the "
            "version of surefoot that wrote it"
        )
    mine, theirs = state.config.to_dict(), meta["config"]
    differ = [k for k in mine if k not in MAY_DIFFER and mine[k] != theirs.get(k)]
    if differ:
        raise ChainStateError(
            "the stored chain has another configuration: "
            + ", ".join(f"{k} is {theirs.get(k)!r} there and {mine[k]!r} here" for k in differ)
        )
    layers = {layer.name: [layer.m, layer.n, layer.r, layer.scaling] for layer in state.layers}
    if layers != meta["layers"]:
        changed = sorted(
            {*layers, *meta["layers"]} - {k for k in layers if layers[k] == meta["layers"].get(k)}
        )
        raise ChainStateError(
            f"the stored chain has other adapted layers: {', '.join(changed[:5])}"
        )
    if state.block or state.total_steps:
        raise ChainStateError(
            "this chain has moved already; make a new one on the original base model to resume"
        )
    if state.original_base != meta["original_base"]:
        raise ChainStateError(
            "the base model is not the one the stored chain began with (its adapted weights have "
            "another SHA-256); load the original base model, not a merged one"
        )


def _replay(
    state: ChainState, block: int, trained: Side | None, tensors: dict[str, Tensor]
) -> None:
    past = PastBlock(block, trained)
    for layer in state.layers:
        for side in ("A", "B"):
            stored = tensors.get(f"history.{block}.{layer.name}.{side}")
            if stored is not None:
                past.factors[layer.name, side] = stored
            elif trained is not None and side == other(trained):
                stored = state.sketch(layer, block, trained)
            else:
                raise ChainStateError(
                    f"the stored chain lacks lora_{side} of {layer.name}, block {block}"
                )
            layer.set_factor(side, stored)
        state.merge(layer)
    state.history.blocks.append(past)


def _put_dense(state: ChainState, tensors: dict[str, Tensor]) -> None:
    for layer in state.layers:
        if layer in state.companion:
            state.companion.put(
                layer, tensors[f"past.{layer.name}.B"], tensors[f"past.{layer.name}.A"]
            )
            continue
        state.originals.before_merge(layer)
        layer.weight.data.copy_(tensors[f"weight.{layer.name}"])
        held = tensors.get(f"residual.{layer.name}")
        if held is not None:
            state.residuals.restore(layer, held)
