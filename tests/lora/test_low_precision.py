"""Sixteen-bit and quantised bases: a hundred small blocks must not be lost to rounding."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn

from surefoot.lora import ChainOfLora, ChainStateError, RacConfig, UnsupportedLayerError

SIZE, BLOCKS, RANK = 256, 100, 4


class One(nn.Module):
    def __init__(self, size=SIZE, dtype=torch.bfloat16):
        super().__init__()
        self.lin = nn.Linear(size, size, bias=False, dtype=dtype)

    def forward(self, x):
        return self.lin(x)


def base(dtype=torch.bfloat16):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return One(dtype=dtype)


def blocks(relative):
    """Hand-set trained factors whose product has the given size relative to the weight."""
    generator = torch.Generator().manual_seed(1)
    weight = float(base().lin.weight.detach().float().norm())
    for _ in range(BLOCKS):
        b = torch.randn(SIZE, RANK, generator=generator)
        yield b * relative * weight / float(b.norm())  # orthonormal A: |B A| = |B|


def drift(relative, dtype=torch.bfloat16, **config):
    model = get_peft_model(base(dtype), LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["lin"]))
    chain = ChainOfLora(model, RacConfig(**config))
    start = chain.weight("lin")
    exact = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    plain = base(dtype).lin.weight.detach()  # what a loop over PEFT's merge does
    for b in blocks(relative):
        chain.layers[0].parameter("B").data.copy_(b)
        delta = chain.layers[0].delta()
        exact += delta.double()
        plain = plain + delta.to(dtype)
        chain.end_block()

    def error(now):
        return float((now.double() - start.double() - exact).norm() / exact.norm())

    return chain, error(chain.weight("lin")), error(plain)


@pytest.mark.parametrize(
    ("dtype", "relative", "merge", "ours_most", "plain_least"),
    [
        (torch.bfloat16, 1e-1, "auto", 0.01, 0.005), (torch.bfloat16, 1e-2, "auto", 0.01, 0.05),
        (torch.bfloat16, 1e-3, "auto", 0.01, 0.5), (torch.bfloat16, 1e-4, "auto", 0.05, 0.9),
        (torch.bfloat16, 1e-4, "float32", 1e-3, 0.9), (torch.float16, 1e-3, "auto", 1e-3, 0.05),
        (torch.float16, 1e-4, "auto", 1e-3, 0.5),
        (torch.float32, 1e-4, "residual", 1e-6, 1e-4),
    ],
)  # fmt: skip
def test_a_hundred_merges(dtype, relative, merge, ours_most, plain_least, measured):
    _, ours, plain = drift(relative, dtype, merge_dtype=merge)
    measured(
        f"100 merges of {relative:g} into {str(dtype)[6:]}, merge_dtype={merge}",
        f"<= {ours_most:g} (PEFT loop > {plain_least:g})", f"{ours:.2g} ({plain:.2g})",
    )  # fmt: skip
    assert ours <= ours_most
    assert plain >= plain_least


def test_small_updates_of_float16_weights_are_not_lost():
    """At the size of AdamW's steps a plain float16 residual is below float16's normal numbers."""
    size, made = 16, torch.Generator().manual_seed(2)
    model = One(size, torch.float16)
    with torch.no_grad():
        model.lin.weight.copy_(0.02 * torch.randn(size, size, generator=made))
    peft = get_peft_model(model, LoraConfig(r=2, lora_alpha=2, target_modules=["lin"]))
    chain = ChainOfLora(peft, RacConfig())
    start, exact = chain.weight("lin").double(), torch.zeros(size, size, dtype=torch.float64)
    for _ in range(60):
        drawn = 1e-7 * torch.randn(size, 2, generator=made)
        chain.layers[0].parameter("B").data.copy_(drawn + 1e-7)
        exact += chain.layers[0].delta(torch.float64)
        chain.end_block()
    error = (chain.weight("lin").double() - start - exact).norm() / exact.norm()
    assert float(exact.abs().max()) < 1e-5
    assert float(error) < 0.01  # .2 and more where the residual is held as it is
    assert chain.residuals.held["lin"].dtype == torch.float16


@pytest.mark.parametrize("size", [6.5e4, 1.0, 1e-3, 1e-7])
def test_residuals_of_float16_are_finite_for_every_weight(size):
    """Half a unit in the last place of the largest weight is 16."""
    model = One(4, torch.float16)
    with torch.no_grad():
        model.lin.weight.fill_(size)
    chain = ChainOfLora(
        get_peft_model(model, LoraConfig(r=1, lora_alpha=1, target_modules=["lin"])), RacConfig()
    )
    layer, start = chain.layers[0], chain.weight("lin").double()
    layer.parameter("B").data.fill_(float(torch.finfo(torch.float16).eps) * size * 0.4)
    exact = start + layer.delta(torch.float64)
    chain.end_block()
    now, kept = chain.weight("lin").double(), chain.residuals.stored(layer)
    assert torch.isfinite(kept).all()
    assert float((now - exact).abs().max()) <= max(size * 2.0**-21, 2.0**-36)
    chain.residuals.restore(layer, kept)
    assert torch.equal(chain.weight("lin").double(), now)


def test_exports_hold_what_the_weight_rounds_away(tmp_path):
    chain, _, _ = drift(1e-3)
    exact = chain.weight("lin")
    chain.export_merged(tmp_path / "m")
    stored = load_file(tmp_path / "m" / "model.safetensors")["lin.weight"]
    assert stored.dtype == torch.float32
    assert torch.equal(stored, exact)
    rounded = chain.export_merged(tmp_path / "r", dtype=torch.bfloat16)
    assert torch.equal(load_file(rounded / "model.safetensors")["lin.weight"], exact.bfloat16())
    chain.export_adapter(tmp_path / "a")
    again = PeftModel.from_pretrained(base(torch.float32), tmp_path / "a")
    layer = again.get_base_model().lin
    update = exact - base().lin.weight.detach().float()
    error = (layer.get_delta_weight("default") - update).norm() / update.norm()
    assert float(error) < 0.01


def test_a_merge_that_overflows_leaves_the_weight(tmp_path):
    model = get_peft_model(base(torch.float16), LoraConfig(r=1, target_modules=["lin"]))
    chain = ChainOfLora(model, RacConfig())
    before = chain.layers[0].weight.detach().clone()
    chain.layers[0].parameter("B").data.fill_(1e5)
    with pytest.raises(ChainStateError, match=r"too large for torch.float16; nothing was merged"):
        chain.end_block()
    assert torch.equal(chain.layers[0].weight, before)


# -- a base on a grid ------------------------------------------------------------------------------


class Int8Linear(nn.Linear):
    """A weight-only eight-bit linear layer: integers and one scale a row."""

    def __init__(self, source):
        super().__init__(source.in_features, source.out_features, bias=source.bias is not None)
        weight = source.weight.detach()
        scale = weight.abs().amax(1, keepdim=True) / 127
        self.weight = nn.Parameter((weight / scale).round().to(torch.int8), requires_grad=False)
        self.register_buffer("scale", scale)
        if source.bias is not None:
            self.bias = nn.Parameter(source.bias.detach().clone(), requires_grad=False)

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x) * self.scale.to(x), self.bias)


def quantized(toys):
    model = toys.mlp()
    model.first, model.second = Int8Linear(model.first), Int8Linear(model.second)
    return model


def test_a_quantised_base_is_refused(toys):
    with pytest.raises(UnsupportedLayerError, match="first .*quantised.*on_quantized='accumulate'"):
        toys.make(model=quantized(toys))
    with pytest.raises(UnsupportedLayerError, match="cannot be trained itself"):
        toys.make(model=quantized(toys), on_quantized="accumulate", method="fpft")


def float_twin(toys):
    model, source = toys.mlp(), quantized(toys)
    for name in ("first", "second"):
        q = source.get_submodule(name)
        model.get_submodule(name).weight.data.copy_(q.weight.float() * q.scale)
    return model


@pytest.mark.parametrize("train", ["B", "alternate"])
def test_accumulating_is_the_chain_on_the_dequantised_base(toys, train, tmp_path):
    chain, optimizer = toys.make(model=quantized(toys), on_quantized="accumulate", train=train)
    twin, twin_optimizer = toys.make(model=float_twin(toys), train=train)
    integers = [layer.weight.clone() for layer in chain.layers]
    toys.train(chain, optimizer, 14)
    toys.train(twin, twin_optimizer, 14)
    x, _ = toys.batch(0)
    torch.testing.assert_close(chain.model(x), twin.model(x), rtol=0, atol=1e-5)
    for name in ("first", "second"):
        torch.testing.assert_close(chain.weight(name), twin.weight(name), rtol=0, atol=1e-5)
    assert all(torch.equal(a, b.weight) for a, b in zip(integers, chain.layers, strict=True))
    assert chain.companion.error == 0
    chain.export_adapter(tmp_path)
    plain = PeftModel.from_pretrained(quantized(toys), tmp_path)
    torch.testing.assert_close(plain(x), chain.model(x), rtol=0, atol=1e-5)
    with pytest.raises(UnsupportedLayerError, match="cannot hold the merged weights"):
        chain.export_merged(tmp_path)


def test_the_companion_is_capped_with_its_error(toys):
    chain, optimizer = toys.make(model=quantized(toys), on_quantized="accumulate", companion_rank=3)
    whole, whole_optimizer = toys.make(model=quantized(toys), on_quantized="accumulate")
    toys.train(chain, optimizer, 8)
    toys.train(whole, whole_optimizer, 8)
    for layer in chain.layers:
        assert layer.module.r["default_past"] == 3
    # Two blocks of rank 2 in rank 3: one cut, so the error is the smallest singular value exactly.
    cut2 = past2 = 0.0
    for layer in whole.layers:
        B, A = whole.companion.past[layer.name]
        sigma = torch.linalg.svdvals((B @ A).double())
        cut2 += float(sigma[3:].square().sum())
        past2 += float(sigma.square().sum())
    # The second block trained from the uncapped past in both runs: nothing was cut before it.
    assert chain.companion.error == pytest.approx((cut2 / (past2 - cut2)) ** 0.5, rel=1e-3)


def test_the_past_may_not_be_switched_off(toys):
    chain, optimizer = toys.make(model=quantized(toys), on_quantized="accumulate")
    toys.train(chain, optimizer, 5)
    chain.model.set_adapter("default")
    with pytest.raises(ChainStateError, match="holds the past blocks is not active"):
        toys.train(chain, optimizer, 1)


@pytest.mark.parametrize("keep", ["factors", "seeds", "none"])
def test_accumulated_chains_resume(toys, keep, tmp_path):
    config = {"on_quantized": "accumulate", "keep_history": keep, "companion_rank": 5}
    reference, optimizer = toys.make(model=quantized(toys), **config)
    toys.train(reference, optimizer, 22)
    chain, optimizer = toys.make(model=quantized(toys), **config)
    toys.train(chain, optimizer, 14)
    chain.save(tmp_path, optimizer)
    again = ChainOfLora.resume(tmp_path, quantized(toys))
    optimizer = toys.adam(again)
    again.restore_optimizer(optimizer)
    toys.train(again, optimizer, 8, start=14)
    for a, b in zip(again.layers, reference.layers, strict=True):
        assert torch.equal(a.B, b.B)
        for x, y in zip(
            again.companion.past[a.name], reference.companion.past[b.name], strict=True
        ):
            assert torch.equal(x, y)
    assert again.companion.error == reference.companion.error > 0


@pytest.mark.parametrize("export", ["export_merged", "export_adapter"])
def test_a_dtype_may_be_named(export, tmp_path):
    model = get_peft_model(One(8, torch.float32), LoraConfig(r=1, target_modules=["lin"]))
    chain = ChainOfLora(model, RacConfig())
    for name in ("bfloat16", "torch.bfloat16", torch.bfloat16):
        getattr(chain, export)(tmp_path, dtype=name)
        (file,) = tmp_path.glob("*.safetensors")
        assert {t.dtype for t in load_file(file).values()} == {torch.bfloat16}
    for wrong in ("half", "int8", torch.int64, torch.bool, torch.float8_e4m3fn, "cpu"):
        with pytest.raises(ValueError, match=r"^dtype must be"):
            getattr(chain, export)(tmp_path, dtype=wrong)
