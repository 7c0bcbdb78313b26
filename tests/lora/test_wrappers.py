"""Every wrapper that PEFT puts around a module: what `export_merged` writes is PEFT's own merge."""

import copy
import inspect
import json

import peft.tuners.lora.layer as lora_layers
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from surefoot.lora import ChainOfLora, RacConfig, UnsupportedLayerError

# PEFT asks transformers for an attribute that transformers has renamed, and says where ties end.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`:UserWarning"),
]
TOKENS = torch.randint(20, (4, 6), generator=torch.Generator().manual_seed(0))


def gpt2(tie=True, dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, tie_word_embeddings=tie,
            bos_token_id=1, eos_token_id=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )  # fmt: skip
        return GPT2LMHeadModel(config).to(dtype)


class Net(nn.Module):
    """A layer of every kind that can be chained, without a configuration."""

    def __init__(self):
        super().__init__()
        self.emb, self.rest = nn.Embedding(20, 6), nn.Embedding(20, 6)
        self.lin, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        self.one, self.two = nn.Conv1d(6, 6, 3, padding=1), nn.Conv2d(1, 2, 3, padding=1)
        self.three, self.norm = nn.Conv3d(1, 2, 3, padding=1), nn.BatchNorm1d(6)

    def forward(self, i):
        x = self.lin(self.emb(i) + self.rest(i)).mT
        x = self.norm(self.one(x))
        x = self.two(x[:, None]).mean(1)
        x = self.three(x[:, None, None]).mean((1, 2))
        return self.last(x.mT)


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


TARGETS = ["emb", "lin", "one", "two", "three"]
ATTENTION = {"target_modules": ["c_attn", "wpe"], "fan_in_fan_out": True}
CASES = {
    "every kind of layer": (net, {"target_modules": TARGETS}),
    "tokens of a plain module": (net, {"target_modules": ["lin"],
                                       "trainable_token_indices": {"rest": [1, 5]}}),
    "modules_to_save of a plain module": (net, {"target_modules": TARGETS,
                                                "modules_to_save": ["last", "norm"]}),
    "biases": (net, {"target_modules": TARGETS, "bias": "all"}),
    "biases of the adapted layers": (net, {"target_modules": TARGETS, "bias": "lora_only"}),
    "all together": (net, {"target_modules": ["emb", "lin", "two"], "modules_to_save": ["last"],
                           "trainable_token_indices": {"rest": [2]}, "bias": "all"}),
    "tokens, tied": (gpt2, {**ATTENTION, "trainable_token_indices": {"wte": [1, 2, 3]}}),
    "tokens, untied": (lambda: gpt2(False), {**ATTENTION, "trainable_token_indices": {"wte": [1, 2, 3]}}),
    "head, tied": (gpt2, {**ATTENTION, "modules_to_save": ["lm_head"]}),
    "head, untied": (lambda: gpt2(False), {**ATTENTION, "modules_to_save": ["lm_head", "ln_f"]}),
    "embedding, tied": (gpt2, {**ATTENTION, "modules_to_save": ["wte"]}),
    "head and tokens": (lambda: gpt2(False), {**ATTENTION, "modules_to_save": ["lm_head"],
                                              "trainable_token_indices": {"wte": [4]}}),
}  # fmt: skip
LONG = (
    "tokens of a plain module", "biases of the adapted layers", "biases", "head, untied",
    "modules_to_save of a plain module",
)  # fmt: skip


def cases(long=()):
    """Every case by its name; the long ones run with the acceptance tests."""
    return [
        pytest.param(case, id=name, marks=[pytest.mark.acceptance] if name in long else [])
        for name, case in CASES.items()
    ]


def output(model):
    found = model(TOKENS)
    return getattr(found, "logits", found)


def chained(make, lora, steps=3, **config):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = get_peft_model(make(), LoraConfig(r=1, **lora))
    chain = ChainOfLora(model, RacConfig(**{"steps_per_block": 2} | config))
    optimizer = torch.optim.AdamW(chain.trainable_parameters(), lr=1e-2)
    model.eval()
    for _ in range(steps):
        (output(model) - 1).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        chain.step(optimizer)
    return chain


def off(found, wanted):
    found = found.detach()
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("case", cases(LONG))
def test_it_is_what_pefts_own_merge_gives(case, tmp_path):
    make, lora = case
    chain = chained(make, lora)
    before = {k: v.clone() for k, v in chain.model.state_dict().items()}
    wanted = output(chain.model).detach()
    assert off(wanted, output(make().eval()).detach()) > 1e-3
    chain.export_merged(tmp_path)
    after = chain.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(output(chain.model), wanted)

    tuner = copy.deepcopy(chain.model).base_model
    merged = type(tuner).merge_and_unload(tuner)
    if make is net:
        stored = load_file(tmp_path / "model.safetensors")
        assert stored.keys() == merged.state_dict().keys() == net().state_dict().keys()
        loaded = net()
        loaded.load_state_dict(stored)
    else:
        loaded = GPT2LMHeadModel.from_pretrained(tmp_path)
        assert loaded.state_dict().keys() == merged.state_dict().keys()
        assert loaded.config.tie_word_embeddings == merged.config.tie_word_embeddings
    for name, value in merged.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert off(output(loaded.eval()), wanted) < 1e-5


@pytest.mark.parametrize("name", ["all together", "tokens, tied"])
def test_the_adapter_that_is_exported_gives_the_same(name, tmp_path):
    make, lora = CASES[name]
    chain = chained(make, lora)
    wanted = output(chain.model).detach()
    chain.export_adapter(tmp_path)
    assert off(output(PeftModel.from_pretrained(make(), tmp_path).eval()), wanted) < 1e-5


def heads(module):
    return nn.ModuleDict({"attn": module, "lin": nn.Linear(4, 4)})


class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))


REFUSED = {
    "MultiheadAttention": (lambda: heads(nn.MultiheadAttention(4, 1)), {"target_modules": ["attn"]}),
    "ParamWrapper": (lambda: heads(Expert()), {"target_parameters": ["attn.weight"]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_chained_is_refused_by_name(kind):
    make, lora = REFUSED[kind]
    model = get_peft_model(make(), LoraConfig(r=1, **{"target_modules": []} | lora))
    with pytest.raises(UnsupportedLayerError, match=rf"attn.*\({kind}\)"):
        ChainOfLora(model, RacConfig(steps_per_block=1))


def test_the_cases_are_all_that_peft_has():
    seen = set()
    for make, lora in CASES.values():
        model = get_peft_model(make(), LoraConfig(r=1, **lora))
        seen |= {type(m).__name__ for m in model.modules()}
    wrappers = {kind.__name__ for kind in AuxiliaryTrainingWrapper.__subclasses__()}
    layers = {
        name
        for name, kind in inspect.getmembers(lora_layers, inspect.isclass)
        if issubclass(kind, LoraLayer) and issubclass(kind, nn.Module) and not name.startswith("_")
    }
    assert wrappers | layers <= seen | set(REFUSED)


def small_merges(dtype, count=60):
    model = get_peft_model(
        gpt2(dtype=dtype), LoraConfig(r=1, target_modules=["c_attn"], fan_in_fan_out=True)
    )
    chain = ChainOfLora(model, RacConfig(keep_history="none"))
    generator = torch.Generator().manual_seed(0)
    (layer,) = chain.layers
    for _ in range(count):
        layer.set_factor("B", 1e-5 * torch.randn(layer.m, 1, generator=generator))
        chain.end_block()
    return chain, layer.name


@pytest.mark.parametrize(
    ("dtype", "asked"),
    [
        (torch.bfloat16, None), (torch.float16, None), (torch.float32, None), (torch.float64, None),
        (torch.bfloat16, torch.float16), (torch.float32, torch.bfloat16), (torch.float16, torch.float32),
    ],
)  # fmt: skip
def test_the_configuration_names_the_dtype_of_the_tensors(dtype, asked, tmp_path):
    chain, name = small_merges(dtype, 2 if asked or dtype.itemsize > 2 else 40)
    wanted = chain.weight(name).double()
    chain.export_merged(tmp_path, asked)
    expected = asked or torch.promote_types(dtype, torch.float32)
    stored = load_file(tmp_path / "model.safetensors")
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {expected}
    named = json.loads((tmp_path / "config.json").read_text())["dtype"]
    assert named == str(expected).removeprefix("torch.")
    plain = GPT2LMHeadModel.from_pretrained(tmp_path, dtype="auto")
    assert plain.dtype == expected
    loaded = plain.get_submodule(name).weight.detach().double().T
    assert torch.equal(loaded, wanted.to(expected).double())
    if asked is None:
        update = wanted - gpt2(dtype=dtype).get_submodule(name).weight.detach().double().T
        assert float((loaded - wanted).norm() / update.norm()) <= 1e-6


def test_heads_of_another_dtype_are_not_rounded(tmp_path):
    # PEFT keeps heads of modules_to_save in float32 beside a base of 16 bits.
    make = lambda: gpt2(False, torch.bfloat16)  # noqa: E731
    chain = chained(make, {**ATTENTION, "modules_to_save": ["lm_head"]}, steps=1)
    head = chain.model.get_base_model().lm_head.modules_to_save["default"].weight
    head.data = head.data.float() + 1e-4
    chain.export_merged(tmp_path)
    assert torch.equal(GPT2LMHeadModel.from_pretrained(tmp_path).lm_head.weight, head)


def test_tokens_of_a_tied_head_alone_are_not_merged(tmp_path):
    chain = chained(gpt2, {**ATTENTION, "trainable_token_indices": {"lm_head": [1, 2]}})
    with pytest.raises(UnsupportedLayerError, match=r"lm_head: .*wte.*tie_word_embeddings=False"):
        chain.export_merged(tmp_path / "m")
