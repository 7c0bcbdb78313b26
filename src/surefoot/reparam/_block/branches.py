"""Branch names and embeddings E_j: where a small kernel lies inside the largest one."""

from __future__ import annotations

import math
import re

import torch
from jaxtyping import Float
from torch import Tensor

FULL, IDENTITY = "kxk", "identity"
_NAME = re.compile(r"(\d+)x(\d+)")


def side_of(branch: str, kernel_size: int) -> int:
    """The side of a branch's kernel; the identity counts as 1.

    Raises
    ------
    ValueError
        Not "kxk", "identity" or "NxN" with odd N below `kernel_size`.
    """
    if branch == FULL:
        return kernel_size
    if branch == IDENTITY:
        return 1
    found = _NAME.fullmatch(branch)
    if found and found[1] == found[2]:
        side = int(found[1])
        if side % 2 == 1 and side < kernel_size:
            return side
    raise ValueError(
        f"branches must be 'kxk', 'identity' or 'NxN' with odd N below kernel_size = {kernel_size}, "
        f"got {branch!r}"
    )


def embed(kernel: Float[Tensor, "co ci n n"], kernel_size: int) -> Float[Tensor, "co ci k k"]:
    """E_j: zeros around an odd kernel, centres on each other (arXiv 2205.15242, section 3.3)."""
    pad = (kernel_size - kernel.shape[-1]) // 2
    return torch.nn.functional.pad(kernel, (pad, pad, pad, pad))


def embed_identity(
    values: Float[Tensor, " co"], channels_per_group: int, kernel_size: int
) -> Float[Tensor, "co ci k k"]:
    """E of the identity branch: `values[c]` at [c, c mod (Ci/g), centre, centre]."""
    co, centre = len(values), kernel_size // 2
    channel = torch.arange(co, device=values.device)
    shape = (co, channels_per_group, kernel_size, kernel_size)
    return torch.zeros(shape, dtype=values.dtype, device=values.device).index_put(
        (
            channel,
            channel % channels_per_group,
            torch.full_like(channel, centre),
            torch.full_like(channel, centre),
        ),
        values,
    )


def initial_scale(index: int) -> float:
    """sqrt(2 / l) for block l of a stage, counted from 0, and 1 for the first [authors' code]."""
    return math.sqrt(2 / index) if index else 1.0


def draw_kernel(
    shape: tuple[int, ...], generator: torch.Generator | None, dtype: torch.dtype
) -> Tensor:
    """The default initialisation of a convolution: uniform on +-1/sqrt(fan_in).

    kaiming_uniform with a = sqrt(5) is this law. Drawn on the CPU.
    """
    limit = 1 / math.sqrt(math.prod(shape[1:]))
    # Drawn in float64, so that a float32 and a float64 model start from the same numbers.
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    return ((2 * uniform - 1) * limit).to(dtype)
