"""What is wrong with a callable that was to be probed."""

from __future__ import annotations

from surefoot.errors import SurefootError


class ProbeError(SurefootError, ValueError):
    """The callable cannot be probed: it fails, answers in a wrong shape, or not twice alike."""
