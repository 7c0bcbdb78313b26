"""Which module reads which trained tensor, and how that module can serve all copies at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from surefoot.zeroth_order._engine import hooks
from surefoot.zeroth_order._engine.paired import serving
from surefoot.zeroth_order._engine.paired.copies import Unpaired
from surefoot.zeroth_order._engine.readers import Readers
from surefoot.zeroth_order._engine.self_check import eagerly
from surefoot.zeroth_order._engine.tensors import TrainedTensor


@dataclass
class Plan:
    """How each module serves the tensors that it reads.

    Attributes
    ----------
    hooked
        (module, hook): what is added or multiplied.
    apart
        Modules that are called once a copy, with the tensors that are written for it.
    called
        Every module that the forward calls, in the order of its first call.
    reading
        Those that read something trained.
    """

    hooked: list[tuple[nn.Module, serving.Hook]] = field(default_factory=list)
    apart: dict[nn.Module, list[TrainedTensor]] = field(default_factory=dict)
    called: list[nn.Module] = field(default_factory=list)
    reading: set[nn.Module] = field(default_factory=set)

    def separate(self, modules: Iterable[nn.Module]) -> Plan:
        """The same with these modules called once a copy."""
        chosen = set(modules)
        found = Plan(
            [(m, h) for m, h in self.hooked if m not in chosen],
            dict(self.apart),
            self.called,
            self.reading,
        )
        for module, hook in self.hooked:
            if module in chosen:
                found.apart[module] = [*found.apart.get(module, []), *tensors_of(hook)]
        return found


def tensors_of(hook: serving.Hook) -> list[TrainedTensor]:
    """The tensors that a hook serves."""
    if isinstance(hook, serving.Scaled):
        return [x for x in (hook.weight, hook.bias) if x is not None]
    assert isinstance(hook, (serving.Added, serving.Multiplied))
    return [hook.tensor]


def planned(model: nn.Module, tensors: list[TrainedTensor], run: Callable[[], Any]) -> Plan:
    """The plan for a model, from one forward of it.

    Parameters
    ----------
    model
        The module.
    tensors
        Those that move.
    run
        The forward, of one copy.

    Raises
    ------
    Unpaired
        If a weight is read where no module can serve it.
    """
    with eagerly(), Readers(model, (x.param for x in tensors)) as readers:
        run()
    plan = Plan(called=list(readers.called))
    reading: dict[nn.Module, list[TrainedTensor]] = {}
    for tensor in tensors:
        for module in readers.by.get(id(tensor.param), ()):
            hooked = tensor.storage == "hooked"
            if module is not None:
                plan.reading.add(module)
            if module is None or (hooked and not _is_hooked(module, tensor)):
                raise Unpaired(f"{tensor.name} is read outside its module")
            if not hooked:
                reading.setdefault(module, []).append(tensor)
    for module, read in reading.items():
        found = ways(module, read)
        plan.hooked += [(module, each) for each in found or ()]
        if found is None and module is model:
            raise Unpaired(f"{read[0].name} is read by the whole model itself")
        if found is None:
            plan.apart[module] = read
    return plan


def _is_hooked(module: nn.Module, tensor: TrainedTensor) -> bool:
    return any(
        isinstance(h, hooks.LowRankHook) and h.tensor is tensor
        for h in module._forward_hooks.values()
    )


def ways(module: nn.Module, read: list[TrainedTensor]) -> list[serving.Hook] | None:
    """The hooks by which a module serves the written tensors that it reads; None where it must be apart."""
    names = {id(p): n for n, p in module._parameters.items() if p is not None}
    mine = {names.get(id(x.param), ""): x for x in read}
    if (
        not set(mine) <= {"weight", "bias"}
        or len(mine) < len(read)
        or not all(x.dense for x in read)
    ):
        return None
    weight, bias = mine.get("weight"), mine.get("bias")
    kind = hooks.hook_for(module, "weight")
    if kind is not None:
        found: list[serving.Hook] = [] if bias is None else [serving.Added(bias)]
        if weight is not None:
            if weight.param.numel() > serving.SMALL:
                return None
            found.append(serving.Multiplied(weight, kind))
        return found
    if type(module).forward is nn.LayerNorm.forward and len(module.normalized_shape) == 1:  # type: ignore[arg-type]
        return [serving.Scaled(weight, bias)]
    if bias is None and weight is not None and serving.ends_in_product(module):
        return [serving.Scaled(weight, None)]
    return None
