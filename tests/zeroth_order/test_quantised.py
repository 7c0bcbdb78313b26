"""A model on the blocks of its GGUF file is the unpacked model, bit for bit."""

import copy
import struct

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("gguf", reason="needs the llm extra")
transformers = pytest.importorskip("transformers", reason="needs the llm extra")

import gguf
from tests.zeroth_order.gguf_files import (
    HIDDEN,
    Q4_0,
    Q4_1,
    Q8_0,
    VOCABULARY,
    write,
)

from surefoot import data
from surefoot.data.quantised.blocks import KINDS
from surefoot.data.quantised.weight import BlockWeight
from surefoot.errors import FileFormatError
from surefoot.zeroth_order.quantised import load_gguf


def unpacked(path, dtype=torch.float32):
    """As transformers opens it, by its own arithmetic."""
    options = {}
    if hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=dtype, **options
    ).eval()


def ids(rows, length):
    return torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", Q4_1)


@pytest.mark.parametrize(
    ("kind", "architecture", "tied"),
    [
        (Q4_1, "llama", True), (Q4_0, "llama", False), (Q8_0, "llama", True), (Q4_1, "qwen2", True),
        (Q4_0, "qwen3", False), (None, "llama", True),
    ],
)  # fmt: skip
@torch.no_grad()
def test_logits_are_bitwise_those_of_the_unpacked_model(tmp_path, kind, architecture, tied):
    path = write(tmp_path / "m.gguf", kind, architecture, tied)
    ours, theirs = load_gguf(path), unpacked(path)
    assert type(ours) is type(theirs)
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) is tied
    for shape in ((1, 1), (1, 3), (2, 5), (3, 12)):
        x = ids(*shape)
        assert torch.equal(ours(input_ids=x).logits, theirs(input_ids=x).logits)
    same = {k: v for k, v in theirs.config.to_dict().items() if k != "_name_or_path"}
    assert same.items() <= ours.config.to_dict().items()
    if kind is not None:
        packed = {n for n, p in ours.named_parameters() if isinstance(p, BlockWeight)}
        assert packed == {n for n, p in ours.named_parameters() if p.ndim == 2}


@torch.no_grad()
def test_in_bfloat16_it_is_the_model_opened_so(file):
    ours, theirs = load_gguf(file, dtype=torch.bfloat16), unpacked(file, torch.bfloat16)
    x = ids(3, 12)
    assert ours(input_ids=x).logits.dtype == torch.bfloat16
    assert torch.equal(ours(input_ids=x).logits, theirs(input_ids=x).logits)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
@pytest.mark.parametrize("by", ["rows", "columns"])
def test_every_weight_is_what_gguf_says(kind, by):
    values = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    packed = gguf.quantize(values, getattr(gguf.GGMLQuantizationType, kind.name))
    wanted = torch.from_numpy(
        gguf.dequantize(packed, getattr(gguf.GGMLQuantizationType, kind.name)).copy()
    )
    raw = torch.from_numpy(packed).view(5, 3, kind.bytes)
    weight = BlockWeight.of(raw, kind, by, "w")
    assert torch.equal(weight.unpacked(), wanted)
    x = torch.randn(7, 96, generator=torch.Generator().manual_seed(1), requires_grad=True)
    y = F.linear(x, weight, torch.ones(5))
    assert torch.equal(y, F.linear(x, wanted, torch.ones(5)))
    # Another weight is unpacked into the same room before the first gradient is asked for.
    z = F.linear(x.detach(), BlockWeight.of(raw.flip(0), kind, by, "w"))
    assert torch.equal(z, F.linear(x, wanted.flip(0)))
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(grad, wanted.sum(0).expand_as(x), atol=1e-5)
    product = weight.product(x.detach(), torch.bfloat16)
    assert torch.equal(product, F.linear(x.detach().bfloat16(), wanted.bfloat16()))


def test_a_head_larger_than_a_block_of_rows():
    values = np.random.default_rng(0).standard_normal((2048 + 17, 32)).astype(np.float32)
    packed = gguf.quantize(values, Q8_0)
    wanted = torch.from_numpy(gguf.dequantize(packed, Q8_0).copy())
    weight = BlockWeight.of(torch.from_numpy(packed).view(-1, 1, 34), KINDS[8], "rows", "w")
    x, bias = torch.randn(6, 32), torch.randn(len(values))
    with torch.no_grad():
        assert torch.equal(F.linear(x, weight, bias), F.linear(x, wanted, bias))
        assert torch.equal(
            F.embedding(torch.tensor([[2050, 3]]), weight), wanted[torch.tensor([[2050, 3]])]
        )


def test_numbers_of_a_weight_are_not_to_be_had(file):
    model = load_gguf(file)
    weight = model.model.layers[0].self_attn.q_proj.weight
    assert (weight.shape, weight.dtype, weight.device) == (
        (HIDDEN, HIDDEN), torch.float32, torch.device("cpu"),
    )  # fmt: skip
    for read in (
        lambda: weight + 1,
        lambda: weight.sum(),
        lambda: weight.data.mul_(2),
        lambda: weight[0],
        lambda: F.linear(weight, weight),
    ):
        with pytest.raises(RuntimeError, match="blocks|its weight only"):
            read()


@torch.no_grad()
def test_copies_and_casts_keep_the_blocks(file):
    model = load_gguf(file)
    twin = copy.deepcopy(model)
    assert twin.lm_head.weight is twin.model.embed_tokens.weight
    assert twin.lm_head.weight is not model.lm_head.weight
    x = ids(2, 6)
    assert torch.equal(twin(input_ids=x).logits, model(input_ids=x).logits)
    # The rotary frequencies are cast as well, in both.
    half = twin.bfloat16()(input_ids=x).logits
    assert torch.equal(half, unpacked(file).bfloat16()(input_ids=x).logits)


def test_a_language_model_opens_quantised(file, monkeypatch):
    from surefoot.data.doors import transformers as door

    monkeypatch.setattr(door, "open_tokenizer", lambda folder, name: (folder, name))
    found = data.load("smollm2", path=file)
    model, tokenizer = found.open(quantised=True)
    assert isinstance(model.lm_head.weight, BlockWeight)
    assert tokenizer == (file.parent, file.name)
    (file.parent / "plain").mkdir()
    (file.parent / "plain" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="quantised needs a GGUF file"):
        data.load("smollm2", path=file.parent / "plain").open(quantised=True)


# -- files that are no such model -------------------------------------------------------------------


def refused(path, match):
    with pytest.raises(FileFormatError, match=match):
        load_gguf(path)


def test_no_file_and_no_gguf(tmp_path):
    refused(tmp_path / "none.gguf", "is no file")
    refused(tmp_path, "is no file")
    for content in (b"", b"GG", b"PK\x03\x04" + bytes(100)):
        (tmp_path / "a.gguf").write_bytes(content)
        refused(tmp_path / "a.gguf", "is not a GGUF file")


def test_a_file_that_ends_early(tmp_path, file):
    whole = file.read_bytes()
    path = tmp_path / "cut.gguf"
    for end in (4, 12, 40, 300, 1500):
        path.write_bytes(whole[:end])
        refused(path, "is truncated or its header is damaged")
    path.write_bytes(whole[:-40])
    refused(path, r"is truncated: .* should end at byte \d+, the file has")


def test_a_damaged_header(tmp_path, file):
    whole = bytearray(file.read_bytes())
    path = tmp_path / "bad.gguf"

    def damaged(at, content):
        path.write_bytes(whole[:at] + content + whole[at + len(content) :])
        return path

    refused(damaged(4, struct.pack("<I", 7)), "GGUF version 7")
    refused(
        damaged(8, struct.pack("<Q", 1 << 40)), "truncated or its header is damaged|damaged header"
    )
    refused(
        damaged(16, struct.pack("<Q", 1 << 60)), "truncated or its header is damaged|damaged header"
    )
    refused(damaged(24, struct.pack("<Q", 1 << 62)), "truncated or its header is damaged")
    refused(damaged(32, b"\xff\xfe"), "damaged header")
    at = whole.index(b"llama.attention.head_count") + len(b"llama.attention.head_count")
    refused(damaged(at, struct.pack("<I", 77)), "damaged header")
    # A configuration that is none: heads that do not divide the width, then none at all.
    for count in (5, 0):
        refused(damaged(at + 4, struct.pack("<I", count)), "damaged header|asks for")


def test_what_is_missing_left_over_or_of_another_size(tmp_path):
    def without(found):
        return {k: v for k, v in found.items() if k != "blk.1.ffn_up.weight"}

    def cut(found):
        return found | {"blk.0.ffn_up.weight": found["blk.0.ffn_up.weight"][:64]}

    def more(found):
        return found | {"blk.0.attn_q.bias": np.zeros(HIDDEN, np.float32)}

    path = tmp_path / "m.gguf"
    refused(write(path, Q4_1, change=without), "no tensor blk.1.ffn_up.weight")
    refused(
        write(path, Q4_1, change=cut), r"ffn_up.weight of shape \[64, 64\].*asks for \[96, 64\]"
    )
    refused(write(path, Q4_1, change=more), "has a tensor blk.0.attn_q.bias.*no place")


def test_other_blocks_and_other_architectures(tmp_path):
    path = tmp_path / "m.gguf"
    other = gguf.GGMLQuantizationType.Q5_0
    refused(
        write(path, Q4_1, kinds={"blk.0.attn_v.weight": other}),
        "attn_v.weight in blocks of type Q5_0",
    )
    refused(write(path, Q4_1, "gemma2"), "architecture 'gemma2'.*llama, qwen2, qwen3")


def test_another_dtype(file):
    with pytest.raises(ValueError, match="dtype must be"):
        load_gguf(file, dtype=torch.float16)
