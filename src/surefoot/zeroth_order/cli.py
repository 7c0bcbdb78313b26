"""Fine-tuning with forward passes only: `zo replay` makes weights again from a log of kilobytes."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass
from pathlib import Path

import tyro

from surefoot._numerics.checks import check_number
from surefoot.errors import SurefootError

NAME = "zo"
ALSO = ("replay",)


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
    json: bool = False
    """Print JSON: where the model is."""

    def __post_init__(self) -> None:
        if self.upto is not None:
            check_number("upto", self.upto, least=0, whole=True)

    def __call__(self) -> int:
        from surefoot.zeroth_order.doors.folders import replay_folder

        try:
            out = replay_folder(self.base, self.log, self.out, upto=self.upto)
        except ValueError as error:
            raise SurefootError(str(error)) from error
        print(jsonlib.dumps({"out": str(out)}) if self.json else out)
        return 0


# A mapping, as a union of one is no union and would make no subcommand.
COMMAND = {"replay": Replay}
