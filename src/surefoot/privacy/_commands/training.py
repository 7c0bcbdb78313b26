"""How a training is described on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from surefoot.errors import SurefootError

if TYPE_CHECKING:
    from surefoot.privacy.linear_weights import LinearWeights


@dataclass(frozen=True)
class Training:
    """How the model is trained, in the accountant's units or in those of a training script."""

    sigma: float
    """Noise multiplier: noise standard deviation over clip norm."""
    q: float | None = None
    """Sample rate: probability that an example is in a batch."""
    steps: int | None = None
    """Number of updates."""
    dataset_size: int | None = None
    """Number of training examples; with batch size and epochs in place of q and steps."""
    batch_size: int | None = None
    """Expected number of examples in a batch."""
    epochs: int | None = None
    """Passes over the data."""

    def rate_and_steps(self) -> tuple[float, int]:
        """q and T, from whichever three of the flags were given."""
        return rate_and_steps(self.q, self.steps, self.dataset_size, self.batch_size, self.epochs)


def rate_and_steps(
    q: float | None,
    steps: int | None,
    dataset_size: int | None,
    batch_size: int | None,
    epochs: int | None,
) -> tuple[float, int]:
    """q and T: as given, or q = batch / n and T = epochs * n // batch.

    Raises
    ------
    SurefootError
        If neither way is complete, or both are used.
    """
    human = (dataset_size, batch_size, epochs)
    if q is not None and steps is not None and human == (None, None, None):
        return q, steps
    if dataset_size is not None and batch_size is not None and epochs is not None:
        if q is not None or steps is not None:
            raise SurefootError("--dataset-size, --batch-size and --epochs replace --q and --steps")
        if not 0 < batch_size <= dataset_size:
            raise SurefootError(
                f"--batch-size must be between 1 and --dataset-size = {dataset_size}, "
                f"got {batch_size}"
            )
        return batch_size / dataset_size, epochs * dataset_size // batch_size
    raise SurefootError("give --q and --steps, or all of --dataset-size, --batch-size and --epochs")


@dataclass(frozen=True)
class Optimizer:
    """What torch's SGD does with the gradients; it changes what each step counts in the last model."""

    momentum: float = 0.0
    """Momentum of SGD."""
    lr: float = 0.1
    """Learning rate; matters with weight decay only."""
    weight_decay: float = 0.0
    """Weight decay of SGD."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls to 0 over the run."""

    def weights(self, steps: int) -> LinearWeights | None:
        """None where all steps count the same."""
        if not self.momentum and not self.weight_decay and self.schedule == "constant":
            return None
        import torch

        from surefoot.privacy.linear_weights import LinearWeights

        optimizer = torch.optim.SGD(
            [torch.nn.Parameter(torch.zeros(1))],
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
        schedules = torch.optim.lr_scheduler
        scheduler: Any = None
        if self.schedule == "linear":
            scheduler = schedules.LambdaLR(optimizer, lambda t: 1 - t / steps)
        elif self.schedule == "cosine":
            scheduler = schedules.CosineAnnealingLR(optimizer, steps)
        return LinearWeights.from_optimizer(optimizer, steps, scheduler)


@dataclass(frozen=True)
class Claim:
    """The training that the audit is held against."""

    sigma: float | None = None
    """Claimed noise multiplier."""
    q: float | None = None
    """Claimed sample rate."""
    steps: int | None = None
    """Claimed number of updates."""

    def claimed(self) -> tuple[float, float, int] | None:
        """(sigma, q, T), or None where nothing is claimed."""
        given = (self.sigma, self.q, self.steps)
        if given == (None, None, None):
            return None
        if self.sigma is None or self.q is None or self.steps is None:
            raise SurefootError("a claim needs all of --sigma, --q and --steps")
        return self.sigma, self.q, self.steps
