"""The evaluations of one estimate as one forward: the same random numbers in each, one update of statistics.

A difference of two losses with different dropout masks is the difference of the masks. Hence each evaluation
draws what the first one drew, and what a forward leaves in the model (batch normalisation's running
statistics, power iterations) is left once, by the first.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Larger buffers of a module in training mode are looked at by their version: masks, tables of positions.
SMALL = 1 << 16
# How far to look into what a closure names: lists in an object in a closure.
DEPTH, MANY = 3, 64


def reachable(thing: Any, depth: int = DEPTH) -> Iterator[Any]:
    """Modules and generators that a closure names: in its cells, defaults, arguments and globals."""
    if isinstance(thing, nn.Module) or _reader(thing) is not None:
        yield thing
        return
    if depth == 0:
        return
    inside: list[Any] = []
    if isinstance(thing, FunctionType):
        inside += [c.cell_contents for c in thing.__closure__ or () if _is_filled(c)]
        inside += [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        inside += [thing.__globals__[n] for n in thing.__code__.co_names if n in thing.__globals__]
    elif isinstance(thing, MethodType):
        inside = [thing.__self__, thing.__func__]
    elif isinstance(thing, functools.partial):
        inside = [thing.func, *thing.args, *thing.keywords.values()]
    elif isinstance(thing, (list, tuple)):
        inside = list(thing) if len(thing) <= MANY else []
    elif (
        depth > DEPTH - 2
        and hasattr(thing, "__dict__")
        and not isinstance(thing, (type, ModuleType))
    ):
        # An object that is called, or whose method is: a trainer holds its model.
        inside = list(vars(thing).values())
    for each in inside:
        yield from reachable(each, depth - 1)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


Undo = Callable[[], None]


def _reader(source: Any) -> Callable[[], Undo] | None:
    """How to note the state of a generator; the note takes it back there."""
    if isinstance(source, torch.Generator):
        return lambda: functools.partial(_set_state, source, source.get_state())
    if isinstance(source, random.Random):
        return lambda: functools.partial(source.setstate, source.getstate())
    if isinstance(source, np.random.RandomState):
        return lambda: functools.partial(source.set_state, source.get_state())
    if isinstance(source, np.random.Generator):
        return lambda: functools.partial(_set_bits, source, source.bit_generator.state)
    return None


def _set_state(source: torch.Generator, state: Tensor) -> None:
    source.set_state(state)


def _set_bits(source: np.random.Generator, state: Any) -> None:
    source.bit_generator.state = state


def global_generators() -> list[Any]:
    """Those that a forward draws from without naming them, of every device that is in use."""
    found: list[Any] = [torch.default_generator, random._inst, np.random.mtrand._rand]
    for device in ("cuda", "xpu"):
        module = getattr(torch, device, None)
        # Asking a device that was not used yet would wake it.
        if module is not None and module.is_initialized():
            found += module.default_generators
    if torch.backends.mps.is_available():
        found.append(torch.mps._get_default_mps_generator())
    return found


class Draws:
    """Where some generators are, to go back there."""

    def __init__(self, sources: Iterable[Any]) -> None:
        readers = (_reader(source) for source in {id(s): s for s in sources}.values())
        self._undo = [read() for read in readers if read is not None]

    def again(self) -> None:
        """The next forward draws what the one after the note drew."""
        for undo in self._undo:
            undo()

    def were_drawn(self, sources: Iterable[Any]) -> bool:
        """Whether one of the generators, the same as in the note, is elsewhere than there."""
        now = Draws(sources)
        return not all(
            _alike(a.args, b.args)  # type: ignore[attr-defined]
            for a, b in zip(self._undo, now._undo, strict=True)
        )


def _alike(one: Any, two: Any) -> bool:
    """Whether two states of generators are the same."""
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, two)
    if isinstance(one, (tuple, list)):
        try:
            # Python's own state is 625 numbers, looked at after every forward.
            return bool(one == two)
        except (ValueError, RuntimeError):  # something in it is an array
            pass
        return len(one) == len(two) and all(map(_alike, one, two))
    if isinstance(one, dict):
        return all(_alike(v, two[k]) for k, v in one.items())
    return bool(one == two)


class Traces:
    """The buffers that a forward in training mode may write, as they are now."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._held: list[tuple[nn.Module, str, Tensor, int, Tensor | None]] = []
        for module in modules:
            for name, b in module._buffers.items() if module.training else ():
                if b is not None:
                    # Native batch normalisation writes its statistics without counting a version.
                    copied = b.clone() if b.numel() <= SMALL else None
                    self._held.append((module, name, b, _version(b), copied))

    def left(self) -> list[tuple[nn.Module, str, Tensor, Tensor]]:
        """What a forward has left since, with copies."""
        found = []
        for module, name, before, version, copied in self._held:
            now = module._buffers.get(name)
            if now is not None and (
                copied is not None or now is not before or _version(now) != version
            ):
                found.append((module, name, now, now.clone()))
        return found

    def put_back(self) -> None:
        """As before the forward, large buffers that it wrote apart."""
        put((m, name, b, copied) for m, name, b, _, copied in self._held if copied is not None)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def put(held: Iterable[tuple[nn.Module, str, Tensor, Tensor]]) -> None:
    """These buffers with these values."""
    with torch.no_grad():
        for module, name, tensor, value in held:
            tensor.copy_(value)
            if module._buffers.get(name) is not tensor:
                module._buffers[name] = tensor


class SameDraws:
    """One forward in several evaluations.

    Parameters
    ----------
    model
        The module, or None where only parameters are known.
    closure
        Of the loss: what it names is looked through for further modules and generators.
    """

    def __init__(self, model: nn.Module | None, closure: Callable[[], Any]) -> None:
        roots = [r for r in (model, *reachable(closure)) if r is not None]
        modules = {id(m): m for r in roots if isinstance(r, nn.Module) for m in r.modules()}
        own = (v for m in modules.values() if m.training for v in vars(m).values())
        named = [v for v in (*own, *roots) if _reader(v) is not None]
        self._sources = [*global_generators(), *named]
        self._draws = Draws(())
        self._traces = Traces(modules.values())
        self._left: list[tuple[nn.Module, str, Tensor, Tensor]] | None = None
        self._begun = self._done = False

    def __call__(self, loss: Callable[[], Any]) -> Any:
        """Evaluate once more."""
        if self._begun:
            self._draws.again()
            if not self._done:
                # The first evaluation has failed on its way.
                self._traces.put_back()
            elif self._left is None:
                self._left = self._traces.left()
        else:
            # Here and not before: the engine's own work is no part of the forward.
            self._draws = Draws(self._sources)
        self._begun = True
        try:
            found = loss()
        finally:
            if self._left is not None:
                put(self._left)
        self._done = True
        return found

    @property
    def drew(self) -> bool:
        """Whether the last evaluation drew random numbers."""
        return self._draws.were_drawn(self._sources)

    def undo(self) -> None:
        """As if nothing had been evaluated."""
        self._draws.again()
        self._traces.put_back()
