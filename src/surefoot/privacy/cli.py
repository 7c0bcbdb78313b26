"""What a private training leaks: epsilon, calibrate, curve, from-opacus, audits (3: not DP as claimed)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from surefoot.errors import SurefootError
from surefoot.privacy._commands.audits import Audit, AuditTrain, Counterexample
from surefoot.privacy._commands.numbers import Calibrate, Curve, Epsilon, FromOpacus

NAME = "privacy"

Command = (
    Annotated[Epsilon, tyro.conf.subcommand("epsilon")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Curve, tyro.conf.subcommand("curve")]
    | Annotated[FromOpacus, tyro.conf.subcommand("from-opacus")]
    | Annotated[Audit, tyro.conf.subcommand("audit")]
    | Annotated[AuditTrain, tyro.conf.subcommand("audit-train")]
    | Annotated[Counterexample, tyro.conf.subcommand("counterexample")]
)


@dataclass(frozen=True)
class PrivacyCommand:
    """What a private training leaks: epsilon, calibrate, curve, from-opacus, audits.

    Exit code 3: an audit exceeds the proven value, so the implementation is not DP as claimed.
    """

    command: tyro.conf.OmitSubcommandPrefixes[Command]

    def __call__(self) -> int:
        try:
            return self.command()
        except ValueError as error:
            raise SurefootError(str(error)) from error


COMMAND = PrivacyCommand
