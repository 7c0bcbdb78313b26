"""A block of parallel linear branches in its four modes (arXiv 2409.15898; arXiv 2205.15242).

The symbols: W_j the kernel of branch j, s_j its constant per-channel scale, a the trainable
per-channel scale of the identity branch, E_j the embedding into the largest kernel. In mode "csla"
(constant-scale linear addition) the block is norm(sum_j s_j * (W_j * x) + a x), then an activation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.reparam._block.branches import (
    FULL,
    IDENTITY,
    draw_kernel,
    embed,
    embed_identity,
    initial_scale,
    side_of,
)

Mode = Literal["hs", "csla", "plain", "rep"]
Norm = Literal["bn", "group_norm", "none"]
Activation = Literal["relu", "silu", "none"]
NON_LINEAR = "per-branch BN is non-linear"


@checked
class ReparamConv2d(nn.Module):
    """Parallel convolutions with the same input, their sum normalised and activated.

    Parameters
    ----------
    in_ch, out_ch, kernel_size, stride, groups
        Of the largest convolution; padding keeps the size. `kernel_size` is odd.
    branches
        "kxk" (needed), any "NxN" with odd N < k, "identity". The identity applies only where
        in_ch == out_ch and stride == 1, and is left out elsewhere, as in RepVGG.
    mode
        "hs": scales are trained (hyper-search); "csla": they are constant; "plain": one convolution,
        what a device trains; "rep": every branch with a BatchNorm of its own (RepVGG's structure).
    scales
        {branch: tensor of length out_ch}; "identity" holds a. None: sqrt(2/index), 1 for index 0.
    index
        Place of the block in its stage, from 0; only the initial scales depend on it.
    bias
        A bias in each convolution; merged, it is sum_j s_j b_j.
    norm, activation
        After the sum. "group_norm" keeps no running statistics.
    generator
        Of the initial kernels, on the CPU.
    dtype
        Of all parameters; torch's default by default.

    Raises
    ------
    KeyError
        A branch lacks its scale.
    ValueError
        Even kernels, unknown branches, modes, norms or activations, scales of a wrong length, groups that
        do not divide.
    """

    def __init__(
        self,
        in_ch: int,
        out_ch: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        branches: Sequence[str] = (FULL, "1x1", IDENTITY),
        mode: Mode = "csla",
        scales: Mapping[str, Tensor] | None = None,
        *,
        index: int = 0,
        bias: bool = False,
        norm: Norm = "bn",
        activation: Activation = "relu",
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_choice("mode", mode, get_args(Mode))
        check_choice("norm", norm, get_args(Norm))
        check_choice("activation", activation, get_args(Activation))
        in_ch = check_number("in_ch", in_ch, least=1, whole=True)
        out_ch = check_number("out_ch", out_ch, least=1, whole=True)
        kernel_size = check_number("kernel_size", kernel_size, whole=True)
        groups = check_number("groups", groups, whole=True)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that branches centre, got {kernel_size}")
        if groups < 1 or in_ch % groups or out_ch % groups:
            raise ValueError(f"groups must divide {in_ch} and {out_ch} channels, got {groups}")
        stride = check_number("stride", stride, least=1, whole=True)
        index = check_number("index", index, least=0, whole=True)
        names: Any = branches
        if isinstance(names, str | bytes) or not isinstance(names, Iterable):
            raise ValueError(f"branches must be a sequence of names, got {names!r}")
        for branch in names:
            if not isinstance(branch, str):
                raise ValueError(f"branches must be names, got {branch!r}")
            side_of(branch, kernel_size)
        if FULL not in branches or len(set(branches)) != len(branches):
            raise ValueError(f"branches must hold 'kxk' and no name twice, got {tuple(branches)}")
        self.in_ch, self.out_ch = in_ch, out_ch
        self.kernel_size, self.stride, self.groups = kernel_size, stride, groups
        self.index, self.mode, self.has_bias = index, mode, bias
        self.norm_kind, self.activation = norm, activation
        square = in_ch == out_ch and stride == 1
        self.branches = tuple(b for b in branches if b != IDENTITY or square)
        self.convolutions = tuple(b for b in self.branches if b != IDENTITY)
        dtype = dtype or torch.get_default_dtype()
        values = self._checked_scales(scales, dtype)
        # Drawn in every mode and in one order, so that modes with one generator agree.
        kernels = {
            b: draw_kernel(self.kernel_shape(b), generator, dtype) for b in self.convolutions
        }
        biases = (
            {b: draw_kernel((out_ch, self._fan_in(b)), generator, dtype)[:, 0] for b in kernels}
            if bias
            else {}
        )
        if mode == "plain":
            self.conv = nn.Conv2d(
                in_ch, out_ch, kernel_size, stride, kernel_size // 2, 1, groups, bias, dtype=dtype
            )
            with torch.no_grad():
                self.conv.weight.copy_(kernels[FULL])
                if self.conv.bias is not None:
                    self.conv.bias.copy_(biases[FULL])
        else:
            self.kernels = nn.ParameterDict({b: nn.Parameter(k) for b, k in kernels.items()})
            self.biases = nn.ParameterDict({b: nn.Parameter(v) for b, v in biases.items()})
        if mode in ("hs", "csla"):
            for branch in self.convolutions:
                if mode == "hs":
                    self.register_parameter(f"scale_{branch}", nn.Parameter(values[branch]))
                else:
                    self.register_buffer(f"scale_{branch}", values[branch])
            if IDENTITY in self.branches:
                self.identity = nn.Parameter(values[IDENTITY])
        if mode == "rep":
            self.norms = nn.ModuleDict(
                {b: normalisation("bn", out_ch, dtype) for b in self.branches}
            )
            self.norm: nn.Module = nn.Identity()
        else:
            self.norm = normalisation(norm, out_ch, dtype)

    def kernel_shape(self, branch: str) -> tuple[int, int, int, int]:
        """(Co, Ci/g, n, n) of a branch."""
        side = side_of(branch, self.kernel_size)
        return self.out_ch, self.in_ch // self.groups, side, side

    def _fan_in(self, branch: str) -> int:
        _, channels, side, _ = self.kernel_shape(branch)
        return channels * side * side

    def _checked_scales(
        self, scales: Mapping[str, Tensor] | None, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        if scales is None:
            start = {b: initial_scale(self.index) for b in self.convolutions} | {IDENTITY: 1.0}
            return {b: torch.full((self.out_ch,), v, dtype=dtype) for b, v in start.items()}
        return check_scales(scales, self.branches, self.out_ch, dtype, "the block")

    def scale(self, branch: str) -> Float[Tensor, " co"]:
        """s_j, or a for the identity.

        Raises
        ------
        TypeError
            The mode has no scales ("plain", "rep").
        """
        if self.mode not in ("hs", "csla"):
            raise TypeError(no_scales(self.mode))
        found: Tensor = self.identity if branch == IDENTITY else getattr(self, f"scale_{branch}")
        return found

    def scales(self) -> dict[str, Float[Tensor, " co"]]:
        """All scales, detached copies."""
        return {b: self.scale(b).detach().clone() for b in self.branches}

    def merge(
        self, values: Mapping[str, Float[Tensor, "*kernel"]]
    ) -> Float[Tensor, "co channels k k"]:
        """sum_j E_j(s_j v_j), where v_j is W_j or anything of its shape; the identity's v is of length Co."""
        terms = []
        for branch in self.branches:
            if branch == IDENTITY:
                terms.append(
                    embed_identity(values[branch], self.in_ch // self.groups, self.kernel_size)
                )
            else:
                scale = self.scale(branch).detach()[:, None, None, None]
                terms.append(embed(scale * values[branch], self.kernel_size))
        return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]

    def merge_bias(self, values: Mapping[str, Float[Tensor, " co"]]) -> Float[Tensor, " co"]:
        """sum_j s_j b_j."""
        parts = [self.scale(b).detach() * values[b] for b in self.convolutions]
        return torch.stack(parts).sum(0)

    def embedded_scales(self) -> list[Float[Tensor, "co channels k k"]]:
        """S_j = E_j(s_j 1) for every branch, signed; the identity's is 1, not a."""
        found = []
        for branch in self.branches:
            if branch == IDENTITY:
                ones = torch.ones_like(self.identity.detach())
                found.append(embed_identity(ones, self.in_ch // self.groups, self.kernel_size))
            else:
                ones = torch.ones_like(self.kernels[branch].detach())
                scale = self.scale(branch).detach()[:, None, None, None]
                found.append(embed(scale * ones, self.kernel_size))
        return found

    def forward(self, x: Float[Tensor, "n ci h w"]) -> Float[Tensor, "n co h2 w2"]:
        """The block's output."""
        if self.mode == "plain":
            y = self.conv(x)
        else:
            y = None
            for branch in self.branches:
                term = self._branch(branch, x)
                y = term if y is None else y + term
        y = self.norm(y)
        if self.activation == "relu":
            return torch.relu(y)
        return nn.functional.silu(y) if self.activation == "silu" else y

    def _branch(self, branch: str, x: Tensor) -> Tensor:
        if branch == IDENTITY:
            if self.mode == "rep":
                term: Tensor = self.norms[branch](x)
                return term
            return self.identity[:, None, None] * x
        kernel = self.kernels[branch]
        bias = self.biases[branch] if self.has_bias else None
        y = nn.functional.conv2d(
            x, kernel, bias, self.stride, kernel.shape[-1] // 2, groups=self.groups
        )
        if self.mode == "rep":
            normed: Tensor = self.norms[branch](y)
            return normed
        return self.scale(branch)[:, None, None] * y

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return (
            f"{self.in_ch}, {self.out_ch}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"groups={self.groups}, branches={self.branches}, mode={self.mode}"
        )


def no_scales(mode: str) -> str:
    """Why a block of this mode has no scales to speak of."""
    if mode == "rep":
        return f"mode 'rep' has no equivalent plain network in training: {NON_LINEAR}"
    return f"mode {mode!r} has no scales; give a model in mode 'hs' or 'csla'"


def check_scales(
    scales: Mapping[str, Tensor],
    branches: Sequence[str],
    out_ch: int,
    dtype: torch.dtype,
    where: str,
) -> dict[str, Tensor]:
    """Copies of the scales of one block, each of length out_ch and finite."""
    found = {}
    for branch in branches:
        if branch not in scales:
            raise KeyError(
                f"{where} has a branch {branch!r} without a scale; there are {sorted(scales)}"
            )
        value = torch.as_tensor(scales[branch]).detach()
        if value.shape != (out_ch,):
            raise ValueError(
                f"the scale of {branch!r} in {where} must have shape ({out_ch},), "
                f"got {tuple(value.shape)}"
            )
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"the scale of {branch!r} in {where} must be finite")
        found[branch] = value.to(dtype, copy=True)
    return found


def normalisation(kind: Norm, channels: int, dtype: torch.dtype | None) -> nn.Module:
    """BatchNorm, GroupNorm with 8 groups or as many as divide, or nothing."""
    if kind == "bn":
        return nn.BatchNorm2d(channels, dtype=dtype)
    if kind == "group_norm":
        groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
        return nn.GroupNorm(groups, channels, dtype=dtype)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"norm must be one of {get_args(Norm)}, got {kind!r}")
