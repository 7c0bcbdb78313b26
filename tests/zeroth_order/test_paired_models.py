"""Real architectures in one forward of both copies: the c of two forwards, with labels and a padding mask."""

import copy
import os
import warnings

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="needs the llm extra")

from surefoot.zeroth_order import LOZO, PairedWarning

SIZES = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "pad_token_id": 0,
}  # fmt: skip
LM, CLASS, IMAGE = "words", "class", "image"
KINDS = {
    "Llama": ("ForCausalLM", LM, {"num_key_value_heads": 1}),
    "Gemma2": ("ForCausalLM", LM, {"num_key_value_heads": 1, "head_dim": 8}),
    "GPT2": (
        "LMHeadModel", LM,
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0},
    ),
    "OPT": ("ForCausalLM", LM, {"word_embed_proj_dim": 16, "ffn_dim": 24}),
    "BertLM": ("ForMaskedLM", LM, {}),
    "DebertaV2": (
        "ForSequenceClassification", CLASS,
        {
            "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16,
            "position_buckets": 8,
        },
    ),
    "ViT": ("ForImageClassification", IMAGE, {"image_size": 8, "patch_size": 4}),
    "Qwen2": ("ForCausalLM", LM, {"num_key_value_heads": 1}),
    "Phi": ("ForCausalLM", LM, {}),
    "Roberta": ("ForSequenceClassification", CLASS, {}),
    "Albert": ("ForSequenceClassification", CLASS, {"embedding_size": 8}),
}  # fmt: skip
# The others of the spec's list, which take the same ways.
MORE = ("Qwen2", "Phi", "Roberta", "Albert", "DebertaV2")


def make(kind):
    suffix, labels, more = KINDS[kind]
    name = kind.removesuffix("LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, name + "Config")(**(SIZES | more))
        return getattr(transformers, name + suffix)(config).eval(), labels


def batch_of(labels, rows=3, length=6, few=False):
    generator = torch.Generator().manual_seed(1)
    if labels == IMAGE:
        pixels = torch.randn(rows, 3, 8, 8, generator=generator)
        return {"pixel_values": pixels, "labels": torch.arange(rows) % 2}
    ids = torch.randint(1, 60, (rows, length), generator=generator)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, length - 2 :] = 0
    target = ids.masked_fill(mask == 0, -100)
    if few:
        target[:, :3] = -100
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": target if labels == LM else torch.arange(rows) % 2,
    }


def c_both(model, batch, closure=lambda m: lambda given: m(**given).loss, paired=True):
    found = []
    for how in (False, paired):
        net = copy.deepcopy(model)
        optimizer = LOZO(net, 1e-3, scale="unit", nu=2)
        optimizer.step(closure(net), batch, paired=how)
        found.append(optimizer)
    return found


@pytest.mark.filterwarnings("ignore::surefoot.zeroth_order.HookWarning")
@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.acceptance if k in MORE else ()) for k in KINDS],
)
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
def test_c_of_one_forward_is_that_of_two(kind):
    model, labels = make(kind)
    a, b = c_both(model, batch_of(labels))
    assert b.last["how"].startswith("one forward of 2 copies")
    assert b.last["c"] == pytest.approx(a.last["c"], rel=3e-4, abs=5e-4)
    apart = {type(m).__name__ for m in b.engine.pairing.forward.plan.apart}
    # Nothing but what cannot be hooked is called once a copy.
    assert apart <= {
        "OPTLearnedPositionalEmbedding", "Gemma2RMSNorm", "Gemma2TextScaledWordEmbedding", "Linear", "Conv2d",
        "ViTEmbeddings", "ViTPatchEmbeddings", "DisentangledSelfAttention", "Dropout",
    }  # fmt: skip
    assert bool(apart) is (kind in ("OPT", "Gemma2", "ViT", "DebertaV2"))


def test_as_many_words_as_all_copies_have_rows():
    model, _ = make("GPT2")
    a, b = c_both(model, batch_of(LM, rows=3, length=6))
    assert b.last["c"] == pytest.approx(a.last["c"], rel=3e-4, abs=5e-4)


def test_positions_of_copies_make_t5_fall_back():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.T5Config(
            vocab_size=60, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2,
            decoder_start_token_id=0,
        )  # fmt: skip
        model = transformers.T5ForConditionalGeneration(config).eval()
    with pytest.warns(PairedWarning, match="dimension 0 does not hold the 2 x 3 rows"):
        a, b = c_both(model, batch_of(LM, length=7), paired="auto")
    assert b.last["c"] == a.last["c"]


@pytest.mark.parametrize("kind", ["Llama", "GPT2", "BertLM"])
@pytest.mark.parametrize("reads", [False, True])
def test_frozen_blocks_once_and_the_head_on_labelled_rows(kind, reads):
    model, _ = make(kind)
    model.double()
    for name, p in model.named_parameters():
        p.requires_grad_(any(f"{n}.1." in name for n in ("layers", "h", "layer")))
    seen = []
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    head = model.get_output_embeddings()

    def closure(net):
        def loss(given):
            found = net(**given)
            return found.loss + 0 * found.logits.mean() if reads else found.loss

        return loss

    a, b = c_both(model, batch_of(LM, few=True), closure)
    assert b.last["c"] == pytest.approx(a.last["c"], rel=1e-4, abs=1e-3)
    forward = b.engine.pairing.forward
    assert len(forward.prefix.frozen) == 1
    assert bool(forward.heads) is not reads
    net = b.model
    blocks = next(m for m in net.modules() if isinstance(m, torch.nn.ModuleList))
    head = net.get_output_embeddings()
    for module in (*blocks, head):
        module.register_forward_hook(lambda m, args, y: seen.append(args[0].shape[:-1].numel()))
    b.step(closure(net), batch_of(LM, few=True), paired=True)
    labelled = int((batch_of(LM, few=True)["labels"] != -100).sum())
    assert seen == [18, 36, 36 if reads else 2 * labelled]


def test_a_bias_with_two_owners_is_served_once():
    model, labels = make("BertLM")
    assert model.cls.predictions.bias is model.cls.predictions.decoder.bias
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
    for name, p in model.named_parameters():
        p.requires_grad_("predictions.bias" in name)
    a, b = c_both(model, batch_of(labels))
    assert b.last["c"] == pytest.approx(a.last["c"], rel=3e-4, abs=5e-4)


@pytest.mark.acceptance
@pytest.mark.parametrize("kind", ["GPT2", "BertLM", "Llama"])
def test_thirty_steps_end_at_the_same_parameters(kind):
    model, labels = make(kind)
    ends = []
    for how in (False, True):
        net = copy.deepcopy(model)
        optimizer = LOZO(net, 1e-4, scale="unit", nu=10)
        for _ in range(30):
            optimizer.step(lambda given, net=net: net(**given).loss, batch_of(labels), paired=how)
        optimizer.flush()
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]).double())
    assert float((ends[0] - ends[1]).norm() / ends[0].norm()) <= 1e-5


def test_a_cache_in_the_batch_is_told():
    model, labels = make("Llama")
    batch = batch_of(labels) | {"past_key_values": transformers.DynamicCache()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="the batch holds a DynamicCache"):
            LOZO(model, 0.0).step(
                lambda given: model(given["input_ids"], labels=given["labels"]).loss,
                batch,
                paired=True,
            )
