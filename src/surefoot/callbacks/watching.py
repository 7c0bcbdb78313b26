"""What both callbacks share: a watch that is made when the training begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surefoot._numerics.checks import check_number
from surefoot.certificate import Certificate
from surefoot.errors import SurefootError
from surefoot.guarantee import Guarantee
from surefoot.record import Record
from surefoot.watching import Probe, Watch, probes_of, watch


class Watching:
    """Holds the watch of a training.

    Parameters
    ----------
    probes, every, seed, folder, checkpoint
        As for `surefoot.watch`.
    """

    def __init__(
        self,
        probes: Mapping[str, Probe] | tuple[str, ...] = (),
        every: int = 50,
        *,
        seed: int = 0,
        folder: str | Path | None = None,
        checkpoint: str | Path | None = None,
    ) -> None:
        check_number("every", every, least=1, whole=True)
        self._settings: dict[str, Any] = {
            "probes": probes_of(probes), "every": every, "seed": seed, "folder": folder,
            "checkpoint": checkpoint,
        }  # fmt: skip
        self._watch: Watch | None = None

    @property
    def watch(self) -> Watch:
        """The watch of the training.

        Raises
        ------
        SurefootError
            It has not begun.
        """
        if self._watch is None:
            raise SurefootError("nothing is watched yet: the training has not begun")
        return self._watch

    @property
    def record(self) -> Record:
        """What was recorded."""
        return self.watch.record

    def certify(self, guarantee: Guarantee, confidence: float = 0.99) -> Certificate:
        """Compare what was recorded so far with a guarantee."""
        return self.watch.certify(guarantee, confidence)

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Watch from a step on."""
        self.end()
        self._watch = watch(model, optimizer, **self._settings)
        self._watch.step = step

    def end(self) -> None:
        """Check the last values, and stop."""
        if self._watch is not None:
            self._watch.close()
