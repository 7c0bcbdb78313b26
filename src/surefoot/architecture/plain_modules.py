"""Plain networks (Select, Linear, activations) as words: what another process builds again."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.architecture.activations import (
    ACTIVATIONS,
    MixedActivation,
    activation_module,
    activation_names,
)
from surefoot.architecture.selection import Select

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def empty_linear(n_in: int, n_out: int, dtype: torch.dtype = torch.float32) -> nn.Linear:
    """A Linear whose entries are still to be written; of 0 inputs too, at which torch's own start warns."""
    # Not through its own __init__ and skip_init either, which takes milliseconds and warns of 0 inputs.
    linear = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(linear)
    linear.in_features, linear.out_features = n_in, n_out
    linear.weight = nn.Parameter(torch.empty(n_out, n_in, dtype=dtype))
    linear.bias = nn.Parameter(torch.empty(n_out, dtype=dtype))
    return linear


def split_plain(module: nn.Module) -> tuple[Select | None, list[nn.Linear], list[nn.Module]]:
    """The parts of a plain network: its Select if there is one, its Linears, what stands between them.

    Raises
    ------
    ValueError
        It is no Sequential of [Select,] Linear, activation, Linear, ..., Linear with biases.
    """
    parts = list(module) if isinstance(module, nn.Sequential) else [module]
    first = parts[0] if parts and isinstance(parts[0], Select) else None
    parts = parts[1:] if first is not None else parts
    linears, between = parts[::2], parts[1::2]
    plain = bool(parts) and len(parts) % 2 == 1 and all(type(p) is nn.Linear for p in linears)
    if not plain or any(isinstance(p, nn.Linear) for p in between):
        raise ValueError(
            "module must be an nn.Sequential of [Select,] Linear, activation, Linear, ..., Linear, "
            f"got {module!r}"
        )
    found = [p for p in linears if isinstance(p, nn.Linear)]
    if any(p.bias is None for p in found):
        raise ValueError("every Linear of module must have a bias")
    if first is not None and len(first.index) != found[0].in_features:
        raise ValueError(
            f"Select gives {len(first.index)} columns, the first Linear reads {found[0].in_features}"
        )
    for a, b in itertools.pairwise(found):
        if a.out_features != b.in_features:
            raise ValueError(
                f"a Linear gives {a.out_features} numbers, the next reads {b.in_features}"
            )
    return first, found, between


@checked
def module_spec(module: nn.Module) -> dict[str, Any]:
    """What `build_module` builds a network of the same shape from: words and numbers that JSON knows.

    Parameters
    ----------
    module : Module
        An `nn.Sequential` of [Select,] Linear, activation, Linear, ..., Linear.

    Returns
    -------
    dict
        select (list of columns or None), n_features (of Select, or None), widths (of every layer, inputs
        first), activations (a list of [name, count] blocks a hidden layer), dtype.

    Raises
    ------
    ValueError
        It is no such network.
    """
    first, linears, between = split_plain(module)
    blocks = []
    for linear, activation in zip(linears, between, strict=False):
        if isinstance(activation, MixedActivation):
            blocks.append(
                [[n, c] for n, c in zip(activation.names, activation.counts, strict=True)]
            )
        else:
            names = activation_names(activation, 1)
            blocks.append([[names[0], linear.out_features]])
    return {
        "select": None if first is None else first.index.tolist(),
        "n_features": None if first is None else first.n_features,
        "widths": [linears[0].in_features, *(p.out_features for p in linears)],
        "activations": blocks,
        "dtype": str(linears[0].weight.dtype).removeprefix("torch."),
    }


@checked
def build_module(spec: Mapping[str, Any]) -> nn.Sequential:
    """A plain network of the shape that `module_spec` wrote; all entries are 0 until a state is loaded.

    Parameters
    ----------
    spec : mapping
        As `module_spec` gives it; JSON between the two changes nothing.

    Returns
    -------
    Sequential
        [Select,] Linear, activation, ..., Linear.

    Raises
    ------
    ValueError
        An entry is missing, unknown, or does not fit the others.
    """
    known = {"select", "n_features", "widths", "activations", "dtype"}
    if not isinstance(spec, Mapping) or set(spec) != known:
        raise ValueError(f"spec must have the entries {sorted(known)}, got {spec!r}")
    dtype = DTYPES[check_choice("dtype", spec["dtype"], DTYPES)]
    widths = [check_number("widths", w, least=0, whole=True) for w in _list("widths", spec)]
    layers = [
        _list("activations", {"activations": blocks}) for blocks in _list("activations", spec)
    ]
    if len(widths) != len(layers) + 2:
        raise ValueError(
            f"spec has {len(layers)} layers of activations and needs {len(layers) + 2} widths, "
            f"got {len(widths)}"
        )
    parts: list[nn.Module] = []
    if spec["select"] is not None:
        parts.append(Select(_list("select", spec), spec["n_features"]))
        if len(spec["select"]) != widths[0]:
            raise ValueError(f"select has {len(spec['select'])} columns, widths {widths[0]} inputs")
    for i, width in enumerate(widths[1:]):
        parts.append(empty_linear(widths[i], width, dtype))
        if i < len(layers):
            names = [
                str(n) for n, c in layers[i] for _ in range(check_number("count", c, whole=True))
            ]
            if len(names) != width or not names:
                raise ValueError(f"layer {i + 1} has {width} neurons and {len(names)} activations")
            for name, _ in layers[i]:
                check_choice("activations", name, ACTIVATIONS)
            parts.append(activation_module(names))
    module = nn.Sequential(*parts)
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    return module


def _list(name: str, spec: Mapping[str, Any]) -> list[Any]:
    value = spec[name]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name} must be a list, got {value!r}")
    return list(value)
