"""Replaying a log on a model folder of transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

from surefoot.errors import FileFormatError, need

with need("transformers", extra="llm", part="replaying a folder"):
    import transformers

from surefoot.zeroth_order.log import StepLog
from surefoot.zeroth_order.replaying import replay


def replay_folder(base: Path, log: Path, out: Path, *, upto: int | None = None) -> Path:
    """`replay` for a model folder as `save_pretrained` writes it; returns the new folder.

    Parameters
    ----------
    base, log
        The folder of the base model, and the log.
    out
        The folder to write.
    upto
        How many steps; all by default.

    Raises
    ------
    FileFormatError
        If the folder holds no model or the log cannot be read.
    ValueError
        If the model is not the one that the log started from.
    """
    if not (base / "config.json").is_file():
        raise FileFormatError(f"{base} is no model folder: it holds no config.json")
    read = StepLog.load(log)
    config = transformers.AutoConfig.from_pretrained(base)
    name = (config.architectures or ["AutoModel"])[0]
    model = getattr(transformers, name).from_pretrained(base)
    replay(model, read, upto=upto)
    model.save_pretrained(out)
    for extra in base.iterdir():
        # The tokenizer belongs to the model; weights and config are new.
        if extra.is_file() and extra.name.startswith(("tokenizer", "special", "vocab", "merges")):
            shutil.copy2(extra, out / extra.name)
    return out
