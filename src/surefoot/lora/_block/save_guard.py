"""After a merge a plain `save_pretrained` would write an adapter that is wrong for the base: guard it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from surefoot._run.files import write_text
from surefoot.lora.export import export_adapter
from surefoot.lora.state import ChainState

BLOCK_TYPE = "CHAIN_OF_LORA_BLOCK"


class SaveGuard:
    """Stands in for `save_pretrained` of the PeftModel.

    Before the first merge it saves as PEFT does. Afterwards it exports the whole chain as one plain
    adapter of the original base. A Trainer's checkpoint must hold the open block as it is: there the
    adapter's configuration names a type that plain PEFT refuses to load.
    """

    def __init__(self, state: ChainState) -> None:
        self._state = state
        self._plain = state.model.save_pretrained
        self.checkpointing = False
        state.model.save_pretrained = self

    def __call__(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save in a way that cannot be mistaken."""
        state = self._state
        # The companion adapter of a quantised base is part of the chain, not of the user's adapters.
        kwargs.setdefault("selected_adapters", [state.adapter])
        if not state.base_has_moved:
            self._plain(str(save_directory), *args, **kwargs)
        elif not self.checkpointing:
            export_adapter(state, save_directory)
        else:
            self._plain(str(save_directory), *args, **kwargs)
            if kwargs.get("is_main_process", True):
                _mark(Path(save_directory), state.adapter)


def _mark(folder: Path, adapter: str) -> None:
    path = (folder if adapter == "default" else folder / adapter) / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["peft_type"] = BLOCK_TYPE
    write_text(path, json.dumps(config, indent=2))
