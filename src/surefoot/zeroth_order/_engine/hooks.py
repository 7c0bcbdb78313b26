"""Forward hooks that add a low-rank term to what a module returns, so that its weights need not be written.

Modules whose forward is exactly that of nn.Linear, nn.Embedding or Hugging Face's Conv1D can be hooked; one
with a forward of its own may read its weight in another way, and is tried first whether it is linear. A hook
is an object, not a closure: a copy of the model then carries a copy of its factors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from surefoot.zeroth_order._engine.leaving import PendingFactors
from surefoot.zeroth_order._engine.linear_like import is_linear
from surefoot.zeroth_order._engine.numberless import note_packed
from surefoot.zeroth_order._engine.tensors import TrainedTensor


class LowRankHook:
    """Adds the low-rank terms of one trained tensor to the output of a module that reads it."""

    def __init__(self, tensor: TrainedTensor) -> None:
        self.tensor = tensor

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor
    ) -> Tensor:
        """The output with the terms added."""
        # Not at every call: compiled code would be compiled anew for each count.
        if self.tensor.counting:
            self.tensor.calls += 1
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        for a, v in self.tensor.factors():
            y = self.add(y, x, a, v) if a.ndim == 2 else self.add_copies(y, x, a, v)
        return y

    def add(self, y: Tensor, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """y plus what A V^T contributes for the input x."""
        raise NotImplementedError

    def add_copies(self, y: Tensor, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """y plus what A_k V^T contributes to the rows of copy k."""
        copies = self.tensor.copies
        assert copies is not None
        if copies.k == 1:
            return self.add(y, x, a[0], v)
        held = copies.holds(y)
        if held and x.shape[:1] == y.shape[:1]:
            return self.add_rows(y, x, a, v)
        # A bias that moves has given each copy its own y already, of an x that they share.
        wide = y if held else copies.spread(y)
        return wide.add_(self.alone(x, a, v).repeat_interleave(copies.rows, 0).view_as(wide))

    def add_rows(self, y: Tensor, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """The same where x and y hold the rows of all copies."""
        raise NotImplementedError

    def alone(self, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """x A_k V^T, one for each copy, of an x that all copies share."""
        raise NotImplementedError


def _accumulate(y: Tensor, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """y + (x left) right, into y where its memory allows."""
    inner = x.reshape(-1, x.shape[-1]).to(left.dtype) @ left
    if y.is_contiguous() and not (torch.is_grad_enabled() and y.requires_grad):
        y.view(-1, y.shape[-1]).addmm_(inner, right)
        return y
    return y + (inner @ right).view_as(y)


def _accumulate_copies(y: Tensor, inner: Tensor, right: Tensor) -> Tensor:
    """y + inner_k right_k in the rows of copy k."""
    k = inner.shape[0]
    if not y.is_contiguous():
        y = y.contiguous()
    y.view(k, -1, y.shape[-1]).baddbmm_(inner, right)
    return y


class LinearHook(LowRankHook):
    """Of nn.Linear: y += (x V) A^T."""

    def add(self, y: Tensor, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """Its weight is (out, in)."""
        return _accumulate(y, x, v.to(y.dtype), a.T.to(y.dtype))

    def add_rows(self, y: Tensor, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """x V is one product for all copies."""
        inner = x.reshape(-1, x.shape[-1]).to(y.dtype) @ v.to(y.dtype)
        return _accumulate_copies(y, inner.view(len(a), -1, v.shape[1]), a.mT.to(y.dtype))

    def alone(self, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """One x for all copies."""
        return (x.to(v.dtype) @ v).unsqueeze(0) @ a.mT.view(
            len(a), *[1] * (x.ndim - 2), *a.mT.shape[1:]
        )


class Conv1DHook(LowRankHook):
    """Of Hugging Face's Conv1D: y += (x A) V^T."""

    def add(self, y: Tensor, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """Its weight is (in, out), so its rows are the inputs."""
        return _accumulate(y, x, a.to(y.dtype), v.T.to(y.dtype))

    def add_rows(self, y: Tensor, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """x A_k is a product for each copy."""
        inner = torch.bmm(x.reshape(len(a), -1, x.shape[-1]).to(y.dtype), a.to(y.dtype))
        return _accumulate_copies(y, inner, v.T.to(y.dtype).expand(len(a), -1, -1))

    def alone(self, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """One x for all copies."""
        return x.to(v.dtype).unsqueeze(0) @ a.view(len(a), *[1] * (x.ndim - 2), *a.shape[1:]) @ v.T


class EmbeddingHook(LowRankHook):
    """Of nn.Embedding: y += A[ids] V^T."""

    def add(self, y: Tensor, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """Its weight is (vocabulary, width)."""
        rows = a[x.reshape(-1)].to(y.dtype)
        return y + (rows @ v.T.to(y.dtype)).view_as(y)

    def add_copies(self, y: Tensor, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """Copies of the batch are told by their values: T words may be as many as K B rows."""
        copies = self.tensor.copies
        assert copies is not None
        if copies.k > 1 and not copies.are_copies(x):
            wide = copies.spread(y)
            return wide.add_(self.alone(x, a, v).repeat_interleave(copies.rows, 0).view_as(wide))
        return super().add_copies(y, x, a, v)

    def add_rows(self, y: Tensor, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """The same words in each copy."""
        rows = a[:, x.reshape(len(a), -1)[0]].to(y.dtype)
        return y + (rows @ v.T.to(y.dtype)).view_as(y)

    def alone(self, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """Words that all copies share."""
        return a[:, x] @ v.T


def linear_kind(module: nn.Module) -> type[LowRankHook] | None:
    """The hook of a module that returns x W^T or x W, and a bias; None of any other."""
    kind = type(module)
    if isinstance(module, nn.Linear) and kind.forward is nn.Linear.forward:
        return LinearHook
    if kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils":
        return Conv1DHook
    return LinearHook if is_linear(module) else None


def hook_for(module: nn.Module, parameter: str) -> type[LowRankHook] | None:
    """What to register for this parameter of this module, or None where it cannot be hooked."""
    if parameter != "weight":
        return None
    kind = type(module)
    if isinstance(module, nn.Embedding) and kind.forward is nn.Embedding.forward:
        # Renormalising writes into the weight during the forward.
        return EmbeddingHook if module.max_norm is None else None
    return linear_kind(module)


def install(model: nn.Module, tensors: list[TrainedTensor]) -> PendingFactors:
    """Hook every matrix all of whose owners can be hooked; the others get a copy that is written.

    What comes back watches over a `state_dict` that would lack what the hooks add.
    """
    pending = PendingFactors(tensors)
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(id(parameter), []).append((module, name))
    for tensor in tensors:
        found = owners.get(id(tensor.param), [])
        note_packed(tensor, [module for module, _ in found])
        kinds = [(module, hook_for(module, name)) for module, name in found]
        # A parametrised weight is computed from its originals on every access: not a weight to be hooked.
        if tensor.dense or not kinds or any(kind is None for _, kind in kinds):
            tensor.storage = "written"
            continue
        for module, kind in kinds:
            assert kind is not None
            # First of all hooks: later ones, a user's too, then see the whole output.
            tensor.hooks.append(
                module.register_forward_hook(kind(tensor), prepend=True, with_kwargs=True)
            )
            handle = module.register_state_dict_pre_hook(pending)  # type: ignore[no-untyped-call]
            tensor.hooks.append(handle)
        tensor.storage = "hooked"
    return pending
