"""Another forward of a module, for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from torch import nn


def replace_forward(
    stack: contextlib.ExitStack, module: nn.Module, forward: Callable[..., Any]
) -> None:
    """Call `forward` in place of a module's own until the stack ends.

    Parameters
    ----------
    stack
        Takes what undoes it.
    module, forward
        The module, and what it computes for now.
    """
    before = vars(module).get("forward")

    def undo() -> None:
        if before is not None:
            module.forward = before
        else:
            del module.forward

    module.forward = forward
    stack.callback(undo)
