"""What plain PEFT and plain torch make of a chain's result."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from surefoot.lora import ChainOfLora, ChainStateError, RacConfig

# PEFT asks transformers for an attribute that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def loaded(toys, folder):
    return PeftModel.from_pretrained(toys.mlp(), folder)


def close(a, b, rel=1e-5):
    a, b = a.detach(), b.detach()
    assert float((a - b).norm()) <= rel * float(b.norm())


@pytest.mark.parametrize(
    "config",
    [
        {}, {"train": "A"}, {"train": "alternate", "keep_history": "seeds"}, {"method": "cola"},
        {"method": "relora"}, {"method": "lora"}, {"method": "asymm_lora"}, {"method": "fpft"},
        {"sketch": "gaussian", "precondition": True},
    ],
    ids=lambda c: "-".join(map(str, c.values())),
)  # fmt: skip
@pytest.mark.parametrize("steps", [10, 60])
@pytest.mark.parametrize("rslora", [False, True])
def test_plain_peft_loads_it_onto_the_original_base(toys, config, steps, rslora, tmp_path):
    lora = {"modules_to_save": ["head"], "use_rslora": rslora, "rank_pattern": {"second": 3}}
    chain, optimizer = toys.make(lora=lora, **config)
    toys.train(chain, optimizer, steps)
    x, _ = toys.batch(0)
    report = chain.export_adapter(tmp_path)
    close(loaded(toys, tmp_path)(x), chain.model(x))
    assert report.rel_error == 0
    assert report.ranks["first"] <= 8
    chain.finish()
    chain.export_adapter(tmp_path / "finished")
    close(loaded(toys, tmp_path / "finished")(x), chain.model(x))


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("method", ["rac_lora", "fpft"])
def test_a_capped_export_reports_its_true_error(toys, rank, method, tmp_path, measured):
    chain, optimizer = toys.make(method=method)
    toys.train(chain, optimizer, 30)
    report = chain.export_adapter(tmp_path, max_rank=rank)
    assert report.rank == rank
    original, model = toys.mlp(), loaded(toys, tmp_path).get_base_model()
    true2 = update2 = best2 = 0.0
    for name in ("first", "second"):
        update = chain.weight(name) - original.get_submodule(name).weight.detach()
        layer = model.get_submodule(name)
        true2 += float((update - layer.get_delta_weight("default")).square().sum())
        update2 += float(update.square().sum())
        best2 += float(torch.linalg.svdvals(update.double())[rank:].square().sum())
    true = (true2 / update2) ** 0.5
    measured(
        f"capped export, rank {rank}, {method}: error",
        f"{true:.5f} within 1 %",
        f"{report.rel_error:.5f}",
    )
    assert report.rel_error == pytest.approx(true, rel=0.01)
    assert true == pytest.approx((best2 / update2) ** 0.5, rel=1e-3)


def test_export_at_another_precision(toys, tmp_path):
    chain, optimizer = toys.make()
    toys.train(chain, optimizer, 10)
    chain.export_adapter(tmp_path, dtype=torch.bfloat16)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}


def test_without_history_the_original_is_needed(toys, tmp_path):
    chain, optimizer = toys.make(keep_history="none")
    toys.train(chain, optimizer, 10)
    with pytest.raises(ChainStateError, match="kept no factors; pass original="):
        chain.export_adapter(tmp_path)
    with pytest.raises(ChainStateError, match="kept no factors"):
        chain.model.save_pretrained(tmp_path)
    base = toys.mlp()
    original = {n: base.get_submodule(n).weight.detach() for n in ("first", "second")}
    chain.export_adapter(tmp_path, original=original)
    x, _ = toys.batch(0)
    close(loaded(toys, tmp_path)(x), chain.model(x))


def test_save_pretrained_is_never_wrong(toys, tmp_path):
    chain, optimizer = toys.make()
    x, _ = toys.batch(0)
    toys.train(chain, optimizer, 2)  # nothing merged yet: PEFT's own file, at its own rank
    chain.model.save_pretrained(tmp_path / "a")
    close(loaded(toys, tmp_path / "a")(x), chain.model(x))
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["r"] == 2
    toys.train(chain, optimizer, 8)
    chain.model.save_pretrained(tmp_path / "b")
    close(loaded(toys, tmp_path / "b")(x), chain.model(x))
    # The planted fault: what PEFT alone would have written.
    with pytest.warns(UserWarning, match="get_peft_model_state_dict after a merge"):
        type(chain.model).save_pretrained(chain.model, tmp_path / "c")
    wrong = loaded(toys, tmp_path / "c")(x)
    right = chain.model(x).detach()
    assert float((wrong.detach() - right).norm() / right.norm()) > 1e-2


def test_a_checkpoint_of_the_open_block_is_refused_by_plain_peft(toys, tmp_path):
    chain, optimizer = toys.make()
    toys.train(chain, optimizer, 6)
    chain.saves.checkpointing = True
    chain.model.save_pretrained(tmp_path)
    with pytest.raises(KeyError, match="CHAIN_OF_LORA_BLOCK"):
        loaded(toys, tmp_path)


def test_max_rank_must_be_positive(toys, tmp_path):
    with pytest.raises(ValueError, match="max_rank must be a whole number of at least 1"):
        toys.make()[0].export_adapter(tmp_path, max_rank=0)


@pytest.mark.parametrize("method", ["rac_lora", "fpft"])
def test_merged_weights_load_into_the_plain_module(toys, method, tmp_path):
    chain, optimizer = toys.make(lora={"modules_to_save": ["head"]}, method=method)
    toys.train(chain, optimizer, 10)
    x, _ = toys.batch(0)
    before, names = chain.model(x), list(chain.model.state_dict())
    chain.export_merged(tmp_path)
    plain = toys.mlp(seed=3)
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))
    close(plain(x), before)
    assert list(chain.model.state_dict()) == names
    torch.testing.assert_close(chain.model(x), before, rtol=0, atol=0)
    toys.train(chain, optimizer, 5)  # the chain goes on


def gpt2():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
        )


def test_merged_transformer_loads_with_its_plain_class(tmp_path):
    tokens = torch.randint(50, (4, 12), generator=torch.Generator().manual_seed(0))
    model = get_peft_model(
        gpt2(), LoraConfig(r=2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    )
    chain = ChainOfLora(model, RacConfig(steps_per_block=2, train="alternate"))
    optimizer = torch.optim.AdamW(chain.trainable_parameters(), lr=1e-2)
    model.eval()
    for _ in range(7):
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        chain.step(optimizer)
    logits = model(tokens).logits.detach()
    assert float((logits - gpt2().eval()(tokens).logits.detach()).norm() / logits.norm()) > 0.1
    chain.export_merged(tmp_path / "merged")
    plain = GPT2LMHeadModel.from_pretrained(tmp_path / "merged").eval()
    close(plain(tokens).logits, logits)
    chain.export_adapter(tmp_path / "adapter")
    adapted = PeftModel.from_pretrained(gpt2(), tmp_path / "adapter").eval()
    close(adapted(tokens).logits, logits)


def test_convolutions_and_embeddings_are_exported(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(9, 4)
            self.conv = nn.Conv1d(4, 6, 3)
            self.flat = nn.Conv2d(1, 5, (3, 2))

        def forward(self, i):
            return self.flat(self.conv(self.emb(i).mT)[:, None]).mean((2, 3))

    def net():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Net()

    tokens = torch.randint(9, (7, 10), generator=torch.Generator().manual_seed(0))
    model = get_peft_model(net(), LoraConfig(r=2, target_modules=["emb", "conv", "flat"]))
    chain = ChainOfLora(model, RacConfig(steps_per_block=3))
    optimizer = torch.optim.AdamW(chain.trainable_parameters(), lr=3e-2)
    for _ in range(5):
        (model(tokens) - 1).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        chain.step(optimizer)
    chain.export_adapter(tmp_path)
    close(PeftModel.from_pretrained(net(), tmp_path)(tokens), model(tokens))
    chain.export_merged(tmp_path / "merged")
    plain = net()
    plain.load_state_dict(load_file(tmp_path / "merged" / "model.safetensors"))
    close(plain(tokens), model(tokens))


def test_names_that_end_alike_keep_their_own_rank(tmp_path):
    def net():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            inner = nn.ModuleDict({"lin": nn.Linear(6, 6)})
            outer = nn.ModuleDict({"lin": nn.Linear(6, 6), "block": inner})
            outer.forward = lambda x: outer["lin"](inner["lin"](x))
            return outer

    config = LoraConfig(r=1, target_modules=["lin"], rank_pattern={"block.lin": 3})
    chain = ChainOfLora(get_peft_model(net(), config), RacConfig(steps_per_block=1))
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(chain.trainable_parameters(), lr=0.1)
    for _ in range(2):
        chain.model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        chain.step(optimizer)
    chain.export_adapter(tmp_path)
    again = PeftModel.from_pretrained(net(), tmp_path)
    assert {k: v.r["default"] for k, v in again.get_base_model().named_modules() if hasattr(v, "r")} == {
        "lin": 2, "block.lin": 6,
    }  # fmt: skip
    close(again(x), chain.model(x))
