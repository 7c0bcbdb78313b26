"""Tiny GGUF files, written with the gguf package."""

import gguf
import numpy as np

Q4_0, Q4_1, Q8_0 = (getattr(gguf.GGMLQuantizationType, name) for name in ("Q4_0", "Q4_1", "Q8_0"))
HIDDEN, FEED, VOCABULARY, HEADS, GROUPS, BLOCKS = 64, 96, 96, 4, 2, 2


def tensors(architecture="llama", tied=True, seed=0):
    """Names and values, in llama.cpp's names and shapes."""
    rng = np.random.default_rng(seed)

    def matrix(*shape):
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    # transformers does not read the heads' width of qwen3, which is 128 by default.
    head = 128 if architecture == "qwen3" else HIDDEN // HEADS
    found = {"token_embd.weight": matrix(VOCABULARY, HIDDEN)}
    for i in range(BLOCKS):
        sizes = {
            "attn_q": (HEADS * head, HIDDEN), "attn_k": (GROUPS * head, HIDDEN),
            "attn_v": (GROUPS * head, HIDDEN), "attn_output": (HIDDEN, HEADS * head),
            "ffn_gate": (FEED, HIDDEN), "ffn_up": (FEED, HIDDEN), "ffn_down": (HIDDEN, FEED),
        }  # fmt: skip
        for name, shape in sizes.items():
            found[f"blk.{i}.{name}.weight"] = matrix(*shape)
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{i}.{name}.weight"] = 1 + matrix(HIDDEN)
        if architecture == "qwen2":
            for name in ("attn_q", "attn_k", "attn_v"):
                found[f"blk.{i}.{name}.bias"] = matrix(sizes[name][0])
        if architecture == "qwen3":
            for name in ("attn_q_norm", "attn_k_norm"):
                found[f"blk.{i}.{name}.weight"] = 1 + matrix(head)
    found["output_norm.weight"] = 1 + matrix(HIDDEN)
    if not tied:
        found["output.weight"] = matrix(VOCABULARY, HIDDEN)
    return found


def write(path, kind, architecture="llama", tied=True, change=None, kinds=None):
    """A file whose matrices are of one kind; `change` may alter the tensors, `kinds` names exceptions."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(BLOCKS)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCABULARY)
    writer.add_token_list([f"word{i}" for i in range(VOCABULARY)])
    found = tensors(architecture, tied)
    for name, value in (change(found) if change else found).items():
        given = (kinds or {}).get(name, kind)
        if value.ndim < 2 or given is None:
            writer.add_tensor(name, value)
        else:
            packed = gguf.quantize(value, given)
            writer.add_tensor(name, packed, raw_dtype=given)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
