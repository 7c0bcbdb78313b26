"""Every transform of torch: the same numbers as the plain road, or a refusal by name; never a silent zero."""

import copy
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from tests.kan.test_layer import relative, rows, seeded
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from surefoot.kan import KANLinear

# torch's own, on the first use of forward mode.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


@pytest.fixture(params=["c", "torch"])
def pair(request):
    """The layer as a user has it, and the same in torch's operations alone."""
    layer = seeded(6, 4, kernel=request.param, bias=True)
    plain = copy.deepcopy(layer)
    plain.kernel, plain.higher_order = "auto", True
    return layer, plain


X = rows(32, 6, spread=0.9, seed=4)


def same(a, b, tolerance=2e-6):
    assert b.abs().max() > 0
    assert relative(a, b) < tolerance


def one(layer):
    return lambda z: layer(z[None])[0]


def test_vmap_over_inputs_and_over_stacked_weights(pair):
    layer, plain = pair
    same(vmap(one(layer))(X), plain(X))
    stacked = torch.stack([layer.weight.detach() * k for k in (1.0, 2.0, -0.5)])
    found = vmap(lambda w: functional_call(layer, {"weight": w}, (X,)))(stacked)
    expected = torch.stack([functional_call(plain, {"weight": w}, (X,)) for w in stacked])
    same(found, expected)


def test_jacobians_of_both_modes_and_hessians(pair):
    layer, plain = pair
    x = X[0]
    z = x.clone().requires_grad_()
    each = [torch.autograd.grad(plain(z[None])[0, k], z)[0] for k in range(4)]
    expected = torch.stack(each)
    same(jacrev(one(layer))(x), expected)
    same(jacfwd(one(layer))(x), expected)

    def total(module):
        return lambda z: module(z[None]).sum()

    curved = torch.autograd.functional.hessian(total(plain), x)
    same(hessian(total(layer))(x), curved)


def test_forward_mode_is_no_zero(pair):
    """A custom operator with a backward formula and no forward one answers 0 here, without a word."""
    layer, _ = pair
    along = rows(32, 6, seed=9)
    _, tangent = jvp(layer, (X,), (along,))
    x = X.clone().requires_grad_()
    y = layer(x)
    expected = torch.stack(
        [(torch.autograd.grad(y[:, k].sum(), x, retain_graph=True)[0] * along).sum(1) for k in range(4)], 1
    )  # fmt: skip
    same(tangent, expected)


def test_a_dual_tensor_outside_torch_func_is_refused_or_right(pair):
    layer, _ = pair
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(X, torch.ones_like(X))
        with pytest.raises((NotImplementedError, RuntimeError), match=r"(?i)forward|jvp"):
            layer(dual)


def test_gradients_of_each_sample(pair):
    layer, plain = pair
    own = {k: p.detach() for k, p in layer.named_parameters()}
    each = vmap(grad(lambda p, z: functional_call(layer, p, (z[None],)).square().sum()), (None, 0))(
        own, X
    )
    plain(X).square().sum().backward()
    same(each["weight"].sum(0), plain.weight.grad)


def test_checkpointing_runs_twice_and_counts_the_same_share(pair):
    layer, plain = pair
    x, z = (X.clone().mul(1.15).requires_grad_() for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        layer(x.detach())
        share = layer.out_of_grid_fraction
        checkpoint(layer, x, use_reentrant=False).square().sum().backward()
    plain(z).square().sum().backward()
    assert share > 0
    assert layer.out_of_grid_fraction == pytest.approx(share)
    same(x.grad, z.grad)


def test_inference_mode_and_four_threads_at_once(pair):
    layer, plain = pair
    expected = plain(X)
    with torch.inference_mode():
        same(layer(X), expected)
    found = {}

    def work(k):
        with torch.no_grad():
            found[k] = [layer(X * (1 - 0.01 * k)) for _ in range(50)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for k, results in found.items():
        for y in results:
            same(y, plain(X * (1 - 0.01 * k)))
    same(layer(X), expected)


def test_on_the_meta_device_shapes_alone_are_computed():
    layer = KANLinear(6, 4, device="meta")
    assert layer(torch.empty(3, 6, device="meta")).shape == (3, 4)
    assert layer(torch.empty(3, 6, device="meta")).device.type == "meta"


def test_a_tracer_sees_the_operations(pair):
    """To a tracer the result of a kernel is a constant."""
    layer, plain = pair
    other = rows(32, 6, spread=0.9, seed=8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(torch.jit.trace(layer, (X,), check_trace=False)(other), plain(other))
        same(make_fx(layer)(X)(other), plain(other))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert layer(mode.from_tensor(X)).shape == (32, 4)


def test_a_subclass_of_tensor_goes_through(pair):
    class Own(torch.Tensor):
        pass

    layer, plain = pair
    same(layer(X.as_subclass(Own)).as_subclass(torch.Tensor), plain(X))


def loads_elsewhere(folder):
    """Run what was exported in a process that never imports surefoot."""
    script = (
        "import sys, torch; program = torch.export.load('layer.pt2');"
        "x, y = torch.load('data.pt');"
        "assert 'surefoot' not in sys.modules;"
        "assert (program.module()(x) - y).abs().max() < 1e-5"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.acceptance
def test_an_exported_layer_runs_where_surefoot_is_not(tmp_path):
    layer = seeded(6, 4)
    batch = torch.export.Dim("batch", min=1, max=512)
    program = torch.export.export(layer, (X,), dynamic_shapes=({0: batch},), strict=False)
    assert not [n for n in program.graph.nodes if "surefoot" in str(n.target)]
    torch.export.save(program, tmp_path / "layer.pt2")
    torch.save((X[:5], layer(X[:5]).detach()), tmp_path / "data.pt")
    loads_elsewhere(tmp_path)


@pytest.mark.acceptance
@pytest.mark.parametrize("what", ["whole", "transforms", "twice", "export"])
@pytest.mark.parametrize("kernel", ["c", "torch"])
def test_under_torch_compile(what, kernel, tmp_path):
    """In a process of its own: the checks of shapes in these tests are nothing that torch can trace."""
    script = Path(__file__).with_name("compiled.py")
    command = [sys.executable, "-W", "ignore", str(script), what, kernel]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if what == "export":
        loads_elsewhere(tmp_path)
