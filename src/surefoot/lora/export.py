"""The result without the state: a plain adapter of the original base, or merged weights."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._run.files import replacing
from surefoot._sealed.tensors import write_tensors
from surefoot._sealed.writing import explained, write_bytes
from surefoot._showing import showing
from surefoot.lora._block.adapted_layer import AdaptedLayer, other
from surefoot.lora._block.compress import compress, stack
from surefoot.lora._block.dtypes import check_dtype
from surefoot.lora.config import Side
from surefoot.lora.doors.merged_copy import merged_copy
from surefoot.lora.doors.peft import ADAPTER, adapter_state, config_text, resized_config
from surefoot.lora.doors.safetensors import save_module
from surefoot.lora.errors import ChainStateError, UnsupportedLayerError
from surefoot.lora.state import ChainState


@showing
@checked(nan=True)
@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes
    ----------
    rank
        The largest one.
    rel_error
        ||update - exported||_F / ||update||_F over all layers together, 0 where nothing was cut off;
        rounding to `dtype` is not part of it.
    ranks
        By layer name.
    path
        The folder.
    """

    rank: int
    rel_error: float
    ranks: dict[str, int]
    path: Path


def export_adapter(
    state: ChainState,
    folder: str | Path,
    max_rank: int | None = None,
    dtype: torch.dtype | str | None = None,
    original: dict[str, Float[Tensor, "m n"]] | None = None,
) -> ExportReport:
    """Write the sum of all blocks as one adapter that plain PEFT loads onto the original base.

    The factors are concatenated; at rank min(m, n) and above, or above `max_rank`, they are
    recompressed (QR of both stacks, SVD of the small core). `original` holds the original weights as
    (out, in) by layer, needed where no factors were kept.

    Parameters
    ----------
    state
        `chain.state`.
    folder
        For `adapter_model.safetensors` and `adapter_config.json`.
    max_rank
        The largest rank to write.
    dtype
        Of the factors, or its name; their own by default.
    original
        The original weights, where they are needed.

    Raises
    ------
    ValueError
        `max_rank` is no whole number of at least 1, or `dtype` no floating-point type of 16 bits or more.
    ChainStateError
        No factors were kept and no original weights are given.
    surefoot.errors.WriteError
        A full disk, a quota, a folder that may not be written to.
    """
    state.outside()
    state.settle()
    kind = None if dtype is None else check_dtype("dtype", dtype)
    if max_rank is not None:
        check_number("max_rank", max_rank, least=1, whole=True)
    folder = Path(folder)
    plain = adapter_state(state.model, state.adapter)
    prefix = "base_model.model."
    tensors = {
        k: v.detach().cpu().contiguous().clone() for k, v in plain.items() if ".lora_" not in k
    }
    kept2 = cut2 = 0.0
    ranks: dict[str, int] = {}
    # PEFT takes the first pattern that is a suffix of a module's name: longer names go first.
    for layer in sorted(state.layers, key=lambda layer: -len(layer.name)):
        B, A, kept, cut = _whole(state, layer, max_rank, original)
        kept2, cut2 = kept2 + kept, cut2 + cut
        ranks[layer.name] = A.shape[0]
        pairs: tuple[tuple[Side, Tensor], ...] = (("A", A), ("B", B))
        for side, matrix in pairs:
            key = f"{prefix}{layer.name}.lora_{side}.weight"
            shape: tuple[int, ...] = tuple(matrix.shape)
            if layer.embedding:
                key = f"{prefix}{layer.name}.lora_embedding_{side}"
            elif layer.parameter("A").ndim > 2:
                kernel = layer.parameter(side).shape[2:]
                shape = (matrix.shape[0], -1, *kernel)
            wanted = kind or layer.parameter("A").dtype
            tensors[key] = matrix.to(wanted).cpu().reshape(shape).contiguous()
    scaling = {layer.name: layer.scaling for layer in state.layers}
    config = resized_config(state.model, state.adapter, ranks, scaling)
    config.lora_alpha = config.alpha_pattern[state.layers[0].name]
    words = config_text(config)
    write_tensors(
        folder / "adapter_model.safetensors", tensors, {"format": "pt", "adapter_config": words}
    )
    write_bytes(folder / ADAPTER, words.encode())
    error = math.sqrt(cut2 / (kept2 + cut2)) if cut2 else 0.0
    return ExportReport(config.r, error, ranks, folder)


def _whole(
    state: ChainState,
    layer: AdaptedLayer,
    max_rank: int | None,
    original: dict[str, Tensor] | None,
) -> tuple[Tensor, Tensor, float, float]:
    """B, A in PEFT's scaling, and the squared norms kept and cut off."""
    s = layer.scaling
    before = original if original is not None else state.original_weights
    if layer.name in before:
        update = state.weight(layer.name).double() - before[layer.name].to(layer.A.device).double()
        u, sigma, vt = torch.linalg.svd(update / s, full_matrices=False)
        B, A = u * sigma, vt
    elif state.config.keep_history == "none" and state.base_has_moved:
        raise ChainStateError(
            "keep_history='none' kept no factors; pass original= with the original weights, "
            "or use export_merged"
        )
    else:
        B, A = stack(_blocks(state, layer))
    cap = min(layer.m, layer.n, max_rank or layer.n)
    if A.shape[0] < min(layer.m, layer.n) and A.shape[0] <= cap and layer.name not in before:
        kept = float(((B.double().T @ B.double()) * (A.double() @ A.double().T)).sum())
        return B, A, kept * s * s, 0.0
    small = compress(B, A, cap)
    cut = small.cut2 if cap < min(A.shape[0], layer.m, layer.n) else 0.0
    return small.B, small.A, small.kept2 * s * s, cut * s * s


def _blocks(state: ChainState, layer: AdaptedLayer) -> list[tuple[Tensor, Tensor]]:
    blocks = []
    for past in state.history:
        pair: dict[str, Tensor] = {}
        for side in ("A", "B"):
            found = past.factors.get((layer.name, side))
            if found is None:
                assert past.trained is not None
                assert side == other(past.trained)
                found = state.sketch(layer, past.block, past.trained)
            pair[side] = found
        blocks.append((pair["B"], pair["A"]))
    if layer.delta_norm2() > 0 or not blocks:
        blocks.append((layer.B.detach().cpu(), layer.A.detach().cpu()))
    return blocks


def export_merged(
    state: ChainState, folder: str | Path, dtype: torch.dtype | str | None = None
) -> Path:
    """Write the merged model with `save_pretrained`, or as `model.safetensors` if it has none.

    Every floating-point tensor gets one dtype, which the configuration names, so that a plain
    `from_pretrained` loads what was written. By default it is the widest that any of them has, and at least
    float32, as 16-bit weights alone would lose what the residuals keep.

    Parameters
    ----------
    state
        `chain.state`.
    folder
        Made where it is missing.
    dtype
        Of the weights, or its name.

    Raises
    ------
    ValueError
        `dtype` is no floating-point type of 16 bits or more.
    UnsupportedLayerError
        A quantised base cannot hold the merged weights.
    """
    state.outside()
    state.settle()
    kind = None if dtype is None else check_dtype("dtype", dtype)
    for layer in state.layers:
        if layer in state.companion:
            raise UnsupportedLayerError(
                f"{layer.name}: a quantised base cannot hold the merged weights; use export_adapter"
            )
    folder = Path(folder)
    totals = {layer.name: layer.like_weight(state.weight(layer.name)) for layer in state.layers}
    if kind is None:
        tensors = state.model.state_dict().values()
        kinds = {t.dtype for t in tensors if t.is_floating_point() and t.dtype.itemsize > 1}
        kind = functools.reduce(torch.promote_types, kinds, torch.float32)
    model: Any = merged_copy(state.model, state.adapter, totals, kind)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(model, "save_pretrained"):
            model.save_pretrained(str(folder))
        else:
            with replacing(folder / "model.safetensors") as partial:
                save_module(model, partial)
    return folder
