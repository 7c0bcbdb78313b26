"""A language model on the blocks of its GGUF file, in the classes of transformers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice
from surefoot.data.quantised.blocks import KINDS, SIZE
from surefoot.data.quantised.header import Header, Place, read_header, stub
from surefoot.data.quantised.weight import BlockWeight
from surefoot.errors import FileFormatError, need

PART = "a model on the blocks of its GGUF file"

with need("accelerate", extra="llm", part=PART):
    import accelerate
with need("gguf", extra="llm", part=PART):
    import gguf
with need("transformers", extra="llm", part=PART):
    import transformers

# Of these the tensors are those of the class; of the first, q and k are stored with rows in another order.
ROTATED = "llama"
ARCHITECTURES = (ROTATED, "qwen2", "qwen3")
PLAIN = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}
# Factors of a rotary embedding that the configuration has as well.
UNUSED = ("rope_freqs.weight",)
DTYPES = (torch.float32, torch.bfloat16)


@checked
def load_gguf(path: str | Path, *, dtype: torch.dtype = torch.float32) -> Any:
    """A causal language model whose weights stay in the blocks of its file; no unpacked copy is ever made.

    The model is transformers' own class. Linear weights, the embedding and the head are blocks (Q4_0, Q4_1,
    Q8_0), unpacked one at a time into shared memory where they are used; norms and biases are plain. In
    float32 its logits are bitwise those of the unpacked model. It runs, and trains with
    `surefoot.zeroth_order.LOZO(model, fold=False)`; nothing can read or write a weight's numbers.

    Parameters
    ----------
    path
        A GGUF file of a llama, mistral, qwen2 or qwen3 architecture.
    dtype
        Of activations, norms and biases, float32 or bfloat16; weights are rounded to it where they are used.

    Returns
    -------
    The model, in evaluation mode. Its tokenizer comes with `surefoot.data.load("smollm2", path=...).open()`.

    Raises
    ------
    surefoot.errors.FileFormatError
        If the file is no GGUF file, truncated or damaged, of another architecture, has blocks of another
        type, or a tensor is missing or of another size than its model's.
    ValueError
        For another dtype.
    MissingExtraError
        Without the extra `llm`.
    """
    header = check_gguf(path, dtype=dtype)
    config = _config(header)
    config.dtype = dtype
    with accelerate.init_empty_weights(include_buffers=False):
        classes: Any = transformers.AutoModelForCausalLM
        model = classes.from_config(config, dtype=dtype, trust_remote_code=False)
    _fill(model, header, dtype)
    return model.eval()


def check_gguf(path: str | Path, *, dtype: torch.dtype = torch.float32) -> Header:
    """What can be told from the header and the arguments alone, before anything is loaded.

    Raises
    ------
    surefoot.errors.FileFormatError
        If the file is no GGUF file, damaged, of another architecture, or has blocks of another type.
    ValueError
        For another dtype.
    """
    check_choice("dtype", dtype, DTYPES)
    header = read_header(Path(path))
    names = ", ".join(ARCHITECTURES)
    architecture = header.values.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise FileFormatError(
            f"{path} is of architecture {architecture!r}; kept in blocks are {names}: open it unpacked"
        )
    for place in header.tensors.values():
        if place.name not in UNUSED:
            _check(header, place, place.shape)
    return header


def _config(header: Header) -> Any:
    """As transformers reads it, from a file without weights and without the texts of the tokenizer."""
    vocabulary = header.values.get("tokenizer.ggml.tokens")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "stub.gguf").write_bytes(
            stub(header, vocabulary if isinstance(vocabulary, int) else None)
        )
        try:
            found: Any = transformers.AutoConfig.from_pretrained(
                folder, gguf_file="stub.gguf", trust_remote_code=False
            )
        except Exception as error:  # whatever the validators of a configuration raise
            raise FileFormatError(
                f"{header.path} has a damaged header, of which transformers makes no configuration: {error}"
            ) from error
    found._name_or_path = str(header.path)
    return found


def _fill(model: Any, header: Header, dtype: torch.dtype) -> None:
    """Give every parameter its tensor."""
    names = gguf.get_tensor_name_map(_architecture(header), model.config.num_hidden_layers)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    left = {name for name in header.tensors if name not in UNUSED}
    with header.path.open("rb") as file:
        for module, called, parameter, where in list(_owned(model)):
            if module is head and called == "weight" and model.config.tie_word_embeddings:
                continue
            base = names.get_name(where) or where
            place = header.tensors.get(f"{base}.{called}")
            if place is None:
                raise FileFormatError(
                    f"{header.path} has no tensor {base}.{called}, which {where}.{called} of a "
                    f"{type(model).__name__} is made of"
                )
            left.discard(place.name)
            _check(header, place, tuple(parameter.shape))
            looked_up = module in (head, embedding)
            tensor = _read(file, header, place, model.config, looked_up, f"{where}.{called}", dtype)
            module.register_parameter(called, nn.Parameter(tensor))
    if left:
        raise FileFormatError(
            f"{header.path} has a tensor {min(left)}, for which a {type(model).__name__} of this "
            "configuration has no place"
        )
    if model.config.tie_word_embeddings:
        head.weight = embedding.weight


def _owned(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter, str]]:
    for where, module in model.named_modules():
        for called, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield module, called, parameter, where


def _architecture(header: Header) -> Any:
    wanted = header.values["general.architecture"]
    return next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == wanted)


def _check(header: Header, place: Place, wanted: tuple[int, ...]) -> None:
    if place.shape != wanted:
        raise FileFormatError(
            f"{header.path} has {place.name} of shape {list(place.shape)}, its configuration asks for "
            f"{list(wanted)}"
        )
    if place.kind in KINDS:
        if len(wanted) != 2 or wanted[1] % SIZE:
            raise FileFormatError(
                f"{header.path} has {place.name} of shape {list(place.shape)} in blocks of {SIZE}"
            )
    elif place.kind not in PLAIN:
        known = ", ".join(kind.name for kind in KINDS.values())
        raise FileFormatError(
            f"{header.path} has {place.name} in blocks of type {_called(place.kind)}; kept in blocks are "
            f"{known}: open it unpacked"
        )
    end = place.offset + _bytes(place)
    if end > header.size:
        raise FileFormatError(
            f"{header.path} is truncated: {place.name} should end at byte {end}, the file has {header.size}"
        )


def _called(kind: int) -> str:
    try:
        return str(gguf.GGMLQuantizationType(kind).name)
    except ValueError:
        return f"number {kind}"


def _bytes(place: Place) -> int:
    count = int(np.prod(place.shape, dtype=object))
    if place.kind in KINDS:
        return count // SIZE * KINDS[place.kind].bytes
    return count * PLAIN[place.kind].itemsize


def _read(
    file: Any,
    header: Header,
    place: Place,
    config: Any,
    looked_up: bool,
    name: str,
    dtype: torch.dtype,
) -> Tensor:
    raw = np.empty(_bytes(place), np.uint8)
    file.seek(place.offset)
    if file.readinto(raw) != len(raw):
        raise FileFormatError(f"{header.path} is truncated: it ends within {place.name}")
    rows = torch.from_numpy(raw).view(place.shape[0], -1)
    if header.values["general.architecture"] == ROTATED:
        heads = {".attn_q.": config.num_attention_heads, ".attn_k.": config.num_key_value_heads}
        for part, count in heads.items():
            if part in place.name:
                rows = _unrotated(rows, count)
    if place.kind not in KINDS:
        return rows.contiguous().view(-1).view(PLAIN[place.kind]).view(place.shape).to(dtype)
    kind = KINDS[place.kind]
    blocks = rows.view(place.shape[0], -1, kind.bytes)
    return BlockWeight.of(blocks, kind, "rows" if looked_up else "columns", name, dtype)


def _unrotated(rows: Tensor, heads: int) -> Tensor:
    """llama.cpp keeps the two rows of a rotary pair side by side, transformers half a head apart."""
    return rows.view(heads, len(rows) // heads // 2, 2, -1).transpose(1, 2).reshape(rows.shape)
