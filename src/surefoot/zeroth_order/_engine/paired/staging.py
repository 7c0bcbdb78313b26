"""A 16-bit model in a paired forward: everything but the products of linear-like modules in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from surefoot.zeroth_order._engine import hooks
from surefoot.zeroth_order._engine.paired.products import LOW
from surefoot.zeroth_order._engine.tensors import TrainedTensor


class Owners:
    """Where a model holds each of its parameters.

    Parameters
    ----------
    model
        The module.
    """

    def __init__(self, model: nn.Module) -> None:
        self.of: dict[int, list[tuple[nn.Module, str]]] = {}
        for module in model.modules():
            for name, p in module._parameters.items():
                if p is not None:
                    self.of.setdefault(id(p), []).append((module, name))

    def show(self, tensor: TrainedTensor, value: Tensor) -> None:
        """Hold another tensor in its place."""
        for module, name in self.of[id(tensor.param)]:
            module._parameters[name] = value  # type: ignore[assignment]


def stage(
    stack: contextlib.ExitStack, model: nn.Module, owners: Owners, tensors: list[TrainedTensor]
) -> None:
    """Small parameters and buffers in float32 until the stack ends, and embeddings that return it.

    Parameters
    ----------
    stack
        Takes what undoes it.
    model
        The module.
    owners
        Of its parameters.
    tensors
        The trained ones, whose copies are in float32 already.
    """
    held = {id(x.param): x.base for x in tensors if x.dense and x.base is not None}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            stack.callback(module.register_forward_hook(_in_full, prepend=True).remove)
            continue
        linear = hooks.linear_kind(module) is not None
        for name, p in list(module._parameters.items()):
            if p is not None and p.dtype in LOW and not (linear and name == "weight"):
                base = held.get(id(p))
                _swap(stack, module._parameters, name, p.detach().float() if base is None else base)
        for name, b in list(module._buffers.items()):
            if b is not None and b.dtype in LOW:
                _swap(stack, module._buffers, name, b.float())


def _swap(stack: contextlib.ExitStack, where: Any, name: str, value: Tensor) -> None:
    stack.callback(where.__setitem__, name, where[name])
    where[name] = value


def _in_full(module: nn.Module, args: Any, y: Tensor) -> Tensor:
    return y.float() if y.dtype in LOW else y


@contextlib.contextmanager
def in_float32(model: nn.Module | None) -> Iterator[None]:
    """A 16-bit model in float32 for a while, beside its own weights."""
    tensors = [] if model is None else [*model.parameters(), *model.buffers()]
    before = [(x, x.data) for x in tensors if x.dtype in LOW]
    for x, data in before:
        x.data = data.float()
    try:
        yield
    finally:
        for x, data in before:
            x.data = data
