"""Layers of pykan and efficient-kan against their formulas, written down again."""

import copy
import importlib
import io
import sys
import types

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch import nn

from surefoot.kan import KAN, KANLinear

pytestmark = pytest.mark.filterwarnings("ignore::surefoot.kan.OutOfGridWarning")


def cox_de_boor(x, knots, order):
    """(n, in) and (in, knots) -> (n, in, bases), by the recursion from degree 0."""
    x, t = x[..., None], knots
    b = ((x >= t[:, :-1]) & (x < t[:, 1:])).to(x.dtype)
    for k in range(1, order + 1):
        rising = (x - t[:, : -k - 1]) / (t[:, k:-1] - t[:, : -k - 1])
        falling = (t[:, k + 1 :] - x) / (t[:, k + 1 :] - t[:, 1:-k])
        b = rising * b[..., :-1] + falling * b[..., 1:]
    return b


class Efficient(nn.Module):
    """Attributes and function of efficient-kan's layer."""

    def __init__(
        self, n_in, n_out, size=5, order=3, scaler=True, act=None, ends=(-1.0, 1.0), seed=0
    ):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        h = (ends[1] - ends[0]) / size
        knots = torch.arange(-order, size + order + 1) * h + ends[0]
        self.register_buffer("grid", knots.expand(n_in, -1).contiguous())
        self.in_features, self.out_features = n_in, n_out
        self.grid_size, self.spline_order = size, order
        self.base_weight = nn.Parameter(torch.randn(n_out, n_in, generator=g))
        self.spline_weight = nn.Parameter(torch.randn(n_out, n_in, size + order, generator=g))
        self.enable_standalone_scale_spline = scaler
        if scaler:
            self.spline_scaler = nn.Parameter(torch.randn(n_out, n_in, generator=g))
        self.base_activation = nn.SiLU() if act is None else act

    def forward(self, x):
        w = self.spline_weight
        if self.enable_standalone_scale_spline:
            w = w * self.spline_scaler[..., None]
        y = self.base_activation(x) @ self.base_weight.T
        return y + torch.einsum("nic,oic->no", cox_de_boor(x, self.grid, self.spline_order), w)


class Stack(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def close(a, b):
    """float32 rounding: 1e-5, of the largest output where that is above 1."""
    return float((a - b).detach().abs().max()) <= 1e-5 * max(1.0, float(b.detach().abs().max()))


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize(
    ("size", "order", "ends", "scaler", "kernel"),
    [
        (5, 3, (-1, 1), True, "torch"),
        (5, 3, (-1, 1), False, "auto"),
        (20, 2, (-3, 1), True, "torch"),
        (4, 5, (0, 7), True, "torch"),
        (1, 1, (-1, 1), True, "torch"),
    ],
)
def test_efficient_kan_is_the_same_function(size, order, ends, scaler, kernel):
    theirs = Efficient(6, 4, size, order, scaler, ends=ends)
    ours = KANLinear.from_efficient_kan(theirs, kernel=kernel)
    g = torch.Generator().manual_seed(1)
    width = ends[1] - ends[0]
    x = (ends[0] - width / 2 + 2 * width * torch.rand(200, 6, generator=g)).requires_grad_()
    at = x.detach().clone().requires_grad_()
    exact = copy.deepcopy(theirs).double()
    wide = at.double()
    y, wanted = ours(x), exact(wide)
    assert y.dtype == torch.float32
    assert close(y, wanted)
    v = torch.randn(y.shape, generator=g)
    y.backward(v)
    wanted.backward(v.double())
    assert relative(x.grad, at.grad) <= 1e-4
    # Of the spline their weight's gradient is ours times the scaler.
    splines = ours.weight.grad[: 6 * (size + order)].view(6, size + order, 4).permute(2, 0, 1)
    scaled = splines * (theirs.spline_scaler.detach()[..., None] if scaler else 1)
    assert relative(scaled, exact.spline_weight.grad) <= 1e-4
    assert relative(ours.weight.grad[6 * (size + order) :].T, exact.base_weight.grad) <= 1e-4


def test_other_base_and_whole_model():
    theirs = Stack(Efficient(3, 5, act=nn.GELU()), Efficient(5, 2, 8, 2, act=nn.Identity(), seed=2))
    ours = KAN.from_efficient_kan(theirs, kernel="torch")
    x = torch.linspace(-1, 1, 60).view(20, 3)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    assert isinstance(ours, KAN)
    assert [layer.grid_size for layer in ours.layers] == [5, 8]
    with torch.no_grad():  # a copy, not a view of their weights
        theirs.layers[0].base_weight.zero_()
    assert not torch.allclose(ours(x), theirs(x), atol=1e-3)


def test_a_base_with_parameters_is_not_shared():
    theirs = Efficient(2, 2, act=nn.PReLU())
    ours = KANLinear.from_efficient_kan(theirs)
    with torch.no_grad():
        theirs.base_activation.weight.fill_(9.0)
    assert ours.base_activation.weight.item() == 0.25


class Pykan(nn.Module):
    """Attributes of pykan's KANLayer."""

    def __init__(self, n_in, n_out, size=5, k=3, seed=0, ends=(-1.0, 1.0)):
        super().__init__()
        rng = np.random.default_rng(seed)

        def fixed(a):
            return nn.Parameter(torch.tensor(np.asarray(a), dtype=torch.float32))

        lo = np.linspace(ends[0], ends[0] + 1, n_in)[:, None]
        h = (ends[1] - ends[0] + np.arange(n_in))[:, None] / size
        self.grid = fixed(lo + h * (np.arange(size + 2 * k + 1) - k))
        self.coef = fixed(rng.normal(size=(n_in, n_out, size + k)))
        self.mask = fixed(rng.integers(0, 2, size=(n_in, n_out)))
        self.scale_base = fixed(rng.normal(size=(n_in, n_out)))
        self.scale_sp = fixed(rng.normal(size=(n_in, n_out)))
        self.base_fun, self.k, self.num, self.in_dim, self.out_dim = nn.SiLU(), k, size, n_in, n_out


def pykan_formula(layer, x):
    """mask (scale_base silu(x) + scale_sp sum_c coef_c B_c(x)), by scipy's splines, in float64."""
    at = np.asarray(x.detach().double())
    n = {p: v.detach().double().numpy() for p, v in layer.named_parameters()}
    y = np.zeros((len(at), layer.out_dim))
    for i in range(layer.in_dim):
        t = n["grid"][i]
        # Knots beyond the extended ones with coefficients 0: scipy's range is then all of it.
        h = t[1] - t[0]
        far = np.concatenate(
            [t[0] + h * np.arange(-layer.k, 0), t, t[-1] + h * np.arange(1, layer.k + 1)]
        )
        for o in range(layer.out_dim):
            pad = np.zeros(layer.k)
            curve = BSpline(far, np.concatenate([pad, n["coef"][i, o], pad]), layer.k)
            inside = (at[:, i] >= t[0]) & (at[:, i] < t[-1])
            spline = np.where(inside, curve(np.clip(at[:, i], t[0], t[-1])), 0)
            base = at[:, i] / (1 + np.exp(-at[:, i]))
            y[:, o] += n["mask"][i, o] * (
                n["scale_base"][i, o] * base + n["scale_sp"][i, o] * spline
            )
    return torch.from_numpy(y)


@pytest.mark.parametrize(
    ("size", "k", "kernel"), [(5, 3, "auto"), (3, 2, "torch"), (12, 4, "torch"), (2, 1, "torch")]
)
def test_pykan_is_the_same_function(size, k, kernel):
    theirs = Pykan(4, 3, size, k)
    ours = KANLinear.from_pykan(theirs, kernel=kernel)
    x = 6 * torch.rand(300, 4, generator=torch.Generator().manual_seed(0)) - 2.5
    wanted = pykan_formula(theirs, x)
    assert close(ours(x), wanted)
    assert torch.equal(ours.mask, theirs.mask.T != 0)


def test_masked_edges_of_pykan_stay_zero_in_training():
    theirs = Pykan(4, 3)
    ours = KANLinear.from_pykan(theirs, kernel="torch")
    optimizer = torch.optim.AdamW(ours.parameters(), lr=0.1, weight_decay=0.1)
    x = torch.rand(50, 4)
    for _ in range(5):
        optimizer.zero_grad()
        (ours(x) - 1).square().sum().backward()
        optimizer.step()
    o, i = (~ours.mask).nonzero()[0].tolist()
    assert torch.equal(ours.curve(o, i)(x[:, i]), torch.zeros(50))
    assert not ours.spline_weight[o, i].any()


def symbolic(mask):
    return types.SimpleNamespace(mask=mask)


def pykan_model(*layers, **change):
    one = [torch.ones(layer.out_dim) for layer in layers]
    zero = [torch.zeros(layer.out_dim) for layer in layers]
    model = types.SimpleNamespace(
        act_fun=list(layers), symbolic_enabled=True, input_id=torch.arange(layers[0].in_dim),
        symbolic_fun=[symbolic(torch.zeros(a.out_dim, a.in_dim)) for a in layers],
        width=[[layers[0].in_dim, 0], *([a.out_dim, 0] for a in layers)],
        node_scale=one, node_bias=zero, subnode_scale=one, subnode_bias=zero,
    )  # fmt: skip
    for name, value in change.items():
        setattr(model, name, value)
    return model


def test_a_model_of_pykan_with_its_affine_maps():
    first, second = Pykan(2, 3), Pykan(3, 1, 8, 2, seed=1)
    scale, bias = (
        [torch.tensor([2.0, -1, 0.5]), torch.tensor([3.0])],
        [torch.rand(3), torch.rand(1)],
    )
    model = pykan_model(
        first, second, node_scale=scale, node_bias=bias, subnode_bias=[torch.ones(3), torch.ones(1)]
    )
    x = 2 * torch.rand(50, 2) - 1
    z = x
    for layer, s, b in zip((first, second), scale, bias, strict=True):
        z = s * (pykan_formula(layer, z) + 1) + b
    ours = KAN.from_pykan(model, kernel="torch")
    assert torch.allclose(ours(x).double(), z, atol=2e-5)
    assert KAN.from_pykan(pykan_model(first, second))[0].bias is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": [[2, 0], [3, 2], [1, 0]]}, "2 multiplication nodes in layer 1"),
        ({"symbolic_fun": [symbolic(torch.eye(3)), symbolic(torch.zeros(1, 3))]},
         "symbolic functions in layer 0"),
        ({"input_id": torch.tensor([0, 2])}, r"columns \[0, 2\]"),
    ],
)  # fmt: skip
def test_what_kan_has_not_is_refused_by_name(change, words):
    model = pykan_model(Pykan(2, 3), Pykan(3, 1), **change)
    with pytest.raises(ValueError, match=words):
        KAN.from_pykan(model)


def test_symbolic_functions_that_are_switched_off_do_not_matter():
    layer = Pykan(2, 1)
    model = pykan_model(
        layer, symbolic_enabled=False, symbolic_fun=[types.SimpleNamespace(mask=torch.ones(1, 2))]
    )
    x = torch.rand(5, 2)
    assert torch.allclose(
        KAN.from_pykan(model, kernel="torch")(x).double(), pykan_formula(layer, x), atol=1e-5
    )


@pytest.mark.parametrize("read", [KANLinear.from_pykan, KANLinear.from_efficient_kan])
def test_a_grid_that_is_not_uniform_is_refused(read):
    layer = Pykan(2, 2) if read == KANLinear.from_pykan else Efficient(2, 2)
    with torch.no_grad():
        layer.grid[1, 5] += 1e-3
    with pytest.raises(ValueError, match=r"grid must be uniform, got knots of input 1 up to 0.00"):
        read(layer)
    with torch.no_grad():
        layer.grid[1, 5] = torch.nan
    with pytest.raises(ValueError, match="grid must be uniform"):
        read(layer)


def test_a_grid_uniform_up_to_rounding_is_read():
    layer = Efficient(1, 1, size=200, ends=(90.0, 110.0))
    KANLinear.from_efficient_kan(layer)


def test_another_layer_is_refused():
    with pytest.raises(ValueError, match="KANLayer of pykan 0.2, got Linear without grid, coef"):
        KANLinear.from_pykan(nn.Linear(2, 2))
    with pytest.raises(
        ValueError, match="KANLinear of efficient-kan, got Pykan without base_weight"
    ):
        KANLinear.from_efficient_kan(Pykan(2, 2))
    with pytest.raises(ValueError, match="KAN of pykan 0.2, got Linear"):
        KAN.from_pykan(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="KAN of efficient-kan, got Linear"):
        KAN.from_efficient_kan(nn.Linear(2, 2))
    layer = Pykan(2, 2)
    layer.coef = nn.Parameter(torch.zeros(2, 2, 5))
    with pytest.raises(ValueError, match=r"coef must have shape \(2, 2, 8\)"):
        KANLinear.from_pykan(layer)


def test_saved_and_loaded():
    ours = KANLinear.from_pykan(Pykan(4, 3))
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    plain = KANLinear(4, 3)
    plain.load_state_dict(torch.load(file))
    x = torch.rand(9, 4)
    assert torch.equal(plain(x), ours(x))
    assert torch.equal(plain.mask, ours.mask)


@pytest.mark.acceptance
def test_the_real_pykan(tmp_path, monkeypatch):
    for name in [
        n for n in sys.modules if n.split(".")[0] == "kan"
    ]:  # these tests, by their folder
        monkeypatch.delitem(sys.modules, name)
    kan = importlib.import_module("kan.MultKAN")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = kan.KAN(width=[3, [4, 0], 2], grid=6, k=3, seed=0, auto_save=False, grid_range=[-2, 2])
    with torch.no_grad():
        model.act_fun[0].mask[1, 2] = 0.0
        model.node_bias_0 += 0.3
        model.subnode_scale_1 *= 1.7
    x = (4 * torch.rand(500, 3) - 2).requires_grad_()
    ours = KAN.from_pykan(model)
    y, wanted = ours(x), model(x)
    assert close(y, wanted)
    v = torch.randn_like(y)
    (got,), (expected,) = (torch.autograd.grad(f, x, v) for f in (y, wanted))
    assert relative(got, expected) <= 1e-4
    model.update_grid_from_samples(x.detach())
    with pytest.raises(ValueError, match="grid must be uniform"):
        KAN.from_pykan(model)
    model.grid_eps = 1.0
    for layer in model.act_fun:
        layer.grid_eps = 1.0
    model.update_grid_from_samples(x.detach())
    again = KAN.from_pykan(model)
    inside = x.detach()[(x > x.amin(0)).all(1) & (x < x.amax(0)).all(1)]
    assert torch.allclose(again(inside), model(inside), atol=2e-5)
