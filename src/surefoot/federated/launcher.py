"""Run a Flower app on this machine: simulated, or on a real SuperLink with TLS and SuperNodes.

Every process started here is stopped here, with its children, and no other one is.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from surefoot._run.environment import check_ray
from surefoot._run.files import replacing
from surefoot.errors import MissingExtraError, SurefootError
from surefoot.federated import _processes
from surefoot.federated.following import Rounds, checkpoint_of
from surefoot.federated.keys import make_node_key, make_tls_files

HOST = "127.0.0.1"
READY = "Uvicorn running on"
# Seconds; a process that ends says so at once, so this is for machines that are busy.
PATIENCE = 600.0


class FederationError(SurefootError, RuntimeError):
    """A process of the federation ended or did not start; its last lines are in the message."""


def environment(home: Path) -> dict[str, str]:
    """What Flower's processes run under: no telemetry, no update check, nothing installed at run time."""
    # SuperLink and SuperNode start their helpers by bare name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {
        **os.environ,
        "PATH": path,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # One thread in every process: the order of sums, and the bits, must not depend on cores.
        "OMP_NUM_THREADS": "1",
    }


class Federation:
    """The processes of one federation; use it as a context manager.

    Parameters
    ----------
    app
        A folder with a Flower app: its pyproject.toml names the two components.
    partitions
        How many SuperNodes, real or simulated.
    secure
        True: SuperLink with TLS and node authentication, real SuperNodes. False: a SuperLink that
        simulates the nodes.
    folder
        Where keys, logs and Flower's own state go; by default a temporary folder that is removed.
    """

    def __init__(
        self, app: str | Path, partitions: int, *, secure: bool, folder: str | Path | None = None
    ) -> None:
        self.app = Path(app).resolve()
        if not (self.app / "pyproject.toml").exists():
            raise SurefootError(f"{app} is no Flower app: it has no pyproject.toml")
        if partitions < 1:
            raise SurefootError(f"partitions must be at least 1, got {partitions}")
        if shutil.which("flower-superlink", path=environment(Path())["PATH"]) is None:
            raise MissingExtraError("surefoot federate", "flwr", "federated")
        if not secure:
            check_ray()
        self.partitions, self.secure = partitions, secure
        self._own = folder is None
        # Named here and made when the guardian knows of them: a kill in between leaves nothing.
        self.folder = Path(folder or _unmade("surefoot-federation-")).resolve()
        self._ray = _unmade("ray-", _short())
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._guardian: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def __enter__(self) -> Federation:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        self._guard()
        self.folder.mkdir(mode=0o700 if self._own else 0o777, parents=True, exist_ok=not self._own)
        self._ray.mkdir(mode=0o700)
        self.home = self.folder / "home"
        self.home.mkdir(exist_ok=True)
        if self.secure:
            make_tls_files(self.folder)
            connection = f'root-certificates = "{self.folder / "ca.crt"}"\n'
            flags = [
                "--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.crt",
                "--ssl-keyfile", "server.key", "--enable-supernode-auth",
            ]  # fmt: skip
        else:
            connection = (
                f"insecure = true\noptions.num-supernodes = {self.partitions}\n"
                "options.backend.client-resources.num-cpus = 1\n"
            )
            flags = ["--simulation", "--insecure"]
        (self.home / "config.toml").write_text(
            '[superlink]\ndefault = "here"\n\n'
            f'[superlink.here]\naddress = "{HOST}:{self.port}"\n{connection}'
        )
        link = ["flower-superlink", *flags, "--host", HOST, "--port", str(self.port)]
        self.start("superlink", link)
        self.wait_for_line("superlink", READY, PATIENCE)
        if self.secure:
            for p in range(self.partitions):
                make_node_key(self.folder / f"node{p}")
                self.command("supernode", "register", str(self.folder / f"node{p}.pub"), "here")
                self.start_node(p)

    def _guard(self) -> None:
        """Start the process that ends the others and removes what is temporary, should this one be killed."""
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", str(Path(_processes.__file__))],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        for folder in (self._ray, *([self.folder] if self._own else [])):
            self._tell(folder=str(folder))

    def _tell(self, **said: object) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guardian.stdin.write(json.dumps(said).encode() + b"\n")
                self._guardian.stdin.flush()

    def start_node(self, partition: int, key: str | None = None) -> None:
        """Start the SuperNode of a partition; `key` is the name of its private key in the folder."""
        name = f"node{partition}"
        self.start(
            name,
            [
                "flower-supernode", "--root-certificates", "ca.crt",
                "--superlink", f"{HOST}:{self.port}", "--port", str(free_port()),
                "--auth-supernode-private-key", key or name,
                "--node-config", f"partition-id={partition} num-partitions={self.partitions}",
            ],
        )  # fmt: skip

    def start(self, name: str, command: list[str]) -> None:
        """Start a process in a group of its own, its output in NAME.log."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
                env=environment(self.home) | {"RAY_TMPDIR": str(self._ray)},
            )  # fmt: skip
        pid = self.processes[name].pid
        self._tell(process=[pid, _processes.started(pid)])

    def log(self, name: str) -> str:
        """What a process has said so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def wait_for_line(self, name: str, line: str, seconds: float) -> None:
        """Wait until a process has said something.

        Raises
        ------
        FederationError
            It ended before, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while line not in self.log(name):
            ended = self.processes[name].poll()
            if ended is not None or time.monotonic() > deadline:
                how = (
                    f"ended with code {ended}" if ended is not None else f"took over {seconds:g} s"
                )
                raise FederationError(f"{name} {how}; its last lines:\n{_tail(self.log(name))}")
            time.sleep(0.1)

    def command(
        self, *words: str, timeout: float = PATIENCE, meanwhile: Callable[[], None] | None = None
    ) -> str:
        """Run `flwr WORDS` against this SuperLink and return what it said, calling `meanwhile` at times."""
        command = ["flwr", *words]
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                command, env=environment(self.home), stdout=said, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
            self._tell(process=[process.pid, _processes.started(process.pid)])
            try:
                code = self._attend(process, timeout, f"flwr {' '.join(words[:2])}", meanwhile)
            finally:
                _stop(process)
            said.seek(0)
            text = said.read().decode(errors="replace")
        if code:
            raise FederationError(f"flwr {' '.join(words)} failed ({code}):\n{_tail(text)}")
        return text

    def _attend(
        self, process: subprocess.Popen[bytes], timeout: float, what: str,
        meanwhile: Callable[[], None] | None,
    ) -> int:  # fmt: skip
        """Wait for a command; not for ever, and not for a server that is gone."""
        deadline = time.monotonic() + timeout
        while True:
            if meanwhile is not None:
                meanwhile()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(0.2)
            link = self.processes.get("superlink")
            if link is not None and link.poll() is not None:
                raise FederationError(
                    f"the superlink ended with code {link.returncode} during {what}; its last lines:\n"
                    f"{_tail(self.log('superlink'), 10)}"
                )
            if time.monotonic() > deadline:
                raise FederationError(f"{what} took over {timeout:g} s")

    def run(
        self, out: str | Path, config: Mapping[str, str | int | float] | None = None,
        timeout: float = 3600.0, *, resume: bool = False,
        on_round: Callable[[dict[str, Any]], None] | None = None,
    ) -> Path:  # fmt: skip
        """Run the app; the final arrays are in `out`, rounds, facts and certificates beside it in OUT.json.

        Paths in the configuration, which the app lists, are relative to this process' folder.

        Parameters
        ----------
        out, config, timeout
            Where the result goes; the keys of the run; seconds after which it is given up.
        resume
            Go on from OUT.checkpoint, where a run that did not end left its last round.
        on_round
            Called with each round when it is finished: its entry of OUT.json, and its metrics.

        Raises
        ------
        FederationError
            The run failed or took longer than `timeout`, or there is nothing at such a path; what was in
            `out` before is then still there.
        """
        out = Path(out).resolve()
        if not out.parent.is_dir():
            raise FederationError(f"there is no folder {out.parent} to write {out.name} in")
        # A result takes the place of an older one when it is whole.
        new = self.folder / "result.safetensors"
        report = Path(f"{new}.json")
        new.unlink(missing_ok=True)
        report.unlink(missing_ok=True)
        rounds = Rounds(Path(f"{new}.rounds"), on_round)
        kept = self._checkpoint(out, resume)
        found = here({**(config or {})}, self.app / "pyproject.toml")
        settings = {**found, "num-partitions": self.partitions, "out": str(new), **kept}
        # The app is copied: `flwr run` writes beside its files.
        copy = self.folder / "app"
        if not copy.exists():
            shutil.copytree(self.app, copy, ignore=shutil.ignore_patterns("__pycache__"))
        said = self.command(
            "run", str(copy), "here", "--stream", "--run-config",
            " ".join(f"{k}={_toml(v)}" for k, v in settings.items()), timeout=timeout,
            meanwhile=rounds.look,
        )  # fmt: skip
        rounds.look()
        if not new.exists():
            # Where the ServerApp says of itself what ended it, Flower's traceback of it is no help.
            if why := _error_of(report):
                raise FederationError(f"the run ended without a result: {why}")
            logs = f"{_tail(said)}\n{_tail(self.log('superlink'), 10)}"
            raise FederationError(f"the run ended without a result; its last lines:\n{logs}")
        for file, place in ((report, Path(f"{out}.json")), (new, out)):
            with replacing(place) as partial:
                shutil.copyfile(file, partial)
        checkpoint_of(out).unlink(missing_ok=True)
        return out

    def _checkpoint(self, out: Path, resume: bool) -> dict[str, str | bool]:
        """The keys that say where the last round is kept, for an app that knows them."""
        path, known = checkpoint_of(out), app_config(self.app)
        if not {"checkpoint", "resume"} <= set(known):
            if resume:
                raise FederationError(
                    f"{self.app.name} cannot go on from a round: its pyproject.toml has no keys checkpoint "
                    "and resume"
                )
            return {}
        if resume and not path.exists():
            raise FederationError(f"there is no {path} to go on from: start anew without resume")
        return {"checkpoint": str(path), "resume": resume}

    def close(self) -> None:
        """Stop what was started, nodes first, each with its children; then remove a temporary folder."""
        for process in reversed(self.processes.values()):
            _stop(process)
        self.processes.clear()
        self._tell(done=True)
        if self._guardian is not None:
            assert self._guardian.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._guardian.stdin.close()
            self._guardian.wait()
            self._guardian = None
        shutil.rmtree(self._ray, ignore_errors=True)
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)


def _unmade(prefix: str, folder: str | None = None) -> Path:
    """A temporary folder that nobody has, not made yet."""
    return Path(folder or tempfile.gettempdir()) / f"{prefix}{secrets.token_hex(4)}"


def _short() -> str | None:
    """Where Ray's sockets can be: the kernel takes 107 bytes, of which Ray's own names need two thirds."""
    usual = tempfile.gettempdir()
    return "/tmp" if len(usual) > 30 and os.access("/tmp", os.W_OK) else None


def _stop(process: subprocess.Popen[bytes]) -> None:
    born = _processes.started(process.pid)
    if born is not None:
        _processes.end({(process.pid, born)})
    # Where there is no /proc its group is all that is known.
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
    process.wait()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def here(config: Mapping[str, str | int | float], project: Path) -> dict[str, str | int | float]:
    """A configuration whose paths are absolute: Flower runs an app in a folder of its own.

    Which keys are paths the app says in its pyproject.toml, as tool.surefoot.paths.

    Raises
    ------
    FederationError
        There is nothing at a path; the key is named.
    """
    found = dict(config)
    tables = tomllib.loads(project.read_text(encoding="utf-8")).get("tool", {})
    for key in tables.get("surefoot", {}).get("paths", ()):
        if not found.get(key):
            continue
        path = Path(str(found[key])).expanduser().resolve()
        if not path.exists():
            raise FederationError(f"{key} = {config[key]!r}: there is nothing at {path}")
        found[key] = str(path)
    return found


def app_config(app: Path) -> dict[str, Any]:
    """The keys of an app with their defaults, as its pyproject.toml has them."""
    tables = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(tables.get("tool", {}).get("flwr", {}).get("app", {}).get("config", {}))


def app_choices(app: Path) -> dict[str, list[str]]:
    """The words that keys of an app may have, as tool.surefoot.choices of its pyproject.toml lists them."""
    tables = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(tables.get("tool", {}).get("surefoot", {}).get("choices", {}))


def check_by(app: Path, config: Mapping[str, Any]) -> None:
    """Have an app look at a configuration before anything is started, defaults included.

    What looks is a function of an installed module, as tool.surefoot.check of its pyproject.toml names it.

    Raises
    ------
    ValueError
        It refuses the configuration.
    FederationError
        There is no such function.
    """
    tables = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
    place = tables.get("tool", {}).get("surefoot", {}).get("check")
    if place is None:
        return
    module, _, name = str(place).partition(":")
    try:
        check = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise FederationError(
            f"tool.surefoot.check of {app / 'pyproject.toml'} must be MODULE:FUNCTION, got {place!r}: {error}"
        ) from error
    check({**app_config(app), **config})


def _error_of(report: Path) -> str:
    """What ended a run early, by its own report; "" where that does not say."""
    try:
        return str(json.loads(report.read_text(encoding="utf-8")).get("error", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _toml(value: str | int | float) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _tail(text: str, lines: int = 25) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
