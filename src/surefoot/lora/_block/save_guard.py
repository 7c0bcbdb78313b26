"""After a merge a plain `save_pretrained` would write an adapter that is wrong for the base: guard it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from surefoot._sealed import checkpoints
from surefoot._sealed.writing import explained, write_bytes
from surefoot.lora._block.state_files import write_state
from surefoot.lora.doors.base_guard import BaseGuard
from surefoot.lora.export import export_adapter
from surefoot.lora.state import ChainState

BLOCK_TYPE = "CHAIN_OF_LORA_BLOCK"


class SaveGuard:
    """Stands in for `save_pretrained` of the PeftModel.

    Before the first merge it saves as PEFT does. Afterwards it exports the whole chain as one plain
    adapter of the original base, and other adapters as PEFT does. A Trainer's checkpoint must hold the open
    block as it is: there the adapter's configuration names a type that plain PEFT refuses to load.
    """

    def __init__(self, state: ChainState, base: BaseGuard) -> None:
        self._state = state
        self._base = base
        self._plain = state.model.save_pretrained
        self.checkpointing = False
        self.checkpoint: Path | None = None
        state.model.save_pretrained = self

    def __call__(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        selected_adapters: list[str] | None = None,
        save_embedding_layers: str | bool = "auto",
        is_main_process: bool = True,
        path_initial_model_for_weight_conversion: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Save in a way that cannot be mistaken; the arguments are PEFT's.

        Parameters
        ----------
        save_directory, selected_adapters, is_main_process, kwargs
            As in `PeftModel.save_pretrained`; every adapter by default.
        safe_serialization, save_embedding_layers, path_initial_model_for_weight_conversion
            Likewise, but refused after a merge where they are not PEFT's defaults.

        Raises
        ------
        ValueError
            An adapter that there is not, or an option that an exported chain cannot have.
        """
        state, companion = self._state, self._state.companion
        chosen = self._chosen(selected_adapters)
        options: dict[str, Any] = {
            "safe_serialization": safe_serialization,
            "save_embedding_layers": save_embedding_layers,
            "path_initial_model_for_weight_conversion": path_initial_model_for_weight_conversion,
        }
        plain = {**options, **kwargs, "is_main_process": is_main_process}
        exported = state.base_has_moved and not self.checkpointing and state.adapter in chosen
        others = [name for name in chosen if not (exported and name == state.adapter)]
        if exported:
            usual = (True, "auto", None)
            unusual = [k for k, v in zip(options, usual, strict=True) if options[k] != v]
            if unusual:
                raise ValueError(
                    f"save_pretrained exports the chain as an adapter of the original base and has no "
                    f"{unusual[0]}={options[unusual[0]]!r}; leave it out"
                )
            if is_main_process:
                with self._base.own():
                    export_adapter(state, _folder(Path(save_directory), state.adapter))
        folder = Path(save_directory)
        saving = self.checkpointing and is_main_process and checkpoints.step_of(folder) is not None
        if saving:
            # The first that a Trainer writes of a checkpoint.
            checkpoints.begin(folder)
        if others:
            with self._base.own(), explained(folder):
                self._plain(str(save_directory), selected_adapters=others, **plain)
        if state.base_has_moved and self.checkpointing and is_main_process:
            for name in {state.adapter, companion.adapter} & set(others):
                _mark(_folder(folder, name))
        if saving:
            # Before the Trainer removes older checkpoints: of this one it writes the last file before that.
            write_state(state, folder)
            self.checkpoint = folder

    def _chosen(self, selected: list[str] | None) -> list[str]:
        state = self._state
        there = [name for name in state.model.peft_config if name != state.companion.adapter]
        # The companion adapter of a quantised base is part of the chain, not of the user's adapters.
        wrong = [name for name in selected or () if name not in there]
        if wrong:
            raise ValueError(f"selected_adapters must be among {there}, got {wrong[0]!r}")
        return there if selected is None else list(selected)


def _folder(folder: Path, adapter: str) -> Path:
    return folder if adapter == "default" else folder / adapter


def _mark(folder: Path) -> None:
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["peft_type"] = BLOCK_TYPE
    write_bytes(path, json.dumps(config, indent=2).encode())
