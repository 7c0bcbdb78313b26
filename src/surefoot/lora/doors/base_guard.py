"""After a merge the base is not the original one any more: say so where PEFT is asked for that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from surefoot.errors import need, warn
from surefoot.lora.state import ChainState

HOW = {
    "disable_adapter": "chain.original() is the context that gives the original model",
    "unload": "chain.original() is the context that gives the original model",
    "set_adapter": "chain.original() is the context that gives the original weights",
    "adapter_names": "chain.original() is the context that gives the original weights",
    "get_peft_model_state_dict": (
        "it gives the open block alone; chain.export_adapter writes the whole chain as one adapter"
    ),
    "merge_and_unload": (
        "it drops what the residuals keep of the merges; chain.export_merged writes all of it"
    ),
}


class BaseGuard:
    """Stands in for those methods of PEFT that mean the original base, and warns once of each."""

    def __init__(self, state: ChainState) -> None:
        self.state = state
        self.warned: set[str] = set()
        self._own = False
        tuner = state.model.base_model
        for method, name in (
            ("disable_adapter_layers", "disable_adapter"),
            ("unload", "unload"),
            ("set_adapter", "set_adapter"),
            ("merge_and_unload", "merge_and_unload"),
        ):
            setattr(tuner, method, _Watched(self, name, getattr(tuner, method)))
        configs = _Configs(tuner.peft_config)
        configs.guard = self
        for holder in (tuner, tuner.model):
            if getattr(holder, "peft_config", None) is not None:
                holder.peft_config = configs

    @contextmanager
    def own(self) -> Iterator[None]:
        """Calls of the chain itself, which know what they get."""
        before, self._own = self._own, True
        try:
            yield
        finally:
            self._own = before

    def asked(self, name: str, adapters: Any = None) -> None:
        """Warn of a call.

        Parameters
        ----------
        name
            Of the function or argument of PEFT.
        adapters
            The adapters it is about; those of the chain are what it says they are.
        """
        state = self.state
        moved = state.residuals.held if name == "merge_and_unload" else state.base_moved_in_place
        names = [adapters] if isinstance(adapters, str) else adapters
        mine = names is not None and set(names) <= {state.adapter, state.companion.adapter}
        if self._own or not moved or mine or name in self.warned:
            return
        self.warned.add(name)
        warn(
            f"{name} after a merge: the base weights hold {len(state.reports)} merged blocks; {HOW[name]}",
        )


class _Watched:
    # An object, not a closure: a copy of the model then has a guard of its own.
    def __init__(self, guard: BaseGuard, name: str, plain: Any) -> None:
        self.guard, self.name, self.plain = guard, name, plain

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        adapters = None
        if self.name == "set_adapter":
            adapters = args[0] if args else kwargs.get("adapter_name")
        self.guard.asked(self.name, adapters)
        return self.plain(*args, **kwargs)


class _Configs(dict[str, Any]):
    """PEFT's configurations by adapter name, the first thing that get_peft_model_state_dict looks up.

    It is a function that takes the model, so nothing of the model can stand in for it; its own code is
    what tells it from everything else that reads a configuration.
    """

    guard: BaseGuard

    def __getitem__(self, adapter: str) -> Any:
        with need("peft", extra="llm", part="surefoot.lora"):
            from peft import get_peft_model_state_dict
        asking, frame = get_peft_model_state_dict.__code__, sys._getframe(1)
        # Not only the nearest: a type checker may stand between.
        near = [frame, frame.f_back, frame.f_back and frame.f_back.f_back]
        asked = any(f is not None and f.f_code is asking for f in near)
        if asked and adapter == self.guard.state.adapter:
            self.guard.asked("get_peft_model_state_dict")
        return super().__getitem__(adapter)
