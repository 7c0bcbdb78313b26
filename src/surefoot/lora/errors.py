"""What can go wrong with a chain, each as an error of its own."""

from __future__ import annotations

from surefoot.errors import SurefootError


class ChainStateError(SurefootError, RuntimeError):
    """The model, the adapter or the stored state is not what the chain needs to go on."""


class GuaranteeError(SurefootError, ValueError):
    """A theorem was asked for outside its range, for instance with a step size above 1/L."""


class UnsupportedLayerError(SurefootError, TypeError):
    """An adapted module for which a chain is not defined; the message names it."""
