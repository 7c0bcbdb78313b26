"""Physically small networks: plain modules to arrays and back, sliced to a fixed point."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot.architecture._fit.network import Network
from surefoot.architecture._fit.slicing import sliced
from surefoot.architecture.activations import activation_module, activation_names
from surefoot.architecture.plain_modules import empty_linear, split_plain
from surefoot.architecture.selection import Select


def network_of(module: nn.Module) -> Network:
    """The arrays of a plain network, in float64.

    Parameters
    ----------
    module : Module
        nn.Sequential of [Select,] Linear, activation, ..., Linear.

    Raises
    ------
    ValueError
        It is no such network.
    """
    select, linears, between = split_plain(module)
    names = [
        activation_names(a, linear.out_features)
        for a, linear in zip(between, linears, strict=False)
    ]
    index = np.arange(linears[0].in_features) if select is None else _array(select.index)
    return Network(
        index,
        tuple(_array(p.weight.to(torch.float64)) for p in linears),
        tuple(_array(p.bias.to(torch.float64)) for p in linears),
        tuple(tuple(n) for n in names),
    )


def _array(t: Tensor) -> np.ndarray:
    return np.asarray(t.detach().cpu().numpy()).copy()


def module_of(
    network: Network, n_features: int, dtype: torch.dtype = torch.float64
) -> nn.Sequential:
    """The plain network of arrays: a Select first where not every column is read in its order.

    Parameters
    ----------
    network
        Its numbers.
    n_features
        Columns of x.
    dtype
        Of the Linears.
    """
    parts: list[nn.Module] = []
    if not np.array_equal(network.inputs, np.arange(n_features)):
        parts.append(Select(network.inputs.tolist(), n_features))
    for i, (w, b) in enumerate(zip(network.weights, network.biases, strict=True)):
        linear = empty_linear(w.shape[1], w.shape[0], dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w))
            linear.bias.copy_(torch.from_numpy(b))
        parts.append(linear)
        if i < network.depth:
            parts.append(activation_module(network.activations[i]))
    return nn.Sequential(*parts)


@checked
def compact(module: nn.Module) -> nn.Sequential:
    """The same function as a smaller plain network, in the same dtype.

    Neurons without an outgoing weight are dropped; those without an incoming one are constants, which go into
    the next bias; inputs that nobody reads are dropped through a `Select`. All to a fixed point.

    Parameters
    ----------
    module : Module
        nn.Sequential of [Select,] Linear, activation, ..., Linear, with zeros where weights were pruned.

    Returns
    -------
    Sequential
        With tensors of its own; x keeps all its columns.

    Raises
    ------
    ValueError
        It is no such network.
    """
    select, linears, _ = split_plain(module)
    n_features = linears[0].in_features
    if select is not None:
        # Without its number of columns a Select says only which is the last that it reads.
        known = select.n_features
        n_features = known if known is not None else max(select.index.tolist(), default=-1) + 1
    return module_of(sliced(network_of(module)), n_features, linears[0].weight.dtype)


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Stored numbers of a module, and how many of them are not zero."""
    entries = [p.detach() for p in module.parameters()]
    return sum(p.numel() for p in entries), sum(int(torch.count_nonzero(p)) for p in entries)
