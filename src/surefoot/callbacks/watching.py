"""What both callbacks share: a watch that is made when the training begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surefoot._numerics.checks import check_number
from surefoot.certificate import Certificate
from surefoot.errors import SurefootError
from surefoot.guarantee import Guarantee
from surefoot.record import Record
from surefoot.watching import Offer, Probe, Watch, measures_of, probes_of, watch


class Watching:
    """Holds the watch of a training.

    Parameters
    ----------
    probes, every, seed, folder, checkpoint, objective, f_star, anchor, overhead
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
        objective: Callable[[], torch.Tensor] | None = None,
        f_star: float | None = None,
        anchor: torch.Tensor | None = None,
        overhead: float = 0.05,
    ) -> None:
        check_number("every", every, least=1, whole=True)
        check_number("overhead", overhead, least=0, finite=False)
        probes_of(probes)
        measures_of(probes, objective, f_star, anchor)
        self._settings: dict[str, Any] = {
            "probes": probes, "every": every, "seed": seed, "folder": folder, "checkpoint": checkpoint,
            "objective": objective, "f_star": f_star, "anchor": anchor, "overhead": overhead,
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

    def offered(self) -> list[Offer]:
        """As `Watch.offered`."""
        return self.watch.offered()

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """As `Watch.certificates`."""
        return self.watch.certificates(confidence)

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Watch from a step on."""
        self.end()
        self._watch = watch(model, optimizer, **self._settings)
        self._watch.step = step

    def end(self) -> None:
        """Check the last values, and stop."""
        if self._watch is not None:
            self._watch.close()
