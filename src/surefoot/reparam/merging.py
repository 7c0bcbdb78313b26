"""From a model of branches to the plain one: multipliers, merged states, conversion."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.seeds import generator_for
from surefoot._numerics.sizes import wide
from surefoot.reparam._block.branches import IDENTITY, draw_kernel
from surefoot.reparam.block import Mode, ReparamConv2d, check_scales, no_scales
from surefoot.reparam.scales import Scales


def blocks(model: nn.Module) -> Iterator[tuple[str, ReparamConv2d]]:
    """The re-parametrised blocks of a model by their paths; a block alone has path ""."""
    for name, module in model.named_modules():
        if isinstance(module, ReparamConv2d):
            yield name, module


def linear_blocks(model: nn.Module) -> list[tuple[str, ReparamConv2d]]:
    """The blocks, all of them in mode "hs" or "csla".

    Raises
    ------
    TypeError
        A block of another mode: "rep" has a BatchNorm inside its branches, "plain" has no branches.
    ValueError
        No block at all.
    """
    found = list(blocks(model))
    if not found:
        raise ValueError(f"{type(model).__name__} has no ReparamConv2d block")
    for name, block in found:
        if block.mode not in ("hs", "csla"):
            raise TypeError(f"block {name or 'itself'}: {no_scales(block.mode)}")
    return found


def _path(block: str, name: str) -> str:
    return f"{block}.{name}" if block else name


@checked
def grad_mults(model: nn.Module) -> dict[str, Float[Tensor, "..."]]:
    """M = sum_j E_j(s_j^2): the constant gradient multipliers, by the plain model's parameter names.

    The identity adds 1, its own constant scale, not a^2: in the reference a is trained [authors' code,
    checked by the equivalence]. A merged bias has sum_j s_j^2. (arXiv 2205.15242, section 3.3.)
    """
    found = {}
    for name, block in linear_blocks(model):
        parts = torch.stack(block.embedded_scales())
        found[_path(name, "conv.weight")] = wide(parts).square().sum(0).to(parts.dtype)
        if block.has_bias:
            scales = torch.stack([block.scale(b).detach() for b in block.convolutions])
            found[_path(name, "conv.bias")] = wide(scales).square().sum(0).to(scales.dtype)
    return found


@checked
def branch_scales(model: nn.Module) -> dict[str, list[Float[Tensor, "..."]]]:
    """[S_1, ..., S_B] with S_j = E_j(s_j), by the plain model's parameter names: for `RepAdamW`."""
    found = {}
    for name, block in linear_blocks(model):
        found[_path(name, "conv.weight")] = block.embedded_scales()
        if block.has_bias:
            found[_path(name, "conv.bias")] = [block.scale(b).detach() for b in block.convolutions]
    return found


def merge_values(
    model: nn.Module, value_of: Callable[[str, Tensor], Tensor]
) -> dict[str, Float[Tensor, "..."]]:
    """Anything that belongs to the parameters of a CSLA model, merged as the parameters are.

    `value_of(name, parameter)` gives it: the parameter itself, its momentum, its gradient times -lr.
    """
    inside = dict(linear_blocks(model))
    found: dict[str, Tensor] = {}
    taken: set[str] = set()
    for name, block in inside.items():
        parts = {}
        for branch in block.convolutions:
            key = _path(name, f"kernels.{branch}")
            parts[branch] = value_of(key, block.kernels[branch].detach())
            taken.add(key)
        if IDENTITY in block.branches:
            key = _path(name, "identity")
            parts[IDENTITY] = value_of(key, block.identity.detach())
            taken.add(key)
        found[_path(name, "conv.weight")] = block.merge(parts)
        if block.has_bias:
            keys = {b: _path(name, f"biases.{b}") for b in block.convolutions}
            taken.update(keys.values())
            found[_path(name, "conv.bias")] = block.merge_bias(
                {b: value_of(k, block.biases[b].detach()) for b, k in keys.items()}
            )
        taken.update(_path(name, f"scale_{b}") for b in block.convolutions)
    for key, parameter in model.named_parameters():
        if key not in taken:
            found[key] = value_of(key, parameter.detach())
    return found


@checked
def merge_state(csla_model: nn.Module) -> dict[str, Float[Tensor, "..."]]:
    """The state_dict of the plain model that computes the same function; tensors are copies."""
    merged = merge_values(csla_model, lambda name, value: value.clone())
    of_branches = tuple(
        _path(name, part)
        for name, _ in blocks(csla_model)
        for part in ("identity", "kernels.", "biases.", "scale_")
    )
    for key, value in csla_model.state_dict().items():
        if key not in merged and not key.startswith(of_branches):
            merged[key] = value.detach().clone()
    return merged


@checked
def convert_to_plain(
    model: nn.Module, scales: Scales | None = None, seed: int | None = 0
) -> tuple[nn.Module, dict[str, Float[Tensor, "..."]]]:
    """The plain model that a device trains, and its gradient multipliers.

    Parameters
    ----------
    model
        In mode "hs" or "csla"; it is not touched.
    scales
        Of the hyper-search; None: the model's own.
    seed
        An int: the rule of initialisation (every branch drawn by its own default law, then merged;
        a from the scales). None: merge the model's own branches, the function stays the same.

    Raises
    ------
    KeyError, ValueError
        Scales that miss a block or branch, or are of a wrong length; the block is named.
    RuntimeError
        `seed` is an int and a norm's weight is not 1: re-initialising a trained network destroys it.
    """
    csla = convert_to_csla(model, scales, seed)
    plain = _replaced(csla, "plain", scales=False)
    plain.load_state_dict(merge_state(csla))
    return plain, grad_mults(csla)


@checked
def convert_to_csla(
    model: nn.Module, scales: Scales | None = None, seed: int | None = 0
) -> nn.Module:
    """The multi-branch reference with constant scales that `convert_to_plain` follows.

    Same arguments, same branch kernels: the authors' own reference loads no scales and draws kernels of
    its own, and is therefore not the network that the plain one follows.

    Parameters
    ----------
    model, scales, seed
        As for `convert_to_plain`.

    Returns
    -------
    nn.Module
        A deep copy in mode "csla".
    """
    linear_blocks(model)
    csla = _replaced(model, "csla", scales=True, given=scales)
    if seed is not None:
        reinitialise(csla, seed, scales)
    return csla


def reinitialise(csla: nn.Module, seed: int, scales: Scales | None = None) -> None:
    """The rule of initialisation, in place: default laws for every branch, a from the scales.

    One generator a block, seeded by (seed, path): the draws do not depend on what else is in the
    network. Norms and heads stay as they are.
    """
    for name, block in linear_blocks(csla):
        weight = getattr(block.norm, "weight", None)
        if weight is not None and not bool((weight == 1).all()):
            raise RuntimeError(
                f"the norm of block {name or 'itself'} has a weight other than 1, so the model is "
                "trained: re-initialising destroys it; pass seed=None to keep its function"
            )
        generator = generator_for(seed, name)
        with torch.no_grad():
            for branch in block.convolutions:
                kernel = block.kernels[branch]
                kernel.copy_(draw_kernel(tuple(kernel.shape), generator, kernel.dtype))
            for branch in block.convolutions if block.has_bias else ():
                _, channels, side, _ = block.kernel_shape(branch)
                shape = (block.out_ch, channels * side * side)
                bias = block.biases[branch]
                bias.copy_(draw_kernel(shape, generator, bias.dtype)[:, 0])
            if IDENTITY in block.branches and scales is not None:
                block.identity.copy_(scales[name][IDENTITY])


def _replaced(
    model: nn.Module,
    mode: Mode,
    *,
    scales: bool,
    given: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> nn.Module:
    """A deep copy with every block in another mode; norms are kept, kernels where both have them."""
    model = copy.deepcopy(model)
    for name, block in list(blocks(model)):
        if given is not None:
            if name not in given:
                raise KeyError(
                    f"the scales lack block {name or 'itself'!r}; there are {sorted(given)}"
                )
            values = check_scales(
                given[name],
                block.branches,
                block.out_ch,
                _dtype(block),
                f"block {name or 'itself'!r}",
            )
        else:
            values = block.scales()
        new = ReparamConv2d(
            block.in_ch, block.out_ch, block.kernel_size, block.stride, block.groups,
            block.branches, mode, values if scales else None, index=block.index,
            bias=block.has_bias, norm=block.norm_kind, activation=block.activation,
            generator=torch.Generator(), dtype=_dtype(block),
        )  # fmt: skip
        new = new.to(next(block.parameters()).device)
        new.norm = block.norm
        if mode == "csla":
            own = block.state_dict()
            new.load_state_dict(
                {
                    k: own[k] if not k.startswith("scale_") else v
                    for k, v in new.state_dict().items()
                }
            )
        for own_parameter in new.parameters():
            own_parameter.requires_grad_(True)
        new.train(block.training)
        if name:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, new)
        else:
            model = new
    return model


def _dtype(block: ReparamConv2d) -> torch.dtype:
    return next(block.parameters()).dtype
