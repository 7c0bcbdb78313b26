"""Modules that are linear without being nn.Linear: found by their form, or told of, and tried.

A module qualifies that has `in_features`, `out_features` and a weight of that shape. It is tried with random
inputs: its output at zero is its bias, outputs add up, and, where the weight has numbers, they are x W^T.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

REGISTERED: set[type[nn.Module]] = set()
ROWS = 5


def linear_like(kind: type[nn.Module]) -> type[nn.Module]:
    """Tell of a class of modules that compute x W^T (+ bias), whatever form their weight is kept in.

    Its instances need a `weight` whose shape is (outputs, inputs); a weight on the meta device says only
    that, and the numbers are in the module's buffers. They are tried all the same, and one that turns out
    otherwise is an error. Usable as a decorator.

    Parameters
    ----------
    kind
        The class.

    Returns
    -------
    The class itself.

    Raises
    ------
    TypeError
        If it is no class of modules.
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise TypeError(f"linear_like takes a class of nn.Module, got {kind!r}")
    REGISTERED.add(kind)
    return kind


def is_linear(module: nn.Module) -> bool:
    """Whether a module may be hooked as a linear one.

    Raises
    ------
    ValueError
        If its class is registered and it is not linear.
    """
    registered = isinstance(module, tuple(REGISTERED))
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        problem: str | None = "its weight must be a tensor of shape (outputs, inputs)"
    elif not registered and tuple(weight.shape) != (
        getattr(module, "out_features", None),
        getattr(module, "in_features", None),
    ):
        problem = "its weight must be (out_features, in_features)"
    else:
        problem = _problem(module, weight)
    if problem and registered:
        raise ValueError(
            f"{type(module).__name__} was registered by linear_like and is not linear: {problem}"
        )
    return problem is None


@torch.no_grad()
def _problem(module: nn.Module, weight: Tensor) -> str | None:
    """What is wrong with it, None where it behaves as x W^T (+ bias)."""
    inputs, outputs = weight.shape[1], weight.shape[0]
    bias = getattr(module, "bias", None)
    at = next((b for b in module.buffers() if not b.is_meta), bias if weight.is_meta else weight)
    device = torch.device("cpu") if at is None else at.device
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(ROWS, inputs, generator=generator).to(device, dtype) for _ in range(2))
    try:
        # Without hooks, which may be anybody's, and without a trace in the random numbers.
        with torch.random.fork_rng(devices=[]):
            zero, one, two, both = (module.forward(x) for x in (torch.zeros_like(a), a, b, a + b))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        return f"it fails on inputs of shape ({ROWS}, {inputs}): {error}"
    if not isinstance(zero, Tensor) or zero.shape != (ROWS, outputs):
        return f"its outputs must be of shape ({ROWS}, {outputs})"
    offset = torch.zeros(outputs, device=device, dtype=dtype) if bias is None else bias
    if not _near(zero, offset.expand_as(zero), zero):
        return "its output at zero must be its bias"
    if not _near(both + zero, one + two, one.abs() + two.abs()):
        return "its outputs for two inputs must add up to that for their sum"
    plain = not weight.is_meta and not hasattr(weight, "packed")
    if plain and weight.is_floating_point() and not _near(one, a @ weight.T + offset, one):
        return "its outputs must be x W^T + bias of the weight that it shows"
    return None


def _near(x: Tensor, y: Tensor, scale: Tensor) -> bool:
    eps = torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
    bound = 64 * eps * (1 + float(scale.abs().max()))
    return bool(((x - y).abs() <= bound).all())
