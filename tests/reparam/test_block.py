import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.reparam.nets import batches, net, scales_for
from torch import nn

from surefoot.errors import FileFormatError
from surefoot.reparam import (
    ReparamConv2d,
    Scales,
    convert_to_csla,
    convert_to_plain,
    equivalence_gap,
    grad_mults,
    hyper_search,
    merge_state,
    repopt_ghost,
    repopt_vgg,
)
from surefoot.reparam.block import check_scales
from surefoot.reparam.models import VGG_DEPTHS, VGG_WIDTHS


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_merging_keeps_the_function(dtype, train, bias, measured):
    csla = net(dtype=dtype, bias=bias)
    plain, _ = convert_to_plain(csla, seed=None)
    csla.train(train), plain.train(train)
    x, _ = next(batches(1, dtype=dtype))
    error = (csla(x) - plain(x)).abs().max().item()
    if dtype == torch.float32:
        measured("8.9 merge preserves the function", "<= 1e-5 float32", f"{error:.1e}")
    assert error <= (1e-5 if dtype == torch.float32 else 1e-13)


@given(
    channels=st.sampled_from([2, 4, 6]),
    groups=st.sampled_from([1, 2]),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    seed=st.integers(0, 1000),
)
def test_any_block_merges(channels, groups, kernel, stride, seed):
    g = torch.Generator().manual_seed(seed)
    smaller = tuple(f"{n}x{n}" for n in range(1, kernel, 2))
    block = ReparamConv2d(
        channels, channels, kernel, stride, groups, ("kxk", *smaller, "identity"), "csla",
        scales_for(channels, ("kxk", *smaller, "identity"), g), generator=g, dtype=torch.float64,
        bias=True, norm="none", activation="none",
    )  # fmt: skip
    plain, mults = convert_to_plain(block, seed=None)
    x = torch.randn(2, channels, 7, 7, generator=g, dtype=torch.float64)
    torch.testing.assert_close(plain(x), block(x), atol=1e-12, rtol=1e-12)
    assert {n: p.shape for n, p in plain.named_parameters()} == {
        n: m.shape for n, m in mults.items()
    }


def test_multipliers_are_what_the_chain_rule_says():
    """M by automatic differentiation: d merge / d branches, applied twice, on the weight's entries."""
    g = torch.Generator().manual_seed(3)
    block = ReparamConv2d(
        4, 4, 5, 1, 2, ("kxk", "3x3", "1x1", "identity"), "csla",
        scales_for(4, ("kxk", "3x3", "1x1", "identity"), g), dtype=torch.float64, bias=True,
    )  # fmt: skip
    names = [b for b in block.branches if b != "identity"]
    parts = {b: block.kernels[b].detach().clone().requires_grad_() for b in names}
    parts["identity"] = block.identity.detach().clone().requires_grad_()
    merged = block.merge(parts)
    upstream = torch.randn(merged.shape, generator=g, dtype=torch.float64)
    gradients = torch.autograd.grad(merged, list(parts.values()), upstream)
    stepped = block.merge(dict(zip(parts, gradients, strict=True)))
    mults = grad_mults(block)
    torch.testing.assert_close(stepped, mults["conv.weight"] * upstream, atol=1e-13, rtol=1e-13)
    scales = block.scales()
    torch.testing.assert_close(mults["conv.bias"], sum(scales[b] ** 2 for b in names))


def test_identity_adds_one_and_not_its_square():
    block = ReparamConv2d(
        4,
        4,
        scales={"kxk": torch.zeros(4), "1x1": torch.zeros(4), "identity": torch.full((4,), 3.0)},
    )
    mult = grad_mults(block)["conv.weight"]
    assert mult.sum() == 4
    assert all(mult[c, c, 1, 1] == 1 for c in range(4))


def test_published_initial_scales():
    """sqrt(2 / l), 1 for the first block of a stage; ghost: sqrt(2 / (m + 1)), m from 1."""
    vgg = repopt_vgg((3,), (8,), in_channels=1, mode="csla")
    assert [
        vgg.get_submodule(f"stage0_{i}").scale_kxk[0].item() for i in range(3)
    ] == pytest.approx([1.0, 2**0.5, 1.0])
    ghost = repopt_ghost(0.5, stages=(((3, 8, 16, 0, 1), (3, 8, 16, 0, 1)),))
    first = [ghost.get_submodule(f"stage0_{b}.{m}.cheap").scale_kxk[0].item()
             for b in (0, 1) for m in ("first", "second")]  # fmt: skip
    assert first == pytest.approx([(2 / (m + 1)) ** 0.5 for m in (1, 2, 3, 4)])
    assert ghost.get_submodule("stage0_0.first.cheap").identity[0].item() == 1


def test_identity_only_where_the_shape_allows():
    assert ReparamConv2d(4, 8).branches == ("kxk", "1x1")
    assert ReparamConv2d(4, 4, stride=2).branches == ("kxk", "1x1")


def test_initialisation_draws_each_branch_by_its_own_law():
    """uniform on +-1/sqrt(fan_in): limits and variances, 9 and 1 taps."""
    model = repopt_vgg((1,), (64,), in_channels=64)
    csla = convert_to_csla(model, seed=5)
    block = csla.get_submodule("stage0_0")
    for branch, fan_in in (("kxk", 576), ("1x1", 64)):
        kernel = block.kernels[branch]
        assert kernel.abs().max() <= fan_in**-0.5
        assert float(kernel.detach().var()) == pytest.approx(1 / (3 * fan_in), rel=0.1)
    plain, _ = convert_to_plain(model, seed=5)
    assert equivalence_gap(plain, csla) < 1e-6
    again, _ = convert_to_plain(model, seed=5)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), again.parameters(), strict=True)
    )
    other, _ = convert_to_plain(model, seed=6)
    assert not torch.equal(other.stage0_0.conv.weight, plain.stage0_0.conv.weight)


def test_conversion_leaves_its_input_alone():
    model = net()
    before = copy.deepcopy(model.state_dict())
    plain, _ = convert_to_plain(model, seed=0)
    plain[0].conv.weight.data.zero_()
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())


def test_all_modes_run_and_share_their_kernels():
    models = {
        m: repopt_vgg((2,), (8,), in_channels=1, mode=m) for m in ("hs", "csla", "plain", "rep")
    }
    x = torch.randn(2, 1, 16, 16)
    assert all(m(x).shape == (2, 10) for m in models.values())
    kernel = models["plain"].stem.conv.weight
    assert all(torch.equal(models[m].stem.kernels["kxk"], kernel) for m in ("hs", "csla", "rep"))


def test_paper_networks_have_their_published_size():
    """VGG-B1 of RepOptimizers in its plain form: 51.8 M parameters on ImageNet (RepVGG-B1, deployed)."""
    with torch.device("meta"):
        model = repopt_vgg(VGG_DEPTHS["B1"], VGG_WIDTHS["B1"], num_classes=1000, mode="plain")
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(51.83e6, rel=0.01)
    small = repopt_vgg((1, 1), (8, 16), in_channels=3, mode="plain", num_classes=10)
    expected = (27 * 8 + 16) + (72 * 8 + 16) + (72 * 16 + 32) + 170
    assert sum(p.numel() for p in small.parameters()) == expected


def test_ghost_network_runs_and_converts():
    ghost = repopt_ghost(0.5, stem_stride=1, in_channels=1, num_classes=7).eval()
    plain, mults = convert_to_plain(ghost, seed=None)
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(plain(x), ghost(x), atol=1e-5, rtol=1e-4)
    assert len(mults) == 32
    assert sum(p.numel() for p in plain.parameters()) < sum(p.numel() for p in ghost.parameters())


def test_hyper_search_learns_scales_and_saves_them(tmp_path):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 1, 8, 8, generator=g)
    y = (x.mean((1, 2, 3)) > 0).long()
    loader = [(x[:33], y[:33]), (x[33:63], y[33:63]), (x[63:], y[63:])]  # the last: one example

    def model():
        return repopt_vgg((2,), (4,), in_channels=1, num_classes=2, mode="hs", strides=(1, 2))

    scales = hyper_search(model, loader, epochs=2, lr=0.05)
    start = {n: b for n, b in model().named_modules() if isinstance(b, ReparamConv2d)}
    moved = max(
        float((scales[n]["kxk"] - b.scale("kxk")).detach().abs().max()) for n, b in start.items()
    )
    assert moved > 1e-4
    scales.save(tmp_path / "scales.safetensors")
    again = Scales.load(tmp_path / "scales.safetensors")
    assert {k: v.tolist() for k, v in again.arrays().items()} == {
        k: v.tolist() for k, v in scales.arrays().items()
    }
    csla = convert_to_csla(model(), again, seed=1)
    torch.testing.assert_close(csla.stage0_1.identity.data, scales["stage0_1"]["identity"])
    again_searched = hyper_search(model, loader, epochs=2, lr=0.05)
    assert torch.equal(again_searched["stem"]["kxk"], scales["stem"]["kxk"])


def test_bad_scales():
    model = repopt_vgg((1,), (8,), in_channels=1, mode="hs")
    good = {n: dict(b.scales()) for n, b in model.named_modules() if isinstance(b, ReparamConv2d)}
    with pytest.raises(KeyError, match="stage0_0"):
        convert_to_plain(model, Scales({"stem": good["stem"]}))
    with pytest.raises(KeyError, match=r"stage0_0.*'1x1'|'1x1'.*|stage0_0"):
        convert_to_plain(model, Scales({**good, "stage0_0": {"kxk": torch.ones(8)}}))
    with pytest.raises(ValueError, match=r"stage0_0.*\(8,\).*\(7,\)"):
        convert_to_plain(
            model, Scales({**good, "stage0_0": dict.fromkeys(good["stage0_0"], torch.ones(7))})
        )
    with pytest.raises(ValueError, match="finite"):
        check_scales({"kxk": torch.tensor([float("nan")])}, ["kxk"], 1, torch.float32, "b")


def test_bad_blocks():
    for bad, match in (
        ({"kernel_size": 4}, "odd"),
        ({"branches": ("kxk", "3x3")}, "below kernel_size"),
        ({"branches": ("kxk", "2x2")}, "odd N"),
        ({"branches": ("1x1",)}, "kxk"),
        ({"branches": ("kxk", "pool")}, "got 'pool'"),
        ({"groups": 3}, "divide"),
        ({"mode": "deploy"}, "mode must be"),
        ({"stride": 0}, "stride"),
        ({"norm": "layer"}, "norm must be"),
    ):
        with pytest.raises(ValueError, match=match):
            ReparamConv2d(4, 4, **{"kernel_size": 3, **bad})
    with pytest.raises(KeyError, match="'1x1'"):
        ReparamConv2d(4, 4, scales={"kxk": torch.ones(4), "identity": torch.ones(4)})


def test_trained_networks_are_not_reinitialised():
    model = net()
    model[1].norm.weight.data[0] = 0.5
    with pytest.raises(RuntimeError, match="block 1 .*trained"):
        convert_to_plain(model, seed=0)
    convert_to_plain(model, seed=None)


def test_per_branch_norms_have_no_equivalent():
    rep = repopt_vgg((1,), (8,), in_channels=1, mode="rep")
    for refuse in (grad_mults, merge_state, convert_to_plain, lambda m: equivalence_gap(m, m)):
        with pytest.raises(TypeError, match="per-branch BN is non-linear"):
            refuse(rep)
    with pytest.raises(TypeError, match="mode 'plain' has no scales"):
        grad_mults(repopt_vgg((1,), (8,), in_channels=1, mode="plain"))
    with pytest.raises(ValueError, match="no ReparamConv2d"):
        grad_mults(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="mode 'hs'"):
        hyper_search(lambda: net(), [], 1)


def test_foreign_scale_files(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"no")
    for name in ("other", "torn", "none"):
        with pytest.raises(FileFormatError, match=name):
            Scales.load(tmp_path / f"{name}.safetensors")
