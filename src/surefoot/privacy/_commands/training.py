"""How a training is described on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from surefoot._numerics.checks import check_number
from surefoot.errors import SurefootError
from surefoot.privacy._checks import check_noise, check_rate, check_steps

if TYPE_CHECKING:
    import torch

Sampling = Literal["poisson", "shuffled"]
FORWARD_ONLY = ("LOZO", "MeZO", "ZOAdam")


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
    drop_last: bool = False
    """The data loader leaves out the last batch of an epoch where it is smaller."""

    def __post_init__(self) -> None:
        check_noise(self.sigma, "sigma")
        check_size(self)

    def rate_and_steps(self, sampling: Sampling) -> tuple[float, int]:
        """q and T, from whichever three of the flags were given."""
        return rate_and_steps(
            self.q, self.steps, self.dataset_size, self.batch_size, self.epochs,
            sampling=sampling, drop_last=self.drop_last,
        )  # fmt: skip


def check_size(given: Any) -> None:
    """Of the flags that say how long a training is, each that was given."""
    if given.q is not None:
        check_rate(given.q, "q")
    if given.steps is not None:
        check_steps(given.steps, "steps")
    for name, least in (("dataset_size", 1), ("batch_size", 1), ("epochs", 0)):
        value = getattr(given, name, None)
        if value is not None:
            check_number(name, value, least=least, whole=True)


def rate_and_steps(
    q: float | None,
    steps: int | None,
    dataset_size: int | None,
    batch_size: int | None,
    epochs: int | None,
    *,
    sampling: Sampling = "poisson",
    drop_last: bool = False,
) -> tuple[float, int]:
    """q and T: as given, or of the loader that Opacus makes of one with this batch size.

    A pass has ceil(n / b) batches (floor with `drop_last`), and an example is in each of them with
    probability 1 / (that number): b / n is the rate of no loader unless b divides n.

    Raises
    ------
    SurefootError
        If neither way is complete, or both are used.
    """
    human = (dataset_size, batch_size, epochs)
    if q is not None and steps is not None and human == (None, None, None):
        if drop_last:
            raise SurefootError("--drop-last goes with --dataset-size, --batch-size and --epochs")
        return q, steps
    if dataset_size is None or batch_size is None or epochs is None:
        raise SurefootError(
            "give --q and --steps, or all of --dataset-size, --batch-size and --epochs"
        )
    if q is not None or steps is not None:
        raise SurefootError("--dataset-size, --batch-size and --epochs replace --q and --steps")
    if not 0 < batch_size <= dataset_size:
        raise SurefootError(
            f"--batch-size must be between 1 and --dataset-size = {dataset_size}, got {batch_size}"
        )
    if epochs < 0:
        raise SurefootError(f"--epochs must be at least 0, got {epochs}")
    batches = dataset_size // batch_size if drop_last else -(-dataset_size // batch_size)
    # Opacus' Poisson sampler draws int(1 / rate) batches a pass, by rounding one less for some rates, and its
    # accountant takes the rate of so many, which is no smaller.
    passes = int(1 / (1 / batches)) if sampling == "poisson" else batches
    return 1 / passes, epochs * passes


class ForwardOnly:
    """An optimiser that takes no gradients, of which nothing else needs to be known here."""

    forward_only = True


def forward_only(name: str) -> Any:
    """One by this name."""
    return type(name, (ForwardOnly,), {})()


@dataclass(frozen=True)
class Optimizer:
    """What the optimizer does with the gradients; it changes what each step counts in the last model."""

    optimizer: str = "SGD"
    """SGD, another optimizer of torch (Adam, RMSprop ...), or LOZO, MeZO, ZOAdam."""
    momentum: float = 0.0
    """Momentum of SGD."""
    lr: float = 0.1
    """Learning rate; matters with weight decay only."""
    weight_decay: float = 0.0
    """Weight decay."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls to 0 over the run."""

    def __post_init__(self) -> None:
        check_number("momentum", self.momentum, least=0)
        check_number("lr", self.lr, least=0)
        check_number("weight_decay", self.weight_decay, least=0)

    def made(self, steps: int) -> tuple[Any, list[float] | None]:
        """The optimizer and its learning rates by step; None where they are constant.

        Raises
        ------
        SurefootError
            If there is none by this name, or it does not take what is given.
        """
        import torch

        if self.optimizer in FORWARD_ONLY:
            return forward_only(self.optimizer), None
        kind: Any = getattr(torch.optim, self.optimizer, None)
        known = isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
        if not known:
            raise SurefootError(
                f"--optimizer must be an optimizer of torch or one of {', '.join(FORWARD_ONLY)}, "
                f"got {self.optimizer!r}"
            )
        given: dict[str, Any] = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        try:
            made: torch.optim.Optimizer = kind(
                [torch.nn.Parameter(torch.zeros(1))],
                lr=self.lr,
                **{k: v for k, v in given.items() if v},
            )
        except (TypeError, ValueError) as error:
            raise SurefootError(f"--optimizer {self.optimizer}: {error}") from error
        if self.schedule == "constant":
            return made, None
        schedules = torch.optim.lr_scheduler
        scheduler: Any = (
            schedules.LambdaLR(made, lambda t: 1 - t / steps)
            if self.schedule == "linear"
            else schedules.CosineAnnealingLR(made, steps)
        )
        rates = []
        for _ in range(steps):
            rates.append(float(made.param_groups[0]["lr"]))
            made.step()
            scheduler.step()
        return made, rates


@dataclass(frozen=True)
class Claim:
    """The training that the audit is held against."""

    sigma: float | None = None
    """Claimed noise multiplier."""
    q: float | None = None
    """Claimed sample rate."""
    steps: int | None = None
    """Claimed number of updates."""

    def __post_init__(self) -> None:
        if self.sigma is not None:
            check_noise(self.sigma, "sigma")
        check_size(self)

    def claimed(self) -> tuple[float, float, int] | None:
        """(sigma, q, T), or None where nothing is claimed."""
        given = (self.sigma, self.q, self.steps)
        if given == (None, None, None):
            return None
        if self.sigma is None or self.q is None or self.steps is None:
            raise SurefootError("a claim needs all of --sigma, --q and --steps")
        return self.sigma, self.q, self.steps
