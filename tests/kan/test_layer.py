"""The spline layer against independent formulas, and what it refuses."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from tests.kan.test_basis import scipys
from torch import nn

from surefoot.kan import KAN, Grid, KANLinear, OutOfGridWarning
from surefoot.kan.reference import kan_layer


def rows(n, columns, spread=1.3, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, columns, generator=generator) * 2 - 1).mul(spread).to(dtype)


def seeded(*args, **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return KANLinear(*args, **kwargs)


def quiet(layer, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfGridWarning)
        return layer(x)


def by_hand(layer, x):
    """y_o = sum_i base silu(x_i) + sum_j w b_j(x_i), with scipy's bases."""
    x = x.double().numpy()
    y = np.zeros((len(x), layer.out_features))
    for i in range(layer.in_features):
        ends = float(layer.grid_lo[i]), float(layer.grid_hi[i])
        grid = Grid(*ends, layer.grid_size, layer.spline_order)
        y += scipys(x[:, i], grid) @ layer.spline_weight[:, i].detach().double().numpy().T
        if layer.base_weight is not None:
            silu = x[:, i] / (1 + np.exp(-x[:, i]))
            y += np.outer(silu, layer.base_weight[:, i].detach().double().numpy())
    return y


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def test_the_reference_is_the_formula():
    layer = seeded(3, 4, spline_order=2, grid_size=6, grid_range=(-0.9, 1.1))
    x = rows(20, 3).double()
    weights = [w.detach().double().numpy() for w in (layer.spline_weight, layer.base_weight)]
    found = kan_layer(x.numpy(), *weights, layer.grid_lo.numpy(), layer.grid_hi.numpy(), 2)
    np.testing.assert_allclose(found, by_hand(layer, x), atol=1e-12)


@pytest.mark.parametrize("kernel", ["c", "torch"])
@pytest.mark.parametrize("base", ["silu", None])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_the_layer_is_the_formula(order, base, kernel):
    layer = seeded(3, 10, spline_order=order, grid_size=6, base_activation=base, kernel=kernel)
    x = rows(97, 3)
    found = quiet(layer, x).detach().numpy()
    np.testing.assert_allclose(found, by_hand(layer, x), atol=2e-6)


@pytest.mark.parametrize("out", [1, 5, 16, 67, 100])
@pytest.mark.parametrize("policy", ["zero", "clamp", "linear"])
@pytest.mark.parametrize("kernel", ["c", "torch"])
def test_both_roads_have_the_values_and_gradients_of_float64(kernel, policy, out):
    layer = seeded(19, out, out_of_grid=policy, kernel=kernel, bias=True)
    exact = copy.deepcopy(layer).double()
    exact.kernel, exact.higher_order = "auto", True
    found = []
    for module, dtype in ((layer, torch.float32), (exact, torch.float64)):
        x = rows(150, 19, dtype=torch.float32).to(dtype).requires_grad_()
        y = quiet(module, x)
        (y**2).sum().backward()
        found.append((y.detach().double(), x.grad.double(), module.weight.grad.double()))
    for ours, true in zip(*found, strict=True):
        assert relative(ours, true) < 2e-6


@pytest.mark.parametrize("basis", ["rbf", "chebyshev"])
@pytest.mark.parametrize("base", ["silu", None, torch.tanh])
def test_other_bases_and_other_branches(basis, base):
    layer = seeded(4, 3, basis=basis, base_activation=base)
    x = rows(50, 4, seed=2).requires_grad_()
    y = layer(x)
    inner = x
    if basis == "rbf":
        inner = (x - x.mean(1, keepdim=True)) / (
            x.var(1, unbiased=False, keepdim=True) + 1e-5
        ).sqrt()
        centres = torch.linspace(-2, 2, 8)
        features = torch.exp(-(((inner[..., None] - centres) / (4 / 7)) ** 2))
    else:
        features = torch.cos(torch.arange(8) * torch.acos(torch.tanh(x))[..., None])
    expected = torch.einsum("nic,oic->no", features, layer.spline_weight)
    if base is not None:
        act = nn.functional.silu if base == "silu" else base
        expected = expected + act(x) @ layer.base_weight.T
    torch.testing.assert_close(y, expected, atol=5e-5, rtol=5e-5)
    weight = torch.randn(50, 3, generator=torch.Generator().manual_seed(3))
    ours = torch.autograd.grad((y * weight).sum(), [x, layer.weight])
    true = torch.autograd.grad((expected * weight).sum(), [x, layer.weight])
    for a, b in zip(ours, true, strict=True):
        assert relative(a, b) < 2e-3 if basis == "chebyshev" else relative(a, b) < 2e-5


@pytest.mark.parametrize(
    ("policy", "higher_order"), [("zero", False), ("linear", False), ("zero", True)]
)
def test_gradients_and_their_gradients_pass_torchs_check(policy, higher_order):
    layer = seeded(2, 3, out_of_grid=policy, higher_order=higher_order, dtype=torch.float64)
    x = rows(5, 2, spread=0.95, dtype=torch.float64).requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()

    def call(x, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(call, (x, weight))
    assert torch.autograd.gradgradcheck(call, (x, weight))


@pytest.mark.parametrize("upstream", [lambda x: x, lambda x: torch.tanh(1.2 * x)])
@pytest.mark.parametrize("kernel", ["c", "torch"])
def test_a_gradient_penalty_counts(kernel, upstream):
    """A Function whose backward calls a kernel loses the graph there: the penalty would be a constant."""
    layer = seeded(4, 3, kernel=kernel)
    plain = copy.deepcopy(layer)
    plain.kernel, plain.higher_order = "auto", True
    found = []
    for module in (layer, plain):
        x = rows(20, 4, spread=0.9).requires_grad_()
        # The same weights twice: what reaches the inner layer must not be counted into the outer one's.
        y = module(torch.tanh(nn.functional.pad(module(upstream(x)), (0, 1))))
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        ((y**2).sum() + (slope.sum(1) ** 2).sum()).backward()
        without = torch.autograd.grad((module(upstream(x)) ** 2).sum(), module.weight)[0]
        found.append(module.weight.grad)
        assert relative(without, module.weight.grad) > 0.01
    assert relative(*found) < 1e-5


def test_a_step_keeps_the_bytes_of_x_alone():
    layer = seeded(128, 128)
    x = rows(512, 128, spread=0.9).requires_grad_()
    own = {p.untyped_storage().data_ptr() for p in [*layer.parameters(), *layer.buffers()]}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer(x)
    assert sum(saved.values()) <= 1.05 * x.numel() * 4


def test_inputs_of_any_leading_shape_and_no_rows():
    layer = seeded(3, 2)
    x = rows(24, 3, spread=0.9)
    torch.testing.assert_close(layer(x.view(2, 3, 4, 3)), layer(x).view(2, 3, 4, 2))
    torch.testing.assert_close(layer(x[0]), layer(x[:1])[0])
    assert layer(x[:0]).shape == (0, 2)
    strided = rows(24, 6, spread=0.9)[:, ::2].requires_grad_()
    torch.testing.assert_close(layer(strided), layer(strided.detach().contiguous()))
    layer(strided).sum().backward()


def test_it_takes_the_place_of_a_linear_layer():
    """Optimizers, state, pickles, copies."""
    model = nn.Sequential(seeded(2, 8), nn.Identity(), seeded(8, 1))
    x = rows(200, 2, spread=0.95)
    target = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2) / 3
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = ((quiet(model, x) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    other = nn.Sequential(KANLinear(2, 8), nn.Identity(), KANLinear(8, 1))
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer))
    for twin in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(quiet(twin, x), quiet(model, x), rtol=0, atol=0)


def test_a_state_of_the_same_shape_and_another_meaning_is_refused():
    """Five cells of degree 3 and six of degree 2 have the same weights."""
    with pytest.raises(ValueError, match=r"grid_size 5 .*has 6.*spline_order 3 .*has 2"):
        KANLinear(2, 3, grid_size=6, spline_order=2).load_state_dict(KANLinear(2, 3).state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_compute_in_float32_and_keep_their_grid(dtype):
    layer = seeded(5, 4, grid_range=(-1.001, 1.003), bias=True)
    narrow = copy.deepcopy(layer).to(dtype)
    assert narrow.grid_lo.dtype == torch.float64
    assert torch.equal(narrow.grid_hi, layer.grid_hi)
    x = rows(40, 5, spread=0.9).to(dtype)
    y = narrow(x)
    assert y.dtype == dtype
    wide = copy.deepcopy(narrow).float()
    torch.testing.assert_close(y, wide(x.float()).to(dtype), rtol=0, atol=0)


def test_autocast_gives_float32():
    layer = seeded(5, 4)
    x = rows(40, 5, spread=0.9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x.bfloat16())
        assert nn.Linear(5, 4)(x).dtype == torch.bfloat16
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, layer(x.bfloat16().float()), rtol=0, atol=0)


def test_inputs_outside_the_grid_are_counted_and_told_once():
    layer = seeded(1, 1)
    inside, outside = torch.full((98, 1), 0.5), torch.full((2, 1), 1.5)
    layer(torch.cat([inside, outside]))
    assert layer.out_of_grid_fraction == pytest.approx(0.02)
    with pytest.warns(OutOfGridWarning, match="fit_grid"):
        layer(outside.repeat(10, 1))
    layer(outside)
    assert KANLinear(1, 1, out_of_grid="clamp")(outside).shape == (2, 1)


@pytest.mark.parametrize("keep", [True, False])
def test_fitting_the_grid_ends_the_warnings(keep):
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * 2 + 3
    layer = seeded(3, 2).fit_grid(x, keep=keep)
    layer(x)
    assert layer.out_of_grid_fraction < 0.005
    lo, hi = np.quantile(x.double().numpy(), [0.001, 0.999], axis=0)
    np.testing.assert_allclose(layer.grid_lo, lo - 0.01 * (hi - lo), rtol=1e-6)
    np.testing.assert_allclose(layer.grid_hi, hi + 0.01 * (hi - lo), rtol=1e-6)


def test_a_fitted_grid_keeps_the_function_and_the_parameter():
    layer = seeded(2, 3, grid_size=8)
    x = rows(500, 2, spread=0.6)
    before, held = layer(x), layer.weight
    layer.fit_grid(rows(500, 2, spread=0.62))
    assert layer.weight is held
    assert (layer(x) - before).abs().max() < 0.05 * before.abs().max()


def test_a_constant_feature_gets_a_grid():
    layer = seeded(2, 1).fit_grid(torch.cat([torch.full((9, 1), 7.0), rows(9, 1)], 1))
    assert float(layer.grid_lo[0]) == 6.5
    assert float(layer.grid_hi[0]) == 7.5


COMPUTED = {
    "weight norm": torch.nn.utils.parametrizations.weight_norm,
    "pruned": lambda m: torch.nn.utils.prune.random_unstructured(m, "weight", 0.2),
}


@pytest.mark.parametrize("how", COMPUTED.values(), ids=COMPUTED)
def test_a_grid_is_not_changed_under_a_weight_that_is_computed(how):
    """What fit_grid writes into such a weight would be lost: another function, without a word."""
    layer, x = how(seeded(3, 2)), rows(50, 3, spread=0.5)
    before = layer(x)
    for change in (lambda: layer.fit_grid(x), lambda: layer.refine(10)):
        with pytest.raises(ValueError, match="computed from other parameters"):
            change()
    assert layer.grid_size == 5
    torch.testing.assert_close(layer(x), before)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_refining_to_a_multiple_changes_nothing(order, factor):
    layer = seeded(3, 4, spline_order=order)
    x = rows(300, 3, spread=0.999)
    before = layer(x)
    layer.refine(5 * factor)
    assert layer.grid_size == 5 * factor
    torch.testing.assert_close(layer(x), before, atol=1e-5, rtol=1e-5)


def test_a_curve_is_its_edge():
    layer = seeded(3, 2)
    x = torch.zeros(50, 3)
    x[:, 1] = torch.linspace(-1.1, 1.1, 50)
    moved = quiet(layer, x)[:, 1] - layer(torch.zeros(1, 3))[0, 1]
    curve = layer.curve(1, 1)
    torch.testing.assert_close(moved, curve(x[:, 1]) - curve(torch.zeros(())), atol=1e-6, rtol=1e-5)


def test_regularization_is_smallest_where_few_edges_are_used():
    layer = seeded(4, 4)
    with torch.no_grad():
        layer.spline_weight.fill_(1.0)
        even = float(layer.regularization())
        assert even == pytest.approx(16 + np.log(16), rel=1e-6)
        layer.spline_weight[1:] = 0
        layer.spline_weight[0, 1:] = 0
        assert float(layer.regularization()) == pytest.approx(1.0)


def test_threads_and_no_threads_agree():
    layer = seeded(7, 9)
    x = rows(3000, 7, spread=0.9).requires_grad_()
    found = []
    held = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = layer(x)
            found.append((y, *torch.autograd.grad((y**2).sum(), [x, layer.weight])))
    finally:
        torch.set_num_threads(held)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert relative(a, b) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"in_features": 0}, "in_features"),
        ({"out_features": 1.5}, "out_features"),
        ({"grid_size": 0}, "grid_size"),
        ({"spline_order": 6}, "spline_order"),
        ({"grid_range": (1.0, 1.0)}, "grid_range"),
        ({"grid_range": (0.0, float("nan"))}, "grid_range"),
        ({"grid_range": 3}, "grid_range"),
        ({"base_activation": "relu"}, "base_activation"),
        ({"base_activation": 3}, "base_activation"),
        ({"basis": "wavelet"}, "basis"),
        ({"out_of_grid": "wrap"}, "out_of_grid"),
        ({"out_of_grid": "clamp", "basis": "rbf"}, "out_of_grid"),
        ({"kernel": "cuda"}, "kernel"),
        ({"kernel": "c", "basis": "rbf"}, "kernel"),
        ({"grid_range": (0.0, 1.0), "basis": "chebyshev"}, "grid_range"),
        ({"dtype": torch.int64}, "dtype"),
    ],
)
def test_arguments_that_mean_nothing_are_refused_by_name(arguments, named):
    with pytest.raises((ValueError, RuntimeError), match=named):
        KANLinear(**{"in_features": 2, "out_features": 3, **arguments})


@pytest.mark.parametrize("kernel", ["c", "torch"])
@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.zeros(3, 5), "2 columns"),
        (torch.zeros(3, 2, dtype=torch.int64), "floating-point"),
        (torch.zeros(3, 2, dtype=torch.float64), "dtype"),
        (np.zeros((3, 2)), "floating-point tensor"),
        (torch.tensor([[0.0, float("nan")]]), "1 of 2 values that are NaN"),
        (torch.tensor([[float("inf"), 0.0]]), "finite"),
        (torch.tensor(1.0), "columns"),
        (torch.zeros(3, 2, device="meta"), "device"),
    ],
)
def test_inputs_that_mean_nothing_are_refused(x, said, kernel, unchecked):
    with pytest.raises(ValueError, match=said):
        KANLinear(2, 3, kernel=kernel)(x)


def test_a_kernel_that_cannot_be_is_refused():
    with pytest.raises(RuntimeError, match="float32 on the CPU"):
        KANLinear(2, 3, kernel="c", dtype=torch.float64)(torch.zeros(1, 2, dtype=torch.float64))


def test_a_network_is_its_layers():
    model = KAN([2, 5, 1], grid_size=4)
    assert [(layer.in_features, layer.out_features) for layer in model] == [(2, 5), (5, 1)]
    x = rows(300, 2) * 5
    model.fit_grid(x)
    model(x)
    assert all(layer.out_of_grid_fraction < 0.02 for layer in model)
    model.refine(8)
    assert model.regularization().item() > 0
    assert isinstance(model[:1], nn.Sequential)
    with pytest.raises(ValueError, match="widths"):
        KAN([3])


def test_what_is_said_of_16_bit_layers_is_computed_in_32():
    layer = seeded(3, 4, grid_size=50)
    narrow = copy.deepcopy(layer).bfloat16()
    wide = copy.deepcopy(narrow).float()
    assert narrow.regularization().dtype == torch.float32
    torch.testing.assert_close(narrow.regularization(), wide.regularization())
    x = rows(200, 1, spread=0.9)[:, 0]
    torch.testing.assert_close(narrow.curve(1, 2)(x), wide.curve(1, 2)(x))


def test_two_wishes_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match="higher_order"):
        KANLinear(2, 3, kernel="c", higher_order=True)


def test_a_state_brings_its_grid():
    """From a device, through 16 bits of weights, into a layer with another range."""
    layer = seeded(3, 2, grid_range=(-0.7, 1.3))
    layer.fit_grid(rows(50, 3))
    other = KANLinear(3, 2)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.grid_lo, layer.grid_lo)
    other.fit_grid(rows(50, 3, spread=0.2))
    assert not torch.equal(other.grid_lo, layer.grid_lo)
    assert layer.bfloat16().grid_hi.dtype == torch.float64
    with pytest.raises(ValueError, match="number of inputs"):
        KANLinear(4, 2).load_state_dict(layer.state_dict())
