"""Norms and sums of 16-bit numbers, wherever one is taken, are those of the numbers in float64."""

import ast
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import surefoot
from surefoot import watch
from surefoot._numerics.curvature import (
    hutchinson_trace,
    lanczos,
    largest_eigenpair,
    power_iteration,
)
from surefoot._numerics.sizes import norm_of, wide, wide_dtype
from surefoot.nesterov._ledger.lyapunov import dot
from surefoot.nesterov._probe.noise import noise_from_batches
from surefoot.privacy.canaries import _check_canaries
from surefoot.privacy.probe import gradient_drift
from surefoot.reparam import ReparamConv2d, RepSGD, clip_csla_norm_, grad_mults
from surefoot.reparam.task import effective_lr
from surefoot.zeroth_order.probe import gradient_noise

# float16 cannot square the large one, or sees nothing of the small one; bfloat16 loses the sum.
CASES = {
    "large": (torch.float16, 300.0, 4), "small": (torch.float16, 1e-4, 10**6),
    "many": (torch.bfloat16, 1.0, 5000), "half": (torch.float16, 60000.0, 2),
}  # fmt: skip
cases = pytest.mark.parametrize("case", CASES)


def numbers(case):
    dtype, value, n = CASES[case]
    return torch.full((n,), value, dtype=dtype)


def close(value, expected, rel=1e-4):
    assert float(value) == pytest.approx(float(expected), rel=rel)


@cases
def test_clipping_by_the_multi_branch_norm(case):
    g = numbers(case)
    parameter = nn.Parameter(torch.zeros_like(g))
    optimizer = RepSGD([parameter], lr=0.1, grad_mults={parameter: torch.full_like(g, 4.0)})
    parameter.grad = g.clone()
    expected = 2 * g.double().norm()
    close(clip_csla_norm_(optimizer, float(expected) / 2), expected)
    assert parameter.grad.dtype == g.dtype
    close(parameter.grad.double().norm(), g.double().norm() / 2, rel=1e-2)


@cases
def test_what_watch_records(case):
    g = numbers(case)
    model = nn.ParameterList([nn.Parameter(g.clone()), nn.Parameter(torch.zeros(2))])
    optimizer = torch.optim.SGD(model, lr=0.0)
    model[0].grad = g.clone()
    with watch(model, optimizer, probes=("gradient_norm", "parameter_norm"), every=1) as found:
        found.log(loss=0.0)
        optimizer.step()
    for name in ("gradient_norm", "parameter_norm"):
        close(found.record[name][0, 0], g.double().norm())


@cases
def test_helpers(case):
    g = numbers(case)
    close(norm_of([g, torch.zeros(3, dtype=g.dtype)]), g.double().norm())
    close(dot(g, g), g.double().square().sum(), rel=1e-3)
    close(wide(g).sum(), g.double().sum(), rel=1e-3)
    assert norm_of([]) == 0
    for dtype in (torch.float32, torch.float64, torch.int64, torch.complex64):
        assert wide_dtype(dtype) == dtype


@cases
def test_noise_of_gradients(case):
    dtype, value, n = CASES[case]
    batches = torch.zeros(8, min(n, 5000), dtype=dtype)
    batches[::2] = value
    exact = batches.double()
    expected = (exact - exact.mean(0)).square().sum() / 7
    close(gradient_noise(batches), expected)
    close(noise_from_batches(batches, 1).V, expected)
    found = gradient_drift(torch.stack([numbers(case), numbers(case) / 2]), clip=float("1e9"))
    close(found.cosines[1], 1.0)
    close(found.norms[0], numbers(case).double().norm() / 1e9)


@cases
def test_curvature_of_operators_on_16_bits(case):
    dtype = CASES[case][0]
    diagonal = torch.linspace(1, 60, 40).to(dtype)

    def product(v):
        assert v.dtype == dtype
        return diagonal * v

    g = torch.Generator().manual_seed(0)
    exact = diagonal.double()
    trace, _ = hutchinson_trace(product, 40, 3, generator=g, dtype=dtype)
    close(trace, exact.sum(), rel=1e-3)
    low, high = lanczos(product, 40, 40, generator=g, dtype=dtype)
    close(high.value, exact.max(), rel=2e-2)
    close(power_iteration(product, torch.ones(40, dtype=dtype), 60).value, exact.max(), rel=2e-2)
    close(largest_eigenpair(product, torch.ones(40, dtype=dtype), 40)[0].value, 60, rel=2e-2)
    assert low.value < 2


@cases
def test_multipliers_and_rates_of_16_bit_networks(case):
    dtype = CASES[case][0]
    block = ReparamConv2d(
        2, 2, branches=("kxk", "1x1"), scales={k: torch.full((2,), 0.1) for k in ("kxk", "1x1")}
    ).to(dtype)
    s = float(torch.tensor(0.1, dtype=dtype))
    found = next(iter(grad_mults(block).values()))
    assert found.dtype == dtype
    assert float(found[0, 0, 1, 1]) == float(torch.tensor(2 * s * s, dtype=dtype))
    plain = ReparamConv2d(64, 4, mode="plain").to(dtype)
    with torch.no_grad():
        plain.conv.weight.fill_(1e-4)
    weight = float(torch.tensor(1e-4, dtype=dtype))
    close(effective_lr(plain, 1.0, {}), 1 / (weight**2 * 64 * 9), rel=1e-3)


@cases
def test_canaries_longer_than_one_are_refused(case):
    dtype = CASES[case][0]
    canaries = torch.full((1, 6000), 2.0**-6, dtype=dtype)  # of norm 1.21
    with pytest.raises(ValueError, match="norm at most 1"):
        _check_canaries(canaries, torch.tensor([True]), 6000, 0.1)


WIDENED = re.compile(r"double\(|wide\(|float64|\.float\(|float32")
SIZES = {"norm", "vector_norm", "_foreach_norm", "square", "pow", "dot"}
# Where the numbers are float64 or float32 by construction, or no sum is taken of the squares.
KNOWN = {
    "barycenter", "data", "report", "_verdict", "_problems", "experiments", "privacy/_curves",
    "privacy/standard", "privacy/_numerics", "nesterov/_probe/projection.py", "nesterov/oracle.py",
    "lora/_block/compress.py", "lora/_block/rounding.py", "lora/reference.py", "reparam/adam.py",
    "reparam/block.py",
    "reparam/_optimizer/parameters.py", "federated/server_rule.py", "_numerics/curvature.py",
    "privacy/probe.py", "privacy/canaries.py", "lora/bounds.py", "lora/probe.py", "zeroth_order/probe.py",
    "zeroth_order/result.py", "nesterov/ledger.py", "kan/_edges", "kan/_two_layer", "kan/two_layer.py",
    "kan/physics.py", "kan/local_rate.py", "kan/monitoring.py", "kan/spectrum.py", "kan/forecasting.py",
    "zeroth_order/_engine/kept.py", "zeroth_order/_engine/paired/serving.py", "zeroth_order/quality.py",
    "zeroth_order/_engine/private_sum.py", "zeroth_order/_engine/weighed.py", "privacy/audit/canary_alone.py",
    "reparam/doors/opacus_branches.py",
    "kan/doors/sklearn.py", "in_context", "prototypes/_baselines", "architecture",
}  # fmt: skip


def test_nobody_else_squares_in_the_dtype_of_a_parameter():
    """A new call of these names must say in what it squares, or be looked at and named here."""
    root = Path(surefoot.__path__[0])
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if any(name.startswith(k) or f"/{k}/" in name for k in KNOWN):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in SIZES:
                text = ast.unparse(node)
                if not WIDENED.search(text):
                    found.append(f"{name}:{node.lineno} {text}")
    assert found == []
