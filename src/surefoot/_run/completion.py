"""The script with which a shell completes the words of a command."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import tyro


def script(shell: str, commands: Any, prog: str) -> str:
    """What tyro writes for a shell.

    Parameters
    ----------
    shell
        bash or zsh.
    commands
        What tyro would parse: every command, with all that stands below it.
    prog
        The name of the command.
    """
    told = io.StringIO()
    # tyro prints the script, and ends.
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        tyro.cli(commands, prog=prog, args=["--tyro-print-completion", shell])
    return told.getvalue().rstrip("\n")
