"""An Opacus accountant whose epsilon is Opacus' proven one and that records what Opacus forgets."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import zip_longest
from typing import Any

import torch
from opacus.accountants import PRVAccountant
from opacus.accountants.registry import register_accountant

from surefoot.certificate import Certificate
from surefoot.privacy._impulses import Recipe, recipe_of, unwrapped
from surefoot.privacy.doors.opacus_history import from_opacus, note_training
from surefoot.privacy.result import Value
from surefoot.record import Record

NAME = "prv+last_iterate"
PLAIN = (bool, int, float, str)
COLUMNS = {"learning rate": "lrs", "clip norm": "clips", "batch size": "batch_sizes"}


def _nothing() -> dict[str, list[Any]]:
    return {
        "lrs": [], "clips": [], "momenta": [], "weight_decays": [], "batch_sizes": [],
        "optimizers": [], "torchs": [], "settings": [], "ratios": [], "unequal": [],
    }  # fmt: skip


class LastIterateAccountant(PRVAccountant):  # type: ignore[misc]
    """Opacus' PRV accountant with the last-iterate heuristic beside it.

    `get_epsilon` is the proven value. `observed` holds, per step, learning rate, clip norm, momentum, weight
    decay and batch size (None where a batch came in pieces), and by counts of steps what else the optimizer
    was set to; it travels in the state dict. `kinds` are the classes that were seen, which do not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.observed = _nothing()
        self.kinds: dict[str, Recipe] = {}

    @classmethod
    def mechanism(cls) -> str:
        """The name that Opacus knows this accountant by."""
        return NAME

    def get_optimizer_hook_fn(self, sample_rate: float) -> Callable[[Any], None]:
        """Opacus' hook, and the recording of what the step used."""
        count = super().get_optimizer_hook_fn(sample_rate)

        def hook(optimizer: Any) -> None:
            count(optimizer)
            self._see(unwrapped(optimizer))
            group = optimizer.param_groups[0]
            self.observed["lrs"].append(float(group.get("lr", 1.0)))
            clip = optimizer.max_grad_norm
            # Per-layer clipping has a norm for each parameter; their root sum of squares bounds the gradient.
            clip = clip if isinstance(clip, (int, float)) else sum(c * c for c in clip) ** 0.5
            self.observed["clips"].append(float(clip))
            self.observed["momenta"].append(float(group.get("momentum", 0.0)))
            self.observed["weight_decays"].append(float(group.get("weight_decay", 0.0)))
            # The hook runs before this flag is reset: a batch in pieces shows only its last one.
            pieces = optimizer._is_last_step_skipped or optimizer.accumulated_iterations != 1
            size = None if pieces else len(optimizer.grad_samples[0])
            self.observed["batch_sizes"].append(size)

        return hook

    def _see(self, optimizer: Any) -> None:
        """Note what takes this step and how its groups are set."""
        seen, kind = self.observed, type(optimizer)
        if kind.__name__ not in self.kinds:
            self.kinds[kind.__name__] = recipe_of(optimizer)
        if kind.__name__ not in seen["optimizers"]:
            seen["optimizers"].append(kind.__name__)
            if getattr(torch.optim, kind.__name__, None) is kind:
                seen["torchs"].append(kind.__name__)
        names = self.kinds[kind.__name__].names()
        first, *others = (
            {k: v for k, v in group.items() if k in names and isinstance(v, PLAIN)}
            for group in optimizer.param_groups
        )
        rates = [float(group.get("lr", 1.0)) for group in optimizer.param_groups]
        apart = sorted({k for other in others for k in first if k != "lr" and first[k] != other[k]})
        if apart:
            self._unequal(f"{', '.join(apart)} of the parameter groups differ")
        ratios = sorted(
            {rate / rates[0] if rates[0] else float(rate != 0) for rate in rates} - {1.0}
        )
        if not seen["ratios"]:
            seen["ratios"] = [1.0, *ratios]
        elif any(
            abs(a - b) > 1e-9 * b
            for a, b in zip_longest([1.0, *ratios], seen["ratios"], fillvalue=0.0)
        ):
            self._unequal("the learning rates of the parameter groups moved apart")
        first.pop("lr", None)
        runs = seen["settings"]
        if runs and runs[-1][1] == first:
            runs[-1][0] += 1
        else:
            runs.append([1, first])

    def _unequal(self, reason: str) -> None:
        if reason not in self.observed["unequal"]:
            self.observed["unequal"].append(reason)

    def heuristic(self, delta: float) -> Value:
        """The last-iterate heuristic of the training so far: not a guarantee.

        Steps count as the optimizer made them count: momentum, weight decay, learning rates and clip norms.

        Raises
        ------
        ValueError
            If there was no step yet, if the batches were no Poisson samples, or if the theory does not
            cover the optimizer (Adam; groups in which steps count differently).
        """
        report = from_opacus(self, delta)
        if report.heuristic is None:
            raise ValueError(next(row.note for row in report.rows if row.name == "heuristic"))
        return report.heuristic

    @property
    def record(self) -> Record:
        """What the training so far was: facts, and learning rate, clip norm and batch size by step."""
        record = Record()
        if self.history:
            note_training(record, None, self)
        for name, column in COLUMNS.items():
            known = [(t, v) for t, v in enumerate(self.observed[column]) if v is not None]
            record.extend(0, name, [float(v) for _, v in known], [t for t, _ in known])
        return record

    def certificates(self, delta: float) -> list[Certificate]:
        """Those of `from_opacus`.

        Raises
        ------
        ValueError
            As in `heuristic`.
        """
        return from_opacus(self, delta).certificates()

    def state_dict(self, destination: Any = None) -> Any:
        """Opacus' state with the recorded columns."""
        state = super().state_dict(destination)
        state["observed"] = deepcopy(self.observed)
        return state

    def load_state_dict(self, state_dict: Any) -> None:
        """Take the state back; one of another mechanism is refused by Opacus."""
        super().load_state_dict(state_dict)
        self.observed = _nothing() | deepcopy(state_dict.get("observed", {}))


def register() -> str:
    """Make the accountant known to Opacus; twice does no harm."""
    register_accountant(NAME, LastIterateAccountant, force=True)
    return NAME
