"""How often a forward reads each weight, and how often a hook served the read.

A weight read more often than its hooks fired is read outside its module, whatever size the error would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# ruff: noqa: SIM905
# Asking for a tensor's form is no read of its values.
FORM = frozenset(
    (
        "dtype device shape ndim is_cuda is_cpu is_meta is_sparse is_quantized is_leaf requires_grad grad "
        "grad_fn layout itemsize nbytes names is_mps is_xpu is_nested"
    ).split()
)
ASKING = frozenset(
    (
        "size dim ndimension numel nelement stride is_contiguous element_size is_floating_point is_complex "
        "data_ptr storage_offset requires_grad_ __hash__ __len__ get_device is_inference"
    ).split()
)


def _asks(function: Callable[..., Any]) -> bool:
    name = getattr(function, "__name__", "")
    if name == "__get__":
        return getattr(getattr(function, "__self__", None), "__name__", "") in FORM
    return name in ASKING


def _autocast(device: str) -> torch.dtype | None:
    known = torch.amp.is_autocast_available(device)
    return torch.get_autocast_dtype(device) if known and torch.is_autocast_enabled(device) else None


class WeightUses(TorchFunctionMode):
    """Counts, for each of some tensors, the torch calls that take it as an argument.

    Attributes
    ----------
    autocast
        What autocast computes in at the first of them; None: it is off.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self._watched = {id(t) for t in tensors}
        self.count: Counter[int] = Counter()
        self.autocast: torch.dtype | None = None

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count and pass on."""
        kwargs = kwargs or {}
        if not _asks(function):
            self._note(args)
            self._note(kwargs.values())
        return function(*args, **kwargs)

    def used(self, tensor: Tensor) -> None:
        """Note one read."""
        self.count[id(tensor)] += 1

    def _note(self, given: Iterable[Any]) -> None:
        for each in given:
            if isinstance(each, Tensor):
                if id(each) in self._watched:
                    self.used(each)
                    self.autocast = self.autocast or _autocast(each.device.type)
            elif isinstance(each, (list, tuple)):
                self._note(each)
