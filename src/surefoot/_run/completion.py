"""The script with which a shell completes the words of a command."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import tyro

# tyro writes none for fish: there the words come from the script for bash, which bash is asked to run.
FISH = """\
# What fish completes is what bash would: bash has to be installed.
set -g __{name}_bash '{bash}'

function __{name}_words
    printf '%s' $__{name}_bash | bash -s -- (commandline -opc) (commandline -ct)
end

function __{name}_complete
    set -l found (__{name}_words)
    if count $found >/dev/null
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end

complete -c {prog} -f -a '(__{name}_complete)'"""
# Behind the script: the words of the line stand in "$@", the last of them the one to be completed.
ASKED = """
by=$(complete -p {prog} | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
$by 2>/dev/null
if [ ${{#COMPREPLY[@]}} -gt 0 ]; then printf '%s\\n' "${{COMPREPLY[@]}}"; fi"""


def script(shell: str, commands: Any, prog: str) -> str:
    """What tyro writes for bash and zsh; for fish, a script that asks bash.

    Parameters
    ----------
    shell
        bash, zsh or fish.
    commands
        What tyro would parse: every command, with all that stands below it.
    prog
        The name of the command.
    """
    if shell == "fish":
        asked = script("bash", commands, prog) + ASKED.format(prog=prog)
        # Inside the quotes of fish these two have a meaning of their own.
        quoted = asked.replace("\\", "\\\\").replace("'", "\\'")
        return FISH.format(name=prog.replace("-", "_"), bash=quoted, prog=prog)
    told = io.StringIO()
    # tyro prints the script, and ends.
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        tyro.cli(commands, prog=prog, args=["--tyro-print-completion", shell])
    return told.getvalue().rstrip("\n")
