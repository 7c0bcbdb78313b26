"""The command line: list, run, report, data, privacy, replay, federate, doctor.

Exit codes: 0 all well; 1 a guarantee is BROKEN that was not announced to be, or a seed crashed;
2 bad arguments or unreadable input; 3 an audit refutes a proven epsilon; 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from surefoot import __version__
from surefoot.errors import SurefootError

if TYPE_CHECKING:
    from surefoot._run.folder import RunFolder
    from surefoot.certificate import Certificate

PROG = "surefoot"


@dataclass(frozen=True)
class List:
    """List the studies there are."""

    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        from surefoot.study import study_names, study_title

        studies = {name: study_title(name) for name in study_names()}
        if self.json:
            print(json.dumps(studies, indent=1))
        else:
            for name, title in studies.items():
                print(f"{name:14} {title}")
        return 0


@dataclass(frozen=True)
class Run:
    """Run a study and certify it: surefoot run NAME --help shows the flags of that study.

    NAME is a study of `surefoot list`, `all`, or the dotted name of a module of your own.
    """

    name: tyro.conf.Positional[str]
    """The study."""

    def __call__(self) -> int:
        raise AssertionError("run has its own parser, see run_command")


@dataclass(frozen=True)
class Report:
    """Write the HTML report anew, for one run or for all of them."""

    path: tyro.conf.Positional[Path] = Path("runs")
    """A run folder, or the folder that holds all runs."""
    json: bool = False
    """Print the certificates as JSON instead of writing pages."""

    def __call__(self) -> int:
        from surefoot._run.folder import RunFolder
        from surefoot.errors import FileFormatError

        one = (self.path / "config.json").exists()
        if not one and (not self.path.is_dir() or not RunFolder.all(self.path)):
            raise FileFormatError(
                f"{self.path} is neither a run of surefoot nor a folder that holds runs"
            )
        folders = [RunFolder.open(self.path)] if one else RunFolder.all(self.path)
        if self.json:
            print(json.dumps([_as_json(f) for f in folders], indent=1))
            return 0
        from surefoot.report import write_run_page, write_site

        pages = [write_run_page(folder) for folder in folders]
        print(pages[0] if one else write_site(self.path))
        return 0


@dataclass(frozen=True)
class DataList:
    """Show the data sets and models: what is here, its size, licence and hash."""

    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        from surefoot import data

        entries = data.available()
        if self.json:
            print(json.dumps([dataclasses.asdict(e) for e in entries], indent=1, default=str))
            return 0
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"data in {data.cache_dir()}")
        for column in ("name", "what", "here", "size", "licence", "SHA-256"):
            table.add_column(column)
        for e in entries:
            size = "" if e.size_bytes is None else f"{e.size_bytes / 1e6:.1f} MB"
            table.add_row(
                e.name, e.what, "yes" if e.present else "no", size, e.licence, (e.sha256 or "")[:12]
            )
        Console(width=None if sys.stdout.isatty() else 160).print(table)
        return 0


@dataclass(frozen=True)
class DataFetch:
    """Fetch a data set or model into the cache and check its hash."""

    name: tyro.conf.Positional[str]
    """A name of `surefoot data list`."""

    def __call__(self) -> int:
        from surefoot import data

        print(data.fetch(self.name, progress=lambda line: print(line, file=sys.stderr)))
        return 0


@dataclass(frozen=True)
class Privacy:
    """What a private training leaks: epsilon, calibrate, curve, from-opacus, audits."""

    def __call__(self) -> int:
        return privacy_command(["--help"])


@dataclass(frozen=True)
class Replay:
    """Make fine-tuned weights again from the base model and a log of kilobytes."""

    base: tyro.conf.Positional[Path]
    """The folder of the base model, as save_pretrained writes it."""
    log: tyro.conf.Positional[Path]
    """The log of the run."""
    out: tyro.conf.Positional[Path]
    """Where to write the fine-tuned model."""
    upto: int | None = None
    """How many steps; all by default."""

    def __call__(self) -> int:
        from surefoot.zeroth_order.replaying import replay_folder

        try:
            print(replay_folder(self.base, self.log, self.out, upto=self.upto))
        except ValueError as error:
            raise SurefootError(str(error)) from error
        return 0


@dataclass(frozen=True)
class Federate:
    """Run a Flower app on this machine: simulate, or up with TLS and real nodes."""

    def __call__(self) -> int:
        return federate_command(["--help"])


@dataclass(frozen=True)
class Doctor:
    """Show versions, extras, threads and cache: what to paste into a bug report."""

    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        from surefoot import data
        from surefoot._run.environment import environment

        found = environment()
        found["cache"] = str(data.cache_dir())
        if self.json:
            print(json.dumps(found, indent=1))
            return 0
        for name, value in found.items():
            if isinstance(value, dict):
                print(f"{name}:")
                for key, inner in value.items():
                    print(f"  {key:14} {_describe(inner)}")
            else:
                print(f"{name + ':':16} {value}")
        return 0


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        missing = [k for k, v in value.items() if v is None]
        there = ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
        return there + (f" (missing: {', '.join(missing)})" if missing else "")
    return str(value) if value is not None else "not installed"


Data = (
    Annotated[DataList, tyro.conf.subcommand("list")]
    | Annotated[DataFetch, tyro.conf.subcommand("fetch")]
)


@dataclass(frozen=True)
class DataCommand:
    """Data sets and pretrained models: list, fetch."""

    command: tyro.conf.OmitSubcommandPrefixes[Data]

    def __call__(self) -> int:
        return self.command()


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[DataCommand, tyro.conf.subcommand("data")]
    | Annotated[Privacy, tyro.conf.subcommand("privacy")]
    | Annotated[Replay, tyro.conf.subcommand("replay")]
    | Annotated[Federate, tyro.conf.subcommand("federate")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["--version"]:
            print(f"{PROG} {__version__}")
            return 0
        if words[:1] == ["run"] and len(words) > 1 and not words[1].startswith("-"):
            return run_command(words[1], words[2:])
        if words[:2] == ["zo", "replay"]:
            words = words[1:]
        if words[:1] == ["privacy"]:
            return privacy_command(words[1:])
        if words[:1] == ["federate"]:
            return federate_command(words[1:])
        command: Callable[[], int] = tyro.cli(
            Command,
            prog=PROG,
            description="Gradient descent with its guarantee attached.",
            args=words,
        )
        return command()
    except SurefootError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was done is in the run folder", file=sys.stderr)
        return 130


def privacy_command(words: Sequence[str]) -> int:
    """`surefoot privacy ...`, whose flags are read from that package only when they are needed."""
    from surefoot.privacy.cli import PrivacyCommand

    command: Callable[[], int] = tyro.cli(PrivacyCommand, prog=f"{PROG} privacy", args=list(words))
    return command()


def federate_command(words: Sequence[str]) -> int:
    """`surefoot federate ...`, whose flags are read only when they are needed."""
    from surefoot.federated.cli import FederateCommand

    command: Callable[[], int] = tyro.cli(
        FederateCommand, prog=f"{PROG} federate", args=list(words)
    )
    return command()


def run_command(name: str, words: Sequence[str]) -> int:
    """`surefoot run NAME ...`: parse the flags of that study, run, certify, report."""
    from surefoot import study as studies
    from surefoot._run.terminal import Progress, print_certificates

    chosen = (
        [studies.load_study(n) for n in studies.study_names()]
        if name == "all"
        else [studies.load_study(name)]
    )
    config_type = chosen[0].config if len(chosen) == 1 else studies.StudyConfig
    arguments = _parse_run(name, config_type, words)
    execution = arguments.execution
    certificates: list[Certificate] = []
    folders: list[RunFolder] = []
    crashed = 0
    for study in chosen:
        config = arguments.config
        if len(chosen) > 1:
            shared = dataclasses.asdict(config) | {"part": ()}
            config = study.config(**shared)
        if arguments.resume is not None:
            from surefoot._run.folder import RunFolder

            folder = RunFolder.open(arguments.resume)
            if folder.study != study.name:
                raise SurefootError(f"{arguments.resume} is a run of {folder.study}, not {name}")
            config = studies.config_of(study, folder)
        else:
            study.chosen(config)
            studies.check_backend(execution.backend)
            folder = studies.start(study, config, execution)
        with Progress(study.name, folder) as progress:
            made = studies.execute(study, config, folder, execution, progress.done)
        from surefoot.report import write_run_page

        write_run_page(folder)
        folders.append(folder)
        certificates += made
        for failure in folder.status["failed"]:
            crashed += 1
            print(
                f"seed {failure['seed']} of part {failure['part']} crashed: {failure['error']}; "
                f"traceback in {folder.seed_folder(failure['part'], failure['seed'])}/error.txt",
                file=sys.stderr,
            )
    from surefoot.report import write_site

    index = write_site(folders[0].path.parent.parent)
    if arguments.json:
        print(json.dumps([_as_json(f) for f in folders], indent=1))
    else:
        print_certificates(folders)
        print(f"report: {folders[0].path / 'index.html' if len(folders) == 1 else index}")
    broken = any(c.surprise and c.verdict == "BROKEN" for c in certificates)
    return 1 if broken or crashed else 0


def _parse_run(name: str, config: type, words: Sequence[str]) -> Any:
    from surefoot.study import Execution

    flags: Any = tyro.conf.OmitArgPrefixes
    arguments = dataclasses.make_dataclass(
        "RunArguments",
        [
            ("config", flags[config]),
            ("execution", flags[Execution]),
            (
                "resume",
                Annotated[
                    Path | None, tyro.conf.arg(help="A run folder whose missing seeds to run.")
                ],
                None,
            ),
            ("json", Annotated[bool, tyro.conf.arg(help="Print JSON.")], False),
        ],
        frozen=True,
    )
    try:
        return tyro.cli(
            arguments,
            prog=f"{PROG} run {name}",
            args=list(words),
            description=f"Run {name} and certify it.",
        )
    except ValueError as error:
        raise SurefootError(str(error)) from error


def _as_json(folder: RunFolder) -> dict[str, Any]:
    return {
        "folder": str(folder.path),
        "study": folder.study,
        "status": folder.status,
        "certificates": [c.to_dict() for c in folder.certificates()],
    }


if __name__ == "__main__":
    sys.exit(main())
