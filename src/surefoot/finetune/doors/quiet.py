"""transformers without its bars, tables and advice: what matters is said by us."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from surefoot.errors import need

with need("transformers", extra="llm", part="surefoot.finetune"):
    from transformers.utils import logging


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Errors only, no progress bars, within this."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # PEFT asks transformers for an attribute that transformers has renamed.
            warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
            # Where there is no accelerator, there is nothing to pin memory for.
            warnings.filterwarnings("ignore", ".*pin_memory", UserWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
