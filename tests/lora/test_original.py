"""The original model back in mid-chain, and what PEFT would give in its place."""

import copy
import os
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from torch import nn

from surefoot.lora import ChainOfLora, ChainStateError, RacConfig


class Net(nn.Module):
    """Linear layers, a norm with running statistics, and a head."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 12), nn.Linear(12, 6)
        self.norm, self.head = nn.BatchNorm1d(12), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.second(torch.tanh(self.norm(self.first(x)))))


def net(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().to(dtype)


def snapshot(model):
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    return state, flags, [id(p) for p in model.parameters()], model.active_adapters


def unchanged(before, model):
    after = snapshot(model)
    assert before[1:] == after[1:]
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][k], after[0][k]) for k in before[0])


CASES = {
    "plain": ({}, {}), "sides change": ({"train": "alternate"}, {}), "fpft": ({"method": "fpft"}, {}),
    "cola": ({"method": "cola"}, {}), "no history": ({"keep_history": "none"}, {}),
    "residuals": ({"merge_dtype": "residual"}, {}), "biases": ({}, {"bias": "all"}),
    "a head": ({}, {"modules_to_save": ["head"]}), "a block's end": ({"steps_per_block": 5}, {}),
}  # fmt: skip
LONG = ("plain", "sides change", "cola", "no history")


def cases(long=()):
    """Every case by its name; the long ones run with the acceptance tests."""
    return [
        pytest.param(case, id=name, marks=[pytest.mark.acceptance] if name in long else [])
        for name, case in CASES.items()
    ]


@pytest.mark.filterwarnings("ignore:Careful, disabling adapter layers:UserWarning")
@pytest.mark.parametrize("case", cases(LONG))
def test_it_is_the_original_and_the_chain_comes_back(toys, case):
    config, lora = case
    x, _ = toys.batch(0)
    untouched = net()
    exact = untouched.eval()(x)
    chain, optimizer = toys.make(model=net(), lora=lora, **config)
    twin, other = toys.make(model=net(), lora=lora, **config)
    toys.train(chain, optimizer, 5)
    before = snapshot(chain.model)
    with pytest.raises(KeyError, match="of the user"), chain.original() as model:
        assert model is chain.model
        own = {k: v for k, v in model.get_base_model().named_parameters() if ".base_layer." in k}
        assert own
        for name, p in own.items():
            original = untouched.get_parameter(name.replace(".base_layer", ""))
            assert torch.equal(p, original)
        assert torch.equal(model.eval()(x), exact)
        model.train()(x)  # running statistics move in there, not outside
        raise KeyError("of the user")
    unchanged(before, chain.model)
    toys.train(chain, optimizer, 3, start=5)
    toys.train(twin, other, 8)
    for name in ("first", "second"):
        assert torch.equal(chain.weight(name), twin.weight(name))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_in_every_dtype(toys, dtype):
    chain, _ = toys.make(model=net(dtype))
    for _ in range(5):
        for layer in chain.layers:
            layer.parameter("B").data.normal_(std=0.1)
        chain.end_block()
    with chain.original() as model:
        assert torch.equal(model.get_base_model().first.base_layer.weight, net(dtype).first.weight)


def test_after_a_resume(toys, tmp_path):
    chain, optimizer = toys.make(model=net())
    toys.train(chain, optimizer, 5)
    chain.save(tmp_path, optimizer)
    again = ChainOfLora.resume(tmp_path, net())
    with again.original() as model:
        assert torch.equal(model.get_base_model().first.base_layer.weight, net().first.weight)
        assert torch.equal(model.get_base_model().norm.running_mean, net().norm.running_mean)


def test_before_the_first_merge_and_within_itself(toys):
    chain, optimizer = toys.make()
    x, _ = toys.batch(0)
    toys.train(chain, optimizer, 2)
    with chain.original() as model, chain.original():
        assert torch.equal(model(x), toys.mlp()(x))
    assert not torch.equal(chain.model(x), toys.mlp()(x))


def test_a_copy_that_was_not_kept_may_be_given(toys):
    chain, optimizer = toys.make(keep_original=False)
    toys.train(chain, optimizer, 5)
    with pytest.raises(ChainStateError, match=r"keep_original=False kept no copy.*weights="):
        chain.original().__enter__()
    before = snapshot(chain.model)
    weights = {n: toys.mlp().get_submodule(n).weight.detach() for n in ("first", "second")}
    with chain.original(weights) as model:
        assert torch.equal(model(toys.batch(0)[0]), toys.mlp()(toys.batch(0)[0]))
    wrong = {**weights, "second": weights["second"] + 1}
    with pytest.raises(ChainStateError, match="another SHA-256"), chain.original(wrong):
        raise AssertionError("the body must not run")
    unchanged(before, chain.model)


def test_within_it_the_chain_does_nothing(toys, tmp_path):
    chain, optimizer = toys.make()
    toys.train(chain, optimizer, 5)
    acts = (
        lambda: chain.step(optimizer), chain.end_block, chain.finish, lambda: chain.weight("first"),
        lambda: chain.export_merged(tmp_path), lambda: chain.export_adapter(tmp_path),
        lambda: chain.save(tmp_path), lambda: chain.model.save_pretrained(tmp_path),
    )  # fmt: skip
    for act in acts:
        with chain.original(), pytest.raises(ChainStateError, match=r"chain\.original\(\)"):
            act()


def said(act):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        act()
    return [str(w.message) for w in found if "after a merge" in str(w.message)]


def within(model):
    with model.disable_adapter():
        pass


CALLS = {
    "disable_adapter": within,
    "disable_adapter ": lambda model: model.disable_adapter_layers(),
    "unload": lambda model: model.unload(),
    "get_peft_model_state_dict": get_peft_model_state_dict,
    "get_peft_model_state_dict ": lambda model: get_peft_model_state_dict(
        model, state_dict=model.state_dict()
    ),
    "set_adapter": lambda model: model.set_adapter("other"),
    "adapter_names": lambda model: model.eval()(
        torch.ones(2, 8), adapter_names=["__base__", "default"]
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_means_the_original_base_warns_once_by_name(toys, name):
    chain, optimizer = toys.make()
    chain.model.add_adapter("other", LoraConfig(r=1, target_modules=["first"]))
    act = CALLS[name]
    if name.strip() not in ("unload", "set_adapter"):
        assert said(lambda: act(chain.model)) == []  # nothing was merged yet
        chain.model.enable_adapter_layers()
    toys.train(chain, optimizer, 5)
    twin = copy.deepcopy(chain.model)
    (message,) = said(lambda: act(chain.model))
    assert message.startswith(
        f"{name.strip()} after a merge: the base weights hold 1 merged blocks"
    )
    if name != "unload":
        assert said(lambda: act(chain.model)) == []
    assert len(said(lambda: act(twin))) == 1  # a copy warns for itself


def test_merging_sixteen_bit_weights_through_peft_warns(toys):
    chain, _ = toys.make(model=net(torch.bfloat16))
    chain.layers[0].parameter("B").data.fill_(0.01)
    chain.end_block()
    (message,) = said(lambda: chain.model.merge_and_unload())
    assert "chain.export_merged" in message


def test_what_a_chain_does_itself_warns_of_nothing(toys, tmp_path):
    chain, optimizer = toys.make(lora={"modules_to_save": ["head"]})
    toys.train(chain, optimizer, 5)

    def everything():
        chain.export_adapter(tmp_path / "a")
        chain.export_merged(tmp_path / "m")
        chain.model.save_pretrained(tmp_path / "s")
        chain.saves.checkpointing = True
        chain.model.save_pretrained(tmp_path / "c")
        chain.save(tmp_path / "state", optimizer)
        chain.model.set_adapter("default")
        with chain.original():
            pass

    assert said(everything) == []


def files(folder):
    return {
        os.path.relpath(os.path.join(where, name), folder)
        for where, _, names in os.walk(folder)
        for name in names
        if name.startswith("adapter_")
    }


BOTH = {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize("name", ["default", "mine"])
def test_selected_adapters_are_the_ones_that_are_saved(toys, tmp_path, name):
    model = toys.wrapped()
    if name != "default":
        model.add_adapter(name, LoraConfig(r=2, target_modules=["first", "second"]))
        model.set_adapter(name)
        model.delete_adapter("default")
    chain = ChainOfLora(model, RacConfig(steps_per_block=4, seed=5), name)
    toys.train(chain, toys.adam(chain), 5)
    model.add_adapter("other", LoraConfig(r=1, target_modules=["first"]))
    mine = BOTH if name == "default" else {os.path.join(name, f) for f in BOTH}
    other = {os.path.join("other", f) for f in BOTH}
    wanted = {None: mine | other, (name,): mine, ("other",): other, ("other", name): mine | other}
    for i, (selected, expected) in enumerate(wanted.items()):
        folder = tmp_path / str(i)
        model.save_pretrained(
            folder, selected_adapters=None if selected is None else list(selected)
        )
        assert files(folder) == expected
    x, _ = toys.batch(0)
    at = tmp_path / "0" if name == "default" else tmp_path / "0" / name
    again = PeftModel.from_pretrained(toys.mlp(), at)
    torch.testing.assert_close(again(x), model(x))
    stored = PeftModel.from_pretrained(toys.mlp(), tmp_path / "2" / "other")
    assert stored.peft_config["default"].r == 1
    with pytest.raises(ValueError, match="selected_adapters must be among"):
        model.save_pretrained(tmp_path, selected_adapters=["nobody"])


def test_the_other_arguments_of_save_pretrained(toys, tmp_path):
    chain, optimizer = toys.make()
    toys.train(chain, optimizer, 5)
    chain.model.save_pretrained(tmp_path / "a", is_main_process=False)
    assert not (tmp_path / "a").exists()
    for option in ({"safe_serialization": False}, {"save_embedding_layers": True}):
        with pytest.raises(ValueError, match=f"has no {next(iter(option))}"):
            chain.model.save_pretrained(tmp_path / "b", **option)
    chain.model.save_pretrained(tmp_path / "c", True, ["default"])
    assert files(tmp_path / "c") == BOTH
