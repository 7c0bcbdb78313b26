"""What can be wrong with a fine-tuning before it starts."""

from __future__ import annotations

from surefoot.errors import SurefootError


class FinetuneError(SurefootError):
    """A file, a model or an option with which no fine-tuning can be done; nothing was written."""
