"""One gated network <-> the plain network of its active neurons."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surefoot.architecture._nets.family import Family, shapes
from surefoot.architecture._nets.matrix import Parts
from surefoot.architecture.activations import activation_module, activation_names
from surefoot.architecture.plain_modules import empty_linear, split_plain


def write_plain(parts: Parts, space: Family) -> nn.Sequential:
    """The plain network of one network's tensors (without the batch dimension)."""
    modules: list[nn.Module] = []
    kept = torch.arange(space.n_in, device=parts.weights[0].device)
    for i, w in enumerate(parts.weights):
        hidden = i < len(parts.gates)
        after = (
            _active(parts.gates[i], parts.acts[i], i)
            if hidden
            else torch.arange(space.n_out, device=kept.device)
        )
        linear = empty_linear(len(kept), len(after), w.dtype)
        linear.weight = nn.Parameter(w[kept][:, after].T.contiguous())
        linear.bias = nn.Parameter(parts.biases[i][after].clone())
        modules.append(linear)
        if hidden:
            which = parts.acts[i][after].argmax(-1).tolist()
            modules.append(activation_module(space.activations[k] for k in which))
        kept = after
    return nn.Sequential(*modules)


def _active(gate: Tensor, acts: Tensor, i: int) -> Tensor:
    """The active neurons of a layer, by activation."""
    hard = bool(((gate == 0) | (gate == 1)).all())
    on = gate > 0.5
    one_hot = bool(((acts == 0) | (acts == 1)).all() and (acts.sum(-1) == 1)[on].all())
    if not hard or not one_hot:
        what = "gates" if not hard else "acts"
        raise ValueError(
            f"{what} of hidden layer {i + 1} must be {'0 or 1' if not hard else 'one-hot'} to write a "
            "plain network; decode with hard=True"
        )
    if not on.any():
        raise ValueError(
            f"hidden layer {i + 1} has no active neuron: the network is a constant, and no layer may be empty"
        )
    found = on.nonzero()[:, 0]
    return found[acts[found].argmax(-1).argsort(stable=True)]


def read_plain(module: nn.Module, space: Family) -> Parts:
    """A plain network's tensors in the shapes of a space, as a batch of one."""
    first, linears, between = split_plain(module)
    depth = len(between)
    widths = [p.out_features for p in linears[:-1]]
    names = [activation_names(m, w) for m, w in zip(between, widths, strict=True)]
    inputs = first.n_features if first is not None else linears[0].in_features
    read = [] if first is None else first.index.tolist()
    if not 1 <= depth <= space.max_depth:
        raise ValueError(f"module must have 1 to {space.max_depth} hidden layers, got {depth}")
    if (inputs is not None and inputs != space.n_in) or max(read, default=0) >= space.n_in:
        raise ValueError(f"module must have {space.n_in} inputs, got {inputs or max(read) + 1}")
    if linears[-1].out_features != space.n_out:
        raise ValueError(f"module must have {space.n_out} outputs, got {linears[-1].out_features}")
    if max(widths) > space.max_width:
        raise ValueError(f"module must be at most {space.max_width} wide, got {max(widths)}")
    missing = {n for layer in names for n in layer} - set(space.activations)
    if missing:
        raise ValueError(
            f"activations of module must be of {space.activations}, got {sorted(missing)}"
        )
    parts = Parts([], [], [], [])
    for i, ((n_in, n_out), linear) in enumerate(zip(shapes(space, depth), linears, strict=True)):
        like = linear.weight.detach()
        w, b = like.new_zeros(1, n_in, n_out), like.new_zeros(1, n_out)
        rows = (
            torch.tensor(read, dtype=torch.int64)
            if i == 0 and first is not None
            else torch.arange(like.shape[1])
        )
        # Added, as a Select may read a column twice.
        w[0, :, : like.shape[0]].index_add_(0, rows.to(like.device), like.T)
        b[0, : like.shape[0]] = linear.bias.detach()
        parts.weights.append(w)
        parts.biases.append(b)
        if i < depth:
            gate, acts = like.new_zeros(1, n_out), like.new_zeros(1, n_out, len(space.activations))
            gate[0, : like.shape[0]] = 1
            acts[..., 0] = 1
            for j, name in enumerate(names[i]):
                acts[0, j] = 0
                acts[0, j, space.activations.index(name)] = 1
            parts.gates.append(gate)
            parts.acts.append(acts)
    return parts
