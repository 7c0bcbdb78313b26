"""The command line: list, run, report, verify, data, doctor, and what the methods bring.

A folder with a module `cli` brings one command. Its constant `NAME` and the first line of its docstring are
read without importing it; `COMMAND` is what tyro parses, and is called.

Exit codes: 0 all well; 1 a guarantee is BROKEN that was not announced to be, or a seed crashed;
2 bad arguments, unreadable input, or nowhere to write; 3 an audit refutes a proven epsilon; 130 interrupted.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import tyro
from tyro.extras import subcommand_cli_from_dict

from surefoot import __version__
from surefoot.errors import ArgumentError, MissingExtraError, SurefootError

if TYPE_CHECKING:
    from surefoot._run.folder import RunFolder

PROG = "surefoot"
SINGLES = {"finetune": "surefoot.finetune.promises", "watch": "surefoot._watching.page"}
"""What is run once and is no study, and who says what its record bears."""


def _titles() -> dict[str, str]:
    """The studies by name, with the first line of what each says of itself."""
    from surefoot._run.found import study_names, study_title

    return {name: study_title(name) for name in study_names()}


@dataclass(frozen=True)
class List:
    """List the studies there are."""

    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        studies = _titles()
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

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """The study."""

    def __call__(self) -> int:
        return run_command(self.name, [])


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
        paths = [self.path] if one else RunFolder.paths(self.path)
        if not paths:
            why = ": it has no config.json" if (self.path / "seeds").is_dir() else ""
            raise FileFormatError(
                f"{self.path} is neither a run of surefoot nor a folder that holds runs{why}"
            )
        found, damaged = list[Any](), 0
        for path in paths:
            try:
                found.append(self._one(RunFolder.open(path)))
            except FileFormatError as error:
                if one:
                    raise
                print(f"left out: {error}", file=sys.stderr)
                damaged += 1
        if damaged == len(paths):
            raise FileFormatError(f"no run in {self.path} can be read; see the lines above")
        if self.json:
            print(json.dumps([said for said, _ in found], indent=1))
        else:
            from surefoot.report import write_site

            print(found[0][0] if one else write_site(self.path))
        return 2 if one and found[0][1] else 0

    def _one(self, folder: RunFolder) -> tuple[Any, bool]:
        """A run's page, or its certificates, and whether a file of it has been changed."""
        from surefoot.report import write_run_page

        said = _as_json(folder) if self.json else write_run_page(folder)
        changes = folder.changes or []
        for change in changes:
            print(f"{folder.path}: {change} since the run ended", file=sys.stderr)
        return said, bool(changes)


@dataclass(frozen=True)
class Verify:
    """Hash every file of a run and reach every verdict anew from its record; say what could not be checked.

    Exit codes: 0 all that was checked is as it was; 1 a file or a verdict is not; 2 it is no run.
    """

    path: tyro.conf.Positional[Path]
    """A run folder."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        from surefoot._run.folder import RunFolder
        from surefoot._run.terminal import print_verified
        from surefoot._run.verify import verify

        found = verify(RunFolder.open(self.path), {name: _again(name) for name in SINGLES})
        if self.json:
            print(json.dumps(found.to_dict(), indent=1))
        else:
            print_verified(self.path, found)
        return 0 if found.holds else 1


def _again(name: str) -> Callable[..., Any]:
    """Certificates of a run that is no study, imported when they are asked for."""

    def certificates(*given: Any) -> Any:
        return importlib.import_module(SINGLES[name]).certificates(*given)

    return certificates


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
    json: bool = False
    """Print JSON: the name and where it is."""

    def __call__(self) -> int:
        from surefoot import data

        path = data.fetch(self.name, progress=lambda line: print(line, file=sys.stderr))
        print(json.dumps({"name": self.name, "path": str(path)}) if self.json else path)
        return 0


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


@dataclass(frozen=True)
class Completion:
    """Print what a shell needs to complete commands, studies and their flags.

    For bash: `surefoot completion bash > ~/.local/share/bash-completion/completions/surefoot`.
    For fish, which then asks bash: `surefoot completion fish > ~/.config/fish/completions/surefoot.fish`.
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """The shell."""
    json: bool = False
    """Print JSON: the shell and the script."""

    def __call__(self) -> int:
        from surefoot._run.completion import script

        said = script(self.shell, _every_command(), PROG)
        print(json.dumps({"shell": self.shell, "script": said}) if self.json else said)
        return 0


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


@dataclass(frozen=True)
class Mount:
    """A command that a method brings: `words` stand for `name` on the command line."""

    module: str
    title: str
    words: tuple[str, ...] = ()


def mounted() -> dict[str, Mount]:
    """The commands of the methods by name, found without importing any of them.

    `ALSO` in such a module names shorter ways to one of its subcommands.
    """
    import surefoot

    found = {}
    for file in sorted(Path(surefoot.__path__[0]).glob("*/cli.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        constants = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in ("NAME", "ALSO")
        }
        if "NAME" not in constants:
            continue
        module = f"surefoot.{file.parent.name}.cli"
        title = (ast.get_docstring(tree) or constants["NAME"]).splitlines()[0]
        found[constants["NAME"]] = Mount(module, title)
        for word in constants.get("ALSO", ()):
            found[word] = Mount(module, f"The same as {PROG} {constants['NAME']} {word}.", (word,))
    return found


def _commands() -> Any:
    own: dict[str, Any] = {
        "list": List, "run": Run, "report": Report, "verify": Verify, "data": DataCommand,
        "doctor": Doctor, "completion": Completion,
    }  # fmt: skip
    for name, mount in mounted().items():
        own[name] = dataclasses.make_dataclass(name, [], namespace={"__doc__": mount.title})
    # A union of a list that is computed has no other spelling.
    return Union[tuple(Annotated[c, tyro.conf.subcommand(n)] for n, c in own.items())]  # noqa: UP007


def _every_command() -> Any:
    """All commands with all that stands below them, for a shell that completes words."""
    from surefoot._run.parsing import every_study

    own: dict[str, Any] = {
        "list": List, "report": Report, "verify": Verify, "data": DataCommand, "doctor": Doctor,
        "completion": Completion, "run": every_study(),
    }  # fmt: skip
    for name, mount in mounted().items():
        kind: Any = importlib.import_module(mount.module).COMMAND
        if isinstance(kind, dict):
            kind = kind[mount.words[0]] if mount.words else grouped(name, mount.title, kind)
        own[name] = kind
    # A union of a list that is computed has no other spelling.
    return Union[tuple(Annotated[c, tyro.conf.subcommand(n)] for n, c in own.items())]  # noqa: UP007


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with _terminated():
            return _main(words)
    except SurefootError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) or (error.filename is None and error.errno is None):
            raise
        print(f"error: {_said(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print("; ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return 130


def _said(error: OSError) -> str:
    """An error of the file system in one sentence."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


@contextmanager
def _terminated() -> Iterator[None]:
    """A request to end (SIGTERM) is an interrupt: what was done is kept, and workers end too."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if ours:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _main(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"{PROG} {__version__}")
        return 0
    if words[:1] == ["run"] and len(words) > 1 and not words[1].startswith("-"):
        return run_command(words[1], words[2:])
    if words[:1] == ["run"]:
        from surefoot._run.parsing import listed

        said = f"Run a study and certify it.\n\n{listed(_titles(), PROG)}"
        tyro.cli(Run, prog=f"{PROG} run", args=words[1:], description=said)
    if words and (mount := mounted().get(words[0])) is not None:
        return method_command(words[0], mount, words[1:])
    from surefoot._numerics.options import called, parsed

    command: Callable[[], int] = parsed(
        lambda: tyro.cli(
            _commands(),
            prog=PROG,
            description="Gradient descent with its guarantee attached.",
            args=words,
        )
    )
    return called(command)


def grouped(name: str, title: str, kinds: dict[str, Any]) -> type:
    """Commands by name as one command with them below it; there may be one only."""
    words = [Annotated[c, tyro.conf.subcommand(n)] for n, c in kinds.items()]
    # A union of one is none, and would make no word.
    below: Any = Union[(*words, Annotated[None, tyro.conf.Suppress])]
    plain: Any = tyro.conf.OmitSubcommandPrefixes
    return dataclasses.make_dataclass(
        name, [("command", plain[below])], namespace={"__doc__": title}
    )


def method_command(name: str, mount: Mount, words: Sequence[str]) -> int:
    """`surefoot NAME ...` of a method, whose module is imported only now."""
    from surefoot._numerics.options import called, parsed

    kind: Any = importlib.import_module(mount.module).COMMAND
    prog, args = f"{PROG} {name}", list(words)
    if isinstance(kind, dict) and mount.words:
        kind = kind[mount.words[0]]
    else:
        args = [*mount.words, *args]

    def parse() -> Any:
        if isinstance(kind, dict):
            return subcommand_cli_from_dict(kind, prog=prog, args=args, description=mount.title)
        return tyro.cli(kind, prog=prog, args=args, description=mount.title)

    return called(parsed(parse, list(kind.values()) if isinstance(kind, dict) else kind))


def _gathered(words: Sequence[str], flag: str) -> list[str]:
    """A flag of several values that is given twice has them all; the parser would take the last alone."""
    others, values, inside = list[str](), list[str](), False
    for word in words:
        if word == flag or word.startswith(f"{flag}="):
            inside = word == flag
            values += [] if inside else [word.removeprefix(f"{flag}=")]
        elif inside and not word.startswith("-"):
            values.append(word)
        else:
            inside = False
            others.append(word)
    return [*others, flag, *values] if values else list(words)


def run_command(name: str, words: Sequence[str]) -> int:
    """`surefoot run NAME ...`: parse the flags of that study, run, certify, report."""
    from surefoot._run.parsing import parse_run, settings_of

    words = _gathered(words, "--part")
    # Before what a study brings in: its help, and a bad flag, are there at once.
    arguments = parse_run(name, settings_of(name), words, PROG)

    from surefoot import study as studies
    from surefoot._numerics.options import flagged, flags
    from surefoot._run.backends import check_address, check_backend
    from surefoot._run.execute import execute
    from surefoot._run.folder import RunFolder
    from surefoot._run.plan import config_of, resumable, resume, start
    from surefoot._run.terminal import Progress, print_certificates
    from surefoot._sinks.runs import send_run
    from surefoot._sinks.sending import check_sink
    from surefoot.report import write_run_page, write_site

    names = studies.study_names() if name == "all" else [name]
    chosen = [studies.load_study(n) for n in names]
    execution = arguments.execution
    check_backend(execution.backend)
    check_address(execution.address)
    if execution.log_to is not None:
        check_sink(execution.log_to)
    folders: list[RunFolder] = []
    config, baseline = arguments.config, None
    if arguments.against is not None:
        from surefoot.comparing.against import baseline_of, paired

        baseline = baseline_of(chosen, arguments.against, execution.out)
        config = config if arguments.resume else paired(chosen[0], config, baseline)
    for study in chosen:
        if name == "all":
            config = study.config(**dataclasses.asdict(arguments.config) | {"part": ()})
        if arguments.resume is not None:
            folder = RunFolder.open(arguments.resume)
            resumable(study, folder)
            stored = config_of(study, folder)
            _refuse_changes(config, stored)
            config = stored
        else:
            try:
                folder = start(study, config, execution)
            except MissingExtraError as error:
                if name != "all":
                    raise
                print(f"skipped: {error}", file=sys.stderr)
                continue
            except ArgumentError as error:
                raise SurefootError(
                    flagged(str(error), dict(flags([execution, config])))
                ) from error
        for part, extras in folder.skipped.items():
            print(
                f"skipped: part {part} of study {study.name}; "
                f"run: pip install 'surefoot[{','.join(extras)}]'",
                file=sys.stderr,
            )
        try:
            with Progress(study.name, folder) as progress:
                execute(study, config, folder, execution, progress.done)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"what was done is in {folder.path}; to go on: {resume(study, folder, execution)}"
            ) from None
        write_run_page(folder)
        if execution.log_to is not None:
            send_run(folder, execution.log_to)
        folders.append(folder)
    if not folders:
        raise SurefootError("no study could run; see the lines above for what to install")
    index = write_site(folders[0].path.parent.parent)
    if arguments.json and baseline is None:
        print(json.dumps([_as_json(f) for f in folders], indent=1))
    elif not arguments.json:
        print_certificates(folders)
        print(f"report: {folders[0].path / 'index.html' if len(folders) == 1 else index}")
    if baseline is not None:
        from surefoot.comparing import compare
        from surefoot.comparing.page import show

        found = compare([baseline, *folders], confidence=execution.confidence)
        show(found, [_as_json(f) for f in folders] if arguments.json else None)
    return max(_exit_code(folder) for folder in folders)


def _refuse_changes(asked: Any, stored: Any) -> None:
    """A resumed run keeps its configuration; a flag that asks for another one would be ignored."""
    default = type(asked)()
    changed = [
        "--" + f.name.replace("_", "-")
        for f in dataclasses.fields(asked)
        if getattr(asked, f.name)
        not in (getattr(default, f.name, None), getattr(stored, f.name, None))
    ]
    if changed:
        raise SurefootError(
            f"a resumed run keeps its configuration, and {', '.join(changed)} asks for another; leave it "
            "out, or start a new run (to add seeds: --until-decided --max-seeds N)"
        )


def _exit_code(folder: RunFolder) -> int:
    """Say on stderr what went wrong in a run, and how bad that is."""
    status = folder.status
    for failure in status["failed"]:
        print(
            f"seed {failure['seed']} of part {failure['part']} crashed: {failure['error']}; "
            f"traceback in {folder.seed_folder(failure['part'], failure['seed'])}/error.txt",
            file=sys.stderr,
        )
    problems = status.get("problems", {})
    for part, why in problems.items():
        print(f"error: part {part} of study {folder.study}: {why}", file=sys.stderr)
    if problems:
        return 2
    broken = any(c.surprise and c.verdict == "BROKEN" for c in folder.certificates())
    return 1 if broken or status["failed"] else 0


def _as_json(folder: RunFolder) -> dict[str, Any]:
    return {
        "folder": str(folder.path),
        "study": folder.study,
        "status": folder.status,
        "certificates": [c.to_dict() for c in folder.certificates()],
    }


if __name__ == "__main__":
    sys.exit(main())
