"""Whether a product has the same bits for a weight that lies transposed as for a plain one.

It has where the library sums both in the same order, which hangs on the sizes (of few rows it does not), the
dtype, the threads and the processor. It is asked once a size, of random inputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_found: dict[tuple[object, ...], bool] = {}


@torch.no_grad()
def same_sums(
    x: Float[Tensor, "rows in"], weight: Float[Tensor, "out in"], bias: Tensor | None
) -> bool:
    """Whether `F.linear` may be given this weight as it lies, bit for bit."""
    key = (len(x), *weight.shape, x.dtype, x.device, bias is None, torch.get_num_threads())
    if key not in _found:
        generator = torch.Generator().manual_seed(0)
        asked = torch.randn(x.shape, generator=generator).to(x)
        lying, plain = (F.linear(asked, w, bias) for w in (weight, weight.contiguous()))
        # Of a weight that is zero or not finite nothing can be told.
        told = bool(lying.isfinite().all()) and bool(weight.any())
        if not told:
            return False
        _found[key] = torch.equal(lying, plain)
    return _found[key]
