"""Run a Flower app on this machine: simulate, or up with TLS and real nodes."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from surefoot._numerics.checks import check_number
from surefoot._numerics.refusing import refuse
from surefoot.errors import ArgumentError, SurefootError


@dataclass(frozen=True)
class Common:
    """What both ways of running share."""

    app: tyro.conf.Positional[Path]
    """The folder of the app, for instance apps/repopt."""
    partitions: int = 2
    """How many nodes."""
    rounds: int = 3
    """Server rounds."""
    seed: int = 0
    """Seed of the run."""
    out: Path = Path("federated.safetensors")
    """Where the final arrays go; rounds, facts and certificates go to OUT.json."""
    folder: Path | None = None
    """Keep keys and logs here; by default they are removed."""
    timeout: float = 3600.0
    """Seconds after which the run is given up."""
    resume: bool = False
    """Go on from OUT.checkpoint, where a run that was killed left its last round."""
    set: tuple[str, ...] = field(default_factory=tuple)
    """More keys of the app's run-config, KEY=VALUE."""

    json: bool = False
    """Print JSON: rounds, metrics, facts and certificates."""

    def __post_init__(self) -> None:
        for name in ("partitions", "rounds"):
            check_number(name, getattr(self, name), least=1, whole=True)
        check_number("timeout", self.timeout, above=0)
        for word in self.set:
            if "=" not in word:
                refuse(ArgumentError("set", f"must be KEY=VALUE, got {word!r}"))

    def run(self, secure: bool) -> int:
        """Start, run, stop, and print what happened and its certificates."""
        from surefoot.federated.following import checkpoint_of
        from surefoot.federated.launcher import (
            Federation,
            FederationError,
            app_choices,
            app_config,
            check_by,
        )
        from surefoot.federated.run_config import check_config, value_of

        config: dict[str, str | int | float] = {"num-server-rounds": self.rounds, "seed": self.seed}
        left = checkpoint_of(self.out.resolve())
        if left.exists() and not self.resume:
            print(
                f"note: {left} is of a run that did not end; --resume goes on from it, this one starts anew",
                file=sys.stderr,
            )
        federation = Federation(self.app, self.partitions, secure=secure, folder=self.folder)
        defaults = app_config(federation.app)
        try:
            for word in self.set:
                key, _, value = word.partition("=")
                config[key] = value_of(value, defaults.get(key))
            check_config(config, defaults, app_choices(federation.app))
            check_by(federation.app, {**config, "num-partitions": self.partitions})
        except ValueError as error:
            federation.close()
            raise SurefootError(f"--set: {error}") from None
        try:
            with federation:
                out = federation.run(
                    self.out, config, self.timeout, resume=self.resume,
                    on_round=None if self.json else _print_round,
                )  # fmt: skip
        except FederationError as error:
            # Nothing is wrong with what was asked: the run failed, as a crashed seed does.
            print(f"error: {error}", file=sys.stderr)
            if left.exists():
                print("its last round is kept: --resume goes on from there", file=sys.stderr)
            return 1
        report = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))
        if self.json:
            print(json.dumps({"out": str(out), **report}, indent=1))
        else:
            _print(out, report)
        return 0


def _print_round(found: dict[str, Any]) -> None:
    who = "who took part is secret"
    if "partitions" in found:
        who = f"partitions {found['partitions']}, {found['bytes_down']} bytes down, {found['bytes_up']} up"
    metrics = "".join(f", {k} {v:.4f}" for k, v in found["metrics"].items())
    print(f"round {found['server_round']}: {who}{metrics}", flush=True)
    for kind in ("lost", "rejected"):
        for partition, reason in found.get(kind, {}).items():
            print(f"  partition {partition} {kind}: {reason}", flush=True)


def _print(out: Path, report: dict[str, Any]) -> None:
    from surefoot.certificate import Certificate

    for made in report["certificates"]:
        certificate = Certificate.from_dict(made)
        print(f"{certificate.label}: {certificate.name} ({certificate.reason})")
    print(out)


@dataclass(frozen=True)
class Simulate(Common):
    """Simulate the nodes of an app on this machine."""

    def __call__(self) -> int:
        return self.run(secure=False)


@dataclass(frozen=True)
class Up(Common):
    """Run an app on a real SuperLink and SuperNodes, with TLS and node authentication, on localhost."""

    def __call__(self) -> int:
        return self.run(secure=True)


FederateCommand = (
    Annotated[Simulate, tyro.conf.subcommand("simulate")]
    | Annotated[Up, tyro.conf.subcommand("up")]
)


NAME = "federate"
COMMAND = FederateCommand
