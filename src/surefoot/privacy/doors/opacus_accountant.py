"""An Opacus accountant whose epsilon is Opacus' proven one and that records what Opacus forgets."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from opacus.accountants import PRVAccountant
from opacus.accountants.registry import register_accountant

from surefoot.certificate import Certificate
from surefoot.privacy.doors.opacus_history import from_opacus, note_training
from surefoot.privacy.result import Value
from surefoot.record import Record

NAME = "prv+last_iterate"
COLUMNS = {"learning rate": "lrs", "clip norm": "clips", "batch size": "batch_sizes"}


def _nothing() -> dict[str, list[Any]]:
    return {
        "lrs": [], "clips": [], "momenta": [], "weight_decays": [], "batch_sizes": [],
        "optimizers": [],
    }  # fmt: skip


class LastIterateAccountant(PRVAccountant):  # type: ignore[misc]
    """Opacus' PRV accountant with the last-iterate heuristic beside it.

    `get_epsilon` is the proven value. `observed` holds, per step, learning rate, clip norm, momentum, weight
    decay and batch size (None where a batch came in pieces); it travels in the state dict.
    """

    def __init__(self) -> None:
        super().__init__()
        self.observed = _nothing()

    @classmethod
    def mechanism(cls) -> str:
        """The name that Opacus knows this accountant by."""
        return NAME

    def get_optimizer_hook_fn(self, sample_rate: float) -> Callable[[Any], None]:
        """Opacus' hook, and the recording of what the step used."""
        count = super().get_optimizer_hook_fn(sample_rate)

        def hook(optimizer: Any) -> None:
            count(optimizer)
            group = optimizer.param_groups[0]
            self.observed["lrs"].append(float(group["lr"]))
            clip = optimizer.max_grad_norm
            # Per-layer clipping has a norm for each parameter; their root sum of squares bounds the gradient.
            clip = clip if isinstance(clip, (int, float)) else sum(c * c for c in clip) ** 0.5
            self.observed["clips"].append(float(clip))
            self.observed["momenta"].append(float(group.get("momentum", 0.0)))
            self.observed["weight_decays"].append(float(group.get("weight_decay", 0.0)))
            name = type(getattr(optimizer, "original_optimizer", optimizer)).__name__
            if name not in self.observed["optimizers"]:
                self.observed["optimizers"].append(name)
            # The hook runs before this flag is reset: a batch in pieces shows only its last one.
            pieces = optimizer._is_last_step_skipped or optimizer.accumulated_iterations != 1
            size = None if pieces else len(optimizer.grad_samples[0])
            self.observed["batch_sizes"].append(size)

        return hook

    def heuristic(self, delta: float) -> Value:
        """The last-iterate heuristic of the training so far: not a guarantee.

        Raises
        ------
        ValueError
            If there was no step yet, or the batches were no Poisson samples.
        """
        value = from_opacus(self, delta).heuristic
        assert value is not None
        return value

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
