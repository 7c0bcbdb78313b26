"""Who is looking at a call: a compiler, an exporter, a tracer, torch.func, a mode that sees operations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

# torch has no public name for whether torch.func (vmap, grad, jvp, ..) is at work.
transform: Callable[[], object | None] = torch._C._functorch.peek_interpreter_stack
compiling = torch.compiler.is_compiling
# Where torch cannot tell exporting from compiling, compiling counts.
exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", compiling)
# Public in torch's documentation, and not among what its types export.
tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]
# Modes that see every operation (fake tensors, tracers, counters) would not see a call of C.
modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)

PLAIN = (Tensor, torch.nn.Parameter)


def readable() -> bool:
    """Whether values may be read: neither compiled, nor exported, traced or transformed."""
    return not (compiling() or exporting() or tracing()) and transform() is None and not modes()


def seen_by_others(*tensors: Tensor) -> bool:
    """Whether somebody has to see the operations: a compiler, torch.func, an exporter, a tracer, a subclass.

    What C computes would be a constant to them, without a word.
    """
    return not readable() or any(type(t) not in PLAIN for t in tensors)


def in_full(like: Tensor) -> contextlib.AbstractContextManager[object]:
    """Without automatic mixed precision: for what is computed in the dtype that its tensors have."""
    kind = like.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)
