"""Replaying a log on a model folder of transformers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from surefoot.errors import FileFormatError, need

with need("transformers", extra="llm", part="replaying a folder"):
    import transformers

from surefoot._sealed.writing import new_folder
from surefoot.zeroth_order.log import StepLog
from surefoot.zeroth_order.replaying import replay


def replay_folder(base: Path, log: Path, out: Path, *, upto: int | None = None) -> Path:
    """`replay` for a model folder as `save_pretrained` writes it; returns the new folder.

    Code that a folder brings is never run. The new folder appears whole or not at all.

    Parameters
    ----------
    base, log
        The folder of the base model, and the log.
    out
        The folder to write, which must not be there yet, nor be in `base`.
    upto
        How many steps; all by default.

    Raises
    ------
    FileFormatError
        If the folder holds no model or the log cannot be read.
    ValueError
        If `out` is there, or the model is not the one that the log started from.
    surefoot.errors.WriteError
        A full disk, a quota, a folder that may not be written to.
    """
    _check_out(base, out)
    if not (base / "config.json").is_file():
        raise FileFormatError(f"{base} is no model folder: it holds no config.json")
    read = StepLog.load(log)
    model = _opened(base)
    replay(model, read, upto=upto)
    with new_folder(out) as partial:
        model.save_pretrained(partial)
        for extra in base.iterdir():
            # The tokenizer belongs to the model; weights and config are new.
            if extra.is_file() and extra.name.startswith(
                ("tokenizer", "special", "vocab", "merges")
            ):
                shutil.copy2(extra, partial / extra.name)
    return out


def _check_out(base: Path, out: Path) -> None:
    """Refuse what would write over a model, before anything is loaded."""
    where, inside = Path(os.path.realpath(out)), Path(os.path.realpath(base))
    if where == inside or inside in where.parents:
        raise ValueError(
            f"out must be a new folder beside the base model, got {out}, which is {base} or within it"
        )
    if os.path.lexists(out):
        raise ValueError(f"out must be a new folder, got {out}, which is there already")


def _opened(base: Path) -> Any:
    """The model of a folder, in the class of transformers that its configuration names."""
    try:
        config = transformers.AutoConfig.from_pretrained(base, trust_remote_code=False)
        name = (config.architectures or ["AutoModel"])[0]
        kind: Any = getattr(transformers, name, None)
        if name != "AutoModel" and not (
            isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
        ):
            raise ValueError(f"its configuration names {name!r}, which is no model of transformers")
        return kind.from_pretrained(base, trust_remote_code=False)
    except Exception as error:  # whatever a damaged folder makes of it
        raise FileFormatError(f"{base} cannot be opened as a model: {error}") from error
