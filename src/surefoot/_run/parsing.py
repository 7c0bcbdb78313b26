"""The flags of a study and of how it is executed, without what the study brings in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from surefoot._numerics.options import parsed
from surefoot._run.execution import Execution
from surefoot._run.found import study_config, study_names
from surefoot.comparing.words import HELP as AGAINST
from surefoot.errors import SurefootError
from surefoot.settings import StudyConfig


def settings_of(name: str) -> type[StudyConfig]:
    """The class of the settings of a study, of all of them together, or of a module of one's own.

    Raises
    ------
    UnknownNameError
        There is no such study.
    """
    if name == "all":
        return StudyConfig
    found = study_config(name) if name in study_names() else None
    if found is None:
        from surefoot.study import load_study

        found = load_study(name).config
    return found


def run_arguments(config: type, description: str = "") -> type:
    """A dataclass whose fields are all flags of a run with that configuration."""
    flags: Any = tyro.conf.OmitArgPrefixes
    help_of = tyro.conf.arg
    return dataclasses.make_dataclass(
        "RunArguments",
        [
            ("config", flags[config]),
            ("execution", flags[Execution]),
            (
                "resume",
                Annotated[Path | None, help_of(help="A run folder whose missing seeds to run.")],
                None,
            ),
            ("against", Annotated[str | None, help_of(help=AGAINST)], None),
            ("json", Annotated[bool, help_of(help="Print JSON.")], False),
        ],
        frozen=True,
        namespace={"__doc__": description},
    )


def parse_run(name: str, config: type, words: Sequence[str], prog: str) -> Any:
    """What `run NAME` is told.

    Raises
    ------
    SurefootError
        Flags that the study, or its execution, cannot be told.
    """
    arguments = run_arguments(config)
    try:
        return parsed(
            lambda: tyro.cli(
                arguments,
                prog=f"{prog} run {name}",
                args=list(words),
                description=f"Run {name} and certify it.",
            ),
            [config, Execution],
        )
    except ValueError as error:
        raise SurefootError(str(error)) from error


def listed(titles: Mapping[str, str], prog: str) -> str:
    """The studies, and how to learn more of each."""
    each = [f"- {name}: {title}" for name, title in titles.items()]
    return "\n".join(
        [
            "NAME is one of the studies:",
            *each,
            "",
            "or `all`, or the dotted name of a module of your own with a STUDY.",
            f"{prog} run NAME --help shows the flags of that study.",
        ]
    )


def every_study() -> Any:
    """`run` with every study as a word below it, for a shell that completes words."""
    kinds = {n: run_arguments(settings_of(n), f"Run {n}.") for n in (*study_names(), "all")}
    # A union of a list that is computed has no other spelling.
    below: Any = Union[tuple(Annotated[c, tyro.conf.subcommand(n)] for n, c in kinds.items())]  # noqa: UP007
    plain: Any = tyro.conf.OmitSubcommandPrefixes
    return dataclasses.make_dataclass("Run", [("study", plain[below])], frozen=True)
