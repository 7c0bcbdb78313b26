"""`LightningWatchCallback`: a training of Lightning's Trainer, recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from surefoot._numerics.arguments import checked
from surefoot.callbacks.watching import Watching
from surefoot.errors import SurefootError, need
from surefoot.watching import Probe

with need("lightning", extra="lightning", part="surefoot.callbacks.LightningWatchCallback"):
    from lightning.pytorch import Callback


@checked
class LightningWatchCallback(Watching, Callback):
    """Records the loss of each training step, and probes, at each step of the optimizer.

    ```python
    watching = LightningWatchCallback(probes=("gradient_norm",), every=10)
    Trainer(max_steps=100, callbacks=[watching]).fit(module, loader)
    watching.certify(my_guarantee)
    ```

    Losses of batches whose gradients accumulate are averaged into their step. Numbers that the module logs at
    a validation are recorded under their names.

    Parameters
    ----------
    probes, every, seed, folder, checkpoint, objective, f_star, anchor, overhead
        As for `surefoot.watch`.
    optimizer
        Which of the module's optimizers is watched, where it has several.
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
        optimizer: int | None = None,
    ) -> None:
        super().__init__(
            probes, every, seed=seed, folder=folder, checkpoint=checkpoint, objective=objective,
            f_star=f_star, anchor=anchor, overhead=overhead,
        )  # fmt: skip
        self._which = optimizer

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Watch the module and its optimizer.

        Raises
        ------
        SurefootError
            It has several, and none was chosen, or none of that number.
        """
        count = len(trainer.optimizers)
        which = 0 if self._which is None and count == 1 else self._which
        if which is None or not 0 <= which < count:
            raise SurefootError(
                f"the module has {count} optimizers: optimizer must be between 0 and {count - 1}, got {which}"
            )
        self.begin(pl_module, trainer.optimizers[which], trainer.global_step)
        self.watch.record.note(self.watch.seed, trainer="lightning.Trainer")

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the loss of a batch at the step that it is part of."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor) and loss.numel() == 1:
            # The step of a batch was taken before this is called, unless gradients accumulate; the loss is
            # handed over divided by how many batches do.
            taken = not trainer.fit_loop._should_accumulate()
            parts = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            self.watch.log(self.watch.step - taken, loss=loss * parts)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Record what the module has logged."""
        if self._watch is None or trainer.sanity_checking or not self.watch.step:
            return
        found = {
            name: value
            for name, value in trainer.callback_metrics.items()
            if isinstance(value, torch.Tensor) and value.numel() == 1 and name != "loss"
        }
        if found:
            self.watch.log(self.watch.step - 1, **found)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Check the last values."""
        self.end()
